"""Real files of other tools: an imported run has the latencies that the tool itself printed for the same requests.

`tests/imports/README.md` says how each file was made. Three requests of each run against `blowout serve` were spoiled:
a 503, a stream that was cut, and a 429.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.imports import folder, read
from loadtest.imports.requests import Request
from sim.records import Outcome
from sim.results import Run

SAMPLES = Path(__file__).parent / "imports"
ALL = sorted(one.name for one in SAMPLES.iterdir() if one.suffix in {".json", ".jsonl"} and ".printed" not in one.name)
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Printed:
    """What a tool printed of a latency: seconds by percentile, to within *rounded_s*, and how it takes percentiles."""

    seconds: dict[int, float]
    rounded_s: float
    percentile: Callable[[np.ndarray, float], Any] = np.percentile


def by_steps(values: np.ndarray, p: float) -> Any:
    """Return a percentile as GuideLLM does (`Percentiles.from_pdf`): no value between two, and rounding in the sum."""
    return np.sort(values)[np.searchsorted(np.cumsum(np.full(len(values), 1 / len(values))), p / 100)]


def vllm_bench(name: str) -> dict[str, Printed]:
    text = (SAMPLES / name).with_suffix(".printed.txt").read_text()
    names = {"ttft": "TTFT", "e2e": "E2EL", "tpot": "TPOT", "itl": "ITL", "wait": "Client Queue Time"}
    said = {
        ours: dict(re.findall(rf"^P(\d+) {theirs} \(ms\): +([\d.]+)$", text, re.MULTILINE))
        for ours, theirs in names.items()
    }
    return {
        ours: Printed({int(p): float(ms) * 1e-3 for p, ms in found.items()}, 0.0051e-3)
        for ours, found in said.items()
        if found
    }


def guidellm(name: str) -> dict[str, Printed]:
    (benchmark,) = json.loads((SAMPLES / name).read_text())["benchmarks"]
    names = {
        "ttft": ("time_to_first_token_ms", 1e-3),
        "e2e": ("request_latency", 1.0),
        "wait": ("request_dispatch_delay", 1.0),
        "e2e_due": ("request_scheduled_latency", 1.0),
    }
    return {
        ours: Printed({p: found["successful"]["percentiles"][f"p{p}"] * unit for p in PERCENTILES}, 1e-6, by_steps)
        for ours, (theirs, unit) in names.items()
        if (found := benchmark["metrics"].get(theirs))
    }


def aiperf(name: str) -> dict[str, Printed]:
    said = json.loads((SAMPLES / name).with_suffix(".printed.json").read_text())
    names = {"ttft": "time_to_first_token", "e2e": "request_latency", "itl": "inter_chunk_latency"}
    if "serve" in name:  # vLLM closes its streams later than the last token, and this latency goes on until then
        names["e2e_due_of_all"] = "effective_latency"
    return {
        ours: Printed({p: said[theirs][f"p{p}"] * 1e-3 for p in PERCENTILES}, 1e-6) for ours, theirs in names.items()
    }


def printed(name: str) -> dict[str, Printed]:
    return {"vllm": vllm_bench, "guidellm": guidellm, "aiperf": aiperf}[name.partition("-")[0]](name)


def imported(name: str, tmp_path: Path) -> tuple[list[Request], np.ndarray, Run]:
    found = read.read(SAMPLES / name, None, {})
    run = folder.write(found, SAMPLES / name, None, tmp_path / "run", ["blowout", "import", name])
    table = run.members[0].attempts()
    columns = ("outcome", "scheduled_s", "sent_s", "first_token_s", "finished_s", "prompt_tokens", "output_tokens")
    rows = np.rec.fromarrays([table[one].to_numpy() for one in columns], names=",".join(columns))
    return found.requests, rows, run


def measured(requests: list[Request], rows: Any) -> dict[str, np.ndarray]:
    """Return every latency, as the tools define them, of the rows of a run."""
    good = rows[rows.outcome == Outcome.OK]
    many = good[good.output_tokens > 1]
    return {
        "ttft": good.first_token_s - good.sent_s,
        "e2e": good.finished_s - good.sent_s,
        "tpot": (many.finished_s - many.first_token_s) / (many.output_tokens - 1),
        "itl": np.concatenate([one.gaps_s for one in requests]),
        "wait": good.sent_s - good.scheduled_s,
        "e2e_due": good.finished_s - good.scheduled_s,
        "e2e_due_of_all": rows.finished_s - rows.scheduled_s,
    }


@pytest.mark.parametrize("name", ALL)
def test_an_imported_run_has_the_percentiles_that_the_tool_printed(name: str, tmp_path: Path) -> None:
    requests, rows, _ = imported(name, tmp_path)
    ours = measured(requests, rows)
    said = printed(name)
    assert {"ttft", "e2e"} <= set(said)
    for metric, one in said.items():
        assert one.seconds.keys() == set(PERCENTILES)
        for p, seconds in one.seconds.items():
            found = float(one.percentile(ours[metric], p))
            assert found == pytest.approx(seconds, abs=one.rounded_s, rel=1e-6), (metric, p)


@pytest.mark.parametrize("name", ALL)
def test_its_summary_counts_from_when_requests_were_due(name: str, tmp_path: Path) -> None:
    requests, rows, run = imported(name, tmp_path)
    metrics = run.members[0].info["metrics"]
    good = rows[rows.outcome == Outcome.OK]
    ours = {
        "ttft": good.first_token_s - good.scheduled_s,
        "e2e": good.finished_s - good.scheduled_s,
        "tpot": measured(requests, rows)["tpot"],
        "itl": np.concatenate([one.gaps_s for one in requests]),
    }
    for metric, values in ours.items():
        for p in PERCENTILES if len(values) else ():
            low, high = (float(np.percentile(values, p, method=side)) for side in ("lower", "higher"))
            found = metrics[f"{metric}_p{p}"]
            assert low / 1.011 <= found <= max(high, 1e-5) * 1.011, (metric, p)


@pytest.mark.parametrize("name", [one for one in ALL if "serve" in one])
def test_what_failed_has_the_status_that_the_client_saw(name: str, tmp_path: Path) -> None:
    requests, rows, _ = imported(name, tmp_path)
    assert len(requests) == 24
    assert sorted(one.status for one in requests if not one.ok) == [429, 502, 503]
    ended = np.bincount(rows.outcome, minlength=len(Outcome))
    assert ended[[Outcome.OK, Outcome.REJECTED, Outcome.FAILED]].tolist() == [21, 1, 2]


def test_waiting_for_ones_turn_is_no_delay(tmp_path: Path) -> None:
    """Where the next request starts when one is done, GuideLLM's target is no schedule: it prints no delay itself."""
    _, rows, _ = imported("guidellm-0.8-vllm.json", tmp_path)
    assert (rows.scheduled_s == rows.sent_s).all()
    data = json.loads((SAMPLES / "vllm-bench-0.32-serve.json").read_text())
    for rate, waits_s in ((6.0, 0.1), ("inf", 0.0)):
        (tmp_path / "v.json").write_text(json.dumps(data | {"request_rate": rate, "queue_times": [0.1] * 24}))
        waited = [one.sent_s - one.scheduled_s for one in read.read(tmp_path / "v.json", None, {}).requests]
        assert np.nan_to_num(waited) == pytest.approx(waits_s)


