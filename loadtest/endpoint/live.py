"""The world of a scenario, moved by somebody else's clock: what comes over HTTP happens in it at once."""

import math
from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from loadtest.endpoint.callers import Callers, served
from sim.engine.hardware import resolve
from sim.records import REQUEST, Outcome
from sim.scenario import Scenario
from sim.world import World


class Live(World):
    """A `World` without an end whose users are callers; whoever drives it calls `chase` again and again.

    Faults and control processes of the scenario happen at their times. It scrapes nothing by itself.
    """

    def __init__(
        self, scenario: Scenario, seed: int, tell: Callable[[np.ndarray], None], rows: np.ndarray | None = None
    ) -> None:
        """Set up at t = 0; *tell* gets the rows (`sim.records.ATTEMPT`) of attempts as they end.

        *rows* (`REQUEST`) are callers who are known to come.
        """
        self._tell = tell
        specs = {name: resolve(pool, where=f"fleet.pools.{name}") for name, pool in scenario.fleet.pools.items()}
        known = np.zeros(0, REQUEST) if rows is None else rows
        self.callers = Callers(scenario, seed, specs, known)
        super().__init__(served(scenario), seed, users=self.callers)
        self.fleet.w[0].arrivals_end_s = math.inf

    def chase(self, until_s: float) -> None:
        """Play all that happens up to *until_s*, and tell which attempts ended."""
        while self.peek() <= until_s:
            self.step()
        self.play(until_s)
        self._now = until_s  # nothing is planned before it: a process that begins now begins at this time
        if self.fleet.w[0].rows_n:
            self._keep(self.fleet.take_rows())

    def leave(self, request: int) -> bool:
        """Let the client of *request* be gone now; False when it is not in flight."""
        found = self.fleet.cancel(request, Outcome.CANCELLED)
        self._keep(self.fleet.take_rows())
        return found

    def values(self) -> np.ndarray:
        """Return what every series of `scraper` shows now (m,)."""
        self._sample()
        shown: np.ndarray = self.scraper.take(self.fleet.look()[None])[0]
        return shown

    def _keep(self, rows: np.ndarray) -> None:
        if len(rows):
            self._tell(rows)

    def _end(self) -> Generator[Any, None, None]:
        yield self.event()

    def _scrape(self) -> Generator[Any, None, None]:
        yield self.event()
