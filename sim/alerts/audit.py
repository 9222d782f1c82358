"""An audit of alert rules: what each of them did in each failure, and in times when nothing failed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim.alerts.pages import Pages, pages_of
from sim.alerts.rules import Verdict
from sim.alerts.score import Judged, Score, pages, score


@dataclass(frozen=True)
class Cell:
    """What one rule did in one failure: of how many incidents it caught how many, and how soon; its false pages.

    *incidents* are those it is there for: a rule that pages need not catch what is worth a ticket. *found* are all.
    *detection_s* is the median time that users suffered before its page (nan: it caught none), *idle* the share of the
    time without an incident in which it fired, *silent* that it could not be judged.
    """

    caught: int
    incidents: int
    found: int
    detection_s: float
    false: int
    weeks: float
    idle: float
    silent: bool = False

    @property
    def false_per_week(self) -> float:
        """False pages a week."""
        return self.false / self.weeks if self.weeks else math.nan


@dataclass(frozen=True)
class Column:
    """One rule, or *together* all paging rules of its file."""

    rules: str
    name: str
    severity: str
    together: bool = False


@dataclass(frozen=True)
class Row:
    """One failure, or none: how often it was played, which incidents it made, and what every rule did."""

    name: str
    plays: int
    incidents: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Audit:
    """Rows of failures, columns of rules."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def audit(cases: Mapping[str, Mapping[str, Sequence[Judged]]]) -> Audit:
    """Return the audit of *cases*: by failure, by rule file, every past as that file's rules judged it.

    Rules that page are held against incidents worth a page, the others against all of them.
    """
    columns: list[Column] = []
    rows = []
    for name, files in cases.items():
        cells: list[Cell] = []
        heads: list[Column] = []
        for file, pasts in files.items():
            scores, together = score(pasts)
            alerts = [one.rule for one in pasts[0].rules if not one.rule.records]
            heads += [Column(file, one.name, one.severity) for one in scores]
            cells += [_cell(one, pasts, (rule.name,)) for one, rule in zip(scores, alerts)]
            paging = tuple(rule.name for rule in alerts if pages(rule)) or tuple(rule.name for rule in alerts)
            heads.append(Column(file, f"any page of {file}", together.severity, True))
            cells.append(_cell(together, pasts, paging))
        columns = columns or heads
        first = next(iter(files.values()))
        incidents = sum(len(past.truth.incidents) for past in first)
        rows.append(Row(name, len(first), incidents, tuple(cells)))
    return Audit(tuple(columns), tuple(rows))


def _cell(one: Score, pasts: Sequence[Judged], names: Sequence[str]) -> Cell:
    found = sum(len(held.judged.truth.incidents) for held in one.held)
    waited = one.detection_s
    firing, quiet = (sum(one) for one in zip(*(_idle(past, names) for past in pasts)))
    return Cell(
        one.caught,
        one.incidents,
        found,
        float(np.median(waited)) if len(waited) else math.nan,
        one.false,
        one.weeks,
        firing / quiet if quiet else math.nan,
        not one.held,
    )


def _idle(past: Judged, names: Sequence[str]) -> tuple[int, int]:
    """Return for how many minutes without an incident any alert called one of *names* fired, and of how many.

    An hour after each incident is left out too: rules look back.
    """
    of = [pages_of(one.fired) for one in past.rules if one.rule.name in names and one.verdict == Verdict.JUDGED]
    if not of:
        return 0, 0
    every = Pages.together(of)
    t_ms = np.arange(past.truth.from_ms, past.end_ms, 60_000)
    firing, bad = np.zeros(len(t_ms), bool), np.zeros(len(t_ms), bool)
    for start, end in zip(every.start_ms, every.end_ms):
        firing |= (t_ms >= start) & (t_ms < end)
    for incident in past.truth.incidents:
        bad |= (t_ms >= incident.start_ms) & (t_ms < incident.end_ms + 3_600_000)
    return int(firing[~bad].sum()), int((~bad).sum())
