"""What became of agents' tasks, in numbers."""

import math
from collections.abc import Sequence

import numpy as np

from sim.records import Outcome

ENDS = ("ok", "wrong", "failed", "unfinished")
"""Delivered and right; delivered and wrong, which nobody knows; given up; cut off by the end of the run."""
DONE = np.dtype(
    [
        ("cohort", "i4"),
        ("end", "i4"),  # index into ENDS
        ("begun_s", "f8"),  # when its first step was asked
        ("e2e_s", "f8"),  # until its last request had ended
        ("tokens", "i8"),  # prompts and answers of all its requests, each of the attempt that decided it
        ("calls", "i8"),  # requests, the verifier's among them
        ("harm", "i8"),  # irreversible actions that were wrong, or came after a silent error
    ]
)
STATISTICS = (
    *("tasks", *(f"task_{end}" for end in ENDS), "task_success"),
    *("task_e2e_mean", "task_e2e_p50", "task_e2e_p99", "task_tokens_mean", "task_calls_mean", "irreversible_wrong"),
)
_OUTCOME = {"ok": Outcome.OK, "wrong": Outcome.OK, "failed": Outcome.FAILED, "unfinished": Outcome.UNFINISHED}


class Tasks:
    """Counts tasks as they end, and the requests of which they were made."""

    def __init__(self, pools: int) -> None:
        self._done: list[tuple[int, int, float, float, int, int, int]] = []
        self._requests = np.zeros((pools, len(Outcome)), np.int64)
        self._ends = np.zeros((pools, len(Outcome)), np.int64)

    def asked(self, pool: int, outcome: int) -> None:
        """Note that a request of a task ended at *pool* with *outcome*."""
        self._requests[pool, outcome] += 1

    def ended(
        self, cohort: int, pool: int, end: str, begun_s: float, e2e_s: float, tokens: int, calls: int, harm: int
    ) -> None:
        """Note that a task whose first step went to *pool* came to its *end* (of `ENDS`); the rest as in `DONE`."""
        self._done.append((cohort, ENDS.index(end), begun_s, e2e_s, tokens, calls, harm))
        self._ends[pool, _OUTCOME[end]] += 1

    def instead_of_requests(self, counts: np.ndarray) -> np.ndarray:
        """Return *counts* of requests (pools, outcomes) with each task as one thing that somebody asked."""
        return counts - self._requests + self._ends

    def metrics(self, warmup_s: float, cohorts: Sequence[str]) -> dict[str, float]:
        """Return `STATISTICS` of all tasks, and by those of *cohorts* that have any.

        Counts and harm are of the whole run. The shares and means of what a task came to are of those that ended, and
        latencies (seconds) of those delivered that began after the warm-up.
        """
        done = np.array(self._done, DONE)
        found = _metrics(done, warmup_s)
        for k in np.unique(done["cohort"]).tolist():
            found |= {
                f"cohort.{cohorts[k]}.{name}": x for name, x in _metrics(done[done["cohort"] == k], warmup_s).items()
            }
        return found


def _metrics(done: np.ndarray, warmup_s: float) -> dict[str, float]:
    n = np.bincount(done["end"], minlength=len(ENDS))
    over = done[done["end"] != ENDS.index("unfinished")]
    e2e_s = over["e2e_s"][(over["end"] != ENDS.index("failed")) & (over["begun_s"] >= warmup_s)]
    p50, p99 = np.quantile(e2e_s, [0.5, 0.99]).tolist() if len(e2e_s) else (math.nan, math.nan)
    return {
        "tasks": float(len(done)),
        **{f"task_{end}": float(n[k]) for k, end in enumerate(ENDS)},
        "task_success": float(n[0] / len(over)) if len(over) else math.nan,
        "task_e2e_mean": float(e2e_s.mean()) if len(e2e_s) else math.nan,
        "task_e2e_p50": p50,
        "task_e2e_p99": p99,
        "task_tokens_mean": float(over["tokens"].mean()) if len(over) else math.nan,
        "task_calls_mean": float(over["calls"].mean()) if len(over) else math.nan,
        "irreversible_wrong": float(done["harm"].sum()),
    }


def metric_names(cohorts: Sequence[str]) -> set[str]:
    """Return the names that `Tasks.metrics` gives for a scenario in which *cohorts* are agents; none without any."""
    prefixes = ("", *(f"cohort.{name}." for name in cohorts)) if cohorts else ()
    return {f"{prefix}{name}" for prefix in prefixes for name in STATISTICS}
