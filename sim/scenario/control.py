"""What watches and decides: health checks, autoscalers, rollouts, breakers, and processes of one's own.

What keeps wrong answers from users stands in `sim.scenario.containment`.
The first key of each names its kind and, but for `python`, the pool that it looks after.
"""

from typing import Annotated, Literal

from pydantic import Field, Tag

from sim.scenario.containment import Gate, Overflow, QualityBreaker, Release, Team
from sim.scenario.kinds import (
    Code,
    Count,
    Duration,
    Fraction,
    LongerThanZero,
    Model,
    Name,
    NotNegative,
    Positive,
    SmallCount,
    Whole,
    by_key,
)

From = Annotated[Duration, Field(alias="from", description="When it begins.")]


class Health(Model):
    """A probe of every replica. Defaults are Kubernetes' (period 10 s, time-out 1 s, three failures)."""

    health: Name
    """Which pool."""
    interval: LongerThanZero = 10.0
    """Time between probes of a replica."""
    timeout: LongerThanZero = 1.0
    """A probe without an answer after this time has failed; at most the interval."""
    failures: SmallCount = 3
    """Failed probes in a row after which it acts, and good ones after which an ejected replica is taken back."""
    shares_queue: bool = False
    """The probe waits in the engine's queue like a request; false: it fails only when the replica is down or hung."""
    action: Literal["restart", "eject"] = "restart"
    """Restart the replica, or let it take no new requests until it is well."""
    restart: Duration = 120.0
    """Time that a restart takes; the cache is cold after it."""


class Autoscale(Model):
    """Replicas by load, as the Kubernetes Horizontal Pod Autoscaler decides it, with its defaults."""

    autoscale: Name
    """Which pool."""
    metric: Literal["outstanding", "running", "waiting", "kv"] = "outstanding"
    """What is averaged over replicas: attempts sent and not ended, running, waiting, or the share of KV in use."""
    target: Positive
    """The mean that it aims at."""
    min: SmallCount = 1
    """Fewest replicas."""
    max: SmallCount
    """Most replicas."""
    interval: LongerThanZero = 15.0
    """Time between decisions."""
    cold_start: Duration = 300.0
    """Time until a new replica takes requests: machine, image, weights, graphs."""
    up_window: Duration = 0.0
    """More replicas only if wanted throughout this time."""
    down_window: Duration = 300.0
    """Fewer replicas only if wanted throughout this time."""
    tolerance: Fraction = 0.1
    """Nothing happens while the metric is this near to its target."""


class Rollout(Model):
    """A rolling restart: every replica in turn drains, restarts and comes back with a cold cache."""

    rollout: Name
    """Which pool."""
    from_: From = 0.0
    at_once: SmallCount = 1
    """Replicas that are away at the same time."""
    drain: Duration = 30.0
    """Time that requests in flight get to finish; what is left then fails."""
    restart: Duration = 120.0
    """Time from the stop to the next request taken."""


class Breaker(Model):
    """A circuit breaker: while too many attempts fail, only a trickle is let through to probe."""

    breaker: Name
    """Which pool."""
    errors: Fraction = 0.5
    """Share of failed attempts from which on it opens; it closes when the probes fail half as often."""
    window: LongerThanZero = 30.0
    """Time over which attempts are counted."""
    min_attempts: Count = 20
    """Fewest attempts in the window to judge by."""
    open_for: LongerThanZero = 60.0
    """Time it stays open before the probes are judged."""
    probe_per_s: Positive = 1.0
    """Attempts a second let through while it is open; the rest is refused with 429."""


class Shed(Model):
    """A load-shedding switch: on above a queue length, off again below a shorter one."""

    shed: Name
    """Which pool."""
    above: NotNegative
    """Waiting requests a replica above which it switches on."""
    below: NotNegative
    """Waiting requests a replica below which it switches off; less than `above`."""
    level: Annotated[int, Field(ge=0, le=3), Whole] = 1
    """Priority level from which on requests are refused with 429 while it is on."""


class Ramp(Model):
    """Operators who limit traffic and let it in slowly, at a rate that rises in a straight line."""

    ramp: Name
    """Which pool."""
    from_: From
    to: Duration
    """When the limit is lifted."""
    start_per_s: Positive
    """Attempts a second let through at the beginning; the rest is refused with 429."""
    end_per_s: Positive
    """Attempts a second let through at the end."""


class Custom(Model):
    """A process of your own: a generator function that is given the world and yields `world.timeout(seconds)`."""

    python: Code
    """Module and function, `my_module:my_process`; the module is looked for beside the scenario, where the command
    runs, and among installed packages."""


KINDS = (
    *("health", "autoscale", "rollout", "breaker", "shed", "ramp"),
    *("gate", "team", "quality_breaker", "overflow", "release", "python"),
)

Control = Annotated[
    Annotated[Health, Tag("<health>")]
    | Annotated[Autoscale, Tag("<autoscale>")]
    | Annotated[Rollout, Tag("<rollout>")]
    | Annotated[Breaker, Tag("<breaker>")]
    | Annotated[Shed, Tag("<shed>")]
    | Annotated[Ramp, Tag("<ramp>")]
    | Annotated[Gate, Tag("<gate>")]
    | Annotated[Team, Tag("<team>")]
    | Annotated[QualityBreaker, Tag("<quality_breaker>")]
    | Annotated[Overflow, Tag("<overflow>")]
    | Annotated[Release, Tag("<release>")]
    | Annotated[Custom, Tag("<python>")],
    by_key("a mapping with one kind of process", *KINDS),
]
