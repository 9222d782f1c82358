"""Right and wrong: what makes answers wrong beside a cohort's own `error`, how sure they sound, and who looks."""

from typing import Annotated, Literal

from pydantic import Field

from sim.scenario.faults import From, To
from sim.scenario.kinds import (
    MAPPING,
    PLAIN,
    Duration,
    Fraction,
    LongerThanZero,
    Model,
    Name,
    NotNegative,
    OneOf,
    Positive,
    Target,
    by_form,
)
from sim.units import is_number

Kind = Literal["hallucination", "refusal", "format", "tool_error"]
RULES = "rules"
"""The place where rules answer in a model's stead."""


class SlowerThan(OneOf):
    """A latency above which answers suffer."""

    queue: LongerThanZero | None = None
    """Time until the engine began, from the schedule."""
    ttft: LongerThanZero | None = None
    """Time to the first token, from the schedule."""
    e2e: LongerThanZero | None = None
    """Time to the whole answer, from the schedule."""


class Cause(Model):
    """Something that makes answers wrong; of several, each strikes by its own luck, and the first in the file is named.

    A systematic mode is a cause with a small `share` and an `error` near 100%: always the same requests. What is left
    out does not restrict it.
    """

    error: Fraction
    """Share of the answers that it concerns which it makes wrong."""
    kind: Kind = "hallucination"
    """How they are wrong."""
    share: Fraction = 1.0
    """Share of requests that it concerns at all, drawn once for each."""
    by_session: bool = False
    """It concerns all requests of a session, or none."""
    cohorts: list[Name] | None = None
    """Whom it concerns."""
    at: Target | None = None
    """Pool or replicas whose answers it concerns; `rules` where those answer; left out, those of all models."""
    version: Name | None = None
    """Version of model, prompt or settings whose answers it concerns (see `release` in `control`)."""
    above: SlowerThan | None = None
    """Only answers that were slower: a missed retrieval, a truncated stream."""
    from_: From = 0.0
    to: To = None
    grows: bool = False
    """Drift: `error` is reached at `to`, in a straight line from none at `from`."""
    visible: bool = False
    """The model notices: its confidence falls as its chance of being right does."""


class Confidence(Model):
    """How sure answers sound: c = logistic(overconfidence x logit(p) + shift + noise), p the chance to be right.

    That chance varies by request: Beta(discrimination x mean, discrimination x (1 - mean)).
    """

    discrimination: Positive = 2.0
    """Small: most requests are clearly easy or clearly hard. Large: all are alike, and confidence tells nothing."""
    overconfidence: Positive = 1.0
    """Above 1: more extreme than is true (1 over the temperature)."""
    shift: float = 0.0
    """Added to the logit: above 0 everything sounds surer than it is."""
    noise: NotNegative = 0.0
    """Standard deviation of what has nothing to do with being right, on the logit."""


def _is_plain(value: object) -> bool:
    return is_number(value) or isinstance(value, str)


class Evaluation(Model):
    """Online evaluation: a share of the answers is looked at by a judge who may err."""

    share: (
        Annotated[
            Annotated[Fraction, PLAIN] | Annotated[dict[Name, Fraction], MAPPING],
            by_form("a fraction such as 5% or one by cohort, {NAME: 5%}", _is_plain),
        ]
        | None
    ) = None
    """Share of answers looked at, of all or by cohort; left out, that of `telemetry.evaluate`."""
    sensitivity: Fraction = 1.0
    """Share of the wrong answers that the judge calls wrong."""
    specificity: Fraction = 1.0
    """Share of the right answers that the judge calls right."""
    delay: Duration = 0.0
    """Time from an answer until its verdict is known."""


class Lag(Model):
    """Times whose logarithm is normal."""

    median: LongerThanZero
    """Median time."""
    sigma: NotNegative = 0.0
    """Standard deviation of the logarithm."""


class Lags(OneOf):
    """How late something comes."""

    lognormal: Lag | None = None
    """Times whose logarithm is normal."""


class Signal(Model):
    """What some users do about an answer, some time later: they edit it, escalate, complain."""

    if_wrong: Fraction
    """Share of the wrong answers about which they do."""
    if_right: Fraction = 0.0
    """Share of the right answers about which they do all the same."""
    lag: Annotated[
        Annotated[Duration, PLAIN] | Annotated[Lags, MAPPING],
        by_form(
            "a duration or {lognormal: {median: 6h, sigma: 1}}",
            lambda value: is_number(value) or isinstance(value, str),
        ),
    ] = 0.0
    """Time from an answer until its signal arrives."""


class Quality(Model):
    """What becomes of answers that came."""

    causes: dict[Name, Cause] = {}
    """What makes answers wrong, beside each cohort's own `error`."""
    kinds: dict[Kind, Fraction] = {"hallucination": 1.0}
    """How answers are wrong that only the cohort's own `error` explains: shares that sum to 1."""
    user_sigma: Annotated[NotNegative, Field(le=5)] = 0.0
    """Standard deviation of the logit of `error` between users (sessions): some meet more errors than others."""
    confidence: Confidence | None = None
    """How sure answers sound; left out, nobody asks."""
    evaluation: Evaluation = Evaluation()
    """Who looks at them, and how well."""
    signals: dict[Name, Signal] = {}
    """What users do about answers, some time later; counted when it arrives, in `llm_signals_total`."""
