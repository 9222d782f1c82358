"""What `faults` and `control` must agree on with the rest of a scenario, checked once each of them has its shape."""

from collections.abc import Iterator

from sim.scenario.containment import Overflow, QualityBreaker, Release, Team
from sim.scenario.control import Autoscale, Breaker, Control, Custom, Health, Ramp, Rollout, Shed
from sim.scenario.faults import (
    Delay,
    Fault,
    Lose,
    Misroute,
    Periodic,
    PeriodicFault,
    Random,
    RandomFault,
    Refuse,
    Shift,
    Surge,
    TimedFault,
)
from sim.scenario.messages import Problem
from sim.scenario.models import Scenario
from sim.scenario.targets import EVERYBODY, members
from sim.words import not_among, show

MOST_DIVERSIONS = 4
"""Ways on which a pool's requests can leave it at the same time (`sim.engine.state.DIVERSIONS`)."""


def kind_of(one: Fault | RandomFault | PeriodicFault | Control) -> str:
    """Return the first key of an entry of `faults` or `control`: its mechanism or kind."""
    return next(iter(type(one).model_fields))


def occurrence(fault: Fault) -> TimedFault:
    """Return the mechanism of *fault*: itself, or what it holds if it comes at random or periodically."""
    match fault:
        case Random():
            return fault.random
        case Periodic():
            return fault.periodic
    return fault


def fault_names(scenario: Scenario) -> list[str]:
    """Return what events call each fault: its own name, or mechanism and target, numbered where that is not enough."""
    names: list[str] = []
    for fault in map(occurrence, scenario.faults):
        kind = kind_of(fault)
        base = name = fault.name or f"{kind} {getattr(fault, kind)}"
        while name in names:
            name = f"{base} ({sum(one == base or one.startswith(f'{base} (') for one in names) + 1})"
        names.append(name)
    return names


def trouble(scenario: Scenario) -> Iterator[Problem]:
    """Yield what is wrong with the faults and the control processes of *scenario*, a point of its sweep."""
    seen: set[str] = set()
    for i, fault in enumerate(scenario.faults):
        inner = occurrence(fault)
        at = ("faults", i) if inner is fault else ("faults", i, kind_of(fault))
        for key, sentence in _fault(scenario, fault, inner):
            yield (*at, key), sentence
        if inner.name in seen:
            yield (*at, "name"), f"expected a name of its own, got {show(inner.name)} again"
        seen |= {inner.name} if inner.name else set()
    yield from _diversions(scenario)
    scaled: set[str] = set()
    for i, one in enumerate(scenario.control):
        for key, sentence in _control(scenario, one):
            yield ("control", i, key), sentence
        if isinstance(one, Autoscale):
            if one.autoscale in scaled:
                yield ("control", i, "autoscale"), f"expected one autoscaler a pool, got another for {one.autoscale}"
            scaled.add(one.autoscale)


def _diversions(scenario: Scenario) -> Iterator[Problem]:
    """Yield where more divert from a pool at the same time than there can be."""
    misrouted = [(i, one) for i, one in enumerate(scenario.faults) if isinstance(one, Misroute)]
    for i, one in misrouted:
        switches = sum(
            (isinstance(rule, QualityBreaker) and rule.quality_breaker == one.misroute)
            or (isinstance(rule, Overflow) and rule.overflow == one.misroute)
            for rule in scenario.control
        )
        then = [other for _, other in misrouted if other.misroute == one.misroute and _goes_on(other, one.from_)]
        if (ways := switches + len(then)) > MOST_DIVERSIONS:
            got = f"(breakers and overflow count), got {ways} diversions of {one.misroute} at the same time"
            yield ("faults", i, "misroute"), f"expected at most {MOST_DIVERSIONS} {got}"


def _goes_on(one: Misroute, at_s: float) -> bool:
    return one.from_ <= at_s and (one.to is None or at_s < one.to)


