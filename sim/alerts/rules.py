"""Judges rules on series: each group at its interval, recording rules before those that read them, a verdict each.

All groups are evaluated at multiples of their interval. A real server shifts each by up to one interval, by a hash
of its name, so real firing times may be that much later.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
import promql_parser as promql

from sim.alerts.promql.evaluation import evaluate
from sim.alerts.promql.parsing import Expression, Selector, bare, children, parse, selector, walk
from sim.alerts.promql.store import Matcher, Store
from sim.alerts.promql.vectors import Dialect, Labels, Steps, UnsupportedError, Vector, labels_of, written
from sim.alerts.rulefile import FROM_LABELS, Group, Rule
from sim.alerts.states import Episode, episodes
from sim.series import NAME, STALE, SeriesSet

DEFAULT_INTERVAL_MS = 60_000
"""Between evaluations, where a group says nothing: Prometheus' own default (global.evaluation_interval)."""

OF_ALERTS = ("ALERTS", "ALERTS_FOR_STATE")
_OF_RANGE = re.compile(r"@\s*(start|end)\s*\(")
"""What means another time in a query over a range than in a rule."""


class Verdict(StrEnum):
    """What can be said of a rule. Only a judged rule that never fires is quiet; the others are silent."""

    JUDGED = "judged"
    NO_SUCH_SERIES = "no such series"
    UNSUPPORTED = "unsupported"
    MATCHED_NOTHING = "matched nothing"


@dataclass
class Judgement:
    """What became of one rule: how many series it matched, when its alerts were active, and where it failed."""

    rule: Rule
    interval_ms: int
    verdict: Verdict = Verdict.JUDGED
    reason: str = ""
    matched: int = 0
    t_ms: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    failed: int = 0
    """Evaluations that ended with an error; *reason* says which."""
    episodes: list[Episode] = field(default_factory=list)

    @property
    def fired(self) -> list[Episode]:
        """The episodes that fired."""
        return [one for one in self.episodes if one.firing_ms is not None]


class Elsewhere(Protocol):
    """Somebody who can evaluate what the subset cannot."""

    def matched(self, select: Selector) -> int:
        """Return how many series a selector matches."""

    def evaluate(self, text: str, steps: Steps) -> Vector:
        """Return the value of an expression at every step.

        Raises:
            UnsupportedError: that cannot be done; what was said.
        """


