"""Two runs over time, one upon the other: latency, errors, what runs and waits, the KV cache."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError
from sim.report import style, timeline
from sim.report.comparing import Comparison
from sim.report.view import Point, merged_windows
from sim.summary import MINUTE_S

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"A": style.SERIES[0], "B": style.SERIES[1]}
FRACTIONS = np.array([0.5, 0.99])
MOST_COLUMNS = 3


def plate(found: Comparison) -> style.Plate:
    """Return the time lines of both runs, at no more than three points."""
    shown = found.points
    if len(shown) > MOST_COLUMNS:
        shown = [shown[round(i * (len(shown) - 1) / (MOST_COLUMNS - 1))] for i in range(MOST_COLUMNS)]
    columns = [(one.pair.label, one.pair.a, one.pair.b) for one in shown]
    some = f" {len(shown)} of {len(found.points)} points are shown." if len(shown) < len(found.points) else ""
    caption = (
        f"A: {found.a.about}. B: {found.b.about}. Latency by when users asked: solid P99, dashed P50; the median over "
        f"repeats; a gap: nobody asked. Running (solid), waiting (dashed) and the KV cache are of the first repeat, "
        f"all replicas; each scrape is held until the next.{some}"
    )
    return style.Plate("compare", "Compared", found.answer, caption, partial(_draw, columns, found, caption))


def _draw(columns: list[tuple[str, Point, Point]], found: Comparison, caption: str) -> "Figure":
    from matplotlib.lines import Line2D

    labels = [label for label, _, _ in columns]
    figure, axes = style.sheet(
        found.answer, "", caption, heights=(1.7, 0.8, 1.0, 0.8), widths=(1,) * len(columns),
        head=style.LEGEND_ROW + style.column_head(labels), gap=(0.22, 0.2),
    )  # fmt: skip
    length_s = max(found.a.seen.duration_s, found.b.seen.duration_s)
    unit_s, unit_name, ticks = style.time_scale(length_s)
    for column, title, (_, a, b) in zip(axes.T, style.column_titles(labels), columns):
        step = merged_windows([a, b])
        for letter, point in (("A", a), ("B", b)):
            _lines(column, point, COLOURS[letter], unit_s, step)
        column[0].set_title(title, size=10, weight="bold", loc="left", pad=6)
        column[-1].set_xlim(0, length_s / unit_s)
        column[-1].set_xticks(ticks)
        column[-1].set_xlabel(unit_name)
    for ax, said in zip(axes[:, 0], ("time to first token", "not answered", "sequences", "KV cache in use")):
        ax.set_ylabel(said)
    axes[0, 0].set_yscale("log")
    style.log_seconds(axes[0, 0].yaxis)
    for ax in (axes[1, 0], axes[3, 0]):
        style.percent_axis(ax.yaxis)
    style.from_zero(axes[1])
    style.from_zero(axes[2])
    axes[3, 0].set_ylim(0, 1.04)
    style.count_axis(axes[2, 0].yaxis)
    style.legend(figure, [Line2D([], [], color=colour, label=letter) for letter, colour in COLOURS.items()])
    return figure


def _lines(column: np.ndarray, point: Point, colour: str, unit_s: float, step: int) -> None:
    """Draw one run at one point, from top to bottom."""
    if point.histograms[0]["ttft_by_window"].any():
        t_s, rows = point.over_time("ttft", FRACTIONS, step)
        for i, dashes in enumerate(("--", "-")):
            style.line(column[0], t_s / unit_s, timeline.over_seeds(rows[:, :, i])[1], dashes, color=colour, lw=1.4)
    asked, errors = point.minutes("requests"), point.minutes("errors")
    share = np.divide(errors, asked, out=np.full(len(asked), np.nan), where=asked > 0)
    style.held(column[1], np.arange(len(share)) * MINUTE_S / unit_s, share, color=colour, lw=1.4)
    try:
        seen = timeline.scrapes(point, 0)
    except (InputError, KeyError):  # nobody scraped it
        return
    t = seen.t_s / unit_s
    style.held(column[2], t, seen.running[1], color=colour, lw=1.2)
    style.held(column[2], t, seen.waiting[1], "--", color=colour, lw=1.2)
    style.held(column[3], t, seen.kv[1], color=colour, lw=1.2)
