"""The run folder: what a run leaves behind, and how everything else reads it.

A run of one point and one seed keeps its files in the run folder itself; a run of several keeps those of each in
``point-<i>/seed-<k>/``, and what compares them at the top.
"""

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from sim import scenario as scenarios
from sim.errors import InputError
from sim.records import ATTEMPT, SCHEMA_VERSION
from sim.series import SeriesSet

SCRAPED = "metrics.parquet"
EVALUATIONS = "evaluations.jsonl"
FORMAT = f"blowout-run/{SCHEMA_VERSION}"
SERIES = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:num_preemptions_total",
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
)


def new_folder(out: Path | None, name: str) -> Path:
    """Make and return the folder for a new run: *out*, or the next number under results/<name>.

    Raises:
        InputError: *out* exists and holds files, or cannot be written.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: expected a new or an empty folder for the results, but it exists and is not empty")
    folder = out or Path("results") / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if out is None:
            folder = _next_number(folder)
        (folder / ".write").touch()
        (folder / ".write").unlink()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another with --out") from None
    return folder


def _next_number(parent: Path) -> Path:
    """Make the folder with the next number, which may be one later when another run starts at the same time."""
    number = max((int(path.name) for path in parent.iterdir() if path.name.isdecimal()), default=0) + 1
    while True:
        try:
            (parent / f"{number:03d}").mkdir()
            return parent / f"{number:03d}"
        except FileExistsError:
            number += 1


def write_json(path: Path, value: Any) -> None:
    """Write *value* as JSON, all at once; what is not a number becomes null."""
    text = json.dumps(plain(value), indent=1, allow_nan=False)
    part = path.with_suffix(".part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)


def plain(value: Any) -> Any:
    """Return *value* with JSON's types only: arrays as lists, what is not a number as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def read_json(path: Path, *keys: str) -> Any:
    """Return what the JSON file at *path* holds: a mapping with at least *keys*, if any are named.

    Raises:
        InputError: it is missing or broken.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if keys and not (isinstance(found, dict) and found.keys() >= set(keys)):
            raise ValueError(f"no mapping with {', '.join(keys)}")
        return found
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: expected JSON as `blowout run` wrote it, but it is broken ({error})") from None


class Recorder:
    """Writes the files of one (point, seed) while it is played: rows and series leave memory in chunks."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._writers: dict[str, Any] = {}
        (folder / "events.jsonl").write_bytes(b"")
        # Whole lines, each at the end of the file as it is then: others may add theirs (`blowout load mark`).
        self._events = (folder / "events.jsonl").open("a", buffering=1, encoding="utf-8")

    def rows(self, rows: np.ndarray) -> None:
        """Add attempt rows (`sim.records.ATTEMPT`)."""
        self._write("attempts.parquet", {name: rows[name] for name in ATTEMPT.names or ()})

    def series(self, columns: Mapping[str, np.ndarray]) -> None:
        """Add scraped samples: time, pool, replica and one column a metric."""
        self._write("series.parquet", columns)

    def event(self, t_s: float, what: str, **fields: Any) -> None:
        """Add something that happened to the world."""
        self._events.write(json.dumps({"t_s": t_s, "event": what, **plain(fields)}) + "\n")

    def close(self, histograms: Mapping[str, np.ndarray] | None = None, info: Mapping[str, Any] | None = None) -> None:
        """Finish every file, so that what was computed can be read; *info* becomes ``member.json``."""
        if histograms is not None:
            np.savez_compressed(self.folder / "histograms.npz", allow_pickle=False, **dict(histograms))
        for writer in self._writers.values():
            writer.close()
        self._events.close()
        if info is not None:
            write_json(self.folder / "member.json", info)

    def _write(self, name: str, columns: Mapping[str, np.ndarray]) -> None:
        import pyarrow as pa

        table = pa.table({key: pa.array(np.ascontiguousarray(column)) for key, column in columns.items()})
        if name not in self._writers:
            self._writers[name] = writer(self.folder / name, table.schema)
        self._writers[name].write_table(table)


