"""Evaluates a PromQL expression at all steps at once, as Prometheus evaluates a rule at each of them.

Every step is an instant query of its own: an error at one step (two series of equal labels, say) is noted in
`Steps.failed` and leaves the others alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import promql_parser as promql

from sim.alerts.promql import windows
from sim.alerts.promql.aggregates import aggregate, histogram_quantile
from sim.alerts.promql.matching import Match, Operator
from sim.alerts.promql.parsing import Expression, bare, milliseconds, selector
from sim.alerts.promql.store import Store
from sim.alerts.promql.vectors import Labels, Row, Steps, Value, Vector, drop, keep, labels_of
from sim.series import NAME


def evaluate(expression: Expression, store: Store, steps: Steps) -> Vector:
    """Return the value of *expression* at every step; a scalar becomes the one element without labels.

    What failed is in ``steps.failed``: at those steps the returned values mean nothing.
    """
    value = _Evaluation(store, steps).value(expression.tree)
    return value if isinstance(value, Vector) else _single(value)


def _single(scalar: np.ndarray) -> Vector:
    return Vector([()], scalar[None, :], np.ones((1, len(scalar)), bool))


_ONE_BY_ONE = ("rate", "increase", *(name for name in windows.SIMPLE if name != "last_over_time"))
"""Functions of each series by itself whose results have no metric name."""


def _is_named(node: Any) -> bool:
    """Return whether a range is of one metric, so that its series differ without the name, too."""
    return bool(selector(node.vector_selector).name)


@dataclass(frozen=True)
class _Evaluation:
    store: Store
    steps: Steps
    known: dict[str, Value] = field(default_factory=dict)
    """Aggregations that have been computed: rules often say the same one twice."""

    def value(self, node: Any) -> Value:
        node = bare(node)
        if not isinstance(node, promql.AggregateExpr):
            return self._value(node)
        said = repr(node)  # the whole tree below it, with every digit
        if said not in self.known:
            rows = self.rows(bare(node.expr))
            self.known[said] = aggregate(rows, str(node.op), _grouping(node.modifier), len(self.steps.t_ms))
        return self.known[said]

    def _value(self, node: Any) -> Value:
        match node:
            case promql.NumberLiteral():
                return np.full(len(self.steps.t_ms), node.val)
            case promql.VectorSelector():
                return self._stacked(self._instants(node))
            case promql.UnaryExpr():
                return self._negated(self.value(node.expr))
            case promql.BinaryExpr():
                return _operator(node)(self.value(node.lhs), self.value(node.rhs), self.steps)
            case promql.Call():
                return self._call(node.func.name, node.args)
        raise TypeError(f"a {type(node).__name__} has no value here")  # parsing has refused it

    def vector(self, node: Any) -> Vector:
        value = self.value(node)
        assert isinstance(value, Vector), "the parser checks types"
        return value

    def rows(self, node: Any) -> Iterator[Row]:
        """Yield the elements of a vector: one by one, as they are made, where they come from series one by one."""
        if isinstance(node, promql.VectorSelector):
            yield from self._instants(node)
        elif isinstance(node, promql.Call) and node.func.name in _ONE_BY_ONE and _is_named(bare(node.args[0])):
            for labels, values, present in self._over(bare(node.args[0]), node.func.name, None):
                yield drop(labels, (NAME,)), values, present
        else:
            vector = self.vector(node)
            yield from zip(vector.labels, vector.values, vector.present)

    def scalar(self, node: Any) -> np.ndarray:
        value = self.value(node)
        assert isinstance(value, np.ndarray), "the parser checks types"
        return value

    def _instants(self, node: Any) -> Iterator[Row]:
        at_ms = self.steps.t_ms - milliseconds(node.offset)
        for one in self.store.select(selector(node).matchers):
            yield one.labels, *self.store.instants(one, at_ms, self.steps.dialect)

    def _negated(self, value: Value) -> Value:
        if isinstance(value, Vector):
            return Vector(value.labels, -value.values, value.present).without_name(self.steps)
        return -value

    def _call(self, name: str, args: list[Any]) -> Value:
        match name:
            case "vector":
                return _single(self.scalar(args[0]))
            case "scalar":
                return _scalar(self.vector(args[0]))
            case "absent":
                return _absent(self.vector(args[0]), bare(args[0]))
            case "absent_over_time":
                found = self._stacked(self._over(bare(args[0]), "present_over_time", None))
                return _absent(found, bare(args[0]).vector_selector)
            case "histogram_quantile":
                return histogram_quantile(self.scalar(args[0]), self.vector(args[1]), self.steps)
            case "clamp" | "clamp_min" | "clamp_max":
                return self._clamped(name, self.vector(args[0]), [self.scalar(arg) for arg in args[1:]])
            case "quantile_over_time":
                q = self.scalar(args[0])
                return self._stacked(self._over(bare(args[1]), name, q)).without_name(self.steps)
            case "last_over_time":
                return self._stacked(self._over(bare(args[0]), name, None))
        return self._stacked(self._over(bare(args[0]), name, None)).without_name(self.steps)

    def _stacked(self, rows: Iterable[Row]) -> Vector:
        return Vector.stacked(rows, len(self.steps.t_ms))

    def _over(self, node: Any, name: str, q: np.ndarray | None) -> Iterator[Row]:
        """Yield a function of ranges, of each series by itself."""
        end_ms = self.steps.t_ms - milliseconds(node.vector_selector.offset)
        range_ms = milliseconds(node.range)
        for one in self.store.select(selector(node.vector_selector).matchers):
            if not len(one.samples):
                continue
            window = self.store.window(one.sample_t_ms, end_ms, range_ms, self.steps.dialect)
            if name in ("rate", "increase"):
                values, present = windows.extrapolated(window, one.samples, name == "rate", self.steps.dialect)
            else:
                present = window.some
                values = (
                    windows.quantile(window, one.samples, q)
                    if q is not None
                    else windows.SIMPLE[name](window, one.samples)
                )
            yield one.labels, values, present

    def _clamped(self, name: str, vector: Vector, bounds: list[np.ndarray]) -> Vector:
        values, present = vector.values, vector.present
        if name == "clamp":
            present = present & ~(bounds[1] < bounds[0])
        if name != "clamp_min":
            values = _least(bounds[-1], values)
        if name != "clamp_max":
            values = -_least(-bounds[0], -values)
        return Vector(vector.labels, values, present).without_name(self.steps)


def _least(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Go's math.Min: minus infinity before NaN, NaN before numbers, -0 before 0."""
    with np.errstate(invalid="ignore"):
        low = np.where((a == 0) & (b == 0), -(-a + -b), np.minimum(a, b))
    return np.where((a == -np.inf) | (b == -np.inf), -np.inf, low)


