"""An engine that decodes many sequences a step: continuous batching as a queue, and its KV memory.

A step with n sequences takes ``base_s + per_sequence_s * n`` and gives each of them one token. In the
limit of short steps every sequence advances at rate 1/(base + per_sequence n), whatever its length:
processor sharing with a capacity that depends on the number present. Such queues are insensitive to the
distribution of sizes (Cohen, "The multiple phase service network with generalized processor sharing",
Acta Informatica 12, 1979; Kelly, *Reversibility and Stochastic Networks*, 1979), which gives

    load   rho  = rate * mean_tokens * per_sequence
    number N    ~ NegativeBinomial(1 + base/per_sequence, rho)
    time   E[T | x tokens] = x (base + per_sequence) / (1 - rho)

Real steps are discrete: an arrival waits for the step that runs. `stepped` is exact about that.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.theory.queues import NEGLIGIBLE, Floats, birth_death

Ints = NDArray[np.int64]

_MOST_STATES = 5000


@dataclass(frozen=True)
class Batch:
    """One replica without prefill cost or KV shortage: its step time, mean output, and seats."""

    base_s: float
    per_sequence_s: float
    mean_tokens: float
    seats: int | None = None
    """Most sequences in a step (``max_num_seqs``); None: no limit."""

    def step_s(self, sequences: ArrayLike) -> Floats:
        """Return how long a step with so many sequences takes, in seconds."""
        return self.base_s + self.per_sequence_s * np.asarray(sequences, float)

    @property
    def capacity_per_s(self) -> float:
        """Requests a second that a full batch finishes: the largest stable arrival rate."""
        if self.seats is None:
            return 1 / (self.mean_tokens * self.per_sequence_s) if self.per_sequence_s else math.inf
        return self.seats / (self.mean_tokens * float(self.step_s(self.seats)))

    def load(self, rate_per_s: float) -> float:
        """Return the arrival rate as a fraction of what an unlimited batch could serve."""
        return rate_per_s * self.mean_tokens * self.per_sequence_s

    def token_s(self, rate_per_s: float) -> float:
        """Return the mean time per output token of a request of any length, no seats limit, in seconds."""
        self._without_seats()
        load = self.load(rate_per_s)
        return (self.base_s + self.per_sequence_s) / (1 - load) if load < 1 else math.inf

    def mean_number(self, rate_per_s: float) -> float:
        """Return the mean number of requests present (with a seats limit: for geometric lengths)."""
        if self.seats is None:
            return rate_per_s * self.mean_tokens * self.token_s(rate_per_s)
        p = self.number_probabilities(rate_per_s)
        return float(p @ np.arange(p.size))

    def sojourn_s(self, rate_per_s: float) -> float:
        """Return the mean time from arrival to last token, by Little's law, in seconds."""
        return self.mean_number(rate_per_s) / rate_per_s

    def number_probabilities(self, rate_per_s: float, negligible: float = NEGLIGIBLE) -> Floats:
        """Return the probability of each number present, up to where the rest is *negligible*.

        Without a seats limit this is the negative binomial above, for any lengths. With one, those beyond
        it wait, and the birth-death chain solved here is exact for memoryless (geometric) lengths only.
        """
        self._stable(rate_per_s)
        states = 256
        while True:
            present = np.arange(1, states + 1)
            served = present if self.seats is None else np.minimum(present, self.seats)
            down = served / self.step_s(served) / self.mean_tokens
            p = birth_death(np.full(states, rate_per_s), down)
            if p[-1] < negligible:
                return p
            states *= 2

    def finer(self, times: float) -> "Batch":
        """Return the same engine with steps so many times shorter and answers so many times longer.

        Load, number and time in the system stay the same in the limit; the step over the service shrinks.
        """
        return replace(
            self,
            base_s=self.base_s / times,
            per_sequence_s=self.per_sequence_s / times,
            mean_tokens=self.mean_tokens * times,
        )

    def _stable(self, rate_per_s: float) -> None:
        if rate_per_s >= self.capacity_per_s:
            raise ValueError(f"{rate_per_s} a second is more than this engine can do: {self.capacity_per_s:.4g}")

    def _without_seats(self) -> None:
        if self.seats is not None:
            raise ValueError("with a seats limit the time per token depends on the length: use sojourn_s")


@dataclass(frozen=True)
class Stepped:
    """Time averages of an engine that moves in whole steps."""

    mean_number: float
    """Requests present, waiting for a step or in one."""
    mean_running: float
    """Requests in the step that runs."""
    sojourn_s: float
    """Mean time from arrival to last token."""
    wait_s: float
    """Mean time from arrival to the start of the first step."""
    step_s: float
    """Mean duration of a step."""
    busy: float
    """Share of time in which a step runs."""


