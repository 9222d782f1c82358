"""Control processes: what they watch, when they act, and what they leave alone."""

import math
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simpy

from sim.control import custom
from sim.control.autoscaler import desired, stabilised
from sim.errors import InputError, RunError
from tests.stage import FakeStage


def controlled(*processes: str, **settings: Any) -> FakeStage:
    return FakeStage(f"control=[{', '.join(processes)}]", *settings.pop("options", ()), **settings)


def later(stage: FakeStage, at_s: float, act: Any) -> None:
    """Do *act* at a time."""

    def process() -> Generator[simpy.Event, None, None]:
        yield stage.timeout(at_s)
        act()

    stage.process(process())


# --- health checks ----------------------------------------------------------------------------------------------------

HEALTH = "{health: chat, interval: 10s, timeout: 5s, failures: 3, restart: 2m, shares_queue: true}"


def test_a_probe_behind_a_long_queue_fails_and_three_restart() -> None:
    stage = controlled(HEALTH)
    stage.fleet.gauges["oldest_wait_s"][2] = 5.1
    stage.fleet.gauges["oldest_wait_s"][3] = 5.0
    stage.run(until=600)
    assert stage.fleet.at("crash", "restore", where=2) == [(25, "crash"), (145, "restore")]
    assert stage.fleet.at("crash") == [(25,)]
    assert stage.told("target", "by") == [
        (25, "restart_begins", "chat/2", "health"), (145, "restart_ends", "chat/2", "health")
    ]  # fmt: skip


def test_failures_must_be_in_a_row() -> None:
    stage = controlled(HEALTH)
    waits = stage.fleet.gauges["oldest_wait_s"]

    def flicker() -> None:
        waits[2] = 9.0 if waits[2] == 0 else 0.0

    for at_s in range(0, 600, 20):  # two probes late, two in time
        later(stage, at_s, flicker)
    stage.run(until=600)
    assert stage.fleet.calls == []


def test_a_probe_beside_the_queue_sees_only_the_dead() -> None:
    stage = controlled(HEALTH.replace("true", "false"), options=["faults=[{stop: chat/1, how: hang, from: 1m}]"])
    stage.fleet.gauges["oldest_wait_s"][:] = 1e6
    stage.run(until=600)
    assert stage.fleet.at("hang", "resume", "crash", "restore") == [
        (60, "hang"), (85, "resume"), (85, "crash"), (205, "restore")
    ]  # fmt: skip


def test_what_is_down_or_off_is_not_restarted() -> None:
    options = ["faults=[{stop: chat/1, from: 1m, to: 5m}]", "fleet.pools.chat.max_replicas=8"]
    stage = controlled(HEALTH, options=options)
    stage.run(until=900)
    assert stage.fleet.at("crash", "restore") == [(60, "crash"), (300, "restore")]


def test_a_kill_spiral() -> None:
    """A queue that a restart does not empty for good is restarted for ever."""
    stage = controlled(HEALTH)

    def grow() -> Generator[simpy.Event, None, None]:
        while True:
            yield stage.timeout(1.0)
            gauge = stage.fleet.gauges[0]
            gauge["oldest_wait_s"] += 1.0 if gauge["up"] else 0.0

    stage.process(grow())
    stage.run(until=900)
    assert [verb for _, verb in stage.fleet.at("crash", "restore", where=0)] == ["crash", "restore"] * 5 + ["crash"]


def test_an_ejected_replica_is_taken_back_when_its_queue_is_short() -> None:
    stage = controlled(HEALTH.replace("restart: 2m", "action: eject"))
    stage.fleet.gauges["oldest_wait_s"][2] = 8.0
    later(stage, 42, lambda: stage.fleet.gauges["oldest_wait_s"].fill(0.0))
    stage.run(until=600)
    assert stage.fleet.at("drain", where=2) == [(25, True), (65, False)]
    assert stage.told("target") == [(25, "ejected", "chat/2"), (65, "taken_back", "chat/2")]


def test_what_crashes_is_ejected_until_it_answers_again() -> None:
    eject = HEALTH.replace("restart: 2m", "action: eject")
    stage = controlled(eject, options=["faults=[{stop: chat/1, from: 1m, to: 5m}]"])
    stage.run(until=600)
    assert stage.told("target")[1:] == [
        (85, "ejected", "chat/1"), (300, "fault_ends", "chat/1"), (325, "taken_back", "chat/1")
    ]  # fmt: skip
    assert stage.fleet.at("restore", "drain") == [(300, "restore"), (300, "drain", True), (325, "drain", False)]


