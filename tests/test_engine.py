"""The engine's rules, one at a time, on timelines short enough to work out by hand: every step takes one second."""

import math
from typing import Any

import numpy as np
import pytest

from sim.engine import commands
from sim.engine import fleet as fleets
from sim.engine.clients import give_up
from sim.engine.fleet import ClientPolicy, Fleet, PoolConfig
from sim.engine.latency import StepTimes, linear
from sim.engine.play import play
from sim.engine.routing import ROUTERS
from sim.engine.sessions import load_script
from sim.engine.state import RING
from sim.errors import RunError
from sim.records import Outcome
from tests.playing import requests, serve

Ask = tuple[float, int, int]  # when, prompt tokens, output tokens
FIRST = (0.0, 1, 1)  # keeps the replica busy for a second, so that those who come meanwhile join together at t = 1


def pool(steps: StepTimes | None = None, **settings: Any) -> PoolConfig:
    """One replica with blocks of 4 tokens, whose steps take a second whatever they do."""
    usual: dict[str, Any] = {"replicas": 1, "blocks": 1000, "block_size": 4, "max_seqs": 8, "max_tokens": 64}
    usual |= settings
    return PoolConfig(steps or linear(usual["max_seqs"], usual["max_tokens"], 1.0), **usual)


def asking(*asks: Ask, level: list[int] | int = 0) -> np.ndarray:
    """Requests from (when, prompt tokens, output tokens)."""
    at, prompt, output = (np.array(column) for column in zip(*asks, strict=True))
    return requests(at.astype(float), output, prompt, level if isinstance(level, int) else np.array(level))


def fleet_of(*asks: Ask, level: list[int] | int = 0, timeout_s: float = math.inf, **settings: Any) -> Fleet:
    """A fleet that has been given its requests and not yet begun."""
    fleet = Fleet([pool(**settings)], duration_s=1000.0, clients=ClientPolicy(timeout_s=timeout_s))
    fleet.submit(asking(*asks, level=level))
    return fleet


def times(rows: np.ndarray, name: str) -> list[float]:
    return [round(float(value), 6) for value in rows[name]]


def finish(fleet: Fleet, until_s: float = 500.0) -> np.ndarray:
    """Play to the end and return the attempts in the order of the requests."""
    assert fleet.advance(until_s) == "done"
    for _ in fleet.close():
        raise AssertionError("rows ran full")
    fleet.check_laws()
    return np.sort(fleet.take_rows(), order="request")


def blocks_over_time(fleet: Fleet, *at_s: float) -> list[int]:
    used = []
    for until_s in at_s:
        fleet.advance(until_s)
        used.append(int(fleet.look()[0]["kv_blocks"]))
    return used


# --- steps and tokens -------------------------------------------------------------------------------------------------


def test_a_prompt_takes_a_step_and_each_further_token_another() -> None:
    rows = finish(fleet_of((0.5, 40, 3)))
    assert (times(rows, "sent_s"), times(rows, "admitted_s")) == ([0.5], [0.5])
    assert (times(rows, "first_token_s"), times(rows, "finished_s")) == ([1.5], [3.5])
    assert (times(rows, "prefill_s"), times(rows, "decode_alone_s")) == ([1.0], [2.0])
    assert rows["output_tokens"].tolist() == [3]


def test_who_comes_during_a_step_waits_for_its_end() -> None:
    rows = finish(fleet_of((0.0, 4, 5), (1.25, 4, 2)))
    assert times(rows, "admitted_s") == [0.0, 2.0]
    assert times(rows, "step_wait_s") == [0.0, 0.75]
    assert times(rows, "finished_s") == [5.0, 4.0]


def test_who_comes_as_a_step_ends_waits_for_the_next() -> None:
    """At equal times steps end first, and the next one is planned at once."""
    rows = finish(fleet_of((0.0, 4, 5), (2.0, 4, 2)))
    assert times(rows, "admitted_s") == [0.0, 3.0]


def test_a_long_prompt_is_computed_in_chunks_and_others_use_what_is_left() -> None:
    """Budget 16: the first prompt takes 16, 16 and 8; the second (12) has 8 in its first step and 4 beside decoding."""
    rows = finish(fleet_of((0.0, 40, 2), (0.5, 12, 2), max_tokens=16))
    assert times(rows, "admitted_s") == [0.0, 2.0]
    assert times(rows, "first_token_s") == [3.0, 4.0]
    assert times(rows, "finished_s") == [4.0, 5.0]
    assert times(rows, "step_wait_s") == [0.0, 1.5]


