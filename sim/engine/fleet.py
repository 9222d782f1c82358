"""The passive fleet: replicas, their queues and batches, and the clients in front of them.

It has no clock: `Fleet.advance` plays every engine step and client action up to the time it is given, each at
its own time, and remembers nothing about who calls it or how often. So the same fleet runs under SimPy in
virtual time and behind HTTP in real time.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sim.engine import commands, meters, sessions, state
from sim.engine.account import count_rows
from sim.engine.clients import LEFT, give_up
from sim.engine.commands import GAUGES
from sim.engine.config import ClientPolicy, PoolConfig, share_below
from sim.engine.jit import Bare, bare
from sim.engine.operations import Operations
from sim.engine.play import play
from sim.engine.prefix import rehash, route_by
from sim.engine.routing import ROUTERS
from sim.errors import RunError
from sim.records import ATTEMPT, PARTS, PREFIX, REQUEST, Outcome

__all__ = ["LIVE_MAX", "ROWS_CHUNK", "ClientPolicy", "Fleet", "PoolConfig"]

ROWS_CHUNK = 1 << 16
LIVE_MAX = 1 << 21  # requests in flight at which a run is called OVERLOADED


class Fleet(Operations):
    """Pools of replicas behind a router, moved by `submit`, `cancel`, `advance` and a few commands."""

    def __init__(
        self,
        pools: Sequence[PoolConfig],
        *,
        seed: int = 1,
        cohorts: int = 1,
        duration_s: float = 3600.0,
        warmup_s: float = 0.0,
        rows: float = 1.0,
        metered: bool = False,
        evaluate: float = 0.0,
        slow_s: tuple[float, float] = (math.inf, math.inf),
        clients: ClientPolicy | Sequence[ClientPolicy] | None = None,
        prefixes: np.ndarray | None = None,
        leap: bool = True,
        pace: np.ndarray | None = None,
        judged: bool = False,
    ) -> None:
        """Set up an idle fleet.

        *clients* are those of all cohorts, or one entry for each; *prefixes* is the tree of shared prefixes
        (`sim.records.PREFIX`). *rows* is the share of requests whose rows are kept (0 to 1); *pace* replays a host:
        rows of (until_s, factor on the step time, extra seconds), and *leap* false plays every step by itself. With
        *metered* there is something to read in `read_meters`; a share of answers, *evaluate*, is looked at there. Above
        *slow_s* a first token and a whole answer count as slow. With *judged*, `take_ended` tells how requests ended.
        """
        self.configs = list(pools)
        self.pace = np.zeros((0, 3)) if pace is None else np.ascontiguousarray(pace, float)
        self.w = state.records(state.WORLD, 1)
        self._world, self._bare = bare(self.w)[0], Bare()
        self._tables()
        self.replicas = n = int(self.pools.count.sum())
        leaves = 1 << max(1, (n - 1).bit_length())
        block_max = max(config.block_size for config in pools)
        self.board = np.zeros((n, block_max + state.RING + state.RING // 32), np.int64)
        self.board[:, block_max : block_max + state.RING] = state.NONE
        self.reps = state.records(state.REPLICA, n)
        self.tree = np.full(2 * leaves, state.NONE, np.int32)
        self._set_replicas()
        self.tree[leaves : leaves + n] = np.arange(n)
        for k in range(leaves - 1, 0, -1):  # everyone is idle: the first of each subtree leads it
            self.tree[k] = self.tree[2 * k]
        one_for_all = ClientPolicy() if clients is None else clients
        policies = [one_for_all] * cohorts if isinstance(one_for_all, ClientPolicy) else list(one_for_all)
        if len(policies) != cohorts:
            raise ValueError(f"expected clients for each of {cohorts} cohorts")
        self.clients = state.attributed(np.concatenate([policy.record() for policy in policies]))
        self._set_counts(cohorts, duration_s)
        self.seqs = state.records(state.SEQUENCE, 0)
        self.asked = state.records(state.ASKED, 0)
        self.script = state.records(REQUEST, 0)
        self.events = state.records(state.EVENT, 0)
        self.inbox = state.records(REQUEST, 1)
        self._set_world(seed, cohorts, duration_s, warmup_s, rows, leap, block_max)
        self.w[0].metered, self.w[0].evaluate_below = metered, share_below(evaluate)
        self.w[0].slow_ttft_s, self.w[0].slow_e2e_s = slow_s
        self._set_cache(np.zeros(0, PREFIX) if prefixes is None else prefixes)
        self._set_outboxes(judged)
        self._grow(1024)
        self._grow_script(16)

    def _tables(self) -> None:
        """Put the step times of all pools into one table, and each pool's settings into its record."""
        self.pools = state.records(state.POOL, len(self.configs))
        parts: list[np.ndarray] = []
        at = first = 0
        for pool, config in zip(self.pools, self.configs, strict=True):
            longest = min(config.max_len, config.blocks * config.block_size)
            if not config.chunked:  # a longer prompt, or its recomputation, would never find room in a step
                longest = min(longest, config.max_tokens)
            steps = config.steps
            tables = [steps.ctx_edges, steps.decode_s.ravel(), steps.tokens_s, steps.alone(longest + 1)]
            ends = at + np.cumsum([len(table) for table in tables])
            pool.edges_at, pool.decode_at, pool.tokens_at, pool.alone_at = at, *ends[:3]
            at = ends[3]
            parts += tables
            pool.first, pool.count = first, config.replicas + config.spares
            first += pool.count
            pool.router = ROUTERS.index(config.router)
            pool.contexts = len(steps.ctx_edges)
            pool.base_s, pool.prefill_ctx_s = steps.base_s, steps.prefill_ctx_s
            pool.max_len = longest
            pool.max_seqs = min(config.max_seqs, config.max_tokens)  # a full batch must be able to decode in one step
            pool.caching = config.prefix_caching
            pool.limit_left, pool.shed_from, pool.looked_s = config.limit_burst, state.LEVELS, -math.inf
            for name in ("block_size", "blocks", "watermark", "max_tokens", "reserve_full", "chunked",
                         "noise", "slow_noise", "slow_period_s", "ingress_s", "egress_s", "choices", "refresh_s",
                         "count_own", "load_bound", "max_queue", "max_outstanding", "max_wait_s", "deadline_aware",
                         "limit_per_s", "limit_burst", "fallback"):  # fmt: skip
                setattr(pool, name, getattr(config, name))
        self.w[0].pace_at = at
        self.tab = np.concatenate([*parts, self.pace.ravel()]).astype(float)

    def _set_replicas(self) -> None:
        """Start every replica idle, with all of its memory free; spares are off."""
        reps = self.reps
        reps.partial = reps.ready = reps.aborts = state.NONE
        reps.run_head = reps.run_tail = reps.wait_head = reps.wait_tail = state.NONE
        reps.wake_s = math.inf
        reps.lru_head = reps.lru_tail = state.NONE
        reps.slow = reps.slow_next = 1.0
        reps.fresh = 1
        for p, (pool, config) in enumerate(zip(self.pools, self.configs, strict=True)):
            own = slice(int(pool.first), int(pool.first + pool.count))
            reps.pool[own] = p
            reps.free_blocks[own] = pool.blocks
            reps.up[own] = np.arange(pool.count) < config.replicas

    def _set_counts(self, cohorts: int, duration_s: float) -> None:
        """Make everything in which is counted what happens, at 0."""
        self.latency = np.zeros((cohorts + 1, len(state.METRICS), state.BINS), np.int64)
        self.windows = np.zeros((2, 240, state.BINS), np.uint32)
        columns = len(state.MINUTE_COLUMNS)
        minutes = max(1, math.ceil(duration_s / 60.0))
        self.minutes = np.zeros((minutes + 1, columns), np.int64)  # the last row: sent after the end
        self.parts = np.zeros((state.BINS, len(PARTS) + 2))
        self.meters = state.records(meters.METER, self.replicas)
        self.gates = state.records(meters.GATE, len(self.pools))

    def _set_world(
        self,
        seed: int,
        cohorts: int,
        duration_s: float,
        warmup_s: float,
        rows: float,
        leap: bool,
        block_max: int,
    ) -> None:
        w = self.w[0]
        w.seed = seed
        w.leap = leap
        w.row_mode = 2 if rows >= 1.0 else 1 if rows > 0.0 else 0
        w.row_below = share_below(rows)
        w.warmup_s = warmup_s
        w.arrivals_end_s = duration_s
        w.window_s = duration_s / self.windows.shape[1]
        w.cohorts = cohorts
        w.ring_at = block_max
        w.bits_at = block_max + state.RING
        w.margin = 2 * max(config.max_seqs for config in self.configs) + 64  # each in a step may end, and win a race
        w.pace_n = len(self.pace)
        w.due = w.free_seq = w.free_req = w.free_script = state.NONE

    def _set_outboxes(self, judged: bool) -> None:
        """Make room for what is handed out: rows of attempts, how requests ended, sessions without more script."""
        margin = int(self.w[0].margin)
        self.w[0].judged = judged
        self.rows = state.records(ATTEMPT, ROWS_CHUNK + margin)
        self.ended = state.records(ATTEMPT, ROWS_CHUNK + 64 + margin if judged else 1)
        self.asks = state.records(state.ASK, 1024 + margin)

    def _set_cache(self, prefixes: np.ndarray) -> None:
        """Make the prefix cache: an entry for each node of the tree on each replica, then room for other texts."""
        w, nodes = self.w[0], len(prefixes)
        caching = any(config.prefix_caching for config in self.configs)
        w.nodes = nodes if caching else 0
        w.entries_from = nodes * self.replicas if caching else -1
        self.cache = state.records(state.ENTRY, 1)
        if not caching:
            return
        self.cache = state.records(state.ENTRY, 1 << int(w.entries_from + 2 * w.margin + 1024).bit_length())
        parent, tokens = prefixes["parent"].astype(int), prefixes["tokens"]
        for r in range(self.replicas):
            own = self.cache[r * nodes : (r + 1) * nodes]
            size = int(self.pools[self.reps[r].pool].block_size)
            before = np.where(parent >= 0, tokens[parent], 0) // size
            own["replica"], own["begin"], own["full"] = r, before, tokens // size - before
            own["parent"] = np.where(parent >= 0, parent + r * nodes, state.NONE)
            own["content"] = route_by(parent)
        rehash(w, self.cache)

    def _grow(self, n: int) -> None:
        """Make room for *n* requests in flight (the arrays double outside of the kernel)."""
        if n > LIVE_MAX:
            raise RunError(
                f"OVERLOADED: {int(self.w[0].live):,} requests in flight at t = {self.now_s:.0f} s; "
                "the fleet cannot keep up with this load"
            )
        w, old = self.w[0], len(self.seqs)
        self.seqs = state.grown(self.seqs, n)
        self.asked = state.grown(self.asked, n)
        self.events = state.grown(self.events, max(len(self.events), 2 * n + 2 * int(w.margin)))
        self.seqs["next"][old:] = np.arange(old + 1, n + 1)
        self.seqs["next"][-1] = w.free_seq
        self.asked["next_free"][old:] = np.arange(old + 1, n + 1)
        self.asked["next_free"][-1] = w.free_req
        w.free_seq = w.free_req = old

    def _grow_script(self, n: int) -> None:
        w, old = self.w[0], len(self.script)
        self.script = state.grown(self.script, n)
        self.script["follow_up"][old:] = np.arange(old + 1, n + 1)
        self.script["follow_up"][-1] = w.free_script
        w.free_script = old

    def _room(self) -> None:
        """Double whichever array has run full."""
        w = self.w[0]
        if w.free_seq == state.NONE or w.free_req == state.NONE:
            self._grow(2 * len(self.seqs))
        elif w.entries_from >= 0 and w.entries_free < w.margin:
            self.cache = state.grown(self.cache, 2 * len(self.cache))
            rehash(w, self.cache)
        else:
            self.events = state.grown(self.events, 2 * len(self.events))

    def _reserve(self, requests: int, *names: str) -> None:
        """Make room in the arrays *names* for what the end of so many *requests* at once leaves behind."""
        for name in names:
            array, need = getattr(self, name), int(self.w[0][f"{name}_n"]) + requests + int(self.w[0].margin)
            if need > len(array):
                setattr(self, name, state.grown(array, max(need, 2 * len(array))))

    @property
    def live(self) -> int:
        """How many requests are in flight."""
        return int(self.w[0].live)

    def submit(self, requests: np.ndarray, *, more: bool = False) -> None:
        """Take in requests (`sim.records.REQUEST`), sorted by schedule; call again only when all have been sent.

        With *more*, `advance` returns "inbox" when it has sent the last of them, so that the next chunk can
        be drawn. A ``follow_up`` must point further down the same array.

        Raises:
            ValueError: rows that nobody follows up to begin before `now_s`, or are not sorted.
        """
        w = self.w[0]
        follow_up = requests["follow_up"]
        starts = np.delete(requests["scheduled_s"], follow_up[follow_up >= 0])
        if len(starts) and not (starts[0] >= self.now_s and (np.diff(starts) >= 0.0).all()):
            raise ValueError(f"expected requests sorted by scheduled_s, none before t = {self.now_s:g} s")
        requests = requests.copy().view(np.recarray)  # `load_script` puts slots into its follow-ups
        first = np.ones(len(requests), np.uint8)
        if len(requests) and requests["follow_up"].max() >= 0:
            while sessions.load_script(self.w[0], self.script, requests, first) < 0:
                self._grow_script(max(2 * len(self.script), len(requests)))
        self.inbox = state.attributed(np.concatenate([self.inbox[w.inbox_next : w.inbox_end], requests[first == 1]]))
        w.inbox_next, w.inbox_end = 0, len(self.inbox)
        w.more = more

    def continue_sessions(self, asks: np.ndarray, requests: np.ndarray) -> None:
        """Give sessions that used up their script (*asks*) the next of their *requests*, whose ``follow_up`` change.

        Raises:
            ValueError: requests of a session that is not among *asks*.
        """
        requests, first = bare(requests), np.empty(len(requests), np.uint8)
        while why := sessions.go_on(self._world, bare(self.script), bare(self.events), requests, first, bare(asks)):
            if why == state.SCRIPT_FULL:
                self._grow_script(max(2 * len(self.script), len(requests)))
            elif why == state.SLOTS_FULL:
                self.events = state.grown(self.events, 2 * len(self.events) + len(requests))
            else:
                raise ValueError("expected requests of sessions that have asked for more")

    def advance(self, until_s: float) -> str:
        """Play all that happens up to *until_s*; return "done", or why it stopped early.

        "rows": `take_rows` must make room. "inbox": `submit` more. "script": `take_asks`, then
        `continue_sessions`. "ended": `take_ended`. Then call again.

        Raises:
            RunError: more than `LIVE_MAX` requests are in flight.
        """
        until_s = float(until_s)  # Numba compiles a kernel again for every other type, 3 s for this one
        while True:
            arrays = self._bare(
                self.pools, self.gates, self.reps, self.meters, self.seqs, self.asked, self.clients, self.cache,
                self.script, self.inbox, self.events, self.asks, self.board, self.tab, self.tree, self.rows, self.ended,
                self.latency, self.windows, self.minutes, self.parts,
            )  # fmt: skip
            why = play(self._world, *arrays, until_s)
            if why != state.SLOTS_FULL:
                return {state.DONE: "done", state.INBOX_EMPTY: "inbox", state.ROWS_FULL: "rows",
                        state.SCRIPT_END: "script", state.ENDED_FULL: "ended"}[why]  # fmt: skip
            self._room()

    def take_rows(self) -> np.ndarray:
        """Return the rows of attempts ended since the last call (`sim.records.ATTEMPT`), and make room for more."""
        self._count()
        rows = self.rows[: self.w[0].rows_n].copy()
        self.w[0].rows_n = self.w[0].counted = 0
        return rows.view(ATTEMPT)

    def take_ended(self) -> np.ndarray:
        """Return the deciding attempt of each request ended since the last call (`sim.records.ATTEMPT`), as they ended.

        None is left out, whichever rows are kept; those of a fleet that is not judged are never written.
        """
        ended = self.look_ended().copy()
        self.w[0].ended_n = 0
        return ended

    def look_ended(self, first: int = 0) -> np.ndarray:
        """Return, without taking it, what `take_ended` would, from the *first* on; it changes when the fleet moves."""
        return self.ended.view(np.ndarray)[first : self._world["ended_n"]]

    def take_asks(self) -> np.ndarray:
        """Return the sessions that have used up their script (`sim.engine.state.ASK`)."""
        asks = self.asks.view(np.ndarray)[: self._world["asks_n"]].copy()
        self._world["asks_n"] = 0
        return asks

    def look(self) -> np.ndarray:
        """Return what a scrape of every replica shows now (`sim.engine.commands.GAUGES`)."""
        gauges = state.records(GAUGES, self.replicas)
        commands.look(self.pools, self.reps, self.seqs, self.board, gauges, self.now_s)
        return gauges

    def read_meters(self) -> np.ndarray:
        """Return what the process on each replica has counted since it began (`sim.engine.meters.METER`)."""
        read = state.records(meters.METER, self.replicas)
        read.view(np.int64)[:] = self.meters.view(np.int64)  # NumPy copies records a field at a time, which is slow
        meters.add_pending(self.reps, read, self.now_s)
        return read

    def cancel(self, request: int, outcome: Outcome = Outcome.CANCELLED) -> bool:
        """Let the client of *request* go away now; False when it is not in flight."""
        slot = commands.slot_of(self.asked, int(request))
        if slot == state.NONE:
            return False
        self._reserve(1, "rows", "asks", "events")
        give_up(*self._all(), slot, int(outcome), LEFT, 1, self.now_s)
        self._count()
        return True

    def crash(self, replica: int) -> Iterator[None]:
        """Fail all attempts on *replica* and turn it off; yields when `take_rows` must make room."""
        replica = int(replica)
        self.reps[replica].up = 0
        self._reserve(int(self.reps[replica].outstanding), "asks", "events")
        self._catch_up(replica)
        while not commands.lose_all(*self._all(), replica, self.now_s):
            self._count()
            if self.w[0].rows_n:
                yield
        self._count()
        commands.stop(self.w[0], self.pools, self.reps, self.cache, self.board, self.tree, replica, self.now_s)
        meters.begin(self.reps, self.meters, replica)

    def close(self) -> Iterator[None]:
        """End every request in flight as unfinished; yields when `take_rows` must make room."""
        self._catch_up(*range(self.replicas))
        while not commands.close_all(*self._all(), self.now_s):
            self._count()
            if self.w[0].rows_n:
                yield
        self._count()

    def _all(self) -> tuple[Any, ...]:
        return (
            self.w[0], self.pools, self.reps, self.seqs, self.asked, self.clients, self.cache, self.events, self.asks,
            self.board, self.tab, self.tree, self.rows,
        )  # fmt: skip

    def _count(self) -> None:
        """Bring the histograms up to the rows that commands have written."""
        if self.w[0].judged:
            self._reserve(int(self.w[0].rows_n - self.w[0].counted), "ended")
        count_rows(self.w[0], self.rows, self.ended, self.gates, self.latency, self.windows, self.minutes, self.parts)
