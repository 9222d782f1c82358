"""The world around the fleet: users come, control processes wait and decide, and every request is accounted for."""

import json
import math
from collections.abc import Generator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine import fleet as fleets
from sim.errors import RunError
from sim.records import PARTS, Outcome
from sim.results import SERIES
from sim.scenario import Scenario, loads
from sim.summary import metric_names
from sim.world import World, check_rows, simulate

SMALL = """\
name: small
duration: 60s
drain: 0
fleet: {kv_blocks: 150, max_num_seqs: 8, replicas: 2, step_time: {linear: {base: 10ms, per_sequence: 1ms}}}
workload:
  rate_per_s: 6
  cohorts:
    short: {share: 50%, prompt_tokens: 20, output_tokens: {exponential: {mean: 20}}, error: 10%}
    long: {share: 50%, prompt_tokens: {lognormal: {median: 100, sigma: 1}}, output_tokens: 60, priority: 2}
"""
TALKS = "workload.sessions={turns: {exponential: {mean: 3}}, think: 2s}"
CIRCLE = ["workload.rate_per_s=null", "workload.arrivals={closed: {users: 12, think: 500ms}}"]


def small(*options: str) -> Scenario:
    """A minute of two replicas with little memory, and what *options* change."""
    return loads(SMALL, overrides=options)


# --- everyone is accounted for ----------------------------------------------------------------------------------------

FLEETS = [
    *("router=random", "kv_blocks=40", "block_size=1", "max_num_seqs=2", "watermark=10%", "reserve_full_isl=false"),
    *("chunked_prefill=false", "ingress=300ms", "egress=200ms", "noise.sigma=0.3", "noise.slow_sigma=0.5"),
]
USERS = [
    [TALKS],
    CIRCLE,
    ["workload.rate_per_s=20"],
    ["workload.rate_per_s=0.01"],
    ["workload.arrivals={gamma: {cv: 4}}"],
    ["workload.arrivals={bursts: {rate_per_s: 25, mean_on: 2s, mean_off: 8s}}"],
]
OTHERS = ["clients.timeout=500ms", "clients.timeout=4s", "drain=20s", "warmup=20s", "scrape_interval=1s"]


@st.composite
def scenarios(draw: Any) -> Scenario:
    options = [f"fleet.{option}" for option in draw(st.sets(st.sampled_from(FLEETS)))]
    return small(*options, *draw(st.sampled_from([[], *USERS])), *draw(st.sets(st.sampled_from(OTHERS), max_size=3)))


