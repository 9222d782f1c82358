"""Faults: each mechanism reaches its target at its time, several add up, and all is well again when they have ended."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.control import targets
from sim.control.effects import together
from sim.scenario import loads
from sim.scenario.plans import fault_names
from tests.stage import TEXT, FakeStage


def faulty(*faults: str, until: float = 3600, **settings: Any) -> FakeStage:
    stage = FakeStage(f"faults=[{', '.join(faults)}]", **settings)
    stage.run(until=until)
    return stage


# --- what each mechanism does -----------------------------------------------------------------------------------------

MECHANISMS = [
    ("{slow: chat/3, from: 1m, to: 2m, factor: 3}", "slow", 3, [(60, 3.0), (120, 1.0)]),
    ("{stop: chat/3, from: 1m, to: 2m}", ("crash", "restore"), 3, [(60, "crash"), (120, "restore")]),
    ("{stop: chat/3, from: 1m, to: 2m, how: hang}", ("hang", "resume"), 3, [(60, "hang"), (120, "resume")]),
    ("{lose: code/1, from: 1m, to: 2m, share: 20%}", "lose", 7, [(60, 0.2), (120, 0.0)]),
    ("{lose: code/1, from: 1m, to: 2m, what: streams}", "cut", 7, [(60, 1.0), (120, 0.0)]),
    ("{lose: code/1, from: 1m, to: 2m, what: kv, share: 25%}", "shrink", 7, [(60, 25), (120, 0)]),
    ("{refuse: code/0, from: 1m, to: 2m, share: 10%, status: 500}", "refuse", 6, [(60, 0.1, 500), (120, 0.0)]),
    ("{refuse: code, from: 1m, to: 2m, above_per_s: 9, burst: 5}", "limit", 1, [(60, 9.0, 5.0), (120, math.inf, 1.0)]),
    ("{delay: code, from: 1m, to: 2m, by: 200ms}", "delay", 1, [(60, 0.2), (120, 0.0)]),
    ("{shift: edit, from: 1m, to: 2m, prompt_factor: 3}", "shift", 1, [(60, 3.0, 1.0), (120, 1.0, 1.0)]),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "verbs", "where", "calls"), MECHANISMS)
def test_a_fault_begins_and_ends(fault: str, verbs: Any, where: int, calls: list[Any]) -> None:
    stage = faulty(fault)
    verbs = (verbs,) if isinstance(verbs, str) else verbs
    assert [tuple(pytest.approx(x) for x in call) for call in calls] == stage.fleet.at(*verbs, where=where)
    assert len(stage.fleet.calls) == 2, "nobody else was touched"
    mechanism = fault[1:].partition(":")[0]
    assert stage.told("mechanism") == [(60, "fault_begins", mechanism), (120, "fault_ends", mechanism)]


def test_a_surge_is_told_and_drawn_elsewhere() -> None:
    stage = faulty("{surge: all, from: 1m, to: 2m, factor: 3}")
    assert stage.fleet.calls == []
    assert stage.told("name", "target") == [
        (60, "fault_begins", "surge all", "all"),
        (120, "fault_ends", "surge all", "all"),
    ]


def test_a_fault_without_an_end_lasts() -> None:
    stage = faulty("{slow: chat/0, factor: 2}")
    assert stage.fleet.at("slow") == [(0, 2.0)]
    assert [event["event"] for event in stage.events] == ["fault_begins"]


def test_a_crash_that_leaves_many_rows_makes_room() -> None:
    assert faulty("{stop: chat, from: 1m}").rooms == 6


@pytest.mark.parametrize(
    ("target", "replicas"),
    [
        ("chat", [0, 1, 2, 3, 4, 5]),
        ("code", [6, 7]),
        ("code/1", [7]),
        ("chat/1-3", [1, 2, 3]),
        ("chat/zone-0", [0, 3]),
        ("chat/zone-2", [2, 5]),
    ],
)
def test_targets(target: str, replicas: list[int]) -> None:
    stage = faulty(f"{{slow: {target}, factor: 2}}")
    assert sorted(where for _, where in stage.fleet.last) == replicas
    names = [targets.replica_name(stage, r) for r in replicas]
    assert names == [f"{target[:4]}/{r - (6 if 'code' in target else 0)}" for r in replicas]


def test_a_target_counts_the_spares() -> None:
    stage = faulty("{slow: code/zone-0, factor: 2}", "{shift: all, output_factor: 2}", until=1)
    assert {where for verb, where in stage.fleet.last if verb == "shift"} == {0, 1}
    stage = FakeStage("fleet.pools.code.max_replicas=5", "faults=[{stop: code/2-4, from: 1m, to: 2m}]")
    stage.run(until=90)
    assert stage.fleet.calls == [], "what is off cannot crash"
    stage.effects.power(8, True)
    assert stage.fleet.calls == [], "and cannot start while the fault lasts"
    stage.run(until=200)
    assert stage.fleet.at("restore") == [(120,)]


# --- several at once --------------------------------------------------------------------------------------------------


def test_slow_twice_is_the_product() -> None:
    stage = faulty("{slow: chat, from: 1m, to: 5m, factor: 2}", "{slow: chat/3, from: 2m, to: 3m, factor: 1.5}")
    assert stage.fleet.at("slow", where=3) == [(60, 2.0), (120, 3.0), (180, 2.0), (300, 1.0)]


def test_shares_combine_as_chances_do() -> None:
    stage = faulty("{lose: chat/3, from: 1m, to: 3m, share: 50%}", "{lose: chat/3, from: 2m, to: 4m, share: 20%}")
    assert stage.fleet.at("lose") == [(60, 0.5), (120, pytest.approx(0.6)), (180, pytest.approx(0.2)), (240, 0.0)]
    assert together([]) == 0.0
    assert together([1.0, 0.3]) == 1.0


def test_the_last_to_begin_says_the_status() -> None:
    stage = faulty("{refuse: chat/3, from: 1m, to: 3m, status: 500}", "{refuse: chat/3, from: 2m, to: 4m, share: 0}")
    assert stage.fleet.at("refuse") == [(60, 1.0, 500), (120, 1.0, 503), (180, 0.0, 503), (240, 0.0)]


def test_a_crash_inside_a_crash_ends_with_the_last() -> None:
    stage = faulty("{stop: chat/3, from: 1m, to: 3m}", "{stop: chat/zone-0, from: 2m, to: 4m}")
    assert stage.fleet.at("crash", "restore", where=3) == [(60, "crash"), (240, "restore")]
    assert stage.fleet.at("crash", "restore", where=0) == [(120, "crash"), (240, "restore")]


def test_hangs_are_counted() -> None:
    stage = faulty("{stop: chat/3, from: 1m, to: 4m, how: hang}", "{stop: chat/3, from: 2m, to: 3m, how: hang}")
    assert stage.fleet.at("hang", "resume") == [(60, "hang"), (240, "resume")]


def test_a_restart_cures_a_hang_and_nothing_else() -> None:
    hang, slow = "{stop: chat/3, from: 1m, to: 10m, how: hang}", "{slow: chat/3, from: 1m, to: 10m, factor: 2}"
    stage = faulty(hang, slow, "{stop: chat/3, from: 2m, to: 3m}")
    assert stage.fleet.at("hang", "resume", "crash", "restore") == [
        (60, "hang"), (120, "resume"), (120, "crash"), (180, "restore")
    ]  # fmt: skip
    assert stage.fleet.at("slow") == [(60, 2.0), (600, 1.0)]


def test_a_hang_that_begins_while_it_is_down_waits_for_it() -> None:
    hang = "{stop: chat/3, from: 2m, to: 5m, how: hang}"
    stage = faulty("{stop: chat/3, from: 1m, to: 3m}", hang)
    assert stage.fleet.at("crash", "hang", "resume") == [(60, "crash"), (180, "hang"), (300, "resume")]
    assert faulty("{stop: chat/3, from: 1m, to: 10m}", hang).fleet.at("hang") == []


def test_an_upstream_limit_never_lifts_the_pools_own() -> None:
    own = "fleet.pools.code.admission={limit_per_s: 8}"
    stage = FakeStage(own, "faults=[{refuse: code, from: 1m, to: 2m, above_per_s: 20}]")
    stage.run(until=200)
    assert stage.fleet.at("limit") == [(60, 8.0, 1.0), (120, 8.0, 1.0)]


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["crash", "hang", "drain", "slow", "lose", "power", "unpower", "end"]),
        st.integers(0, 1),
        st.integers(0, 9),
    ),
    max_size=40,
)


@given(ACTS)
def test_whatever_overlaps_unwinds(acts: list[tuple[str, int, int]]) -> None:
    """`FakeFleet` refuses a second crash or hang, and whatever needs a replica that runs; here the sums are checked."""
    stage = FakeStage()
    effects, fleet, begun = stage.effects, stage.fleet, []
    for act, r, k in acts:
        if act in ("power", "unpower"):
            effects.power(r, act == "power")
        elif act == "end" and begun:
            effects.end(begun.pop(k % len(begun)))
        elif act != "end":
            begun.append(effects.begin(act, r, {"slow": 1.0 + k, "lose": k / 10}.get(act)))
        for r in (0, 1):
            of = {
                kind: [e.value for e in begun if e.where == r and e.kind == kind] for kind in ("crash", "slow", "lose")
            }
            assert fleet.last.get(("slow", r), (1.0,))[0] == pytest.approx(math.prod(of["slow"]))
            assert fleet.last.get(("lose", r), (0.0,))[0] == pytest.approx(together(of["lose"]))
            assert bool(fleet.gauges["up"][r]) == effects.running(r) == (effects.powered(r) and not of["crash"])
    for effect in begun:
        effects.end(effect)
    for r in (0, 1):
        effects.power(r, True)
        assert fleet.gauges["up"][r]
        assert not fleet.gauges["hung"][r]
        assert not effects.draining(r)
        assert fleet.last.get(("slow", r), (1.0,)) == (1.0,)
        since = [verb for _, verb, where, _ in fleet.calls if where == r and verb in ("drain", "restore")]
        if since and since[-1] == "drain":
            assert fleet.last["drain", r] == (False,)


# --- again and again --------------------------------------------------------------------------------------------------


def test_a_periodic_fault_keeps_its_beat() -> None:
    stage = faulty("{periodic: {stop: chat/0, how: hang, from: 10s, to: 3m5s, every: 60s, lasting: 7s}}", until=600)
    assert stage.fleet.at("hang") == [(10,), (70,), (130,)]
    assert stage.fleet.at("resume") == [(17,), (77,), (137,)]
    stage = faulty("{periodic: {slow: chat/0-1, factor: 2, to: 62s, every: 60s, lasting: 7s}}", until=600)
    assert stage.fleet.at("slow", where=1) == [(0, 2.0), (7, 1.0), (60, 2.0), (62, 1.0)]


RANDOM = "{random: {stop: chat, mtbf: 10m, mttr: 1m}}"


def times(stage: FakeStage, r: int) -> list[tuple[float, str]]:
    return stage.fleet.at("crash", "restore", where=r)


def test_a_random_fault_befalls_each_replica_by_itself() -> None:
    stage = faulty(RANDOM, until=40 * 3600)
    first = [times(stage, r)[0] for r in range(6)]
    assert len(set(first)) == 6
    ups, downs = [], []
    for r in range(6):
        at = np.array([t for t, _ in times(stage, r)])
        gaps = np.diff(np.concatenate([[0.0], at]))
        ups += gaps[0::2].tolist()
        downs += gaps[1::2].tolist()
    assert len(ups) > 1000
    assert np.mean(ups) == pytest.approx(600, rel=0.1)
    assert np.mean(downs) == pytest.approx(60, rel=0.1)
    assert np.std(downs) == pytest.approx(60, rel=0.15), "exponential"
    assert {event["target"] for event in stage.events} == {f"chat/{r}" for r in range(6)}


def test_luck_belongs_to_fault_and_replica() -> None:
    alone = faulty(RANDOM, until=9000)
    beside = faulty("{random: {slow: code, mtbf: 1m, mttr: 1m, factor: 2}}", RANDOM, until=9000)
    fewer = faulty(RANDOM.replace("chat", "chat/0-2").replace("}}", ", name: mine}}"), until=9000)
    named = faulty(RANDOM.replace("}}", ", name: mine}}"), until=9000)
    assert all(times(alone, r) == times(beside, r) for r in range(6))
    assert [times(named, r) for r in range(3)] == [times(fewer, r) for r in range(3)]
    assert times(named, 0) != times(alone, 0)
    assert times(faulty(RANDOM, until=9000, seed=2), 0) != times(alone, 0)


def test_a_random_fault_stays_in_its_time() -> None:
    stage = faulty("{random: {slow: chat, from: 10m, to: 30m, mtbf: 1m, mttr: 1h, factor: 2}}")
    at = [t_s for t_s, *_ in stage.fleet.at("slow")]
    assert min(at) > 600
    assert max(at) == 1800
    assert all(stage.fleet.last["slow", r] == (1.0,) for r in range(6))


def test_every_fault_has_a_name_of_its_own() -> None:
    slow = "{slow: chat, factor: 2}"
    scenario = loads(
        TEXT, overrides=[f"faults=[{slow}, {slow}, {{slow: chat, factor: 2, name: hot}}, {slow}, {RANDOM}]"]
    )
    assert fault_names(scenario) == ["slow chat", "slow chat (2)", "hot", "slow chat (3)", "stop chat"]