def test_decoding_comes_first_and_eats_budget() -> None:
    """Two sequences decode; of a budget of 8 that leaves 6 a step for a prompt of 12."""
    rows = finish(fleet_of(FIRST, (0.5, 4, 9), (0.5, 4, 9), (1.5, 12, 1), max_tokens=8))
    assert times(rows, "first_token_s") == [1.0, 2.0, 2.0, 4.0]


def test_without_chunks_a_prompt_waits_for_a_step_that_holds_all_of_it() -> None:
    """Beside one that decodes 15 of a budget of 16 are left, beside two 14."""
    rows = finish(fleet_of((0.0, 8, 5), (0.5, 15, 1), max_tokens=16, chunked=False))
    assert times(rows, "admitted_s") == [0.0, 1.0]
    rows = finish(fleet_of((0.0, 8, 5), (0.25, 2, 9), (0.5, 15, 1), max_tokens=16, chunked=False))
    assert times(rows, "admitted_s") == [0.0, 1.0, 5.0]


def test_without_chunks_no_sequence_is_longer_than_a_step() -> None:
    """Else it could never be computed again after a preemption (vLLM wants max_model_len <= max_num_batched_tokens)."""
    rows = finish(fleet_of((0.0, 16, 5), (0.0, 10, 50), max_tokens=16, chunked=False))
    assert rows["outcome"].tolist() == [Outcome.REJECTED, Outcome.OK]
    assert rows["output_tokens"].tolist() == [0, 6]


def test_a_full_batch_can_decode_in_one_step() -> None:
    """No more seats than tokens in a step (`sim.engine.hardware` refuses more, as vLLM does)."""
    rows = finish(fleet_of((0.0, 1, 9), *[(0.5, 1, 9)] * 7, max_seqs=8, max_tokens=4))
    assert times(rows, "admitted_s") == [0.0, 1.0, 1.0, 1.0, 9.0, 10.0, 10.0, 10.0]


@pytest.mark.parametrize("leap", [True, False])
def test_an_answer_longer_than_a_lap_of_the_finish_buckets(leap: bool) -> None:
    asks = asking((0.0, 1, 2 * RING + 7), (0.0, 1, RING), (0.0, 1, RING + 1), (0.0, 1, 1))
    rows = serve(pool(linear(8, 64, 0.25), blocks=10_000), asks, leap=leap)
    assert (rows["finished_s"] / 0.25).tolist() == [2 * RING + 7, RING + 1, RING + 2, 2]


def test_a_seat_is_waited_for_from_the_moment_one_is_missed() -> None:
    rows = finish(fleet_of((0.0, 4, 10), (2.5, 4, 2), max_seqs=1))
    assert times(rows, "admitted_s") == [0.0, 10.0]
    assert times(rows, "seat_wait_s") == [0.0, 7.5]
    assert times(rows, "step_wait_s") == [0.0, 0.0]


# --- KV blocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leap", [True, False])
def test_a_block_is_taken_when_a_token_is_scheduled_into_it(leap: bool) -> None:
    """A prompt of 4 fills one block; the 5th token opens another in the first decode step, the 9th a third."""
    fleet = Fleet([pool()], duration_s=100.0, leap=bool(leap))
    fleet.submit(asking((0.0, 4, 7)))
    assert blocks_over_time(fleet, 0.5, 1.0, 4.9, 5.0, 6.9, 7.0) == [1, 2, 2, 3, 3, 0]


def test_the_last_token_takes_no_block() -> None:
    """Nobody computes what follows it: 4 tokens of prompt and 5 of answer fill two blocks of 4."""
    rows = finish(fleet_of((0.0, 4, 5), blocks=3))
    assert rows["output_tokens"].tolist() == [5]
    fleet = fleet_of((0.0, 4, 5), blocks=3)
    assert blocks_over_time(fleet, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0) == [1, 2, 2, 2, 2, 0]


