"""Who comes together: the usual users, and those that surges add, merged in the order of time.

A surge never moves a usual user. Its own come from a stream of their own (``surge.0``, ``surge.1``, ... in the
order of the file) and have ids of their own, so that a run with a surge and one without differ by the extra
users and nothing else. They are as the usual ones would be at such a rate: the same curve, the same variation of
gaps, the same kinds. Surges that overlap add up.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sim.errors import ScenarioError
from sim.ids import IDS
from sim.scenario import Scenario
from sim.scenario.faults import Surge
from sim.scenario.targets import EVERYBODY
from sim.scenario.workload import ArrivalProcess
from sim.workload.arrivals import Arrivals, Part, RateCurve, steps


@dataclass(frozen=True)
class Crowd:
    """Users of one origin: when they come, from which stream, and of which cohort (-1: of any)."""

    curve: RateCurve | Part
    stream: str = "arrivals"
    cohort: int = -1


class Crowds:
    """All users of an open scenario: the usual ones first, then those of each surge."""

    def __init__(self, scenario: Scenario, seed: int, curve: RateCurve, cv: float) -> None:
        """*curve* and *cv* say when the usual users come: arrivals expected, and variation of the steps along it."""
        cohorts = scenario.workload.cohorts
        self._seed = seed
        self._cv = cv
        self._duration_s = scenario.duration
        self._all = [Crowd(curve)]
        for number, (_, surge) in enumerate(surges(scenario)):
            only = surge.surge != EVERYBODY
            share = cohorts[surge.surge].share if only else 1.0
            until_s = scenario.duration if surge.to is None else surge.to
            extra = Part(curve, surge.from_, until_s, (surge.factor - 1.0) * share)
            self._all.append(Crowd(extra, f"surge.{number}", list(cohorts).index(surge.surge) if only else -1))
        self._cohort = np.array([crowd.cohort for crowd in self._all], np.int16)

    @property
    def expected(self) -> float:
        """Users expected until the end of the run."""
        return sum(crowd.curve.until(self._duration_s) for crowd in self._all)

    def come(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield when the next users come (float64 seconds, at most *size*) and of which crowd each is (int64)."""
        return merged(
            [Arrivals(crowd.curve, self._duration_s, steps(self._seed, self._cv, crowd.stream)) for crowd in self._all],
            size,
        )

    def cohorts(self, crowd: np.ndarray) -> np.ndarray | None:
        """Return the cohort of users of *crowd* (-1: of any); None when nobody's is given."""
        return self._cohort[crowd] if (self._cohort >= 0).any() else None

    def numbers(self) -> "Numbers":
        """Return what gives out ids, from the beginning."""
        return Numbers(len(self._all))


class Numbers:
    """Ids, given out in order, to each crowd its own."""

    def __init__(self, crowds: int) -> None:
        self._next = [crowd * IDS for crowd in range(crowds)]

    def take(self, crowd: np.ndarray) -> np.ndarray:
        """Return the next id (int64) for each of *crowd*."""
        if len(self._next) == 1:
            self._next[0] += len(crowd)
            return np.arange(self._next[0] - len(crowd), self._next[0])
        ids = np.empty(len(crowd), np.int64)
        for index, first in enumerate(self._next):
            mine = np.flatnonzero(crowd == index)
            ids[mine] = np.arange(first, first + len(mine))
            self._next[index] += len(mine)
        return ids


def surges(scenario: Scenario) -> list[tuple[int, Surge]]:
    """Return the surges of *scenario* and their places among its faults.

    Raises:
        ScenarioError: there is a surge, and a trace or a closed circle says who comes.
    """
    found = [(i, fault) for i, fault in enumerate(scenario.faults) if isinstance(fault, Surge)]
    arrivals = scenario.workload.arrivals
    if found and scenario.workload.trace is not None:
        raise ScenarioError(f"faults.{found[0][0]}.surge: expected none with a trace, which says who comes")
    if found and isinstance(arrivals, ArrivalProcess) and arrivals.closed is not None:
        raise ScenarioError(f"faults.{found[0][0]}.surge: expected none with closed arrivals, whose users are counted")
    return found


def merged(sources: list[Arrivals], size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the times of all *sources* in order, at most *size* at once, and which source each is from (int64).

    Of equal times the first source's is first, however many are taken at once.
    """
    waiting = [np.empty(0)] * len(sources)
    while True:
        waiting = [times if len(times) else source.take(size) for times, source in zip(waiting, sources)]
        known = [(times[-1], index) for index, times in enumerate(waiting) if len(times)]
        if not known:
            return
        horizon_s, last = min(known)  # nobody whom a source has not given yet comes before
        ready = [
            int(np.searchsorted(times, horizon_s, "right" if index <= last else "left"))
            for index, times in enumerate(waiting)
        ]
        came = np.concatenate([times[:until] for times, until in zip(waiting, ready)])
        origin = np.repeat(np.arange(len(sources)), ready)
        waiting = [times[until:] for times, until in zip(waiting, ready)]
        if len(sources) > 1:
            order = np.argsort(came, kind="stable")
            came, origin = came[order], origin[order]
        for start in range(0, len(came), size):
            yield came[start : start + size], origin[start : start + size]
