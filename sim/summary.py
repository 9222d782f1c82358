"""One run in numbers: percentiles out of exact histograms, counts, and intervals over seeds.

Latencies are counted by the time their request was scheduled and from that time on (no coordinated omission).
Histogram bins are 1% wide, so a percentile is exact to 1% however many requests there were. Requests that timed
out or were unfinished count with the time they had waited; refused, failed and cancelled ones are errors only.
A request may take several attempts; percentiles and outcomes are of requests.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

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
    "attempts",
    "retries",
    "hedges",
    "preemptions",
    "steps",
)
GAUGES = ("kv_mean", "kv_max", "running_mean", "waiting_mean", "waiting_max")
RATES = (
    *("errors", "wrong_per_min_mean", "wrong_per_min_peak", "goodput_per_s", "throughput_tokens_per_s"),
    *("requests_per_s", "attempts_per_s", "amplification", "prefix_hit", "recomputed"),
)
MINUTE_S = 60.0
BY_MINUTE = ("requests", "ok", "wrong", "errors", "attempts")
"""What is counted by the minute: requests by when they were asked, attempts by when they were sent."""


def metric_names(cohorts: Sequence[str]) -> set[str]:
    """Return every metric that a run of a scenario with these *cohorts* measures."""
    stats = {f"{name}_{stat}" for name in LATENCIES for stat in ("mean", *QUANTILES)}
    by_cohort = {f"cohort.{cohort}.{name}" for cohort in cohorts for name in stats if not name.startswith("itl")}
    by_cohort |= {f"cohort.{cohort}.errors" for cohort in cohorts}
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
    lasted = min(width, duration_s / MINUTE_S)  # the last minute of a run may be a part of one
    metrics["wrong_per_min_peak"] = float(np.convolve(wrong, np.ones(width), "valid").max() / lasted)
    metrics["goodput_per_s"] = (metrics["ok"] - metrics["wrong"]) / duration_s
    metrics["requests_per_s"] = total / duration_s
    return metrics


def cohort_errors(outcomes: np.ndarray, cohorts: Sequence[str]) -> dict[str, float]:
    """Return the share of requests not answered by cohort; *outcomes* has a row a cohort, columns as `Outcome`."""
    return {f"cohort.{name}.errors": 1.0 - ratio(row[0], row.sum()) for name, row in zip(cohorts, outcomes)}


BUDGETS = {"errors": "errors", "wrong": "wrong_share"}
"""Which share an objective of that name is about."""


def budgets(
    metrics: Mapping[str, float], targets: Mapping[str, float], window_s: float, duration_s: float
) -> dict[str, float]:
    """Return the share of each error budget of *targets* (allowed shares over *window_s*) that a run has spent.

    Of all and by cohort: share / target x duration / window, as if the rest of the window had as many requests. A
    budget is spent by those whom it was promised to: a small cohort's may be gone when the whole one is hardly touched.
    """
    found = {}
    for name, share in BUDGETS.items():
        if target := targets.get(name):
            owned = [m for m in metrics if m.startswith("cohort.") and m.endswith(f".{share}")]
            for metric in [share, *owned] if share in metrics else owned:
                prefix = metric.removesuffix(share)
                found[f"{prefix}{name}_budget_spent"] = metrics[metric] / target * duration_s / window_s
    return found


def budget_names(cohorts: Sequence[str], targets: Collection[str]) -> set[str]:
    """Return the names that `budgets` gives for these *cohorts* and *targets*."""
    prefixes = ("", *(f"cohort.{cohort}." for cohort in cohorts))
    return {f"{prefix}{name}_budget_spent" for prefix in prefixes for name in BUDGETS if name in targets}


def traffic(totals: Mapping[str, float], requests: float, duration_s: float) -> dict[str, float]:
    """Return what clients and caches made of the *requests*.

    *totals*: attempts, retries and hedges sent; prompt tokens seen and found in a cache at first admissions
    (prompt_seen, prompt_cached); prompt tokens computed, and of these once more after a preemption
    (prompt_tokens, recomputed).
    """
    return {
        **{name: float(totals[name]) for name in ("attempts", "retries", "hedges")},
        "attempts_per_s": totals["attempts"] / duration_s,
        "amplification": ratio(totals["attempts"], requests),
        "prefix_hit": ratio(totals["prompt_cached"], totals["prompt_seen"]),
        "recomputed": ratio(totals["recomputed"], totals["prompt_tokens"]),
    }


def ratio(part: float, whole: float) -> float:
    """Return *part* over *whole*, or nan of nothing."""
    return float(part) / float(whole) if whole else math.nan


def in_window(
    histograms: Mapping[str, np.ndarray], metric: str, window: tuple[float, float], duration_s: float
) -> tuple[float, tuple[float, float]]:
    """Return *metric* of what was asked in a *window* (start and end, seconds), and the window that was counted.

    Counts are kept by the minute and latencies by 1/240 of the run: a window is widened to whole ones.
    Latencies are of all cohorts; the warm-up counts if the window reaches into it.
    """
    time, _, stat = metric.partition("_")
    counted = histograms.get(f"{time}_by_window")
    step_s = MINUTE_S if counted is None else float(histograms["window_s"])
    first = int(window[0] / step_s + 1e-9)
    last = max(first + 1, math.ceil(window[1] / step_s - 1e-9))
    exact = first * step_s, min(last * step_s, duration_s)
    if counted is not None:
        merged = counted[first:last].sum(axis=0, dtype=np.int64)
        return mean(merged) if stat == "mean" else percentile(merged, QUANTILES[stat]), exact
    n = {name: float(histograms[f"minute_{name}"][first:last].sum()) for name in BY_MINUTE}
    seconds = exact[1] - exact[0]
    values = {
        "errors": ratio(n["errors"], n["requests"]),
        "goodput_per_s": ratio(n["ok"] - n["wrong"], seconds),
        "requests_per_s": ratio(n["requests"], seconds),
        "attempts_per_s": ratio(n["attempts"], seconds),
    }
    return values[metric], exact


def parts_table(parts: np.ndarray, ttft: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean seconds by latency part of all requests, of the slowest 1% by TTFT, and of those near its median.

    Each (10,), and again under a name with ``_first`` for what fell before the first token. *parts* are sums by TTFT
    bin, shape (bins, 12): the ten, then preemption and fault stalls before the first token; *ttft* counts the bins.
    """
    below = np.cumsum(ttft)
    total = int(below[-1])
    table = {}
    for name, low, high in (("parts_all", 0.0, 1.0), ("parts_tail", 0.99, 1.0), ("parts_median", 0.45, 0.55)):
        chosen = np.clip(np.minimum(below, high * total) - np.maximum(below - ttft, low * total), 0.0, None)
        share = chosen / np.maximum(1, ttft)  # of each bin; those at the edges count in part
        means = (parts * share[:, None]).sum(axis=0) / (chosen.sum() or 1.0)
        table[name] = means[: len(PARTS)]
        at_token = PARTS.index("prefill_s") + 1
        table[f"{name}_first"] = np.concatenate([means[:at_token], [0.0, 0.0], means[len(PARTS) :]])
    return table


