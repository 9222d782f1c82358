"""Judges the text of an answer by a check of the scenario: right, wrong, or not to be judged."""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from sim import code
from sim.errors import InputError
from sim.scenario import AnswerCheck
from sim.words import show

Verdict = Literal["right", "wrong", "not_judged"]
VERDICTS: tuple[Verdict, ...] = ("right", "wrong", "not_judged")

REFUSALS = (
    r"\bI(?:['’]m| am) (?:really |very )?(?:sorry|afraid),? (?:but )?(?:I|that)\b",
    r"\bI apologi[sz]e,? but\b",
    r"\bI(?:['’]m| am) (?:not able|unable) to (?:help|assist|answer|provide|fulfil|comply|do)",
    r"\bI (?:can(?:['’]t|not| not)|won['’]t|will not) (?:help|assist|answer|provide|fulfil|comply|do|support|discuss)",
    r"\bas an? (?:AI|artificial intelligence|(?:large )?language model)\b",
)
"""How models refuse: beginnings by which research tells refusals (Zou et al. 2023, "Universal and transferable
adversarial attacks on aligned language models", test_prefixes), without those that helpful answers have too."""


@dataclass(frozen=True)
class Judged:
    """What a check found; *why* is a sentence for an answer that is not right."""

    verdict: Verdict
    why: str = ""


Judge = Callable[[str, Mapping[str, Any]], Judged]
"""Called with the text of an answer, and what was asked."""
RIGHT = Judged("right")
NO_JSON = "checks with a json_schema need jsonschema, which is not installed; try: pip install 'blowout[loadtest]'"


def judge_of(check: AnswerCheck) -> Judge:
    """Return what judges answers by *check*.

    Raises:
        InputError: its JSON Schema or its function is not what it should be, or there is nothing to check JSON with.
    """
    found: dict[str, Callable[[Any], Judge]] = {
        "json_schema": _json_schema,
        "matches": _matches,
        "refuses": _refuses,
        "python": _python,
    }
    return found[check.way](getattr(check, check.way))


def can_check_json() -> bool:
    """Tell whether there is something to check JSON with."""
    return find_spec("jsonschema") is not None


def _matches(pattern: str) -> Judge:
    wanted = re.compile(pattern)
    return lambda text, asked: RIGHT if wanted.search(text) else Judged("wrong", f"holds no match of {show(pattern)}")


def _refuses(patterns: Literal[True] | list[str]) -> Judge:
    any_of = [re.compile(one, re.IGNORECASE) for one in (REFUSALS if patterns is True else patterns)]

    def judge(text: str, asked: Mapping[str, Any]) -> Judged:
        found = next((match for one in any_of if (match := one.search(text))), None)
        return RIGHT if found is None else Judged("wrong", f"refuses: {show(found[0])}")

    return judge


def _json_schema(given: str | dict[str, Any]) -> Judge:
    schema = given if isinstance(given, dict) else _read(given)
    if not can_check_json():
        raise InputError(NO_JSON)
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.exceptions import best_match
    from jsonschema.validators import validator_for
    from referencing.jsonschema import EMPTY_REGISTRY

    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        at = "".join(f"/{part}" for part in error.absolute_path)
        raise InputError(f"expected a JSON Schema; at {at or 'its top'}: {error.message[:200]}") from None
    validator = kind(schema, registry=EMPTY_REGISTRY)  # nothing is fetched from anywhere

    def judge(text: str, asked: Mapping[str, Any]) -> Judged:
        try:
            value = json.loads(text)
        except ValueError as error:
            return Judged("wrong", f"is no JSON: {error}")
        wrong = best_match(validator.iter_errors(value))
        return RIGHT if wrong is None else Judged("wrong", f"{wrong.json_path}: {wrong.message[:200]}")

    return judge


def _read(path: str) -> Any:
    try:
        schema = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: expected a JSON Schema, but it is no JSON ({error})") from None
    if not isinstance(schema, dict):
        raise InputError(f"{path}: expected a JSON Schema, a mapping, got {show(schema)}")
    return schema


def _python(name: str) -> Judge:
    word, function = code.find(name)
    if not callable(function):
        raise InputError(f"expected a function {show(word)}, got {show(function)}")
    try:
        inspect.signature(function).bind("", {})
    except TypeError:
        raise InputError(
            f"expected {word} to take the text of an answer and what was asked, {word}(text, asked)"
        ) from None

    def judge(text: str, asked: Mapping[str, Any]) -> Judged:
        said = function(text, asked)
        if isinstance(said, bool):
            return RIGHT if said else Judged("wrong", f"{word} says so")
        return Judged("not_judged", f"{word}: expected True or False, got {show(said)}")

    return judge


def judged(judge: Judge, text: str, asked: Mapping[str, Any]) -> Judged:
    """Return what *judge* finds; where it fails itself, the answer is not judged."""
    try:
        return judge(text, asked)
    except Exception as error:
        return Judged("not_judged", f"{type(error).__name__}: {error}"[:200])
