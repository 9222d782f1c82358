"""What became of every setting of every rule, over all pasts: pages, false ones, incidents caught and when."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sim.alerts.pages import EARLY_MS, GRACE_MS
from sim.alerts.past import Past
from sim.alerts.promql.store import Store
from sim.alerts.promql.vectors import Dialect
from sim.alerts.rulefile import Group, Rule
from sim.alerts.rules import Judgement, Verdict, judge
from sim.alerts.score import pages
from sim.alerts.truth import Incident, Truth
from sim.alerts.tuning.grids import Grid, Tuning
from sim.alerts.tuning.knobs import Knobs, Point, UntunableError, knobs
from sim.alerts.tuning.sweep import Trials, Weeks, sweep, thresholds_tried
from sim.errors import InputError
from sim.words import did_you_mean, show

Index = tuple[int, int, int]


@dataclass(frozen=True)
class Ledger:
    """What became of every setting of one rule over all pasts on which it was judged."""

    knobs: Knobs
    grid: Grid
    trials: Trials
    weeks: np.ndarray
    """How long each week of each past is; the last of a past may be shorter."""
    past: tuple[str, ...]
    """Which past each incident is of."""
    incidents: tuple[Incident, ...]
    week: np.ndarray
    """In which of `weeks` each incident began."""
    weight: np.ndarray
    """How often each incident counts; 0 for those the rule need not catch, or that are not in the user's mix."""

    @property
    def today(self) -> Index:
        """Where today's setting is."""
        return self.grid.index(self.knobs.today)

    @property
    def all_weeks(self) -> np.ndarray:
        """Every week, as a choice of weeks (bool)."""
        return np.ones(len(self.weeks), bool)

    def point(self, index: Index) -> Point:
        """Return the setting at *index*; thresholds behind those of the grid are a little lower or higher ones."""
        w, k, f = index
        return Point(float(thresholds_tried(self.grid)[k]), self.grid.windows_ms[w], self.grid.fors_ms[f])

    def missed(self, index: Index) -> list[tuple[str, Incident]]:
        """Return the incidents that count and that the setting at *index* misses, each with its past."""
        gone = np.isnan(self.trials.detection_s[index]) & (self.weight > 0)
        return [(self.past[i], self.incidents[i]) for i in np.flatnonzero(gone)]


@dataclass
class _Record:
    """What is known so far of one rule."""

    knobs: Knobs | None
    why: str = ""
    grid: Grid | None = None
    parts: dict[int, tuple[Trials, Weeks]] = field(default_factory=dict)


