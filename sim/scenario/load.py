"""From a scenario file to a `Scenario`, and back: each fault in one sentence with its file, line and field."""

import hashlib
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from sim.scenario.paths import Keys, get, long_form, put, resolve
from sim.words import did_you_mean, show

MOST_POINTS = 10_000
_FIXED = ("vary", "claims", "name", "seed", "seeds")


def load(path: str | Path, overrides: Sequence[str] = ()) -> Scenario:
    """Return the scenario in the file at *path*, or the shipped one of that name.

    *overrides* are texts ``a.b.c=value`` with a YAML value, put in place before anything is checked.

    Raises:
        ScenarioError: what is wrong, one sentence a line, each with the line or the option it stands in.
    """
    path = shipped().get(str(path), Path(path)) if not os.path.exists(path) else Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = did_you_mean(path.stem, [*shipped(), *(other.stem for other in path.parent.glob("*.yaml"))])
        raise ScenarioError(f"{path}: no such scenario file{near}") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: expected a text in UTF-8, got other bytes at {error.start}") from None
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    return loads(text, str(path), overrides, path.parent)


def loads(
    text: str, source: str = "scenario.yaml", overrides: Sequence[str] = (), folder: Path | None = None
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
    tree, options = _override(long_form(document.value), overrides)
    places = _Places(document, options)
    try:
        scenario = _validated(tree, folder)
    except ValidationError as error:
        raise places.error(problems(error)) from None
    scenario, wrong = _with_sweep(scenario, folder)
    wrong = wrong or list(_disagreements(scenario))
    if wrong:
        raise places.error(wrong)
    return scenario


def points(scenario: Scenario) -> list[tuple[dict[str, Any], Scenario]]:
    """Return every combination of `vary` in the order of the file, as path -> value, and the scenario it makes.

    A point has neither sweep nor claims: those belong to all points together. Without a sweep, the scenario itself
    is the only point.
    """
    if not scenario.vary:
        return [({}, scenario)]
    tree = _without_sweep(scenario)
    combined = []
    for values in itertools.product(*scenario.vary.values()):
        point, one = dict(zip(scenario.vary, values)), tree
        for path, value in point.items():
            one = put(one, resolve(path, tree), value)
        combined.append((point, _validated(one, None)))
    return combined


def dump(scenario: Scenario) -> str:
    """Return *scenario* as YAML with every default filled in; reading it again gives an equal scenario."""
    return write(scenario.model_dump())


def digest(scenario: Scenario) -> str:
    """Return what identifies *scenario*, however it was written down: sha256 of its `dump`, in hex."""
    return hashlib.sha256(dump(scenario).encode()).hexdigest()


def _validated(tree: Any, folder: Path | None) -> Scenario:
    return Scenario.model_validate(tree, context={"folder": folder})


def _without_sweep(scenario: Scenario) -> dict[str, Any]:
    return {**scenario.model_dump(), "vary": {}, "claims": {}}


# --- options --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Option:
    """One ``--set path=value``, which a message names in place of a line."""

    text: str
    keys: Keys


def _override(tree: Any, overrides: Sequence[str]) -> tuple[Any, list[_Option]]:
    options = []
    for text in overrides:
        name = f"--set {text}"
        path, equals, written = text.partition("=")
        if not equals or not path.strip():
            raise ScenarioError(f"{name}: expected KEY=VALUE, such as workload.rate_per_s=7")
        try:
            keys = resolve(path.strip(), tree)
        except ValueError as error:
            raise ScenarioError(f"{name}: {error}") from None
        if path.strip() in (get(tree, ("vary",)) or {}):
            raise ScenarioError(f"{name}: the scenario varies it, expected --set vary.{path.strip()}=[{written}]")
        try:
            value = Document(written, name).value
        except ScenarioError as error:
            raise ScenarioError(str(error).replace(f"{name}:1:", f"{name}:", 1)) from None
        tree = long_form(put(tree, keys, value))
        options.append(_Option(name, keys))
    return tree, options


class _Places:
    """Where each setting was written: on a line of the file, or in an option."""

    def __init__(self, document: Document, options: list[_Option]) -> None:
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
        keys = self._as_written(keys)
        line = self.document.line(keys)
        return line, f"{self.document.source}:{line}: {dotted(keys)}: {said}"

    def _as_written(self, keys: Keys) -> Keys:
        if self._short_fleet and keys[:3] == ("fleet", "pools", ONLY_POOL):
            return ("fleet", *keys[3:])
        return keys


# --- the sweep ------------------------------------------------------------------------------------------------------


def _with_sweep(scenario: Scenario, folder: Path | None) -> tuple[Scenario, list[Problem]]:
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
        kept = sweep.setdefault(path, [])
        for i, value in enumerate(values):
            try:
                value = get(_validated(put(tree, keys, value), folder).model_dump(), keys)
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


def _disagreements(scenario: Scenario) -> Iterable[Problem]:
    """Yield what is wrong at every point once, and what is wrong at some with the first of them."""
    played = points(scenario)
    found: dict[Problem, list[Mapping[str, Any]]] = {}
    for point, one in played:
        for problem in disagreements(one):
            found.setdefault(problem, []).append(point)
    for (keys, said), where in found.items():
        yield keys, said if len(where) == len(played) else f"{said} (at {condition(where[0])})"
    yield from broken_claims(scenario, [point for point, _ in played])
