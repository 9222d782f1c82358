"""The timeline: latency percentiles over arrival time, above the KV cache, what runs and what waits."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.report import happened, style, words
from sim.report.view import Point, View, calmest, merged_windows, worst

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sim.results import Member

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
    lines = "The band round the KV cache reaches from the emptiest replica to the fullest. "
    if view.seeds > 1:
        lines = (
            f"Latency is the {points[0].centre} over seeds, in a band from the lowest to the highest of them; the thin "
            f"line is P99 of one seed ({_number(points, seed)}), the one nearest the estimate at its worst, and "
            "the engines below are of that seed. The band round the KV cache is all replicas. "
        )
    shown = f"{len(points)} of {len(view.points)} points are shown." if len(points) < len(view.points) else ""
    caption = (
        "Latency percentiles by the time at which the user asked, on a logarithmic scale, above the state of the "
        f"engines at that time, where each scrape is held until the next. A gap: nobody asked, or nobody knows. "
        f"{lines}{shown}"
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
    labels = [point.label for point in points]
    shaded = [happened.spans(_of(point, seed).events(), view.duration_s) for point in points]
    handles = _handles(view, points, seed, any(span.kind == "fault" for spans in shaded for span in spans))
    rows = style.legend_rows([str(handle.get_label()) for handle in handles])
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(1.5, 1.5, 0.95, 0.95), widths=(1,) * len(points),
        head=rows * style.LEGEND_ROW + style.column_head(labels), gap=(0.22, 0.2),
    )  # fmt: skip
    step = merged_windows(points)
    unit_s, unit_name, ticks = style.time_scale(view.duration_s)
    for column, label, point, engines, spans in zip(axes.T, style.column_titles(labels), points, seen, shaded):
        for ax, metric in zip(column, ("ttft", "e2e")):
            _percentiles(ax, point, metric, step, unit_s, seed)
        _engines(column[2], column[3], engines, unit_s)
        column[0].set_title(label, size=10, weight="bold", loc="left", pad=6)
        column[-1].set_xlim(0, view.duration_s / unit_s)
        column[-1].set_xticks(ticks)
        column[-1].set_xlabel(unit_name)
        for ax in column if view.warmup_s else ():
            ax.axvspan(0, view.warmup_s / unit_s, color=style.SHADE, zorder=0, lw=0)
        happened.shade(column, spans, unit_s)
    _name_rows(axes)
    style.legend(figure, handles)
    return figure


def _of(point: Point, seed: int) -> "Member":
    return point.members[min(seed, len(point.members) - 1)]


def _number(points: list[Point], seed: int) -> str:
    """Return the number of the seed that is shown: of each column, where some were played less often than others."""
    return ", ".join(dict.fromkeys(str(_of(point, seed).seed) for point in points))


def _handles(view: View, points: list[Point], seed: int, broken: bool) -> list[Any]:
    """Return what the legend explains: with several seeds also which lines are of one, and which of all."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    number = f" (seed {_number(points, seed)})" if view.seeds > 1 else ""
    over = f", {points[0].centre} of {view.seeds} seeds" if view.seeds > 1 else ""
    handles: list[Any] = [
        Line2D([], [], color=colour, label=f"{name}{over if name == 'P99' else ''}")
        for name, colour in reversed(style.PERCENTILES.items())
    ]
    if view.seeds > 1:
        handles.append(Patch(color=style.PERCENTILES["P99"], alpha=0.15, lw=0, label="lowest to highest seed"))
        handles.append(Line2D([], [], color=style.PERCENTILES["P99"], lw=0.7, label=f"P99{number}"))
    gauges = (("KV cache", style.KV), ("running", style.RUNNING), ("waiting", style.WAITING))
    handles += [Line2D([], [], color=colour, lw=1.3, label=f"{name}{number}") for name, colour in gauges]
    if view.warmup_s:
        handles.append(Patch(color=style.SHADE, label="warm-up, not counted"))
    if broken:
        handles.append(Patch(color=happened.FAULT, label="something is broken"))
    return handles


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


def _percentiles(ax: "Axes", point: Point, metric: str, step: int, unit_s: float, seed: int) -> None:
    """Draw latency over time: what stands for all seeds, as in the table, and P99 of the one whose engines are shown.

    One seed alone would wander along the edge of the band: its worst moment is often the worst of all seeds.
    """
    t_s, rows = point.over_time(metric, FRACTIONS, step)
    t = t_s / unit_s
    for i, (name, colour) in reversed(list(enumerate(style.PERCENTILES.items()))):
        low, middle, high = over_seeds(rows[:, :, i], point.centre)
        if len(rows) > 1 and name != "P95":  # three bands on top of each other say nothing
            ax.fill_between(t, low, high, color=colour, alpha=0.15, lw=0)
        if len(rows) > 1 and name == "P99":
            style.line(ax, t, rows[min(seed, len(rows) - 1), :, i], color=colour, lw=0.7)
        style.line(ax, t, middle, color=colour)


def _engines(kv: "Axes", queue: "Axes", seen: Scrapes, unit_s: float) -> None:
    t = seen.t_s / unit_s
    for ax, (low, middle, high), colour in (
        (kv, seen.kv, style.KV),
        (queue, seen.running, style.RUNNING),
        (queue, seen.waiting, style.WAITING),
    ):
        style.held_band(ax, t, low, high, color=colour, alpha=0.15)
        style.held(ax, t, middle, color=colour, lw=1.3)


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
