"""The engine against theory: where a closed form or an exact recursion exists, the engine must land on it.

Two kinds of judges. Paths: the same arrivals and lengths through Lindley's recursion, or through an engine written
a second time in plain Python, must give the same times to the microsecond. Means: at least 20 independent seeds must
bound the closed form within a tight interval (99.9%: bad luck alone would fail a right engine for fewer than one in
ten choices of seeds), plus the small bias that whole steps really have, which is measured too.
"""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sim import scenario, theory, world
from sim.engine.fleet import ClientPolicy, Fleet
from sim.records import PARTS, Outcome
from tests.playing import Floats, Ints, mean_number, play, poisson, pool, requests, serve

SEEDS = range(1, 21)
CONFIDENCE = 0.999

BATCH = theory.Batch(base_s=0.010, per_sequence_s=0.0002, mean_tokens=200)

# Lengths with a given mean, from a shape: memoryless, all alike, and with a heavier tail (c2 = 1.7).
SIGMA = 1.0
LENGTHS: dict[str, Callable[[np.random.Generator, int, float], Ints]] = {
    "geometric": lambda rng, n, mean: rng.geometric(1 / mean, n),
    "fixed": lambda rng, n, mean: np.full(n, int(mean)),
    "lognormal": lambda rng, n, mean: np.maximum(
        1, np.rint(mean * rng.lognormal(-(SIGMA**2) / 2, SIGMA, n)).astype(np.int64)
    ),
}
SCV: dict[str, Callable[[float], float]] = {
    "geometric": lambda mean: 1 - 1 / mean,
    "fixed": lambda mean: 0.0,
    "lognormal": lambda mean: math.expm1(SIGMA**2),
}


def bounds(
    values: list[float] | Floats,
    expected: float,
    half_width: float,
    bias: float = 0.0,
    controls: tuple[list[float] | Floats, float] | None = None,
) -> theory.chance.Interval:
    """Check that the mean is within *bias* plus its half-width of *expected*, and the half-width small (relative)."""
    interval = theory.student_interval(values, CONFIDENCE)
    if controls is not None:
        interval = theory.controlled_interval(values, controls[0], controls[1], CONFIDENCE)
    half = (interval.high - interval.low) / 2
    off = interval.estimate / expected - 1
    assert half <= half_width * expected, f"half-width {half / expected:.2%}, off by {off:+.2%}"
    assert abs(off) <= bias + half / expected, f"off by {off:+.2%} with half-width {half / expected:.2%}"
    return interval


# One server: the same paths


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("load", [0.5, 0.8, 0.95])
def test_one_seat_is_lindleys_recursion(lengths: str, load: float) -> None:
    rng = np.random.default_rng(7)
    one = theory.Batch(base_s=0.001, per_sequence_s=0, mean_tokens=40, seats=1)
    arrivals = poisson(rng, load / 0.04, 1000)
    output = LENGTHS[lengths](rng, arrivals.size, 40)
    rows = serve(pool(one), requests(arrivals, output))
    walk = np.concatenate([[0.0], np.cumsum(0.001 * output[:-1] - np.diff(arrivals))])
    waits = walk - np.minimum.accumulate(walk)
    assert (rows["outcome"] == Outcome.OK).all()
    assert np.abs(rows["admitted_s"] - arrivals - waits).max() < 1e-6
    assert np.abs(rows["finished_s"] - arrivals - waits - 0.001 * output).max() < 1e-6


@pytest.mark.parametrize("leap", [True, False])
def test_all_of_the_wait_at_one_seat_is_a_wait_for_the_seat(leap: bool) -> None:
    rng = np.random.default_rng(7)
    one = theory.Batch(base_s=0.001, per_sequence_s=0, mean_tokens=40, seats=1)
    arrivals = poisson(rng, 20, 200)
    rows = serve(pool(one), requests(arrivals, rng.geometric(1 / 40, arrivals.size)), leap=leap)
    assert np.abs(rows["seat_wait_s"] - (rows["admitted_s"] - rows["sent_s"])).max() < 1e-5


