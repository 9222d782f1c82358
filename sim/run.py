"""Play a scenario: every point of its sweep with every seed, on all cores, into one run folder."""

import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import Array
from pathlib import Path
from typing import Any

from sim import __version__, claims, results, summary
from sim.conclude import conclude
from sim.errors import InputError, RunError
from sim.interrupts import PATIENCE_S, Interrupts
from sim.results import Run
from sim.scenario import Scenario, digest, dump, points
from sim.scenario.control import Ramp
from sim.scenario.messages import condition
from sim.workers import GONE, LOST, cores, hand, processes, terminate

Progress = Callable[[float, float], None]
"""Called with the simulated seconds played so far, and those to play in all."""


@dataclass(frozen=True)
class Task:
    """One (point, seed) to play."""

    number: int
    point: dict[str, Any]
    scenario: Scenario
    seed: int
    folder: Path
    alone: bool
    control: bool = False

    @property
    def words(self) -> str:
        """How a message begins that is about this task."""
        begins = "" if self.alone else f"{condition({**self.point, 'seed': self.seed})}: "
        return f"without the faults: {begins}" if self.control else begins


@dataclass(frozen=True)
class Piece:
    """What one process plays at a time: a task, or one cell of its fleet."""

    number: int
    task: Task
    cell: int | None = None

    @property
    def words(self) -> str:
        """How a message begins that is about this piece."""
        return self.task.words + ("" if self.cell is None else f"cell {self.cell}: ")


def _pieces(tasks: Sequence[Task]) -> list[Piece]:
    found: list[Piece] = []
    for task in tasks:
        n = task.scenario.fleet.cells
        found += [Piece(len(found) + cell, task, None if n == 1 else cell) for cell in range(n)]
    return found


def tasks_of(scenario: Scenario, folder: Path, seeds: int | None = None, control: bool = False) -> list[Task]:
    """Return what there is to play; one (point, seed) alone keeps its files in *folder* itself.

    With *control*, each is played without its faults too, below ``control/``.
    """
    swept = points(scenario)
    numbers = range(scenario.seed, scenario.seed + (seeds or scenario.seeds))
    alone = len(swept) * len(numbers) == 1
    tasks: list[Task] = []
    for top, is_control in [(folder, False), (folder / "control", True)][: 1 + control]:
        for k, (point, played) in enumerate(swept):
            played = _without_trouble(played) if is_control else played
            for seed in numbers:
                place = top if alone else top / f"point-{k}" / f"seed-{seed}"
                tasks.append(Task(len(tasks), point, played, seed, place, alone, is_control))
    return tasks


def _without_trouble(scenario: Scenario) -> Scenario:
    """Return *scenario* without its faults, and without the ramps with which operators answer them."""
    control = [rule for rule in scenario.control if not isinstance(rule, Ramp)]
    return scenario.model_copy(update={"faults": [], "control": control})


def play(
    scenario: Scenario,
    folder: Path,
    *,
    seeds: int | None = None,
    workers: int | None = None,
    control: bool = False,
    command: Sequence[str] = (),
    progress: Progress = lambda done_s, all_s: None,
) -> Run:
    """Play every (point, seed) of *scenario* into *folder* and judge its claims.

    With *control*, or where a claim needs it, each is played without its faults too, and what became of the service
    after them is judged. What was finished stays readable when a run is interrupted or fails; its ``run.json`` then
    says so.

    Raises:
        InputError: the folder cannot be written any more.
        RunError: some (point, seed) is not valid; the others were played.
        KeyboardInterrupt: after everything that was finished has been put in order.
    """
    started = time.time()
    tasks = tasks_of(scenario, folder, seeds, control or claims.needs_control(scenario.claims))
    claims.check_metrics(scenario.claims, known_metrics(scenario))
    info = {
        "format": results.FORMAT,
        "kind": "simulated",
        "name": scenario.name,
        "state": "running",
        "command": list(command),
        "scenario_sha256": digest(scenario),
        "seeds": sorted({task.seed for task in tasks}),
        "versions": _versions(),
        "members": [_entry(task, folder) for task in tasks if not task.control],
    }
    if tasks[-1].control:
        info["control"] = [_entry(task, folder) for task in tasks if task.control]
    try:
        (folder / "scenario.yaml").write_text(dump(scenario, folder), encoding="utf-8")
        results.write_json(folder / "run.json", info)
        with Interrupts() as interrupts:
            ended = {"state": "interrupted"}
            try:
                _play_all(tasks, workers or cores(), progress, interrupts)
                ended = {"state": "complete"}
            except Exception as error:
                ended = {"state": "failed", "error": str(error)}
                raise
            finally:
                results.write_json(folder / "run.json", info | ended | {"wall_s": round(time.time() - started, 3)})
                conclude(Run.open(folder))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written any more ({error.strerror or error})") from None
    return Run.open(folder)


