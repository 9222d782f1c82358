"""What can be turned in a rule: the number it compares with, the ranges it looks back over, its `for`.

A rule's text is changed in place, and what is evaluated is what would be written: nothing is turned in a tree that
the text does not show.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import promql_parser as promql

from sim.alerts.promql.matching import ARITHMETIC, COMPARISON
from sim.alerts.promql.parsing import bare, children, milliseconds, parse, visible, walk
from sim.alerts.rulefile import DURATION, UNITS_MS, Rule
from sim.alerts.rules import OF_ALERTS

_COMPARATOR = re.compile(r"==|!=|>=|<=|>|<")
_CONSTANT = re.compile(r"\s+|0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[Ii]nf|[-+*/%()]")
_RANGE = re.compile(r"\[\s*(\w+)\s*\]")
_UNIT_NAMES = ("y", "w", "d", "h", "m", "s", "ms")
Span = tuple[int, int]


class UntunableError(Exception):
    """A rule in which nothing can be turned, and why."""


@dataclass(frozen=True)
class Point:
    """One setting of a rule's knobs: what it compares with, over what range (0: it has none), for how long."""

    threshold: float
    window_ms: int
    for_ms: int


@dataclass(frozen=True)
class Knobs:
    """A rule, where its knobs are in the text of its expression, and how they stand today."""

    rule: Rule
    sign: str
    today: Point
    comparison: Span
    """From the sign to the end of the number: without it, the text is what is compared."""
    number: Span
    ranges: tuple[Span, ...]
    """The ranges in what is compared; empty where there are none, or several lengths of them."""

    def text(self, point: Point) -> str:
        """Return the expression at *point*; what stands as today is left as it is written."""
        return turned(self.rule.text, self.changes(point))

    def compared(self, window_ms: int) -> str:
        """Return the expression of what is compared, over ranges of *window_ms*."""
        gone = (self.comparison, "")
        return turned(self.rule.text, [*self._windows(window_ms), gone])

    def changes(self, point: Point) -> list[tuple[Span, str]]:
        """Return what to write where in the text of the expression."""
        found = self._windows(point.window_ms)
        if point.threshold != self.today.threshold:
            found.append((self.number, number(point.threshold)))
        return found

    def _windows(self, window_ms: int) -> list[tuple[Span, str]]:
        return [] if window_ms == self.today.window_ms else [(span, duration(window_ms)) for span in self.ranges]


def turned(text: str, changes: Sequence[tuple[Span, str]]) -> str:
    """Return *text* with other words in the spans that *changes* name."""
    for (start, end), word in sorted(changes, reverse=True):
        text = text[:start] + word + text[end:]
    return text


def knobs(rule: Rule) -> Knobs:
    """Return what can be turned in *rule*: ``A > 0.9``, or the first comparison of ``A > 0.9 and B``.

    Raises:
        UntunableError: its expression has another shape.
    """
    if rule.expression is None:
        raise UntunableError(rule.refused)
    if reads := [one.name for one in rule.expression.selectors if one.name in OF_ALERTS]:
        raise UntunableError(f"it reads {reads[0]}")
    compare = _first_comparison(rule.expression.tree)
    threshold = constant(compare.rhs)
    if threshold is None or not math.isfinite(threshold):
        raise UntunableError("what it compares with is no number")
    hidden = _without_braces(visible(rule.text))
    hit = _COMPARATOR.search(hidden)
    if hit is None:
        raise UntunableError("its comparison was not found in its text")
    end = _end_of_constant(hidden, hit.end())
    start = hit.end() + len(hidden[hit.end() : end]) - len(hidden[hit.end() : end].lstrip())
    ranges = [found for found in _RANGE.finditer(hidden) if found.end() <= hit.start()]
    lengths = {milliseconds(node.range) for node in walk(compare.lhs) if isinstance(node, promql.MatrixSelector)}
    window_ms = lengths.pop() if len(lengths) == 1 else 0
    spans = tuple(found.span(1) for found in ranges) if window_ms else ()
    made = Knobs(
        rule, str(compare.op), Point(threshold, window_ms, rule.for_ms), (hit.start(), end), (start, end), spans
    )
    _check(made)
    return made


