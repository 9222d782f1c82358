"""The tables of a plan: what was promised, what to buy next, what moves the answer, and which fleets were played."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.planning import headroom, labels
from sim.planning import moves as moving
from sim.planning.objective import Judged
from sim.planning.plan import Plan
from sim.planning.search import Verdict
from sim.report import words
from sim.report.printing import Beside

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST_ROWS = 24


def promises(verdict: Verdict) -> Beside:
    """Return every promise of a fleet in every condition: the median run, what the next one stays within, the bound."""
    rows, cells = [], []
    for condition in verdict.conditions:
        for found in condition.findings:
            rows.append(f"{found.bound.metric}, {condition.case}")
            cells.append([_value(found, value) for value in (found.typical, found.limit, found.bound.bound)])
    return _table(rows, ("median run", "next run within", "bound"), cells)


def _value(found: Judged, value: float) -> str:
    return words.quantity(found.bound.metric, value)


def _table(
    rows: Sequence[str], titles: Sequence[str], cells: Sequence[Sequence[str]], bold: Sequence[int] = ()
) -> Beside:
    columns = [(title, [row[k] for row in cells]) for k, title in enumerate(titles)]
    return Beside(rows, columns, dict.fromkeys(bold, "bold"))


def outlook(plan: Plan) -> Beside:
    """Return a row a time to last: the load by then, the cheapest fleet, and what it costs."""
    rows, cells = [], []
    for one in plan.outlook:
        rows.append(f"{one.months} months")
        if one.verdict is not None:
            fleet = one.verdict.fleet
            bought = [plan.space.words(fleet, short=True), str(fleet.gpus), price(fleet.cost)]
        else:
            far = one.factor > headroom.MOST_GROWN
            bought = ["too far to play: plan anew" if far else "none of these is enough", "–", "–"]
        cells.append([f"x {words.significant(one.factor)}", *bought])
    return _table(rows, ("load", "fleet", "GPUs", f"{plan.question.prices.currency}/h"), cells)


def moves(plan: Plan) -> list["RenderableType"]:
    """Return a row an end of each input: the fleet that is needed then, what it costs more, and the hardest promise."""
    if plan.best is None or not plan.moves:
        return []
    rows, cells = [], []
    for move in plan.moves:
        for side in move.sides:
            rows.append(f"{move.name} {side.end}")
            fleet = "none is enough" if side.fleet is None else plan.space.words(side.fleet, short=True)
            cells.append([fleet, _more(side.more), words.change(side.factor) if math.isfinite(side.factor) else "–"])
    hard, planned = moving.hardest(plan.best).metric, plan.space.words(plan.best.fleet)
    note = f"All else as planned, with the same users and luck. {hard} is that of {planned}, its hardest promise."
    return [_table(rows, ("fleet", f"{plan.question.prices.currency}/h", _heading(hard)), cells), note]


def _heading(metric: str) -> str:
    """Return what a column of *metric* is called: one that may go over several lines."""
    return metric.removeprefix("cohort.").replace(".", " ")


def _more(cost: float) -> str:
    if not math.isfinite(cost):
        return "–"
    return "same" if round(cost, 9) == 0 else f"{'+' if cost > 0 else '−'}{price(abs(cost))}"


def fleets(plan: Plan) -> Beside:
    """Return a row a fleet that was played, in the condition that it breaks or the hardest."""
    shown = frontier(plan)
    rows, cells = [], []
    for verdict in shown:
        condition = verdict.failed or verdict.conditions[0]
        each = math.nan if condition.label == labels.OVERLOADED else plan.money(verdict).million_tokens
        mark = "✓ chosen" if plan.best is verdict else "✓ kept" if verdict.kept else f"✗ {condition.case}"
        found = [_value(one, one.typical) for one in condition.findings]
        rows.append(plan.space.words(verdict.fleet, short=True))
        cells.append([
            str(verdict.fleet.gpus), price(verdict.fleet.cost), price(each), *found, condition.label, mark
        ])  # fmt: skip
    promised = [_heading(bound.metric) for bound in plan.question.bounds]
    titles = ("GPUs", f"{plan.question.prices.currency}/h", "per M tokens", *promised, "queue", "")
    return _table(rows, titles, cells, [k for k, one in enumerate(shown) if one is plan.best])


def frontier(plan: Plan) -> list[Verdict]:
    """Return the fleets worth a row, the cheapest first: those played, or the ones nearest to the answer's price."""
    played = sorted((one for one in plan.known if one.conditions), key=lambda one: one.fleet.cost)
    if len(played) <= MOST_ROWS:
        return played
    middle = plan.best.fleet.cost if plan.best else played[-1].fleet.cost
    near = sorted(played, key=lambda one: abs(math.log(one.fleet.cost / middle)) if one.fleet.cost and middle else 0)
    return sorted(near[:MOST_ROWS], key=lambda one: one.fleet.cost)


def price(amount: float) -> str:
    """Return an amount of money: ``6.00``, ``0.98``, ``1,240``, ``0.0031``."""
    if not math.isfinite(amount):
        return "–"
    if amount >= 1000:
        return f"{amount:,.0f}"
    return f"{amount:.2f}" if amount >= 0.1 or amount == 0 else words.significant(amount, 2)
