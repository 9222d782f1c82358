"""The audit of alert rules: a table in a terminal, JSON, and the matrix of failures and rules as a figure."""

import math
from collections.abc import Sequence
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from sim.alerts.audit import Audit, Cell, Column
from sim.alerts.score import PAGING
from sim.report import printing, style, words
from sim.results import plain
from sim.theory.counted import at_most, poisson_rate, wilson
from sim.words import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

ALWAYS = 0.5
"""A rule that fires for more than half of the time without incidents says nothing when it fires."""

CAUGHT, PARTLY, MISSED, FALSE, QUIET, NOTHING = "#44aa99", "#ddcc77", "#cc6677", "#ee8866", "#eef1f3", "#ffffff"
ANYWAY = "#c3b1d1"
"""Of a rule that fired in an incident, as it does for more than half of the time elsewhere."""


def show(heading: str, audit: Audit, commands: Sequence[tuple[str, str]], file: IO[str]) -> None:
    """Print what all paging rules of each file did together, failure by failure, and then rule by rule."""
    from rich.text import Text

    top: list[RenderableType] = [Text(heading, style="bold"), *map(Text, answers(audit)), Text(), _together(audit)]
    printing.show([("", top), ("Rule by rule", [_each(audit)])], commands, file)


def answers(audit: Audit) -> list[str]:
    """Return in a sentence for each rule file what it caught, how soon, and how often it paged for nothing."""
    said = []
    for k, column in enumerate(audit.columns):
        if column.together:
            caught, incidents, median_s = total(audit, k)
            when = f", the median failure {words.seconds(median_s)} after users noticed" if caught else ""
            share = wilson(caught, incidents)
            of = f"{caught} of {count(incidents, 'incident')}{_worth(column)}"
            between = f" ({_percent(share.low)} to {_percent(share.high)})" if incidents else ""
            said.append(f"{column.rules}: {of} caught{between}{when}; {_false(audit, k)}.")
    return said


def headline(audit: Audit) -> str:
    """Return what every file caught, in one sentence."""
    parts = [(column, *total(audit, k)) for k, column in enumerate(audit.columns) if column.together]
    first, *others = [f"{column.rules} {caught} of {incidents}" for column, caught, incidents, _ in parts]
    name, number = first.split(" ", 1)
    more = f", {', '.join(others)}" if others else ""
    return f"{name} catches {number} incidents{_worth(parts[0][0])}{more}"


def _worth(column: Column) -> str:
    return " worth a page" if column.severity.lower() in PAGING else ""


def quiet(audit: Audit) -> str:
    """Return how every file behaves where no incident is, in one sentence."""
    healthy = [row for row in audit.rows if not row.incidents]
    if not healthy:
        return "Every failure that was played made an incident"
    said: list[str] = []
    for k, column in enumerate(audit.columns):
        if column.together:
            false, weeks, idle = _healthy(audit, k)
            firing = f" (firing {_percent(idle)} of the time)" if idle > ALWAYS else ""
            said.append(f"{column.rules} {count(false, 'false page') if not said else false}{firing}")
    weeks = _healthy(audit, 0)[1]
    none = f" (none seen: at most {words.significant(at_most(0, weeks), 2)} a week)"
    return f"In {_weeks(weeks)} without an incident: {', '.join(said)}{none}"


