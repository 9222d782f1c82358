"""Did it come back? A run with faults beside its control run: the same users and luck, and nothing breaks.

A failure is metastable when it outlasts its trigger: nothing is broken any more, the load is one that the fleet
carried before, and yet it does no useful work, because of what the failure itself has set going (retries, cold
caches, recomputation). Bronson, Aghayev, Charapko and Zhu, "Metastable failures in distributed systems", HotOS 2021;
Huang et al., "Metastable failures in the wild", OSDI 2022. Here the twin without the faults says what useful work
there should have been, minute by minute of asking.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sim import summary
from sim.scenario.plans import occurrence
from sim.summary import MINUTE_S

if TYPE_CHECKING:
    from sim.results import Member
    from sim.scenario import Scenario

ENOUGH = 0.95
"""Share of the control run's good answers from which on the service has recovered."""
RELAXATIONS = 10
"""Relaxation times that a service may take to recover, before it is called vulnerable or metastable."""
DRAINS = 2
"""How often the backlog's drain time fits into that: spare capacity is measured at its best, so it needs some room."""
FEW_SEEDS = 10
"""Below so many seeds a verdict is provisional."""
IN_A_BLOCK = 100
"""Good answers that neighbouring minutes are merged to hold, so that one lost request is no relapse."""


@dataclass(frozen=True)
class Twins:
    """One seed with and without the faults: good answers and requests by minute of asking, and its relaxation time."""

    good: np.ndarray
    control_good: np.ndarray
    control_asked: np.ndarray
    relaxation_s: float


@dataclass(frozen=True)
class Verdict:
    """What became of a point after its last fault.

    `verdict` is recovered, vulnerable, metastable, or else overloaded (the control run is not healthy either) or
    undecided (too little time is left after the faults). `recovery_s` (inf: not by the end of the run) and
    `goodput_kept` are over seeds, in the form of `sim.summary.interval`.
    """

    verdict: str
    seeds: int
    back: int  # seeds that have recovered by the end of the run
    faults_end_s: float
    relaxation_s: float
    control_good: float  # share of good answers of the control run after the faults' end
    recovery_s: dict[str, Any]
    goodput_kept: dict[str, Any]

    @property
    def provisional(self) -> bool:
        """Whether it rests on fewer seeds than the definition asks for."""
        return self.seeds < FEW_SEEDS


def good_by_minute(histograms: Mapping[str, np.ndarray], targets: Mapping[str, float], duration_s: float) -> np.ndarray:
    """Return right answers by the minute of asking, (minutes,); no more than were answered within the SLO.

    *targets* are its bounds by metric: an answer slower than the bound on a percentile of TTFT or e2e is not good.
    Right and in time are counted apart, so this is the most that can have been both.
    """
    good = (histograms["minute_ok"] - histograms["minute_wrong"]).astype(float)
    minutes_s = np.minimum(np.arange(len(good) + 1) * MINUTE_S, duration_s)
    for metric, bound_s in targets.items():
        time, _, statistic = metric.partition("_")
        counted = histograms.get(f"{time}_by_window")
        if counted is None or statistic not in summary.QUANTILES:
            continue
        bins = int(np.searchsorted(summary.edges_s(counted.shape[1])[1:], bound_s * (1 + 1e-9), "right"))
        so_far = np.concatenate([[0.0], np.cumsum(counted[:, :bins].sum(axis=1, dtype=float))])
        windows_s = np.minimum(np.arange(len(so_far)) * float(histograms["window_s"]), duration_s)
        good = np.minimum(good, np.diff(np.interp(minutes_s, windows_s, so_far)))
    return good


def relaxation_s(e2e_s: float, backlog: float, spare_per_s: float) -> float:
    """Return the relaxation time of a service: how long it takes to forget, in seconds.

    The larger of the mean time that a request spends in it while all is well, *e2e_s*, and `DRAINS` /
    `RELAXATIONS` of what its spare capacity (requests/s) takes to drain the *backlog* (requests) that the faults left.
    """
    if backlog <= 0:
        return e2e_s
    drain_s = backlog / spare_per_s if spare_per_s > 0 else math.inf
    return max(e2e_s, drain_s * DRAINS / RELAXATIONS)


def spare_per_s(t_s: np.ndarray, tokens: np.ndarray, control_tokens: np.ndarray, requests_per_s: float) -> float:
    """Return the capacity that the control run leaves unused, in requests/s.

    *tokens* and *control_tokens* are generated so far at the scrapes *t_s*. Capacity is the most that either run
    made in a minute, and what a request takes is the control run's mean.
    """
    step_s = float(np.median(np.diff(t_s))) if len(t_s) > 1 else math.inf
    k = max(1, math.ceil(MINUTE_S / step_s - 1e-9))
    if len(t_s) <= k:
        return 0.0
    most = max(float(((made[k:] - made[:-k]) / (t_s[k:] - t_s[:-k])).max()) for made in (tokens, control_tokens))
    usual = float(control_tokens[-1] - control_tokens[0]) / float(t_s[-1] - t_s[0])
    return requests_per_s * max(0.0, most / usual - 1.0) if usual > 0 else 0.0


def block_minutes(control_good: np.ndarray) -> int:
    """Return how many neighbouring minutes are judged together: enough for `IN_A_BLOCK` good answers."""
    usual = float(control_good.mean()) if len(control_good) else 0.0
    return min(len(control_good), math.ceil(IN_A_BLOCK / usual)) if usual > 0 else max(1, len(control_good))