@pytest.mark.parametrize("lengths", LENGTHS)
def test_mg1_mean_wait(lengths: str) -> None:
    """M/M/1 and M/G/1: Pollaczek-Khinchine, exactly (one seat wastes no time at the boundary of a step)."""
    one = theory.Batch(base_s=0.001, per_sequence_s=0, mean_tokens=40, seats=1)
    rate, waits, work = 12.5, [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, rate, 4000)
        output = LENGTHS[lengths](rng, arrivals.size, 40)
        rows = serve(pool(one), requests(arrivals, output))
        waits.append(float((rows["admitted_s"] - arrivals).mean()))
        work.append(0.001 * output.sum() / 4000)
    expected = theory.mg1_wait_s(rate, 0.04, SCV[lengths](40))
    bounds(waits, expected, 0.05, controls=(work, rate * 0.04))


def test_mm1_quantiles() -> None:
    """Sojourn times of M/M/1 are exponential: P50, P95 and P99 over seeds."""
    one = theory.Batch(base_s=0.0002, per_sequence_s=0, mean_tokens=500, seats=1)
    levels = (0.5, 0.95, 0.99)
    found, work = [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, 5, 12_000)
        output = rng.geometric(1 / 500, arrivals.size)
        rows = serve(pool(one), requests(arrivals, output))
        found.append(np.quantile(rows["finished_s"] - arrivals, levels))
        work.append(0.0002 * output.sum() / 12_000)
    for q, values in zip(levels, np.array(found).T, strict=True):
        bounds(values, theory.mm1_sojourn_quantile_s(q, 5, 0.1), half_width=0.04, bias=0.002, controls=(work, 0.5))


# Continuous batching


@cache
def batch_means(lengths: str, load: float, times: float) -> tuple[theory.Batch, float, Floats, Floats, Floats]:
    """Play the uncapped batch with steps *times* finer over all seeds.

    Return it, its arrival rate, and for each seed the time per token, the number present and the work that arrived.
    """
    batch = BATCH.finer(times)
    rate = load * batch.capacity_per_s
    settle = 12 * batch.mean_tokens * batch.base_s / (1 - load) ** 2  # times the relaxation time of the number present
    end = 1.5 * settle + (2000 if load < 0.6 else 4000)
    token_s, number, work = [], [], []
    for seed in SEEDS:
        rng = np.random.default_rng([seed, round(100 * load), sorted(LENGTHS).index(lengths)])
        arrivals = poisson(rng, rate, end)
        output = LENGTHS[lengths](rng, arrivals.size, batch.mean_tokens)
        rows = serve(pool(batch), requests(arrivals, output))
        # Those who arrive last are left alone when arrivals end, and would flatter the engine.
        counted = (arrivals > settle) & (arrivals < end - settle / 2)
        token_s.append((rows["finished_s"] - arrivals)[counted].sum() / output[counted].sum())
        number.append(mean_number(arrivals, rows["finished_s"], settle, end))
        work.append(batch.per_sequence_s * output[arrivals > settle / 2].sum() / (end - settle / 2))
    return batch, rate, np.array(token_s), np.array(number), np.array(work)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("load", "bias"), [(0.5, 0.01), (0.75, 0.02)])
def test_uncapped_batch_is_processor_sharing(lengths: str, load: float, bias: float) -> None:
    """Time per token and number present are the same for all three distributions of lengths."""
    batch, rate, token_s, number, work = batch_means(lengths, load, 1.0)
    bounds(token_s, batch.token_s(rate), half_width=0.01, bias=bias, controls=(work, load))
    bounds(number, batch.mean_number(rate), half_width=0.01, bias=bias, controls=(work, load))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("load", "bias"), [(0.5, 0.001), (0.75, 0.002)])
def test_bias_of_whole_steps_is_known_and_shrinks(lengths: str, load: float, bias: float) -> None:
    """Half a step of waiting against so many tokens: 2.5% for 20 of them, 0.25% for 200, for any distribution."""
    found = []
    for times in (0.1, 0.3, 1.0):
        batch, rate, token_s, _, work = batch_means(lengths, load, times)
        predicted = 1 + batch.base_s / (batch.base_s + batch.per_sequence_s) / (2 * batch.mean_tokens)
        interval = bounds(token_s, batch.token_s(rate) * predicted, 0.01, bias, controls=(work, load))
        found.append(interval.estimate / batch.token_s(rate))
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("load", [0.5, 0.75])
def test_uncapped_batch_in_whole_steps_is_exact(load: float) -> None:
    """Short answers, where the limit is 2.5% off: the chain at the starts of steps needs no allowance at all."""
    batch, rate, _, number, work = batch_means("geometric", load, 0.1)
    exact = theory.stepped(batch, rate)
    assert exact.mean_number > 1.024 * batch.mean_number(rate)
    bounds(number, exact.mean_number, half_width=0.01, controls=(work, load))


