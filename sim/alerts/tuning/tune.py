"""Which setting of a rule finds incidents soonest for how many false pages, and whether that holds on other weeks.

The best of a thousand settings looks better than it is on the weeks it was chosen on. So half of the weeks choose, and
the other half say what the choice is worth; with less than two weeks nothing is recommended.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.alerts.tuning.knobs import Point
from sim.alerts.tuning.ledger import Index, Ledger
from sim.alerts.tuning.sweep import NEARBY, WEEK_MS
from sim.rng import stream

LEAST_WEEKS = 2.0
"""Less than this cannot be halved into weeks that choose and weeks that check."""

ALWAYS = 0.99
"""A rule that fires for this share of the time says nothing."""

RESAMPLES = 1000
"""Draws of whole weeks, with replacement, behind each interval."""

_HAIR = 1e-9


@dataclass(frozen=True)
class Plane:
    """Of every setting (windows, thresholds, times of `for`), on some weeks: what it costs and what it finds."""

    false_per_week: np.ndarray
    detection_s: np.ndarray
    """Within this time it had found half as many incidents, by weight, as today's setting finds in all: the median of
    what that finds, and no worse for a setting that finds more. Infinite: it never does."""
    recall: np.ndarray


@dataclass(frozen=True)
class Scored:
    """What one setting did on some weeks, with the counts behind it and 95% intervals over resampled weeks."""

    point: Point
    weeks: float
    pages: int
    false: int
    false_per_week: float
    false_interval: tuple[float, float] | None
    incidents: int
    caught: int
    recall: float
    detection_s: float
    detection_interval: tuple[float, float] | None

    @property
    def false_at_most(self) -> float | None:
        """With 95% confidence no more false pages a week than this, when none was seen: 3 / weeks."""
        return 3 / self.weeks if self.false == 0 else None


@dataclass(frozen=True)
class Neighbour:
    """A setting beside the recommended one: what is different, what it did, and whether one could still choose it."""

    different: str
    scored: Scored
    feasible: bool


@dataclass(frozen=True)
class Line:
    """One setting on the weeks that choose and, where there are any, on the weeks that check."""

    index: Index
    inside: Scored
    outside: Scored | None


@dataclass(frozen=True)
class Tuned:
    """What tuning says of one rule."""

    ledger: Ledger
    chooses: np.ndarray
    """The weeks that choose (bool); all of them where there is no holdout."""
    held_out: bool
    most: float
    """How many false pages a week one may have."""
    today: Line
    front: list[Line]
    """The settings that no other beats on both axes, on the weeks that choose; fastest first."""
    recommended: Line | None
    why: str
    """Why nothing is recommended."""
    quiet: Line | None
    """Then, of the settings with few enough false pages, the one that finds most, if any finds anything."""
    dominators: int
    """How many settings beat today's on the weeks that choose."""
    dominated_by: Line | None
    neighbours: list[Neighbour]
    never: int
    """How many settings never fire."""
    always: int
    """How many settings fire all the time."""


def tune(ledger: Ledger, most: float) -> Tuned:
    """Return the best setting of a rule with at most *most* false pages a week, and all that it rests on."""
    chooses, why = split(ledger)
    held_out = not why
    shown = plane(ledger, chooses)
    chosen, reason = choose(ledger, shown, most) if held_out else (None, why)
    quiet = _quiet(ledger, shown, most) if held_out and chosen is None else None
    beat = _in_grid(ledger, _beaters(shown, ledger.today))
    by = chosen if chosen is not None and beat[chosen] else _best(ledger, shown, beat)

    def line(index: Index) -> Line:
        return Line(index, scored(ledger, index, chooses), scored(ledger, index, ~chooses) if held_out else None)

    firing = ledger.trials.firing_ms[:, : len(ledger.grid.thresholds)]
    ever = ledger.trials.pages[:, : len(ledger.grid.thresholds)].sum(axis=-1)
    return Tuned(
        ledger,
        chooses,
        held_out,
        most,
        line(ledger.today),
        [line(index) for index in front(ledger, shown, most)],
        None if chosen is None else line(chosen),
        reason,
        None if quiet is None else line(quiet),
        int(beat.sum()),
        None if by is None else line(by),
        [] if chosen is None else list(_neighbours(ledger, chosen, chooses, shown, most)),
        int(((ever == 0) & (firing == 0)).sum()),
        int((firing >= ALWAYS * firing_limit(ledger)).sum()),
    )


def firing_limit(ledger: Ledger) -> float:
    """Return for how long a rule could have fired, in milliseconds."""
    return float(ledger.weeks.sum() * WEEK_MS)


