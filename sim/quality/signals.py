"""Business signals: what users do about an answer, some time later; edits, escalations, complaints.

A signal is a thinning of wrong answers and, more rarely, of right ones, each delayed by a lognormal lag; it is counted
when it arrives, so it speaks of the past.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from sim.draws import Luck, who
from sim.records import Outcome


@dataclass(frozen=True)
class Signal:
    """What `sim.scenario.quality.Signal` says; the lag's median in seconds, *sigma* of its logarithm."""

    name: str
    if_wrong: float
    if_right: float
    median_s: float
    sigma: float


def given(signal: Signal, luck: Luck, rows: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return when (seconds) users give *signal* about their answers: of those among *rows* (ATTEMPT) who do.

    *wrong* says which answers are. A pure function: streams ``signal NAME`` (who, and how late).
    """
    answered = rows["outcome"] == Outcome.OK
    names = who(rows["request"])
    lot, late = luck.two(f"signal {signal.name}", names)
    does = answered & (lot < np.where(wrong == 1, signal.if_wrong, signal.if_right))
    lag_s = signal.median_s * np.exp(signal.sigma * special.ndtri(late[does]))
    return np.asarray(rows["finished_s"][does] + lag_s)


class Signals:
    """Counts signals as they arrive."""

    def __init__(self, signals: Sequence[Signal], seed: int) -> None:
        self.signals = tuple(signals)
        self._luck = Luck(seed)
        self._on_their_way: list[list[np.ndarray]] = [[] for _ in signals]
        self._arrived = np.zeros(len(signals), np.int64)

    def take(self, rows: np.ndarray, wrong: np.ndarray) -> None:
        """Let those who asked (*rows*: the deciding ATTEMPT of each) react in their own time."""
        for signal, late in zip(self.signals, self._on_their_way, strict=True):
            if len(due_s := given(signal, self._luck, rows, wrong)):
                late.append(due_s)

    def arrived(self, now_s: float) -> np.ndarray:
        """Return how many of each signal have arrived by *now_s* (int64); times must not go back."""
        for k, late in enumerate(self._on_their_way):
            due_s = np.concatenate(late) if late else np.zeros(0)
            there = due_s <= now_s
            self._arrived[k] += there.sum()
            late[:] = [due_s[~there]]
        return self._arrived

    def metrics(self, end_s: float) -> dict[str, float]:
        """Return how many of each signal had arrived by the end, *end_s*."""
        counts = self.arrived(end_s).tolist()
        return {f"signal.{signal.name}.count": float(n) for signal, n in zip(self.signals, counts, strict=True)}


def metric_names(names: Sequence[str]) -> set[str]:
    """Return the names that `Signals.metrics` gives for signals with these *names*."""
    return {f"signal.{name}.count" for name in names}
