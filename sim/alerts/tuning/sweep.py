"""Every setting of a rule played on a past: what is compared is evaluated once a window, all else is vectorised.

Exactly what `rules.judge` says of each rewritten rule (`tests/test_alerts_tune.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.alerts.pages import EARLY_MS, GRACE_MS
from sim.alerts.promql.evaluation import evaluate
from sim.alerts.promql.matching import COMPARISON
from sim.alerts.promql.parsing import parse
from sim.alerts.promql.store import Store
from sim.alerts.promql.vectors import Dialect, Steps, Vector
from sim.alerts.rules import labelled
from sim.alerts.truth import Incident
from sim.alerts.tuning.grids import Grid, nearby
from sim.alerts.tuning.knobs import Knobs, UntunableError

WEEK_MS = 7 * 86_400_000
NEARBY = 0.2
"""Each threshold is also tried this much lower and higher, to know whether a choice stands on an edge."""

_BLOCK = 1 << 20  # steps times thresholds looked at together, to stay near the core
_FAR = 1 << 38  # ms: the end of a page that never ended; farther than any past is long
_APART = 1 << 40  # ms between the timelines of two thresholds, which are matched as one


@dataclass(frozen=True)
class Weeks:
    """A past cut into weeks: when it begins (int64 ms), and how long each is, in weeks: the last may be shorter."""

    from_ms: int
    weeks: np.ndarray

    @classmethod
    def cut(cls, from_ms: int, to_ms: int) -> "Weeks":
        """Return the weeks from *from_ms* to *to_ms*; a last one of under a hundredth belongs to the one before."""
        whole = (to_ms - from_ms) / WEEK_MS
        n = max(1, int(np.ceil(whole - 0.01)))
        return cls(from_ms, np.append(np.ones(n - 1), whole - (n - 1)))

    def of(self, t_ms: np.ndarray) -> np.ndarray:
        """Return in which week each time lies."""
        return np.clip((t_ms - self.from_ms) // WEEK_MS, 0, len(self.weeks) - 1)


@dataclass
class Trials:
    """What became of every setting of one rule: (windows, thresholds, times of `for`, and one more axis each).

    There are three times as many thresholds as in the grid: those, each a little lower, each a little higher.
    """

    pages: np.ndarray
    """How many pages began in each week."""
    false: np.ndarray
    """How many of them were false."""
    detection_s: np.ndarray
    """How long each incident had lasted before its page; nan for a miss."""
    firing_ms: np.ndarray
    """For how long the rule was firing, in all (windows, thresholds, times of `for`); pages that began in a warm-up are
    left out everywhere else, but count here."""

    @classmethod
    def together(cls, many: "Sequence[Trials]") -> "Trials":
        """Return what became of the settings in several pasts: weeks and incidents one after the other."""
        pages, false, detection = (
            np.concatenate([getattr(one, name) for one in many], axis=-1) for name in ("pages", "false", "detection_s")
        )
        return cls(pages, false, detection, np.sum([one.firing_ms for one in many], axis=0))


@dataclass(frozen=True)
class Runs:
    """Stretches of true evaluations of one alert: of which threshold, first step, first step that is not true."""

    which: np.ndarray
    start: np.ndarray
    end: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, present: np.ndarray, sign: str, tried: np.ndarray) -> "Runs":
        """Return where *values* (steps) are *present* and hold against each threshold *tried*, in order."""
        n, compare, found = len(values), COMPARISON[sign], []
        block = max(1, _BLOCK // (n + 2))
        padded = np.zeros((block, n + 2), bool)
        for first in range(0, len(tried), block):
            some = tried[first : first + block, None]
            true = padded[: len(some)]
            with np.errstate(invalid="ignore"):
                np.logical_and(compare(values, some), present, out=true[:, 1:-1])
            which, at = np.divmod(np.flatnonzero(true[:, 1:] != true[:, :-1]), n + 1)
            found.append((which[::2] + first, at[::2], at[1::2]))
        return cls(*(np.concatenate(parts) for parts in zip(*found)))


def thresholds_tried(grid: Grid) -> np.ndarray:
    """Return the thresholds of *grid*, then each a little lower, then each a little higher."""
    lower, higher = zip(*(nearby(x, NEARBY) for x in grid.thresholds))
    return np.array([*grid.thresholds, *lower, *higher])


def sweep(
    knobs: Knobs,
    grid: Grid,
    store: Store,
    t_ms: np.ndarray,
    weeks: Weeks,
    incidents: Sequence[Incident],
    dialect: Dialect = Dialect.PROM_2_42,
    window_ms: tuple[int, int] = (EARLY_MS, GRACE_MS),
) -> Trials:
    """Return what becomes of a rule at every setting of *grid*, evaluated at *t_ms*, held against *incidents*.

    *window_ms* is how long before an incident, and after it, a page still belongs to it.

    Raises:
        UntunableError: series that are one alert at some settings and an error at others.
    """
    tried = thresholds_tried(grid)
    shape = (len(grid.windows_ms), len(tried), len(grid.fors_ms))
    pages = np.zeros((*shape, len(weeks.weeks)), np.int64)
    made = Trials(pages, pages.copy(), np.full((*shape, len(incidents)), np.nan, np.float32), np.zeros(shape, np.int64))
    truth = _Truth.of(incidents, int(t_ms[0]), window_ms)
    for w, range_ms in enumerate(grid.windows_ms):
        vector, fine = _compared(knobs, range_ms, store, t_ms, dialect)
        own_ms = t_ms[fine] - t_ms[0]
        rows = [
            Runs.of(values[fine], there[fine], knobs.sign, tried)
            for values, there in zip(vector.values, vector.present)
        ]
        for f, for_ms in enumerate(grid.fors_ms):
            if not rows or not len(own_ms):
                continue
            spans = [firing(runs, own_ms, for_ms, knobs.rule.keep_firing_for_ms) for runs in rows]
            which, start, end = union(*(np.concatenate(parts) for parts in zip(*spans)))
            from_ms = weeks.from_ms - t_ms[0]
            lasted = np.maximum(0, np.minimum(end, t_ms[-1] - t_ms[0]) - np.maximum(start, from_ms))
            made.firing_ms[w, :, f] = np.bincount(which, lasted, len(tried)).astype(np.int64)
            kept = start >= from_ms
            _count(made, (w, f), (which[kept], start[kept], end[kept]), truth, weeks, t_ms)
            already = np.bincount(which[~kept & (end > from_ms)], minlength=len(tried))
            made.pages[w, :, f, 0] += already  # false, as in `score`: nothing made them page
            made.false[w, :, f, 0] += already
    return made


def _compared(
    knobs: Knobs, range_ms: int, store: Store, t_ms: np.ndarray, dialect: Dialect
) -> tuple[Vector, np.ndarray]:
    """Return what is compared, one row an alert, and the steps whose evaluation does not fail."""
    steps = Steps(t_ms, dialect)
    found = evaluate(parse(knobs.compared(range_ms)), store, steps)
    failed = steps.failed.copy()
    found = found.relabelled([labelled(labels, knobs.rule) for labels in found.labels], steps)
    if (steps.failed & ~failed).any():
        raise UntunableError("several of its series become one alert")
    return found, ~failed


def firing(runs: Runs, t_ms: np.ndarray, for_ms: int, keep_ms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return when one alert was firing: of which threshold, from and to (ms); all that `states.episodes` says.

    A run that begins while the one before it is kept firing goes on with it. So runs hang together in chains; a
    chain fires from where the first run in it does that is long enough.
    """
    n = len(t_ms)
    fires = np.searchsorted(t_ms, t_ms[runs.start] + for_ms)
    long_enough = fires < runs.end
    if keep_ms == 0:
        which, first, over = runs.which[long_enough], fires[long_enough], runs.end[long_enough]
    else:
        kept = np.searchsorted(t_ms, t_ms[np.minimum(runs.end, n - 1)] + keep_ms)
        until = np.where(runs.end == n, n, kept)
        begins = np.ones(len(runs.start), bool)
        begins[1:] = (runs.which[1:] != runs.which[:-1]) | (runs.start[1:] > until[:-1])
        chain = np.cumsum(begins) - 1
        last = np.append(np.flatnonzero(begins)[1:] - 1, len(begins) - 1)
        at = np.flatnonzero(long_enough)
        named, where = np.unique(chain[at], return_index=True)
        which, first, over = runs.which[at[where]], fires[at[where]], until[last[named]]
    ended = np.where(over < n, t_ms[np.minimum(over, n - 1)], _FAR)
    return which, t_ms[first], ended


