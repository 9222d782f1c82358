"""The plane of a tuned rule: how soon incidents are found against how many false pages that costs."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sim.alerts.tuning.tune import Scored, Tuned, plane
from sim.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
TODAY, CHOSEN, FRONT, OTHERS = "#bb5566", "#117733", "#004488", "#c9ced6"


def plate(title: str, tuned: Sequence[Tuned]) -> style.Plate:
    """Return the figure of all *tuned* rules, a panel each."""
    caption = (
        "Every grey dot is a setting of threshold, window and `for`, on the weeks that choose; the line joins those "
        "that no other beats. Full: on the weeks that choose; open: the same setting on the weeks that check, with 95% "
        "intervals over resampled weeks. Time: until half as many incidents were found as today's setting finds in all."
    )
    return style.Plate("tune", "Tuning", title, caption, partial(_draw, title, caption, tuned))


def _draw(title: str, caption: str, tuned: Sequence[Tuned]) -> "Figure":
    columns = min(COLUMNS, len(tuned))
    rows = -(-len(tuned) // columns)
    figure, axes = style.sheet(title, "", caption, [2.2] * rows, widths=(1,) * columns, sharex=False, sharey=False,
                               gap=(0.55, 0.75), head=0.6)  # fmt: skip
    for ax, one in zip(axes.flat, tuned):
        _panel(ax, one)
    for ax in axes.flat[len(tuned) :]:
        ax.remove()
    style.legend(figure, _handles())
    return figure


def _handles() -> "list[object]":
    from matplotlib.lines import Line2D

    dots = [("settings", OTHERS, "."), ("front", FRONT, "."), ("today", TODAY, "D"), ("recommended", CHOSEN, "o")]
    return [Line2D([], [], color=colour, marker=mark, linestyle="-" if name == "front" else "", label=name)
            for name, colour, mark in dots]  # fmt: skip


def _panel(ax: "Axes", one: Tuned) -> None:
    shown = plane(one.ledger, one.chooses)
    n = len(one.ledger.grid.thresholds)
    ax.plot(shown.false_per_week[:, :n].ravel(), shown.detection_s[:, :n].ravel() / 60, ".", color=OTHERS, markersize=3)
    front = [line.inside for line in one.front]
    ax.plot([x.false_per_week for x in front], [x.detection_s / 60 for x in front], ".-", color=FRONT, markersize=5,
            linewidth=1)  # fmt: skip
    ax.axvline(one.most, color=style.QUIET, linewidth=0.8, linestyle=":")
    lines = [(one.today, TODAY, "D")] + ([(one.recommended, CHOSEN, "o")] if one.recommended else [])
    for line, colour, mark in lines:
        _point(ax, line.inside, colour, mark, True)
        if line.outside is not None:
            _point(ax, line.outside, colour, mark, False)
    ax.set_title(one.ledger.knobs.rule.name, size=9, loc="left", color=style.INK)
    ax.set_xscale("symlog", linthresh=1)
    ticks = [0, 0.5, 1, 3, 10, 30, 100, 300, 1000]
    right = max(2.0, *(x.false_per_week for x in front), one.today.inside.false_per_week) * 1.5
    ax.set_xticks([tick for tick in ticks if tick <= right], [f"{tick:g}" for tick in ticks if tick <= right])
    ax.set_xticks([], minor=True)
    ax.set_xlim(-0.15, right)
    finite = [x for x in (*front, one.today.inside, *(line.outside for line, *_ in lines if line.outside)) if x]
    top = max([x.detection_s / 60 for x in finite if np.isfinite(x.detection_s)] or [1.0])
    ax.set_ylim(-0.04 * max(top, 1) * 1.3, max(top, 1) * 1.3)
    ax.set_xlabel("false pages a week")
    ax.set_ylabel("minutes until found")


def _point(ax: "Axes", at: Scored, colour: str, mark: str, full: bool) -> None:
    if not np.isfinite(at.detection_s):
        return
    x, y = at.false_per_week, at.detection_s / 60
    if not full and at.false_interval and at.detection_interval:
        (left, right), (low, high) = at.false_interval, at.detection_interval
        right = max(right, at.false_at_most or 0.0)
        high = high / 60 if np.isfinite(high) else ax.get_ylim()[1] * 10
        ax.errorbar(x, y, xerr=[[max(0.0, x - left)], [max(0.0, right - x)]],
                    yerr=[[max(0.0, y - low / 60)], [max(0.0, high - y)]], color=colour, linewidth=0.9)  # fmt: skip
    look = {"markersize": 6.5} if full else {"markersize": 11.0, "markerfacecolor": "none"}
    ax.plot([x], [y], mark, color=colour, zorder=3, **look)
