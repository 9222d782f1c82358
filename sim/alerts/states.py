"""The states of an alert: pending, firing, resolved, exactly as Prometheus goes through them.

After AlertingRule.Eval in rules/alerting.go, Prometheus 2.42.
"""

from dataclasses import dataclass

import numpy as np

from sim.alerts.promql.vectors import Labels


@dataclass(frozen=True)
class Episode:
    """One time an alert was active: pending since, firing since (None: never), over at (None: not yet)."""

    labels: Labels
    pending_ms: int
    firing_ms: int | None
    ended_ms: int | None

    def state(self, t_ms: int) -> str:
        """Return ``pending`` or ``firing`` at one evaluation, or nothing."""
        if t_ms < self.pending_ms or (self.ended_ms is not None and t_ms >= self.ended_ms):
            return ""
        return "firing" if self.firing_ms is not None and t_ms >= self.firing_ms else "pending"


def episodes(labels: Labels, t_ms: np.ndarray, true: np.ndarray, for_ms: int, keep_ms: int) -> list[Episode]:
    """Return when one alert was pending and firing, of evaluations at *t_ms* that were *true* or not.

    Pending begins with the first true evaluation and ends with the first other one. It fires in the first evaluation
    that is at least *for_ms* later. Firing ends with the first evaluation that is not true and at least *keep_ms*
    later than the first of those in a row. Evaluations that failed must be left out: they change nothing.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true, [False]]).astype(np.int8)))
    found: list[Episode] = []
    pending, firing, over = 0, -1, 0  # over: the index of the evaluation at which the firing one would end
    for start, end in zip(edges[::2], edges[1::2]):
        if firing < 0 or start > over:  # true just when it would end, it goes on
            if firing >= 0:
                found.append(_episode(labels, t_ms, pending, firing, over))
            pending = start
            firing = int(np.searchsorted(t_ms, t_ms[start] + for_ms))
            if firing >= end:
                found.append(_episode(labels, t_ms, pending, -1, end))
                firing = -1
                continue
        over = len(t_ms) if end == len(t_ms) else int(np.searchsorted(t_ms, t_ms[end] + keep_ms))
    if firing >= 0:
        found.append(_episode(labels, t_ms, pending, firing, over))
    return found


def _episode(labels: Labels, t_ms: np.ndarray, pending: int, firing: int, over: int) -> Episode:
    return Episode(
        labels,
        int(t_ms[pending]),
        None if firing < 0 else int(t_ms[firing]),
        None if over >= len(t_ms) else int(t_ms[over]),
    )