def occupancy(start: Floats, end: Floats, low: float, high: float, levels: Ints) -> Floats:
    """Share of the time between *low* and *high* in which at most each of *levels* intervals are open."""
    times = np.concatenate([start, end])
    change = np.concatenate([np.ones(start.size), -np.ones(end.size)])
    order = np.argsort(times, kind="stable")
    spans = np.diff(np.clip(times[order], low, high), append=high)
    present = np.cumsum(change[order])
    return np.array([spans[present <= level].sum() for level in levels]) / (high - low)


def test_number_in_uncapped_batch_is_negative_binomial() -> None:
    levels, rate, shares = np.array([40, 46, 51, 56, 64]), 12.5, []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, rate, 3100)
        rows = serve(pool(BATCH), requests(arrivals, rng.geometric(1 / 200, arrivals.size)))
        shares.append(occupancy(arrivals, rows["finished_s"], 100, 3100, levels))
    known = stats.nbinom.cdf(levels, 51, 0.5)
    for column, expected in zip(np.array(shares).T, known, strict=True):
        mean, low, high = theory.student_interval(column, CONFIDENCE)
        assert high - low < 0.06
        assert low - 0.006 <= expected <= high + 0.006  # the bias of half a step moves the middle by so much


@pytest.mark.parametrize("rate", [10.0, 12.0])
def test_capped_batch_is_a_birth_death_chain(rate: float) -> None:
    """64 seats, geometric lengths: number present, and how often somebody waits for a seat."""
    batch = theory.Batch(0.010, 0.0002, 200, seats=64)
    number, queues, work, load = [], [], [], batch.load(rate)
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, rate, 4200)
        output = rng.geometric(1 / 200, arrivals.size)
        rows = serve(pool(batch), requests(arrivals, output))
        number.append(mean_number(arrivals, rows["finished_s"], 200, 4200))
        queues.append(1 - occupancy(arrivals, rows["finished_s"], 200, 4200, np.array([64]))[0])
        work.append(batch.per_sequence_s * output[arrivals > 100].sum() / 4100)
    bounds(number, theory.stepped(batch, rate).mean_number, 0.02, controls=(work, load))
    bounds(number, batch.mean_number(rate), 0.02, bias=0.005, controls=(work, load))
    above = batch.number_probabilities(rate)[65:].sum()
    mean, low, high = theory.controlled_interval(queues, work, load, CONFIDENCE)
    assert low - 0.005 <= above <= high + 0.005
    assert high - low < 0.03


# Many servers


@pytest.mark.parametrize("seats", [4, 10])
def test_mmc_waits(seats: int) -> None:
    """Seats whose step costs the same however many decode are servers: Erlang C, plus half a 1 ms step."""
    batch = theory.Batch(base_s=0.001, per_sequence_s=0, mean_tokens=400, seats=seats)
    rate, service = 0.8 * seats / 0.4, 0.4
    waits, delayed, quantiles, work = [], [], [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, rate, 6000)
        output = rng.geometric(1 / 400, arrivals.size)
        rows = serve(pool(batch), requests(arrivals, output))
        wait = rows["admitted_s"] - arrivals
        waits.append(wait.mean())
        delayed.append((wait > 0.001).mean())
        quantiles.append(np.quantile(wait, [0.9, 0.95]))
        work.append(0.001 * output.sum() / 6000)
    controls = (work, 0.8 * seats)
    bounds(waits, theory.stepped(batch, rate).wait_s, 0.06, controls=controls)
    bounds(waits, theory.mmc_wait_s(rate, service, seats), 0.06, bias=0.01, controls=controls)
    bounds(delayed, theory.erlang_c(seats, 0.8 * seats), 0.02, bias=0.01, controls=controls)
    for q, values in zip((0.9, 0.95), np.array(quantiles).T, strict=True):
        bounds(values, theory.mmc_wait_quantile_s(q, rate, service, seats), 0.06, bias=0.005, controls=controls)


