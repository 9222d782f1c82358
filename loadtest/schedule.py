"""Who asks what and when: the simulator's own users, split exactly once over the processes of a load test."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from loadtest.plan import Plan
from sim import workload

CHUNK = 2_048
"""Requests drawn at once: about a millisecond, so that nobody is sent late for it."""
MORE = -2


@dataclass(slots=True)
class Ask:
    """One thing that a user asks; *after* is what it asks next, in the order of turns."""

    row: np.void
    after: "deque[np.void]"
    sent: tuple[str, bytes] | None = None  # path and body of its first request, once they are written


class Schedule:
    """The users of a plan; those of a process are every n-th, each with all turns of its session."""

    def __init__(self, plan: Plan) -> None:
        self.users = workload.compile(plan.loaded, plan.seed, plan.contexts or None)
        self.duration_s = plan.loaded.duration

    def asks(self, index: int = 0, of: int = 1) -> Iterator[Ask]:
        """Yield, for process *index* of *of*, the first request of each user in the order of time.

        What the user asks next comes with it.
        """
        k = 0
        for rows in self.users.chunks(CHUNK):
            follows = rows["follow_up"]
            later = np.zeros(len(rows), bool)
            later[follows[follows >= 0]] = True
            for first in np.flatnonzero(~later).tolist():
                if k % of == index and rows["scheduled_s"][first] < self.duration_s:
                    yield Ask(rows[first].copy(), _script(rows, first))
                k += 1

    def more(self, session: int) -> Ask:
        """Return the next script of a *session* whose last row asks for more."""
        rows = self.users.more(np.array([session]))
        return Ask(rows[0].copy(), _script(rows, 0))


def _script(rows: np.ndarray, first: int) -> "deque[np.void]":
    found: deque[np.void] = deque()
    at = int(rows["follow_up"][first])
    while at >= 0:
        found.append(rows[at].copy())
        at = int(rows["follow_up"][at])
    return found
