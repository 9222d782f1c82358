"""Claims: what can be stated, what is refused, and how a statement is judged over seeds."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import summary
from sim.claims import WINDOWED, Verdict, beyond, check_metrics, evaluate, needs_control, parse, point_of, window_of
from sim.errors import ScenarioError
from sim.records import Outcome
from sim.scenario import loads
from sim.world import World

ONE: list[dict[str, Any]] = [{}]
LOADS = [{"workload.rate_per_s": 6.0}, {"workload.rate_per_s": 7.2}]


def judge(text: str, *seeds: dict[str, float]) -> Verdict:
    return evaluate({"it": text}, ONE, [list(seeds) or [{}]])[0]


def refused(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse(text, "x.yaml:3: claims.it")
    return str(caught.value).removeprefix("x.yaml:3: claims.it: ")


# --- reading --------------------------------------------------------------------------------------------------------


def test_a_claim_knows_its_metrics() -> None:
    claim = parse("ttft_p99[7.2] / ttft_p99[6.0] >= 10 * cohort.deep-research.itl_p50 - kv_max[a, 5m]")
    assert claim.op == ">="
    assert claim.metrics == {
        ("ttft_p99", ("7.2",)),
        ("ttft_p99", ("6.0",)),
        ("cohort.deep-research.itl_p50", ()),
        ("kv_max", ("a", "5m")),
    }


@pytest.mark.parametrize(
    ("left", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("8 / 4 / 2", 1),
        ("8 - 4 - 2", 2),
        ("-2 * -3", 6),
        ("2s + 500ms", 2.5),
        ("1h30m", 5400),
        ("0.5%", 0.005),
        ("1e3 / .5", 2000),
        ("a-b", 3),
        ("cohort.x-y.a-cohort.x-y.b", 1),
    ],
)
def test_arithmetic(left: str, value: float) -> None:
    row = {"a": 5.0, "b": 2.0, "cohort.x-y.a": 3.0, "cohort.x-y.b": 2.0}
    assert judge(f"{left} >= 0", row).estimate == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected a metric, a number or '(', got the end in ''"),
        ("ttft_p99", "expected a comparison (<=, <, >=, > or within 5% of), got the end in 'ttft_p99'"),
        ("a == 2", "expected a comparison (<=, <, >=, > or within 5% of), got '== 2' in 'a == 2'"),
        ("a < 2 < 3", "expected the end of the claim, got '< 3' in 'a < 2 < 3'"),
        ("a < ", "expected a metric, a number or '(', got the end in 'a < '"),
        ("a < 2x", "expected a metric, a number or '(', got '2x' in 'a < 2x'"),
        ("a < 1.2.3", "expected a metric, a number or '(', got '1.2.3' in 'a < 1.2.3'"),
        ("a < 5 m", "expected the end of the claim, got 'm' in 'a < 5 m'"),
        ("a < 1m1h", "expected a number, a duration such as 2s or a percentage such as 0.1%, got '1m1h'"),
        ("(a < 2", "expected ')', got '< 2' in '(a < 2'"),
        ("a[1 < 2", "expected a comparison (<=, <, >=, > or within 5% of), got '[1 < 2' in 'a[1 < 2'"),
        ("a within 5% b", "expected 'of', got 'b' in 'a within 5% b'"),
        ("of < 2", "expected a metric, a number or '(', got 'of < 2' in 'of < 2'"),
        ("a.b < 2", "expected a comparison (<=, <, >=, > or within 5% of), got '.b < 2' in 'a.b < 2'"),
        ("(" * 60 + "1", "expected at most 50 parentheses, got 60"),
        ("errors@40m < 1", "expected a window from its start to its end, such as errors@40m-50m, got errors@40m"),
        ("errors@ < 1", "expected a window from its start to its end, such as errors@40m-50m, got errors@"),
        ("errors@9m-8m < 1", "expected a window from its start to its end, such as errors@40m-50m, got errors@9m-8m"),
        ("errors@8m-8m < 1", "expected a window from its start to its end, such as errors@40m-50m, got errors@8m-8m"),
        ("errors@10-20 < 1", "expected a window from its start to its end, such as errors@40m-50m, got errors@10-20"),
        (
            "errors@1m1h-2h < 1",
            "errors@1m1h-2h: expected a number, a duration such as 2s or a percentage such as 0.1%, got '1m1h'",
        ),
        (
            "kv_mean@1m-2m < 1",
            "kv_mean has no windows, expected one of errors, goodput_per_s, attempts_per_s, requests_per_s, or a "
            "statistic of ttft or e2e",
        ),
        (
            "ttft_p99@1m-2m < 2",
            "ttft_p99@1m-2m is a time: expected a bound such as 2ms or 2s, got 2 in 'ttft_p99@1m-2m < 2'",
        ),
        ("recovery_s < 60", "recovery_s is a time: expected a bound such as 60ms or 60s, got 60 in 'recovery_s < 60'"),
    ],
)
def test_what_is_no_claim_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    assert refused(text) == sentence


@given(st.text(alphabet="ab_p9 .,[]()<>=+-*/%smh1e5withnof@", max_size=30))
def test_no_text_whatever_ends_in_a_traceback(text: str) -> None:
    try:
        claim = parse(text, "here")
    except ScenarioError as error:
        message = str(error)
    else:
        message = f"here: {claim.text}"
    assert message.startswith("here: ")


@given(st.sampled_from(WINDOWED), st.text(alphabet="0159.msh-@ [", max_size=12))
def test_no_window_whatever_ends_in_a_traceback(name: str, window: str) -> None:
    try:
        claim = parse(f"{name}@{window} < 1s")
    except ScenarioError:
        return
    for metric, _ in claim.metrics:
        found = window_of(metric)[1]
        assert found is not None
        assert 0 <= found[0] < found[1]


# --- windows --------------------------------------------------------------------------------------------------------


def test_a_metric_may_be_asked_of_a_part_of_the_run_at_a_point_of_the_sweep() -> None:
    claim = parse("errors@40m-50m[7.2] <= 2 * errors@0-1h30m[6.0] - errors")
    assert claim.metrics == {("errors@40m-50m", ("7.2",)), ("errors@0-1h30m", ("6.0",)), ("errors", ())}
    assert window_of("errors@0-1h30m") == ("errors", (0.0, 5400.0))
    assert window_of("errors") == ("errors", None)
    rows = [[{"errors@40m-50m": 0.1}], [{"errors@40m-50m": 0.3}]]
    found = evaluate({"it": "errors@40m-50m[7.2] / errors@40m-50m[6.0] within 1% of 3"}, LOADS, rows)[0]
    assert found.passed


def test_a_window_must_end_with_the_run() -> None:
    assert beyond("errors@40m-50m", 3000.0) == ""
    assert beyond("errors", 1.0) == ""
    assert beyond("errors@40m-51m", 3000.0) == ("expected a window that ends by duration (3000 s), got errors@40m-51m")
    check_metrics({"it": "errors@40m-50m < 2%"}, {"errors"})
    with pytest.raises(ScenarioError, match="unknown metric 'errors@40m-50m'"):
        check_metrics({"it": "errors@40m-50m < 2%"}, {"ttft_p99"})


def test_claims_say_when_they_need_the_control_run() -> None:
    assert needs_control({"a": "errors < 1%", "b": "recovery_s < 5m"})
    assert needs_control({"a": "1 - goodput_kept[7.2] < 1%"})
    assert not needs_control({"a": "errors@1m-2m < 1%"})


BUSY = """\
name: busy
duration: 10m
fleet: {kv_blocks: 100, max_num_seqs: 4, step_time: {linear: {base: 20ms, per_sequence: 2ms}}}
workload:
  arrivals: {piecewise: [{at: 0, rate_per_s: 1}, {at: 5m, rate_per_s: 6}, {at: 7m, rate_per_s: 1}]}
  cohorts: {a: {prompt_tokens: 20, output_tokens: 40, error: 10%}}
