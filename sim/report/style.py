"""One calm look for every figure: colours that colour-blind readers tell apart, units on axes, small print below.

Colours are Paul Tol's high-contrast and muted schemes (SRON technical note 09-002), which also survive grey printing.
Sizes are inches. Margins are computed from the text and never found by
trial, which keeps a figure under half a second.
"""

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sim.report import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET, LINE, SHADE = "#23272e", "#667080", "#e3e7ec", "#f1f3f5"
PERCENTILES = {"P50": "#004488", "P95": "#ddaa33", "P99": "#bb5566"}
KV, RUNNING, WAITING = "#117733", "#332288", "#cc6677"
SERIES = ("#004488", "#bb5566", "#ddaa33", "#117733", "#882255", "#44aa99")
PARTS = {
    "client_wait_s": "#cfd4da",
    "backoff_s": "#aa4499",
    "seat_wait_s": "#ddaa33",
    "kv_wait_s": "#bb5566",
    "step_wait_s": "#999933",
    "prefill_s": "#88ccee",
    "decode_alone_s": "#004488",
    "decode_slowed_s": "#7d9cc5",
    "preempted_s": "#6e1d45",
    "fault_stall_s": "#23272e",
}
"""The ten parts: work is blue, waiting is warm, so that a bar says at a glance which of the two it is."""
MEASURED_PARTS = {"prefill_s": "#9aa3ad", "decode_alone_s": "#004488"}
"""Of a measured request: what came before the first token may have been either."""

SETTINGS: Any = {  # matplotlib has a type for these keys that only its newest versions know
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#9aa3ad",
    "axes.labelcolor": QUIET,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
}
WIDTH = 9.6
SIDE = 0.72  # margin on the left, room for an axis' name and its numbers
LEGEND_ROW = 0.2
COLUMN_LETTERS = 10
"""Letters of a column's title that an inch of the figure has room for, margins and gaps counted."""


Sharing = bool | Literal["none", "all", "row", "col"]


@dataclass(frozen=True)
class Plate:
    """One figure before it is drawn: its topic, a sentence that says what is seen, a caption, and who draws it."""

    name: str
    topic: str
    title: str
    caption: str
    draw: Callable[[], "Figure"]


def sheet(
    title: str,
    subtitle: str,
    small_print: str,
    heights: Sequence[float],
    widths: Sequence[float] = (1,),
    sharey: Sharing = "row",
    sharex: Sharing = True,
    gap: tuple[float, float] = (0.3, 0.2),
    head: float = 0.1,
    side: float = SIDE,
    right: float = 0.25,
) -> tuple["Figure", np.ndarray]:
    """Return a figure and its axes (rows, columns): *heights* in inches, *widths* as proportions.

    *subtitle* is what no reader may miss, for example that the KV cache was set by hand; it may be empty.
    *gap* is between columns and between rows, *head* between the title and the axes, *side* and *right* the margins.
    """
    from matplotlib.figure import Figure

    lines = balanced(title, 86)
    print_lines = textwrap.wrap(small_print, 165)
    top = 0.16 + len(lines) * 0.245 + bool(subtitle) * 0.22 + head
    bottom = 0.52 + len(print_lines) * 0.145
    height = top + sum(heights) + gap[1] * (len(heights) - 1) + bottom
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    mean_width = (WIDTH - side - right - gap[0] * (len(widths) - 1)) / len(widths)
    axes = figure.subplots(
        len(heights),
        len(widths),
        squeeze=False,
        sharex=sharex,
        sharey=sharey,
        gridspec_kw={
            "left": side / WIDTH,
            "right": 1 - right / WIDTH,
            "top": 1 - top / height,
            "bottom": bottom / height,
            "wspace": gap[0] / mean_width,
            "hspace": gap[1] / float(np.mean(heights)),
            "height_ratios": heights,
            "width_ratios": widths,
        },
    )
    left = 0.16 / WIDTH
    for ax in axes[:, 0]:
        ax.yaxis.set_label_coords(-(side - 0.24) / (ax.get_position().width * WIDTH), 0.5)
    figure.text(left, 1 - 0.13 / height, "\n".join(lines), size=12.5, weight="bold", va="top", linespacing=1.3)
    figure.text(left, 1 - (0.14 + len(lines) * 0.245) / height, subtitle, size=9.5, va="top")
    figure.text(left, 0.1 / height, "\n".join(print_lines), size=7, color=QUIET, va="bottom", linespacing=1.35)
    return figure, axes


def balanced(text: str, width: int) -> list[str]:
    """Return *text* in as few lines of at most *width* characters as it needs, of similar length.

    A number and its unit stay together.
    """
    text = re.sub(r"(\d) (h|min|s|ms|µs)\b", "\\1\u00a0\\2", text)
    lines = len(textwrap.wrap(text, width))
    while width > 20 and len(textwrap.wrap(text, width - 1)) == lines:
        width -= 1
    return textwrap.wrap(text, width)


def column_titles(labels: Sequence[str]) -> list[str]:
    """Return *labels* broken into lines, so that columns side by side have room for them as their titles."""
    width = int(WIDTH * COLUMN_LETTERS / max(1, len(labels)))
    return ["\n".join(balanced(label, width)) for label in labels]


def column_head(labels: Sequence[str]) -> float:
    """Return the inches that `column_titles` of *labels* take above their columns."""
    lines = max((title.count("\n") + 1 for title in column_titles(labels) if title), default=0)
    return 0.24 + 0.18 * lines if lines else 0.18


