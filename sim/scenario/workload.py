"""The users' half of a scenario: when they ask, how much, and of which kind they are."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sim.scenario.agents import Agent
from sim.scenario.clients import Clients
from sim.scenario.kinds import (
    MAPPING,
    PLAIN,
    Count,
    Duration,
    File,
    Fraction,
    LongerThanZero,
    Model,
    Name,
    NotNegative,
    OneOf,
    Positive,
    SmallCount,
    Whole,
    by_form,
)
from sim.units import is_number


class Bounded(Model):
    """A length with limits."""

    min: Count = 1
    """Shortest length, tokens; shorter draws become this."""
    max: Count | None = None
    """Longest length, tokens; longer draws become this."""

    @model_validator(mode="after")
    def _ordered(self) -> "Bounded":
        if self.max is not None and self.max < self.min:
            raise ValueError(f"expected max to be at least min, got max {self.max} and min {self.min}")
        return self


class Lognormal(Bounded):
    """Lengths whose logarithm is normal."""

    median: Positive
    """Median length, tokens."""
    sigma: NotNegative
    """Standard deviation of the logarithm."""


class Gamma(Bounded):
    """Gamma-distributed lengths."""

    mean: Positive
    """Mean length, tokens."""
    cv: Positive
    """Coefficient of variation: standard deviation over mean."""


class Exponential(Model):
    """Geometric lengths on 1, 2, 3, ...: what is memoryless in whole tokens."""

    mean: Annotated[float, Field(ge=1)]
    """Mean length, tokens."""


class Empirical(Model):
    """Lengths drawn from a list."""

    values: Annotated[list[Count], Field(min_length=1)]
    """Lengths, tokens."""
    weights: list[NotNegative] | None = None
    """How often each is drawn, relative to the others; left out, all alike."""

    @model_validator(mode="after")
    def _weighed(self) -> "Empirical":
        if self.weights is not None and (len(self.weights) != len(self.values) or sum(self.weights) <= 0):
            raise ValueError(f"expected {len(self.values)} weights, one a value, with a sum above 0")
        return self


class Distribution(OneOf):
    """How a length is drawn."""

    lognormal: Lognormal | None = None
    """Lengths whose logarithm is normal."""
    gamma: Gamma | None = None
    """Gamma-distributed lengths."""
    exponential: Exponential | None = None
    """Geometric lengths."""
    empirical: Empirical | None = None
    """Lengths drawn from a list."""
    named: Name | None = None
    """A distribution that ships with Blowout, fitted to a public trace, such as azure-conv-prompt."""


Dist = Annotated[
    Annotated[Count, PLAIN] | Annotated[Distribution, MAPPING],
    by_form("a whole number of tokens or a mapping with one of " + ", ".join(Distribution.model_fields), is_number),
]


class GammaArrivals(Model):
    """Gamma-distributed gaps between requests: cv 1 is Poisson, above it arrivals clump."""

    cv: Positive
    """Coefficient of variation of the gaps."""


class Stage(Model):
    """From a time on, a rate."""

    at: Duration
    """When the rate begins, from the start of the run."""
    rate_per_s: NotNegative
    """Requests a second from then on."""


class Diurnal(Model):
    """A day of 24 hours that repeats, with `workload.rate_per_s` as its mean."""

    peak_to_mean: Annotated[float, Field(ge=1, le=2)]
    """Rate at the peak over the mean rate; a sinusoid that peaks above 2 would be negative at night."""
    peak_at: Duration = 50_400.0
    """Time of the peak, from the start of the run."""


class Bursts(Model):
    """A rate that jumps between `workload.rate_per_s` and a burst rate (Markov-modulated Poisson)."""

    rate_per_s: NotNegative
    """Requests a second while a burst lasts."""
    mean_on: LongerThanZero
    """Mean length of a burst, exponential."""
    mean_off: LongerThanZero
    """Mean time between bursts, exponential."""


class Closed(Model):
    """A fixed number of users who wait for their answer, think, and ask again."""

    users: Count
    """How many users there are."""
    think: LongerThanZero
    """Mean time from an answer to the next question, exponential."""


class ArrivalProcess(OneOf):
    """When users ask, where it is not plain Poisson."""

    gamma: GammaArrivals | None = None
    """Gamma-distributed gaps."""
    piecewise: Annotated[list[Stage], Field(min_length=1)] | None = None
    """Poisson, at rates that change at given times."""
    diurnal: Diurnal | None = None
    """Poisson, with a daily curve."""
    bursts: Bursts | None = None
    """Poisson, with bursts."""
    closed: Closed | None = None
    """A fixed number of users."""


Arrivals = Annotated[
    Annotated[Literal["poisson"], PLAIN] | Annotated[ArrivalProcess, MAPPING],
    by_form(
        "poisson or a mapping with one of " + ", ".join(ArrivalProcess.model_fields), lambda value: value == "poisson"
    ),
]


class Columns(Model):
    """What a plain CSV calls its columns."""

    timestamp: str = "timestamp"
    """When the request arrived."""
    prompt_tokens: str = "prompt_tokens"
    """Tokens of its prompt."""
    output_tokens: str = "output_tokens"
    """Tokens of its answer."""


class Trace(Model):
    """Recorded requests, replayed: times and lengths come from a file."""

    file: File
    """The trace: beside the scenario file, or where the command runs."""
    format: Literal["azure", "mooncake", "csv", "rows"] | None = None
    """How it is written; left out, it is recognised."""
    time_scale: Positive = 1.0
    """Recorded times are multiplied by this: 0.5 replays twice as fast."""
    columns: Columns = Columns()
    """What a plain CSV calls its columns."""
    repeat: bool = False
    """Begin again at the end of the file until the run ends."""


def long_trace(data: object) -> object:
    """Return a trace in its long form: a text is the file's path."""
    return {"file": data} if isinstance(data, str) else data


