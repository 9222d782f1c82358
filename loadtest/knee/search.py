"""Which rate to play next: upwards in steps until one breaks, then between the highest that held and the lowest not."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadtest.knee.judging import Share, Verdict
from sim import summary

FOLD = 2.0
"""From one rate to the next on the way up."""
CLOSE = 1.05
"""Two rates no further apart than this are one: a knee is not sharper."""
DIGITS = 4


@dataclass
class Stage:
    """One rate: what was seen of it so far, in one play or several."""

    rate_per_s: float
    shares: list[Share] = field(default_factory=list)
    plays: int = 0
    grows: bool = False
    seeds: list[int] = field(default_factory=list)
    ttft_s: dict[str, float] = field(default_factory=dict)
    within: float = math.nan
    """Share of requests that were answered and within every bound."""
    claimed_s: dict[str, float] = field(default_factory=dict)
    """TTFT as a closed loop would have claimed it."""

    @property
    def verdict(self) -> Verdict:
        """What it says of the rate: it breaks if any objective is broken, and is stable if all are kept and it is."""
        found = {share.verdict for share in self.shares}
        if Verdict.BREAKS in found:
            return Verdict.BREAKS
        return Verdict.STABLE if found == {Verdict.STABLE} and not self.grows else Verdict.UNDECIDED

    @property
    def kept(self) -> bool:
        """Which way to go on from it."""
        return self.verdict != Verdict.BREAKS and all(share.kept for share in self.shares)

    @property
    def may_change(self) -> bool:
        """Whether more time could decide it: in flight grows however often a stage is played."""
        return self.verdict == Verdict.UNDECIDED and any(share.verdict != Verdict.STABLE for share in self.shares)


def search(low: float, high: float, judged: dict[float, bool]) -> Iterator[float]:
    """Yield rates from *low* to *high* (requests/s) one by one; before the next, *judged* says whether it was kept."""
    rate, high = tidy(low), tidy(high)
    while True:
        yield rate
        if not judged[rate]:
            break
        if rate >= high:
            return
        rate = tidy(min(rate * FOLD, high))
    while (bracket := bracket_of(judged))[0] and bracket[1] / bracket[0] > CLOSE:
        yield tidy(math.sqrt(bracket[0] * bracket[1]))


def bracket_of(judged: dict[float, bool]) -> tuple[float, float]:
    """Return the highest rate that was kept below the lowest that was not; 0 and infinity where there is none."""
    failed = min((rate for rate, kept in judged.items() if not kept), default=math.inf)
    return max((rate for rate, kept in judged.items() if kept and rate < failed), default=0.0), failed


def tidy(rate: float) -> float:
    """Return *rate* with as many digits as are worth writing."""
    return float(f"{rate:.{DIGITS}g}")


@dataclass(frozen=True)
class Knee:
    """The highest rate that was kept, and between which rates it is: *low* was shown to hold, *high* to break.

    *low* is 0 where no rate was shown to hold, *high* infinite where none was shown to break.
    """

    rate_per_s: float
    low: float
    high: float
    repeats: list[float]

    @property
    def as_json(self) -> dict[str, Any]:
        """Everything for programs."""
        return vars(self)


def knee(stages: Sequence[Stage], brackets: Sequence[tuple[float, float]]) -> Knee:
    """Return the knee that *stages* (each rate once) show, searched for once for each of *brackets*.

    Of one search the interval lies between the rates that were shown to hold and to break; of several it is that of
    their mean (`sim.summary.interval`).
    """
    found = [low for low, _ in brackets]
    if len(found) > 1 and min(found) > 0:
        over = summary.interval(found)
        return Knee(over["estimate"], over["low"], over["high"], found)
    high = min((one.rate_per_s for one in stages if one.verdict == Verdict.BREAKS), default=math.inf)
    stable = [one.rate_per_s for one in stages if one.verdict == Verdict.STABLE and one.rate_per_s < high]
    return Knee(float(np.mean(found)) if found else 0.0, max(stable, default=0.0), high, found)
