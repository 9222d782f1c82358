"""How likely a request is to be answered wrong: it varies by request and by user, around its cohort's mean."""

import numpy as np
import scipy
from scipy import special

CELLS = 8192
"""Quantiles of the chance that are told apart; each stands for the mean of its cell, so the mean is exact."""
ALIKE = 1e6
"""A discrimination above which chances differ by less than a thousandth, and inverting their Beta takes for ever."""
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_NEVER = 1e-12  # keeps a logit finite


def chances(error: float, discrimination: float | None) -> np.ndarray:
    """Return the chance of a wrong answer by quantile (CELLS,), ascending, whose mean is *error*.

    The chance of a right one is Beta(k m, k (1 - m)), k the *discrimination* and m the mean; None: all have the same.
    The mean of a cell of a Beta(a, b) comes from the distribution function of Beta(a + 1, b). Kept are chances of
    being wrong, because most are so near to 0 that those of being right would be 1.
    """
    if discrimination is None or discrimination > ALIKE or error in (0.0, 1.0):
        return np.full(CELLS, error)
    a, b = discrimination * error, discrimination * (1.0 - error)
    below = np.linspace(0.0, 1.0, CELLS + 1)
    edges = special.betaincinv(a, b, below)
    found = np.diff(error * special.betainc(a + 1.0, b, edges)) * CELLS
    # near 1 a float tells chances apart worse than near 0, so above a half those of being right are counted
    half = min(int(np.searchsorted(edges, 0.5)), CELLS)
    right = special.betaincinv(b, a, 1.0 - below[half:])
    found[half:] = 1.0 + np.diff((1.0 - error) * special.betainc(b + 1.0, a, right)) * CELLS
    middle = max(half - 1, 0)
    found[middle] = 0.0
    found[middle] = error * CELLS - found.sum()  # where all or nothing is likely, this cell has both
    return np.clip(found, _NEVER, 1.0 - _NEVER)


def logits(chance: np.ndarray, user_sigma: float) -> np.ndarray:
    """Return the logit of being right by *chance* of being wrong, moved so that users leave the mean as it is.

    A user adds a normal number with the standard deviation *user_sigma* to the logits of all of their requests.
    """
    if chance.max() in (0.0, 1.0) and chance.min() == chance.max():
        return np.where(chance == 0.0, np.inf, -np.inf)
    logit = -special.logit(chance)
    if user_sigma == 0.0:
        return np.asarray(logit)

    def excess(move: float) -> float:
        spread = special.expit(-(logit[:, None] + move + user_sigma * _NODES))
        return float((spread @ _WEIGHTS).mean() - chance.mean())

    return np.asarray(logit + scipy.optimize.brentq(excess, -50.0, 50.0, xtol=1e-12))
