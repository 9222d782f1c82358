"""One run in numbers: percentiles out of exact histograms, counts, and intervals over seeds.

Latencies are counted by the time their request was scheduled and from that time on (no coordinated omission).
Histogram bins are 1% wide, so a percentile is exact to 1% however many requests there were. Requests that timed
out or were unfinished count with the time they had waited; refused, failed and cancelled ones are errors only.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sim.records import PARTS, Outcome

BIN_LOW_S = 1e-5
BIN_RATIO = 1.01
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
LATENCIES = ("ttft", "e2e", "tpot", "queue", "itl")
COUNTS = (
    "requests",
    "ok",
    "rejected",
    "timed_out",
    "failed",
    "cancelled",
    "unfinished",
    "wrong",
    "preemptions",
    "steps",
)
GAUGES = ("kv_mean", "kv_max", "running_mean", "waiting_mean", "waiting_max")
RATES = ("errors", "wrong_per_min_mean", "wrong_per_min_peak", "goodput_per_s", "throughput_tokens_per_s")


def metric_names(cohorts: Sequence[str]) -> set[str]:
    """Return every metric that a run of a scenario with these *cohorts* measures."""
    stats = {f"{name}_{stat}" for name in LATENCIES for stat in ("mean", *QUANTILES)}
    by_cohort = {f"cohort.{cohort}.{name}" for cohort in cohorts for name in stats if not name.startswith("itl")}
    return stats | by_cohort | set(COUNTS) | set(GAUGES) | set(RATES)


def edges_s(bins: int) -> np.ndarray:
    """Return the lower edges of latency histogram bins, and the upper edge of the last: shape (bins + 1,), seconds."""
    return BIN_LOW_S * BIN_RATIO ** np.arange(bins + 1)


def percentile(counts: np.ndarray, quantile: float) -> float:
    """Return the *quantile* of a histogram (counts by bin) in seconds, or nan when it is empty."""
    total = int(counts.sum())
    if total == 0:
        return math.nan
    below = np.cumsum(counts)
    rank = quantile * (total - 1) + 0.5
    k = int(np.searchsorted(below, rank))
    inside = (rank - (below[k] - counts[k])) / counts[k]
    return float(BIN_LOW_S * BIN_RATIO ** (k + inside))


def mean(counts: np.ndarray) -> float:
    """Return the mean of a histogram in seconds, or nan when it is empty."""
    total = int(counts.sum())
    if total == 0:
        return math.nan
    middle = BIN_LOW_S * BIN_RATIO ** (np.arange(len(counts)) + 0.5)
    return float((counts * middle).sum() / total)


def latencies(histograms: Mapping[str, np.ndarray], cohorts: Sequence[str]) -> dict[str, float]:
    """Return mean and percentiles of every latency, of all requests and by cohort, in seconds."""
    metrics = {}
    for name in LATENCIES:
        counts = histograms[name]
        slices = {"": counts.sum(axis=0)}
        if name != "itl" and len(cohorts) > 1:
            slices |= {f"cohort.{cohort}.": counts[k] for k, cohort in enumerate(cohorts)}
        elif name != "itl":
            slices[f"cohort.{cohorts[0]}."] = slices[""]
        for prefix, counts_ in slices.items():
            metrics[f"{prefix}{name}_mean"] = mean(counts_)
            for stat, quantile in QUANTILES.items():
                metrics[f"{prefix}{name}_{stat}"] = percentile(counts_, quantile)
    return metrics


def counts(outcomes: Sequence[int], minutes: np.ndarray, duration_s: float) -> dict[str, float]:
    """Return how requests ended: *outcomes* in the order of `Outcome`, *minutes* of (requests, ok, wrong, errors)."""
    metrics = {outcome.name.lower(): float(n) for outcome, n in zip(Outcome, outcomes, strict=True)}
    total = float(sum(outcomes))
    wrong = minutes[:, 2]
    metrics["requests"] = total
    metrics["errors"] = 1.0 - metrics["ok"] / total if total else math.nan
    metrics["wrong"] = float(wrong.sum())
    metrics["wrong_per_min_mean"] = metrics["wrong"] / (duration_s / 60.0)
    # The peak hour, not the luckiest minute: the rate that a team would have to be sized for.
    width = max(1, min(60, len(wrong)))
    metrics["wrong_per_min_peak"] = float(np.convolve(wrong, np.ones(width), "valid").max() / width)
    metrics["goodput_per_s"] = (metrics["ok"] - metrics["wrong"]) / duration_s
    return metrics


def parts_table(parts: np.ndarray, ttft: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean seconds by latency part of all requests, of the slowest 1% by TTFT, and of those near its median.

    *parts* are sums by TTFT bin, shape (bins, 10); *ttft* the counts of the same bins.
    """
    below = np.cumsum(ttft)
    total = int(below[-1])
    table = {}
    for name, low, high in (("parts_all", 0.0, 1.0), ("parts_tail", 0.99, 1.0), ("parts_median", 0.45, 0.55)):
        chosen = np.clip(np.minimum(below, high * total) - np.maximum(below - ttft, low * total), 0.0, None)
        share = chosen / np.maximum(1, ttft)  # of each bin; those at the edges count in part
        table[name] = (parts * share[:, None]).sum(axis=0) / (chosen.sum() or 1.0)
    return table


def interval(values: Sequence[float], confidence: float = 0.95) -> dict[str, object]:
    """Return the median over seeds with its interval: Student-t below 10 seeds, else bootstrap percentiles.

    The Student-t interval is that of the mean; with one seed there is none.
    """
    known = np.array([value for value in values if not math.isnan(value)], float)
    low = high = estimate = math.nan
    if len(known):
        estimate = float(np.median(known))
    if len(known) >= 10:
        draws = np.random.Generator(np.random.PCG64(0)).choice(known, (2000, len(known)))
        tail = (1.0 - confidence) / 2.0
        low, high = (float(x) for x in np.quantile(np.median(draws, axis=1), [tail, 1.0 - tail]))
    elif len(known) >= 2:
        from scipy import stats

        estimate = float(known.mean())
        half = float(stats.t.ppf(0.5 + confidence / 2.0, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))
        low, high = estimate - half, estimate + half
        if known.min() >= 0.0:
            low = max(0.0, low)  # nothing that is counted or timed is below 0
    return {"estimate": estimate, "low": low, "high": high, "values": [float(value) for value in values]}


__all__ = ["PARTS", "counts", "edges_s", "interval", "latencies", "mean", "metric_names", "parts_table", "percentile"]
