"""The past that a live Prometheus remembers: raw samples of what rules read, in chunks, each asked for once."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sim import exposition
from sim.alerts.past import Past
from sim.alerts.promql.parsing import Expression, Selector, reach_ms
from sim.alerts.promql.store import LOOKBACK_MS, Matcher
from sim.alerts.promql.vectors import Labels, Steps, UnsupportedError, Vector, labels_of
from sim.alerts.rulefile import Group
from sim.alerts.rules import Elsewhere
from sim.alerts.sources.server import QueryError, Row, Server
from sim.errors import InputError
from sim.series import NAME, SeriesSet, Times

PARALLEL = 2
SETTLED_MS = 600_000
"""Samples may still come in for so long (a remote write that lags): what is younger is asked for again."""

CHUNKS_MS = (86_400_000, 21_600_000, 3_600_000, 600_000)
SCRAPE_MS = 15_000
CHUNK_SAMPLES = 3_000_000
"""About how many samples one answer may have, of 18 bytes each, if scrapes are `SCRAPE_MS` apart."""

CHUNK_STEPS = 10_000
"""Evaluations in one question: Prometheus refuses more than 11,000 (web/api/v1/api.go)."""

_MADE = "labels_of_result"

Progress = Callable[[int], AbstractContextManager[Callable[[], None]]]
"""Told how many chunks are to come, gives what is called after each."""


def unseen(chunks: int) -> AbstractContextManager[Callable[[], None]]:
    """Show nobody how far it is."""
    return nullcontext(lambda: None)


@dataclass(frozen=True, kw_only=True)
class LivePast(Past):
    """What *server* remembers from *start_ms* to *end_ms*; *cache* is where answers are kept."""

    server: Server
    start_ms: int
    end_ms: int
    cache: Path
    progress: Progress = unseen
    now_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    known: dict[Selector, list[Row]] = field(default_factory=dict)
    reach_ms: dict[Selector, int] = field(default_factory=dict)
    """From how long before the start on each selector is known."""
    counted: dict[Selector, int] = field(default_factory=dict)

    def series(self, names: Collection[str] | None = None) -> SeriesSet:
        """Return the series called one of *names*, whatever their labels.

        Raises:
            InputError: no names, for then it would be everything.
            EndpointError: the server does not answer.
        """
        if names is None:
            raise InputError(f"{self.name}: expected rules that name what they read, for not everything can be fetched")
        return self._fetched([Selector((Matcher(NAME, "=", name),)) for name in sorted(names)], LOOKBACK_MS)

    def read(self, groups: Sequence[Group], also: Sequence[Expression] = ()) -> SeriesSet:
        """Return the series that the rules in *groups* and the expressions *also* read, but not what rules record.

        Raises:
            EndpointError: the server does not answer.
        """
        rules = [rule for group in groups for rule in group.rules]
        recorded = {rule.name for rule in rules if rule.records}
        read = [*(rule.expression for rule in rules if rule.expression is not None), *also]
        chosen = dict.fromkeys(s for one in read for s in one.selectors if s.name not in recorded)
        wider = [one for one in chosen if not any(set(o.matchers) < set(one.matchers) for o in chosen)]
        return self._fetched(wider, max((reach_ms(one.tree) for one in read), default=0))

    @property
    def span_ms(self) -> tuple[int, int]:
        """Time of the first and of the last evaluation; what was read may begin later than was asked for."""
        first = [int(t_ms[0]) for rows in self.known.values() for _, t_ms, _ in rows if len(t_ms)]
        return max(self.start_ms, min(first, default=self.start_ms)), self.end_ms

    @property
    def caveat(self) -> str:
        """What must be known about it: what the server could not give."""
        said = []
        if not any(len(t_ms) for rows in self.known.values() for _, t_ms, _ in rows):
            said.append("no samples were found")
        elif self.span_ms[0] - self.start_ms > LOOKBACK_MS:
            said.append(f"it remembers {(self.end_ms - self.span_ms[0]) / 3.6e6:,.1f} h of that")
        if not self.server.remote:
            said.append("no remote read, so it is not known when series end")
        if self.server.warnings:
            said.append(f"the server warns: {exposition.shown(self.server.warnings[0])}")
        return "; ".join(said)

    @property
    def elsewhere(self) -> Elsewhere:
        """The server itself, for expressions outside the subset."""
        return self

    def matched(self, select: Selector) -> int:
        """Return how many series of the server a selector matches."""
        if select not in self.counted:
            self.counted[select] = len(self.server.series(select.matchers, self.start_ms, self.end_ms))
        return self.counted[select]

    def evaluate(self, text: str, steps: Steps) -> Vector:
        """Return what the server says an expression was worth at every step.

        Raises:
            UnsupportedError: it refuses the expression.
            EndpointError: it does not answer.
        """
        step_ms = int(steps.t_ms[1] - steps.t_ms[0]) if len(steps.t_ms) > 1 else 1
        chunks = _chunks(int(steps.t_ms[0]), int(steps.t_ms[-1]) + 1, step_ms * CHUNK_STEPS)

        def values(start_ms: int, end_ms: int) -> Iterator[Row]:
            rows = self.server.values(text, start_ms, end_ms, step_ms)
            return (({NAME: _MADE, _MADE: json.dumps(labels)}, t_ms, v) for labels, t_ms, v in rows)

        found = []
        try:
            with self.progress(len(chunks)) as count:
                for start, end in chunks:
                    found.append(self._kept([text, step_ms], start, end, values))
                    count()
        except QueryError as error:
            raise UnsupportedError(str(error)) from None
        results = _joined(row for rows in found for row in rows)
        return _vector([(labels_of(json.loads(labels[_MADE])), t_ms, v) for labels, t_ms, v in results], steps.t_ms)

    def _fetched(self, chosen: Sequence[Selector], reach_ms: int) -> SeriesSet:
        """Return the series that any of *chosen* matches, from *reach_ms* before the start to the end."""
        first_ms = self.start_ms - reach_ms
        new = [one for one in chosen if self.reach_ms.get(one, -1) < reach_ms]
        sets = {one: self.server.series(one.matchers, first_ms, self.end_ms) for one in new}
        if some := next((one for one, labels in sets.items() if labels), None):
            self.server.remote = self.server.remote and self.server.has_remote_read(some.matchers, self.end_ms)
        jobs = [
            (one, start, end)
            for one, labels in sets.items()
            if labels
            for start, end in _chunks(first_ms, self.end_ms + 1, _length_ms(len(labels)))
        ]
        parts: dict[Selector, list[Row]] = {one: [] for one in sets}
        with self.progress(len(jobs)) as count, ThreadPoolExecutor(PARALLEL) as pool:
            try:
                for job, rows in zip(jobs, pool.map(self._chunk, jobs)):
                    parts[job[0]] += rows
                    count()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for one, labels in sets.items():
            own = {name for labels_ in labels for name in labels_}  # the rest are the server's external labels
            within = (_cut(row, first_ms, self.end_ms) for row in parts[one])
            self.reach_ms[one] = reach_ms
            self.known[one] = _joined(({k: row[0][k] for k in row[0] if k in own}, *row[1:]) for row in within)
        return self._together(chosen)

    def _chunk(self, job: tuple[Selector, int, int]) -> list[Row]:
        select, start_ms, end_ms = job
        matchers = [[m.name, m.op, m.value] for m in select.matchers]
        key = [matchers, "read" if self.server.remote else "select"]
        return self._kept(key, start_ms, end_ms, lambda start, end: self.server.samples(select.matchers, start, end))

    def _kept(self, about: object, start_ms: int, end_ms: int, ask: Callable[[int, int], Iterable[Row]]) -> list[Row]:
        """Return one chunk: as it was kept, or else asked for and, where it can no longer change, kept."""
        if end_ms > self.now_ms - SETTLED_MS:
            return list(ask(start_ms, min(end_ms, self.end_ms + 1)))
        who = [self.server.url, sorted(self.server.credentials.headers.items())]
        name = hashlib.sha256(json.dumps([who, about, start_ms, end_ms]).encode()).hexdigest()[:32]
        path = self.cache / f"{name}.parquet"
        with suppress(InputError):
            return list(SeriesSet.read(path))
        warned = len(self.server.warnings)
        made = SeriesSet()
        for labels, t_ms, values in _joined(ask(start_ms, end_ms)):
            made.add(labels, t_ms, values)
        if len(self.server.warnings) > warned:  # it may lack some
            return list(made)
        self.cache.mkdir(parents=True, exist_ok=True)
        made.write(path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        return list(made)

    def _together(self, chosen: Sequence[Selector]) -> SeriesSet:
        """Return all that *chosen* match, each once; of a metric that has only others, one without samples."""
        made, seen, shared = SeriesSet(), set(), Times()
        for one in chosen:
            for labels, t_ms, values in self.known[one]:
                if (key := labels_of(labels)) not in seen:
                    seen.add(key)
                    made.add(labels, shared.once(t_ms), values)
        for name in {one.name for one in chosen if one.name and not self.known[one]} - made.names:
            some = self.server.series((Matcher(NAME, "=", name),), self.start_ms, self.end_ms)
            for labels in some[:1]:
                made.add(labels, np.empty(0, np.int64), np.empty(0))
        return made


def _chunks(start_ms: int, end_ms: int, length_ms: int) -> list[tuple[int, int]]:
    """Return the chunks, each from a multiple of its length on, that hold all from *start_ms* to before *end_ms*."""
    return [(at, at + length_ms) for at in range(start_ms // length_ms * length_ms, end_ms, length_ms)]


def _length_ms(series: int) -> int:
    return next((ms for ms in CHUNKS_MS if series * ms <= CHUNK_SAMPLES * SCRAPE_MS), CHUNKS_MS[-1])


def _joined(rows: Iterable[Row]) -> list[Row]:
    """Return *rows* with the pieces of each series, which follow each other in time, in one."""
    pieces: dict[Labels, tuple[dict[str, str], list[np.ndarray], list[np.ndarray]]] = {}
    for labels, t_ms, values in rows:
        if len(t_ms):
            held = pieces.setdefault(labels_of(labels), (labels, [], []))
            held[1].append(t_ms)
            held[2].append(values)
    return [(labels, np.concatenate(t_ms), np.concatenate(values)) for labels, t_ms, values in pieces.values()]


def _cut(row: Row, first_ms: int, last_ms: int) -> Row:
    low, high = np.searchsorted(row[1], (first_ms, last_ms + 1))
    return row[0], row[1][low:high], row[2][low:high]


def _vector(rows: Iterable[tuple[Labels, np.ndarray, np.ndarray]], t_ms: np.ndarray) -> Vector:
    """Return the values that *rows* have at each of *t_ms*."""
    made = []
    for labels, times, values in rows:
        at = np.searchsorted(times, t_ms)
        there = times[np.minimum(at, len(times) - 1)] == t_ms
        made.append((labels, np.where(there, values[np.minimum(at, len(times) - 1)], np.nan), there))
    return Vector.stacked(made, len(t_ms))
