"""When a claim is right: it is taken apart into checks, and each check is one measurement against what was said.

The rule, the same for all: right if every check holds, loose if some do, wrong if none does, not simulable if there is
nothing to measure. A check that names one number holds if the interval contains it. One that names a range holds if the
whole interval lies inside, and fails if all of it lies outside. Between the two it is not decided, and neither is a
claim whose verdict hangs on it.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from sim.theory.chance import Interval

Unit = Literal["", "share", "s", "h", "times"]
"""What a number counts: things, a share of them, seconds, hours, or how many times as much."""


class Verdict(StrEnum):
    """What became of a claim."""

    RIGHT = "right"
    LOOSE = "loose"
    WRONG = "wrong"
    NOT_SIMULABLE = "not simulable"
    UNDECIDED = "not decided"


@dataclass(frozen=True)
class Check:
    """One measurement, and the range [*low*, *high*] in which it must lie for the claim to hold here."""

    what: str
    found: Interval
    low: float
    high: float
    unit: Unit = ""

    @property
    def holds(self) -> bool | None:
        """Whether the interval contains the one number that was named, or lies inside the range; None: not decided."""
        _, low, high = self.found
        if self.low == self.high:
            return bool(low <= self.low <= high)
        if self.low <= low and high <= self.high:
            return True
        return False if high < self.low or low > self.high else None

    @property
    def limit(self) -> float:
        """The end of the range that the interval holds (the one farther from deciding), or nan if it is decided."""
        held = [end for end in (self.low, self.high) if self.found.low <= end <= self.found.high]
        return max(held, key=self._times) if held and self.holds is None else math.nan

    @property
    def more(self) -> float:
        """How many times the seeds (or requests) would decide it, if the estimate stayed; inf where it is the limit.

        Intervals are as wide as one over the square root of their number.
        """
        return self._times(self.limit)

    def _times(self, end: float) -> float:
        middle, low, high = self.found
        away = abs(middle - end)
        return ((middle - low if end < middle else high - middle) / away) ** 2 if away else math.inf


def decide(checks: Sequence[Check]) -> Verdict:
    """Return the verdict that *checks* come to, however those that are not decided would be."""
    if not checks:
        return Verdict.NOT_SIMULABLE
    ways = itertools.product(*((True, False) if check.holds is None else (check.holds,) for check in checks))
    found = {Verdict.RIGHT if all(way) else Verdict.LOOSE if any(way) else Verdict.WRONG for way in ways}
    return found.pop() if len(found) == 1 else Verdict.UNDECIDED


@dataclass(frozen=True)
class Twice:
    """One number, by a formula and from a *scenario* that was played; why it *differs* where assumptions do."""

    what: str
    formula: float
    played: Interval
    scenario: str
    unit: Unit = ""
    differs: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the interval of what was played contains what the formula says."""
        return bool(self.played.low <= self.formula <= self.played.high)

    @property
    def as_said(self) -> bool:
        """Whether it agrees, or is known to differ, or one seed cannot tell."""
        return self.agrees or bool(self.differs) or self.played.low == self.played.high


@dataclass(frozen=True)
class Found:
    """What was found about a claim: its checks, one sentence why, and what a figure needs (*data*).

    *number* is shown for a claim that nothing can be checked of, but of which something can be computed. *twice* are
    its numbers that a shipped scenario plays too.
    """

    checks: Sequence[Check]
    why: str
    data: dict[str, Any] = field(default_factory=dict)
    number: Check | None = None
    twice: Sequence[Twice] = ()

    @property
    def verdict(self) -> Verdict:
        """The verdict by the one rule."""
        return decide(self.checks)

    @property
    def headline(self) -> Check | None:
        """The measurement that stands for all in a table: the first that leaves it undecided, that fails, or at all."""
        if not self.checks:
            return self.number
        hangs = [None] * (self.verdict == Verdict.UNDECIDED)
        return next((check for way in (*hangs, False) for check in self.checks if check.holds is way), self.checks[0])


def exact(value: float) -> Interval:
    """Return a number that a formula gives, with no uncertainty of its own."""
    return Interval(value, value, value)
