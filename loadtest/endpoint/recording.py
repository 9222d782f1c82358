"""What callers did, and when: enough to let the same happen again in virtual time.

One JSON object a line: ``{"ask": {...}}`` (a row of `sim.records.REQUEST`), ``{"at_s": ..., "leave": request}``,
``{"at_s": ..., "fault": {...}}``, ``{"at_s": ..., "heal": true}``. Times are model seconds.
"""

import json
from collections.abc import Iterable
from typing import Any, TextIO

import numpy as np

from loadtest.endpoint.hands import Hands
from loadtest.endpoint.live import Live
from sim.errors import InputError
from sim.records import ATTEMPT, REQUEST
from sim.scenario import Scenario

MOST_KEPT = 1_000_000
"""Lines kept in memory for ``/admin/arrivals``, about 300 MB; a file takes all."""


class Recording:
    """Lines of a recording: kept, written to *file* as they come, or neither."""

    def __init__(self, keep: bool = False, file: TextIO | None = None) -> None:
        self.lines: list[str] = []
        self._keep, self._file = keep, file

    def came(self, row: np.ndarray) -> None:
        """A caller has asked what *row* says."""
        if self._keep or self._file:
            self.add({"ask": {name: row[name].item() for name in REQUEST.names or ()}})

    def left(self, at_s: float, request: int) -> None:
        """The caller of *request* has gone."""
        self.add({"at_s": at_s, "leave": request})

    def add(self, line: dict[str, Any]) -> None:
        """Add one line."""
        text = json.dumps(line)
        if self._keep and len(self.lines) < MOST_KEPT:
            self.lines.append(text)
        if self._file:
            self._file.write(text + "\n")
            self._file.flush()


def replay(scenario: Scenario, seed: int, lines: Iterable[str], until_s: float) -> np.ndarray:
    """Return the rows (`sim.records.ATTEMPT`) of the recorded callers, played in virtual time up to *until_s*.

    On the same scenario and seed they are those of the time when callers were real, to the last bit.

    Raises:
        InputError: a line is none of a recording.
    """
    asked: list[tuple[Any, ...]] = []
    acts: list[dict[str, Any]] = []
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            if "ask" in line:
                asked.append(tuple(line["ask"][name] for name in REQUEST.names or ()))
            else:
                acts.append({"at_s": float(line["at_s"]), **line})
        except (ValueError, KeyError, TypeError):
            raise InputError(f"recording, line {number}: expected what a caller did, got: {text[:60]!r}") from None
    ended: list[np.ndarray] = [np.zeros(0, ATTEMPT)]
    world = Live(scenario, seed, ended.append, np.array(asked, REQUEST))
    hands = Hands(world)
    for act in acts:
        world.chase(act["at_s"])
        if "leave" in act:
            world.leave(act["leave"])
        elif "fault" in act:
            hands.begin(act["fault"])
        else:
            hands.heal()
        world.chase(act["at_s"])
    world.chase(until_s)
    return np.concatenate(ended)
