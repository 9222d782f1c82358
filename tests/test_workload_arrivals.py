"""When users come: exact rates, checked by turning time until the arrivals should be a plain Poisson process."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sim import workload
from sim.errors import ScenarioError
from sim.scenario import Scenario, loads
from sim.workload import arrivals

ALPHA = 1e-3  # chance that a right program fails a test, had the seed not been fixed
DAY_S = arrivals.DAY_S


def scenario(duration: Any, **settings: Any) -> Scenario:
    cohorts = {"all": {"prompt_tokens": 10, "output_tokens": 5}}
    fleet = {"model": "m", "hardware": "h"}
    document = {"name": "x", "duration": duration, "fleet": fleet, "workload": {"cohorts": cohorts, **settings}}
    return loads(json.dumps(document))


def times(duration: Any, seed: int = 1, **settings: Any) -> np.ndarray:
    users = workload.compile(scenario(duration, **settings), seed)
    return np.concatenate([np.empty(0), *(chunk["scheduled_s"] for chunk in users.chunks())])


def assert_unit_poisson(expected: np.ndarray, total: float) -> None:
    """Expected counts at the arrivals of a Poisson process: unit exponential gaps, uniform places, Poisson number."""
    assert stats.kstest(np.diff(expected), "expon").pvalue > ALPHA
    assert stats.kstest(expected / total, "uniform").pvalue > ALPHA
    assert abs(len(expected) - total) < 3.3 * math.sqrt(total)
    gaps = np.diff(expected)
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 3.3 / math.sqrt(len(gaps))


@pytest.mark.parametrize("seed", range(3))
def test_poisson_arrivals_are_poisson(seed: int) -> None:
    assert_unit_poisson(times("1h", seed, rate_per_s=7.0) * 7.0, 7.0 * 3600)


@pytest.mark.parametrize("peak_to_mean", [1.0, 1.5, 2.0])
def test_diurnal_arrivals_follow_the_sinusoid_exactly(peak_to_mean: float) -> None:
    settings = {"rate_per_s": 0.4, "arrivals": {"diurnal": {"peak_to_mean": peak_to_mean, "peak_at": "15h"}}}
    at_s = times("2d", 4, **settings)
    turn, peak_s = 2 * math.pi / DAY_S, 15 * 3600.0
    wave = (np.sin(turn * (at_s - peak_s)) + math.sin(turn * peak_s)) / turn
    assert_unit_poisson(0.4 * (at_s + (peak_to_mean - 1.0) * wave), 0.4 * 2 * DAY_S)


def test_the_diurnal_rate_peaks_when_and_as_high_as_asked() -> None:
    curve = arrivals.diurnal(100.0, 1.8, 9 * 3600.0)
    hours = np.array([curve.until(h * 3600.0) for h in range(25)])
    per_s = np.diff(hours) / 3600.0
    assert per_s.argmax() in (8, 9)
    assert (curve.until(9 * 3600.0 + 60) - curve.until(9 * 3600.0 - 60)) / 120.0 == pytest.approx(180.0, rel=1e-4)
    assert hours[-1] == 100.0 * DAY_S
    assert curve.until(7.25 * DAY_S) == pytest.approx(7 * hours[-1] + curve.until(0.25 * DAY_S))


def test_piecewise_rates_hold_from_their_time_on() -> None:
    stages = [{"at": 0, "rate_per_s": 2.0}, {"at": "10m", "rate_per_s": 0}, {"at": "20m", "rate_per_s": 20.0}]
    at_s = times("30m", 5, arrivals={"piecewise": stages})
    assert not ((at_s >= 600) & (at_s < 1200)).any()
    expected = np.where(at_s < 600, 2.0 * at_s, 1200.0 + 20.0 * (at_s - 1200.0))
    assert_unit_poisson(expected, 1200.0 + 12_000.0)


@pytest.mark.parametrize("stages", [[0.0], [0.0, 3.0], [3.0, 0.0], [0.0, 0.0]])
def test_a_rate_of_nothing_brings_nobody(stages: list[float]) -> None:
    document = [{"at": 60.0 * i, "rate_per_s": rate} for i, rate in enumerate(stages)]
    at_s = times(120, arrivals={"piecewise": document})
    for i, rate in enumerate(stages):
        assert (((at_s >= 60 * i) & (at_s < 60 * i + 60)).any()) == (rate > 0)


@pytest.mark.parametrize("cv", [0.3, 0.7, 1.0, 2.0, 3.5])
def test_gamma_gaps_have_the_mean_and_the_variation_asked_for(cv: float) -> None:
    gaps = np.diff(times("5h", 6, rate_per_s=3.0, arrivals={"gamma": {"cv": cv}}))
    law = stats.gamma(cv**-2, scale=cv**2 / 3.0)
    least = 1e-6  # shorter gaps drown in the rounding of times
    assert stats.kstest(gaps[gaps > least], lambda s: 1 - law.sf(s) / law.sf(least)).pvalue > ALPHA
    assert stats.binomtest(int((gaps <= least).sum()), len(gaps), law.cdf(least)).pvalue > ALPHA
    assert gaps.mean() == pytest.approx(1 / 3, rel=4 * cv / math.sqrt(len(gaps)))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.08)


def test_gamma_with_cv_1_is_poisson_itself() -> None:
    np.testing.assert_array_equal(times(600, rate_per_s=3, arrivals={"gamma": {"cv": 1}}), times(600, rate_per_s=3))


def test_a_cv_of_zero_is_a_metronome() -> None:
    clock = arrivals.Arrivals(arrivals.constant(4.0), 2.0, arrivals.steps(1, cv=0.0))
    np.testing.assert_allclose(clock.take(100), np.arange(1, 8) / 4.0)
    assert len(clock.take(100)) == 0


def test_bursts_keep_the_mean_and_last_as_long_as_asked() -> None:
    curve = arrivals.bursts(5.0, 20.0, 30.0, 300.0, 30 * DAY_S, seed=7)
    stays, rates = np.diff(curve.at_s), np.diff(curve.expected) / np.diff(curve.at_s)
    calm = (5.0 - 20.0 / 11) / (10 / 11)
    busy = np.isclose(rates, 20.0)
    np.testing.assert_allclose(rates[~busy], calm)
    assert stats.kstest(stays[busy], stats.expon(scale=30.0).cdf).pvalue > ALPHA
    assert stats.kstest(stays[~busy], stats.expon(scale=300.0).cdf).pvalue > ALPHA
    assert curve.until(30 * DAY_S) / (30 * DAY_S) == pytest.approx(5.0, rel=0.03)


def test_arrivals_in_bursts_are_poisson_given_the_bursts() -> None:
    settings = {"rate_per_s": 5.0, "arrivals": {"bursts": {"rate_per_s": 20.0, "mean_on": "30s", "mean_off": "5m"}}}
    curve = arrivals.bursts(5.0, 20.0, 30.0, 300.0, 7200.0, seed=8)
    at_s = times("2h", 8, **settings)
    expected = np.interp(at_s, curve.at_s, curve.expected)
    assert_unit_poisson(expected, curve.until(7200.0))
    per_minute = np.histogram(at_s, np.arange(0, 7201, 60))[0]
    assert per_minute.var() > 5 * per_minute.mean()  # and far from Poisson when the bursts are not known


def test_the_run_starts_in_a_burst_as_often_as_there_are_bursts() -> None:
    starts = []
    for seed in range(400):
        curve = arrivals.bursts(5.0, 10.0, 10.0, 30.0, 1.0, seed)
        starts.append(bool(np.isclose(curve.expected[1] / curve.at_s[1], 10.0)))
    assert stats.binomtest(sum(starts), 400, 0.25).pvalue > ALPHA


@given(st.floats(0.01, 1000), st.floats(0.01, 1000), st.integers(0, 2**63 - 1))
def test_a_faster_rate_is_the_same_users_sooner(slow: float, fast: float, seed: int) -> None:
    draw = [arrivals.Arrivals(arrivals.constant(r), math.inf, arrivals.steps(seed)).take(50) for r in (slow, fast)]
    np.testing.assert_allclose(draw[0] * slow, draw[1] * fast)


@given(
    st.sampled_from(["poisson", "diurnal", "bursts", "gamma", "piecewise"]), st.lists(st.integers(1, 700), min_size=1)
)
def test_how_many_are_taken_at_once_changes_no_bit(kind: str, sizes: list[int]) -> None:
    curve = {
        "diurnal": arrivals.diurnal(0.05, 2.0, 50_400.0),
        "bursts": arrivals.bursts(0.05, 0.2, 300.0, 3000.0, 2 * DAY_S, 3),
        "piecewise": arrivals.piecewise([0.0, 3e4, 6e4], [0.01, 0.2, 0.03]),
    }.get(kind, arrivals.constant(0.05))
    cv = 1.7 if kind == "gamma" else 1.0
    whole = arrivals.Arrivals(curve, 2 * DAY_S, arrivals.steps(3, cv)).take(20_000)
    parts = arrivals.Arrivals(curve, 2 * DAY_S, arrivals.steps(3, cv))
    taken = np.concatenate([parts.take(n) for n in sizes])
    np.testing.assert_array_equal(taken, whole[: len(taken)])
    assert (np.diff(whole) >= 0).all()
    assert whole[-1] < 2 * DAY_S


def test_expected_requests_is_the_area_under_the_rate() -> None:
    diurnal = {"rate_per_s": 10.0, "arrivals": {"diurnal": {"peak_to_mean": 2.0}}}
    assert workload.compile(scenario("1d", **diurnal), 1).expected_requests == pytest.approx(864_000)
    assert workload.compile(scenario("5m", rate_per_s=2.0), 1).expected_requests == pytest.approx(600)


@pytest.mark.parametrize(
    ("process", "said"),
    [
        ({"bursts": {"rate_per_s": 50, "mean_on": 10, "mean_off": 10}}, "expected at most 20"),
        ({"bursts": {"rate_per_s": 5, "mean_on": 10, "mean_off": 10}}, "expected a higher burst rate"),
        ({"bursts": {"rate_per_s": 11, "mean_on": "1us", "mean_off": "1us"}}, "ten million times"),
    ],
)
def test_rates_that_cannot_be_are_refused_with_what_could(process: Any, said: str) -> None:
    with pytest.raises(ScenarioError, match="^workload.arrivals.*") as refusal:
        workload.compile(scenario("10m", rate_per_s=10.0, arrivals=process), 1)
    assert said in str(refusal.value)
