"""Work that comes back: retries and their budgets, full queues, throttles and second copies.

The argument is fluid. Suppose every attempt times out and abandoned work is served to the end all the
same: attempts then arrive at the worst rate there is, whatever the queue, and a backlog shrinks if and
only if that rate is below capacity. If it is not, the failure outlives what caused it.

Sources: Bronson, Aghayev, Charapko and Zhu, "Metastable failures in distributed systems", HotOS 2021, and
Huang et al., "Metastable failures in the wild", OSDI 2022, for the argument; Beyer et al., *Site
Reliability Engineering* (2016), chapters 21 and 22, for budgets and client-side throttling; Brooker,
"Exponential backoff and jitter" (AWS, 2015), for jitter; Dean and Barroso, "The tail at scale", CACM 56
(2013), for second copies. The formulas are derived where they stand.

Everywhere: ``capacity_per_s`` is how many requests a second the fleet can finish, and load is the arrival
rate of requests (not attempts) over it.
"""

import math

from scipy import special

JITTER = {"none": 1.0, "full": 0.5, "equal": 0.75}
"""Mean wait over the wait without jitter: full draws from (0, w), equal from (w/2, w)."""


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must not be negative, not {value}")


def attempts_per_request(failing: float, retries: int) -> float:
    """Return the mean number of attempts when each fails independently with chance *failing*.

    A request is sent k times if its first k - 1 attempts failed: 1 + p + ... + p**retries.
    """
    _not_negative(retries=retries)
    if not 0 <= failing <= 1:
        raise ValueError(f"a chance must be in [0, 1], not {failing}")
    return math.fsum(failing**k for k in range(retries + 1))


def storm_load(load: float, retries: int, budget: float = math.inf) -> float:
    """Return the load when every attempt fails: a retry storm dies out if and only if it is below 1.

    *budget* is the number of retries that each first attempt earns: load (1 + min(retries, budget)).
    A limit on the share of requests that get a second copy works like a budget of that share.
    """
    _not_negative(load=load, retries=retries, budget=budget)
    return load * (1 + min(retries, budget))


def storm_backlog(
    rate_per_s: float, retries: int, timeout_s: float, outage_s: float, budget: float = math.inf
) -> float:
    """Return how many attempts are queued after *outage_s* in which nothing was served (retries at once).

    The k-th retry comes k time-outs after its request: rate x sum over k of the time left for it.
    A *budget* below 1 lets so large a share of the first retries through, and no second ones.
    """
    _not_negative(retries=retries, budget=budget)
    late = math.fsum(max(0.0, outage_s - k * timeout_s) for k in range(1, retries + 1))
    return rate_per_s * (outage_s + min(late, budget * max(0.0, outage_s - timeout_s)))


def storm_recovery_s(backlog: float, attempts_per_s: float, capacity_per_s: float, timeout_s: float) -> float:
    """Return how long until a new attempt is answered in time, in seconds: ``inf`` if never.

    The queue must fall to what is served within the time-out: (backlog - capacity timeout) / (capacity - attempts).
    """
    _not_negative(backlog=backlog, timeout_s=timeout_s)
    above = backlog - capacity_per_s * timeout_s
    if above <= 0:
        return 0.0
    return above / (capacity_per_s - attempts_per_s) if attempts_per_s < capacity_per_s else math.inf


def backoff_total_s(base_s: float, factor: float, most_s: float, retries: int, jitter: str = "none") -> float:
    """Return the mean time that a request which always fails spends between its attempts, in seconds."""
    _not_negative(base_s=base_s, factor=factor, most_s=most_s, retries=retries)
    return JITTER[jitter] * math.fsum(min(most_s, base_s * factor**k) for k in range(retries))


def closed_storm_per_s(users: int, think_s: float, timeout_s: float, retries: int, backoff_s: float = 0.0) -> float:
    """Return the attempts a second of *users* who ask, fail to the last retry, think, and ask again.

    One round takes every user think + (retries + 1) timeout + backoff, *backoff_s* being the total. So in a
    closed loop waiting longer does lower the rate, and the storm dies out if and only if this is below
    capacity; in an open one users do not wait for each other and the rate stays rate x (retries + 1).
    """
    _not_negative(users=users, think_s=think_s, retries=retries, backoff_s=backoff_s)
    return users * (retries + 1) / (think_s + (retries + 1) * timeout_s + backoff_s)


def full_queue_wait_s(room: int, capacity_per_s: float) -> float:
    """Return how long one waits who gets the last of *room* places in a queue, on average, in seconds.

    A bounded queue heals a storm if and only if this drain time is below the client's time-out: what is
    let in is then answered in time, and what is not costs nothing.
    """
    return room / capacity_per_s


def full_queue_in_time(room: int, capacity_per_s: float, timeout_s: float) -> float:
    """Return the chance that one who gets the last of *room* places is served before *timeout_s*.

    With memoryless services *room* of them must end first, a Gamma(room, 1/capacity) time: the step of
    `full_queue_wait_s`, softened by 1/sqrt(room).
    """
    return float(special.gammainc(room, capacity_per_s * timeout_s)) if room else 1.0


def throttled_per_s(rate_per_s: float, accepted_per_s: float, tolerance: float = 2.0) -> float:
    """Return the attempts a second that adaptive throttling lets out when *accepted_per_s* of them are accepted.

    Clients drop attempts themselves with chance 1 - K accepts / requests (SRE book, chapter 21), K being
    the *tolerance*. In the long run accepts are what the backend allows, so K times as much is sent. (A token
    bucket without bursts allows less than its rate, because what arrives at random leaves tokens unused.)
    """
    return min(rate_per_s, tolerance * accepted_per_s)


def hedge_extra_load(delay_s: float, service_s: float, cancel: bool) -> float:
    """Return the work that second copies add, as a fraction of the work without them (idle, exponential service).

    The copy starts after *delay_s* and is as long as the first, because the length belongs to the request.
    Cancelled when the first ends it has run for S - delay: E[(S - d)+] / E[S] = exp(-d/s), which is also the
    share of requests that get one. Served to the end: E[S; S > d] / E[S] = (1 + d/s) exp(-d/s).
    """
    _not_negative(delay_s=delay_s)
    late = delay_s / service_s
    return math.exp(-late) * (1.0 if cancel else 1.0 + late)
