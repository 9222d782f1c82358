"""Chances that compound, and how sure a measured number can be.

Sources: Clopper and Pearson, Biometrika 26 (1934); David and Nagaraja, *Order Statistics* (2003),
section 7.1, for intervals of a quantile; Student (1908); Efron, "Bootstrap methods", Annals of
Statistics 7 (1979).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

BOOTSTRAP_DRAWS = 2000


class Interval(NamedTuple):
    """An estimate between two bounds."""

    estimate: float
    low: float
    high: float


def _chance(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"a chance must be in [0, 1], not {p}")


def _confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), not {confidence}")


def compound(p: float, steps: int) -> float:
    """Return the chance that all of *steps* succeed when each does so independently with chance *p*."""
    _chance(p)
    return p**steps


def at_least_one(p: float, trials: int) -> float:
    """Return the chance that at least one of *trials* goes wrong when each does with chance *p*."""
    _chance(p)
    return -math.expm1(trials * math.log1p(-p)) if p < 1 else float(trials > 0)


def beta_compound(a: float, b: float, steps: int) -> float:
    """Return the chance that all of *steps* succeed when tasks differ: each task's p is Beta(a, b).

    Higher than `compound` of the mean, because steps of one task share its difficulty (Jensen).
    """
    return math.exp(special.betaln(a + steps, b) - special.betaln(a, b))


def expected_bad(requests: float, p: float) -> tuple[float, float]:
    """Return mean and standard deviation of the wrong answers among a Poisson number of requests."""
    _chance(p)
    return requests * p, math.sqrt(requests * p)


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a chance after *hits* in *trials*."""
    _confidence(confidence)
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"hits must be in 0..trials, not {hits} of {trials}")
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(hits, trials - hits + 1, tail)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, trials - hits, 1 - tail)) if hits < trials else 1.0
    return Interval(hits / trials, low, high)


def quantile_ranks(q: float, count: int, confidence: float = 0.95) -> tuple[int, int] | None:
    """Return the 1-based ranks of the sorted sample between which quantile *q* lies, whatever the distribution.

    None when *count* values are too few to bound it on both sides: P99 (95%) needs 368.
    """
    _confidence(confidence)
    if not 0 < q < 1:
        raise ValueError(f"a quantile must be in (0, 1), not {q}")
    tail = (1 - confidence) / 2
    low = _last_rank(q, count, tail)
    high = count + 1 - _last_rank(1 - q, count, tail)
    return (low, high) if low >= 1 and high <= count else None


def _last_rank(q: float, count: int, tail: float) -> int:
    """Largest rank r with P(Binomial(count, q) < r) <= tail: the r-th smallest is above quantile q that seldom."""
    low, high = 0, count + 1
    while high - low > 1:
        middle = (low + high) // 2
        if special.bdtr(middle - 1, count, q) <= tail:
            low = middle
        else:
            high = middle
    return low


def student_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the mean of independent runs with its Student-t interval; raises ValueError below two values."""
    _confidence(confidence)
    sample = np.asarray(values, float)
    if sample.size < 2:
        raise ValueError("an interval needs at least two runs")
    mean = float(sample.mean())
    error = float(sample.std(ddof=1)) / math.sqrt(sample.size)
    half = float(special.stdtrit(sample.size - 1, (1 + confidence) / 2)) * error
    return Interval(mean, mean - half, mean + half)


def positive_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the mean of independent runs of what is above 0, with its Student-t interval on the scale of logarithms.

    The standard error of log(mean) is that of the mean over the mean (the delta method: Casella and Berger,
    *Statistical Inference*, 2002, section 5.5.4), so that the interval is never at 0 or below, however few the runs.
    Where values differ little it is Student's own; where they are skewed it covers the mean more often than that.

    Raises:
        ValueError: fewer than two values, or one that is not above 0.
    """
    sample = np.asarray(values, float)
    if not (sample > 0).all():
        raise ValueError("a scale of logarithms needs values above 0")
    mean, low, high = student_interval(sample, confidence)
    wide = math.exp((high - low) / 2 / mean)
    return Interval(mean, mean / wide, mean * wide)


def share_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the mean of independent runs of a share, with its Student-t interval on the scale of log-odds.

    As `positive_interval`, and below 1 as well: of what is rare it is the same, of what is nearly all it mirrors it.

    Raises:
        ValueError: fewer than two values, or one that is not between 0 and 1.
    """
    sample = np.asarray(values, float)
    if not ((sample > 0) & (sample < 1)).all():
        raise ValueError("a scale of log-odds needs values between 0 and 1")
    mean, low, high = student_interval(sample, confidence)
    half = (high - low) / 2 / (mean * (1 - mean))
    at = special.logit(mean)
    return Interval(mean, min(mean, float(special.expit(at - half))), max(mean, float(special.expit(at + half))))


def bootstrap_interval(values: ArrayLike, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return the median of independent runs with its percentile bootstrap interval (seeded: same every time)."""
    _confidence(confidence)
    sample = np.asarray(values, float)
    if sample.size < 1:
        raise ValueError("an interval needs at least one run")
    draws = np.random.default_rng(seed).integers(0, sample.size, (BOOTSTRAP_DRAWS, sample.size))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.median(sample[draws], axis=1), [tail, 1 - tail])
    return Interval(float(np.median(sample)), float(low), float(high))


def controlled_interval(values: ArrayLike, controls: ArrayLike, expected: float, confidence: float = 0.95) -> Interval:
    """Return the mean of independent runs as it would be had each run's *control* been as *expected*.

    A control is something whose mean is known, such as the work that arrived: a run that was offered more
    than its share had a longer queue too, and a straight line through the runs takes that luck out again
    (control variates; Lavenberg and Welch, Management Science 27, 1981). Raises ValueError below four runs.
    """
    _confidence(confidence)
    y, x = np.asarray(values, float), np.asarray(controls, float) - expected
    if y.size < 4 or x.size != y.size:
        raise ValueError("an interval with a control needs at least four runs, each with its control")
    line = np.stack([np.ones_like(x), x], axis=1)
    coefficients, *_ = np.linalg.lstsq(line, y, rcond=None)
    freedom = y.size - 2
    variance = float(((y - line @ coefficients) ** 2).sum()) / freedom
    error = math.sqrt(variance * float(np.linalg.inv(line.T @ line)[0, 0]))
    half = float(special.stdtrit(freedom, (1 + confidence) / 2)) * error
    mean = float(coefficients[0])
    return Interval(mean, mean - half, mean + half)
