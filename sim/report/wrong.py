"""Wrong answers: how many a minute, and when the sum passes a round number."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sim.report import style, words
from sim.report.distribution import colours
from sim.report.view import Point, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 4
HOUR = 60  # minutes: the busiest hour is what a team would have to be sized for, as in `sim.summary`
MOST_MINUTES = 144
"""Minutes on one line; more are merged into their mean, with a band from the lowest minute to the highest."""


def plate(view: View) -> style.Plate | None:
    """Return the wrong answers over time; None when every answer was right."""
    points = [p for p in view.some_points(MOST_POINTS) if p.members and p.minutes("wrong").sum() > 0]
    if not points:
        return None
    title = _title(view, _most(points))
    caption = (
        "Left: wrong answers in each minute; the band reaches from the quietest minute to the busiest of those drawn "
        "as one point, the dashed line is the mean. Right: all wrong answers so far, and when they passed a round "
        "number. Numbers are those of the table, over seeds. No alert on latency or errors sees them: each was "
        "delivered as a success."
    )
    return style.Plate("wrong-answers", "Wrong answers", title, caption, partial(_draw, view, points, title))


def _most(points: list[Point]) -> Point:
    """Return the point with most wrong answers, which the title is about; only its numbers stand in the figure."""
    return max(points, key=lambda point: float(point.minutes("wrong").sum()))


def crossings(wrong: np.ndarray) -> list[tuple[int, float]]:
    """Return the two largest powers of ten that the sum of *wrong* (per minute) passes, and when, in minutes."""
    so_far = np.concatenate([[0], np.cumsum(wrong)])
    largest = int(np.log10(max(so_far[-1], 1)) + 1e-12)
    powers = [10**k for k in (largest - 1, largest) if k >= 1]
    return [(power, float(np.interp(power, so_far, np.arange(len(so_far))))) for power in powers]


def peak_hour(wrong: np.ndarray) -> tuple[float, int]:
    """Return the mean of *wrong* (per minute) over its busiest hour, and the minute at which that begins."""
    width = max(1, min(HOUR, len(wrong)))
    means = np.convolve(wrong, np.ones(width), "valid") / width
    return float(means.max()), int(np.argmax(means))


def _title(view: View, point: Point) -> str:
    wrong, requests = point.minutes("wrong"), point.minutes("requests")
    start = peak_hour(wrong)[1]
    # As the table has them, over seeds; the curves below are means over seeds, and flatter than any one of them.
    share, mean = (
        _known(point, name, otherwise)
        for name, otherwise in (
            ("wrong_share", wrong.sum() / max(requests.sum(), 1)),
            ("wrong_per_min_mean", wrong.mean()),
        )
    )
    text = f"{words.percent(share)} wrong is {_a_minute(mean)} wrong answers a minute on average, "
    if len(wrong) > HOUR:
        text += f"{_a_minute(_known(point, 'wrong_per_min_peak', peak_hour(wrong)[0]))} in the peak hour "
        text += f"(from {words.moment(60.0 * start, view.duration_s)}), "
    return words.at(point.label, f"{text}{words.number(round(_known(point, 'wrong', wrong.sum())))} in all")


def _known(point: Point, metric: str, otherwise: float) -> float:
    """Return the estimate of *metric* over seeds, or *otherwise* where a run has none."""
    value = point.metric(metric).value
    return value if np.isfinite(value) else otherwise


def _a_minute(rate: float) -> str:
    return words.number(round(rate) if rate >= 10 else rate)


def _draw(view: View, points: list[Point], title: str) -> "Figure":
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(2.7,), widths=(1, 1), sharex=True, sharey=False, head=0.36,
        gap=(0.75, 0.2), right=0.45,
    )  # fmt: skip
    rate, total = axes[0]
    unit_s, unit_name, ticks = style.time_scale(view.duration_s)
    for point, colour in zip(points, [style.WAITING] if len(points) == 1 else colours(points)):
        wrong = point.minutes("wrong")
        marked = point is _most(points)
        _rate(rate, point, 60 / unit_s, colour, marked)
        _total(total, wrong, 60 / unit_s, colour, view.duration_s, marked)
    for ax, name in ((rate, "Wrong answers per minute"), (total, "Wrong answers so far")):
        ax.set_title(name, size=10, weight="bold", loc="left", pad=8)
        style.from_zero([ax])
        ax.set_xlim(0, view.duration_s / unit_s)
        ax.set_xticks(ticks)
        ax.set_xlabel(unit_name)
        style.count_axis(ax.yaxis)
    if points[0].label:
        rate.legend(loc="best", handlelength=1.3)
    return figure


def _rate(ax: "Axes", point: Point, per_minute: float, colour: str, marked: bool) -> None:
    wrong = point.minutes("wrong")
    mean = _known(point, "wrong_per_min_mean", wrong.mean())
    step = max(1, -(-len(wrong) // MOST_MINUTES))
    starts = np.arange(0, len(wrong), step)
    sizes = np.diff(np.append(starts, len(wrong)))
    t = (starts + sizes / 2) * per_minute
    ax.fill_between(
        t, np.minimum.reduceat(wrong, starts), np.maximum.reduceat(wrong, starts), color=colour, alpha=0.2, lw=0
    )
    ax.plot(t, np.add.reduceat(wrong, starts) / sizes, color=colour, label=point.label, lw=1.3)
    ax.axhline(mean, color=colour, lw=1, ls=(0, (4, 3)))
    if not marked:
        return
    style.mark(ax, t[0], mean, f"mean {_a_minute(mean)}", colour, "right", size=8)
    if len(wrong) < 3 * HOUR:
        return  # the busiest hour is most of the run
    busiest, start = peak_hour(wrong)
    end = start + HOUR
    ax.plot([start * per_minute, end * per_minute], [busiest, busiest], color=style.INK, lw=2.5, zorder=5)
    peak = _known(point, "wrong_per_min_peak", busiest)
    style.mark(ax, end * per_minute, busiest, f"peak {_a_minute(peak)}", style.INK, "right", size=8)


def _total(ax: "Axes", wrong: np.ndarray, per_minute: float, colour: str, duration_s: float, marked: bool) -> None:
    ax.plot(np.arange(len(wrong) + 1) * per_minute, np.concatenate([[0], np.cumsum(wrong)]), color=colour)
    for power, minute in crossings(wrong) if marked else []:
        ax.plot(minute * per_minute, power, "o", ms=5, color=colour, mec="white", zorder=5)
        text = f"{power:,} by {words.moment(60 * minute, duration_s)}"
        early = minute < 0.5 * len(wrong)
        style.mark(ax, minute * per_minute, power, text, colour, "right" if early else "left")
