"""How long a request takes from its client to the engine, and a token back: measured from a step log.

The log shows in which step a prompt was first computed. So the request had arrived when that step began, and,
if the step before had room for it, had not yet arrived when that one began: an interval that holds its travel
time. The distribution that explains all intervals best is found by Turnbull's self-consistency (1976).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from sim.calibrate.steplog import Floats, Ints, StepLog

GRID_S = np.concatenate([np.arange(0.0005, 0.03, 0.0005), np.arange(0.03, 0.2, 0.002)])
AHEAD = 3  # requests that one may overtake on its way
USUAL_S = 0.005  # the way to the engine where the log cannot tell, because the engine was always full
ENOUGH = 20  # intervals
MEDIAN_ERROR = 1.253 * 1.483
"""Standard error of a median of normal values, times the root of their number, over their median absolute deviation."""
FIRST = 50
"""The way back is measured on this many requests only: it is the one thing taken from clients' latencies."""


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts in order of sending or taking: their tokens, and of which *group* (-1: none) the first *shared* ones are.

    The engine finds the *shared* tokens of a group in its prefix cache, in blocks of *block_size*, once one of the
    group has been computed, unless they were evicted.
    """

    tokens: Ints
    group: Ints
    shared: int
    block_size: int

    def __len__(self) -> int:
        return len(self.tokens)

    def hits(self, request: int, seen: set[int]) -> list[int]:
        """Return the tokens that the engine may have found of a prompt, the likeliest first, *seen* groups known."""
        group = int(self.group[request])
        if group < 0 or group not in seen:
            return [0]
        whole = self.shared // self.block_size
        return [blocks * self.block_size for blocks in range(whole, -1, -1)]


def taken_order(log: StepLog, prompts: Prompts, max_tokens: int) -> tuple[list[int], Ints]:
    """Return the requests (given in order of sending) in the order in which the engine took them.

    Two that were sent within a millisecond may overtake each other on the way; the tokens of the step tell. So do
    they tell what was found in the prefix cache: that is returned too, in tokens, in the order taken.
    """
    waiting, order = list(range(len(prompts))), []
    found: list[int] = []
    seen: set[int] = set()
    left = 0
    for step in np.flatnonzero(log.admits):
        rest, new = int(log.fresh[step]), int(log.admits[step])
        if left:
            new -= 1
        rest, left = rest - min(left, rest), left - min(left, rest)
        near = waiting[: new + AHEAD]
        whole = log.tokens[step] < max_tokens
        guesses = ((list(pick), hits) for pick in combinations(near, new) for hits in _found(prompts, pick, seen))
        fitting = (one for one in guesses if whole and prompts.tokens[one[0]].sum() - sum(one[1]) == rest)
        usual = near[:new], next(_found(prompts, near[:new], seen))
        taken, hits = next(fitting, usual)
        left += max(0, int(prompts.tokens[taken].sum()) - sum(hits) - rest)
        order += taken
        found += hits
        seen |= {int(prompts.group[request]) for request in taken}
        waiting = [request for request in waiting if request not in taken]
    found += [next(_found(prompts, [request], seen))[0] for request in waiting]
    return order + waiting, np.array(found)


def _found(prompts: Prompts, pick: Sequence[int], seen: set[int]) -> Iterator[list[int]]:
    """Yield what those taken in one step may have found in the prefix cache, the likeliest first."""
    known, options = set(seen), []
    for request in pick:
        options.append(prompts.hits(request, known))
        known.add(int(prompts.group[request]))
    for hits in product(*options):
        yield list(hits)


@dataclass(frozen=True, eq=False)
class Admissions:
    """In which step of the log each request's prompt was first and last computed; -1: the log does not tell."""

    first: Ints
    last: Ints