@pytest.mark.parametrize("leap", [True, False])
def test_the_newest_is_preempted_keeps_its_tokens_and_computes_them_again(leap: bool) -> None:
    """4 blocks for two that need a third each at t = 6: the newer loses its two, and its 9 tokens are one prompt."""
    fleet = Fleet([pool(blocks=4)], duration_s=100.0, leap=leap)
    fleet.submit(asking(FIRST, (0.5, 4, 6), (0.5, 4, 6)))
    rows = finish(fleet)[1:]
    assert rows["preemptions"].tolist() == [0, 1]
    assert times(rows, "finished_s") == [7.0, 8.0]
    assert times(rows, "first_token_s") == [2.0, 2.0]
    assert times(rows, "admitted_s") == [1.0, 1.0]
    assert times(rows, "preempted_s") == [0.0, 2.0]
    assert times(rows, "decode_alone_s") == [5.0, 4.0]
    assert fleet.look()["prompt_tokens"].tolist() == [1 + 4 + 4 + 9]
    assert fleet.look()["output_tokens"].tolist() == [1 + 12]


def test_the_preempted_come_back_before_those_who_wait() -> None:
    """The third waits for a seat; when the first is done, the preempted second goes before it, and fills the memory."""
    rows = finish(fleet_of(FIRST, (0.5, 4, 6), (0.5, 4, 8), (1.5, 8, 1), blocks=4, max_seqs=2))[1:]
    assert rows["preemptions"].tolist() == [0, 1, 0]
    assert times(rows, "finished_s") == [7.0, 10.0, 11.0]
    assert times(rows, "admitted_s") == [1.0, 1.0, 10.0]
    assert times(rows, "seat_wait_s") == [0.0, 0.0, 4.5]  # until t = 6; then for blocks, in a step that preempted
    assert times(rows, "kv_wait_s") == [0.0, 0.0, 4.0]


def test_nobody_joins_in_a_step_that_preempted() -> None:
    """At t = 6 a preemption frees one block more than is needed: an urgent one who needs no more joins at t = 7."""
    three = [FIRST, (0.5, 4, 9), (0.5, 4, 9), (5.5, 1, 1)]
    rows = finish(fleet_of(*three, blocks=4, level=[1, 1, 1, 0]))[1:]
    assert rows["preemptions"].tolist() == [0, 1, 0]
    assert times(rows, "admitted_s") == [1.0, 1.0, 7.0]
    rows = finish(fleet_of(*three, blocks=7, level=[1, 1, 1, 0]))[1:]
    assert times(rows, "admitted_s") == [1.0, 1.0, 6.0]


def test_a_prompt_waits_until_all_of_it_would_fit() -> None:
    """Whole-prompt admission: 20 tokens need 5 of 6 blocks, so they wait for the first to finish."""
    rows = finish(fleet_of((0.0, 8, 4), (0.0, 20, 1), blocks=6, max_tokens=8))
    assert times(rows, "admitted_s") == [0.0, 4.0]
    assert times(rows, "finished_s") == [4.0, 7.0]
    assert times(rows, "kv_wait_s") == [0.0, 3.0]
    assert times(rows, "step_wait_s") == [0.0, 1.0]


def test_or_only_its_first_chunk() -> None:
    """Without it 7 tokens are admitted at once, and at the next chunk the prompt preempts itself."""
    rows = finish(fleet_of((0.0, 8, 4), (0.0, 20, 1), blocks=6, max_tokens=8, reserve_full=False))
    assert times(rows, "admitted_s") == [0.0, 1.0]
    assert rows["preemptions"].tolist() == [0, 1]
    assert times(rows, "finished_s") == [4.0, 6.0]
    assert times(rows, "preempted_s") == [0.0, 4.0]


@pytest.mark.parametrize(("watermark", "admitted_s"), [(2, 1.0), (3, 4.0)])
def test_admission_leaves_the_watermark_free(watermark: int, admitted_s: float) -> None:
    """Two prompts of 4 blocks leave 2 of 10 free; an empty replica ignores the watermark."""
    rows = finish(fleet_of(FIRST, (0.5, 16, 3), (0.5, 16, 3), blocks=10, watermark=watermark))
    assert times(rows, "admitted_s") == [0.0, 1.0, admitted_s]


def test_answers_are_cut_at_the_longest_sequence() -> None:
    rows = finish(fleet_of((0.0, 10, 100), (0.0, 15, 100), (0.0, 3, 13), max_len=16))
    assert rows["output_tokens"].tolist() == [6, 1, 13]
    assert rows["outcome"].tolist() == [Outcome.OK] * 3
    rows = finish(fleet_of((0.0, 10, 100), blocks=4))
    assert rows["output_tokens"].tolist() == [6]


