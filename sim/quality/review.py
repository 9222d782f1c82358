"""A team of reviewers: a first-come, first-served queue before c people, whose customers may run out of patience.

With a constant team, Poisson arrivals and exponential times it is Erlang's queue with abandonment, M/M/c+M (Palm, 1957;
Garnett, Mandelbaum and Reiman, "Designing a call center with impatient customers", MSOM 4, 2002). Played exactly,
from event to event, in plain Python: items are few beside requests.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np

DAY_S = 86_400.0
_SHORTEST_S, _RATIO, _BINS = 1e-3, 1.01, 2432
_ARRIVED, _HANDLING, _WRONG, _AFTER, _HERE = range(5)


@dataclass(frozen=True)
class Staff:
    """How many work: (time of day in seconds, reviewers), ascending from 0, the same every day."""

    shifts: tuple[tuple[float, int], ...]

    def at(self, time_s: float) -> int:
        """Return how many work at *time_s*."""
        now_s = time_s % DAY_S + 1e-6  # days later, the hour at which a shift begins comes out rounded down
        return [count for at_s, count in self.shifts if at_s <= now_s][-1]

    def next_s(self, time_s: float) -> float:
        """Return when that changes next after *time_s*; infinity where it never does."""
        if len(self.shifts) == 1:
            return math.inf
        day = math.floor(time_s / DAY_S) * DAY_S
        return next(at for at in (*(day + at_s for at_s, _ in self.shifts), day + DAY_S) if at > time_s)

    def worked_s(self, until_s: float) -> float:
        """Return the seconds that all of them together have worked by *until_s*."""
        edges = [at_s for at_s, _ in self.shifts] + [DAY_S]
        days, rest = divmod(until_s, DAY_S)
        total = 0.0
        for (begin, count), end in zip(self.shifts, edges[1:], strict=True):
            total += count * (days * (end - begin) + max(0.0, min(end, rest) - begin))
        return total


@dataclass
class Waits:
    """Waits in bins 1% wide, those of nothing apart, so that memory does not grow; the last holds all above a year."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    total_s: float = 0.0

    def add(self, waits_s: Sequence[float]) -> None:
        """Count some waits (seconds)."""
        if not waits_s:
            return
        some = np.asarray(waits_s)
        place = 1 + np.log(np.maximum(some, _SHORTEST_S) / _SHORTEST_S) / math.log(_RATIO)
        inside = np.minimum(np.where(some > 0.0, place, 0.0).astype(int), _BINS - 1)
        self.counts += np.bincount(inside, minlength=_BINS)
        self.total_s += float(some.sum())

    def quantile_s(self, q: float) -> float:
        """Return the *q*-quantile in seconds; nan of none."""
        n = int(self.counts.sum())
        if n == 0:
            return math.nan
        k = int(np.searchsorted(np.cumsum(self.counts), q * (n - 1) + 0.5))
        return 0.0 if k == 0 else float(_SHORTEST_S * _RATIO ** (k - 0.5))


