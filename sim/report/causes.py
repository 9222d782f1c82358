"""Who is slow and who is not answered: cohorts, pools, replicas, kinds of request, and what happened meanwhile."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.records import Outcome
from sim.report import happened, words
from sim.report.asked import Asked
from sim.report.parts import Group

FEWEST = 100
"""Requests that a group needs before its own slowest 1% are looked at."""
FAR_ABOVE = 2.0
"""How many times its share of traffic somebody's share of the slow or unanswered must be, to be named."""
BY_CHANCE = 1e-3
"""Chance, over all that are looked at together, of naming somebody that luck alone put there."""
DECILES = 10
MOST = 6
"""Most replicas, kinds of request or events that are named."""


@dataclass(frozen=True)
class Share:
    """Somebody's share of traffic and of what went wrong."""

    label: str
    of_traffic: float
    of_trouble: float
    rate: float  # of their requests, how many are among the trouble


@dataclass(frozen=True)
class Slow:
    """A group of requests: its shares, its percentiles in seconds, and its parts around the median and at the end."""

    share: Share
    p50_s: float
    p99_s: float
    group: Group | None  # None where there are too few


def groups(found: Asked, by: str, masks: Mapping[str, np.ndarray]) -> list[Slow]:
    """Return each group of requests of *masks* (label -> which) beside all: who holds the slowest 1% by *by*."""
    slow = slowest(found, by)
    result = []
    for label, mask in masks.items():
        counted = mask & found.counted
        median, tail = found.slow(by, mask)
        took = found.took_s[by][counted]
        parts = None
        if len(tail):
            both = (found.parts_s, found.parts_first_s)
            parts = Group(label, *(of[some].mean(axis=0) for of in both for some in (median, tail)))
        p50, p99 = np.quantile(took, [0.5, 0.99]) if len(took) else (np.nan, np.nan)
        enough = parts is not None and (len(took) >= FEWEST or len(masks) == 1)
        share = share_of(label, counted, slow, found.counted)
        result.append(Slow(share, float(p50), float(p99), parts if enough else None))
    return result


def share_of(label: str, mask: np.ndarray, trouble: np.ndarray, among: np.ndarray) -> Share:
    """Return the shares of *mask* in the requests *among* and in the *trouble*."""
    mine = int((mask & trouble).sum())
    return Share(label, mask.sum() / max(1, among.sum()), mine / max(1, trouble.sum()), mine / max(1, mask.sum()))


def stands_out(hits: np.ndarray, traffic: np.ndarray, trouble: int, everybody: int) -> np.ndarray:
    """Return which of several hold far more of the trouble than their share of traffic, and not by luck.

    *hits* and *traffic* count each one's requests among the *trouble* and among *everybody*. Luck is binomial, with
    Bonferroni's correction for how many are looked at.
    """
    from scipy import stats

    expected = traffic / max(1, everybody)
    far = hits > FAR_ABOVE * expected * trouble
    chance = stats.binom.sf(hits - 1, trouble, np.clip(expected, 0.0, 1.0))
    return far & (hits >= 3) & (chance < BY_CHANCE / max(1, len(hits)))


def slowest(found: Asked, by: str) -> np.ndarray:
    """Return which requests are the slowest 1% of those that count."""
    mask = np.zeros(len(found), bool)
    mask[found.slow(by, np.ones(len(found), bool))[1]] = True
    return mask


