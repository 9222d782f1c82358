"""The score of rules: which incidents they caught and how early, what it cost, how often they paged for nothing.

A rule that could not be judged on a past is silent there, not quiet: neither its misses nor its quiet weeks count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sim.alerts.pages import EARLY_MS, GRACE_MS, Matching, Pages, match, pages_of
from sim.alerts.rulefile import Rule
from sim.alerts.rules import Judgement, Verdict
from sim.alerts.truth import Incident, Truth
from sim.theory.chance import Interval
from sim.theory.counted import at_most, poisson_rate, wilson

WEEK_MS = 7 * 86_400_000
PAGING = ("page", "critical")
"""Values of the label ``severity`` that wake somebody: such rules need not catch incidents worth a ticket."""


@dataclass(frozen=True)
class Judged:
    """One past that was judged: its name, what really happened, when it ended, and what became of every rule."""

    name: str
    truth: Truth
    end_ms: int
    rules: Sequence[Judgement]

    @property
    def weeks(self) -> float:
        """How long rules were watched: to the end of the past, without the warm-up."""
        return max(0.0, (self.end_ms - self.truth.from_ms) / WEEK_MS)


@dataclass(frozen=True)
class Held:
    """The pages of a rule, or of several, held against the incidents of one past."""

    judged: Judged
    pages: Pages
    names: tuple[str, ...]
    """Which rule each page is of."""

    matching: Matching
    needed: np.ndarray
    """Whether the rule is there to catch each incident: bool (incidents,)."""

    deserved: np.ndarray
    """Whether each page began in the window of an incident that it is there to catch: bool (pages,)."""

    before: np.ndarray
    """Share of the budget that each incident burned before its page, all of it when missed; nan: not known."""


@dataclass
class Score:
    """What can be said of one rule, or of all rules together, over every past on which it was judged."""

    name: str
    severity: str
    held: list[Held] = field(default_factory=list)
    flaps: int = 0
    already: int = 0
    """Pages that began in a warm-up and were still firing when it ended: false ones, for nothing made them page."""

    silent: list[tuple[str, Judgement]] = field(default_factory=list)
    """The pasts on which it could not be judged, and why."""

    def each(self, of: Callable[[Held], np.ndarray]) -> np.ndarray:
        """Return what *of* says of every past, in one row."""
        return np.concatenate([np.empty(0), *(of(one) for one in self.held)])

    @property
    def weeks(self) -> float:
        """How long it was watched."""
        return sum(one.judged.weeks for one in self.held)

    @cached_property
    def incidents(self) -> int:
        """How many incidents it was there to catch."""
        return int(self.each(lambda one: one.needed).sum())

    @cached_property
    def caught(self) -> int:
        """How many of them it caught."""
        return int(self.each(lambda one: one.matching.caught & one.needed).sum())

    @cached_property
    def at_work(self) -> int:
        """How many of those only by a page that was there from before, so without a lead time."""
        return int(self.each(lambda one: one.matching.at_work & (one.matching.first < 0) & one.needed).sum())

    @cached_property
    def pages(self) -> int:
        """How often it paged."""
        return self.already + sum(len(one.pages) for one in self.held)

    @cached_property
    def true(self) -> int:
        """How many of its pages were true."""
        return int(self.each(lambda one: one.matching.true).sum())

    @property
    def false(self) -> int:
        """How many of its pages were for nothing."""
        return self.pages - self.true

    @cached_property
    def undeserved(self) -> int:
        """How many of its true pages were for incidents that are worth a ticket only."""
        return int(self.each(lambda one: one.matching.true & ~one.deserved).sum())

    @property
    def recall(self) -> Interval:
        """Share of its incidents that it caught (Wilson)."""
        return wilson(self.caught, self.incidents)

    @property
    def precision(self) -> Interval:
        """Share of its pages that were true (Wilson)."""
        return wilson(self.true, self.pages)

    @property
    def false_per_week(self) -> Interval | None:
        """False pages a week (exact Poisson); None when nothing was watched."""
        return poisson_rate(self.false, self.weeks) if self.weeks > 0 else None

    @property
    def false_at_most(self) -> float | None:
        """With 95% confidence no more false pages a week than this: 3 / weeks when none was seen."""
        return at_most(self.false, self.weeks) if self.weeks > 0 else None

    @cached_property
    def lead_s(self) -> np.ndarray:
        """Lead times of its incidents, seconds, sorted; below 0: after users noticed."""
        return _known(self.each(lambda one: one.matching.lead_s[one.needed]))

    @cached_property
    def detection_s(self) -> np.ndarray:
        """Seconds that users of the caught incidents suffered before the page, sorted."""
        return _known(self.each(lambda one: one.matching.detection_s[one.needed]))

    @cached_property
    def reset_s(self) -> np.ndarray:
        """Seconds from the end of each caught incident to the end of its page, sorted; infinite: never."""
        return _known(self.each(lambda one: one.matching.reset_s[one.needed]))

    @cached_property
    def burned_before(self) -> np.ndarray:
        """Share of the budget burned before the page, of each incident, sorted; of a missed one all that it burned."""
        return _known(self.each(lambda one: one.before[one.needed]))

    @property
    def missed(self) -> list[tuple[str, Incident]]:
        """The incidents that it was there to catch and did not, each with its past."""
        return [
            (one.judged.name, incident)
            for one in self.held
            for incident, caught, needed in zip(one.judged.truth.incidents, one.matching.caught, one.needed)
            if needed and not caught
        ]


def score(pasts: Sequence[Judged], early_ms: int = EARLY_MS, grace_ms: int = GRACE_MS) -> tuple[list[Score], Score]:
    """Return the score of every alert rule, and that of all together: of those that page, or of all if none does.

    *pasts* were judged by the same rules. Pages that began and ended in a warm-up are left out.
    """
    alerts = [k for k, one in enumerate(pasts[0].rules) if not one.rule.records]
    scores = [_scored(pasts, [k], early_ms, grace_ms) for k in alerts]
    paging = [k for k in alerts if pages(pasts[0].rules[k].rule)]
    together = _scored(pasts, paging or alerts, early_ms, grace_ms)
    together.name = f"any of {len(paging or alerts)}"
    together.severity = "page" if paging else ""
    return scores, together


def pages(rule: Rule) -> bool:
    """Return whether *rule* wakes somebody."""
    return rule.labels.get("severity", "").lower() in PAGING


def _scored(pasts: Sequence[Judged], which: Sequence[int], early_ms: int, grace_ms: int) -> Score:
    rules = [pasts[0].rules[k].rule for k in which]
    made = Score(rules[0].name if rules else "", rules[0].labels.get("severity", "") if rules else "")
    needs_page = bool(rules) and all(pages(rule) for rule in rules)
    for past in pasts:
        judged = [past.rules[k] for k in which]
        fine = [one for one in judged if one.verdict == Verdict.JUDGED]
        made.silent += [(past.name, one) for one in judged if one.verdict != Verdict.JUDGED]
        if fine:
            whole = [pages_of(one.fired) for one in fine]
            from_ms = past.truth.from_ms
            made.already += sum(one.already(from_ms) for one in whole)
            each = [one.since(from_ms) for one in whole]
            made.flaps += sum(one.flaps for one in each)
            made.held.append(_held(past, each, [one.rule.name for one in fine], needs_page, (early_ms, grace_ms)))
    return made


def _held(
    past: Judged, each: Sequence[Pages], names: Sequence[str], needs_page: bool, window_ms: tuple[int, int]
) -> Held:
    together = Pages.together(each)
    of = np.repeat(np.arange(len(each)), [len(one) for one in each])
    start_ms = np.concatenate([np.empty(0, np.int64), *(one.start_ms for one in each)])
    end_ms = np.concatenate([np.empty(0, np.int64), *(one.end_ms for one in each)])
    named = tuple(names[k] for k in of[np.lexsort((end_ms, start_ms))])
    incidents = past.truth.incidents
    matching = match(together, incidents, *window_ms)
    needed = np.array([not needs_page or one.severity == "page" for one in incidents], bool)
    deserved = np.asarray(matching.inside[:, needed].any(axis=1))
    before = np.array([_burned(past.truth, one, k, matching, together) for k, one in enumerate(incidents)], float)
    return Held(past, together, named, matching, needed, deserved, before)


def _burned(truth: Truth, incident: Incident, k: int, matching: Matching, pages: Pages) -> float:
    if not matching.caught[k]:
        return np.nan if incident.burned is None else incident.burned
    if matching.at_work[k]:
        return 0.0
    burned = truth.burned_before(incident, int(pages.start_ms[matching.first[k]]))
    return np.nan if burned is None else burned


def _known(values: np.ndarray) -> np.ndarray:
    return np.sort(values[~np.isnan(values)])


@dataclass(frozen=True)
class Difference:
    """What one set of rules has over another: pages (past, rule, start in ms, true?) and incidents (past, incident).

    A page is new when no page of the other set overlaps it.
    """

    pages: list[tuple[str, str, int, bool]]
    incidents: list[tuple[str, Incident]]


def beyond(one: Score, other: Score) -> Difference:
    """Return what the set of rules *one* has and *other* has not, on the pasts on which both were judged."""
    others = {held.judged.name: held for held in other.held}
    new: list[tuple[str, str, int, bool]] = []
    caught: list[tuple[str, Incident]] = []
    for held in one.held:
        if (theirs := others.get(held.judged.name)) is None:
            continue
        overlap = held.pages.start_ms[:, None] < theirs.pages.end_ms
        overlap &= theirs.pages.start_ms < held.pages.end_ms[:, None]
        there_too = np.asarray(overlap.any(axis=1)).tolist()
        rows = zip(held.names, held.pages.start_ms.tolist(), held.matching.true.tolist(), there_too)
        new += [(held.judged.name, name, start, true) for name, start, true, there in rows if not there]
        more = held.matching.caught & held.needed & ~theirs.matching.caught
        caught += [(held.judged.name, i) for i, gained in zip(held.judged.truth.incidents, more) if gained]
    return Difference(new, caught)
