"""Faults and control with a real fleet: what users see of them, and that nothing is ever lost."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.commands import ready
from sim.errors import RunError, ScenarioError
from sim.records import Outcome
from sim.scenario import Scenario, loads
from sim.world import World, simulate

TEXT = """\
name: trouble
duration: 4m
drain: 3m
fleet:
  router: round_robin
  kv_blocks: 400
  max_num_seqs: 8
  replicas: 4
  zones: 2
  step_time: {linear: {base: 10ms, per_sequence: 1ms}}
workload:
  rate_per_s: 8
  cohorts:
    short: {share: 50%, prompt_tokens: 20, output_tokens: {exponential: {mean: 20}}}
    long: {share: 50%, prompt_tokens: 100, output_tokens: 60, priority: 2}
clients: {timeout: 20s}
"""


def trouble(*options: str) -> Scenario:
    return loads(TEXT, overrides=options)


def rows_of(*options: str, seed: int = 1) -> np.ndarray:
    return np.sort(simulate(trouble(*options), seed).attempts, order=["request", "attempt"])


def between(rows: np.ndarray, begin_s: float, end_s: float) -> np.ndarray:
    return rows[(rows["sent_s"] > begin_s) & (rows["sent_s"] < end_s)]


FAULTS = [
    "{slow: main/3, from: 1m, to: 2m, factor: 4}",
    "{stop: main/zone-1, from: 50s, to: 80s}",
    "{stop: main/0-1, from: 30s, to: 70s, how: hang}",
    "{lose: main/2, from: 1m, share: 70%}",
    "{lose: main, from: 1m, to: 3m, share: 10%, what: streams}",
    "{lose: main/0, from: 1m, to: 3m, share: 60%, what: kv}",
    "{refuse: main/0, from: 1m, to: 3m, share: 30%, status: 500}",
    "{refuse: main, from: 100s, to: 2m, above_per_s: 3, burst: 4}",
    "{delay: main, from: 1m, to: 2m, by: 3s}",
    "{surge: short, from: 90s, to: 2m, factor: 3}",
    "{shift: long, from: 1m, to: 2m, prompt_factor: 3, output_factor: 0.5}",
    "{random: {stop: main, mtbf: 1m, mttr: 10s}}",
    "{random: {lose: main, mtbf: 30s, mttr: 5s, share: 50%}}",
    "{periodic: {stop: main/0, how: hang, every: 20s, lasting: 3s}}",
]
CONTROL = [
    "{health: main, interval: 5s, timeout: 2s, shares_queue: true, restart: 20s}",
    "{health: main, interval: 5s, timeout: 1s, action: eject}",
    "{autoscale: main, target: 1, max: 6, cold_start: 20s, down_window: 30s}",
    "{rollout: main, from: 1m, at_once: 2, drain: 1s, restart: 10s}",
    "{breaker: main, errors: 20%, open_for: 10s, probe_per_s: 2}",
    "{shed: main, above: 3, below: 1}",
    "{ramp: main, from: 2m, to: 3m, start_per_s: 2, end_per_s: 10}",
]
OTHERS = [
    "clients.retries=3",
    "clients.disconnect=zombie",
    "clients.hedge={after: 1s}",
    "clients.patience={exponential: {mean: 10s}}",
    "clients.timeout=2s",
    "workload.cohorts.long.clients={deadline: 5s, retries: 1, backoff: {base: 1s}}",
    "fleet.router={power_of_d: {refresh: 2s}}",
    "fleet.router=session_sticky",
    "fleet.router=prefix_affinity",
    "fleet.admission={max_queue: 5, max_wait: 3s}",
    "fleet.prefix_caching=true",
    "workload.rate_per_s=20",
    "workload.sessions={turns: 3, think: 2s}",
    "warmup=1m",
]


@st.composite
def scenarios(draw: Any) -> Scenario:
    faults = draw(st.lists(st.sampled_from(FAULTS), max_size=5, unique=True))
    control = draw(st.lists(st.sampled_from(CONTROL), max_size=3, unique=True))
    others = draw(st.lists(st.sampled_from(OTHERS), max_size=4, unique_by=lambda text: text.partition("=")[0]))
    return trouble(f"faults=[{', '.join(faults)}]", f"control=[{', '.join(control)}]", *others)


@settings(max_examples=settings().max_examples // 2)
@given(scenario=scenarios(), seed=st.integers(0, 1000))
def test_nothing_is_lost_whatever_goes_wrong(scenario: Scenario, seed: int) -> None:
    """`run_to_end` asserts the laws of the fleet and of each row; here requests, rows and metrics must agree."""
    result = simulate(scenario, seed)
    rows, metrics = result.attempts, result.metrics
    last = rows[rows["last"] == 1]
    assert len(np.unique(last["request"])) == len(last) == metrics["requests"]
    assert set(rows["request"].tolist()) == set(last["request"].tolist())
    ends = np.bincount(last["outcome"], minlength=6)
    assert [metrics[outcome.name.lower()] for outcome in Outcome] == ends.tolist()
    assert result.histograms["minute_requests"].sum() == len(last)


def test_trouble_is_the_same_twice_and_meets_the_same_users() -> None:
    options = [f"faults=[{', '.join(fault for fault in FAULTS if 'surge' not in fault)}]", f"control=[{CONTROL[0]}]"]
    first, again, well = (simulate(trouble(*some), 3) for some in (options, options, []))
    assert first.attempts.tobytes() == again.attempts.tobytes()
    users = [np.sort(result.attempts[result.attempts["last"] == 1], order="request") for result in (first, well)]
    for name in ("request", "scheduled_s", "cohort", "level"):
        assert (users[0][name] == users[1][name]).all(), name


def test_how_often_one_looks_changes_nothing_in_trouble() -> None:
    options = [f"faults=[{', '.join(FAULTS)}]", f"control=[{CONTROL[0]}, {CONTROL[5]}]", "clients.retries=2"]
    often, rarely = (simulate(trouble(*options, f"scrape_interval={every}"), 5) for every in ("700ms", "1h"))
    walking = simulate(trouble(*options), 5, leap=False)
    assert often.attempts.tobytes() == rarely.attempts.tobytes() == walking.attempts.tobytes()


# --- what users see ---------------------------------------------------------------------------------------------------


def test_a_crash_fails_what_is_in_flight_and_others_take_over() -> None:
    rows = rows_of("faults=[{stop: main/zone-1, from: 1m, to: 2m}]", "workload.rate_per_s=20")
    lost = rows[rows["outcome"] == Outcome.FAILED]
    assert len(lost) > 0
    assert (lost["finished_s"] == 60.0).all()
    assert set(lost["replica"].tolist()) == {1, 3}
    assert set(between(rows, 60, 120)["replica"].tolist()) == {0, 2}
    assert set(between(rows, 120, 240)["replica"].tolist()) == {0, 1, 2, 3}


def test_a_hang_is_silence_until_clients_give_up() -> None:
    rows = rows_of("faults=[{stop: main/3, from: 1m, to: 2m, how: hang}]")
    late = rows[rows["outcome"] == Outcome.TIMED_OUT]
    assert set(late["replica"].tolist()) == {3}
    assert 60 <= late["finished_s"].min() < 120 + 20
    waited = between(rows[rows["replica"] == 3], 105, 120)
    assert (waited["outcome"] == Outcome.OK).all(), "who can wait is served when it goes on"
    assert (waited["finished_s"] > 120).all()


def test_a_slow_replica_is_slow_from_its_time_to_its_time() -> None:
    rows = rows_of("faults=[{slow: main/3, from: 1m, to: 2m, factor: 4}]")
    slowed = rows[rows["fault_stall_s"] > 0]
    assert set(slowed["replica"].tolist()) == {3}
    assert slowed["finished_s"].min() > 60
    assert slowed["sent_s"].max() < 120.1


def test_a_health_check_ends_a_hang() -> None:
    hang = "faults=[{stop: main/3, from: 1m, how: hang}]"
    checked = rows_of(hang, "control=[{health: main, restart: 20s}]")
    assert (rows_of(hang)["outcome"] == Outcome.TIMED_OUT).sum() > 5 * (checked["outcome"] == Outcome.TIMED_OUT).sum()
    assert (between(checked, 105, 240)["outcome"] == Outcome.OK).all()


def test_a_queue_that_fails_probes_kills_a_fleet() -> None:
    """The spiral: what is overloaded is restarted, and the rest is overloaded more."""
    spiral = "control=[{health: main, interval: 5s, timeout: 1s, shares_queue: true, restart: 1m}]"
    beside = spiral.replace("true", "false")
    busy = "workload.rate_per_s=80"
    killed, left_alone = (simulate(trouble(busy, one), 1).metrics["ok"] for one in (spiral, beside))
    assert killed < 0.9 * left_alone


def test_an_autoscaler_brings_what_is_missing() -> None:
    busy = ["workload.rate_per_s=70", "duration=8m", "clients.timeout=none", "drain=1h"]
    scale = "control=[{autoscale: main, target: 8, max: 12, cold_start: 30s}]"
    alone, scaled = (simulate(trouble(*busy, *some), 1) for some in ([], [scale]))
    assert scaled.metrics["ttft_p50"] < 0.5 * alone.metrics["ttft_p50"]
    assert 4 < len(np.unique(scaled.attempts["replica"])) <= 12
    assert len(np.unique(alone.attempts["replica"])) == 4


def test_a_rollout_with_time_to_drain_fails_nobody() -> None:
    rollout = "control=[{rollout: main, from: 1m, drain: 1m, restart: 10s}]"
    rows = rows_of(rollout)
    assert (rows["outcome"] == Outcome.OK).all()
    hasty = rows_of(rollout.replace("drain: 1m", "drain: 0"), "workload.rate_per_s=20")
    assert (hasty["outcome"] == Outcome.FAILED).any()


def test_a_ramp_lets_through_what_it_says() -> None:
    rows = rows_of("control=[{ramp: main, from: 1m, to: 3m, start_per_s: 1, end_per_s: 21}]", "workload.rate_per_s=30")
    passed = between(rows, 60, 180)
    passed = passed[passed["outcome"] != Outcome.REJECTED]
    assert len(passed) == pytest.approx(11 * 120, rel=0.1)
    first = passed[passed["sent_s"] < 80]
    assert len(first) == pytest.approx(20 * (1 + 1 / 3 * 10 / 2), rel=0.15)
    assert (between(rows, 180, 240)["status"] != 429).all()


def test_a_breaker_opens_when_a_pool_only_fails_and_closes_when_it_is_well() -> None:
    world = World(trouble("faults=[{refuse: main, from: 1m, to: 2m}]", f"control=[{CONTROL[4]}]"), 1)
    world.run_to_end()
    at = [(event["t_s"], event["event"]) for event in world.events if event["event"].startswith("breaker")]
    assert at[0][1] == "breaker_opens"
    assert 60 < at[0][0] < 75
    assert at[-1][1] == "breaker_closes"
    assert 120 < at[-1][0] < 150
    rows = world.result().attempts
    passed = between(rows, at[0][0] + 1, 120)
    assert (passed["status"] != 429).sum() == pytest.approx(2 * (119 - at[0][0]), abs=3)


# --- what is written down ---------------------------------------------------------------------------------------------

OWN = """
def flicker(world):
    while True:
        yield world.timeout(60)
        slow = world.effects.begin("slow", 0, 3.0)
        world.note_event("flickers", target="main/0")
        yield world.timeout(10)
        world.effects.end(slow)