# --- the autoscaler ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ready", "current", "wanted"),
    [
        ([200.0], 1, 2),  # the documentation's own: 200 against 100 doubles
        ([50.0] * 4, 4, 2),  # and 50 halves
        ([109.0] * 10, 10, 10),  # within the tolerance
        ([91.0] * 10, 10, 10),
        ([111.0] * 10, 10, 12),
        ([60.0] * 3, 3, 2),
        ([0.0] * 3, 3, 0),
        ([300.0, 300.0], 4, 6),  # two that start count as idle: 150 over four
        ([150.0, 150.0], 3, 3),  # ... which brings it to the target
        ([150.0], 4, 4),  # ... or below it, which is no reason for fewer
        ([50.0, 50.0], 4, 1),  # and count not at all when there should be fewer
        ([240.0, 240.0, 240.0], 3, 8),  # 2.4 * 3 is 7.2
        ([70.0] * 10, 10, 7),  # 0.7 * 10 is 7.000000000000001 to a computer
    ],
)
def test_the_formula_of_kubernetes(ready: list[float], current: int, wanted: int) -> None:
    assert desired(ready, current, 100.0, 0.1) == wanted


def test_stabilisation() -> None:
    falling = [(0.0, 10), (15.0, 8), (30.0, 6), (45.0, 4)]
    assert stabilised(falling, 10, 45.0, 0.0, 300.0) == 10
    assert stabilised(falling, 10, 45.0, 0.0, 30.0) == 6, "strictly less than the window ago"
    assert stabilised(falling, 10, 45.0, 0.0, 0.0) == 4
    rising = [(0.0, 4), (15.0, 6), (30.0, 8), (45.0, 10)]
    assert stabilised(rising, 4, 45.0, 0.0, 300.0) == 10
    assert stabilised(rising, 4, 45.0, 31.0, 300.0) == 6
    assert stabilised([(0.0, 4), (15.0, 9), (30.0, 2)], 4, 30.0, 60.0, 60.0) == 4, "flapping moves nothing"


SCALE = "{autoscale: chat, target: 20, min: 2, max: 9, cold_start: 100s, down_window: 1m}"


def test_new_replicas_take_requests_after_a_cold_start() -> None:
    stage = controlled(SCALE)
    stage.fleet.gauges["outstanding"][:6] = 26
    stage.run(until=400)
    assert stage.told("target", "before", "after", "metric")[:3] == [
        (15, "scaled", "chat", 6, 8, 26.0),
        (115, "replica_ready", "chat/6", None, None, None),
        (115, "replica_ready", "chat/7", None, None, None),
    ]
    assert stage.fleet.at("restore") == [(115,), (115,)]
    assert stage.events[3:] == [], "those that start count as idle, and then they are: 6 * 26 / 8 is 19.5"


def test_there_are_never_more_than_max_nor_fewer_than_min() -> None:
    stage = controlled(SCALE)
    stage.fleet.gauges["outstanding"][:] = 1000
    later(stage, 200, lambda: stage.fleet.gauges["outstanding"].fill(0))
    stage.run(until=900)
    assert stage.told("before", "after")[0] == (15, "scaled", 6, 9)
    scaled = [event for event in stage.told("before", "after") if event[1] == "scaled"]
    assert scaled[1:] == [(255, "scaled", 9, 2)], "a minute after the last that was high"
    assert stage.fleet.gauges["up"].tolist()[:9] == [1] * 2 + [0] * 7


def test_scaling_in_drains_and_waits() -> None:
    stage = controlled(SCALE.replace("1m", "0s").replace("min: 2", "min: 5"))
    stage.fleet.gauges["outstanding"][:6] = 1
    later(stage, 77.5, lambda: stage.fleet.gauges["outstanding"].fill(0))
    stage.run(until=400)
    assert stage.fleet.calls == [(15, "drain", 5, (True,)), (78, "crash", 5, ())]
    assert stage.told("target") == [
        (15, "scaled", "chat"), (15, "drain_begins", "chat/5"), (78, "replica_off", "chat/5")
    ]  # fmt: skip


def test_a_start_can_be_called_off() -> None:
    stage = controlled(SCALE.replace("1m", "0s"))
    outstanding = stage.fleet.gauges["outstanding"]
    outstanding[:6] = 30
    later(stage, 50, lambda: outstanding.fill(0) or outstanding[:6].fill(19))
    later(stage, 70, lambda: outstanding[:6].fill(12))
    stage.run(until=110)
    assert stage.told("before", "after")[0] == (15, "scaled", 6, 9)
    ups = np.flatnonzero(stage.fleet.gauges["up"][:9]).tolist()
    stage.run(until=400)
    assert 8 not in np.flatnonzero(stage.fleet.gauges["up"])
    assert ups == [0, 1, 2, 3, 4, 5]
    assert stage.fleet.at("restore") == []