def replicas(found: Asked, trouble: np.ndarray, among: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return which requests met each replica that holds far more of the *trouble* than of those *among*, worst first.

    A request met a replica when any of its attempts reached it: who was tried again elsewhere is not blamed on
    where it ended.
    """
    place, replica = found.met
    traffic = np.bincount(replica[among[place]], minlength=len(names))
    hits = np.bincount(replica[(trouble & among)[place]], minlength=len(names))
    used = np.flatnonzero(traffic)
    if len(used) < 2:
        return {}
    out = used[stands_out(hits[used], traffic[used], int((trouble & among).sum()), int(among.sum()))]
    masks = {}
    for r in out[np.argsort(-hits[out], kind="stable")][:MOST]:
        masks[names[r]] = np.zeros(len(found), bool)
        masks[names[r]][place[replica == r]] = True
    return masks


# --- the error budget -----------------------------------------------------------------------------------------------


def query_types(found: Asked, cohorts: Sequence[str], output_tokens: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return kinds of request: cohorts, and in each the tenths of its prompts and of its answers by length.

    *output_tokens* are the lengths that were asked for, by request, where they are known: an answer that was never
    finished does not show its own.
    """
    lengths = {"prompts": found.last["prompt_tokens"], "answers": output_tokens}
    masks = {}
    for c, cohort in enumerate(cohorts):
        mine = found.last["cohort"] == c
        if len(cohorts) > 1:
            masks[cohort] = mine
        for kind, tokens in lengths.items():
            if tokens is None or not mine.any():
                continue
            whose = f"{cohort}, " if len(cohorts) > 1 else ""
            edges = np.unique(np.quantile(tokens[mine], np.linspace(0, 1, DECILES + 1)[1:], method="lower"))
            for above, to in zip([-1, *edges[:-1]], edges if len(edges) > 1 else ()):
                inside = mine & (tokens > above) & (tokens <= to)
                masks[f"{whose}{kind} of {tokens[inside].min():,} to {to:,} tokens"] = inside
    return masks


def burning(found: Asked, kinds: Mapping[str, np.ndarray], names: Sequence[str]) -> list[Share]:
    """Return the kinds of request that hold far more of the errors than of the traffic, the most errors first.

    *kinds* are of requests; those that met one of the replicas called *names* are looked at as well.
    """
    errors = found.last["outcome"] != Outcome.OK
    met = replicas(found, errors, np.ones(len(found), bool), names)
    kinds = {**kinds, **{f"what met {name}": mask for name, mask in met.items()}}
    counts = np.array([(mask.sum(), (mask & errors).sum()) for mask in kinds.values()]).reshape(-1, 2)
    out = stands_out(counts[:, 1], counts[:, 0], int(errors.sum()), len(found))
    everyone = np.ones(len(found), bool)
    shares = [share_of(label, mask, errors, everyone) for (label, mask), it in zip(kinds.items(), out) if it]
    return sorted(shares, key=lambda share: -share.of_trouble)[:MOST]


def ends(found: Asked) -> dict[str, int]:
    """Return how many requests ended in each way other than well, by its name."""
    counts = np.bincount(found.last["outcome"], minlength=len(Outcome))
    return {outcome.name.lower(): int(counts[outcome]) for outcome in Outcome if outcome and counts[outcome]}


# --- what happened meanwhile ----------------------------------------------------------------------------------------


def meanwhile(found: Asked, by: str, events: Iterable[Mapping[str, Any]], end_s: float) -> list[Share]:
    """Return what happened to the world while the slowest 1% were in flight, what sets them apart most first."""
    events = list(events)
    times: dict[str, list[tuple[float, float]]] = {}
    for span in happened.spans(events, end_s):
        times.setdefault(span.label, []).append((span.start_s, span.end_s))
    for label, at_s in happened.moments(events):
        times.setdefault(label, []).append((at_s, at_s))
    among = (slowest(found, by), found.counted)
    shares = []
    for label, intervals in times.items():
        slow, usual = (_overlap(found.last[mask], happened.merged(intervals)) for mask in among)
        if slow > 0:
            shares.append(Share(f"{label} ({_when(intervals)})", usual, slow, np.nan))
    return sorted(shares, key=lambda share: share.of_traffic - share.of_trouble)[:MOST]


def _overlap(rows: np.ndarray, intervals: Sequence[tuple[float, float]]) -> float:
    """Return the share of *rows* that were in flight in one of the *intervals*, which are sorted and apart."""
    starts, ends = np.array(intervals).T
    k = np.minimum(np.searchsorted(ends, rows["scheduled_s"]), len(ends) - 1)
    met = (ends[k] >= rows["scheduled_s"]) & (starts[k] <= rows["finished_s"])
    return float(met.mean()) if len(rows) else 0.0


def _when(intervals: Sequence[tuple[float, float]]) -> str:
    start, end = min(start for start, _ in intervals), max(end for _, end in intervals)
    times = f"{len(intervals):,} times between " if len(intervals) > 1 else ""
    if start == end:
        return f"at {words.stamp(start)}"
    return f"{times}{words.stamp(start)} {'and' if times else 'to'} {words.stamp(end)}"
