"""What goes wrong: a few mechanisms, each with a target, a time and a size.

A target is a pool (``chat``), or some of its replicas: ``chat/3``, ``chat/0-4``, ``chat/zone-1``. `surge` and
`shift` are about users: their target is a cohort, or ``all``.
"""

from typing import Annotated, Literal

from pydantic import Field, Tag

from sim.scenario.kinds import Duration, Fraction, LongerThanZero, Model, Name, Positive, Target, Whole, by_key

AtLeastOne = Annotated[float, Field(ge=1)]
From = Annotated[Duration, Field(alias="from", description="When it begins.")]
To = Annotated[Duration | None, Field(description="When it ends; none: it lasts until the run ends.")]
Label = Annotated[Name | None, Field(description="What events call it; left out, mechanism and target.")]
StartCmd = Annotated[
    str | None, Field(min_length=1, description="Shell command with which a load test makes it happen at `from`.")
]
StopCmd = Annotated[
    str | None,
    Field(min_length=1, description="Shell command with which a load test ends it, at `to` or when the test ends."),
]


class Slow(Model):
    """Replicas whose steps take longer: a throttled GPU, a noisy neighbour."""

    slow: Target
    """Which replicas."""
    from_: From = 0.0
    to: To = None
    factor: AtLeastOne
    """How many times as long a step takes."""
    name: Label = None
    start_cmd: StartCmd = None
    stop_cmd: StopCmd = None


class Stop(Model):
    """Replicas that stop: they crash and come back with a cold cache, or hang and go on where they were."""

    stop: Target
    """Which replicas."""
    from_: From = 0.0
    to: To = None
    how: Literal["crash", "hang"] = "crash"
    """A crash fails what was in flight (502) and is down until `to`; in a hang nothing moves and nothing is said."""
    name: Label = None
    start_cmd: StartCmd = None
    stop_cmd: StopCmd = None


class Lose(Model):
    """Replicas that lose something: requests on their way in, streams on their way out, or KV memory."""

    lose: Target
    """Which replicas."""
    from_: From = 0.0
    to: To = None
    share: Fraction = 1.0
    """How much of it."""
    what: Literal["requests", "streams", "kv"] = "requests"
    """Requests never arrive (the client waits until it gives up), streams break mid-way, KV blocks are gone."""
    name: Label = None
    start_cmd: StartCmd = None
    stop_cmd: StopCmd = None


class Refuse(Model):
    """Replicas that answer at once with an error: a share of attempts, or all above a rate."""

    refuse: Target
    """Which replicas; with `above_per_s` a whole pool."""
    from_: From = 0.0
    to: To = None
    share: Fraction = 1.0
    """Share of attempts that fail."""
    status: Annotated[int, Field(ge=400, le=599), Whole] = 503
    """HTTP status they get."""
    above_per_s: Positive | None = None
    """In place of a share: attempts a second above which the pool refuses with 429 (an upstream rate limit)."""
    burst: AtLeastOne | None = None
    """Attempts that may come at once under `above_per_s`; left out, those of one second."""
    name: Label = None
    start_cmd: StartCmd = None
    stop_cmd: StopCmd = None


class Delay(Model):
    """A slow way in: a proxy, a DNS server, a network."""

    delay: Target
    """Which pool."""
    from_: From = 0.0
    to: To = None
    by: LongerThanZero
    """Time added to every attempt before it arrives."""
    name: Label = None
    start_cmd: StartCmd = None
    stop_cmd: StopCmd = None


class Surge(Model):
    """More users than usual: extra ones, with a stream of their own, so that the usual ones stay the same."""

    surge: Name
    """Which cohort, or all."""
    from_: From = 0.0
    to: To = None
    factor: AtLeastOne
    """How many times as many users come."""
    name: Label = None


class Misroute(Model):
    """Requests that end up in a pool which is not meant for them (Anthropic's postmortem of September 2025)."""

    misroute: Name
    """Which pool they are meant for."""
    into: Name
    """Which pool gets them; what answers there are worth, `quality` says."""
    from_: From = 0.0
    to: To = None
    share: Fraction
    """Share of requests."""
    sticky: bool = False
    """All requests of a session, or none: once misrouted, always misrouted."""
    name: Label = None
    start_cmd: StartCmd = None
    stop_cmd: StopCmd = None


