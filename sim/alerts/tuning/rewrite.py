"""A rule file with other numbers in it, and everything else as it was: comments, layout, annotations, other rules."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from sim.alerts.rulefile import Group, Rule, reads
from sim.alerts.tuning.knobs import Knobs, Point, Span, duration, turned
from sim.errors import InputError, RuleError


@dataclass(frozen=True)
class Change:
    """A rule and the setting that it is to have."""

    knobs: Knobs
    point: Point

    @property
    def rule(self) -> Rule:
        """The rule as it will be."""
        return replace(self.knobs.rule, text=self.knobs.text(self.point), for_ms=self.point.for_ms)


def rewritten(text: str, file: str, wanted: Sequence[Change]) -> str:
    """Return the rule file *text* with the changes *wanted* of its rules.

    What is returned has been read again: the changed rules say what they should, and no other says anything else.

    Raises:
        InputError: it cannot be written in place, as where an anchor stands for several rules.
    """
    rules = [rule for group in reads(text, file) for rule in group.rules]
    changes = {number: one for one in wanted for number, rule in enumerate(rules) if _same(rule, one.knobs.rule)}
    nodes = [node for document in yaml.compose_all(text, yaml.SafeLoader) for node in _rule_nodes(document)]
    for exactly in (True, False):
        spans: list[tuple[Span, str]] = []
        for number, change in changes.items():
            spans += _in_place(text, nodes[number], change, exactly)
        made = turned(text, spans)
        if _says(made, file) == _expected(text, file, changes):
            return made
    names = ", ".join(change.knobs.rule.name for change in changes.values())
    raise InputError(f"{file}: {names}: cannot be written in place; expected rules without YAML anchors or tags")


def _same(one: Rule, other: Rule) -> bool:
    """Return whether both are one rule of a file."""
    return (one.group, one.line, one.name, one.text) == (other.group, other.line, other.name, other.text)


def _says(text: str, file: str) -> list[Any] | None:
    try:
        return [_content(group, group.rules) for group in reads(text, file)]
    except RuleError:
        return None


def _expected(text: str, file: str, changes: Mapping[int, Change]) -> list[Any]:
    found, number = [], 0
    for group in reads(text, file):
        rules = []
        for rule in group.rules:
            rules.append(changes[number].rule if number in changes else rule)
            number += 1
        found.append(_content(group, tuple(rules)))
    return found


def _content(group: Group, rules: tuple[Rule, ...]) -> Any:
    said = [
        (one.name, one.records, one.text.strip(), one.for_ms, one.keep_firing_for_ms, one.labels, one.annotations)
        for one in rules
    ]
    return group.name, group.interval_ms, said


def _rule_nodes(node: Any) -> Iterator[yaml.MappingNode]:
    """Yield the rules of a document in the order in which `rulefile` reads them."""
    if not isinstance(node, yaml.MappingNode):
        return
    entries = {key.value: value for key, value in node.value}
    kind = entries["kind"].value if "kind" in entries else ""
    if kind in ("List", "PrometheusRuleList"):
        for item in entries["items"].value if "items" in entries else ():
            yield from _rule_nodes(item)
    elif kind == "PrometheusRule":
        for key, value in entries["spec"].value if "spec" in entries else ():
            yield from _of_groups(value) if key.value == "groups" else ()
    elif not kind and "groups" in entries:
        yield from _of_groups(entries["groups"])


def _of_groups(groups: Any) -> Iterator[yaml.MappingNode]:
    for group in groups.value:
        for key, value in group.value:
            yield from value.value if key.value == "rules" else ()


def _in_place(text: str, node: yaml.MappingNode, change: Change, exactly: bool) -> list[tuple[Span, str]]:
    """Return what to write where in the file; not *exactly*: the whole expression anew, in quotes."""
    entries = {key.value: (key, value) for key, value in node.value}
    key, expr = entries["expr"]
    found: list[tuple[Span, str]] = []
    if changes := change.knobs.changes(change.point):
        span = expr.start_mark.index, expr.end_mark.index
        places = _places(text[slice(*span)], expr.value, expr.style) if exactly else None
        if places is None:
            end = "\n" if expr.style in ("|", ">") else ""
            found.append((span, json.dumps(change.rule.text, ensure_ascii=False) + end))
        else:
            for (start, stop), word in changes:
                found.append(((span[0] + places[start], span[0] + places[stop - 1] + 1), word))
    if change.point.for_ms != change.knobs.today.for_ms:
        wanted = duration(change.point.for_ms)
        if "for" in entries:
            value = entries["for"][1]
            found.append(((value.start_mark.index, value.end_mark.index), wanted))
        else:
            at = key.start_mark.index
            between = ", " if node.flow_style else "\n" + " " * key.start_mark.column
            found.append(((at, at), f"for: {wanted}{between}"))
    return found


def _places(raw: str, value: str, style: str | None) -> list[int] | None:
    """Return where each character of a scalar's *value* stands in its *raw* text; None where that is not plain.

    Spaces and line breaks may differ, and have no place of their own.
    """
    at = raw.index("\n") + 1 if style in ("|", ">") and "\n" in raw else 0
    skipped = {"'": "'", '"': '"\\'}.get(style or "", "")
    places: list[int] = []
    for character in value:
        if character.isspace():
            places.append(at)
            continue
        while at < len(raw) and raw[at] != character:
            if not raw[at].isspace() and raw[at] not in skipped:
                return None
            at += 1
        if at == len(raw):
            return None
        places.append(at)
        at += 1
    return places
