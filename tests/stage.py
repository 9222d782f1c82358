"""A stage without a fleet: the clock is real, the fleet remembers what it was told and refuses what may not be."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import simpy

from sim import control
from sim.control import Effects
from sim.scenario import loads
from sim.scenario.targets import largest

TEXT = """\
name: stage
duration: 1h
fleet:
  pools:
    chat: {kv_blocks: 1000, replicas: 6, zones: 3, step_time: {linear: {base: 10ms}}}
    code: {kv_blocks: 100, replicas: 2, step_time: {linear: {base: 10ms}}}
workload:
  rate_per_s: 1
  cohorts:
    ask: {share: 50%, prompt_tokens: 9, output_tokens: 9}
    edit: {share: 50%, prompt_tokens: 9, output_tokens: 9, pool: code}
"""
GAUGES = np.dtype(
    [("up", "u1"), ("hung", "u1"), ("running", "i4"), ("waiting", "i4"), ("outstanding", "i4"),
     ("oldest_wait_s", "f8"), ("kv_used", "f8")]
)  # fmt: skip


class FakeFleet:
    """Remembers the last of each verb by its target, and every call with its time."""

    def __init__(self, stage: "FakeStage") -> None:
        sizes = {name: largest(stage.scenario, name) for name in stage.scenario.fleet.pools}
        settings = stage.scenario.fleet.pools.items()
        firsts = np.cumsum([0, *sizes.values()])
        self.stage = stage
        self.configs = [
            SimpleNamespace(
                replicas=pool.replicas,
                limit_per_s=pool.admission.limit_per_s if pool.admission else np.inf,
                limit_burst=1.0,
            )
            for _, pool in settings
        ]
        self.pools = [
            SimpleNamespace(first=first, count=sizes[name], blocks=pool.kv_blocks, answered=0, errors=0)
            for first, (name, pool) in zip(firsts, settings)
        ]
        self.gauges = np.zeros(firsts[-1], GAUGES)
        for pool, config in zip(self.pools, self.configs):
            self.gauges["up"][pool.first : pool.first + config.replicas] = 1
        self.last: dict[tuple[str, int], tuple[Any, ...]] = {}
        self.calls: list[tuple[float, str, int, tuple[Any, ...]]] = []

    def __getattr__(self, verb: str) -> Any:
        if verb not in ("slow", "lose", "cut", "refuse", "shrink", "delay", "limit", "shed", "shift"):
            raise AttributeError(verb)
        return lambda where, *values: self.told(verb, where, *values)

    def told(self, verb: str, where: int, *values: Any) -> None:
        self.last[verb, where] = values
        self.calls.append((self.stage.now, verb, where, values))

    def crash(self, r: int) -> Iterator[None]:
        assert self.gauges["up"][r], "crashed twice"
        self.told("crash", r)
        self.gauges[r] = np.zeros((), GAUGES)
        yield

    def restore(self, r: int) -> None:
        assert not self.gauges["up"][r], "restored twice"
        self.told("restore", r)
        self.gauges["up"][r] = 1

    def hang(self, r: int) -> None:
        assert self.gauges["up"][r], "hangs although it is down"
        assert not self.gauges["hung"][r], "hangs twice"
        self.told("hang", r)
        self.gauges["hung"][r] = 1

    def resume(self, r: int) -> None:
        assert self.gauges["hung"][r], "resumed although it does not hang"
        self.told("resume", r)
        self.gauges["hung"][r] = 0

    def drain(self, r: int, draining: bool = True) -> None:
        assert self.gauges["up"][r], "drained although it is down"
        self.told("drain", r, draining)

    def look(self) -> np.ndarray:
        return self.gauges.copy()

    def at(self, *verbs: str, where: int | None = None) -> list[tuple[Any, ...]]:
        """Calls of *verbs* (at *where*): the time, the verb if there are several, and what was said."""
        return [
            (t_s, *([verb] if len(verbs) > 1 else []), *values)
            for t_s, verb, place, values in self.calls
            if verb in verbs and where in (None, place)
        ]


class FakeStage(simpy.Environment):
    """What control processes are given, with a `FakeFleet`; *options* change its scenario."""

    def __init__(self, *options: str, seed: int = 1, started: bool = True) -> None:
        super().__init__()
        self.seed = seed
        self.scenario = loads(TEXT, overrides=options)
        self.fleet: Any = FakeFleet(self)
        self.before: dict[str, int] = {}
        self.rooms = 0
        self.effects = Effects(self.fleet, self.make_room)
        self.events: list[dict[str, Any]] = []
        if started:
            control.start(self)

    def make_room(self) -> None:
        self.rooms += 1

    def note_event(self, event: str, **fields: Any) -> None:
        self.events.append({"t_s": self.now, "event": event, **fields})

    def told(self, *keys: str) -> list[tuple[Any, ...]]:
        """Every event as its time, its name and what it says under *keys*."""
        return [(e["t_s"], e["event"], *(e.get(key) for key in keys)) for e in self.events]
