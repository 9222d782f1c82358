"""What a confidence is worth: does 90% mean 90% (calibration), and does it tell right from wrong (discrimination)?

The two are not the same. Any monotone distortion ruins the first and leaves the second alone; a constant may be
perfectly calibrated and tells nothing. Sources: Murphy, Journal of Applied Meteorology 12 (1973) 595, and Stephenson et
al., Weather and Forecasting 23 (2008) 752, for Brier's parts; Naeini et al., AAAI 2015, for ECE; Broecker and Smith,
Weather and Forecasting 22 (2007) 651, for what ECE chance alone gives; Sun and Xu, IEEE Signal Processing Letters 21
(2014) 1389, for the variance of AUROC (DeLong 1988); Geifman and El-Yaniv, NeurIPS 2017, for risk and coverage; Platt
(1999) and Guo et al., ICML 2017, for recalibration.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike
from scipy import special

from sim.quality.rates import effective, z_of
from sim.theory.chance import BOOTSTRAP_DRAWS, Interval

BINS = 10
LEAST = 1e-6
"""Confidences of 0 and 1 are moved this far inside before a logit is taken."""


class Bins(NamedTuple):
    """A reliability diagram, each array (bins,): answers, their mean confidence, and how many of them were right."""

    answers: np.ndarray
    confidence: np.ndarray
    right: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """The share that was right in each bin."""
        share: np.ndarray = self.right / self.answers
        return share


class Brier(NamedTuple):
    """Brier's score and its parts: *reliability* - *resolution* + *uncertainty* + what varies *within* bins."""

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


class Ece(NamedTuple):
    """Expected calibration error: as *plain* binning has it, without its bias and with an interval, and the *floor*.

    The floor is what a perfectly calibrated model would show too in 1 of 20 samples of this size.
    """

    plain: float
    interval: Interval
    floor: float


def checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays (n,), float in [0, 1] and bool; raises ValueError if they are not that."""
    c, y = np.asarray(confidence, float), np.asarray(correct, bool)
    if c.ndim != 1 or c.shape != y.shape or c.size == 0:
        raise ValueError("expected as many answers as confidences, at least one")
    if not np.all((c >= 0) & (c <= 1)):
        raise ValueError("a confidence must be in [0, 1]")
    return c, y


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> Bins:
    """Return *bins* of about equally many answers, by confidence; answers of one confidence are never parted.

    Equal widths would leave all but the last bin nearly empty at 99% accuracy.
    """
    c, y = checked(confidence, correct)
    edges = np.unique(np.quantile(c, np.arange(1, bins) / bins, method="inverted_cdf"))
    index = np.searchsorted(edges, c, side="left")
    count = np.bincount(index, minlength=edges.size + 1)
    sums = np.bincount(index, weights=c, minlength=edges.size + 1)
    right = np.bincount(index, weights=y, minlength=edges.size + 1)
    some = count > 0
    return Bins(count[some], sums[some] / count[some], right[some].astype(int))


def ece(bins: Bins, confidence: float = 0.95, seed: int = 0) -> Ece:
    """Return the expected calibration error of *bins*: sum over bins of n_b / n |confidence - accuracy|.

    Right answers are drawn again within each bin (seeded); binning sees a gap where there is none, so the mean excess
    of these draws is taken off, and the interval is the basic bootstrap's, cut at 0.
    """
    rng = np.random.default_rng(seed)
    n, total = bins.answers, bins.answers.sum()

    def of(right: np.ndarray) -> np.ndarray:
        gap: np.ndarray = np.abs(n * bins.confidence - right).sum(axis=-1) / total
        return gap

    plain = float(of(bins.right))
    again = of(rng.binomial(n, bins.accuracy, (BOOTSTRAP_DRAWS, n.size)))
    honest = of(rng.binomial(n, np.clip(bins.confidence, 0, 1), (BOOTSTRAP_DRAWS, n.size)))
    tail = (1 - confidence) / 2
    high, low = 2 * plain - np.quantile(again, [tail, 1 - tail])
    middle = 2 * plain - float(again.mean())
    interval = Interval(max(0.0, middle), max(0.0, float(low)), max(0.0, float(high)))
    return Ece(plain, interval, float(np.quantile(honest, 0.95)))


def brier(confidence: ArrayLike, correct: ArrayLike, bins: int | None = None) -> Brier:
    """Return Brier's score, the mean of (confidence - right)^2, and its parts over equal-mass bins.

    *reliability*: how far confidence is from accuracy (0 is best); *resolution*: how far bins differ from each other
    (high is best); *uncertainty*: what a forecaster who always says the average would score. More *bins* where there
    are many answers, so that little is left *within* them.
    """
    c, y = checked(confidence, correct)
    found = reliability(c, y, bins or max(BINS, min(100, c.size // 500)))
    weight, base = found.answers / c.size, y.mean()
    rel = float((weight * (found.confidence - found.accuracy) ** 2).sum())
    res = float((weight * (found.accuracy - base) ** 2).sum())
    score, unc = float(((c - y) ** 2).mean()), float(base * (1 - base))
    return Brier(score, rel, res, unc, score - (rel - res + unc))


def auroc(confidence: ArrayLike, correct: ArrayLike, level: float = 0.95) -> Interval:
    """Return the chance that a right answer has more confidence than a wrong one (ties count half), with its interval.

    DeLong's variance by ranks, on the logit scale so that the interval stays inside (0, 1).

    Raises:
        ValueError: all answers are right, or all are wrong: there is nothing to tell apart.
    """
    c, y = checked(confidence, correct)
    right, wrong = c[y], c[~y]
    m, n = right.size, wrong.size
    if not (m and n):
        raise ValueError("expected right answers and wrong ones")
    ranks = scipy.stats.rankdata(np.concatenate([right, wrong]))
    area = float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))
    of_right = (ranks[:m] - scipy.stats.rankdata(right)) / n
    of_wrong = 1 - (ranks[m:] - scipy.stats.rankdata(wrong)) / m
    variance = sum(float(v.var(ddof=1)) / v.size for v in (of_right, of_wrong) if v.size > 1)
    if area in (0.0, 1.0) or min(m, n) == 1:  # no variance to be seen: as sure as a share of so few answers
        return effective(area, 0.0, min(m, n), level)
    half = z_of(level) * math.sqrt(variance) / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-half, half]))
    return Interval(area, float(low), float(high))


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return coverage k / n and the error among the k most confident answers, for k = 1..n: each (n,).

    Answers of one confidence count with their common error rate, so their order does not matter.
    """
    c, y = checked(confidence, correct)
    _, group = np.unique(-c, return_inverse=True)
    mean_wrong = np.bincount(group, weights=~y) / np.bincount(group)
    wrong = np.sort(group)
    k = np.arange(1, c.size + 1)
    return k / c.size, np.cumsum(mean_wrong[wrong]) / k


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the area under the risk-coverage curve: the mean error over all coverages; lower is better."""
    return float(risk_coverage(confidence, correct)[1].mean())


def recalibration(confidence: ArrayLike, correct: ArrayLike, shifted: bool = True) -> tuple[float, float]:
    """Return (slope, shift) that make sigma(slope logit(c) + shift) most likely: Platt's, or a temperature alone.

    Without *shifted* the shift is 0 and 1 / slope is the temperature of Guo et al. A slope below 1 says that the model
    is over-confident.
    """
    c, y = checked(confidence, correct)
    if y.all() or not y.any():
        raise ValueError("expected right answers and wrong ones")
    x = special.logit(np.clip(c, LEAST, 1 - LEAST))
    sign = np.where(y, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, shift = parameters[0], parameters[1] if shifted else 0.0
        z = sign * (slope * x + shift)
        pull = -sign * special.expit(-z)
        slopes = np.array([(pull * x).mean(), pull.mean()])
        return float(np.logaddexp(0, -z).mean()), slopes if shifted else slopes[:1]

    start = np.array([1.0, 0.0] if shifted else [1.0])
    found = scipy.optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-7}).x
    return float(found[0]), float(found[1]) if shifted else 0.0


def recalibrated(confidence: ArrayLike, slope: float, shift: float) -> np.ndarray:
    """Return the confidences (n,) that `recalibration` makes of these."""
    c = np.clip(np.asarray(confidence, float), LEAST, 1 - LEAST)
    out: np.ndarray = special.expit(slope * special.logit(c) + shift)
    return out
