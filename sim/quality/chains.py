"""Steps that must all succeed: verifiers, retries, tasks of unlike difficulty, and the harm of a silent failure.

Plain compounding is `sim.theory.chance.compound`, and of tasks that differ `beta_compound`.
Sources: absorbing Markov chains (Kemeny and Snell, *Finite Markov Chains*, 1960); the beta-binomial of Skellam,
JRSS B 10 (1948); pass^k, the chance that k tries of one task all succeed: Yao et al., tau-bench, arXiv 2406.12045.
"""

import math
from typing import NamedTuple

import scipy

from sim.quality.rates import chance
from sim.theory.chance import beta_compound


class Step(NamedTuple):
    """What one step of an agent comes to: the chance that it is *right*, and how often the model is *calls* ed."""

    right: float
    calls: float


def verified(
    p: float, sensitivity: float, false_alarm: float = 0.0, retries: int | None = None, systematic: float = 0.0
) -> Step:
    """Return a step whose answers a verifier checks; one that is flagged is tried again, *retries* times at most.

    The first answer is right with chance *p*. The verifier flags wrong ones with chance *sensitivity* (d) and right
    ones with chance *false_alarm* (f). After the last retry whatever came is delivered; None retries until one passes.
    With q = p f + (1 - p) d flagged and A = p (1 - f) let through right: A (1 + q + ... + q^(r-1)) + q^r p, and
    A / (1 - q) without a limit; calls are 1 + q + ... + q^r.
    A share *systematic* of the steps comes out the same however often it is tried, as `systematic` of an agent says:
    of what retries gain, the rest is left.
    """
    for value, what in (
        (p, "p"),
        (sensitivity, "sensitivity"),
        (false_alarm, "false_alarm"),
        (systematic, "systematic"),
    ):
        chance(value, what)
    if retries is not None and retries < 0:
        raise ValueError(f"expected retries of 0 or more, not {retries}")
    flagged = p * false_alarm + (1 - p) * sensitivity
    through = p * (1 - false_alarm)
    if retries is None:
        right = through / (1 - flagged) if flagged < 1 else 0.0
    else:
        right = through * (_geometric(flagged, retries - 1) if retries else 0.0) + flagged**retries * p
    ways = (
        (1 - systematic, right, flagged),
        (systematic * p, 1.0, false_alarm),
        (systematic * (1 - p), 0.0, sensitivity),
    )
    return Step(
        sum(share * each for share, each, _ in ways),
        sum(share * _geometric(again, retries) for share, _, again in ways if share),
    )


def _geometric(q: float, last: int | None) -> float:
    """1 + q + ... + q^last, or the whole series."""
    if last is None:
        return 1 / (1 - q) if q < 1 else math.inf
    return (1 - q ** (last + 1)) / (1 - q) if q < 1 else last + 1.0


def fit_beta(mean: float, k: int, all_k: float) -> tuple[float, float]:
    """Return (a, b) of the Beta of tasks' success when one try succeeds with *mean*, and all of *k* with *all_k*.

    Raises:
        ValueError: *all_k* is not between what alike tasks give (mean^k) and what all-or-nothing tasks give (mean).
    """
    if not 0 < mean < 1 or k < 2 or not mean**k < all_k < mean:
        raise ValueError(
            f"expected pass^{k} between {mean**k if 0 <= mean <= 1 else 0:.4g} and {mean:.4g}, not {all_k}"
        )

    def gap(log_size: float) -> float:
        size = math.exp(log_size)
        return beta_compound(mean * size, (1 - mean) * size, k) - all_k

    size = math.exp(scipy.optimize.brentq(gap, -30.0, 18.0, xtol=1e-13))
    return mean * size, (1 - mean) * size
