"""The laws of DESIGN.md, on fleets, users and troubles drawn at random (see `tests.swarm`)."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine import state
from sim.engine.routing import ROUTERS
from sim.records import PARTS, Outcome
from sim.world import check_rows
from tests import swarm
from tests.swarm import Case, audit, cases, check_attempts, play

CUTS = st.lists(st.floats(0, 1), min_size=4, max_size=24)
A_FEW = settings(max_examples=settings().max_examples // 4)


@given(case=cases(), cuts=CUTS)
def test_nothing_is_lost_at_any_time(case: Case, cuts: list[float]) -> None:
    """Conservation of requests and KV blocks, work conservation, causality, one outcome each: watched throughout."""
    played = play(case, cuts=cuts, watch=audit)
    check_attempts(played)
    check_rows(played.rows)


@given(case=cases(without=["travel"], always=["faults"]))
def test_what_comes_before_the_first_token_sums_to_it(case: Case) -> None:
    """Preemptions and stalls are counted on the side of the first token on which they fell."""
    played = play(case)
    rows = played.rows[played.rows["last"] == 1]
    rows = rows[np.isin(rows["outcome"], (Outcome.OK, Outcome.TIMED_OUT, Outcome.UNFINISHED))]
    ttft_s = np.fmin(rows["first_token_s"], rows["finished_s"]) - rows["scheduled_s"]
    parts = played.fleet.parts
    before_s = parts[:, : PARTS.index("prefill_s") + 1].sum() + parts[:, len(PARTS) :].sum()
    assert before_s == pytest.approx(ttft_s.sum(), rel=1e-5, abs=1e-4)
    assert (parts[:, len(PARTS) :] <= parts[:, PARTS.index("preempted_s") : len(PARTS)] + 1e-6).all()


@A_FEW
@given(case=cases())
def test_same_seed_same_bytes(case: Case) -> None:
    assert play(case).bytes() == play(case).bytes()


@given(case=cases(without=["commands"], always=["priorities", "seats"]))
def test_the_urgent_first_and_then_who_came_first(case: Case) -> None:
    """Nobody is admitted while one who is more urgent, or as urgent and came before, waits at the same replica."""
    rows = play(case).rows
    rows = rows[rows["replica"] >= 0]
    came_s, admitted_s = swarm.arrivals_at_engine(case, rows), rows["admitted_s"]
    waited_until_s = np.fmin(admitted_s, rows["finished_s"])
    for k in np.flatnonzero(~np.isnan(admitted_s)):
        waiting = (rows["replica"] == rows["replica"][k]) & (came_s < admitted_s[k]) & (waited_until_s > admitted_s[k])
        before = waiting & (came_s < came_s[k])
        assert not (waiting & (rows["level"] < rows["level"][k])).any(), "the less urgent overtook"
        assert not (before & (rows["level"] == rows["level"][k])).any(), "a later one overtook"


@given(case=cases(without=["circle"]), luck=st.integers(0, 99))
def test_nobody_knows_how_long_an_answer_will_be(case: Case, luck: int) -> None:
    """Change the lengths of all answers that are not finished at the end: nothing that has happened is different."""
    case = replace(case, pools=tuple(replace(pool, egress_s=0.0) for pool in case.pools))
    played = play(case)
    rows = played.rows
    finished = rows["request"][rows["outcome"] != Outcome.UNFINISHED]
    made = np.zeros(len(case.asks), int)
    made[rows["request"]] = rows["output_tokens"]
    others = case.asks.copy()
    others["output_tokens"] = made + np.random.default_rng(luck).integers(1, 300, len(others))
    others["output_tokens"][finished] = case.asks["output_tokens"][finished]
    assert play(replace(case, asks=others)).bytes() == played.bytes()


@A_FEW
@given(case=cases(without=["sessions", "circle", "retries", "hedging"], always=["replicas"]))
def test_two_routers_meet_the_same_users(case: Case) -> None:
    seen = []
    for router in ROUTERS:
        rows = play(replace(case, pools=tuple(replace(pool, router=router) for pool in case.pools))).rows
        seen.append(np.sort(rows, order="request"))
    for name in ("request", "scheduled_s", "sent_s", "prompt_tokens", "cohort", "level", "pool"):
        for other in seen[1:]:
            assert (seen[0][name] == other[name]).all()


@A_FEW
@given(case=cases(), share=st.floats(0.0, 1.0))
def test_keeping_fewer_rows_changes_only_how_many_are_kept(case: Case, share: float) -> None:
    whole, part = play(case), play(case, rows=share)
    kept = np.isin(whole.rows["request"], part.rows["request"])
    assert whole.rows[kept].tobytes() == part.rows.tobytes()
    assert (whole.fleet.latency == part.fleet.latency).all()
    assert (whole.fleet.parts == part.fleet.parts).all()
    assert len(part.rows) <= len(whole.rows) * (share > 0)


@A_FEW
@given(case=cases())
def test_a_dead_replica_holds_nothing_and_gets_nothing(case: Case) -> None:
    """After a crash of everything, the fleet is empty, and all that comes is turned away."""
    played = play(case, close=False)
    fleet = played.fleet
    for r in range(fleet.replicas):
        swarm.apply(played, swarm.Command(case.end_s, "crash", r))
    audit(fleet)
    assert not fleet.reps.outstanding.any()
    assert (fleet.reps.free_blocks == fleet.pools.blocks[fleet.reps.pool]).all()
    played.taken.append(fleet.take_rows())
    swarm.pump(played, case.end_s + 10, iter([]))
    for _ in fleet.close():
        played.taken.append(fleet.take_rows())
    played.taken.append(fleet.take_rows())
    fleet.check_laws()
    late = played.rows[played.rows["scheduled_s"] > case.end_s]
    assert set(late["status"].tolist()) <= {0, 400, 499, 503}


# --- each step by itself, one replica ---------------------------------------------------------------------------------


def one_replica(*always: str) -> st.SearchStrategy[Case]:
    """Cases whose steps can be told from outside, with the features *always*."""
    return cases(
        without=[
            "pools",
            "replicas",
            "commands",
            "timeout",
            "travel",
            "noise",
            "sessions",
            "circle",
            "retries",
            "hedging",
            "patience",
            "zombies",
            "admission",
            "caching",
            "faults",
        ],
        always=always,
    )


class Steps:
    """One replica, watched at the beginning of every step."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.config = case.pools[0]
        self.fleet = case.fleet(leap=False)
        self.before: dict[int, tuple[int, int]] = {}
        self.after: dict[int, tuple[int, int]] = {}
        self.preempted: set[int] = set()

    def play(self, most: int) -> None:
        """Check up to *most* steps."""
        fleet, rep = self.fleet, self.fleet.reps[0]
        fleet.submit(self.case.asks.copy(), more=False)
        arrivals = self.case.asks["scheduled_s"]
        played, at_s = swarm.Played(self.case, fleet), -1.0
        for _ in range(most):
            later = arrivals[arrivals > at_s]
            at_s = float(rep.wake_s) if rep.steps_planned else float(later.min(initial=np.inf))
            if at_s == np.inf:
                break
            preemptions = int(rep.preemptions)
            swarm.pump(played, at_s, iter([]))
            self.before, self.after = self.after, self._batch()
            if rep.steps_planned:
                self._check_step(at_s)
                self._check_admissions(int(rep.preemptions) - preemptions, at_s)

    def _batch(self) -> dict[int, tuple[int, int]]:
        """Request -> (state, computed tokens) of all that run."""
        running = swarm.members(self.fleet, self.fleet.reps[0].run_head)
        seqs = np.asarray(self.fleet.seqs)[running]
        ids = np.asarray(self.fleet.asked["request"])[seqs["request"]]
        return dict(zip(ids.tolist(), zip(seqs["state"].tolist(), seqs["computed"].tolist()), strict=False))

    def _chunks(self) -> list[tuple[int, int]]:
        """Prompt tokens that the step computes, each chunk with the context before it."""
        chunks = []
        for request, (kind, computed) in self.after.items():
            if kind == state.PREFILL:
                was, offset = self.before.get(request, (state.FREE, 0))
                chunks.append((computed - offset * (was == state.PREFILL), offset * (was == state.PREFILL)))
        return [chunk for chunk in chunks if chunk[0]]

    def _check_step(self, at_s: float) -> None:
        """The step takes what `StepTimes.step_s` says of the same batch."""
        rep, chunks = self.fleet.reps[0], self._chunks()
        n = int(rep.decoding)
        mean = rep.context / n + 1 if n else 0.0
        assert sum(tokens for tokens, _ in chunks) == rep.prefill_now
        assert rep.wake_s - at_s == pytest.approx(self.config.steps.step_s(n, mean, chunks), rel=1e-9, abs=1e-9)

    def _check_admissions(self, preemptions: int, at_s: float) -> None:
        """Nobody joins in a step that preempted; else the queue is as short as seats, budget and blocks allow."""
        rep, config = self.fleet.reps[0], self.config
        seqs = self.fleet.seqs
        waiting = [s for s in swarm.members(self.fleet, rep.wait_head) if seqs[s].sent_s < at_s]  # when it was planned
        running = np.asarray(seqs)[swarm.members(self.fleet, rep.run_head)]
        joined = running[(running["state"] == state.PREFILL) & (running["mark_s"] == at_s)]
        if preemptions:
            assert not len(joined), "admitted in a step that preempted"
            return
        own = -(-joined["computed"] // config.block_size)
        fits = -(-joined["target" if config.reserve_full else "computed"] // config.block_size)
        if len(joined) < rep.running:
            assert (fits + config.watermark <= rep.free_blocks + own.sum()).all(), "there was no room"
        if not waiting:
            return
        head = seqs[waiting[0]]
        assert (joined["level"] <= head.level).all(), "the less urgent overtook"
        left = config.max_tokens - rep.decoding - rep.prefill_now
        tokens = min(int(head.target), left)
        need = head.target if config.reserve_full else tokens
        assert (
            rep.running == config.max_seqs
            or left == 0
            or (not config.chunked and head.target > left)
            or -(-need // config.block_size) + config.watermark > rep.free_blocks
        ), "there was room for one more"


@given(case=one_replica() | one_replica("blocks", "budget", "first_chunk_only"))
def test_each_step_takes_its_time_and_whom_it_can(case: Case) -> None:
    Steps(case).play(most=150)
