"""Incidents of a simulated run: what its users met, by the minute in which they asked, against what was promised.

A promise is a share of requests that may be bad: ``errors: 0.1%``, ``wrong: 5%`` of answers, ``ttft_p99: 2s``, of which
1% may be slower. Minutes are bad while the share over five of them is above the budget (a burn rate of 1), and count
only if that many bad requests would be no chance, were the service exactly as good as promised.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from sim import scenario as scenarios
from sim.alerts.past import Past
from sim.alerts.truth import Incident, Spent, Truth, Worth, grouped, joined, spans
from sim.errors import BlowoutError, InputError
from sim.results import Run
from sim.scenario import Scenario
from sim.summary import MINUTE_S, QUANTILES
from sim.words import show

WINDOW = 5
"""Minutes over which the share of bad requests is looked at: the shortest window of the SRE Workbook's alerts."""

CHANCE = 0.001
"""So many bad requests, or more, must have been less likely than this at the promised share (Poisson). Our choice."""

MINUTE_MS = round(MINUTE_S * 1000)


@dataclass(frozen=True)
class Promise:
    """One promise: its name, which share may be bad, and the bad requests of each minute out of how many."""

    name: str
    budget: float
    bad: np.ndarray
    total: np.ndarray


def truth(past: Past, worth: Worth) -> Truth:
    """Return the incidents of *past*, a run, by the ``slo`` of its scenario.

    Raises:
        InputError: it is no run, promised nothing, or nothing that is counted.
    """
    scenario = scenario_of(past)
    assert past.member is not None
    if not scenario.slo.targets:
        raise InputError(
            f"{past.member.path}: its scenario promises users nothing, so nobody knows what an incident is; "
            "add `slo: {errors: 0.1%, ttft_p99: 2s}` to it and run again, or give --incidents or --sli"
        )
    counted = past.member.histograms()
    kept, unwatched = promises(scenario, counted)
    if not kept:
        raise InputError(
            f"{past.member.path}: of `slo` nothing is counted by the minute ({', '.join(unwatched)}); add errors, "
            "wrong, or a percentile of ttft or e2e to it and run again, or give --incidents or --sli"
        )
    first = math.ceil(scenario.warmup / MINUTE_S - 1e-9)
    minutes = scenario.slo.window / MINUTE_S
    found, spent = [], {}
    for promise in kept:
        allowed = promise.budget * promise.total[first:].mean() * minutes if len(promise.total) > first else 0.0
        spent[promise.name] = _spent(promise, allowed)
        found += [
            Incident("", a * MINUTE_MS, b * MINUTE_MS, severity, burned, promise.name)
            for a, b in bad_stretches(promise.bad, promise.total, promise.budget, worth.gap_ms / MINUTE_MS, first)
            if (severity := worth.severity(burned := float(promise.bad[a:b].sum() / allowed)))
        ]
    until_ms = round(scenario.duration * 1000)
    said = f"the slo of the scenario ({', '.join(promise.name for promise in kept)})"
    return Truth(joined(found), said, first * MINUTE_MS, until_ms, tuple(unwatched), spent)


def known(past: Past) -> Truth | None:
    """Return the incidents of *past* with the faults that were on; None where nobody can tell."""
    try:
        return caused(past, truth(past, Worth()))
    except (BlowoutError, KeyError):  # no run, no promise, or one that was not finished
        return None


def warmup_ms(past: Past) -> int:
    """Return how long at the start of *past* nothing counts: the warm-up of a run; of other series 0."""
    return 0 if past.member is None or _top(past.member.path) is None else round(scenario_of(past).warmup * 1000)


def _top(folder: Path) -> Path | None:
    """Return the folder of the run that *folder* is a part of."""
    return next((one for one in (folder, *folder.resolve().parents[:3]) if (one / "run.json").is_file()), None)


def scenario_of(past: Past) -> Scenario:
    """Return the scenario that made *past*, at its point.

    Raises:
        InputError: it is no run, or its run folder is gone.
    """
    if past.member is None:
        _ = past.span_ms  # says what is wrong with the file, if anything is
        raise InputError(
            f"{past.path}: a file of series does not say when users suffered; give --incidents FILE, or --sli with "
            "--objective"
        )
    folder = past.member.path
    if (top := _top(folder)) is None:
        raise InputError(
            f"{folder}: the folder of its run is gone, and with it what was promised; give --incidents or --sli"
        )
    run, points = _points(top.resolve())
    members = (*run.members, *run.controls)
    point = next((one.point for one in members if one.path.resolve() == folder.resolve()), past.member.point)
    played: list[dict[str, Any]] = []  # by their order, for another version may have written them otherwise
    for entry in run.info["members"]:
        if entry["point"] not in played:
            played.append(entry["point"])
    return points[played.index(point) if point in played else 0][1]