class Team:
    """Reviewers and their queue, up to some time; what is reviewed was escalated before that."""

    def __init__(self, staff: Staff, end_s: float) -> None:
        """Begin at time 0 with nobody waiting; shares of time count up to *end_s*."""
        self.staff, self.end_s = staff, end_s
        self.count = staff.at(0.0)
        self.escalated = self.reviewed = self.late = self.waited = 0
        self.waiting = 0
        self.caught = 0
        """Wrong answers that review has put right."""
        self.wrong = self.reviewed_wrong = self.late_wrong = 0
        """Wrong answers escalated; wrong after review; wrong and never reviewed."""
        self.busy_s = self.queued_s = 0.0
        self.waits = Waits()
        """Of those reviewed: until somebody began."""
        self._ends: list[float] = []
        self._queue: deque[list[float]] = deque()
        self._leaving: list[tuple[float, int, list[float]]] = []
        self._shift_s = staff.next_s(0.0)
        self._new_waits: list[float] = []

    @property
    def busy(self) -> int:
        """How many are reviewing."""
        return len(self._ends)

    @property
    def shown(self) -> dict[str, float]:
        """What a scrape shows of the team, by the names of `sim.families.REVIEW`."""
        return {
            "review_queue_length": self.waiting,
            "review_reviewers": self.count,
            "review_reviewers_busy": self.busy,
            "review_escalated_total": self.escalated,
            "review_late_total": self.late,
            "review_wait_seconds_sum": self.waits.total_s,
            "review_wait_seconds_count": self.reviewed,
        }

    def take(
        self, at_s: np.ndarray, handling_s: np.ndarray, patience_s: np.ndarray | None, wrong: np.ndarray,
        after: np.ndarray,
    ) -> None:  # fmt: skip
        """Let answers come for review at *at_s*, ascending and not before what was played (all: one an answer).

        *wrong* is each now, *after* what a reviewer would let out; *patience_s* None: they wait for ever.
        """
        patience = [math.inf] * len(at_s) if patience_s is None else patience_s.tolist()
        self.wrong += int(wrong.sum())
        for t, handling, limit, *said in zip(
            at_s.tolist(), handling_s.tolist(), patience, wrong.tolist(), after.tolist(), strict=True
        ):
            self._pass(t)
            self.escalated += 1
            item = [t, handling, *said, 1]
            if len(self._ends) < self.count:
                self._begin(item, t)
                continue
            self.waited += 1
            self.waiting += 1
            self._queue.append(item)
            if limit < math.inf:
                heappush(self._leaving, (t + limit, self.escalated, item))
        self._settle()

    def play(self, until_s: float) -> None:
        """Let everything happen up to *until_s*."""
        self._pass(until_s)
        self._settle()

    def close(self) -> None:
        """Let everybody who waits be reviewed, or leave."""
        while self._queue:  # what has been begun is counted, however long it takes
            self._pass(min([*self._ends[:1], self._shift_s]))
        self._settle()

    def _pass(self, until_s: float) -> None:
        """Play the ends of reviews and shifts up to *until_s*, in their order."""
        while True:
            now = self._ends[0] if self._ends and self._ends[0] <= self._shift_s else self._shift_s
            if now > until_s or now == math.inf:
                break
            if now == self._shift_s:
                self.count, self._shift_s = self.staff.at(now), self.staff.next_s(now)
            else:
                heappop(self._ends)
            if self._queue:
                self._leave(now)
                while self._queue and len(self._ends) < self.count:
                    item = self._queue.popleft()
                    if item[_HERE]:
                        item[_HERE] = 0
                        self.waiting -= 1
                        self._begin(item, now)
        if self._leaving:
            self._leave(until_s)

    def _begin(self, item: list[float], now: float) -> None:
        """Let somebody review *item* from *now* on."""
        arrived, handling, wrong, after, _ = item
        heappush(self._ends, now + handling)
        if now < self.end_s:
            self.busy_s += min(handling, self.end_s - now)
        self._queued(arrived, now)
        self._new_waits.append(now - arrived)
        self.reviewed += 1
        self.caught += wrong > after
        self.reviewed_wrong += int(after)

    def _leave(self, now: float) -> None:
        """Let those go whose patience ended by *now*."""
        leaving = self._leaving
        while leaving and leaving[0][0] <= now:
            at_s, _, item = heappop(leaving)
            if item[_HERE]:
                item[_HERE] = 0
                self.waiting -= 1
                self.late += 1
                self.late_wrong += int(item[_WRONG])
                self._queued(item[_ARRIVED], at_s)

    def _queued(self, from_s: float, until_s: float) -> None:
        if from_s < self.end_s:
            self.queued_s += min(until_s, self.end_s) - from_s

    def _settle(self) -> None:
        """Count the waits since the last time, and forget at the front of the queue who has left."""
        self.waits.add(self._new_waits)
        self._new_waits = []
        while self._queue and not self._queue[0][_HERE]:
            self._queue.popleft()
