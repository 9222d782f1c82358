"""Benchmark against production: the same model, other users.

Sources: Kitagawa, JASA 50 (1955) 1168, and Oaxaca, International Economic Review 14 (1973) 693, for splitting a
difference; Good, Biometrika 40 (1953) 237, and Esty, Annals of Statistics 11 (1983) 905, for what was never seen.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sim.quality.rates import z_of
from sim.theory.chance import Interval


class Shift(NamedTuple):
    """Two averages over cohorts and why they differ; the arrays have one value a cohort.

    Kitagawa has two parts, *mix* + *rate* = after - before: each change weighted with the mean of the other.
    Oaxaca has three, *endowment* + *coefficient* + *interaction*: each change weighted with what was before.
    Rates enter *mix* and *endowment* as their distance from the average, so that a cohort that is as right as the
    rest adds nothing by growing; the sums are the same with the rates themselves.
    """

    before: float
    after: float
    mix: np.ndarray
    rate: np.ndarray
    endowment: np.ndarray
    coefficient: np.ndarray
    interaction: np.ndarray


def shift(
    shares_before: ArrayLike, rates_before: ArrayLike, shares_after: ArrayLike, rates_after: ArrayLike | None = None
) -> Shift:
    """Return why the average of a rate differs between two mixes of cohorts: other users, or other rates.

    Raises:
        ValueError: the shares of a mix do not sum to 1.
    """
    w, r = np.asarray(shares_before, float), np.asarray(rates_before, float)
    v = np.asarray(shares_after, float)
    s = r if rates_after is None else np.asarray(rates_after, float)
    for shares in (w, v):
        if shares.shape != r.shape or np.any(shares < 0) or abs(shares.sum() - 1) > 1e-6:
            raise ValueError(f"expected a share for each of {r.size} cohorts, with the sum 1, not {shares.tolist()}")
    before, after = float(w @ r), float(v @ s)
    return Shift(
        before=before,
        after=after,
        mix=(v - w) * (r + s - before - after) / 2,
        rate=(s - r) * (v + w) / 2,
        endowment=(v - w) * (r - before),
        coefficient=(s - r) * w,
        interaction=(v - w) * (s - r),
    )


class Readings(NamedTuple):
    """What "worse by a share" can mean for an accuracy: each is the accuracy that is left."""

    relative_accuracy: float
    percentage_points: float
    relative_error: float


def worse_by(accuracy: float, share: float) -> Readings:
    """Return the three accuracies that "*share* worse than *accuracy*" can mean: 99% and 20% give 79.2%, 79%, 98.8%."""
    if not (0 <= accuracy <= 1 and 0 <= share <= 1):
        raise ValueError(f"expected fractions in [0, 1], not {accuracy} and {share}")
    return Readings(accuracy * (1 - share), max(0.0, accuracy - share), 1 - min(1.0, (1 - accuracy) * (1 + share)))


def unseen(counts: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the chance that the next failure is of a kind never seen, after each kind was seen *counts* times.

    Good and Turing: kinds seen once, over all failures; with Esty's normal interval, cut to [0, 1].
    """
    seen = np.asarray(counts, int)
    n = int(seen.sum())
    if n < 1 or np.any(seen < 0):
        raise ValueError("expected how often each kind of failure was seen, at least one of them")
    once, twice = int((seen == 1).sum()), int((seen == 2).sum())
    estimate = once / n
    half = z_of(confidence) * math.sqrt(once * (1 - once / n) + 2 * twice) / n
    return Interval(estimate, max(0.0, estimate - half), min(1.0, estimate + half))
