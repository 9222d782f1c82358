"""A second engine, written to be obviously right and nothing else: lists, one step at a time, one replica.

It follows vLLM V1's scheduler loop (vllm/v1/core/sched/scheduler.py) request by request, shares no code and no
idea with `sim.engine`, and is what the compiled engine is compared with, row by row.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Ask:
    """One request and what became of it."""

    arrival_s: float
    prompt: int
    output: int
    level: int = 0
    made: int = 0
    computed: int = 0
    blocks: int = 0
    admitted_s: float = math.nan
    first_token_s: float = math.nan
    finished_s: float = math.nan
    preemptions: int = 0
    decoding: bool = False

    @property
    def known(self) -> int:
        """Tokens that exist: the prompt, and those made."""
        return self.prompt + self.made


@dataclass
class Reference:
    """One replica; *step_s* maps (prefill tokens, decoding sequences, sum of their contexts, offsets) to seconds."""

    step_s: Callable[[int, int, int, int], float]
    kv_blocks: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    watermark: int = 0
    reserve_full_isl: bool = True
    waiting: list[Ask] = field(default_factory=list)
    running: list[Ask] = field(default_factory=list)
    free: int = 0
    block_seconds: float = 0.0

    def play(self, asks: Sequence[Ask]) -> None:
        """Serve *asks*, sorted by arrival, until all are done."""
        self.free, now, coming = self.kv_blocks, 0.0, list(asks)
        while coming or self.waiting or self.running:
            if not self.waiting and not self.running:
                now = max(now, coming[0].arrival_s)
            while coming and coming[0].arrival_s <= now:
                self.waiting.append(coming.pop(0))
            self.waiting.sort(key=lambda ask: ask.level)  # stable: first come, first served within a level
            now = self._step(now)

    def _step(self, now: float) -> float:
        plan: dict[int, tuple[Ask, int]] = {}
        budget = self._schedule_running(plan)
        if budget is not None:
            self._admit(plan, budget, now)
        decoding = [ask for ask, _ in plan.values() if ask.decoding]
        chunks = [(ask, tokens) for ask, tokens in plan.values() if not ask.decoding]
        length = self.step_s(
            sum(tokens for _, tokens in chunks),
            len(decoding),
            sum(ask.known for ask in decoding),
            sum(tokens * ask.computed for ask, tokens in chunks),
        )
        self.block_seconds += (self.kv_blocks - self.free) * length
        for ask, tokens in plan.values():
            ask.computed += tokens
            if ask.computed == ask.known:
                self._token(ask, now + length)
        return now + length

    def _schedule_running(self, plan: dict[int, tuple[Ask, int]]) -> int | None:
        """Running requests in order; None when somebody was preempted."""
        budget, preempted, place = self.max_num_batched_tokens, False, 0
        while place < len(self.running) and budget > 0:
            ask = self.running[place]
            tokens = min(ask.known - ask.computed, budget)
            while not self._take(ask, tokens):
                victim = max(self.running, key=lambda other: (other.level, self.running.index(other)))
                place -= self.running.index(victim) < place
                self._preempt(victim)
                returned = plan.pop(id(victim), None)
                budget += returned[1] if returned else 0
                preempted = True
                if victim is ask:
                    break
            else:
                plan[id(ask)] = (ask, tokens)
                budget -= tokens
                place += 1
        return None if preempted else budget

    def _admit(self, plan: dict[int, tuple[Ask, int]], budget: int, now: float) -> None:
        while self.waiting and len(self.running) < self.max_num_seqs and budget > 0:
            ask = self.waiting[0]
            tokens = min(ask.known, budget)
            fits = -(-(ask.known if self.reserve_full_isl else tokens) // self.block_size)
            if fits + (self.watermark if self.running else 0) > self.free:
                return
            self._take(ask, tokens)
            self.running.append(self.waiting.pop(0))
            ask.admitted_s = now if math.isnan(ask.admitted_s) else ask.admitted_s
            plan[id(ask)] = (ask, tokens)
            budget -= tokens

    def _take(self, ask: Ask, tokens: int) -> bool:
        need = -(-(ask.computed + tokens) // self.block_size) - ask.blocks
        if need > self.free:
            return False
        self.free -= need
        ask.blocks += need
        return True

    def _preempt(self, ask: Ask) -> None:
        self.running.remove(ask)
        self.free += ask.blocks
        ask.blocks = ask.computed = 0
        ask.decoding = False
        ask.preemptions += 1
        first = next((i for i, other in enumerate(self.waiting) if other.level >= ask.level), len(self.waiting))
        self.waiting.insert(first, ask)

    def _token(self, ask: Ask, now: float) -> None:
        ask.made += 1
        ask.decoding = True
        if ask.made == 1:
            ask.first_token_s = now
        if ask.made == ask.output:
            ask.finished_s = now
            self.running.remove(ask)
            self.free += ask.blocks
