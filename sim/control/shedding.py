"""Switches by queue length: refuse the less urgent, or let somebody else answer, until the queue is much shorter."""

import math

from sim.control import targets
from sim.control.stage import Process, Stage
from sim.control.switch import Switch
from sim.scenario.containment import Overflow
from sim.scenario.control import Shed

LOOK_EVERY_S = 1.0


def shed(stage: Stage, rule: Shed) -> Process:
    """Watch the mean queue of a pool's running replicas; on above one length, off below another (hysteresis)."""
    pool = targets.pool(stage, rule.shed)
    shedding = None
    while True:
        yield stage.timeout(LOOK_EVERY_S)
        waiting = _waiting(stage, rule.shed)
        if shedding is None and waiting > rule.above:
            shedding = stage.effects.begin("shed", pool, rule.level)
            stage.note_event("shedding_begins", target=rule.shed, level=rule.level, waiting=waiting)
        elif shedding is not None and waiting < rule.below:
            stage.effects.end(shedding)
            shedding = None
            stage.note_event("shedding_ends", target=rule.shed, level=rule.level, waiting=waiting)


def overflow(stage: Stage, rule: Overflow) -> Process:
    """Watch the mean queue as `shed` does, and divert everything while it is long."""
    switch = Switch(stage, "overflow", rule.overflow, rule.into)
    while True:
        yield stage.timeout(LOOK_EVERY_S)
        waiting = _waiting(stage, rule.overflow)
        if not switch.on and waiting > rule.above:
            switch.turn(1.0)
            stage.note_event("overflow_begins", target=rule.overflow, into=rule.into, waiting=waiting)
        elif switch.on and waiting < rule.below:
            switch.turn(0.0)
            stage.note_event("overflow_ends", target=rule.overflow, into=rule.into, waiting=waiting)
        else:
            switch.measure()


def _waiting(stage: Stage, pool: str) -> float:
    """Return the mean queue of the replicas of *pool* that run; not a number where none does: nobody has a queue."""
    running = [r for r in targets.replicas(stage, pool) if stage.effects.running(r)]
    return float(stage.fleet.look()["waiting"][running].mean()) if running else math.nan
