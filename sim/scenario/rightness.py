"""What `quality` must agree on with the rest of a scenario, checked once each setting has its shape."""

import math
from collections.abc import Iterator

from sim.scenario.messages import Problem
from sim.scenario.models import Scenario
from sim.scenario.quality import RULES, Cause
from sim.scenario.targets import members
from sim.words import not_among, show


def right_and_wrong(scenario: Scenario) -> Iterator[Problem]:
    """Yield what is wrong with `quality` of *scenario*, a point of its sweep."""
    quality = scenario.quality
    if quality is None:
        return
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
