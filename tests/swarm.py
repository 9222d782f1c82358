"""Fleets, users and troubles drawn at random, and what must be true of every one of them.

Drawn as a swarm: each case switches whole features off or on, and weighs the rest wildly, because an engine in which
everything is a little on is the one that its author had in mind. Half of the cases keep all times in 64ths of a
second, so that steps, arrivals, timeouts and commands meet at the same instant all the time.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from sim.engine import state
from sim.engine.fleet import ClientPolicy, Fleet, PoolConfig
from sim.engine.latency import StepTimes, linear
from sim.engine.routing import ROUTERS
from sim.records import PARTS, PREFIX, Outcome
from tests.playing import Floats, Ints, requests

TICK_S = 1 / 64
SCRIPT = 8  # turns that a user of a circle is given at once
PACE = np.array([[0.5, 1.0, 0.0], [1.5, 2.0, 0.01], [9e9, 0.8, 0.0]])  # a host that was slow for a second
VERBS = ["slow", "drain", "crash", "restore", "cancel"]
FAULTS = ["hang", "resume", "shrink", "refuse", "lose", "cut", "delay", "limit", "shed", "shift"]
FEATURES = (
    "pools", "replicas", "blocks", "seats", "budget", "whole_prompts", "first_chunk_only", "watermark", "priorities",
    "noise", "timeout", "travel", "sessions", "circle", "commands", "long_answers", "table", "retries", "hedging",
    "patience", "zombies", "admission", "routers", "caching", "faults",
)  # fmt: skip
PREFIXES = np.array([(-1, 40), (0, 70), (0, 90), (1, 200), (-1, 7)], PREFIX)  # a small tree of shared texts
FATES = {
    Outcome.OK: {200},
    Outcome.REJECTED: {400, 429, 0},  # 0: its client refused it itself
    Outcome.TIMED_OUT: {499, 0},  # 0: between two attempts
    Outcome.FAILED: {502, 503, 200},  # 200: the stream broke off
    Outcome.CANCELLED: {499, 0},
    Outcome.UNFINISHED: {0},
}


@dataclass(frozen=True)
class Command:
    """Something done to the fleet at a time: *what* is a method's name, *whom* a replica or a request."""

    at_s: float
    what: str
    whom: int
    factor: float = 1.0


@dataclass(frozen=True)
class Case:
    """A fleet, its users, and what is done to it."""

    pools: tuple[PoolConfig, ...]
    asks: np.ndarray
    duration_s: float
    end_s: float
    seed: int = 1
    clients: ClientPolicy = ClientPolicy()
    commands: tuple[Command, ...] = ()
    circle: int = 0  # users who ask again and again; *asks* has the first request of each
    pace: np.ndarray | None = None
    prefixes: np.ndarray | None = None

    @property
    def busy_s(self) -> float:
        """When most has happened."""
        return min(self.end_s, 2 * float(self.asks["scheduled_s"].max()) + 1)

    def _repr_pretty_(self, p: Any, cycle: bool) -> None:
        """Say what matters when Hypothesis shows a case: no tables of step times."""
        columns = ["request", "scheduled_s", "prompt_tokens", "output_tokens", "level", "pool", "follow_up"]
        pools = [re.sub(r"steps=StepTimes\(.*?notes=\(.*?\)\), ", "", repr(pool), flags=re.S) for pool in self.pools]
        rest = {name: value for name, value in vars(self).items() if name not in ("pools", "asks")}
        p.text(f"{pools}\n{columns} {self.asks[columns].tolist()}\n{rest}")

    def fleet(self, **settings: object) -> Fleet:
        """Set the fleet up."""
        return Fleet(
            self.pools,
            seed=self.seed,
            cohorts=2,
            duration_s=self.duration_s,
            clients=self.clients,
            prefixes=self.prefixes,
            pace=self.pace,
            **settings,  # type: ignore[arg-type]
        )


# --- drawing ----------------------------------------------------------------------------------------------------------


@st.composite
def cases(draw: Callable[..., Any], without: Sequence[str] = (), always: Sequence[str] = ()) -> Case:
    """Draw a case with none of the features in *without* and all of those in *always*."""
    on = draw(st.sets(st.sampled_from([name for name in FEATURES if name not in without]))) | set(always)
    return build(draw(st.integers(0, 2**20)), on, draw(st.sampled_from([2, 8, 30, 80])), draw(st.booleans()))