def union(which: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pages: spans of one threshold that touch or overlap become one; by threshold, then by start."""
    order = np.lexsort((start, which))
    which, start, end = which[order], start[order], end[order]
    until = np.maximum.accumulate(which * _APART + end)
    first = np.ones(len(start), bool)
    first[1:] = which[1:] * _APART + start[1:] > until[:-1]
    last = np.append(first[1:], True)[: len(first)]
    return which[first], start[first], until[last] - which[first] * _APART


@dataclass(frozen=True)
class _Truth:
    """The incidents of a past (ms since its first evaluation), and when a page is true."""

    start: np.ndarray
    end: np.ndarray
    opens: np.ndarray
    closes: np.ndarray
    true_from: np.ndarray
    true_to: np.ndarray

    @classmethod
    def of(cls, incidents: Sequence[Incident], base_ms: int, window_ms: tuple[int, int]) -> "_Truth":
        start = np.array([one.start_ms - base_ms for one in incidents], np.int64)
        opens = start - window_ms[0]
        end = np.array([one.end_ms - base_ms for one in incidents], np.int64)
        closes = end + window_ms[1]
        order = np.argsort(opens, kind="stable")
        nothing = np.zeros(len(incidents), np.int64)
        _, true_from, true_to = union(nothing, opens[order], closes[order])
        return cls(start, end, opens, closes, true_from, true_to)

    def credited_to(self, at: np.ndarray) -> np.ndarray:
        """Return when the window of the incident ends to which pages that begin *at* are credited, -1 of false ones."""
        found = np.full(len(at), -1)
        for k in np.argsort(-self.start, kind="stable"):
            found[(at >= self.opens[k]) & (at <= self.closes[k])] = self.closes[k]
        return found


def _count(
    made: Trials,
    place: tuple[int, int],
    pages: tuple[np.ndarray, np.ndarray, np.ndarray],
    truth: _Truth,
    weeks: Weeks,
    t_ms: np.ndarray,
) -> None:
    """Write down what *pages* are worth, as `pages.match` says, for all thresholds of one window and `for` at once."""
    w, f = place
    which, start, end = pages
    total = made.pages.shape[1]
    true = _within(start, truth.true_from, truth.true_to)
    week = weeks.of(start + t_ms[0])
    cell = which * len(weeks.weeks) + week
    for counts, counted in ((made.pages, cell), (made.false, cell[~true])):
        counts[w, :, f] = np.bincount(counted, minlength=total * len(weeks.weeks)).reshape(total, -1)
    if not len(start) or not len(truth.start):
        return
    key = which * _APART + start
    lane = np.arange(total)[:, None] * _APART  # (thresholds, incidents) from here on
    own = np.arange(total)[:, None]
    after = np.searchsorted(key, lane + truth.start, side="right")  # the pages of one lane do not overlap
    newest, next_ = np.maximum(after - 1, 0), np.minimum(after, len(key) - 1)
    firing = (which[newest] == own) & (start[newest] <= truth.start) & (end[newest] > truth.start)
    early = firing & (start[newest] >= truth.opens)
    at_work = firing & (start[newest] < truth.opens) & (truth.credited_to(start)[newest] >= truth.start)
    later = (which[next_] == own) & (start[next_] > truth.start) & (start[next_] < truth.end)
    delay = (start[next_] - truth.start) / 1000
    made.detection_s[w, :, f] = np.where(at_work | early, 0.0, np.where(later, delay, np.nan))


def _within(at: np.ndarray, from_: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Return which of *at* lie in one of the spans, which are sorted and apart; ends included."""
    if not len(from_):
        return np.zeros(len(at), bool)
    span = np.searchsorted(from_, at, side="right") - 1
    return (span >= 0) & (at <= to[np.maximum(span, 0)])
