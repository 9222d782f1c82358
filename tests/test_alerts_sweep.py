"""What is swept is what would be judged: every setting of a rule against its rewritten text and the state machine."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.alerts.pages import match, pages_of
from sim.alerts.promql.store import Store
from sim.alerts.rulefile import Rule, reads
from sim.alerts.rules import judge
from sim.alerts.states import episodes
from sim.alerts.truth import Incident
from sim.alerts.tuning.grids import FORS_MS, Grid, Tuning, around, nearby
from sim.alerts.tuning.knobs import Knobs, Point, UntunableError, duration, knobs
from sim.alerts.tuning.sweep import Runs, Trials, Weeks, firing, sweep, thresholds_tried
from sim.series import NAME, STALE, SeriesSet

EVERY_MS = 15_000


def rule_of(expr: str, extra: str = "") -> Rule:
    text = f"groups: [{{name: g, interval: 15s, rules: [{{alert: A, expr: {expr!r}{extra}}}]}}]"
    return reads(text, "r.yml")[0].rules[0]


def series(seed: int, n: int = 400) -> SeriesSet:
    """Gauges that wander around 0.5 with gaps and stale markers, and counters of requests and errors."""
    rng = np.random.default_rng(seed)
    t_ms = np.arange(n) * EVERY_MS
    made = SeriesSet()
    for i in "ab":
        gauge = 0.5 + 0.3 * np.sin(np.arange(n) / rng.uniform(5, 40)) + rng.normal(0, 0.15, n)
        gauge[rng.random(n) < 0.01] = STALE[0]
        kept = rng.random(n) > 0.05
        made.add({NAME: "kv", "i": i}, t_ms[kept], gauge[kept])
        made.add({NAME: "waiting", "i": i}, t_ms, rng.poisson(1 + 2 * (gauge > 0.6)).astype(float))
        total = rng.poisson(20, n)
        bad = rng.binomial(total, np.where(np.arange(n) // 40 % 3 == 0, 0.1, 0.01))
        made.add({NAME: "all_total", "i": i}, t_ms, total.cumsum().astype(float))
        made.add({NAME: "bad_total", "i": i}, t_ms, bad.cumsum().astype(float))
    return made


RULES = (
    "kv > 0.6",
    "kv < 0.3",
    "avg_over_time(kv[1m]) >= 0.6",
    "max by (i) (kv) > 0.7 and on (i) waiting > 2",
    "(rate(bad_total[2m]) / rate(all_total[2m])) > 0.5 * 0.1 unless on (i) waiting > 3",
    'sum(rate(bad_total{i!="c"}[5m])) / sum(rate(all_total[5m])) > 0.03 # a comment > 2',
    "1 - sum(increase(bad_total[1m])) / sum(increase(all_total[1m])) < 0.97",
)


FORS = (", for: 1m", ", for: 30s, keep_firing_for: 2m")


@pytest.mark.parametrize(("expr", "extra"), [(expr, FORS[i % 2]) for i, expr in enumerate(RULES)])
def test_every_setting_is_what_the_rewritten_rule_does(expr: str, extra: str) -> None:
    held, store = series(1, 240), Store(series(1, 240))
    turn = knobs(rule_of(expr, extra))
    own = turn.today.window_ms
    grid = Grid(around(turn.today.threshold)[3::5], (60_000, 120_000) if own else (0,), (0, 120_000))
    t_ms = np.arange(0, 240 * EVERY_MS, EVERY_MS)
    incidents = [Incident("i1", 900_000, 1_200_000), Incident("i2", 3_300_000, 3_400_000)]
    got = sweep(turn, grid, store, t_ms, Weeks.cut(600_000, int(t_ms[-1])), incidents)
    assert got.pages.sum() > 0
    for w, window_ms in enumerate(grid.windows_ms):
        for k, threshold in enumerate(thresholds_tried(grid)):
            for f, for_ms in enumerate(grid.fors_ms):
                text = turn.text(Point(float(threshold), window_ms, for_ms))
                again = rule_of(text, extra.replace("1m" if "1m" in extra else "30s", duration(for_ms), 1))
                (judged,) = judge(reads(_file(again), "r.yml"), held)
                whole = pages_of(judged.episodes)
                pages, already = whole.since(600_000), whole.already(600_000)
                matching = match(pages, incidents)
                place = (w, k, f)
                assert got.pages[place].sum() == len(pages) + already, text
                assert got.false[place].sum() == (~matching.true).sum() + already
                np.testing.assert_array_equal(
                    got.detection_s[place], np.where(matching.caught, matching.detection_s, np.nan)
                )


def _file(rule: Rule) -> str:
    more = f", keep_firing_for: {duration(rule.keep_firing_for_ms)}" if rule.keep_firing_for_ms else ""
    inside = f"{{alert: A, expr: {rule.text!r}, for: {duration(rule.for_ms)}{more}}}"
    return f"groups: [{{name: g, interval: 15s, rules: [{inside}]}}]"


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 5), st.integers(0, 5), st.data())
def test_firing_is_what_the_state_machine_says(true: list[bool], for_: int, keep: int, data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.integers(1, 3), min_size=len(true), max_size=len(true)))
    t_ms = np.cumsum(gaps)
    values = np.array(true, float)
    runs = Runs.of(values, np.ones(len(true), bool), ">", np.array([0.5, 0.7]))
    which, start, end = firing(runs, t_ms, for_, keep)
    expected = [
        (one.firing_ms, one.ended_ms or 1 << 38)
        for one in episodes((), t_ms, np.array(true), for_, keep)
        if one.firing_ms is not None
    ]
    for lane in (0, 1):
        assert list(zip(start[which == lane], end[which == lane])) == expected


spans = st.tuples(st.integers(0, 60), st.integers(1, 30)).map(lambda pair: (pair[0] * 60_000, sum(pair) * 60_000))


@settings(max_examples=15)
@given(st.lists(spans, max_size=4), st.integers(0, 1000))
def test_what_is_counted_is_what_matching_says(given_: Sequence[tuple[int, int]], seed: int) -> None:
    incidents = [Incident(f"i{n}", *span) for n, span in enumerate(sorted(given_))]
    held = series(seed, 240)
    turn = knobs(rule_of("kv > 0.6"))
    grid = Grid((0.6, 0.8), (0,), (0, 60_000))
    t_ms = np.arange(0, 240 * EVERY_MS, EVERY_MS)
    got = sweep(turn, grid, Store(held), t_ms, Weeks.cut(0, int(t_ms[-1])), incidents)
    for k, threshold in enumerate(grid.thresholds):
        for f, for_ms in enumerate(grid.fors_ms):
            (judged,) = judge(reads(_file(rule_of(f"kv > {threshold}", f", for: {duration(for_ms)}")), "r"), held)
            matching = match(pages_of(judged.episodes), incidents)
            assert got.false[0, k, f].sum() == (~matching.true).sum()
            np.testing.assert_array_equal(
                got.detection_s[0, k, f], np.where(matching.caught, matching.detection_s, np.nan)
            )


@pytest.mark.parametrize(
    ("expr", "why"),
    [
        ("kv", "its expression is no comparison"),
        ("kv > 1 or waiting > 3", "no comparison such as A > 0.9, perhaps with `and B` (or)"),
        ("kv > bool 0.9", "with bool"),
        ("kv == 0", "compares with =="),
        ("kv > waiting", "is no number"),
        ("(kv > 0.5) * 2 > 1", "compares twice"),
        ("absent(kv)", "its expression is no comparison"),
        ("kv > Inf", "is no number"),
        ("topk(1, kv) > 1", "the aggregation topk"),
    ],
)
def test_a_rule_of_another_shape_says_so(expr: str, why: str) -> None:
    with pytest.raises(UntunableError) as caught:
        knobs(rule_of(expr))
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("expr", "number", "ranges"),
    [
        ("kv > 0.9", "0.9", ()),
        ("kv{a=\"x>1\", b!='y'} >= (0.5*2)+1 and b > 3", "(0.5*2)+1", ()),
        ("(rate(x_total[5m]) / rate(y_total[5m])) > 1e-2", "1e-2", ("5m", "5m")),
        ("(rate(x_total[5m]) > 0.1) and sum(rate(x_total[1h])) > 2", "0.1", ("5m",)),
        ("rate(x_total[5m]) / rate(x_total[1h]) > 2", "2", ()),
        ("(\n  rate(x_total[300s]) # [1h] > 3\n  <\n  -1\n)", "-1", ("300s",)),
        ("-kv < - 0.5", "- 0.5", ()),
        ("kv > 0.751953", "0.751953", ()),  # and a half is no round number
    ],
)
def test_the_knobs_are_found_in_the_text(expr: str, number: str, ranges: tuple[str, ...]) -> None:
    text = "groups: [{name: g, rules: [{alert: A, expr: " + json.dumps(expr) + "}]}]"
    found = knobs(reads(text, "r")[0].rules[0])
    assert found.rule.text[slice(*found.number)] == number
    assert tuple(found.rule.text[slice(*span)] for span in found.ranges) == ranges


def test_thresholds_around_a_share_stay_shares() -> None:
    assert max(around(0.5)) <= 1
    assert around(0.01)[:3] == (0.003, 0.0037, 0.0046)
    assert around(0.01)[-1] == 0.03
    assert all(0 < x < 1 for x in around(0.9))
    assert {0.7, 0.97} <= set(around(0.9))
    assert len(around(40)) == 12
    assert nearby(0.9, 0.2) == pytest.approx((0.88, 0.92))
    assert nearby(10, 0.2) == pytest.approx((8, 12))


def test_windows_hold_four_scrapes_at_least() -> None:
    turn = knobs(rule_of("rate(x_total[5m]) > 0.1", ", for: 3m"))
    grid = Tuning().grid(turn, 60_000)
    assert grid is not None
    assert grid.windows_ms == (300_000, 600_000, 1_800_000, 3_600_000)
    assert grid.fors_ms == tuple(sorted({*FORS_MS, 180_000}))
    assert grid.at(grid.index(turn.today)) == turn.today


def test_weeks_of_a_past() -> None:
    week = 7 * 86_400_000
    assert Weeks.cut(0, 4 * week - 15_000).weeks == pytest.approx([1, 1, 1, 1], abs=0.001)
    assert Weeks.cut(week, week + week // 2).weeks == pytest.approx([0.5])
    assert Weeks.cut(0, 3 * week // 2).weeks == pytest.approx([1, 0.5])
    assert Weeks.cut(0, 2 * week).of(np.array([0, week - 1, week, 2 * week])).tolist() == [0, 0, 1, 1]


def test_pasts_lie_one_after_the_other() -> None:
    turn: Knobs = knobs(rule_of("kv > 0.6"))
    grid, t_ms = Grid((0.6,), (0,), (0,)), np.arange(0, 400 * EVERY_MS, EVERY_MS)
    parts = [
        sweep(turn, grid, Store(series(seed)), t_ms, Weeks.cut(0, int(t_ms[-1])), [Incident("i", 0, 60_000 * seed)])
        for seed in (1, 2)
    ]
    both = Trials.together(parts)
    assert both.pages.shape == (1, 3, 1, 2)
    assert both.detection_s.shape == (1, 3, 1, 2)
    assert both.firing_ms[0, 0, 0] == parts[0].firing_ms[0, 0, 0] + parts[1].firing_ms[0, 0, 0]
