"""The timeline: latency percentiles over arrival time, above the KV cache, what runs and what waits."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sim.report import happened, style, words
from sim.report.view import Point, View, calmest, merged_windows, worst

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRACTIONS = np.array([0.5, 0.95, 0.99])
MOST_COLUMNS = 4
NOTICED_KV = 0.1
"""Difference in the mean share of KV blocks in use from which on the title speaks of it."""
MOST_SAMPLES = 360
"""Scrapes on one line; more are merged into their mean, with a band over all of them."""


@dataclass(frozen=True)
class Scrapes:
    """What the scrapes of a point say: times (n,), and lowest, mean and highest (3, n) of merged scrapes."""

    t_s: np.ndarray
    kv: np.ndarray  # fraction of blocks in use: mean over replicas, lowest and highest of any replica
    running: np.ndarray  # sequences, all replicas together
    waiting: np.ndarray


def plate(view: View) -> style.Plate | None:
    """Return the timeline of a run; None when nobody got a token."""
    points = [p for p in view.some_points(MOST_COLUMNS) if p.members and p.histograms[0]["ttft_by_window"].any()]
    if not points:
        return None
    seed = typical(worst(points))
    seen = [scrapes(point, min(seed, len(point.members) - 1)) for point in points]
    title = _title(view, points, seen, seed)
    lines = (
        f"Lines are one seed ({points[0].members[seed].seed}), the one whose TTFT P99 is nearest the estimate at its "
        "worst; bands are all seeds (P50 and P99), and all replicas (KV cache). "
        if view.seeds > 1
        else "The band round the KV cache reaches from the emptiest replica to the fullest. "
    )
    shown = f"{len(points)} of {len(view.points)} points are shown." if len(points) < len(view.points) else ""
    caption = (
        "Latency percentiles by the time at which the user asked, on a logarithmic scale, above the state of the "
        f"engines at that time. {lines}{shown}"
    )
    return style.Plate("timeline", "Over time", title, caption.strip(), partial(_draw, view, points, seen, seed, title))


def typical(point: Point) -> int:
    """Return which seed (its place) has the TTFT P99 nearest the estimate: the one to look at when only one fits."""
    estimate = point.metric("ttft_p99")
    distance = np.abs(np.array(estimate.values) - estimate.value)
    return int(np.nanargmin(distance)) if np.isfinite(distance).any() else 0


def _title(view: View, points: list[Point], seen: list[Scrapes], seed: int) -> str:
    if len(points) > 1:
        two = (calmest(points), worst(points))
        p99 = [words.seconds(p.metric("ttft_p99").value, 2) for p in two]
        if p99[0] == p99[1]:
            return f"TTFT P99 is about {p99[0]} at every point, and half of all requests wait {_medians(points)}"
        kv = [p.metric("kv_mean").value for p in two]
        if not abs(kv[1] - kv[0]) >= NOTICED_KV:
            p50 = [words.seconds(p.metric("ttft_p50").value, 2) for p in two]
            return (
                f"TTFT P99 is {p99[0]} {words.place(two[0].label)} and {p99[1]} {words.place(two[1].label)}; "
                f"P50 is {p50[0]} and {p50[1]}"
            )
        full = [words.percent(value) for value in kv]
        return (
            f"TTFT P99 is {p99[0]} {words.place(two[0].label)}, where the KV cache is {full[0]} full on average, "
            f"and {p99[1]} {words.place(two[1].label)}, where it is {full[1]} full"
        )
    t_s, rows = points[0].over_time("ttft", FRACTIONS, merged_windows(points))
    p99_s = np.where(t_s >= view.warmup_s, rows[seed, :, 2], np.nan)
    if not np.isfinite(p99_s).any():
        return "Latency and the state of the engines over time"
    at_s, width_s = t_s[np.nanargmax(p99_s)], t_s[-1] / len(t_s)
    then = np.abs(seen[0].t_s - at_s) <= width_s
    most = float(np.max(seen[0].kv[2][then])) if then.any() else np.nan
    kv_then = f", with the KV cache up to {words.percent(most)} full" if np.isfinite(most) else ""
    return (
        f"TTFT P99 is {words.seconds(points[0].metric('ttft_p99').value, 2)} over the run and "
        f"{words.seconds(np.nanmax(p99_s), 2)} at its worst, around {words.moment(at_s, view.duration_s)}{kv_then}"
    )


def _medians(points: list[Point]) -> str:
    p50 = sorted(p.metric("ttft_p50").value for p in points)
    low, high = words.seconds(p50[0], 2), words.seconds(p50[-1], 2)
    return f"less than {high}" if low == high else f"from {low} to {high}"


def _draw(view: View, points: list[Point], seen: list[Scrapes], seed: int, title: str) -> "Figure":
    from matplotlib.patches import Patch

    labels = [point.label for point in points]
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(1.5, 1.5, 0.95, 0.95), widths=(1,) * len(points),
        head=style.LEGEND_ROW + style.column_head(labels), gap=(0.22, 0.2),
    )  # fmt: skip
    step = merged_windows(points)
    unit_s, unit_name, ticks = style.time_scale(view.duration_s)
    broken = False
    for column, label, point, engines in zip(axes.T, style.column_titles(labels), points, seen):
        for ax, metric in zip(column, ("ttft", "e2e")):
            _percentiles(ax, point.over_time(metric, FRACTIONS, step), unit_s, min(seed, len(point.members) - 1))
        _engines(column[2], column[3], engines, unit_s)
        column[0].set_title(label, size=10, weight="bold", loc="left", pad=6)
        column[-1].set_xlim(0, view.duration_s / unit_s)
        column[-1].set_xticks(ticks)
        column[-1].set_xlabel(unit_name)
        for ax in column if view.warmup_s else ():
            ax.axvspan(0, view.warmup_s / unit_s, color=style.SHADE, zorder=0, lw=0)
        events = point.members[min(seed, len(point.members) - 1)].events()
        broken |= happened.shade(column, happened.spans(events, view.duration_s), unit_s)
    _name_rows(axes)
    handles = [handle for row in (0, 2, 3) for handle in axes[row, 0].get_legend_handles_labels()[0]]
    if view.warmup_s:
        handles.append(Patch(color=style.SHADE, label="warm-up, not counted"))
    if broken:
        handles.append(Patch(color=happened.FAULT, label="something is broken"))
    style.legend(figure, handles)
    return figure


def _name_rows(axes: np.ndarray) -> None:
    for ax, name in zip(axes[:, 0], ("time to first token", "end to end", "KV cache in use", "sequences")):
        ax.set_ylabel(name)
    for ax in axes[:2, 0]:
        ax.set_yscale("log")
        style.log_seconds(ax.yaxis)
    style.percent_axis(axes[2, 0].yaxis)
    axes[2, 0].set_ylim(0, 1.04)
    axes[2, 0].set_yticks([0, 0.5, 1])
    style.from_zero(axes[3])
    style.count_axis(axes[3, 0].yaxis)


def _percentiles(ax: "Axes", over_time: tuple[np.ndarray, np.ndarray], unit_s: float, seed: int) -> None:
    t_s, rows = over_time
    for i, (name, colour) in reversed(list(enumerate(style.PERCENTILES.items()))):
        low, _, high = over_seeds(rows[:, :, i])
        if len(rows) > 1 and name != "P95":  # three bands on top of each other say nothing
            ax.fill_between(t_s / unit_s, low, high, color=colour, alpha=0.15, lw=0)
        ax.plot(t_s / unit_s, rows[seed, :, i], color=colour, label=name)


def _engines(kv: "Axes", queue: "Axes", seen: Scrapes, unit_s: float) -> None:
    t = seen.t_s / unit_s
    for ax, (low, middle, high), colour, name in (
        (kv, seen.kv, style.KV, "KV cache"),
        (queue, seen.running, style.RUNNING, "running"),
        (queue, seen.waiting, style.WAITING, "waiting"),
    ):
        ax.fill_between(t, low, high, color=colour, alpha=0.15, lw=0)
        ax.plot(t, middle, color=colour, label=name, lw=1.3)


def over_seeds(rows: np.ndarray, centre: str = "median") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lowest, *centre* (median or mean) and highest over the first axis without nan; nan if none is left."""
    empty = np.isnan(rows).all(axis=0)
    filled = np.where(empty, 0.0, rows)
    middle = np.nanmedian(filled, axis=0) if centre == "median" else np.nanmean(filled, axis=0)
    low, high = np.nanmin(filled, axis=0), np.nanmax(filled, axis=0)
    return tuple(np.where(empty, np.nan, values) for values in (low, middle, high))  # type: ignore[return-value]