def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused() -> None:
    rows = finish(fleet_of((0.5, 16, 1), (0.5, 15, 1), max_len=16))
    assert rows["outcome"].tolist() == [Outcome.REJECTED, Outcome.OK]
    assert (rows["status"].tolist(), rows["replica"].tolist()) == ([400, 200], [-1, 0])
    assert times(rows, "finished_s") == [0.5, 1.5]


# --- priorities -------------------------------------------------------------------------------------------------------


def test_the_urgent_go_first() -> None:
    rows = finish(fleet_of((0.0, 4, 4), (0.5, 4, 1), (1.5, 4, 1), max_seqs=1, level=[3, 2, 0]))
    assert times(rows, "admitted_s") == [0.0, 5.0, 4.0]


def test_the_newest_of_the_least_urgent_is_preempted() -> None:
    """At t = 6 all three need a third block; the last is urgent, so the newer of the others gives way."""
    three = [(0.5, 4, 6)] * 3
    rows = finish(fleet_of(FIRST, *three, blocks=6, level=[0, 1, 1, 0]))
    assert rows["preemptions"].tolist() == [0, 0, 1, 0]
    rows = finish(fleet_of(FIRST, *three, blocks=6, level=[0, 1, 0, 0]))
    assert rows["preemptions"].tolist() == [0, 1, 0, 0]


# --- clients ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leap", [True, False])
def test_one_who_hangs_up_leaves_the_batch_when_the_step_ends(leap: bool) -> None:
    fleet = Fleet([pool(max_seqs=1)], duration_s=100.0, leap=leap)
    fleet.submit(asking((0.0, 4, 50), (0.5, 4, 1)))
    fleet.advance(2.5)
    assert fleet.cancel(0)
    assert not fleet.cancel(0)
    assert not fleet.cancel(7)
    fleet.advance(2.9)
    assert fleet.look()[["running", "waiting", "kv_blocks"]].tolist() == [(1, 1, 2)]
    fleet.advance(3.0)
    assert fleet.look()[["running", "waiting", "kv_blocks"]].tolist() == [(1, 0, 1)]
    rows = finish(fleet)
    assert rows["outcome"].tolist() == [Outcome.CANCELLED, Outcome.OK]
    assert rows["output_tokens"].tolist() == [2, 1]
    assert times(rows, "finished_s") == [2.5, 4.0]
    assert rows["status"].tolist() == [499, 200]


def test_one_who_hangs_up_while_waiting_leaves_at_once() -> None:
    fleet = fleet_of((0.0, 4, 5), (0.5, 4, 1), (0.75, 4, 1), max_seqs=1)
    fleet.advance(1.5)
    assert fleet.cancel(1)
    assert fleet.look()["waiting"].tolist() == [1]
    rows = finish(fleet)
    assert times(rows, "finished_s") == [5.0, 1.5, 6.0]


def test_clients_give_up() -> None:
    rows = finish(fleet_of((0.0, 4, 3), (0.5, 4, 9), (0.75, 4, 1), max_seqs=1, timeout_s=3.5))
    assert rows["outcome"].tolist() == [Outcome.OK, Outcome.TIMED_OUT, Outcome.TIMED_OUT]
    assert times(rows, "finished_s") == [3.0, 4.0, 4.25]
    assert rows["output_tokens"].tolist() == [3, 1, 0]


def test_time_between_client_and_engine_counts_against_the_client() -> None:
    """The engine is done at t = 2.5, the client has the answer at 3: too late for its patience of 2.9."""
    travel: dict[str, Any] = {"ingress_s": 0.5, "egress_s": 0.5}
    rows = finish(fleet_of((0.0, 4, 2), timeout_s=3.0, **travel))
    assert rows["outcome"].tolist() == [Outcome.OK]
    assert [times(rows, name)[0] for name in ("admitted_s", "first_token_s", "finished_s")] == [0.5, 2.0, 3.0]
    assert times(rows, "client_wait_s") == [1.0]
    rows = finish(fleet_of((0.0, 4, 2), timeout_s=2.9, **travel))
    assert rows["outcome"].tolist() == [Outcome.TIMED_OUT]
    assert times(rows, "finished_s") == [2.9]
    rows = finish(fleet_of((0.0, 4, 2), timeout_s=1.9, **travel))
    assert np.isnan(rows["first_token_s"]).all()  # made at 1.5, and never seen
    assert rows["output_tokens"].tolist() == [0]
    rows = finish(fleet_of((0.0, 4, 2), timeout_s=0.4, **travel))
    assert rows["replica"].tolist() == [-1]  # it never came so far


