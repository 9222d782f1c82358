"""The distribution: which share of requests waits longer than x, down to one in a thousand."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sim.report import style, words
from sim.report.timeline import over_seeds
from sim.report.view import Point, View, calmest, worst

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SLOWER = np.geomspace(1, 1e-3, 160)
"""Shares of requests that are slower: the curve is drawn at these."""
MOST_CURVES = 6


def plate(view: View) -> style.Plate | None:
    """Return the distribution of TTFT and end-to-end latency; None when nothing was counted."""
    points = [p for p in view.some_points(MOST_CURVES) if p.members and p.histograms[0]["ttft"].sum() > 0]
    if not points:
        return None
    point = worst(points)
    p50, p99 = (words.seconds(point.metric(f"ttft_{p}").value, 2) for p in ("p50", "p99"))
    title = words.at(
        point.label, f"one request in a hundred waits {p99} or longer for its first token; half wait less than {p50}"
    )
    over = f" Curves are the {point.centre} over {view.seeds} seeds, bands all of them." if view.seeds > 1 else ""
    caption = (
        "Share of requests that took longer than a time, both axes logarithmic. Follow the line at 50% to read the "
        f"median and the one at 1% to read P99. Who timed out, or waited when the run ended, "
        f"counts with the time waited.{over}"
    )
    return style.Plate(
        "distribution",
        "All requests, from the fastest to the slowest",
        title,
        caption,
        partial(_draw, view, points, title),
    )


def colours(points: list[Point]) -> list[str]:
    """Return a colour for each point: blue to orange along a sweep over numbers, else as different as can be."""
    numeric = all(isinstance(value, int | float) for point in points for value in point.values.values())
    if len(points) <= 2 or not numeric:
        return list(style.SERIES[: len(points)])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["plasma"](x)) for x in np.linspace(0.02, 0.68, len(points))]


def _draw(view: View, points: list[Point], title: str) -> "Figure":
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(3.3,), widths=(1, 1), sharex=False, head=0.36
    )
    for ax, metric in zip(axes[0], ("ttft", "e2e")):
        for point, colour in zip(points, colours(points)):
            band = view.seeds > 1 and (len(points) <= 3 or point in (calmest(points), worst(points)))
            _curve(ax, point, metric, colour, band)
        _marks(ax, points, metric)
        ax.set_title(words.TIME_NAMES[metric].capitalize(), size=10, weight="bold", loc="left", pad=8)
        ax.set_xscale("log")
        ax.set_xlabel(f"{words.TIME_NAMES[metric]}, logarithmic")
        ax.set_xlim(*_room(points, metric))
        style.log_seconds(ax.xaxis)
    _share_axis(axes[0][0])
    if points[0].label:
        axes[0][1].legend(loc="lower left", handlelength=1.3, frameon=True, edgecolor="white", framealpha=0.9)
    return figure


def _room(points: list[Point], metric: str) -> tuple[float, float]:
    """Return the ends of the axis of times: all curves, and room for what is written left and right of them."""
    values = np.concatenate([p.quantiles(metric, np.array([0.01, 0.5, 0.99, 0.999])) for p in points])
    low, high = np.log(np.nanmin(values[:, 0])), np.log(np.nanmax(values[:, 3]))
    median, p99 = np.log(np.nanmedian(values[:, 1:3], axis=0))
    length = max(high - low, 1.0)
    left, right = min(low, median - 0.36 * length), max(high, p99 + 0.36 * length)
    return float(np.exp(left - 0.03 * length)), float(np.exp(right + 0.03 * length))


def _share_axis(ax: "Axes") -> None:
    ax.set_yscale("log")
    ax.set_ylim(SLOWER[-1], 1.15)
    ax.set_yticks([1, 0.5, 0.1, 0.01, 0.001], ["all", "50%", "10%", "1%", "0.1%"])
    ax.minorticks_off()
    ax.set_ylabel("share of requests that took longer")


def _curve(ax: "Axes", point: Point, metric: str, colour: str, band: bool) -> None:
    low, middle, high = over_seeds(point.quantiles(metric, 1 - SLOWER), point.centre)
    if band:
        ax.fill_betweenx(SLOWER, low, high, color=colour, alpha=0.14, lw=0)
    ax.plot(middle, SLOWER, color=colour, label=point.label)


def _marks(ax: "Axes", points: list[Point], metric: str) -> None:
    """Mark P50 and P99 of the calmest and the worst point, each on the side where the other is not."""
    for slower, name in ((0.5, "P50"), (0.01, "P99")):
        ax.axhline(slower, color=style.QUIET, lw=0.8, ls=(0, (4, 3)), zorder=1)
        shown = [(p, c) for p, c in zip(points, colours(points)) if p in (calmest(points), worst(points))]
        values = [float(over_seeds(p.quantiles(metric, np.array([1 - slower])), p.centre)[1][0]) for p, _ in shown]
        for (_, colour), value in zip(shown, values):
            side = "left" if len(shown) > 1 and value == min(values) else "right"
            ax.plot(value, slower, "o", ms=5, color=colour, mec="white", zorder=5)
            style.mark(ax, value, slower, f"{name} {words.seconds(value)}", colour, side)
