"""A load-shedding switch: above a queue length it refuses what is less urgent, until the queue is much shorter."""

from sim.control import targets
from sim.control.stage import Process, Stage
from sim.scenario.control import Shed

LOOK_EVERY_S = 1.0


def shed(stage: Stage, rule: Shed) -> Process:
    """Watch the mean queue of a pool's running replicas; on above one length, off below another (hysteresis)."""
    pool, replicas = targets.pool(stage, rule.shed), targets.replicas(stage, rule.shed)
    shedding = None
    while True:
        yield stage.timeout(LOOK_EVERY_S)
        running = [r for r in replicas if stage.effects.running(r)]
        if not running:
            continue  # nobody has a queue
        waiting = float(stage.fleet.look()["waiting"][running].mean())
        if shedding is None and waiting > rule.above:
            shedding = stage.effects.begin("shed", pool, rule.level)
            stage.note_event("shedding_begins", target=rule.shed, level=rule.level, waiting=waiting)
        elif shedding is not None and waiting < rule.below:
            stage.effects.end(shedding)
            shedding = None
            stage.note_event("shedding_ends", target=rule.shed, level=rule.level, waiting=waiting)
