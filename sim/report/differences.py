"""Whether two runs differ by more than their noise: every headline figure, its gap, and an interval round the gap.

The noise of five repeats or more is their own spread. With fewer it is that of one run as well: blocks of a sixth
of its time are drawn again and again, the same in A and B, so that what happens at the same time in both cancels
(a circular block bootstrap; Politis & Romano 1992), and the larger of the two counts. Two repeats alone say too little:
where they cannot be cut into blocks either, the noise is not known. An interval is Student's, at 95%
for all figures of a comparison together (Bonferroni): of twenty pairs of equals, at most one is said to differ.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.records import Outcome
from sim.report import words
from sim.report.view import Point, quantiles
from sim.summary import MINUTE_S, QUANTILES, edges_s

if TYPE_CHECKING:
    from sim.results import Member
    from sim.scenario import Scenario

LATENCIES = tuple(f"{name}_{stat}" for name in ("ttft", "e2e", "tpot") for stat in ("p50", "p95", "p99"))
SHARES = ("errors", "preemptions_per_request")
RATES = ("requests_per_s", "goodput_per_s", "throughput_tokens_per_s")
METRICS = (*LATENCIES, *SHARES, *RATES)

CONFIDENCE = 0.95
REPEATS = 5
"""From so many repeats on their spread alone is the noise: the spread of fewer is itself too uncertain."""
BLOCKS = 6
"""Of one run. Near saturation a bad stretch lasts minutes, and shorter blocks take it for several: with sixteen, 7 of
30 pairs of equal ten-minute runs near a KV cliff were said to differ; with six, none of 60 (benchmarks/equals.py)."""
FEWEST_WINDOWS = 8
LEAST_FREEDOM = 2
"""Degrees of freedom below which Student's interval says nothing: two repeats have one, and it is 12.7 standard errors
wide, hundreds for all figures together."""
DRAWS = 400
_COLUMNS = ["scheduled_s", "first_token_s", "finished_s", "output_tokens", "outcome", "wrong", "preemptions", "last"]


@dataclass(frozen=True)
class Difference:
    """One figure of A and of B, B minus A with its interval, and what follows."""

    metric: str
    a: float
    b: float
    low: float
    high: float
    differs: bool
    noise: str
    """What the interval rests on: repeats, windows, both, or nothing (then nobody can say whether it differs)."""

    @property
    def gap(self) -> float:
        """B minus A."""
        return self.b - self.a

    @property
    def share(self) -> float:
        """The gap as a share of A; nan when A is 0."""
        return self.gap / self.a if self.a else math.nan


def differences(
    a: Point, b: Point, scenarios: "tuple[Scenario, Scenario]", tolerance: float, comparisons: int
) -> list[Difference]:
    """Return the differences of two points, of *comparisons* figures that are compared in all.

    A figure differs if the interval leaves out 0 and the gap is more than *tolerance* of the larger of both.
    """
    infos = [[member.info["metrics"] for member in point.members] for point in (a, b)]
    values = {m: (_per_repeat(infos[0], m), _per_repeat(infos[1], m)) for m in METRICS}
    known = {m: pair for m, pair in values.items() if all(np.isfinite(v).any() for v in pair)}
    few = min(len(a.members), len(b.members)) < REPEATS
    spread = _resampled(a, b, scenarios) if few else {}
    return [
        _difference(metric, a, b, pair, spread.get(metric), tolerance, comparisons) for metric, pair in known.items()
    ]


def _per_repeat(infos: Sequence[Mapping[str, float | None]], metric: str) -> np.ndarray:
    """Return the value of *metric* in each repeat; nan where it has none."""
    if metric != "preemptions_per_request":
        return np.array([words.to_float(metrics.get(metric)) for metrics in infos])
    counts = [
        (words.to_float(metrics.get("preemptions")), words.to_float(metrics.get("requests"))) for metrics in infos
    ]
    return np.array([preemptions / (requests or math.nan) for preemptions, requests in counts])


def _difference(
    metric: str,
    a: Point,
    b: Point,
    pair: tuple[np.ndarray, np.ndarray],
    resampled: tuple[float, int] | None,
    tolerance: float,
    comparisons: int,
) -> Difference:
    from scipy import stats

    first, second = (float(np.nanmean(values)) for values in pair)
    seeds = [[member.seed for member in point.members] for point in (a, b)]
    error, freedom, noise = _over_repeats(*pair, *seeds)
    if resampled is not None and (not noise or resampled[0] >= error):
        error, freedom = resampled
        noise = "windows"
    elif freedom < LEAST_FREEDOM:
        freedom, noise = (resampled[1], noise) if resampled is not None else (freedom, "")
    if not noise or not math.isfinite(second - first):
        return Difference(metric, first, second, math.nan, math.nan, False, "")
    half = float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / comparisons, freedom)) * error if error else 0.0
    gap = second - first
    differs = abs(gap) > half and abs(gap) > tolerance * max(abs(first), abs(second))
    return Difference(metric, first, second, gap - half, gap + half, differs, noise)


def _over_repeats(
    a: np.ndarray, b: np.ndarray, seeds_a: Sequence[int], seeds_b: Sequence[int]
) -> tuple[float, float, str]:
    """Return the standard error of the gap, its degrees of freedom, and whether it has any.

    Repeats with the same seeds met the same users and are compared seed by seed; others by Welch.
    """
    paired = sorted(seeds_a) == sorted(seeds_b) and len(set(seeds_a)) == len(seeds_a)
    if paired:
        gaps = b[np.argsort(seeds_b)] - a[np.argsort(seeds_a)]
        gaps = gaps[np.isfinite(gaps)]
        if len(gaps) < 2:
            return 0.0, 1.0, ""
        return float(gaps.std(ddof=1) / math.sqrt(len(gaps))), len(gaps) - 1.0, "repeats, seed by seed"
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if min(len(a), len(b)) < 2:
        return 0.0, 1.0, ""
    parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    total = sum(parts)
    below = parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1)
    return math.sqrt(total), float(total**2 / below) if below else float(len(a) + len(b) - 2), "repeats"


# --- one run, drawn again -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Windows:
    """A run cut into windows after its warm-up: counts of latencies by bin, and of what else is counted, by window."""

    latencies: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    length_s: float

    def drawn(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Return every metric (draws,) when the windows are drawn again; *draws* (draws, blocks) are in [0, 1)."""
        found: dict[str, np.ndarray] = {}
        fractions = np.array([QUANTILES[stat] for stat in ("p50", "p95", "p99")])
        for name, counts in self.latencies.items():
            used = np.flatnonzero(counts.any(axis=0))
            if not len(used):
                continue
            low, high = int(used[0]), int(used[-1]) + 1
            merged = _weights(draws, len(counts)) @ counts[:, low:high].astype(float)
            values = quantiles(edges_s(counts.shape[1])[low : high + 1], merged, fractions)
            found |= {f"{name}_{stat}": values[:, i] for i, stat in enumerate(("p50", "p95", "p99"))}
        weights = _weights(draws, len(self.counts["requests"]))
        sums = {name: weights @ counts for name, counts in self.counts.items()}
        seconds = weights.sum(axis=1) * self.length_s
        with np.errstate(divide="ignore", invalid="ignore"):
            found["errors"] = sums["errors"] / sums["requests"]
            found["requests_per_s"] = sums["requests"] / seconds
            found["goodput_per_s"] = sums["good"] / seconds
            if "tokens" in sums:
                found["throughput_tokens_per_s"] = sums["tokens"] / seconds
                found["preemptions_per_request"] = sums["preemptions"] / sums["requests"]
        return found


