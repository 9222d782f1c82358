"""How oracle tests play the engine: a fleet alone, with arrivals and lengths drawn by NumPy and not by Blowout."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sim import theory
from sim.engine.fleet import Fleet, PoolConfig
from sim.engine.latency import linear
from sim.records import REQUEST

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PLENTY = 50_000_000  # KV blocks that never run out
UNCAPPED = 4096  # seats that never run out


def pool(batch: theory.Batch, **settings: object) -> PoolConfig:
    """Replicas whose step takes what *batch* says: a prompt of one token costs as much as a token decoded."""
    seats = batch.seats or UNCAPPED
    beta = batch.per_sequence_s
    steps = linear(seats, 8192, batch.base_s, per_prefill_token_s=beta, per_sequence_s=beta)
    return PoolConfig(**{"steps": steps, "replicas": 1, "blocks": PLENTY, "max_seqs": seats, **settings})  # type: ignore[arg-type]


def requests(arrivals: Floats, output: Ints, prompt: Ints | int = 1, level: Ints | int = 0) -> np.ndarray:
    """What users ask, as the fleet takes it."""
    asks = np.zeros(arrivals.size, REQUEST)
    asks["request"] = asks["content"] = np.arange(arrivals.size)
    asks["session"] = asks["follow_up"] = asks["prefix"] = -1
    asks["scheduled_s"], asks["output_tokens"] = arrivals, output
    asks["prompt_tokens"], asks["level"] = prompt, level
    return asks


def poisson(rng: np.random.Generator, rate_per_s: float, duration_s: float) -> Floats:
    """Arrival times of a Poisson process."""
    return np.sort(rng.uniform(0, duration_s, rng.poisson(rate_per_s * duration_s)))


def serve(
    config: PoolConfig, asks: np.ndarray, seed: int = 1, until_s: float = math.inf, **settings: object
) -> np.ndarray:
    """Play *asks* to the end (or *until_s*) and return the attempts in the order of the requests."""
    end = float(asks["scheduled_s"][-1]) + 1 if asks.size else 1.0
    fleet = Fleet([config], seed=seed, duration_s=end, **settings)  # type: ignore[arg-type]
    rows = list(play(fleet, asks, until_s))
    attempts = np.concatenate(rows)
    return attempts[np.argsort(attempts["request"], kind="stable")]


def play(fleet: Fleet, asks: np.ndarray, until_s: float) -> Iterator[np.ndarray]:
    """Submit *asks*, advance until all have ended or *until_s*, and yield the rows."""
    fleet.submit(asks)
    last = float(asks["scheduled_s"][-1]) if asks.size else fleet.now_s
    target = min(until_s, last)
    while True:
        if fleet.advance(target) == "done":
            if target >= until_s or (fleet.live == 0 and target >= last):
                break
            target = min(until_s, 2 * target + 60)
        yield fleet.take_rows()
    for _ in fleet.close():
        yield fleet.take_rows()
    yield fleet.take_rows()


def scripted(
    fleet: Fleet, asks: np.ndarray, moments: Sequence[tuple[float, Callable[[Fleet], object]]], until_s: float
) -> np.ndarray:
    """Play *asks* until *until_s*, doing something to the fleet at each of *moments*; return all attempts.

    In the order of the requests. What is done may return an iterable, as `Fleet.crash` does: it is used up.
    """
    fleet.submit(asks)
    rows = []
    for at_s, act in [*moments, (until_s, Fleet.close)]:
        while fleet.advance(at_s) != "done":
            rows.append(fleet.take_rows())
        rows.append(fleet.take_rows())
        done = act(fleet)
        rows.extend(fleet.take_rows() for _ in (done if isinstance(done, Iterable) else ()))
    rows.append(fleet.take_rows())
    attempts = np.concatenate(rows)
    return attempts[np.argsort(attempts["request"], kind="stable")]


def mean_number(start: Floats, end: Floats, low: float, high: float) -> float:
    """Time average between *low* and *high* of how many intervals [start, end) are open."""
    return float((np.minimum(end, high) - np.clip(start, low, high)).clip(0).sum()) / (high - low)
