"""Moments that few runs meet and every long run does: what is under way when something else happens."""

from typing import Any

import numpy as np
import pytest

from sim.engine import fleet as fleets
from sim.engine.fleet import ClientPolicy, Fleet, PoolConfig
from sim.engine.latency import linear
from sim.records import Outcome
from tests.playing import requests, scripted

Ask = tuple[float, int, int]


def fleet(*clients: ClientPolicy, **settings: Any) -> Fleet:
    """Replicas with blocks of 4 tokens, whose steps take a second whatever they do."""
    usual: dict[str, Any] = {"replicas": 1, "blocks": 1000, "block_size": 4, "max_seqs": 8, "max_tokens": 64}
    usual |= settings
    pool = PoolConfig(linear(usual["max_seqs"], usual["max_tokens"], 1.0), **usual)
    return Fleet([pool], duration_s=1000.0, clients=clients, cohorts=len(clients))


def asking(*asks: Ask) -> np.ndarray:
    """Requests from (when, prompt tokens, output tokens)."""
    at, prompt, output = (np.array(column) for column in zip(*asks, strict=True))
    return requests(at.astype(float), output, prompt)


@pytest.mark.parametrize("output", [2, 30])
def test_no_second_copy_is_sent_once_the_first_token_is_on_its_way(output: int) -> None:
    """It would have won a race that was over, or have outlived its request."""
    one = fleet(ClientPolicy(hedge_s=1.3), replicas=2, egress_s=0.5)
    one.clients.hedge_left = 5
    rows = scripted(one, asking((0.0, 4, output), (40.0, 4, 20)), [], 200.0)
    one.check_laws()
    assert rows["request"].tolist() == [0, 1]
    assert (rows["outcome"] == Outcome.OK).all()
    assert rows["first_token_s"].tolist() == [1.5, 41.5]


def test_patience_ends_during_back_off_too() -> None:
    """By then the seat of the attempt that failed is somebody else's, who has a token."""
    one = fleet(ClientPolicy(patience_s=5.0, retries=3, backoff_s=20.0, jitter="none"), replicas=2)
    rows = scripted(one, asking((0.0, 4, 50), (2.0, 4, 50)), [(1.5, lambda f: f.crash(0))], 300.0)
    mine = rows[rows["request"] == 0]
    assert mine["outcome"].tolist() == [Outcome.FAILED, Outcome.CANCELLED]
    assert mine["finished_s"].tolist() == [1.5, 5.0]


def test_the_next_in_line_joins_when_one_that_does_not_fit_hangs_up() -> None:
    """The replica is idle, for a fault has left too little memory for the first in line."""
    one = fleet(ClientPolicy(timeout_s=5.0), ClientPolicy(), blocks=20)
    asks = asking((1.0, 60, 2), (2.0, 4, 2))
    asks["cohort"] = [0, 1]
    rows = scripted(one, asks, [(0.5, lambda f: f.shrink(0, 12))], 100.0)
    assert rows["outcome"].tolist() == [Outcome.TIMED_OUT, Outcome.OK]
    assert (rows["admitted_s"][1], rows["finished_s"][1]) == (6.0, 8.0)


def test_a_limit_is_full_at_first_and_another_in_its_place_is_not() -> None:
    one = fleet(ClientPolicy(), max_seqs=40)
    asks = asking(*((at + 0.01 * k, 4, 2) for at in (2.0, 3.0) for k in range(8)))
    moments = [(1.9, lambda f: f.limit(0, 1.0, 5.0)), (2.9, lambda f: f.limit(0, 1.0, 6.0))]
    rows = scripted(one, asks, moments, 100.0)
    passed = rows["status"] == 200
    assert (passed[:8].sum(), passed[8:].sum()) == (5, 1)


def test_a_step_in_which_many_races_end_has_room_for_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sequence of a step may write two rows: that of the copy that it beat, and its own."""
    monkeypatch.setattr(fleets, "ROWS_CHUNK", 1)
    one = fleet(ClientPolicy(hedge_s=2.0), replicas=2, max_seqs=300, max_tokens=2000)
    n = 300
    asks = asking(*((1.0 + 0.03 * k, 4, 1) for k in range(n)))
    one.hang(0)
    one.slow(1, 50.0)
    rows = scripted(one, asks, [(0.5, lambda f: None)], 200.0)
    one.check_laws()
    assert one.w[0].margin >= 2 * 300
    assert len(rows) > 1.5 * n
    assert (rows["last"] == 1).sum() == n
