"""The Kubernetes Horizontal Pod Autoscaler, as its documentation and its code decide.

``desired = ceil(current x metric / target)`` within a tolerance, where replicas that are still starting count as idle
when there should be more and not at all when there should be fewer; then stabilisation: no more than the least that
was wanted in the up window, no fewer than the most that was wanted in the down window. Source:
kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale and pkg/controller/podautoscaler of v1.31
(calcPlainMetricReplicas, stabilizeRecommendationWithBehaviors). Its rate policies (by default at most doubling every
15 s) are not modelled.
"""

import math
from collections.abc import Sequence

from sim.control import targets
from sim.control.effects import Effect
from sim.control.rollout import until_empty
from sim.control.stage import Process, Stage
from sim.scenario.control import Autoscale

GAUGE = {"outstanding": "outstanding", "running": "running", "waiting": "waiting", "kv": "kv_used"}


def autoscale(stage: Stage, rule: Autoscale) -> Process:
    """Decide at every interval how many replicas a pool should have, and start or drain them."""
    group = _Group(stage, rule)
    wanted = [(stage.now, len(group.members))]
    while True:
        yield stage.timeout(rule.interval)
        ready = [r for r in group.members if stage.effects.running(r) and not stage.effects.draining(r)]
        if not ready:
            continue  # no metric, no decision
        values = stage.fleet.look()[GAUGE[rule.metric]][ready].astype(float)
        current = len(group.members)
        wanted.append((stage.now, desired(values.tolist(), current, rule.target, rule.tolerance)))
        longest_s = max(rule.up_window, rule.down_window)
        wanted = [(at_s, n) for at_s, n in wanted if at_s > stage.now - longest_s or at_s == stage.now]
        chosen = stabilised(wanted, current, stage.now, rule.up_window, rule.down_window)
        chosen = min(max(chosen, rule.min), rule.max)
        after = group.resize(chosen)
        if after != current:
            said = {"before": current, "after": after, "metric": float(values.mean())}
            stage.note_event("scaled", target=rule.autoscale, **said)


def desired(ready: Sequence[float], current: int, target: float, tolerance: float) -> int:
    """Return how many replicas the metric of those that are *ready* asks for, of *current* that there should be."""
    ratio = math.fsum(ready) / len(ready) / target
    count = len(ready)
    if ratio > 1.0 and count < current:  # those that still start count as idle, so as not to ask for them twice
        count, ratio = current, ratio * count / current
        if ratio < 1.0:
            return current
    if abs(ratio - 1.0) <= tolerance:
        return current
    return math.ceil(ratio * count - 1e-9)


def stabilised(wanted: Sequence[tuple[float, int]], current: int, now_s: float, up_s: float, down_s: float) -> int:
    """Return what remains of the last number *wanted* (times and numbers) after those in the windows before it."""
    last = wanted[-1][1]
    most = min([n for at_s, n in wanted if at_s > now_s - up_s] + [last])
    least = max([n for at_s, n in wanted if at_s > now_s - down_s] + [last])
    return min(max(current, most), least)


class _Group:
    """The replicas that a pool should have: those that serve, and those that are starting."""

    def __init__(self, stage: Stage, rule: Autoscale) -> None:
        self.stage, self.rule = stage, rule
        self.all = targets.replicas(stage, rule.autoscale)
        self.members = [r for r in self.all if stage.effects.powered(r)]
        self.leaving: dict[int, Effect] = {}
        self.starts = 0
        self.starting: dict[int, int] = {}

    def resize(self, wanted: int) -> int:
        """Start or drain replicas until there are *wanted*, or no more to start; return how many there are."""
        free = [r for r in self.all if not self.stage.effects.powered(r) and r not in self.starting]
        for replica in free[: max(0, wanted - len(self.members))]:
            self.members.append(replica)
            self.starts += 1
            self.starting[replica] = self.starts
            self.stage.process(self._start(replica, self.starts))
        while len(self.members) > wanted:
            replica = self.members.pop(self._last())
            if self.starting.pop(replica, None) is None:
                self.stage.process(self._leave(replica))
        return len(self.members)

    def _last(self) -> int:
        """Return the place among the members of who goes first: one that is starting, else the latest."""
        return max(range(len(self.members)), key=lambda k: (self.members[k] in self.starting, k))

    def _start(self, replica: int, ticket: int) -> Process:
        yield self.stage.timeout(self.rule.cold_start)
        if self.starting.get(replica) == ticket:  # nobody has called it off
            del self.starting[replica]
            self.stage.effects.power(replica, True)
            self.stage.note_event("replica_ready", target=targets.replica_name(self.stage, replica))

    def _leave(self, replica: int) -> Process:
        drain = self.stage.effects.begin("drain", replica)
        name = targets.replica_name(self.stage, replica)
        self.stage.note_event("drain_begins", target=name, by="autoscale")
        yield from until_empty(self.stage, replica, math.inf)
        self.stage.effects.power(replica, False)
        self.stage.effects.end(drain)
        self.stage.note_event("replica_off", target=name)
