"""What a scenario says about right and wrong, as the judge goes by it."""

import math
from collections.abc import Mapping

from sim.quality.containment import Containment, GateRules, TeamRules
from sim.quality.judge import Cause, Rules
from sim.quality.review import Staff
from sim.quality.verdicts import KINDS
from sim.scenario import Scenario
from sim.scenario import quality as spec
from sim.scenario.clients import PatienceDraw
from sim.scenario.containment import Gate, HandlingDraw, Team
from sim.scenario.targets import members


def versions_of(scenario: Scenario) -> list[str]:
    """Return the versions that causes speak of, in the order of the file; what was there before is not among them."""
    causes = scenario.quality.causes.values() if scenario.quality else ()
    return list(dict.fromkeys(one.version for one in causes if one.version is not None))


def rules_of(scenario: Scenario, first: Mapping[str, int]) -> Rules:
    """Return the judge's rules; *first* is the index of each pool's first replica."""
    cohorts = scenario.workload.cohorts
    quality = scenario.quality or spec.Quality()
    evaluation, sure = quality.evaluation, quality.confidence
    share = evaluation.share
    if share is None:
        share = scenario.telemetry.evaluate if scenario.telemetry else 0.0
    names = ("", *versions_of(scenario))
    return Rules(
        errors=tuple(cohort.error for cohort in cohorts.values()),
        evaluate=tuple(share.get(name, 0.0) if isinstance(share, dict) else share for name in cohorts),
        causes=tuple(_cause(scenario, name, one, first, names) for name, one in quality.causes.items()),
        kinds=tuple(quality.kinds.get(kind, 0.0) for kind in KINDS),  # type: ignore[call-overload]
        user_sigma=quality.user_sigma,
        confidence=None if sure is None else (sure.discrimination, sure.overconfidence, sure.shift, sure.noise),
        sensitivity=evaluation.sensitivity,
        specificity=evaluation.specificity,
        delay_s=evaluation.delay,
        versions=names,
        difficulty=tuple(cohort.agent.difficulty if cohort.agent else None for cohort in cohorts.values()),
        systematic=tuple(cohort.agent.systematic if cohort.agent else 0.0 for cohort in cohorts.values()),
    )


def _cause(
    scenario: Scenario, name: str, one: spec.Cause, first: Mapping[str, int], versions: tuple[str, ...]
) -> Cause:
    replicas = None
    if one.at is not None and one.at != spec.RULES:
        pool, which = members(scenario, one.at)
        replicas = frozenset(first[pool] + r for r in which)
    cohorts = list(scenario.workload.cohorts)
    latency, above_s = one.above.choice if one.above else ("", 0.0)
    return Cause(
        name=name,
        error=one.error,
        kind=KINDS.index(one.kind),
        share=one.share,
        by_session=one.by_session,
        cohorts=None if one.cohorts is None else frozenset(map(cohorts.index, one.cohorts)),
        replicas=replicas,
        rules=one.at == spec.RULES,
        version=None if one.version is None else versions.index(one.version),
        latency=latency,
        above_s=above_s,
        from_s=one.from_,
        until_s=math.inf if one.to is None else one.to,
        grows=one.grows,
        visible=one.visible,
    )


def containment_of(scenario: Scenario, seed: int) -> Containment | None:
    """Return the gates and teams of *scenario*; None where it has no team."""
    teams = [one for one in scenario.control if isinstance(one, Team)]
    if not teams:
        return None
    names, pools = [one.team for one in teams], list(scenario.fleet.pools)
    gates = [
        GateRules(pools.index(one.gate), one.gate, names.index(one.to), one.below, one.lowest, one.load_aware)
        for one in scenario.control
        if isinstance(one, Gate)
    ]
    return Containment(gates, [_team(one) for one in teams], seed, scenario.duration)


def _team(one: Team) -> TeamRules:
    shifts = one.reviewers if isinstance(one.reviewers, list) else None
    staff = Staff(tuple((shift.at, shift.reviewers) for shift in shifts) if shifts else ((0.0, int(one.reviewers)),))  # type: ignore[arg-type]
    return TeamRules(
        name=one.team,
        staff=staff,
        handling=_time(one.handling),
        patience=None if one.patience is None else _time(one.patience),
        misses=one.misses,
        false_alarms=one.false_alarms,
        withhold=one.late == "withhold",
    )


def _time(drawn: float | HandlingDraw | PatienceDraw) -> tuple[str, float, float]:
    """Return a time as `sim.quality.containment.TeamRules` has it."""
    if isinstance(drawn, int | float):
        return "fixed", float(drawn), 0.0
    kind, one = drawn.choice
    return (kind, one.median, one.sigma) if kind == "lognormal" else (kind, one.mean, 0.0)