def split(ledger: Ledger) -> tuple[np.ndarray, str]:
    """Return the weeks that choose, and why there is no holdout (nothing: there is one).

    Weeks are dealt in order, each to the half that has less so far.
    """
    total = ledger.weeks.sum()
    if total < LEAST_WEEKS - 0.1:  # a warm-up is missing from each
        return ledger.all_weeks, f"{said_weeks(float(total))} cannot be halved: no holdout, so nothing is recommended"
    chooses = np.zeros(len(ledger.weeks), bool)
    sums = [0.0, 0.0]
    for i, length in enumerate(ledger.weeks):
        chooses[i] = sums[0] <= sums[1]
        sums[0 if chooses[i] else 1] += length
    counts = ledger.weight > 0
    halves = [int((counts & (chooses[ledger.week] == half)).sum()) for half in (True, False)]
    if min(halves) == 0:
        return ledger.all_weeks, "all its incidents lie in one half of the weeks: no holdout, so nothing is recommended"
    return chooses, ""


def said_weeks(weeks: float) -> str:
    """Return ``1 week`` or ``3.5 weeks``."""
    return "1 week" if f"{weeks:.2g}" == "1" else f"{weeks:.2g} weeks"


def plane(ledger: Ledger, weeks: np.ndarray) -> Plane:
    """Return what every setting did on *weeks* (bool)."""
    lengths = ledger.weeks[weeks].sum()
    false = ledger.trials.false[..., weeks].sum(axis=-1) / lengths
    kept = weeks[ledger.week] & (ledger.weight > 0)
    delay = ledger.trials.detection_s[..., kept]
    weight = ledger.weight[kept]
    caught = ~np.isnan(delay)
    delay = np.where(caught, delay, np.inf)
    total = weight.sum()
    if not total:
        nothing = np.full(false.shape, np.nan)
        return Plane(false, nothing, nothing)
    order = np.argsort(delay, axis=-1, kind="stable")
    reached = np.cumsum(weight[order], axis=-1) >= _enough(caught[ledger.today] @ weight, total) - _HAIR
    at = np.take_along_axis(order, reached.argmax(axis=-1)[..., None], axis=-1)
    return Plane(false, np.take_along_axis(delay, at, axis=-1)[..., 0], caught @ weight / total)


def _enough(today: Any, total: Any) -> Any:
    """Return half of what today's setting finds; where it finds nothing, half of all."""
    return np.where(today > 0, today, total) / 2


def choose(ledger: Ledger, shown: Plane, most: float) -> tuple[Index | None, str]:
    """Return the fastest setting within *most* false pages a week that misses no more than today's; or why none is."""
    fine = feasible(ledger, shown, most)
    chosen = _best(ledger, shown, _in_grid(ledger, fine), _edges(ledger, fine))
    if chosen is None:
        if not (shown.recall[ledger.today] > 0 or np.isfinite(shown.detection_s).any()):
            return None, "today's setting finds none of its incidents, and no other finds half of them"
        least = shown.false_per_week[_in_grid(ledger, shown.recall >= shown.recall[ledger.today] - _HAIR)].min()
        return None, (
            f"all settings with at most {most:g} false pages a week find less than today's; "
            f"those that find as much have {least:.2g} or more"
        )
    return chosen, ""


def _quiet(ledger: Ledger, shown: Plane, most: float) -> Index | None:
    """Return the setting that finds most with at most *most* false pages a week; None: none finds anything."""
    fine = _in_grid(ledger, (shown.false_per_week <= most + _HAIR) & (shown.recall > 0))
    return _best(ledger, shown, fine & (shown.recall >= shown.recall[fine].max(initial=0) - _HAIR))


def feasible(ledger: Ledger, shown: Plane, most: float) -> np.ndarray:
    """Return which settings one could choose: few false pages, and no lower recall than today's."""
    return np.asarray(
        (shown.false_per_week <= most + _HAIR)
        & (shown.recall >= shown.recall[ledger.today] - _HAIR)
        & np.isfinite(shown.detection_s)
    )


def front(ledger: Ledger, shown: Plane, most: float) -> list[Index]:
    """Return the settings that no other beats on both axes, fastest first; finding less than today's is out.

    *most* is how many false pages a week one may have: of equals, those with neighbours within it are better.
    """
    found: list[Index] = []
    left = _in_grid(ledger, feasible(ledger, shown, np.inf))
    edges = _edges(ledger, feasible(ledger, shown, most))
    while (best := _best(ledger, shown, left, edges)) is not None:
        found.append(best)
        left = left & (shown.false_per_week < shown.false_per_week[best] - _HAIR)
    return found


