"""What the kernels need to know of a pool, and of the clients of a cohort."""

import dataclasses
import math

import numpy as np

from sim.engine import state
from sim.engine.latency import StepTimes
from sim.records import Outcome

JITTERS = ("none", "full", "equal")
RETRIES_MAX = 30
"""Attempts of a request are numbered in six bits, hedged copies included (`sim.engine.attempts.ATTEMPT_BITS`)."""


def share_below(share: float) -> int:
    """Return what a *share* of all hashes (64 bits) is below."""
    return min(int(share * 2.0**64), 2**64 - 1)


@dataclasses.dataclass(frozen=True, slots=True)
class ClientPolicy:
    """The clients of one cohort. Times are seconds; infinite means never.

    *timeout_s* and *first_token_s* end an attempt, *deadline_s* (from the schedule) the request; *patience_s*, the mean
    when *patience_exponential*, is how long users stay without a token (then the request is cancelled).
    *budget*: retries earned by each request (token bucket, full with *budget_burst*). *throttle*: K of the SRE book, 0
    is off. *hedge_s*: a second copy when no token came by then, for at most *hedge_share* of requests; the first token
    wins, and the loser is aborted when *hedge_cancel*. *zombie*: whoever hangs up is served to the end all the same.
    *limit_per_s*: a token bucket at the gateway.
    """

    timeout_s: float = math.inf
    first_token_s: float = math.inf
    deadline_s: float = math.inf
    patience_s: float = math.inf
    patience_exponential: bool = False
    retries: int = 0
    retry_on: frozenset[Outcome] = frozenset({Outcome.REJECTED, Outcome.TIMED_OUT, Outcome.FAILED})
    backoff_s: float = 0.0
    backoff_factor: float = 2.0
    backoff_max_s: float = math.inf
    jitter: str = "full"
    budget: float = math.inf
    budget_burst: float = 10.0
    throttle: float = 0.0
    hedge_s: float = math.inf
    hedge_share: float = 1.0
    hedge_cancel: bool = True
    zombie: bool = False
    limit_per_s: float = math.inf
    limit_burst: float = 1.0

    def __post_init__(self) -> None:
        """Check what kernels rely on."""
        if not 0 <= self.retries <= RETRIES_MAX:
            raise ValueError(f"expected at most {RETRIES_MAX} retries")

    def record(self) -> np.recarray:
        """Return the record of a cohort with these clients at the start of a run: shape (1,), `state.CLIENT`."""
        records = state.records(state.CLIENT, 1)
        client = records[0]
        for field in dataclasses.fields(self):
            if field.name not in ("retry_on", "jitter"):
                setattr(client, field.name, getattr(self, field.name))
        client.timed = min(self.timeout_s, self.first_token_s, self.hedge_s, self.deadline_s) < math.inf
        client.retry_on = sum(1 << int(outcome) for outcome in self.retry_on)
        client.jitter = JITTERS.index(self.jitter)
        client.budget_left = self.budget_burst
        client.hedge_left = 0.0
        client.limit_left = self.limit_burst
        client.prompt_factor = client.output_factor = 1.0
        client.timer_head = client.timer_tail = state.NONE
        return records


@dataclasses.dataclass(frozen=True, slots=True)
class PoolConfig:
    """One pool of equal replicas, as the kernels need it.

    Blocks are those usable for sequences; *noise* and *slow_noise* are the standard deviations of the
    logarithm of step times, by step and by stretch of *slow_period_s*; *ingress_s* and *egress_s* are spent
    between client and engine by every request.

    Routers see replicas as they were up to *refresh_s* ago, with *count_own* plus what they sent since; *choices* are
    those of power_of_d, *load_bound* that of prefix_affinity. Refused (429) is what meets *max_queue* waiting requests
    on its replica (by priority; 0: no bound), *max_outstanding* in the pool (0: no bound), a predicted wait over
    *max_wait_s*, with *deadline_aware* one that ends after its client has gone, or an empty bucket of *limit_per_s*.
    *fallback*: answers from here stand in for better ones, and say so.
    """

    steps: StepTimes
    replicas: int
    blocks: int
    router: str = "least_outstanding"
    spares: int = 0
    choices: int = 2
    refresh_s: float = 0.0
    count_own: bool = False
    load_bound: float = 1.25
    prefix_caching: bool = False
    max_queue: tuple[int, int, int, int] = (0, 0, 0, 0)
    max_outstanding: int = 0
    max_wait_s: float = math.inf
    deadline_aware: bool = False
    limit_per_s: float = math.inf
    limit_burst: float = 1.0
    block_size: int = 16
    max_seqs: int = 256
    max_tokens: int = 8192
    max_len: int = 131072
    watermark: int = 0
    reserve_full: bool = True
    chunked: bool = True
    noise: float = 0.0
    slow_noise: float = 0.0
    slow_period_s: float = 10.0
    ingress_s: float = 0.0
    egress_s: float = 0.0
    fallback: bool = False

    def __post_init__(self) -> None:
        """Check what kernels rely on: they index the tables of step times without looking."""
        if len(self.steps.decode_s) <= self.max_seqs or len(self.steps.tokens_s) <= self.max_tokens:
            raise ValueError("expected step times for max_seqs sequences and max_tokens prompt tokens")
        if min(self.blocks, self.block_size, self.max_seqs, self.max_tokens, self.replicas + self.spares) < 1:
            raise ValueError("expected at least one replica, one seat, one token a step, one block and one token in it")
