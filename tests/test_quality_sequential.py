"""Watching an error rate: false alarms as rare as said, the notes' numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from sim.quality import sequential
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


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: sequential.log_evidence(1, 2, 0.0),
        lambda: sequential.log_evidence(3, 2, 0.1),
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(ValueError):
        wrong()
