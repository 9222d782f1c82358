"""The compiled prefix cache against a second one that keeps every block by itself: same hits, same times."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine.fleet import Fleet, PoolConfig
from sim.engine.latency import linear
from sim.records import PREFIX, REQUEST, Outcome
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


def compare(case: Case) -> Reference:
    """Play the case through both engines, check every row, and return the reference."""
    talks = case.asks()
    rows = rows_of(case, talks)
    fleet = case.fleet()
    fleet.submit(rows)
    assert fleet.advance(FOREVER_S) == "done"
    attempts = fleet.take_rows()
    fleet.check_laws()
    attempts = attempts[np.argsort(attempts["request"])]
    reference = case.reference()
    reference.play([talk[0] for talk in talks])
    asks = [ask for talk in talks for ask in talk]
    assert (attempts["outcome"] == Outcome.OK).all()
    for name in ("admitted_s", "first_token_s", "finished_s"):
        known = np.array([getattr(ask, name) for ask in asks])
        first = int(known.argmin())
        np.testing.assert_allclose(attempts[name], known, rtol=0, atol=1e-6, err_msg=f"{name}, {first}")
    assert attempts["cached_tokens"].tolist() == [ask.cached for ask in asks]
    assert attempts["preemptions"].tolist() == [ask.preemptions for ask in asks]
    assert fleet.w[0].prompt_seen == sum(ask.prompt for ask in asks)
    assert fleet.w[0].prompt_cached == sum(ask.cached for ask in asks)
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


@settings(max_examples=400)
@given(cases())
def test_every_request_finds_the_same_blocks_at_the_same_time(case: Case) -> None:
    compare(case)
