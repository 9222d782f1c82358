"""What keeps wrong answers from users: gates into teams of people, a breaker on quality, overflow, and releases.

All of them are entries of `control`, told apart by their first key.
"""

from typing import Annotated, Literal

from pydantic import Field

from sim.scenario.clients import ExponentialTime, Patience
from sim.scenario.faults import From
from sim.scenario.kinds import (
    LIST,
    MAPPING,
    PLAIN,
    Count,
    Duration,
    Fraction,
    LongerThanZero,
    Model,
    Name,
    NoneIsAWord,
    NotNegative,
    OneOf,
    SmallCount,
    Whole,
    by_form,
)
from sim.units import is_number

Sure = Annotated[Fraction, Field(description="How sure it must be, one-sided; 50% goes by the bare share.")]


class Gate(Model):
    """A confidence gate: the answers of a pool that sound least sure wait for a person. It has one way to choose."""

    gate: Name
    """Which pool."""
    to: Name
    """The team that reviews them (see `team`)."""
    below: Fraction | None = None
    """Every answer whose confidence is below this."""
    lowest: Fraction | None = None
    """This share of the answers, the least confident, by what the last minutes have shown."""
    load_aware: Fraction | None = None
    """As many, the least confident first, as keep this share of the reviewers' time in use."""


class Shift(Model):
    """How many work from a time of day on."""

    at: Duration
    """Time of day (of the run, which begins at midnight) from which so many work, every day."""
    reviewers: Annotated[int, Field(ge=0, le=1_000_000), Whole]
    """How many work."""


class LognormalTime(Model):
    """A time whose logarithm is normal."""

    median: LongerThanZero
    """Its median."""
    sigma: Annotated[NotNegative, Field(le=5)]
    """Standard deviation of the logarithm."""


class HandlingDraw(OneOf):
    """How long a review takes, drawn for each answer."""

    exponential: ExponentialTime | None = None
    """A memoryless time."""
    lognormal: LognormalTime | None = None
    """A time whose logarithm is normal."""


class Team(Model):
    """People who review answers before users see them, in the order in which they came."""

    team: Name
    """What it is called."""
    reviewers: Annotated[
        Annotated[SmallCount, PLAIN] | Annotated[list[Shift], Field(min_length=1), LIST],
        by_form("a number of reviewers or a list of shifts", is_number),
    ]
    """How many review at the same time; or how many from which time of day on."""
    handling: Annotated[
        Annotated[LongerThanZero, PLAIN] | Annotated[HandlingDraw, MAPPING],
        by_form("a duration, {exponential: {mean: 3m}} or {lognormal: {median: 2m, sigma: 0.8}}",
                lambda value: is_number(value) or isinstance(value, str)),
    ]  # fmt: skip
    """Time that one review takes."""
    patience: Patience | None = None
    """Time after which an answer is wanted, reviewed or not; none: it waits for ever."""
    late: Literal["deliver", "withhold"] = "deliver"
    """What becomes of an answer that nobody has begun to review by then."""
    misses: Fraction = 0.0
    """Share of the wrong answers that a reviewer takes for right."""
    false_alarms: Fraction = 0.0
    """Share of the right answers that a reviewer replaces by a wrong one."""


class QualityBreaker(Model):
    """A circuit breaker on what the evaluation says: while answers are bad, somebody else answers."""

    quality_breaker: Name
    """Which pool."""
    open_above: Fraction
    """Share of wrong answers above which it opens, for sure."""
    close_below: Fraction
    """Share of wrong answers among the probes below which it closes, for sure; at most `open_above`."""
    window: LongerThanZero = 1800.0
    """Time over which evaluated answers are counted."""
    min_graded: Count = 100
    """Fewest evaluated answers to judge by."""
    sure: Sure = 0.95
    hold: Duration = 600.0
    """Shortest time that it stays open; nothing passes meanwhile."""
    probe: Fraction = 0.05
    """Share of requests that the pool answers after that time, to be evaluated; the rest is still diverted."""
    fallback: Name = "rules"
    """Who answers while it is open: `rules`, at once, or a pool."""


class Overflow(Model):
    """A fallback for a long queue: on above a queue length, off again below a shorter one."""

    overflow: Name
    """Which pool."""
    into: Name = "rules"
    """Who answers meanwhile: `rules`, at once, or a pool."""
    above: NotNegative
    """Waiting requests a replica above which it switches on."""
    below: NotNegative
    """Waiting requests a replica below which it switches off; less than `above`."""


class Release(Model):
    """A version (see `quality.causes`) that gets traffic, is watched, and is taken back if it makes answers worse."""

    release: Name
    """Which version."""
    from_: From = 0.0
    trial: Annotated[Literal["none", "shadow", "canary"], Field(description=(
        "What must be passed before everybody gets it: nothing; copies of what is evaluated, which no user sees; or "
        "`steps`, beside the version before."
    )), NoneIsAWord] = "canary"  # fmt: skip
    steps: list[Fraction] = [0.01, 0.05, 0.25]
    """Shares of the sessions that a canary gets, one after the other; everybody after the last."""
    dwell: Duration = 1800.0
    """Shortest time in the shadow, or at each step."""
    min_graded: Count = 500
    """Fewest evaluated answers of the version in the shadow, or at each step."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Chance of an alarm about a version that is as good as the one before, however often one looks: in the trial, and
    again once everybody has it."""
    rollback: Duration = 60.0
    """Time from the alarm until nobody gets it any more: a flag takes a minute, a pipeline an hour."""
