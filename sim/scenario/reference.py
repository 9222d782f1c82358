"""The settings of a scenario file as Markdown tables: what `docs/reference/scenario.md` holds, and a test compares.

``python -m sim.scenario.reference`` prints them.
"""

from collections.abc import Iterator
from typing import Any

from sim.scenario.kinds import NAME_PATTERN
from sim.scenario.models import Scenario
from sim.units import UNITS_S

Schema = dict[str, Any]

WHOLE = "the file"
LENGTH = "LENGTH"
KIND = ": "
"""What stands between a list and the first key of its entries, where that says which mapping they are."""
SHARED = {"Distribution": LENGTH, "Clients": "clients"}
"""What stands in several places is called by what it is, and not by where it is first met."""
SAME = {f"{when}{what}": what for when in ("Random", "Periodic") for what in ("Slow", "Stop", "Lose", "Refuse")}
"""Mappings that hold what another does, and two keys more that are told where they stand."""


def markdown() -> str:
    """Return a section with a table of keys for each mapping that a scenario file may hold."""
    schema = Scenario.model_json_schema()
    mappings = {"": schema, **schema["$defs"]}
    places: dict[str, str] = {}
    _find_places(mappings, "", "", places)
    order = [WHOLE, *schema["properties"], LENGTH]
    named = sorted(places.items(), key=lambda item: order.index(item[1].partition(".")[0].partition(":")[0]))
    return "\n".join(_section(mappings[name], place, places) for name, place in named)


def _find_places(mappings: dict[str, Schema], name: str, path: str, places: dict[str, str]) -> None:
    """Put into *places* where in a file each mapping of the schema stands, from *name* (at *path*) downwards."""
    places[name] = path or WHOLE
    for key, node in mappings[name]["properties"].items():
        for child, step in _children(node):
            if child not in places:
                kind = next(iter(mappings[child]["properties"])) if step.endswith(KIND) else ""
                place = f"{path}.{key}{step}{kind}".removeprefix(".")
                _find_places(mappings, child, SHARED.get(child, place), places)


def _children(node: Schema) -> Iterator[tuple[str, str]]:
    """Yield the mappings that *node* may hold, each with what stands between: ``.NAME``, ``[]``, `KIND` or nothing."""
    if "$ref" in node:
        yield _ref(node), ""
    for one in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _children(one)
    for one in node.get("patternProperties", {}).values():
        yield from ((child, f".NAME{step}") for child, step in _children(one))
    if items := node.get("items"):
        yield from ((child, KIND if "oneOf" in items else f"[]{step}") for child, step in _children(items))


def _ref(node: Schema) -> str:
    name = node["$ref"].rpartition("/")[2]
    return SAME.get(name, name)


def _section(inside: Schema, place: str, places: dict[str, str]) -> str:
    lines = ["## The file" if place == WHOLE else f"## `{place}`", ""]
    lines += [_prose(inside["description"]) + (" Exactly one of:" if "maxProperties" in inside else ""), ""]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, node in inside["properties"].items():
        default = "required" if key in inside.get("required", ()) else _default(node)
        meaning = _prose(node.get("description", "")) or f"See {_kind(node, places)}."
        lines.append(f"| `{key}` | {_kind(node, places)} | {default} | {meaning} |")
    if isinstance(extra := inside.get("additionalProperties"), dict):
        lines.append(f"| METRIC | {_kind(extra, places)} | none | The bound of any [metric](metrics.md). |")
    return "\n".join([*lines, ""])


def _prose(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def _kind(node: Schema, places: dict[str, str]) -> str:
    """Return in words what may stand there."""
    if "$ref" in node:
        place = places[_ref(node)]
        anchor = place.lower().replace(" ", "-")
        return f"[`{place}`](#{''.join(letter for letter in anchor if letter.isalnum() or letter in '-_')})"
    choices = [one for one in (*node.get("anyOf", ()), *node.get("oneOf", ())) if one.get("type") != "null"]
    if _is_duration(node):
        return "duration"
    if any(str(one.get("pattern", "")).endswith("%$") for one in choices):
        return "fraction"
    if choices:
        return " or ".join(_kind(one, places) for one in choices)
    words = node.get("enum", [node["const"]] if "const" in node else [])
    if words:
        return " or ".join(f"`{str(word).lower() if word is True else word}`" for word in words)
    match node.get("type"):
        case "object":
            word = "NAME" if "patternProperties" in node else "PATH"
            inner = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")][0]
            return f"{word}: {_kind(inner, places)}" if isinstance(inner, dict) else "mapping"
        case "array":
            return f"list: {_kind(node['items'], places)}" if node["items"] else "list"
        case "number":
            return "number" + _bounds(node)
    plain = {"integer": "whole number", "boolean": "`true` or `false`"}
    return plain.get(node.get("type", ""), "name" if node.get("pattern") == NAME_PATTERN else "text")


def _is_duration(node: Schema) -> bool:
    return any("us|ms" in str(one.get("pattern", "")) for one in node.get("anyOf", ()))


def _bounds(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    if "exclusiveMinimum" in node:
        return f" above {node['exclusiveMinimum']:g}"
    return f" of at least {low:g}" if low is not None else ""


def _default(node: Schema) -> str:
    match node.get("default"):
        case None | "" | [] | {}:
            return "none"
        case dict():
            return "as below"
        case bool() as value:
            return f"`{str(value).lower()}`"
        case list() as values:
            return ", ".join(f"`{value}`" for value in values)
        case float() as value:
            return f"`{_duration(value)}`" if _is_duration(node) else f"`{value:g}`"
        case value:
            return f"`{value}`"


def _duration(seconds: float) -> str:
    """Return whole seconds in the largest unit that stays whole, but for weeks: 300 as ``5m``."""
    units = [unit for unit, unit_s in UNITS_S.items() if unit != "w" and seconds and (seconds / unit_s).is_integer()]
    return f"{seconds / UNITS_S[units[0]]:.0f}{units[0]}" if units else f"{seconds:g}s"


if __name__ == "__main__":
    print(markdown(), end="")
