"""Which answers are checked: the very sample that a simulation of the same seed evaluates; and their way to the judge.

What an answer says is kept of these alone: in a folder that only its owner can read, until it was judged.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sim.scenario import AnswerCheck, Scenario

_EVALUATED = 8
"""What the engine's gateway hashes with seed and request (`sim.engine.meters.meter_attempt`)."""
_64 = (1 << 64) - 1


def luck_of(seed: int, request: int) -> int:
    """Return the 64 bits by which an answer is in the sample: `sim.engine.steptime.hash3`, without its compiler.

    A sending process does not wait for Numba.
    """
    return _scrambled(_scrambled(_scrambled(seed & _64) ^ (request & _64)) ^ _EVALUATED)


def _scrambled(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _64
    return x ^ (x >> 31)


class Sample:
    """The sample of one seed: which checks look at which answers."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._seed = seed
        usual = scenario.telemetry.evaluate if scenario.telemetry else 0.0
        checks = scenario.checks.items()
        self._checks = [
            {name: _below(check, usual) for name, check in checks if not check.cohorts or cohort in check.cohorts}
            for cohort in scenario.workload.cohorts
        ]
        self._most = [max(checks.values(), default=0) for checks in self._checks]

    def wants(self, request: int, cohort: int) -> bool:
        """Tell whether any check looks at the answer to *request* of *cohort*."""
        return self._most[cohort] > 0 and luck_of(self._seed, request) < self._most[cohort]

    def checks(self, request: int, cohort: int) -> tuple[list[str], bool]:
        """Return the checks that look at an answer, and whether these are all that its cohort has."""
        luck, mine = luck_of(self._seed, request), self._checks[cohort]
        found = [name for name, below in mine.items() if luck < below]
        return found, len(found) == len(mine)


def _below(check: AnswerCheck, usual: float) -> int:
    """Return what the luck of a sampled answer is below (`sim.engine.config.share_below`)."""
    share = usual if check.share is None else check.share
    return min(int(share * 2.0**64), _64)


class Kept(NamedTuple):
    """An answer in the sample; cohort and pool by their number in the scenario."""

    request: int
    cohort: int
    pool: int
    scheduled_s: float
    text: str


class Writer:
    """What one sending process leaves of the answers in the sample."""

    def __init__(self, folder: str, index: int) -> None:
        """Write into *folder*; nowhere if that is empty."""
        private = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(Path(folder) / f"answers-{index}.jsonl", private, 0o600) if folder else -1
        self._lines: list[str] = []

    @property
    def is_kept(self) -> bool:
        """Whether answers go anywhere."""
        return self._file >= 0

    def add(self, answer: Kept) -> None:
        """Keep an answer until the next `flush`."""
        self._lines.append(json.dumps(answer) + "\n")

    def flush(self) -> None:
        """Hand on the answers so far."""
        data, self._lines = "".join(self._lines).encode(), []
        while data:
            data = data[os.write(self._file, data) :]


@dataclass
class Reader:
    """What all processes have left so far."""

    folder: Path
    _at: dict[Path, int] = field(default_factory=dict)

    def take(self) -> Iterator[Kept]:
        """Yield the answers that came since the last time."""
        for path in sorted(self.folder.glob("answers-*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._at.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # it is still being written
                    self._at[path] = self._at.get(path, 0) + len(line)
                    yield Kept(*json.loads(line))


__all__ = ["Kept", "Reader", "Sample", "Writer", "luck_of"]