class Gauges:
    """Means and extremes over scrapes and replicas."""

    def __init__(self) -> None:
        self.seen = np.zeros((0, 4))  # of each scrape: replicas up, and over those the sums of KV use, running, waiting
        self.kv_max = 0.0
        self._new: list[np.ndarray] = []

    def add(self, gauges: np.ndarray) -> None:
        """Add scrapes: *gauges* (n, replicas)."""
        up = gauges["up"] == 1
        kv = np.where(up, gauges["kv_used"], 0.0)
        running, waiting = ((gauges[name] * up).sum(axis=1) for name in ("running", "waiting"))
        self._new.append(np.stack([up.sum(axis=1), kv.sum(axis=1), running, waiting], axis=1))
        self.kv_max = max(self.kv_max, float(kv.max(initial=0.0)))

    def beside(self, other: "Gauges") -> None:
        """Add what *other* replicas showed at the same scrapes."""
        self.seen, theirs = self.settled(), other.settled()
        self.seen = self.seen + theirs if len(self.seen) else theirs
        self.kv_max = max(self.kv_max, other.kv_max)

    def settled(self) -> np.ndarray:
        """Return `seen` with everything that was added."""
        self.seen, self._new = np.concatenate([self.seen, *self._new]), []
        return self.seen

    def metrics(self) -> dict[str, float]:
        """Return the metrics called `GAUGES`. A scrape at which no replica is up counts for nothing."""
        up, kv, running, waiting = (seen := self.settled())[seen[:, 0] > 0].T
        if not len(up):
            return {name: 0.0 if name.endswith("max") else math.nan for name in GAUGES}
        return {
            "kv_mean": float((kv / up).mean()),
            "kv_max": self.kv_max,
            "running_mean": float(running.mean()),
            "waiting_mean": float(waiting.mean()),
            "waiting_max": float(waiting.max()),
        }


