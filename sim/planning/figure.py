"""What a fleet costs against what its users wait for: every fleet that was played, by kind, and the bound."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sim import claims
from sim.planning.objective import Bound, Judged
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
FAR = 20.0
"""Times the median from which on what the next run stays within is as good as anything."""
MOST_NAMES = 10
NAME_SIZE = 7.0
LETTER, LINE, DOT, LIFT = 4.6, 9.0, 4.0, 3.0
"""Points: a bold letter and a line of names at that size, half a dot, and how far the promise stands above its line."""

Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in points."""


def plate(plan: Plan) -> style.Plate:
    """Return the figure of *plan*: one panel a promise, cost an hour against the promise's metric."""
    title = _title(plan)
    caption = (
        f"{plan.scenario.name}, {plan.origin}. A dot is a fleet that was played, in its hardest condition; from it a "
        "line goes to what its next run stays within, with the confidence asked for. Open dots break some promise. "
        f"Dashed: the bound. Not known: {plan.doubt.said[0]}. Prices: {plan.question.prices.source}."
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
    for verdict, found in _dots(plan, bound):
        colour, marker = looks[_kind(plan, verdict)]
        face = colour if verdict.kept else "white"
        if _has_line(found):
            ax.plot([verdict.fleet.cost] * 2, [found.typical, found.limit], color=colour, lw=1)
        size = 9 if verdict is plan.best else 5
        ax.plot(verdict.fleet.cost, found.typical, marker, ms=size, mfc=face, mec=colour, mew=1.2, clip_on=False)
    ax.axhline(bound.bound, color=style.INK, lw=1, ls="--")
    ax.set_xscale("log")
    ax.margins(x=0.14, y=0.1)  # room for names beside the outermost dots
    if log:
        ax.set_yscale("log")
        style.log_seconds(ax.yaxis)
    else:
        style.from_zero([ax])
    _money_axis(ax.xaxis)
    ax.set_xlabel(f"{plan.question.prices.currency} an hour")
    ax.set_title(words.metric_name(bound.metric), size=9, loc="left", color=style.QUIET)
    said = f"promised: {'at least' if bound.least else 'at most'} {words.quantity(bound.metric, bound.bound)}"
    ax.annotate(
        said, (1, bound.bound), xycoords=("axes fraction", "data"), xytext=(0, LIFT), textcoords="offset points",
        ha="right", va="bottom", size=7.5, color=style.INK,
    )  # fmt: skip
    _name_dots(ax, plan, bound, looks, said)


def _dots(plan: Plan, bound: Bound) -> list[tuple[Verdict, Judged]]:
    """Return the fleets that have a dot, and what they did to *bound*, those first that matter most to the answer."""
    found = []
    for verdict in plan.known:
        condition = verdict.failed or next(iter(verdict.conditions), None)
        judged = next((one for one in condition.findings if one.bound == bound), None) if condition else None
        if judged is not None and np.isfinite(judged.typical):
            found.append((verdict, judged))
    first = (plan.best, plan.below, plan.fewer)
    middle = plan.best.fleet.cost if plan.best else np.inf
    return sorted(found, key=lambda one: (one[0] not in first, not one[0].kept, abs(one[0].fleet.cost - middle)))


def _has_line(found: Judged) -> bool:
    """Return whether what the next run stays within is worth drawing."""
    return bool(np.isfinite(found.limit)) and found.limit < FAR * max(found.typical, 1e-9)


def _name_dots(ax: "Axes", plan: Plan, bound: Bound, looks: dict[str, tuple[str, str]], said: str) -> None:
    """Write beside at most `MOST_NAMES` dots which fleet they are, where names cover neither dots nor one another."""
    per_point = ax.figure.dpi / 72
    ax.get_xlim(), ax.get_ylim()  # limits are settled when somebody asks; places are those of the last ones
    dots = _dots(plan, bound)

    def place(cost: float, value: float) -> np.ndarray:
        return np.asarray(ax.transData.transform((cost, value))) / per_point

    at = {id(one): place(one.fleet.cost, found.typical) for one, found in dots}
    ends = [place(one.fleet.cost, found.limit if _has_line(found) else found.typical) for one, found in dots]
    (left, bottom), (right, top) = (np.asarray(ax.transAxes.transform((x, x))) / per_point for x in (0, 1))
    line = float(place(1, bound.bound)[1])
    taken = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in at.values()]
    taken += [(x - 1, min(y, end), x + 1, max(y, end)) for (x, y), (_, end) in zip(at.values(), ends)]
    taken.append((right - LETTER * len(said), line - 1, right, line + LIFT + LINE + 1))
    taken.append((left, line - 1, right, line + 1))
    named = 0
    for verdict, found in dots:
        name = plan.space.words(verdict.fleet, short=True)
        x, y = map(float, at[id(verdict)])
        boxes = {
            side: box for side, box in _around(x, y, LETTER * len(name)).items()
            if left <= box[0] and box[2] <= right and bottom <= box[1] and box[3] <= top
        }  # fmt: skip
        covered = {side: sum(_overlap(box, other) for other in taken) for side, box in boxes.items()}
        side = min(covered, key=lambda one: covered[one], default=None)
        if side is not None and (not covered[side] or verdict is plan.best):  # the chosen one has a name in any case
            style.mark(ax, verdict.fleet.cost, found.typical, name, looks[_kind(plan, verdict)][0], side, NAME_SIZE)
            taken.append(boxes[side])
            named += 1
        if named == MOST_NAMES:
            return


def _around(x: float, y: float, width: float) -> dict[str, Box]:
    """Return where a name so wide would stand beside a dot, by side as `sim.report.style.mark` calls it."""
    return {
        "right": (x + 7, y - LINE / 2, x + 7 + width, y + LINE / 2),
        "above": (x - 3, y + 7, x - 3 + width, y + 7 + LINE),
        "below": (x - 3, y - 7 - LINE, x - 3 + width, y - 7),
        "left": (x - 7 - width, y - LINE / 2, x - 7, y + LINE / 2),
    }


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


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
