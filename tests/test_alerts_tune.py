"""What tuning recommends: by the weeks that choose, told by the weeks that check, and never on too few of them."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.many_weeks import RULES, many_weeks
from sim.alerts.pages import match, pages_of
from sim.alerts.past import Past
from sim.alerts.rulefile import reads as rules_of
from sim.alerts.rules import judge
from sim.alerts.score import Judged, score
from sim.alerts.truth import Incident, Truth
from sim.alerts.tuning.grids import Grid, Tuning, reads
from sim.alerts.tuning.knobs import Knobs, Point, knobs
from sim.alerts.tuning.ledger import Campaign, Ledger, kinds, weights
from sim.alerts.tuning.rewrite import Change, rewritten
from sim.alerts.tuning.sweep import Trials
from sim.alerts.tuning.tune import Tuned, _beaters, _edges, feasible, front, plane, scored, split, tune
from sim.errors import InputError
from sim.series import SeriesSet

RULE = rules_of("groups: [{name: g, rules: [{alert: A, expr: kv > 0.5, for: 1m}]}]", "r.yml")[0].rules[0]
TURN: Knobs = knobs(RULE)
GRID = Grid((0.4, 0.5, 0.6), (0,), (0, 60_000))
SHAPE = (1, 9, 2)


def ledger(
    false: np.ndarray, detection_s: np.ndarray, week: Sequence[int], weight: Sequence[float], weeks: Sequence[float]
) -> Ledger:
    incidents = tuple(Incident(f"i{k}", k, k + 1) for k in range(len(week)))
    trials = Trials(false + 1, false, detection_s.astype(np.float32), np.zeros(SHAPE, np.int64))
    return Ledger(
        TURN, GRID, trials, np.array(weeks), ("p",) * len(week), incidents, np.array(week, int), np.array(weight)
    )


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    blocks, incidents = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    false = rng.integers(0, 4, (*SHAPE, blocks))
    delay = rng.integers(0, 5, (*SHAPE, incidents)) * 60.0
    delay[rng.random(delay.shape) < 0.3] = np.nan
    weight = rng.choice([0.0, 1.0, 2.5], incidents)
    return ledger(false, delay, rng.integers(0, blocks, incidents), weight, rng.choice([0.4, 1.0], blocks))


def by_hand(one: Ledger, index: tuple[int, int, int], weeks: np.ndarray) -> tuple[float, float, float]:
    """False pages a week, detection and recall of one setting, one incident after the other."""
    false = sum(int(one.trials.false[index][b]) for b in range(len(one.weeks)) if weeks[b])
    kept = [i for i in range(len(one.incidents)) if weeks[one.week[i]] and one.weight[i] > 0]
    found = [(float(one.trials.detection_s[index][i]), one.weight[i]) for i in kept]
    total = sum(w for _, w in found)
    caught = sum(w for d, w in found if not math.isnan(d))
    today = sum(one.weight[i] for i in kept if not np.isnan(one.trials.detection_s[one.today][i]))
    enough, so_far, after = (today or total) / 2, 0.0, math.inf
    for delay, w in sorted((d, w) for d, w in found if not math.isnan(d)):
        so_far += w
        if so_far >= enough - 1e-9:
            after = delay
            break
    nothing = not total
    return false / one.weeks[weeks].sum(), math.nan if nothing else after, math.nan if nothing else caught / total


@settings(max_examples=50)
@given(ledgers(), st.data())
def test_the_plane_is_what_counting_by_hand_says(one: Ledger, data: st.DataObject) -> None:
    weeks = np.array(data.draw(st.lists(st.booleans(), min_size=len(one.weeks), max_size=len(one.weeks))))
    weeks[0] = True
    shown = plane(one, weeks)
    for index in np.ndindex(SHAPE):
        false, after, recall = by_hand(one, index, weeks)  # type: ignore[arg-type]
        np.testing.assert_allclose(
            [shown.false_per_week[index], shown.detection_s[index], shown.recall[index]], [false, after, recall]
        )
    one_point = scored(one, one.today, weeks)
    false, after, recall = by_hand(one, one.today, weeks)
    np.testing.assert_allclose(
        [one_point.false_per_week, one_point.detection_s, one_point.recall], [false, after, recall]
    )
    if one_point.false_interval is not None:
        low, high = one_point.false_interval
        assert low <= one_point.false_per_week + 1e-9
        assert high >= one_point.false_per_week - 1e-9
    assert scored(one, one.today, weeks) == one_point or math.isnan(after)


@settings(max_examples=50)
@given(ledgers())
def test_the_front_is_beaten_by_nobody_and_the_choice_lies_on_it(one: Ledger) -> None:
    shown = plane(one, one.all_weeks)
    found = front(one, shown, 1.0)
    for index in found:
        rivals = feasible(one, shown, np.inf)[:, :3]
        faster = shown.detection_s[:, :3] < shown.detection_s[index]
        quieter = shown.false_per_week[:, :3] < shown.false_per_week[index] - 1e-9
        no_worse = (shown.detection_s[:, :3] <= shown.detection_s[index]) & (
            shown.false_per_week[:, :3] <= shown.false_per_week[index] + 1e-9
        )
        assert not (rivals & no_worse & (faster | quieter)).any()
    times = [shown.detection_s[index] for index in found]
    assert times == sorted(times)
    if not split(one)[1]:
        tuned = tune(one, 1.0)
        if tuned.recommended is not None:
            assert tuned.recommended.index in [line.index for line in tuned.front]
            inside = tuned.recommended.inside
            assert inside.false_per_week <= 1.0 + 1e-9
            assert inside.recall >= tuned.today.inside.recall - 1e-9
            assert tuned.recommended.inside.detection_s <= min(
                (line.inside.detection_s for line in tuned.front if line.inside.false_per_week <= 1.0), default=math.inf
            )
        beaten = _beaters(plane(one, tuned.chooses), one.today)
        assert (tuned.dominated_by is None) == (not beaten[:, :3].any())


@given(st.lists(st.sampled_from([0.1, 0.5, 1.0]), min_size=1, max_size=12))
def test_the_halves_are_of_similar_length(weeks: list[float]) -> None:
    one = ledger(
        np.zeros((*SHAPE, len(weeks)), int),
        np.zeros((*SHAPE, len(weeks))),
        range(len(weeks)),
        [1.0] * len(weeks),
        weeks,
    )
    chooses, why = split(one)
    if sum(weeks) < 1.89:
        assert "no holdout" in why
    elif not why:
        assert abs(one.weeks[chooses].sum() - one.weeks[~chooses].sum()) <= 1


def test_one_week_is_not_enough_and_neither_is_one_incident() -> None:
    nothing = np.zeros((*SHAPE, 1), int)
    tuned = tune(ledger(nothing, np.zeros((*SHAPE, 1)), [0], [1.0], [1.0]), 0.5)
    assert (tuned.recommended, tuned.held_out) == (None, False)
    assert tuned.why == "1 week cannot be halved: no holdout, so nothing is recommended"
    assert tuned.front
    two = tune(ledger(np.zeros((*SHAPE, 2), int), np.zeros((*SHAPE, 1)), [0], [1.0], [1.0, 1.0]), 0.5)
    assert two.recommended is None
    assert "lie in one half" in two.why


@settings(max_examples=30)
@given(ledgers())
def test_of_equals_the_one_with_safer_neighbours_is_recommended(one: Ledger) -> None:
    if split(one)[1]:
        return
    tuned = tune(one, 1.0)
    if tuned.recommended is None:
        return
    shown = plane(one, tuned.chooses)
    fine = feasible(one, shown, 1.0)
    chosen = tuned.recommended.index
    assert sum(not near.feasible for near in tuned.neighbours) == _edges(one, fine)[chosen]
    for index in np.argwhere(fine[:, :3]):
        other = tuple(index)
        same = all(table[other] == table[chosen] for table in (shown.detection_s, shown.false_per_week, shown.recall))
        assert not same or _edges(one, fine)[other] >= _edges(one, fine)[chosen]


def test_no_false_page_seen_is_at_most_three_over_the_weeks() -> None:
    one = ledger(np.zeros((*SHAPE, 4), int), np.zeros((*SHAPE, 1)), [0], [1.0], [1.0] * 4)
    assert scored(one, one.today, one.all_weeks).false_at_most == pytest.approx(0.75)


def test_a_mix_of_ones_own_counts_incidents_by_it() -> None:
    found = [
        Incident("a", 0, 1, "page", objective="errors 1%"),
        Incident("b", 2, 3, "ticket", causes=("crash chat/0",)),
        Incident("c", 4, 5, "ticket"),
    ]
    assert kinds(found[1]) == {"ticket", "crash chat/0", "crash"}
    assert weights(found, 2.0, Tuning()) == [1, 1, 1]
    assert weights(found, 2.0, reads("mix: {page: 3/week, ticket: 0.5}", "t")) == [6, 0.5, 0.5]
    assert weights(found, 2.0, reads("mix: {errors: 1/week}", "t")) == [2, 0, 0]
    with pytest.raises(InputError, match="t: mix: no incident is called 'pag', so none can stand for it; did you mean"):
        weights(found, 2.0, reads("mix: {pag: 1/week}", "t"))
    with pytest.raises(InputError, match="t: mix: b is crash and ticket; expected names of which"):
        weights(found, 2.0, reads("mix: {crash: 1/week, ticket: 1/week}", "t"))


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Past, SeriesSet, list[Incident]]:
    series, incidents = many_weeks(4, 120)
    path = tmp_path_factory.mktemp("weeks") / "weeks.parquet"
    series.write(path)
    return Past("weeks", path), series, incidents


TEXT = RULES.format(interval="2m")


def tuned_on(weeks: tuple[Past, SeriesSet, list[Incident]], text: str, tuning: Tuning) -> list[Tuned]:
    past, _, incidents = weeks
    campaign = Campaign(rules_of(text, "five.yml"), tuning, 120_000)
    campaign.play("weeks", past, Truth(tuple(incidents), "known", 0, past.span_ms[1]))
    return [tune(one, 0.5) for one in campaign.ledgers()]


def test_what_is_recommended_is_what_the_written_rules_do(weeks: tuple[Past, SeriesSet, list[Incident]]) -> None:
    past, series, incidents = weeks
    tuned = tuned_on(weeks, TEXT, Tuning())
    assert [one.ledger.knobs.rule.name for one in tuned] == [
        "ErrorsHigh",
        "AnswersSlow",
        "P95High",
        "KVHigh",
        "QualityLow",
    ]
    chosen = [one for one in tuned if one.recommended is not None]
    assert chosen
    changes = [Change(one.ledger.knobs, one.recommended.inside.point) for one in chosen if one.recommended]
    again = judge(rules_of(rewritten(TEXT, "five.yml", changes), "five.yml"), series, span_ms=past.span_ms)
    for one in chosen:
        assert one.recommended is not None
        assert one.recommended.outside is not None
        judged = next(j for j in again if j.rule.name == one.ledger.knobs.rule.name)
        pages = pages_of(judged.episodes)
        assert one.recommended.inside.pages + one.recommended.outside.pages == len(pages)
        needed = [i for i in incidents if i.severity == "page" or one.ledger.knobs.rule.labels["severity"] == "ticket"]
        found = match(pages, incidents)
        caught = {i.id for i, hit in zip(incidents, found.caught) if hit}
        assert one.recommended.inside.caught + one.recommended.outside.caught == len(caught & {i.id for i in needed})
        assert one.recommended.inside.false + one.recommended.outside.false == (~found.true).sum()
        assert {i.id for _, i in one.ledger.missed(one.recommended.index)} == {i.id for i in needed} - caught


def test_today_is_what_the_score_says(weeks: tuple[Past, SeriesSet, list[Incident]]) -> None:
    past, series, incidents = weeks
    truth = Truth(tuple(incidents), "known", 86_400_000, past.span_ms[1])
    judged = judge(rules_of(TEXT, "five.yml"), series, span_ms=past.span_ms)
    scores, _ = score([Judged("weeks", truth, past.span_ms[1], judged)])
    campaign = Campaign(rules_of(TEXT, "five.yml"), Tuning(), 120_000)
    campaign.play("weeks", past, truth)
    for theirs, ours in zip(scores, campaign.ledgers(), strict=True):
        today = scored(ours, ours.today, ours.all_weeks)
        assert (today.pages, today.false) == (theirs.pages, theirs.false)
        assert (today.incidents, today.caught) == (theirs.incidents, theirs.caught)
        assert today.weeks == pytest.approx(theirs.weeks)
        after = theirs.detection_s  # sorted; of an even number the lower middle one is ours
        assert today.detection_s == (after[(len(after) - 1) // 2] if len(after) else math.inf)
        assert ours.missed(ours.today) == theirs.missed


def test_what_fires_from_before_the_watch_is_not_called_silent(weeks: tuple[Past, SeriesSet, list[Incident]]) -> None:
    past, _, incidents = weeks
    tuning = reads("rules: {AnswersSlow: {threshold: [-1]}}", "t.yaml")
    campaign = Campaign(rules_of(TEXT, "five.yml"), tuning, 120_000)
    campaign.play("weeks", past, Truth(tuple(incidents), "known", 86_400_000, past.span_ms[1]))
    one = tune(campaign.ledgers()[0], 0.5)
    assert (one.never, one.always) == (0, 1)


def test_slow_answers_are_found_sooner_and_blips_are_left_alone(weeks: tuple[Past, SeriesSet, list[Incident]]) -> None:
    one = next(t for t in tuned_on(weeks, TEXT, Tuning()) if t.ledger.knobs.rule.name == "AnswersSlow")
    assert one.recommended is not None
    assert one.recommended.outside is not None
    assert one.today.outside is not None
    assert one.recommended.inside.detection_s < one.today.inside.detection_s
    assert one.recommended.outside.detection_s < one.today.outside.detection_s
    assert one.recommended.outside.false_per_week <= 1
    assert one.dominators > 0
    assert {near.different for near in one.neighbours} >= {"threshold -20%", "threshold +20%", "window one step higher"}
    assert any(not near.feasible for near in one.neighbours) or len(one.neighbours) >= 5


def test_several_pasts_are_one_campaign(weeks: tuple[Past, SeriesSet, list[Incident]]) -> None:
    past, _, incidents = weeks
    tuning = reads("rules: {AnswersSlow: {for: [0s, 10m]}}", "t.yaml")
    campaign = Campaign(rules_of(TEXT, "five.yml"), tuning, 120_000)
    for name in ("a", "b"):
        campaign.play(name, past, Truth(tuple(incidents), "known", 0, past.span_ms[1]))
    (one,) = campaign.ledgers()
    assert one.weeks == pytest.approx([1] * 8, abs=0.01)
    assert len(one.incidents) == 2 * len(incidents)
    assert one.week.max() == 7
    assert {rule.name: why for rule, why in campaign.silent}["KVHigh"] == "t.yaml does not ask for it"
    (alone,) = tuned_on(weeks, TEXT, tuning)
    twice = scored(one, one.today, one.all_weeks)
    once = scored(alone.ledger, one.today, alone.ledger.all_weeks)
    assert (twice.false, twice.caught, twice.detection_s) == (2 * once.false, 2 * once.caught, once.detection_s)


def test_a_rule_of_tickets_answers_for_all_incidents_one_of_pages_for_those(
    weeks: tuple[Past, SeriesSet, list[Incident]],
) -> None:
    by_name = {one.ledger.knobs.rule.name: one.ledger for one in tuned_on(weeks, TEXT, Tuning())}
    assert by_name["KVHigh"].weight.min() == 1
    pages = [one.severity == "page" for one in weeks[2]]
    assert (by_name["ErrorsHigh"].weight > 0).tolist() == pages


def test_a_recorded_series_feeds_the_rules_that_are_tuned(weeks: tuple[Past, SeriesSet, list[Incident]]) -> None:
    text = TEXT.replace(
        "      - alert: ErrorsHigh", "      - {record: kv:avg, expr: avg(kv)}\n      - alert: ErrorsHigh"
    )
    text = text.replace("avg by (instance) (avg_over_time(kv[5m]))", "kv:avg")
    kv = next(one for one in tuned_on(weeks, text, Tuning()) if one.ledger.knobs.rule.name == "KVHigh")
    assert kv.ledger.grid.windows_ms == (0,)
    assert kv.ledger.trials.pages.sum() > 0


def test_what_never_and_always_fires_is_counted(weeks: tuple[Past, SeriesSet, list[Incident]]) -> None:
    tuning = reads("rules: {AnswersSlow: {threshold: [-1, 2]}}", "t.yaml")
    (one,) = tuned_on(weeks, TEXT, tuning)
    assert (one.never, one.always) == (1, 1)


def test_weeks_that_choose_flatter(weeks: tuple[Past, SeriesSet, list[Incident]]) -> None:
    """Tuned on noise alone, the best setting looks better on the weeks that chose it than on the others."""
    rng = np.random.default_rng(7)
    gaps = []
    for _ in range(30):
        false, delay = rng.poisson(0.5, (*SHAPE, 4)), rng.exponential(300, (*SHAPE, 12))
        tuned = tune(ledger(false, delay, [k % 4 for k in range(12)], [1.0] * 12, [1.0] * 4), 0.5)
        if tuned.recommended is not None and tuned.recommended.outside is not None:
            gaps.append(tuned.recommended.outside.detection_s - tuned.recommended.inside.detection_s)
    assert len(gaps) > 20
    assert np.mean(gaps) > 30


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rulez: {}", "t.yaml:1: no key 'rulez' here; did you mean 'rules'?"),
        ("[1]", "t.yaml:1: expected a mapping of rules, max_false_pages_per_week, mix, got a list"),
        ("rules:\n  A: {thresholds: [1]}", "t.yaml:2: rules: A: no key 'thresholds' here; did you mean 'threshold'?"),
        (
            "rules:\n  A:\n    window: [5]",
            "t.yaml:3: rules: A: window: 0: expected a duration such as 5m or 1h30m, got 5",
        ),
        (
            "rules: {A: {for: []}}",
            "t.yaml:1: rules: A: for: expected a list with at least one value, got an empty list",
        ),
        ("rules: {A: {for: 5m}}", "expected a list with at least one value, got '5m'"),
        ("rules: {A: {window: [0s]}}", "expected a duration above 0, got '0s'"),
        ("rules: {A: {threshold: [x]}}", "threshold: 0: expected a number or a percentage such as 0.5%, got 'x'"),
        ("rules: {A: {threshold: {from: 1, to: 2}}}", "threshold: expected from, to and steps, got a mapping"),
        ("rules: {A: {threshold: {from: 2, to: 1, steps: 3}}}", "to: expected more than from, got 1"),
        ("rules: {A: {threshold: {from: 1, to: 2, steps: 1}}}", "steps: expected a whole number from 2, got 1"),
        ("rules: {A: {}}", "rules: A: expected threshold, window or for, got an empty mapping"),
        ("rules: {}", "rules: expected the name of at least one rule"),
        ("max_false_pages_per_week: -1", "max_false_pages_per_week: expected a number, not below 0, got -1"),
        ("mix: {page: 2/fortnight}", "mix: page: expected incidents a day, week, month or year, such as 2/month"),
        ("a: [", "t.yaml:1: not YAML"),
    ],
)
def test_a_mistake_in_a_tuning_file_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        reads(text, "t.yaml")
    assert said in str(caught.value)


def test_a_tuning_file_says_what_to_try() -> None:
    text = (
        "max_false_pages_per_week: 2\nmix: {page: 3/month}\nrules:\n  A: {threshold: {from: 10%, to: 90%, steps: 3}}\n"
    )
    made = reads(text, "t.yaml")
    assert (made.max_false_pages_per_week, made.mix) == (2, {"page": pytest.approx(0.7)})
    grid = made.grid(TURN, 15_000)
    assert grid == Grid((0.1, 0.3, 0.5, 0.9), (0,), (60_000,))
    with pytest.raises(InputError, match="t.yaml:4: rules: no alert is called 'A'; did you mean 'AB'"):
        made.check(["AB"])
    windowed = reads("rules: {A: {window: [5m]}}", "t.yaml")
    with pytest.raises(InputError, match="t.yaml:1: rules: A: window: the rule compares no range"):
        windowed.grid(TURN, 15_000)
    many = reads("rules: {A: {threshold: {from: 1, to: 9000000, steps: 20000}, for: [0s, 2m]}}", "t.yaml")
    with pytest.raises(InputError, match="t.yaml: A: expected at most 20,000 settings, got"):
        many.grid(TURN, 15_000)


def test_the_point_of_today_is_where_the_rule_stands() -> None:
    assert TURN.today == Point(0.5, 0, 60_000)
    assert GRID.at(GRID.index(TURN.today)) == TURN.today
