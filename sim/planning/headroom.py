"""How far a fleet is from its edge: the load at which it breaks, when growth gets there, and what to buy by then."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from sim.errors import InputError
from sim.planning import labels, search
from sim.planning.fleets import Case, scaled
from sim.planning.search import Bench, Verdict
from sim.scenario import Scenario
from sim.units import NUMBER
from sim.words import show

NEAR = 1.03
"""A knee is bracketed to within this factor."""
MOST = 64.0
PERIODS = {"day": 1.0, "week": 7.0, "month": 30.4375, "year": 365.25}


@dataclass(frozen=True)
class Knee:
    """The load that a fleet holds, and one that it does not (a promise broken, a queue that grows), as factors."""

    keeps: float
    breaks: float

    @property
    def known(self) -> bool:
        """Whether a load was found that breaks a promise."""
        return math.isfinite(self.breaks)


def knee(bench: Bench, scenario: Scenario, cases: Sequence[Case], begin: float = 1.0, kept: bool = False) -> Knee:
    """Return between which loads *scenario* breaks its promises under one of *cases*, or its queue begins to grow.

    From *begin* times its load on (which it is known to hold where *kept* says so) half as much again, or less, then
    halving of the ratio until it is below `NEAR`.
    """

    def keeps(factor: float) -> bool:
        bench.tell(f"{factor:.3g} times the load")
        played = bench.conditions(scaled(scenario, factor), cases)
        return played[-1].kept and all(one.label != labels.OVERLOADED for one in played)

    low, high = begin if kept else 0.0, math.inf
    factor = begin * 1.5 if kept else begin
    while not (low and math.isfinite(high)) and begin / MOST < factor < begin * MOST:
        if keeps(factor):
            low, factor = factor, factor * 1.5
        else:
            high, factor = factor, factor / 1.5
    while low and math.isfinite(high) and high / low > NEAR:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return Knee(low, high)


@dataclass(frozen=True)
class Growth:
    """More load by *rate* each *period* (day, week, month, year)."""

    rate: float
    period: str

    def until(self, factor: float) -> float:
        """Return after how many days the load is *factor* times what it is."""
        return math.log(factor) / math.log1p(self.rate) * PERIODS[self.period] if factor > 1 else 0.0

    def after(self, months: float) -> float:
        """Return the load after so many *months*, as a factor on what it is."""
        return (1 + self.rate) ** (months * PERIODS["month"] / PERIODS[self.period])

    @property
    def text(self) -> str:
        """As `--growth` takes it."""
        return f"{100 * self.rate:g}%/{self.period}"


def read_growth(text: str) -> Growth:
    """Return the growth that *text* says, such as ``8%/month``.

    Raises:
        InputError: anything else.
    """
    match = re.fullmatch(rf"\s*({NUMBER})\s*%\s*(?:/|per|a)\s*({'|'.join(PERIODS)})\s*", text)
    if match is None or not 0 < float(match[1]) <= 1000:
        raise InputError(f"--growth: expected such as 8%/month (day, week, month or year), got {show(text)}")
    return Growth(float(match[1]) / 100, match[2])


# --- what to buy next -------------------------------------------------------------------------------------------------

MONTHS = (3, 6, 12)
MOST_GROWN = 8.0
"""Times the planned load beyond which nothing is played: such a service is planned anew."""


@dataclass(frozen=True)
class Outlook:
    """What it takes to last so many *months*: the load then, as a factor on the planned one, and the cheapest fleet.

    ``verdict`` is None where no fleet that may be chosen is enough, or (beyond `MOST_GROWN`) none was played.
    """

    months: int
    factor: float
    verdict: Verdict | None


def outlook(bench: Bench, growth: Growth, kept: Sequence[Verdict]) -> Iterator[Outlook]:
    """Yield what it takes to last each of `MONTHS`; *kept* is the cheapest fleet of every kind that has one, today.

    More load never needs less: what broke its promises before is not played again, and of each kind the search begins
    at its last answer, grown as the load has; a kind that was dearer than what is found is left out.
    """
    latest, before = {bench.space.kind(one.fleet): one for one in kept}, 1.0
    for months in MONTHS:
        factor = growth.after(months)
        if factor > MOST_GROWN or not latest:
            yield Outlook(months, factor, None)
            continue
        other = bench.other(partial(scaled, factor=factor))
        best: Verdict | None = None
        for kind, last in sorted(latest.items(), key=lambda item: item[1].fleet.cost):
            if best is not None and last.fleet.cost >= best.fleet.cost:
                break
            other.tell(f"{months} months of growth")
            dearest = math.inf if best is None else best.fleet.cost
            found = search.grown(other, kind, last.fleet.cost, factor / before, dearest)
            if found is not None:
                latest[kind] = best = found
            elif best is None:
                del latest[kind]
        before = factor
        yield Outlook(months, factor, best)
