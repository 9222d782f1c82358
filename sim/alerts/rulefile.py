"""Rule files of Prometheus and ``PrometheusRule`` objects of Kubernetes, read as strictly as promtool does.

Errors name file, line and rule. An expression outside the subset is no error: the rule keeps why it is refused.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from sim.alerts.promql.parsing import Expression, SyntaxFault, parse, place
from sim.alerts.promql.vectors import UnsupportedError
from sim.errors import RuleError
from sim.series import NAME
from sim.words import did_you_mean, show

DURATION = re.compile(
    r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?"
)  # common/model/time.go
UNITS_MS = (31_536_000_000, 604_800_000, 86_400_000, 3_600_000, 60_000, 1_000, 1)
FROM_LABELS = re.compile(r"\{\{\s*\$labels\.([a-zA-Z_]\w*)\s*\}\}")
"""The one template that a rule's label may hold and still be judged: the value of another label."""

_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_GROUP_KEYS = ("name", "interval", "limit", "rules")
_RULE_KEYS = ("record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations")
_KUBERNETES_ONLY = ("partial_response_strategy",)


@dataclass(frozen=True)
class Rule:
    """One rule as it was written; *expression* is None where the subset refuses it, and *refused* says why."""

    name: str
    records: bool
    text: str
    group: str
    file: str
    line: int
    for_ms: int = 0
    keep_firing_for_ms: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    expression: Expression | None = None
    refused: str = ""

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated together, in order; *interval_ms* is None where the server's default counts."""

    name: str
    file: str
    interval_ms: int | None
    rules: tuple[Rule, ...]


def read(paths: Iterable[Path]) -> list[Group]:
    """Return the groups of all files, in order.

    Raises:
        RuleError: a file that is missing, no rule file, or holds an expression that is no PromQL.
    """
    groups: list[Group] = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise RuleError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise RuleError(f"{path}: expected rules in YAML, but it is no text") from None
        groups += reads(text, str(path))
    return groups


@cache
def read_once(path: Path) -> list[Group]:
    """Return the groups of one file; read once, for a sweep is judged by the same rules at each point.

    Raises:
        RuleError: as `read`.
    """
    return read([path])


