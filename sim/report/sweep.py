"""The blow-out: P50 and P99 of TTFT against the setting that varies, beside the KV cache that explains them."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.report import style, words
from sim.report.view import Point, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXPLODES, STAYS, CLOSE = 3.0, 1.25, 1.25
"""From which ratio on P99 explodes, up to which P50 hardly moves, and up to which two loads are close together."""


def plate(view: View) -> style.Plate | None:
    """Return the blow-out figure; None unless one setting varies, and over numbers."""
    path = axis(view)
    if path is None:
        return None
    points = sorted((p for p in view.points if p.metric("ttft_p99").value > 0), key=lambda p: p.values[path])
    if len(points) < 2:
        return None
    title = _title(points, path)
    caption = (
        f"Time to first token at its median and its 99th percentile against {words.axis_name(path)}, beside how full "
        f"the KV cache was and {_pressure(points)[1]}. {_uncertainty(view)}"
    )
    return style.Plate("blowout", "The blow-out", title, caption, partial(_draw, view, path, points, title))


def axis(view: View) -> str | None:
    """Return the one setting that varies over numbers, or None."""
    paths = {path for point in view.points for path in point.values}
    if len(paths) != 1 or len(view.points) < 2:
        return None
    path = paths.pop()
    numeric = all(isinstance(p.values[path], int | float) and not isinstance(p.values[path], bool) for p in view.points)
    return path if numeric else None


def paired_ratio(first: Point, last: Point, metric: str) -> float:
    """Return the median over seeds of what *metric* is at *last* over what it is at *first*, seed by seed."""
    before, after = first.metric(metric), last.metric(metric)
    if len(before.values) == len(after.values) and before.values:
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.median(np.array(after.values) / np.array(before.values)))
    return after.value / before.value


def _uncertainty(view: View) -> str:
    if view.seeds == 2:
        return "Each faint dot is one of 2 seeds; lines join their means, bands reach from one to the other."
    if view.seeds > 1:
        return f"Each faint dot is one of {view.seeds} seeds; lines join the estimates, bands are their intervals."
    return "One seed: no interval; `--seeds 10` gives one."


def jump(points: Sequence[Point], path: str) -> tuple[Point, Point]:
    """Return the two points that the title compares: where P99 leaves P50 behind.

    Of all pairs close together over which P50 hardly moves, the one over which P99 grows most; the first and the last
    when there is none.
    """
    pairs = [
        (paired_ratio(a, b, "ttft_p99"), a, b)
        for i, a in enumerate(points)
        for b in points[i + 1 :]
        if 0 < b.values[path] <= CLOSE * a.values[path] and paired_ratio(a, b, "ttft_p50") <= STAYS
    ]
    best = max(pairs, key=lambda pair: pair[0], default=None)
    return best[1:] if best and best[0] >= EXPLODES else (points[0], points[-1])


def _title(points: Sequence[Point], path: str) -> str:
    first, last = jump(points, path)
    p50, p99 = (paired_ratio(first, last, f"ttft_{name}") for name in ("p50", "p99"))
    where = words.between(first.values, last.values)
    if p99 >= EXPLODES and p50 <= STAYS:
        return f"P99 time to first token grows {words.times(p99)} {where}, while P50 hardly moves ({words.change(p50)})"
    return f"Time to first token {where}: P99 {words.change(p99)}, P50 {words.change(p50)}"


def _pressure(points: Sequence[Point]) -> tuple[str, str]:
    """Return the metric that shows what a full KV cache did, and what it is called."""
    if any(p.metric("preemptions").value > 0 for p in points):
        return "preemptions", "preemptions per 1,000 requests"
    return "waiting_mean", "requests waiting, mean"


def _draw(view: View, path: str, points: list[Point], title: str) -> "Figure":
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(1.75, 1.75), widths=(1.75, 1), sharey=False, head=0.36,
        gap=(1.3, 0.42), right=0.62,
    )  # fmt: skip
    grid = axes[0][0].get_gridspec()
    for ax in axes[:, 0]:
        ax.remove()
    main = figure.add_subplot(grid[:, 0])
    x = np.array([p.values[path] for p in points], dtype=float)
    _latency(main, x, points)
    low, high = (p.values[path] for p in jump(points, path))
    if low > 0 and (low, high) != (x[0], x[-1]):
        _shade(main, low, high)
    _kv(axes[0][1], x, points)
    _strain(axes[1][1], x, points)
    for ax in (main, axes[0][1], axes[1][1]):
        _ticks(ax, x)
    for ax in (main, axes[1][1]):
        ax.set_xlabel(words.axis_name(path))
    axes[0][1].tick_params(labelbottom=False)
    return figure


def _ticks(ax: "Axes", x: np.ndarray) -> None:
    """Put a tick at every value that was played, as long as their numbers do not touch."""
    room = 0.08 * (x[-1] - x[0])
    shown = [x[-1]]
    for value in x[-2::-1]:
        if shown[-1] - value > room:
            shown.append(value)
    ax.set_xticks(shown, [f"{value:g}" for value in shown])
    ax.set_xlim(x[0] - 0.06 * (x[-1] - x[0]), x[-1] + 0.06 * (x[-1] - x[0]))


def _latency(ax: "Axes", x: np.ndarray, points: list[Point]) -> None:
    ax.set_yscale("log")
    for name in ("P99", "P50"):
        colour = style.PERCENTILES[name]
        values = _line(ax, x, points, f"ttft_{name.lower()}", colour)
        start = "above" if name == "P99" and values[1] < 1.05 * values[0] else "below"  # where the line does not go
        style.mark(ax, x[0], values[0], f"{name} {words.seconds(values[0])}", colour, start)
        end = "right, up" if name == "P99" else "right, down"
        style.mark(ax, x[-1], values[-1], f"{name}\n{words.seconds(values[-1])}", colour, end)
    low, high = ax.get_ylim()
    ax.set_ylim(low / 1.35, high * 1.35)
    ax.set_title("Time to first token, logarithmic", size=10, weight="bold", loc="left", pad=8)
    style.log_seconds(ax.yaxis)


def _shade(ax: "Axes", low: float, high: float) -> None:
    """Shade what the title speaks about, and say how much more it is."""
    ax.axvspan(low, high, color=style.SHADE, zorder=0, lw=0)
    ax.annotate(
        f"+{100 * (high / low - 1):.0f}%", ((low + high) / 2, 1), xycoords=("data", "axes fraction"), xytext=(0, -5),
        textcoords="offset points", ha="center", va="top", size=8, color=style.QUIET, backgroundcolor=style.SHADE,
    )  # fmt: skip


def _line(ax: "Axes", x: np.ndarray, points: list[Point], metric: str, colour: str, **look: Any) -> np.ndarray:
    """Draw the estimates of *metric*, their intervals as a band and each seed as a faint dot; return the estimates."""
    estimates = [p.metric(metric) for p in points]
    values = np.array([e.value for e in estimates])
    low, high = np.array([e.low for e in estimates]), np.array([e.high for e in estimates])
    if np.isfinite(low).all() and (low < high).any():
        if ax.get_yscale() == "log":  # an interval of few seeds may reach below 0, where there is no logarithm
            low = np.maximum(low, 0.5 * np.array([min(e.values) for e in estimates]))
        ax.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
        for value, estimate in zip(x, estimates):
            dots = estimate.values
            ax.plot(np.full(len(dots), value), dots, "o", ms=3, color=colour, alpha=0.3, mew=0, zorder=3)
    ax.plot(x, values, "o-", ms=5, color=colour, mec="white", zorder=4, **look)
    return values


def _kv(ax: "Axes", x: np.ndarray, points: list[Point]) -> None:
    ax.axhline(1, color=style.QUIET, lw=0.8, ls=(0, (4, 3)))
    for metric, name, width in (("kv_max", "peak", 1.0), ("kv_mean", "mean", 1.8)):
        values = _line(ax, x, points, metric, style.KV, lw=width, alpha=1 if metric == "kv_mean" else 0.5)
        end = "right, up" if name == "peak" else "right, down"
        style.mark(ax, x[-1], values[-1], f"{name}\n{words.percent(values[-1])}", style.KV, end, size=7.5)
    style.percent_axis(ax.yaxis)
    ax.set_ylim(0, 1.06)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
    ax.set_title("KV cache in use", size=10, weight="bold", loc="left", pad=8)


def _strain(ax: "Axes", x: np.ndarray, points: list[Point]) -> None:
    metric, name = _pressure(points)
    if metric == "preemptions":
        requests = [p.metric("requests").value for p in points]
        values = np.array([1000 * p.metric(metric).value / max(n, 1) for p, n in zip(points, requests)])
        ax.plot(x, values, "o-", ms=5, color=style.PARTS["preempted_s"], mec="white")
    else:
        _line(ax, x, points, metric, style.WAITING)
    style.from_zero([ax])
    style.count_axis(ax.yaxis)
    ax.set_title(name.capitalize(), size=10, weight="bold", loc="left", pad=8)
