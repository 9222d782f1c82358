"""The cheapest fleet that keeps its promises: bisection on each chain of fleets, and its footing checked at the end.

On a chain only the number of replicas changes, and more is never worse; so the least that keeps the promises is found
by halving. What is known of one fleet is known of all that have more, or less, of everything. That more is never
worse is an assumption: the next cheaper fleet of all is played as well, and when it keeps the promises the search
goes on below it.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from sim import scenario as scenarios
from sim.engine.hardware import resolve
from sim.errors import HardwareError, InputError, ScenarioError
from sim.planning import doubt, labels
from sim.planning.fleets import Case, Fleet, Space, calibrated
from sim.planning.objective import Bound, Judged, Jury
from sim.planning.playing import Measured, measure, result_of
from sim.planning.trials import Played
from sim.scenario import Scenario
from sim.workers import hand


@dataclass(frozen=True)
class Condition:
    """What one fleet did under one condition: every promise with its runs, the runs, and what became of the queue."""

    case: str
    findings: tuple[Judged, ...]
    runs: tuple[Played, ...]
    label: str
    kept: bool
    worst: Bound

    @property
    def excess(self) -> float:
        """How far the worst run is beyond the promise broken most: above 1 is broken."""
        values = (run.metrics.get(self.worst.metric, math.nan) for run in self.runs)
        return max(map(self.worst.excess, values), default=math.inf)


@dataclass(frozen=True)
class Verdict:
    """What is known of one fleet; ``refused`` says why it cannot be played, or else its conditions say what it did."""

    fleet: Fleet
    kept: bool
    conditions: tuple[Condition, ...] = ()
    refused: str = ""

    @property
    def failed(self) -> Condition | None:
        """The condition under which it broke a promise, if it did."""
        return next((one for one in self.conditions if not one.kept), None)

    @property
    def overloaded(self) -> bool:
        """Whether its queue grows under some condition, whatever becomes of its promises."""
        return any(one.label == labels.OVERLOADED for one in self.conditions)


class Bench:
    """Plays fleets until it is sure of them, and remembers what it found."""

    def __init__(
        self,
        space: Space,
        bounds: Sequence[Bound],
        cases: Sequence[Case],
        error: float | None,
        executor: Executor,
        seeds: int,
        confidence: float,
        at_once: int,
        tell: Callable[[str], None] = lambda what: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Judge fleets of *space* by *bounds* under *cases*, with at most *seeds* runs each, *at_once* at a time.

        *error* is that of step times as the user says it; None: each fleet's own. *check* is called after each run,
        and may raise.
        """
        self.space, self.bounds, self.cases, self.error = space, tuple(bounds), tuple(cases), error
        self.executor, self.seeds, self.confidence, self.at_once, self.tell = executor, seeds, confidence, at_once, tell
        self.check = check
        self.within = {bound.metric: bound.bound for bound in self.bounds if bound.of_an_answer}
        self.known: dict[tuple[Any, ...], Verdict] = {}
        self.unfit: dict[tuple[Any, ...], str] = {}
        self.change: Callable[[Scenario], Scenario] = lambda one: one
        self._count: Counter[str] = Counter()

    @property
    def played(self) -> int:
        """How many runs were played, here and on every other bench made of this one."""
        return self._count["runs"]

    def other(self, change: Callable[[Scenario], Scenario], error: float | None = None) -> "Bench":
        """Return a bench on which every fleet stands in a scenario made by *change*, with the same users and luck.

        What was found here is not known there. *error* is that of step times there, as this one's if left out.
        """
        bench = copy.copy(self)
        bench.change, bench.known, bench.unfit = change, {}, {}
        bench.error = self.error if error is None else error
        return bench

    def judge(self, fleet: Fleet) -> Verdict:
        """Return whether *fleet* keeps every promise under every condition; it is played once at most."""
        if fleet.values not in self.known:
            why = self.refusal(fleet)
            self.known[fleet.values] = Verdict(fleet, False, refused=why) if why else self._played(fleet)
        return self.known[fleet.values]

    def refusal(self, fleet: Fleet) -> str:
        """Return why *fleet* cannot be played under some condition; empty where it can."""
        kind = self.space.kind(fleet)
        if kind in self.unfit:
            return self.unfit[kind]
        try:
            scenario = self.scenario(fleet)
            for case in self.cases:
                case.of(scenario)
        except HardwareError as error:  # whatever the number of replicas
            self.unfit[kind] = str(error).splitlines()[0]
            return self.unfit[kind]
        except (ScenarioError, InputError) as error:
            return str(error).splitlines()[0]
        return ""

    def _played(self, fleet: Fleet) -> Verdict:
        self.tell(self.space.words(fleet))
        conditions = self.conditions(self.scenario(fleet), self.cases)
        return Verdict(fleet, all(one.kept for one in conditions), conditions)

    def conditions(self, scenario: Scenario, cases: Sequence[Case]) -> tuple[Condition, ...]:
        """Play *scenario* under each of *cases*, until one of them breaks a promise."""
        found: list[Condition] = []
        for case in cases:
            found.append(self.condition(case.name, case.of(scenario), self.seeds))
            if not found[-1].kept:
                break
        return tuple(found)

    def scenario(self, fleet: Fleet) -> Scenario:
        """Return the scenario with *fleet* in it, as it stands on this bench.

        Raises:
            HardwareError: its model does not fit, or nobody tabulated its step times.
            ScenarioError: it contradicts the rest of the scenario.
        """
        scenario = self.change(scenarios.changed(self.space.scenario, self.space.settings(fleet)))
        for name, pool in scenario.fleet.pools.items():
            resolve(pool, where=name)
        return scenario

    @staticmethod
    def _slower_or_faster(scenario: Scenario, factors: Mapping[str, float]) -> Scenario:
        """Return *scenario* with step times scaled by *factors*; where they would beat physics, as they are."""
        changed = calibrated(scenario, factors)
        if min(factors.values()) < 1.0:
            try:
                for pool in changed.fleet.pools.values():
                    resolve(pool)
            except HardwareError:
                return scenario
        return changed

    def confirmed(self, verdict: Verdict) -> Verdict:
        """Return *verdict*, whose fleet keeps its promises, after as many runs as are enough for order to decide.

        Of many fleets near the edge a few runs take the lucky one; this is another look at that one alone.
        """
        self.tell(f"{self.space.words(verdict.fleet)}, once more")
        scenario = self.scenario(verdict.fleet)
        found: list[Condition] = []
        for case, before in zip(self.cases, verdict.conditions):
            found.append(self.condition(case.name, case.of(scenario), self.seeds, before))
            if not found[-1].kept:
                break
        sure = Verdict(verdict.fleet, all(one.kept for one in found), tuple(found))
        self.known[verdict.fleet.values] = sure
        return sure

    def condition(self, name: str, scenario: Scenario, most: int, before: Condition | None = None) -> Condition:
        """Play *scenario* with seed after seed, at most *most*, until its promises are kept or broken for sure.

        Where there were runs *before*, it goes on behind them, and order decides.
        """
        jury = Jury(self.bounds, most, self.confidence, early=before is None)
        said: list[str] = [] if before is None else [before.label] * len(before.runs)
        for run in before.runs if before else ():
            jury.add(run)
        while jury.verdict is None:
            first = len(jury.runs)
            for measured in self._play(name, scenario, jury, range(first, min(first + self.at_once, jury.enough))):
                said.append(measured.label)
                jury.add(measured.played)
                if jury.verdict is not None:
                    break
        order = (labels.STABLE, labels.BACKLOGGED, labels.OVERLOADED)
        label = max(said, key=order.index) if not jury.verdict else max(set(said), key=said.count)
        return Condition(name, tuple(jury.findings()), tuple(jury.runs), label, bool(jury.verdict), jury.worst())

    def pairs(self, fleet: Fleet, most: int) -> tuple[Played, ...]:
        """Return the first *most* runs of *fleet* under the hardest condition, to be compared and not to be judged."""
        case = self.cases[0]
        jury = Jury(self.bounds, self.seeds, self.confidence)
        return tuple(
            one.played
            for one in self._play(case.name, case.of(self.scenario(fleet)), jury, range(min(most, self.seeds)))
        )

    def _play(self, name: str, scenario: Scenario, jury: Jury, batch: range) -> Iterator[Measured]:
        """Yield what the runs in *batch* came to, which *jury* counts from 0."""
        doubted = doubt.of(scenario, self.error)
        factors = [doubted.factors(i, jury.most, jury.enough) for i in batch]
        played = [
            hand(self.executor, measure, self._slower_or_faster(scenario, one), scenario.seed + i, self.within)
            for i, one in zip(batch, factors)
        ]
        for i, future in zip(batch, played):
            measured = result_of(future, f"{name}, seed {scenario.seed + i}")
            self.check()
            self._count["runs"] += 1
            yield measured


