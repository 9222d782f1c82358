"""A fleet that loses capacity against `theory.outages`: backlogs, late helpers, dominoes, stragglers, starved classes.

Replicas have one seat and short steps, so each is a server. Fluid formulas leave out chance; 20 seeds bound the mean of
what is measured (99.9%), and it has to be within 5% of the formula with its half-width.
"""

from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import pytest

from sim import theory
from sim.engine.fleet import Fleet, PoolConfig
from sim.engine.latency import linear
from sim.records import PREFIX, Outcome
from tests.playing import Floats, poisson, pool, requests, scripted

SEEDS = range(1, 21)

# One seat, 20 steps a service: 50 requests/s each. Fixed lengths, because in fluid the spread only adds noise.
MU = 50.0
SERVER = theory.Batch(base_s=0.001, per_sequence_s=0, mean_tokens=20, seats=1)


def close_to(
    values: Iterable[float], expected: float, within: float = 0.05, work: tuple[list[float], float] | None = None
) -> theory.chance.Interval:
    """Check that the whole 99.9% interval of the mean is within so much of *expected*; return it, as a ratio.

    *work*: what was offered in each run, and what should have been (see `theory.controlled_interval`).
    """
    ratios = np.array(list(values)) / expected
    interval = theory.student_interval(ratios, 0.999)
    if work is not None:
        interval = theory.controlled_interval(ratios, *work, confidence=0.999)
    assert 1 - within <= interval.low, f"{interval.low:.2%} to {interval.high:.2%} of {expected:g}"
    assert interval.high <= 1 + within, f"{interval.low:.2%} to {interval.high:.2%} of {expected:g}"
    print(f"{expected:.6g}: {interval.estimate - 1:+.2%} ± {interval.high - interval.estimate:.2%}")
    return interval


def waiting(rows: np.ndarray, times: Floats) -> Floats:
    """How many were waiting for a seat at each of *times*."""
    left = np.fmin(rows["admitted_s"], rows["finished_s"])
    return np.searchsorted(np.sort(rows["sent_s"]), times) - np.searchsorted(np.sort(left), times)


# A backlog