class Shift(Model):
    """Users who ask for more: prompts or answers of another length."""

    shift: Name
    """Which cohort, or all."""
    from_: From = 0.0
    to: To = None
    prompt_factor: Positive = 1.0
    """Factor on the tokens of each prompt."""
    output_factor: Positive = 1.0
    """Factor on the tokens of each answer."""
    name: Label = None


class _AtRandom(Model):
    mtbf: LongerThanZero
    """Mean time that a replica is well before it happens, exponential."""
    mttr: LongerThanZero
    """Mean time that it lasts, exponential."""


class _EverySoOften(Model):
    every: LongerThanZero
    """Time from one beginning to the next; the first is at `from`."""
    lasting: LongerThanZero
    """How long it lasts each time."""


class RandomSlow(_AtRandom, Slow):
    """`slow`, at random times."""


class RandomStop(_AtRandom, Stop):
    """`stop`, at random times."""


class RandomLose(_AtRandom, Lose):
    """`lose`, at random times."""


class RandomRefuse(_AtRandom, Refuse):
    """`refuse`, at random times."""


class PeriodicSlow(_EverySoOften, Slow):
    """`slow`, again and again."""


class PeriodicStop(_EverySoOften, Stop):
    """`stop`, again and again."""


class PeriodicLose(_EverySoOften, Lose):
    """`lose`, again and again."""


class PeriodicRefuse(_EverySoOften, Refuse):
    """`refuse`, again and again."""


OF_REPLICAS = ("slow", "stop", "lose", "refuse")
"""Mechanisms that may also come at random, or periodically."""

RandomFault = Annotated[
    Annotated[RandomSlow, Tag("<slow>")]
    | Annotated[RandomStop, Tag("<stop>")]
    | Annotated[RandomLose, Tag("<lose>")]
    | Annotated[RandomRefuse, Tag("<refuse>")],
    by_key("a mapping with one mechanism", *OF_REPLICAS),
]
PeriodicFault = Annotated[
    Annotated[PeriodicSlow, Tag("<slow>")]
    | Annotated[PeriodicStop, Tag("<stop>")]
    | Annotated[PeriodicLose, Tag("<lose>")]
    | Annotated[PeriodicRefuse, Tag("<refuse>")],
    by_key("a mapping with one mechanism", *OF_REPLICAS),
]


class Random(Model):
    """A mechanism that befalls each replica of its target by itself, at random times."""

    random: RandomFault
    """The mechanism, and `mtbf` and `mttr`: mean time that a replica is well before it, and mean time that it lasts."""


class Periodic(Model):
    """A mechanism that comes again and again, to all replicas of its target at once."""

    periodic: PeriodicFault
    """The mechanism, and `every` and `lasting`: time from one beginning to the next, and how long it lasts."""


ReplicaFault = Slow | Stop | Lose | Refuse
"""What befalls replicas; `Random` and `Periodic` hold one of these."""
TimedFault = ReplicaFault | Delay | Misroute | Surge | Shift
"""What happens once, from a time to a time."""
KINDS = (*OF_REPLICAS, "delay", "misroute", "surge", "shift", "random", "periodic")

Fault = Annotated[
    Annotated[Slow, Tag("<slow>")]
    | Annotated[Stop, Tag("<stop>")]
    | Annotated[Lose, Tag("<lose>")]
    | Annotated[Refuse, Tag("<refuse>")]
    | Annotated[Delay, Tag("<delay>")]
    | Annotated[Misroute, Tag("<misroute>")]
    | Annotated[Surge, Tag("<surge>")]
    | Annotated[Shift, Tag("<shift>")]
    | Annotated[Random, Tag("<random>")]
    | Annotated[Periodic, Tag("<periodic>")],
    by_key("a mapping with one mechanism", *KINDS),
]
