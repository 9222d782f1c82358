"""Looking at every answer as it comes, and still raising a false alarm only as often as said.

A p-value is for one look; testing again and again at 5% is wrong in far more than 5% of healthy releases. Evidence
that is a martingale while nothing is wrong may be looked at always: it ever exceeds 1 / alpha with chance alpha at
most (Ville, *Etude critique de la notion de collectif*, 1939). Sources: Robbins, Annals of
Mathematical Statistics 41 (1970) 1397, for mixtures; Ramdas et al., Statistical Science 38 (2023) 576. Two arms side by
side are in `sim.quality.evidence`.

Counts are cumulative: *wrong* of *graded* answers at each look, arrays of any shape whose last axis is the looks.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special


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


def peeking(wrong: ArrayLike, graded: ArrayLike, baseline: float, alpha: float = 0.05) -> np.ndarray:
    """Return at which looks a one-sided z-test says "worse": what teams do, and what fails at every look anew."""
    k, n = np.asarray(wrong, float), np.asarray(graded, float)
    z: np.ndarray = (k - n * baseline) / np.sqrt(n * baseline * (1 - baseline))
    return z > float(special.ndtri(1 - alpha))


def first(crossed: ArrayLike) -> np.ndarray:
    """Return the index of the first look at which *crossed* (..., looks) is true, -1 where it never is."""
    hit = np.asarray(crossed, bool)
    return np.where(hit.any(axis=-1), hit.argmax(axis=-1), -1)


def looks(rng: np.random.Generator, rate: float, each: int, count: int, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cumulative *wrong* (runs, looks) and *graded* (looks,) of releases, *each* answers a look."""
    wrong = np.cumsum(rng.binomial(each, rate, (runs, count)), axis=1)
    return wrong, each * np.arange(1, count + 1)
