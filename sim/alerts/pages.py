"""Pages held against incidents: which of them were true, which incidents they caught, and how early.

Everything that judges rules by incidents does it here, so that all of it means the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sim.alerts.states import Episode
from sim.alerts.truth import Incident

EARLY_MS = 15 * 60_000
"""How long before an incident a page still belongs to it, where nobody says otherwise. Our choice, always printed."""

GRACE_MS = 15 * 60_000
"""How long after an incident a page still belongs to it: rules look back over windows. Our choice, always printed."""

FLAP_MS = 15 * 60_000
"""A page so soon after the last one of its rule ended is a flap: whoever was woken has not gone back to sleep."""

NEVER = int(np.iinfo(np.int64).max)
"""The end of a page that was still firing when the past ended."""


@dataclass(frozen=True)
class Pages:
    """When pages began and ended: int64 ms, sorted by start; the end is `NEVER` for one that still fires."""

    start_ms: np.ndarray
    end_ms: np.ndarray

    def __len__(self) -> int:
        return len(self.start_ms)

    @property
    def flaps(self) -> int:
        """How many pages began within `FLAP_MS` after the one before them ended; of one rule's pages only."""
        gaps = self.start_ms[1:] - np.minimum(self.end_ms[:-1], NEVER // 2)
        return int((gaps <= FLAP_MS).sum())

    def since(self, from_ms: int) -> "Pages":
        """Return those that began at *from_ms* or later."""
        kept = self.start_ms >= from_ms
        return Pages(self.start_ms[kept], self.end_ms[kept])

    def already(self, from_ms: int) -> int:
        """Return how many had begun before *from_ms* and were firing then."""
        return int(((self.start_ms < from_ms) & (self.end_ms > from_ms)).sum())

    @classmethod
    def together(cls, many: Sequence["Pages"]) -> "Pages":
        """Return the pages of several rules, each still a page of its own: whoever is on call gets them all."""
        empty = np.empty(0, np.int64)
        start_ms = np.concatenate([empty, *(one.start_ms for one in many)])
        end_ms = np.concatenate([empty, *(one.end_ms for one in many)])
        order = np.lexsort((end_ms, start_ms))
        return cls(start_ms[order], end_ms[order])


def pages_of(episodes: Iterable[Episode]) -> Pages:
    """Return the pages of one rule: firing episodes over all its label sets, merged where they touch or overlap."""
    fired = [(one.firing_ms, NEVER if one.ended_ms is None else one.ended_ms) for one in episodes]
    return merged(np.array([pair for pair in fired if pair[0] is not None], np.int64).reshape(-1, 2))


def merged(spans_ms: np.ndarray) -> Pages:
    """Return the maximal unions of *spans_ms*: shape (n, 2), start and end."""
    spans_ms = spans_ms[np.argsort(spans_ms[:, 0], kind="stable")]
    start_ms, until_ms = spans_ms[:, 0], np.maximum.accumulate(spans_ms[:, 1])
    first = np.ones(len(spans_ms), bool)
    first[1:] = start_ms[1:] > until_ms[:-1]
    last = np.append(first[1:], True)[: len(spans_ms)]
    return Pages(start_ms[first], until_ms[last])


@dataclass(frozen=True)
class Matching:
    """Pages held against incidents, in the order in which both were given."""

    inside: np.ndarray
    """Whether page i began in the window of incident j: bool (pages, incidents)."""

    credited: np.ndarray
    """The earliest incident in whose window each page began, -1 for a false page: (pages,)."""

    first: np.ndarray
    """The first page that caught each incident by beginning in its window, -1 if none did: (incidents,)."""

    at_work: np.ndarray
    """Whether the page of an incident just before was still firing when this one began: bool (incidents,)."""

    lead_s: np.ndarray
    """Start of the incident minus start of its first page; above 0 before users noticed; nan without one, and where
    somebody was at work already."""

    reset_s: np.ndarray
    """From the end of the incident to the end of its last page, at least 0; infinite if that never ends; nan without
    a page."""

    @property
    def true(self) -> np.ndarray:
        """Whether each page was true."""
        return self.credited >= 0

    @property
    def caught(self) -> np.ndarray:
        """Whether each incident was caught."""
        return (self.first >= 0) | self.at_work

    @property
    def detection_s(self) -> np.ndarray:
        """Seconds that users suffered before the page: 0 where it came before them or was at work; nan if missed."""
        return np.where(self.at_work, 0.0, np.maximum(0.0, -self.lead_s))


def match(pages: Pages, incidents: Sequence[Incident], early_ms: int = EARLY_MS, grace_ms: int = GRACE_MS) -> Matching:
    """Return which of *pages* were true and which *incidents* they caught.

    The window of an incident is [start - *early_ms*, end + *grace_ms*]. A page that begins in one or more is true, and
    credited to the incident that began first; any other is false. An incident is caught by a page that begins in its
    window and fires while the incident lasts: one that comes when it is over is true and has caught nothing. It is
    caught as well by a page from before its window that still fires at its start, if the incident to which that is
    credited ended less than *grace_ms* ago. A false page catches nothing, however long it fires.
    """
    start_ms = np.array([one.start_ms for one in incidents], np.int64)
    end_ms = np.array([one.end_ms for one in incidents], np.int64)
    begins, ends = pages.start_ms[:, None], pages.end_ms[:, None]
    inside = (begins >= start_ms - early_ms) & (begins <= end_ms + grace_ms)
    order = np.argsort(start_ms, kind="stable")
    true = np.asarray(inside.any(axis=1))
    if not len(incidents) or not len(pages):
        nothing = np.full(len(incidents), -1)
        unknown = np.full(len(incidents), np.nan)
        return Matching(inside, np.full(len(pages), -1), nothing, nothing >= 0, unknown, unknown)
    credited = np.where(true, order[inside[:, order].argmax(axis=1)], -1)
    fresh = true[:, None] & (start_ms <= end_ms[credited][:, None] + grace_ms)
    working = fresh & (begins < start_ms - early_ms) & (ends > start_ms)
    timely = inside & (begins < end_ms) & (ends > start_ms)
    hit = timely.any(axis=0)
    first = np.where(hit, timely.argmax(axis=0), -1)  # pages are sorted by start
    lead_s = np.where(hit & ~working.any(axis=0), (start_ms - pages.start_ms[first]) / 1000, np.nan)
    theirs = inside | working
    last_ms = np.where(theirs, ends, np.iinfo(np.int64).min).max(axis=0)
    reset_s = np.where(last_ms == NEVER, np.inf, np.maximum(0.0, (np.minimum(last_ms, NEVER // 2) - end_ms) / 1000))
    at_work = np.asarray(working.any(axis=0))
    return Matching(inside, credited, first, at_work, lead_s, np.where(theirs.any(axis=0), reset_s, np.nan))
