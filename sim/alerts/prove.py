"""Held against what was expected of them: which rules fired when they should, and which did not, or for nothing.

Expected is what `expect` of the scenario says. Of rules that it does not name it is the prediction, if there is one:
the simulation of the same scenario and seed. A rule must fire when it fires there, give or take `tolerance_ms`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

import numpy as np

from sim.alerts.pages import FLAP_MS, NEVER, Pages, match, pages_of
from sim.alerts.rules import Judgement, Verdict
from sim.alerts.truth import Incident
from sim.scenario.expect import Expectation
from sim.words import count

LEAST_TOLERANCE_MS = 60_000
EPOCH_MS = 1_000_000_000_000
"""Later times are of a calendar; earlier ones are since the start of a run."""

Span = tuple[int, int]


class Finding(StrEnum):
    """What became of an expectation."""

    AS_EXPECTED = "as expected"
    MISSED = "missed"
    FALSE = "false page"
    PENDING = "not pending in time"
    NOT_JUDGED = "could not be judged"
    NOTHING_EXPECTED = "nothing expected"


@dataclass(frozen=True)
class Expected:
    """When a rule must begin to fire, ms since the start; it must in the first span, and may in the others."""

    source: str
    """``expect`` or ``prediction``."""
    spans_ms: tuple[Span, ...] = ()
    pending_ms: Span | None = None


@dataclass(frozen=True)
class Proof:
    """One rule: what was expected of it, what it did, and whether that is the same. Times: ms since the start."""

    rule: str
    expected: Expected | None
    predicted: Pages | None
    pages: Pages
    pending_ms: int | None
    lead_s: float | None
    false: int
    finding: Finding
    reason: str
    holds: bool
    """False where it is not as expected, or cannot be said of a rule that must fire or stands under `expect`."""

    @property
    def missed(self) -> bool:
        """Whether it was to fire and did not in time."""
        return self.finding == Finding.MISSED


def tolerance_ms(interval_ms: int, for_ms: int) -> int:
    """Return how far from its predicted time a rule may fire: two evaluations, half of `for` or a minute."""
    return max(2 * interval_ms, for_ms // 2, LEAST_TOLERANCE_MS)


def zero_ms(span_ms: Span) -> int:
    """Return the start of a past whose first sample is at the start of *span_ms*: 0, unless times are of a calendar."""
    return span_ms[0] if span_ms[0] >= EPOCH_MS else 0


def prove(
    judged: Sequence[Judgement],
    expect: Mapping[str, Expectation],
    predicted: Sequence[Judgement] | None = None,
    incidents: Sequence[Incident] = (),
    zero: int = 0,
) -> list[Proof]:
    """Return a proof for every alert rule, those of one name together.

    *expect* is what the scenario says, *predicted* what the same rules did in the prediction, if there is one;
    *incidents* tell how early a page was. Times in *judged* begin at *zero* (ms), all others at 0.
    """
    known = dict(_by_name(predicted or ()))
    return [
        _proof(name, own, _expected(name, expect, known.get(name)), known.get(name), incidents, zero)
        for name, own in _by_name(judged)
    ]


def _by_name(judged: Sequence[Judgement]) -> list[tuple[str, list[Judgement]]]:
    alerts = [one for one in judged if not one.rule.records]
    order = list(dict.fromkeys(one.rule.name for one in alerts))
    alerts.sort(key=lambda one: order.index(one.rule.name))
    return [(name, list(own)) for name, own in groupby(alerts, key=lambda one: one.rule.name)]


def _expected(name: str, expect: Mapping[str, Expectation], predicted: list[Judgement] | None) -> Expected | None:
    if (said := expect.get(name)) is not None:
        if said == "silent":
            return Expected("expect")
        pending = None if said.pending is None else _ms(said.pending)
        return Expected("expect", (_ms(said.fires),), pending)
    if not predicted or _why(predicted):
        return None
    give_ms = max(tolerance_ms(one.interval_ms, one.rule.for_ms) for one in predicted)
    spans = [(start - give_ms, start + give_ms) for start in _pages(predicted, 0).start_ms.tolist()]
    return Expected("prediction", tuple(spans))


def _ms(window_s: tuple[float, float]) -> Span:
    return round(window_s[0] * 1000), round(window_s[1] * 1000)


def _why(own: Sequence[Judgement]) -> str:
    """Return why a rule could not be judged, or nothing."""
    silent = [one for one in own if one.verdict != Verdict.JUDGED]
    return f"{silent[0].verdict}: {silent[0].reason}" if silent else ""


def _pages(own: Sequence[Judgement], zero: int) -> Pages:
    found = pages_of(episode for one in own for episode in one.episodes)
    return Pages(found.start_ms - zero, np.where(found.end_ms == NEVER, NEVER, found.end_ms - zero))


def _proof(
    name: str,
    own: list[Judgement],
    expected: Expected | None,
    predicted: list[Judgement] | None,
    incidents: Sequence[Incident],
    zero: int,
) -> Proof:
    pages = _pages(own, zero)
    pending = [episode.pending_ms - zero for one in own for episode in one.episodes]
    lead_s = match(pages, incidents).lead_s
    known = lead_s[np.isfinite(lead_s)]
    false = _false(pages, expected) if expected else 0
    finding, reason = _finding(own, expected, pages, pending, false)
    holds = finding in (Finding.AS_EXPECTED, Finding.NOTHING_EXPECTED)
    if finding == Finding.NOT_JUDGED:
        holds = expected is None or (expected.source == "prediction" and not expected.spans_ms)
    return Proof(
        name,
        expected,
        _pages(predicted, 0) if predicted and not _why(predicted) else None,
        pages,
        min(pending, default=None),
        float(known[0]) if len(known) else None,
        false,
        finding,
        reason,
        holds,
    )


def _finding(
    own: Sequence[Judgement], expected: Expected | None, pages: Pages, pending: Sequence[int], false: int
) -> tuple[Finding, str]:
    if why := _why(own):
        return Finding.NOT_JUDGED, why
    if expected is None:
        return Finding.NOTHING_EXPECTED, ""
    if expected.spans_ms and not _inside(pages, expected.spans_ms[:1]).any():
        early = f"; it fired {count(len(pages), 'time')} at other times" if len(pages) else ""
        return Finding.MISSED, f"it did not begin to fire in time{early}"
    if false:
        return Finding.FALSE, f"{count(false, 'page')} at times when none was expected"
    if expected.pending_ms is not None and not any(
        expected.pending_ms[0] <= t <= expected.pending_ms[1] for t in pending
    ):
        return Finding.PENDING, "it did not become pending in time"
    return Finding.AS_EXPECTED, ""


def _inside(pages: Pages, spans: Sequence[Span]) -> np.ndarray:
    """Return which pages begin in any of *spans*."""
    inside = np.zeros(len(pages), bool)
    for first, last in spans:
        inside |= (pages.start_ms >= first) & (pages.start_ms <= last)
    return inside


def _false(pages: Pages, expected: Expected) -> int:
    """Return how many pages begin when none was expected; a flap of one that was is none."""
    excused = _inside(pages, expected.spans_ms)
    for i in range(1, len(pages)):
        again = pages.start_ms[i] - min(int(pages.end_ms[i - 1]), NEVER // 2) <= FLAP_MS
        excused[i] |= excused[i - 1] and again
    return int((~excused).sum())
