"""From a scenario file to a `Scenario`, and back: each fault in one sentence with its file, line and field."""

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sim.errors import ScenarioError
from sim.scenario.checks import broken_claims, disagreements
from sim.scenario.document import Document, write
from sim.scenario.files import shipped
from sim.scenario.fleet import ONLY_POOL
from sim.scenario.messages import Problem, condition, dotted, listed, problems
from sim.scenario.models import Scenario
from sim.scenario.options import Option, left_out, lost_claims, override, replaced_by_trace, vary
from sim.scenario.paths import Keys, get, long_form, put, resolve
from sim.scenario.shorter import hinted, told, unjudged
from sim.units import duration_s
from sim.words import did_you_mean, show

MOST_POINTS = 10_000
_FIXED = ("vary", "claims", "name", "seed", "seeds")

Check = Callable[[Scenario], Iterable[Problem]]
"""Finds what is wrong with a scenario whose settings have their shape."""


def load(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    swept: Mapping[str, Sequence[Any]] | None = None,
    also: Check = lambda scenario: (),
    tell: Callable[[str], None] = lambda note: None,
) -> Scenario:
    """Return the scenario in the file at *path*, or the shipped one of that name.

    *overrides* are texts ``a.b.c=value`` with a YAML value, put in place before anything is checked. A setting that
    is set so no longer varies, and claims about points that are not played fall away; *tell* is told. What *also*
    finds wrong is placed in the file like everything else. *swept* (path -> values) varies settings, beside or in place
    of what the file varies.

    Raises:
        ScenarioError: what is wrong, one sentence a line, each with the line or the option it stands in.
    """
    path = shipped().get(str(path), Path(path)) if not os.path.isfile(path) else Path(path)
    return loads(_read(path), str(path), overrides, path.parent, swept=swept, also=also, tell=tell)


def reread(path: Path) -> Scenario:
    """Return the scenario at *path* as it was played before; files that it names may be gone by now.

    Raises:
        ScenarioError: as `load`.
    """
    return loads(_read(path), str(path), (), path.parent, need_files=False)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = did_you_mean(path.name, [*shipped(), *(other.name for other in path.parent.glob("*.yaml"))])
        if not near and not path.suffix:
            near = f", expected a file or one of {', '.join(shipped())}"
        raise ScenarioError(f"{path}: no such scenario file{near}") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: expected a text in UTF-8, got other bytes at {error.start}") from None
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None


def loads(
    text: str,
    source: str = "scenario.yaml",
    overrides: Sequence[str] = (),
    folder: Path | None = None,
    *,
    swept: Mapping[str, Sequence[Any]] | None = None,
    also: Check = lambda scenario: (),
    tell: Callable[[str], None] = lambda note: None,
    need_files: bool = True,
) -> Scenario:
    """Return the scenario that *text* says; *source* names it in messages, *folder* is where its files are.

    Raises:
        ScenarioError: as `load`.
    """
    document = Document(text, source)
    if not isinstance(document.value, dict):
        raise ScenarioError(
            f"{source}:1: expected a mapping with name, duration, fleet and workload, got {show(document.value)}"
        )
    tree, options, still = override(long_form(document.value), overrides)
    tree, varied = vary(tree, swept or {})
    options += varied
    places = _Places(document, options)
    context = {"folder": folder, "need_files": need_files}
    try:
        scenario = _validated(tree, context)
    except ValidationError as error:
        raise places.error(problems(error)) from None
    scenario, wrong = _with_sweep(scenario, context)
    if wrong:
        raise places.error(wrong)
    changed = still or any(option.keys[0] == "vary" for option in options)
    lost = lost_claims(scenario, _combinations(scenario), options) if changed else []
    scenario = _without(scenario, lost)
    own_s = _own_duration_s(document.value)
    short = unjudged(scenario.claims, scenario.duration, options) if scenario.duration < own_s else []
    scenario = _without(scenario, short)
    wrong = [*at_points(scenario, disagreements), *broken_claims(scenario, _combinations(scenario))]
    if wrong := wrong or list(also(scenario)):
        raise places.error(hinted(problem, scenario.duration, options) for problem in wrong)
    if still or lost:
        tell(left_out(still, lost))
    if short:
        tell(told(short, scenario.duration, own_s))
    return scenario


def _without(scenario: Scenario, names: Sequence[str]) -> Scenario:
    """Return *scenario* without the claims *names*."""
    kept = {name: claim for name, claim in scenario.claims.items() if name not in names}
    return scenario.model_copy(update={"claims": kept})


def _own_duration_s(tree: Mapping[str, Any]) -> float:
    """Return the duration that a file says, in seconds; 0 where it says none that can be read."""
    try:
        return duration_s(tree.get("duration", 0))
    except ValueError:
        return 0.0


def points(scenario: Scenario) -> list[tuple[dict[str, Any], Scenario]]:
    """Return every combination of `vary` in the order of the file, as path -> value, and the scenario it makes.

    A point has neither sweep nor claims: those belong to all points together. Without a sweep, the scenario itself
    is the only point.
    """
    if not scenario.vary:
        return [({}, scenario)]
    tree = _without_sweep(scenario)
    combined = []
    for point in _combinations(scenario):
        one = tree
        for path, value in point.items():
            one = put(one, resolve(path, tree), value)
        combined.append((point, _validated(one, {"need_files": False})))
    return combined