@lru_cache(maxsize=4)
def _points(folder: Path) -> tuple[Run, list[tuple[dict[str, Any], Scenario]]]:
    """Return a run and its points; of a run of a hundred seeds they are read once."""
    run = Run.open(folder)
    return run, scenarios.points(run.scenario)


def promises(scenario: Scenario, counted: Mapping[str, np.ndarray]) -> tuple[list[Promise], list[str]]:
    """Return what was promised and is counted by the minute, and the names of promises that are not.

    Of several percentiles of one latency the tightest bound is counted.
    """
    kept, unwatched = [], []
    for name, bound in scenario.slo.targets.items():
        time, _, statistic = name.partition("_")
        if name in ("errors", "wrong"):
            budget, bad, of = bound, f"minute_{name}", "minute_requests" if name == "errors" else "minute_ok"
            said = f"{name} {_percent(bound)}"
        elif time in ("ttft", "e2e") and statistic in QUANTILES and bound == scenario.slo.latency_s(time):
            budget, bad, of = 1.0 - QUANTILES[statistic], f"minute_slow_{time}", "minute_requests"
            said = f"{name} {show(bound)}s"
        else:
            unwatched.append(name)
            continue
        if bad in counted and 0 < budget < 1:
            kept.append(Promise(said, budget, counted[bad].astype(float), counted[of].astype(float)))
        else:
            unwatched.append(name)
    return kept, unwatched


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def bad_stretches(
    bad: np.ndarray, total: np.ndarray, budget: float, gap: float, first: int = 0
) -> Iterator[tuple[int, int]]:
    """Yield from which minute to which (exclusive) the share of *bad* requests broke *budget*.

    A stretch begins and ends with a minute whose own share did. Stretches less than *gap* minutes (or `WINDOW`) apart
    are one. What chance could explain (see `CHANCE`) is left out, at both ends and as a whole. Minutes before *first*
    do not count.
    """
    bad, total = bad.copy(), total.copy()
    bad[:first] = total[:first] = 0.0
    ones = np.ones(WINDOW)
    hot = np.convolve(bad, ones)[: len(bad)] >= np.maximum(budget * np.convolve(total, ones)[: len(bad)], 1e-9)
    inside = np.zeros(len(bad), bool)
    for a, b in spans(hot):
        inside[max(first, a - WINDOW + 1) : b] = True
    own = inside & (bad > 0) & (bad >= budget * total)
    pieces = [(piece[0][0], piece[-1][1]) for piece in grouped(spans(own), WINDOW)]

    def sure(a: int, b: int) -> bool:
        return no_chance(bad[a:b].sum(), budget * total[a:b].sum())

    for group in grouped(pieces, math.ceil(gap)):
        solid = [one for one in group if sure(*one)]
        if solid or sure(group[0][0], group[-1][1]):
            yield (solid or group)[0][0], (solid or group)[-1][1]


def no_chance(bad: float, expected: float) -> bool:
    """Return whether *bad* requests or more are less likely than `CHANCE` where *expected* would be usual (Poisson)."""
    return bool(bad > 0 and special.pdtrc(bad - 1, max(expected, 1e-12)) < CHANCE)


def _spent(promise: Promise, allowed: float) -> Spent:
    t_ms = np.arange(len(promise.bad) + 1) * MINUTE_MS
    share = np.concatenate([[0.0], np.cumsum(promise.bad)]) / (allowed or np.inf)
    return Spent(t_ms, share)


def faults_on(events: Sequence[Mapping[str, Any]], duration_s: float) -> Iterator[tuple[float, float, str]]:
    """Yield of each fault in *events* when it began and ended (seconds), and what it did to what."""
    open_: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for event in events:
        key = event.get("name", ""), event.get("target", "")
        if event["event"] == "fault_begins":
            open_.setdefault(key, []).append((event["t_s"], f"{event['mechanism']} {event['target']}"))
        elif event["event"] == "fault_ends" and open_.get(key):
            began_s, said = open_[key].pop(0)
            yield began_s, event["t_s"], said
    for began in open_.values():
        yield from ((began_s, duration_s, said) for began_s, said in began)


def caused(past: Past, found: Truth) -> Truth:
    """Return *found* with the faults that were on during each incident, where *past* is a run that knows."""
    if past.member is None:
        return found
    faults = list(faults_on(past.member.events(), found.until_ms / 1000))
    return replace(found, incidents=tuple(_caused(one, faults) for one in found.incidents))


def _caused(incident: Incident, faults: Sequence[tuple[float, float, str]]) -> Incident:
    start_s, end_s = incident.start_ms / 1000, incident.end_ms / 1000
    on = dict.fromkeys(said for begin_s, over_s, said in faults if begin_s < end_s and over_s > start_s)
    return replace(incident, causes=tuple(on))