def test_a_conversation_goes_on_after_thinking() -> None:
    """Think times 2 and 0; what follows an answer starts when the client has it."""
    asks = asking((0.0, 4, 2), (2.0, 4, 1), (0.0, 4, 1))
    asks["session"], asks["turn"], asks["follow_up"] = 5, [0, 1, 2], [1, 2, -1]
    given = asks.copy()
    fleet = Fleet([pool(egress_s=0.25)], duration_s=100.0)
    fleet.submit(asks)
    assert (asks == given).all(), "the caller's requests were changed"
    rows = finish(fleet)
    assert times(rows, "scheduled_s") == [0.0, 4.25, 5.5]
    assert times(rows, "finished_s") == [2.25, 5.5, 6.75]


def test_nobody_asks_after_the_end() -> None:
    asks = asking((0.0, 4, 2), (1.0, 4, 1), (9.9, 4, 1), (10.0, 4, 1))
    asks["follow_up"] = [1, -1, -1, -1]
    asks["scheduled_s"][1] = 8.0  # thinks until t = 10
    fleet = Fleet([pool()], duration_s=10.0)
    fleet.submit(asks)
    assert finish(fleet)["request"].tolist() == [0, 2]


def test_requests_that_come_too_late_or_unsorted_are_refused() -> None:
    fleet = fleet_of((0.0, 4, 2))
    fleet.advance(5.0)
    for asks in (asking((4.0, 4, 1)), asking((7.0, 4, 1), (6.0, 4, 1)), asking((math.nan, 4, 1))):
        with pytest.raises(ValueError, match=r"expected requests sorted by scheduled_s, none before t = 5 s"):
            fleet.submit(asks)
    asks = asking((6.0, 4, 1), (1.0, 4, 1), (7.0, 4, 1))
    asks["follow_up"] = [1, -1, -1]  # the second is a think time
    fleet.submit(asks)
    assert len(finish(fleet)) == 4


# --- what is done to replicas -----------------------------------------------------------------------------------------


def test_without_a_replica_that_takes_requests_they_fail() -> None:
    fleet = fleet_of((0.5, 4, 2), (1.5, 4, 2), (4.5, 4, 2))
    fleet.advance(1.0)
    fleet.drain(0)
    fleet.advance(4.0)
    fleet.drain(0, draining=False)
    rows = finish(fleet)
    assert rows["outcome"].tolist() == [Outcome.OK, Outcome.FAILED, Outcome.OK]
    assert rows["status"].tolist() == [200, 503, 200]
    assert times(rows, "finished_s") == [2.5, 1.5, 6.5]


@pytest.mark.parametrize("leap", [True, False])
def test_a_crash_fails_what_is_there_and_memory_comes_back_empty(leap: bool) -> None:
    fleet = Fleet([pool(max_seqs=1)], duration_s=100.0, leap=leap)
    fleet.submit(asking((0.0, 4, 50), (0.5, 4, 5), (4.0, 4, 1), (6.0, 4, 1)))
    fleet.advance(3.5)
    list(fleet.crash(0))
    assert fleet.look()[["up", "running", "waiting", "kv_blocks", "output_tokens"]].tolist() == [(0, 0, 0, 0, 3)]
    fleet.advance(5.0)
    fleet.restore(0)
    rows = finish(fleet)
    assert rows["status"].tolist() == [502, 502, 503, 200]
    assert rows["output_tokens"].tolist() == [3, 0, 0, 1]
    assert times(rows, "finished_s") == [3.5, 3.5, 4.0, 7.0]


def test_spares_wait_to_be_turned_on() -> None:
    fleet = fleet_of((0.0, 4, 9), (1.0, 4, 9), replicas=1, spares=1)
    fleet.advance(0.5)
    fleet.restore(1)
    assert finish(fleet)["replica"].tolist() == [0, 1]


@pytest.mark.parametrize("leap", [True, False])
def test_slow_steps_begin_with_the_next_and_their_delay_is_the_faults(leap: bool) -> None:
    """Factor 3 from t = 1.5 to 6: steps end at 2, 5, 8 and, fast again, at 9."""
    fleet = Fleet([pool()], duration_s=100.0, leap=leap)
    fleet.submit(asking((0.0, 4, 5)))
    fleet.advance(1.5)
    fleet.slow(0, 3.0)
    fleet.advance(6.0)
    fleet.slow(0, 0.5)  # never faster than 1
    rows = finish(fleet)
    assert times(rows, "finished_s") == [9.0]
    assert times(rows, "fault_stall_s") == [4.0]
    assert times(rows, "decode_alone_s") == [4.0]


