"""Cells: one large fleet as groups of replicas, each with a router and users of its own, and what a cell gets of it.

A service this large is built of two levels: users are sent to a cell at random, and the cell's router knows only its
own replicas. Streams of a Poisson process that are split at random are independent Poisson processes (the splitting
theorem; Kingman, "Poisson Processes", section 5.1), so each cell draws its own users at its share of the rate. What
cannot be divided so is refused.
"""

from collections.abc import Iterator
from typing import Any, Literal

from sim.scenario.clients import Clients
from sim.scenario.containment import Gate, Overflow, QualityBreaker, Release, Team
from sim.scenario.control import Autoscale, Breaker, Custom, Ramp, Rollout
from sim.scenario.faults import Fault, Periodic, Random, Refuse, Shift, Surge, TimedFault
from sim.scenario.fleet import Admission
from sim.scenario.messages import Problem
from sim.scenario.models import Scenario
from sim.scenario.paths import Keys, put
from sim.scenario.plans import fault_names, kind_of, occurrence
from sim.scenario.targets import largest, members
from sim.scenario.workload import ArrivalProcess
from sim.words import show

Kind = Literal["whole", "rate", "burst"]
"""How a setting divides: without a rest, at will, or to no less than 1."""


def undividable(scenario: Scenario) -> Iterator[Problem]:
    """Yield what keeps the fleet of *scenario*, a point of its sweep, from being played as `fleet.cells`."""
    n = scenario.fleet.cells
    if n == 1:
        return
    for keys, value, kind in _shares(scenario):
        if kind == "whole" and value % n:
            yield keys, f"expected a multiple of fleet.cells ({n}), got {show(value)}"
        if kind == "burst" and value < n:
            yield keys, f"expected at least fleet.cells ({n}), so that each has a token, got {show(value)}"
    arrivals = scenario.workload.arrivals
    if scenario.workload.trace is None and isinstance(arrivals, ArrivalProcess) and arrivals.gamma is not None:
        said = f"expected none with {n} fleet.cells: a gamma process that is split at random is not one any more"
        yield ("workload", "arrivals", "gamma"), said
    yield from _shared(scenario)
    for i, fault in enumerate(scenario.faults):
        inner = occurrence(fault)
        target: str = getattr(inner, kind_of(inner))
        if "/zone-" not in target or (pool := target.partition("/")[0]) not in scenario.fleet.pools:
            continue
        zones = scenario.fleet.pools[pool].zones
        if largest(scenario, pool) % (n * zones):
            nested = () if inner is fault else (kind_of(fault),)
            said = f"expected {pool} to have a multiple of {n} fleet.cells times {zones} zones of replicas"
            yield ("faults", i, *nested, kind_of(inner)), f"{said}, got {largest(scenario, pool)}"


def _shared(scenario: Scenario) -> Iterator[Problem]:
    """Yield what all cells would have in common: who judges, reviews or decides for the whole service."""
    said = f"expected none with {scenario.fleet.cells} fleet.cells, which would have it in common"
    agents = [name for name, cohort in scenario.workload.cohorts.items() if cohort.agent]
    for name in agents:
        yield ("workload", "cohorts", name, "agent"), said
    if scenario.quality is not None and not agents:
        yield ("quality",), said
    for i, one in enumerate(scenario.control):
        if isinstance(one, Gate | Team | QualityBreaker | Overflow | Release | Custom):
            yield ("control", i, kind_of(one)), said


