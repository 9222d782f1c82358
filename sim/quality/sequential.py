"""Looking at every answer as it comes, and still raising a false alarm only as often as said.

A p-value is for one look; testing again and again at 5% is wrong in far more than 5% of healthy releases. Evidence
that is a martingale while nothing is wrong may be looked at always: it ever exceeds 1 / alpha with chance alpha at
most (Ville, *Etude critique de la notion de collectif*, 1939). Sources: Wald, *Sequential Analysis* (1947); Robbins,
Annals of Mathematical Statistics 41 (1970) 1397, for mixtures; Johari, Pekelis and Walsh, "Always valid inference",
Operations Research 70 (2022) 1806 (arXiv 1512.04922), for two arms; Ramdas et al., Statistical Science 38 (2023) 576.

Counts are cumulative: *wrong* of *graded* answers at each look, arrays of any shape whose last axis is the looks.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special


class Bounds(NamedTuple):
    """Where Wald's test stops: log likelihood ratio at or above *worse*, or at or below *fine*."""

    worse: float
    fine: float


def log_evidence(
    wrong: ArrayLike, graded: ArrayLike, baseline: float, prior: tuple[float, float] | None = None
) -> np.ndarray:
    """Return the log e-value that the rate is above *baseline*: alarm once it is log(1 / alpha) or more.

    The likelihood under a Beta *prior* cut off below the baseline, over the one at the baseline:
    [B(a+k, b+n-k) / B(a, b)] [sf(p0; a+k, b+n-k) / sf(p0; a, b)] / [p0^k (1-p0)^(n-k)].
    Left out, the prior is Beta(1, 1 / (2 p0)), whose mean is about twice the baseline: a doubling is noticed soonest.
    """
    k, n = np.asarray(wrong, float), np.asarray(graded, float)
    if not 0 < baseline < 1:
        raise ValueError(f"a baseline must be in (0, 1), not {baseline}")
    a, b = prior or (1.0, 1 / (2 * baseline))
    if a <= 0 or b <= 0 or np.any(k > n) or np.any(k < 0):
        raise ValueError("expected a prior above 0, and 0 <= wrong <= graded")
    with np.errstate(divide="ignore"):  # far fewer errors than the baseline: no evidence at all, log 0
        above = np.log(special.betaincc(a + k, b + n - k, baseline))
    mixed = special.betaln(a + k, b + n - k) - special.betaln(a, b) + above
    found: np.ndarray = (
        mixed - math.log(special.betaincc(a, b, baseline)) - k * math.log(baseline) - (n - k) * math.log1p(-baseline)
    )
    return found


def log_evidence_of_two(
    wrong_a: ArrayLike, wrong_b: ArrayLike, pairs: ArrayLike, tau: float, variance: float | None = None
) -> np.ndarray:
    """Return the log of the mixture likelihood ratio that two arms of *pairs* answers each differ, either way.

    sqrt(V / (V + n tau^2)) exp(n^2 tau^2 d^2 / (2 V (V + n tau^2))), d the difference of the rates, V the *variance* of
    a paired difference (left out: estimated from the pooled rate, which holds for large n), *tau* the size of
    difference that one expects.
    """
    a, b, n = (np.asarray(x, float) for x in (wrong_a, wrong_b, pairs))
    if not tau > 0:
        raise ValueError(f"tau must be above 0, not {tau}")
    pooled = (a + b + 0.5) / (2 * n + 1)  # half an error more: none at all is not certainty
    v = np.full_like(n, variance) if variance is not None else 2 * pooled * (1 - pooled)
    d = (b - a) / n
    grown = v + n * tau**2
    found: np.ndarray = 0.5 * np.log(v / grown) + n**2 * tau**2 * d**2 / (2 * v * grown)
    return found


def log_ratio(wrong: ArrayLike, graded: ArrayLike, baseline: float, worse: float) -> np.ndarray:
    """Return Wald's log likelihood ratio of rate *worse* over *baseline*."""
    k, n = np.asarray(wrong, float), np.asarray(graded, float)
    found: np.ndarray = k * math.log(worse / baseline) + (n - k) * math.log((1 - worse) / (1 - baseline))
    return found


def wald_bounds(alpha: float = 0.05, beta: float = 0.2) -> Bounds:
    """Return where the sequential probability ratio test stops with these chances of a false alarm and of a miss."""
    if not (0 < alpha < 1 and 0 < beta < 1):
        raise ValueError("alpha and beta must be in (0, 1)")
    return Bounds(math.log((1 - beta) / alpha), math.log(beta / (1 - alpha)))


def z_score(wrong: ArrayLike, graded: ArrayLike, baseline: float) -> np.ndarray:
    """Return the z-score of a rate above *baseline*: fair for one look that was planned, and for no more than one."""
    k, n = np.asarray(wrong, float), np.asarray(graded, float)
    found: np.ndarray = (k - n * baseline) / np.sqrt(n * baseline * (1 - baseline))
    return found


def peeking(wrong: ArrayLike, graded: ArrayLike, baseline: float, alpha: float = 0.05) -> np.ndarray:
    """Return at which looks a one-sided z-test says "worse": what teams do, and what fails at every look anew."""
    return z_score(wrong, graded, baseline) > float(special.ndtri(1 - alpha))


def first(crossed: ArrayLike) -> np.ndarray:
    """Return the index of the first look at which *crossed* (..., looks) is true, -1 where it never is."""
    hit = np.asarray(crossed, bool)
    return np.where(hit.any(axis=-1), hit.argmax(axis=-1), -1)


def looks(rng: np.random.Generator, rate: float, each: int, count: int, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cumulative *wrong* (runs, looks) and *graded* (looks,) of releases, *each* answers a look."""
    wrong = np.cumsum(rng.binomial(each, rate, (runs, count)), axis=1)
    return wrong, each * np.arange(1, count + 1)
