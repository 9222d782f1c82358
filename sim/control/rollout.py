"""Rolling restarts and deploys: every replica drains, stops and comes back, a few at a time."""

from collections.abc import Iterator

from sim.control import targets
from sim.control.health import restart
from sim.control.stage import Process, Stage
from sim.scenario.control import Rollout

LOOK_EVERY_S = 1.0
"""How often somebody looks whether a draining replica is empty."""


def rollout(stage: Stage, plan: Rollout) -> Process:
    """Restart every replica of a pool that is on, *at_once* of them at a time."""
    yield stage.timeout(plan.from_)
    stage.note_event("rollout_begins", target=plan.rollout)
    todo = iter([r for r in targets.replicas(stage, plan.rollout) if stage.effects.powered(r)])
    lanes = [stage.process(_lane(stage, plan, todo)) for _ in range(plan.at_once)]
    yield from lanes
    stage.note_event("rollout_ends", target=plan.rollout)


def _lane(stage: Stage, plan: Rollout, todo: Iterator[int]) -> Process:
    """Restart one replica after the other of those that nobody has begun with."""
    for replica in todo:
        drain = stage.effects.begin("drain", replica)
        stage.note_event("drain_begins", target=targets.replica_name(stage, replica), by="rollout")
        yield from until_empty(stage, replica, plan.drain)
        stage.effects.end(drain)
        yield from restart(stage, replica, plan.restart, "rollout")


def until_empty(stage: Stage, replica: int, at_most_s: float) -> Process:
    """Wait until nothing is in flight on *replica*, but not longer than *at_most_s* seconds."""
    end_s = stage.now + at_most_s
    while stage.now < end_s and stage.fleet.look()["outstanding"][replica]:
        yield stage.timeout(min(LOOK_EVERY_S, end_s - stage.now))