def _resampled(a: Point, b: Point, scenarios: "tuple[Scenario, Scenario]") -> dict[str, tuple[float, int]]:
    """Return the standard error of each gap when blocks of windows are drawn again, and its degrees of freedom."""
    cut = [[_windows(member, scenario) for member in point.members] for point, scenario in zip((a, b), scenarios)]
    if not cut[0] or not cut[1] or any(one is None for side in cut for one in side):
        return {}
    draws = np.random.Generator(np.random.PCG64(0)).random((DRAWS, BLOCKS))
    rows = [[one.drawn(draws) for one in side if one is not None] for side in cut]
    found = {}
    for metric in METRICS:
        sides = [[row[metric] for row in side if metric in row] for side in rows]
        if any(len(values) < len(side) for values, side in zip(sides, rows)):
            continue
        gaps = np.mean(sides[1], axis=0) - np.mean(sides[0], axis=0)
        gaps = gaps[np.isfinite(gaps)]
        if len(gaps) >= DRAWS // 2:
            found[metric] = float(gaps.std(ddof=1)), BLOCKS - 1
    return found


def _weights(draws: np.ndarray, windows: int) -> np.ndarray:
    """Return how often each window was drawn (draws, windows), in blocks that go on at the beginning."""
    length = max(1, math.ceil(windows / BLOCKS))
    starts = np.floor(draws * windows).astype(int)
    at = (starts[:, :, None] + np.arange(length)) % windows
    found = np.zeros((len(draws), windows))
    np.add.at(found, (np.arange(len(draws))[:, None, None], at), 1.0)
    return found


