"""Samples on their way to a file: whole scrapes come in, whole series go out, and memory does not grow meanwhile."""

import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from sim.series import SeriesSet

NOTHING = np.array([0x7FF8000000000B10], dtype=np.uint64).view(np.float64)
"""Stands in a scrape where a series has no sample: a NaN of our own, in an array of one, which keeps its bits."""


class Spool:
    """What was scraped so far of a fixed list of series, all at the same times."""

    def __init__(self, labels: Sequence[Mapping[str, str]], folder: Path | None = None) -> None:
        """Begin with no scrape; values are kept in *folder*, in a file without a name, or else in memory."""
        self.labels = [dict(one) for one in labels]
        self._file: Any = tempfile.TemporaryFile(dir=folder) if folder else io.BytesIO()  # noqa: SIM115 - while we live
        self._in_memory = folder is None
        self._t_ms: list[np.ndarray] = []
        self._samples = np.zeros(len(self.labels), np.int64)

    def add(self, t_s: np.ndarray, values: np.ndarray) -> None:
        """Add scrapes at *t_s* (n,), later than all before: values (n, m), `NOTHING` where a series has no sample."""
        self._t_ms.append(np.round(np.asarray(t_s) * 1000).astype(np.int64))
        values = np.ascontiguousarray(values.T)
        self._samples += (values.view(np.uint64) != NOTHING.view(np.uint64)).sum(axis=1)
        self._file.write(values.data)

    def series(self) -> SeriesSet:
        """Return the series that have samples. They are read when they are asked for, one at a time."""
        grid = np.concatenate(self._t_ms) if self._t_ms else np.zeros(0, np.int64)
        if not len(grid):
            return SeriesSet()
        self._file.flush()
        kept = np.frombuffer(self._file.getvalue()) if self._in_memory else np.memmap(self._file, np.float64, "r")
        sizes = [len(t_ms) for t_ms in self._t_ms]
        starts = np.cumsum([0, *sizes[:-1]]) * len(self.labels)

        def column(i: int) -> np.ndarray:
            return np.concatenate([kept[at + i * n : at + (i + 1) * n] for at, n in zip(starts, sizes)])

        def there(i: int) -> np.ndarray:
            return column(i).view(np.uint64) != NOTHING.view(np.uint64)

        def times(i: int) -> np.ndarray:
            return grid if self._samples[i] == len(grid) else grid[there(i)]

        def values(i: int) -> np.ndarray:
            return column(i) if self._samples[i] == len(grid) else column(i)[there(i)]

        some = np.flatnonzero(self._samples).tolist()
        lazy = [cast(list[np.ndarray], _Each(some, read)) for read in (times, values)]
        return SeriesSet([self.labels[i] for i in some], *lazy)

    def close(self) -> None:
        """Forget everything."""
        self._file.close()


class _Each(Sequence[np.ndarray]):
    """The arrays that *read* gives for each of some numbers, read again at each look."""

    def __init__(self, some: list[int], read: Callable[[int], np.ndarray]) -> None:
        self._some, self._read = some, read

    def __len__(self) -> int:
        return len(self._some)

    def __getitem__(self, k: Any) -> Any:
        return self._read(self._some[k])
