"""The JSON Schema of scenario files, from which editors complete and check them while they are written."""

from typing import Any

from sim.scenario.models import Scenario


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a scenario file, each setting with its description."""
    schema = Scenario.model_json_schema()
    definitions = schema["$defs"]
    fleet = definitions["Fleet"]  # its short form: the settings of the only pool
    fleet["properties"] = definitions["Pool"]["properties"] | fleet["properties"]
    fleet.pop("required", None)
    for definition in definitions.values():
        if definition.get("maxProperties") == 1:
            for choice in definition["properties"].values():  # a key that is chosen has a value
                choice |= choice.pop("anyOf")[0]
                del choice["default"]
    _none_is_a_word(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Blowout scenario"}


def _none_is_a_word(schema: Any) -> None:
    """Let ``none`` stand wherever ``null`` may, and leave out titles that only repeat a key."""
    if isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        if {"type": "null"} in (alternatives := schema.get("anyOf", [])):
            alternatives.append({"const": "none"})
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _none_is_a_word(inner)
