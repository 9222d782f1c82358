"""Did it come back: recovery, what was kept, and the verdict, on series that say by themselves what they should be."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cli import main
from sim.metastability import (
    ENOUGH,
    Twins,
    block_minutes,
    faults_end_s,
    good_by_minute,
    goodput_kept,
    judge,
    recovery_s,
    relaxation_s,
    spare_per_s,
)
from sim.report import twins as told
from sim.report.view import Estimate, Point, view
from sim.results import Run
from sim.scenario import loads
from sim.summary import MINUTE_S, edges_s

HOUR = np.full(60, 300.0)
"""Good answers of the control run: 5 a second, for an hour."""


def dip(start: int, end: int, to: float = 0.0) -> np.ndarray:
    """The same, with only the share *to* of it from minute *start* to minute *end*."""
    series = HOUR.copy()
    series[start:end] *= to
    return series


def verdict(*series: np.ndarray, relax_s: float = 5.0, end_s: float = 600.0, asked: float = 300.0) -> Any:
    return judge([Twins(one, HOUR, np.full(60, asked), relax_s) for one in series], end_s)


# --- one seed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "end_s", "expected"),
    [
        (HOUR, 600, 0),
        (dip(5, 10), 600, 0),  # back in the first minute after
        (dip(5, 11), 600, 60),
        (dip(5, 11), 630, 30),  # to the minute of asking
        (dip(5, 25), 600, 900),
        (dip(5, 60), 600, math.inf),
        (dip(59, 60), 600, math.inf),  # a relapse at the end is no recovery
        (dip(5, 60, 0.96), 600, 0),
        (dip(5, 60, 0.94), 600, math.inf),
        (HOUR, 3600, math.nan),
        (HOUR, 3550, 0),
        (HOUR * 1.2, 600, 0),  # users who come back sooner make more answers
    ],
)
def test_recovery_is_when_goodput_is_back_for_good(series: np.ndarray, end_s: float, expected: float) -> None:
    assert recovery_s(series, HOUR, end_s) == pytest.approx(expected, nan_ok=True)


def test_one_lost_request_among_few_is_no_relapse() -> None:
    few = np.full(60, 5.0)
    assert block_minutes(few) == 20
    lost = few.copy()
    lost[30] -= 1
    assert recovery_s(lost, few, 600) == 0
    lost[30:40] = 0
    assert recovery_s(lost, few, 600) == (39 - 10) * 60  # a block that begins with the last bad minute lost 5% of it


series = st.lists(st.integers(0, 400), min_size=30, max_size=30).map(lambda values: np.array(values, float))


@given(series, series, st.integers(0, 29))
def test_from_recovery_on_every_block_keeps_enough(good: np.ndarray, control: np.ndarray, end: int) -> None:
    end_s = end * MINUTE_S
    found, width = recovery_s(good, control, end_s), block_minutes(control)
    if math.isfinite(found):
        first = round((end_s + found) / MINUTE_S)
        for k in range(first, 30 - width + 1):
            assert good[k : k + width].sum() >= ENOUGH * control[k : k + width].sum() - 1e-6
        if found > 0:
            k = first - 1
            assert good[k : k + width].sum() < ENOUGH * control[k : k + width].sum()


@given(series, series, st.integers(0, 29), st.integers(0, 29), st.integers(1, 5))
def test_a_better_run_recovers_no_later_and_units_do_not_matter(
    good: np.ndarray, control: np.ndarray, end: int, k: int, more: int
) -> None:
    better = good.copy()
    better[k] += 100
    found, sooner = (recovery_s(one, control, end * MINUTE_S) for one in (good, better))
    assert math.isnan(found) == math.isnan(sooner)
    assert not sooner > found
    assert goodput_kept(better, control, end * MINUTE_S) >= goodput_kept(good, control, end * MINUTE_S) or math.isnan(
        goodput_kept(good, control, end * MINUTE_S)
    )
    if block_minutes(more * control) == block_minutes(control):
        assert recovery_s(more * good, more * control, end * MINUTE_S) == pytest.approx(found, nan_ok=True)


@given(series, st.integers(0, 29))
def test_twins_that_are_alike_recover_at_once_and_keep_everything(control: np.ndarray, end: int) -> None:
    assert recovery_s(control, control, end * MINUTE_S) == 0 or end + block_minutes(control) > 30
    kept = goodput_kept(control, control, end * MINUTE_S)
    assert math.isnan(kept) or kept == 1


def test_what_is_kept_counts_from_the_next_whole_minute() -> None:
    assert goodput_kept(dip(10, 20), HOUR, 600) == pytest.approx(0.8)
    assert goodput_kept(dip(10, 20), HOUR, 601) == pytest.approx(40 / 49)
    assert math.isnan(goodput_kept(HOUR, HOUR, 3601))
    assert math.isnan(goodput_kept(HOUR, HOUR, math.inf))


# --- how long it may take -------------------------------------------------------------------------------------------


def test_relaxation_is_a_healthy_request_or_the_drain_of_the_backlog() -> None:
    assert relaxation_s(5.0, 0.0, 3.0) == 5.0
    assert relaxation_s(5.0, 30.0, 3.0) == 5.0
    assert 10 * relaxation_s(5.0, 600.0, 3.0) == pytest.approx(2 * 600 / 3)
    assert relaxation_s(5.0, 1.0, 0.0) == math.inf


def test_spare_capacity_is_what_the_busiest_minute_had_more_than_the_control_run_uses() -> None:
    t_s = np.arange(0.0, 1201.0, 15.0)
    control = 100.0 * t_s
    busy = control + np.clip(t_s - 600.0, 0.0, 120.0) * 50.0
    assert spare_per_s(t_s, busy, control, 4.0) == pytest.approx(2.0)
    assert spare_per_s(t_s, control, control, 4.0) == 0.0
    assert spare_per_s(t_s[:3], control[:3], control[:3], 4.0) == 0.0
    assert spare_per_s(t_s, 0 * t_s, 0 * t_s, 4.0) == 0.0
    assert spare_per_s(np.arange(0.0, 1201.0, 300.0), np.r_[0, 3, 9, 12, 15.0], np.r_[0, 3, 6, 9, 12.0], 1.0) == 1.0


# --- what is good ---------------------------------------------------------------------------------------------------


def histograms(ttft_s: list[list[float]], window_s: float, ok: list[int], wrong: list[int]) -> dict[str, np.ndarray]:
    bins = 2400
    counted = np.array([np.histogram(some, edges_s(bins))[0] for some in ttft_s])
    minutes = {"minute_ok": np.array(ok), "minute_wrong": np.array(wrong)}
    return {"ttft_by_window": counted, "window_s": np.array(window_s), **minutes}


def test_good_answers_are_right_and_within_the_slo() -> None:
    found = histograms([[0.1] * 8 + [3.0] * 2, [3.0] * 10, [0.1] * 10], 60.0, [10, 10, 6], [1, 0, 0])
    assert good_by_minute(found, {}, 180.0).tolist() == [9, 10, 6]
    assert good_by_minute(found, {"errors": 0.01, "e2e_p50": 9.0, "ttft_mean": 1.0}, 180.0).tolist() == [9, 10, 6]
    assert good_by_minute(found, {"ttft_p99": 2.0}, 180.0).tolist() == [8, 0, 6]
    assert good_by_minute(found, {"ttft_p99": 4.0}, 180.0).tolist() == [9, 10, 6]


def test_windows_that_are_no_minutes_are_shared_out() -> None:
    found = histograms([[0.1] * 9, [3.0] * 9], 45.0, [12, 6], [0, 0])
    assert good_by_minute(found, {"ttft_p99": 2.0}, 90.0).tolist() == [9, 0]
    found = histograms([[0.1] * 9, [0.1] * 9], 45.0, [12, 6], [0, 0])
    assert good_by_minute(found, {"ttft_p99": 2.0}, 90.0) == pytest.approx([12, 6])


# --- the verdict ----------------------------------------------------------------------------------------------------


def test_a_service_that_is_back_at_once_has_recovered() -> None:
    found = verdict(*[dip(5, 10)] * 10)
    assert (found.verdict, found.provisional, found.back, found.seeds) == ("recovered", False, 10, 10)
    assert (found.recovery_s["estimate"], found.goodput_kept["estimate"]) == (0, 1)
    assert (found.faults_end_s, found.relaxation_s, found.control_good) == (600, 5, 1)


def test_the_minute_in_which_ten_relaxation_times_end_is_soon_enough() -> None:
    assert verdict(*[dip(5, 11)] * 10, relax_s=1.0).verdict == "recovered"
    assert verdict(*[dip(5, 12)] * 10, relax_s=1.0).verdict == "vulnerable"
    assert verdict(*[dip(5, 12)] * 10, relax_s=6.1).verdict == "recovered"


def test_late_or_not_always_is_vulnerable() -> None:
    late = verdict(*[dip(5, 12 + k) for k in range(10)])
    assert (late.verdict, late.back) == ("vulnerable", 10)
    assert late.recovery_s["low"] < late.recovery_s["estimate"] < late.recovery_s["high"]
    some = verdict(*[dip(5, 10)] * 7, *[dip(5, 60)] * 3)
    assert (some.verdict, some.back) == ("vulnerable", 7)


def test_a_service_that_stays_down_under_a_load_it_carried_before_is_metastable() -> None:
    found = verdict(*[dip(5, 60, 0.1 + 0.01 * k) for k in range(10)])
    assert (found.verdict, found.back, found.provisional) == ("metastable", 0, False)
    assert found.goodput_kept["estimate"] == pytest.approx(0.145, abs=0.006)
    assert found.recovery_s["estimate"] == math.inf
    assert verdict(dip(5, 60)).provisional
    assert verdict(dip(5, 60)).verdict == "metastable"


def test_what_seeds_do_not_agree_on_is_not_called_metastable() -> None:
    seeds = [dip(5, 60, 0.1), dip(59, 60), dip(59, 60)]  # Student-t of three reaches far above 95%
    assert verdict(*seeds).verdict == "vulnerable"


def test_a_load_that_the_fleet_does_not_carry_anyway_has_no_verdict() -> None:
    found = verdict(*[dip(5, 60)] * 10, asked=400.0)
    assert (found.verdict, found.control_good) == ("overloaded", 0.75)


def test_without_time_after_the_faults_nothing_is_decided() -> None:
    assert verdict(*[dip(5, 60)] * 10, end_s=3600.0).verdict == "undecided"
    assert verdict(*[dip(5, 60)] * 10, relax_s=400.0).verdict == "undecided"
    assert verdict(*[dip(5, 20)] * 10, relax_s=400.0).verdict == "recovered"
    assert verdict(*[dip(5, 60)] * 10, relax_s=math.inf).verdict == "undecided"


@given(
    st.lists(st.integers(10, 60), min_size=1, max_size=12), st.floats(0.1, 500), st.integers(0, 59), st.floats(0, 0.94)
)
def test_whatever_happened_one_verdict_says_it_and_can_be_told(
    ends: list[int], relax_s: float, end: int, to: float
) -> None:
    found = verdict(*[dip(5, k, to) for k in ends], relax_s=relax_s, end_s=end * MINUTE_S)
    assert found.verdict in ("recovered", "vulnerable", "metastable", "overloaded", "undecided")
    assert found.provisional == (len(ends) < 10)
    if found.verdict == "metastable":
        assert found.back < len(ends) / 2
        assert not found.goodput_kept["estimate"] >= ENOUGH
    if found.verdict == "recovered":
        assert found.back == len(ends)


def point(found: Any) -> Point:
    """A point of a run with this verdict."""
    values = {name: getattr(found, name) for name in ("recovery_s", "goodput_kept")}
    metrics = {k: Estimate(v["estimate"], v["low"], v["high"], tuple(v["values"])) for k, v in values.items()}
    return Point({}, "", metrics, (), (), {**vars(found), "provisional": found.provisional})


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            verdict(*[dip(5, 10)] * 10),
            "recovered: goodput is that of the control run again as soon as the last fault is over",
        ),
        (
            verdict(*[dip(5, 11)] * 10),
            "recovered: goodput is that of the control run again 60.0 s after the last fault is over, within ten "
            "relaxation times (50 s)",
        ),
        (
            verdict(*[dip(5, 20)] * 3),
            "vulnerable: it comes back by itself, but only 10.0 min after the last fault is over, later than ten "
            "relaxation times (50 s) (provisional: 3 of the 10 seeds that it takes)",
        ),
        (
            verdict(*[dip(5, 10)] * 7, *[dip(5, 60)] * 3),
            "vulnerable: 3 of 10 seeds have not come back by the end of the run",
        ),
        (
            verdict(*[dip(5, 60, 0.1)] * 10),
            "metastable: nothing is broken any more, and yet goodput is only 10% of the control run's from ten "
            "relaxation times (50 s) after the last fault to the end",
        ),
        (
            verdict(*[dip(5, 60)] * 10, asked=400.0),
            "no verdict: the control run, without any fault, is not well either (75% of its answers are good)",
        ),
        (
            verdict(*[dip(5, 60)] * 10, end_s=3600.0),
            "no verdict: too little time is left after the last fault, for ten relaxation times (50 s); play a longer "
            "run",
        ),
    ],
)
def test_each_verdict_has_its_sentence(found: Any, sentence: str) -> None:
    assert told.sentence(point(found)) == sentence


# --- out of a scenario ----------------------------------------------------------------------------------------------

SMALL = """\
name: small
duration: 10m
warmup: 1m
drain: 30s
scrape_interval: 5s
fleet: {kv_blocks: 400, replicas: 2, max_num_seqs: 8, step_time: {linear: {base: 10ms, per_sequence: 1ms}}}
workload: {rate_per_s: 5, cohorts: {a: {prompt_tokens: 20, output_tokens: 40}}}
clients: {timeout: 5s}
"""


@pytest.mark.parametrize(
    ("faults", "end_s"),
    [
        ("[]", 0),
        ("[{slow: main/0, from: 2m, to: 4m, factor: 3}, {delay: main, from: 1m, to: 3m, by: 1s}]", 240),
        ("[{slow: main/0, from: 2m, factor: 3}]", 600),
        ("[{slow: main/0, from: 2m, to: 1h, factor: 3}]", 600),
        ("[{random: {slow: main, factor: 3, mtbf: 1m, mttr: 1s, to: 5m}}]", 300),
        ("[{periodic: {stop: main, how: hang, every: 60s, lasting: 2s}}]", 600),
    ],
)
def test_the_last_fault_ends_when_none_goes_on(faults: str, end_s: float) -> None:
    assert faults_end_s(loads(SMALL, overrides=[f"faults={faults}"])) == end_s


# --- typed ----------------------------------------------------------------------------------------------------------

Typed = Callable[..., tuple[int, str, str]]
FAULT = "faults=[{stop: main/0, from: 3m, to: 4m}]"


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)

    def typed(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(words)
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return typed


def test_control_plays_each_seed_without_the_faults_and_gives_a_verdict(typed: Typed) -> None:
    code, out, err = typed("run", "small.yaml", "--set", FAULT, "--seeds", "2", "--control", "--out", "c")
    assert (code, err) == (0, "")
    assert "\nAfter the faults\n" in out
    assert "(provisional: 2 of the 10 seeds that it takes)" in " ".join(out.split())
    assert Path("c/control/point-0/seed-2/attempts.parquet").exists()
    assert Path("c/figures/control.png").read_bytes().startswith(b"\x89PNG")
    assert "After the faults" in Path("c/report.html").read_text()
    run = Run.open(Path("c"))
    assert [(len(run.members), len(run.controls))] == [(2, 2)]
    assert all(member.events() == [] for member in run.controls)
    point = run.summary["points"][0]
    assert point["control"]["verdict"] == "recovered"
    assert point["control"]["faults_end_s"] == 240
    assert len(point["metrics"]["recovery_s"]["values"]) == 2
    assert 0 < point["control"]["relaxation_s"] < 60
    assert told.sentences(view(run)) == json.loads(typed("report", "c", "--json", "--no-figures")[1])["after_faults"]


def test_the_control_run_is_the_run_without_faults(typed: Typed) -> None:
    assert typed("run", "small.yaml", "--set", FAULT, "--control", "--no-figures", "--out", "c")[0] == 0
    assert typed("run", "small.yaml", "--no-figures", "--out", "plain")[0] == 0
    (control,), (plain,) = Run.open(Path("c")).controls, Run.open(Path("plain")).members
    assert control.attempts() == plain.attempts()
    assert control.info["metrics"] == plain.info["metrics"]
    assert control.path == Path("c/control")


def test_a_claim_about_recovery_plays_the_control_run_by_itself(typed: Typed) -> None:
    claims = "claims={back: recovery_s <= 2m, kept: goodput_kept >= 95%}"
    code, out, _ = typed("run", "small.yaml", "--set", FAULT, "--set", claims, "--no-figures", "--out", "c")
    assert code == 0
    assert "All 2 claims hold." in out
    assert Path("c/control/member.json").exists()
    assert {v["name"]: v["passed"] for v in Run.open(Path("c")).verdicts or []} == {"back": True, "kept": True}


def test_without_faults_there_is_nothing_to_compare(typed: Typed) -> None:
    code, _, err = typed("run", "small.yaml", "--control")
    assert (code, err) == (2, "--control: small has no faults, so it is its own control run\n")
    assert not Path("results").exists()
    code, _, err = typed("check", "small.yaml", "--set", "claims={back: recovery_s <= 2m}")
    assert code == 2
    assert "expected faults: recovery_s compares a run with its control run, which has none" in err


def test_a_time_of_recovery_needs_its_unit(typed: Typed) -> None:
    code, _, err = typed("check", "small.yaml", "--set", FAULT, "--set", "claims={back: recovery_s <= 120}")
    assert code == 2
    assert "recovery_s is a time" in err


def test_a_sweep_over_faults_has_a_control_run_at_each_point(typed: Typed) -> None:
    short, long = ([{"slow": "main/0", "from": "3m", "to": end, "factor": 2}] for end in ("4m", "5m"))
    sweep = ("--set", f"vary={{faults: {json.dumps([short, long])}}}")
    code, out, err = typed("run", "small.yaml", *sweep, "--control", "--no-figures", "--out", "c", "--json")
    assert (code, err) == (0, "")
    assert [point["control"]["faults_end_s"] for point in json.loads(out)["points"]] == [240, 300]