@pytest.mark.parametrize(("metric", "gauge"), [("running", "running"), ("waiting", "waiting"), ("kv", "kv_used")])
def test_the_other_metrics(metric: str, gauge: str) -> None:
    stage = controlled(f"{{autoscale: code, metric: {metric}, target: 0.5, max: 4, cold_start: 0s}}")
    stage.fleet.gauges[gauge][6:8] = 1
    stage.run(until=20)
    assert stage.told("after")[0] == (15, "scaled", 4)
    assert stage.fleet.gauges["up"].tolist() == [1] * 10


def test_without_a_metric_nothing_is_decided() -> None:
    stage = controlled(SCALE, options=["faults=[{stop: chat, to: 10m}]"])
    stage.run(until=590)
    assert [event["event"] for event in stage.events] == ["fault_begins"]


# --- rollouts ---------------------------------------------------------------------------------------------------------


def test_a_rollout_takes_a_few_at_a_time() -> None:
    stage = controlled("{rollout: chat, from: 1m, at_once: 2, drain: 30s, restart: 1m}")
    stage.fleet.gauges["outstanding"][0] = 5  # never empty
    stage.run(until=3600)
    assert stage.fleet.at("drain", "crash", "restore", where=0) == [
        (60, "drain", True), (90, "drain", False), (90, "crash"), (150, "restore")
    ]  # fmt: skip
    assert [stage.fleet.at("crash", where=r)[0][0] for r in range(6)] == [90, 60, 120, 150, 180, 210]
    assert stage.events[-1] == {"t_s": 270, "event": "rollout_ends", "target": "chat"}
    assert stage.fleet.gauges["up"].all()
    down = [(t, 1) for t, *_ in stage.fleet.at("crash")] + [(t, -1) for t, *_ in stage.fleet.at("restore")]
    assert np.cumsum([change for _, change in sorted(down)]).max() == 2


def test_a_rollout_leaves_spares_off() -> None:
    stage = controlled("{rollout: code, restart: 0}", options=["fleet.pools.code.max_replicas=5"])
    stage.run(until=3600)
    assert sorted({where for _, _, where, _ in stage.fleet.calls}) == [6, 7]


# --- breaker, shedding, ramp ------------------------------------------------------------------------------------------

BREAKER = "{breaker: code, errors: 50%, window: 30s, min_attempts: 20, open_for: 60s, probe_per_s: 1}"


def serve(stage: FakeStage, rates: list[tuple[float, float, float]]) -> None:
    """Let pool code answer and fail so many attempts a second, from each of some times on."""

    def process() -> Generator[simpy.Event, None, None]:
        pool = stage.fleet.pools[1]
        while True:
            answered, errors = next((a, e) for at_s, a, e in reversed(rates) if at_s <= stage.now)
            yield stage.timeout(1.0)
            pool.answered += answered
            pool.errors += errors

    stage.process(process())


def test_a_breaker_opens_probes_and_closes() -> None:
    stage = controlled(BREAKER)
    serve(stage, [(0, 10, 1), (100, 0, 10), (200, 1, 50), (290, 10, 0)])
    stage.run(until=900)
    opened, *held, closed = stage.told("errors")
    assert opened[1] == "breaker_opens"
    assert 110 <= opened[0] <= 120, "half of the last 30 s has failed"
    assert [event[1] for event in held] == ["breaker_stays_open"] * len(held)
    assert held
    assert closed[1] == "breaker_closes"
    assert closed[2] < 0.25
    assert stage.fleet.at("limit", where=1) == [(opened[0], 1.0, 1.0), (closed[0], math.inf, 1.0)]


def test_a_breaker_needs_enough_to_judge_by() -> None:
    stage = controlled(BREAKER.replace("20", "400"))
    serve(stage, [(0, 0, 10)])
    stage.run(until=900)
    assert stage.events == []


def test_errors_below_the_threshold_do_not_open() -> None:
    stage = controlled(BREAKER)
    serve(stage, [(0, 6, 5)])
    stage.run(until=900)
    assert stage.events == []


def test_probes_that_fail_a_little_too_often_keep_it_open() -> None:
    """Hysteresis: it opens at half, and closes below a quarter."""
    stage = controlled(BREAKER)
    serve(stage, [(0, 0, 10), (60, 0.7, 20), (600, 0.8, 20), (650, 9, 0)])
    stage.run(until=900)
    assert {event[1] for event in stage.told() if event[0] < 600} == {"breaker_opens", "breaker_stays_open"}
    assert stage.told()[-1][1] == "breaker_closes"


def test_a_breaker_that_nobody_probes_stays_open() -> None:
    stage = controlled(BREAKER)
    serve(stage, [(0, 0, 10), (30, 0, 0)])
    stage.run(until=900)
    assert stage.told("errors")[-1][1:] == ("breaker_stays_open", 1.0)