def scored(ledger: Ledger, index: Index, weeks: np.ndarray) -> Scored:
    """Return what the setting at *index* did on *weeks* (bool), with intervals over resampled weeks."""
    false, pages = (counts[index][weeks] for counts in (ledger.trials.false, ledger.trials.pages))
    kept = weeks[ledger.week] & (ledger.weight > 0)
    delay = ledger.trials.detection_s[index][kept].astype(float)
    weight, lengths = ledger.weight[kept], ledger.weeks[weeks]
    week = (np.cumsum(weeks) - 1)[ledger.week[kept]]
    caught = ~np.isnan(delay)
    found = ~np.isnan(ledger.trials.detection_s[ledger.today][kept])
    delay = np.where(caught, delay, np.inf)
    total = weight.sum()
    false_interval = detection_interval = None
    if len(lengths) > 1:
        draws = stream(0, "weeks of alerts tune").integers(0, len(lengths), (RESAMPLES, len(lengths)))
        times = np.stack([(draws == i).sum(axis=1) for i in range(len(lengths))], axis=1)
        false_interval = _middle(times @ false / (times @ lengths))
        detection_interval = _middle(_medians(delay, weight * times[:, week], found))
    (median,) = _medians(delay, weight[None], found)
    return Scored(
        ledger.point(index),
        float(lengths.sum()),
        int(pages.sum()),
        int(false.sum()),
        float(false.sum() / lengths.sum()),
        false_interval,
        int(kept.sum()),
        int(caught.sum()),
        float(weight[caught].sum() / total) if total else np.nan,
        float(median),
        detection_interval,
    )


def _medians(delay: np.ndarray, weight: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return, for each row of *weight* (draws, incidents), when half as much was found as today's setting *found*."""
    if not len(delay):
        return np.full(len(weight), np.nan)
    order = np.argsort(delay, kind="stable")
    sums = np.cumsum(weight[:, order], axis=1)
    enough = _enough(weight @ found, sums[:, -1])
    at = (sums >= enough[:, None] - _HAIR).argmax(axis=1)
    return np.where(sums[:, -1] > 0, delay[order][at], np.nan)


def _middle(draws: np.ndarray) -> tuple[float, float] | None:
    """Return where 95% of *draws* lie; resamples without an incident say nothing."""
    draws = np.sort(draws[~np.isnan(draws)])
    if not len(draws):
        return None
    low, high = (int(share * (len(draws) - 1)) for share in (0.025, 0.975))
    return float(draws[low]), float(draws[high])


def _in_grid(ledger: Ledger, which: np.ndarray) -> np.ndarray:
    """Return *which* settings, without the thresholds that are only there to see what is nearby."""
    kept = np.zeros_like(which)
    kept[:, : len(ledger.grid.thresholds)] = which[:, : len(ledger.grid.thresholds)]
    return kept


def _best(ledger: Ledger, shown: Plane, among: np.ndarray, edges: np.ndarray | None = None) -> Index | None:
    """Return the fastest setting; of equals it finds most, has fewest *edges*, pages least, is nearest to today's."""
    at = np.argwhere(among)
    if not len(at):
        return None
    place = tuple(at.T)
    far = np.abs(at - np.array(ledger.today)).sum(axis=1)
    often = ledger.trials.pages.sum(axis=-1)[place]
    edge = np.zeros(len(at)) if edges is None else edges[place]
    keys = (far, often, edge, -shown.recall[place], shown.false_per_week[place], shown.detection_s[place])
    w, k, f = at[np.lexsort(keys)[0]].tolist()
    return w, k, f


def _edges(ledger: Ledger, fine: np.ndarray) -> np.ndarray:
    """Return how many of the settings beside each one of the grid could not be chosen, given those that could."""
    n = len(ledger.grid.thresholds)
    inside = fine[:, :n]
    found = (~fine[:, n : 2 * n]).astype(int) + ~fine[:, 2 * n :]
    for axis in range(3):
        away = np.moveaxis(~inside, axis, 0)
        beside = np.moveaxis(found, axis, 0)
        beside[1:] += away[:-1]
        beside[:-1] += away[1:]
    return found


def _beaters(shown: Plane, today: Index) -> np.ndarray:
    """Return which settings beat today's: on no axis worse, recall included, and faster or with fewer false pages."""
    delay, false, recall = shown.detection_s, shown.false_per_week, shown.recall
    no_worse = (delay <= delay[today]) & (false <= false[today] + _HAIR) & (recall >= recall[today] - _HAIR)
    return np.asarray(no_worse & ((delay < delay[today]) | (false < false[today] - _HAIR)))


def _neighbours(ledger: Ledger, chosen: Index, weeks: np.ndarray, shown: Plane, most: float) -> Iterator[Neighbour]:
    """Yield the settings beside *chosen*: the threshold a fifth lower and higher, each knob a step of the grid."""
    w, k, f = chosen
    n = len(ledger.grid.thresholds)
    fine = feasible(ledger, shown, most)
    shape: Sequence[int] = ledger.grid.shape
    beside = [(f"threshold {-NEARBY:+.0%}", (w, n + k, f)), (f"threshold {NEARBY:+.0%}", (w, 2 * n + k, f))]
    for axis, name in ((1, "threshold"), (0, "window"), (2, "for")):
        for step, said in ((-1, "one step lower"), (1, "one step higher")):
            to = chosen[axis] + step
            if 0 <= to < shape[axis]:
                index = (*chosen[:axis], to, *chosen[axis + 1 :])
                beside.append((f"{name} {said}", index))  # type: ignore[arg-type]
    for different, index in beside:
        yield Neighbour(different, scored(ledger, index, weeks), bool(fine[index]))
