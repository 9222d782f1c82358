"""The servers' half of a scenario: pools of replicas, one model and one kind of hardware each.

Defaults are those of vLLM's V1 engine (`vllm/config`: CacheConfig, SchedulerConfig) unless a setting says otherwise.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sim.scenario.kinds import (
    LIST,
    MAPPING,
    PLAIN,
    Count,
    Duration,
    File,
    Fraction,
    LongerThanZero,
    Model,
    Name,
    NameOrJson,
    NotNegative,
    OneOf,
    Positive,
    SmallCount,
    Whole,
    by_form,
)
from sim.units import is_number


class LinearSteps(Model):
    """Step time as a sum: a base, and terms for prompt tokens, sequences and context."""

    base: LongerThanZero
    """A step that does nothing else."""
    per_prefill_token: Duration = 0.0
    """Added for each prompt token computed in the step."""
    per_sequence: Duration = 0.0
    """Added for each decoding sequence."""
    per_context_token: Duration = 0.0
    """Added for each token of context that decoding sequences read."""


class BorrowedGrid(Model):
    """Another tabulated combination whose step times to use; what is left out is the pool's own."""

    model: str | None = None
    """Name in the catalogue."""
    hardware: str | None = None
    """Name in the catalogue."""
    tensor_parallel: SmallCount | None = None
    """GPUs that one replica is spread over."""
    backend: str | None = None
    """Engine whose step times are looked up."""


class StepTime(OneOf):
    """How long an engine step takes, where it is not looked up by model and hardware."""

    linear: LinearSteps | None = None
    """A linear fit."""
    grid: BorrowedGrid | None = None
    """Step times tabulated for another combination; use it with `calibration`."""
    profile: File | None = None
    """JSON file of measured step times."""


class Noise(Model):
    """Luck in step times: one factor a step and one that stays for a while, both lognormal."""

    sigma: NotNegative = 0.0
    """Standard deviation of the logarithm, for each step by itself."""
    slow_sigma: NotNegative = 0.0
    """Standard deviation of the logarithm of the factor that stays: hosts are slow in stretches."""
    slow_period: LongerThanZero = 10.0
    """How long that factor stays."""


class Snapshot(Model):
    """What a router knows, and how old that is."""

    refresh: Duration = 0.0
    """Age that its picture of the replicas may reach; 0: it is always fresh."""
    count_own: bool = False
    """Between two looks it adds what it has sent itself."""


class PowerOfD(Snapshot):
    """The least busy of some replicas drawn at random (Mitzenmacher 2001)."""

    choices: Annotated[int, Field(ge=1, le=64), Whole] = 2
    """How many are drawn."""


class PrefixAffinity(Snapshot):
    """Prompts that begin alike go to the same replica: consistent hashing with bounded loads (Mirrokni et al. 2018)."""

    load_bound: Annotated[float, Field(ge=1)] = 1.25
    """A replica takes no more than this times the mean load; what exceeds it goes to the next on the ring."""


class RouterSettings(OneOf):
    """A router with settings of its own."""

    round_robin: Snapshot | None = None
    """In turn."""
    random: Snapshot | None = None
    """At random."""
    least_outstanding: Snapshot | None = None
    """The fewest attempts sent and not ended."""
    power_of_d: PowerOfD | None = None
    """The least busy of some replicas drawn at random."""
    prefix_affinity: PrefixAffinity | None = None
    """By how the prompt begins."""
    session_sticky: Snapshot | None = None
    """A conversation stays where it began."""


RouterName = Literal[
    "round_robin", "random", "least_outstanding", "power_of_d", "prefix_affinity", "session_sticky"
]  # fmt: skip
Router = Annotated[
    Annotated[RouterName, PLAIN] | Annotated[RouterSettings, MAPPING],
    by_form(
        f"one of {', '.join(RouterSettings.model_fields)}, or a mapping with one",
        lambda value: isinstance(value, str),
    ),
]

Level = Count | None
MaxQueue = Annotated[
    Annotated[Count, PLAIN] | Annotated[list[Level], LIST],
    by_form("a whole number, or a list of four of them, one a priority level", is_number),
]