def _first_comparison(tree: Any) -> Any:
    node = bare(tree)
    while isinstance(node, promql.BinaryExpr) and str(node.op) in ("and", "unless"):
        node = bare(node.lhs)
    if not isinstance(node, promql.BinaryExpr) or str(node.op) not in COMPARISON:
        sign = f" ({node.op})" if isinstance(node, promql.BinaryExpr) else ""
        raise UntunableError(f"its expression is no comparison such as A > 0.9, perhaps with `and B`{sign}")
    if node.modifier is not None and node.modifier.return_bool:
        raise UntunableError("it compares with bool, and so always has a value")
    if str(node.op) in ("==", "!="):
        raise UntunableError(f"it compares with {node.op}, which has no near and far")
    if any(isinstance(below, promql.BinaryExpr) and str(below.op) in COMPARISON for below in walk(node.lhs)):
        raise UntunableError("it compares twice, one inside the other")
    return node


def constant(node: Any) -> float | None:
    """Return the number that *node* is, sums and products of numbers included; None when it is none."""
    node = bare(node)
    if isinstance(node, promql.NumberLiteral):
        return float(node.val)
    parts = [constant(child) for child in children(node)]
    if isinstance(node, promql.UnaryExpr) and parts[0] is not None:
        return -parts[0]
    if isinstance(node, promql.BinaryExpr) and str(node.op) in ARITHMETIC and None not in parts:
        with np.errstate(all="ignore"):
            return float(ARITHMETIC[str(node.op)](*parts))  # type: ignore[arg-type]
    return None


def _without_braces(text: str) -> str:
    """Return *text* with what stands in braces blanked: the signs there match labels."""
    return re.sub(r"\{[^}]*\}", lambda hit: " " * len(hit[0]), text)


def _end_of_constant(text: str, start: int) -> int:
    """Return where the number, or the sum of numbers, that begins at *start* ends."""
    at, end, depth = start, start, 0
    while hit := _CONSTANT.match(text, at):
        depth += (hit[0] == "(") - (hit[0] == ")")
        if depth < 0:
            break
        at = hit.end()
        end = end if hit[0].isspace() else at
    return end


def _check(made: Knobs) -> None:
    """Make sure that the text has its knobs where they were found.

    Raises:
        UntunableError: it has not.
    """
    point = Point(made.today.threshold + 0.5, 2 * made.today.window_ms, made.today.for_ms)
    try:
        again = _first_comparison(parse(made.text(point)).tree)
        parse(made.compared(point.window_ms))
    except Exception:  # whatever a text may do to a parser
        raise UntunableError("its text could not be taken apart") from None
    windows = {milliseconds(node.range) for node in walk(again.lhs) if isinstance(node, promql.MatrixSelector)}
    if constant(again.rhs) != point.threshold or (point.window_ms and windows != {point.window_ms}):
        raise UntunableError("its text could not be taken apart")


def number(value: float) -> str:
    """Return a number as it is written into a rule: in as few digits as mean just that number."""
    short = f"{value:.12g}"
    return short if float(short) == value else repr(value)


def duration(ms: int) -> str:
    """Return a length of time as Prometheus writes it: ``5m``, ``90s``, ``0s``."""
    best = next((i for i, unit in enumerate(UNITS_MS) if i > 1 and ms and ms % unit == 0), 5)
    return f"{ms // UNITS_MS[best]}{_UNIT_NAMES[best]}"


LONGEST_MS = 10 * UNITS_MS[0]
"""No knob is turned further: ten years."""


def milliseconds_of(text: object) -> int:
    """Return the milliseconds of a duration as Prometheus writes it.

    Raises:
        ValueError: it is none.
    """
    if text in ("0", 0):
        return 0
    match = DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if match is None:
        raise ValueError("expected a duration such as 5m or 1h30m")
    total = sum(int(one) * unit for one, unit in zip(match.groups(), UNITS_MS) if one)
    if total > LONGEST_MS:
        raise ValueError("expected a duration of at most ten years")
    return total
