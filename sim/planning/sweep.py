"""A sweep: every combination of settings with every seed, played by whoever there is, kept trial by trial.

    sweep.json       format, scenario (its digest, those of its files), points, seeds, the command, and how far it came
    scenario.yaml    resolved, every default filled in; `blowout run` plays it in full
    trials.jsonl     a line a finished (point, seed), added at once as it comes back
    table.parquet    the same, tidy: a row a (point, seed), a column a varied key, and one a metric

Every point is played with the same seeds, so that two points see the same users (common random numbers).
"""

import fcntl
import json
import math
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sim import __version__, claims, results
from sim.errors import InputError, RunError
from sim.interrupts import Interrupts
from sim.planning.playing import Measured, Trial, play_all
from sim.planning.trials import Played
from sim.scenario import Scenario, digest, dump, points, reread
from sim.scenario.files import contents
from sim.workers import LOST

FORMAT = "blowout-sweep/1"
TRIALS = "trials.jsonl"

Key = tuple[int, int]
"""The place of a point, and a seed."""


@dataclass
class Sweep:
    """A sweep in its folder, as far as it was played: what each finished (point, seed) came to."""

    path: Path
    scenario: Scenario
    seeds: list[int]
    command: list[str]
    kept: dict[Key, dict[str, Any]]
    """What `trials.jsonl` says of each; metrics that are not a number are None."""

    @cached_property
    def points(self) -> list[tuple[dict[str, Any], Scenario]]:
        """Every combination, as path -> value, and the scenario that it makes."""
        return points(self.scenario)

    @property
    def size(self) -> int:
        """How many trials there are in all."""
        return len(self.points) * len(self.seeds)

    @property
    def missing(self) -> Iterator[Trial]:
        """What is still to be played: all points with the first seed, then with the next, so that half says most."""
        for seed in self.seeds:
            for k, (settings, scenario) in enumerate(self.points):
                if (k, seed) not in self.kept:
                    yield Trial(k, settings, scenario, seed)

    def trials(self, point: int) -> list[dict[str, Any]]:
        """Return what was kept of the *point* with that place, by seed."""
        return [self.kept[point, seed] for seed in self.seeds if (point, seed) in self.kept]

    @property
    def goes_on(self) -> str:
        """The command that goes on where this one stopped."""
        named = any(word == "--out" or word.startswith("--out=") for word in self.command)
        return shlex.join([*self.command, *([] if named else ["--out", str(self.path)])])

    def write(self, state: str) -> None:
        """Write sweep.json with that *state*: running, complete, interrupted or failed."""
        info = {
            "format": FORMAT,
            "state": state,
            "name": self.scenario.name,
            "scenario_sha256": digest(self.scenario),
            "files": _files(self.scenario),
            "version": __version__,
            "command": self.command,
            "seeds": self.seeds,
            "points": [settings for settings, _ in self.points],
        }
        results.write_json(self.path / "sweep.json", info)


def open_sweep(scenario: Scenario, path: Path | None, command: Sequence[str]) -> Sweep:
    """Begin the sweep of *scenario* in folder *path* (the next number below results/NAME), or go on with the one there.

    Raises:
        InputError: it holds something else, a sweep of another scenario, of other points or seeds; or a broken one.
    """
    seeds = list(range(scenario.seed, scenario.seed + scenario.seeds))
    begun = path is not None and (path / "sweep.json").is_file()
    sweep = Sweep(
        path if begun and path else results.new_folder(path, scenario.name), scenario, seeds, list(command), {}
    )
    if begun:
        info = results.read_json(sweep.path / "sweep.json", "format", "version", "scenario_sha256")
        if said := _difference(info, sweep):
            raise InputError(f"{path}: holds another sweep: {said}; choose another folder with --out")
        sweep.kept = _read(sweep.path / TRIALS)
    sweep.write("running")
    (sweep.path / "scenario.yaml").write_text(dump(scenario, sweep.path), encoding="utf-8")
    return sweep


def play(
    sweep: Sweep,
    executor: Executor,
    workers: int,
    progress: Callable[[float, float], None] = lambda done_s, all_s: None,
    lost: tuple[type[BaseException], ...] = LOST,
) -> None:
    """Play what is missing of *sweep* on *executor* with its *workers*, and keep each trial as it comes back.

    *progress* is told the simulated seconds played, and those to play in all.

    Raises:
        InputError: another process is playing it.
        RunError: a trial failed; the others that were played are kept.
        KeyboardInterrupt: interrupted; whatever came back is kept.
    """
    missing = list(sweep.missing)
    done_s, all_s = 0.0, math.fsum(trial.scenario.duration for trial in missing)
    with Interrupts() as interrupts, _adding(sweep.path / TRIALS) as add:

        def check() -> None:
            progress(done_s, all_s)
            interrupts.check()

        state = "interrupted"
        try:
            for trial, measured in play_all(executor, missing, workers, check, lost):
                row = results.plain({"point": trial.point, "seed": trial.seed, **_kept(measured)})
                add(row)
                sweep.kept[trial.point, trial.seed] = row
                done_s += trial.scenario.duration
            state = "complete"
        except RunError:
            state = "failed"
            raise
        finally:
            finish(sweep, state)


def finish(sweep: Sweep, state: str) -> None:
    """Write how far *sweep* came, and its table."""
    sweep.write(state)
    write_table(sweep)