def stepped(batch: Batch, rate_per_s: float) -> Stepped:
    """Return what *batch* does in whole steps with geometric lengths: exact, no limit taken.

    At the start of a step the number present is a Markov chain: of the min(N, seats) in the step each ends
    with probability 1/mean_tokens, and Poisson(rate * step) arrive. An empty engine starts a step the
    moment somebody arrives. Time averages follow by renewal reward, times by Little's law.
    Raises ValueError so near saturation that the chain would not fit in memory.
    """
    states = 64 + 5 * int((batch.number_probabilities(rate_per_s) > 1e-12).sum()) // 4
    if states > _MOST_STATES:
        raise ValueError(
            f"{rate_per_s} a second is too near {batch.capacity_per_s:.4g}: the chain needs {states} states"
        )
    moves, steps_s = _step_chain(batch, rate_per_s, states)
    p = _stationary(moves)
    present = np.arange(1, states + 1)
    served = present if batch.seats is None else np.minimum(present, batch.seats)
    to_empty = _ends(served, 1 / batch.mean_tokens, present) * np.exp(-rate_per_s * steps_s)
    busy_s = float(p @ steps_s)
    cycle_s = busy_s + float(p @ to_empty) / rate_per_s
    # Those who arrive during a step are there for half of it on average: rate * step**2 / 2.
    number = float(p @ (present * steps_s + rate_per_s * steps_s**2 / 2)) / cycle_s
    running = float(p @ (served * steps_s)) / cycle_s
    return Stepped(
        mean_number=number,
        mean_running=running,
        sojourn_s=number / rate_per_s,
        wait_s=(number - running) / rate_per_s,
        step_s=busy_s,
        busy=busy_s / cycle_s,
    )


def _ends(served: Ints, chance: float, present: Ints) -> Floats:
    """Probability that everybody present ends in this step."""
    everybody: Floats = np.where(served == present, chance ** present.astype(float), 0.0)
    return everybody


def _step_chain(batch: Batch, rate_per_s: float, states: int) -> tuple[Floats, Floats]:
    """Transition matrix between step starts on 1..states (a chain that empties restarts at 1), and step times."""
    moves = np.zeros((states, states))
    steps_s = np.zeros(states)
    for row in range(states):
        present = row + 1
        served = present if batch.seats is None else min(present, batch.seats)
        steps_s[row] = float(batch.step_s(served))
        stay = _binomial(served, 1 - 1 / batch.mean_tokens)
        arrive = _poisson(rate_per_s * steps_s[row])
        after = np.convolve(stay, arrive)
        start = present - served
        if start == 0:
            after = np.concatenate([[after[0] + after[1]], after[2:]])
            start = 1
        inside = after[: states - start + 1]
        moves[row, start - 1 : start - 1 + inside.size] = inside
        moves[row, -1] += after[inside.size :].sum()
    moves /= moves.sum(axis=1, keepdims=True)
    return moves, steps_s


def _stationary(moves: Floats) -> Floats:
    """Stationary probabilities of a transition matrix."""
    size = moves.shape[0]
    balance = moves.T - np.eye(size)
    balance[-1] = 1.0
    target = np.zeros(size)
    target[-1] = 1.0
    p: Floats = np.maximum(np.linalg.solve(balance, target), 0.0)
    p /= p.sum()
    return p


def _binomial(n: int, p: float) -> Floats:
    """Binomial probabilities of 0..n."""
    if p <= 0:
        return np.eye(1, n + 1)[0]
    k = np.arange(1, n + 1)
    return birth_death(n - k + 1.0, k * (1 - p) / p)


def _poisson(mean: float) -> Floats:
    """Poisson probabilities of 0.. as far as they matter."""
    last = int(mean + 12 * math.sqrt(mean) + 30)
    return birth_death(np.full(last, mean), np.arange(1, last + 1))


# KV memory: Little's law with tokens for customers. A request with s prompt and o output tokens holds
# s + j - 1 tokens in its j-th step (j = 1..o): the prompt is written in the first, and the last token
# is handed to the user without ever being written.


def kv_token_steps(prompt_tokens: ArrayLike, output_tokens: ArrayLike) -> Ints:
    """Return token-steps of KV memory that a request holds over its life, when its prompt takes one step."""
    prompt, output = np.asarray(prompt_tokens, np.int64), np.asarray(output_tokens, np.int64)
    return np.asarray(prompt * output + output * (output - 1) // 2)


def kv_block_steps(prompt_tokens: ArrayLike, output_tokens: ArrayLike, block_size: int) -> Ints:
    """Return block-steps of KV memory that a request holds over its life, when its prompt takes one step."""
    prompt, output = np.asarray(prompt_tokens, np.int64), np.asarray(output_tokens, np.int64)

    def blocks_up_to(tokens: Ints) -> Ints:
        full, rest = np.divmod(tokens, block_size)
        return np.asarray(block_size * full * (full + 1) // 2 + rest * (full + 1))

    return np.asarray(blocks_up_to(prompt + output - 1) - blocks_up_to(prompt - 1))


def kv_mean_blocks(rate_per_s: float, token_s: float, block_steps: ArrayLike) -> float:
    """Return the mean number of KV blocks held: rate times the mean block-seconds of a request.

    *block_steps* is a sample or a list of equally likely requests; *token_s* the mean time per token,
    which in processor sharing is the same for each token of a request.
    """
    return rate_per_s * token_s * float(np.mean(np.asarray(block_steps, float)))


def kv_stable_rate_per_s(kv_blocks: int, full_step_s: float, block_steps: ArrayLike) -> float:
    """Return the arrival rate above which no schedule fits the KV memory (Nie, Si and Zhou, arXiv 2605.04595).

    *full_step_s* is the duration of a step when the memory is full.
    """
    return kv_blocks / (full_step_s * float(np.mean(np.asarray(block_steps, float))))