class Admission(Model):
    """What a pool refuses, with 429."""

    max_queue: MaxQueue | None = None
    """Waiting requests on the chosen replica from which on it refuses; a list of four says it by priority level."""
    max_outstanding: Count | None = None
    """Attempts in the whole pool, waiting or running, from which on it refuses."""
    max_wait: LongerThanZero | None = None
    """Refuse when the predicted wait is longer than this."""
    deadline_aware: bool = False
    """Refuse what, by its predicted wait, would not begin before its client's time-out or deadline."""
    limit_per_s: Positive | None = None
    """Attempts a second let in."""
    burst: Annotated[float, Field(ge=1)] | None = None
    """Attempts that may come at once under `limit_per_s`; left out, those of one second."""

    @model_validator(mode="after")
    def _four_levels(self) -> "Admission":
        if isinstance(self.max_queue, list) and len(self.max_queue) != 4:
            raise ValueError(f"expected max_queue for 4 priority levels, got {len(self.max_queue)}")
        return self


class Pool(Model):
    """Replicas of one model on one kind of hardware."""

    model: NameOrJson | None = None
    """Name in the catalogue (`blowout hardware` lists it), or the path of a Hugging Face config.json."""
    hardware: str | None = None
    """Name in the catalogue, such as h100."""
    tensor_parallel: SmallCount = 1
    """GPUs that one replica is spread over."""
    backend: str = "vllm"
    """Engine whose step times are looked up."""
    replicas: SmallCount = 1
    """How many replicas there are."""
    max_replicas: SmallCount | None = None
    """Most there may ever be; left out, `replicas`, or what the pool's autoscaler may ask for."""
    zones: SmallCount = 1
    """Zones that replicas are spread over: replica i is in zone i mod zones."""
    gpu_memory_utilization: Fraction = 0.9
    """Share of GPU memory that weights and KV cache may use."""
    kv_blocks: Count | None = None
    """KV blocks of a replica, in place of what its memory gives; said wherever results are shown."""
    block_size: SmallCount = 16
    """Tokens of a KV block."""
    max_num_seqs: SmallCount = 256
    """Most sequences that run at once on a replica."""
    max_num_batched_tokens: SmallCount = 8192
    """Most tokens computed in one step."""
    max_model_len: Count | None = None
    """Longest prompt and answer together, tokens; left out, what the model allows."""
    chunked_prefill: bool = True
    """A prompt may be computed over several steps."""
    reserve_full_isl: bool = True
    """Admit a request only if its whole prompt fits."""
    prefix_caching: bool = False
    """Keep the KV blocks of prompts, for others that begin alike."""
    watermark: Fraction = 0.0
    """Share of KV blocks that admission leaves free."""
    calibration: Positive = 1.0
    """One factor on all step times, from a measurement."""
    overhead: Duration = 0.0
    """Host time added to each step."""
    ingress: Duration | None = None
    """Time between a client and the engine, for each request: proxy, HTTP, tokeniser; left out, its profile's or 0."""
    egress: Duration | None = None
    """Time between the engine and a client, for each answer; left out, its profile's or 0."""
    fallback: bool = False
    """Answers from here stand in for better ones: who answered is `fallback`, not `model`."""
    step_time: StepTime | None = None
    """Step times of one's own; left out, the tabulated ones of model and hardware."""
    noise: Noise | None = None
    """Luck in step times; left out, what its profile has measured, or none."""
    admission: Admission | None = None
    """What this pool refuses, in place of the fleet's `admission`."""


class Fleet(Model):
    """What serves the users. A single pool may be written without a name, its settings directly under `fleet`."""

    router: Router = "least_outstanding"
    """How a replica is chosen for an attempt: a name, or a mapping with one."""
    admission: Admission = Admission()
    """What every pool refuses."""
    cells: Annotated[int, Field(ge=1, le=4096), Whole] = 1
    """Groups that the replicas of every pool, and the users, are spread over evenly, each with a router of its own."""
    pools: Annotated[dict[Name, Pool], Field(min_length=1)]
    """Replicas, by the name of their pool."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return long_fleet(data)

    @property
    def routing(self) -> tuple[str, Snapshot]:
        """The router's name and its settings."""
        return (self.router, _DEFAULTS[self.router]) if isinstance(self.router, str) else self.router.choice


_DEFAULTS: dict[str, Snapshot] = {
    **dict.fromkeys(RouterSettings.model_fields, Snapshot()),
    "power_of_d": PowerOfD(),
    "prefix_affinity": PrefixAffinity(),
}
ONLY_POOL = "main"
"""What the pool is called whose settings stand directly under `fleet`."""


def long_fleet(data: Any) -> Any:
    """Return a fleet in its long form: without `pools`, all but the fleet's own keys are the only pool's."""
    if not isinstance(data, dict) or "pools" in data:
        return data
    own = {key: value for key, value in data.items() if key in Fleet.model_fields}
    return {**own, "pools": {ONLY_POOL: {key: value for key, value in data.items() if key not in own}}}