def _scalar(vector: Vector) -> np.ndarray:
    """Return the value of the only element, or NaN where there are none or several."""
    if not len(vector):
        return np.full(vector.present.shape[1], np.nan)
    alone = vector.present.sum(axis=0) == 1
    return np.where(alone, vector.values[vector.present.argmax(axis=0), np.arange(len(alone))], np.nan)


def _absent(vector: Vector, node: Any) -> Vector:
    """Return 1 where *vector* has no element, under the labels that the selector demands with =, each once."""
    demanded: dict[str, str] = {}
    seen: set[str] = set()
    for matcher in selector(node).matchers if isinstance(node, promql.VectorSelector) else ():
        if matcher.name == NAME:
            continue
        demanded.pop(matcher.name, None)
        if matcher.op == "=" and matcher.name not in seen:
            demanded[matcher.name] = matcher.value
            seen.add(matcher.name)
    there: np.ndarray = np.logical_or.reduce(vector.present)
    return Vector.stacked([(labels_of(demanded), np.ones(len(there)), ~there)], len(there))


def _operator(node: Any) -> Operator:
    modifier = node.modifier
    if modifier is None:
        return Operator(str(node.op))
    on, labels = False, ()
    if modifier.matching is not None:
        on, labels = str(modifier.matching.type).endswith("Include"), tuple(modifier.matching.labels)
    group = {"ManyToOne": "left", "OneToMany": "right"}.get(str(modifier.card).rpartition(".")[2], "")
    match = Match(on, labels, group, tuple(modifier.group_labels or ()))
    return Operator(str(node.op), match, bool(modifier.return_bool))


def _grouping(modifier: Any) -> Any:
    if modifier is None:
        return lambda labels: ()
    names = tuple(modifier.labels)
    if str(modifier.type).endswith("By"):
        return lambda labels: keep(labels, names)

    def without(labels: Labels) -> Labels:
        return drop(labels, (*names, NAME))

    return without