clients: {timeout: 10s}
"""


@pytest.mark.parametrize(
    ("window", "exact"),
    [((300, 420), (300, 420)), ((0, 600), (0, 600)), ((310, 350), (300, 360)), ((599, 600), (540, 600))],
)
def test_what_a_window_holds_is_what_the_rows_of_its_time_say(
    window: tuple[float, float], exact: tuple[float, float]
) -> None:
    world = World(loads(BUSY), 2)
    world.run_to_end()
    rows, histograms = world.result().attempts, world.histograms()
    inside = rows[(rows["scheduled_s"] >= exact[0]) & (rows["scheduled_s"] < exact[1])]
    good = (inside["outcome"] == Outcome.OK) & (inside["wrong"] == 0)
    seconds = exact[1] - exact[0]
    expected = {
        "errors": float((inside["outcome"] != Outcome.OK).mean()),
        "requests_per_s": len(inside) / seconds,
        "goodput_per_s": good.sum() / seconds,
        "attempts_per_s": len(inside) / seconds,  # nobody tries twice
    }
    for metric, value in expected.items():
        assert summary.in_window(histograms, metric, window, 600.0) == (pytest.approx(value), exact)


def test_percentiles_of_a_window_are_those_of_its_rows() -> None:
    world = World(loads(BUSY), 2)
    world.run_to_end()
    rows, histograms = world.result().attempts, world.histograms()
    assert len(rows) > 900
    for window in ((300.0, 420.0), (0.0, 300.0)):
        inside = rows[(rows["scheduled_s"] >= window[0]) & (rows["scheduled_s"] < window[1])]
        e2e_s = inside["finished_s"] - inside["scheduled_s"]
        for stat, value in (("mean", e2e_s.mean()), ("p50", np.median(e2e_s)), ("p90", np.quantile(e2e_s, 0.9))):
            found, exact = summary.in_window(histograms, f"e2e_{stat}", window, 600.0)
            assert found == pytest.approx(value, rel=0.015)
            assert exact == window
    assert summary.in_window(histograms, "ttft_p99", (1.0, 4.0), 600.0)[1] == (0.0, 5.0)


def test_nothing_asked_in_a_window_has_no_percentile() -> None:
    world = World(
        loads(BUSY, overrides=["workload.arrivals={piecewise: [{at: 0, rate_per_s: 0}, {at: 9m, rate_per_s: 1}]}"]), 2
    )
    world.run_to_end()
    histograms = world.histograms()
    assert math.isnan(summary.in_window(histograms, "ttft_p99", (0.0, 60.0), 600.0)[0])
    assert math.isnan(summary.in_window(histograms, "errors", (0.0, 60.0), 600.0)[0])
    assert summary.in_window(histograms, "goodput_per_s", (0.0, 60.0), 600.0)[0] == 0


# --- points of a sweep ----------------------------------------------------------------------------------------------


def test_an_index_means_a_value_however_it_is_written() -> None:
    points = [{"warmup": 60.0, "router": "random"}, {"warmup": 300.0, "router": "random"}]
    assert point_of("a", ("5m", "random"), points) == 1
    assert point_of("a", ("300", "random"), points) == 1
    assert point_of("a", ("60.0", "random"), points) == 0
    assert point_of("a", (), ONE) == 0
    assert point_of("a", ("none", "gamma"), [{"timeout": None, "arrivals": {"gamma": {"cv": 3.0}}}]) == 0


@pytest.mark.parametrize(
    ("points", "index", "sentence"),
    [
        (LOADS, (), "expected a with one of the points of vary behind it: [6], [7.2]"),
        (LOADS, ("7",), "vary has no point [7] for a, expected one of [6], [7.2]"),
        (LOADS, ("6", "7.2"), "vary has no point [6, 7.2] for a, expected one of [6], [7.2]"),
        (ONE, ("6",), "expected a without [6], since nothing varies"),
    ],
)
def test_a_point_that_is_not_played_is_refused(points: list[dict[str, Any]], index: Any, sentence: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        point_of("a", index, points)
    assert str(caught.value) == sentence


# --- judging --------------------------------------------------------------------------------------------------------


def test_a_ratio_of_points_is_paired_by_seed() -> None:
    low = [{"ttft_p99": value} for value in (1.0, 10.0, 100.0)]
    high = [{"ttft_p99": 12 * row["ttft_p99"]} for row in low]
    verdict = evaluate({"tail": "ttft_p99[7.2] / ttft_p99[6.0] >= 10"}, LOADS, [low, high])[0]
    assert (verdict.estimate, verdict.low, verdict.high) == (12, 12, 12)
    assert (verdict.name, verdict.op, verdict.bound, verdict.seeds, verdict.passed) == ("tail", ">=", 10, 3, True)


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("a < 2", False), ("a <= 2", True), ("a > 2", False), ("a >= 2", True), ("2 >= a", True),
        ("a <= b", True), ("a > b", False), ("a <= 1 + 1", True),
        ("a within 10% of 2.1", True), ("2.1 within 10% of a", True), ("a within 1% of b", False),
        ("a within 1 of b", True), ("zero within 5% of zero", True), ("a within 5% of zero", False),
        ("zero / zero < 1", False), ("zero / zero >= 1", False), ("a / zero > 1000", True), ("absent < 1", False),
    ],
)  # fmt: skip
def test_comparisons(text: str, passed: bool) -> None:
    row = {"a": 2.0, "b": 3.0, "zero": 0.0, "absent": math.nan}
    assert judge(text, row, row, row).passed is passed


def test_the_median_over_seeds_decides() -> None:
    rows = [{"a": value} for value in (1.0, 2.0, 50.0)]
    assert judge("a < 3", *rows).passed
    assert judge("a < 3", *rows).estimate == 2


def test_what_the_estimate_is() -> None:
    rows = [{"a": value, "b": 2 * value} for value in (1.0, 2.0, 4.0)]
    against_a_number, against_a_metric, near = (judge(text, *rows) for text in ("a < 3", "a < b", "a within 60% of b"))
    assert (against_a_number.estimate, against_a_number.bound) == (2, 3)
    assert (against_a_metric.estimate, against_a_metric.bound) == (-2, 0)
    assert (near.estimate, near.bound, near.op) == (-0.5, 0.6, "within")


def test_one_seed_has_an_interval_of_no_width_and_none_has_no_verdict() -> None:
    one = judge("a < 3", {"a": 2.0})
    assert (one.low, one.estimate, one.high) == (2, 2, 2)
    none = evaluate({"it": "a < 3"}, ONE, [[]])[0]
    assert math.isnan(none.estimate)
    assert not none.passed
    assert none.seeds == 0


def test_the_interval_is_the_same_every_time_and_covers_the_median() -> None:
    draws = np.random.Generator(np.random.PCG64(7))
    rows = [[{"a": float(value)} for value in sample] for sample in draws.exponential(size=(300, 15))]
    verdicts = [evaluate({"it": "a < 3"}, ONE, [row])[0] for row in rows]
    assert verdicts[0] == evaluate({"it": "a < 3"}, ONE, [rows[0]])[0]
    covered = np.mean([verdict.low <= math.log(2) <= verdict.high for verdict in verdicts])
    assert 0.92 <= covered <= 0.99  # nominal 0.95; the order statistics of 15 seeds allow only some levels
    assert all(v.low <= v.estimate <= v.high for v in verdicts)


@given(st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=9))
def test_a_few_seeds_of_what_is_timed_have_an_interval_above_0(values: list[float]) -> None:
    found = summary.interval(values)
    assert 0 < found["low"] <= found["estimate"] <= found["high"]
    if any(value != values[0] for value in values):
        assert summary.interval(values, scale="signed")["low"] < found["low"]


@given(st.lists(st.floats(1e-3, 1 - 1e-3), min_size=3, max_size=9))
def test_a_few_seeds_of_a_share_have_an_interval_between_0_and_1(values: list[float]) -> None:
    found = summary.interval(values, scale="share")
    assert 0 < found["low"] <= found["estimate"] <= found["high"] < 1
    mirrored = summary.interval([1 - value for value in values], scale="share")
    assert mirrored["low"] == pytest.approx(1 - found["high"], abs=1e-9)


def test_a_share_of_which_a_seed_saw_all_reaches_up_to_it_and_no_further() -> None:
    assert summary.interval([0.7, 0.9, 1.0], scale="share")["high"] == 1.0
    assert summary.interval([0.7, 0.9, 1.4], scale="share")["high"] > 1.4  # it was none, whatever it was called
    assert summary.scale_of("cohort.chat.errors") == "share"
    assert summary.scale_of("alert.seed.lead_s") == "signed"
    assert summary.scale_of("chat.error_budget_spent") == "positive"


def test_a_few_seeds_of_which_one_saw_0_reach_down_to_it() -> None:
    assert summary.interval([0.0, 0.0, 3.0])["low"] == 0.0
    assert summary.interval([0.0, 0.0, 3.0], scale="signed")["low"] < 0.0
    assert summary.interval([-0.1, 0.0, 0.3])["low"] < 0.0


def test_what_may_be_negative_is_known_by_its_last_word() -> None:
    """An alert may page after users have noticed, so three seeds in which it led do not say it always does."""
    from sim.conclude import _Found

    found = _Found({}, None)  # type: ignore[arg-type]
    found.values = [{"alert.seed.lead_s": lead, "ttft_p99": lead} for lead in (5.0, 60.0, 200.0)]
    low = {name: one["low"] for name, one in found.summary()["metrics"].items()}
    assert low["alert.seed.lead_s"] < 0.0 < low["ttft_p99"]


def test_a_wider_confidence_gives_a_wider_interval() -> None:
    rows = [{"a": float(value)} for value in range(20)]
    narrow, wide = (evaluate({"it": "a < 3"}, ONE, [rows], level)[0] for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_infinite_seeds_leave_the_interval_readable() -> None:
    verdict = judge("1 / a > 2", *({"a": value} for value in (0.0, 0.0, 1.0, 0.5, 0.4)))
    assert (verdict.estimate, verdict.high) == (2.5, math.inf)


def test_an_unknown_metric_is_refused_with_the_names_close_to_it() -> None:
    with pytest.raises(ScenarioError) as caught:
        judge("ttft_p98 < 2s", {"ttft_p99": 1.0, "ttft_p90": 1.0, "steps": 1.0})
    assert str(caught.value) == "claims.it: unknown metric 'ttft_p98', expected one like ttft_p99, ttft_p90"
    with pytest.raises(ScenarioError) as caught:
        check_metrics({"it": "zzzz < 2s"}, {"ttft_p99"}, "x.yaml: claims")
    assert str(caught.value) == "x.yaml: claims.it: unknown metric 'zzzz', expected one of the summary's"
    check_metrics({"it": "ttft_p99 < 2s"}, {"ttft_p99"})


def test_a_claim_that_cannot_be_judged_names_itself() -> None:
    with pytest.raises(ScenarioError, match=r"^claims\.it: vary has no point \[9\] for a"):
        evaluate({"it": "a[9] < 2"}, LOADS, [[{"a": 1.0}], [{"a": 1.0}]])
