"""Who watches answers: correlations that are not fooled by who asks, alarms that keep quiet, signals that come late."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import scenario
from sim.draws import Luck
from sim.quality.alarm import QUIET_S, SAID, Alarms, metric_names
from sim.quality.correlation import Coupling, Moments
from sim.quality.signals import Signal, Signals
from sim.quality.signals import given as given_by
from sim.records import ATTEMPT, Outcome
from sim.series import NAME
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


@pytest.mark.parametrize("n", [1000, 1_000_000])
def test_what_does_not_vary_goes_with_nothing(n: int) -> None:
    moments = Moments(1)
    x = np.log(np.full(n, 0.123)) + 1e-13 * np.arange(n) % 3
    moments.add(x, (np.arange(n) % 10 == 0).astype(float), np.zeros(n, int))
    assert math.isnan(moments.correlation())
    assert math.isnan(moments.partial())


def said(due_s: np.ndarray, flagged: np.ndarray, cohort: int = 0) -> np.ndarray:
    """Return what an evaluation says of answers of one cohort."""
    found = np.zeros(len(due_s), SAID)
    found["due_s"], found["flagged"], found["cohort"], found["name"] = due_s, flagged, cohort, np.arange(len(due_s))
    return found


def rings(rate: float, hours: int, per_hour: int, seed: int) -> float:
    alarms = Alarms([0.05], [per_hour / 3600.0])
    n = per_hour * hours
    alarms.take(said((1 + np.arange(n)) * 3600.0 / per_hour, np.random.default_rng(seed).random(n) < rate))
    alarms.hear(math.inf)
    found = alarms.metrics(["few"])
    assert found["cohort.few.alarmed"] == (not math.isnan(found["cohort.few.alarm_s"]))
    return found["cohort.few.alarm_s"] / 3600.0


def test_an_alarm_keeps_quiet_for_a_month_and_sees_a_disaster_in_hours() -> None:
    months = [rings(0.05, int(QUIET_S / 3600), 20, seed) for seed in range(60)]
    assert np.mean(np.isfinite(months)) <= 0.5  # two watch, one false alarm a month between them
    assert max(rings(0.4, 48, 20, seed) for seed in range(60)) <= 6.0
    assert np.median([rings(0.4, 48, 5, seed) for seed in range(60)]) == pytest.approx(7, abs=2)


def chain(up: int, limit: int, rate: float) -> float:
    """Return the average run length of a CUSUM, up *up* steps with chance *rate*, else down one: (I - Q) x = 1.

    Source: Brook and Evans, Biometrika 59 (1972) 539.
    """
    moves = np.zeros((limit, limit))
    for level in range(limit):
        moves[level, max(0, level - 1)] += 1 - rate
        if level + up < limit:
            moves[level, level + up] += rate
    return float(np.linalg.solve(np.eye(limit) - moves, np.ones(limit))[0])


@pytest.mark.parametrize("up", [3, 12])
def test_run_lengths_are_those_of_the_markov_chain(up: int) -> None:
    down = math.log(2) / up  # so that a bad verdict weighs as much as *up* good ones
    usual = (1 - math.exp(-down)) / (2 - math.exp(-down))
    often, runs = 500.0, 1500
    per_s = often / 2 / QUIET_S
    limit = math.ceil(Alarms([usual], [per_s]).limit[0] / down - 1e-9)
    for rate in (usual, 2 * usual, 0.5):
        generator, lengths = np.random.default_rng([up, int(1e3 * rate)]), []
        for _ in range(runs):
            alarms, done = Alarms([usual], [per_s]), 0
            while math.isinf(alarms.first_s[0]):
                alarms.take(said(1.0 + done + np.arange(4000), generator.random(4000) < rate))
                done += 4000
                alarms.hear(done + 0.5)
            lengths.append(alarms.first_s[0])
        assert abs(np.mean(lengths) - chain(up, limit, rate)) < 3.3 * np.std(lengths) / math.sqrt(runs)
    assert chain(up, limit, usual) >= often, "no more false alarms than Lorden allows"


def test_what_is_usually_bad_is_no_alarm() -> None:
    assert Alarms([0.8], [1.0]).limit[0] > 0
    alarms = Alarms([0.8], [1.0])
    alarms.take(said(np.arange(100_000.0), np.random.default_rng(1).random(100_000) < 0.8))
    alarms.hear(math.inf)
    assert math.isinf(alarms.first_s[0])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 2000), max_size=8), st.integers(1, 5), st.integers(0, 1000))
def test_when_an_alarm_rings_does_not_depend_on_when_one_listens(looks: list[float], chunks: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    verdicts = said(generator.permutation(1000) * 2.0, generator.random(1000) < 0.3, 0)
    verdicts["cohort"] = generator.integers(0, 2, 1000)
    once, often = Alarms([0.1, 0.2], [0.25, 0.25]), Alarms([0.1, 0.2], [0.25, 0.25])
    once.take(verdicts)
    once.hear(math.inf)
    for part in np.array_split(verdicts, chunks):
        often.take(part)
    for at_s in [*sorted(looks), math.inf]:
        often.hear(at_s)
    assert often.metrics(["a", "b"]) == pytest.approx(once.metrics(["a", "b"]), nan_ok=True)
    assert set(once.metrics(["a", "b"])) == metric_names(["a", "b"])


def test_alarms_ring_at_their_time_with_telemetry_or_without() -> None:
    worse = ["claims={}", "vary={}", "duration=20m", "warmup=0s", "faults=[]", "workload.rate_per_s=5", "alerts=null",
             "quality={causes: {bad: {error: 60%, from: 5m}}, evaluation: {share: 50%}}"]  # fmt: skip
    rang = []
    for more in (["telemetry=null"], ["scrape_interval=7s"], ["scrape_interval=60s"]):
        world = World(scenario.load("misrouting", [*worse, *more]), 1)
        world.run_to_end()
        rang.append(world.result().metrics["alarm_s"])
    assert 300 < rang[0] < 420
    assert rang == [rang[0]] * 3


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
