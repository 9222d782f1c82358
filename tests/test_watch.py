"""Who watches answers: correlations that are not fooled by who asks, alarms that keep quiet, signals that come late."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import scenario
from sim.quality.alarm import QUIET_S, Alarms, metric_names
from sim.quality.correlation import Coupling, Moments, cross_correlation
from sim.quality.signals import Signal, Signals
from sim.quality.signals import given as given_by
from sim.records import ATTEMPT, Outcome
from sim.series import NAME
from sim.workload.draws import Luck
from sim.world import World

NAMES = ("agent-compounding", "load-coupled-quality", "misrouting", "silent-cohort")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 7))
def test_moments_are_what_numpy_says_however_they_were_added(seed: int, strata: int, chunks: int) -> None:
    generator = np.random.default_rng(seed)
    stratum = generator.integers(0, strata, 300)
    x = generator.normal(size=300) + stratum
    y = 0.5 * x + generator.normal(size=300)
    moments = Moments(strata)
    for part in np.array_split(np.arange(300), chunks):
        moments.add(x[part], y[part], stratum[part])
    assert moments.correlation() == pytest.approx(np.corrcoef(x, y)[0, 1])
    means = [np.array([v[stratum == k].mean() if (stratum == k).any() else 0.0 for k in range(strata)]) for v in (x, y)]
    left = x - means[0][stratum], y - means[1][stratum]
    assert moments.partial() == pytest.approx(np.corrcoef(*left)[0, 1])


def test_a_confounder_is_all_correlation_and_no_partial_one() -> None:
    generator = np.random.default_rng(1)
    cohort = generator.integers(0, 2, 100_000)
    moments = Moments(2)
    moments.add(generator.normal(size=100_000) + 2 * cohort, generator.random(100_000) < 0.01 + 0.1 * cohort, cohort)
    assert moments.correlation() > 0.1
    assert abs(moments.partial()) < 0.015
    assert math.isnan(Moments(2).correlation())


def test_what_leads_is_seen_in_the_cross_correlation() -> None:
    x = np.random.default_rng(2).normal(size=500)
    found = cross_correlation(x, np.roll(x, 3), 10)
    assert np.argmax(found) == 10 + 3
    assert found[13] > 0.95
    with pytest.raises(ValueError, match="above 12"):
        cross_correlation(x[:12], x[:12], 10)


def verdicts(rate: float, hours: int, per_hour: int, seed: int) -> np.ndarray:
    """Return what an evaluation knows after each hour (hours, 1, 2)."""
    bad = np.random.default_rng(seed).binomial(per_hour, rate, hours)
    return np.stack([np.arange(1, hours + 1) * per_hour, np.cumsum(bad)], axis=-1)[:, None]


def rings(rate: float, hours: int, per_hour: int, seed: int) -> float:
    alarms = Alarms([0.05], [per_hour / 3600.0])
    for hour, seen in enumerate(verdicts(rate, hours, per_hour, seed), start=1):
        alarms.hear(3600.0 * hour, seen)
    found = alarms.metrics(["few"])
    assert found["cohort.few.alarmed"] == (not math.isnan(found["cohort.few.alarm_s"]))
    return found["cohort.few.alarm_s"] / 3600.0


def test_an_alarm_keeps_quiet_for_a_month_and_sees_a_disaster_in_hours() -> None:
    months = [rings(0.05, int(QUIET_S / 3600), 20, seed) for seed in range(60)]
    assert np.mean(np.isfinite(months)) <= 0.5  # two watch, one false alarm a month between them
    assert max(rings(0.4, 48, 20, seed) for seed in range(60)) <= 6.0
    assert np.median([rings(0.4, 48, 5, seed) for seed in range(60)]) == pytest.approx(7, abs=2)


def test_alarms_hear_what_is_new_whenever_they_listen() -> None:
    often, seldom = Alarms([0.1], [1.0]), Alarms([0.1], [1.0])
    for seen in (known := verdicts(1.0, 10, 5, 1)):
        often.hear(1.0, seen)
        often.hear(1.0, seen)
    seldom.hear(1.0, known[-1])
    assert often.metrics(["a"]) == seldom.metrics(["a"]) == dict.fromkeys(metric_names(["a"]), 1.0)


def ended(n: int, **columns: Any) -> np.ndarray:
    rows = np.zeros(n, ATTEMPT)
    rows["request"], rows["session"] = np.arange(n), np.arange(n) // 4
    rows["finished_s"] = 100.0
    for name, value in columns.items():
        rows[name] = value
    return rows


def test_signals_come_from_wrong_answers_mostly_and_late() -> None:
    edit = Signal("edit", 0.2, 0.01, 3600.0, 1.0)
    rows, wrong = ended(100_000), (np.arange(100_000) % 10 == 0).astype(np.uint8)
    due_s = given_by(edit, Luck(1), rows, wrong)
    assert len(due_s) == pytest.approx(2000 + 900, rel=0.06)
    assert np.median(due_s - 100.0) == pytest.approx(3600, rel=0.08)
    assert np.log((due_s - 100.0) / 3600).std() == pytest.approx(1.0, rel=0.05)
    assert not len(given_by(edit, Luck(1), ended(1000, outcome=Outcome.FAILED), np.ones(1000)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=8), st.integers(1, 5))
def test_what_has_arrived_does_not_depend_on_when_one_looked(looks: list[float], chunks: int) -> None:
    edit = Signal("edit", 0.5, 0.1, 3600.0, 1.5)
    rows, wrong = ended(500), np.random.default_rng(3).integers(0, 2, 500)
    counted = Signals([edit], 1)
    for part in np.array_split(np.arange(500), chunks):
        counted.take(rows[part], wrong[part])
    for at_s in sorted(looks):
        counted.arrived(at_s)
    due_s = given_by(edit, Luck(1), rows, wrong)
    assert counted.arrived(2e5)[0] == (due_s <= 2e5).sum()


def test_sessions_and_pools_are_counted_once() -> None:
    counted = Coupling(np.array([0]), 2)
    pool, wrong = np.array([0, 0, 1, 1, 0, 0, 0, 0]), np.array([0, 0, 1, 0, 0, 1, 1, 0])
    rows = ended(8, pool=pool, first_token_s=1.0)
    for part in (slice(0, 3), slice(3, 8)):
        counted.take(rows[part], wrong[part])
    found = counted.metrics(["chat", "other"])
    assert (found["sessions_misrouted"], found["sessions_wrong"]) == (0.5, 1.0)
    assert (found["pool.chat.wrong_share"], found["pool.other.wrong_share"]) == (pytest.approx(2 / 6), 0.5)


def test_signals_are_a_series_and_a_metric() -> None:
    played = scenario.load("misrouting", ["claims={}", "vary={}", "duration=4m", "workload.rate_per_s=1",
                           "faults=[]", "quality.signals={edit: {if_wrong: 100%, lag: 30s}}"])  # fmt: skip
    world = World(played, 1)
    world.run_to_end()
    found = world.result().metrics
    assert 0 < found["signal.edit.count"] <= found["wrong"]
    ((labels, _, values),) = [one for one in world.spool.series() if one[0][NAME] == "llm_signals_total"]
    assert labels["signal"] == "edit"
    assert "pool" not in labels
    assert values[0] == 0
    assert 0 < values[-1] <= found["signal.edit.count"]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_scenario_says_what_it_shows(name: str) -> None:
    shipped = scenario.load(name)
    assert shipped.name == name
    assert len(shipped.story) > 300
    assert shipped.seeds >= 10
    assert len(shipped.claims) >= 5


def test_the_silent_cohort_is_the_sum_it_says() -> None:
    shipped = scenario.load("silent-cohort")
    most, few = shipped.workload.cohorts.values()
    assert shipped.quality is not None
    both = 1 - (1 - few.error) * (1 - shipped.quality.causes["new_tokenizer"].error)
    assert both == pytest.approx(0.4, abs=1e-4)
    assert most.share * most.error + few.share * few.error == pytest.approx(0.0089, abs=1e-6)
    assert most.share * most.error + few.share * both == pytest.approx(0.01065, abs=1e-5)
