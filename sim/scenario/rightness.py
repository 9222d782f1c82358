"""What `quality` must agree on with the rest of a scenario, checked once each setting has its shape."""

import math
from collections.abc import Iterator

from sim.scenario.messages import Problem
from sim.scenario.models import Scenario
from sim.scenario.quality import RULES, Cause
from sim.scenario.targets import members
from sim.scenario.workload import ArrivalProcess
from sim.words import not_among, show


def right_and_wrong(scenario: Scenario) -> Iterator[Problem]:
    """Yield what is wrong with `quality` of *scenario*, a point of its sweep."""
    quality = scenario.quality
    if quality is None:
        return
    for key, sentence in _agents(scenario):
        yield ("workload", *key), sentence
    total = math.fsum(quality.kinds.values())
    if abs(total - 1) > 1e-6:
        yield ("quality", "kinds"), f"expected the shares to sum to 1, got {show(total)}"
    for name, cause in quality.causes.items():
        for key, sentence in _cause(scenario, cause):
            yield ("quality", "causes", name, *key), sentence
        if cause.visible and quality.confidence is None:
            yield ("quality", "causes", name, "visible"), "expected `confidence` beside it, in which it shows"
    share = quality.evaluation.share
    for name in share if isinstance(share, dict) else ():
        if name not in scenario.workload.cohorts:
            yield ("quality", "evaluation", "share", name), not_among(name, "cohort", scenario.workload.cohorts)


def _agents(scenario: Scenario) -> Iterator[tuple[tuple[str | int, ...], str]]:
    workload = scenario.workload
    agents = {name: cohort.agent for name, cohort in workload.cohorts.items() if cohort.agent is not None}
    closed = isinstance(workload.arrivals, ArrivalProcess) and workload.arrivals.closed is not None
    others = {"sessions": workload.sessions is not None, "trace": workload.trace is not None, "arrivals": closed}
    for key in (key for key, there in others.items() if agents and there):
        yield (key,), "expected none beside a cohort with an `agent`, whose tasks come one by one"
    for name, agent in agents.items():
        at = ("cohorts", name, "agent")
        by = agent.verifier.by if agent.verifier else None
        if by is not None and by not in workload.cohorts:
            yield (*at, "verifier", "by"), not_among(by, "cohort", workload.cohorts)
        elif by in agents:
            yield (*at, "verifier", "by"), f"expected a cohort without an `agent`, got {show(by)}"
        if isinstance(agent.irreversible, list) and max(agent.irreversible, default=0) > agent.steps:
            last = max(agent.irreversible)
            yield (*at, "irreversible"), f"expected steps up to {agent.steps}, the last of a task, got {last}"


def _cause(scenario: Scenario, cause: Cause) -> Iterator[tuple[tuple[str | int, ...], str]]:
    cohorts = scenario.workload.cohorts
    for i, name in enumerate(cause.cohorts or ()):
        if name not in cohorts:
            yield ("cohorts", i), not_among(name, "cohort", cohorts)
    if cause.at is not None and cause.at != RULES:
        try:
            members(scenario, cause.at)
        except ValueError as error:
            yield ("at",), str(error)
    if cause.from_ >= scenario.duration:
        yield ("from",), f"expected less than duration ({show(scenario.duration)} s), got {show(cause.from_)} s"
    if cause.to is not None and cause.to <= cause.from_:
        yield ("to",), f"expected more than from ({show(cause.from_)} s), got {show(cause.to)} s"
    if cause.grows and cause.to is None:
        yield ("to",), "missing, expected when it has grown to `error`"
