"""What a report sees of a run: its points with their estimates, and percentiles out of histograms."""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.report import subject, words

if TYPE_CHECKING:
    from sim.results import Member, Run

FEWEST_IN_WINDOW = 200
"""Requests that a window should hold: its P99 then rests on two of them."""
ENOUGH_FOR_MEDIAN = 10
"""Seeds from which on `sim.summary.interval` estimates by their median; figures do as the table beside them."""
MOST_WINDOWS = 180
"""More would not be seen on a figure a hand wide."""


@dataclass(frozen=True)
class Estimate:
    """A headline figure over seeds: the estimate, its interval, and the value of each seed."""

    value: float
    low: float
    high: float
    values: tuple[float, ...]

    @property
    def is_range(self) -> bool:
        """Whether low and high are just the values of two seeds: these have no interval."""
        return sum(not math.isnan(value) for value in self.values) == 2


NOTHING = Estimate(math.nan, math.nan, math.nan, ())


@dataclass(frozen=True)
class Point:
    """One point of `vary`, or the whole run when nothing varies."""

    values: dict[str, Any]
    label: str  # "7.2 requests/s"; empty when nothing varies
    metrics: dict[str, Estimate]
    members: tuple["Member", ...]
    controls: tuple["Member", ...] = ()  # the same seeds without the faults, where they were played
    verdict: Mapping[str, Any] | None = None  # what became of it after the faults: `control` in summary.json

    def metric(self, name: str) -> Estimate:
        """Return the estimate of a metric; nan when the run has none."""
        return self.metrics.get(name, NOTHING)

    @cached_property
    def histograms(self) -> list[dict[str, np.ndarray]]:
        """The histograms of each seed; those by window without the outer bins that are empty."""
        with ThreadPoolExecutor(2) as pool:  # unpacking takes most of the time, and lets others run
            return list(pool.map(_unpack, self.members))

    @property
    def centre(self) -> str:
        """What stands for all seeds: their ``mean`` or, where there are enough, their ``median``."""
        return "median" if len(self.members) >= ENOUGH_FOR_MEDIAN else "mean"

    def quantiles(self, metric: str, fractions: np.ndarray) -> np.ndarray:
        """Return the seconds (seeds, fractions) below which those fractions of *metric* lie, over all cohorts."""
        rows = [quantiles(h["edges_s"], h[metric].sum(axis=0), fractions) for h in self.histograms]
        return np.array(rows).reshape(len(rows), len(fractions))

    def over_time(self, metric: str, fractions: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return window middles (windows,) and seconds (seeds, windows, fractions) of *metric*, by arrival.

        *step* neighbouring windows are merged into one.
        """
        name = f"{metric}_by_window"
        window_s = float(self.histograms[0]["window_s"])
        length = min(len(h[name]) for h in self.histograms)
        starts = np.arange(0, length, step)
        if length % step and len(starts) > 1:
            starts = starts[:-1]  # the last, shorter window joins the one before it
        rows = [
            quantiles(h[f"{name}_edges_s"], np.add.reduceat(h[name][:length], starts, axis=0), fractions)
            for h in self.histograms
        ]
        ends = np.append(starts[1:], length)
        return (starts + ends) / 2 * window_s, np.array(rows)

    def parts(self, which: str) -> np.ndarray:
        """Return the ten parts, mean seconds over seeds, of the ``all``, ``tail`` or ``median`` requests.

        With ``_first`` behind the name: as far as they fell before the first token.
        """
        return np.nanmean([h[f"parts_{which}"] for h in self.histograms], axis=0)

    def minutes(self, name: str) -> np.ndarray:
        """Return a per-minute counter (minutes,), the mean over seeds."""
        rows = [h[f"minute_{name}"] for h in self.histograms]
        length = min(len(row) for row in rows)
        return np.mean([row[:length] for row in rows], axis=0)


@dataclass(frozen=True)
class View:
    """A run, ready to be shown."""

    name: str
    title: str
    story: str
    kind: str  # simulated or measured
    duration_s: float
    warmup_s: float
    points: list[Point]
    uncalibrated: bool
    kv_note: str  # how the KV cache was set by hand; empty when it follows from memory
    assumptions: list[str]
    targets: Mapping[str, float] = field(default_factory=dict)  # of the SLO, by metric
    scenario: Any = None  # `sim.scenario.Scenario`, as it was played

    @property
    def heading(self) -> str:
        """The name of the scenario, and its title if it has one."""
        return self.name if self.title == self.name else f"{self.name}: {self.title}"

    @property
    def seeds(self) -> int:
        """The most seeds that any point was played with."""
        return max((len(point.members) for point in self.points), default=0)

    @cached_property
    def lead(self) -> tuple[str, ...]:
        """The metrics that it is about, where it is about right and wrong; they stand before all others."""
        return subject.leading(self.scenario, self.points) if self.scenario is not None else ()

    @property
    def small_print(self) -> str:
        """What has to stand under every figure and table: origin, seeds, and what the numbers rest on."""
        seeds = f"{self.seeds} seeds" if self.seeds != 1 else "1 seed"
        origin = f"{self.name}, {self.kind}, {seeds} of {words.lasting(self.duration_s)}"
        notes = [note for note in (self.kv_note, "uncalibrated" if self.uncalibrated else "") if note]
        notes = [note for note in notes if not any(note.lower() in text.lower() for text in self.assumptions)]
        return "  ·  ".join(text.rstrip(".") for text in [origin, *notes, *self.assumptions])

    def some_points(self, most: int) -> list[Point]:
        """Return at most *most* points: the first, the last, and evenly between them."""
        if len(self.points) <= most:
            return self.points
        return [self.points[round(i * (len(self.points) - 1) / (most - 1))] for i in range(most)]


def lowest(points: Sequence[Point], metric: str) -> Point:
    """Return the point at which *metric* is lowest."""
    return min(points, key=lambda p: _or(p.metric(metric).value, math.inf))


def highest(points: Sequence[Point], metric: str) -> Point:
    """Return the point at which *metric* is highest."""
    return max(points, key=lambda p: _or(p.metric(metric).value, -math.inf))


def calmest(points: Sequence[Point]) -> Point:
    """Return the point with the lowest P99 of TTFT."""
    return lowest(points, "ttft_p99")


def worst(points: Sequence[Point]) -> Point:
    """Return the point with the highest P99 of TTFT."""
    return highest(points, "ttft_p99")


def view(run: "Run") -> View:
    """Return what a report sees of *run*; asked again about the same run, the same."""
    if id(run) not in _latest:
        _latest.clear()
        _latest[id(run)] = run, _view(run)
    return _latest[id(run)][1]


_latest: dict[int, tuple["Run", View]] = {}  # table, figures and page look one after the other, and unpacking is slow


def _view(run: "Run") -> View:
    scenario, summary = run.scenario, run.summary
    points = []
    for entry in summary["points"]:
        values = dict(entry["point"])
        members, controls = (tuple(m for m in of if dict(m.point) == values) for of in (run.members, run.controls))
        metrics = {name: _estimate(e) for name, e in entry["metrics"].items()}
        verdict = entry.get("control")
        points.append(Point(values, words.point_name(values), metrics, members, controls, verdict))
    return View(
        name=scenario.name,
        title=scenario.title or scenario.name,
        story=scenario.story.strip(),
        kind=run.info.get("kind", "simulated"),
        duration_s=scenario.duration,
        warmup_s=scenario.warmup,
        points=points,
        uncalibrated=bool(summary.get("uncalibrated")),
        kv_note=_kv_note(scenario) if summary.get("kv_override") else "",
        assumptions=list(summary.get("assumptions", ())),
        targets=scenario.slo.targets,
        scenario=scenario,
    )


def _unpack(member: "Member") -> dict[str, np.ndarray]:
    """Return the histograms of one seed; of many hundred bins by window most are empty, and seventy seeds are a lot."""
    arrays = dict(member.histograms())
    for name in [name for name in arrays if name.endswith("_by_window")]:
        used = np.flatnonzero(arrays[name].any(axis=0))
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        arrays[name] = arrays[name][:, low:high].astype(np.int32)
        arrays[f"{name}_edges_s"] = arrays["edges_s"][low : high + 1]
    return arrays


def quantiles(edges_s: np.ndarray, counts: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Return the values (..., fractions) below which those fractions of the *counts* (..., bins) lie.

    Interpolates geometrically inside a bin of ``edges_s`` (bins + 1), so that it errs by at most the width of one
    bin; nan where nothing was counted.
    """
    cumulative = np.cumsum(counts, axis=-1, dtype=float)
    total = cumulative[..., -1:]
    target = fractions * (total - 1) + 0.5  # the rank, as in `sim.summary.percentile`
    bins = np.stack([(cumulative < target[..., i : i + 1]).sum(axis=-1) for i in range(len(fractions))], axis=-1)
    bins = np.minimum(bins, counts.shape[-1] - 1)
    inside = np.take_along_axis(np.asarray(counts, dtype=float), bins, axis=-1)
    before = np.take_along_axis(cumulative, bins, axis=-1) - inside
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.clip((target - before) / inside, 0, 1)
    low, high = edges_s[bins], edges_s[bins + 1]
    return np.where(total > 0, low * (high / low) ** share, np.nan)


def merged_windows(points: Sequence[Point]) -> int:
    """Return how many neighbouring windows to merge, the same at all *points*: enough for a P99, few enough to see."""
    return max(_merged_windows(point.histograms[0]["ttft_by_window"]) for point in points)


def _merged_windows(counts: np.ndarray) -> int:
    total = counts.sum(axis=1, dtype=np.int64)
    in_window = float(np.median(total) or total.mean()) if len(counts) else 0.0  # with few users most windows are empty
    for_p99 = math.ceil(FEWEST_IN_WINDOW / in_window) if in_window > 0 else 1
    return max(1, math.ceil(len(counts) / MOST_WINDOWS), min(for_p99, len(counts) // 12))


def _estimate(entry: Mapping[str, Any]) -> Estimate:
    value, low, high = (words.to_float(entry.get(key)) for key in ("estimate", "low", "high"))
    return Estimate(value, low, high, tuple(words.to_float(v) for v in entry.get("values", ())))


def _or(value: float, other: float) -> float:
    return value if math.isfinite(value) else other


def _kv_note(scenario: Any) -> str:
    set_by_hand = {name: pool.kv_blocks for name, pool in scenario.fleet.pools.items() if pool.kv_blocks is not None}
    if len(scenario.fleet.pools) == 1:
        return f"KV cache set by hand to {next(iter(set_by_hand.values()), 0):,} blocks"
    return "KV cache set by hand: " + words.listing(
        [f"{name} {blocks:,} blocks" for name, blocks in set_by_hand.items()]
    )
