"""What moves the answer most: each input of a plan a little less and a little more, one at a time, all else as planned.

The users, the luck and the step times of run k are the same as in run k of the plan (common random numbers), so a
difference is the input's own; only where it is the step times that move, they are at that end in every run. Of every
input: the fleet of the same kind that is needed then, and what becomes of the promise that is hardest for the planned
fleet.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from sim import scenario as scenarios
from sim.engine.hardware import resolve
from sim.engine.physics import find_hardware
from sim.planning import doubt, search
from sim.planning.fleets import Fleet, Space, calibrated, scaled
from sim.planning.objective import Bound
from sim.planning.search import Bench, Verdict
from sim.planning.trials import Played
from sim.report import words
from sim.scenario import Scenario
from sim.scenario.paths import Keys

BY = 0.2
"""How much less and more there is of what people estimate: requests, lengths, prices."""
BY_MEMORY = 0.1
"""The same of KV cache memory, which the engine reports when it starts."""
STATED = (1 / 1.1, 1.1)
"""Factors on step times of which the scenario leaves no doubt."""
CLUMPS = 3.0
"""Coefficient of variation of the times between arrivals, where they are not as even as Poisson's (which is 1)."""
QUANTILES = 1000
PAIRS = 4
"""Runs of the planned fleet where an input eases: they judge nothing, they are only compared."""

Change = Callable[[Scenario], Scenario]


@dataclass(frozen=True)
class Side:
    """One input at one end of what it may be: which end, the fleet needed then, and what it costs more an hour.

    ``fleet`` is None where none of its kind is enough. ``factor`` is that on the hardest promise of the planned
    fleet, the median over runs with the same luck: not a number where it has none any more.
    """

    end: str
    fleet: Fleet | None
    more: float
    factor: float


@dataclass(frozen=True)
class Move:
    """One input, and what the answer becomes at each of its ends."""

    name: str
    sides: tuple[Side, ...]

    @property
    def swing(self) -> tuple[float, float]:
        """How far the cost moves, and then the hardest promise."""
        factors = [math.inf if math.isnan(one.factor) else abs(math.log(max(one.factor, 1e-9))) for one in self.sides]
        return max(abs(one.more) for one in self.sides), max(factors)


def hardest(best: Verdict) -> Bound:
    """Return the promise that is nearest to being broken by the fleet *best*, in its hardest condition."""
    return best.conditions[0].worst


def of(bench: Bench, best: Verdict) -> list[Move]:
    """Return what each input would make of the answer *best*, the one that moves its cost most first.

    Only the number of replicas is chosen again (the longest of several axes of replicas), under every condition;
    where prices move, any fleet that was played and keeps its promises may be chosen. Ends that would ease but cannot
    be, such as steps faster than physics allows, are left out.
    """
    chain = next(chain for _, chains in bench.space.chains() for chain in chains if best.fleet in chain)
    found = []
    for name, ends in _inputs(bench, best).items():
        sides = []
        for said, end in ends.items():
            bench.tell(f"{name} {said}")
            other = bench.other(end.change, end.error)
            if end.eases and other.refusal(best.fleet):
                continue  # nobody can have it: faster than physics allows, or more memory than there is
            fleet, factor = _needed(bench, best, chain, end, other)
            sides.append(Side(said, fleet, math.inf if fleet is None else fleet.cost - best.fleet.cost, factor))
        found += [Move(name, tuple(sides))] if sides else []
    found += _prices(bench, best)
    return sorted(found, key=lambda one: one.swing, reverse=True)


@dataclass(frozen=True)
class End:
    """What one end of an input makes of a scenario, and the error of step times then (None: as it was).

    Where it *eases*, what keeps its promises as planned keeps them here; else what breaks them breaks them here.
    """

    change: Change
    eases: bool
    error: float | None = None


Ends = dict[str, End]
"""By what an end is called."""