def discard(sweep: Sweep) -> None:
    """Take away what `open_sweep` wrote, if nothing came of it."""
    if not sweep.kept:
        for name in ("sweep.json", "scenario.yaml", "table.parquet", TRIALS):
            (sweep.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # it holds something else
            sweep.path.rmdir()


def write_table(sweep: Sweep) -> None:
    """Write ``table.parquet`` of what was played so far, by point and seed: the same bytes whoever played it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [(settings, row) for k, (settings, _) in enumerate(sweep.points) for row in sweep.trials(k)]
    names = dict.fromkeys(name for _, row in rows for name in row["metrics"])
    columns = {key: _column([settings[key] for settings, _ in rows]) for key in sweep.scenario.vary}
    columns["seed"] = pa.array([row["seed"] for _, row in rows], pa.int64())
    columns["label"] = pa.array([row["label"] for _, row in rows], pa.string())
    columns |= {name: pa.array([row["metrics"].get(name) for _, row in rows], pa.float64()) for name in names}
    part = sweep.path / "table.part"
    pq.write_table(pa.table(columns), part, compression="zstd")
    os.replace(part, sweep.path / "table.parquet")


def _column(values: Sequence[Any]) -> Any:
    """Return the values of a varied key as a column: numbers, truths, names, else each as JSON."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and float in kinds:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if len(kinds) <= 1 and kinds <= {bool, int, str}:
        return pa.array(values)
    return pa.array([value if isinstance(value, str) else json.dumps(value) for value in values], pa.string())


def _kept(measured: Measured) -> dict[str, Any]:
    """Return what is kept of a trial; one whose backlog outgrew every bound has no numbers."""
    played = measured.played
    return {
        "label": measured.label,
        "metrics": played.metrics,
        "notes": [*played.notes, *([played.overloaded] if played.overloaded else [])],
        "uncalibrated": played.uncalibrated,
        "kv_override": played.kv_override,
        "wall_s": played.wall_s,
    }


# --- the file of trials ---------------------------------------------------------------------------------------------


@contextmanager
def _adding(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open *path*, of which one process at a time may be the writer, and yield what adds a line to it.

    A line is written whole or is the last one: whoever is killed in the middle of it leaves an end without a line
    break, which is cut off here.

    Raises:
        InputError: another process is writing it.
    """
    with path.open("a+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process, not of those it forks; ends with it
        except OSError:
            raise InputError(f"{path.parent}: another process is playing this sweep; expected one at a time") from None
        file.seek(0)
        file.truncate(_whole(file.read()))

        def add(row: Mapping[str, Any]) -> None:
            file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            file.flush()

        yield add


def _whole(data: bytes) -> int:
    """Return how many bytes of *data* are whole lines."""
    return data.rfind(b"\n") + 1


def _read(path: Path) -> dict[Key, dict[str, Any]]:
    """Return what the lines of *path* say by point and seed; an end that was never finished is left out."""
    data = path.read_bytes() if path.exists() else b""
    kept: dict[Key, dict[str, Any]] = {}
    for number, line in enumerate(data[: _whole(data)].splitlines(), 1):
        try:
            row = json.loads(line)
            kept[row["point"], row["seed"]] = {name: row[name] for name in _FIELDS}
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path}:{number}: expected a trial as `blowout sweep` wrote it, but it is broken"
            ) from None
    return kept


def _difference(info: Mapping[str, Any], sweep: Sweep) -> str:
    """Return what differs between the sweep that *info* tells of, in the folder of *sweep*, and *sweep*; or nothing."""
    if (info["format"], info["version"]) != (FORMAT, __version__):
        there = f"{info['format']} of blowout {info['version']}"
        return f"it was begun in format {there}, this is {FORMAT} of blowout {__version__}"
    if info["scenario_sha256"] == digest(sweep.scenario):
        now = _files(sweep.scenario)
        changed = [name for name, found in info.get("files", now).items() if now.get(name) != found]
        return f"since then, {', '.join(changed)} changed" if changed else ""
    try:
        before = dict(_flat(reread(sweep.path / "scenario.yaml")))
    except InputError:
        return "its scenario is another"
    here = dict(_flat(sweep.scenario))
    differ = [path for path in {**before, **here} if before.get(path) != here.get(path)]
    if not differ:
        return "its scenario is another"
    told = [f"{path} is {before.get(path, 'not there')}, here {here.get(path, 'not there')}" for path in differ[:3]]
    return "; ".join([*told, *([f"and {len(differ) - 3} more settings"] if len(differ) > 3 else [])])


def _files(scenario: Scenario) -> dict[str, str]:
    """Return what the files that *scenario* names hold, by sha256: its digest knows their names only."""
    return contents(scenario.model_dump(by_alias=True, mode="json"))


def _flat(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Yield every setting with its dotted path; the name and what a sweep does not play are not compared."""
    todo: list[tuple[str, Any]] = [("", scenario.model_dump(by_alias=True, mode="json"))]
    while todo:
        path, value = todo.pop(0)
        if isinstance(value, dict) and value and path != "vary":
            todo += [(f"{path}.{key}".lstrip("."), inner) for key, inner in value.items()]
        elif path == "vary":
            yield from ((f"--vary {key}", ",".join(map(claims.value_name, listed))) for key, listed in value.items())
        else:
            yield path, json.dumps(value)


_FIELDS = ("point", "seed", *_kept(Measured(Played(), "")))
