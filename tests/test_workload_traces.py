"""Recorded traffic is replayed as it was, and a wrong row is named."""

import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from sim import workload
from sim.errors import TraceError
from sim.records import ATTEMPT, Outcome
from sim.scenario import Scenario, loads
from sim.workload.lengths import MAX_TOKENS

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""
MOONCAKE = """{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}
{"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46, 47, 48]}

{"timestamp": 30535, "input_length": 10, "output_length": 1, "hash_ids": []}
"""


def scenario(file: Path, duration: Any = "1h", cohort: dict[str, Any] | None = None, **trace: Any) -> Scenario:
    users = {"trace": {"file": str(file), **trace}, "cohorts": {"all": cohort or {}}}
    fleet = {"model": "m", "hardware": "h"}
    return loads(json.dumps({"name": "x", "duration": duration, "fleet": fleet, "workload": users}))


def written(folder: Path, text: str, name: str = "trace.csv") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def rows(made: Scenario, size: int = workload.CHUNK) -> np.ndarray:
    return np.concatenate(list(workload.compile(made, 1).chunks(size)))


def asked(found: np.ndarray) -> list[tuple[float, int, int]]:
    return [(round(s, 9), p, o) for s, p, o in found[["scheduled_s", "prompt_tokens", "output_tokens"]].tolist()]


def refusal(made: Scenario) -> str:
    with pytest.raises(TraceError) as error:
        workload.compile(made, 1)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_azure_trace_begins_at_zero_and_keeps_its_gaps(tmp_path: Path) -> None:
    found = rows(scenario(written(tmp_path, AZURE)))
    assert asked(found) == [(0.0, 374, 44), (4.314579, 396, 109), (4.541877, 879, 55)]
    assert found["request"].tolist() == [0, 1, 2]
    assert (found["session"] == -1).all()
    assert (found["follow_up"] == -1).all()


def test_a_mooncake_trace_is_in_milliseconds_and_keeps_its_hashes(tmp_path: Path) -> None:
    users = workload.compile(scenario(written(tmp_path, MOONCAKE, "trace.jsonl")), 1)
    assert asked(next(users.chunks())) == [(0.0, 6955, 52), (3.053, 6472, 26), (3.053, 10, 1)]
    assert users.trace.extra["hash_ids"].to_pylist() == [[46, 47], [46, 47, 48], []]  # type: ignore[attr-defined]
    assert (users.max_prompt_tokens, users.max_output_tokens, users.expected_requests) == (6955, 52, 3.0)


GATEWAY = [(0.0, 10, 1), (1.5, 20, 2), (3.0, 30, 3)]


