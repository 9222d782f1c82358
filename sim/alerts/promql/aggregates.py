"""Many series into few: sum, avg, min, max, count, and quantiles of classic histograms.

After aggregation in promql/engine.go and bucketQuantile in promql/quantile.go, Prometheus 2.42.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np

from sim.alerts.promql.vectors import Labels, Row, Steps, Vector, drop
from sim.series import NAME

Fold = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""The number so far, the next value and how many values that makes: the number after it."""


def _mean(so_far: np.ndarray, value: np.ndarray, n: np.ndarray) -> np.ndarray:
    stuck = np.isinf(so_far) & (
        (np.isinf(value) & ((so_far > 0) == (value > 0))) | ~(np.isinf(value) | np.isnan(value))
    )
    return np.where(stuck, so_far, so_far + (value / n - so_far / n))


FOLDS: dict[str, Fold] = {
    "sum": lambda so_far, value, n: so_far + value,
    "avg": _mean,
    "min": lambda so_far, value, n: np.where((value < so_far) | np.isnan(so_far), value, so_far),
    "max": lambda so_far, value, n: np.where((value > so_far) | np.isnan(so_far), value, so_far),
    "count": lambda so_far, value, n: so_far + 1,
}
"""The aggregations there are."""


class _Group:
    """What the elements of one group have come to so far."""

    def __init__(self, values: np.ndarray, present: np.ndarray) -> None:
        self.so_far, self.present = values, present
        self.alike = 1  # elements, as long as all of them were present at the same steps
        self.n: np.ndarray | None = None  # elements at each step, from then on

    def add(self, values: np.ndarray, present: np.ndarray, fold: Fold) -> None:
        if self.n is None and (present is self.present or np.array_equal(present, self.present)):
            self.alike += 1
            self.so_far = fold(self.so_far, values, np.array(float(self.alike)))
            return
        if self.n is None:
            self.n = self.present * float(self.alike)
        first = present & (self.n == 0)
        self.n = self.n + present
        self.so_far = np.where(first, values, np.where(present, fold(self.so_far, values, self.n), self.so_far))
        self.present = self.present | present


def aggregate(rows: Iterable[Row], name: str, key: Callable[[Labels], Labels], steps: int) -> Vector:
    """Return aggregation *name* of the elements with the same *key*, element after element in their order.

    Only one element at a time is needed, however many there are.
    """
    groups: dict[Labels, _Group] = {}
    fold = FOLDS[name]
    with np.errstate(all="ignore"):
        for labels, values, present in rows:
            if name == "count":
                values = np.ones(steps)
            own = key(labels)
            if own in groups:
                groups[own].add(values, present, fold)
            else:
                groups[own] = _Group(values, present)
    return Vector.stacked(((labels, one.so_far, one.present) for labels, one in groups.items()), steps)


def histogram_quantile(q: np.ndarray, vector: Vector, steps: Steps) -> Vector:
    """Return the quantile *q* (one a step) of each classic histogram whose buckets *vector* holds."""
    groups: dict[Labels, list[tuple[float, int]]] = {}
    for i, labels in enumerate(vector.labels):
        bound = _bound(dict(labels).get("le", ""))
        if bound is not None:
            groups.setdefault(drop(labels, ("le",)), []).append((bound, i))
    rows_out: list[tuple[Labels, np.ndarray, np.ndarray]] = []
    for labels, buckets in groups.items():
        buckets.sort(key=lambda pair: pair[0])  # NaN, which cannot be sorted, is no bound here
        rows = [i for _, i in buckets]
        bounds = np.array([bound for bound, _ in buckets])
        there = vector.present[rows]
        found = np.full(len(q), np.nan)
        for at, has in _patterns(there):
            some = [row for row, one in zip(rows, has) if one]
            found[at] = _quantile(q[at], bounds[has], vector.values[some][:, at])
        rows_out.append((labels, found, np.logical_or.reduce(there)))
    made = Vector.stacked(rows_out, len(q))
    return made.relabelled([drop(labels, (NAME,)) for labels in made.labels], steps)


def _bound(text: str) -> float | None:
    try:
        bound = float(text) if "_" not in text and text == text.strip() else math.nan
    except ValueError:
        return None
    return None if math.isnan(bound) else bound


def _patterns(there: np.ndarray) -> list[tuple[np.ndarray | slice, np.ndarray]]:
    """Return at which steps which rows are present, for every combination with at least one."""
    whole = there.all(axis=0)
    found: list[tuple[np.ndarray | slice, np.ndarray]] = []
    if whole.any():
        found.append((slice(None) if whole.all() else np.flatnonzero(whole), np.ones(len(there), bool)))
    rest = np.flatnonzero(there.any(axis=0) & ~whole)
    kinds, which = np.unique(np.packbits(there[:, rest], axis=0).T, axis=0, return_inverse=True)
    for k in range(len(kinds)):
        at = rest[which.ravel() == k]
        found.append((at, there[:, at[0]]))
    return found


def _quantile(q: np.ndarray, bounds: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the quantile at each step, of cumulative *counts* (buckets, steps) below sorted *bounds*."""
    found = np.full(counts.shape[1], np.nan)
    if bounds[-1] == math.inf:
        bounds, counts = _coalesced(bounds, counts)
        if len(bounds) >= 2:
            found = _interpolated(q, bounds, _monotonic(counts))
    return np.select([np.isnan(q), q < 0, q > 1], [np.nan, -np.inf, np.inf], found)


def _coalesced(bounds: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return buckets of equal bounds (le="1" and le="1.0") added up."""
    first = np.flatnonzero(np.concatenate([[True], bounds[1:] != bounds[:-1]]))
    if len(first) == len(bounds):
        return bounds, counts
    return bounds[first], np.add.reduceat(counts, first, axis=0)


def _monotonic(counts: np.ndarray) -> np.ndarray:
    """Return *counts* raised to the highest below them, since rates of cumulative buckets may cross."""
    made = counts.copy()
    top = made[0].copy()
    for row in made[1:]:
        lower = row < top
        np.copyto(top, row, where=row > top)
        np.copyto(row, top, where=lower)
    return made


def _interpolated(q: np.ndarray, bounds: np.ndarray, counts: np.ndarray) -> np.ndarray:
    top, each = len(bounds) - 1, np.arange(counts.shape[1])
    with np.errstate(all="ignore"):
        rank = q * counts[top]
        low, high = np.zeros(len(each), int), np.full(len(each), top)
        while (low < high).any():  # Go's sort.Search, also where NaN has no order
            middle = (low + high) >> 1
            hit = counts[np.minimum(middle, top), each] >= rank
            low, high = np.where(hit | (low >= high), low, middle + 1), np.where(hit & (low < high), middle, high)
        b = low
        below = np.maximum(b - 1, 0)
        start = np.where(b > 0, bounds[below], 0.0)
        before = np.where(b > 0, counts[below, each], 0.0)
        inside = start + (bounds[b] - start) * ((rank - before) / (counts[b, each] - before))
        return np.select(
            [counts[top] == 0, b == top, (b == 0) & (bounds[0] <= 0)],
            [np.nan, bounds[top - 1], bounds[0]],
            inside,
        )