def test_a_replayed_host() -> None:
    """Until t = 2 steps take twice as long, then half a second more."""
    fleet = Fleet([pool()], duration_s=100.0, pace=np.array([[2.0, 2.0, 0.0], [90.0, 1.0, 0.5]]))
    fleet.submit(asking((0.0, 4, 3)))
    rows = finish(fleet)
    assert times(rows, "first_token_s") == [2.0]
    assert times(rows, "finished_s") == [5.0]


@pytest.mark.parametrize("noise", [{"noise": 0.5}, {"slow_noise": 0.4, "slow_period_s": 1.0}])
def test_noise_belongs_to_replica_and_step_and_keeps_the_mean_step(noise: dict[str, float]) -> None:
    def ends(seed: int, asks: np.ndarray) -> np.ndarray:
        return serve(pool(linear(8, 64, 0.01), blocks=10_000, **noise), asks, seed=seed)["finished_s"]

    alone = asking((0.0, 4, 4000))
    assert ends(1, alone)[0] == ends(1, asking((0.0, 9, 4000), (0.0, 1, 4000)))[0]
    draws = np.array([ends(seed, alone)[0] for seed in range(60)])
    assert len(set(draws.tolist())) == 60
    assert draws.mean() / 40 == pytest.approx(1.0, abs=4 * draws.std() / 40 / 60**0.5)
    assert 0.002 < draws.std() / 40 < 0.1


# --- routing ----------------------------------------------------------------------------------------------------------


def routed(router: str, *asks: Ask, replicas: int = 3, seed: int = 1, **settings: Any) -> list[int]:
    return serve(pool(router=router, replicas=replicas, **settings), asking(*asks), seed=seed)["replica"].tolist()


def test_round_robin_takes_turns() -> None:
    assert routed("round_robin", *[(0.1 * k, 4, 1) for k in range(7)]) == [0, 1, 2, 0, 1, 2, 0]


def test_least_outstanding_prefers_the_idle_and_takes_turns_among_equals() -> None:
    assert routed("least_outstanding", *[(0.1 * k, 4, 1) for k in range(7)]) == [0, 1, 2, 0, 1, 2, 0]
    long, short = (0.0, 4, 90), (0.0, 4, 1)
    assert routed("least_outstanding", long, short, long, (5.0, 4, 1), (9.0, 4, 1), (9.5, 4, 1)) == [0, 1, 2, 1, 1, 2]


def test_what_routers_know_grows_old() -> None:
    """Two replicas are busy when routers look, at 5 s: everybody goes to the third until they look again, at 10 s."""
    asks = [(0.0, 4, 5000), (0.1, 4, 5000), *[(5.5 + k, 4, 5000) for k in range(4)], (10.5, 4, 5000)]
    assert routed("least_outstanding", *asks) == [0, 1, 2, 0, 1, 2, 0]
    assert routed("least_outstanding", *asks, refresh_s=5.0) == [0, 1, 2, 2, 2, 2, 0]
    assert routed("least_outstanding", *asks, refresh_s=5.0, count_own=True) == [0, 1, 2, 0, 1, 2, 0]


def test_random_belongs_to_the_request_and_is_fair() -> None:
    asks = [(0.01 * k, 4, 1) for k in range(3000)]
    chosen = routed("random", *asks)
    assert chosen[:100] == routed("random", *asks[:100])
    assert chosen != routed("random", *asks, seed=2)
    counts = np.sum([np.bincount(routed("random", *asks, seed=seed)) for seed in range(10)], axis=0)
    assert abs(counts - 10_000).max() < 4 * (30_000 * 2 / 9) ** 0.5


def test_the_drained_get_nothing_whatever_the_router() -> None:
    for router in ROUTERS:
        fleet = fleet_of(*[(0.1 * k, 4, 1) for k in range(20)], router=router, replicas=3)
        fleet.drain(1)
        assert set(finish(fleet)["replica"].tolist()) == {0, 2}


def test_pools_serve_their_own() -> None:
    fleet = Fleet([pool(), pool(linear(8, 64, 3.0), replicas=2, block_size=16)], duration_s=100.0)
    asks = asking(*[(0.0, 4, 1)] * 4)
    asks["pool"] = [0, 1, 1, 0]
    fleet.submit(asks)
    rows = finish(fleet)
    assert rows["replica"].tolist() == [0, 1, 2, 0]
    assert times(rows, "finished_s") == [1.0, 3.0, 3.0, 2.0]


