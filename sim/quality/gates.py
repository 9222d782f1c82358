"""A confidence gate: answers it holds back go to people. At a fixed threshold, or always the least confident share.

A fixed threshold reads confidence as a number, so it stands and falls with calibration. A quantile reads only the
order of answers, so only discrimination matters to it, and its load is known. Sources: Chow, IEEE Transactions on
Information Theory 16 (1970) 41, for the threshold of least cost; El-Yaniv and Wiener, JMLR 11 (2010) 1605.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sim.quality.calibration import checked
from sim.theory.chance import Interval
from sim.theory.counted import wilson

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


class Gate(NamedTuple):
    """Holds back every answer below *threshold*, and a share *at* of those exactly there."""

    threshold: float
    at: float = 0.0


class Gated(NamedTuple):
    """What a gate does: the share *escalated*, of the errors the share *caught*, and the errors left among all answers.

    *cost* is of one answer, looks and errors left together; *residual* counts escalated answers as right.
    """

    gate: Gate
    escalated: float
    caught: Interval
    residual: float
    cost: float


def of_share(confidence: ArrayLike, share: float) -> Gate:
    """Return the gate that holds back the least confident *share* of answers; ties at its edge are drawn by lot."""
    c = np.asarray(confidence, float)
    if not 0 <= share <= 1 or c.size == 0:
        raise ValueError(f"a share must be in [0, 1], not {share}")
    wanted = share * c.size
    rank = min(c.size - 1, int(wanted))
    edge = float(np.partition(c, rank)[rank])
    below, here = int((c < edge).sum()), int((c == edge).sum())
    return Gate(edge, min(1.0, (wanted - below) / here))


def judge(
    gate: Gate, confidence: ArrayLike, correct: ArrayLike, review_cost: float = 0.0, error_cost: float = 0.0
) -> Gated:
    """Return what *gate* does to these answers (n,): costs are of one look and of one wrong answer that gets through.

    With ties drawn by lot, counts are expected ones; the interval of what was caught is Wilson's of the rounded count.
    """
    c, y = checked(confidence, correct)
    held = (c < gate.threshold) + gate.at * (c == gate.threshold)
    escalated, errors = float(held.mean()), int((~y).sum())
    caught = float(held[~y].sum())
    around = wilson(round(caught), errors)
    share = Interval(caught / errors, around.low, around.high) if errors else around
    residual = (errors - caught) / c.size
    return Gated(gate, escalated, share, residual, review_cost * escalated + error_cost * residual)


def fixed(
    confidence: ArrayLike,
    correct: ArrayLike,
    thresholds: Sequence[float] = THRESHOLDS,
    review_cost: float = 0.0,
    error_cost: float = 0.0,
) -> list[Gated]:
    """Return what gates at these *thresholds* do."""
    return [judge(Gate(at), confidence, correct, review_cost, error_cost) for at in thresholds]


def quantile(
    confidence: ArrayLike,
    correct: ArrayLike,
    shares: Sequence[float] = SHARES,
    review_cost: float = 0.0,
    error_cost: float = 0.0,
) -> list[Gated]:
    """Return what gates that hold back these *shares* of all answers do."""
    return [judge(of_share(confidence, share), confidence, correct, review_cost, error_cost) for share in shares]


def perfect(share: float, error: float) -> float:
    """Return the share of errors that the best possible order would catch by holding back *share* of all answers."""
    return min(1.0, share / error) if error > 0 else 1.0


def threshold_of_least_cost(review_cost: float, error_cost: float) -> float:
    """Return the confidence below which a look pays if confidence is calibrated: 1 - review / error (Chow's rule)."""
    if not (review_cost >= 0 and error_cost > 0):
        raise ValueError("expected a review cost of 0 or more and an error cost above 0")
    return max(0.0, 1 - review_cost / error_cost)


def cheapest(confidence: ArrayLike, correct: ArrayLike, review_cost: float, error_cost: float) -> Gated:
    """Return the gate that would have been cheapest for these answers: one of all thresholds, or none, or all."""
    c, y = checked(confidence, correct)
    values, group = np.unique(c, return_inverse=True)
    held = np.concatenate([[0], np.cumsum(np.bincount(group))])
    caught = np.concatenate([[0], np.cumsum(np.bincount(group, weights=~y))])
    cost = review_cost * held + error_cost * ((~y).sum() - caught)
    best = int(np.argmin(cost))
    threshold = float(values[best]) if best < values.size else float(np.nextafter(values[-1], 2))
    return judge(Gate(threshold), c, y, review_cost, error_cost)