def judge(
    groups: Sequence[Group],
    series: SeriesSet,
    interval_ms: int = DEFAULT_INTERVAL_MS,
    dialect: Dialect = Dialect.PROM_2_42,
    span_ms: tuple[int, int] | None = None,
    *,
    elsewhere: Elsewhere | None = None,
    store: Store | None = None,
) -> list[Judgement]:
    """Return a judgement on every rule, in order; *interval_ms* is for groups that state none.

    Rules are evaluated from the first to the last sample, or over *span_ms*, where not every series was read. What
    the subset refuses is evaluated *elsewhere*, if there is such a place, and goes through the same states. What is
    recorded goes into *store*, which holds *series*, if one is given.

    Raises:
        InputError: there are no samples.
    """
    first, last = span_ms or series.span_ms
    store = store or Store(series)
    rules = [rule for group in groups for rule in group.rules]
    made: list[Judgement] = []
    known: dict[str, Judgement] = {}
    for group in groups:
        every_ms = group.interval_ms or interval_ms
        t_ms = np.arange(first // every_ms * every_ms, last + 1, every_ms, dtype=np.int64)
        for rule in group.rules:
            one = Judgement(rule, every_ms, t_ms=t_ms)
            _silence(one, store, known, rules[len(made) :])
            if one.verdict == Verdict.JUDGED and rule.expression is not None:
                _evaluate(one, rule.expression, store, dialect)
            elif one.verdict == Verdict.UNSUPPORTED and elsewhere is not None and _is_refused(rule):
                _ask(one, elsewhere, store, dialect)
            if rule.records and (rule.name not in known or one.verdict != Verdict.JUDGED):
                known[rule.name] = one
            made.append(one)
    return made


def names_read(groups: Sequence[Group]) -> set[str] | None:
    """Return the names of the metrics that any rule reads; None when a rule may read any."""
    rules = [rule for group in groups for rule in group.rules if rule.expression is not None]
    names = {select.name for rule in rules if rule.expression for select in rule.expression.selectors}
    return None if "" in names else names


def _silence(one: Judgement, store: Store, known: dict[str, Judgement], later: Sequence[Rule]) -> None:
    """Say why a rule cannot be judged, if it cannot."""
    rule = one.rule
    if rule.expression is None:
        one.verdict, one.reason = Verdict.UNSUPPORTED, rule.refused
        return
    selectors = rule.expression.selectors
    found = {select: store.select(select.matchers) for select in selectors}
    one.matched = len({series.labels for some in found.values() for series in some})
    names = [select.name for select in selectors]
    written_later = {other.name: other for other in later if other.records}
    for name in names:
        if name in OF_ALERTS:
            one.verdict, one.reason = Verdict.UNSUPPORTED, f"it reads {name}"
        elif name in written_later:
            where = "itself records" if written_later[name] is rule else "a later rule records"
            one.verdict, one.reason = Verdict.UNSUPPORTED, f"it reads {name}, which {where}"
        elif name in known and known[name].verdict != Verdict.JUDGED:
            one.verdict, one.reason = known[name].verdict, f"it reads {name}: {known[name].reason}"
        else:
            continue
        return
    missing = [str(s) for s in found if not found[s] and s.name not in store.names and s.name not in known]
    _find_missing(one, rule.expression.tree, {s: len(some) for s, some in found.items()}, missing, known)


def _find_missing(
    one: Judgement, tree: object, counts: dict[Selector, int], missing: Sequence[str], known: dict[str, Judgement]
) -> None:
    """Say that a rule reads nothing that there is, if so; *missing* are metrics that no series has."""
    if missing:
        one.verdict, one.reason = Verdict.NO_SUCH_SERIES, "no series is called " + ", ".join(dict.fromkeys(missing))
    elif not _can_speak(tree, counts, known):
        unmatched = dict.fromkeys(str(s) for s, found in counts.items() if not found)
        one.verdict, one.reason = Verdict.MATCHED_NOTHING, "no series matches " + ", ".join(unmatched)


def _can_speak(node: object, counts: dict[Selector, int], known: dict[str, Judgement]) -> bool:
    """Return whether the expression can ever have a value, given which selectors match any series."""
    node = bare(node)
    if isinstance(node, promql.VectorSelector):
        chosen = selector(node)
        return bool(counts[chosen]) or chosen.name in known
    if isinstance(node, promql.Call) and node.func.name in ("absent", "absent_over_time", "scalar"):
        return True
    below = [_can_speak(child, counts, known) for child in children(node)]
    if isinstance(node, promql.BinaryExpr) and str(node.op) == "or":
        return any(below)
    if isinstance(node, promql.BinaryExpr) and str(node.op) == "unless":
        return below[0]
    return all(below)


def _evaluate(one: Judgement, expression: Expression, store: Store, dialect: Dialect) -> None:
    steps = Steps(one.t_ms, dialect)
    _take(one, evaluate(expression, store, steps), steps, store)
    one.failed, one.reason = int(steps.failed.sum()), one.reason or "; ".join(steps.reasons)


def _is_refused(rule: Rule) -> bool:
    """Return whether it is the expression of a rule that the subset refuses, and not something else about it."""
    if rule.expression is not None:
        return any(select.name in OF_ALERTS for select in rule.expression.selectors)
    try:
        parse(rule.text)
    except UnsupportedError as error:
        return rule.refused.startswith(error.what) and not _OF_RANGE.search(rule.text)
    return False


def _ask(one: Judgement, elsewhere: Elsewhere, store: Store, dialect: Dialect) -> None:
    """Have a rule evaluated elsewhere; it stays unsupported where that fails."""
    tree = promql.parse(one.rule.text)
    selectors = [selector(node) for node in walk(tree) if isinstance(node, promql.VectorSelector)]
    counts = {select: elsewhere.matched(select) for select in selectors}
    one.matched = sum(counts.values())
    unmatched = [s for s, n in counts.items() if not n and s.name]
    missing = [str(s) for s in unmatched if not elsewhere.matched(Selector((Matcher(NAME, "=", s.name),)))]
    refused, one.verdict, one.reason = one.reason, Verdict.JUDGED, ""
    _find_missing(one, tree, counts, missing, {})
    if one.verdict != Verdict.JUDGED:
        return
    steps = Steps(one.t_ms, dialect)
    try:
        found = elsewhere.evaluate(one.rule.text, steps)
    except UnsupportedError as error:
        one.verdict, one.reason = Verdict.UNSUPPORTED, f"{refused}; the server: {error.what}"
        return
    _take(one, found, steps, store)
    if one.verdict == Verdict.JUDGED:
        one.reason = f"evaluated by the server, for it uses {refused}"


def _take(one: Judgement, found: Vector, steps: Steps, store: Store) -> None:
    """Make alerts, or recorded series, of the values of a rule's expression."""
    labels = [labelled(labels, one.rule) for labels in found.labels]
    found = Vector(labels, found.values, found.present).relabelled(labels, steps)
    if twice := [label for label in labels if one.rule.records and store.holds(label)]:
        one.verdict, one.reason = Verdict.UNSUPPORTED, f"it records {written(twice[0])}, which there is already"
        return
    fine = ~steps.failed
    t_ms = one.t_ms[fine]
    for label, values, present in zip(found.labels, found.values, found.present):
        if one.rule.records:
            _record(label, t_ms, values[fine], present[fine], store)
        else:
            one.episodes += episodes(label, t_ms, present[fine], one.rule.for_ms, one.rule.keep_firing_for_ms)
    one.episodes.sort(key=lambda episode: (episode.pending_ms, episode.labels))


def labelled(labels: Labels, rule: Rule) -> Labels:
    """Return the labels of an alert, or of a recorded series."""
    result = dict(labels)
    own = {name: value for name, value in labels if name != NAME}
    for name, value in rule.labels.items():
        own[name] = value if rule.records else FROM_LABELS.sub(lambda hit: result.get(hit[1], ""), value)
    own[NAME if rule.records else "alertname"] = rule.name
    return labels_of(own)


def _record(labels: Labels, t_ms: np.ndarray, values: np.ndarray, present: np.ndarray, store: Store) -> None:
    """Add a recorded series; where it ends, Prometheus writes a stale marker."""
    ends = np.concatenate([[False], present[:-1] & ~present[1:]])
    samples = values.copy()
    samples[ends] = STALE[0:1].repeat(int(ends.sum()))
    kept = present | ends
    store.add(labels, t_ms[kept], samples[kept])