def cheapest(bench: Bench) -> dict[tuple[Any, ...], Verdict | None]:
    """Return by kind of fleet (values of what is no rung) the cheapest that keeps the promises, None without one."""
    found: dict[tuple[Any, ...], Verdict | None] = {}
    for kind, chains in bench.space.chains():
        best: Verdict | None = None
        for chain in sorted(chains, key=lambda chain: chain[0].cost):
            within = [fleet for fleet in chain if best is None or fleet.cost < best.fleet.cost]
            best = _least(bench, within) or best
        found[kind] = best
    return found


def _least(bench: Bench, chain: Sequence[Fleet]) -> Verdict | None:
    """Return the first fleet of *chain* that keeps the promises, which was played; None when none does.

    One that cannot be played is as if it were not there: it tells nothing of others.
    """
    left = list(chain)
    low, high = 0, len(left)
    while low < high:
        middle = math.isqrt((low + 1) * (high + 1)) - 1  # halves the ratio: fleets are seldom near the end of a range
        if bench.refusal(left[middle]):
            if len(left) == len(chain):
                bench.judge(left[middle])  # one of them is enough to tell of
            del left[middle]
            high -= 1
        elif _keeps(bench, left[middle]):
            high = middle
        else:
            low = middle + 1
    # The first of them, but where it was only inferred, and wrongly.
    return next((one for one in map(bench.judge, left[low:]) if one.kept), None)


