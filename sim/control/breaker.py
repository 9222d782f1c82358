"""A circuit breaker before a pool: too many failures open it, answered probes close it (Nygard, Release It!, 2007).

*Closed*: all pass. When at least `min_attempts` ended in the window and the share of them that failed, were refused
or timed out reaches `errors`, it opens. *Open*: `probe_per_s` pass, the rest gets 429. After `open_for` the probes are
judged: it closes when less than half of `errors` of them failed, else it stays open for as long again. Half, so that
a service at the threshold does not make it flap.

What counts is answers while it is open, against the probes let through: a probe still under way counts as failed
(the next time, as many end as begin), and an answer to what was in flight before counts like a probe's.
"""

from collections import deque
from collections.abc import Generator
from typing import Any

import simpy

from sim.control import targets
from sim.control.effects import limit_of
from sim.control.stage import Process, Stage
from sim.scenario.control import Breaker

LOOK_EVERY_S = 1.0
CLOSE_BELOW = 0.5
"""Of `errors`: the share of failed probes below which it closes."""

Verdict = Generator[simpy.Event, Any, float]
"""A wait that ends with the share of attempts that failed."""


def breaker(stage: Stage, rule: Breaker) -> Process:
    """Watch a pool, and open and close."""
    pool = targets.pool(stage, rule.breaker)
    while True:
        failed = yield from _closed(stage, rule, pool)
        stage.note_event("breaker_opens", target=rule.breaker, errors=failed)
        limit = stage.effects.begin("limit", pool, limit_of(rule.probe_per_s))
        failed = yield from _open(stage, rule, pool)
        stage.effects.end(limit)
        stage.note_event("breaker_closes", target=rule.breaker, errors=failed)


def _closed(stage: Stage, rule: Breaker, pool: int) -> Verdict:
    """Wait until too many attempts of the last window have failed."""
    seen = deque([(stage.now, *_ended(stage, pool))])
    while True:
        yield stage.timeout(min(LOOK_EVERY_S, rule.window))
        seen.append((stage.now, *_ended(stage, pool)))
        while len(seen) > 1 and seen[1][0] <= stage.now - rule.window:
            seen.popleft()
        answered, errors = seen[-1][1] - seen[0][1], seen[-1][2] - seen[0][2]
        if answered + errors >= rule.min_attempts and errors >= rule.errors * (answered + errors):
            return errors / (answered + errors)


def _open(stage: Stage, rule: Breaker, pool: int) -> Verdict:
    """Wait until enough of the probes are answered."""
    while True:
        before = _ended(stage, pool)
        yield stage.timeout(rule.open_for)
        answered, errors = (after - was for after, was in zip(_ended(stage, pool), before))
        probes = min(answered + errors, rule.probe_per_s * rule.open_for)
        failed = max(0.0, 1.0 - answered / probes) if probes else 1.0  # nobody came: nothing is known
        if failed < CLOSE_BELOW * rule.errors:
            return failed
        stage.note_event("breaker_stays_open", target=rule.breaker, errors=failed)


def _ended(stage: Stage, pool: int) -> tuple[int, int]:
    """Return how many attempts at *pool* were answered so far, and how many were not."""
    record = stage.fleet.pools[pool]
    return int(record.answered), int(record.errors)