def build(seed: int, on: Set[str], size: int, ticking: bool = False) -> Case:
    """Return the case of one *seed* with the features *on*, and about *size* requests."""
    rng = np.random.default_rng(seed)
    pools = tuple(_pool(rng, on, ticking) for _ in range(1 + 2 * ("pools" in on)))
    duration_s = float(rng.choice([1, 4, 16]))
    if ticking:
        duration_s += TICK_S
    asks = _asks(rng, on, size, duration_s, len(pools), ticking)
    case = Case(
        pools,
        asks,
        duration_s,
        end_s=duration_s * float(rng.choice([1, 2, 40])),
        seed=seed,
        clients=_clients(rng, on, ticking),
        prefixes=PREFIXES if "caching" in on else None,
        circle=size if "circle" in on else 0,
        pace=PACE if "noise" in on and rng.random() < 0.3 else None,
    )
    return replace(case, commands=tuple(_commands(rng, case, on, ticking))) if {"commands", "faults"} & on else case


def _clients(rng: np.random.Generator, on: Set[str], ticking: bool) -> ClientPolicy:
    """Clients who give up, try again, send second copies and run out of patience, as the features say."""

    def time_s(feature: str, *some: float) -> float:
        value_s = float(rng.choice(some))
        return _on_tick(value_s, ticking) if feature in on and value_s < math.inf else math.inf

    retries = "retries" in on
    return ClientPolicy(
        timeout_s=time_s("timeout", 0.05, 0.3, 2.0),
        first_token_s=time_s("timeout", 0.1, 1.0, math.inf),
        deadline_s=time_s("timeout", 0.5, 3.0, math.inf),
        patience_s=time_s("patience", 0.05, 0.5, 2.0),
        patience_exponential=bool(rng.random() < 0.5) and not ticking,
        retries=int(rng.choice([1, 3])) if retries else 0,
        backoff_s=_on_tick(float(rng.choice([0.02, 0.3])), ticking) if retries else 0.0,
        jitter="none" if ticking else str(rng.choice(["none", "full", "equal"])),
        budget=float(rng.choice([0.1, 0.5, math.inf])) if retries else math.inf,
        budget_burst=float(rng.choice([1.0, 10.0])),
        throttle=float(rng.choice([0.0, 1.1, 2.0])) if retries else 0.0,
        hedge_s=time_s("hedging", 0.03, 0.2),
        hedge_share=float(rng.choice([0.1, 1.0])),
        hedge_cancel=bool(rng.random() < 0.5),
        zombie="zombies" in on,
        limit_per_s=float(rng.choice([math.inf, 20.0])) if "admission" in on else math.inf,
    )


def _on_tick(value_s: float, ticking: bool) -> float:
    return max(1.0, round(value_s / TICK_S)) * TICK_S if ticking else value_s