def log_seconds(axis: Any) -> None:
    """Let a logarithmic axis say ``10 ms``, ``1 s``, and mark 2 and 5 too when it spans less than two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    few = 0 < low < high and high / low < 200
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: words.tick(value)))
    axis.set_minor_locator(NullLocator())  # hundreds of small ticks cost a quarter of the drawing


def percent_axis(axis: Any) -> None:
    """Let an axis of fractions say percentages."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))


def from_zero(axes: Sequence["Axes"]) -> None:
    """Let the vertical axis that *axes* share begin at 0 and end above everything drawn on them."""
    top = max((ax.dataLim.y1 for ax in axes if np.isfinite(ax.dataLim.y1)), default=1.0)
    axes[0].set_ylim(0, 1.08 * top if top > 0 else 1.0)


def count_axis(axis: Any) -> None:
    """Let an axis of counts say ``10,000``."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))


def time_scale(duration_s: float) -> tuple[float, str, list[float]]:
    """Return seconds per unit, the unit's name and the ticks (units) that suit a time axis of *duration_s*."""
    choices = ((2.5 * 86400, 86400.0, "days"), (3 * 3600, 3600.0, "hours"), (300, 60.0, "minutes"), (0, 1.0, "seconds"))
    unit_s, name = next((unit_s, name) for least, unit_s, name in choices if duration_s >= least)
    length = duration_s / unit_s
    steps = (1, 2, 3, 6, 12, 24) if name == "hours" else (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
    step = next((s for s in steps if length / s <= 8.01), steps[-1])
    return unit_s, f"{name} since the start", [step * i for i in range(int(length / step + 1e-9) + 1)]


def line(ax: "Axes", t: np.ndarray, values: np.ndarray, dashes: str = "-", **look: Any) -> None:
    """Draw *values* (n,) at times *t*: a gap where one is not known, and a dot for one that stands alone in a gap."""
    known = np.isfinite(np.concatenate([[np.nan], values, [np.nan]]))
    alone = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:])
    ax.plot(t, values, dashes, marker=".", markevery=alone.tolist(), markersize=4, **look)


def held(ax: "Axes", t: np.ndarray, values: np.ndarray, dashes: str = "-", **look: Any) -> None:
    """Draw samples (n,) taken at times *t*, each held until the next: what was between them nobody knows."""
    ax.plot(*_until_next(t, values), dashes, drawstyle="steps-post", solid_capstyle="butt", **look)


def held_band(ax: "Axes", t: np.ndarray, low: np.ndarray, high: np.ndarray, **look: Any) -> None:
    """Fill between lowest and highest samples (n,), held as in `held`."""
    ends, lowest = _until_next(t, low)
    ax.fill_between(ends, lowest, _until_next(t, high)[1], step="post", lw=0, **look)


def _until_next(t: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples with one more at the end, so that the last is held as long as the one before it."""
    last = t[-1:] + (t[-1:] - t[-2:-1] if len(t) > 1 else 0.0)
    return np.append(t, last), np.append(values, values[-1:])


def save(plate: Plate, path: Any, dots_per_inch: int = 150) -> None:
    """Draw *plate* and write it as a PNG that depends on nothing but the data."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with mpl.rc_context(SETTINGS):
        figure = plate.draw()
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=dots_per_inch, metadata={"Software": None}, pil_kwargs={"compress_level": 6})


def legend_columns(labels: Sequence[str]) -> int:
    """Return how many columns a legend of *labels* may have, to be no wider than the figure."""
    for columns in range(len(labels), 1, -1):
        rows, longer = divmod(len(labels), columns)  # matplotlib fills columns; the first ones get one more
        ends = np.cumsum([rows + (i < longer) for i in range(columns)])
        widest = [max(map(len, labels[a:b])) for a, b in zip([0, *ends], ends)]
        if sum(0.063 * width + 0.47 for width in widest) <= WIDTH - 0.2:
            return columns
    return 1


def legend_rows(labels: Sequence[str]) -> int:
    """Return how many rows a legend of *labels* has; leave `LEGEND_ROW` inches for each."""
    return -(-len(labels) // legend_columns(labels))


def legend(figure: "Figure", handles: Sequence[Any]) -> None:
    """Put one legend for the whole figure under its title."""
    title, subtitle = (text.get_text() for text in figure.texts[:2])  # as `sheet` put them
    lines = title.count("\n") + 1
    top = 1 - (0.16 + lines * 0.245 + bool(subtitle) * 0.22) / figure.get_figheight()
    columns = legend_columns([handle.get_label() for handle in handles])
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.14 / WIDTH, top), ncols=columns, handlelength=1.2,
        handleheight=1, columnspacing=1.5, borderaxespad=0,
    )  # fmt: skip


def mark(axes: "Axes", x: float, y: float, text: str, colour: str, side: str = "right", size: float = 8.5) -> None:
    """Write *text* beside a data point, with a white halo so that lines do not cross it."""
    from matplotlib.patheffects import withStroke

    shift, align = {
        "right": ((7, 0), {"ha": "left", "va": "center"}),
        "left": ((-7, 0), {"ha": "right", "va": "center"}),
        "above": ((-3, 7), {"ha": "left", "va": "bottom"}),
        "below": ((-3, -7), {"ha": "left", "va": "top"}),
        "right, up": ((7, 0), {"ha": "left", "va": "bottom"}),
        "right, down": ((7, 0), {"ha": "left", "va": "top"}),
    }[side]
    axes.annotate(
        text, (x, y), xytext=shift, textcoords="offset points", color=colour, size=size, weight="bold",
        annotation_clip=False, path_effects=[withStroke(linewidth=2.5, foreground="white")], **align,  # type: ignore[arg-type]
    )  # fmt: skip
