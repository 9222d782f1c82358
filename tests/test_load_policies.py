"""Second copies and adaptive throttling: what the driver's clients decide is what the simulator's do."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("gevent")

from loadtest.client import ERRORS
from loadtest.policy import HEDGES_SAVED, Policy, draw
from sim.engine import clients as engine
from sim.engine import state
from sim.engine.attempts import ATTEMPT_BITS
from sim.engine.steptime import hash3, uniform
from sim.records import Outcome
from sim.scenario.clients import Clients
from tests.load_target import target
from tests.test_load_driver import plan_of, played

COHORTS = "cohorts: {a: {prompt_tokens: 20, output_tokens: 6}}"
LOST, THROTTLED = ERRORS.index("lost"), ERRORS.index("throttled")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that lets the first copy of every request wait for 800 ms, and no other."""
    with target(tmp_path_factory.mktemp("slow"), "--mode", "slow-first", "--first-ms", "800") as url:
        yield url


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(0, 63), st.sampled_from([51, 52, 53]))
def test_luck_is_the_engines(seed: int, request: int, attempt: int, purpose: int) -> None:
    key = (request << ATTEMPT_BITS) | attempt
    assert draw(seed, request, attempt, purpose) == uniform(np.uint64(hash3(seed, key, purpose)))


@pytest.mark.parametrize("k", [1.0, 2.0])
def test_throttling_decides_as_the_engine_does(k: float) -> None:
    """Three minutes of requests of which a third is answered: each decision is the same."""
    world, clients = state.records(state.WORLD, 1)[0], state.records(state.CLIENT, 1)[0]
    world.seed, clients.throttle = 5, k
    policy, rng, held = Policy(Clients(throttle=k), 5, None), np.random.default_rng(1), []
    for request, now_s in enumerate(np.cumsum(rng.exponential(0.5, 400)).tolist()):
        held.append(policy.holds_back(request, 0, now_s))
        assert held[-1] == engine.is_throttled(world, clients, request << ATTEMPT_BITS, now_s)
        if not held[-1] and request % 3 == 0:
            policy.answered(now_s)
            engine.fade_throttle(clients, now_s)
            clients.throttle_taken += 1.0
    assert 20 < sum(held) < 400


def test_hedges_are_earned_and_saved_up_to_a_bound() -> None:
    policy = Policy(Clients(hedge={"after": 0.1, "share": 0.1}), 1, None)
    assert not policy.hedges(1), "the engine's cohorts begin with nothing"
    for _ in range(10):
        policy.begins()
    assert [policy.hedges(1) for _ in range(2)] == [True, False]
    for _ in range(1000):
        policy.begins()
    assert sum(policy.hedges(1) for _ in range(100)) == HEDGES_SAVED
    policy.begins()
    assert not policy.hedges(1 << ATTEMPT_BITS)


@pytest.mark.parametrize("cancel", ["true", "false"])
def test_the_first_token_wins_and_the_other_copy_is_lost(cancel: str, slow: str, tmp_path: Path) -> None:
    text = (
        f"duration: 2s\nworkload: {{rate_per_s: 6, {COHORTS}}}\nclients: {{hedge: {{after: 100ms, cancel: {cancel}}}}}"
    )
    rows, _ = played(plan_of(slow, tmp_path, text))
    for request in np.unique(rows["request"]):
        mine = np.sort(rows[rows["request"] == request], order="attempt")
        if len(mine) == 1:  # the server answers its very first two at once
            continue
        assert mine["attempt"].tolist() == [0, 1]
        assert mine["hedge"].tolist() == [0, 1]
        assert mine["last"].tolist() == [0, 1]
        assert mine["outcome"].tolist() == [Outcome.CANCELLED, Outcome.OK]
        assert (mine["error"][0], mine["status"][0], mine["status"][1]) == (LOST, 499, 200)
        assert mine["sent_s"][1] - mine["sent_s"][0] >= 0.1
        assert mine["finished_s"][0] <= mine["finished_s"][1]
        assert mine["output_tokens"].tolist() == [0, 6]
    assert (rows["hedge"] == 1).sum() >= 4


def test_only_a_share_is_hedged(slow: str, tmp_path: Path) -> None:
    text = f"duration: 3s\nworkload: {{rate_per_s: 8, {COHORTS}}}\nclients: {{hedge: {{after: 100ms, share: 50%}}}}"
    rows, state_ = played(plan_of(slow, tmp_path, text))
    hedged = int((rows["hedge"] == 1).sum())
    assert 0 < hedged <= state_["planned"] / 2
    assert set(rows["outcome"][rows["last"] == 1]) == {Outcome.OK}


def test_a_time_out_ends_both_copies_and_the_request_tries_again(tmp_path: Path) -> None:
    policy = "{hedge: {after: 50ms}, timeout: 200ms, retries: 1, backoff: {base: 10ms, jitter: none}}"
    with target(tmp_path, "--first-ms", "900") as url:
        rows, _ = played(
            plan_of(url, tmp_path, f"duration: 1s\nworkload: {{rate_per_s: 4, {COHORTS}}}\nclients: {policy}")
        )
    assert len(rows)
    for request in np.unique(rows["request"]):
        mine = np.sort(rows[rows["request"] == request], order="attempt")
        assert mine["attempt"].tolist() == [0, 1, 2], "a request earns one second copy"
        assert mine["hedge"].tolist() == [0, 1, 0]
        assert set(mine["outcome"]) == {Outcome.TIMED_OUT}
        assert mine["last"].sum() == 1


def test_clients_hold_back_what_a_busy_server_would_refuse(tmp_path: Path) -> None:
    text = f"duration: 3s\nworkload: {{rate_per_s: 30, {COHORTS}}}\nclients: {{throttle: 1.5}}"
    with target(tmp_path, "--mode", "429") as url:
        rows, state_ = played(plan_of(url, tmp_path, text))
    held = rows["error"] == THROTTLED
    assert len(rows) == state_["planned"]
    assert 0.5 < held.mean() < 1.0
    assert set(rows["outcome"][held]) == {Outcome.REJECTED}
    assert set(rows["status"][held]) == {0}
    assert (rows["sent_s"][held] <= rows["finished_s"][held]).all()
