"""Play a scenario: every point of its sweep with every seed, on all cores, into one run folder."""

import os
import platform
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import Array, get_context
from pathlib import Path
from typing import Any

from sim import __version__, claims, results, summary
from sim.errors import BlowoutError, RunError
from sim.results import Run
from sim.scenario import Scenario, digest, dump, points

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


_clock: Any = None  # in each worker: simulated time by task, shared with the parent


def _start_worker(clock: Any) -> None:
    global _clock
    _clock = clock
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means


def _play(task: Task) -> None:
    from sim.world import simulate

    def tick(now_s: float) -> None:
        if _clock is not None:
            _clock[task.number] = now_s

    simulate(task.scenario, task.seed, task.folder, progress=tick)


def tasks_of(scenario: Scenario, folder: Path, seeds: int | None = None) -> list[Task]:
    """Return what there is to play; one (point, seed) alone keeps its files in *folder* itself."""
    swept = points(scenario)
    numbers = range(scenario.seed, scenario.seed + (seeds or scenario.seeds))
    alone = len(swept) * len(numbers) == 1
    tasks: list[Task] = []
    for k, (point, played) in enumerate(swept):
        for seed in numbers:
            place = folder if alone else folder / f"point-{k}" / f"seed-{seed}"
            tasks.append(Task(len(tasks), point, played, seed, place))
    return tasks


def play(
    scenario: Scenario,
    folder: Path,
    *,
    seeds: int | None = None,
    workers: int | None = None,
    command: Sequence[str] = (),
    progress: Progress = lambda done_s, all_s: None,
) -> Run:
    """Play every (point, seed) of *scenario* into *folder* and judge its claims.

    What was finished stays readable when a run is interrupted; its ``run.json`` then says so.

    Raises:
        BlowoutError: as `sim.world.simulate`.
        KeyboardInterrupt: after everything that was finished has been put in order.
    """
    started = time.time()
    tasks = tasks_of(scenario, folder, seeds)
    claims.check_metrics(scenario.claims, summary.metric_names(list(scenario.workload.cohorts)))
    (folder / "scenario.yaml").write_text(dump(scenario), encoding="utf-8")
    info = {
        "format": results.FORMAT,
        "kind": "simulated",
        "name": scenario.name,
        "state": "running",
        "command": list(command),
        "scenario_sha256": digest(scenario),
        "seeds": sorted({task.seed for task in tasks}),
        "versions": _versions(),
        "members": [
            {"point": task.point, "seed": task.seed, "path": os.path.relpath(task.folder, folder)} for task in tasks
        ],
    }
    results.write_json(folder / "run.json", info)
    state = "interrupted"
    try:
        _play_all(tasks, workers or os.cpu_count() or 1, progress)
        state = "complete"
    except BlowoutError:
        state = "failed"
        raise
    finally:
        results.write_json(folder / "run.json", info | {"state": state, "wall_s": round(time.time() - started, 3)})
        _conclude(Run.open(folder), scenario)
    return Run.open(folder)


def _play_all(tasks: list[Task], workers: int, progress: Progress) -> None:
    ends = [task.scenario.duration for task in tasks]
    clock = Array("d", len(tasks), lock=False)

    def report() -> None:
        progress(sum(min(now, end) for now, end in zip(clock, ends, strict=True)), sum(ends))

    if len(tasks) == 1 or workers == 1:
        from sim.world import simulate

        for task in tasks:

            def tick(now_s: float, number: int = task.number) -> None:
                clock[number] = now_s
                report()

            simulate(task.scenario, task.seed, task.folder, progress=tick)
        return
    context = get_context("fork" if platform.system() == "Linux" else None)
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, _start_worker, (clock,))
    try:
        # The long ones first, so that no core is left alone with one at the end.
        pending: set[Future[None]] = {
            pool.submit(_play, task) for task in sorted(tasks, key=lambda task: -task.scenario.duration)
        }
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            report()
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


def _conclude(run: Run, scenario: Scenario) -> None:
    """Write the summary of what was finished, and the verdict when everything was."""
    found: dict[int, dict[str, Any]] = {}
    infos = []
    swept = [point for point, _ in points(scenario)]
    for member in run.members:
        info = member.info
        infos.append(info)
        entry = found.setdefault(swept.index(member.point), {"point": member.point, "seeds": [], "values": []})
        entry["seeds"].append(member.seed)
        entry["values"].append(info["metrics"])
    entries = [found[k] for k in sorted(found)]
    results.write_json(
        run.path / "summary.json",
        {
            "scenario": scenario.name,
            "state": run.info["state"],
            "assumptions": list(dict.fromkeys(note for info in infos for note in info["notes"])),
            "uncalibrated": any(info["uncalibrated"] for info in infos),
            "kv_override": any(info["kv_override"] for info in infos),
            "points": [
                {"point": entry["point"], "seeds": entry["seeds"], "metrics": _over_seeds(entry["values"])}
                for entry in entries
            ],
        },
    )
    if scenario.claims and run.info["state"] == "complete":
        values = [[_numbers(metrics) for metrics in entry["values"]] for entry in entries]
        verdicts = claims.evaluate(scenario.claims, [entry["point"] for entry in entries], values)
        results.write_json(run.path / "verdict.json", [asdict(verdict) for verdict in verdicts])


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float("nan") if value is None else float(value) for name, value in metrics.items()}


def _over_seeds(values: list[dict[str, Any]]) -> dict[str, Any]:
    known = [_numbers(metrics) for metrics in values]
    return {name: summary.interval([metrics[name] for metrics in known]) for name in known[0]}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("numpy", "numba", "scipy", "simpy", "pyarrow")
    return {"blowout": __version__, "python": platform.python_version(), **{name: version(name) for name in names}}


def require_complete(run: Run) -> None:
    """Refuse a run of which nothing was finished.

    Raises:
        RunError: no (point, seed) came to its end.
    """
    if not run.members:
        raise RunError(f"{run.path}: nothing was finished")