@pytest.mark.parametrize(
    ("stamps", "trace"),
    [
        (["0", "1.5", "3"], {}),
        (["1700000000.0", "1700000001.5", "1700000003"], {}),
        (["2024-05-01T10:00:00", "2024-05-01T10:00:01.5", "2024-05-01 10:00:03.000000000"], {}),
        (["2024-05-01T10:00:00Z", "2024-05-01T12:00:01.5+02:00", "2024-05-01T10:00:03Z"], {}),
        (["1700000000000", "1700000001500", "1700000003000"], {"time_scale": 0.001}),
        (["0", "3", "6"], {"time_scale": 0.5}),
    ],
)
def test_a_gateways_times_may_be_seconds_or_dates(tmp_path: Path, stamps: list[str], trace: dict[str, Any]) -> None:
    text = "timestamp,prompt_tokens,output_tokens,who\n"
    text += "".join(f"{stamp},{10 * i},{i},x\n" for i, stamp in enumerate(stamps, 1))
    for form in (text, "\ufeff" + text.replace("\n", "\r\n"), text.replace(",", ";"), text.replace(",", "\t")):
        assert asked(rows(scenario(written(tmp_path, form), **trace))) == GATEWAY
    with gzip.open(tmp_path / "packed.csv.gz", "wt") as packed:
        packed.write(text)
    assert asked(rows(scenario(tmp_path / "packed.csv.gz", **trace))) == GATEWAY
    lines = [{"timestamp": float(s) if s[0] != "2" else s, "prompt_tokens": 10 * i, "output_tokens": i}
             for i, s in enumerate(stamps, 1)]  # fmt: skip
    file = written(tmp_path, "\n".join(map(json.dumps, lines)), "log.jsonl")
    assert asked(rows(scenario(file, **trace))) == GATEWAY


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        ("arrival_s,x,input_tokens,completion_tokens", {}),
        ("arrived_at,x,num_prefill_tokens,num_decode_tokens", {}),
        ("when,x,in,out", {"columns": {"timestamp": "when", "prompt_tokens": "in", "output_tokens": "out"}}),
        ("TIMESTAMP,x,in,GeneratedTokens", {"format": "azure", "columns": {"prompt_tokens": "in"}}),
        ("timestamp,x,in,output_tokens", {"format": "csv", "columns": {"prompt_tokens": "in"}}),
    ],
)
def test_columns_are_recognised_or_named(tmp_path: Path, header: str, trace: dict[str, Any]) -> None:
    text = header + "\n0,a,10,1\n1.5,b,20,2\n3,c,30,3\n"
    assert asked(rows(scenario(written(tmp_path, text), **trace))) == GATEWAY


def test_a_trace_repeats_after_its_span_and_one_mean_gap_until_the_run_ends(tmp_path: Path) -> None:
    file = written(tmp_path, "timestamp,prompt_tokens,output_tokens\n5,1,1\n6,2,2\n8,3,3\n")
    made = scenario(file, duration=11, repeat=True)
    found = rows(made)
    np.testing.assert_allclose(found["scheduled_s"], [0, 1, 3, 4.5, 5.5, 7.5, 9, 10])
    assert found["prompt_tokens"].tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    assert found["request"].tolist() == list(range(8))
    assert workload.compile(made, 1).expected_requests == 8
    np.testing.assert_array_equal(rows(made, size=2), found)
    assert len(rows(scenario(file, duration=2.5, repeat=True))) == 2


def test_the_run_may_end_before_the_trace_and_the_trace_before_the_run(tmp_path: Path) -> None:
    short = workload.compile(scenario(written(tmp_path, AZURE), duration=4.4), 1)
    assert len(next(short.chunks())) == 2
    assert short.notes == ()
    long = workload.compile(scenario(written(tmp_path, AZURE), duration=100), 1)
    assert long.notes == ("the trace ends at 4.5419 s of 100 s; nobody comes after that",)


def test_a_cohort_gives_a_trace_its_priority_and_its_errors(tmp_path: Path) -> None:
    text = "timestamp,prompt_tokens,output_tokens\n" + "".join(f"{i},5,0\n" for i in range(1000))
    users = workload.compile(scenario(written(tmp_path, text), cohort={"priority": 2, "error": "20%"}), 1)
    found = next(users.chunks())
    assert (found["level"] == 2).all()
    assert 140 < found["wrong"].sum() < 260
    assert (found["output_tokens"] == 1).all()
    assert users.notes[0] == "1000 of 1000 traced requests have 0 output tokens and are played with 1"


def test_sessions_are_left_aside_with_a_note(tmp_path: Path) -> None:
    users = {"trace": str(written(tmp_path, AZURE)), "sessions": {"turns": 3, "think": 1}}
    document = {"name": "x", "duration": 4.6, "fleet": {"model": "m", "hardware": "h"}, "workload": users}
    replay = workload.compile(loads(json.dumps(document)), 1)
    assert replay.notes == ("workload.sessions is left aside: the trace says who comes, and when",)