def test_a_herd_drains_at_what_is_left_over() -> None:
    """3000 at once before ten busy replicas: served evenly, and felt for n / (capacity - rate)."""
    drained, medians = [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = np.sort(np.concatenate([poisson(rng, 300, 40), np.full(3000, 10.0)]))
        fleet = Fleet([pool(SERVER, replicas=10)], seed=seed, duration_s=40)
        rows = scripted(fleet, requests(arrivals, np.full(arrivals.size, 20)), [], 40)
        times = np.arange(10.5, 40, 0.01)
        drained.append(times[waiting(rows, times) < 10][0] - 10)
        herd = rows[rows["scheduled_s"] == 10.0]
        medians.append(np.median(herd["admitted_s"] - 10))
    close_to(drained, theory.herd_drain_s(3000, 300, 10 * MU))
    close_to(medians, theory.herd_wait_quantile_s(0.5, 3000, 10 * MU))


@pytest.mark.parametrize("after", [13, 20, 25])
def test_cold_start(after: int) -> None:
    """From 80% to 120% of ten replicas, more of them after 20 s: backlog, longest wait, drain.

    With 15 more the router sends everybody there, and the drain is that of the old replicas' own queues.
    """
    expected = theory.cold_start(600, MU, 10, after, 20)
    backlog, peak, drain, early, late = [], [], [], [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        end = 10 + 1.2 * expected.normal_s
        arrivals = np.concatenate([poisson(rng, 400, 10), 10 + poisson(rng, 600, end - 10)])
        fleet = Fleet([pool(SERVER, replicas=10, spares=after - 10)], seed=seed, duration_s=end)

        def help_comes(fleet: Fleet) -> None:
            for replica in range(10, after):
                fleet.restore(replica)

        rows = scripted(fleet, requests(arrivals, np.full(arrivals.size, 20)), [(30.0, help_comes)], end)
        early.append(float(((arrivals > 10) & (arrivals < 30)).sum()))
        late.append(early[-1] + float(((arrivals >= 30) & (arrivals < 10 + expected.normal_s)).sum()))
        backlog.append(float(waiting(rows, np.array([30.0]))[0]))
        last = (arrivals > 29.9) & (arrivals < 30)
        peak.append(float((rows["admitted_s"] - arrivals)[last].mean()))
        times = np.arange(30, end, 0.02)
        drain.append(times[waiting(rows, times) < 10][0] - 30)
    close_to(backlog, expected.backlog, work=(early, 600 * 20))
    close_to(peak, expected.peak_wait_s, work=(early, 600 * 20))
    close_to(drain, expected.drain_s, work=(late, 600 * expected.normal_s))


# Fewer replicas


def kill_the_overloaded(fleet: Fleet) -> Iterable[None]:
    """Health checks in the same queue as requests: whoever has half a second of work waiting is killed."""
    gauges = fleet.look()
    for replica in np.flatnonzero((gauges["up"] == 1) & (gauges["waiting"] > MU / 2)):
        yield from fleet.crash(int(replica))


def survivors(load: float, replicas: int, seed: int) -> tuple[int, float]:
    """Lose one of *replicas* at 10 s: how many are alive at 40 s, and the load that each of the alive carried."""
    rng = np.random.default_rng(seed)
    arrivals = poisson(rng, load * replicas * MU, 40)
    fleet = Fleet([pool(SERVER, replicas=replicas)], seed=seed, duration_s=40)
    moments: list[tuple[float, Callable[[Fleet], object]]] = [(10.0, lambda fleet: fleet.crash(0))]
    moments += [(float(at), kill_the_overloaded) for at in range(11, 40)]
    rows = scripted(fleet, requests(arrivals, np.full(arrivals.size, 20)), moments, 40)
    late = (rows["finished_s"] > 15) & (rows["finished_s"] < 40) & (rows["outcome"] == Outcome.OK)
    alive = int(fleet.look()["up"].sum())
    return alive, float(late.sum()) / 25 / MU / max(1, alive)


@pytest.mark.parametrize("replicas", [4, 8])
def test_a_cascade_begins_at_the_safe_load(replicas: int) -> None:
    """Four points below limit (N - 1) / N the rest survive in every run, four points above nobody does in any."""
    safe = theory.safe_load(replicas)
    calm, doomed = ([survivors(load, replicas, seed) for seed in SEEDS] for load in (safe - 0.04, safe + 0.04))
    assert {alive for alive, _ in calm} == {replicas - 1}
    assert {alive for alive, _ in doomed} == {0}
    assert len(theory.domino(safe + 0.04, replicas)) == replicas - 1
    close_to([load for _, load in calm], theory.domino(safe - 0.04, replicas)[0])


# Caches

# Cold, a prompt of 1280 tokens takes 12.8 ms and is 70% of the work; 80% of it may be found in the cache.
PREFIX_TOKENS, PROMPT_TOKENS, OUTPUT_TOKENS, PREFILL_S = 1024, 1280, 21, 1e-5
HIT, PREFILL_SHARE = 0.8, 0.7
COLD_PER_S = PREFILL_SHARE / (PREFILL_S * PROMPT_TOKENS)


def cached_fleet(contents: int, seed: int) -> Fleet:
    """One seat with an empty cache, and so many prefixes."""
    base_s = (1 - PREFILL_SHARE) / COLD_PER_S / OUTPUT_TOKENS
    steps = linear(1, 8192, base_s, per_prefill_token_s=PREFILL_S)
    config = PoolConfig(steps=steps, replicas=1, blocks=150 * contents + 100, max_seqs=1, prefix_caching=True)
    tree = np.array([(-1, PREFIX_TOKENS)] * contents, PREFIX)
    return Fleet([config], prefixes=tree, seed=seed, duration_s=1000)


def about(arrivals: Floats, contents: np.ndarray) -> np.ndarray:
    """Requests that begin with the prefixes *contents* and go on with something of their own."""
    asks = requests(arrivals, np.full(arrivals.size, OUTPUT_TOKENS), PROMPT_TOKENS)
    asks["prefix"], asks["prefix_tokens"] = contents, PREFIX_TOKENS
    return asks


def test_a_warm_cache_saves_hit_times_prefill_share() -> None:
    """The same 300 prefixes twice, and after a crash a third time: cold, warm, cold again."""
    fleet = cached_fleet(300, 1)
    moments = [(50.0, lambda fleet: fleet.crash(0)), (51.0, lambda fleet: fleet.restore(0))]
    rows = scripted(fleet, about(np.repeat([0.0, 20.0, 60.0], 300), np.tile(np.arange(300), 3)), moments, 100)
    cold, warm, again = np.diff(np.sort(rows["finished_s"]).reshape(3, 300)[:, [0, -1]])[:, 0] / 299
    assert cold == pytest.approx(1 / COLD_PER_S)
    assert warm / cold == pytest.approx(theory.cached_work(HIT, PREFILL_SHARE))
    assert again == pytest.approx(cold)
    assert rows["cached_tokens"].sum() / (300 * PROMPT_TOKENS) == pytest.approx(HIT)


def test_a_cold_cache_refills() -> None:
    """A restart at a load of 0.8 with warm caches, 1.8 with cold ones: backlog, when it is worst, when it is gone."""
    expected = theory.cache_refill(1.8 * COLD_PER_S, COLD_PER_S, HIT, PREFILL_SHARE, 4000)
    assert theory.cold_load(1.8 * 0.44, HIT, PREFILL_SHARE) == pytest.approx(1.8)
    backlog, normal, early, all_of_it = [], [], [], []
    end = 1.3 * expected.normal_s
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, 1.8 * COLD_PER_S, end)
        rows = scripted(cached_fleet(4000, seed), about(arrivals, rng.integers(0, 4000, arrivals.size)), [], end)
        times = np.arange(expected.worst_s, end, 0.1)
        queue = waiting(rows, times)
        backlog.append(float(queue[0]))
        normal.append(times[queue < 5][0])
        early.append(float((arrivals < expected.worst_s).sum()))
        all_of_it.append(float((arrivals < expected.normal_s).sum()))
    close_to(backlog, expected.backlog, work=(early, 1.8 * COLD_PER_S * expected.worst_s))
    close_to(normal, expected.normal_s, work=(all_of_it, 1.8 * COLD_PER_S * expected.normal_s))


# One bad replica, one bad class


@cache
def with_and_without_a_straggler(seed: int) -> tuple[Floats, Floats, np.ndarray]:
    """Waits behind round robin, 20 replicas at load 0.6 of which none or one is three times slower; and those rows."""
    waits = []
    for slower in (1.0, 3.0):
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, 0.6 * 20 * MU, 40)
        fleet = Fleet([pool(SERVER, replicas=20, router="round_robin")], seed=seed, duration_s=40)
        fleet.slow(7, slower)
        rows = scripted(fleet, requests(arrivals, rng.integers(1, 40, arrivals.size)), [], 80)
        waits.append(rows["admitted_s"] - arrivals)
    return waits[0], waits[1], rows