def share(scenario: Scenario, number: int) -> Scenario:
    """Return what cell *number* of *scenario*, a point of its sweep, is by itself: a scenario with one cell.

    Its faults are called what they are in the whole; those of others' replicas are left out.
    """
    n = scenario.fleet.cells
    tree: Any = scenario.model_dump(by_alias=True)
    for keys, value, kind in _shares(scenario):
        tree = put(tree, keys, value // n if kind == "whole" else value / n)
    for keys, value in ((("fleet", "cells"), 1), (("vary",), {}), (("claims",), {})):
        tree = put(tree, keys, value)
    cell = Scenario.model_validate(tree, context={"need_files": False})
    placed = [_in_cell(scenario, *one, number) for one in zip(cell.faults, fault_names(scenario), strict=True)]
    return cell.model_copy(update={"faults": [fault for fault in placed if fault is not None]})


def before(scenario: Scenario, number: int) -> dict[str, int]:
    """Return how many replicas of each pool stand in the cells before cell *number* of *scenario*."""
    return {name: number * (largest(scenario, name) // scenario.fleet.cells) for name in scenario.fleet.pools}


def _shares(scenario: Scenario) -> Iterator[tuple[Keys, Any, Kind]]:
    """Yield each setting of which a cell gets its share, and how it divides."""
    fleet, workload = scenario.fleet, scenario.workload
    yield from _of_admission(("fleet", "admission"), fleet.admission)
    for name, pool in fleet.pools.items():
        at: Keys = ("fleet", "pools", name)
        yield (*at, "replicas"), pool.replicas, "whole"
        if pool.max_replicas is not None:
            yield (*at, "max_replicas"), pool.max_replicas, "whole"
        if pool.admission is not None:
            yield from _of_admission((*at, "admission"), pool.admission)
    if workload.rate_per_s is not None:
        yield ("workload", "rate_per_s"), workload.rate_per_s, "rate"
    if isinstance(workload.arrivals, ArrivalProcess):
        yield from _of_arrivals(workload.arrivals)
    yield from _of_clients(("clients",), scenario.clients)
    for name, cohort in workload.cohorts.items():
        if cohort.clients is not None:
            yield from _of_clients(("workload", "cohorts", name, "clients"), cohort.clients)
    for i, fault in enumerate(scenario.faults):
        if isinstance(fault, Refuse) and fault.above_per_s is not None:
            yield ("faults", i, "above_per_s"), fault.above_per_s, "rate"
            if fault.burst is not None:
                yield ("faults", i, "burst"), fault.burst, "burst"
    yield from _of_control(scenario)


def _of_admission(at: Keys, one: Admission) -> Iterator[tuple[Keys, Any, Kind]]:
    kinds: dict[str, Kind] = {"max_outstanding": "whole", "limit_per_s": "rate", "burst": "burst"}
    for key, kind in kinds.items():
        if (value := getattr(one, key)) is not None:
            yield (*at, key), value, kind


def _of_arrivals(process: ArrivalProcess) -> Iterator[tuple[Keys, Any, Kind]]:
    at: Keys = ("workload", "arrivals")
    if process.closed is not None:
        yield (*at, "closed", "users"), process.closed.users, "whole"
    if process.bursts is not None:
        yield (*at, "bursts", "rate_per_s"), process.bursts.rate_per_s, "rate"
    for i, stage in enumerate(process.piecewise or ()):
        yield (*at, "piecewise", i, "rate_per_s"), stage.rate_per_s, "rate"


def _of_clients(at: Keys, one: Clients) -> Iterator[tuple[Keys, Any, Kind]]:
    if one.limit_per_s is not None:
        yield (*at, "limit_per_s"), one.limit_per_s, "rate"
    if one.burst is not None:
        yield (*at, "burst"), one.burst, "burst"
    if one.retry_budget is not None:
        yield (*at, "retry_budget", "burst"), one.retry_budget.burst, "burst"


def _of_control(scenario: Scenario) -> Iterator[tuple[Keys, Any, Kind]]:
    kinds: dict[type, dict[str, Kind]] = {
        Autoscale: {"min": "whole", "max": "whole"},
        Rollout: {"at_once": "whole"},
        Breaker: {"probe_per_s": "rate"},
        Ramp: {"start_per_s": "rate", "end_per_s": "rate"},
    }
    for i, one in enumerate(scenario.control):
        for key, kind in kinds.get(type(one), {}).items():
            yield ("control", i, key), getattr(one, key), kind


def _in_cell(scenario: Scenario, fault: Fault, name: str, number: int) -> Fault | None:
    """Return *fault* as it befalls cell *number*, called *name*; None where all of its replicas stand elsewhere."""
    inner = occurrence(fault)
    kind = kind_of(inner)
    if (target := _target(scenario, inner, number)) is None:
        return None
    changed = inner.model_copy(update={kind: target, "name": name})
    return fault.model_copy(update={kind_of(fault): changed}) if isinstance(fault, Random | Periodic) else changed


def _target(scenario: Scenario, inner: TimedFault, number: int) -> str | None:
    """Return the target of *inner* in cell *number*, whose replicas are counted from 0."""
    target: str = getattr(inner, kind_of(inner))
    if isinstance(inner, Surge | Shift) or "/" not in target or "/zone-" in target:
        return target
    pool, whole = members(scenario, target)
    size = largest(scenario, pool) // scenario.fleet.cells
    own = range(max(whole.start, number * size), min(whole.stop, (number + 1) * size))
    return f"{pool}/{own[0] - number * size}-{own[-1] - number * size}" if own else None
