"""The compiled engine against a second one in plain Python: same arrivals, same times, same preemptions."""

import math

import numpy as np
import pytest

from sim.engine.fleet import ClientPolicy, PoolConfig
from sim.engine.latency import linear
from sim.records import Outcome
from tests.playing import poisson, requests, serve
from tests.reference_engine import Ask, Reference

BASE_S, PREFILL_S, SEQUENCE_S, CONTEXT_S = 0.008, 0.00005, 0.0003, 0.0000004


def step_s(prefill: int, decoding: int, context: int, offsets: int) -> float:
    """A step of both engines, in seconds."""
    return BASE_S + PREFILL_S * prefill + SEQUENCE_S * decoding + CONTEXT_S * context


def both(seed: int, blocks: int, levels: int, **limits: int | bool) -> tuple[np.ndarray, Reference, list[Ask]]:
    """Play the same requests through both; return the rows of one and what the other says."""
    rng = np.random.default_rng(seed)
    arrivals = poisson(rng, 12, 40)
    n = arrivals.size
    prompt, output = rng.integers(1, 500, n), rng.geometric(1 / 60, n)
    level = rng.integers(0, levels, n)
    settings = {"max_num_seqs": 256, "max_num_batched_tokens": 8192, "watermark": 0, "reserve_full_isl": True} | limits
    asks = [Ask(*row) for row in zip(arrivals.tolist(), prompt.tolist(), output.tolist(), level.tolist(), strict=True)]
    reference = Reference(step_s, blocks, **settings)  # type: ignore[arg-type]
    reference.play(asks)
    config = PoolConfig(
        steps=linear(
            settings["max_num_seqs"], settings["max_num_batched_tokens"], BASE_S, PREFILL_S, SEQUENCE_S, CONTEXT_S
        ),
        replicas=1,
        blocks=blocks,
        max_seqs=settings["max_num_seqs"],
        max_tokens=settings["max_num_batched_tokens"],
        watermark=settings["watermark"],
        reserve_full=bool(settings["reserve_full_isl"]),
    )
    return serve(config, requests(arrivals, output, prompt, level), leap=seed % 2 == 0), reference, asks


def same(rows: np.ndarray, asks: list[Ask]) -> int:
    """Check every row against the reference; return how many preemptions there were."""
    assert (rows["outcome"] == Outcome.OK).all()
    for name in ("admitted_s", "first_token_s", "finished_s"):
        known = np.array([getattr(ask, name) for ask in asks])
        worst = int(np.abs(rows[name] - known).argmax())
        assert abs(rows[name][worst] - known[worst]) < 1e-6, f"{name} of request {worst}: {rows[worst]} {asks[worst]}"
    assert rows["preemptions"].tolist() == [ask.preemptions for ask in asks]
    return int(rows["preemptions"].sum())


@pytest.mark.parametrize("seed", range(6))
def test_plenty_of_everything(seed: int) -> None:
    rows, _, asks = both(seed, blocks=100_000, levels=1)
    assert same(rows, asks) == 0


@pytest.mark.parametrize("seed", range(10))
def test_few_seats_and_a_small_token_budget(seed: int) -> None:
    rows, _, asks = both(seed, blocks=100_000, levels=1, max_num_seqs=4 + seed, max_num_batched_tokens=40 + 30 * seed)
    assert same(rows, asks) == 0


@pytest.mark.parametrize("seed", range(20))
def test_scarce_memory(seed: int) -> None:
    limits = {"reserve_full_isl": seed % 3 > 0, "watermark": seed % 4, "max_num_batched_tokens": 64 << seed % 5}
    rows, _, asks = both(seed, blocks=110 + 10 * seed, levels=1, **limits)
    assert same(rows, asks) > 0


@pytest.mark.parametrize("seed", range(10))
def test_priorities_with_scarce_memory(seed: int) -> None:
    rows, _, asks = both(seed, blocks=140 + 10 * seed, levels=3, max_num_batched_tokens=512)
    assert same(rows, asks) > 0
    assert not math.isnan(asks[0].finished_s)


@pytest.mark.parametrize("seed", range(6))
def test_leaping_changes_nothing(seed: int) -> None:
    """Stretches of alike steps played at once or one by one: the same rows, latency parts included."""
    rng = np.random.default_rng(seed)
    arrivals = poisson(rng, 12, 60)
    asks = requests(arrivals, rng.geometric(1 / 80, arrivals.size), rng.integers(1, 400, arrivals.size))
    steps = linear(6 + seed, 256, BASE_S, PREFILL_S, SEQUENCE_S, CONTEXT_S)
    config = PoolConfig(steps=steps, replicas=2, blocks=150, max_seqs=6 + seed, max_tokens=256)
    leaping, walking = (serve(config, asks, leap=leap, clients=ClientPolicy(timeout_s=20.0)) for leap in (True, False))
    for name in leaping.dtype.names or ():
        assert np.allclose(leaping[name], walking[name], rtol=1e-6, atol=1e-6, equal_nan=True), name