def breaks(world):
    yield world.timeout(70)
    raise KeyError("no")
"""


def test_events_are_written_down(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    scenario = loads(
        TEXT + "faults: [{slow: main/1, from: 1m, to: 2m, factor: 2, name: hot}]\ncontrol: [{python: own:flicker}]\n",
        folder=tmp_path,
    )
    simulate(scenario, 1, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    hot = {"mechanism": "slow", "name": "hot", "target": "main/1"}
    assert lines[0] == {"t_s": 60.0, "event": "fault_begins", **hot}
    assert {"t_s": 120.0, "event": "fault_ends", **hot} in lines
    assert [line["t_s"] for line in lines if line["event"] == "flickers"][:3] == [60.0, 130.0, 200.0]


def test_a_process_that_fails_ends_the_run_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    scenario = loads(TEXT + "control: [{python: own:breaks}]\n", folder=tmp_path)
    with pytest.raises(RunError, match=r"own.py:breaks: failed at t = 70 s: KeyError: 'no'"):
        simulate(scenario, 1)


def test_a_surge_that_cannot_be_is_told_with_its_line(tmp_path: Path) -> None:
    circle = TEXT.replace("  rate_per_s: 8", "  arrivals: {closed: {users: 3, think: 1s}}")
    text = circle + "faults:\n  - {stop: main/0}\n  - {surge: all, factor: 2}\n"
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ScenarioError) as caught:
        ready.load(str(tmp_path / "x.yaml"), [])
    said = "faults[1].surge: expected none with closed arrivals, whose users are counted"
    assert str(caught.value) == f"{tmp_path}/x.yaml:{TEXT.count(chr(10)) + 3}: {said}"


def test_a_process_that_is_none_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "x.yaml").write_text(TEXT + "control:\n  - {rollout: main}\n  - {python: own:flikcer}\n")
    with pytest.raises(ScenarioError) as caught:
        ready.load(str(tmp_path / "x.yaml"), [])
    line = TEXT.count("\n") + 3
    assert str(caught.value).startswith(
        f"{tmp_path}/x.yaml:{line}: control[1].python: expected a function 'flikcer' in "
    )
    assert str(caught.value).endswith("own.py, which has none; did you mean 'flicker'?")
