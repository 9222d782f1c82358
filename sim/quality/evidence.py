"""Is the new version worse than the one before? Evidence that may be looked at always, whatever share each one gets.

Two arms side by side: given how many of the answers graded since the last look are wrong, and how many of each arm were
graded, equal arms share the wrong ones as a hypergeometric draw, and arms whose odds differ by psi as Fisher's
noncentral one. The likelihood ratio of the two, multiplied over looks, is a martingale while the arms are equal,
however the share moves and the base rate drifts; so it ever exceeds 1 / alpha with chance alpha at most (Ville, 1939).
Mixed over psi, because nobody knows it. Sources: Harkness, "Properties of the extended hypergeometric
distribution" (Annals of Mathematical Statistics 36, 1965); Turner, Ly and Grunwald, "Generic E-variables for exact
sequential k-sample tests" (2024), for the idea of tests block by block.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

ODDS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""How much worse the odds may be: what the mixture looks for."""


def log_ratios(graded_old: ArrayLike, wrong_old: ArrayLike, graded_new: ArrayLike, wrong_new: ArrayLike) -> np.ndarray:
    """Return the log likelihood ratio of each of `ODDS` over 1 (..., odds) of what was graded since the last look."""
    n0, k0, n1, k1 = np.broadcast_arrays(
        *(np.asarray(x, float) for x in (graded_old, wrong_old, graded_new, wrong_new))
    )
    k = (k0 + k1)[..., None]
    j = np.arange(int(k.max(initial=0)) + 1)  # how many of the wrong ones may be the new version's
    with np.errstate(invalid="ignore"):
        ways = _log_choose(n1[..., None], j) + _log_choose(n0[..., None], k - j)
    none = special.logsumexp(ways, axis=-1)
    made = [math.log(psi) * k1 - special.logsumexp(ways + j * math.log(psi), axis=-1) + none for psi in ODDS]
    return np.stack(made, axis=-1)


def mixed(log_each: np.ndarray) -> np.ndarray:
    """Return the log of the mixture over `ODDS` of ratios whose logs are *log_each* (..., odds)."""
    return np.asarray(special.logsumexp(log_each, axis=-1) - math.log(len(ODDS)))


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return log C(n, k); minus infinity where there is no way."""
    possible = (k >= 0) & (k <= n)
    k = np.where(possible, k, 0.0)
    found = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return np.where(possible, found, -np.inf)
