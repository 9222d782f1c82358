"""What an expression measures, without evaluating it: a share, a count, a percentile, and the range it can be in.

From this a rule can be seen to compare a fraction with a percentage, or to wait for what can never come.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import promql_parser as promql

from sim.alerts.lint.exposed import METRICS, OF_ONE_WHOLE, Metric
from sim.alerts.promql.parsing import bare, milliseconds

Kind = Literal["number", "gauge", "counter", "growth", "share", "percentile", "tail", "other"]
"""``growth``: how fast a counter grew. ``share``: one such over another that contains it. ``tail``: a percentile over a
lower one of the same histogram."""

GROWTH = ("rate", "increase", "irate", "delta", "idelta", "resets", "changes")
SAME = ("avg", "min", "max", "topk", "bottomk", "quantile", "group", "limitk")
SAME_OVER_TIME = ("avg_over_time", "min_over_time", "max_over_time", "last_over_time", "quantile_over_time")
COMPARISONS = (">", "<", ">=", "<=", "==", "!=")
SETS = ("and", "or", "unless")
_MIRRORED = {">": "<", "<": ">", ">=": "<=", "<=": ">="}


@dataclass(frozen=True)
class Quantity:
    """What a value is: its kind, the range it lies in, the metric it comes from, and how it was made.

    *quantile* is of a percentile; *smooth* means a mean over time, which one bad sample does not move; *window_ms* is
    the shortest range it looks at; *product* that a number was written as factor times something.
    """

    kind: Kind = "other"
    low: float = -math.inf
    high: float = math.inf
    metric: Metric | None = None
    quantile: float = math.nan
    smooth: bool = False
    window_ms: int = 0
    product: bool = False
    guarded: bool = False

    @property
    def fraction(self) -> bool:
        """Whether it lies between 0 and 1 by its nature."""
        return (self.low, self.high) == (0.0, 1.0)


@dataclass(frozen=True)
class Comparison:
    """A value against a number: *left* is the expression, *op* reads from left to right."""

    left: Any
    quantity: Quantity
    op: str
    number: float
    product: bool

    @property
    def upwards(self) -> bool:
        """Whether large values make it true."""
        return self.op in (">", ">=")

    @property
    def never(self) -> bool:
        """Whether no value that can come makes it true."""
        q = self.quantity
        if self.op == ">":
            return self.number >= q.high
        if self.op == "<":
            return self.number <= q.low
        outside = self.number > q.high or self.number < q.low
        return outside if self.op == "==" else self.op != "!=" and not self.always and outside

    @property
    def always(self) -> bool:
        """Whether every value that can come makes it true."""
        q = self.quantity
        checks = {
            ">": self.number < q.low,
            ">=": self.number <= q.low,
            "<": self.number > q.high,
            "<=": self.number >= q.high,
        }
        return checks.get(self.op, False)


@dataclass(frozen=True)
class Measured:
    """Reads trees; *recorded* says what recording rules above have measured."""

    recorded: Mapping[str, Quantity] = field(default_factory=dict)

    def of(self, node: Any) -> Quantity:
        """Return what *node* measures."""
        node = bare(node)
        match node:
            case promql.NumberLiteral():
                return Quantity("number", node.val, node.val)
            case promql.VectorSelector():
                return self._selected(node)
            case promql.MatrixSelector():
                return replace(self._selected(node.vector_selector), window_ms=milliseconds(node.range))
            case promql.SubqueryExpr():
                return replace(self.of(node.expr), window_ms=milliseconds(node.range))
            case promql.UnaryExpr():
                inner = self.of(node.expr)
                return replace(inner, low=-inner.high, high=-inner.low)
            case promql.AggregateExpr():
                return self._aggregated(str(node.op), self.of(node.expr))
            case promql.Call():
                return self._called(node.func.name, list(node.args))
            case promql.BinaryExpr():
                return self._combined(node)
        return Quantity()

    def comparison(self, node: Any) -> Comparison | None:
        """Return *node* as a comparison of a value with a number, if it is one."""
        node = bare(node)
        if not isinstance(node, promql.BinaryExpr) or str(node.op) not in COMPARISONS:
            return None
        left, right, op = self.of(node.lhs), self.of(node.rhs), str(node.op)
        if right.kind == "number" and left.kind != "number":
            return Comparison(node.lhs, left, op, right.low, right.product)
        if left.kind == "number" and right.kind != "number":
            return Comparison(node.rhs, right, _MIRRORED.get(op, op), left.low, left.product)
        return None

    def guards(self, node: Any) -> bool:
        """Return whether *node* demands a number of events: a growth, not a share, above a number."""
        found = self.comparison(node)
        return found is not None and found.upwards and found.quantity.kind == "growth" and found.number > 0

    def _selected(self, node: Any) -> Quantity:
        name = node.name or next((m.value for m in node.matchers.matchers if m.name == "__name__"), "")
        if name in self.recorded:
            return self.recorded[name]
        metric = METRICS.get(name)
        if metric is None:
            return Quantity()
        return Quantity("gauge" if metric.kind == "gauge" else "counter", 0.0, metric.top, metric)

    def _aggregated(self, op: str, inner: Quantity) -> Quantity:
        if op in SAME:
            return inner
        if op == "sum":
            kind = inner.kind if inner.kind in ("growth", "counter", "gauge") else "other"
            return replace(inner, kind=kind, low=min(inner.low, 0.0), high=math.inf if inner.high > 0 else 0.0)
        return Quantity("other", 0.0)

    def _called(self, name: str, args: list[Any]) -> Quantity:
        if name == "vector":
            return replace(self.of(args[0]), kind="other")
        if name in ("scalar", "abs", "sort", "sort_desc", "label_replace", "label_join"):
            return self.of(args[0])
        if name in ("absent", "absent_over_time"):
            return Quantity("other", 1.0, 1.0)
        if name == "histogram_quantile":
            inner, q = self.of(args[1]), self.of(args[0])
            bounds = inner.metric.bounds if inner.metric else ()
            return replace(inner, kind="percentile", low=0.0, high=bounds[-1] if bounds else math.inf, quantile=q.low)
        if name in GROWTH and args:
            inner = self.of(args[0])
            low = 0.0 if inner.metric and inner.kind == "counter" else -math.inf
            return replace(inner, kind="growth", low=low, high=math.inf, smooth=True)
        if name in SAME_OVER_TIME:
            return replace(self.of(args[-1]), smooth=name in ("avg_over_time", "quantile_over_time"))
        if name.endswith("_over_time"):
            return Quantity("other", window_ms=self.of(args[-1]).window_ms, smooth=True)
        if name == "clamp_min":
            inner, least = self.of(args[0]), self.of(args[1])
            return replace(inner, low=max(inner.low, least.low))
        return Quantity()

    def _combined(self, node: Any) -> Quantity:
        op, left, right = str(node.op), self.of(node.lhs), self.of(node.rhs)
        if op in COMPARISONS:
            asked = node.modifier is not None and node.modifier.return_bool
            return Quantity("other", 0.0, 1.0, window_ms=_shorter(left, right)) if asked else left
        if op == "and":
            return replace(left, guarded=left.guarded or right.guarded or self.guards(node.rhs))
        if op == "unless":
            return left
        if op == "or":
            low, high = min(left.low, right.low), max(left.high, right.high)
            return replace(left, low=low, high=high, smooth=left.smooth and right.smooth)
        found = _calculated(op, left, right)
        return replace(
            found,
            metric=left.metric or right.metric,
            window_ms=_shorter(left, right),
            smooth=left.smooth or right.smooth,
            guarded=left.guarded or right.guarded,
        )


def conditions(node: Any) -> list[list[Any]]:
    """Return what must hold together (joined by ``and``), once for each way in which the whole can hold (``or``)."""
    node = bare(node)
    op = str(node.op) if isinstance(node, promql.BinaryExpr) else ""
    if op == "or":
        return conditions(node.lhs) + conditions(node.rhs)
    if op == "and":
        return [a + b for a in conditions(node.lhs) for b in conditions(node.rhs)]
    if op == "unless":
        return conditions(node.lhs)
    return [[node]]


def _shorter(left: Quantity, right: Quantity) -> int:
    return min((q.window_ms for q in (left, right) if q.window_ms), default=0)


def _calculated(op: str, left: Quantity, right: Quantity) -> Quantity:
    """Return what ``+ - * /`` of two quantities is."""
    if left.kind == "number" and right.kind == "number":
        return _numbers(op, left.low, right.low)
    if op == "/" and left.kind in ("growth", "counter") and right.kind in ("growth", "counter"):
        return Quantity("share", 0.0, 1.0) if _within(left.metric, right.metric) else Quantity("other", 0.0)
    if op == "/" and left.kind == right.kind == "percentile" and left.metric == right.metric:
        return Quantity("tail", 0.0, quantile=left.quantile)
    if op == "-" and left.kind == "number" and right.kind != "number":
        return replace(right, low=left.low - right.high, high=left.low - right.low)
    for number, other in ((right, left), (left, right)):
        if number.kind == "number" and not (op == "/" and number is left):
            return _scaled(op, other, number.low)
    return Quantity()


def _numbers(op: str, a: float, b: float) -> Quantity:
    try:
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else math.nan}.get(op, math.nan)
    except OverflowError:
        value = math.nan
    return Quantity("number", value, value, product=op == "*")


def _scaled(op: str, other: Quantity, number: float) -> Quantity:
    if op in ("+", "-"):
        shift = number if op == "+" else -number
        return replace(other, low=other.low + shift, high=other.high + shift)
    factor = number if op == "*" else 1 / number if op == "/" and number else math.nan
    if not factor > 0:
        return Quantity()
    return replace(other, low=other.low * factor, high=other.high * factor)


def _within(part: Metric | None, whole: Metric | None) -> bool:
    """Return whether what *part* counts is among what *whole* counts."""
    if part is None or whole is None:
        return False
    if (part.family, whole.family) in OF_ONE_WHOLE:
        return whole.counts
    return part.family == whole.family and part.counts and whole.counts