def _fault(scenario: Scenario, fault: Fault, inner: TimedFault) -> Iterator[tuple[str, str]]:
    yield from _target(scenario, inner)
    yield from _times(scenario, inner.from_, inner.to)
    if not isinstance(inner, Surge | Shift):
        yield from _commands(fault, inner.start_cmd, inner.stop_cmd)
    if isinstance(fault, Periodic) and fault.periodic.lasting >= fault.periodic.every:
        every, lasting = show(fault.periodic.every), show(fault.periodic.lasting)
        yield "lasting", f"expected less than every ({every} s), got {lasting} s"
    if isinstance(inner, Lose) and inner.what == "kv" and inner.share == 1:
        yield "share", "expected less than 1 with what: kv (a replica without any is one that stops), got 1"
    if isinstance(inner, Refuse) and inner.above_per_s is not None:
        if inner.share != 1:
            yield "share", f"expected none with above_per_s, got {show(inner.share)}"
        if isinstance(fault, Random):
            yield "above_per_s", "expected none at random, which befalls each replica by itself"


def _commands(fault: Fault, start_cmd: str | None, stop_cmd: str | None) -> Iterator[tuple[str, str]]:
    if isinstance(fault, Random | Periodic) and start_cmd is not None:
        yield "start_cmd", "expected none for what comes at random or periodically: a load test runs it once, at `from`"
    if stop_cmd is not None and start_cmd is None:
        yield "stop_cmd", "expected a start_cmd beside it"


def _target(scenario: Scenario, inner: TimedFault) -> Iterator[tuple[str, str]]:
    kind = kind_of(inner)
    target: str = getattr(inner, kind)
    if isinstance(inner, Surge | Shift):
        if target not in (*scenario.workload.cohorts, EVERYBODY):
            yield kind, not_among(target, "cohort", [*scenario.workload.cohorts, EVERYBODY])
        return
    try:
        pool, _ = members(scenario, target)
    except ValueError as error:
        yield kind, str(error)
        return
    if isinstance(inner, Misroute):
        if inner.into not in scenario.fleet.pools:
            yield "into", not_among(inner.into, "pool", scenario.fleet.pools)
        elif inner.into == target:
            yield "into", f"expected another pool than {show(target)}"
    whole = isinstance(inner, Delay | Misroute) or (isinstance(inner, Refuse) and inner.above_per_s is not None)
    if whole and pool != target:
        yield kind, f"expected a whole pool, such as {pool}, got {show(target)}"


def _times(scenario: Scenario, from_s: float, to_s: float | None) -> Iterator[tuple[str, str]]:
    if from_s >= scenario.duration:
        yield "from", f"expected less than duration ({show(scenario.duration)} s), got {show(from_s)} s"
    if to_s is not None and to_s <= from_s:
        yield "to", f"expected more than from ({show(from_s)} s), got {show(to_s)} s"


def _control(scenario: Scenario, one: Control) -> Iterator[tuple[str, str]]:
    kind = kind_of(one)
    name: str = getattr(one, kind)
    if isinstance(one, Custom | Team | Release):
        return
    if name not in scenario.fleet.pools:
        yield kind, not_among(name, "pool", scenario.fleet.pools)
        return
    replicas = scenario.fleet.pools[name].replicas
    match one:
        case Health() if one.timeout > one.interval:
            yield "timeout", f"expected at most the interval ({show(one.interval)} s), got {show(one.timeout)} s"
        case Autoscale():
            yield from _autoscale(scenario, one)
        case Rollout():
            yield from _times(scenario, one.from_, None)
            if one.at_once > replicas:
                yield "at_once", f"expected at most the replicas of {name} ({replicas}), got {one.at_once}"
        case Breaker() if one.errors == 0:
            yield "errors", "expected more than 0, got 0"
        case Shed() if one.below >= one.above:
            yield "below", f"expected less than above ({show(one.above)}), got {show(one.below)}"
        case Ramp():
            yield from _times(scenario, one.from_, one.to)


def _autoscale(scenario: Scenario, one: Autoscale) -> Iterator[tuple[str, str]]:
    pool = scenario.fleet.pools[one.autoscale]
    if one.min > one.max:
        yield "min", f"expected at most max ({one.max}), got {one.min}"
    elif not one.min <= pool.replicas <= one.max:
        bound, value = ("min", one.min) if pool.replicas < one.min else ("max", one.max)
        least = "at most" if bound == "min" else "at least"
        yield bound, f"expected {least} the replicas that {one.autoscale} begins with ({pool.replicas}), got {value}"
    if pool.max_replicas is not None and one.max > pool.max_replicas:
        yield "max", f"expected at most max_replicas of {one.autoscale} ({pool.max_replicas}), got {one.max}"
    if one.metric == "kv" and one.target > 1:
        yield "target", f"expected a share of KV blocks from 0 to 1, got {show(one.target)}"
