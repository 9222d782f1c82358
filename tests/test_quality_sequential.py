"""Watching an error rate: false alarms as rare as said, the notes' numbers, run lengths as the chain says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from sim.quality import cusum, sequential
from sim.rng import stream

RUNS, LOOKS, EACH = 2000, 100, 200
LIMIT = math.log(1 / 0.05)


def played(rate: float, name: str) -> tuple[np.ndarray, np.ndarray]:
    return sequential.looks(stream(1, name), rate, EACH, LOOKS, RUNS)


def test_evidence_keeps_its_promise_over_a_hundred_looks_and_peeking_does_not() -> None:
    wrong, graded = played(0.01, "test.null")
    alarms = (sequential.log_evidence(wrong, graded, 0.01) >= LIMIT).any(axis=1).mean()
    assert 0.005 <= alarms <= 0.05
    peeked = sequential.peeking(wrong, graded, 0.01)
    assert peeked.any(axis=1).mean() == pytest.approx(0.30, abs=0.04)
    assert peeked[:, -1].mean() == pytest.approx(0.05, abs=0.015)  # at the one look that was planned
    wald = sequential.log_ratio(wrong, graded, 0.01, 0.02) >= sequential.wald_bounds().worse
    assert wald.any(axis=1).mean() <= 0.05


def test_two_arms_keep_theirs() -> None:
    a, graded = played(0.02, "test.arm-a")
    b, _ = played(0.02, "test.arm-b")
    for tau in (0.005, 0.02):
        assert (sequential.log_evidence_of_two(a, b, graded, tau) >= LIMIT).any(axis=1).mean() <= 0.05
    worse, _ = played(0.03, "test.arm-c")
    assert (sequential.log_evidence_of_two(a, worse, graded, 0.01) >= LIMIT).any(axis=1).mean() > 0.99


@pytest.mark.parametrize(("rate", "median"), [(0.015, 3600), (0.02, 1000), (0.03, 400)])
def test_it_notices_as_soon_as_the_notes_say(rate: float, median: int) -> None:
    wrong, graded = played(rate, "test.worse")
    at = sequential.first(sequential.log_evidence(wrong, graded, 0.01) >= LIMIT)
    assert np.median(graded[at]) == pytest.approx(median, abs=EACH)


def test_a_small_rise_is_often_missed_by_evidence() -> None:
    wrong, graded = played(0.012, "test.small")
    found = (sequential.log_evidence(wrong, graded, 0.01) >= LIMIT).any(axis=1).mean()
    assert found == pytest.approx(0.45, abs=0.05)


@given(st.integers(0, 12), st.integers(20, 120), st.floats(0.02, 0.2))
def test_evidence_is_the_mixture_it_says(wrong: int, graded: int, baseline: float) -> None:
    a, b = 1.0, 1 / (2 * baseline)

    def mixed(p: float) -> float:
        likelihood = (p / baseline) ** wrong * ((1 - p) / (1 - baseline)) ** (graded - wrong)
        return float(stats.beta.pdf(p, a, b) * likelihood)

    expected = integrate.quad(mixed, baseline, 1, limit=200)[0] / stats.beta.sf(baseline, a, b)
    assert math.exp(sequential.log_evidence(wrong, graded, baseline)) == pytest.approx(expected, rel=1e-6)


def test_evidence_is_a_martingale_while_nothing_is_wrong() -> None:
    n, p = 60, 0.05
    k = np.arange(n + 1)
    e = np.exp(sequential.log_evidence(k, np.full(n + 1, n), p))
    assert (stats.binom.pmf(k, n, p) * e).sum() == pytest.approx(1)


def test_no_error_in_very_many_answers_is_no_evidence_and_no_accident() -> None:
    assert sequential.log_evidence(0, 1_000_000, 0.01) < -100
    assert sequential.first([[False, False], [False, True]]).tolist() == [-1, 1]


def test_walds_test_stops_on_time() -> None:
    wrong, graded = sequential.looks(stream(1, "test.wald"), 0.02, 1, 8000, 1000)
    ratio, bounds = sequential.log_ratio(wrong, graded, 0.01, 0.02), sequential.wald_bounds(0.05, 0.2)
    stops = sequential.first((ratio >= bounds.worse) | (ratio <= bounds.fine))
    won = ratio[np.arange(1000), stops] >= bounds.worse
    assert stops.min() >= 0
    assert won.mean() == pytest.approx(0.8, abs=0.04)  # 1 - beta, the overshoot neglected
    drift = 0.02 * math.log(2) + 0.98 * math.log(0.98 / 0.99)
    stopped = won.mean() * bounds.worse + (1 - won.mean()) * bounds.fine
    assert stops.mean() == pytest.approx(stopped / drift, rel=0.15)  # Wald's identity, without the overshoot


def test_run_lengths_are_those_of_the_chain() -> None:
    alarm = cusum.alarm(0.01, 0.03, 20_000)
    for rate, runs in ((0.01, 3000), (0.03, 3000), (0.1, 3000)):
        lengths = cusum.run_lengths(stream(2, f"test.cusum-{rate}"), alarm, rate, runs)
        error = lengths.std() / math.sqrt(runs)
        assert abs(lengths.mean() - cusum.run_length(alarm, rate)) < 3.3 * error
    assert cusum.run_length(alarm, 0.01) >= 20_000
    assert cusum.run_length(cusum.Cusum(alarm.up, alarm.limit - 1), 0.01) < 20_000


@given(st.integers(1, 30), st.integers(1, 60), st.floats(0.02, 0.9))
def test_the_band_solves_the_whole_chain(up: int, limit: int, rate: float) -> None:
    moves = np.zeros((limit, limit))
    for level in range(limit):
        moves[level, max(0, level - 1)] += 1 - rate
        if level + up < limit:
            moves[level, level + up] += rate
    expected = np.linalg.solve(np.eye(limit) - moves, np.ones(limit))[0]
    if 0 < expected < 1e8:  # beyond, solvers lose digits
        assert cusum.run_length(cusum.Cusum(up, limit), rate) == pytest.approx(expected, rel=1e-6)


def test_a_run_too_long_to_be_told_from_never_is_never() -> None:
    assert cusum.run_length(cusum.Cusum(1, 35), 0.25) == math.inf


def test_one_wrong_answer_raises_the_shortest_alarm() -> None:
    assert cusum.run_length(cusum.Cusum(5, 1), 0.02) == pytest.approx(50)
    assert cusum.run_length(cusum.Cusum(5, 5), 0.02) == pytest.approx(50)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: sequential.log_evidence(1, 2, 0.0),
        lambda: sequential.log_evidence(3, 2, 0.1),
        lambda: sequential.log_evidence_of_two(1, 1, 9, 0.0),
        lambda: sequential.wald_bounds(0.0),
        lambda: cusum.scores(0.02, 0.01),
        lambda: cusum.run_length(cusum.Cusum(1, 0), 0.1),
        lambda: cusum.run_length(cusum.Cusum(1, 5), 0.0),
        lambda: cusum.alarm(0.01, 0.0100001, 1e300),
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(ValueError):
        wrong()
