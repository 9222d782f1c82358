"""What is wrong, in one sentence: which setting, what was expected there, and what stood there."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sim.scenario.expect import RULE_PATTERN
from sim.scenario.fleet import Fleet, Pool
from sim.scenario.kinds import CODE_PATTERN, NAME_PATTERN, SLUG_PATTERN, TARGET_PATTERN
from sim.scenario.paths import Keys, field, fields, is_model, is_tag
from sim.words import did_you_mean, show

Problem = tuple[Keys, str]
"""Where a scenario is wrong, and a sentence that says how."""

_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "{expected}",
    "string_too_short": "a text that is not empty",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length} entry",
}
_PATTERNS = {
    NAME_PATTERN: "a name of letters, digits, - and _",
    SLUG_PATTERN: "a name of lower case letters, digits and -",
    TARGET_PATTERN: "a pool or replicas of one, such as chat, chat/3, chat/0-4 or chat/zone-1",
    RULE_PATTERN: "the name of an alert rule",
    CODE_PATTERN: "a module and a function, such as my_module:my_process",
}


def problems(error: ValidationError) -> list[Problem]:
    """Return each fault that pydantic found; a key that is missing because it was misspelt is told once."""
    found = [_problem(detail) for detail in error.errors(include_url=False)]
    unknown = [(keys, said) for keys, said in found if said.startswith("unknown key")]
    return [
        (keys, said)
        for keys, said in found
        if not (
            said.startswith("missing")
            and any(keys[:-1] == other[:-1] and repr(keys[-1]) in words for other, words in unknown)
        )
    ]


def _problem(detail: ErrorDetails) -> Problem:
    keys = tuple(key for key in detail["loc"] if not is_tag(key) and key != "[key]")
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    inside, said = field(detail["loc"])
    if kind == "extra_forbidden":
        return keys, _unknown(keys, inside)
    if kind == "missing":
        return keys, f"missing, expected {_lower(said.description) if said and said.description else 'a value'}"
    if kind == "value_error":
        return keys, str(context["error"])
    if kind == "kind" and isinstance(value, dict):
        return keys, f"expected {detail['msg']}{_which(value, detail['msg'])}"
    if kind in ("choice", "kind"):
        expected = detail["msg"]
    elif kind == "string_pattern_mismatch":
        expected = _PATTERNS[context["pattern"]]
    else:
        bounds = {name: show(bound) if isinstance(bound, float) else bound for name, bound in context.items()}
        expected = _EXPECTED[kind].format(**bounds) if kind in _EXPECTED else detail["msg"]
    hint = " (quotes make it a text)" if kind == "string_type" and isinstance(value, bool | int | float) else ""
    return keys, f"expected {expected}, got {show(value)}{hint}"


def _which(value: dict[str, Any], words: str) -> str:
    """Return which of the kinds at the end of *words* the mapping *value* has, or which its keys come near."""
    kinds = words.partition(": ")[2].split(", ")
    found = [key for key in value if key in kinds]
    near = [hint for key in value if (hint := did_you_mean(key, kinds))]
    return f", got {' and '.join(found)}" if found else near[0] if near else ""


def _unknown(keys: Keys, inside: Any) -> str:
    known = list(fields(inside)) if is_model(inside) else []
    if inside is Pool:  # in the short form the fleet's own keys stand here too
        near = did_you_mean(str(keys[-1]), [*known, *Fleet.model_fields])
    else:
        near = did_you_mean(str(keys[-1]), known)
    return f"unknown key{near or ', expected one of ' + ', '.join(known)}"


def _lower(text: str) -> str:
    return text[0].lower() + text[1:].rstrip(".")


def condition(point: Mapping[str, Any]) -> str:
    """Return how a message names a *point* of the sweep: ``workload.rate_per_s = 7.2``."""
    return ", ".join(f"{path} = {show(value)}" for path, value in point.items())


def dotted(keys: Keys) -> str:
    """Return *keys* as they are written: ``workload.arrivals.piecewise[0].at``."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".")


def listed(sentences: Iterable[str], most: int = 5) -> str:
    """Return *sentences* one a line, at most *most* of them and then how many more there are."""
    lines = list(dict.fromkeys(sentences))
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join(lines[:most] + more)