def changed(scenario: Scenario, settings: Mapping[Keys, Any]) -> Scenario:
    """Return *scenario* with *settings* in place (by keys as `sim.scenario.paths.resolve` gives them).

    It has neither sweep nor claims.

    Raises:
        ScenarioError: what is wrong then, in one sentence a line that begins with the field.
    """
    tree: Any = _without_sweep(scenario)
    for keys, value in settings.items():
        tree = put(tree, keys, value)
    try:
        one = _validated(tree, {"need_files": False})
        wrong = list(disagreements(one))
    except ValidationError as error:
        wrong = problems(error)
    if wrong:
        raise ScenarioError(listed(f"{dotted(keys)}: {said}" for keys, said in wrong))
    return one


def at_points(scenario: Scenario, check: Check) -> Iterator[Problem]:
    """Yield what *check* finds wrong at every point once, and what is wrong at some with the first of them."""
    played = points(scenario)
    found: dict[Problem, list[Mapping[str, Any]]] = {}
    for point, one in played:
        for problem in check(one):
            found.setdefault(problem, []).append(point)
    for (keys, said), where in found.items():
        yield keys, said if len(where) == len(played) else f"{said} (at {condition(where[0])})"


def dump(scenario: Scenario, folder: Path | None = None) -> str:
    """Return *scenario* as YAML with every default filled in; reading it again gives an equal scenario.

    With a *folder*, in which it will be written down, the files it names are found from there.
    """
    return write(scenario.model_dump(by_alias=True, context={"folder": folder}))


def digest(scenario: Scenario) -> str:
    """Return what identifies *scenario*, however it was written down: sha256 of its `dump`, in hex."""
    return hashlib.sha256(dump(scenario).encode()).hexdigest()


def _validated(tree: Any, context: Mapping[str, Any]) -> Scenario:
    return Scenario.model_validate(tree, context=dict(context))


def _combinations(scenario: Scenario) -> list[dict[str, Any]]:
    return [dict(zip(scenario.vary, values)) for values in itertools.product(*scenario.vary.values())]


def _without_sweep(scenario: Scenario) -> dict[str, Any]:
    return {**scenario.model_dump(by_alias=True), "vary": {}, "claims": {}}


# --- where it was written -------------------------------------------------------------------------------------------


class _Places:
    """Where each setting was written: on a line of the file, or in an option."""

    def __init__(self, document: Document, options: list[Option]) -> None:
        self.document, self.options = document, options
        fleet = document.value.get("fleet")
        self._short_fleet = isinstance(fleet, dict) and "pools" not in fleet

    def error(self, wrong: Iterable[Problem]) -> ScenarioError:
        """Return the error that tells *wrong*, in the order of the file."""
        return ScenarioError(listed(sentence for _, sentence in sorted(map(self._sentence, wrong))))

    def _sentence(self, problem: Problem) -> tuple[int, str]:
        keys, said = problem
        for option in reversed(self.options):
            if keys[: len(option.keys)] == option.keys:
                deeper = f"{dotted(self._as_written(keys))}: " if keys != option.keys else ""
                return 0, f"{option.text}: {deeper}{said}"
        inside = [option.text for option in self.options if option.keys[: len(keys)] == keys]
        keys = self._as_written(keys)
        line = self.document.line(keys)
        where = f"{self.document.source}:{line}: {dotted(keys)}"
        options = f" (with {', '.join(inside)})" if inside else ""
        return line, f"{where}{options}: {said}"

    def _as_written(self, keys: Keys) -> Keys:
        if self._short_fleet and keys[:3] == ("fleet", "pools", ONLY_POOL):
            return ("fleet", *keys[3:])
        return keys


# --- the sweep ------------------------------------------------------------------------------------------------------


def _with_sweep(scenario: Scenario, context: Mapping[str, Any]) -> tuple[Scenario, list[Problem]]:
    """Return *scenario* with the values of `vary` as its fields keep them (5m as 300.0), and what is wrong there."""
    tree = _without_sweep(scenario)
    wrong: list[Problem] = []
    sweep: dict[str, list[Any]] = {}
    for path, values in scenario.vary.items():
        try:
            keys = resolve(path, tree)
        except ValueError as error:
            wrong.append((("vary", path), str(error)))
            continue
        if keys[0] in _FIXED:
            wrong.append((("vary", path), f"expected a setting that may change from point to point, got {keys[0]}"))
            continue
        if scenario.workload.trace is not None and replaced_by_trace(keys):
            wrong.append((("vary", path), "expected none with workload.trace, which says who comes, when and how long"))
            continue
        kept = sweep.setdefault(path, [])
        for i, value in enumerate(values):
            try:
                value = get(_validated(put(tree, keys, value), context).model_dump(by_alias=True), keys)
            except ValidationError as error:
                wrong += [(("vary", path, i), _below(keys, problem)) for problem in problems(error)]
            if value in kept:
                wrong.append((("vary", path, i), f"expected each value once, got {show(value)} again"))
            kept.append(value)
    if (size := math.prod(map(len, sweep.values()))) > MOST_POINTS:
        wrong.append((("vary",), f"expected at most {MOST_POINTS} combinations, got {size}"))
    return scenario.model_copy(update={"vary": sweep}), wrong


def _below(keys: Keys, problem: Problem) -> str:
    at, said = problem
    deeper = at[len(keys) :] if at[: len(keys)] == keys else ()
    return f"{dotted(deeper)}: {said}" if deeper else said