def _pool(rng: np.random.Generator, on: Set[str], ticking: bool) -> PoolConfig:
    def some(feature: str, few: Sequence[float], usual: float) -> int:
        return int(rng.choice(few)) if feature in on else int(usual)

    seats = some("seats", [1, 2, 5, 12], rng.choice([20, 256]))
    budget = max(seats, some("budget", [4, 12, 40], rng.choice([60, 2048])))
    block_size = some("blocks", [1, 3, 16], 16)
    blocks = max(2, some("blocks", [40, 150, 300], rng.choice([500, 64_000])) // block_size)
    noises = rng.integers(0, 2, 2) if "noise" in on else (0, 0)
    travel = [_on_tick(float(t), ticking) for t in rng.choice([0.001, 0.1, 0.4], 2)] if "travel" in on else [0.0, 0.0]
    return PoolConfig(
        steps=_steps(rng, "table" in on, ticking, seats, budget),
        replicas=some("replicas", [2, 3, 7], 1),
        spares=some("replicas", [0, 1], 0),
        router=str(rng.choice(ROUTERS if "routers" in on else ROUTERS[:3])),
        refresh_s=float(rng.choice([0.0, 0.1, 1.0])) if "routers" in on else 0.0,
        count_own=bool(rng.random() < 0.5),
        choices=int(rng.choice([1, 2, 3])),
        prefix_caching="caching" in on,
        max_queue=tuple(rng.integers(0, 6, 4).tolist()) if "admission" in on else (0, 0, 0, 0),
        max_outstanding=int(rng.choice([0, 20])) if "admission" in on else 0,
        max_wait_s=float(rng.choice([0.1, math.inf])) if "admission" in on else math.inf,
        deadline_aware=bool(rng.random() < 0.5) and "admission" in on,
        limit_per_s=float(rng.choice([5.0, math.inf])) if "admission" in on else math.inf,
        blocks=blocks,
        block_size=block_size,
        max_seqs=seats,
        max_tokens=budget,
        max_len=int(rng.choice([100, 100_000])),
        watermark=some("watermark", [1, 3, blocks // 4], 0),
        reserve_full="first_chunk_only" not in on,
        chunked="whole_prompts" not in on,
        noise=0.3 * noises[0],
        slow_noise=0.5 * noises[1],
        slow_period_s=0.7,
        ingress_s=travel[0],
        egress_s=travel[1],
    )


def _steps(rng: np.random.Generator, table: bool, ticking: bool, seats: int, budget: int) -> StepTimes:
    if ticking:
        return linear(seats, budget, TICK_S, TICK_S / 512, TICK_S / 64, float(rng.choice([0, TICK_S / 4096])))
    if not table:
        return linear(seats, budget, 0.01, 1e-5, 1e-4, float(rng.choice([0, 1e-6])))
    return random_steps(rng, seats, budget)


def random_steps(rng: np.random.Generator, seats: int, budget: int) -> StepTimes:
    """Return a table of step times as bent as one can be: non-decreasing, with many narrow cells."""
    edges = np.concatenate([[0.0], np.cumsum(rng.integers(1, 40, 12)), [4000.0]])
    cells = rng.exponential(1e-4, (seats, len(edges))) * rng.integers(0, 2, (seats, len(edges)))
    decode = np.concatenate([np.zeros((1, len(edges))), np.cumsum(np.cumsum(cells, axis=0), axis=1)])
    tokens = np.concatenate([[0.0], np.cumsum(rng.exponential(2e-5, budget) * rng.integers(0, 2, budget))])
    return StepTimes(0.005, decode, edges, tokens, float(rng.choice([0, 1e-7])))


def _asks(
    rng: np.random.Generator, on: Set[str], size: int, duration_s: float, pools: int, ticking: bool
) -> np.ndarray:
    spread = float(rng.choice([duration_s, min(duration_s, 0.03 * size), 0.1]))  # all day, in a hurry, or all at once
    at = np.sort(rng.uniform(0, spread, size))
    if ticking:
        at = np.round(at / TICK_S) * TICK_S
    prompt = rng.geometric(1 / float(rng.choice([2, 15, 15, 150])), size)
    output = rng.geometric(1 / float(rng.choice([1, 10, 60, 60])), size)
    if "long_answers" in on:
        output = np.where(rng.random(size) < 0.1, 5000, output)  # more than a lap of the finish buckets
    level = rng.integers(0, state.LEVELS, size) if "priorities" in on else 0
    asks = requests(at, output, prompt, level)
    asks["pool"] = rng.integers(0, pools, size)
    asks["cohort"] = rng.integers(0, 2, size)
    asks["wrong"] = rng.random(size) < 0.3
    if "caching" in on:
        _share_texts(rng, asks)
    if "circle" in on:
        asks["session"], asks["follow_up"] = np.arange(size), -2
    elif "sessions" in on:
        _chain(rng, asks, ticking)
    return asks


def _share_texts(rng: np.random.Generator, asks: np.ndarray) -> None:
    """Let prompts begin with texts of the tree, and some go on with what another has said."""
    asks["prefix"] = rng.integers(-1, len(PREFIXES), len(asks))
    asks["prefix_tokens"] = np.where(asks["prefix"] >= 0, PREFIXES["tokens"][asks["prefix"]], 0)
    fits = asks["prefix_tokens"] < asks["prompt_tokens"]
    asks["prefix"][~fits], asks["prefix_tokens"][~fits] = -1, 0
    asks["content"] = np.where(rng.random(len(asks)) < 0.3, rng.integers(0, 5, len(asks)), asks["request"])


def _chain(rng: np.random.Generator, asks: np.ndarray, ticking: bool) -> None:
    """Make conversations of up to three turns out of neighbours."""
    k = 0
    while k < len(asks):
        turns = min(int(rng.integers(1, 4)), len(asks) - k)
        for turn in range(turns):
            asks["session"][k + turn], asks["turn"][k + turn] = asks["request"][k], turn
            if turn:
                asks["follow_up"][k + turn - 1] = k + turn
                asks["scheduled_s"][k + turn] = rng.choice([0.0, _on_tick(0.2, ticking)])
        k += turns


def _commands(rng: np.random.Generator, case: Case, on: Set[str], ticking: bool) -> Iterator[Command]:
    asks, replicas = case.asks, sum(pool.replicas + pool.spares for pool in case.pools)
    known = [*VERBS, *FAULTS] if "faults" in on else VERBS
    verbs = rng.choice(known, int(rng.integers(1, 4)))
    for at_s in np.sort(rng.uniform(0, case.busy_s, int(rng.choice([2, 10, 40])))):
        at_s = _on_tick(at_s, ticking)
        verb = str(rng.choice(verbs))
        whom = int(rng.integers(0, len(asks) if verb == "cancel" else replicas))
        if verb == "cancel" and not asks["turn"][whom]:  # soon after it was asked
            at_s = float(asks["scheduled_s"][whom]) + _on_tick(rng.exponential(0.1), ticking)
        yield Command(float(at_s), verb, whom, float(rng.choice([1, 1.5, 2, 16])))


# --- playing ----------------------------------------------------------------------------------------------------------


@dataclass
class Played:
    """What came of a case."""

    case: Case
    fleet: Fleet
    taken: list[np.ndarray] = field(default_factory=list)
    turns: dict[int, int] = field(default_factory=dict)
    looks: list[np.ndarray] = field(default_factory=list)

    @property
    def rows(self) -> np.ndarray:
        """The attempts in the order in which they ended."""
        return np.concatenate(self.taken)

    def bytes(self) -> bytes:
        """The attempts and the counts that do not come from the rows, for comparing two plays to the last bit."""
        fleet, itl = self.fleet, state.ITL
        counts = [fleet.latency[:, :itl], fleet.windows, fleet.minutes, fleet.parts, fleet.w[0].outcomes]
        known = [(np.flatnonzero(count), count[count != 0]) for count in counts]
        return self.rows.tobytes() + b"".join(where.tobytes() + count.tobytes() for where, count in known)


def play(
    case: Case,
    *,
    cuts: Sequence[float] = (),
    chunk: int | None = None,
    watch: Callable[[Fleet], None] | None = None,
    close: bool = True,
    **settings: object,
) -> Played:
    """Play *case*: `advance` stops at every command and at *cuts*, users come in chunks, *watch* sees every stop.

    *cuts* are shares of the busy time.
    """
    played = Played(case, case.fleet(**settings))
    fleet = played.fleet
    chunks = _chunks(case.asks.copy(), chunk or len(case.asks))
    fleet.submit(next(chunks), more=True)
    stops: list[tuple[float, int, Command | None]] = [(c.at_s, k, c) for k, c in enumerate(case.commands)]
    moments = np.sort(cuts) * case.busy_s
    moments[::2] = np.round(moments[::2] / TICK_S) * TICK_S  # half of them as steps end, where times are ticks
    stops += [(at_s, -1, None) for at_s in moments.tolist()]
    for at_s, _, command in [*sorted(stops, key=lambda stop: stop[:2]), (case.end_s, 0, None)]:
        pump(played, at_s, chunks)
        played.looks.append(fleet.look())
        if command:
            apply(played, command)
        if watch:
            watch(fleet)
    if close:
        for _ in fleet.close():
            played.taken.append(fleet.take_rows())
        played.taken.append(fleet.take_rows())
        fleet.check_laws()
    return played


def pump(played: Played, until_s: float, chunks: Iterator[np.ndarray]) -> None:
    """Advance to *until_s*, giving the fleet whatever it asks for."""
    fleet = played.fleet
    while (why := fleet.advance(until_s)) != "done":
        if why == "inbox":
            chunk = next(chunks, None)
            fleet.submit(played.case.asks[:0] if chunk is None else chunk, more=chunk is not None)
        elif why == "script":
            asks = fleet.take_asks()
            fleet.continue_sessions(asks, next_turns(played, asks["session"]))
        else:
            played.taken.append(fleet.take_rows())


def _chunks(asks: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut *asks* into arrays of about *size* rows with whole conversations."""
    start = 0
    while start < len(asks):
        end = min(start + size, len(asks))
        while end < len(asks) and asks["follow_up"][end - 1] >= 0:
            end += 1
        some = asks[start:end].copy()
        some["follow_up"] -= np.where(some["follow_up"] >= 0, start, 0)
        yield some
        start = end


def next_turns(played: Played, sessions: Ints) -> np.ndarray:
    """What the users of a circle ask next: a script each, a function of who asks and how often they have."""
    rows = np.repeat(played.case.asks[sessions], SCRIPT)
    for k, session in enumerate(sessions.tolist()):
        turn = played.turns.get(session, 1)
        played.turns[session] = turn + SCRIPT
        rng = np.random.default_rng([played.case.seed, session, turn])
        script = rows[k * SCRIPT : (k + 1) * SCRIPT]
        script["turn"] = turn + np.arange(SCRIPT)
        script["scheduled_s"] = rng.integers(0, 20, SCRIPT) * TICK_S
        script["output_tokens"] = rng.geometric(0.1, SCRIPT)
        script["follow_up"] = k * SCRIPT + 1 + np.arange(SCRIPT)
        script["follow_up"][-1] = -2
    rows["request"] = rows["session"] + played.case.circle * rows["turn"]
    return rows


def apply(played: Played, command: Command) -> None:
    """Do what *command* says."""
    fleet = played.fleet
    if command.what == "slow":
        fleet.slow(command.whom, command.factor)
    elif command.what == "drain":
        fleet.drain(command.whom, command.factor > 1)
    elif command.what == "restore":
        fleet.restore(command.whom)
    elif command.what == "cancel":
        fleet.cancel(command.whom)
    elif command.what in FAULTS:
        _break(fleet, command)
    else:
        for _ in fleet.crash(command.whom):
            played.taken.append(fleet.take_rows())


def _break(fleet: Fleet, command: Command) -> None:
    """Do to the fleet what *command* says, as hard as its factor is big (1: undo it)."""
    r, hard = command.whom, 1.0 - 1.0 / command.factor
    pool = int(fleet.reps[r].pool)
    if command.what in ("hang", "resume"):
        getattr(fleet, command.what)(r)
    elif command.what == "shrink":
        fleet.shrink(r, int(hard * fleet.pools[pool].blocks))
    elif command.what in ("refuse", "lose", "cut"):
        getattr(fleet, command.what)(r, hard)
    elif command.what == "delay":
        fleet.delay(pool, hard)
    elif command.what == "limit":
        fleet.limit(pool, math.inf if hard == 0.0 else 10.0 / command.factor)
    elif command.what == "shed":
        fleet.shed(pool, int(4 * (1.0 - hard)))
    else:
        fleet.shift(r % 2, command.factor, command.factor)


# --- what must be true at any time ------------------------------------------------------------------------------------


def members(fleet: Fleet, heads: Sequence[int]) -> list[int]:
    """The sequences in the lists that begin at *heads*, one list a level, checking their links."""
    found = []
    after, back, levels = (np.asarray(fleet.seqs[name]) for name in ("next", "prev", "level"))
    for level, head in enumerate(heads):
        before, s = state.NONE, int(head)
        while s != state.NONE:
            assert back[s] == before
            assert levels[s] == level
            found.append(s)
            before, s = s, int(after[s])
    return found


def tokens_of(fleet: Fleet, s: int) -> int:
    """Tokens of a sequence in the KV cache once the step in flight has ended (of a stretch: before it)."""
    seq = fleet.seqs[s]
    if seq.state == state.DECODE:
        return int(seq.target + fleet.reps[seq.replica].step - seq.begin_step)
    return int(seq.computed)


def audit(fleet: Fleet) -> None:
    """Check every book that the fleet keeps against its sequences, counted one by one."""
    w = fleet.w[0]
    assert w.started == w.outcomes.sum() + w.live
    assert w.live == fleet.asked["live"].sum()
    for r, gauge in enumerate(fleet.look()):
        rep = fleet.reps[r]
        pool = fleet.pools[rep.pool]
        running, waiting = members(fleet, rep.run_head), members(fleet, rep.wait_head)
        assert (rep.running, rep.waiting, rep.outstanding) == (len(running), len(waiting), len(running + waiting))
        _audit_order(fleet, running, waiting)
        decoding = [s for s in running if fleet.seqs[s].state == state.DECODE]
        tokens = {s: tokens_of(fleet, s) for s in running}
        shared = {s: int(fleet.seqs[s].shared) for s in running}
        held = sum(-(-tokens[s] // pool.block_size) - shared[s] for s in running) + _audit_cache(fleet, r, running)
        grown = sum(tokens[s] % pool.block_size == 0 for s in decoding) if rep.steps_planned else 0
        assert rep.free_blocks >= 0 or rep.taken_blocks
        assert rep.free_blocks + rep.taken_blocks + held + grown == pool.blocks, "KV blocks are neither free nor held"
        assert held + grown <= gauge.kv_blocks <= pool.blocks
        assert (rep.decoding, rep.context) == (len(decoding), sum(tokens[s] for s in decoding))
        assert rep.running <= pool.max_seqs
        assert rep.decoding + rep.prefill_now <= pool.max_tokens or rep.steps_planned == 0
        _audit_board(fleet, r, decoding)
        if rep.steps_planned == 0:
            assert not running, "a batch without a step"
            assert not waiting or rep.hung or _does_not_fit(fleet, waiting[0]), "idle while requests wait"
            assert rep.wake_s == math.inf
        else:
            assert rep.wake_s > w.now_s or not rep.up
    assert fleet.tree[1] == int(np.argmin(fleet.reps.wake_s))


def _does_not_fit(fleet: Fleet, s: int) -> bool:
    """Whether a fault has left an idle replica too few KV blocks for the sequence that is first in line there."""
    rep = fleet.reps[fleet.seqs[s].replica]
    pool = fleet.pools[rep.pool]
    target = int(fleet.seqs[s].target)
    at_once = target if pool.reserve_full else min(target, int(pool.max_tokens))
    return bool(rep.taken_blocks) and -(-at_once // int(pool.block_size)) > rep.free_blocks


def _audit_order(fleet: Fleet, running: list[int], waiting: list[int]) -> None:
    """Within a level those who came first run, and the first of those who wait is next: the preempted return first."""
    came = [[(fleet.seqs[s].level, fleet.seqs[s].sent_s) for s in some] for some in (running, waiting)]
    for level in range(state.LEVELS):
        times = [sent_s for some in came for at, sent_s in some if at == level]
        assert times == sorted(times), "out of order"


def _audit_cache(fleet: Fleet, r: int, running: list[int]) -> int:
    """Check the prefix cache of a replica and return the blocks of shared texts that its sequences use."""
    if not fleet.pools[fleet.reps[r].pool].caching:
        return 0
    rep, cache, nodes = fleet.reps[r], fleet.cache, int(fleet.w[0].nodes)
    uses = np.zeros(nodes, int)
    for s in running:
        node = int(fleet.seqs[s].prefix)
        while node >= 0:
            uses[node] += 1
            node = int(PREFIXES["parent"][node])
    own = cache[r * nodes : (r + 1) * nodes]
    assert (own.refs == uses).all(), "a shared text is held by somebody else"
    assert (own.blocks <= own.full).all()
    free, before, e = 0, state.NONE, int(rep.lru_head)
    while e != state.NONE:
        assert cache[e].prev == before
        assert cache[e].refs == 0 < cache[e].blocks
        free += int(cache[e].blocks)
        before, e = e, int(cache[e].next)
    assert free == rep.cached_free
    return int(own.blocks[own.refs > 0].sum())


def _audit_board(fleet: Fleet, r: int, decoding: list[int]) -> None:
    """The counters by residue and the finish buckets hold the decoding sequences, and nothing else."""
    w, rep, board = fleet.w[0], fleet.reps[r], fleet.board[r]
    size = int(fleet.pools[rep.pool].block_size)
    due = np.zeros(size, int)
    for s in decoding:
        seq = fleet.seqs[s]
        due[(seq.begin_step + 1 - seq.target) % size] += 1
        assert seq.finish_step - rep.step == seq.stop - seq.done - 1 - (rep.step - seq.begin_step) > 0
    assert (board[:size] == due).all()
    heads = board[w.ring_at : w.ring_at + state.RING]
    bits = board[w.bits_at : w.bits_at + state.RING // 32, None] >> np.arange(32) & 1
    assert (bits.ravel() == (heads != state.NONE)).all()
    found = []
    for bucket in np.flatnonzero(heads != state.NONE):
        s = int(heads[bucket])
        while s != state.NONE:
            found.append(s)
            assert int(fleet.seqs[s].finish_step) % state.RING == bucket
            s = int(fleet.seqs[s].link)
    assert sorted(found) == sorted(decoding)


# --- what must be true of every row -----------------------------------------------------------------------------------


def longest_answer(case: Case, ask: np.void) -> int:
    """The most tokens that the pool of a request can answer with; below 1 it refuses."""
    pool = case.pools[int(ask["pool"])]
    whole = math.inf if pool.chunked else pool.max_tokens
    return int(min(pool.max_len, pool.blocks * pool.block_size, whole) - ask["prompt_tokens"])


def check_attempts(played: Played) -> None:
    """Check each row of a case by itself, and that every request has exactly one that decided it."""
    rows, case, fleet = played.rows, played.case, played.fleet
    last = rows[rows["last"] == 1]
    assert len(np.unique(last["request"])) == len(last) == fleet.w[0].started
    assert len(np.unique(rows[["request", "attempt"]])) == len(rows), "an attempt has two rows"
    assert set(rows["request"].tolist()) == set(last["request"].tolist())
    assert np.bincount(last["outcome"], minlength=6).tolist() == fleet.w[0].outcomes.tolist()
    if not case.circle:
        came = _must_come(case)
        assert came <= set(last["request"].tolist()) <= set(case.asks["request"].tolist())
    moments = np.stack([rows[name] for name in ("scheduled_s", "sent_s", "admitted_s", "first_token_s", "finished_s")])
    for k in range(4):
        for later in moments[k + 1 :]:
            assert not (later < moments[k]).any(), "causality"
    parts = np.stack([rows[part].astype(float) for part in PARTS])
    assert (parts >= -1e-9).all(), "a negative part"
    whole = rows["finished_s"] - rows["scheduled_s"]
    assert np.allclose(parts.sum(axis=0), whole, rtol=1e-5, atol=1e-6), "the parts do not sum to the whole"
    clients = case.clients
    assert (rows["finished_s"] - rows["sent_s"] <= clients.timeout_s + 1e-9).all(), "waited longer than the timeout"
    assert (whole <= clients.deadline_s + 1e-9).all(), "waited longer than the deadline"
    silent = np.isnan(rows["first_token_s"])
    assert (rows["finished_s"] - rows["sent_s"] <= clients.first_token_s + 1e-9)[silent].all(), "waited in silence"
    if not clients.patience_exponential:
        heard = np.isin(rows["request"], rows["request"][~silent])
        assert (whole <= clients.patience_s + 1e-9)[~heard].all(), "waited longer than patience"
    assert (rows["attempt"] <= 2 * clients.retries + 1 + (clients.retries > 0)).all(), "too many attempts"
    assert (parts[PARTS.index("preempted_s")] > 0).sum() <= (rows["preemptions"] > 0).sum()
    if not any(command.what in ("slow", "hang") for command in case.commands):
        assert not parts[PARTS.index("fault_stall_s")].any()
    for row in rows:
        _check_fate(case, row)


def _must_come(case: Case) -> set[int]:
    """Requests that nothing can keep away: those that do not follow up, in time."""
    later = set(case.asks["follow_up"].tolist())
    asks = case.asks
    return {
        int(ask["request"]) for k, ask in enumerate(asks) if k not in later and ask["scheduled_s"] < case.duration_s
    }


def _check_fate(case: Case, row: np.void) -> None:
    """Check what a row says against its outcome."""
    outcome = Outcome(row["outcome"])
    answered = outcome == Outcome.OK
    assert row["status"] in FATES[outcome]
    if outcome == Outcome.REJECTED:
        assert row["replica"] < 0
    assert math.isnan(row["first_token_s"]) == (row["output_tokens"] == 0)
    assert row["answerer"] == (0 if answered else 3)
    if case.circle or any(command.what == "shift" for command in case.commands):
        return
    ask = case.asks[row["request"]]
    most = min(longest_answer(case, ask), int(ask["output_tokens"]))
    assert (row["status"] == 400) <= (most < 1)
    assert row["output_tokens"] == most if answered else row["output_tokens"] <= max(most, 0)
    assert row["wrong"] == (ask["wrong"] if answered else 0)
    for name in ("session", "turn", "cohort", "pool", "level", "prompt_tokens"):
        assert row[name] == ask[name]


def arrivals_at_engine(case: Case, rows: np.ndarray) -> Floats:
    """When each row's request reached its replica."""
    ingress_s = np.array([pool.ingress_s for pool in case.pools])
    return rows["sent_s"] + ingress_s[rows["pool"]]
