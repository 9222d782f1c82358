"""STABLE, BACKLOGGED or OVERLOADED: whether a run would have gone on like this."""

import numpy as np

from sim import summary
from sim.planning.trials import Played

GROWING = 0.01
"""Waiting that grows by more than so many seconds a second: more comes than is served."""
LOST = 0.01
"""Share of requests that are refused, time out or are left over, from which on the fleet does not keep up."""
STANDING = 0.1
"""Share of the median request's time that is spent in the queue, from which on the queue is a standing one."""

STABLE, BACKLOGGED, OVERLOADED = "STABLE", "BACKLOGGED", "OVERLOADED"


def label(played: Played) -> str:
    """Return what became of the queue of one run.

    OVERLOADED: the time to the first token grows through the second half of the run, or requests are given up; the
    numbers depend on how long it lasted. BACKLOGGED: even the median request queues, but the queue does not grow.
    """
    if played.overloaded:
        return OVERLOADED
    metrics = played.metrics
    lost = sum(metrics[name] for name in ("rejected", "timed_out", "unfinished"))
    if lost > LOST * max(1.0, metrics["requests"]) or growth(played) > GROWING:
        return OVERLOADED
    return BACKLOGGED if metrics["queue_p50"] > STANDING * metrics["e2e_p50"] else STABLE


def growth(played: Played) -> float:
    """Return by how many seconds the mean time to the first token grows in each second of the run's second half.

    In a queue that overflows, who comes dt later waits dt x (arrivals / capacity - 1) longer. Least squares over
    windows of 1/240 of the run; 0 where there are too few.
    """
    counted = played.histograms["ttft_by_window"]
    width_s = float(played.histograms["window_s"])
    means = [(k, summary.mean(one)) for k, one in enumerate(counted) if k >= len(counted) // 2 and one.sum()]
    if len(means) < 8:
        return 0.0
    k, mean = np.array(means).T
    return float(np.polyfit(k * width_s, mean, 1)[0])
