"""A fleet that has lost capacity: backlogs, late helpers, dominoes, cold caches, and one bad replica.

The argument is fluid: queues grow and shrink at the difference of what arrives and what is served, and
chance only blurs the edges. `mu` below is what one replica can finish a second. The formulas are derived
where they stand; Newell, *Applications of Queueing Theory* (1982), chapter 2, is the method.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, not {value}")


# A backlog


def herd_drain_s(number: float, rate_per_s: float, capacity_per_s: float) -> float:
    """Return how long *number* requests that arrive at once stay felt: number / (capacity - rate), in seconds."""
    _positive(number=number, capacity_per_s=capacity_per_s)
    return number / (capacity_per_s - rate_per_s) if rate_per_s < capacity_per_s else math.inf


def herd_wait_quantile_s(q: float, number: float, capacity_per_s: float) -> float:
    """Return quantile *q* of the wait of those who arrive at once, in seconds: served one after the other."""
    _positive(number=number, capacity_per_s=capacity_per_s)
    return q * number / capacity_per_s


@dataclass(frozen=True)
class ColdStart:
    """A load above capacity, until more replicas are ready."""

    backlog: float
    """Requests too many when the new replicas are ready."""
    peak_wait_s: float
    """Wait of the last to queue behind the old replicas: nobody is moved to a new one."""
    drain_s: float
    """From when the new replicas are ready until nobody waits longer than before the surge."""
    normal_s: float
    """From the start of the surge until then."""


def cold_start(rate_per_s: float, replica_per_s: float, before: int, after: int, ready_s: float) -> ColdStart:
    """Return what happens when *rate_per_s* comes to *before* replicas and *after* are there *ready_s* later.

    Backlog B = (rate - before mu) ready; it then drains at what is left over, after mu - rate. A router
    that looks sends all new requests to the new replicas, but the old ones must work off their own
    queues, so the drain is never faster than before mu. ``inf`` if *after* is not enough.
    """
    _positive(rate_per_s=rate_per_s, replica_per_s=replica_per_s, before=before, ready_s=ready_s)
    backlog = max(0.0, (rate_per_s - before * replica_per_s) * ready_s)
    spare = min(after * replica_per_s - rate_per_s, before * replica_per_s)
    drain = 0.0 if backlog == 0 else backlog / spare if spare > 0 else math.inf
    normal = ready_s + drain if backlog else 0.0
    return ColdStart(backlog, backlog / (before * replica_per_s), drain, normal)


# Fewer replicas


def safe_load(replicas: int, limit: float = 1.0, lost: int = 1) -> float:
    """Return the highest load at which a fleet survives the loss of *lost* of its *replicas*.

    Each can take *limit* of its capacity before it dies too: limit (N - lost) / N.
    """
    if not 0 <= lost < replicas:
        raise ValueError(f"of {replicas} replicas 0 to {replicas - 1} can be lost, not {lost}")
    return limit * (replicas - lost) / replicas


def domino(load: float, replicas: int, limit: float = 1.0, lost: int = 1) -> list[float]:
    """Return the load of each survivor after each death: one value if they hold, else until none is left.

    The load of the dead falls on the others; who has more than *limit* dies next. Fewer must carry more, so
    a fleet either loses *lost* replicas or all of them: load <= `safe_load`.
    """
    _positive(load=load, replicas=replicas, limit=limit)
    loads: list[float] = []
    for alive in range(replicas - lost, 0, -1):
        loads.append(load * replicas / alive)
        if load <= safe_load(replicas, limit, replicas - alive):
            break
    return loads


# Caches


def cached_work(hit: float, prefill_share: float) -> float:
    """Return the work of a request whose prompt is found to *hit* in the prefix cache, over that of a cold one.

    *prefill_share* is what part of a cold request's work its prompt is: 1 - hit x prefill share.
    """
    if not 0 <= hit <= 1 or not 0 <= prefill_share <= 1:
        raise ValueError(f"hit and prefill share must be in [0, 1], not {hit} and {prefill_share}")
    return 1 - hit * prefill_share


def cold_load(load: float, hit: float, prefill_share: float) -> float:
    """Return the load of a fleet with empty caches that has *load* when they are warm: load / (1 - hit x share).

    Restarting is safe below 1, that is up to a warm load of `cached_work`. Above it the queue grows until
    caches are warm again, and if clients leave before their prompts are computed they never are.
    """
    work = cached_work(hit, prefill_share)
    return load / work if work > 0 else math.inf


@dataclass(frozen=True)
class Refill:
    """A fleet whose caches were emptied under load, until everything is back in them."""

    backlog: float
    """Requests waiting at the worst moment."""
    worst_s: float
    """When that is, from the restart."""
    normal_s: float
    """When nobody waits any more, from the restart."""


def cache_refill(rate_per_s: float, cold_per_s: float, hit: float, prefill_share: float, contents: int) -> Refill:
    """Return what follows a restart when *contents* prefixes, all as likely, are each computed once and then found.

    After k requests a prefix is still missing with chance exp(-k / contents), so k of them took
    ((1 - hs) k + hs contents (1 - exp(-k / contents))) / cold rate. The backlog is worst where that grows as
    fast as arrivals do, and gone where both are equal (Lambert's W). ``inf`` above the warm capacity.
    """
    _positive(rate_per_s=rate_per_s, cold_per_s=cold_per_s, contents=contents)
    warm = cached_work(hit, prefill_share)
    if rate_per_s <= cold_per_s:
        return Refill(0.0, 0.0, 0.0)
    missing = (cold_per_s / rate_per_s - warm) / (1 - warm) if warm < 1 else 0.0
    if missing <= 0:
        return Refill(math.inf, math.inf, math.inf)
    served = -contents * math.log(missing)
    worst_s = (warm * served + (1 - warm) * contents * (1 - missing)) / cold_per_s
    all_served = contents * (1 / missing + special.lambertw(-math.exp(-1 / missing) / missing).real)
    return Refill(rate_per_s * worst_s - served, worst_s, float(all_served) / rate_per_s)


# One bad replica, one bad class


@dataclass(frozen=True)
class Straggler:
    """One of several replicas is slower and gets as many requests as the others."""

    share: float
    """Of requests that go there."""
    queue_growth_per_s: float
    """Requests by which its queue grows each second; 0 if it keeps up."""
    wait_growth: float
    """Seconds by which the wait there grows each second."""

    @property
    def broken_quantile(self) -> float:
        """The quantile of all waits from which on they grow without end: 1 - share (1.0: none)."""
        return 1 - self.share if self.wait_growth else 1.0

    def wait_quantile_s(self, q: float, duration_s: float) -> float:
        """Return quantile *q* of all waits over *duration_s* since it became slow, others' taken as 0, in seconds.

        Waits there rise evenly from 0 to growth x duration, so the top *share* of waits is uniform.
        """
        return self.wait_growth * duration_s * max(0.0, 1 - (1 - q) / self.share)


def straggler(rate_per_s: float, replica_per_s: float, replicas: int, slower: float) -> Straggler:
    """Return what one of *replicas* that is *slower* by a factor does behind a router that does not look.

    It gets rate / N and serves mu / slower: its queue grows at the difference, and a wait by load x slower - 1.
    """
    _positive(rate_per_s=rate_per_s, replica_per_s=replica_per_s, replicas=replicas, slower=slower)
    growth = rate_per_s / replicas - replica_per_s / slower
    return Straggler(1 / replicas, max(0.0, growth), max(0.0, growth * slower / replica_per_s))


def priority_served(loads: Sequence[float]) -> list[float]:
    """Return what share of each class is served under strict priority; *loads* as fractions of capacity, first first.

    Each gets what those before it leave: min(1, (1 - loads before) / load). Below 1 its queue grows without end.
    """
    served, left = [], 1.0
    for load in loads:
        served.append(min(1.0, left / load) if load else 1.0)
        left = max(0.0, left - load)
    return served
