"""One scenario and seed, played in memory by whoever has a core free: this process, another one, another machine.

A trial leaves no files; all it returns is numbers, so that it does not matter where it was played.
"""

import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process

import numpy as np

from sim.errors import RunError
from sim.scenario import Scenario


@dataclass(frozen=True)
class Played:
    """What one trial came to: metrics by name (seconds, shares, counts), and histograms as `sim.world.Result` has them.

    ``overloaded`` is the sentence with which a run ended whose backlog outgrew every bound; it has no metrics then.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    uncalibrated: bool = False
    kv_override: bool = False
    overloaded: str = ""
    wall_s: float = 0.0


def play(scenario: Scenario, seed: int) -> Played:
    """Play *scenario* with one *seed*, without rows; that it cannot keep up is a result and no error.

    Raises:
        RunError: it failed in another way: Python of the user's own did.
    """
    from sim.world import simulate

    started = time.perf_counter()
    try:
        result = simulate(scenario.model_copy(update={"rows": "none"}), seed)
    except RunError as error:
        if not str(error).startswith("OVERLOADED"):  # as `sim.engine.fleet` calls it
            raise
        return Played(overloaded=str(error), wall_s=time.perf_counter() - started)
    return Played(
        result.metrics,
        result.histograms,
        tuple(result.notes),
        result.uncalibrated,
        result.kv_override,
        wall_s=time.perf_counter() - started,
    )


@contextmanager
def crew(workers: int | None = None) -> Iterator[Executor]:
    """Open *workers* processes (as many as there are cores if left out) that play trials, and dismiss them at the end.

    An interrupt is the parent's to decide; they end with it, however it ends.
    """
    import sim.world  # noqa: F401 - once, before they fork

    context = get_context("fork" if platform.system() == "Linux" else None)
    pool = ProcessPoolExecutor(workers or cores(), context, _start)
    try:
        yield pool
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
