"""The shipped tails: slow replicas, long prompts, full caches, herds, priorities, second copies and short time-outs.

Quick ones play one seed of a shorter run; `blowout run NAME` judges all claims over all seeds.
"""

import pytest

from sim import scenario, summary
from sim.scenario import Scenario
from sim.world import Result, simulate
from tests.shipped import at, says_what_it_shows

NAMES = (
    *("one-bad-replica", "long-prompt-hol", "kv-metastable", "thundering-herd"),
    *("priority-starvation", "hedging", "timeout-below-service-time"),
)


def within(result: Result, one: Scenario, metric: str, first: float, last: float) -> float:
    """Return *metric* of what was asked from minute *first* to minute *last*."""
    return summary.in_window(result.histograms, metric, (60 * first, 60 * last), one.duration)[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_scenario_says_what_it_shows(name: str) -> None:
    assert says_what_it_shows(name, fewest=4).vary


def test_one_of_fifty_is_seen_by_p99_alone_and_not_by_a_router_that_compares() -> None:
    shipped = scenario.load("one-bad-replica")
    (slow,) = shipped.faults
    assert (slow.factor, shipped.fleet.pools["chat"].replicas) == (3, 50)  # type: ignore[union-attr]
    assert shipped.duration - slow.from_ >= 20 * 60  # type: ignore[union-attr]
    one = at("one-bad-replica", "round_robin", "duration=10m")
    played = simulate(one, 1)
    grew = {q: within(played, one, f"ttft_{q}", 4, 10) / within(played, one, f"ttft_{q}", 2, 4) for q in ("p50", "p99")}
    assert grew["p50"] == pytest.approx(1, abs=0.1)
    assert grew["p99"] > 100
    two = at("one-bad-replica", "power_of_d", "duration=10m")
    assert within(simulate(two, 1), two, "ttft_p99", 4, 10) < 1.2 * within(played, one, "ttft_p99", 2, 4)


def test_a_book_holds_up_those_behind_it_and_chunks_do_not_help_them() -> None:
    chunks, whole, apart = (
        simulate(at("long-prompt-hol", index, "duration=30m"), 1).metrics
        for index in ("chat, 512", "chat, 65536", "books, 512")
    )
    assert chunks["cohort.chat.ttft_p99"] > 20 * apart["cohort.chat.ttft_p99"]
    assert chunks["cohort.chat.ttft_p50"] < 1.1 * apart["cohort.chat.ttft_p50"]
    assert chunks["cohort.chat.ttft_p99"] > 1.03 * whole["cohort.chat.ttft_p99"]
    assert chunks["cohort.chat.tpot_p99"] < 0.85 * whole["cohort.chat.tpot_p99"]


@pytest.mark.parametrize(("index", "comes_back"), [("13.25, 0", False), ("13.25, 1%", True), ("12, 0", True)])
def test_a_full_cache_empties_itself_only_with_less_load_or_a_reserve(index: str, comes_back: bool) -> None:
    one = at("kv-metastable", index, "duration=20m")
    played = simulate(one, 1)
    assert within(played, one, "ttft_p99", 3, 5) < 0.2
    assert within(played, one, "ttft_p50", 6, 7) > 10
    assert (within(played, one, "ttft_p50", 17, 20) < 0.2) is comes_back


def test_old_counts_make_a_herd_and_counting_ones_own_dissolves_it() -> None:
    fresh, old, own = (
        simulate(at("thundering-herd", index, "duration=6m"), 1).metrics
        for index in ("0s, false", "5s, false", "5s, true")
    )
    assert old["ttft_p99"] > 20 * fresh["ttft_p99"]
    assert own["ttft_p99"] < 1.1 * fresh["ttft_p99"]
    assert old["ok"] == fresh["ok"]


def test_who_comes_second_gets_what_is_left() -> None:
    strict, alike = (simulate(at("priority-starvation", index, "duration=15m"), 1).metrics for index in "10")
    capacity = 30 * (1 - alike["errors"])
    left = capacity - 18 * (1 - strict["cohort.urgent.errors"])
    assert 12 * (1 - strict["cohort.batch.errors"]) == pytest.approx(left, rel=0.08)
    assert strict["cohort.urgent.ttft_p99"] < 2
    assert strict["ttft_p99"] > 300


def test_a_second_copy_helps_unless_the_loser_is_served() -> None:
    rates = "[{at: 0s, rate_per_s: 105}, {at: 3m, rate_per_s: 180}, {at: 6m, rate_per_s: 105}]"
    options = ("duration=9m", f"workload.arrivals={{piecewise: {rates}}}")
    alone, cancelled, served = (at("hedging", index, *options) for index in ("0, true", "1, true", "1, false"))
    without, with_copies, storm = (simulate(one, 1) for one in (alone, cancelled, served))
    assert within(without, alone, "ttft_p99", 0, 3) > 2 * within(with_copies, cancelled, "ttft_p99", 0, 3)
    assert within(with_copies, cancelled, "ttft_p50", 7, 9) < 0.1
    assert within(storm, served, "ttft_p50", 7, 9) > 10
    assert storm.metrics["hedges"] > 10 * with_copies.metrics["hedges"]


def test_a_time_out_below_the_service_time_hits_long_answers_however_often_they_try() -> None:
    once, thrice, patient = (
        simulate(at("timeout-below-service-time", index, "duration=20m"), 1).metrics
        for index in ("15s, 0", "15s, 2", "none, 0")
    )
    assert once["cohort.report.errors"] == pytest.approx(0.45, abs=0.07)
    assert once["cohort.chat.errors"] == 0
    assert thrice["cohort.report.errors"] > once["cohort.report.errors"]
    assert thrice["throughput_tokens_per_s"] > 1.15 * patient["throughput_tokens_per_s"]
    assert patient["errors"] == 0