def test_a_straggler_breaks_one_percentile_and_no_other() -> None:
    """The wait there grows at load x slower - 1; P97.5 is the middle of that ramp; P90 is what P94.7 was."""
    expected = theory.straggler(0.6 * 20 * MU, MU, 20, 3)
    growth, middle, below, work = [], [], [], []
    for seed in SEEDS:
        before, after, rows = with_and_without_a_straggler(seed)
        there = rows["replica"] == 7
        growth.append(np.polyfit(rows["sent_s"][there], after[there], 1)[0])
        middle.append(np.quantile(after, 0.975))
        work.append(rows["output_tokens"][there].sum() / 40)
        below.append(np.quantile(after, 0.9) / np.quantile(before, 0.9 / 0.95))
        assert there.mean() == pytest.approx(expected.share, abs=1e-4)
        assert np.quantile(after, 0.5) < 1.05 * np.quantile(before, 0.5) + 0.001
    offered = (work, 0.6 * MU * 20)
    close_to(growth, expected.wait_growth, work=offered)
    close_to(middle, expected.wait_quantile_s(0.975, 40), work=offered)
    close_to(below, 1)


def test_three_priorities_wait_as_cobham_says() -> None:
    """One seat, services of different means and spreads: fixed, geometric and short, geometric and long."""
    rates, means = np.array([12.0, 12.0, 6.0]), np.array([10, 20, 50])
    scvs = [0, 1 - 1 / 20, 1 - 1 / 50]
    found, work = [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, 30, 1500)
        level = rng.choice(3, arrivals.size, p=rates / 30)
        output = np.where(level == 0, 10, rng.geometric(1 / means[level]))
        fleet = Fleet([pool(SERVER)], seed=seed, duration_s=1500)
        wait = scripted(fleet, requests(arrivals, output, level=level), [], 2500)["admitted_s"] - arrivals
        found.append([wait[level == k].mean() for k in range(3)])
        work.append(0.001 * output.sum() / 1500)
    known = theory.cobham_waits_s(rates.tolist(), (0.001 * means).tolist(), scvs)
    for values, expected in zip(np.array(found).T, known, strict=True):
        interval = theory.controlled_interval(values, work, float(rates @ means) * 0.001, 0.999)
        assert interval.low <= expected <= interval.high
        assert interval.high - interval.low < 0.14 * expected


def test_the_last_class_starves_and_the_others_do_not_notice() -> None:
    """Loads of 0.5, 0.3 and 0.4 at one seat: half of the last class is served, and its queue grows without end."""
    loads, shares, first = [0.5, 0.3, 0.4], [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, 1.2 * MU, 600)
        level = rng.choice(3, arrivals.size, p=np.array(loads) / 1.2)
        fleet = Fleet([pool(SERVER)], seed=seed, duration_s=600)
        rows = scripted(fleet, requests(arrivals, np.full(arrivals.size, 20), level=level), [], 600)
        served = rows["outcome"] == Outcome.OK
        shares.append([served[level == k].mean() for k in range(3)])
        first.append(np.quantile((rows["admitted_s"] - arrivals)[level == 0], 0.99))
    for values, expected in zip(np.array(shares).T, theory.priority_served(loads), strict=True):
        close_to(values, expected)
    assert max(first) < 0.2
