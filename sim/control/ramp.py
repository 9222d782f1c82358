"""Operators who hold traffic back and let it in slowly, as OpenAI's did to recover on 8 November 2023."""

from sim.control import targets
from sim.control.effects import limit_of
from sim.control.stage import Process, Stage
from sim.scenario.control import Ramp

ADJUST_EVERY_S = 1.0


def ramp(stage: Stage, plan: Ramp) -> Process:
    """Limit a pool to a rate that rises in a straight line, and lift the limit at its end."""
    yield stage.timeout(plan.from_)
    limit = stage.effects.begin("limit", targets.pool(stage, plan.ramp), limit_of(plan.start_per_s))
    stage.note_event("ramp_begins", target=plan.ramp, rate_per_s=plan.start_per_s)
    while stage.now < plan.to:
        yield stage.timeout(min(ADJUST_EVERY_S, plan.to - stage.now))
        risen = min(1.0, (stage.now - plan.from_) / (plan.to - plan.from_))
        stage.effects.change(limit, limit_of(plan.start_per_s + risen * (plan.end_per_s - plan.start_per_s)))
    stage.effects.end(limit)
    stage.note_event("ramp_ends", target=plan.ramp)
