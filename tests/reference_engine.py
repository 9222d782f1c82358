"""A second engine, written to be obviously right and nothing else: lists, one step at a time, one replica.

It follows vLLM V1's scheduler loop (vllm/v1/core/sched/scheduler.py) request by request and its prefix cache
(kv_cache_manager.py, block_pool.py, 0.32) block by block, shares no code and no idea with `sim.engine`, and is what
the compiled engine is compared with, row by row.
"""

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self


@dataclass(eq=False)
class Block:
    """A block of the KV cache: who uses it, and which text it is known to hold."""

    users: int = 0
    text: int | None = None


@dataclass(eq=False)
class Ask:
    """One request and what became of it.

    Its prompt begins with *prefix*, the nodes of a tree of shared texts, each with the tokens from the start to its
    end; then comes a text of its own, *content*, which its answer and later requests may continue. *follow_up* is
    asked when this one has ended: until then, its arrival is the time after that.
    """

    arrival_s: float
    prompt: int
    output: int
    level: int = 0
    prefix: Sequence[tuple[int, int]] = ()
    content: int = -1
    follow_up: Self | None = None
    made: int = 0
    computed: int = 0
    blocks: list[Block] = field(default_factory=list)
    cached: int = 0
    admitted_s: float = math.nan
    first_token_s: float = math.nan
    finished_s: float = math.nan
    preemptions: int = 0
    decoding: bool = False

    @property
    def known(self) -> int:
        """Tokens that exist: the prompt, and those made."""
        return self.prompt + self.made

    def token(self, place: int) -> tuple[str, int]:
        """Which text the token at *place* belongs to: it and the place are the token."""
        return next((("shared", node) for node, end in self.prefix if place < end), ("own", self.content))


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
    chunked_prefill: bool = True
    prefix_caching: bool = False
    waiting: list[Ask] = field(default_factory=list)
    running: list[Ask] = field(default_factory=list)
    coming: list[Ask] = field(default_factory=list)
    free: deque[Block] = field(default_factory=deque)
    known_texts: dict[tuple[int | None, tuple[tuple[str, int], ...]], int] = field(default_factory=dict)
    holders: dict[int, list[Block]] = field(default_factory=dict)
    block_seconds: float = 0.0
    evictions: int = 0
    twins: int = 0

    def play(self, asks: Sequence[Ask]) -> None:
        """Serve *asks*, sorted by arrival, until all and those that follow them are done."""
        self.free, now, self.coming = deque(Block() for _ in range(self.kv_blocks)), 0.0, list(asks)
        while self.coming or self.waiting or self.running:
            if not self.waiting and not self.running:
                now = max(now, self.coming[0].arrival_s)
            while self.coming and self.coming[0].arrival_s <= now:
                self.waiting.append(self.coming.pop(0))
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
        self.block_seconds += (self.kv_blocks - len(self.free)) * length
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
            hits = self._hits(ask)
            found = len(hits) * self.block_size
            if ask.known - found > budget and not self.chunked_prefill:
                return
            tokens = min(ask.known - found, budget)
            fits = -(-(ask.known if self.reserve_full_isl else found + tokens) // self.block_size)
            need = fits - len(hits) + sum(block.users == 0 for block in hits)
            if need + (self.watermark if self.running else 0) > len(self.free):
                return
            self._touch(ask, hits)
            self._take(ask, tokens)
            self.running.append(self.waiting.pop(0))
            if math.isnan(ask.admitted_s):
                ask.admitted_s, ask.cached = now, found
            plan[id(ask)] = (ask, tokens)
            budget -= tokens

    def _preempt(self, ask: Ask) -> None:
        self.running.remove(ask)
        self._give_back(ask)
        ask.computed = 0
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
            self._give_back(ask)
            if ask.follow_up:
                ask.follow_up.arrival_s += now
                insort(self.coming, ask.follow_up, key=lambda other: other.arrival_s)

    # --- memory: blocks, and the texts in them ------------------------------------------------------------------------

    def _take(self, ask: Ask, tokens: int) -> bool:
        """`KVCacheManager.allocate_slots`: blocks for *tokens* more, and full ones are known from now on."""
        need = -(-(ask.computed + tokens) // self.block_size) - len(ask.blocks)
        if need > len(self.free):
            return False
        ask.blocks += [self._fresh() for _ in range(need)]
        full = (ask.computed + tokens) // self.block_size
        if self.prefix_caching and full and ask.blocks[full - 1].text is None:
            for block, text in zip(ask.blocks, self._texts(ask, full)):
                if block.text is None:
                    block.text = text
                    self.twins += text in self.holders
                    self.holders.setdefault(text, []).append(block)
        return True

    def _fresh(self) -> Block:
        """`BlockPool.get_new_blocks`: the first in line, which forgets what it held."""
        block = self.free.popleft()
        if block.text is not None:
            self.evictions += 1
            self.holders[block.text].remove(block)
            if not self.holders[block.text]:
                del self.holders[block.text]
            block.text = None
        block.users = 1
        return block

    def _texts(self, ask: Ask, blocks: int) -> list[int]:
        """A name for each of the first *blocks* blocks, which says what is in it and in all before it."""
        names: list[int] = []
        for k in range(blocks):
            tokens = tuple(ask.token(place) for place in range(k * self.block_size, (k + 1) * self.block_size))
            before = names[-1] if names else None
            names.append(self.known_texts.setdefault((before, tokens), len(self.known_texts)))
        return names

    def _hits(self, ask: Ask) -> list[Block]:
        """`KVCacheManager.get_computed_blocks`: leading full blocks in memory; one token is always computed."""
        if not self.prefix_caching:
            return []
        found: list[Block] = []
        for text in self._texts(ask, (ask.known - 1) // self.block_size):
            if text not in self.holders:
                break
            found.append(self.holders[text][0])
        return found

    def _touch(self, ask: Ask, hits: list[Block]) -> None:
        """`BlockPool.touch`: blocks that were found are out of the line of those to be evicted."""
        for block in hits:
            if block.users == 0:
                self.free.remove(block)
            block.users += 1
        ask.blocks, ask.computed = hits, len(hits) * self.block_size

    def _give_back(self, ask: Ask) -> None:
        """`BlockPool.free_blocks`: the last block first; what holds no known text is used again first."""
        for block in reversed(ask.blocks):
            block.users -= 1
            if block.users == 0:
                if block.text is None:
                    self.free.appendleft(block)
                else:
                    self.free.append(block)
        ask.blocks = []
