"""Judges rules while series still grow: what each alert does at every evaluation, as soon as its samples are there.

The same expressions and states as in `sim.alerts.rules`, but every evaluation looks only as far back as its rule reads,
and what is older is forgotten. Of rules that `judge` can judge, both say the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sim.alerts.promql.evaluation import evaluate
from sim.alerts.promql.parsing import reach_ms
from sim.alerts.promql.store import LOOKBACK_MS, Store
from sim.alerts.promql.vectors import Dialect, Labels, Steps, UnsupportedError, Vector, labels_of, written
from sim.alerts.rulefile import Group, Rule
from sim.alerts.rules import DEFAULT_INTERVAL_MS, labelled
from sim.series import NAME, STALE, SeriesSet


@dataclass(frozen=True)
class Transition:
    """What an alert became at an evaluation: ``pending``, ``firing``, ``resolved`` or, if it never fired, ``inactive``.

    One that fires at once becomes pending and firing at the same time.
    """

    t_ms: int
    rule: Rule
    labels: Labels
    state: str


@dataclass
class _Alert:
    """One that is active: pending since, whether it fires, since when it has no value (None: it has one)."""

    pending_ms: int
    fires: bool = False
    gone_ms: int | None = None


@dataclass
class _Watched:
    """A rule with its alerts that are active, or the series that it wrote last."""

    rule: Rule
    every_ms: int
    alerts: dict[Labels, _Alert] = field(default_factory=dict)
    recorded: set[Labels] = field(default_factory=set)
    failed: int = 0
    refused: str = ""


class Follower:
    """Rules that are watched while samples come in."""

    def __init__(
        self,
        groups: Sequence[Group],
        start_ms: int = 0,
        interval_ms: int = DEFAULT_INTERVAL_MS,
        dialect: Dialect = Dialect.PROM_2_42,
    ) -> None:
        """Watch the rules in *groups* from *start_ms* on; *interval_ms* is for groups that state none."""
        rules = [rule for group in groups for rule in group.rules]
        trees = [rule.expression for rule in rules if rule.expression is not None]
        self._dialect = dialect
        self._groups = [
            [_Watched(rule, group.interval_ms or interval_ms, refused=rule.refused) for rule in group.rules]
            for group in groups
        ]
        self._due = [start_ms // own[0].every_ms * own[0].every_ms if own else 0 for own in self._groups]
        self._reach_ms = max((reach_ms(one.tree) for one in trees), default=LOOKBACK_MS)
        names = {select.name for one in trees for select in one.selectors}
        self._names = None if "" in names else names
        self._held: dict[Labels, tuple[list[np.ndarray], list[np.ndarray]]] = {}
        self._scraped: set[Labels] = set()

    def add(self, series: SeriesSet) -> None:
        """Take in samples; those of a series that has some already must be later than these."""
        for labels, t_ms, values in series:
            if len(t_ms) and (self._names is None or labels[NAME] in self._names):
                key = labels_of(labels)
                self._scraped.add(key)
                self._put(key, t_ms, values)

    def scraped(self, t_ms: int, samples: Sequence[tuple[Mapping[str, str], float]]) -> None:
        """Take in one scrape: labels (with ``__name__``) and value of each sample, all at *t_ms*."""
        at = np.array([t_ms])
        for labels, value in samples:
            if self._names is None or labels[NAME] in self._names:
                key = labels_of(labels)
                self._scraped.add(key)
                self._put(key, at, np.array([value], float))

    def advance(self, now_ms: int) -> list[Transition]:
        """Evaluate every rule that is due until *now_ms*, in order of time, and return what changed.

        All samples until then must have come in: what is evaluated is not looked at again.
        """
        found = []
        for time_ms in self._times(now_ms):
            store = Store(self._kept(time_ms))
            for own, due_ms in zip(self._groups, self._due):
                if own and due_ms == time_ms:
                    for one in own:
                        found += self._evaluate(one, time_ms, store)
            self._due = [
                due + (own[0].every_ms if own and due == time_ms else 0) for own, due in zip(self._groups, self._due)
            ]
        return found

    @property
    def unjudged(self) -> dict[str, str]:
        """Why rules said nothing so far, by name: refused expressions, and metrics of which no sample came."""
        seen = {dict(labels)[NAME] for labels in self._scraped}
        recorded = {one.rule.name for own in self._groups for one in own if one.rule.records}
        found = {}
        for one in (one for own in self._groups for one in own):
            if one.refused or one.rule.expression is None:
                found[one.rule.name] = one.refused
                continue
            names = dict.fromkeys(select.name for select in one.rule.expression.selectors)
            if missing := [name for name in names if name and name not in seen | recorded]:
                found[one.rule.name] = f"no series is called {', '.join(missing)}"
        return found

    @property
    def active(self) -> Iterator[tuple[Rule, Labels, str]]:
        """The alerts that are pending or firing now."""
        for one in (one for own in self._groups for one in own):
            yield from ((one.rule, labels, "firing" if a.fires else "pending") for labels, a in one.alerts.items())

    def _times(self, now_ms: int) -> list[int]:
        due = {
            t for own, first in zip(self._groups, self._due) if own for t in range(first, now_ms + 1, own[0].every_ms)
        }
        return sorted(due)

    def _put(self, key: Labels, t_ms: np.ndarray, values: np.ndarray) -> None:
        times, samples = self._held.setdefault(key, ([], []))
        times.append(np.asarray(t_ms, np.int64))
        samples.append(np.asarray(values, np.float64))

    def _kept(self, now_ms: int) -> SeriesSet:
        """Return the samples that an evaluation at *now_ms* may read; what no later one may read is forgotten."""
        made = SeriesSet()
        for key, (times, samples) in list(self._held.items()):
            if len(times) > 1:
                times[:], samples[:] = [np.concatenate(times)], [np.concatenate(samples)]
            low, high = np.searchsorted(times[0], (now_ms - self._reach_ms, now_ms + 1))
            times[0], samples[0] = times[0][low:], samples[0][low:]
            if high > low:
                made.add(dict(key), times[0][: high - low], samples[0][: high - low])
            elif not len(times[0]):
                del self._held[key]
        return made

    def _evaluate(self, one: _Watched, t_ms: int, store: Store) -> list[Transition]:
        if one.refused or one.rule.expression is None:
            return []
        steps = Steps(np.array([t_ms]), self._dialect)
        try:
            found = evaluate(one.rule.expression, store, steps)
        except UnsupportedError as error:
            one.refused = error.what
            return []
        labels = [labelled(labels, one.rule) for labels in found.labels]
        found = Vector(labels, found.values, found.present).relabelled(labels, steps)
        if steps.failed[0]:
            one.failed += 1
            return []
        values = {row: float(v[0]) for row, v, there in zip(found.labels, found.values, found.present) if there[0]}
        if one.rule.records:
            self._record(one, t_ms, values, store)
            return []
        return list(_changes(one, t_ms, set(values)))

    def _record(self, one: _Watched, t_ms: int, values: Mapping[Labels, float], store: Store) -> None:
        """Write what a rule records; where a series ends, a stale marker, as Prometheus does."""
        if twice := [labels for labels in values if labels in self._scraped]:
            one.refused = f"it records {written(twice[0])}, which there is already"
            return
        at = np.array([t_ms])
        for labels in values.keys() | one.recorded:
            sample = np.array([values[labels]]) if labels in values else STALE
            self._put(labels, at, sample)
            store.replace(labels, np.concatenate(self._held[labels][0]), np.concatenate(self._held[labels][1]))
        one.recorded = set(values)


def _changes(one: _Watched, t_ms: int, true: set[Labels]) -> Iterator[Transition]:
    """Move the alerts of a rule on by one evaluation, as `sim.alerts.states.episodes` does, and yield what changed."""
    for labels in sorted(true - one.alerts.keys()):
        one.alerts[labels] = _Alert(t_ms)
        yield Transition(t_ms, one.rule, labels, "pending")
    for labels, alert in sorted(one.alerts.items()):
        if labels in true:
            alert.gone_ms = None
            if not alert.fires and t_ms - alert.pending_ms >= one.rule.for_ms:
                alert.fires = True
                yield Transition(t_ms, one.rule, labels, "firing")
            continue
        alert.gone_ms = t_ms if alert.gone_ms is None else alert.gone_ms
        if not alert.fires or t_ms - alert.gone_ms >= one.rule.keep_firing_for_ms:
            del one.alerts[labels]
            yield Transition(t_ms, one.rule, labels, "resolved" if alert.fires else "inactive")
