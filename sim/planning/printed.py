"""A plan as a person reads it: the answer first, then why not less, how far it reaches, and what it rests on."""

import math
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from sim.planning import tables
from sim.planning.objective import Bound
from sim.planning.plan import Plan
from sim.planning.reasons import Reason
from sim.planning.search import Condition, Verdict
from sim.planning.tables import price
from sim.report import printing, words
from sim.words import count

if TYPE_CHECKING:
    from rich.console import RenderableType

MONTH_S = 30.4375 * 86400.0


def show(plan: Plan, commands: Sequence[tuple[str, str]], file: IO[str]) -> None:
    """Print *plan* to *file*, then *commands* worth typing next."""
    blocks: list[printing.Block] = [("", [heading(plan)]), ("Answer", answer(plan))]
    if plan.best is not None:
        blocks.append(("Its promises", [tables.promises(plan.best)]))
        blocks.append(("Why not less", why_not_less(plan)))
        blocks.append(("How far it reaches", reach(plan)))
        blocks.append(("To last longer", [tables.outlook(plan)] if plan.outlook else []))
        blocks.append(("What moves the answer most (in replicas of the same kind)", tables.moves(plan)))
    blocks.append(("Fleets that were played, in the condition that they break, or the hardest", [tables.fleets(plan)]))
    blocks.append(("What this rests on", [f"· {note}" for note in plan.assumptions]))
    printing.show(blocks, commands, file)


def heading(plan: Plan) -> str:
    """Return what was asked, in a line or two."""
    asked = plan.question
    conditions = words.listing([case.name for case in plan.cases])
    promises = ", ".join(bound.text for bound in asked.bounds)
    of = count(len(plan.space.fleets), "fleet")
    looked = f"the cheapest of {of} that keeps" if plan.best else f"none of {of} keeps"
    return (
        f"{plan.scenario.name}: {looked} {promises}\n"
        f"{plan.origin}; {conditions}; kept means that the next run keeps it too, "
        f"with {words.percent(asked.confidence)} confidence, over users and step times; {count(plan.runs, 'run')}"
    )


def answer(plan: Plan) -> list["RenderableType"]:
    """Return the answer in a sentence or two."""
    from rich.text import Text

    currency = plan.question.prices.currency
    if plan.best is None:
        return [Text(line) for line in _nobody(plan)]
    money = plan.money(plan.best)
    said = Text.assemble((plan.space.words(plan.best.fleet), "bold"), f": {count(plan.best.fleet.gpus, 'GPU')}, ")
    said.append(f"{price(money.hour)} {currency} an hour")
    each = f"{price(money.million_tokens)} {currency} for a million output tokens"
    bounds = [bound for bound in plan.question.bounds if bound.of_an_answer]
    within = words.listing([f"{words.metric_name(one.metric).split()[0]} within {_bound(one)}" for one in bounds])
    thousand, which = (money.thousand_good, f"good answers ({within})") if within else (money.thousand_right, "answers")
    if not within and plan.scenario.quality is not None:
        which = "right answers"
    each += f", {price(thousand)} {currency} for a thousand {which}, at the load that was played."
    warning = "OVERLOADED: it keeps these promises while its queue grows; promise something of ttft_p99 or errors too."
    return [said, Text(each), *([Text(warning, "bold")] if plan.best.overloaded else [])]


def _bound(bound: Bound) -> str:
    return words.quantity(bound.metric, bound.bound)


def _nobody(plan: Plan) -> list[str]:
    """Return that no fleet keeps the promises, what forbids it, and the best that can be had."""
    assert plan.nearest is not None  # some fleet was played, and broke a promise
    reason = plan.reason(plan.nearest)
    best = plan.space.words(plan.nearest.fleet)
    what = words.quantity(reason.bound.metric, reason.typical)
    if reason.bound.excess(reason.typical) <= 1:
        nearest = f"The nearest is {best}, {reason.case}: {sentence(reason)}"
        return [f"No fleet keeps {reason.bound.text} surely enough. {nearest}", _because(reason)]
    return [
        f"No fleet keeps {reason.bound.text}. The best that can be had is {what}, with {best}.",
        _because(reason),
    ]


def why_not_less(plan: Plan) -> list["RenderableType"]:
    """Return for each cheaper fleet that was played for it why it fails."""
    lines: list[RenderableType] = []
    for verdict in (plan.below, plan.fewer):
        if verdict is None:
            continue
        named = f"{plan.space.words(verdict.fleet)} ({price(verdict.fleet.cost)} {plan.question.prices.currency}/h)"
        if verdict.refused:
            lines.append(f"{named}: {verdict.refused}.")
            continue
        reason = plan.reason(verdict)
        lines.append(f"{named} {reason.case}: {sentence(reason)} {_because(reason)}".rstrip())
    return lines or ["There is no cheaper fleet to choose."]


def sentence(reason: Reason) -> str:
    """Return which promise fails and by how much."""
    metric, bound = reason.bound.metric, reason.bound
    if reason.overloaded:
        return f"{bound.metric} has no value; {reason.overloaded[0].lower()}{reason.overloaded[1:]}."
    is_what = f"{metric} is {words.quantity(metric, reason.typical)} in the median run"
    if bound.excess(reason.typical) > 1:
        return f"{is_what}, bound {words.quantity(metric, bound.bound)}."
    if bound.excess(reason.worst) > 1:
        return f"{is_what} but {words.quantity(metric, reason.worst)} in one of them."
    reach = words.quantity(metric, reason.limit) if math.isfinite(reason.limit) else "anything"
    return f"{is_what}, but the next may have {reach}."


