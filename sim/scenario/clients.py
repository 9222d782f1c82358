"""The users' software: how long it waits, what it tries again, and when it goes away.

Behind the scenes each cohort has one policy; what a cohort says of its own replaces `clients` as a whole.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sim.scenario.kinds import (
    MAPPING,
    PLAIN,
    Duration,
    Fraction,
    LongerThanZero,
    Model,
    NoneIsAWord,
    OneOf,
    Positive,
    Whole,
    by_form,
)
from sim.units import is_number


class ExponentialTime(Model):
    """A memoryless time."""

    mean: LongerThanZero
    """Its mean."""


class PatienceDraw(OneOf):
    """How patience is drawn, for each user anew."""

    exponential: ExponentialTime | None = None
    """A memoryless time (Erlang-A's users)."""


Patience = Annotated[
    Annotated[LongerThanZero, PLAIN] | Annotated[PatienceDraw, MAPPING],
    by_form("a duration, {exponential: {mean: 20s}} or none", lambda value: is_number(value) or isinstance(value, str)),
]


class Backoff(Model):
    """The wait before the k-th retry: base x factor^(k-1), at most max, spread by jitter."""

    base: Duration = 0.0
    """Wait before the first retry."""
    factor: Annotated[float, Field(ge=1)] = 2.0
    """How much longer each next wait is."""
    max: LongerThanZero | None = None
    """Longest wait; none: no bound."""
    jitter: Annotated[Literal["none", "full", "equal"], NoneIsAWord] = "full"
    """Random part of the wait: none of it, all of it, or half of it (Brooker, AWS Architecture Blog, 2015)."""


class RetryBudget(Model):
    """A token bucket that retries draw from: each first attempt earns a share of a token."""

    share: Fraction = 0.1
    """Retries allowed for each first attempt, in the long run."""
    burst: Annotated[float, Field(ge=1)] = 10.0
    """Most tokens the bucket holds; it starts full."""


class Hedge(Model):
    """A second copy of a request that is slow; whichever answers first wins (Dean and Barroso, 2013)."""

    after: LongerThanZero
    """Sent when no first token has come after this time."""
    share: Fraction = 1.0
    """At most this share of requests is hedged."""
    cancel: bool = True
    """The loser is aborted; false: it is served to the end."""


class Clients(Model):
    """What the users' software does when the service does not answer."""

    timeout: LongerThanZero | None = None
    """Give up on an attempt after this time; none: never."""
    first_token_timeout: LongerThanZero | None = None
    """Give up on an attempt that has no first token after this time; none: never."""
    deadline: LongerThanZero | None = None
    """Give up on the request, retries and all, after this time; none: never."""
    patience: Patience | None = None
    """Users leave for good when no first token has come after this time; none: never."""
    retries: Annotated[int, Field(ge=0, le=30), Whole] = 0
    """Further attempts after a failed one."""
    retry_on: list[Literal["rejected", "timed_out", "failed"]] = ["rejected", "timed_out", "failed"]
    """Outcomes of an attempt that are tried again."""
    backoff: Backoff = Backoff()
    """The wait before a retry."""
    retry_budget: RetryBudget | None = None
    """A budget for retries; none: no bound but `retries`."""
    throttle: Annotated[float, Field(ge=1)] | None = None
    """K of adaptive throttling: clients hold back what exceeds K times what is accepted (SRE book, chapter 21)."""
    hedge: Hedge | None = None
    """A second copy of slow requests."""
    disconnect: Literal["abort", "zombie"] = "abort"
    """What a client's leaving does: the engine aborts its work, or never hears of it (a proxy hides it)."""
    limit_per_s: Positive | None = None
    """Attempts a second that the gateway lets these users send; more are refused with 429."""
    burst: Annotated[float, Field(ge=1)] | None = None
    """Attempts that may come at once under `limit_per_s`; left out, those of one second."""

    @model_validator(mode="after")
    def _once_each(self) -> "Clients":
        if len(set(self.retry_on)) < len(self.retry_on):
            raise ValueError(f"expected each outcome of retry_on once, got {', '.join(self.retry_on)}")
        return self
