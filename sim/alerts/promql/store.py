"""Series as rules read them: found by matchers, looked up at many times at once."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from sim.alerts.promql.vectors import Dialect, Labels, UnsupportedError, labels_of
from sim.series import NAME, SeriesSet, Times, is_stale

LOOKBACK_MS = 300_000
"""How far an instant vector looks back for a sample: Prometheus' default (--query.lookback-delta)."""


MOST_WINDOWS = 64
"""Windows kept for the next series of the same scrape; one over a week at 15 s takes 3 MB."""


@dataclass(frozen=True)
class Matcher:
    """One condition of a selector: a label, one of ``= != =~ !~``, a value."""

    name: str
    op: str
    value: str

    def accepts(self) -> "re.Pattern[str] | None":
        """Return the pattern of a regular expression, anchored as Prometheus does; None for the others.

        Raises:
            UnsupportedError: an expression that Python reads otherwise than Go.
        """
        if self.op in ("=", "!="):
            return None
        if re.search(r"\\[pPQEzCaAZbB]|\[\[:|\(\?[^:]|[*+?}]\+", self.value):
            raise UnsupportedError(f"the regular expression {self.value!r}")
        try:
            return re.compile(f"(?:{self.value})")
        except re.error:
            raise UnsupportedError(f"the regular expression {self.value!r}") from None


@dataclass
class Series:
    """One series: its labels, all samples, and those that are no stale markers."""

    labels: Labels
    t_ms: np.ndarray
    values: np.ndarray
    stale: np.ndarray | None
    sample_t_ms: np.ndarray
    samples: np.ndarray


@dataclass(frozen=True)
class Window:
    """The ranges of one row of sample times: at each step the first sample in it (low) and the first behind it (high).

    Series of one scrape grid share it, and with it what `rate` has to know about times.
    """

    sample_t_ms: np.ndarray
    end_ms: np.ndarray
    range_ms: int
    low: np.ndarray
    high: np.ndarray

    @cached_property
    def some(self) -> np.ndarray:
        """Where there is a sample."""
        return self.high > self.low

    @cached_property
    def two(self) -> np.ndarray:
        """Where there are two samples or more."""
        return self.high - self.low >= 2

    @cached_property
    def edges(self) -> "Edges":
        """What ``rate`` and ``increase`` have to know about times, at the steps with two samples or more."""
        at = np.flatnonzero(self.two)
        low, last = self.low[at], self.high[at] - 1
        first_ms, last_ms, end_ms = self.sample_t_ms[low], self.sample_t_ms[last], self.end_ms[at]
        sampled_s = (last_ms - first_ms) / 1000
        spacing_s = sampled_s / (last - low)
        to_start_s, to_end_s = (first_ms - (end_ms - self.range_ms)) / 1000, (end_ms - last_ms) / 1000
        near_s = spacing_s * 1.1
        beyond_s = np.where(to_end_s < near_s, to_end_s, spacing_s / 2)
        return Edges(at, low, last, sampled_s, to_start_s, beyond_s, near_s, spacing_s / 2)


@dataclass(frozen=True)
class Edges:
    """Steps, first and last sample, and seconds: between those, before the first, added after the last, limits."""

    at: np.ndarray
    low: np.ndarray
    last: np.ndarray
    sampled_s: np.ndarray
    to_start_s: np.ndarray
    beyond_s: np.ndarray
    near_s: np.ndarray
    half_s: np.ndarray


