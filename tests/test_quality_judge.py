"""The judge: a request is as wrong as before, whatever else happens; its counts are those of its verdicts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from sim.ids import request_id
from sim.quality.chances import CELLS, chances, logits
from sim.quality.judge import OPEN, Cause, Judge, Rules, metrics
from sim.records import ATTEMPT, REQUEST, Answerer, Outcome

N = 40_000


def ended(n: int = N, sessions: int = 0, **columns: object) -> np.ndarray:
    rows = np.zeros(n, ATTEMPT)
    rows["request"] = np.arange(n)
    rows["session"] = np.arange(n) // sessions if sessions else -1
    rows["scheduled_s"] = rows["sent_s"] = np.linspace(0.0, 3600.0, n, endpoint=False)
    rows["admitted_s"] = rows["sent_s"] + 0.1
    rows["first_token_s"] = rows["sent_s"] + 0.5
    rows["finished_s"] = rows["sent_s"] + 2.0
    for name, value in columns.items():
        rows[name] = value
    return rows


def judge(**rules: object) -> Judge:
    return Judge(Rules(**({"errors": (0.02,), "evaluate": (0.0,)} | rules)), seed=7, pools=2, duration_s=3600.0)  # type: ignore[arg-type]


def near(share: float, n: float) -> object:
    return pytest.approx(share, abs=5.0 * (share * (1.0 - share) / n) ** 0.5 + 1e-9)


@pytest.mark.parametrize("error", [0.001, 0.01, 0.2, 0.5, 0.95])
@pytest.mark.parametrize("discrimination", [None, 0.001, 0.03, 0.5, 2.0, 50.0, 1e15])
@pytest.mark.parametrize("user_sigma", [0.0, 1.0])
def test_the_mean_chance_is_the_error_of_the_cohort(
    error: float, discrimination: float | None, user_sigma: float
) -> None:
    chance = chances(error, discrimination)
    assert chance.mean() == pytest.approx(error, rel=1e-6)
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    wrong = special.expit(-(logits(chance, user_sigma)[:, None] + user_sigma * nodes))
    assert (wrong @ weights).mean() / weights.sum() == pytest.approx(error, rel=1e-3)


def test_chances_are_beta_distributed() -> None:
    chance = chances(0.2, 3.0)
    middle = (np.arange(CELLS) + 0.5) / CELLS
    assert np.abs(stats.beta(0.6, 2.4).cdf(chance) - middle).max() < 1e-3


@settings(max_examples=25, deadline=None)
@given(
    error=st.floats(0.001, 0.5),
    more=st.floats(1.0, 1.5),
    share=st.floats(0.01, 1.0),
    struck=st.floats(0.05, 1.0),
    sure=st.booleans(),
)
def test_a_cause_more_leaves_everybody_else_as_wrong_as_before(
    error: float, more: float, share: float, struck: float, sure: bool
) -> None:
    rows = ended(5_000)
    common = {"confidence": (2.0, 1.0, 0.0, 0.5)} if sure else {}
    plain = judge(errors=(error,), **common).judge(rows)
    worse = judge(errors=(error,), causes=(Cause("dates", struck, share=share),), **common).judge(rows)
    assert (worse["wrong"] >= plain["wrong"]).all()
    assert (worse["wrong"][worse["cause"] != 1] == plain["wrong"][worse["cause"] != 1]).all()
    assert (worse["cause"] == 1).mean() == near(share * struck, 5_000)
    if not sure:
        larger = judge(errors=(min(1.0, error * more),)).judge(rows)
        assert (larger["wrong"] >= plain["wrong"]).all()


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 500), order=st.randoms(use_true_random=False))
def test_a_verdict_depends_on_the_request_and_not_on_when_it_is_asked_for(cut: int, order: object) -> None:
    causes = (Cause("a", 0.5, share=0.3, by_session=True), Cause("b", 0.9, latency="queue", above_s=0.05))
    one = judge(causes=causes, user_sigma=0.7, confidence=(2.0, 3.0, 0.0, 1.0))
    rows = ended(500, sessions=4)
    whole = one.judge(rows)
    parts = np.concatenate([one.judge(rows[:cut]), one.judge(rows[cut:])])
    assert whole.tobytes() == parts.tobytes()
    shuffled = np.arange(500)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert one.judge(rows[shuffled]).tobytes() == whole[shuffled].tobytes()


CAUSES = st.builds(
    Cause,
    name=st.sampled_from(["a", "b", "c"]),
    error=st.sampled_from([0.05, 0.5, 1.0]),
    share=st.sampled_from([0.3, 1.0]),
    by_session=st.booleans(),
    cohorts=st.sampled_from([None, frozenset({1})]),
    replicas=st.sampled_from([None, frozenset({0, 3})]),
    latency=st.sampled_from(["", "ttft"]),
    above_s=st.just(0.5),
    from_s=st.just(600.0),
    until_s=st.sampled_from([1800.0, 3600.0]),
    grows=st.booleans(),
    visible=st.booleans(),
)


@settings(max_examples=25, deadline=None)
@given(
    causes=st.lists(CAUSES, max_size=3, unique_by=lambda one: one.name),
    difficulty=st.sampled_from([(), (2.0, None)]),
    systematic=st.sampled_from([(), (0.5, 0.0)]),
    user_sigma=st.sampled_from([0.0, 0.8]),
    happens=st.integers(0, 2**32 - 1),
)
def test_what_is_foreseen_comes_true_whatever_happens(
    causes: list[Cause], difficulty: tuple[float | None, ...], systematic: tuple[float, ...], user_sigma: float,
    happens: int,
) -> None:  # fmt: skip
    n, rng = 600, np.random.default_rng(happens)
    rules = {"causes": tuple(causes), "difficulty": difficulty, "systematic": systematic, "user_sigma": user_sigma}
    one = judge(errors=(0.3, 0.1), evaluate=(0.0, 0.0), confidence=(2.0, 1.0, 0.0, 0.0), **rules)
    asked = np.zeros(n, REQUEST)
    asked["session"], asked["cohort"] = np.arange(n) // 6, np.arange(n) // 6 % 2
    asked["request"] = request_id(asked["session"], np.arange(n) // 2 % 3, np.arange(n) % 2)
    foreseen = one.foresee(asked)
    rows = ended(n, **{name: asked[name] for name in ("request", "session", "cohort")})
    rows["replica"], rows["answerer"] = rng.integers(-1, 4, n), rng.integers(0, 2, n)
    rows["first_token_s"] = rows["sent_s"] + rng.random(n)
    wrong = one.judge(rows)["wrong"]
    known = foreseen != OPEN
    assert (wrong[known] == foreseen[known]).all()
    assert (foreseen == 1).any()
    assert causes or ((foreseen == 0).any() and known.all())


def test_who_is_concerned_is_who_the_cause_says() -> None:
    rows = ended(
        cohort=np.arange(N) % 2, replica=np.arange(N) % 8, finished_s=np.linspace(0.0, 3600.0, N) + np.arange(N) % 5
    )
    rows["replica"][::11], rows["answerer"][::11] = -1, Answerer.FALLBACK
    causes = (
        Cause("cohort", 1.0, cohorts=frozenset({1}), until_s=600.0),
        Cause("place", 1.0, replicas=frozenset({2, 3}), from_s=600.0, until_s=1200.0),
        Cause("rules", 1.0, rules=True, from_s=1200.0, until_s=1800.0),
        Cause("slow", 1.0, latency="e2e", above_s=2.5, from_s=1800.0, until_s=2400.0),
        Cause("drift", 0.8, from_s=2400.0, until_s=3000.0, grows=True),
    )
    said = judge(errors=(0.0, 0.0), evaluate=(0.0, 0.0), causes=causes).judge(rows)
    sent, wrong, model = rows["sent_s"], said["wrong"] == 1, rows["replica"] >= 0
    assert (wrong[sent < 600] == (model & (rows["cohort"] == 1))[sent < 600]).all()
    part = (sent >= 600) & (sent < 1200)
    assert (wrong[part] == np.isin(rows["replica"][part], [2, 3])).all()
    part = (sent >= 1200) & (sent < 1800)
    assert (wrong[part] == (rows["replica"][part] < 0)).all()
    part = (sent >= 1800) & (sent < 2400)
    assert (wrong[part] == (model & (rows["finished_s"] - rows["scheduled_s"] > 2.5))[part]).all()
    assert wrong[model & (sent >= 2400) & (sent < 3000)].mean() == near(0.4, N / 6)
    assert wrong[model & (sent >= 3000)].mean() == near(0.8, N / 6), "a drift stays where it has come to"


def test_nobody_is_wrong_who_was_not_answered() -> None:
    rows = ended(outcome=Outcome.TIMED_OUT)
    one = judge(errors=(1.0,))
    said = one.take(rows)
    assert not said["wrong"].any()
    assert (said["cause"] == -1).all()
    found = metrics(one, ["all"])
    assert found["bad"] == 1.0, "who refuses everybody has not become better"
    assert np.isnan(found["wrong_share"])


def test_users_differ_and_the_mean_stays() -> None:
    rows = ended(sessions=20)
    said = judge(errors=(0.1,), user_sigma=1.5).judge(rows)
    assert said["wrong"].mean() == pytest.approx(0.1, abs=0.02)
    by_user = said["wrong"].reshape(-1, 20).sum(axis=1)
    assert by_user.var() > 2.0 * 20 * 0.1 * 0.9, "more spread than chance alone makes"


def test_confidence_tells_right_from_wrong_as_well_as_it_is_told_to() -> None:
    rows = ended()
    for discrimination, better in ((1.0, 0.95), (200.0, 0.4)):
        said = judge(errors=(0.1,), confidence=(discrimination, 1.0, 0.0, 0.0)).judge(rows)
        right, wrong = said["confidence"][said["wrong"] == 0], said["confidence"][said["wrong"] == 1]
        auroc = stats.mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong))
        assert (auroc > better) if discrimination == 1.0 else (0.5 < auroc < 0.7)
        assert said["confidence"].mean() == pytest.approx(0.9, abs=0.01), "calibrated unless told otherwise"
    surer = judge(errors=(0.1,), confidence=(1.0, 3.0, 0.0, 0.0)).judge(rows)
    assert (surer["wrong"] == judge(errors=(0.1,), confidence=(1.0, 1.0, 0.0, 0.0)).judge(rows)["wrong"]).all()


def test_a_visible_cause_lowers_confidence_and_a_hidden_one_does_not() -> None:
    rows = ended()
    made = [
        judge(errors=(0.05,), confidence=(2.0, 1.0, 0.0, 0.0), causes=(Cause("x", 0.5, visible=visible),)).judge(rows)
        for visible in (False, True)
    ]
    assert (made[0]["wrong"] == made[1]["wrong"]).all()
    assert made[0]["confidence"].mean() == pytest.approx(0.95, abs=0.01)
    assert made[1]["confidence"].mean() == pytest.approx(0.475, abs=0.01)


def test_versions_answer_the_share_they_were_given_for_whole_sessions() -> None:
    one = judge(versions=("", "b"), causes=(Cause("prompt", 1.0, version=1, kind=3),), errors=(0.0,))
    one.release(600.0, 1, 0.05)
    one.release(1200.0, 1, 0.5)
    one.release(1800.0, 1, 0.0)
    rows = ended(sessions=0)
    said = one.take(rows)
    b = said["version"] == 1
    assert (said["wrong"] == b).all()
    shares = [b[(rows["sent_s"] >= at) & (rows["sent_s"] < at + 600)].mean() for at in range(0, 3600, 600)]
    assert shares == [0.0, near(0.05, N / 6), near(0.5, N / 6), 0.0, 0.0, 0.0]
    talk = ended(600, sessions=6, sent_s=1300.0)
    of_session = one.versions(talk).reshape(-1, 6)
    assert (of_session == of_session[:, :1]).all()
    found = metrics(one, ["all"])
    assert found["version.b.wrong"] == found["kind.format.wrong"] == found["cause.prompt.wrong"] == b.sum()


@settings(max_examples=10, deadline=None)
@given(pieces=st.lists(st.integers(1, 4000), min_size=1, max_size=6), delay_s=st.sampled_from([0.0, 90.0]))
def test_counts_are_those_of_the_verdicts_in_whatever_pieces_they_come(pieces: list[int], delay_s: float) -> None:
    n = sum(pieces)
    rows = ended(n, cohort=np.arange(n) % 2, pool=np.arange(n) % 2)
    rows["outcome"][::7] = Outcome.FAILED
    make = {"errors": (0.3, 0.1), "evaluate": (0.5, 1.0), "sensitivity": 0.9, "specificity": 0.95, "delay_s": delay_s}
    one, whole = judge(**make), judge(**make)
    said = np.concatenate([one.take(part) for part in np.split(rows, np.cumsum(pieces)[:-1])])
    whole.take(rows)
    assert (one.tally == whole.tally).all()
    assert one.tally.sum(axis=(0, 1, 2)).tolist() == [n, (rows["outcome"] == 0).sum(), said["wrong"].sum()]
    for now_s in (0.0, 1800.0, 1e6):
        assert (one.seen(now_s) == whole.seen(now_s)).all()
        known = (rows["finished_s"] + delay_s <= now_s) & (rows["outcome"] == 0) & (rows["cohort"] == 1)
        assert one.seen(now_s)[:, 1, 0, 0].sum() == known.sum(), "all of a cohort whose share is 1"


def test_an_evaluator_errs_as_often_as_said() -> None:
    one = judge(errors=(0.3,), evaluate=(1.0,), sensitivity=0.8, specificity=0.9)
    rows = ended()
    said = one.judge(rows)
    flagged = one.flags(rows, said)
    assert flagged[said["wrong"] == 1].mean() == near(0.8, 0.3 * N)
    assert flagged[said["wrong"] == 0].mean() == near(0.1, 0.7 * N)


def test_what_is_wrong_with_a_model_is_not_wrong_with_rules() -> None:
    rows = ended(4_000)
    rows["replica"][::2], rows["answerer"][::2] = -1, Answerer.FALLBACK
    everywhere, rules = Cause("regression", 0.5), Cause("rules", 0.1, rules=True)
    verdicts = judge(errors=(0.0,), causes=(everywhere, rules)).judge(rows)
    assert set(verdicts["cause"][::2]) == {-1, 2}
    assert set(verdicts["cause"][1::2]) == {-1, 1}
    assert (verdicts["cause"][1::2] == 1).mean() == near(0.5, 2_000)