@settings(max_examples=settings().max_examples // 2)
@given(scenario=scenarios(), seed=st.integers(0, 1000))
def test_any_run_keeps_its_laws_and_its_books(scenario: Scenario, seed: int) -> None:
    """`run_to_end` asserts the laws of the fleet and of each row; here rows, counts and metrics must agree."""
    result = simulate(scenario, seed)
    rows, metrics = result.attempts, result.metrics
    counts = np.bincount(rows["outcome"], minlength=6)
    assert [metrics[outcome.name.lower()] for outcome in Outcome] == counts.tolist()
    assert metrics["requests"] == len(rows) == len(np.unique(rows["request"]))
    assert metrics["wrong"] == rows["wrong"].sum()
    assert metrics["preemptions"] >= rows["preemptions"].sum()
    assert (rows["scheduled_s"] < scenario.duration).all()
    assert not (rows["finished_s"] > scenario.duration + scenario.drain + 0.2).any()
    assert metric_names(list(scenario.workload.cohorts)) == set(metrics)
    for minute, name in product(range(1), ("requests", "ok", "errors")):
        known = {"requests": counts.sum(), "ok": counts[0], "errors": counts[1:].sum()}[name]
        assert result.histograms[f"minute_{name}"][minute] == known


def test_percentiles_are_those_of_the_rows() -> None:
    """Histograms have bins of 1%, so what they say of a minute is what its rows say, to 1%."""
    result = simulate(small("fleet.max_num_seqs=3", "warmup=10s", "clients.timeout=3s", "workload.rate_per_s=14"), 3)
    rows = result.attempts[result.attempts["scheduled_s"] >= 10]
    assert (rows["outcome"] == Outcome.TIMED_OUT).sum() > 20
    rows = rows[np.isin(rows["outcome"], (Outcome.OK, Outcome.TIMED_OUT, Outcome.UNFINISHED))]  # others have no latency
    e2e_s = rows["finished_s"] - rows["scheduled_s"]
    ttft_s = np.where(np.isnan(rows["first_token_s"]), e2e_s, rows["first_token_s"] - rows["scheduled_s"])
    some = rows["output_tokens"] > 1
    tpot_s = ((rows["finished_s"] - rows["first_token_s"])[some]) / (rows["output_tokens"][some] - 1)
    for name, known in (("e2e", e2e_s), ("ttft", ttft_s), ("tpot", tpot_s)):
        for stat, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            near = np.quantile(known, [share - 0.004, min(1.0, share + 0.004)])
            assert near[0] * 0.989 <= result.metrics[f"{name}_{stat}"] <= near[1] * 1.011, f"{name}_{stat}"
        assert result.metrics[f"{name}_mean"] == pytest.approx(known.mean(), rel=0.01)
    parts = np.array([rows[part].mean() for part in PARTS])
    assert np.allclose(result.histograms["parts_all"], parts, rtol=1e-4, atol=1e-6)


def test_without_rows_the_metrics_are_the_same() -> None:
    whole, none, some = (simulate(small(f"rows={rows}"), 2) for rows in ("all", "none", "{sample: 20%}"))
    assert whole.metrics == none.metrics == some.metrics
    assert (len(none.attempts), none.notes[-1][:16]) == (0, "no rows are kept")
    assert 0.1 < len(some.attempts) / len(whole.attempts) < 0.3
    assert set(some.attempts["request"].tolist()) <= set(whole.attempts["request"].tolist())


def test_nobody_comes() -> None:
    result = simulate(small("workload.rate_per_s=1e-9"), 1)
    assert result.metrics["requests"] == 0
    assert math.isnan(result.metrics["ttft_p99"])
    assert result.metrics["kv_max"] == 0


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("users", [[], [TALKS], CIRCLE])
def test_how_often_one_looks_changes_nothing(users: list[str]) -> None:
    often, rarely, walking = (
        simulate(small(f"scrape_interval={every}", "fleet.kv_blocks=60", "clients.timeout=3s", *users), 5, leap=leap)
        for every, leap in (("130ms", True), ("1h", True), ("7s", False))
    )
    assert often.attempts.tobytes() == rarely.attempts.tobytes() == walking.attempts.tobytes()
    for name, array in often.histograms.items():
        assert array.tobytes() == rarely.histograms[name].tobytes() == walking.histograms[name].tobytes(), name
    assert often.metrics["steps"] == rarely.metrics["steps"] == walking.metrics["steps"]


def test_in_flight_at_the_end_get_time_to_finish() -> None:
    cut, drained = (simulate(small("workload.rate_per_s=12", f"drain={drain}"), 4) for drain in ("0", "5m"))
    assert cut.metrics["unfinished"] > 0 == drained.metrics["unfinished"]
    assert drained.attempts["finished_s"].max() > 60
    ended = cut.attempts[cut.attempts["outcome"] == Outcome.OK]
    same = drained.attempts[np.isin(drained.attempts["request"], ended["request"])]
    assert np.sort(ended, order="request").tobytes() == np.sort(same, order="request").tobytes()


def test_a_process_is_one_generator_function() -> None:
    """What a user of Blowout writes: wait, look, act. It meets the fleet exactly at its own time."""
    seen = []

    def hour_of_fate(world: World) -> Generator[simpy.Event, None, None]:
        yield world.timeout(20.0)
        assert world.fleet.now_s == world.now == 20.0
        for _ in world.fleet.crash(0):
            world._keep(world.fleet.take_rows())
        seen.append(world.fleet.look()["running"].tolist())
        yield world.timeout(10.0)
        world.fleet.restore(0)
        world.fleet.slow(1, 4.0)
        yield world.timeout(10.0)
        world.fleet.slow(1, 1.0)

    world = World(small("drain=5m"), 1)
    world.process(hour_of_fate(world))
    world.run_to_end()
    rows = world.result().attempts
    lost = rows[rows["outcome"] == Outcome.FAILED]
    assert seen[0][0] == 0
    assert len(lost) > 0
    assert (lost["finished_s"] == 20.0).all()
    away = (rows["sent_s"] > 20) & (rows["sent_s"] < 30)
    assert set(rows["replica"][away].tolist()) == {1}
    slowed = rows["fault_stall_s"] > 0
    assert set(rows["replica"][slowed].tolist()) == {1}
    assert rows["finished_s"][slowed].min() > 30
    assert rows["sent_s"][slowed].max() < 40


# --- users ------------------------------------------------------------------------------------------------------------


def test_two_fleets_meet_the_same_users() -> None:
    """Common random numbers: whatever serves them, users ask the same at the same time."""
    changes = ["fleet.router=random", "fleet.replicas=5", "fleet.kv_blocks=60", "fleet.noise.sigma=0.5"]
    results = [np.sort(simulate(small(change), 9).attempts, order="request") for change in ("drain=0", *changes)]
    for name in ("request", "scheduled_s", "sent_s", "cohort", "level", "prompt_tokens", "session"):
        assert all((rows[name] == results[0][name]).all() for rows in results[1:]), name
    answers = [dict(zip(r["request"].tolist(), r["output_tokens"].tolist())) for r in results]
    done = [set(r["request"][r["outcome"] == Outcome.OK].tolist()) for r in results]
    both = set.intersection(*done)
    assert len(both) > 200
    assert all(answer[request] == answers[0][request] for answer in answers for request in both)


def test_seeds_differ() -> None:
    assert simulate(small(), 1).attempts.tobytes() != simulate(small(), 2).attempts.tobytes()


def test_a_circle_never_has_more_in_flight_than_users() -> None:
    rows = simulate(small(*CIRCLE), 1).attempts
    starts, ends = rows["scheduled_s"], rows["finished_s"]
    moments = np.concatenate([starts, ends])
    change = np.concatenate([np.ones(len(rows)), -np.ones(len(rows))])
    order = np.lexsort((change, moments))  # at the same moment the old ends before the new begins
    assert np.cumsum(change[order]).max() <= 12
    assert len(rows) > 200
    for session in range(12):
        mine = np.sort(rows[rows["session"] == session], order="turn")
        assert mine["turn"].tolist() == list(range(len(mine)))
        assert (mine["scheduled_s"][1:] > mine["finished_s"][:-1]).all()


def test_a_conversation_is_in_order_and_carries_on() -> None:
    rows = np.sort(simulate(small(TALKS, "drain=5m", "fleet.kv_blocks=5000"), 1).attempts, order=["session", "turn"])
    again = rows["turn"] > 0
    assert 0.3 < again.mean() < 0.8
    before = np.flatnonzero(again) - 1
    assert (rows["session"][again] == rows["session"][before]).all()
    assert (rows["scheduled_s"][again] >= rows["finished_s"][before]).all()
    assert (rows["prompt_tokens"][again] > rows["prompt_tokens"][before]).all()


def test_the_urgent_wait_less() -> None:
    rows = simulate(small("workload.rate_per_s=14", "fleet.max_num_seqs=4", "drain=10m"), 1).attempts
    rows = rows[rows["outcome"] == Outcome.OK]
    waits = rows["admitted_s"] - rows["sent_s"]
    assert waits[rows["level"] == 0].mean() < 0.2 * waits[rows["level"] == 2].mean()


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_overload_ends_the_run_and_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "LIVE_MAX", 1024)
    with pytest.raises(RunError, match="OVERLOADED: 1,024 requests in flight"):
        simulate(small("workload.rate_per_s=200"), 1, tmp_path)
    assert_readable(tmp_path)
    assert not (tmp_path / "member.json").exists()


