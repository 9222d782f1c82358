"""Judging models: the notes' numbers, variances against simulation, intervals that cover where errors are rare too."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.quality import judges
from sim.rng import stream

RUNS = 2000
RATES = st.floats(0.01, 0.5)
GOOD = st.floats(0.6, 0.99)


def covered(intervals: Sequence[tuple[float, float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for _, low, high in intervals]))


def test_the_numbers_of_the_notes() -> None:
    assert judges.apparent(0.01, 0.9, 0.95) == pytest.approx(0.0585)
    assert math.sqrt(judges.corrected_variance(0.01, 0.9, 0.95, 2000, 2000, 200)) == pytest.approx(0.0084, abs=5e-5)
    assert judges.best_split(0.01, 0.9, 0.95) == pytest.approx(0.41, abs=0.005)
    flagged = 2000 * judges.best_split(0.01, 0.9, 0.95)
    variance = judges.two_phase_variance(0.01, 0.9, 0.95, 1e12, flagged, 2000 - flagged)
    assert math.sqrt(variance) == pytest.approx(0.00115, abs=2e-5)
    assert 0.01 * 0.99 / 2000 / variance == pytest.approx(3.7, abs=0.05)
    slip = judges.corrected(0.0585, 0.9, 0.96) - judges.corrected(0.0585, 0.9, 0.95)
    assert slip == pytest.approx(0.0116, abs=5e-4)


@given(RATES, GOOD, GOOD)
def test_the_correction_undoes_the_judge(error: float, se: float, sp: float) -> None:
    assert judges.corrected(judges.apparent(error, se, sp), se, sp) == pytest.approx(error)


@given(RATES, GOOD, GOOD, st.floats(0.05, 0.95))
def test_no_split_of_the_checks_is_better_than_the_best(error: float, se: float, sp: float, other: float) -> None:
    best = judges.best_split(error, se, sp)

    def variance(split: float) -> float:
        return judges.two_phase_variance(error, se, sp, 1e12, 1000 * split, 1000 * (1 - split))

    assert variance(best) <= variance(other) * (1 + 1e-9)


@pytest.mark.parametrize(("error", "judged"), [(0.2, 2000), (0.05, 5000), (0.01, 2000), (0.01, 20_000)])
def test_rogan_gladens_interval_covers(error: float, judged: int) -> None:
    """The normal one is cut off at 0 for small rates and never misses above; Lang and Reiczigel's misses both ways."""
    rng = stream(1, "test.rogan")
    se, sp, wrong, right = 0.9, 0.95, 300, 2000
    flags = rng.binomial(judged, judges.apparent(error, se, sp), RUNS)
    caught, passed = rng.binomial(wrong, se, RUNS), rng.binomial(right, sp, RUNS)
    found = [judges.rogan_gladen((k, judged), (a, wrong), (b, right)) for k, a, b in zip(flags, caught, passed)]
    assert 0.93 <= covered(found, error) <= 0.97
    estimates = [judges.corrected(k / judged, a / wrong, b / right) for k, a, b in zip(flags, caught, passed)]
    said = judges.corrected_variance(error, se, sp, judged, right, wrong)
    assert np.var(estimates) == pytest.approx(said, rel=0.15)


@pytest.mark.parametrize(
    ("error", "se", "sp", "labels"), [(0.2, 0.9, 0.9, 500), (0.05, 0.9, 0.95, 1000), (0.01, 0.9, 0.95, 2000)]
)
def test_prediction_powered_intervals_cover(error: float, se: float, sp: float, labels: int) -> None:
    rng = stream(2, "test.ppi")
    others, found, normal = 10_000, [], []
    for _ in range(RUNS):
        y = rng.random(labels) < error
        f = rng.random(labels) < np.where(y, se, 1 - sp)
        g = np.arange(others) < rng.binomial(others, judges.apparent(error, se, sp))
        found.append(judges.prediction_powered(y, f, g).interval)
        normal.append(judges.prediction_powered(y, f, g, trust=1.0).interval)
    assert 0.93 <= covered(found, error) <= 0.97
    assert 0.93 <= covered(normal, error) <= 0.97


def test_a_noisy_judge_makes_plain_ppi_worse_than_labels_and_tuned_ppi_a_little_better() -> None:
    rng = stream(3, "test.tuned")
    y = rng.random(200_000) < 0.01
    f = rng.random(200_000) < np.where(y, 0.9, 0.05)
    g = rng.random(2_000_000) < 0.0585
    plain, tuned = judges.prediction_powered(y, f, g, trust=1.0), judges.prediction_powered(y, f, g)
    labels = y.var() / y.size
    assert plain.variance > 4 * labels  # standard errors of .00497 and .00227 in the notes
    assert 0.8 * labels < tuned.variance < labels
    assert 0 < tuned.trust < 0.2


@pytest.mark.parametrize(("error", "sp", "checks"), [(0.1, 0.95, 1000), (0.01, 0.95, 2000), (0.01, 0.999, 2000)])
def test_intervals_of_checks_where_the_judge_points_cover(error: float, sp: float, checks: int) -> None:
    """A normal interval covers 91% here at 1%: its error is estimated from a handful of misses."""
    rng = stream(4, "test.phase")
    se, judged = 0.9, 20_000
    shown = judges.apparent(error, se, sp)
    on_flagged = round(checks * judges.best_split(error, se, sp))
    rest = checks - on_flagged
    flags = rng.binomial(judged, shown, RUNS)
    high, low = (
        rng.binomial(on_flagged, error * se / shown, RUNS),
        rng.binomial(rest, error * (1 - se) / (1 - shown), RUNS),
    )
    found = [judges.two_phase((k, judged), (a, on_flagged), (b, rest)) for k, a, b in zip(flags, high, low)]
    assert 0.93 <= covered(found, error) <= 0.97
    estimates = np.array([one.estimate for one in found])
    said = judges.two_phase_variance(error, se, sp, judged, on_flagged, rest)
    assert estimates.mean() == pytest.approx(error, abs=4 * math.sqrt(said / RUNS))
    assert estimates.var() == pytest.approx(said, rel=0.15)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: judges.corrected(0.1, 0.5, 0.5),
        lambda: judges.apparent(1.1, 0.9, 0.9),
        lambda: judges.best_split(0.0, 0.9, 1.0),
        lambda: judges.two_phase((5, 10), (0, 0), (1, 5)),
        lambda: judges.prediction_powered([1.0], [1.0], [1.0]),
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(ValueError):
        wrong()