@dataclass
class Campaign:
    """All rules, played on one past after the other; the series of only one of them are in memory."""

    groups: Sequence[Group]
    tuning: Tuning
    interval_ms: int
    dialect: Dialect = Dialect.PROM_2_42
    window_ms: tuple[int, int] = (EARLY_MS, GRACE_MS)
    truths: list[tuple[str, Truth]] = field(default_factory=list)
    weeks: float = 0.0
    _records: list[_Record | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        rules = [rule for group in self.groups for rule in group.rules]
        self.tuning.check([rule.name for rule in rules if not rule.records])
        self._records = [None if rule.records else self._record(rule) for rule in rules]

    def _record(self, rule: Rule) -> _Record:
        if not self.tuning.asks_for(rule.name):
            return _Record(None, f"{self.tuning.file} does not ask for it")
        try:
            return _Record(knobs(rule))
        except UntunableError as error:
            return _Record(None, str(error))

    def play(self, name: str, past: Past, truth: Truth, done: Callable[[], None] = lambda: None) -> None:
        """Play every setting of every rule on *past*, called *name*; *done* is called after each rule.

        Raises:
            InputError: series that cannot be read, or a tuning file that asks for what a rule does not have.
        """
        series = past.read(self.groups)
        store = Store(series)
        judged = judge(
            self.groups, series, self.interval_ms, self.dialect, past.span_ms, elsewhere=past.elsewhere, store=store
        )
        weeks = Weeks.cut(truth.from_ms, past.span_ms[1])
        for record, one in zip(self._records, judged):
            if record is not None and record.knobs is not None:
                self._sweep(record, one, store, weeks, truth)
            done()
        self.truths.append((name, truth))
        self.weeks += float(weeks.weeks.sum())

    def _sweep(self, record: _Record, one: Judgement, store: Store, weeks: Weeks, truth: Truth) -> None:
        assert record.knobs is not None
        if one.verdict != Verdict.JUDGED:
            record.why = f"{one.verdict}: {one.reason}"
            return
        if record.grid is None:
            record.grid = self.tuning.grid(record.knobs, scrape_ms(record.knobs, store))
        try:
            found = sweep(
                record.knobs, record.grid, store, one.t_ms, weeks, truth.incidents, self.dialect, self.window_ms
            )
        except UntunableError as error:
            record.knobs, record.why, record.parts = None, str(error), {}
        else:
            record.parts[len(self.truths)] = found, weeks

    @property
    def rules(self) -> int:
        """How many rules there are, recording ones included."""
        return len(self._records)

    @property
    def incidents(self) -> list[tuple[str, Incident]]:
        """All incidents of all pasts, each with the name of its past."""
        return [(name, one) for name, truth in self.truths for one in truth.incidents]

    @property
    def silent(self) -> list[tuple[Rule, str]]:
        """The alert rules that were not tuned, and why."""
        rules = [rule for group in self.groups for rule in group.rules]
        return [(rule, one.why) for rule, one in zip(rules, self._records) if one is not None and not one.parts]

    def ledgers(self) -> list[Ledger]:
        """Return what became of every rule that could be tuned.

        Raises:
            InputError: the user's mix names incidents that there are none of.
        """
        weight = iter(weights([one for _, one in self.incidents], self.weeks, self.tuning))
        by_past = [np.array([next(weight) for _ in truth.incidents]) for _, truth in self.truths]
        return [self._ledger(one, by_past) for one in self._records if one is not None and one.parts]

    def _ledger(self, record: _Record, by_past: Sequence[np.ndarray]) -> Ledger:
        assert record.knobs is not None
        assert record.grid is not None
        named = [
            (name, one)
            for i in record.parts
            for name, one in ((self.truths[i][0], x) for x in self.truths[i][1].incidents)
        ]
        needed = [not pages(record.knobs.rule) or one.severity == "page" for _, one in named]
        lengths = [weeks.weeks for _, weeks in record.parts.values()]
        before = np.cumsum([0, *map(len, lengths)])
        week = [
            weeks.of(np.array([one.start_ms for one in self.truths[i][1].incidents], np.int64)) + offset
            for offset, (i, (_, weeks)) in zip(before, record.parts.items())
        ]
        return Ledger(
            record.knobs,
            record.grid,
            Trials.together([trials for trials, _ in record.parts.values()]),
            np.concatenate(lengths),
            tuple(name for name, _ in named),
            tuple(one for _, one in named),
            np.concatenate(week),
            np.concatenate([by_past[i] for i in record.parts]) * np.array(needed, float),
        )


def scrape_ms(turned: Knobs, store: Store) -> int:
    """Return the usual time between samples of what a rule reads, the longest of all its series (ms)."""
    assert turned.rule.expression is not None
    gaps = [
        int(np.median(np.diff(series.t_ms)))
        for one in turned.rule.expression.selectors
        for series in store.select(one.matchers)
        if len(series.t_ms) > 1
    ]
    return max(gaps, default=0)


def kinds(incident: Incident) -> set[str]:
    """Return by which names a mix may call *incident*: severity, objective, cause, or the first word of those."""
    named = [incident.severity, *incident.objective.split(", "), *incident.causes]
    return {name for one in named if one for name in (one, one.partition(" ")[0])}


def mix(incidents: Sequence[Incident]) -> Mapping[str, int]:
    """Return how many incidents there are of each severity, objective and cause; who has several counts in each."""
    return Counter(
        name
        for one in incidents
        for name in dict.fromkeys([one.severity, *filter(None, one.objective.split(", ")), *one.causes])
    )


def weights(incidents: Sequence[Incident], weeks: float, tuning: Tuning) -> list[float]:
    """Return how often each incident is to count, so that together they are the mix of *tuning*; 1 without one.

    Raises:
        InputError: the mix names incidents that there are none of, or counts one incident twice.
    """
    if not tuning.mix:
        return [1.0] * len(incidents)
    named = [kinds(one) & tuning.mix.keys() for one in incidents]
    seen = Counter(name for names in named for name in names)
    for name in tuning.mix:
        if not seen[name]:
            known = sorted(set().union(*map(kinds, incidents)))
            said = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            raise InputError(f"{tuning.file}: mix: no incident is called {show(name)}, so none can stand for it{said}")
    for one, names in zip(incidents, named):
        if len(names) > 1:
            both = " and ".join(sorted(names))
            raise InputError(
                f"{tuning.file}: mix: {one.id} is {both}; expected names of which an incident has only one"
            )
    return [tuning.mix[name] * weeks / seen[name] if (name := next(iter(names), "")) else 0.0 for names in named]
