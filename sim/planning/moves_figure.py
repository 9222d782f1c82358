"""What moves the answer, drawn: of each input a bar of cost, and one of the promise that is hardest to keep."""

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from sim.planning.moves import hardest
from sim.planning.plan import Plan
from sim.planning.tables import price
from sim.report import style, words
from sim.words import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {True: style.SERIES[0], False: style.SERIES[1]}
"""Of the ends of an input that make things better, or worse."""
ROW_INCHES = 0.36
NAME_SIZE = 7.0
UNSEEN = 0.005
"""Change from which on a bar has a name."""
ROOM = 0.5
"""Share of an axis that is left for the words beside its bars, on either side."""


def plate(plan: Plan) -> style.Plate:
    """Return the figure of what moves the answer of *plan*, which has one."""
    assert plan.best is not None
    best, promise = plan.space.words(plan.best.fleet), words.metric_name(hardest(plan.best).metric)
    most, still = plan.moves[0].name, plan.moves[0].swing[0] == 0
    title = f"The answer hangs most on {most}" if not still else f"No input moves the answer; its margin: {most} most"
    caption = (
        f"{plan.scenario.name}, {plan.origin}, planned with {best}. One input at a time, all else as planned, with the "
        "same users and luck. Left: an hour of the fleet of the same kind that is needed then (none: none is enough). "
        f"Right: what becomes of {promise}, the hardest promise of the planned fleet: median over runs with equal luck."
    )
    return style.Plate("moves", "What moves the answer", title, caption, partial(_draw, plan, title, caption))


def _draw(plan: Plan, title: str, caption: str) -> "Figure":
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    assert plan.best is not None
    figure, ((left, right),) = style.sheet(
        title, "", caption, (ROW_INCHES * len(plan.moves) + 0.3,), widths=(1, 1), sharey=True, sharex=False,
        gap=(0.3, 0.2), head=0.05, side=1.9,
    )  # fmt: skip
    cost, bound = plan.best.fleet.cost, hardest(plan.best)
    far = max([cost * 1.3, *(cost + one.more for move in plan.moves for one in move.sides if math.isfinite(one.more))])
    for k, move in enumerate(plan.moves):
        costs, factors = {}, {}
        for one in move.sides:
            end = f"{one.end}: " if len(move.sides) > 1 else ""
            gpus = count(one.fleet.gpus, "GPU") if one.fleet else "none"
            said = one.end if one.fleet and one.fleet.gpus == plan.best.fleet.gpus else f"{end}{gpus}"
            costs[said] = cost + one.more if one.fleet else far
            if one.factor > 0:
                factors[f"{end}{words.change(one.factor)}"] = one.factor
        _bars(left, k, cost, costs)
        _bars(right, k, 1.0, factors, bound.least)
    left.axvline(cost, color=style.INK, lw=1)
    right.axvline(1.0, color=style.INK, lw=1)
    alone = [f" {move.sides[0].end}" if len(move.sides) == 1 else "" for move in plan.moves]
    left.set_yticks(range(len(plan.moves)), [f"{move.name}{end}" for move, end in zip(plan.moves, alone)])
    left.invert_yaxis()
    left.set_xlabel(f"{plan.question.prices.currency} an hour; planned: {price(cost)}")
    right.set_xlabel(f"{words.metric_name(bound.metric)}, times as planned")
    right.set_xscale("log")
    low, high = right.dataLim.intervalx
    ticks = (
        (1, 1.1, 1.2, 1.3, 1.5, 2, 3, 5, 7, 8, 9)
        if high / low < 2
        else (1, 1.5, 2, 3, 5, 7)
        if high / low < 20
        else (1, 3)
    )
    right.xaxis.set_major_locator(LogLocator(subs=ticks, numticks=12))
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    right.xaxis.set_minor_locator(NullLocator())
    for ax in (left, right):
        ax.grid(visible=False, axis="y")
        ax.margins(x=ROOM)
    return figure


def _bars(ax: "Axes", row: int, planned: float, values: Mapping[str, float], least: bool = False) -> None:
    """Draw from *planned* to each of *values* in the row of an input, and write what it is called beside it."""
    for text, value in values.items():
        better = (value < planned) != least
        ax.barh(row, value - planned, left=planned, height=0.6, color=COLOURS[better], alpha=0.85)
        if abs(value / planned - 1) > UNSEEN:
            style.mark(ax, value, row, text, style.QUIET, "left" if value < planned else "right", NAME_SIZE)
