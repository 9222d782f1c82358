"""The compiled prefix cache against a second one that keeps every block by itself: same hits, same times."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import scenario
from sim.engine.fleet import Fleet, PoolConfig
from sim.engine.latency import linear
from sim.engine.prefix import route_by
from sim.records import PREFIX, REQUEST, Outcome
from sim.world import simulate
from tests.playing import poisson, requests, serve
from tests.reference_engine import Ask, Reference
from tests.test_reference_engine import BASE_S, CONTEXT_S, PREFILL_S, SEQUENCE_S, step_s

FOREVER_S = 1e6
TINY_S = 1e-6 * 2**0.5  # so that nothing happens just when a step ends


@dataclass
class Turn:
    """What a user says (tokens after what was said before) and gets, and how long after the turn before."""

    says: int
    gets: int
    after_s: float


@dataclass
class Case:
    """A tree of shared prefixes (parent, tokens more), sessions (node, level, turns), and the replica they ask."""

    tree: list[tuple[int, int]]
    sessions: list[tuple[int, int, list[Turn]]]
    block_size: int
    spare_blocks: int
    tokens_a_step: int
    seats: int
    watermark: int
    reserve_full: bool
    chunked: bool
    leap: bool
    depth: list[int] = field(default_factory=list)
    longest: int = 0

    def __post_init__(self) -> None:
        """Work out where nodes end, and how long the longest conversation gets."""
        for parent, more in self.tree:
            self.depth.append(more + (self.depth[parent] if parent >= 0 else 0))
        for node, _, turns in self.sessions:
            said = sum(turn.says + turn.gets for turn in turns) + (self.depth[node] if node >= 0 else 0)
            self.longest = max(self.longest, said)

    @property
    def blocks(self) -> int:
        """KV blocks of the replica: the longest conversation fits, and not much more."""
        return -(-self.longest // self.block_size) + self.spare_blocks

    def path(self, node: int) -> tuple[tuple[int, int], ...]:
        """The nodes from the root to *node*, each with the tokens to its end."""
        return () if node < 0 else (*self.path(self.tree[node][0]), (node, self.depth[node]))

    def asks(self) -> list[list[Ask]]:
        """The turns of each session, for the reference."""
        talks = []
        for session, (node, level, turns) in enumerate(self.sessions):
            said, talk = self.depth[node] if node >= 0 else 0, []
            for k, turn in enumerate(turns):
                after = turn.after_s + TINY_S * (1 + session)
                talk.append(Ask(after, said + turn.says, turn.gets, level, self.path(node), session))
                said += turn.says + turn.gets
                if k:
                    talk[-2].follow_up = talk[-1]
            talks.append(talk)
        start_s = 0.0
        for talk in talks:
            start_s = talk[0].arrival_s = start_s + talk[0].arrival_s
        return talks

    def fleet(self) -> Fleet:
        """The compiled engine."""
        pool = PoolConfig(
            steps=linear(self.seats, self.tokens_a_step, BASE_S, PREFILL_S, SEQUENCE_S, CONTEXT_S),
            replicas=1, blocks=self.blocks, block_size=self.block_size, max_seqs=self.seats,
            max_tokens=self.tokens_a_step, watermark=self.watermark, reserve_full=self.reserve_full,
            chunked=self.chunked, prefix_caching=True,
        )  # fmt: skip
        tree = np.array([(parent, end) for (parent, _), end in zip(self.tree, self.depth)], PREFIX)
        return Fleet([pool], duration_s=FOREVER_S, prefixes=tree, leap=self.leap)

    def reference(self) -> Reference:
        """The second engine."""
        return Reference(
            step_s, self.blocks, self.block_size, self.seats, self.tokens_a_step, self.watermark, self.reserve_full,
            self.chunked, prefix_caching=True,
        )  # fmt: skip


def rows_of(case: Case, talks: list[list[Ask]]) -> np.ndarray:
    """What the sessions ask, as the fleet takes it."""
    rows = np.zeros(sum(map(len, talks)), REQUEST)
    at = 0
    for session, talk in enumerate(talks):
        node = case.sessions[session][0]
        for turn, ask in enumerate(talk):
            row = rows[at]
            row["request"], row["session"], row["turn"], row["content"] = at, session, turn, session
            row["level"], row["scheduled_s"] = ask.level, ask.arrival_s
            row["prompt_tokens"], row["output_tokens"] = ask.prompt, ask.output
            row["prefix"], row["prefix_tokens"] = node, case.depth[node] if node >= 0 else 0
            row["follow_up"] = at + 1 if turn + 1 < len(talk) else -1
            at += 1
    return rows


def compare(case: Case, blocks: int = 0) -> Reference:
    """Play the case through both engines, check every row, and return the reference, which has *blocks* more."""
    talks = case.asks()
    rows = rows_of(case, talks)
    fleet = case.fleet()
    fleet.submit(rows)
    assert fleet.advance(FOREVER_S) == "done"
    attempts = fleet.take_rows()
    fleet.check_laws()
    attempts = attempts[np.argsort(attempts["request"])]
    reference = case.reference()
    reference.kv_blocks += blocks
    reference.play([talk[0] for talk in talks])
    asks = [ask for talk in talks for ask in talk]
    assert (attempts["outcome"] == Outcome.OK).all()
    for name in ("admitted_s", "first_token_s", "finished_s"):
        known = np.array([getattr(ask, name) for ask in asks])
        np.testing.assert_allclose(attempts[name], known, rtol=0, atol=1e-6, err_msg=name)
    assert attempts["cached_tokens"].tolist() == [ask.cached for ask in asks]
    assert attempts["preemptions"].tolist() == [ask.preemptions for ask in asks]
    assert fleet.reps.prompt_seen.sum() == sum(ask.prompt for ask in asks)
    assert fleet.reps.prompt_cached.sum() == sum(ask.cached for ask in asks)
    return reference


@st.composite
def cases(draw: st.DrawFn, levels: int = 1) -> Case:
    """Trees of several depths, conversations, and memory that is short."""
    size = draw(st.sampled_from([1, 3, 16]))
    tokens = st.integers(1, 5 * size + 3)
    nodes = range(draw(st.integers(0, 6)))
    tree = [(draw(st.integers(-1, node - 1)), draw(tokens)) for node in nodes]
    turn = st.builds(Turn, tokens, st.integers(1, 6 * size + 3), st.floats(0.0, 0.5))
    sessions = st.tuples(
        st.integers(-1, len(tree) - 1), st.integers(0, levels - 1), st.lists(turn, min_size=1, max_size=4)
    )
    chunked = draw(st.booleans())
    case = Case(
        tree, draw(st.lists(sessions, min_size=1, max_size=12)), size,
        spare_blocks=draw(st.integers(0, 12)), tokens_a_step=draw(st.integers(1, 12 * size)),
        seats=draw(st.integers(1, 12)), watermark=draw(st.integers(0, 2)), reserve_full=draw(st.booleans()),
        chunked=chunked, leap=draw(st.booleans()),
    )  # fmt: skip
    if not chunked:  # every prompt, and its recomputation, must fit into a step
        case.tokens_a_step = max(case.tokens_a_step, case.longest)
    return case


@settings(max_examples=150)
@given(cases())
def test_every_request_finds_the_same_blocks_at_the_same_time(case: Case) -> None:
    compare(case)


@settings(max_examples=60)
@given(cases(levels=3))
def test_so_it_does_when_some_come_first(case: Case) -> None:
    compare(case)


def busy(seed: int, **changes: object) -> Case:
    """Conversations behind two system prompts, in a cache that holds a few of them."""
    rng = np.random.default_rng(seed)
    tree = [(-1, 100), (-1, 70), (0, 50), (0, 33), (2, 40)]
    sessions = []
    for _ in range(150):
        turns = rng.integers(1, 5)
        talk = [Turn(*map(int, rng.integers(1, 120, 2)), float(rng.exponential(2.0))) for _ in range(turns)]
        talk[0].after_s = float(rng.exponential(0.25))
        sessions.append((int(rng.integers(-1, 5)), int(rng.integers(3)), talk))
    limits = {"block_size": 16, "spare_blocks": 60, "tokens_a_step": 256, "seats": 64, "watermark": 0}
    return Case(tree, sessions, **{**limits, "reserve_full": True, "chunked": True, "leap": True, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
def test_a_busy_replica_evicts_preempts_and_finds_the_same(seed: int) -> None:
    case = busy(seed, leap=seed % 2 == 0)
    reference = compare(case)
    assert reference.evictions > 1000
    assert reference.twins == 0  # no text is in memory twice: this is what entries by text, and not by block, rely on


def test_the_comparison_can_fail() -> None:
    with pytest.raises(AssertionError):
        compare(busy(0), blocks=-1)


@pytest.mark.parametrize(("share", "slower"), [(0.0, 1e-9), (0.02, 0.01), (0.2, 0.12)])
def test_what_is_asked_again_while_it_is_answered_costs_more_than_in_vllm(share: float, slower: float) -> None:
    """The one simplification: a text that two sequences continue at once. *slower*: mean latency, at most."""
    rng = np.random.default_rng(1)
    at_s = poisson(rng, 10, 40)
    again = np.flatnonzero(rng.random(at_s.size) < share)
    prompt, output, content = rng.integers(50, 800, at_s.size), rng.geometric(1 / 60, at_s.size), np.arange(at_s.size)
    at_s = np.concatenate([at_s, at_s[again] + rng.random(again.size)])
    order = np.argsort(at_s)
    which = np.concatenate([content, again])[order]
    rows = requests(at_s[order], output[which], prompt[which])
    rows["content"] = which
    pool = PoolConfig(
        steps=linear(256, 2048, BASE_S, PREFILL_S, SEQUENCE_S, CONTEXT_S), replicas=1, blocks=5000, max_tokens=2048,
        prefix_caching=True,
    )  # fmt: skip
    ours = serve(pool, rows)
    asks = [Ask(row["scheduled_s"], row["prompt_tokens"], row["output_tokens"], content=row["content"]) for row in rows]
    Reference(step_s, 5000, max_num_batched_tokens=2048, prefix_caching=True).play(asks)
    found = sum(ask.cached for ask in asks)
    assert ours["cached_tokens"].sum() < found or share == 0.0
    theirs_s = np.mean([ask.finished_s - ask.arrival_s for ask in asks])
    assert 1.0 - 1e-9 <= np.mean(ours["finished_s"] - ours["scheduled_s"]) / theirs_s <= 1.0 + slower


# --- routers that know how a prompt begins ----------------------------------------------------------------------------

TREE = np.array([(-1, 160), (0, 320), (1, 400), (0, 330), (-1, 90)], PREFIX)


def routed(nodes: list[int], session: int = -1, **settings: object) -> np.ndarray:
    """The replica of each of many requests that begin with *nodes* in turn."""
    rows = requests(np.arange(1, 401) * 0.05, np.full(400, 5), 500)
    rows["prefix"] = np.resize(nodes, 400)
    rows["prefix_tokens"] = np.where(rows["prefix"] < 0, 0, TREE["tokens"][rows["prefix"]])
    if session >= 0:
        rows["session"] = rows["content"] = session
    config = PoolConfig(
        steps=linear(256, 2048, BASE_S, PREFILL_S), replicas=8, blocks=5000, max_tokens=2048,
        router="prefix_affinity", **{"load_bound": 1e9, "prefix_caching": True, **settings},
    )  # fmt: skip
    return serve(config, rows, prefixes=TREE)["replica"]


def test_routers_know_a_tree_by_the_node_behind_its_root() -> None:
    assert route_by(TREE["parent"].astype(int)).tolist() == [-1, 1, 1, 3, 4]
    assert route_by(np.zeros(0, int)).tolist() == []


def test_who_shares_more_than_a_system_prompt_goes_to_one_replica_and_who_does_not_anywhere() -> None:
    conversation = routed([1, 2])
    assert np.unique(conversation).size == 1
    assert np.unique(routed([4])).size == 1
    assert np.unique(routed([3])).size == 1
    assert np.bincount(routed([0]), minlength=8).min() > 25
    assert np.bincount(routed([-1]), minlength=8).min() > 25
    assert np.unique(routed([0], session=7)).size == 1


def test_without_a_cache_there_is_no_prefix_to_follow() -> None:
    assert np.bincount(routed([1], prefix_caching=False), minlength=8).min() > 25


def test_too_many_of_one_text_are_spread() -> None:
    assert np.bincount(routed([1], load_bound=1.25), minlength=8).max() < 400


# --- Mooncake's hour ------------------------------------------------------------------------------------------------


def played(trace: Path, router: object, pool: dict[str, object]) -> float:
    """The share of prompt tokens that a fleet finds in its caches."""
    fleet = {"router": router, "pools": {"p": {"prefix_caching": True, **pool}}}
    users = {"trace": str(trace), "cohorts": {"all": {}}}
    one = scenario.loads(json.dumps({"name": "x", "duration": "1h", "fleet": fleet, "workload": users}))
    return float(simulate(one, 1).metrics["prefix_hit"])


def test_one_replica_that_forgets_nothing_finds_in_mooncakes_hour_what_its_hashes_say(measured: Path) -> None:
    """37.36% by hashes (`tests/test_workload_prefixes.py`), less what is lost to blocks of 16 and to leading nodes."""
    endless = {
        "kv_blocks": 12_000_000, "max_model_len": 200_000, "max_num_batched_tokens": 200_000, "replicas": 1,
        "step_time": {"linear": {"base": "5ms"}},
    }  # fmt: skip
    found = played(measured / "mooncake" / "conversation_trace.jsonl", "random", endless)
    assert 0.3725 < found < 0.37362


@pytest.mark.slow
def test_routers_find_as_much_of_it_as_their_memory_and_their_choice_allow(measured: Path) -> None:
    """One LRU cache as large as the 16 replicas' together would find 25.4%."""
    trace, h100 = measured / "mooncake" / "conversation_trace.jsonl", {"model": "llama-3.1-8b", "hardware": "h100"}
    routers = ("least_outstanding", "power_of_d", "session_sticky", "prefix_affinity")
    loose = {"prefix_affinity": {"load_bound": 4}}
    fleets = ((router, {**h100, "replicas": 16}) for router in (*routers, loose))
    least, two, sticky, near, near_at_more_load = (played(trace, router, fleet) for router, fleet in fleets)
    assert min(least, two, sticky) > 0.045
    assert max(least, two, sticky) < 0.07
    assert 0.14 < near < 0.17
    assert 0.23 < near_at_more_load < 0.254