def known_metrics(scenario: Scenario) -> set[str]:
    """Return every metric that a claim about *scenario* may name."""
    from sim.alerts import outcome
    from sim.quality import watch
    from sim.quality.judge import metric_names as quality_metrics
    from sim.quality.reading import versions_of
    from sim.scenario.contained import metric_names as containment_metrics
    from sim.workload import tasks

    alerts = outcome.names(scenario.alerts)
    cohorts = list(scenario.workload.cohorts)
    known = summary.metric_names(cohorts) | set(claims.OF_CONTROL) | alerts
    known |= tasks.metric_names([name for name, one in scenario.workload.cohorts.items() if one.agent])
    known |= summary.budget_names(
        cohorts, [name for name in scenario.slo.targets if name != "wrong" or scenario.quality]
    )
    if scenario.quality:
        known |= quality_metrics(cohorts, list(scenario.quality.causes), versions_of(scenario))
        known |= watch.metric_names(scenario)
    return known | containment_metrics(scenario)


def _entry(task: Task, folder: Path) -> dict[str, Any]:
    return {"point": task.point, "seed": task.seed, "path": os.path.relpath(task.folder, folder)}


# --- here, or in workers --------------------------------------------------------------------------------------------


def _play_all(tasks: list[Task], workers: int, progress: Progress, interrupts: Interrupts) -> None:
    """Play *tasks*; one that is not valid does not keep the others from being played."""
    pieces = _pieces(tasks)
    ends = [piece.task.scenario.duration for piece in pieces]
    clock = Array("d", len(pieces) + 1, lock=False)  # simulated time by piece; and behind it 1 when all are to stop

    def report() -> None:
        progress(sum(min(now, end) for now, end in zip(clock[:-1], ends, strict=True)), sum(ends))

    if len(pieces) == 1 or workers == 1:
        failed = _play_here(pieces, clock, report, interrupts)
    else:
        failed = _play_in_workers(pieces, workers, clock, report, interrupts)
    if failed:
        others = f" ({len(failed)} of {len(pieces)} runs ended like this)" if len(failed) > 1 else ""
        raise RunError(f"{failed[min(failed)]}{others}")


def _play_here(
    pieces: list[Piece], clock: Any, report: Callable[[], None], interrupts: Interrupts
) -> dict[int, RunError]:
    failed: dict[int, RunError] = {}
    left = Counter(piece.task.number for piece in pieces)
    for piece in pieces:

        def tick(now_s: float, number: int = piece.number) -> None:
            clock[number] = now_s
            report()
            interrupts.check()

        try:
            _play(piece, tick)
            left[piece.task.number] -= 1
            if not left[piece.task.number]:
                _finish(piece.task)
        except RunError as error:
            failed[piece.number] = error
    return failed


