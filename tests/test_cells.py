"""Cells: played side by side they are one run, in which nothing is lost, doubled or shared that should not be."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import scenario, theory, workload
from sim.cells import Cell
from sim.cli import main
from sim.errors import RunError, ScenarioError
from sim.records import ATTEMPT, Outcome
from sim.results import Member, Run
from sim.run import known_metrics, play
from sim.scenario import Scenario, loads
from sim.world import simulate, simulate_cell

FILES = ("attempts.parquet", "series.parquet", "metrics.parquet", "events.jsonl", "histograms.npz", "member.json")
ASK = {"prompt_tokens": 20, "output_tokens": {"exponential": {"mean": 30}}, "error": "5%"}
STEP = {"linear": {"base": "10ms", "per_sequence": "1ms"}}


def service(**settings: Any) -> dict[str, Any]:
    """A small service in four cells."""
    pool = {"kv_blocks": 2000, "max_num_seqs": 8, "step_time": STEP, "replicas": 8}
    cohort = {"prompt_tokens": 20, "output_tokens": {"exponential": {"mean": 30}}, "error": "5%"}
    users = {"rate_per_s": 24, "cohorts": {"ask": cohort}}
    return {
        "name": "small",
        "duration": "2m",
        "fleet": {"cells": 4, "pools": {"chat": pool}},
        "workload": users,
    } | settings


def made(*options: str, **settings: Any) -> Scenario:
    return loads(json.dumps(service(**settings)), overrides=options)


def rows(member: Path) -> np.ndarray:
    table = Member({}, 1, member).attempts()
    found = np.empty(table.num_rows, ATTEMPT)
    for name in ATTEMPT.names or ():
        found[name] = table[name].to_numpy()
    return found


def events(member: Path) -> list[dict[str, Any]]:
    return Member({}, 1, member).events()


def alike(one: Path, other: Path, names: Sequence[str] = FILES) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


# --- one cell, and many ---------------------------------------------------------------------------------------------


def test_one_cell_is_no_cell(tmp_path: Path) -> None:
    plain = service()
    del plain["fleet"]["cells"]
    simulate(loads(json.dumps(plain)), 3, tmp_path / "plain")
    simulate(made("fleet.cells=1"), 3, tmp_path / "one")
    assert alike(tmp_path / "plain", tmp_path / "one")


def test_how_many_workers_play_changes_no_byte(tmp_path: Path) -> None:
    swept = made("seeds=2", "vary={fleet.cells: [2, 4]}", faults=[{"stop": "chat/3", "from": "30s", "to": "50s"}])
    for workers in (1, 2):
        (tmp_path / str(workers)).mkdir()
        play(swept, tmp_path / str(workers), workers=workers)
    members = Run.open(tmp_path / "1").info["members"]
    assert len(members) == 4
    assert all(alike(tmp_path / "1" / one["path"], tmp_path / "2" / one["path"]) for one in members)
    assert alike(tmp_path / "1", tmp_path / "2", ["summary.json", "scenario.yaml"])
    assert not list(tmp_path.rglob("cells"))


def test_in_memory_they_are_the_same_run(tmp_path: Path) -> None:
    kept, written = simulate(made(), 5), simulate(made(), 5, tmp_path / "run")
    assert kept.metrics == pytest.approx(written.metrics, nan_ok=True)
    told = Member({}, 5, tmp_path / "run").info["metrics"]
    assert {name: value for name, value in kept.metrics.items() if not math.isnan(value)} == {
        name: value for name, value in told.items() if value is not None
    }
    assert kept.attempts.tobytes() == rows(tmp_path / "run").tobytes()


def test_cells_are_queues_of_their_own_and_not_one_with_many_servers() -> None:
    """The price of routers that do not share: at 70% load the mean wait is 6 times that of one queue for all."""
    service_s, rate_per_s, mean = 0.1, 7.0, 20
    pool = {"kv_blocks": 10**6, "max_num_seqs": 1, "step_time": {"linear": {"base": "5ms"}}, "replicas": 4}
    cohort = {"prompt_tokens": 1, "output_tokens": {"exponential": {"mean": mean}}}
    queue = made(
        "rows=none", "telemetry=none", "duration=6000s", "warmup=100s", "scrape_interval=1000s",
        fleet={"cells": 4, "pools": {"chat": pool}},
        workload={"rate_per_s": 4 * rate_per_s, "cohorts": {"ask": cohort}},
    )  # fmt: skip
    apart = simulate(queue, 1).metrics["queue_mean"]
    alone = theory.mg1_wait_s(rate_per_s, service_s, 1 - 1 / mean)
    pooled = theory.mmc_wait_s(4 * rate_per_s, service_s, 4)
    assert alone / pooled > 6
    assert apart == pytest.approx(alone, rel=0.06)
    together = simulate(queue.model_copy(update={"fleet": queue.fleet.model_copy(update={"cells": 1})}), 1)
    assert pooled < together.metrics["queue_mean"] < alone / 2


# --- nothing is lost in between -------------------------------------------------------------------------------------

SWARM = st.fixed_dictionaries(
    {
        "cells": st.sampled_from([2, 3, 4]),
        "size": st.integers(1, 3),
        "rate": st.sampled_from([4, 20, 60]),
        "arrivals": st.sampled_from(
            [
                "poisson",
                {"diurnal": {"peak_to_mean": 1.5}},
                {"bursts": {"rate_per_s": 90, "mean_on": "5s", "mean_off": "20s"}},
                {"piecewise": [{"at": 0, "rate_per_s": 5}, {"at": "20s", "rate_per_s": 40}]},
                {"closed": {"users": 24, "think": "1s"}},
            ]
        ),
        "clients": st.sampled_from(
            [{}, {"timeout": "2s", "retries": 2}, {"retries": 1, "retry_budget": {"share": 0.1}}]
        ),
        "sessions": st.sampled_from([None, {"turns": 2, "think": "1s"}]),
        "faults": st.lists(
            st.sampled_from(
                [
                    {"slow": "chat", "factor": 2, "from": "10s", "to": "30s"},
                    {"stop": "chat/0-1", "from": "20s", "to": "25s"},
                    {"refuse": "chat", "share": 0.2, "from": "5s", "to": "50s"},
                    {"random": {"stop": "chat", "mtbf": "60s", "mttr": "5s"}},
                ]
            ),
            max_size=2,
        ),
        "sample": st.sampled_from([0.3, 1.0]),
        "seed": st.integers(0, 99),
    }
)


def drawn(case: dict[str, Any]) -> Scenario:
    """The scenario of a *case* of the swarm."""
    pool = {"kv_blocks": 300, "max_num_seqs": 4, "step_time": STEP, "replicas": case["cells"] * case["size"]}
    kind = next(iter(case["arrivals"])) if isinstance(case["arrivals"], dict) else ""
    users: dict[str, Any] = {"arrivals": case["arrivals"], "cohorts": {"ask": ASK}}
    if kind not in ("piecewise", "closed"):
        users["rate_per_s"] = case["rate"]
    if kind != "closed":
        users["sessions"] = case["sessions"]
    return made(
        "duration=61s", "drain=10s", f"rows={{sample: {case['sample']}}}", workload=users, clients=case["clients"],
        faults=case["faults"], fleet={"cells": case["cells"], "pools": {"chat": pool}},
    )  # fmt: skip


@given(SWARM)
@settings(max_examples=12)
def test_the_whole_is_the_sum_of_its_cells(tmp_path_factory: pytest.TempPathFactory, case: dict[str, Any]) -> None:
    if case["arrivals"] != "poisson" and "bursts" in case["arrivals"] and case["rate"] != 20:
        case = case | {"rate": 20}  # within what the bursts leave of the mean
    one, seed, n = drawn(case), case["seed"], case["cells"]
    folder = tmp_path_factory.mktemp("whole")
    simulate(one, seed, folder)
    parts = [simulate_cell(one, seed, number) for number in range(n)]
    whole, found = Member({}, seed, folder), rows(folder)
    told = whole.info["metrics"]
    for name in ("requests", "ok", "failed", "timed_out", "unfinished", "wrong", "attempts", "retries", "steps"):
        assert told[name] == sum(part.metrics[name] for part in parts), name
    assert told["requests"] == sum(told[outcome.name.lower()] for outcome in Outcome)
    for name, counted in whole.histograms().items():
        if name.startswith("minute_") or name in ("ttft", "e2e", "itl", "ttft_by_window"):
            assert (counted == sum(part.histograms[name] for part in parts)).all(), name
    assert found.tobytes() == np.concatenate([part.attempts for part in parts]).tobytes()
    if case["sample"] == 1.0:
        assert len(found) == told["attempts"]
        assert (found["last"] == 1).sum() == told["requests"]
    assert len(np.unique(found[["request", "attempt"]])) == len(found)
    placed = found[found["replica"] >= 0]
    assert (placed["replica"] // case["size"] == placed["request"] % n).all()
    assert told["waiting_max"] <= sum(part.metrics["waiting_max"] for part in parts)
    assert told["kv_max"] == max(part.metrics["kv_max"] for part in parts)


def test_samples_of_all_cells_stand_in_the_order_of_time(tmp_path: Path) -> None:
    simulate(made("scrape_interval=1s", "duration=20m", "workload.rate_per_s=2"), 1, tmp_path)
    table = pq.read_table(tmp_path / "series.parquet")
    t_s, replica = table["t_s"].to_numpy(), table["replica"].to_numpy()
    assert pq.ParquetFile(tmp_path / "series.parquet").num_row_groups > 1
    assert (np.lexsort((replica, t_s)) == np.arange(len(t_s))).all()
    assert (np.bincount(replica[t_s <= 1200]) == 1201).all()


def test_a_prometheus_sees_every_replica_and_the_gateway_of_each_cell(tmp_path: Path) -> None:
    simulate(made(), 1, tmp_path)
    member = Member({}, 1, tmp_path)
    up = {labels["instance"] for labels, _, _ in member.metrics(["up"])}
    assert up == {f"chat-{r}:8000" for r in range(8)} | {f"gateway-{k}:9090" for k in range(4)}
    asked = sum(values[-1] for _, _, values in member.metrics(["gateway_requests_total"]))
    assert 0.97 < asked / member.info["metrics"]["attempts"] <= 1  # the last to end are not scraped any more
    labels = [tuple(sorted(one.items())) for one, _, _ in member.metrics()]
    assert len(set(labels)) == len(labels)


# --- what cells have in common, and what not ------------------------------------------------------------------------


def test_a_fault_on_some_replicas_befalls_those_in_their_cells(tmp_path: Path) -> None:
    slow = {"slow": "chat/3-4", "from": "30s", "to": "60s", "factor": 50}
    simulate(made(faults=[slow, {"refuse": "chat", "share": 1, "from": "90s", "to": "91s"}]), 1, tmp_path)
    told = [(one["event"], one["target"], one.get("cell")) for one in events(tmp_path) if one["t_s"] in (30, 90)]
    assert told == [("fault_begins", "chat/3", 1), ("fault_begins", "chat/4", 2), ("fault_begins", "chat", None)]
    assert {one["name"] for one in events(tmp_path) if one["t_s"] == 30} == {"slow chat/3-4"}
    found = rows(tmp_path)
    met = found[(found["fault_stall_s"] > 0.01) & (found["sent_s"] < 80)]
    assert set(met["replica"].tolist()) == {3, 4}


def test_a_trace_is_dealt_out_row_by_row(tmp_path: Path) -> None:
    lines = [f"{k * 0.05:.2f},{10 + k % 7},{1 + k % 11}" for k in range(1200)]
    (tmp_path / "t.csv").write_text("timestamp,prompt_tokens,output_tokens\n" + "\n".join(lines) + "\n")
    replay = made(workload={"trace": str(tmp_path / "t.csv"), "cohorts": {"all": {}}})
    simulate(replay, 1, tmp_path / "run")
    found = rows(tmp_path / "run")
    found = found[np.argsort(found["request"] // 4)]
    assert (found["request"] // 4 == np.arange(1200)).all()
    assert found["scheduled_s"] == pytest.approx(np.arange(1200) * 0.05)
    assert found["prompt_tokens"].tolist() == [10 + k % 7 for k in range(1200)]
    assert np.bincount(found["request"] % 4).min() > 240


def test_bursts_are_at_the_same_times_in_every_cell_and_users_are_not() -> None:
    bursty = made("workload.arrivals={bursts: {rate_per_s: 60, mean_on: 10s, mean_off: 30s}}", "duration=1h")
    ours, theirs = (Cell(bursty, number, 1) for number in (0, 1))
    assert ours.scenario.workload == theirs.scenario.workload
    times = [np.concatenate([c["scheduled_s"] for c in one.users({}).chunks()]) for one in (ours, theirs)]
    assert not np.isin(*times).any()
    counted = [np.histogram(at_s, 360, (0, 3600))[0] for at_s in times]
    assert np.corrcoef(*counted)[0, 1] > 0.5
    one = np.concatenate([c["scheduled_s"] for c in workload.compile(bursty, 1).chunks()])
    assert sum(map(len, times)) * 2 == pytest.approx(len(one), rel=0.05)


def test_streams_of_cells_are_independent() -> None:
    cells = [Cell(made("duration=1h"), number, 1) for number in range(4)]
    counted = [
        np.histogram(np.concatenate([c["scheduled_s"] for c in one.users({}).chunks()]), 360)[0] for one in cells
    ]
    off = np.corrcoef(counted)[np.triu_indices(4, 1)]
    assert np.abs(off).max() < 4 / math.sqrt(360)
    assert len({one.seed for one in cells}) == 4
    assert Cell(made(), 0, 2).seed not in {one.seed for one in cells}


def test_what_is_said_of_the_whole_is_divided() -> None:
    whole = made(
        faults=[{"refuse": "chat", "above_per_s": 40, "burst": 8}],
        control=[
            {"autoscale": "chat", "target": 4, "min": 4, "max": 16},
            {"rollout": "chat", "at_once": 4},
            {"ramp": "chat", "from": 0, "to": "1m", "start_per_s": 4, "end_per_s": 8},
            {"health": "chat"},
        ],
        clients={"limit_per_s": 20, "retries": 1, "retry_budget": {"burst": 12}},
    )
    cell = Cell(whole, 2, 1).scenario
    refuse, (scale, rollout, ramp, health) = cell.faults[0], cell.control
    assert (cell.fleet.cells, cell.fleet.pools["chat"].replicas, cell.workload.rate_per_s) == (1, 2, 6)
    assert (refuse.above_per_s, refuse.burst, scale.min, scale.max) == (10, 2, 1, 4)  # type: ignore[union-attr]
    assert (rollout.at_once, ramp.start_per_s, ramp.end_per_s) == (1, 1, 2)  # type: ignore[union-attr]
    assert (cell.clients.limit_per_s, cell.clients.retry_budget.burst) == (5, 3)  # type: ignore[union-attr]
    assert health == whole.control[3]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fleet": {"cells": 3, "model": "llama-3.1-8b", "hardware": "h100", "replicas": 8}},
         "fleet.replicas: expected a multiple of fleet.cells (3), got 8"),
        ({"workload": {"rate_per_s": 1, "arrivals": {"gamma": {"cv": 2}}, "cohorts": {"a": ASK}}},
         "workload.arrivals.gamma: expected none with 4 fleet.cells: a gamma process that is split at random"),
        ({"workload": {"arrivals": {"closed": {"users": 6, "think": 1}}, "cohorts": {"a": ASK}}},
         "workload.arrivals.closed.users: expected a multiple of fleet.cells (4), got 6"),
        ({"quality": {}}, "quality: expected none with 4 fleet.cells, which would have it in common"),
        ({"control": [{"rollout": "chat", "at_once": 2}]},
         "control[0].at_once: expected a multiple of fleet.cells (4), got 2"),
        ({"clients": {"retry_budget": {"burst": 2}}},
         "clients.retry_budget.burst: expected at least fleet.cells (4), so that each has a token, got 2"),
        ({"control": [{"python": "statistics:mean"}]}, "control[0].python: expected none with 4 fleet.cells"),
    ],
)  # fmt: skip
def test_what_does_not_divide_is_refused_with_its_place(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError) as error:
        made(**settings)
    assert said in str(error.value)
    assert str(error.value).startswith("scenario.yaml:1: ")


def test_zones_are_those_of_the_whole_fleet() -> None:
    zone = [{"stop": "chat/zone-1", "from": "10s"}]
    assert Cell(made("fleet.pools.chat.zones=2", faults=zone), 3, 1).scenario.faults[0].stop == "chat/zone-1"  # type: ignore[union-attr]
    with pytest.raises(ScenarioError, match="multiple of 4 fleet.cells times 8 zones of replicas, got 8"):
        made("fleet.pools.chat.zones=8", faults=zone)


def test_a_cell_that_cannot_keep_up_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.engine.fleet.LIVE_MAX", 1 << 12)
    (tmp_path / "run").mkdir()
    with pytest.raises(RunError, match=r"cell 0: OVERLOADED.*4 of 4 runs"):
        play(made("workload.rate_per_s=4000"), tmp_path / "run", workers=1)
    assert Run.open(tmp_path / "run").members == []


def test_as_a_user_types_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_text(json.dumps(service()))
    for words in (["run", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "run")], ["why", str(tmp_path / "run")]):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert not end.value.code
    out = capsys.readouterr().out
    assert "the fleet is 4 cells, each with its own router, replicas (2 of chat) and 1/4 of the users" in " ".join(
        out.split()
    )
    assert (tmp_path / "run" / "report.html").exists()


def test_ten_million_users_per_hour_says_what_it_shows() -> None:
    """Two of its cells, at the peak: claims need the whole day."""
    shipped = scenario.load("ten-million-users-per-hour")
    (pool,) = shipped.fleet.pools.values()
    assert pool.replicas == 432
    assert pool.replicas % shipped.fleet.cells == 0
    assert shipped.workload.rate_per_s == pytest.approx(24 * 1e7 / 86_400, rel=1e-4)
    assert not {text.split()[0] for text in shipped.claims.values()} - known_metrics(shipped)
    cell = scenario.load(
        "ten-million-users-per-hour",
        ["claims={}", "duration=2m", "warmup=30s", "workload.arrivals.diurnal.peak_at=1m", "fleet.cells=2",
         "fleet.pools.chat.replicas=48", "workload.rate_per_s=308.64"],
    )  # fmt: skip
    metrics = simulate(cell, 1).metrics
    assert metrics["requests"] == pytest.approx(2 * 308.64 * 120, rel=0.02)
    assert metrics["wrong_per_min_mean"] == pytest.approx(2 * 308.64 * 60 / 100, rel=0.1)
    assert metrics["ttft_p99"] <= 2
    assert metrics["errors"] == 0