HEADER = "timestamp,prompt_tokens,output_tokens\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        (HEADER, "has no rows"),
        ("when,prompt_tokens,output_tokens\n1,2,3\n", "no column 'timestamp'; it has 'when', 'prompt_tokens'"),
        ("a,b\n1,2\n", "no column 'timestamp' and no column 'prompt_tokens' and no column 'output_tokens'; it has 'a'"),
        (HEADER + "1,2,3\n0.5,2,3\n", "row 2 (line 3), column 'timestamp': 0.5 is earlier than 1 in the row above"),
        (HEADER + "1,2,3\n,2,3\n", "row 2 (line 3), column 'timestamp': is empty; expected a number of seconds"),
        (HEADER + "1,2,3\nnan,2,3\n", "row 2 (line 3), column 'timestamp': 'nan'; expected a number of seconds"),
        (HEADER + "1,2,3\n2,-2,3\n", "row 2 (line 3), column 'prompt_tokens': '-2'; expected a whole number of tokens"),
        (HEADER + "1,2,3\n2,2,\n", "row 2 (line 3), column 'output_tokens': is empty; expected a whole number"),
        (HEADER + "1,2,3\n2,2,3.5\n", "row 2 (line 3), column 'output_tokens': '3.5'; expected a whole number"),
        (HEADER + "1,2,3\n2,2,many\n", "row 2 (line 3), column 'output_tokens': 'many'; expected a whole number"),
        (HEADER + f"1,2,{MAX_TOKENS + 1}\n", "row 1 (line 2), column 'output_tokens': '10000001'; expected"),
        (HEADER + "1,2,3\n2,2\n", "line 3: 2 values; expected 3"),
        (HEADER + "2024-05-01T10:00:00,2,3\nlater,2,3\n", "column 'timestamp': 'later'; expected a date and time"),
        (
            HEADER + "2024-05-01T10:00:00,2,3\n2024-05-01T10:00:01Z,2,3\n",
            "expected a time zone in every row or in none",
        ),
        (
            HEADER + "2024-05-01T10:00:00,2,3\n2024-04-01T10:00:00,2,3\n",
            "is earlier than 2024-05-01T10:00:00 in the row",
        ),
        (HEADER + "soon,2,3\n", "row 1 (line 2), column 'timestamp': 'soon'; expected a number of seconds"),
        (HEADER + "1700000000000,2,3\n", "too large for seconds since 1970; if it counts finer units, say so"),
    ],
)
def test_a_wrong_csv_is_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    file = written(tmp_path, text)
    sentence = refusal(scenario(file))
    assert sentence.startswith(str(file))
    assert said in sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("[1]\n", "line 1: expected a JSON object"),
        ('{"timestamp": 1, "input_length": 2}\n', "no column 'output_tokens'; it has 'timestamp', 'input_length'"),
        (MOONCAKE + "{oops\n", "line 5: is not JSON"),
        (
            MOONCAKE + '{"timestamp": 1, "input_length": 2, "output_length": 3}\n',
            "row 4 (line 5), column 'timestamp': 1 is",
        ),
        (MOONCAKE + '{"timestamp": 99999, "input_length": 2}\n', "row 4 (line 5), column 'output_length': is empty"),
        (MOONCAKE + '{"timestamp": 99999, "input_length": 2, "output_length": -3}\n', "'output_length': -3; expected"),
        (
            MOONCAKE + '{"timestamp": 99999, "input_length": 2, "output_length": 3.5}\n',
            "'output_length': 3.5; expected",
        ),
        (
            MOONCAKE + '{"timestamp": "x", "input_length": 2, "output_length": 3}\n',
            "'x'; expected a number of millisec",
        ),
    ],
)
def test_wrong_json_lines_are_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    sentence = refusal(scenario(written(tmp_path, text, "trace.jsonl")))
    assert said in sentence


def test_files_that_are_no_traces_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "trace.csv"
    binary.write_bytes(b"\xff\xfe\x00\x01" * 100)
    assert "cannot be read as text" in refusal(scenario(binary))
    assert "cannot be read as Parquet" in refusal(scenario(binary, format="rows"))
    one = written(tmp_path, HEADER + "1,2,3\n", "one.csv")
    assert "expected at least two to repeat" in refusal(scenario(one, repeat=True))


