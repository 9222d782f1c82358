"""Why was it slow: what the slowest waited for, who they were, who was not answered, and five of them step by step."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim.report import causes, parts, story, style, words
from sim.report.asked import KIND, Asked, asked, replica_names
from sim.report.timeline import typical
from sim.report.view import Point, View, view

if TYPE_CHECKING:
    from sim.results import Member, Run
    from sim.scenario import Scenario

SLOWEST = 5
FEW = 300
MOST_BARS = 7


@dataclass(frozen=True)
class Explanation:
    """What there is to say about the slow requests of one point and seed."""

    run: Path
    view: View
    scenario: "Scenario"  # as it was played at this point
    point: Point
    member: "Member"
    by: str
    requests: int
    whole: causes.Slow
    lost_to_s: dict[str, float]  # where the slowest 1% lost time in earlier attempts, mean seconds by part
    groups: dict[str, list[causes.Slow]]  # by what they have in common: cohort, pool, replica
    ends: dict[str, int]  # requests that ended otherwise than well
    burning: list[causes.Share]
    meanwhile: list[causes.Share]
    slowest: list[tuple[np.void, list[story.Step]]]  # the row that decided the request, and its steps

    @property
    def kind(self) -> parts.Kind:
        """What the parts are called, and their colours."""
        return parts.as_known(KIND, self.view.kind)

    @property
    def allowed(self) -> float | None:
        """Share of requests that the SLO lets go unanswered; None without one."""
        return self.scenario.slo.targets.get("errors")


def explain(run: "Run", point: Point, seed: int | None, by: str) -> Explanation:
    """Return why requests of *run* were slow at *point*, in one *seed* (left out: the most typical one).

    Raises:
        InputError: rows were not kept, or cannot be read.
    """
    member = point.members[typical(point)] if seed is None else next(m for m in point.members if m.seed == seed)
    scenario = _scenario_at(run, point)
    found = asked(member, scenario)
    everyone = np.ones(len(found), bool)
    _, slow = found.slow(by, everyone)
    label = f"all, seed {member.seed}" if len(point.members) > 1 else "all requests"
    (whole,) = causes.groups(found, by, {label: everyone})
    kinds = causes.query_types(found, list(scenario.workload.cohorts), _lengths(scenario, member.seed, found))
    names = replica_names(scenario)
    known = () if run.info.get("kind") == "measured" else names
    return Explanation(
        run=run.path,
        view=view(run),
        scenario=scenario,
        point=point,
        member=member,
        by=by,
        requests=len(found),
        whole=whole,
        lost_to_s=found.lost_to_s(slow),
        groups={what: causes.groups(found, by, masks) for what, masks in _masks(found, by, scenario).items()},
        ends=causes.ends(found),
        burning=causes.burning(found, kinds, names),
        meanwhile=causes.meanwhile(found, by, member.events(), scenario.duration),
        slowest=[(found.last[k], story.steps(found.attempts(k), known)) for k in slow[::-1][:SLOWEST]],
    )


def _scenario_at(run: "Run", point: Point) -> "Scenario":
    from sim import scenario

    return next(one for values, one in scenario.points(run.scenario) if values == point.values)


def _masks(found: Asked, by: str, scenario: "Scenario") -> dict[str, dict[str, np.ndarray]]:
    """Return the groups to look at, by what they have in common; only what tells more than all together."""
    masks: dict[str, dict[str, np.ndarray]] = {}
    for what, names in (("cohort", scenario.workload.cohorts), ("pool", scenario.fleet.pools)):
        if len(names) > 1:
            masks[what] = {name: found.last[what] == k for k, name in enumerate(names)}
    met = causes.replicas(found, causes.slowest(found, by), found.counted, replica_names(scenario))
    masks["replica"] = met | {"every other replica": ~np.logical_or.reduce(list(met.values()))} if met else {}
    return {what: some for what, some in masks.items() if some}


def _lengths(scenario: "Scenario", seed: int, found: Asked) -> np.ndarray | None:
    """Return the answers' lengths as they were asked for, by request: drawn again, for rows do not hold them.

    None where they cannot be told so: users who come back as they are answered, or faults that change users.
    """
    from sim import workload
    from sim.engine.hardware import resolve

    if any("surge" in fault or "shift" in fault for fault in (type(f).model_fields for f in scenario.faults)):
        return None
    limits = {name: resolve(pool).max_model_len for name, pool in scenario.fleet.pools.items()}
    ids = found.last["request"]
    tokens = np.zeros(len(ids), np.int64)
    for chunk in workload.compile(scenario, seed, limits).chunks():
        order = np.argsort(chunk["request"])
        at = np.searchsorted(chunk["request"], ids, sorter=order)
        row = order[np.minimum(at, len(order) - 1)]
        mine = chunk["request"][row] == ids
        tokens[mine] = chunk["output_tokens"][row[mine]]
    return tokens if tokens.all() else None


# --- in words -------------------------------------------------------------------------------------------------------


def answer(found: Explanation) -> str:
    """Return the answer in one sentence: what the slowest waited for, and where or when."""
    if found.whole.group is None:
        return words.at(found.point.label, "nobody has a latency that counts.")
    text = parts.grew(found.whole.group, found.kind, found.by)
    if found.groups.get("replica"):
        share = found.groups["replica"][0].share
        slow, usual = words.percent(share.of_trouble), words.percent(share.of_traffic)
        text += f"; {slow} of them met {share.label}, which served {usual} of all"
    elif found.meanwhile and found.meanwhile[0].of_trouble > max(0.5, causes.FAR_ABOVE * found.meanwhile[0].of_traffic):
        share = found.meanwhile[0]
        slow, usual = words.percent(share.of_trouble), words.percent(share.of_traffic)
        text += f"; {slow} of them were in flight during {share.label}, and {usual} of all"
    return f"{words.at(found.point.label, text)}."


def in_full(found: Explanation) -> str:
    """Return the sentences that give the answer in full, or nothing."""
    if found.whole.group is None:
        return ""
    tail, median = found.whole.group.tail_s.tolist(), found.whole.group.median_s.tolist()
    if found.by == "e2e":
        text = words.slowest_e2e(tail, median, found.kind.names)
    else:
        text = parts.told(replace(found.whole.group, label=""), found.kind.names)
    lost = sorted(((s, part) for part, s in found.lost_to_s.items() if s > words.NOTICED * sum(tail)), reverse=True)
    what = words.listing([f"{found.kind.names[part]} ({words.seconds(s)})" for s, part in lost[:3]])
    return f"{text} In earlier attempts they were, most first: {what}." if lost else text


def rests_on(found: Explanation) -> str:
    """Return which rows an explanation rests on."""
    point, member, kept = found.point, found.member, found.scenario.rows
    said = [point.label] if point.label else []
    seed = f"seed {member.seed}"
    if len(point.members) > 1:
        seed += f" of {len(point.members)}"
        seed += ", whose TTFT P99 is nearest the estimate" * (member is point.members[typical(point)])
    rows = "all requests" if isinstance(kept, str) else f"a sample of {words.percent(kept.sample)} of the requests"
    said += [seed, f"rows of {rows}: {found.requests:,}"]
    said += ["few: the slowest 1% are one or two requests"] * (found.requests < FEW)
    return "; ".join(said)


def plate(found: Explanation) -> style.Plate | None:
    """Return the figure: the parts of the slowest 1% beside the median's, of all and of each group."""
    if found.whole.group is None:
        return None
    some = [slow.group for groups in found.groups.values() for slow in groups if slow.group is not None]
    bars = [found.whole.group, *some[: MOST_BARS - 1]]
    what = words.TIME_NAMES[found.by]
    caption = (
        f"Mean time in each part of latency, in seconds, over the slowest 1% of each group by {what} and over its "
        "requests around the median (P45 to P55). Left: what came before the first token. Right: the whole "
        f"request.{parts.key(found.view.kind)}"
    )
    title = answer(found).removesuffix(".")
    return style.Plate("why", parts.TOPIC, title, caption, partial(parts.draw, found.view, bars, found.kind, title))