class Store:
    """The series that rules are judged on; recording rules add theirs."""

    def __init__(self, series: SeriesSet) -> None:
        self._by_name: dict[str, list[Series]] = {}
        self._found: dict[tuple[int, int, bytes, str], Window] = {}
        self._times = Times()
        self._steps: tuple[np.ndarray, bytes] = (np.empty(0), b"")
        for labels, t_ms, values in series:
            self.add(labels_of(labels), t_ms, values)

    def add(self, labels: Labels, t_ms: np.ndarray, values: np.ndarray) -> None:
        """Add one series: times (int64 ms) and values (float64, stale markers among them)."""
        stale = is_stale(values)
        if stale.any():
            one = Series(labels, t_ms, values, stale, self._times.once(t_ms[~stale]), values[~stale])
        else:
            one = Series(labels, t_ms, values, None, t_ms, values)
        self._by_name.setdefault(dict(labels)[NAME], []).append(one)

    def replace(self, labels: Labels, t_ms: np.ndarray, values: np.ndarray) -> None:
        """Put this in place of the series with the same labels, if there is one."""
        own = self._by_name.get(dict(labels)[NAME], [])
        own[:] = [one for one in own if one.labels != labels]
        self.add(labels, t_ms, values)

    def holds(self, labels: Labels) -> bool:
        """Return whether there is a series with exactly these labels."""
        return any(one.labels == labels for one in self._by_name.get(dict(labels).get(NAME, ""), ()))

    @property
    def names(self) -> set[str]:
        """The metric names there are."""
        return set(self._by_name)

    def select(self, matchers: Sequence[Matcher]) -> list[Series]:
        """Return the series that all *matchers* accept, in Prometheus' order.

        Raises:
            UnsupportedError: a regular expression that Python reads otherwise than Go.
        """
        names = [m.value for m in matchers if m.name == NAME and m.op == "="]
        candidates: Iterable[Series] = (
            self._by_name.get(names[0], ()) if names else (one for group in self._by_name.values() for one in group)
        )
        tests = [(m, m.accepts()) for m in matchers]
        found = [one for one in candidates if _matches(dict(one.labels), tests)]
        return sorted(found, key=lambda one: one.labels)

    def instants(self, one: Series, t_ms: np.ndarray, dialect: Dialect) -> tuple[np.ndarray, np.ndarray]:
        """Return the newest value at each of *t_ms*, and whether there is one that is neither old nor ended."""
        window = self.window(one.t_ms, t_ms, LOOKBACK_MS, dialect)
        present = window.some
        last = np.maximum(window.high - 1, 0)
        if one.stale is not None:
            present = present & ~one.stale[last]
        return one.values[last] if len(one.values) else np.full(len(t_ms), np.nan), present

    def window(self, sample_t_ms: np.ndarray, t_ms: np.ndarray, range_ms: int, dialect: Dialect) -> Window:
        """Return which samples are in the range before each of *t_ms*.

        Before Prometheus 3 a range includes its older end: a sample exactly *range_ms* old is in it.
        """
        if t_ms is not self._steps[0]:
            self._steps = t_ms, t_ms.tobytes() if len(t_ms) < 8 else _name(t_ms)
        key = (id(sample_t_ms), range_ms, self._steps[1], dialect)
        found = self._found.pop(key, None)
        if found is None:  # the window keeps the array, or another could get its id
            side: Literal["left", "right"] = "left" if dialect == Dialect.PROM_2_42 else "right"
            low = np.searchsorted(sample_t_ms, t_ms - range_ms, side=side)
            high = np.searchsorted(sample_t_ms, t_ms, side="right")
            found = Window(sample_t_ms, t_ms, range_ms, low, high)
            if len(self._found) >= MOST_WINDOWS:
                del self._found[next(iter(self._found))]  # the one not used for the longest time
        self._found[key] = found
        return found


def _name(t_ms: np.ndarray) -> bytes:
    """Return what tells apart one regular row of times from another."""
    regular = (t_ms[1:] - t_ms[:-1] == t_ms[1] - t_ms[0]).all()
    return np.array([t_ms[0], t_ms[1], len(t_ms)]).tobytes() if regular else t_ms.tobytes()


def _matches(labels: dict[str, str], tests: Sequence[tuple[Matcher, "re.Pattern[str] | None"]]) -> bool:
    for matcher, pattern in tests:
        value = labels.get(matcher.name, "")
        hit = value == matcher.value if pattern is None else pattern.fullmatch(value) is not None
        if hit != (matcher.op in ("=", "=~")):
            return False
    return True
