"""Health checks: probes that fail in a row, and what follows.

A probe is never played: when it would have timed out is known. One that waits in the engine's queue is behind
whoever was there before it, so it is late exactly when the head of the queue has waited longer than its time-out.
Kubernetes calls the restart a liveness probe and the ejection a readiness probe
(kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes).
"""

import numpy as np

from sim.control import targets
from sim.control.effects import Effect
from sim.control.stage import Process, Stage
from sim.scenario.control import Health


def health(stage: Stage, check: Health) -> Process:
    """Probe every replica of a pool, all at once, and act on those that fail in a row."""
    watched = [_Watched(stage, check, replica) for replica in targets.replicas(stage, check.health)]
    while True:
        yield stage.timeout(check.timeout)
        gauges = stage.fleet.look()
        for one in watched:
            one.probed(gauges[one.replica])
        yield stage.timeout(check.interval - check.timeout)


class _Watched:
    """One replica under a health check."""

    def __init__(self, stage: Stage, check: Health, replica: int) -> None:
        self.stage, self.check, self.replica = stage, check, replica
        self.name = targets.replica_name(stage, replica)
        self.in_a_row = 0  # failed probes; good ones while it is ejected
        self.ejected: Effect | None = None

    def probed(self, gauge: np.record) -> None:
        """Count the probe that has been answered by now, or has timed out, and act when there were enough."""
        effects, check = self.stage.effects, self.check
        if not effects.powered(self.replica) or (check.action == "restart" and not effects.running(self.replica)):
            self.in_a_row = 0  # nobody probes what is off, or restarts what is starting
            return
        late = check.shares_queue and gauge["oldest_wait_s"] > check.timeout
        failed = not effects.running(self.replica) or bool(gauge["hung"]) or bool(late)
        self.in_a_row = self.in_a_row + 1 if failed == (self.ejected is None) else 0
        if self.in_a_row < check.failures:
            return
        self.in_a_row = 0
        if check.action == "restart":
            self.stage.process(restart(self.stage, self.replica, check.restart, "health"))
        elif self.ejected is None:
            self.ejected = effects.begin("drain", self.replica)
            self.stage.note_event("ejected", target=self.name)
        else:
            effects.end(self.ejected)
            self.ejected = None
            self.stage.note_event("taken_back", target=self.name)


def restart(stage: Stage, replica: int, seconds: float, by: str) -> Process:
    """Stop *replica*, whatever it does, and let it come back with a cold cache after *seconds*."""
    name = targets.replica_name(stage, replica)
    down = stage.effects.begin("crash", replica)
    stage.note_event("restart_begins", target=name, by=by)
    yield stage.timeout(seconds)
    stage.effects.end(down)
    stage.note_event("restart_ends", target=name, by=by)
