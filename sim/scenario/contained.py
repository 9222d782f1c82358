"""What gates, teams, breakers on quality, overflow and releases must agree on, and what is measured of them."""

import itertools
from collections.abc import Iterator

from sim.scenario.containment import Gate, Overflow, QualityBreaker, Release, Team
from sim.scenario.control import Control
from sim.scenario.messages import Problem
from sim.scenario.models import Scenario
from sim.scenario.quality import RULES
from sim.words import not_among, show

DAY_S = 86_400.0
TEAM_METRICS = (
    *("escalated", "escalated_share", "reviewed", "late", "late_share", "waited_share"),
    *("wait_mean", "wait_p50", "wait_p95", "queue_mean", "busy_share"),
    *("caught", "caught_share", "withheld", "delivered_wrong", "delivered_share"),
)
REVIEW_METRICS = ("escalated", "caught", "caught_share", "withheld", "delivered_wrong", "delivered_bad")
"""Of all teams together."""
SWITCH_METRICS = ("flips", "open_share")
RELEASE_METRICS = ("released_s", "noticed_s", "rolled_back_s", "graded")


def metric_names(scenario: Scenario) -> set[str]:
    """Return every metric that a run measures of what *scenario* contains wrong answers with."""
    names: set[str] = set()
    for one in scenario.control:
        match one:
            case Team():
                names |= set(REVIEW_METRICS) | {f"team.{one.team}.{name}" for name in TEAM_METRICS}
            case QualityBreaker():
                names |= {f"breaker.{one.quality_breaker}.{name}" for name in SWITCH_METRICS}
            case Overflow():
                names |= {f"overflow.{one.overflow}.{name}" for name in SWITCH_METRICS}
            case Release():
                names |= {f"release.{one.release}.{name}" for name in RELEASE_METRICS}
    return names


def containment(scenario: Scenario) -> Iterator[Problem]:
    """Yield what is wrong with how *scenario*, a point of its sweep, contains wrong answers."""
    seen: set[tuple[str, str]] = set()
    for i, one in enumerate(scenario.control):
        kind = next(iter(type(one).model_fields))
        if not isinstance(one, Gate | Team | QualityBreaker | Overflow | Release):
            continue
        name: str = getattr(one, kind)
        owner = (kind, "" if kind == "release" else name)
        if owner in seen:
            yield ("control", i, kind), f"expected one {kind}{' of ' + name if owner[1] else ''}, got another"
        seen.add(owner)
        if scenario.quality is None and isinstance(one, QualityBreaker | Release):
            yield ("control", i, kind), "expected `quality` in the scenario, which it watches"
            continue
        for key, sentence in _one(scenario, one):
            yield ("control", i, *key), sentence


def _one(scenario: Scenario, one: Control) -> Iterator[tuple[tuple[str | int, ...], str]]:
    match one:
        case Gate():
            yield from _gate(scenario, one)
        case Team():
            yield from _team(one)
        case QualityBreaker():
            yield from _elsewhere(scenario, one.quality_breaker, "fallback", one.fallback)
            if one.close_below > one.open_above:
                yield ("close_below",), f"expected at most open_above ({one.open_above:.4g}), got {one.close_below:.4g}"
            if not 0.5 <= one.sure < 1:
                yield ("sure",), f"expected at least 50% and less than 100%, got {one.sure:.4g}"
        case Overflow():
            yield from _elsewhere(scenario, one.overflow, "into", one.into)
            if one.below >= one.above:
                yield ("below",), f"expected less than above ({show(one.above)}), got {show(one.below)}"
        case Release():
            yield from _release(scenario, one)


def _gate(scenario: Scenario, one: Gate) -> Iterator[tuple[tuple[str | int, ...], str]]:
    ways = [name for name in ("below", "lowest", "load_aware") if getattr(one, name) is not None]
    if len(ways) != 1:
        yield ("gate",), f"expected exactly one of below, lowest, load_aware, got {' and '.join(ways) or 'none'}"
    if scenario.quality is None or scenario.quality.confidence is None:
        yield ("gate",), "expected `quality: {confidence: ...}` in the scenario, which it goes by"
    teams = [other.team for other in scenario.control if isinstance(other, Team)]
    others = [other for other in scenario.control if isinstance(other, Gate) and other is not one]
    if one.load_aware is not None and any(other.to == one.to for other in others):
        yield ("load_aware",), f"expected no other gate to {one.to}, whose time it fills by itself"
    first = next(iter(scenario.fleet.pools))
    for name, cohort in scenario.workload.cohorts.items():
        if cohort.agent and (cohort.pool or first) == one.gate:
            yield ("gate",), f"expected a pool that no agent asks, for agents do not wait for a person; {name} does"
    if one.to not in teams:
        yield ("to",), not_among(one.to, "team", teams) if teams else "expected a team, which `control` has not"


def _team(one: Team) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if not isinstance(one.reviewers, list):
        return
    starts = [shift.at for shift in one.reviewers]
    if starts[0] != 0:
        yield ("reviewers", 0, "at"), f"expected 0, when the day begins, got {show(starts[0])}"
    for k, (before_s, start_s) in enumerate(itertools.pairwise(starts), start=1):
        if start_s <= before_s:
            yield (
                ("reviewers", k, "at"),
                f"expected more than the shift before ({show(before_s)} s), got {show(start_s)} s",
            )
    if starts[-1] >= DAY_S:
        yield ("reviewers", len(starts) - 1, "at"), f"expected a time of day below 24h, got {show(starts[-1])} s"
    if not any(shift.reviewers for shift in one.reviewers):
        yield ("reviewers",), "expected somebody who works at some time"


def _release(scenario: Scenario, one: Release) -> Iterator[tuple[tuple[str | int, ...], str]]:
    causes = scenario.quality.causes.values() if scenario.quality else ()
    versions = [cause.version for cause in causes if cause.version]
    if one.release not in versions:
        said = not_among(one.release, "version", versions) if versions else "expected a version that `causes` speak of"
        yield ("release",), said
    if one.from_ >= scenario.duration:
        yield ("from",), f"expected less than duration ({show(scenario.duration)} s), got {show(one.from_)} s"
    for k, (before, share) in enumerate(itertools.pairwise([0.0, *one.steps])):
        if not before < share <= 1:
            yield ("steps", k), f"expected more than the step before ({before:.4g}) and at most 1, got {share:.4g}"


def _elsewhere(
    scenario: Scenario, pool: str, key: str, target: str
) -> Iterator[tuple[tuple[str | int, ...], str]]:  # fmt: skip
    if target == pool:
        yield (key,), f"expected another pool than {show(pool)}, or rules"
    elif target != RULES and target not in scenario.fleet.pools:
        yield (key,), not_among(target, "pool", [*scenario.fleet.pools, RULES])
