"""Agents: tasks of several steps, each of them a request whose next is decided when the last has ended."""

from typing import Annotated, Literal

from pydantic import Field

from sim.scenario.kinds import (
    LIST,
    PLAIN,
    Duration,
    Fraction,
    Model,
    Name,
    Positive,
    Whole,
    by_form,
)
from sim.units import is_number

MOST_STEPS = 100
MOST_RETRIES = 50
MOST_RESUMES = 10

_Step = Annotated[int, Field(ge=1, le=MOST_STEPS), Whole]


class Verifier(Model):
    """Something that looks at the answer of each step before the agent goes on."""

    sensitivity: Fraction
    """Share of the wrong answers that it flags."""
    false_alarm: Fraction = 0.0
    """Share of the right answers that it flags."""
    by: Name | None = None
    """Cohort as which it asks a model, a request for each look; left out, it takes neither time nor a request."""


class Checkpoint(Model):
    """Where a task that fails can go on from."""

    every: _Step
    """So many steps are kept at a time."""
    resumes: Annotated[int, Field(ge=1, le=MOST_RESUMES), Whole] = 1
    """How often a task goes back to its last checkpoint before it gives up."""


Irreversible = Annotated[
    Annotated[Fraction, PLAIN] | Annotated[list[_Step], LIST],
    by_form("a share such as 20%, or a list of steps", lambda value: is_number(value) or isinstance(value, str)),
]


class Agent(Model):
    """Every arrival is a task: all of its steps must be right, and nobody tells the agent which are."""

    steps: _Step
    """Steps of a task."""
    verifier: Verifier | None = None
    """Who looks at each answer; left out, nobody."""
    retries: Annotated[int, Field(ge=0, le=MOST_RETRIES), Whole] = 0
    """How often a step is tried again that was flagged, or not answered; what came last is kept."""
    systematic: Fraction = 0.0
    """Share of steps that come out the same however often they are tried."""
    difficulty: Positive | None = None
    """Tasks differ: each has its own chance to be right, Beta(difficulty x m, difficulty x (1 - m)) around the mean m
    of its cohort; small: most tasks are clearly easy or clearly hard. Left out, all are alike."""
    unanswered: Literal["abandon", "retry"] = "abandon"
    """What a step that was not answered makes the agent do, once its client has tried all it does."""
    checkpoint: Checkpoint | None = None
    """Where a task goes on that would be given up; left out, it is given up."""
    irreversible: Irreversible = 0.0
    """Steps whose action cannot be undone, once their answer is taken: a share of all, or which."""
    think: Duration = 0.0
    """Mean time between an answer and the next request, exponential: tools run."""
    carry: bool = True
    """Each prompt holds the steps before it."""