class Sessions(Model):
    """Every arrival is the first turn of a conversation."""

    turns: Dist
    """Turns of a conversation."""
    think: LongerThanZero
    """Mean time from an answer to the next turn, exponential."""
    carry: bool = True
    """Each prompt holds the turns before it."""


class Prefix(Model):
    """Leading tokens that many prompts share, such as a system prompt."""

    groups: SmallCount
    """How many different prefixes there are."""
    tokens: Count
    """Length of each, tokens."""


class Cohort(Model):
    """Requests of one kind."""

    share: Fraction = 1.0
    """Share of all arrivals; the shares of all cohorts sum to 1."""
    prompt_tokens: Dist | None = None
    """Tokens of the prompt; only a trace makes it superfluous."""
    output_tokens: Dist | None = None
    """Tokens of the answer; only a trace makes it superfluous."""
    priority: Annotated[int, Field(ge=0, le=3), Whole] = 0
    """Priority level; 0 is served first."""
    pool: Name | None = None
    """Pool that serves this cohort; left out, the first."""
    error: Fraction = 0.0
    """Share of answers that are wrong."""
    prompts: File | None = None
    """What a load test really asks: a file with one JSON object a line, `{"messages": [...]}` or `{"prompt": "..."}`.
    A simulation goes by the lengths."""
    prefix: Prefix | None = None
    """Leading tokens that prompts of this cohort share."""
    agent: Agent | None = None
    """Make every arrival a task of several steps, each a request like this cohort's."""
    clients: Clients | None = None
    """These users' software, in place of `clients`; none: like everybody's."""


class Workload(Model):
    """What users ask, and when."""

    rate_per_s: Positive | None = None
    """Arrivals a second, on average; of conversations where there are sessions."""
    arrivals: Arrivals = "poisson"
    """When requests arrive: poisson, or a mapping with one of gamma, piecewise, diurnal, bursts, closed."""
    trace: Annotated[Trace | None, BeforeValidator(long_trace, json_schema_input_type=str | Trace | None)] = None
    """Recorded requests to replay, in place of rate, arrivals and lengths."""
    sessions: Sessions | None = None
    """Make every arrival the first turn of a conversation."""
    cohorts: dict[Name, Cohort] = {}
    """Kinds of requests, by name; a trace alone is one cohort called all."""

    @model_validator(mode="before")
    @classmethod
    def _trace_alone_is_one_cohort(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("trace") is not None and not data.get("cohorts"):
            return {**data, "cohorts": {"all": {}}}
        return data
