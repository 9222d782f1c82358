"""What happens to the fleet, and who decides: one SimPy generator a kind, over the world and the verbs of the fleet.

Faults and control processes act through `Effects`, so that what several of them do to one replica adds up, and
ends when each of them ends.
"""

from sim.control import (
    autoscaler,
    breaker,
    custom,
    faults,
    health,
    quality_breaker,
    ramp,
    release,
    rollout,
    shedding,
)
from sim.control.effects import Effects
from sim.control.stage import Process, Stage
from sim.scenario.containment import Gate, Overflow, QualityBreaker, Release, Team
from sim.scenario.control import Autoscale, Breaker, Control, Custom, Health, Ramp, Rollout, Shed

__all__ = ["Effects", "Process", "Stage", "start"]


def start(stage: Stage) -> None:
    """Begin every fault and control process of the scenario, in the order of the file.

    Raises:
        InputError: a process of the user's own cannot be found or is no generator function.
    """
    acting = [one for one in stage.scenario.control if not isinstance(one, Gate | Team)]  # the world's own
    for process in [*faults.processes(stage), *(_process(stage, one) for one in acting)]:
        stage.process(process)


def _process(stage: Stage, one: Control) -> Process:
    """Return the process of *one*, which is none of those that only wait to be handed answers."""
    match one:
        case Health():
            return health.health(stage, one)
        case Autoscale():
            return autoscaler.autoscale(stage, one)
        case Rollout():
            return rollout.rollout(stage, one)
        case Breaker():
            return breaker.breaker(stage, one)
        case Shed():
            return shedding.shed(stage, one)
        case Ramp():
            return ramp.ramp(stage, one)
        case QualityBreaker():
            return quality_breaker.quality_breaker(stage, one)
        case Overflow():
            return shedding.overflow(stage, one)
        case Release():
            return release.release(stage, one)
        case Custom():
            return custom.custom(stage, one)
    raise ValueError(f"no process for {one!r}")
