"""What a Prometheus sees of a run: laws of its series, what crashes do to them, and the real promtool."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cli import main
from sim.records import Outcome
from sim.scenario import loads
from sim.series import NAME, STALE_BITS, SeriesSet, is_stale
from sim.spool import NOTHING, Spool
from sim.telemetry import FAMILIES
from sim.world import World
from tests.swarm import Case, cases, play

SMALL = """\
name: small
duration: 10m
drain: 30s
fleet: {kv_blocks: 60, max_num_seqs: 8, replicas: 2, step_time: {linear: {base: 10ms, per_sequence: 1ms}}}
workload:
  rate_per_s: 5
  cohorts:
    short: {share: 50%, prompt_tokens: 20, output_tokens: {exponential: {mean: 20}}, error: 10%}
    long: {share: 50%, prompt_tokens: {lognormal: {median: 100, sigma: 1}}, output_tokens: 60}
telemetry: {labels: {namespace: prod, pod: "vllm-{pool}-{replica}"}, evaluate: 100%}
"""
CRASH = (
    "faults=[{stop: main/1, from: 100s, to: 200s}, {stop: main/1, from: 301s, to: 304s}, "
    "{stop: main/0, from: 400s, to: 461s, how: hang}]"
)
QUIET_AT_THE_END = [
    "workload.rate_per_s=null",
    "workload.arrivals={piecewise: [{at: 0, rate_per_s: 5}, {at: 9m, rate_per_s: 1e-9}]}",
]


def played(*options: str) -> tuple[World, SeriesSet]:
    world = World(loads(SMALL, overrides=options), 1)
    world.run_to_end()
    return world, world.spool.series()


def find(series: SeriesSet, name: str, **labels: str) -> tuple[np.ndarray, np.ndarray]:
    """The one series with *name* and *labels*: its times in seconds and its values."""
    (found,) = [(t_ms / 1000, values) for one, t_ms, values in series if {**one, **labels, NAME: name} == one]
    return found


def total(series: SeriesSet, name: str, **labels: str) -> float:
    """The sum over all series with *name* and *labels* of their last values."""
    return sum(float(values[-1]) for one, _, values in series if {**one, **labels, NAME: name} == one)


# --- laws -------------------------------------------------------------------------------------------------------------


def test_counters_grow_from_0_and_buckets_hold_all_below_them() -> None:
    _, series = played()
    counters = {name for family in FAMILIES if family.kind != "gauge" for name in family.names}
    histograms: dict[tuple[str, ...], list[np.ndarray]] = {}
    for labels, t_ms, values in series:
        assert t_ms.tolist() == list(range(0, t_ms[-1] + 1, 15_000))
        if labels[NAME] in counters:
            assert values[0] == 0
            assert (np.diff(values) >= 0).all(), labels
        if labels[NAME].endswith("_bucket"):
            own = labels[NAME], labels["instance"]
            histograms.setdefault(own, []).append(values)
    for (name, instance), buckets in histograms.items():
        assert (np.diff(buckets, axis=0) >= 0).all()
        count = find(series, name.replace("_bucket", "_count"), instance=instance)[1]
        assert (buckets[-1] == count).all()
    assert {labels[NAME] for labels, _, _ in series} == {name for family in FAMILIES for name in family.names}


def test_sums_are_those_of_the_rows() -> None:
    world, series = played(*QUIET_AT_THE_END)
    rows = np.concatenate(world.kept)
    ok = rows[rows["outcome"] == Outcome.OK]
    assert len(ok) == total(series, "gateway_requests_total", code="200")
    assert len(rows) - len(ok) == total(series, "gateway_requests_total", code="400") < 30
    assert total(series, "vllm:num_preemptions_total") == rows["preemptions"].sum() > 10
    for name in ("e2e_request_latency", "time_to_first_token", "request_queue_time"):
        assert total(series, f"vllm:{name}_seconds_count") == len(ok)
    for name, end in (
        ("e2e_request_latency", "finished_s"),
        ("time_to_first_token", "first_token_s"),
        ("request_queue_time", "admitted_s"),
    ):
        assert total(series, f"vllm:{name}_seconds_sum") == pytest.approx((ok[end] - ok["sent_s"]).sum())
    assert total(series, "vllm:inter_token_latency_seconds_count") == (ok["output_tokens"] - 1).sum()
    gaps_s = (ok["finished_s"] - ok["first_token_s"]).sum()
    assert total(series, "vllm:inter_token_latency_seconds_sum") == pytest.approx(gaps_s)  # preemptions included
    assert total(series, "vllm:generation_tokens_total") == ok["output_tokens"].sum()
    assert total(series, "vllm:prompt_tokens_total") == ok["prompt_tokens"].sum()
    assert total(series, "vllm:request_success_total") == len(ok)
    assert total(series, "gateway_request_duration_seconds_sum") == pytest.approx(
        (rows["finished_s"] - rows["sent_s"]).sum()
    )
    assert total(series, "llm_eval_score_count") == len(ok)
    assert len(ok) - total(series, "llm_eval_score_sum") == ok["wrong"].sum() > 10
    for outcome in Outcome:
        assert total(series, "llm_tasks_total", outcome=outcome.name.lower()) == (rows["outcome"] == outcome).sum()
    below = total(series, "vllm:e2e_request_latency_seconds_bucket", le="1.5")
    assert below == (ok["finished_s"] - ok["sent_s"] <= 1.5).sum()


def test_attempts_that_were_refused_and_given_up_have_their_codes() -> None:
    options = [
        "fleet.admission={max_queue: 2}",
        "clients.timeout=900ms",
        "faults=[{refuse: main/0, share: 10%, status: 529}]",
    ]
    world, series = played(*options, *QUIET_AT_THE_END, "clients.retries=2")
    rows = np.concatenate(world.kept)
    for code in (200, 400, 429, 499, 502, 503, 529):
        assert total(series, "gateway_requests_total", code=str(code)) == (rows["status"] == code).sum()
    assert min((rows["status"] == code).sum() for code in (200, 429, 499, 529)) > 5


@settings(max_examples=settings().max_examples // 4)
@given(case=cases(), cuts=st.lists(st.floats(0, 1), max_size=10))
def test_counting_leaves_no_trace_and_leaping_counts_the_same(case: Case, cuts: list[float]) -> None:
    bare = play(case, cuts=cuts)
    leaping, walking = (play(case, cuts=cuts, leap=on, metered=True, evaluate=0.5) for on in (True, False))
    assert bare.bytes() == leaping.bytes() == walking.bytes()
    a, b = (one.fleet.read_meters() for one in (leaping, walking))
    for name in a.dtype.names:
        assert np.allclose(a[name], b[name], rtol=1e-9, atol=1e-9), name
        assert name.endswith("_s") or (a[name] == b[name]).all(), name
    assert leaping.fleet.gates.tobytes() == walking.fleet.gates.tobytes()
    assert not bare.fleet.meters.ttft.any()
    assert not bare.fleet.meters.itl.any()


def test_a_scrape_sees_the_steps_within_a_stretch() -> None:
    """Half-way through one long answer its tokens so far are counted, leaping or not, and looking changes nothing."""
    world = World(loads(SMALL, overrides=["workload.rate_per_s=1e-9"]), 1)
    fleet, asks = world.fleet, np.zeros(1, world.fleet.inbox.dtype)
    asks["session"] = asks["follow_up"] = asks["prefix"] = -1
    asks["prompt_tokens"], asks["output_tokens"] = 4, 500
    fleet.submit(asks)
    fleet.advance(2.0)
    read, again = fleet.read_meters(), fleet.read_meters()
    assert read.tobytes() == again.tobytes()
    assert fleet.reps.steps_planned.max() > 100
    assert read.itl.sum() == read.output_tokens.sum() - 1 == fleet.look()["output_tokens"].sum() - 1 > 100


# --- when processes come and go ---------------------------------------------------------------------------------------


def test_a_crash_ends_series_and_a_return_begins_them_again() -> None:
    _, series = played(CRASH)
    t_s, up = find(series, "up", instance="main-1:8000")
    assert (up == ((t_s < 100) | (t_s >= 200))).all()
    t_s, tokens = find(series, "vllm:generation_tokens_total", instance="main-1:8000")
    assert t_s[is_stale(tokens)].tolist() == [105.0]
    assert not ((t_s > 105) & (t_s < 200)).any()
    before, back = tokens[t_s == 90], tokens[t_s == 210]
    assert 0 < back < before
    assert tokens[t_s == 315] < tokens[t_s == 300], "a short crash between two scrapes is a reset and no gap"
    assert not any(is_stale(values).any() for labels, _, values in series if labels["instance"] != "main-1:8000")


def test_a_hanging_engine_shows_what_it_last_knew() -> None:
    _, series = played(CRASH)
    for name in ("vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:generation_tokens_total"):
        t_s, values = find(series, name, instance="main-0:8000")
        assert len(set(values[(t_s > 405) & (t_s < 461)].tolist())) == 1
    assert values[t_s == 480] > values[t_s == 450]
    assert find(series, "up", instance="main-0:8000")[1].all()
    gap = find(series, "vllm:inter_token_latency_seconds_bucket", instance="main-0:8000", le="40.0")[1][-1]
    assert find(series, "vllm:inter_token_latency_seconds_count", instance="main-0:8000")[1][-1] - gap > 0


def test_a_spare_is_no_target_until_it_is_needed() -> None:
    _, series = played("fleet.max_replicas=3")
    assert {labels["instance"] for labels in series.labels} == {"main-0:8000", "main-1:8000", "gateway:9090"}


def test_labels_go_where_they_belong() -> None:
    _, series = played()
    (up,) = [labels for labels in series.labels if labels[NAME] == "up" and labels["instance"] == "main-1:8000"]
    assert up == {NAME: "up", "job": "vllm", "instance": "main-1:8000", "namespace": "prod", "pod": "vllm-main-1"}
    assert all(("pod" in labels) == (labels["job"] == "vllm") for labels in series.labels)
    assert all(labels["namespace"] == "prod" for labels in series.labels)


def test_without_telemetry_nothing_is_kept() -> None:
    world, series = played("telemetry=none")
    assert len(series) == 0
    assert not world.fleet.meters.view(np.int64).any()


# --- on disk, and in a real Prometheus --------------------------------------------------------------------------------


def test_what_is_spooled_comes_back_bit_for_bit(tmp_path: Path) -> None:
    values = np.arange(20.0).reshape(5, 4)
    values[1:3, 1] = NOTHING
    values[3, 2] = np.array([STALE_BITS], np.uint64).view(float)[0]
    values[:, 3] = NOTHING
    for folder in (None, tmp_path):
        spool = Spool([{NAME: name} for name in "abcd"], folder)
        spool.add(np.array([0.0, 0.5]), values[:2])
        spool.add(np.array([1.0, 1.5, 2.0]), values[2:])
        spool.series().write(tmp_path / "s.parquet")
        back = SeriesSet.read(tmp_path / "s.parquet")
        assert [one[NAME] for one in back.labels] == ["a", "b", "c"]
        assert back.t_ms[1].tolist() == [0, 1500, 2000]
        known = [values[:, 0], values[[0, 3, 4], 1], values[:, 2]]
        assert [one.tobytes() for one in back.values] == [one.tobytes() for one in known]
        assert is_stale(back.values[2]).tolist() == [False, False, False, True, False]


Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type a command in a folder that holds ``small.yaml``; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(words)
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return typed


SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)\{((?:\w+="[^"]*",?)*)\} (\S+) (\d+\.\d{3})')


def held(series: SeriesSet) -> dict[tuple[tuple[str, str], ...], list[tuple[int, float]]]:
    """Every sample that is no stale marker, by labels."""
    found = {}
    for labels, t_ms, values in series:
        some = ~is_stale(values)
        found[tuple(sorted(labels.items()))] = list(zip(t_ms[some].tolist(), values[some].tolist()))
    return found


def test_the_text_says_what_we_hold(typed: Typed) -> None:
    run = ("run", "small.yaml", "--no-figures", "--set", CRASH, "--out", "r")
    assert typed(*run)[0] == 0
    code, out, err = typed("export-metrics", "r")
    assert (code, err) == (0, "")
    *lines, end = out.splitlines()
    assert end == "# EOF"
    found: dict[Any, list[tuple[int, float]]] = {}
    types = [line.split()[2:] for line in lines if line.startswith("# TYPE")]
    assert types == [[family.name, family.kind] for family in FAMILIES]
    for line in lines:
        if not line.startswith("#"):
            name, labels, value, at = SAMPLE.fullmatch(line).groups()  # type: ignore[union-attr]
            pairs = re.findall(r'(\w+)="([^"]*)"', labels)
            found.setdefault(tuple(sorted([(NAME, name), *pairs])), []).append((round(float(at) * 1000), float(value)))
    assert found == held(SeriesSet.read(Path("r/metrics.parquet")))
    assert typed("export-metrics", "r", "--out", "a.om") == (0, "", "")
    assert Path("a.om").read_text() == out


def test_a_real_prometheus_takes_in_the_same(typed: Typed) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool here (Debian package prometheus)")
    typed("run", "small.yaml", "--no-figures", "--set", CRASH, "--out", "r")
    typed("export-metrics", "r", "--out", "a.om")
    subprocess.run(["promtool", "tsdb", "create-blocks-from", "openmetrics", "a.om", "data"], check=True, timeout=60)
    Path("data/wal").mkdir()  # promtool 2.42 reads none without
    dump = subprocess.run(["promtool", "tsdb", "dump", "data"], check=True, timeout=60, capture_output=True, text=True)
    found: dict[Any, list[tuple[int, float]]] = {}
    for line in dump.stdout.splitlines():
        labels, _, sample = line.rpartition("} ")
        value, at = sample.split()
        pairs = tuple(sorted(re.findall(r'(\w+)="([^"]*)"', labels)))
        found.setdefault(pairs, []).append((int(at), float(value)))
    assert found == held(SeriesSet.read(Path("r/metrics.parquet")))


def test_mistakes_are_told(typed: Typed) -> None:
    typed("run", "small.yaml", "--no-figures", "--set", "telemetry=none", "--out", "bare")
    code, out, err = typed("export-metrics", "bare")
    assert (code, out) == (2, "")
    assert "bare/metrics.parquet: not written by this run, its scenario says `telemetry: none`" in err
    typed("run", "small.yaml", "--no-figures", "--set", "duration=30s", "--seeds", "2", "--out", "two")
    code, _, err = typed("export-metrics", "two")
    assert code == 2
    assert "two: 2 points and seeds, expected the folder of one, such as two/point-0/seed-1 (" in err
    assert typed("export-metrics", "two/point-0/seed-1", "--out", "a.om")[0] == 0
    code, _, err = typed("check", "small.yaml", "--set", "telemetry={labels: {le: x}}")
    assert code == 2
    assert "expected other labels than le, code, engine, finished_reason, outcome" in err