def recovery_s(good: np.ndarray, control_good: np.ndarray, faults_end_s: float) -> float:
    """Return the seconds from the end of the last fault until goodput is back for good, to the minute of asking.

    Back: from then to the end of the run every block of `block_minutes` holds at least `ENOUGH` of the control
    run's good answers. inf when the last block does not; nan when no block is left after the faults.
    """
    width, first = block_minutes(control_good), int(faults_end_s / MINUTE_S)
    starts = len(good) - first - width + 1
    if starts < 1:
        return math.nan
    found, wanted = (np.convolve(series[first:], np.ones(width), "valid") for series in (good, control_good))
    bad = np.flatnonzero(found < ENOUGH * wanted - 1e-9)
    if len(bad) and bad[-1] == starts - 1:
        return math.inf
    return max(0.0, (first + int(bad[-1]) + 1) * MINUTE_S - faults_end_s) if len(bad) else 0.0


def goodput_kept(good: np.ndarray, control_good: np.ndarray, from_s: float) -> float:
    """Return good answers over those of the control run, of what was asked from *from_s* on; nan if too little is."""
    first = _to_minute(from_s) / MINUTE_S
    if len(good) - first < block_minutes(control_good):
        return math.nan
    return summary.ratio(good[int(first) :].sum(), control_good[int(first) :].sum())


def judge(twins: Sequence[Twins], faults_end_s: float) -> Verdict:
    """Return the verdict on one point from all of its seeds, whose last fault ends at *faults_end_s*."""
    relax_s = float(np.median([one.relaxation_s for one in twins]))
    since_s = faults_end_s + RELAXATIONS * relax_s
    times = [recovery_s(one.good, one.control_good, faults_end_s) for one in twins]
    kept = summary.interval([goodput_kept(one.good, one.control_good, since_s) for one in twins])
    first = int(faults_end_s / MINUTE_S)
    healthy = float(
        np.median([summary.ratio(t.control_good[first:].sum(), t.control_asked[first:].sum()) for t in twins])
    )
    return Verdict(
        _word(times, healthy, kept, _to_minute(since_s) - faults_end_s),
        len(twins),
        int(np.isfinite(times).sum()),
        faults_end_s,
        relax_s,
        healthy,
        _interval_of_times(times),
        kept,
    )


def _word(times: Sequence[float], healthy: float, kept: Mapping[str, Any], allowed_s: float) -> str:
    """Return the verdict from the recovery *times* of the seeds; *kept* is goodput after *allowed_s* have passed."""
    if np.isnan(times).any() or math.isnan(healthy):
        return "undecided"
    if healthy < ENOUGH:
        return "overloaded"
    if np.isfinite(times).all():
        return "recovered" if float(np.median(times)) <= allowed_s else "vulnerable"
    most = kept["high"] if len(times) > 1 else kept["estimate"]
    if 2 * np.isfinite(times).sum() >= len(times):
        return "vulnerable"
    return "undecided" if math.isnan(most) else "metastable" if most < ENOUGH else "vulnerable"


def _to_minute(time_s: float) -> float:
    """Return the first whole minute from *time_s* on, in seconds: what was asked by the minute knows no other times."""
    return math.ceil(time_s / MINUTE_S - 1e-9) * MINUTE_S if math.isfinite(time_s) else math.inf


def _interval_of_times(times: Sequence[float]) -> dict[str, Any]:
    """Return the median over seeds with its bootstrap interval; unlike `sim.summary.interval` it bears infinity."""
    values = np.array(times)
    low = high = math.nan
    if len(values) > 1 and not np.isnan(values).any():
        draws = np.random.Generator(np.random.PCG64(0)).choice(values, (2000, len(values)))
        medians = np.sort(np.median(draws, axis=1))
        low, high = float(medians[50]), float(medians[1949])  # of 2,000; np.quantile would subtract infinities
    return {"estimate": float(np.median(values)), "low": low, "high": high, "values": values.tolist()}


# --- out of a run folder --------------------------------------------------------------------------------------------


def faults_end_s(scenario: "Scenario") -> float:
    """Return when the last fault of *scenario* ends, in seconds; one without an end lasts as long as the run."""
    ends = [0.0]
    for fault in scenario.faults:
        inner = occurrence(fault)
        ends.append(scenario.duration if inner.to is None else min(inner.to, scenario.duration))
    return max(ends)


def twins(scenario: "Scenario", member: "Member", control: "Member") -> Twins:
    """Return one seed of a point as `judge` wants it: *member* with the faults of *scenario*, *control* without."""
    end_s = faults_end_s(scenario)
    pair = [one.histograms() for one in (member, control)]
    good = [good_by_minute(one, scenario.slo.targets, scenario.duration) for one in pair]
    t_s, inside, tokens = _scraped(member)
    control_t_s, control_inside, control_tokens = _scraped(control)
    both = min(int(np.searchsorted(t, scenario.duration, "right")) for t in (t_s, control_t_s))
    then = min(int(np.searchsorted(t_s, end_s)), both - 1)
    asked = pair[1]["minute_requests"]
    spare = spare_per_s(t_s[:both], tokens[:both], control_tokens[:both], asked.sum() / scenario.duration)
    backlog = float(inside[then] - control_inside[then]) if both else 0.0
    e2e_s = float(control.info["metrics"]["e2e_mean"] or 0.0)
    return Twins(good[0], good[1], asked, relaxation_s(e2e_s, backlog, spare))


def _scraped(member: "Member") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the times of the scrapes, and over all replicas the requests inside and the tokens made so far."""
    table = member.series()
    t_s, at = np.unique(table["t_s"].to_numpy(), return_inverse=True)
    running, waiting, tokens = (
        np.bincount(at, np.asarray(table[f"vllm:{name}"].to_numpy(), float), len(t_s))
        for name in ("num_requests_running", "num_requests_waiting", "generation_tokens_total")
    )
    return t_s, running + waiting, tokens