def test_priorities_wait_as_cobham_says() -> None:
    """Two levels, four seats, nobody interrupted."""
    batch = theory.Batch(base_s=0.0005, per_sequence_s=0, mean_tokens=400, seats=4)
    rate, found, work = 16.0, [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, rate, 4000)
        output, level = rng.geometric(1 / 400, arrivals.size), (rng.random(arrivals.size) < 0.6).astype(int)
        wait = serve(pool(batch), requests(arrivals, output, level=level))["admitted_s"] - arrivals
        found.append([wait[level == 0].mean(), wait[level == 1].mean()])
        work.append(0.0005 * output.sum() / 4000)
    known = theory.cobham_waits_s([6.4, 9.6], [0.2, 0.2], [1, 1], servers=4)
    for values, expected, bias in zip(np.array(found).T, known, (0.015, 0.005), strict=True):
        bounds(values, expected, 0.06, bias, controls=(work, 3.2))


def test_routers_rank_as_theory_says() -> None:
    """Random splitting gives M/M/1 each; turns wait less, the shortest queue less still, one common queue least."""
    one = theory.Batch(base_s=0.001, per_sequence_s=0, mean_tokens=100, seats=1)
    rate, work = 32.0, []
    waits: dict[str, list[float]] = {}
    for router in ("random", "round_robin", "least_outstanding"):
        waits[router] = []
        for seed in SEEDS:
            rng = np.random.default_rng(seed)
            arrivals = poisson(rng, rate, 1500)
            output = rng.geometric(1 / 100, arrivals.size)
            rows = serve(pool(one, replicas=4, router=router), requests(arrivals, output), seed=seed)
            waits[router].append((rows["admitted_s"] - arrivals).mean())
            if router == "random":
                work.append(0.001 * output.sum() / 1500)
    bounds(waits["random"], theory.mg1_wait_s(rate / 4, 0.1, 0.99), 0.06, controls=(work, 3.2))
    ladder = [np.array(waits[router]) for router in ("random", "round_robin", "least_outstanding")]
    best = theory.mmc_wait_s(rate, 0.1, 4)
    for worse, better in zip(ladder, [*ladder[1:], np.full(len(SEEDS), best)], strict=True):
        assert theory.student_interval(worse - better, CONFIDENCE).low > 0
    assert ladder[2].mean() < 1.6 * best


# What arrivals see, what memory holds


def seen_by_arrivals(arrivals: Floats, finished: Floats) -> Ints:
    """How many were present just before each arrival."""
    return np.arange(arrivals.size) - np.searchsorted(np.sort(finished), arrivals)


def test_poisson_arrivals_see_time_averages_and_bursts_do_not() -> None:
    seen_more: dict[str, list[float]] = {"poisson": [], "bursts": []}
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        for kind, differences in seen_more.items():
            gaps = rng.exponential(1 / 12.5, 20_000) if kind == "poisson" else rng.gamma(1 / 16, 16 / 12.5, 20_000)
            arrivals = np.cumsum(gaps)
            finished = serve(pool(BATCH), requests(arrivals, rng.geometric(1 / 200, arrivals.size)))["finished_s"]
            inside = (arrivals > 100) & (arrivals < arrivals[-1])
            average = mean_number(arrivals, finished, 100, arrivals[-1])
            differences.append(seen_by_arrivals(arrivals, finished)[inside].mean() / average - 1)
    mean, low, high = theory.student_interval(seen_more["poisson"], CONFIDENCE)
    assert low <= 0 <= high
    assert high - low < 0.01
    assert theory.student_interval(seen_more["bursts"], CONFIDENCE).low > 0.05


def kv_scrapes(fleet: Fleet, asks: np.ndarray, times: Floats) -> tuple[Floats, np.ndarray]:
    """Blocks held at each of *times*, and the attempts."""
    fleet.submit(asks)
    held, rows = [], []
    for at in times:
        while fleet.advance(at) != "done":
            rows.append(fleet.take_rows())
        held.append(float(fleet.look()["kv_blocks"][0]))
    rows.extend(play(fleet, asks[:0], math.inf))
    attempts = np.concatenate(rows)
    return np.array(held), attempts[np.argsort(attempts["request"])]