def grown(bench: Bench, kind: tuple[Any, ...], least: float, ratio: float, dearest: float) -> Verdict | None:
    """Return the cheapest fleet of *kind* that keeps the promises for *least* an hour and more, below *dearest*.

    Looked for from *ratio* times *least* on; None when none does.
    """
    best: Verdict | None = None
    for chain in sorted(dict(bench.space.chains())[kind], key=lambda chain: chain[0].cost):
        within = [one for one in chain if least <= one.cost < (dearest if best is None else best.fleet.cost)]
        begin = next((k for k, one in enumerate(within) if one.cost >= ratio * least), len(within) - 1)
        best = least_from(bench, within, begin) or best
    return best


def least_from(bench: Bench, chain: Sequence[Fleet], begin: int) -> Verdict | None:
    """Return the first fleet of *chain* that keeps the promises, looked for from place *begin* on; None when none does.

    Upwards or downwards in steps that double, then by halving: quick where the answer is near.
    """
    left = [one for one in chain if not bench.refusal(one)]
    if not left:
        return None
    cost = chain[min(begin, len(chain) - 1)].cost
    begin = min(sum(one.cost < cost for one in left), len(left) - 1)
    step = 1
    if bench.judge(left[begin]).kept:
        low, high = begin - step, begin
        while low >= 0 and bench.judge(left[low]).kept:
            low, high, step = low - 2 * step, low, 2 * step
        low = max(low, -1)
    else:
        low, high = begin, begin + step
        while high < len(left) and not bench.judge(left[high]).kept:
            low, high, step = high, high + 2 * step, 2 * step
        high = min(high, len(left))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bench.judge(left[middle]).kept else (middle, high)
    return bench.judge(left[high]) if high < len(left) else None


def _keeps(bench: Bench, fleet: Fleet) -> bool:
    """Return whether *fleet* keeps the promises, from what is known of fleets with less or more, else by playing it."""
    if fleet.values in bench.known:
        return bench.known[fleet.values].kept
    for other in bench.known.values():
        if other.kept and bench.space.at_least(fleet, other.fleet):
            return True
        if not other.kept and not other.refused and bench.space.at_least(other.fleet, fleet):
            return False
    return bench.judge(fleet).kept


def best_of(bench: Bench) -> tuple[list[Verdict], Verdict | None, Verdict | None]:
    """Return the cheapest fleet of each kind that has one, the cheapest of all, confirmed, and the next cheaper one."""
    while kept := sorted((one for one in cheapest(bench).values() if one), key=lambda one: one.fleet.cost):
        best, below = settled(bench, kept[0])
        best = bench.confirmed(best)
        if best.kept:
            return kept, best, below
    return [], None, None


def settled(bench: Bench, best: Verdict) -> tuple[Verdict, Verdict | None]:
    """Return the cheapest fleet from *best* on downwards, and the next cheaper one, which breaks a promise; if any.

    Both were played: that cheaper fleets are worse is not taken for granted here.
    """
    while True:
        cheaper = [fleet for fleet in bench.space.fleets if fleet.cost < best.fleet.cost]
        below = None
        for fleet in reversed(cheaper):
            below = bench.judge(fleet)
            if not below.refused:
                break
        if below is None or not below.kept:
            return best, below
        best = below
