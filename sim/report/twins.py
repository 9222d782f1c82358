"""After the faults: a run beside its control run, which meets the same users and luck while nothing breaks."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sim import metastability
from sim.report import happened, style, words
from sim.report.timeline import over_seeds, typical
from sim.report.view import Estimate, Point, View
from sim.summary import MINUTE_S

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sim.results import Member

TOPIC = "After the faults"
MOST_COLUMNS = 4
LIMIT: Any = {"color": style.QUIET, "lw": 1, "ls": (0, (4, 3))}
LINES = {"with the faults": style.SERIES[1], "control run, without them": style.SERIES[0]}


def sentences(view: View) -> list[str]:
    """Return for each point what became of it after the faults; nothing where no control run was played."""
    return [words.at(point.label, sentence(point)) for point in view.points if point.verdict]


def sentence(point: Point) -> str:
    """Return what became of *point* after the faults, with its interval over seeds."""
    found: Mapping[str, Any] = point.verdict or {}
    ten_s = metastability.RELAXATIONS * words.to_float(found["relaxation_s"])
    ten = f"ten relaxation times ({words.seconds(ten_s, 2)})"
    seeds, back = found["seeds"], found["back"]
    after = _after(point.metric("recovery_s"))
    match found["verdict"]:
        case "recovered":
            text = f"recovered: goodput is that of the control run again {after}"
            text += f", within {ten}" * (point.metric("recovery_s").value > 0)
        case "vulnerable" if back == seeds:
            text = f"vulnerable: it comes back by itself, but only {after}, later than {ten}"
        case "vulnerable":
            text = f"vulnerable: {seeds - back} of {seeds} seeds have not come back by the end of the run"
        case "metastable":
            kept = point.metric("goodput_kept")
            share = words.interval("goodput_kept", kept.value, kept.low, kept.high, kept.is_range)
            text = (
                f"metastable: nothing is broken any more, and yet goodput is only {share} of the control run's "
                f"from {ten} after the last fault to the end"
            )
        case "overloaded":
            good = words.percent(words.to_float(found["control_good"]))
            text = (
                f"no verdict: the control run, without any fault, is not well either ({good} of its answers are good)"
            )
        case _:
            text = f"no verdict: too little time is left after the last fault, for {ten}; play a longer run"
    return text + f" (provisional: {seeds} of the {metastability.FEW_SEEDS} seeds that it takes)" * found["provisional"]


def _after(recovery: Estimate) -> str:
    if recovery.value == 0 and not recovery.high > 0:
        return "as soon as the last fault is over"
    between = words.interval("recovery_s", recovery.value, recovery.low, recovery.high, recovery.is_range)
    return f"{between} after the last fault is over"


def plate(view: View) -> style.Plate | None:
    """Return goodput and attempts of both twins over time; None where no control run was played."""
    points = [point for point in view.some_points(MOST_COLUMNS) if point.verdict and point.controls]
    if not points:
        return None
    told = min(points, key=_gravest)
    title = words.at(told.label, sentence(told))
    bounds = _bounds(view)
    within = f" (right, and within the SLO: {', '.join(bounds)})" if bounds else ""
    caption = (
        f"Above: {_answers(view)}{within} by the minute of asking. Below: attempts a second by the minute "
        "of sending, retries and second copies included. The control run meets the same users with the same luck, "
        "and nothing breaks. Lines are the mean over seeds, bands all of them. Dashed: ten relaxation times after the "
        "last fault, by when a service that only drains its backlog is back."
    )
    return style.Plate("control", "With and without the faults", title, caption, partial(_draw, view, points, title))


def _bounds(view: View) -> list[str]:
    """Return the metrics whose bounds in the SLO an answer itself keeps or breaks."""
    return [name for name in view.targets if name.partition("_")[0] in ("ttft", "e2e")]


def _answers(view: View) -> str:
    """Return what the answers are called that count: without a bound on their time nobody knows which are good."""
    return "good answers a second" if _bounds(view) else "right answers a second"


def _gravest(point: Point) -> tuple[int, float]:
    """Return what sorts points from the gravest verdict to none, and among equals from the latest recovery on."""
    order = ("metastable", "vulnerable", "recovered")
    word = (point.verdict or {}).get("verdict")
    return (order.index(word) if word in order else len(order)), -np.nan_to_num(point.metric("recovery_s").value)


def _draw(view: View, points: list[Point], title: str) -> "Figure":
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    labels = [point.label for point in points]
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(1.7, 1.4), widths=(1,) * len(points),
        head=style.LEGEND_ROW + style.column_head(labels), gap=(0.22, 0.2),
    )  # fmt: skip
    unit_s, unit_name, ticks = style.time_scale(view.duration_s)
    for column, label, point in zip(axes.T, style.column_titles(labels), points):
        _column(column, view, point, unit_s)
        column[0].set_title(label, size=10, weight="bold", loc="left", pad=6)
        column[-1].set_xlim(0, view.duration_s / unit_s)
        column[-1].set_xticks(ticks)
        column[-1].set_xlabel(unit_name)
    for row, name in zip(axes, (_answers(view), "attempts a second")):
        row[0].set_ylabel(name)
        style.from_zero(row)
        style.count_axis(row[0].yaxis)
    handles: list[Any] = [Line2D([], [], color=colour, label=name) for name, colour in LINES.items()]
    handles.append(Patch(color=happened.FAULT, label="something is broken"))
    handles.append(Line2D([], [], **LIMIT, label="ten relaxation times later"))
    style.legend(figure, handles)
    return figure


def _column(column: np.ndarray, view: View, point: Point, unit_s: float) -> None:
    """Draw one point: goodput above attempts, both twins, with the faults behind them."""
    events = point.members[min(typical(point), len(point.members) - 1)].events()
    happened.shade(column, happened.spans(events, view.duration_s), unit_s)
    found: Mapping[str, Any] = point.verdict or {}
    ten_s = metastability.RELAXATIONS * words.to_float(found["relaxation_s"])
    for members, colour in zip((point.controls, point.members), reversed(LINES.values())):
        for ax, rows in zip(column, zip(*(_by_minute(member, view) for member in members))):
            _line(ax, np.array(rows), colour, view.duration_s, unit_s)
    for ax in column:
        if np.isfinite(ten_s) and found["faults_end_s"] + ten_s < view.duration_s:
            ax.axvline((found["faults_end_s"] + ten_s) / unit_s, **LIMIT)


def _by_minute(member: "Member", view: View) -> tuple[np.ndarray, np.ndarray]:
    """Return good answers and attempts by minute."""
    histograms = member.histograms()
    good = metastability.good_by_minute(histograms, view.targets, view.duration_s)
    return good, histograms["minute_attempts"].astype(float)


def _line(ax: "Axes", rows: np.ndarray, colour: str, duration_s: float, unit_s: float) -> None:
    edges_s = np.minimum(np.arange(rows.shape[1] + 1) * MINUTE_S, duration_s)
    low, middle, high = over_seeds(rows / np.diff(edges_s), "mean")
    t = (edges_s[1:] + edges_s[:-1]) / 2 / unit_s
    if len(rows) > 1:
        ax.fill_between(t, low, high, color=colour, alpha=0.15, lw=0)
    ax.plot(t, middle, color=colour)
