"""Whether the tester itself can be believed, and what another kind of tester would have claimed of the same service.

Limits: every planned request is sent and none dropped; the send lag at the median stays under 10 ms and at P99 under
100 ms or a tenth of the whole time of an answer. The lag is part of every latency in any case (these are from the
schedule), so it is never hidden; beyond these limits too much of them is the tester's own.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loadtest.client import ERRORS
from sim.records import Outcome

MOST_LAG_P50_S = 0.010
MOST_LAG_P99_S = 0.100
LAG_OF_ANSWER = 0.1
MOST_CPU = 0.9
FEWEST_GAPS = 10
"""Arrivals from which on their gaps are worth a coefficient of variation; a closed loop has none of its own."""
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def examine(
    rows: np.ndarray, states: Sequence[Mapping[str, Any]], duration_s: float, warmup_s: float = 0.0, speed: float = 1.0
) -> dict[str, Any]:
    """Return what became of the tester, from all *rows* (`loadtest.rows.ROW`) and the last state of each process.

    At *speed* the limits of the lag are as many model seconds: they are about this machine, whose seconds are real.
    """
    first = rows[(rows["attempt"] == 0) & (rows["error"] != ERRORS.index("dropped"))]
    roots = np.sort(first[first["turn"] == 0], order="scheduled_s")
    roots = roots if len(roots) >= FEWEST_GAPS else roots[:0]
    lag_s = first["sent_s"] - first["scheduled_s"]
    lag = {name: _quantile(lag_s, q) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}
    beats: Counter[int] = Counter()
    for state in states:
        beats.update({int(ms): n for ms, n in state["hub_lag_ms"].items()})
    counted = first[first["scheduled_s"] >= warmup_s]
    found: dict[str, Any] = {
        "planned": sum(state["planned"] for state in states),
        "sent": sum(state["sent"] for state in states),
        "dropped": sum(state["dropped"] for state in states),
        "processes": len(states),
        "stopped": next((state["stopped"] for state in states if state["stopped"]), ""),
        "send_lag_s": lag,
        "speed": speed,
        "hub_lag_s": {name: _of_counts(beats, q) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))},
        "cpu": max((float(state["cpu"]) for state in states), default=math.nan),
        "prompt_tokens_off": sum(state["off_by"] for state in states)
        / max(1, sum(state["prompts"] for state in states)),
        "gaps_cv": {"scheduled": cv(roots["scheduled_s"]), "sent": cv(np.sort(roots["sent_s"]))},
        "errors": {
            ERRORS[kind]: int(n)
            for kind, n in enumerate(np.bincount(rows["error"], minlength=len(ERRORS)))
            if kind and n
        },
        "said": {kind: text for state in reversed(states) for kind, text in state["said"].items()},
        "claims": claims(counted, duration_s),
    }
    found["wrong"] = wrong(found)
    found["valid"] = not found["wrong"]
    return found


def wrong(found: Mapping[str, Any]) -> list[str]:
    """Return what makes the run not valid: nothing where the tester did its part."""
    said = []
    if found["dropped"]:
        said.append(f"{found['dropped']:,} requests dropped, too many in flight")
    if found["sent"] + found["dropped"] != found["planned"]:
        said.append(f"{found['sent']:,} of {found['planned']:,} planned requests sent")
    lag, whole = found["send_lag_s"], found["claims"].get("e2e_p50", {}).get("schedule", math.nan)
    speed = found["speed"]
    most_s = max(speed * MOST_LAG_P99_S, LAG_OF_ANSWER * whole if math.isfinite(whole) else 0.0)
    if lag["p50"] > speed * MOST_LAG_P50_S or lag["p99"] > most_s:
        said.append(
            f"requests were sent {lag['p50'] * 1000:.0f} ms late at the median and {lag['p99'] * 1000:.0f} ms at P99"
        )
    return said


def claims(rows: np.ndarray, duration_s: float) -> dict[str, dict[str, float]]:
    """Return TTFT and whole time of answered first attempts: from the schedule, from the send, and closed.

    The last is what as many users as were in flight on average would have measured, each of whom asks again when the
    answer is there, and no faster than the rate: they meet a slow time once each, and then wait it out.
    """
    ok = np.sort(rows[rows["outcome"] == Outcome.OK], order="sent_s") if len(rows) else rows
    if not len(ok):
        return {}
    service_s = ok["finished_s"] - ok["sent_s"]
    users = max(1, round(float(service_s.sum()) / max(duration_s, 1e-9)))
    met = closed_loop(ok["sent_s"], service_s, users, users * duration_s / len(ok))
    found: dict[str, dict[str, float]] = {"users": {"closed": float(users)}}
    for name, column in (("ttft", "first_token_s"), ("e2e", "finished_s")):
        views = {
            "schedule": ok[column] - ok["scheduled_s"],
            "send": ok[column] - ok["sent_s"],
            "closed": (ok[column] - ok["sent_s"])[met],
        }
        for stat, q in QUANTILES.items():
            found[f"{name}_{stat}"] = {view: _quantile(values, q) for view, values in views.items()}
    return found


def closed_loop(sent_s: np.ndarray, service_s: np.ndarray, users: int, pace_s: float) -> np.ndarray:
    """Return which requests *users* in a closed loop would have met, asking every *pace_s* or when they are answered.

    At each time a user meets what the request sent next after it met. *sent_s* is sorted.
    """
    met: list[int] = []
    for user in range(users):
        at_s = float(sent_s[0]) + pace_s * user / users
        while (k := int(np.searchsorted(sent_s, at_s))) < len(sent_s):
            met.append(k)
            at_s = max(at_s + pace_s, at_s + float(service_s[k]))
    return np.array(met or [0], np.int64)


def cv(times_s: np.ndarray) -> float:
    """Return the coefficient of variation of the gaps between sorted *times_s*; nan of fewer than three."""
    gaps = np.diff(times_s)
    return float(gaps.std() / gaps.mean()) if len(gaps) > 1 and gaps.mean() > 0 else math.nan


def _quantile(values: np.ndarray, q: float) -> float:
    return float(np.nanquantile(values, q)) if len(values) and not np.isnan(values).all() else math.nan


def _of_counts(beats: Mapping[int, int], q: float) -> float:
    """Return a quantile of whole milliseconds counted, in seconds; the upper edge of its millisecond."""
    total, seen = sum(beats.values()), 0
    for ms in sorted(beats):
        seen += beats[ms]
        if seen >= q * total:
            return (ms + 1) / 1000
    return math.nan


__all__ = ["claims", "closed_loop", "cv", "examine", "wrong"]