def test_aiperfs_own_count_of_tokens_gives_way_to_the_servers(tmp_path: Path) -> None:
    _, rows, run = imported("aiperf-0.13-serve.jsonl", tmp_path)
    said = json.loads((SAMPLES / "aiperf-0.13-serve.printed.json").read_text())
    good = rows[rows.outcome == Outcome.OK]
    assert good.output_tokens.mean() == pytest.approx(said["usage_completion_tokens"]["avg"])
    # its inter token latency divides by the 43 tokens that its tokenizer finds where the server made 18
    assert run.members[0].info["metrics"]["tpot_p50"] > 2 * said["inter_token_latency"]["p50"] * 1e-3
    notes = " ".join(run.members[0].info["notes"])
    assert "2 requests of the warm-up are left out" in notes
    assert "of 21 answers AIPerf's own tokenizer finds another number" in notes
    lines = [json.loads(line) for line in (SAMPLES / "aiperf-0.13-serve.jsonl").read_text().splitlines()]
    for line in lines:
        line["metrics"] = {k: v for k, v in line["metrics"].items() if not k.startswith("usage")}
    (tmp_path / "no-usage.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    bare = [one for one in read.read(tmp_path / "no-usage.jsonl", None, {}).requests if one.ok]
    assert [one.output_tokens for one in bare] == [
        line["metrics"]["output_sequence_length"]["value"] for line in lines[2:] if "error" not in line
    ]


def test_an_access_log_of_nginx_agrees_with_the_tool_whose_requests_it_passed_on(tmp_path: Path) -> None:
    """The same 24 requests, seen by nginx and by vllm bench; nginx takes a stream that was cut for whole."""
    theirs, rows, run = imported("vllm-bench-0.32-serve.json", tmp_path / "bench")
    through, _, logged = imported("nginx-1.22.csv", tmp_path / "nginx")
    pairs = list(zip(*(sorted(some, key=lambda one: one.sent_s) for some in (theirs, through)), strict=True))
    assert {(a.status, b.status) for a, b in pairs} == {(200, 200), (503, 503), (429, 429), (502, 200)}
    took_s = np.array([(a.finished_s - a.sent_s, b.finished_s - b.sent_s) for a, b in pairs if a.ok])
    assert ((took_s[:, 0] - took_s[:, 1] > -1e-3) & (took_s[:, 0] - took_s[:, 1] < 10e-3)).all()
    metrics = logged.members[0].info["metrics"]
    assert metrics["e2e_p50"] == pytest.approx(np.median(took_s[:, 1]), rel=0.1)
    assert {metrics[name] for name in ("ttft_p50", "tpot_p50", "itl_p50", "throughput_tokens_per_s")} == {None}
    assert len(rows) == 24
    assert run.info["imported"]["tool"] == "vllm-bench"


@pytest.mark.parametrize("path", sorted(SAMPLES.iterdir()), ids=lambda one: one.name)
def test_no_sample_tells_of_the_machine_it_was_made_on(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"/(?:tmp|root|home|usr|work)/", text) == []
    assert set(re.findall(r"https?://([^\s:/\"']+)", text)) <= {"127.0.0.1"}
