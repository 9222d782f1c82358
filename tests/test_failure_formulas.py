"""Closed forms of failing fleets: published numbers, limits in which they must become each other, and brute force."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from sim import theory

SERVERS = st.integers(1, 40)
CHANCES = st.floats(0, 1)
TIMES = st.floats(0.01, 100)


# Patience, room and priorities: what each becomes at its edges


@given(servers=SERVERS, load=st.floats(0.1, 0.9))
def test_endless_patience_is_erlang_c(servers: int, load: float) -> None:
    queue = theory.erlang_a(load * servers, 1, servers, 1e8)
    assert queue.waits == pytest.approx(theory.erlang_c(servers, load * servers), rel=1e-5)
    assert queue.mean_waiting == pytest.approx(load * servers * theory.mmc_wait_s(load * servers, 1, servers), rel=1e-5)


@given(servers=SERVERS, load=st.floats(0.1, 3), service=TIMES)
def test_patience_as_long_as_service_is_a_poisson_number(servers: int, load: float, service: float) -> None:
    """Everybody inside, served or waiting, then leaves at the same rate: M/M/infinity."""
    queue = theory.erlang_a(load * servers / service, service, servers, service)
    assert queue.waits == pytest.approx(stats.poisson.sf(servers - 1, load * servers), rel=1e-9)


@given(servers=SERVERS, load=st.floats(0.1, 3))
def test_no_patience_is_a_loss_system(servers: int, load: float) -> None:
    assert theory.erlang_a(load * servers, 1, servers, 1e-9).abandons == pytest.approx(
        theory.erlang_b(servers, load * servers), rel=1e-5
    )


@given(servers=SERVERS, load=st.floats(0.1, 3), patience=TIMES)
def test_who_does_not_abandon_is_served(servers: int, load: float, patience: float) -> None:
    """Flow in = flow out: in overload the served cannot exceed the servers, and more patience is more waiting."""
    queue = theory.erlang_a(load * servers, 1, servers, patience)
    assert load * servers * (1 - queue.abandons) <= servers * (1 + 1e-9)
    assert queue.mean_waiting == pytest.approx(load * servers * queue.abandons * patience)
    assert queue.mean_waiting <= theory.erlang_a(load * servers, 1, servers, 2 * patience).mean_waiting


@given(servers=SERVERS, load=st.floats(0.1, 3), extra=st.integers(0, 50), service=TIMES)
def test_a_bounded_queue_obeys_littles_law(servers: int, load: float, extra: int, service: float) -> None:
    rate = load * servers / service
    queue = theory.mmck(rate, service, servers, servers + extra)
    inside = rate * (1 - queue.blocked)
    assert queue.mean_number == pytest.approx(inside * (queue.wait_s + service), rel=1e-9)
    assert queue.wait_s <= theory.full_queue_wait_s(max(extra, 0), servers / service) + 1e-9
    if not extra:
        assert queue.blocked == pytest.approx(theory.erlang_b(servers, load * servers))


@given(servers=SERVERS, load=st.floats(0.1, 0.9))
def test_room_without_end_is_erlang_c(servers: int, load: float) -> None:
    queue = theory.mmck(load * servers, 1, servers, 2000)
    assert queue.wait_s == pytest.approx(theory.mmc_wait_s(load * servers, 1, servers), rel=1e-9)


@given(load=st.floats(0.1, 3), room=st.integers(1, 30))
def test_one_server_with_room_is_geometric(load: float, room: int) -> None:
    weights = load ** np.arange(room + 1)
    assert theory.mmck(load, 1, 1, room).blocked == pytest.approx(weights[-1] / weights.sum())


CLASSES = st.lists(st.tuples(st.floats(0.01, 5), st.floats(0.01, 5), st.floats(0, 9)), min_size=1, max_size=5)


@given(classes=CLASSES, load=st.floats(0.05, 0.95))
def test_priorities_only_share_out_the_waiting(classes: list[tuple[float, float, float]], load: float) -> None:
    """Kleinrock's conservation law: the waits, weighted by load, sum to those of first come first served."""
    rates, services, scvs = (np.array(column) for column in zip(*classes, strict=True))
    rates *= load / (rates @ services)
    waits = np.array(theory.cobham_waits_s(rates.tolist(), services.tolist(), scvs.tolist()))
    residual = float(rates @ (services**2 * (1 + scvs))) / 2
    assert (rates * services) @ waits == pytest.approx(load * residual / (1 - load))
    assert (np.diff(waits) > 0).all()
    if waits.size == 1:
        assert waits[0] == pytest.approx(theory.mg1_wait_s(rates[0], services[0], scvs[0]))


@given(servers=SERVERS, load=st.floats(0.1, 0.9))
def test_one_class_at_many_servers_is_erlang_c(servers: int, load: float) -> None:
    wait = theory.cobham_waits_s([load * servers], [1], [1], servers)[0]
    assert wait == pytest.approx(theory.mmc_wait_s(load * servers, 1, servers))


@given(loads=st.lists(st.floats(0.01, 2), min_size=1, max_size=4))
def test_strict_priority_serves_all_that_fits(loads: list[float]) -> None:
    served = theory.priority_served(loads)
    done = np.cumsum([share * load for share, load in zip(served, loads, strict=True)])
    assert done == pytest.approx(np.minimum(1, np.cumsum(loads)))
    waits = theory.cobham_waits_s(loads, [1] * len(loads), [1] * len(loads))
    for share, wait, before in zip(served, waits, np.cumsum(loads), strict=True):
        assert (share < 1 - 1e-12) <= math.isinf(wait) or before == pytest.approx(1)


# Retries


def test_attempts_known_numbers() -> None:
    assert theory.attempts_per_request(1, 3) == 4  # Brooker: N retries are N + 1 times the work when all fail
    assert theory.attempts_per_request(0.5, 2) == 1.75
    assert theory.storm_load(0.25, 3) == 1  # the boundary
    assert theory.storm_load(0.85, 3, 0.1) == pytest.approx(0.935)
    assert theory.storm_load(0.85, 3, 0.2) == pytest.approx(1.02)


@given(failing=CHANCES, retries=st.integers(0, 8))
def test_attempts_are_those_of_a_truncated_geometric(failing: float, retries: int) -> None:
    mean = theory.attempts_per_request(failing, retries)
    assert 1 <= mean <= retries + 1
    again = 1 + failing * theory.attempts_per_request(failing, retries - 1) if retries else 1
    assert mean == pytest.approx(again)
    if failing < 0.9:
        assert theory.attempts_per_request(failing, 400) == pytest.approx(1 / (1 - failing))


@given(load=st.floats(0, 2), retries=st.integers(0, 8), budget=st.floats(0, 10))
def test_a_budget_is_worth_something_only_below_the_retries(load: float, retries: int, budget: float) -> None:
    capped = theory.storm_load(load, retries, budget)
    assert load <= capped <= theory.storm_load(load, retries)
    assert theory.storm_load(load, retries, retries) == theory.storm_load(load, retries)


def storm(retries: int, rate: float, capacity: float, timeout: float, outage: float) -> tuple[float, float]:
    """Backlog at the end of the outage, and how long until a new attempt is in time: in small steps of fluid."""
    step, now, backlog, at_end, fails = 0.01, 0.0, 0.0, 0.0, []
    while now < outage or backlog > capacity * timeout:
        fails.append(rate)
        for k in range(1, retries + 1):  # everybody fails until the end, so each attempt comes back
            before = round(now / step) - round(k * timeout / step)
            fails[-1] += rate if before >= 0 else 0
        backlog += step * (fails[-1] - (capacity if now >= outage else 0))
        now += step
        at_end = backlog if now <= outage + step / 2 else at_end
    return at_end, now - outage


@pytest.mark.parametrize(("retries", "rate"), [(0, 7.0), (1, 3.0), (3, 2.0)])
def test_a_storm_against_fluid_in_small_steps(retries: int, rate: float) -> None:
    backlog = theory.storm_backlog(rate, retries, 5, 60)
    at_end, recovery = storm(retries, rate, 10, 5, 60)
    assert backlog == pytest.approx(at_end, rel=0.01)
    assert theory.storm_recovery_s(backlog, rate * (retries + 1), 10, 5) == pytest.approx(recovery, rel=0.02)


def test_storms_known_numbers() -> None:
    """Load 0.85 of 10/s, 60 s of nothing, a budget of 10%: healed in about a quarter of an hour, of 20% never."""
    backlog = theory.storm_backlog(8.5, 3, 5, 60, 0.1)
    assert backlog == pytest.approx(8.5 * (60 + 5.5))
    assert theory.storm_recovery_s(backlog, 9.35, 10, 5) == pytest.approx(780, abs=1)
    assert theory.storm_recovery_s(backlog, 10.2, 10, 5) == math.inf
    assert theory.storm_recovery_s(49, 10.2, 10, 5) == 0
    assert theory.storm_backlog(2, 3, 5, 60, math.inf) == theory.storm_backlog(2, 3, 5, 60)


def test_backoff_known_numbers_and_jitter() -> None:
    assert theory.backoff_total_s(1, 2, math.inf, 3) == 7
    assert theory.backoff_total_s(1, 2, 3, 4) == 1 + 2 + 3 + 3
    rng = np.random.default_rng(0)
    for jitter, low in (("full", 0.0), ("equal", 0.5)):
        drawn = rng.uniform(low, 1, (100_000, 3)) @ np.array([1, 2, 4])
        assert theory.backoff_total_s(1, 2, math.inf, 3, jitter) == pytest.approx(drawn.mean(), rel=0.01)


@given(users=st.integers(1, 1000), think=TIMES, timeout=TIMES, retries=st.integers(0, 6), backoff=st.floats(0, 1000))
def test_backoff_slows_a_closed_loop_and_nothing_else(
    users: int, think: float, timeout: float, retries: int, backoff: float
) -> None:
    rate = theory.closed_storm_per_s(users, think, timeout, retries, backoff)
    assert rate <= users / timeout
    assert rate <= theory.closed_storm_per_s(users, think, timeout, retries)
    # Little's law for the users of one round: thinking, in an attempt, backing off.
    assert rate / (retries + 1) * (think + backoff) + rate * timeout == pytest.approx(users)


@given(room=st.integers(0, 400), capacity=st.floats(0.5, 100), timeout=st.floats(0.1, 100))
def test_a_full_queue_is_in_time_if_it_drains_in_time(room: int, capacity: float, timeout: float) -> None:
    chance = theory.full_queue_in_time(room, capacity, timeout)
    assert chance == pytest.approx(stats.poisson.sf(room - 1, capacity * timeout))
    margin = theory.full_queue_wait_s(room, capacity) / timeout
    assume(room >= 100 and not 0.7 < margin < 1.4)
    assert chance == pytest.approx(float(margin < 1), abs=0.01)


def test_bounded_queues_known_numbers() -> None:
    """10 requests/s and a time-out of 5 s: 20 places drain in 2 s, 200 in 20 s."""
    assert [theory.full_queue_wait_s(room, 10) for room in (20, 200)] == [2, 20]
    assert theory.full_queue_in_time(20, 10, 5) > 0.999
    assert theory.full_queue_in_time(200, 10, 5) < 1e-9


def test_throttled_clients_settle_where_the_formula_says() -> None:
    """The client of the SRE book, 50 requests/s, before a backend that accepts 5/s; counts fade over two minutes."""
    rng, fade = np.random.default_rng(0), math.exp(-1 / (50 * 120))
    requests = accepts = tokens = sent = 0.0
    for k in range(90_000):
        requests, accepts, tokens = requests * fade + 1, accepts * fade, min(20.0, tokens + 5 / 50)
        if rng.random() < max(0.0, (requests - 2 * accepts) / (requests + 1)):
            continue
        sent += k >= 30_000
        if tokens >= 1:
            accepts, tokens = accepts + 1, tokens - 1
    assert sent / (60_000 / 50) == pytest.approx(theory.throttled_per_s(50, 5), rel=0.03)
    assert theory.throttled_per_s(3, 5) == 3


@given(delay=st.floats(0, 20), service=TIMES)
def test_extra_work_of_second_copies(delay: float, service: float) -> None:
    late = delay * service
    cancelled, served = (theory.hedge_extra_load(late, service, cancel) for cancel in (True, False))
    assert cancelled == pytest.approx(stats.expon.sf(delay))
    assert served == pytest.approx(cancelled + delay * math.exp(-delay))  # E[S; S > d] = E[(S-d)+] + d P(S > d)
    assert theory.hedge_extra_load(0, service, False) == theory.hedge_extra_load(0, service, True) == 1


# Capacity lost


def test_cold_start_known_numbers() -> None:
    """Load times 1.5 at ten replicas of 10/s, ready after 300 s: B = 6000; three more drain it in 600 s, ten in 75."""
    few, many = (theory.cold_start(120, 10, 10, after, 300) for after in (13, 20))
    assert (few.backlog, few.drain_s, few.normal_s) == (6000, 600, 900)
    assert (many.backlog, many.drain_s, many.peak_wait_s) == (6000, 75, 60)
    assert theory.cold_start(120, 10, 10, 12, 300).drain_s == math.inf
    assert theory.cold_start(90, 10, 10, 12, 300).normal_s == 0


@given(rate=st.floats(101, 300), after=st.integers(11, 80), ready=st.floats(1, 1000))
def test_new_replicas_cannot_work_off_old_queues(rate: float, after: int, ready: float) -> None:
    """The drain lasts as long as the last wait at least, and never ends if capacity stays below the load."""
    start = theory.cold_start(rate, 10, 10, after, ready)
    assert start.drain_s >= start.peak_wait_s
    assert math.isinf(start.drain_s) == (after * 10 <= rate)
    if rate >= (after - 10) * 10 and after * 10 > rate:
        assert start.drain_s == pytest.approx(start.backlog / (after * 10 - rate))


def test_cascade_known_numbers() -> None:
    assert [theory.safe_load(n) for n in (4, 8)] == [0.75, 0.875]
    assert theory.domino(0.7, 4) == [pytest.approx(0.7 * 4 / 3)]
    assert theory.domino(0.8, 4) == pytest.approx([0.8 * 4 / 3, 1.6, 3.2])


@given(load=st.floats(0.01, 1.5), replicas=st.integers(2, 50), limit=st.floats(0.3, 1), lost=st.integers(1, 10))
def test_a_fleet_loses_no_more_or_everything(load: float, replicas: int, limit: float, lost: int) -> None:
    assume(lost < replicas)
    loads = theory.domino(load, replicas, limit, lost)
    assert loads == sorted(loads)
    if load <= theory.safe_load(replicas, limit, lost):
        assert len(loads) == 1
    else:
        assert len(loads) == replicas - lost
        assert loads[-1] > limit


@given(hit=CHANCES, share=CHANCES, load=st.floats(0.01, 2))
def test_cold_caches_are_safe_up_to_the_work_that_they_save(hit: float, share: float, load: float) -> None:
    work = theory.cached_work(hit, share)
    assert (theory.cold_load(load, hit, share) <= 1) == (work > 0 and load / work <= 1)
    assert theory.cached_work(0, share) == theory.cached_work(hit, 0) == 1


def test_cache_loss_known_numbers() -> None:
    assert theory.cached_work(0.8, 0.7) == pytest.approx(0.44)
    assert theory.cold_load(0.44, 0.8, 0.7) == pytest.approx(1)
    assert theory.cold_load(0.1, 1, 1) == math.inf


def test_refilling_a_cache_against_fluid_in_small_steps() -> None:
    """Cold 100/s, warm 100 / 0.44: 1000 prefixes at 180/s."""
    expected = theory.cache_refill(180, 100, 0.8, 0.7, 1000)
    now, served, worst = 0.0, 0.0, (0.0, 0.0)
    while not now or 180 * now > served:
        served += 0.001 * 100 / (0.44 + 0.56 * math.exp(-served / 1000))
        now += 0.001
        worst = max(worst, (180 * now - served, now))
    assert (expected.backlog, expected.worst_s, expected.normal_s) == pytest.approx((*worst, now), rel=1e-3)


@given(rate=st.floats(1, 300), hit=CHANCES, share=CHANCES, contents=st.integers(1, 10_000))
def test_a_cache_refills_if_the_load_is_below_warm_capacity(
    rate: float, hit: float, share: float, contents: int
) -> None:
    refill = theory.cache_refill(rate, 100, hit, share, contents)
    warm = theory.cached_work(hit, share)
    assert (refill.backlog == 0) >= (rate <= 100)
    assert math.isinf(refill.normal_s) == (rate > 100 and rate * warm >= 100)
    assert refill.normal_s >= refill.worst_s


def test_straggler_known_numbers() -> None:
    """One of 50, three times slower, at load 0.6: 2% of requests; P99 of 45 minutes is the middle of its ramp."""
    slow = theory.straggler(30, 1, 50, 3)
    assert (slow.share, slow.broken_quantile) == (0.02, 0.98)
    assert slow.queue_growth_per_s == pytest.approx(0.6 - 1 / 3)
    assert slow.wait_growth == pytest.approx(0.8)
    assert slow.wait_quantile_s(0.99, 2700) == pytest.approx(1080)
    assert slow.wait_quantile_s(0.95, 2700) == 0
    assert theory.straggler(30, 1, 50, 1.5).broken_quantile == 1


@given(load=st.floats(0.1, 0.99), replicas=st.integers(2, 200), slower=st.floats(1, 20), q=st.floats(0, 1))
def test_the_straggler_breaks_one_percentile(load: float, replicas: int, slower: float, q: float) -> None:
    slow = theory.straggler(load * replicas, 1, replicas, slower)
    assert (slow.wait_growth > 0) == (slow.queue_growth_per_s > 0)
    assert slow.wait_growth == pytest.approx(max(0, load * slower - 1), abs=1e-9)
    assert (slow.wait_quantile_s(q, 100) > 0) <= (q > slow.broken_quantile)


def test_herd_known_numbers() -> None:
    assert theory.herd_drain_s(300, 70, 100) == 10
    assert theory.herd_drain_s(300, 100, 100) == math.inf
    assert [theory.herd_wait_quantile_s(q, 300, 100) for q in (0, 0.5, 1)] == [0, 1.5, 3]


def test_nonsense_is_refused() -> None:
    for call in (
        lambda: theory.attempts_per_request(1.1, 2),
        lambda: theory.storm_load(-1, 2),
        lambda: theory.storm_recovery_s(-1, 1, 1, 1),
        lambda: theory.closed_storm_per_s(10, -1, 1, 1),
        lambda: theory.hedge_extra_load(-1, 1, True),
        lambda: theory.herd_drain_s(0, 1, 1),
        lambda: theory.cold_start(0, 1, 1, 2, 1),
        lambda: theory.safe_load(4, 1, 4),
        lambda: theory.cached_work(1.2, 0.5),
        lambda: theory.cache_refill(1, 1, 0.5, 0.5, 0),
        lambda: theory.straggler(1, 1, 0, 2),
    ):
        with pytest.raises(ValueError):
            call()
