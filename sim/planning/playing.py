"""Many trials on whatever executor there is, each given back as soon as it was played."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from sim.errors import RunError
from sim.metastability import good_by_minute
from sim.planning.labels import label
from sim.planning.trials import Played, play
from sim.scenario import Scenario
from sim.scenario.messages import condition
from sim.workers import GONE, LOST, hand

AHEAD = 4
"""Trials for each worker that are handed out before one comes back, so that none ever waits for the next."""

GOOD = "good_per_s"
KEPT = ("parts_tail", "parts_median", "parts_tail_first", "parts_median_first")


@dataclass(frozen=True)
class Trial:
    """One (point, seed) to play; *point* is its place among the points, *settings* what varies (path -> value)."""

    point: int
    settings: Mapping[str, Any]
    scenario: Scenario
    seed: int


@dataclass(frozen=True)
class Measured:
    """What came back of a trial: its numbers, and STABLE, BACKLOGGED or OVERLOADED (`sim.planning.labels`).

    Of its histograms only `KEPT`: where time went. All of them would be a thousand times as large.
    """

    played: Played
    label: str


def measure(scenario: Scenario, seed: int, within: Mapping[str, float] | None = None) -> Measured:
    """Play *scenario* with one *seed*, and return its numbers.

    *within* are bounds on percentiles of TTFT or e2e, by metric: right answers that keep them are then counted as
    `GOOD`, a second.
    """
    played = play(scenario, seed)
    if within and played.metrics:
        good = good_by_minute(played.histograms, within, scenario.duration).sum() / scenario.duration
        played = replace(played, metrics={**played.metrics, GOOD: float(good)})
    kept = {name: played.histograms[name] for name in KEPT if name in played.histograms}
    return Measured(replace(played, histograms=kept), label(played))


def play_all(
    executor: Executor,
    trials: Iterable[Trial],
    workers: int,
    check: Callable[[], None] = lambda: None,
    lost: tuple[type[BaseException], ...] = LOST,
) -> Iterator[tuple[Trial, Measured]]:
    """Let *executor*, which has so many *workers*, `measure` all *trials*; yield each as soon as it comes back.

    *check* is called several times a second, and may raise to stop. *lost* are what the executor raises when whoever
    played a trial is gone.

    Raises:
        RunError: a trial failed; the message begins with its point and seed.
    """
    ahead, left = AHEAD * workers, iter(trials)
    waiting: dict[Future[Measured], Trial] = {}
    while True:
        for trial in islice(left, ahead - len(waiting)):
            waiting[hand(executor, measure, trial.scenario, trial.seed)] = trial
        if not waiting:
            return
        done, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
        for future in done:
            trial = waiting.pop(future)
            yield trial, result_of(future, condition({**trial.settings, "seed": trial.seed}), lost)
        check()


def result_of(future: "Future[Measured]", words: str, lost: tuple[type[BaseException], ...] = LOST) -> Measured:
    """Return what came back of a trial, which *words* name.

    Raises:
        RunError: it failed, or whoever played it is gone (one of *lost*); begins with *words*.
    """
    try:
        return future.result()
    except RunError as error:
        raise RunError(f"{words}: {error}") from None
    except lost:
        raise RunError(f"{words}: {GONE}; expected to fit with fewer workers") from None
    except MemoryError:
        raise RunError(f"{words}: memory ran out; expected to fit with a shorter duration") from None
    except AssertionError as error:
        raise RunError(f"{words}: a law of the engine was broken ({error}): a fault of Blowout's own") from error
