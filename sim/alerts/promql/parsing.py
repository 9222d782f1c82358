"""PromQL text into a checked tree: what is not in the subset is refused by name, with its position.

The parser is promql-parser (Rust, of GreptimeDB). It reads the language of Prometheus 3, and its trees have no
positions, so names are looked up again in the text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import promql_parser as promql

from sim.alerts.promql.aggregates import FOLDS
from sim.alerts.promql.matching import OPERATORS
from sim.alerts.promql.store import LOOKBACK_MS, Matcher
from sim.alerts.promql.vectors import UnsupportedError
from sim.alerts.promql.windows import SIMPLE
from sim.series import NAME

OF_RANGES = ("rate", "increase", *SIMPLE, "quantile_over_time", "absent_over_time")
OF_INSTANTS = ("histogram_quantile", "absent", "clamp", "clamp_min", "clamp_max", "vector", "scalar")
FUNCTIONS = (*OF_RANGES, *OF_INSTANTS)
_HIDDEN = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`|#[^\n]*")
_DURATION = re.compile(r"(?<![\w.:])(?:\d+(?:ms|[smhdwy]))+(?![\w.:])")
_TOKEN = re.compile(r"\s+|[\w:.]+|[=!<>]=|[=!]~|\S")
_OPS = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}


class SyntaxFault(Exception):  # noqa: N818 - what a user wrote, not what we did
    """A text that is no PromQL: why, and at which character."""

    def __init__(self, what: str, position: int = 0) -> None:
        super().__init__(what)
        self.what, self.position = what, position


@dataclass(frozen=True)
class Selector:
    """Which series an expression reads."""

    matchers: tuple[Matcher, ...]

    @property
    def name(self) -> str:
        """The metric name, or nothing when it is matched otherwise."""
        return next((m.value for m in self.matchers if m.name == NAME and m.op == "="), "")

    def __str__(self) -> str:
        inside = ", ".join(f'{m.name}{m.op}"{m.value}"' for m in self.matchers if (m.name, m.op) != (NAME, "="))
        return f"{self.name}{{{inside}}}" if inside else self.name


@dataclass
class Expression:
    """A PromQL expression that can be evaluated."""

    text: str
    tree: Any
    selectors: list[Selector] = field(default_factory=list)


def parse(text: str) -> Expression:
    """Return the expression that *text* is.

    Raises:
        SyntaxFault: it is none.
        UnsupportedError: it is one, but not of the subset.
    """
    try:
        tree = promql.parse(text)
    except ValueError as error:
        raise _fault(text, str(error)) from None
    found = Expression(text, tree)
    _refuse_numbers_of_time(text)
    for node in walk(tree):
        _check(node, text)
        if isinstance(node, promql.VectorSelector):
            found.selectors.append(selector(node))
    return found


def walk(node: Any) -> Iterator[Any]:
    """Yield *node* and everything below it, in the order of the text."""
    yield node
    for child in children(node):
        yield from walk(child)


def children(node: Any) -> list[Any]:
    """Return what stands directly below *node*."""
    match node:
        case promql.BinaryExpr():
            return [node.lhs, node.rhs]
        case promql.AggregateExpr():
            return [part for part in (node.param, node.expr) if part is not None]
        case promql.Call():
            return list(node.args)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return [node.expr]
        case promql.MatrixSelector():
            return [node.vector_selector]
    return []


def bare(node: Any) -> Any:
    """Return *node* without parentheses around it."""
    while isinstance(node, promql.ParenExpr):
        node = node.expr
    return node


def selector(node: Any) -> Selector:
    """Return what a selector of the tree selects."""
    matchers = [Matcher(m.name, _OPS[str(m.op).rpartition(".")[2]], m.value) for m in node.matchers.matchers]
    if node.name:
        matchers.insert(0, Matcher(NAME, "=", node.name))
    return Selector(tuple(matchers))


def milliseconds(length: timedelta | None) -> int:
    """Return a length of time in whole milliseconds."""
    return 0 if length is None else length // timedelta(milliseconds=1)


def reach_ms(tree: object) -> int:
    """Return how far back an expression looks."""
    nodes = list(walk(tree))
    ranges = [milliseconds(node.range) for node in nodes if isinstance(node, promql.MatrixSelector)]
    offsets = [milliseconds(node.offset) for node in nodes if isinstance(node, promql.VectorSelector)]
    return LOOKBACK_MS + max(ranges, default=0) + max([0, *offsets])


def place(text: str, position: int) -> tuple[int, int]:
    """Return line and column, both from 1, of a character of *text*."""
    before = text[:position]
    return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1


def visible(text: str) -> str:
    """Return *text* with strings and comments blanked, so that what is found in it is language."""
    return _HIDDEN.sub(lambda hit: " " * len(hit[0]), text)


def _at(text: str, word: str) -> int | None:
    pattern = rf"(?<![\w:]){re.escape(word)}(?![\w:])" if word[0].isalnum() else re.escape(word)
    hit = re.search(pattern, visible(text))
    return hit.start() if hit else None


def _refuse_numbers_of_time(text: str) -> None:
    seen = visible(text)
    for hit in _DURATION.finditer(seen):
        before = seen[: hit.start()]
        inside = before.count("[") > before.count("]")
        if not inside and not re.search(r"\boffset\s*-?\s*$", before):
            raise UnsupportedError(f"the duration {hit[0]} as a number (of Prometheus 3)", hit.start())


def _check(node: Any, text: str) -> None:
    """Refuse what the subset does not have.

    Raises:
        UnsupportedError: with its name and position.
    """
    refused: list[tuple[bool, str, str]] = []
    match node:
        case promql.Call():
            refused = [(node.func.name not in FUNCTIONS, f"the function {node.func.name}", node.func.name)]
        case promql.AggregateExpr():
            refused = [(str(node.op) not in FOLDS, f"the aggregation {node.op}", str(node.op))]
        case promql.BinaryExpr():
            fill = getattr(node.modifier, "fill_values", None)
            filled = fill is not None and (fill.lhs is not None or fill.rhs is not None)
            refused = [
                (str(node.op) not in OPERATORS, f"the operator {node.op}", str(node.op)),
                (filled, "the modifier fill (of Prometheus 3)", "fill"),
            ]
        case promql.SubqueryExpr():
            refused = [(True, "a subquery", "[")]
        case promql.VectorSelector():
            refused = [
                (node.at is not None, "the modifier @", "@"),
                (bool(node.matchers.or_matchers), "or between matchers", "or"),
            ]
            selector_patterns(node, text)
        case promql.StringLiteral():
            refused = [(True, "a text as a value", '"')]
    for wrong, what, word in refused:
        if wrong:
            raise UnsupportedError(what, _at(text, word))


def selector_patterns(node: Any, text: str) -> None:
    """Refuse the regular expressions of a selector that Python reads otherwise than Go.

    Raises:
        UnsupportedError: with the position.
    """
    for matcher in selector(node).matchers:
        try:
            matcher.accepts()
        except UnsupportedError as error:
            position = text.find(matcher.value)
            raise UnsupportedError(error.what, position if position >= 0 else None) from None


def _fault(text: str, said: str) -> SyntaxFault:
    """Return the syntax error with a position: the name that the parser complains of, or what it stumbles over."""
    if named := re.search(r"(?:function with name|function|illegal regex for) '?([^' ,]+)'?", said):
        position = text.find(named[1])
        if position >= 0:
            return SyntaxFault(said, position)
    seen = visible(text)
    depth: list[int] = []
    for i, character in enumerate(seen):
        if character in "([{":
            depth.append(i)
        elif character in ")]}" and (not depth or seen[depth.pop()] != "([{"[")]}".index(character)]):
            return SyntaxFault(said, i)
    if depth:
        return SyntaxFault(said, depth[-1])
    for hit in _TOKEN.finditer(seen):
        if hit[0].strip() and _parses(text[: hit.start()] + " " + text[hit.end() :]):
            return SyntaxFault(f"{said} near {hit[0]!r}", hit.start())
    return SyntaxFault(said)


def _parses(text: str) -> bool:
    try:
        promql.parse(text)
    except ValueError:
        return False
    return True