def test_an_interrupt_leaves_readable_files(tmp_path: Path) -> None:
    def interrupt(now_s: float) -> None:
        if now_s >= 45:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(small(), 1, tmp_path, progress=interrupt)
    last_s = assert_readable(tmp_path)
    assert 40 < last_s <= 45


def test_an_interrupt_is_obeyed_between_scrapes() -> None:
    def interrupt(now_s: float) -> None:
        if 45 <= now_s < 60:
            raise KeyboardInterrupt

    hasty = "workload.arrivals={closed: {users: 12, think: 1ms}}"
    with pytest.raises(KeyboardInterrupt):
        simulate(small(*CIRCLE[:1], hasty, "fleet.max_model_len=10", "scrape_interval=1h"), 1, progress=interrupt)


def test_a_circle_that_is_always_refused_ends() -> None:
    metrics = simulate(small(*CIRCLE, "fleet.max_model_len=1"), 1).metrics
    assert metrics["rejected"] == metrics["requests"] > 500


def test_notes_say_where_step_times_come_from() -> None:
    notes = simulate(small("fleet.calibration=1.5"), 1).notes
    assert notes[0] == "pool main: step times: linear fit of the scenario, times 1.5, as the scenario says"


def test_a_run_with_a_folder_writes_what_it_returns_without(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    kept, written = simulate(small(), 1), simulate(small(), 1, tmp_path)
    assert written.metrics == kept.metrics
    table = pq.read_table(tmp_path / "attempts.parquet")
    for name in kept.attempts.dtype.names or ():
        assert np.array_equal(table[name].to_numpy(), kept.attempts[name], equal_nan=name.endswith("_s")), name
    assert json.loads((tmp_path / "member.json").read_text())["metrics"]["requests"] == len(kept.attempts)
    series = pq.read_table(tmp_path / "series.parquet")
    assert set(SERIES) <= set(series.column_names)
    assert series["t_s"].to_pylist() == [0, 0, 15, 15, 30, 30, 45, 45, 60, 60]
    assert series["replica"].to_pylist() == [0, 1] * 5


def assert_readable(folder: Path) -> float:
    """Check that the files of a run that was cut short can be read; return the time of the last attempt."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "attempts.parquet")
    with np.load(folder / "histograms.npz") as arrays:
        assert arrays["minute_requests"].sum() == len(rows) > 100
    return max(rows["finished_s"].to_pylist())


# --- laws that can be broken ------------------------------------------------------------------------------------------

LIES = {
    "sent_s": "sent before it was scheduled",
    "admitted_s": "admitted before it was sent",
    "first_token_s": "a token before admission",
    "finished_s": "do not sum",
    "decode_alone_s": "do not sum",
}


@pytest.mark.parametrize("name", LIES)
def test_a_broken_row_is_noticed(name: str) -> None:
    rows = simulate(small(), 1).attempts.copy()
    check_rows(rows)
    check_rows(rows[:0])
    rows[name][7] -= 1.0
    with pytest.raises(AssertionError, match=LIES[name]):
        check_rows(rows)


def test_a_lost_request_or_block_is_noticed() -> None:
    world = World(small("drain=5m"), 1)
    world.run_to_end()
    fleet = world.fleet
    fleet.check_laws()
    fleet.reps["free_blocks"][1] -= 1
    with pytest.raises(AssertionError, match="replica 1 lost KV blocks"):
        fleet.check_laws()
    fleet.w[0].outcomes[Outcome.OK] += 1
    with pytest.raises(AssertionError, match="no outcome, or in two"):
        fleet.check_laws()


@pytest.mark.parametrize(
    ("warmup", "duration", "known"), [("0s", "5s", False), ("16s", "25s", False), ("0s", "16s", True)]
)
def test_without_a_scrape_in_the_counted_time_gauges_are_unknown_and_not_none(
    warmup: str, duration: str, known: bool
) -> None:
    text = f"""\
name: short
duration: {duration}
warmup: {warmup}
fleet: {{kv_blocks: 400, step_time: {{linear: {{base: 10ms}}}}}}
workload: {{rate_per_s: 5, cohorts: {{chat: {{prompt_tokens: 100, output_tokens: 20}}}}}}
"""
    result = simulate(loads(text), 1)
    for name in ("kv_mean", "kv_max", "running_mean", "waiting_mean", "waiting_max"):
        assert math.isfinite(result.metrics[name]) == known
    assert any("no scrape fell into the time that counts" in note for note in result.notes) != known
