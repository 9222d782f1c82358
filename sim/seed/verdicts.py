"""When a claim is right: it is taken apart into checks, and each check is one measurement against what was said.

The rule, the same for all: right if every check holds, loose if some do, wrong if none does, not simulable if there is
nothing to measure. A check that names one number holds if the interval contains it; a check that names a range holds if
the whole interval lies inside.
"""

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


@dataclass(frozen=True)
class Check:
    """One measurement, and the range [*low*, *high*] in which it must lie for the claim to hold here."""

    what: str
    found: Interval
    low: float
    high: float
    unit: Unit = ""

    @property
    def holds(self) -> bool:
        """Whether the interval contains the one number that was named, or lies inside the range."""
        _, low, high = self.found
        if self.low == self.high:
            return bool(low <= self.low <= high)
        return bool(self.low <= low and high <= self.high)


def decide(checks: Sequence[Check]) -> Verdict:
    """Return the verdict that *checks* come to."""
    if not checks:
        return Verdict.NOT_SIMULABLE
    held = sum(check.holds for check in checks)
    if held == len(checks):
        return Verdict.RIGHT
    return Verdict.LOOSE if held else Verdict.WRONG


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
        """The measurement that stands for all in a table: the first one that does not hold, or else the first."""
        if not self.checks:
            return self.number
        return next((check for check in self.checks if not check.holds), self.checks[0])


def exact(value: float) -> Interval:
    """Return a number that a formula gives, with no uncertainty of its own."""
    return Interval(value, value, value)