def reads(text: str, file: str) -> list[Group]:
    """Return the groups that *text* holds: one or several documents, of Prometheus or of Kubernetes.

    Raises:
        RuleError: it is no rule file.
    """
    try:
        documents = [node for node in yaml.compose_all(text, yaml.SafeLoader) if node is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RuleError(f"{file}:{mark.line + 1 if mark else 1}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise RuleError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
    found = [group for node in documents for group in _document(_Node(node, file))]
    if not found:
        raise RuleError(f"{file}: expected groups of rules, or PrometheusRule objects, but there are none")
    names: set[str] = set()
    for group in found:
        if group.name in names:
            raise RuleError(f"{file}: the group {group.name!r} stands twice")
        names.add(group.name)
    return found


@dataclass(frozen=True)
class _Node:
    """A piece of YAML that knows its line and whose it is."""

    node: Any
    file: str
    about: str = ""

    def fault(self, said: str) -> RuleError:
        return RuleError(f"{self.file}:{self.line}: {self.about}{said}")

    @property
    def line(self) -> int:
        return int(self.node.start_mark.line) + 1

    def called(self, about: str) -> "_Node":
        return _Node(self.node, self.file, about)

    def text(self) -> str:
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.fault("expected a text, got a list or a mapping")
        return str(self.node.value)

    def items(self) -> "Iterator[_Node]":
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.fault("expected a list")
        return (_Node(item, self.file, self.about) for item in self.node.value)

    def mapping(self, known: Sequence[str] = ()) -> "dict[str, _Node]":
        if not isinstance(self.node, yaml.MappingNode):
            raise self.fault("expected a mapping")
        found: dict[str, _Node] = {}
        for key, value in self.node.value:
            name = _Node(key, self.file, self.about).text()
            if name in found:
                raise _Node(key, self.file, self.about).fault(f"the key {show(name)} stands twice")
            if known and name not in known:
                said = f"no key {show(name)} here{did_you_mean(name, known) or ', expected one of ' + ', '.join(known)}"
                raise _Node(key, self.file, self.about).fault(said)
            found[name] = _Node(value, self.file, f"{self.about}{name}: ")
        return found


def _document(document: _Node) -> Iterator[Group]:
    """Yield the groups of a rule file or of Kubernetes objects; objects of other kinds are not ours."""
    entries = document.mapping()
    if "kind" not in entries:
        entries = document.mapping(("groups",))
        yield from _groups(entries["groups"], False) if "groups" in entries else ()
    elif entries["kind"].text() in ("List", "PrometheusRuleList"):
        for item in entries["items"].items() if "items" in entries else ():
            yield from _document(item)
    elif entries["kind"].text() == "PrometheusRule":
        spec = entries["spec"].mapping() if "spec" in entries else {}
        yield from _groups(spec["groups"], True) if "groups" in spec else ()


def _groups(node: _Node, kubernetes: bool) -> Iterator[Group]:
    extra = _KUBERNETES_ONLY if kubernetes else ()
    for item in node.called("").items():
        entries = item.mapping((*_GROUP_KEYS, *extra))
        name = entries["name"].text() if "name" in entries else ""
        if not name:
            raise item.fault("expected a group with a name")
        interval = duration_ms(entries["interval"]) if "interval" in entries else None
        if interval == 0:
            interval = None
        limited = "limit" in entries and entries["limit"].text() != "0"
        rules = entries["rules"].items() if "rules" in entries else iter(())
        made = tuple(_rule(rule.called(f"group {name!r}, "), name, limited) for rule in rules)
        yield Group(name, item.file, interval, made)


def _rule(node: _Node, group: str, limited: bool) -> Rule:
    if isinstance(node.node, yaml.MappingNode):
        named = [v.value for k, v in node.node.value if k.value in ("alert", "record") and hasattr(v, "value")]
        node = node.called(f"{node.about}rule {named[0] if named and isinstance(named[0], str) else '?'!r}: ")
    entries = node.mapping(_RULE_KEYS)
    if ("record" in entries) == ("alert" in entries):
        raise node.fault("expected either record or alert")
    records = "record" in entries
    name = entries["record" if records else "alert"].text()
    _check_rule(node, entries, name, records)
    labels, annotations = (_named(entries[key]) if key in entries else {} for key in ("labels", "annotations"))
    expression, refused = _expression(entries["expr"])
    templated = [key for key, value in labels.items() if "{{" in FROM_LABELS.sub("", value)]
    if templated and not records:
        refused = f"the template in the label {templated[0]}"
    if limited:
        refused = "a group with a limit"
    return Rule(
        name,
        records,
        entries["expr"].text(),
        group,
        node.file,
        node.line,
        duration_ms(entries["for"]) if "for" in entries else 0,
        duration_ms(entries["keep_firing_for"]) if "keep_firing_for" in entries else 0,
        labels,
        annotations,
        None if refused else expression,
        refused,
    )


def _named(node: _Node) -> dict[str, str]:
    """Return labels or annotations."""
    entries = node.mapping()
    for key in entries:
        if not _LABEL.fullmatch(key) or key == NAME:
            raise node.fault(f"expected the name of a label, got {show(key)}")
    return {key: value.text() for key, value in entries.items()}


def _check_rule(node: _Node, entries: dict[str, _Node], name: str, records: bool) -> None:
    if "expr" not in entries or not entries["expr"].text().strip():
        raise node.fault("expected an expression under expr")
    if not name:
        raise node.fault("expected a name")
    if records:
        if not _METRIC.fullmatch(name):
            raise node.fault(f"expected the name of a metric to record, got {show(name)}")
        for key in ("for", "keep_firing_for", "annotations"):
            if key in entries:
                raise entries[key].fault("only an alert may have this")


def _expression(node: _Node) -> tuple[Expression | None, str]:
    """Return the expression, or why it is refused.

    Raises:
        RuleError: it is no PromQL; with its position.
    """
    text = node.text()
    try:
        return parse(text), ""
    except UnsupportedError as error:
        return None, error.what + ("" if error.position is None else f" ({_spot(text, error.position)})")
    except SyntaxFault as error:
        first = node.line + (1 if node.node.style == "|" else 0)
        line = first + place(text, error.position)[0] - 1 if node.node.style == "|" else node.line
        raise RuleError(
            f"{node.file}:{line}: {node.about}not PromQL at {_spot(text, error.position)}: {error.what}"
        ) from None


def _spot(text: str, position: int) -> str:
    line, column = place(text, position)
    return f"line {line}, column {column}" if "\n" in text.strip() else f"column {column}"


def duration_ms(node: _Node) -> int:
    """Return a duration as Prometheus writes it (``5m``, ``1h30m``, ``0``) in milliseconds.

    Raises:
        RuleError: it is none.
    """
    text = node.text()
    match = DURATION.fullmatch(text)
    if text == "0":
        return 0
    if not text or match is None:
        raise node.fault(f"expected a duration such as 5m or 1h30m, got {show(text)}")
    return sum(int(number) * unit for number, unit in zip(match.groups(), UNITS_MS) if number)


def written_ms(ms: int) -> str:
    """Return milliseconds as Prometheus writes a duration: ``5m``, ``1h30m``, ``0s``."""
    pieces = []
    for unit_ms, unit in zip(UNITS_MS[2:], ("d", "h", "m", "s", "ms")):
        number, ms = divmod(ms, unit_ms)
        pieces += [f"{number}{unit}"] if number else []
    return "".join(pieces) or "0s"
