"""Is it good enough? Ship as it is, have people look first, or find out more: expected cost of one answer.

A wrong answer costs its *stakes* unless it is noticed and can be undone, which costs one more look. Looking at
every answer costs *review* each and stops a share *catch* of the wrong ones. So reviewing pays from the error rate
p* = review / (harm x catch) on. Elementary decision theory (Raiffa and Schlaifer, 1961); the terms are those of
"1% Error Rate, 10 Million Users" (stakes, reversibility, detectability).
"""

import math
from typing import Literal, NamedTuple

from sim.quality.rates import chance
from sim.theory.chance import Interval

Choice = Literal["ship", "review", "unsure"]
WORKDAY_H = 8.0


class Stakes(NamedTuple):
    """What being wrong costs, in one currency: a wrong answer that stays, and a look at one answer."""

    wrong: float
    review: float
    reversible: float = 0.0
    detectable: float = 0.0
    catch: float = 1.0

    @property
    def harm(self) -> float:
        """The expected cost of a wrong answer that nobody looked at first: one is mended if noticed and reversible."""
        mended = self.reversible * self.detectable
        return (1 - mended) * self.wrong + mended * min(self.review, self.wrong)

    @property
    def break_even(self) -> float:
        """The error rate from which on looking at every answer is cheaper; above 1 if never."""
        saved = self.harm * self.catch
        return self.review / saved if saved > 0 else math.inf


class Decision(NamedTuple):
    """The cheaper way, the cost of each way per answer, and the error rate at which they are equal."""

    choice: Choice
    ship_cost: float
    review_cost: float
    break_even: float


def decide(error: Interval, stakes: Stakes) -> Decision:
    """Return whether to ship or to review, given how sure the *error* rate is; "unsure" if its interval holds both."""
    if stakes.wrong < 0 or stakes.review < 0:
        raise ValueError("costs must be 0 or more")
    for value, what in ((stakes.reversible, "reversible"), (stakes.detectable, "detectable"), (stakes.catch, "catch")):
        chance(value, what)
    limit = stakes.break_even
    choice: Choice = "ship" if error.high < limit else "review" if error.low >= limit else "unsure"
    p, harm = chance(error.estimate, "error"), stakes.harm
    return Decision(choice, p * harm, stakes.review + p * (1 - stakes.catch) * harm, limit)


def repair_hours(wrong: float, each_s: float) -> tuple[float, float]:
    """Return the hours that mending *wrong* answers takes, *each_s* seconds apiece, and the working days of 8 h."""
    hours = wrong * each_s / 3600
    return hours, hours / WORKDAY_H
