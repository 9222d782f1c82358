"""Which answers to grade: strata, how many of each, and many tests at once.

Sources: Neyman, JRSS 97 (1934) 558; Cochran, *Sampling Techniques* (1977), chapter 5; Kullback and Leibler (1951) for
the answers a test needs (Chernoff-Stein); Fisher, JRSS 98 (1935) 39, for his exact test; Holm, Scandinavian Journal of
Statistics 6 (1979) 65.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def proportional(shares: ArrayLike) -> np.ndarray:
    """Return the share of graded answers for each cohort when every answer is as likely to be graded: its own share."""
    return _weights(np.asarray(shares, float))


def equal(shares: ArrayLike) -> np.ndarray:
    """Return the same share of graded answers for every cohort."""
    return _weights(np.ones(np.asarray(shares).size))


def neyman(shares: ArrayLike, rates: ArrayLike) -> np.ndarray:
    """Return the shares that estimate the overall rate best: n_h in proportion to w_h sqrt(p_h (1 - p_h))."""
    p = np.asarray(rates, float)
    return _weights(np.asarray(shares, float) * np.sqrt(p * (1 - p)))


def for_detection(rates: ArrayLike, worse: ArrayLike) -> np.ndarray:
    """Return the shares that notice any one cohort turning *worse* equally soon: n_h in proportion to 1 / KL.

    A test needs about ln(1 / alpha) / KL(worse, rate) answers of a cohort, whatever the cohort's share of the traffic.
    """
    return _weights(1 / divergence(worse, rates))


def divergence(p: ArrayLike, q: ArrayLike) -> np.ndarray:
    """Return the Kullback-Leibler divergence of a coin *p* from a coin *q*, both in (0, 1), in nats."""
    a, b = np.asarray(p, float), np.asarray(q, float)
    found: np.ndarray = a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))
    return found


def _weights(raw: np.ndarray) -> np.ndarray:
    if np.any(raw < 0) or not (np.all(np.isfinite(raw)) and raw.sum() > 0):
        raise ValueError("expected shares of 0 or more with a sum above 0")
    weights: np.ndarray = raw / raw.sum()
    return weights


def whole(total: int, weights: ArrayLike, least: int = 1) -> np.ndarray:
    """Return *total* answers to grade as whole numbers in proportion to *weights*, *least* of them in every cohort.

    Largest remainders; raises ValueError when *total* is too few to give every cohort its *least*.
    """
    w = _weights(np.asarray(weights, float))
    rest = total - least * w.size
    if rest < 0:
        raise ValueError(f"{total} answers are too few for {w.size} cohorts with {least} each")
    need = np.maximum(w * total - least, 0)
    exact = rest * need / need.sum() if need.sum() > 0 else np.full(w.size, rest / w.size)
    sizes = np.floor(exact).astype(int)
    for h in np.argsort(sizes - exact, kind="stable")[: rest - sizes.sum()]:
        sizes[h] += 1
    return np.asarray(sizes + least)


def variance(shares: ArrayLike, rates: ArrayLike, sizes: ArrayLike) -> float:
    """Return the variance of the overall rate estimated from *sizes* answers of each cohort: sum w^2 p (1 - p) / n."""
    w, p, n = (np.asarray(x, float) for x in (shares, rates, sizes))
    return float((w**2 * p * (1 - p) / n).sum())


def holm(p_values: ArrayLike) -> np.ndarray:
    """Return p-values adjusted so that any false alarm among them all is as rare as said: Bonferroni, step by step."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, stepped)
    return adjusted


def worse_than_the_others(wrong: ArrayLike, answers: ArrayLike) -> np.ndarray:
    """Return for each cohort how likely its *wrong* of its *answers* were if it were like the others.

    Fisher's exact test against the rest, one-sided, adjusted as `holm` does: of cohorts that are all alike any is
    called worse, at 5%, in at most 5% of all files.
    """
    k, n = np.asarray(wrong, int), np.asarray(answers, int)
    return holm(stats.hypergeom.sf(k - 1, n.sum(), k.sum(), n))
