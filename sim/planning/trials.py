"""One scenario and seed, played in memory by whoever has a core free: this process, another one, another machine.

A trial leaves no files; all it returns is numbers, so that it does not matter where it was played.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from sim.errors import RunError
from sim.scenario import Scenario
from sim.workers import cores, processes, terminate


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
    """Open *workers* processes that play trials (as many as there are cores if left out); dismiss them at the end."""
    import sim.world  # noqa: F401 - once, before they fork

    executor = processes(workers or cores())
    try:
        yield executor
    except BaseException:
        terminate(executor)
        raise
    finally:
        executor.shutdown(cancel_futures=True)
