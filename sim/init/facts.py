"""A value and how we know it: measured, derived or guessed; no value enters a described scenario without one."""

from dataclasses import dataclass, field
from typing import Any, Literal

Mark = Literal["measured", "derived", "guessed"]

# The Pool fields that can be described, in the order in which a reader wants them.
POOL_FIELDS = (
    "model",
    "hardware",
    "tensor_parallel",
    "replicas",
    "gpu_memory_utilization",
    "kv_blocks",
    "block_size",
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_model_len",
    "chunked_prefill",
    "prefix_caching",
    "reserve_full_isl",
    "watermark",
    "step_time",
    "calibration",
)


@dataclass(frozen=True)
class Fact:
    """One value of a scenario, with the mark and the reason that stand beside it as a comment."""

    value: Any
    mark: Mark
    why: str

    @property
    def comment(self) -> str:
        """The comment, as it is written in the file."""
        return f"{self.mark}: {self.why}"


def measured(value: Any, why: str) -> Fact:
    """Return *value* as something that was read: from a flag, a metric or a query."""
    return Fact(value, "measured", why)


def derived(value: Any, why: str) -> Fact:
    """Return *value* as something that follows from what was read, or from vLLM's own defaults."""
    return Fact(value, "derived", why)


def guessed(value: Any, why: str) -> Fact:
    """Return *value* as something that nobody told us."""
    return Fact(value, "guessed", why)


@dataclass
class Service:
    """What is known of one served model: its pool, its users, and what they saw.

    ``name`` is what the endpoint calls the model; ``rate`` is in requests per second over all replicas;
    ``prompt`` and ``output`` hold the value of a length distribution in scenario form; ``observed`` are
    comment lines to compare a run with; ``unsupported`` are (flag, why it matters) pairs.
    """

    name: str | None = None
    aliases: tuple[str, ...] = ()
    pool: dict[str, Fact] = field(default_factory=dict)
    rate: Fact | None = None
    prompt: Fact | None = None
    output: Fact | None = None
    observed: list[str] = field(default_factory=list)
    unsupported: list[tuple[str, str]] = field(default_factory=list)