def total(audit: Audit, k: int) -> tuple[int, int, float]:
    """Return how many incidents of all failures column *k* caught, of how many, and the median of its rows' medians."""
    cells = [row.cells[k] for row in audit.rows]
    waits = sorted(cell.detection_s for cell in cells if not math.isnan(cell.detection_s))
    median_s = waits[len(waits) // 2] if waits else math.nan
    return sum(cell.caught for cell in cells), sum(cell.incidents for cell in cells), median_s


def _false(audit: Audit, k: int) -> str:
    false, weeks, idle = _healthy(audit, k)
    if not weeks:
        return "no healthy time was played"
    rate = poisson_rate(false, weeks)
    between = f"{words.significant(rate.low, 2)} to {words.significant(rate.high, 2)} a week"
    if not false:
        between = f"at most {words.significant(at_most(0, weeks), 2)} a week"
    often = f"{count(false, 'false page')} in {_weeks(weeks)} ({between})"
    return f"{often}, {_percent(idle)} of it firing" if idle > 0 else often


def _healthy(audit: Audit, k: int) -> tuple[int, float, float]:
    """Return the false pages of column *k* where no incident is, in how many weeks, and how much of it it fires."""
    cells = [row.cells[k] for row in audit.rows if not row.incidents]
    weeks = sum(cell.weeks for cell in cells)
    return sum(cell.false for cell in cells), weeks, sum(cell.idle * cell.weeks for cell in cells) / (weeks or 1.0)


def _weeks(weeks: float) -> str:
    return count(round(weeks), "week") if weeks >= 1 else words.seconds(weeks * 604_800)


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else "0%" if not share else f"{100 * share:.1f}%" if share < 0.1 else f"{share:.0%}"


def as_json(audit: Audit) -> dict[str, Any]:
    """Return everything for programs: fractions, seconds, null where nothing is known."""
    return plain(
        {
            "columns": [vars(column) for column in audit.columns],
            "rows": [
                {
                    "failure": row.name,
                    "plays": row.plays,
                    "incidents": row.incidents,
                    "cells": [{**vars(cell), "false_per_week": cell.false_per_week} for cell in row.cells],
                }
                for row in audit.rows
            ],
        }
    )


def idle(audit: Audit, k: int) -> float:
    """Return the share of all time without incidents in which column *k* fired; nan where there was none."""
    known = [row.cells[k] for row in audit.rows if not math.isnan(row.cells[k].idle)]
    weeks = sum(cell.weeks for cell in known)
    return sum(cell.idle * cell.weeks for cell in known) / weeks if weeks else math.nan


def on_anyway(audit: Audit, k: int, cell: Cell) -> bool:
    """Say whether rule *k* fired in the incidents of *cell*, but is on for most of the time without one: no news."""
    much = any(share > ALWAYS for share in (cell.idle, idle(audit, k)))
    return cell.caught > 0 and much and not audit.columns[k].together


def said(cell: Cell, anyway: bool = False) -> str:
    """Return what a rule did in one failure, in a few letters; *anyway*: it is on most of the time elsewhere."""
    if cell.silent:
        return "silent"
    if anyway:
        return "on anyway"
    if not cell.incidents:
        if cell.idle > ALWAYS:
            return "always on"
        if cell.found and not cell.false:
            return "a ticket"
        if not cell.false:
            return ""
        return f"{words.significant(cell.false_per_week, 2)}/week" if cell.weeks >= 1 else f"{cell.false} false"
    if not cell.caught:
        return "always on" if cell.idle > ALWAYS else "missed"
    when = _short(cell.detection_s)
    return when if cell.caught == cell.incidents else f"{cell.caught}/{cell.incidents}  {when}"


def _short(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def colour(cell: Cell, anyway: bool = False) -> str:
    """Return how a cell looks."""
    if cell.silent:
        return NOTHING
    if anyway:
        return ANYWAY
    if not cell.incidents:
        return FALSE if cell.false or cell.idle > ALWAYS else QUIET
    return CAUGHT if cell.caught == cell.incidents else PARTLY if cell.caught else MISSED


def _together(audit: Audit) -> "RenderableType":
    shown = [k for k, column in enumerate(audit.columns) if column.together]
    return _table(audit, [(audit.columns[k].rules, k) for k in shown])


def _each(audit: Audit) -> "RenderableType":
    """Return one line a rule: how many failures it caught, and how it behaves when there is none."""
    rows = []
    for k, column in enumerate(audit.columns):
        if column.together:
            continue
        caught, incidents, median_s = total(audit, k)
        cells = [row.cells[k] for row in audit.rows]
        silent = all(cell.silent for cell in cells)
        rows.append([
            f"{column.rules}: {column.name}",
            column.severity,
            "silent" if silent else f"{caught} of {incidents}",
            _short(median_s) if caught else "–",
            str(sum(cell.false for cell in cells)),
            _percent(idle(audit, k)),
        ])  # fmt: skip
    head = ("rules: rule", "severity", "caught", "after", "false pages", "on for nothing")
    return printing.table(head, rows, texts=(1,))


def _table(audit: Audit, shown: Sequence[tuple[str, int]]) -> "RenderableType":
    rows = []
    for row in audit.rows:
        pages = max((row.cells[k].incidents for _, k in shown), default=0)
        worth = f"{row.incidents} in {row.plays}" + (
            f" ({row.incidents - pages} tickets)" if pages < row.incidents else ""
        )
        cells = [(row.cells[k], on_anyway(audit, k, row.cells[k])) for _, k in shown]
        rows.append([row.name, worth, *(said(cell, anyway) or "–" for cell, anyway in cells)])
    return printing.table(("failure", "incidents", *(title for title, _ in shown)), rows)


def plate(title: str, audit: Audit, caption: str) -> style.Plate:
    """Return the matrix: a row for each failure, a column for each rule, and one for each file together."""
    return style.Plate("audit", "Alert audit", title, caption, partial(_draw, audit, title, caption))


def _draw(audit: Audit, title: str, caption: str) -> "Figure":
    shown = [*enumerate(audit.columns)]
    files = list(dict.fromkeys(column.rules for _, column in shown))
    many = len(shown) > 14
    if many:  # rule by rule for the first file only
        shown = [(k, column) for k, column in shown if column.together or column.rules == files[0]]
    figure, axes = style.sheet(
        title, quiet(audit) + ".", caption, [0.24 * len(audit.rows) + 0.1], head=0.85, side=1.45, right=0.35
    )
    ax: Axes = axes[0, 0]
    ax.set_xlim(0, len(shown))
    ax.set_ylim(len(audit.rows), 0)
    for y, row in enumerate(audit.rows):
        for x, (k, _) in enumerate(shown):
            _cell(ax, x, y, row.cells[k], on_anyway(audit, k, row.cells[k]))
    ax.set_yticks([y + 0.5 for y in range(len(audit.rows))], [row.name.replace("_", " ") for row in audit.rows])
    ax.xaxis.tick_top()
    ax.set_xticks([x + 0.5 for x in range(len(shown))], [_head(column) for _, column in shown], rotation=32, ha="left")
    for label, (_, column) in zip(ax.get_xticklabels(), shown):
        label.set_fontweight("bold" if column.together else "normal")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for side in ax.spines.values():
        side.set_visible(False)
    for x in range(1, len(shown)):
        if shown[x][1].rules != shown[x - 1][1].rules:
            ax.axvline(x, color=style.INK, linewidth=1.2, ymax=1.0)
    return figure


def _cell(ax: "Axes", x: int, y: int, cell: Cell, anyway: bool) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x + 0.03, y + 0.05), 0.94, 0.9, facecolor=colour(cell, anyway), linewidth=0))
    ax.text(x + 0.5, y + 0.52, said(cell, anyway), ha="center", va="center", fontsize=7.5, color=style.INK)


def _head(column: Column) -> str:
    return (
        f"{'any page of' if _worth(column) else 'any of'}\n{column.rules}"
        if column.together
        else column.name.removeprefix("LLM")
    )