def _windows(member: "Member", scenario: "Scenario") -> _Windows | None:
    """Return a repeat cut into windows, or None when it is too short; tokens and TPOT only where rows were kept."""
    histograms = member.histograms()
    window_s = float(histograms["window_s"])
    first = math.ceil(scenario.warmup / window_s - 1e-9)
    latencies = {name: histograms[f"{name}_by_window"][first:] for name in ("ttft", "e2e")}
    windows = len(latencies["ttft"])
    if windows < FEWEST_WINDOWS:
        return None
    if scenario.rows == "all" and (member.path / "attempts.parquet").exists():
        counts, tpot = _from_rows(member, window_s, first, windows, latencies["ttft"].shape[1])
        return _Windows({**latencies, "tpot": tpot}, counts, window_s)
    skipped = math.ceil(scenario.warmup / MINUTE_S - 1e-9)
    minutes = {
        name: histograms[f"minute_{name}"][skipped:].astype(float) for name in ("requests", "errors", "ok", "wrong")
    }
    if len(minutes["requests"]) < FEWEST_WINDOWS:
        return None
    counts = {**minutes, "good": minutes["ok"] - minutes["wrong"]}
    return _Windows(latencies, counts, MINUTE_S)


def _from_rows(
    member: "Member", window_s: float, first: int, windows: int, bins: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return what rows tell by window of asking: counts (windows,) and TPOT by bin (windows, bins)."""
    table = member.attempts(_COLUMNS)
    rows = {name: table[name].to_numpy() for name in _COLUMNS}
    at = np.floor(rows["scheduled_s"] / window_s).astype(int) - first
    inside = (at >= 0) & (at < windows)
    rows, at = {name: values[inside] for name, values in rows.items()}, at[inside]

    def counted(of: np.ndarray | None = None, where: np.ndarray | None = None) -> np.ndarray:
        chosen = np.ones(len(at), bool) if where is None else where
        return np.bincount(at[chosen], None if of is None else of[chosen].astype(float), minlength=windows).astype(
            float
        )

    last = rows["last"] == 1
    ok = last & (rows["outcome"] == Outcome.OK)
    counts = {
        "requests": counted(where=last),
        "errors": counted(where=last & ~ok),
        "good": counted(where=ok & (rows["wrong"] == 0)),
        "tokens": counted(rows["output_tokens"]),
        "preemptions": counted(rows["preemptions"]),
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot_s = (rows["finished_s"] - rows["first_token_s"]) / (rows["output_tokens"] - 1)
    timed = ok & (rows["output_tokens"] > 1) & np.isfinite(tpot_s)
    place = np.clip(np.searchsorted(edges_s(bins), tpot_s[timed], side="right") - 1, 0, bins - 1)
    tpot = np.zeros((windows, bins), np.int32)
    np.add.at(tpot, (at[timed], place), 1)
    return counts, tpot
