"""How sure a share of wrong answers is, and how many graded answers it takes to be surer.

The intervals of one share are `sim.theory.chance.clopper_pearson` (exact) and `sim.theory.counted.wilson`.
Sources: Newcombe, Statistics in Medicine 17 (1998) 873, method 10, for two shares; Zou and Donner, Statistics in
Medicine 27 (2008) 1693 (MOVER), for sums of shares; Fleiss, Levin and Paik, *Statistical Methods for Rates and
Proportions* (2003), chapters 2 and 4, for sample sizes; Korn and Graubard, Survey Methodology 24 (1998) 193, for
the interval of an estimate that is worth so many answers.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from sim.theory.chance import Interval
from sim.theory.counted import wilson


def chance(p: float, what: str = "a share") -> float:
    """Return *p*, which must be in [0, 1]; raises ValueError naming *what* it is."""
    if not 0 <= p <= 1:
        raise ValueError(f"{what} must be in [0, 1], not {p}")
    return p


def z_of(confidence: float) -> float:
    """Return the standard normal quantile of a two-sided interval: 1.96 for 0.95."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), not {confidence}")
    return float(special.ndtri(0.5 + confidence / 2))


def difference(a: tuple[int, int], b: tuple[int, int], confidence: float = 0.95) -> Interval:
    """Return how much higher share *b* is than share *a*, each (hits, trials): Newcombe's hybrid score interval."""
    return combined((-1.0, 1.0), (wilson(*a, confidence), wilson(*b, confidence)))


def combined(weights: Sequence[float], shares: Sequence[Interval]) -> Interval:
    """Return the weighted sum of independent *shares* with the interval that theirs imply (MOVER).

    Keeps the lopsidedness of the single intervals, which a normal interval loses where errors are rare.
    """
    estimate = sum(w * share.estimate for w, share in zip(weights, shares, strict=True))
    down = up = 0.0
    for w, (middle, low, high) in zip(weights, shares, strict=True):
        below, above = (middle - low, high - middle) if w > 0 else (high - middle, middle - low)
        down += (w * below) ** 2
        up += (w * above) ** 2
    return Interval(estimate, estimate - math.sqrt(down), estimate + math.sqrt(up))


def effective(estimate: float, variance: float, least: float, confidence: float = 0.95) -> Interval:
    """Return Wilson's interval of an *estimate* that varies as a share of so many plain answers would.

    The answers it is worth are n = p (1 - p) / *variance*; *least* is their number where the estimate is 0 or 1 and
    that cannot be told. A normal interval of a small share reaches below 0 and misses it on the other side.
    """
    p = min(max(estimate, 0.0), 1.0)
    n = p * (1 - p) / variance if variance > 0 and 0 < p < 1 else least
    z = z_of(confidence)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + (z / n) ** 2 / 4) / (1 + z * z / n)
    return Interval(p, max(0.0, centre - half), min(1.0, centre + half))


def to_see(prevalence: float, confidence: float = 0.95) -> int:
    """Return how many answers to look at to meet a failure mode of this *prevalence* once, with that confidence.

    ln(1 - confidence) / ln(1 - q), about 3 / q at 95%: the rule of three.
    """
    if not 0 < prevalence < 1:
        raise ValueError(f"a prevalence must be in (0, 1), not {prevalence}")
    z_of(confidence)
    return math.ceil(math.log1p(-confidence) / math.log1p(-prevalence))


def to_notice(before: float, after: float, alpha: float = 0.05, power: float = 0.8, arms: int = 1) -> int:
    """Return the graded answers, in each arm, that notice a share rising from *before* to *after* that often.

    One arm against a rate that is known, or two *arms* side by side; one-sided at *alpha*, normal approximation.
    """
    if not (0 < before < 1 and 0 < after < 1 and before != after):
        raise ValueError(f"expected two different shares in (0, 1), not {before} and {after}")
    if arms not in (1, 2):
        raise ValueError(f"expected one arm or two, not {arms}")
    z_alpha, z_power = float(special.ndtri(1 - alpha)), float(special.ndtri(power))
    null, other = before * (1 - before), after * (1 - after)
    if arms == 2:
        middle = (before + after) / 2
        null, other = 2 * middle * (1 - middle), null + other
    root = z_alpha * math.sqrt(null) + z_power * math.sqrt(other)
    return math.ceil((root / (after - before)) ** 2)


def to_estimate(share: float, half_width: float, confidence: float = 0.95) -> int:
    """Return the graded answers that know a *share* to plus or minus *half_width* (absolute), normal approximation."""
    chance(share)
    if not half_width > 0:
        raise ValueError(f"a half-width must be above 0, not {half_width}")
    return math.ceil(share * (1 - share) * (z_of(confidence) / half_width) ** 2)


def majority(p: float, votes: int = 3) -> float:
    """Return the chance that most of *votes* answers (an odd number) are wrong when each is with chance *p* alone.

    Voting mends errors that are drawn anew each time; a systematic one is wrong in every vote and stays.
    """
    chance(p)
    if votes < 1 or votes % 2 == 0:
        raise ValueError(f"expected an odd number of votes, not {votes}")
    wrong = np.arange(votes // 2 + 1, votes + 1)
    return float((special.comb(votes, wrong) * p**wrong * (1 - p) ** (votes - wrong)).sum())
