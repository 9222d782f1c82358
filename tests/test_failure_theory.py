"""Clients against theory: patience, full queues, retries and their budgets, backoff, throttling, second copies.

One seat and short steps make a server, ten seats ten of them. Clients hide their disconnects from the engine (`zombie`)
where theory serves abandoned work to the end. Whether a storm dies out is asked of 20 seeds a few points on either side
of the boundary, and all have to agree; means are bounded as in `tests.test_oracles`.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest

from sim import theory
from sim.engine.fleet import ClientPolicy, Fleet
from sim.records import Outcome
from tests.playing import Floats, mean_number, poisson, pool, requests, scripted
from tests.test_oracles import bounds
from tests.test_outage_theory import close_to

SEEDS = range(1, 21)

# One server: 20 steps a service, 100 requests/s. 500 of them are done within the time-out.
CAPACITY, TIMEOUT_S = 100.0, 5.0
SERVER = theory.Batch(base_s=0.0005, per_sequence_s=0, mean_tokens=20, seats=1)

Moments = list[tuple[float, Callable[[Fleet], object]]]


def within(values: list[float], expected: float, half_width: float, work: tuple[list[float], float]) -> None:
    """Check that the interval contains *expected*, give or take 0.5% for whole steps; say how far off it is."""
    interval = bounds(values, expected, half_width, bias=0.005, controls=work)
    off, half = interval.estimate / expected - 1, (interval.high - interval.low) / 2 / expected
    print(f"{expected:.6g}: {off:+.2%} ± {half:.2%}")


# Queues that people leave, or cannot enter


@pytest.mark.parametrize("load", [12, 9])
def test_impatient_clients_are_erlang_a(load: int) -> None:
    """Ten seats, patience exponential with a mean of two services: who waits, who leaves, how many wait."""
    batch = theory.Batch(base_s=0.0001, per_sequence_s=0, mean_tokens=4000, seats=10)
    rate, client = load / 0.4, ClientPolicy(patience_s=0.8, patience_exponential=True)
    waits, leaves, number, work = [], [], [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, rate, 1000)
        output = rng.geometric(1 / 4000, arrivals.size)
        fleet = Fleet([pool(batch)], clients=[client], seed=seed, duration_s=1000)
        rows = scripted(fleet, requests(arrivals, output), [], 1100)
        left = np.fmin(rows["admitted_s"], rows["finished_s"])
        waits.append((left - arrivals > 0.00011).mean())
        leaves.append((rows["outcome"] == Outcome.CANCELLED).mean())
        number.append(mean_number(arrivals, left, 5, 1000))
        work.append(0.0001 * output.sum() / 1000)
    expected = theory.erlang_a(rate, 0.4, 10, 0.8)
    within(waits, expected.waits, 0.02, (work, load))
    within(leaves, expected.abandons, 0.04, (work, load))
    within(number, expected.mean_waiting, 0.04, (work, load))


@pytest.mark.parametrize(("seats", "room", "load"), [(1, 10, 1.2), (4, 20, 4.4)])
def test_a_bounded_queue_is_mmck(seats: int, room: int, load: float) -> None:
    """So many places in the queue: who is turned away, how many are inside, how long those wait who get in."""
    batch = theory.Batch(base_s=0.001, per_sequence_s=0, mean_tokens=200, seats=seats)
    config = pool(batch, max_queue=(room - seats,) * 4)
    blocked, number, waits, work = [], [], [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, load / 0.2, 2000)
        output = rng.geometric(1 / 200, arrivals.size)
        rows = scripted(Fleet([config], seed=seed, duration_s=2000), requests(arrivals, output), [], 2100)
        inside = rows["outcome"] == Outcome.OK
        blocked.append((rows["outcome"] == Outcome.REJECTED).mean())
        number.append(mean_number(arrivals[inside], rows["finished_s"][inside], 20, 2000))
        waits.append((rows["admitted_s"] - arrivals)[inside].mean())
        work.append(0.001 * output.sum() / 2000)
    expected = theory.mmck(load / 0.2, 0.2, seats, room)
    within(blocked, expected.blocked, 0.03, (work, load))
    within(number, expected.mean_number, 0.03, (work, load))
    within(waits, expected.wait_s, 0.03, (work, load))


# Attempts


@pytest.mark.parametrize(("failing", "retries", "budget"), [(0.3, 2, math.inf), (0.8, 4, math.inf), (1.0, 3, 0.1)])
def test_attempts_per_request(failing: float, retries: int, budget: float) -> None:
    """A share of attempts refused: a truncated geometric number of them, or what the budget allows."""
    client = ClientPolicy(retries=retries, backoff_s=0.1, budget=budget, budget_burst=2.0)
    found = []
    for seed in SEEDS:
        arrivals = poisson(np.random.default_rng(seed), 20, 200)
        fleet = Fleet([pool(SERVER)], clients=[client], seed=seed, duration_s=200)
        fleet.refuse(0, failing)
        rows = scripted(fleet, requests(arrivals, np.full(arrivals.size, 20)), [], 300)
        found.append(len(rows) / arrivals.size)
    expected = theory.attempts_per_request(failing, retries)
    close_to(found, min(expected, 1 + budget), 0.02)


def storm(seed: int, load: float, until_s: float, outage_s: float = 20.0, **client: object) -> tuple[Floats, Floats]:
    """Nothing is served from 20 s on for *outage_s*: return when each request was asked, and when it was answered.

    ``nan``: never in time. Extra settings of the pool: *max_queue*.
    """
    rng = np.random.default_rng(seed)
    arrivals = poisson(rng, load * CAPACITY, until_s)
    config = pool(SERVER, **{k: client.pop(k) for k in ("max_queue",) if k in client})
    policy = ClientPolicy(**{"timeout_s": TIMEOUT_S, "zombie": True, **client})  # type: ignore[arg-type]
    fleet = Fleet([config], clients=[policy], seed=seed, duration_s=until_s)
    moments: Moments = [(20.0, lambda fleet: fleet.hang(0)), (20.0 + outage_s, lambda fleet: fleet.resume(0))]
    rows = scripted(fleet, requests(arrivals, rng.geometric(1 / 20, arrivals.size)), moments, until_s)
    rows = rows[rows["last"] == 1]
    return arrivals, np.where(rows["outcome"] == Outcome.OK, rows["finished_s"], math.nan)


def healed(arrivals: Floats, answered_s: Floats) -> float:
    """The share of requests of the last minute (except the last 20 s) that are answered."""
    late = (arrivals > arrivals[-1] - 80) & (arrivals < arrivals[-1] - 20)
    return float((~np.isnan(answered_s))[late].mean())


@pytest.mark.parametrize(("retries", "budget", "outage_s"), [(1, math.inf, 12), (3, math.inf, 20), (3, 0.1, 12)])
@pytest.mark.parametrize("worst", [0.95, 1.05])
def test_a_storm_dies_out_if_its_worst_load_is_below_one(
    retries: int, budget: float, outage_s: float, worst: float
) -> None:
    """load (1 + min(retries, budget)) = 0.95: every run recovers. 1.05: none does, though load itself is below 1."""
    load, until_s = worst / theory.storm_load(1, retries, budget), 400 if worst < 1 else 200
    shares = [healed(*storm(seed, load, until_s, outage_s, retries=retries, budget=budget)) for seed in SEEDS]
    print(f"{worst}: {min(shares):.3f} to {max(shares):.3f}")
    assert min(shares) > 0.99 if worst < 1 else max(shares) < 0.01


def test_how_long_a_storm_lasts() -> None:
    """Three retries at a load of 0.2, nothing served for a minute: the backlog over what is left of capacity."""
    backlog = theory.storm_backlog(20, 3, TIMEOUT_S, 60)
    expected = theory.storm_recovery_s(backlog, 80, CAPACITY, TIMEOUT_S)
    found, work = [], []
    for seed in SEEDS:
        arrivals, answered = storm(seed, 0.2, 400, outage_s=60, retries=3)
        back = answered[(answered > 80) & (arrivals > 20)].min()
        found.append(back - TIMEOUT_S - 80)  # the first in time was sent one time-out before its answer
        work.append(float(((arrivals > 20) & (arrivals < 80 + expected)).sum()))
    close_to(found, expected, 0.07, work=(work, 20 * (60 + expected)))


def bounded(margin: float, backoff_s: float) -> list[float]:
    """The shares answered late in each run, at load 0.7 with three retries and 10 s of patience.

    *margin*: places in the queue over what is served in that time.
    """
    places = round(margin * CAPACITY * 10)
    client = {"timeout_s": 10.0, "retries": 3, "backoff_s": backoff_s, "max_queue": (places,) * 4}
    shares = [healed(*storm(seed, 0.7, 180, outage_s=30, **client)) for seed in SEEDS]
    print(f"{margin} with {backoff_s} s of backoff: {sum(share > 0.99 for share in shares)} of {len(shares)} heal")
    return shares


@pytest.mark.parametrize(("margin", "recovers"), [(0.9, True), (1.1, False)])
def test_a_bounded_queue_recovers_if_it_drains_within_the_timeout(margin: float, recovers: bool) -> None:
    assert (theory.full_queue_wait_s(round(margin * CAPACITY * 10), CAPACITY) < 10) == recovers
    shares = bounded(margin, backoff_s=1.0)
    assert min(shares) > 0.99 if recovers else max(shares) < 0.01


def test_retries_that_do_not_wait_burn_out_at_a_full_queue() -> None:
    """Too many places by 10%, but four refusals in a moment end a request, and pressure falls to the arrival rate."""
    assert np.median(bounded(1.1, backoff_s=0.0)) > 0.99


@pytest.mark.parametrize("jitter", ["full", "equal"])
def test_backoff_alone_does_not_heal_an_open_loop(jitter: str) -> None:
    """Load 0.35, three retries, waits of 1, 2 and 4 s between them: 1.4 times capacity, only later."""
    shares = [healed(*storm(s, 0.35, 150, outage_s=30, retries=3, backoff_s=1.0, jitter=jitter)) for s in SEEDS]
    assert theory.storm_load(0.35, 3) > 1
    assert max(shares) < 0.01


def circle(rng: np.random.Generator, users: int, think_s: float, turns: int) -> np.ndarray:
    """What *users* ask who think, ask, wait for the end, and think again: *turns* times."""
    asks = requests(rng.exponential(think_s, users * turns), rng.geometric(1 / 200, users * turns))
    user, turn = np.arange(asks.size) % users, np.arange(asks.size) // users
    asks["scheduled_s"][:users] = np.sort(asks["scheduled_s"][:users])
    asks["session"], asks["turn"] = user, turn
    asks["follow_up"] = np.where(turn < turns - 1, np.arange(asks.size) + users, -1)
    return asks


@pytest.mark.parametrize(("users", "backoff_s"), [(100, 0.0), (100, 4.0), (200, 4.0)])
def test_backoff_heals_a_closed_loop_that_is_small_enough(users: int, backoff_s: float) -> None:
    """10 requests/s are served; users think for 14 s and retry three times after 5 s: 11.8 attempts/s without backoff.

    With 4, 8 and 16 s of it (full jitter) 8.3/s of 100 users, which dies out, and 16.7/s of 200, which does not.
    """
    slow = theory.Batch(base_s=0.0005, per_sequence_s=0, mean_tokens=200, seats=1)
    client = ClientPolicy(timeout_s=5.0, zombie=True, retries=3, backoff_s=backoff_s, jitter="full")
    moments: Moments = [(100.0, lambda fleet: fleet.hang(0)), (160.0, lambda fleet: fleet.resume(0))]
    total = theory.backoff_total_s(backoff_s, 2, math.inf, 3, "full")
    recovers = theory.closed_storm_per_s(users, 14, 5, 3, total) < 10
    shares = []
    for seed in SEEDS:
        fleet = Fleet([pool(slow)], clients=[client], seed=seed, duration_s=900)
        rows = scripted(fleet, circle(np.random.default_rng(seed), users, 14.0, 100), moments, 900)
        rows = rows[(rows["last"] == 1) & (rows["scheduled_s"] > 700) & (rows["scheduled_s"] < 850)]
        shares.append((rows["outcome"] == Outcome.OK).mean())
    print(f"{users} users, {total} s of backoff: {min(shares):.3f} to {max(shares):.3f}")
    assert recovers == (users == 100 and backoff_s > 0)
    assert min(shares) > 0.95 if recovers else max(shares) < 0.05


# Throttles and second copies


def test_throttled_clients_send_twice_what_is_accepted() -> None:
    """100 requests/s before a limit of 10/s: clients settle at tolerance x 10, and refuse the rest themselves."""
    config, sent = pool(SERVER, limit_per_s=10.0, limit_burst=20.0), []
    for seed in SEEDS:
        arrivals = poisson(np.random.default_rng(seed), 100, 400)
        fleet = Fleet([config], clients=[ClientPolicy(throttle=2.0)], seed=seed, duration_s=400)
        rows = scripted(fleet, requests(arrivals, np.full(arrivals.size, 20)), [], 401)
        sent.append(((rows["status"] != 0) & (rows["sent_s"] > 200)).sum() / 200)
    close_to(sent, theory.throttled_per_s(100, 10, 2.0))


@pytest.mark.parametrize("cancel", [True, False])
def test_extra_work_of_second_copies(cancel: bool) -> None:
    """Prompts computed token by token on replicas that are nearly idle; a copy after 1.5 mean services."""
    client = ClientPolicy(hedge_s=0.03, hedge_cancel=cancel)
    config = pool(SERVER, replicas=64, max_tokens=1)
    shares, extra = [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrivals = poisson(rng, 100, 60)
        prompt = rng.geometric(1 / 40, arrivals.size)
        fleet = Fleet([config], clients=[client], seed=seed, duration_s=60)
        worked: list[int] = []
        moments: Moments = [
            (70.0, lambda fleet, worked=worked: worked.append(int(fleet.look()["prompt_tokens"].sum())))
        ]
        rows = scripted(fleet, requests(arrivals, np.ones(arrivals.size, int), prompt), moments, 71)
        shares.append(float(rows["hedge"].sum()) / arrivals.size)
        extra.append(worked[0] / prompt.sum() - 1)
    close_to(shares, theory.hedge_extra_load(0.03, 0.02, cancel=True))
    close_to(extra, theory.hedge_extra_load(0.03, 0.02, cancel))
