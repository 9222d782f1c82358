"""From what a user typed to a scenario that can be played: settings, metrics, memory and users are all checked.

So whatever is wrong is said with its line before anything is played, and before there is a folder for results.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from sim import claims, summary
from sim import scenario as scenarios
from sim.errors import HardwareError, InputError, ScenarioError
from sim.run import known_metrics
from sim.scenario.control import Custom
from sim.words import not_among


def load(
    source: str,
    overrides: Sequence[str],
    swept: Mapping[str, Sequence[Any]] | None = None,
    built: Callable[[str], bool] = lambda pool: True,
) -> scenarios.Scenario:
    """Return the scenario in *source*, a file or the name of a shipped one, with *overrides* in place and more *swept*.

    Pools are checked as the file has them where *built* says so of their name: others are replaced before anything is
    played, and checked then.

    Raises:
        InputError: what is wrong, with its place in the file.
    """
    also = partial(problems, built=built)
    return scenarios.load(source, overrides, swept=swept, also=also, tell=lambda note: click.echo(note, err=True))


def problems(
    scenario: scenarios.Scenario, built: Callable[[str], bool] = lambda pool: True
) -> Iterator[scenarios.Problem]:
    """Yield what would keep *scenario* from being played or judged; of pools only those that are *built* like this.

    Raises:
        TraceError: a trace that cannot be replayed; names file, row and column.
    """
    known = summary.metric_names(list(scenario.workload.cohorts))
    for name in scenario.slo.targets:
        if name not in known:
            yield ("slo", name), claims.unknown(name, known)
    for name in scenario.expect if scenario.alerts else ():
        if wrong := _not_a_rule(name, scenario.alerts):
            yield ("expect", name), wrong
    played = scenarios.points(scenario)
    for name, text in scenario.claims.items():
        for metric, index in sorted(claims.parse(text).metrics):
            if wrong := _metric(metric, played[claims.point_of(metric, index, [point for point, _ in played])][1]):
                yield ("claims", name), wrong
    yield from scenarios.at_points(scenario, _Service(built))


def _not_a_rule(name: str, files: Sequence[str]) -> str:
    """Return that no alert in the rule *files* is called *name*, or nothing."""
    from sim.alerts import rulefile

    groups = rulefile.read([Path(file) for file in files])
    alerts = [rule.name for group in groups for rule in group.rules if not rule.records]
    return "" if name in alerts else not_among(name, "alert rule", alerts)


def has_faults(scenario: scenarios.Scenario) -> bool:
    """Return whether anything goes wrong at any point of *scenario*."""
    return any(point.faults for _, point in scenarios.points(scenario))


def _metric(metric: str, point: scenarios.Scenario) -> str:
    """Return what is wrong with a claim about *metric* at *point*, or nothing."""
    known = known_metrics(point)
    if claims.window_of(metric)[0] not in known:
        return claims.unknown(metric, known)
    if metric in claims.OF_CONTROL and not point.faults:
        return f"expected faults: {metric} compares a run with its control run, which has none"
    return claims.beyond(metric, point.duration)


class _Service:
    """Checks the pools and the users of one point after another, what they share only once."""

    def __init__(self, built: Callable[[str], bool]) -> None:
        self._built = built
        self._seen: dict[object, list[scenarios.Problem]] = {}

    def __call__(self, point: scenarios.Scenario) -> Iterator[scenarios.Problem]:
        for name, pool in ((name, pool) for name, pool in point.fleet.pools.items() if self._built(name)):
            key = (name, pool.model_dump_json())
            if key not in self._seen:
                self._seen[key] = list(_pool(name, pool))
            yield from self._seen[key]
        for i, one in enumerate(point.control):
            if isinstance(one, Custom):
                yield from ((("control", i, "python"), said) for said in _code(one.python))
        for name, check in point.checks.items():
            key = ("checks", f"{name} {check.model_dump_json()}")
            if key not in self._seen:
                self._seen[key] = list(_check(name, check))
            yield from self._seen[key]
        key = (point.workload.model_dump_json(), f"{point.duration} {point.faults}")
        if key not in self._seen:
            self._seen[key] = list(_users(point))
        yield from self._seen[key]


def _pool(name: str, pool: scenarios.Pool) -> Iterator[scenarios.Problem]:
    from sim.engine.hardware import resolve

    try:
        resolve(pool, where="pool")
    except HardwareError as error:
        yield ("fleet", "pools", name), str(error).removeprefix("pool: ")


def _code(python: str) -> Iterator[str]:
    from sim.control import custom

    try:
        custom.find(python)
    except InputError as error:
        yield str(error)


def _check(name: str, check: scenarios.AnswerCheck) -> Iterator[scenarios.Problem]:
    from sim import answers

    if check.json_schema is not None and not answers.can_check_json():
        return  # a simulation does without; a load test asks for it
    try:
        answers.judge_of(check)
    except InputError as error:
        yield ("checks", name, check.way), str(error)


def _users(point: scenarios.Scenario) -> Iterator[scenarios.Problem]:
    from sim import workload
    from sim.workload import prompts

    for name, cohort in point.workload.cohorts.items():
        try:
            if cohort.prompts:
                prompts.read(cohort.prompts)
        except InputError as error:
            yield ("workload", "cohorts", name, "prompts"), str(error)
    try:
        workload.compile(point, point.seed)
    except ScenarioError as error:  # begins with the field
        field, _, said = str(error).partition(": ")
        yield tuple(int(key) if key.isdecimal() else key for key in field.split(".")), said
