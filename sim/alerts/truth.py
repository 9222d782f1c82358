"""What really happened to users: the incidents that pages are held against.

Three sources: what a simulated run counted by the minute (`sim.alerts.users`), a file (`sim.alerts.incidents`), or an
expression for the share of bad requests (`sim.alerts.sli`). None is ever made up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

GAP_MS = 10 * 60_000
"""Stretches of bad service less than this apart are one incident, where nobody says otherwise. Our choice, printed."""

PAGE_BURN = 0.02
"""Share of the error budget that is worth a page: the SRE Workbook's, 2% of what 30 days allow."""

TICKET_BURN = 0.005
"""Share of the error budget that is worth a ticket; what burns less is no incident. Our choice, printed."""

BUDGET_WINDOW_S = 2_592_000.0
"""Time over which an error budget counts, where nobody says otherwise: 30 days, as in the SRE Workbook."""


@dataclass(frozen=True)
class Incident:
    """An interval in which what users saw broke the objective badly enough to matter.

    *burned* is the share of the error budget that went in it (None: not known), *severity* what it deserves (``page``
    or ``ticket``), *objective* which one it broke, *causes* the faults that were on: kept apart, for a fault that
    nobody notices is no incident, and an incident needs no fault.
    """

    id: str
    start_ms: int
    end_ms: int
    severity: str = "page"
    burned: float | None = None
    objective: str = ""
    causes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Worth:
    """From which share of the error budget on an incident is one, and deserves a page; gaps it survives (ms)."""

    page: float = PAGE_BURN
    ticket: float = TICKET_BURN
    gap_ms: int = GAP_MS

    def severity(self, burned: float) -> str:
        """Return what an incident that *burned* so much deserves: ``page``, ``ticket``, or nothing."""
        return "page" if burned >= self.page else "ticket" if burned >= self.ticket else ""


@dataclass(frozen=True)
class Spent:
    """Share of the error budget spent up to each of *t_ms*, which increase; linear in between."""

    t_ms: np.ndarray
    share: np.ndarray

    def between(self, start_ms: float, end_ms: float) -> float:
        """Return the share spent from *start_ms* to *end_ms*."""
        low, high = np.interp([start_ms, max(start_ms, end_ms)], self.t_ms, self.share)
        return float(high - low)


@dataclass(frozen=True)
class Truth:
    """The incidents of one past, in order of time; *said* names where they come from.

    *from_ms* to *until_ms* is what was watched: a warm-up is not. *unwatched* are promises that nothing counts, *spent*
    the error budget of each objective, where it is known.
    """

    incidents: tuple[Incident, ...]
    said: str
    from_ms: int
    until_ms: int
    unwatched: tuple[str, ...] = ()
    spent: Mapping[str, Spent] = field(default_factory=dict)

    def burned_before(self, incident: Incident, t_ms: float) -> float | None:
        """Return the share of the budget that *incident* had burned at *t_ms*; None where nobody knows."""
        spent = self.spent.get(incident.objective.partition(", ")[0])
        return None if spent is None else spent.between(incident.start_ms, min(t_ms, incident.end_ms))


def joined(found: Sequence[Incident]) -> tuple[Incident, ...]:
    """Return incidents in order of time, overlapping ones as one that names what burned most first; i1, i2, ..."""
    groups: list[list[Incident]] = []
    for one in sorted(found, key=lambda one: (one.start_ms, one.end_ms)):
        if groups and one.start_ms < max(other.end_ms for other in groups[-1]):
            groups[-1].append(one)
        else:
            groups.append([one])
    return tuple(_one(group, f"i{number}") for number, group in enumerate(groups, 1))


def _one(group: list[Incident], name: str) -> Incident:
    group = sorted(group, key=lambda one: -(one.burned or 0.0))
    return replace(
        group[0],
        id=name,
        start_ms=min(one.start_ms for one in group),
        end_ms=max(one.end_ms for one in group),
        objective=", ".join(dict.fromkeys(one.objective for one in group)),
    )


def spans(hot: np.ndarray) -> list[tuple[int, int]]:
    """Return from where to where (exclusive) *hot*, booleans in a row, is true without a break."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], hot, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def grouped(stretches: Sequence[tuple[int, int]], gap: int) -> list[list[tuple[int, int]]]:
    """Return *stretches*, in order, in groups: those less than *gap* apart are together."""
    groups: list[list[tuple[int, int]]] = []
    for one in stretches:
        if groups and one[0] - groups[-1][-1][1] < gap:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups
