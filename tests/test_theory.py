"""Closed forms against published numbers, against chains solved numerically, and against Lindley's recursion."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, sparse, stats
from scipy.sparse import linalg

from sim import theory

Floats = NDArray[np.float64]
State = tuple[int, ...]

BATCH = theory.Batch(base_s=0.010, per_sequence_s=0.0002, mean_tokens=200)
CAPPED = theory.Batch(base_s=0.010, per_sequence_s=0.0002, mean_tokens=200, seats=64)


# Independent ways to the same numbers


def solve_chain(start: State, moves: Callable[[State], Iterator[tuple[State, float]]]) -> dict[State, float]:
    """Stationary probabilities of a small continuous-time Markov chain, by linear algebra on its generator."""
    states, rates, queue = {start: 0}, [], [start]
    for state in queue:
        for target, rate in moves(state):
            if target not in states:
                states[target] = len(states)
                queue.append(target)
            rates.append((states[state], states[target], rate))
    size = len(states)
    source, target_row, rate_column = (np.array(column) for column in zip(*rates, strict=True))
    generator = sparse.coo_matrix((rate_column, (target_row, source)), (size, size)).tolil()
    generator.setdiag(generator.diagonal() - np.bincount(source, rate_column, size))
    generator[-1] = 1.0
    p = linalg.spsolve(generator.tocsc(), np.eye(1, size, size - 1)[0])
    return dict(zip(states, p, strict=True))


def lindley_waits(gaps: Floats, services: Floats) -> Floats:
    """FIFO waits at one server: W[n+1] = max(0, W[n] + S[n] - A[n+1]), without a loop."""
    walk = np.concatenate([[0.0], np.cumsum(services[:-1] - gaps[1:])])
    return walk - np.minimum.accumulate(walk)


def agrees(values: list[float], expected: float, tolerance: float) -> None:
    """Check that independent runs bound *expected* (99.9%), to within a relative *tolerance*."""
    mean, low, high = theory.student_interval(values, 0.999)
    assert low <= expected <= high
    assert (high - low) / 2 <= tolerance * expected, f"half-width {(high - low) / 2 / mean:.2%}"


# One server


@pytest.mark.parametrize(("load", "sojourn"), [(0.5, 2), (0.8, 5), (0.9, 10), (0.95, 20)])
def test_mm1_known_numbers(load: float, sojourn: float) -> None:
    assert theory.mm1_sojourn_s(load, 1) == pytest.approx(sojourn)
    assert theory.mg1_wait_s(load, 1, 1) == pytest.approx(sojourn - 1)
    ratio = theory.mm1_sojourn_quantile_s(0.99, load, 1) / theory.mm1_sojourn_quantile_s(0.5, load, 1)
    assert ratio == pytest.approx(math.log2(100))


def test_mm1_quantiles() -> None:
    sojourns = [theory.mm1_sojourn_quantile_s(q, 0.8, 1) for q in (0.5, 0.95, 0.99)]
    assert sojourns == pytest.approx([3.4657, 14.9787, 23.0259], abs=1e-4)
    waits = [theory.mm1_wait_quantile_s(q, 0.8, 1) for q in (0.1, 0.5, 0.99)]
    assert waits == pytest.approx([0, 2.3500, 21.9101], abs=1e-4)


SERVICES: dict[str, tuple[float, float, Callable[[np.random.Generator, int], Floats]]] = {
    "fixed": (0.0, 2.0, lambda rng, n: np.ones(n)),
    "erlang-4": (0.25, 2.5, lambda rng, n: rng.gamma(4, 0.25, n)),
    "exponential": (1.0, 4.0, lambda rng, n: rng.exponential(1, n)),
    "lognormal": (math.e - 1, 5.43656, lambda rng, n: rng.lognormal(-0.5, 1, n)),
}


@pytest.mark.parametrize("name", SERVICES)
def test_mg1_wait_is_what_lindley_gives(name: str) -> None:
    scv, known, draw = SERVICES[name]
    assert theory.mg1_wait_s(0.8, 1, scv) == pytest.approx(known, abs=1e-5)
    waits = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        waits.append(lindley_waits(rng.exponential(1 / 0.8, 200_000), draw(rng, 200_000)).mean())
    agrees(waits, known, 0.05)


def test_kingman_known_numbers_and_bound() -> None:
    assert theory.kingman_wait_s(0.8, 1, 4, 0.25) == pytest.approx(8.5)
    assert theory.kingman_bound_s(0.8, 1, 4, 0.25) == pytest.approx(13.0)
    assert theory.kingman_wait_s(0.8, 1, 1, 3) == pytest.approx(theory.mg1_wait_s(0.8, 1, 3))
    for load in (0.3, 0.8):
        rng = np.random.default_rng(0)
        waits = lindley_waits(rng.gamma(0.25, 4 / load, 400_000), rng.gamma(4, 0.25, 400_000))
        assert waits.mean() < theory.kingman_bound_s(load, 1, 4, 0.25)


def test_run_length_formula_predicts_the_spread_of_means() -> None:
    assert theory.mm1_wait_variance(0.5) == pytest.approx(29)
    assert theory.mm1_wait_variance(0.8) == pytest.approx(1976)
    count, means = 20_000, []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        means.append(lindley_waits(rng.exponential(2, count), rng.exponential(1, count)).mean())
    assert count * np.var(means, ddof=1) == pytest.approx(29, rel=0.4)


def test_processor_sharing_is_linear_in_size() -> None:
    assert theory.ps_sojourn_s(3.0, 0.8, 1) == pytest.approx(15)
    assert theory.ps_sojourn_s(1.0, 0.8, 1) == pytest.approx(theory.mm1_sojourn_s(0.8, 1))


# Many servers

ERLANG = [
    (2, 1.6, 0.329897, 0.711111, 1.777778),
    (4, 3.2, 0.228145, 0.596432, 0.745541),
    (10, 8, 0.121661, 0.409180, 0.204590),
    (10, 9, 0.167963, 0.668732, 0.668732),
    (64, 57.6, 0.043124, 0.310663, 0.048541),
    (100, 90, 0.026957, 0.216940, 0.021694),
    (256, 243.2, 0.022265, 0.312926, 0.024447),
]


@pytest.mark.parametrize(("servers", "load", "lost", "waits", "wait"), ERLANG)
def test_erlang_known_numbers(servers: int, load: float, lost: float, waits: float, wait: float) -> None:
    assert theory.erlang_b(servers, load) == pytest.approx(lost, abs=1e-6)
    assert theory.erlang_c(servers, load) == pytest.approx(waits, abs=1e-6)
    assert theory.mmc_wait_s(load, 1, servers) == pytest.approx(wait, abs=1e-6)
    assert theory.mmc_wait_s(load / 3, 3, servers) == pytest.approx(3 * wait, abs=3e-6)


def test_erlang_b_of_a_hundred() -> None:
    assert theory.erlang_b(100, 100) == pytest.approx(0.0757005, abs=1e-7)


@pytest.mark.parametrize(("servers", "load", "known"), [(10, 8, (0, 1.0511, 1.8558)), (64, 57.6, (0, 0.2854, 0.5369))])
def test_mmc_wait_quantiles(servers: int, load: float, known: tuple[float, ...]) -> None:
    quantiles = [theory.mmc_wait_quantile_s(q, load, 1, servers) for q in (0.5, 0.95, 0.99)]
    assert quantiles == pytest.approx(known, abs=1e-4)
    # Independently: whoever finds k waiting before him waits for k + 1 of the busy servers' departures.
    p = theory.birth_death(np.full(2000, load), np.minimum(np.arange(1, 2001), servers))
    ahead = np.arange(p.size - servers)
    assert p[servers:] @ stats.gamma.sf(quantiles[2], ahead + 1, scale=1 / servers) == pytest.approx(0.01, abs=1e-9)


@pytest.mark.parametrize(
    ("servers", "room", "load", "blocked", "number"),
    [(1, 10, 1.2, 0.1925865, 6.710709), (4, 20, 4.4, 0.1083224, 13.665815)],
)
def test_mmck_known_numbers_and_chain(servers: int, room: int, load: float, blocked: float, number: float) -> None:
    queue = theory.mmck(load, 1, servers, room)
    assert (queue.blocked, queue.mean_number) == pytest.approx((blocked, number), abs=1e-6)

    def moves(state: State) -> Iterator[tuple[State, float]]:
        if state[0] < room:
            yield (state[0] + 1,), load
        if state[0]:
            yield (state[0] - 1,), min(state[0], servers)

    p = solve_chain((0,), moves)
    assert p[(room,)] == pytest.approx(queue.blocked)
    assert sum(n * mass for (n,), mass in p.items()) == pytest.approx(queue.mean_number)


ERLANG_A = [
    (10, 12, 2, 0.850385, 0.195656, 4.695743),
    (10, 9, 2, 0.468942, 0.067012, 1.206211),
    (50, 55, 3, 0.913562, 0.098128, 16.191071),
    (100, 100, 1, 0.513299, 0.039861, 3.9861),
]


@pytest.mark.parametrize(("servers", "rate", "patience", "waits", "abandons", "waiting"), ERLANG_A)
def test_erlang_a_known_numbers(
    servers: int, rate: float, patience: float, waits: float, abandons: float, waiting: float
) -> None:
    queue = theory.erlang_a(rate, 1, servers, patience)
    assert (queue.waits, queue.abandons) == pytest.approx((waits, abandons), abs=1e-6)
    assert queue.mean_waiting == pytest.approx(waiting, abs=1e-4)


def test_erlang_a_with_patience_as_long_as_service_is_poisson() -> None:
    queue = theory.erlang_a(100, 1, 100, 1)
    assert queue.waits == pytest.approx(stats.poisson.sf(99, 100))


def test_patience_without_end_is_erlang_c() -> None:
    assert theory.erlang_a(8, 1, 10, 1e9).waits == pytest.approx(theory.erlang_c(10, 8), rel=1e-6)


@pytest.mark.parametrize("servers", [1, 2])
def test_cobham_against_a_chain(servers: int) -> None:
    """Two exponential classes, nobody interrupted: waiting high, waiting low, and which kinds are in service."""
    high, low, room = 0.3 * servers, 0.35 * servers, 60

    def moves(state: State) -> Iterator[tuple[State, float]]:
        busy, first, second = state
        if busy < servers:
            yield (busy + 1, 0, 0), high + low
        else:
            if first < room:
                yield (busy, first + 1, second), high
            if second < room:
                yield (busy, first, second + 1), low
        if busy and first:
            yield (busy, first - 1, second), busy
        elif busy and second:
            yield (busy, 0, second - 1), busy
        elif busy:
            yield (busy - 1, 0, 0), busy

    p = solve_chain((0, 0, 0), moves)
    waits = theory.cobham_waits_s([high, low], [1, 1], [1, 1], servers)
    assert sum(s[1] * mass for s, mass in p.items()) / high == pytest.approx(waits[0], rel=1e-6)
    assert sum(s[2] * mass for s, mass in p.items()) / low == pytest.approx(waits[1], rel=1e-6)
    overall = (high * waits[0] + low * waits[1]) / (high + low)
    assert overall == pytest.approx(theory.mmc_wait_s(high + low, 1, servers))


def test_a_starved_class_waits_for_ever_and_the_one_before_does_not() -> None:
    waits = theory.cobham_waits_s([0.6, 0.6], [1, 1], [1, 1])
    assert math.isfinite(waits[0])
    assert waits[1] == math.inf
    assert theory.mm1_sojourn_s(1, 1) == theory.mmc_wait_s(2, 1, 2) == theory.mg1_wait_s(1.1, 1, 0) == math.inf
    assert BATCH.token_s(25) == math.inf


# The batch


def test_uncapped_batch_known_numbers() -> None:
    assert [BATCH.mean_number(r) for r in (12, 18)] == pytest.approx([47.0769, 131.1429], abs=1e-4)
    assert [BATCH.token_s(r) for r in (12, 18)] == pytest.approx([0.019615, 0.036429], abs=1e-6)
    assert BATCH.sojourn_s(12) == pytest.approx(200 * BATCH.token_s(12))


def test_uncapped_batch_is_negative_binomial() -> None:
    p = BATCH.number_probabilities(18)
    known = stats.nbinom.pmf(np.arange(p.size), 1 + 0.010 / 0.0002, 1 - BATCH.load(18))
    assert np.abs(p - known).max() < 1e-12


def test_uncapped_batch_is_insensitive_to_the_distribution_of_lengths() -> None:
    """Lengths of two exponential phases (less spread) and a mixture of two (more): same number present."""
    rate, base, per_sequence, room = 0.5, 1.0, 1.0, 70

    def erlang_2(state: State) -> Iterator[tuple[State, float]]:
        one, two = state
        pace = 1 / (base + per_sequence * (one + two))
        if one + two < room:
            yield (one + 1, two), rate
        if one:
            yield (one - 1, two + 1), 2 * one * pace
        if two:
            yield (one, two - 1), 2 * two * pace

    def mixture(state: State) -> Iterator[tuple[State, float]]:
        short, long = state
        pace = 1 / (base + per_sequence * (short + long))
        if short + long < room:
            yield (short + 1, long), rate * 0.8
            yield (short, long + 1), rate * 0.2
        if short:
            yield (short - 1, long), short * pace / 0.25
        if long:
            yield (short, long - 1), long * pace / 4.0

    expected = theory.Batch(base, per_sequence, mean_tokens=1).number_probabilities(rate)
    for moves in (erlang_2, mixture):
        number = np.zeros(room + 1)
        for state, mass in solve_chain((0, 0), moves).items():
            number[sum(state)] += mass
        assert np.abs(number - expected[: room + 1]).max() < 1e-9


def test_capped_batch_known_numbers() -> None:
    assert CAPPED.capacity_per_s == pytest.approx(14.035, abs=1e-3)
    for rate, number, above in [(10, 34.0007, 0.00027), (12, 47.3692, 0.05024), (13, 58.6464, 0.27413)]:
        p = CAPPED.number_probabilities(rate)
        assert CAPPED.mean_number(rate) == pytest.approx(number, abs=1e-4)
        assert p[65:].sum() == pytest.approx(above, abs=1e-5)


def test_seats_without_batch_cost_are_servers() -> None:
    seats = theory.Batch(base_s=0.001, per_sequence_s=0, mean_tokens=1000, seats=10)
    assert seats.sojourn_s(8) == pytest.approx(1 + theory.mmc_wait_s(8, 1, 10))


# Whole steps


def replay_steps(batch: theory.Batch, rate: float, count: int, seed: int) -> float:
    """Mean number present, by drawing arrivals and lengths and playing each step: nothing shared with the chain."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, count))
    lengths = rng.geometric(1 / batch.mean_tokens, count)
    now, seen, area, running = 0.0, 0, 0.0, np.zeros(0, int)
    waiting: list[int] = []
    while seen < count:
        if not running.size and not waiting:
            now = max(now, arrivals[seen])
        arrived = int(np.searchsorted(arrivals, now, "right"))
        waiting.extend(lengths[seen:arrived])
        free = arrived if batch.seats is None else batch.seats - running.size
        running = np.concatenate([running, np.array(waiting[:free], int)])
        del waiting[:free]
        seen, end = arrived, now + float(batch.step_s(running.size))
        late = arrivals[seen : np.searchsorted(arrivals, end, "right")]
        area += (running.size + len(waiting)) * (end - now) + (end - late).sum()
        running, now = running[running > 1] - 1, end
    return area / now


@pytest.mark.parametrize(
    ("batch", "rate"),
    [
        (theory.Batch(0.010, 0.002, 4), 60.0),
        (theory.Batch(0.010, 0.001, 4, seats=3), 30.0),
        (theory.Batch(0.010, 0.0, 4, seats=1), 12.0),
    ],
)
def test_whole_steps_against_a_replay(batch: theory.Batch, rate: float) -> None:
    expected = theory.stepped(batch, rate).mean_number
    assert abs(expected / batch.mean_number(rate) - 1) > 0.03  # short answers: the limit would not do
    agrees([replay_steps(batch, rate, 4000, seed) for seed in range(20)], expected, 0.06)


def test_one_seat_in_whole_steps_is_pollaczek_khinchine() -> None:
    one = theory.Batch(base_s=0.001, per_sequence_s=0, mean_tokens=40, seats=1)
    assert theory.stepped(one, 12.5).wait_s == pytest.approx(theory.mg1_wait_s(12.5, 0.04, 1 - 1 / 40), rel=1e-9)


@pytest.mark.parametrize("load", [0.25, 0.5, 0.75])
def test_bias_of_whole_steps_shrinks_with_step_over_service(load: float) -> None:
    """Half a step of waiting against a service of mean_tokens steps: base / (base + per_sequence) / (2 mean_tokens)."""
    for times in (0.25, 1, 4):
        batch = BATCH.finer(times)
        rate = load * batch.capacity_per_s
        bias = theory.stepped(batch, rate).mean_number / batch.mean_number(rate) - 1
        assert bias == pytest.approx(0.010 / 0.0102 / (2 * batch.mean_tokens), rel=1e-3)


def test_whole_steps_of_a_capped_batch_near_the_limit() -> None:
    for rate in (10, 12, 13):
        limit, coarse, fine = CAPPED.mean_number(rate), *(theory.stepped(CAPPED.finer(t), rate) for t in (1, 4))
        assert 0 < fine.mean_number - limit < 0.3 * (coarse.mean_number - limit) < 0.002 * limit
        assert coarse.mean_running <= 64
        assert coarse.sojourn_s * rate == pytest.approx(coarse.mean_number)


# KV memory


@pytest.mark.parametrize(("prompt", "output"), [(1, 1), (16, 1), (17, 16), (100, 333), (31, 2)])
def test_kv_steps_by_counting(prompt: int, output: int) -> None:
    held = [prompt + step for step in range(output)]
    assert theory.kv_token_steps(prompt, output) == sum(held)
    assert theory.kv_block_steps(prompt, output, 16) == sum(-(-tokens // 16) for tokens in held)


def test_kv_little_and_the_stable_rate() -> None:
    steps = theory.kv_block_steps([100, 200], [50, 150], 16)
    assert theory.kv_mean_blocks(2.0, 0.02, steps) == pytest.approx(0.04 * (steps[0] + steps[1]) / 2)
    rate = theory.kv_stable_rate_per_s(1000, 0.02, steps)
    assert theory.kv_mean_blocks(rate, 0.02, steps) == pytest.approx(1000)


# Chances and intervals


def test_compounding_known_numbers() -> None:
    assert theory.compound(0.95, 5) == pytest.approx(0.7737809375)
    assert theory.compound(0.99, 10) == pytest.approx(0.9043820750, abs=1e-10)
    assert theory.at_least_one(0.01, 100) == pytest.approx(1 - 0.3660, abs=1e-4)
    assert theory.at_least_one(1.0, 3) == 1.0
    assert theory.expected_bad(1e7, 0.01) == pytest.approx((100_000, 316.2), abs=0.1)


def test_tasks_that_differ_compound_to_more() -> None:
    assert theory.beta_compound(19, 1, 5) == pytest.approx(0.7917, abs=1e-4)
    assert theory.beta_compound(1.9, 0.1, 5) == pytest.approx(0.8628, abs=1e-4)
    assert theory.beta_compound(0.768, 0.512, 8) == pytest.approx(0.25, abs=1e-3)
    by_hand, _ = integrate.quad(lambda p: p**5 * stats.beta.pdf(p, 19, 1), 0, 1)
    assert theory.beta_compound(19, 1, 5) == pytest.approx(by_hand)
    assert theory.beta_compound(19, 1, 5) > theory.compound(0.95, 5)


@pytest.mark.parametrize(("hits", "trials"), [(20, 2000), (0, 50), (50, 50), (1, 3)])
def test_exact_interval_of_a_chance(hits: int, trials: int) -> None:
    known = stats.binomtest(hits, trials).proportion_ci(0.95, "exact")
    assert theory.clopper_pearson(hits, trials)[1:] == pytest.approx((known.low, known.high), abs=1e-9)


def test_interval_of_one_percent_in_two_thousand() -> None:
    assert theory.clopper_pearson(20, 2000)[1:] == pytest.approx((0.0061, 0.0154), abs=1e-4)


def test_quantile_ranks_known_numbers() -> None:
    assert theory.quantile_ranks(0.99, 1000) == (983, 997)
    assert theory.quantile_ranks(0.99, 10_000) == (9880, 9920)
    assert theory.quantile_ranks(0.99, 367) is None
    assert theory.quantile_ranks(0.99, 368) is not None


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("count", [400, 1000, 25_000])
def test_quantile_ranks_cover_and_are_not_wasteful(q: float, count: int) -> None:
    """The chance that the quantile is between the ranks is at least 95%, and one rank less would break a tail."""
    ranks = theory.quantile_ranks(q, count)
    assert ranks is not None
    low, high = ranks
    below = stats.binom(count, q)
    assert below.cdf(high - 1) - below.cdf(low - 1) >= 0.95
    assert below.cdf(low) > 0.025
    assert below.sf(high - 2) > 0.025


def test_student_interval_is_the_textbook_one() -> None:
    values = np.random.default_rng(1).normal(3, 1, 20)
    known = stats.t.interval(0.99, 19, values.mean(), stats.sem(values))
    assert theory.student_interval(values, 0.99)[1:] == pytest.approx(known)


POSITIVE = st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=12)


@given(POSITIVE, st.floats(1e-3, 1e3))
def test_an_interval_of_what_is_above_0_stays_there_and_scales(values: list[float], scale: float) -> None:
    mean, low, high = theory.positive_interval(values)
    assert 0 < low <= mean <= high
    assert low * high == pytest.approx(mean**2)
    scaled = theory.positive_interval([scale * value for value in values])
    assert scaled == pytest.approx((scale * mean, scale * low, scale * high), rel=1e-6)


def test_an_interval_of_a_share_that_is_rare_is_that_of_what_is_above_0() -> None:
    values = np.array([2e-5, 5e-5, 3e-5])
    assert theory.share_interval(values) == pytest.approx(theory.positive_interval(values), rel=1e-3)


def test_an_interval_of_what_hardly_differs_is_students_own() -> None:
    values = np.random.default_rng(1).normal(3, 0.003, 5)
    assert theory.positive_interval(values) == pytest.approx(theory.student_interval(values), rel=1e-5)


@pytest.mark.parametrize("n", [3, 5, 9])
def test_of_skewed_values_it_covers_the_mean_more_often_than_students(n: int) -> None:
    rng = np.random.default_rng(3)
    plain = positive = 0
    for values in rng.exponential(1, (2000, n)):
        plain += theory.student_interval(values).low <= 1 <= theory.student_interval(values).high
        positive += theory.positive_interval(values).low <= 1 <= theory.positive_interval(values).high
    assert plain < 1840 < 1850 < positive < 1930


def test_a_control_takes_luck_out_and_still_covers() -> None:
    covered, narrower = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        control = rng.normal(5, 1, 20)
        values = 7 + 3 * (control - 5) + rng.normal(0, 0.5, 20)
        _, low, high = theory.controlled_interval(values, control, 5.0)
        _, plain_low, plain_high = theory.student_interval(values)
        covered += low <= 7 <= high
        narrower += high - low < 0.4 * (plain_high - plain_low)
    assert 178 <= covered <= 199
    assert narrower == 200


def test_bootstrap_interval_covers_and_repeats() -> None:
    rng, covered = np.random.default_rng(2), 0
    for _ in range(200):
        _, low, high = theory.bootstrap_interval(rng.exponential(1, 30))
        covered += low <= math.log(2) <= high
    assert 175 <= covered <= 199
    values = rng.exponential(1, 10)
    assert theory.bootstrap_interval(values) == theory.bootstrap_interval(values)


def test_nonsense_is_refused() -> None:
    for call in (
        lambda: theory.mm1_sojourn_s(-1, 1),
        lambda: theory.mg1_wait_s(1, 0.5, -1),
        lambda: theory.mmc_wait_quantile_s(1.0, 1, 0.5, 1),
        lambda: theory.mmck(1, 1, 4, 3),
        lambda: theory.mm1_wait_variance(1.0),
        lambda: theory.cobham_waits_s([1, 1], [1, 2], [1, 1], 2),
        lambda: theory.cobham_waits_s([1], [1, 2], [1, 1]),
        lambda: theory.birth_death([1], [1, 2]),
        lambda: theory.compound(1.5, 2),
        lambda: theory.clopper_pearson(3, 2),
        lambda: theory.quantile_ranks(0.0, 10),
        lambda: theory.student_interval([1.0]),
        lambda: theory.bootstrap_interval([]),
        lambda: theory.student_interval([1, 2], 1.0),
        lambda: theory.positive_interval([1.0]),
        lambda: theory.positive_interval([0.0, 1.0, 2.0]),
        lambda: theory.share_interval([0.5, 1.0]),
        lambda: theory.controlled_interval([1, 2, 3], [1, 2, 3], 2.0),
        lambda: CAPPED.token_s(1),
        lambda: CAPPED.number_probabilities(15),
        lambda: theory.stepped(CAPPED, 15),
    ):
        with pytest.raises(ValueError):
            call()