def test_shedding_has_hysteresis() -> None:
    stage = controlled("{shed: chat, above: 100, below: 50, level: 2}", options=["faults=[{stop: chat/0}]"])
    waiting = stage.fleet.gauges["waiting"]
    for at_s, mean in [(10.5, 101), (20.5, 60), (30.5, 100), (40.5, 49), (50.5, 99), (60.5, 1000), (70.5, 0)]:
        later(stage, at_s, lambda mean=mean: waiting[1:6].fill(mean))
    stage.run(until=100)
    assert stage.fleet.at("shed") == [(11, 2), (41, 4), (61, 2), (71, 4)]
    assert [event[1] for event in stage.told()][1:] == ["shedding_begins", "shedding_ends"] * 2


def test_a_ramp_rises_in_a_straight_line() -> None:
    stage = controlled("{ramp: chat, from: 30m, to: 50m, start_per_s: 5, end_per_s: 40}")
    stage.run(until=3600)
    limits = {t_s: rate for t_s, rate, _ in stage.fleet.at("limit")}
    assert len(limits) == 1201
    assert limits[1800] == 5.0
    assert limits[2400] == pytest.approx(22.5)
    assert limits[2999] == pytest.approx(40, rel=1e-3)
    assert limits[3000] == math.inf


def test_the_lowest_limit_holds() -> None:
    stage = controlled(
        "{ramp: code, from: 100s, to: 400s, start_per_s: 1, end_per_s: 31}",
        options=["faults=[{refuse: code, from: 0, to: 500s, above_per_s: 11}]"],
    )
    stage.run(until=600)
    limits = {t_s: rate for t_s, rate, _ in stage.fleet.at("limit")}
    assert [limits[t] for t in (0, 100, 150, 200, 300, 400, 500)] == [11, 1, pytest.approx(6), 11, 11, 11, math.inf]


# --- a process of one's own -------------------------------------------------------------------------------------------

OWN = """
import helper
COUNT = []
def nightly(world):
    COUNT.append(1)
    assert len(COUNT) == 1, "run afresh for every world"
    yield world.timeout(helper.WHEN_S)
    slow = world.effects.begin("slow", 0, 2.0)
    world.note_event("nightly", target="chat/0")
    yield world.timeout(10)
    world.effects.end(slow)
def plain(world): return 3
def two(world, other): yield
def divides(world):
    yield world.timeout(5)
    1 / 0
def odd(world):
    yield 3
def patient(world):
    try:
        yield world.event().fail(ValueError("no"))
    except ValueError:
        yield world.timeout(7)
        world.note_event("went_on")
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "helper.py").write_text("WHEN_S = 60")
    (tmp_path / "broken.py").write_text("import no_such_thing")
    (tmp_path / "worse.py").write_text("def f(:")
    return str(tmp_path / "own.py")


def test_a_process_of_ones_own(own: str) -> None:
    for _ in range(2):
        stage = controlled(f"{{python: '{own}:nightly'}}")
        stage.run(until=100)
        assert stage.fleet.at("slow") == [(60, 2.0), (70, 1.0)]
        assert stage.told("target") == [(60, "nightly", "chat/0")]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("own.py:nihgtly", "expected a function 'nihgtly' in {}/own.py, which has none; did you mean 'nightly'?"),
        ("own.py:plain", "expected a generator function, def plain(world) with a yield in it, got something else"),
        ("own.py:COUNT", "expected a generator function, def COUNT(world) with a yield in it, got something else"),
        ("own.py:two", "expected two to take one argument, the world, got 2"),
        ("broken.py:f", "{}/broken.py cannot be imported: No module named 'no_such_thing'"),
        ("worse.py:f", "{}/worse.py cannot be imported: SyntaxError: invalid syntax (worse.py, line 1)"),
    ],
)
def test_a_process_that_is_none(own: str, code: str, sentence: str) -> None:
    folder = str(Path(own).parent)
    with pytest.raises(InputError) as caught:
        controlled(f"{{python: '{folder}/{code}'}}")
    assert str(caught.value) == sentence.format(folder)


def test_a_module_that_is_none() -> None:
    with pytest.raises(InputError, match="expected a module beside .*, but there is no 'no_such_thing'"):
        custom.find("no_such_thing:f")
    with pytest.raises(InputError, match="expected a generator function"):
        custom.find("math:sqrt")


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("divides", "failed at t = 5 s: ZeroDivisionError: division by zero"),
        ("odd", "expected to yield an event such as world.timeout(10), got 3 at t = 0 s"),
    ],
)
def test_a_process_that_fails_is_one_sentence(own: str, function: str, sentence: str) -> None:
    stage = controlled(f"{{python: '{own}:{function}'}}")
    with pytest.raises(RunError) as caught:
        stage.run(until=100)
    assert str(caught.value) == f"{own}:{function}: {sentence}"


def test_a_process_may_catch_what_it_waits_for(own: str) -> None:
    stage = controlled(f"{{python: '{own}:patient'}}")
    stage.run(until=100)
    assert stage.told() == [(7, "went_on")]
