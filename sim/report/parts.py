"""Where the time went: the ten parts of latency, of the slowest 1% beside the median's."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sim.records import PARTS
from sim.report import style, words
from sim.report.view import Point, View, worst

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

TOPIC = "What the slowest 1% waited for"
MOST_POINTS = 4
SIDE = 1.55  # inches on the left for the names of the bars
SEEN = 0.004
"""A part below this share of the longest bar cannot be seen, and is left out of the legend."""
GROUPS = (("median", "around the median"), ("tail", "slowest 1%"))


def plate(view: View) -> style.Plate | None:
    """Return the parts of the slowest 1% beside the median's; None when they were not kept."""
    points = [p for p in view.some_points(MOST_POINTS) if p.members and "parts_tail" in p.histograms[0]]
    points = [p for p in points if np.isfinite(p.parts("tail")).all() and p.parts("tail").sum() > 0]
    if not points:
        return None
    title = _title(worst(points))
    caption = (
        "Mean time in each of the ten parts of latency, in seconds, over the slowest 1% of requests by time to first "
        "token and over the requests around its median (P45 to P55). Left: what came before the first token. Right: "
        "the whole request. Blue is work, warm colours are waiting."
    )
    return style.Plate("where-time-went", TOPIC, title, caption, partial(_draw, view, points, title))


def _title(point: Point) -> str:
    extra = point.parts("tail") - point.parts("median")
    before = extra[: words.BEFORE_FIRST_TOKEN]
    most = int(np.argmax(before))
    if before[most] <= 0:
        took = words.seconds(float(point.parts("tail").sum()))
        return words.at(point.label, f"the slowest 1% took {took} from the question to the last token")
    share = before[most] / before[before > 0].sum()
    told = "nearly all" if share > 0.99 else words.percent(share)
    return words.at(
        point.label,
        f"the slowest 1% spent {words.seconds(before[most], 2)} more than the median {words.PART_NAMES[PARTS[most]]}: "
        f"{told} of what delayed their first token",
    )


def _draw(view: View, points: list[Point], title: str) -> "Figure":
    height = 0.35 + 0.92 * len(points)
    rows = [(p, which, name) for p in points for which, name in GROUPS]
    bars = np.array([p.parts(which) for p, which, _ in rows])
    handles = _handles(bars)
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(height,), widths=(1, 1), sharex=False, sharey=True,
        head=0.4 + style.LEGEND_ROW * style.legend_rows([str(handle.get_label()) for handle in handles]),
        gap=(0.45, 0.2), side=SIDE, right=0.5,
    )  # fmt: skip
    position = [-(i + 0.55 * (i // 2)) for i in range(len(rows))]
    for ax, kept, name in (
        (axes[0][0], slice(0, words.BEFORE_FIRST_TOKEN), "Before the first token"),
        (axes[0][1], slice(0, len(PARTS)), "The whole request"),
    ):
        _stack(ax, position, bars[:, kept])
        ax.set_title(name, size=10, weight="bold", loc="left", pad=8)
        ax.set_xlabel("seconds, mean")
        style.count_axis(ax.xaxis)
    axes[0][0].set_yticks(position, [name for *_, name in rows])
    axes[0][0].tick_params(axis="y", labelcolor=style.INK, labelsize=8.5)
    for i, point in enumerate(points):
        axes[0][0].annotate(
            point.label, (0, position[2 * i]), xycoords=("axes fraction", "data"), xytext=(-72 * SIDE + 12, 17),
            textcoords="offset points", ha="left", va="center", size=9, weight="bold",
        )  # fmt: skip
    style.legend(figure, handles)
    return figure


def _stack(ax: "Axes", position: list[float], bars: np.ndarray) -> None:
    """Draw horizontal stacked bars (rows, parts) with the total behind each and the share inside wide ones."""
    longest = float(bars.sum(axis=1).max()) or 1.0
    ends = np.cumsum(bars, axis=1)
    for i in range(bars.shape[1]):
        colour = style.PARTS[PARTS[i]]
        ax.barh(position, bars[:, i], 0.72, ends[:, i] - bars[:, i], color=colour, edgecolor="white", linewidth=0.6)
        for y, value, end, total in zip(position, bars[:, i], ends[:, i], ends[:, -1]):
            if value > 0.09 * longest:
                ink = "white" if _dark(colour) else style.INK
                ax.text(end - value / 2, y, words.percent(value / total), color=ink, size=8, ha="center", va="center")
    for y, total in zip(position, ends[:, -1]):
        ax.annotate(
            words.seconds(total),
            (total, y),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            size=8.5,
            weight="bold",
        )
    ax.set_xlim(0, 1.16 * longest)
    ax.set_ylim(min(position) - 0.6, max(position) + 0.85)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)


def _handles(bars: np.ndarray) -> list["Patch"]:
    from matplotlib.patches import Patch

    seen = bars.max(axis=0) > SEEN * bars[:, : words.BEFORE_FIRST_TOKEN].sum(axis=1).max()
    return [Patch(color=style.PARTS[part], label=words.PART_NAMES[part]) for part, s in zip(PARTS, seen) if s]


def _dark(colour: str) -> bool:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140
