"""Who meets the errors: the same rate spread evenly, or the same few users again and again.

Sources: Fisher's dispersion test (*Statistical Methods for Research Workers*, 1925, section 19); the intraclass
correlation of a beta-binomial, 1 / (a + b + 1), by moments: Ridout, Demetrio and Firth, Biometrics 55 (1999) 137;
Gini (1912) by ranks.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special


class Dispersion(NamedTuple):
    """How unevenly errors fall on users: *ratio* is the variance over that of chance alone, so 1 for random errors."""

    ratio: float
    p_value: float
    icc: float
    gini: float


def dispersion(wrong: ArrayLike, asked: ArrayLike) -> Dispersion:
    """Return how unevenly errors fall on users, of whom each *asked* so often and met so many *wrong* answers.

    Both of shape (users,). *ratio* is Pearson's chi-square over its degrees of freedom, *p_value* that of chance alone
    giving as much, *icc* the correlation of two answers to one user (0: random errors, 1: always the same users).

    Raises:
        ValueError: fewer than two users, or no errors, or nothing but errors.
    """
    k, n = np.asarray(wrong, float), np.asarray(asked, float)
    k, n = k[n > 0], n[n > 0]
    if k.size < 2 or not 0 < k.sum() < n.sum():
        raise ValueError("expected two users or more, and both right and wrong answers")
    p = k.sum() / n.sum()
    chi2 = float(((k - n * p) ** 2 / (n * p * (1 - p))).sum())
    freedom = k.size - 1
    p_value = float(special.chdtrc(freedom, chi2))
    return Dispersion(chi2 / freedom, p_value, _icc(k, n), gini(k))


def _icc(k: np.ndarray, n: np.ndarray) -> float:
    """The analysis-of-variance estimate of the intraclass correlation, never below 0 (Ridout et al., section 2.2)."""
    users, total = len(k), n.sum()
    between = ((k**2 / n).sum() - k.sum() ** 2 / total) / (users - 1)
    if total == users:
        return 0.0  # one answer each says nothing about two
    within = (k.sum() - (k**2 / n).sum()) / (total - users)
    typical = (total - (n**2).sum() / total) / (users - 1)
    whole = between + (typical - 1) * within
    return float(max(0.0, (between - within) / whole)) if whole > 0 else 0.0


def gini(values: ArrayLike) -> float:
    """Return the Gini coefficient of *values* (0: everybody has the same, near 1: one has all)."""
    sorted_ = np.sort(np.asarray(values, float))
    if not sorted_.sum() > 0:
        raise ValueError("expected values with a sum above 0")
    ranks = np.arange(1, sorted_.size + 1)
    return float((2 * ranks - sorted_.size - 1) @ sorted_ / (sorted_.size * sorted_.sum()))


def lorenz(values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return shares of users, those with the fewest first, and the share of all errors they have: each (users + 1,)."""
    sorted_ = np.sort(np.asarray(values, float))
    held = np.concatenate([[0.0], np.cumsum(sorted_)])
    return np.linspace(0, 1, sorted_.size + 1), held / held[-1]
