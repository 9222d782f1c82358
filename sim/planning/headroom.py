"""How far a fleet is from its edge: the load at which it breaks, when growth gets there, and what moves the answer."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim import scenario as scenarios
from sim.errors import HardwareError, InputError, ScenarioError
from sim.planning import labels
from sim.planning.fleets import Case, Fleet, calibrated, scaled
from sim.planning.search import Bench
from sim.scenario import Scenario
from sim.scenario.paths import Keys
from sim.units import NUMBER
from sim.words import show

NEAR = 1.03
"""A knee is bracketed to within this factor."""
MOST = 64.0
QUANTILES = 1000
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


# --- what moves the answer --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Move:
    """One input that is not as planned: its name, the fleet that is needed then, and its cost more an hour.

    ``fleet`` is None where no fleet of its kind is enough.
    """

    name: str
    fleet: Fleet | None
    more: float
    excess: float


Change = Callable[[Scenario], Scenario]


def doubts(scenario: Scenario) -> dict[str, Change]:
    """Return what may turn out worse than planned, by name."""
    found: dict[str, Change] = {"20% more requests": lambda one: scaled(one, 1.2)}
    if scenario.workload.trace is None:
        found["prompts 20% longer"] = lambda one: _longer(one, "prompt_tokens", 1.2)
        found["answers 20% longer"] = lambda one: _longer(one, "output_tokens", 1.2)
    found["steps 10% slower"] = lambda one: calibrated(one, dict.fromkeys(one.fleet.pools, 1.1))
    if scenario.workload.arrivals == "poisson" and scenario.workload.trace is None:
        clumps: dict[Keys, Any] = {("workload", "arrivals"): {"gamma": {"cv": 3.0}}}
        found["arrivals in clumps (coefficient of variation 3)"] = lambda one: scenarios.changed(one, clumps)
    return found


def _longer(scenario: Scenario, what: str, factor: float) -> Scenario:
    """Return *scenario* with *what* (prompt_tokens or output_tokens) *factor* times as long, for every cohort."""
    from sim.workload.cohorts import lengths

    shares = (np.arange(QUANTILES) + 0.5) / QUANTILES
    settings: dict[Keys, Any] = {}
    for name, cohort in scenario.workload.cohorts.items():
        if (given := getattr(cohort, what)) is not None:
            tokens = np.maximum(1, np.rint(lengths(given, what).at(shares) * factor)).astype(int)
            settings["workload", "cohorts", name, what] = {"empirical": {"values": tokens.tolist()}}
    return scenarios.changed(scenario, settings)


def moves(bench: Bench, best: Fleet, changes: Mapping[str, Change]) -> list[Move]:
    """Return what each of *changes* would make of the answer *best*: the one that costs most first.

    Only the number of replicas is chosen again (the longest of several axes of replicas), under every condition.
    """
    chain = next(chain for _, chains in bench.space.chains() for chain in chains if best in chain)
    begin = chain.index(best)
    found = []
    for name, change in changes.items():
        bench.tell(name)
        k, excess = _needed(bench, chain, begin, change)
        fleet = chain[k] if k < len(chain) else None
        found.append(Move(name, fleet, math.inf if fleet is None else fleet.cost - best.cost, excess))
    return sorted(found, key=lambda one: (-one.more, -one.excess))


def _needed(bench: Bench, chain: Sequence[Fleet], begin: int, change: Change) -> tuple[int, float]:
    """Return the first of *chain* from *begin* on that keeps the promises after *change*, and *begin*'s own excess."""
    excesses: list[float] = []

    def keeps(k: int) -> bool:
        try:
            conditions = bench.conditions(change(bench.scenario(chain[k])), bench.cases)
        except (HardwareError, ScenarioError, InputError):
            return False
        excesses.append(conditions[-1].excess)
        return conditions[-1].kept

    if keeps(begin):
        return begin, excesses[0]
    low, step = begin, 1
    while low + step < len(chain) and not keeps(low + step):
        low, step = low + step, 2 * step
    high = min(low + step, len(chain))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(middle) else (middle, high)
    return high, excesses[0] if excesses else math.nan
