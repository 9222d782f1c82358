"""Requests that are sent elsewhere than they were asked, and the list of how every request ended."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import scenario
from sim.engine.fleet import ClientPolicy, Fleet, PoolConfig
from sim.engine.latency import linear
from sim.engine.state import DIVERSIONS
from sim.errors import ScenarioError
from sim.records import ATTEMPT, REQUEST, Answerer, Outcome
from sim.scenario.plans import MOST_DIVERSIONS

STEPS = linear(8, 256, 0.01, 1e-4, 1e-4)
RULES = -1


def pool(fallback: bool = False, replicas: int = 4) -> PoolConfig:
    return PoolConfig(steps=STEPS, replicas=replicas, blocks=640, max_seqs=8, max_tokens=256, fallback=fallback)


def asked(n: int, every_s: float = 0.1) -> np.ndarray:
    rows = np.zeros(n, REQUEST)
    rows["request"] = rows["content"] = np.arange(n)
    rows["session"] = np.arange(n) // 4
    rows["follow_up"] = rows["prefix"] = -1
    rows["scheduled_s"] = every_s * np.arange(n)
    rows["prompt_tokens"], rows["output_tokens"] = 40, 20
    return rows


def fleet(*pools: PoolConfig, rows: float = 1.0, clients: ClientPolicy | None = None) -> Fleet:
    return Fleet(pools, duration_s=1e5, judged=True, rows=rows, clients=clients)


def play(fleet: Fleet, until_s: float) -> tuple[np.ndarray, np.ndarray]:
    rows, ended = [np.zeros(0, ATTEMPT)], [np.zeros(0, ATTEMPT)]
    while (why := fleet.advance(until_s)) != "done":
        assert why in ("rows", "ended")
        (rows if why == "rows" else ended).append(fleet.take_rows() if why == "rows" else fleet.take_ended())
    rows.extend(fleet.take_rows() for _ in fleet.close())
    fleet.check_laws()
    return np.concatenate([*rows, fleet.take_rows()]), np.concatenate([*ended, fleet.take_ended()])


@settings(max_examples=15, deadline=None)
@given(share=st.floats(0.01, 1.0), to=st.sampled_from([1, RULES]), sticky=st.booleans())
def test_a_larger_share_diverts_those_of_a_smaller_one_and_more(share: float, to: int, sticky: bool) -> None:
    gone = []
    for part in (0.5 * share, share):
        one = fleet(pool(), pool(fallback=True))
        one.divert(0, [(part, to, sticky)])
        one.submit(asked(800))
        _, ended = play(one, 1e4)
        assert len(ended) == 800
        assert (ended["outcome"] == Outcome.OK).all()
        elsewhere = ended["answerer"] == Answerer.FALLBACK
        assert (ended["replica"][elsewhere] == RULES).all() == (to == RULES or not elsewhere.any())
        gone.append(set(ended["session" if sticky else "request"][elsewhere].tolist()))
        whole = 4 if sticky else 1
        assert elsewhere.sum() == whole * len(gone[-1]), "all of a session, or none of it"
        assert elsewhere.sum() == pytest.approx(part * 800, abs=5 * (whole * 800 * 0.25) ** 0.5 + whole)
    assert gone[0] <= gone[1]


def test_a_request_takes_the_first_way_that_is_meant_for_it() -> None:
    one = fleet(pool(), pool())
    one.divert(0, [(0.3, RULES, False), (1.0, 1, False)])
    one.submit(asked(1000))
    _, ended = play(one, 1e4)
    assert not (ended["pool"][ended["answerer"] == Answerer.MODEL] == 0).any()
    assert (ended["answerer"] == Answerer.FALLBACK).mean() == pytest.approx(0.3, abs=0.05)
    one.divert(0, [])
    again = asked(100)
    again["request"] += 1000
    again["scheduled_s"] += 2e4
    one.submit(again)
    one.advance(3e4)
    assert (one.take_ended()["pool"] == 0).all()


def test_rules_answer_at_once_and_retries_go_where_the_first_attempt_would() -> None:
    one = fleet(pool(), pool(replicas=1), clients=ClientPolicy(retries=2, backoff_s=1.0, jitter="none"))
    one.refuse(4, 1.0)  # the only replica of the second pool
    one.divert(0, [(1.0, 1, False)])
    one.submit(asked(10, every_s=1.0))
    one.advance(0.5)
    one.divert(0, [(1.0, RULES, False)])
    rows, ended = play(one, 1e3)
    first = ended[ended["request"] == 0]
    assert first["outcome"] == Outcome.FAILED
    assert first["pool"] == 1, "its retries stay with the pool it was sent to"
    later = ended[ended["request"] > 0]
    assert (later["finished_s"] == later["scheduled_s"]).all()
    assert (later["output_tokens"] == 0).all()
    assert len(rows) == 3 + 9


@settings(max_examples=10, deadline=None)
@given(rows=st.sampled_from([0.0, 0.1, 1.0]), n=st.integers(1, 400))
def test_every_request_is_handed_out_once_whichever_rows_are_kept(rows: float, n: int) -> None:
    one = fleet(pool(replicas=1), rows=rows, clients=ClientPolicy(timeout_s=2.0, retries=1))
    one.submit(asked(n, every_s=0.01))
    kept, ended = play(one, 1.0)
    assert sorted(ended["request"]) == sorted(set(ended["request"].tolist()))
    assert len(ended) == one.w[0].started
    assert (ended["last"] == 1).all()
    if rows == 1.0:
        assert sorted(kept["request"][kept["last"] == 1]) == sorted(ended["request"])


def test_a_crash_hands_out_more_than_there_was_room_for() -> None:
    one = fleet(pool(replicas=1), rows=0.0)
    one.submit(asked(150_000, every_s=1e-6))
    seen = 0
    while one.advance(1.0) != "done":
        seen += len(one.take_ended())
    for _ in one.crash(0):
        one.take_rows()
    seen += len(one.take_ended())
    assert seen == 150_000
    assert one.live == 0


def test_more_ways_than_there_are_places_are_refused() -> None:
    one = fleet(pool())
    with pytest.raises(ValueError, match="at most 4"):
        one.divert(0, [(0.1, RULES, False)] * 5)


def test_more_diversions_at_once_than_there_can_be_are_told_by_line() -> None:
    text = """
name: astray
duration: 10m
fleet: {pools: {a: {model: llama-3.1-8b, hardware: h100}, b: {model: llama-3.1-8b, hardware: h100}}}
workload: {rate_per_s: 1, cohorts: {all: {prompt_tokens: 10, output_tokens: 10}}}
control: [{overflow: a, into: b, above: 9, below: 1}]
faults:
"""
    one_after_another = "".join(
        f"  - {{misroute: a, into: b, share: 1%, from: {k}m, to: {k + 1}m}}\n" for k in range(6)
    )
    assert len(scenario.loads(text + one_after_another).faults) == 6
    at_once = "".join(f"  - {{misroute: a, into: b, share: 1%, from: {k}m, name: f{k}}}\n" for k in range(4))
    with pytest.raises(ScenarioError, match="at most 4.* got 5 diversions of a at the same time") as refused:
        scenario.loads(text + at_once, "astray.yaml")
    assert str(refused.value).startswith("astray.yaml:11: faults[3].misroute: ")


def test_scenario_and_engine_agree_on_how_many_there_can_be() -> None:
    assert MOST_DIVERSIONS == DIVERSIONS