def _play_in_workers(
    pieces: list[Piece], workers: int, clock: Any, report: Callable[[], None], interrupts: Interrupts
) -> dict[int, RunError]:
    pool = processes(min(workers, len(pieces)), _share_clock, clock)
    failed: dict[int, RunError] = {}
    left = Counter(piece.task.number for piece in pieces)
    # The long ones first, so that no core is left alone with one at the end.
    order = sorted(pieces, key=lambda piece: -piece.task.scenario.duration)
    piece_of = {hand(pool, _play_in_worker, piece): piece for piece in order}
    pending: set[Future[None]] = set(piece_of)
    try:
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                piece = piece_of[future]
                try:
                    future.result()
                    left[piece.task.number] -= 1
                    if not left[piece.task.number]:  # and once more when it is finished
                        last = hand(pool, _finish, piece.task)
                        piece_of[last] = piece
                        pending.add(last)
                except RunError as error:
                    failed[piece.number] = error
            report()
            interrupts.check()
    except LOST:
        interrupts.check()
        less = "--workers 1 or fewer rows (--set 'rows={sample: 1%}')"
        raise RunError(f"{GONE}; expected to fit with {less}") from None
    finally:
        _dismiss(pool, pending, clock)
    return failed


def _dismiss(pool: ProcessPoolExecutor, pending: set[Future[None]], clock: Any) -> None:
    """Let every worker stop at its next good place, and those that do not find one at once."""
    clock[-1] = 1
    for future in pending:
        future.cancel()
    if wait(pending, timeout=PATIENCE_S).not_done:
        terminate(pool)
    pool.shutdown()


_clock: Any = None  # in each worker: shared with the parent, see _play_all


def _share_clock(clock: Any) -> None:
    global _clock
    _clock = clock


def _play_in_worker(piece: Piece) -> None:
    def tick(now_s: float) -> None:
        _clock[piece.number] = now_s
        if _clock[-1]:
            raise KeyboardInterrupt

    tick(0.0)
    _play(piece, tick)


def _play(piece: Piece, tick: Callable[[float], None]) -> None:
    """Play one piece, with errors that say which."""
    from sim.world import simulate, simulate_cell

    task = piece.task
    try:
        if piece.cell is None:
            simulate(task.scenario, task.seed, task.folder, progress=tick)
        else:
            simulate_cell(task.scenario, task.seed, piece.cell, task.folder, progress=tick)
    except RunError as error:
        raise RunError(f"{piece.words}{error}") from None
    except MemoryError:
        raise RunError(f"{piece.words}memory ran out; expected to fit with fewer rows or a shorter duration") from None
    except AssertionError as error:
        raise RunError(f"{piece.words}a law of the engine was broken ({error}): a fault of Blowout's own") from error


def _finish(task: Task) -> None:
    """Make one run of the cells of *task*, if it has several, and judge its alerts."""
    if task.scenario.fleet.cells > 1:
        from sim.cells import merge

        merge(task.scenario, task.folder)
    if task.scenario.alerts and not task.control:
        _judge_alerts(task)


def _judge_alerts(task: Task) -> None:
    """Add what the alerts of the scenario did to the metrics of a task that was played."""
    from sim.alerts import outcome
    from sim.alerts.past import Past

    member = results.Member(task.point, task.seed, task.folder)
    info = dict(member.info)
    info["metrics"] |= outcome.measure(task.scenario, Past("", task.folder / results.SCRAPED, member))
    results.write_json(task.folder / "member.json", info)


# --- what comes out -------------------------------------------------------------------------------------------------


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("numpy", "numba", "scipy", "simpy", "pyarrow")
    return {"blowout": __version__, "python": platform.python_version(), **{name: version(name) for name in names}}


def require_finished(run: Run) -> None:
    """Refuse a run of which nothing was finished.

    Raises:
        RunError: no (point, seed) came to its end.
    """
    if run.members:
        return
    words = {"running": "still running, or killed", "complete": "its member.json is gone"}
    why = run.info.get("error") or words.get(run.info["state"], run.info["state"])
    raise RunError(f"{run.path}: nothing was finished ({why}){rows_so_far(run)}")


def rows_so_far(run: Run) -> str:
    """Return, as the end of a sentence, where rows are that were kept although nothing was finished."""
    rows = [str(path) for path in sorted(run.path.rglob("attempts.parquet")) if results.is_whole(path)]
    return f"; the rows so far are in {', '.join(rows[:3])}" if rows else ""