# --- room -------------------------------------------------------------------------------------------------------------


def test_slots_double_as_needed() -> None:
    n = 5000
    fleet = Fleet([pool(linear(256, 512, 0.1), blocks=50_000, max_seqs=256, max_tokens=512)], duration_s=1000.0)
    fleet.submit(asking(*[(0.0, 4, 5)] * n))
    assert fleet.advance(0.05) == "done"
    assert fleet.live == n
    assert len(fleet.seqs) == 8192
    rows = finish(fleet)
    assert (rows["outcome"] == Outcome.OK).all()
    assert len(rows) == n


def test_timeouts_that_no_longer_matter_do_not_stand_in_the_way() -> None:
    """Many short requests leave timeouts behind, so the heap doubles; then a crowd needs more slots than ever."""
    fleet = Fleet(
        [pool(linear(256, 512, 1e-3), max_seqs=256, max_tokens=512)],
        duration_s=1000.0,
        clients=ClientPolicy(timeout_s=900.0),
    )
    at = np.concatenate([np.linspace(0, 100, 6000), np.full(3000, 101.0)])
    fleet.submit(requests(at, np.full(9000, 3), 4))
    rows = finish(fleet, until_s=999.0)
    assert len(rows) == 9000
    assert (rows["outcome"] == Outcome.OK).all()


