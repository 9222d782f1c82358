"""What goes wrong, when it does: each fault is a process that begins effects and ends them.

Down times are exponential where a fault comes at random, and so are the times between; each replica has its own
stream, named after the fault and the replica, so that one fault more changes none of the others.
"""

import math
from collections.abc import Iterator

from sim.control import targets
from sim.control.effects import Effect, limit_of
from sim.control.stage import Process, Stage
from sim.rng import stream
from sim.scenario.faults import Delay, Lose, Misroute, Periodic, Random, Refuse, Shift, Slow, Stop, Surge, TimedFault
from sim.scenario.plans import fault_names, kind_of

LOSSES = {"requests": "lose", "streams": "cut", "kv": "shrink"}


def processes(stage: Stage) -> Iterator[Process]:
    """Yield a process for each fault of the scenario, and one for each replica of those that come at random."""
    for fault, name in zip(stage.scenario.faults, fault_names(stage.scenario)):
        match fault:
            case Random():
                inner = fault.random
                for replica in targets.replicas(stage, target_of(inner)):
                    yield at_random(stage, fault, name, replica)
            case Periodic():
                yield again_and_again(stage, fault, name)
            case _:
                yield once(stage, fault, name)


def once(stage: Stage, fault: TimedFault, name: str) -> Process:
    """Let *fault* happen from its time to its time."""
    yield stage.timeout(fault.from_)
    yield from spell(stage, fault, name, places(stage, fault), _end_s(fault))


def at_random(stage: Stage, fault: Random, name: str, replica: int) -> Process:
    """Let *fault* befall *replica* after exponential times, for exponential times."""
    inner = fault.random
    draws = stream(stage.seed, f"fault {name} {targets.replica_name(stage, replica)}")
    yield stage.timeout(inner.from_)
    while True:
        begin_s = stage.now + draws.exponential(inner.mtbf)
        end_s = begin_s + draws.exponential(inner.mttr)
        if begin_s >= _end_s(inner):
            return
        yield stage.timeout(begin_s - stage.now)
        yield from spell(stage, inner, name, [replica], min(end_s, _end_s(inner)))


def again_and_again(stage: Stage, fault: Periodic, name: str) -> Process:
    """Let *fault* befall all of its target at once, from one multiple of its period on."""
    inner = fault.periodic
    begin_s = inner.from_
    while begin_s < _end_s(inner):
        yield stage.timeout(begin_s - stage.now)
        yield from spell(stage, inner, name, places(stage, inner), min(begin_s + inner.lasting, _end_s(inner)))
        begin_s += inner.every


def spell(stage: Stage, fault: TimedFault, name: str, where: list[int], end_s: float) -> Process:
    """Let *fault* begin now and end at *end_s*, at all of *where*: replicas, one pool, or cohorts."""
    alone = len(where) == 1 and isinstance(fault, Slow | Stop | Lose | Refuse) and not _limits(fault)
    target = targets.replica_name(stage, where[0]) if alone else targets.said(stage, target_of(fault))
    said = {"name": name, "target": target}
    effects = [effect for place in where for effect in begin(stage, fault, place)]
    stage.note_event("fault_begins", mechanism=kind_of(fault), **said)
    if math.isinf(end_s):
        return
    yield stage.timeout(max(0.0, end_s - stage.now))
    for effect in effects:
        stage.effects.end(effect)
    stage.note_event("fault_ends", mechanism=kind_of(fault), **said)


def begin(stage: Stage, fault: TimedFault, place: int) -> list[Effect]:
    """Begin what *fault* does to *place*; nothing for a surge, whose users were drawn ahead."""
    begin = stage.effects.begin
    match fault:
        case Slow():
            return [begin("slow", place, fault.factor)]
        case Stop():
            return [begin(fault.how, place)]
        case Lose():
            return [begin(LOSSES[fault.what], place, fault.share)]
        case Refuse() if fault.above_per_s is not None:
            rate_per_s, second = limit_of(fault.above_per_s)
            return [begin("limit", place, (rate_per_s, fault.burst or second))]
        case Refuse():
            return [begin("refuse", place, (fault.share, fault.status))]
        case Delay():
            return [begin("delay", place, fault.by)]
        case Misroute():
            return [begin("divert", place, (fault.share, targets.pool(stage, fault.into), fault.sticky))]
        case Shift():
            return [begin("shift", place, (fault.prompt_factor, fault.output_factor))]
    return []


def places(stage: Stage, fault: TimedFault) -> list[int]:
    """Return where *fault* happens: replicas, a pool or cohorts, by index."""
    target = target_of(fault)
    if isinstance(fault, Surge | Shift):
        return targets.cohorts(stage, target)
    if isinstance(fault, Delay | Misroute) or _limits(fault):
        return [targets.pool(stage, target)]
    return targets.replicas(stage, target)


def target_of(fault: TimedFault) -> str:
    """Return the target of *fault* as the scenario writes it."""
    return str(getattr(fault, kind_of(fault)))


def _limits(fault: TimedFault) -> bool:
    return isinstance(fault, Refuse) and fault.above_per_s is not None


def _end_s(fault: TimedFault) -> float:
    return math.inf if fault.to is None else fault.to