def writer(path: Path, schema: Any) -> Any:
    """Open the Parquet file at *path* for tables of rows or scrapes with the pyarrow *schema*."""
    import pyarrow.parquet as pq

    # Without dictionaries, which are of little use to floats, ten million rows take half the time.
    return pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=["pool"] if "pool" in schema.names else False
    )


@dataclass(frozen=True)
class Member:
    """One (point, seed) of a run."""

    point: dict[str, Any]
    seed: int
    path: Path

    def attempts(self, columns: Sequence[str] | None = None) -> Any:
        """Return its attempt rows as a pyarrow table."""
        return _read_parquet(self.path / "attempts.parquet", columns)

    def series(self) -> Any:
        """Return its scraped samples as a pyarrow table."""
        return _read_parquet(self.path / "series.parquet", None)

    def metrics(self, names: Collection[str] | None = None) -> SeriesSet:
        """Return what a Prometheus would have scraped, with *names* only the series so called.

        Raises:
            InputError: it was not kept.
        """
        path = self.path / SCRAPED
        if not path.exists():
            raise InputError(f"{path}: not written by this run, its scenario says `telemetry: none`")
        return SeriesSet.read(path, names)

    def events(self) -> list[dict[str, Any]]:
        """Return what happened to the world."""
        return self._lines("events.jsonl")

    def evaluations(self) -> list[dict[str, Any]]:
        """Return what each check found in each answer that it looked at; nothing where nothing was checked."""
        return self._lines(EVALUATIONS)

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        except ValueError as error:
            raise InputError(f"{path}: expected lines of JSON, but it is broken ({error})") from None

    def histograms(self) -> dict[str, np.ndarray]:
        """Return its histograms, counters and latency parts by name."""
        path = self.path / "histograms.npz"
        try:
            with np.load(path) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None

    @property
    def info(self) -> dict[str, Any]:
        """Its metrics and notes."""
        return read_json(self.path / "member.json", "metrics", "notes", "uncalibrated", "kv_override")


@dataclass(frozen=True)
class Run:
    """A run folder, opened for reading."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Return the run in folder *path*.

        Raises:
            InputError: it is no run folder, or one of another version.
        """
        info = path / "run.json"
        if not info.is_file():
            runs = sorted(path.glob("*/run.json"), key=lambda run: run.stat().st_mtime)
            near = f"; the latest in it is {runs[-1].parent}" if runs else ""
            raise InputError(f"{path}: expected the folder of a run, but it holds no run.json{near}")
        found = read_json(info, "format", "state", "members")
        if found["format"] != FORMAT:
            raise InputError(f"{info}: expected a run in format {FORMAT}, got {found['format']}")
        return cls(path)

    @cached_property
    def info(self) -> dict[str, Any]:
        """What was run, how, and how far it came."""
        return read_json(self.path / "run.json", "format", "state", "members")

    @cached_property
    def scenario(self) -> Any:
        """The scenario with every default filled in."""
        return scenarios.reread(self.path / "scenario.yaml")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Headline metrics by point, with intervals over seeds."""
        return read_json(self.path / "summary.json", "points", "assumptions")

    @cached_property
    def verdicts(self) -> list[dict[str, Any]] | None:
        """The claims as judged, or None when the scenario makes none."""
        path = self.path / "verdict.json"
        return read_json(path) if path.exists() else None

    @cached_property
    def members(self) -> list[Member]:
        """Every (point, seed) that was finished."""
        return self._finished("members")

    @cached_property
    def controls(self) -> list[Member]:
        """The same without the faults, where the control run was asked for."""
        return self._finished("control")

    def _finished(self, key: str) -> list[Member]:
        found = [Member(entry["point"], entry["seed"], self.path / entry["path"]) for entry in self.info.get(key, ())]
        return [member for member in found if (member.path / "member.json").exists()]


def is_whole(path: Path) -> bool:
    """Return whether the Parquet file at *path* was closed: its last four bytes say so."""
    with path.open("rb") as file:
        return path.stat().st_size > 8 and file.seek(-4, os.SEEK_END) > 0 and file.read() == b"PAR1"


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise InputError(f"{path}: not written by this run (see `rows` in its scenario.yaml)")
    try:
        return pq.read_table(path, columns=list(columns) if columns else None)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read, for its run was cut short ({str(error).splitlines()[0]})") from None
