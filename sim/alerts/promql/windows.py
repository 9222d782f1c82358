"""Functions of range vectors, one series at a time and all steps at once, in Prometheus' own order of operations.

Each follows promql/functions.go of Prometheus 2.42 to the last bit: sums are compensated as there (Neumaier), and
counter resets are added one by one, because floating point sums depend on their order.
"""

from collections.abc import Callable

import numpy as np

from sim.alerts.promql.store import Window
from sim.alerts.promql.vectors import Dialect

_BLOCK = 8192  # steps whose arrays fit into a core's cache
_EXACT = 2.0**53  # sums of whole numbers below this are exact in any order
Accumulate = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


def extrapolated(
    window: Window, samples: np.ndarray, per_second: bool, dialect: Dialect
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``increase`` or, *per_second*, ``rate``, and where there are the two samples that they need.

    Prometheus 2.51 (pull request 13725) changed the order in which a counter's zero point and the half spacing limit
    the extrapolation; the dialect decides.
    """
    edges = window.edges
    first = samples[edges.low]
    delta = samples[edges.last] - first
    _add_resets(delta, samples, edges.low, edges.last)
    before_s = edges.to_start_s
    with np.errstate(all="ignore"):
        to_zero_s = np.where((delta > 0) & (first >= 0), edges.sampled_s * (first / delta), np.inf)
        if dialect == Dialect.PROM_2_42:
            before_s = np.where(to_zero_s < before_s, to_zero_s, before_s)
            before_s = np.where(before_s < edges.near_s, before_s, edges.half_s)
        else:
            before_s = np.where(before_s < edges.near_s, before_s, edges.half_s)
            before_s = np.where(to_zero_s < before_s, to_zero_s, before_s)
        factor = (edges.sampled_s + before_s + edges.beyond_s) / edges.sampled_s
        if per_second:
            factor = factor / (window.range_ms / 1000)
        found = delta * factor
    values = np.full(len(window.low), np.nan)
    values[edges.at] = found
    return values, window.two


def _add_resets(delta: np.ndarray, samples: np.ndarray, low: np.ndarray, last: np.ndarray) -> None:
    """Add to *delta* what the counter had reached before each reset in its range, oldest first."""
    resets = np.flatnonzero(samples[1:] < samples[:-1])  # the sample before it falls
    if not len(resets):
        return
    start, end = np.searchsorted(resets, low), np.searchsorted(resets, last)
    before = samples[resets]
    for k in range(int((end - start).max(initial=0))):
        here = start + k < end
        delta[here] += before[start[here] + k]


def last(window: Window, samples: np.ndarray) -> np.ndarray:
    """Return ``last_over_time``: the newest sample."""
    return samples[np.maximum(window.high - 1, 0)]


def count(window: Window, samples: np.ndarray) -> np.ndarray:
    """Return ``count_over_time``."""
    return (window.high - window.low).astype(float)


def present(window: Window, samples: np.ndarray) -> np.ndarray:
    """Return ``present_over_time``: 1."""
    return np.ones(len(window.low))


def total(window: Window, samples: np.ndarray) -> np.ndarray:
    """Return ``sum_over_time``."""
    whole = np.isfinite(samples).all() and (samples == np.floor(samples)).all()
    if whole and np.abs(samples).sum() < _EXACT:
        sums = np.concatenate([[0.0], np.cumsum(samples)])
        return sums[window.high] - sums[window.low]

    def step(state: np.ndarray, value: np.ndarray, n: np.ndarray) -> None:
        _kahan(state[0], state[1], value)

    sum_, rest = _folded(window, samples, 2, step)
    with np.errstate(all="ignore"):
        return np.where(np.isinf(sum_), sum_, sum_ + rest)


def mean(window: Window, samples: np.ndarray) -> np.ndarray:
    """Return ``avg_over_time``."""

    def step(state: np.ndarray, value: np.ndarray, n: np.ndarray) -> None:
        so_far, rest = state
        stuck = np.isinf(so_far) & (
            (np.isinf(value) & ((so_far > 0) == (value > 0))) | ~(np.isinf(value) | np.isnan(value))
        )
        before = state.copy() if stuck.any() else None
        _kahan(so_far, rest, value / n - so_far / n)
        if before is not None:
            state[:, stuck] = before[:, stuck]

    so_far, rest = _folded(window, samples, 2, step)
    with np.errstate(all="ignore"):
        return np.where(np.isinf(so_far), so_far, so_far + rest)


def variance(window: Window, samples: np.ndarray) -> np.ndarray:
    """Return ``stdvar_over_time``."""

    def step(state: np.ndarray, value: np.ndarray, n: np.ndarray) -> None:
        so_far, so_far_rest, squares, squares_rest = state
        delta = value - (so_far + so_far_rest)
        _kahan(so_far, so_far_rest, delta / n)
        _kahan(squares, squares_rest, delta * (value - (so_far + so_far_rest)))

    _, _, squares, rest = _folded(window, samples, 4, step)
    with np.errstate(all="ignore"):
        return (squares + rest) / (window.high - window.low)


def deviation(window: Window, samples: np.ndarray) -> np.ndarray:
    """Return ``stddev_over_time``."""
    with np.errstate(all="ignore"):
        return np.sqrt(variance(window, samples))


def highest(window: Window, samples: np.ndarray) -> np.ndarray:
    """Return ``max_over_time``."""
    return _extreme(window, samples, lambda a, b: (b > a) | np.isnan(a))


def lowest(window: Window, samples: np.ndarray) -> np.ndarray:
    """Return ``min_over_time``."""
    return _extreme(window, samples, lambda a, b: (b < a) | np.isnan(a))


def quantile(window: Window, samples: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return ``quantile_over_time`` of *q*, one a step."""
    low, high = window.low, window.high
    widest = int((high - low).max(initial=1))
    found = np.full(len(low), np.nan)
    block = max(1, 2_000_000 // max(widest, 1))
    for start in range(0, len(low), block):
        part = slice(start, start + block)
        index = low[part, None] + np.arange(widest)
        inside = index < high[part, None]
        rows = np.where(inside, samples[np.minimum(index, len(samples) - 1)], np.nan)
        nans = (np.isnan(rows) & inside).sum(axis=1)
        found[part] = _quantile(np.sort(rows, axis=1), nans, (high - low)[part], q[part])
    return found


def _quantile(rows: np.ndarray, nans: np.ndarray, n: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the quantile of sorted *rows* of *n* values each, of which NaNs count as the smallest."""
    with np.errstate(all="ignore"):
        rank = np.where((q >= 0) & (q <= 1) & (n > 0), q, 0.0) * (np.maximum(n, 1) - 1)
        lower = np.maximum(0, np.floor(rank)).astype(int)
        upper = np.minimum(np.maximum(n, 1) - 1, lower + 1)
        weight = rank - np.floor(rank)
        each = np.arange(len(rows))
        a, b = (np.where(i < nans, np.nan, rows[each, np.maximum(i - nans, 0)]) for i in (lower, upper))
        found = a * (1 - weight) + b * weight
    return np.select([np.isnan(q), q < 0, q > 1], [np.nan, -np.inf, np.inf], found)


def _kahan(total: np.ndarray, rest: np.ndarray, value: np.ndarray) -> None:
    """Add *value* to *total* and what was lost to *rest*, as Prometheus' kahanSumInc does."""
    t = total + value
    rest += np.where(np.abs(total) >= np.abs(value), (total - t) + value, (value - t) + total)
    total[:] = t


def _folded(window: Window, samples: np.ndarray, width: int, step: Accumulate) -> np.ndarray:
    """Return *width* running numbers a step, after *step* has taken in the samples of its range one after the other."""
    low, high = window.low, window.high
    out = np.zeros((width, len(low)))
    for start in range(0, len(low), _BLOCK):
        part = slice(start, start + _BLOCK)
        first, n = low[part], (high - low)[part]
        everyone = int(n.min(initial=0))
        with np.errstate(all="ignore"):
            for k in range(int(n.max(initial=0))):
                if k < everyone:
                    step(out[:, part], samples[first + k], np.array(k + 1.0))
                    continue
                here = np.flatnonzero(n > k)
                state = out[:, part][:, here]
                step(state, samples[first[here] + k], np.array(k + 1.0))
                out[:, start + here] = state
    return out


def _extreme(window: Window, samples: np.ndarray, better: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the best sample of each range, the oldest of equals, from tables over powers of two."""
    low, high = window.low, window.high
    n = high - low
    found = np.full(len(low), np.nan)
    table, size = samples, 1
    while True:
        here = np.flatnonzero((n >= size) & (n < 2 * size))
        if len(here):
            a, b = table[low[here]], table[high[here] - size]
            found[here] = np.where(better(a, b), b, a)
        if not (n >= 2 * size).any():
            return found
        a, b = table[:-size], table[size:]
        table, size = np.where(better(a, b), b, a), 2 * size


SIMPLE: dict[str, Callable[[Window, np.ndarray], np.ndarray]] = {
    "avg_over_time": mean,
    "count_over_time": count,
    "last_over_time": last,
    "max_over_time": highest,
    "min_over_time": lowest,
    "present_over_time": present,
    "stddev_over_time": deviation,
    "stdvar_over_time": variance,
    "sum_over_time": total,
}
"""Functions of the samples in a range alone."""
