"""What a scenario file may say: strict, frozen, with a default wherever one is honest.

The shape only; what several settings must agree on stands in `sim.scenario.checks`. Times are seconds and
fractions lie in [0, 1]: ``5m`` and ``1%`` are written in files and exist nowhere else.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from sim.scenario.answers import AnswerCheck
from sim.scenario.clients import Clients
from sim.scenario.control import Control
from sim.scenario.expect import Expectation, RuleName
from sim.scenario.faults import Fault
from sim.scenario.fleet import Fleet
from sim.scenario.kinds import (
    MAPPING,
    PLAIN,
    Duration,
    Files,
    Fraction,
    LongerThanZero,
    Model,
    Name,
    NoneIsAWord,
    Quantity,
    Slug,
    SmallCount,
    Whole,
    by_form,
)
from sim.scenario.quality import Quality
from sim.scenario.telemetry import Telemetry
from sim.scenario.workload import Workload


class Slo(Model):
    """What was promised: metrics and their bounds, such as ``ttft_p99: 2s`` and ``errors: 0.1%``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Quantity]

    window: LongerThanZero = 2_592_000.0
    """Time over which the error budget counts."""

    @property
    def targets(self) -> dict[str, float]:
        """Bound by metric name, in seconds, fractions or plain numbers."""
        return dict(self.__pydantic_extra__)

    def latency_s(self, name: str) -> float:
        """Return the bound on latency *name*, such as ttft: the tightest of its percentiles; infinite without one."""
        return min((bound for key, bound in self.targets.items() if key.startswith(f"{name}_p")), default=math.inf)


class Sample(Model):
    """Keep the rows of some requests."""

    sample: Fraction
    """Share of requests whose rows are kept."""


Rows = Annotated[
    Annotated[Literal["all", "none"], PLAIN] | Annotated[Sample, MAPPING],
    by_form("all, none or {sample: 1%}", lambda value: value in ("all", "none")),
    NoneIsAWord,
]


class Scenario(Model):
    """A service, its users, and what goes wrong: one file for simulation and load test."""

    name: Slug
    """A short name in lower case letters, digits and dashes, also of its folder of results."""
    title: str | None = None
    """Heading of figures and reports."""
    story: str = ""
    """What happens here, and why it is worth seeing."""
    duration: LongerThanZero
    """The length of a run, in simulated time."""
    warmup: Duration = 0.0
    """Time at its start that no metric counts."""
    drain: Duration = 300.0
    """Time after `duration` that requests in flight get to finish; nobody new comes, and what is left is unfinished."""
    seed: Annotated[int, Field(ge=0, lt=2**63), Whole] = 1
    """Seed of all randomness of a run."""
    seeds: SmallCount = 1
    """How many runs to play, with seeds counted up from `seed`."""
    vary: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Settings to sweep: dotted paths with their values; every combination is played."""
    scrape_interval: LongerThanZero = 15.0
    """Time between samples of metrics."""
    telemetry: Telemetry | None = Telemetry()
    """What a Prometheus would see of the run; none: nothing is kept."""
    rows: Rows = "all"
    """Which requests leave a row: all, none, or {sample: 1%}."""
    fleet: Fleet
    """What serves the users."""
    workload: Workload
    """What users ask, and when."""
    quality: Quality | None = None
    """What becomes of answers: which are wrong and why, how sure they sound, who looks at them."""
    clients: Clients = Clients()
    """What the users' software does when the service does not answer."""
    faults: list[Fault] = []
    """What goes wrong, and when."""
    control: list[Control] = []
    """What watches and decides: health checks, autoscalers, breakers and the like."""
    checks: dict[Name, AnswerCheck] = {}
    """What answers of a real endpoint must be, by names of your own; a load test judges a sample of them."""
    slo: Slo = Slo()
    """What was promised."""
    alerts: Files = []
    """Prometheus rule files, one or a list: what their alerts did becomes metrics, such as `alert.seed.caught`."""
    expect: dict[RuleName, Expectation] = {}
    """What alert rules must do, by their names: `silent`, or when to fire; `blowout alerts prove` holds them to it."""
    claims: dict[Name, str] = {}
    """Statements that a run must make true, such as ``ttft_p99 <= 2s``."""

    @model_validator(mode="before")
    @classmethod
    def _agents_are_judged(cls, data: Any) -> Any:
        """What an agent does next depends on whether its answers are right, so somebody has to know."""
        if isinstance(data, dict) and data.get("quality") is None and _has_agents(data.get("workload")):
            return {**data, "quality": {}}
        return data


def _has_agents(workload: Any) -> bool:
    if isinstance(workload, Workload):
        return any(cohort.agent for cohort in workload.cohorts.values())
    cohorts = workload.get("cohorts") if isinstance(workload, dict) else None
    return isinstance(cohorts, dict) and any(isinstance(one, dict) and one.get("agent") for one in cohorts.values())