def attempts(folder: Path, records: list[dict[str, Any]]) -> Path:
    table = np.zeros(len(records), ATTEMPT)
    for i, record in enumerate(records):
        for name, value in {"last": 1, "prompt_tokens": 9, **record}.items():
            table[name][i] = value
    file = folder / "attempts.parquet"
    pa.parquet.write_table(pa.table({name: table[name] for name in table.dtype.names}), file)
    return file


def test_blowouts_own_rows_are_replayed_as_they_were_scheduled(tmp_path: Path) -> None:
    file = attempts(
        tmp_path,
        [
            {"request": 2, "scheduled_s": 7.0, "output_tokens": 4, "wrong": 1},
            {"request": 0, "scheduled_s": 3.0, "last": 0, "outcome": Outcome.FAILED, "output_tokens": 2},
            {"request": 1, "scheduled_s": 5.0, "output_tokens": 0, "outcome": Outcome.TIMED_OUT},
            {"request": 0, "scheduled_s": 3.0, "attempt": 1, "output_tokens": 6},
        ],
    )
    users = workload.compile(scenario(file, duration=8), 1)
    found = next(users.chunks())
    assert asked(found) == [(3.0, 9, 6), (5.0, 9, 1), (7.0, 9, 4)]
    assert found["wrong"].tolist() == [0, 0, 1]
    assert users.notes[0].startswith("1 of 3 traced requests were not answered")
    assert [len(rows(scenario(file, duration=d))) for d in (4, 6)] == [1, 2]


def test_wrong_rows_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "attempts.parquet"
    good = {
        name: [1.0] for name in ("request", "attempt", "last", "outcome", "wrong", "prompt_tokens", "output_tokens")
    }
    for column, said in (
        ({}, "no column 'scheduled_s'; it has 'request'"),
        ({"scheduled_s": [None]}, "column 'scheduled_s': holds null; expected numbers"),
        ({"scheduled_s": pa.array([None], pa.float64())}, "row 1, column 'scheduled_s': is empty"),
        ({"scheduled_s": ["soon"]}, "column 'scheduled_s': holds string; expected numbers"),
    ):
        pa.parquet.write_table(pa.table({**good, **column}), file)
        assert said in refusal(scenario(file))
    pa.parquet.write_table(pa.table({**good, "scheduled_s": [1.0]}).slice(0, 0), file)
    assert "has no rows" in refusal(scenario(file))


def test_public_traces_are_read_whole_and_fast(measured: Path) -> None:
    conversation = measured / "azure-llm-2023" / "AzureLLMInferenceTrace_conv.csv"
    took_s = []
    for _ in range(3):
        started = time.perf_counter()
        users = workload.compile(scenario(conversation, duration="2h"), 1)
        took_s.append(time.perf_counter() - started)
    assert min(took_s) < 0.3
    found = next(users.chunks())
    assert len(found) == 19_366
    assert asked(found[:2]) == [(0.0, 374, 44), (4.314579, 396, 109)]
    assert found["scheduled_s"][-1] == pytest.approx(3501.72, abs=0.01)
    mooncake = workload.compile(scenario(measured / "mooncake" / "conversation_trace.jsonl"), 1)
    assert len(next(mooncake.chunks())) == 12_031
    assert len(mooncake.trace.extra["hash_ids"]) == 12_031  # type: ignore[attr-defined]


def test_measured_runs_can_be_replayed_by_their_own_column_names(measured: Path) -> None:
    gpu = measured / "vllm-gpu" / "RTXPRO6000-Llama-3.1-8B" / "requests.jsonl"
    assert len(rows(scenario(gpu))) == 300
    for level, requests in (("A1_r1.5", 200), ("E2_r8", 400)):
        assert len(rows(scenario(measured / "vllm-cpu" / f"{level}.requests.csv"))) == requests
