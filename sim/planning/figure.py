"""What a fleet costs against what its users wait for: every fleet that was played, by kind, and the bound."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sim import claims
from sim.planning.objective import Bound
from sim.planning.plan import Plan
from sim.planning.search import Verdict
from sim.planning.tables import price
from sim.report import style, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BROKEN = "#9aa3ad"
MOST_PANELS = 3
MARKERS = ("o", "s", "^", "D")
"""Of kinds of fleets, when there are more of them than colours."""


def plate(plan: Plan) -> style.Plate:
    """Return the figure of *plan*: one panel a promise, cost an hour against the promise's metric."""
    title = _title(plan)
    caption = (
        f"{plan.scenario.name}. A dot is a fleet that was played, in its hardest condition; from it a line goes to "
        "what its next run stays within, with the confidence asked for. Open dots break some promise. Dashed: the "
        f"bound. Not known: {plan.doubt.said[0]}. Prices: {plan.question.prices.source}."
    )
    return style.Plate("plan", "Cost against latency", title, caption, partial(_draw, plan, title, caption))


def _title(plan: Plan) -> str:
    currency = plan.question.prices.currency
    if plan.best is None:
        return "No fleet that may be chosen keeps every promise"
    cost = f"{price(plan.best.fleet.cost)} {currency} an hour"
    return f"{plan.space.words(plan.best.fleet)} keeps every promise, for {cost}" + (
        ", and nothing cheaper does" if plan.below is not None else ""
    )


def _draw(plan: Plan, title: str, caption: str) -> "Figure":
    bounds = _telling(plan)[:MOST_PANELS]
    figure, axes = style.sheet(
        title, "", caption, heights=(3.2,), widths=(1,) * len(bounds), sharey=False, gap=(0.75, 0.2), head=0.42
    )
    kinds = list(dict.fromkeys(_kind(plan, one) for one in plan.known if one.conditions))
    n = len(style.SERIES)
    looks = {kind: (style.SERIES[i % n], MARKERS[i // n % len(MARKERS)]) for i, kind in enumerate(kinds)}
    for ax, bound in zip(axes[0], bounds):
        _panel(ax, plan, bound, looks)
    style.legend(figure, _handles(looks))
    return figure


def _telling(plan: Plan) -> list[Bound]:
    """Return the promises about which fleets differ; the first of all where they do not."""
    seen: dict[Bound, set[float]] = {bound: set() for bound in plan.question.bounds}
    for verdict in plan.known:
        for condition in verdict.conditions:
            for found in condition.findings:
                seen[found.bound] |= {value for value in found.values if np.isfinite(value)}
    return [bound for bound, values in seen.items() if len(values) > 1] or list(plan.question.bounds[:1])


def _kind(plan: Plan, verdict: Verdict) -> str:
    kept = [str(verdict.fleet.values[i]) for i in plan.space.kinds]
    return ", ".join(kept) or next(iter(plan.scenario.fleet.pools.values())).hardware or "fleet"


def _panel(ax: "Axes", plan: Plan, bound: Bound, looks: dict[str, tuple[str, str]]) -> None:
    log = claims.is_time(bound.metric)
    for verdict in plan.known:
        for condition in [verdict.failed or next(iter(verdict.conditions), None)]:
            if condition is None:
                continue
            found = next(one for one in condition.findings if one.bound == bound)
            if not np.isfinite(found.typical):
                continue
            colour, marker = looks[_kind(plan, verdict)]
            face = colour if verdict.kept else "white"
            if np.isfinite(found.limit) and found.limit < 20 * max(found.typical, 1e-9):
                ax.plot([verdict.fleet.cost] * 2, [found.typical, found.limit], color=colour, lw=1)
            size = 9 if verdict is plan.best else 5
            ax.plot(verdict.fleet.cost, found.typical, marker, ms=size, mfc=face, mec=colour, mew=1.2)
    ax.axhline(bound.bound, color=style.INK, lw=1, ls="--")
    ax.set_xscale("log")
    if log:
        ax.set_yscale("log")
        style.log_seconds(ax.yaxis)
    else:
        style.from_zero([ax])
    _money_axis(ax.xaxis)
    ax.set_xlabel(f"{plan.question.prices.currency} an hour")
    ax.set_title(f"{words.metric_name(bound.metric)}, bound {words.quantity(bound.metric, bound.bound)}", size=9,
                 loc="left", color=style.QUIET)  # fmt: skip


def _money_axis(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_locator(NullLocator())


def _handles(looks: dict[str, tuple[str, str]]) -> list[Any]:
    from matplotlib.lines import Line2D

    dots = [
        Line2D([], [], marker=marker, ls="", ms=5, color=colour, label=f"{kind}, kept")
        for kind, (colour, marker) in looks.items()
    ]
    broken = Line2D([], [], marker="o", ls="", ms=5, mfc="white", mec=BROKEN, mew=1.2, label="open: a promise broken")
    return [*dots, broken]