def test_too_many_in_flight_is_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "LIVE_MAX", 2048)
    fleet = fleet_of(*[(0.5 + k / 1000, 4, 9) for k in range(3000)])
    with pytest.raises(RunError, match=r"OVERLOADED: 2,048 requests in flight at t = 2\.5\d* s|OVERLOADED: 2,048"):
        fleet.advance(100.0)
    for _ in fleet.close():
        fleet.take_rows()
    fleet.check_laws()


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_rows_leave_in_chunks(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    asks = [(0.01 * k, 4, 1 + k % 5) for k in range(300)]
    whole = finish(fleet_of(*asks))
    monkeypatch.setattr(fleets, "ROWS_CHUNK", chunk)
    fleet = fleet_of(*asks)
    taken = []
    while fleet.advance(100.0) != "done":
        taken.append(fleet.take_rows())
    assert len(taken) >= 2
    for _ in fleet.close():  # some are still in flight
        taken.append(fleet.take_rows())
        assert len(taken[-1]) > 0
    rows = np.concatenate([*taken, fleet.take_rows()])
    fleet.check_laws()
    assert len(rows) == 300
    ok = rows[rows["outcome"] == Outcome.OK]
    assert 100 < len(ok) < 300
    assert np.sort(ok, order="request").tobytes() == whole[np.isin(whole["request"], ok["request"])].tobytes()


def test_commands_make_their_own_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash, or many who hang up at once, end more requests than one step can: rows, scripts and events must hold."""
    monkeypatch.setattr(fleets, "ROWS_CHUNK", 8)
    n = 4000
    for follow_up in (-2, 1):
        asks = asking(*[(0.0, 4, 50)] * n)
        asks["session"] = np.arange(n)
        asks["follow_up"] = -2
        if follow_up == 1:  # pairs: a follow-up event each, on top of stale timeouts
            asks["follow_up"][::2], asks["follow_up"][1::2] = np.arange(1, n, 2), -1
            asks["scheduled_s"][1::2] = 1.0
        for crash in (True, False):
            fleet = Fleet([pool()], duration_s=1000.0, clients=ClientPolicy(timeout_s=900.0))
            fleet.submit(asks)
            fleet.advance(0.5)
            rows: list[np.ndarray] = []
            if crash:
                rows.extend(fleet.take_rows() for _ in fleet.crash(0))
            else:
                for request in asks["request"].tolist():
                    fleet.cancel(request)
            rows.append(fleet.take_rows())
            ended = len(np.concatenate(rows))
            assert ended == (n if follow_up == -2 else n // 2)
            sessions = fleet.take_asks()
            assert len(sessions) == (n if follow_up == -2 else 0)
            again = asks[: len(sessions)].copy()
            again["session"], again["follow_up"], again["request"] = sessions["session"], -1, n + np.arange(len(again))
            fleet.continue_sessions(sessions, again)
            fleet.restore(0)
            while fleet.advance(2.0) != "done":
                fleet.take_rows()
            assert fleet.live == (n if follow_up == -2 else n // 2)
            for _ in fleet.close():
                fleet.take_rows()
            fleet.check_laws()


def asked_for_more(n: int) -> tuple[Fleet, np.ndarray, np.ndarray]:
    """A fleet on which *n* sessions have asked for more; what asked, and what they ask next."""
    asks = asking(*[(0.1 * k, 4, 1) for k in range(n)])
    asks["session"], asks["follow_up"] = np.arange(n), -2
    fleet = Fleet([pool(max_seqs=n)], duration_s=1000.0, judged=True)
    fleet.submit(asks)
    asked = []
    for _ in range(n):
        assert fleet.advance(1000.0) == "script"
        asked.append(fleet.take_asks())
        if len(sessions := np.concatenate(asked)) == n:
            break
    again = asks.copy()
    again["request"], again["follow_up"], again["scheduled_s"] = n + np.arange(n), -1, 0.5 + np.arange(n)
    return fleet, sessions, again


@pytest.mark.parametrize("n", [1, 5, 40])
def test_sessions_go_on_in_whatever_order_they_are_given(n: int) -> None:
    found = []
    for order in (np.arange(n), np.arange(n)[::-1], np.random.default_rng(1).permutation(n)):
        fleet, sessions, again = asked_for_more(n)
        fleet.continue_sessions(sessions, np.ascontiguousarray(again[order]))
        while fleet.advance(1000.0) != "done":
            fleet.take_rows()
        found.append(np.sort(fleet.take_rows(), order="request").tobytes())
        fleet.check_laws()
    assert found[0] == found[1] == found[2]


def test_a_session_that_did_not_ask_is_refused() -> None:
    fleet, sessions, again = asked_for_more(3)
    again["session"][1] = 77
    with pytest.raises(ValueError, match="that have asked for more"):
        fleet.continue_sessions(sessions, again)


def test_what_has_ended_can_be_looked_at_before_it_is_taken() -> None:
    fleet, _, _ = asked_for_more(5)
    assert len(fleet.look_ended()) == 5
    looked = [fleet.look_ended(k)["request"].tolist() for k in (0, 2, 5)]
    assert looked[0] == fleet.take_ended()["request"].tolist()
    assert looked[1:] == [looked[0][2:], []]
    assert len(fleet.look_ended()) == 0


def test_records_of_a_kind_have_one_type_by_which_numba_knows_them_at_once() -> None:
    one, other = fleet_of(FIRST), fleet_of(FIRST, FIRST)
    other._grow(4096)
    names = ("w", "pools", "reps", "seqs", "asked", "clients", "events", "inbox", "script", "asks", "rows", "ended")
    assert all(getattr(one, name).dtype is getattr(other, name).dtype for name in names)


def test_the_past_stays_as_it_was() -> None:
    fleet = fleet_of((0.0, 4, 5))
    fleet.advance(3.5)
    fleet.advance(1.0)
    assert fleet.now_s == 3.5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_seqs": 0}, "seat"),
        ({"max_tokens": 0}, "token a step"),
        ({"steps": linear(4, 64, 1.0)}, "step times"),
        ({"steps": linear(8, 63, 1.0)}, "step times"),
        ({"blocks": 0}, "block"),
        ({"block_size": 0}, "token"),
        ({"replicas": 0}, "replica"),
    ],
)
def test_what_kernels_cannot_bear_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pool(**settings)


# --- the compiled engine ----------------------------------------------------------------------------------------------


def test_compiling_once_is_enough() -> None:
    """Whole seconds, or a factor of 2, must not make Numba compile a kernel again for another type."""
    asks = asking(*[(0.1 * k, 4, 9) for k in range(50)])
    asks["session"], asks["follow_up"][::2], asks["follow_up"][1::2] = 0, np.arange(1, 50, 2), -1
    fleet = Fleet([pool()], duration_s=1000.0, clients=ClientPolicy(timeout_s=20.0))
    fleet.submit(asks)
    fleet.advance(1)
    replica: Any = np.int32(0)
    fleet.slow(replica, 2)
    fleet.cancel(replica + np.int32(3))
    fleet.look()
    list(fleet.crash(replica))
    fleet.restore(0)
    finish(fleet)
    c = commands
    entries = [play, c.look, c.set_slow, c.lose_all, c.stop, c.slot_of, load_script, give_up, c.close_all, c.catch_up]
    assert {kernel.__name__: len(kernel.signatures) for kernel in entries} == {k.__name__: 1 for k in entries}