def admissions(log: StepLog, fresh_tokens: Ints) -> Admissions:
    """Follow the prompts, in the order taken, through the log (*fresh_tokens*: those not found in a cache)."""
    first = np.full(len(fresh_tokens), -1)
    last = np.full(len(fresh_tokens), -1)
    request = left = 0
    for step in np.flatnonzero(log.admits):
        tokens = int(log.fresh[step])
        for _ in range(log.admits[step]):
            if left == 0:
                if request == len(fresh_tokens):
                    return Admissions(first, last)
                first[request], left = step, int(fresh_tokens[request])
            taken = min(left, tokens)
            left, tokens = left - taken, tokens - taken
            if left == 0:
                last[request] = step
                request += 1
        if tokens:  # a prompt lost its blocks half-way and was computed again: from here on we cannot tell whose it is
            first[request:] = last[request:] = -1
            break
    return Admissions(first, last)


def had_room(log: StepLog, found: Admissions, prompt_tokens: Ints, limits: "Limits") -> NDArray[np.bool_]:
    """Tell for which requests the step before the first would have taken them, had they been there."""
    before = np.maximum(found.first - 1, 0)
    free = limits.blocks * (1.0 - log.used[np.maximum(found.first - 2, 0)])
    need = -(-prompt_tokens // limits.block_size) + log.running[before] + 3  # a block for each of the others, and spare
    room = (free >= need) & (log.tokens[before] < limits.max_tokens) & (log.tokens[found.first] < limits.max_tokens)
    room &= (log.running[before] < limits.max_seqs) & (found.first > 0)
    for k in range(1, len(room)):  # nobody overtakes one that had to wait
        room[k] &= room[k - 1] or found.first[k - 1] < found.first[k] - 1
    return room


@dataclass(frozen=True)
class Limits:
    """What bounds the engine's batch: seats, tokens a step, usable KV blocks and their size, longest sequence."""

    max_seqs: int
    max_tokens: int
    blocks: int
    block_size: int
    max_len: int


@dataclass(frozen=True, eq=False)
class Transport:
    """Travel times: to the engine ``GRID_S`` with *chance*, back to the client *egress_s*.

    *known*: how many requests told the first; *egress_error_s*: the standard error of the second.
    """

    chance: Floats
    egress_s: float
    known: int = 0
    egress_error_s: float = 0.0

    @property
    def ingress_s(self) -> float:
        """The mean time to the engine."""
        return float(self.chance @ GRID_S)

    @property
    def ingress_error_s(self) -> float:
        """The standard error of that mean, of as many requests as told it; where none did, the mean itself."""
        if not self.known:
            return self.ingress_s
        return float(np.sqrt(self.chance @ (GRID_S - self.ingress_s) ** 2 / self.known))

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """Return the travel times of *n* requests."""
        return rng.choice(GRID_S, size=n, p=self.chance)


def measure(
    log: StepLog, limits: Limits, found: Admissions, prompt_tokens: Ints, sent_s: Floats, first_token_s: Floats
) -> Transport:
    """Return the travel times that *log* and the clients' stamps show (requests in the order taken, seconds)."""
    known = found.last >= 0
    room = had_room(log, found, prompt_tokens, limits) & known
    high = log.start_s[found.first] - sent_s
    low = log.start_s[np.maximum(found.first - 1, 0)] - sent_s
    early = np.flatnonzero(known)[:FIRST]
    back_s = first_token_s[early] - log.end_s[found.last[early]]
    if room.sum() < ENOUGH:
        chance = (np.abs(GRID_S - USUAL_S) < 1e-9).astype(float)
    else:
        chance = turnbull(low[room], high[room])
    told = int(room.sum()) if room.sum() >= ENOUGH else 0
    spread_s = float(np.median(np.abs(back_s - np.median(back_s)))) * MEDIAN_ERROR / np.sqrt(len(back_s))
    return Transport(chance, max(0.0, float(np.median(back_s))), told, spread_s)


def turnbull(low: Floats, high: Floats) -> Floats:
    """Return the probabilities on `GRID_S` of a value that is known to lie in (low, high] only."""
    inside = ((low[:, None] < GRID_S) & (high[:, None] >= GRID_S)).astype(float)
    inside = inside[inside.sum(axis=1) > 0]
    chance = np.full(len(GRID_S), 1.0 / len(GRID_S))
    for _ in range(2000):
        share = inside * chance
        better: Floats = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(better - chance).max() < 1e-7:
            break
        chance = better
    return chance / chance.sum()
