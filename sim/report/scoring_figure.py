"""The figure of a score: pages against incidents on one past, and what rules cost beside what they give."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sim.alerts.pages import NEVER
from sim.alerts.score import Held, Judged, Score
from sim.report import style, words
from sim.report.alerting import EPOCH_MS, moment, shade_incidents
from sim.report.scoring import quantiles
from sim.theory.chance import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRUE, FALSE = "#117733", "#bb5566"
MOST_NAMED = 20
LEAST = 0.004
"""Share of the axis that a page is drawn wide at least: what lasts a minute in a month must be seen."""


def plate(title: str, pasts: Sequence[Judged], scores: Sequence[Score], window: str) -> style.Plate:
    """Return the figure of *scores*: pages on the past on which most was missed; below, what rules are worth."""
    shown = max(pasts, key=lambda past: (_misses(past, scores), len(past.truth.incidents)))
    which = f"{shown.name}, where most was missed of {len(pasts)} pasts" if len(pasts) > 1 else shown.name
    caption = (
        f"Above: {which}. Shaded: incidents, paler those worth a ticket only. Green: a page that began in the window "
        f"of an incident; red: one for nothing; grey: the warm-up. {window} Below: all pasts together; lines are 95% "
        "intervals (Wilson for shares, exact Poisson for rates)."
    )
    return style.Plate("score", "Score", title, caption, partial(_draw, title, caption, shown, scores))


def _misses(past: Judged, scores: Sequence[Score]) -> int:
    held = [one for score in scores for one in score.held if one.judged is past]
    return sum(int((one.needed & ~one.matching.caught).sum()) for one in held)


def _draw(title: str, caption: str, past: Judged, scores: Sequence[Score]) -> "Figure":
    height = max(0.9, 0.3 * len(scores))
    figure, axes = style.sheet(title, "", caption, [height, height], widths=(1, 1, 1, 1), sharex=False,
                               gap=(0.25, 0.85), side=2.6, head=0.3)  # fmt: skip
    for ax in axes[0]:
        ax.remove()
    _timeline(figure.add_subplot(axes[0, 0].get_gridspec()[0, :]), past, scores)
    _measures(axes[1], scores)
    return figure


def _timeline(ax: "Axes", past: Judged, scores: Sequence[Score]) -> None:
    times = [int(t) for one in past.rules if len(one.t_ms) for t in (one.t_ms[0], one.t_ms[-1])] or [0, past.end_ms]
    first, last = min(times), max(*times, past.end_ms)
    start = first if first >= EPOCH_MS else 0
    unit_s, name, ticks = style.time_scale(max((last - start) / 1000, 1.0))

    def at(t_ms: float) -> float:
        return (t_ms - start) / 1000 / unit_s

    shade_incidents(ax, past.truth, first, at)
    for one in past.truth.incidents if len(past.truth.incidents) <= MOST_NAMED else ():
        ax.text(at((one.start_ms + one.end_ms) / 2), 1.02, one.id, transform=ax.get_xaxis_transform(), ha="center",
                va="bottom", size=7.5, color=style.QUIET)  # fmt: skip
    least = LEAST * at(last) - LEAST * at(first)
    for row, score in enumerate(scores):
        held = next((one for one in score.held if one.judged is past), None)
        if held is None:
            verdict = next((str(why.verdict) for where, why in score.silent if where == past.name), "silent")
            ax.text(0.01, row, verdict, transform=ax.get_yaxis_transform(), va="center", color=style.QUIET)
            continue
        for colour, bars in _bars(held, last):
            ax.broken_barh([(at(a), max(at(b) - at(a), least)) for a, b in bars], (row - 0.3, 0.6), facecolors=colour,
                           linewidth=0)  # fmt: skip
    ax.set_yticks(range(len(scores)), [one.name for one in scores])
    ax.set_ylim(len(scores) - 0.4, -0.6)
    ax.set_xlim(at(first), at(last))
    ax.set_xticks([tick for tick in ticks if at(first) <= tick <= at(last)])
    ax.set_xlabel(name if start == 0 else f"{name.partition(' ')[0]} since {moment(start)} UTC")
    ax.grid(axis="y", visible=False)


def _bars(held: Held, last_ms: int) -> list[tuple[str, list[tuple[int, int]]]]:
    end_ms = np.where(held.pages.end_ms == NEVER, last_ms, held.pages.end_ms)
    both = list(zip(held.pages.start_ms.tolist(), end_ms.tolist(), held.matching.true.tolist()))
    return [(colour, [(a, b) for a, b, t in both if t == true]) for colour, true in ((TRUE, True), (FALSE, False))]


def _measures(axes: "Sequence[Axes]", scores: Sequence[Score]) -> None:
    """Draw what each rule is worth, one line a rule as above: shares and rates with their 95% intervals."""
    titles = ("incidents caught", "pages that were true", "detected after", "false pages a week")
    for ax, title in zip(axes, titles):
        ax.set_title(title, size=8.5, loc="left", color=style.INK)
        ax.grid(axis="y", visible=False)
    longest = max((float(one.detection_s[-1]) for one in scores if len(one.detection_s)), default=60.0) or 60.0
    scale, unit = words.time_unit(longest)
    for row, one in enumerate(scores):
        if not one.held:
            axes[0].text(0, row, " silent", va="center", color=style.QUIET, size=8)
            continue
        _dot(axes[0], row, one.recall, TRUE)
        _dot(axes[1], row, one.precision, TRUE)
        if len(found := one.detection_s):
            middle = quantiles(found, (0.5,))[0] / scale
            _dot(axes[2], row, Interval(middle, middle, float(found[-1]) / scale), style.SERIES[0])
        if one.false_per_week is not None:
            _dot(axes[3], row, one.false_per_week, FALSE)
    for ax in axes[:2]:
        ax.set_xlim(-0.03, 1.03)
        style.percent_axis(ax.xaxis)
    for ax, top in ((axes[2], longest / scale), (axes[3], _top(scores))):
        ax.set_xlim(-0.03 * top, 1.08 * top)
    axes[2].set_xlabel(f"{unit}, P50 to worst")
    axes[0].set_yticks(range(len(scores)), [one.name for one in scores])
    axes[0].set_ylim(len(scores) - 0.4, -0.6)


def _top(scores: Sequence[Score]) -> float:
    """Return up to where an axis of false pages a week goes: all estimates, and the intervals of those seen."""
    seen = [(one.false_per_week, one.false_at_most or 0.0) for one in scores if one.held and one.false_per_week]
    return max((rate.high if rate.estimate else most for rate, most in seen), default=1.0) or 1.0


def _dot(ax: "Axes", row: int, value: Interval, colour: str) -> None:
    if not np.isnan(value.estimate):
        ax.plot([value.low, value.high], [row, row], color=colour, linewidth=1.4, alpha=0.45)
        ax.plot([value.estimate], [row], "o", color=colour, markersize=4.5)
