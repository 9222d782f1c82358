"""Rows of a load test on their way from the processes that measure to the run folder: fixed records in a file.

A process appends what it has every quarter of a second, and its state as JSON; so an interrupt loses next to nothing,
and whoever watches needs no connection to it.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sim.records import ATTEMPT

ROW = np.dtype([*((name, ATTEMPT[name]) for name in ATTEMPT.names or ()), ("error", "u1")])
"""An attempt, and beside it how it went wrong (index into `loadtest.client.ERRORS`)."""

BIN_LOW_S, BIN_RATIO, BINS = 1e-5, 1.01, 2400
"""Of the histogram of gaps between tokens: as in `sim.summary`."""


class Writer:
    """What one process leaves in the folder of the plan."""

    def __init__(self, folder: str, index: int) -> None:
        self._folder, self._index = Path(folder), index
        self._rows: list[bytes] = []
        self._file = (self._folder / f"rows-{index}.bin").open("ab") if folder else None

    def add(self, row: np.ndarray) -> None:
        """Keep one row (`ROW`) until the next `flush`."""
        if self._file:
            self._rows.append(row.tobytes())

    def taken(self, state: dict[str, Any], gaps: np.ndarray) -> Callable[[], None]:
        """Take the rows so far, the *state* and the histogram of *gaps* (`BINS`); return what writes them, anywhere."""
        file, told, counted = self._file, json.dumps(state).encode(), gaps.astype(np.int64).tobytes()
        if not file:
            return lambda: None
        rows, self._rows = b"".join(self._rows), []

        def write() -> None:
            file.write(rows)
            file.flush()
            _replace(self._folder / f"gaps-{self._index}.bin", counted)
            _replace(self._folder / f"state-{self._index}.json", told)

        return write


@dataclass
class Reader:
    """What all processes have left so far."""

    folder: Path
    _at: dict[Path, int] = field(default_factory=dict)

    def take(self) -> np.ndarray:
        """Return the rows (`ROW`) that came since the last time."""
        found = []
        for path in sorted(self.folder.glob("rows-*.bin")):
            at = self._at.get(path, 0)
            size = (path.stat().st_size - at) // ROW.itemsize * ROW.itemsize
            if size:
                with path.open("rb") as file:
                    file.seek(at)
                    found.append(np.frombuffer(file.read(size), ROW))
                self._at[path] = at + size
        return np.concatenate(found) if found else np.zeros(0, ROW)

    def states(self) -> list[dict[str, Any]]:
        """Return the state of each process that has begun, in the order of their index."""
        found = [json.loads(path.read_text()) for path in self.folder.glob("state-*.json")]
        return sorted(found, key=lambda state: int(state["index"]))

    def gaps(self) -> np.ndarray:
        """Return how many gaps between tokens fell into each bin."""
        total = np.zeros(BINS, np.int64)
        for path in self.folder.glob("gaps-*.bin"):
            total += np.frombuffer(path.read_bytes(), np.int64)
        return total


def _replace(path: Path, data: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(data)
    os.replace(part, path)