SIGNED = frozenset({"wrong_ttft_correlation", "wrong_ttft_partial", "lead_s"})
"""The metrics, by their last word, that may be below 0: everything else is counted, timed or a share."""


SHARES = frozenset(
    {"kv_mean", "kv_max", "errors", "prefix_hit", "recomputed", "wrong_share", "bad", "task_success"}
    | {"sessions_wrong", "sessions_misrouted"}
)
"""The metrics, by their last word, that are shares, from 0 to 1; those that end in ``_share`` are, too."""
Scale = Literal["positive", "share", "signed"]


def scale_of(metric: str) -> Scale:
    """Return on which scale *metric* is: from 0 on, from 0 to 1, or both sides of 0."""
    name = metric.rpartition(".")[2]
    if name in SIGNED:
        return "signed"
    return "share" if name in SHARES or name.endswith("_share") else "positive"


def interval(values: Sequence[float], confidence: float = 0.95, scale: Scale = "positive") -> dict[str, Any]:
    """Return the median over seeds with its interval: Student-t below 10 seeds, else bootstrap percentiles.

    The Student-t interval is that of the mean, on the *scale* of what it is of: of logarithms, for what is counted or
    timed cannot be below 0 (`theory.chance.positive_interval`); of log-odds for a share (`share_interval`). Where a
    seed saw an end of the scale it is the plain one, cut there. What is signed has the plain one. Two seeds have none
    (it would be 12.7 times as wide as their spread), but a range, from the lower to the higher. With one seed there is
    nothing, nor with a few of which some are infinite (a service that never recovered).
    """
    known = np.array([value for value in values if not math.isnan(value)], float)
    low = high = estimate = math.nan
    if len(known):
        estimate = float(np.median(known))
    finite = bool(np.isfinite(known).all())
    if len(known) >= 10:
        method: Literal["linear", "inverted_cdf"] = "linear" if finite else "inverted_cdf"  # no mean of infinities
        draws = np.random.Generator(np.random.PCG64(0)).choice(known, (2000, len(known)))
        tail = (1.0 - confidence) / 2.0
        low, high = (float(x) for x in np.quantile(np.median(draws, axis=1), [tail, 1.0 - tail], method=method))
    elif len(known) == 2 and finite:
        estimate, low, high = float(known.mean()), float(known.min()), float(known.max())
    elif len(known) >= 2 and finite:
        estimate, low, high = _of_few(known, confidence, scale)
    return {"estimate": estimate, "low": low, "high": high, "values": [float(value) for value in values]}


def _of_few(known: np.ndarray, confidence: float, scale: Scale) -> tuple[float, float, float]:
    from sim.theory.chance import positive_interval, share_interval, student_interval

    least, most = float(known.min()), float(known.max())
    if scale == "signed" or least < 0.0:
        return student_interval(known, confidence)
    top = 1.0 if scale == "share" and most <= 1.0 else math.inf
    if least > 0.0 and most < top:
        return (share_interval if top == 1.0 else positive_interval)(known, confidence)
    estimate, low, high = student_interval(known, confidence)
    return estimate, max(0.0, low), min(top, high)


__all__ = [
    "BUDGETS",
    "BY_MINUTE",
    "MINUTE_S",
    "PARTS",
    "budget_names",
    "budgets",
    "cohort_errors",
    "counts",
    "edges_s",
    "in_window",
    "interval",
    "latencies",
    "mean",
    "metric_names",
    "parts_table",
    "percentile",
    "ratio",
    "scale_of",
    "traffic",
]