def _because(reason: Reason) -> str:
    said = f"{reason.label}." if reason.label != "STABLE" else ""
    if reason.resource:
        said += f" What runs out: {reason.resource}."
    if reason.cohort:
        said += f" It hits {reason.cohort} most."
    return said.strip()


def reach(plan: Plan) -> list["RenderableType"]:
    """Return where the fleet breaks, when growth gets there, and what is left of the error budget."""
    lines: list[RenderableType] = []
    users = plan.scenario.workload
    plain = users.arrivals == "poisson" and not users.sessions and not any(one.agent for one in users.cohorts.values())
    rate = users.rate_per_s if plain else None  # else it is of conversations or tasks, or of some hours only

    def load(factor: float) -> str:
        return f"{words.significant(factor * rate)} requests/s" if rate else f"{words.significant(factor)} x the load"

    if plan.knee is not None and plan.knee.keeps:
        broken = f"; at {load(plan.knee.breaks)} it breaks one or its queue grows" if plan.knee.known else ""
        more = f" ({words.percent(abs(plan.knee.keeps - 1))} {'more' if plan.knee.keeps >= 1 else 'less'} than planned)"
        conditions = words.listing([case.name for case in plan.cases])
        lines.append(f"The fleet, {conditions}, keeps its promises up to {load(plan.knee.keeps)}{more}{broken}.")
    if plan.knee_of_one is not None and plan.knee_of_one.keeps:
        lines.append(f"One replica holds {load(plan.knee_of_one.keeps)}.")
    if plan.question.growth is not None and plan.knee is not None:
        days = plan.days_left
        lines.append(
            f"Growing by {plan.question.growth.text}, it is enough for {_days(days)}."
            if days > 0 else "It has no room to grow."
        )  # fmt: skip
    errors = next((bound for bound in plan.question.bounds if bound.metric == "errors"), None)
    if errors is not None and plan.best is not None:
        spent = next(found.typical for found in plan.best.conditions[-1].findings if found.bound == errors)
        month = MONTH_S / 60
        lines.append(
            f"Error budget: {words.significant(spent * month)} of {words.significant(errors.bound * month)} minutes a "
            "month at this load, all the time."
        )
    return lines


def _days(days: float) -> str:
    if days < 60:
        return count(round(days), "day")
    return f"{days / 30.4375:.1f} months" if days < 730 else f"{days / 365.25:.1f} years"


def as_json(plan: Plan) -> dict[str, Any]:
    """Return everything that was found, with JSON's types (what is not a number is None)."""
    from sim.results import plain

    best = plan.best
    return dict(plain({
        "scenario": plan.scenario.name,
        "promises": [bound.text for bound in plan.question.bounds],
        "conditions": [case.name for case in plan.cases],
        "confidence": plan.question.confidence,
        "currency": plan.question.prices.currency,
        "prices": {"source": plan.question.prices.source, **plan.question.prices.hour},
        "best": None if best is None else {**_fleet(plan, best), "cost": vars(plan.money(best))},
        "next_cheaper": [_why(plan, one) for one in (plan.below, plan.fewer) if one is not None],
        "nearest": None if plan.nearest is None else _why(plan, plan.nearest),
        "knee": None if plan.knee is None else vars(plan.knee),
        "knee_of_one_replica": None if plan.knee_of_one is None else vars(plan.knee_of_one),
        "days_of_growth": plan.days_left,
        "moves": [
            {
                "what": move.name,
                "ends": [
                    {
                        "end": one.end,
                        "fleet": one.fleet and plan.space.words(one.fleet),
                        "more_an_hour": one.more,
                        "hardest_promise_times": one.factor,
                    }
                    for one in move.sides
                ],
            }
            for move in plan.moves
        ],
        "growth": [
            {
                "months": one.months,
                "load": one.factor,
                "fleet": one.verdict and plan.space.words(one.verdict.fleet),
                "gpus": one.verdict and one.verdict.fleet.gpus,
                "cost_an_hour": one.verdict and one.verdict.fleet.cost,
            }
            for one in plan.outlook
        ],
        "fleets": [_fleet(plan, one) for one in sorted(plan.known, key=lambda one: one.fleet.cost)],
        "assumptions": list(plan.assumptions),
        "runs": plan.runs,
    }))  # fmt: skip


def _fleet(plan: Plan, verdict: Verdict) -> dict[str, Any]:
    settings = {axis.name: value for axis, value in zip(plan.space.axes, verdict.fleet.values)}
    return {
        "fleet": plan.space.words(verdict.fleet),
        "settings": settings,
        "gpus": verdict.fleet.gpus,
        "cost_an_hour": verdict.fleet.cost,
        "kept": verdict.kept,
        "refused": verdict.refused or None,
        "conditions": [_condition(one) for one in verdict.conditions],
    }


def _condition(condition: Condition) -> dict[str, Any]:
    return {
        "case": condition.case,
        "label": condition.label,
        "kept": condition.kept,
        "promises": {
            one.bound.metric: {"median": one.typical, "next_run_within": one.limit, "runs": list(one.values)}
            for one in condition.findings
        },
    }


def _why(plan: Plan, verdict: Verdict) -> dict[str, Any]:
    if not verdict.conditions:
        return {**_fleet(plan, verdict), "why": verdict.refused}
    reason = plan.reason(verdict)
    return {
        **_fleet(plan, verdict),
        "why": f"{reason.case}: {sentence(reason)} {_because(reason)}".strip(),
        "promise": reason.bound.text,
        "resource": reason.resource or None,
        "cohort": reason.cohort or None,
    }