def _needed(bench: Bench, best: Verdict, chain: Sequence[Fleet], end: End, other: Bench) -> tuple[Fleet | None, float]:
    """Return the first fleet of *chain* that is enough at *end*, and the factor on the hardest promise of *best*.

    *other* is the bench at that end.
    """
    runs: tuple[Played, ...] = ()
    if not other.refusal(best.fleet):
        if end.eases:
            runs = other.pairs(best.fleet, PAIRS)
        elif met := other.judge(best.fleet).conditions:
            runs = met[0].runs
    other.known |= {key: one for key, one in bench.known.items() if one.kept == end.eases and one.conditions}
    found = search.least_from(other, chain, chain.index(best.fleet))
    return None if found is None else found.fleet, _factor(best, runs)


def _factor(best: Verdict, runs: Sequence[Played]) -> float:
    """Return the median factor on the hardest promise over pairs of runs with the same luck."""
    metric = hardest(best).metric
    pairs = [
        (before.metrics.get(metric, math.nan), after.metrics.get(metric, math.nan))
        for before, after in zip(best.conditions[0].runs, runs)
    ]
    factors = [after / before if before > 0 else 1.0 if after == before else math.nan for before, after in pairs]
    return float(np.median(factors)) if factors else math.nan


def _inputs(bench: Bench, best: Verdict) -> dict[str, Ends]:
    """Return what may be other than planned, by name."""
    scenario = bench.scenario(best.fleet)
    load = scenario.workload
    found: dict[str, Ends] = {"requests": _ends(BY, scaled)}
    if load.trace is None:
        found["prompt tokens"] = _ends(BY, partial(_longer, what="prompt_tokens"))
        found["output tokens"] = _ends(BY, partial(_longer, what="output_tokens"))
    found["step time"] = _step_times(doubt.of(scenario, bench.error).intervals)
    found["KV memory"] = _ends(BY_MEMORY, _memory, less_eases=False)
    if load.arrivals == "poisson" and load.trace is None:
        clumps: dict[Keys, Any] = {("workload", "arrivals"): {"gamma": {"cv": CLUMPS}}}
        found["arrivals"] = {
            f"in clumps (cv {CLUMPS:g})": End(partial(scenarios.changed, settings=clumps), eases=False)
        }
    return found


def _ends(by: float, change: Callable[..., Scenario], less_eases: bool = True) -> Ends:
    factors = {1 - by: less_eases, 1 + by: not less_eases}
    return {words.change(one): End(partial(change, factor=one), eases) for one, eases in factors.items()}


def _step_times(intervals: Mapping[str, tuple[float, float]]) -> Ends:
    """Return both ends of what step times may be, each for certain: what calibration may find."""
    found: Ends = {}
    known = {name: ends if ends[0] < ends[1] else STATED for name, ends in intervals.items()}
    for k, said in enumerate(("fastest", "slowest")):
        factors = {name: ends[k] for name, ends in known.items()}
        end = words.change(factors[next(iter(factors))]) if len(set(factors.values())) == 1 else said
        found[end] = End(partial(calibrated, factors=factors), eases=k == 0, error=0.0)
    return found


def _memory(scenario: Scenario, factor: float) -> Scenario:
    """Return *scenario* with *factor* times the KV blocks in every pool."""
    settings: dict[Keys, Any] = {
        ("fleet", "pools", name, "kv_blocks"): max(1, round(resolve(pool, where=name).kv_blocks * factor))
        for name, pool in scenario.fleet.pools.items()
    }
    return scenarios.changed(scenario, settings)


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


def _prices(bench: Bench, best: Verdict) -> Iterator[Move]:
    """Yield what the answer is where a GPU of the chosen fleet costs less or more; nothing is played for it."""
    space = bench.space
    pools = bench.scenario(best.fleet).fleet.pools.values()
    for hardware in dict.fromkeys(pool.hardware for pool in pools):
        name = "none" if hardware is None else find_hardware(hardware).name
        sides = []
        for factor in (1 - BY, 1 + BY):
            hour = {**space.prices.hour, name: space.prices.of(hardware) * factor}
            other = Space(space.scenario, space.axes, replace(space.prices, hour=hour), space.most_gpus)
            kept = [other.fleet(one.fleet.values) for one in bench.known.values() if one.kept]
            fleet = min(kept, key=lambda one: (one.cost, one.values != best.fleet.values))
            sides.append(Side(words.change(factor), fleet, fleet.cost - best.fleet.cost, 1.0))
        yield Move("price of a GPU" if hardware is None else f"price of {name}", tuple(sides))
