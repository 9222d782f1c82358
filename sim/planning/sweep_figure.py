"""A sweep drawn: a metric a row, against the setting with most values, in colours and columns of the next ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.planning.labels import OVERLOADED
from sim.planning.sweep import Sweep
from sim.planning.sweep_table import assumptions, estimate, heading, labels, value
from sim.report import style, words
from sim.units import is_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLOURS = len(style.SERIES)
MOST_COLUMNS = 4
MOST_TICKS = 8
ROW_INCHES = 1.55
SMALL = 0.05
MOST_LINES = 3
"""Assumptions below the figure; that step times are uncalibrated is always among them, all are in the terminal."""


def write(sweep: Sweep, metrics: Sequence[str]) -> Path:
    """Draw *metrics* of *sweep* into its ``figures/sweep.png``, and return that."""
    path = sweep.path / "figures" / "sweep.png"
    path.parent.mkdir(exist_ok=True)
    axes = facets(sweep)
    title = f"{sweep.scenario.name}: {words.listing([words.metric_name(metric) for metric in metrics])}"
    caption = _small_print(sweep, axes)
    style.save(
        style.Plate("sweep", "The sweep", title, caption, lambda: _draw(sweep, metrics, axes, title, caption)), path
    )
    return path


def facets(sweep: Sweep) -> list[str]:
    """Return the varied settings in the order in which they are drawn: x, colours, columns, and those left out.

    x is the one with most values of those that are numbers, the others follow by how many values they have.
    """
    vary = sweep.scenario.vary
    by_length = sorted(vary, key=lambda key: -len(vary[key]))
    x = next((key for key in by_length if _numeric(vary[key])), by_length[0])
    return [x, *(key for key in by_length if key != x)]


def spread(values: Sequence[Any], most: int) -> list[Any]:
    """Return at most *most* of *values*, the first and the last among them, evenly spread."""
    if len(values) <= most:
        return list(values)
    return [values[k] for k in np.linspace(0, len(values) - 1, most).round().astype(int)]


def _numeric(values: Sequence[Any]) -> bool:
    return all(map(is_number, values))


def _draw(sweep: Sweep, metrics: Sequence[str], keys: Sequence[str], title: str, caption: str) -> "Figure":
    vary = sweep.scenario.vary
    colours = spread(vary[keys[1]], MOST_COLOURS) if len(keys) > 1 else [None]
    columns = spread(vary[keys[2]], MOST_COLUMNS) if len(keys) > 2 else [None]
    figure, axes = style.sheet(
        title, "", caption, [ROW_INCHES] * len(metrics), widths=(1,) * len(columns), gap=(0.25, 0.42),
        head=0.62 if len(keys) > 1 else 0.4,
    )  # fmt: skip
    fixed = {key: vary[key][0] for key in keys[3:]}
    for row, metric in enumerate(metrics):
        for column, facet in enumerate(columns):
            for colour, line in zip(style.SERIES, colours):
                at = fixed | dict(zip(keys[1:3], (line, facet)))
                _line(axes[row][column], sweep, metric, keys[0], at, colour)
            name = words.metric_name(metric)
            told = f"{heading(keys[2], keys)} {value({keys[2]: facet}, keys[2])}" if len(keys) > 2 else ""
            axes[row][column].set_title(
                f"{name}, {told}" if told and row == 0 else name, size=9, weight="bold", loc="left", pad=5
            )
        _look(axes[row], metric)
    ticks = spread(range(len(vary[keys[0]])), MOST_TICKS)
    numeric = _numeric(vary[keys[0]])
    for ax in axes[-1]:
        ax.set_xlabel(words.axis_name(keys[0]))
        names = [value({"": vary[keys[0]][k]}, "") for k in ticks]
        ax.set_xticks([vary[keys[0]][k] for k in ticks] if numeric else ticks, names)
    if len(keys) > 1:
        style.legend(figure, _handles(keys, colours))
    return figure


def _line(ax: "Axes", sweep: Sweep, metric: str, x: str, at: dict[str, Any], colour: str) -> None:
    """Draw *metric* against *x* where the other settings are as *at* says, with its interval over seeds."""
    chosen = [k for k, (settings, _) in enumerate(sweep.points) if at.items() <= settings.items()]
    where = [sweep.points[k][0][x] for k in chosen]
    places = np.array(where if _numeric(where) else range(len(where)), float)
    found = [estimate(sweep, k, metric) for k in chosen]
    values, low, high = (np.array([one[name] for one in found]) for name in ("estimate", "low", "high"))
    order = np.argsort(places)
    places, values, low, high = places[order], values[order], low[order], high[order]
    ax.plot(places, values, "o-", ms=3.5, color=colour, mec="white", mew=0.5, zorder=4)
    over = np.array([OVERLOADED in labels(sweep, k) for k in chosen], bool)[order]
    ax.plot(places[over], values[over], "o", ms=4.5, mfc="white", mec=colour, mew=1.2, zorder=5)
    ax.fill_between(places, low, high, where=np.isfinite(low) & np.isfinite(high), color=colour, alpha=0.18, lw=0)


def _look(axes: Sequence["Axes"], metric: str) -> None:
    """Let the axes of one row say the unit of *metric*: times on a logarithmic scale, everything else from zero."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for ax in axes for line in ax.get_lines()])
    if words.is_time(metric) and (drawn[np.isfinite(drawn)] > 0).any():
        axes[0].set_yscale("log")
        style.log_seconds(axes[0].yaxis)
        return
    style.from_zero(axes)
    if words.quantity(metric, 0.5) == words.percent(0.5):
        style.percent_axis(axes[0].yaxis)
        if axes[0].get_ylim()[1] < SMALL:
            axes[0].yaxis.set_major_formatter(lambda share, _: words.percent(share))
    else:
        style.count_axis(axes[0].yaxis)


def _handles(keys: Sequence[str], colours: Sequence[Any]) -> list[Any]:
    from matplotlib.lines import Line2D

    name = heading(keys[1], keys)
    return [
        Line2D([], [], color=colour, marker="o", label=f"{name} {value({name: one}, name)}")
        for colour, one in zip(style.SERIES, colours)
    ]


def _small_print(sweep: Sweep, keys: Sequence[str]) -> str:
    """Return what a reader must know: what bands are, what is not drawn, and what the numbers rest on."""
    vary = sweep.scenario.vary
    told = []
    if len(sweep.seeds) == 2:
        told.append("Lines join the means of 2 seeds, bands reach from one to the other.")
    elif len(sweep.seeds) > 2:
        told.append(f"Lines join estimates over {len(sweep.seeds)} seeds, bands are their 95% intervals.")
    for key, most in zip(keys[1:3], (MOST_COLOURS, MOST_COLUMNS)):
        if len(vary[key]) > most:
            told.append(f"{most} of {len(vary[key])} values of {heading(key, keys)} are drawn.")
    told += [f"Drawn at {heading(key, keys)} {value({key: vary[key][0]}, key)}." for key in keys[3:]]
    if not all(row["metrics"] for row in sweep.kept.values()):
        told.append("A point whose backlog outgrew every bound has no mark.")
    if any(OVERLOADED in labels(sweep, k) for k in range(len(sweep.points))):
        told.append("Open marks: overloaded.")
    lines = assumptions(sweep)
    lines = [line for k, line in enumerate(lines) if k < MOST_LINES or "uncalibrated" in line.lower()]
    return " ".join([*told, *(f"{line[0].upper()}{line[1:]}." for line in lines)])
