"""Pieces of a past, short enough for promtool: one in which nothing fired, one around the first alert that did."""

import math
from collections.abc import Sequence

import numpy as np

from sim.alerts.rules import Judgement
from sim.series import SeriesSet

QUIET_MS = 2 * 3_600_000
BEFORE_MS = (3_600_000, 6 * 3_600_000, 20 * 3_600_000)
"""How much of the time before an incident is tried, until the alert fires as it did in the whole past."""
DURING_MS = 3 * 3_600_000
AFTER_MS = 600_000
MOST_SAMPLES = 400_000
"""promtool takes 10 s for so many (a day of 60 series at 15 s)."""

Span = tuple[int, int]


def quiet(judged: Sequence[Judgement], span_ms: Span) -> Span | None:
    """Return the beginning of the longest time in which no alert was firing, or None where there is none."""
    edge, longest = span_ms[0], (0, 0)
    for start, end in [*_firing(judged, span_ms), (span_ms[1] + 1, span_ms[1])]:
        if start - edge > longest[1] - longest[0]:
            longest = edge, start - 1
        edge = max(edge, end)
    shortest = 4 * max((one.interval_ms for one in judged), default=0)
    if longest[1] - longest[0] < shortest:
        return None
    return longest[0], min(longest[1], longest[0] + QUIET_MS)


def incident(judged: Sequence[Judgement], span_ms: Span, before_ms: int) -> Span | None:
    """Return the time around the first alert that fired, and of those that joined it; None when none did."""
    firing = _firing(judged, span_ms)
    if not firing:
        return None
    first = min(episode.pending_ms for one in judged for episode in one.fired)
    end = firing[0][1]
    for start, over in firing:
        end = max(end, over) if start <= firing[0][0] + DURING_MS else end
    return max(span_ms[0], first - before_ms), min(span_ms[1], end + AFTER_MS, firing[0][0] + DURING_MS)


def cut(series: SeriesSet, span_ms: Span, step_ms: int, speed: float) -> SeriesSet:
    """Return the samples of *series* in *span_ms*, from time 0 on, at *speed*; beginning at a multiple of *step_ms*.

    Raises:
        ValueError: at that speed samples do not lie at whole milliseconds.
    """
    start = span_ms[0] // step_ms * step_ms
    made = SeriesSet()
    end = min(span_ms[1], start + _longest_ms(series, span_ms))
    for labels, t_ms, values in series:
        within = (t_ms >= start) & (t_ms <= end)
        if not within.any():
            continue
        at = (t_ms[within] - start) / speed
        if (at != np.round(at)).any():
            raise ValueError(f"at --speed {speed:g} the samples do not lie at whole milliseconds")
        made.add(labels, at.astype(np.int64), values[within])
    return made


def grid_ms(judged: Sequence[Judgement]) -> int:
    """Return the step that all groups share, in milliseconds."""
    return math.lcm(*{one.interval_ms for one in judged}) if judged else 1


def _longest_ms(series: SeriesSet, span_ms: Span) -> int:
    """Return how long a stretch may be for promtool to take it, by how many samples there are in it."""
    start, end = span_ms
    samples = sum(int(((t >= start) & (t <= end)).sum()) for t in series.t_ms)
    return int((end - start) * min(1.0, MOST_SAMPLES / max(samples, 1)))


def _firing(judged: Sequence[Judgement], span_ms: Span) -> list[Span]:
    """Return when any alert was firing, in order."""
    spans = [
        (int(episode.firing_ms), span_ms[1] if episode.ended_ms is None else episode.ended_ms)
        for one in judged
        for episode in one.fired
        if episode.firing_ms is not None
    ]
    return sorted(spans)
