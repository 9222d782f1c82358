"""What a control process is given: the clock, the fleet, and a way to tell what it did."""

from collections.abc import Generator
from typing import Any, Protocol

import simpy

from sim.control.effects import Effects
from sim.engine.fleet import Fleet
from sim.quality.judge import Judge
from sim.scenario import Scenario

Process = Generator[simpy.Event, Any, None]
"""A control process: it yields what it waits for."""


class Stage(Protocol):
    """The world as control processes see it; `sim.world.World` is one."""

    scenario: Scenario
    seed: int
    fleet: Fleet
    effects: Effects
    before: dict[str, int]
    """How many replicas of each pool stand elsewhere, in the cells before this one: events count from there."""
    measured: dict[str, float]
    """Metrics of the run that control processes keep up to date themselves, by name."""

    @property
    def judge(self) -> Judge | None:
        """Who judges answers, having heard of all that have ended; None in a scenario without `quality`."""
        ...

    @property
    def now(self) -> Any:
        """Seconds since the start of the run."""
        ...

    def timeout(self, delay: float) -> simpy.Event:
        """Return what to yield to wait for *delay* seconds."""
        ...

    def process(self, generator: Process) -> simpy.Process:
        """Let another process begin now."""
        ...

    def note_event(self, event: str, **fields: Any) -> None:
        """Write down that *event* happened now, into events.jsonl."""
        ...

    def show(self, series: str, owner: str, value: float) -> None:
        """Let *series* of pool, team or version *owner* show *value* at scrapes from now on."""
        ...