def test_kv_blocks_held_are_those_of_the_requests_inside() -> None:
    """Steps of 10 ms whatever the batch: at any time each request's blocks follow from when it was admitted."""
    rng = np.random.default_rng(3)
    batch = theory.Batch(base_s=0.010, per_sequence_s=0.0, mean_tokens=100)
    arrivals = poisson(rng, 20, 100)
    prompt, output = rng.integers(1, 300, arrivals.size), rng.geometric(1 / 100, arrivals.size)
    times = np.sort(rng.uniform(0, 110, 1000))
    held, rows = kv_scrapes(Fleet([pool(batch)], duration_s=200.0), requests(arrivals, output, prompt), times)
    for at, blocks in zip(times, held, strict=True):
        inside = (rows["admitted_s"] <= at) & (at < rows["finished_s"])
        steps = np.floor((at - rows["admitted_s"][inside]) / 0.010 + 1e-9)
        assert blocks == np.ceil((prompt[inside] + steps) / 16).sum()


def test_kv_memory_obeys_littles_law() -> None:
    """Mean blocks held = rate x time per token x block-steps of a request, in processor sharing."""
    rate, means, work = 12.5, [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, rate, 2100)
        output = rng.geometric(1 / 200, arrivals.size)
        held, _ = kv_scrapes(
            Fleet([pool(BATCH)], duration_s=3000.0), requests(arrivals, output), np.arange(100.0, 2100.0, 0.5)
        )
        means.append(held.mean())
        work.append(0.0002 * output[arrivals > 50].sum() / 2050)
    sizes = np.random.default_rng(0).geometric(1 / 200, 1_000_000)
    expected = theory.kv_mean_blocks(rate, BATCH.token_s(rate), theory.kv_block_steps(1, sizes, 16))
    bounds(means, expected, 0.015, bias=0.005, controls=(work, 0.5))


# Laws


@pytest.mark.parametrize("seed", range(10))
def test_conservation_and_causality(seed: int) -> None:
    """Scarce KV memory, timeouts, an end in the midst of it: every request has one outcome, and time runs forward."""
    rng = np.random.default_rng(seed)
    batch = theory.Batch(0.010, 0.0005, 60, seats=int(rng.integers(4, 40)))
    arrivals = poisson(rng, 30, 60)
    asks = requests(
        arrivals,
        rng.geometric(1 / 60, arrivals.size),
        rng.integers(1, 400, arrivals.size),
        rng.integers(0, 4, arrivals.size),
    )
    config = pool(batch, replicas=3, blocks=int(rng.integers(60, 400)), max_tokens=int(rng.integers(64, 512)))
    rows = serve(
        config, asks, seed=seed, until_s=50.0, clients=ClientPolicy(timeout_s=float(rng.choice([2.0, math.inf])))
    )
    assert rows["request"].tolist() == np.arange((arrivals <= 50).sum()).tolist()
    ok = rows["outcome"] == Outcome.OK
    assert ok.any()
    assert (rows["output_tokens"][ok] == asks["output_tokens"][: rows.size][ok]).all()
    moments = np.stack([rows[name] for name in ("scheduled_s", "sent_s", "admitted_s", "first_token_s", "finished_s")])
    assert not (np.diff(moments, axis=0) < 0).any()  # not-yet is nan, and nan is not below anything
    parts = sum(rows[part].astype(float) for part in PARTS)
    assert np.allclose(parts, rows["finished_s"] - rows["scheduled_s"], rtol=1e-4, atol=1e-5)


def test_whole_path_from_scenario_to_metrics(root: Path) -> None:
    """The shipped `textbook`, shortened: workload, world and summary must not bend what the engine gets right."""
    _, (_, short) = scenario.points(scenario.load(root / "scenarios" / "textbook.yaml", ["duration=40m"]))
    runs = [world.simulate(short, seed).metrics for seed in SEEDS]
    expected = {f"batch_{lengths}.e2e_mean": BATCH.sojourn_s(18.75) for lengths in LENGTHS}
    expected["batch_capped.e2e_mean"] = theory.Batch(0.010, 0.0002, 125, seats=64).sojourn_s(18.75)
    for lengths, name in (("geometric", "exponential"), ("fixed", "fixed"), ("lognormal", "lognormal")):
        expected[f"one_{name}.queue_mean"] = theory.mg1_wait_s(18.75, 0.04, SCV[lengths](160))
    expected["ten_seats.queue_mean"] = theory.mmc_wait_s(18.75, 0.4, 10)
    for metric, known in expected.items():
        bounds([run[f"cohort.{metric}"] for run in runs], known, half_width=0.12, bias=0.01)