def scrapes(point: Point, seed: int) -> Scrapes:
    """Return the scraped state of the engines in one seed, merged to at most `MOST_SAMPLES` times."""
    table = point.members[seed].series()
    t_s, at = np.unique(table["t_s"].to_numpy(), return_inverse=True)
    starts = np.arange(0, len(t_s), -(-len(t_s) // MOST_SAMPLES) or 1)

    def column(name: str) -> np.ndarray:
        return np.asarray(table[f"vllm:{name}"].to_numpy(), dtype=float)

    used, replicas = column("kv_cache_usage_perc"), np.bincount(at, minlength=len(t_s))
    low, high = np.full(len(t_s), np.inf), np.full(len(t_s), -np.inf)
    with np.errstate(invalid="ignore"):  # where a measured run could not ask the engines
        np.minimum.at(low, at, used)
        np.maximum.at(high, at, used)
    running, waiting = (np.bincount(at, column(f"num_requests_{name}"), len(t_s)) for name in ("running", "waiting"))
    return Scrapes(
        t_s=t_s[starts],
        kv=_merged(low, np.bincount(at, used, len(t_s)) / replicas, high, starts),
        running=_merged(running, running, running, starts),
        waiting=_merged(waiting, waiting, waiting, starts),
    )


def _merged(low: np.ndarray, middle: np.ndarray, high: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return lowest, mean and highest (3, n) of neighbouring scrapes, merged from each of *starts* to the next."""
    sizes = np.diff(np.append(starts, len(middle)))
    return np.array(
        [np.minimum.reduceat(low, starts), np.add.reduceat(middle, starts) / sizes, np.maximum.reduceat(high, starts)]
    )
