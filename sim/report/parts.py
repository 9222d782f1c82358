"""Where the time went: the ten parts of latency, of the slowest 1% beside the median's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

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
LABEL_ROW = 0.92  # inches for a group: its label and its two bars


@dataclass(frozen=True)
class Kind:
    """Which parts there are: what each is called and its colour, in the order of a request's life."""

    names: Mapping[str, str]
    colours: Mapping[str, str]


def ten(point: Point, kind: str) -> Kind:
    """Return the ten parts, as they are called in runs of a *kind* (simulated or measured).

    Where clients try again, the wait in the client holds what earlier attempts lost too.
    """
    tried_again = point.metric("retries").value > 0 or point.metric("hedges").value > 0
    names = {"client_wait_s": "in the client and in earlier attempts"} if tried_again else {}
    return as_known(Kind(words.PART_NAMES | names, style.PARTS), kind)


def as_known(ten: Kind, kind: str) -> Kind:
    """Return the parts as they are known in runs of a *kind*: a client cannot tell work from waiting."""
    if kind != "measured":
        return ten
    return Kind({**ten.names, **words.MEASURED_NAMES}, {**ten.colours, **style.MEASURED_PARTS})


def key(kind: str) -> str:
    """Return the sentence that says what colours mean in runs of a *kind*."""
    return "" if kind == "measured" else " Blue is work, warm colours are waiting."


@dataclass(frozen=True)
class Group:
    """Requests shown together: their label, and mean seconds by part around their median and of their slowest 1%.

    Those with ``first`` are what of them fell before the first token; they sum to its time.
    """

    label: str
    median_s: np.ndarray
    tail_s: np.ndarray
    median_first_s: np.ndarray
    tail_first_s: np.ndarray


def told(group: Group, names: Mapping[str, str]) -> str:
    """Return the sentences that say what the slowest 1% of *group* waited for, whose parts *names* calls by name."""
    whole = group.tail_s.tolist(), group.median_s.tolist()
    before = group.tail_first_s.tolist(), group.median_first_s.tolist()
    return words.slowest(group.label, whole, before, names)


def of_point(point: Point) -> Group:
    """Return the requests of *point* as one group."""
    names = ("median", "tail", "median_first", "tail_first")
    return Group(point.label, *(point.parts(name) for name in names))


def plate(view: View) -> style.Plate | None:
    """Return the parts of the slowest 1% beside the median's; None when they were not kept."""
    points = [p for p in view.some_points(MOST_POINTS) if p.members and "parts_tail_first" in p.histograms[0]]
    points = [p for p in points if np.isfinite(p.parts("tail")).all() and p.parts("tail").sum() > 0]
    if not points:
        return None
    bad = worst(points)
    kind = ten(bad, view.kind)
    title = words.at(bad.label, grew(of_point(bad), kind))
    caption = (
        "Mean time in each of the ten parts of latency, in seconds, over the slowest 1% of requests by time to first "
        "token and over the requests around its median (P45 to P55). Left: what came before the first token. Right: "
        f"the whole request.{key(view.kind)}"
    )
    groups = [of_point(point) for point in points]
    return style.Plate("where-time-went", TOPIC, title, caption, partial(draw, view, groups, kind, title))


def grew(group: Group, kind: Kind, by: str = "ttft") -> str:
    """Return the sentence that says which part delayed the slowest 1% most: up to the first token, or *by* e2e all."""
    first = by == "ttft"
    whole, usual = (group.tail_first_s, group.median_first_s) if first else (group.tail_s, group.median_s)
    before = whole - usual
    most = int(np.argmax(before))
    token = "first" if first else "last"
    if before[most] <= words.NOTICED * whole.sum():
        largest = int(np.argmax(whole))
        part = f"{list(kind.names.values())[largest]} ({words.seconds(float(whole[largest]))})"
        took = f"took {words.seconds(float(whole.sum()))} to their {token} token, most of it {part}"
        return f"the slowest 1% {took}, and no part of it much longer than the median"
    share = before[most] / before[before > 0].sum()
    name = list(kind.names.values())[most]
    more = f"{words.seconds(before[most], 2)} more than the median {name}"
    if share > 0.99 and name in words.MEASURED_NAMES.values():
        return f"the slowest 1% spent {more}"  # all of what delayed a first token was before it
    told = "nearly all" if share > 0.99 else words.percent(share)
    return f"the slowest 1% spent {more}: {told} of what delayed their {token} token"


def draw(view: View, groups: Sequence[Group], kind: Kind, title: str) -> "Figure":
    """Draw two stacked bars for each of *groups*: up to the first token on the left, the whole on the right."""
    bars = np.array([row for group in groups for row in (group.median_s, group.tail_s)])
    first = np.array([row for group in groups for row in (group.median_first_s, group.tail_first_s)])
    handles = _handles(bars, float(first.sum(axis=1).max()), kind)
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(0.35 + LABEL_ROW * len(groups),), widths=(1, 1), sharex=False,
        sharey=True, head=0.4 + style.LEGEND_ROW * style.legend_rows([str(handle.get_label()) for handle in handles]),
        gap=(0.45, 0.2), side=SIDE, right=0.5,
    )  # fmt: skip
    position = [-(i + 0.55 * (i // 2)) for i in range(len(bars))]
    for ax, shown, name in ((axes[0][0], first, "Before the first token"), (axes[0][1], bars, "The whole request")):
        _stack(ax, position, shown, list(kind.colours.values()))
        ax.set_title(name, size=10, weight="bold", loc="left", pad=8)
        ax.set_xlabel("seconds, mean")
        style.count_axis(ax.xaxis)
    axes[0][0].set_yticks(position, ["around the median", "slowest 1%"] * len(groups))
    axes[0][0].tick_params(axis="y", labelcolor=style.INK, labelsize=8.5)
    for i, group in enumerate(groups):
        axes[0][0].annotate(
            group.label, (0, position[2 * i]), xycoords=("axes fraction", "data"), xytext=(-72 * SIDE + 12, 17),
            textcoords="offset points", ha="left", va="center", size=9, weight="bold",
        )  # fmt: skip
    style.legend(figure, handles)
    return figure


def _stack(ax: "Axes", position: list[float], bars: np.ndarray, colours: Sequence[str]) -> None:
    """Draw horizontal stacked bars (rows, parts) with the total behind each and the share inside wide ones."""
    longest = float(bars.sum(axis=1).max()) or 1.0
    ends = np.cumsum(bars, axis=1)
    for i, colour in zip(range(bars.shape[1]), colours):
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


def _handles(bars: np.ndarray, longest_s: float, kind: Kind) -> list["Patch"]:
    """Return the legend: parts that can be seen beside a bar of *longest_s*."""
    from matplotlib.patches import Patch

    seen = bars.max(axis=0) > SEEN * longest_s
    shown = zip(kind.names.values(), kind.colours.values(), seen)
    return [Patch(color=colour, label=name) for name, colour, is_seen in shown if is_seen]


def _dark(colour: str) -> bool:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140
