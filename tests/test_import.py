"""Other tools' files become measured runs that everything reads; what is wrong in them is told by place and field."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.imports import read
from sim.cli import main
from sim.errors import InputError
from sim.records import Outcome
from sim.results import Run

SAMPLES = Path(__file__).parent / "imports"
GATEWAY = """asked_at,ttft_ms,total_ms,prompt_tokens,output_tokens,status
2026-03-14T09:26:53.000Z,81,940,210,64,200
2026-03-14T09:26:53.400Z,95,1210,340,80,200
2026-03-14T09:26:54.100Z,,12,120,0,429
2026-03-14T09:26:55.000Z,77,610,90,40,200
"""
COLUMNS = "sent=asked_at,ttft=ttft_ms,e2e=total_ms"

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    def type_(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return type_


def rows_of(folder: Path) -> dict[str, np.ndarray]:
    table = Run.open(folder).members[0].attempts()
    return {name: table[name].to_numpy() for name in table.column_names}


PLAIN = """\
name: plain
duration: 30s
fleet: {kv_blocks: 400, step_time: {linear: {base: 10ms}}}
workload: {rate_per_s: 5, cohorts: {chat: {prompt_tokens: 100, output_tokens: 20}}}
"""


def test_a_gateway_table_becomes_a_run_that_others_read(tmp_path: Path, typed: Typed) -> None:
    (tmp_path / "g.csv").write_text(GATEWAY)
    code, out, err = typed("import", tmp_path / "g.csv", "--columns", COLUMNS, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert "the fleet is a stand-in" in out
    rows = rows_of(tmp_path / "run")
    order = np.argsort(rows["sent_s"])
    assert rows["sent_s"][order] == pytest.approx([0.0, 0.4, 1.1, 2.0])
    assert rows["outcome"][order].tolist() == [Outcome.OK, Outcome.OK, Outcome.REJECTED, Outcome.OK]
    assert (rows["first_token_s"] - rows["sent_s"])[order] == pytest.approx(
        [0.081, 0.095, np.nan, 0.077], abs=1e-5, nan_ok=True
    )
    info = Run.open(tmp_path / "run").info
    assert (info["kind"], info["started"]) == ("measured", pytest.approx(1773480413.0))
    assert "users, simulated" not in out  # its fleet is a stand-in
    (tmp_path / "s.yaml").write_text(PLAIN)
    own = ("--columns", COLUMNS, "--scenario", tmp_path / "s.yaml", "--out", tmp_path / "own")
    out = typed("import", tmp_path / "g.csv", *own)[1]
    assert "as many users, simulated" in out
    assert "blowout calibrate" not in out  # four requests are too few for it
    for words in (("report", tmp_path / "run"), ("why", tmp_path / "run", "--no-figures")):
        assert typed(*words)[0] == 0
    assert typed("compare", tmp_path / "run", tmp_path / "run", "--no-figures")[0] == 0
    assert typed("alerts", "eval", tmp_path / "run", "--rules", "seed", "--no-figures")[0] in (0, 1)


@pytest.mark.parametrize(
    ("name", "tool", "requests", "ok"),
    [
        ("vllm-bench-0.32-serve.json", "vllm-bench", 24, 21),
        ("vllm-bench-0.32-vllm.json", "vllm-bench", 20, 20),
        ("guidellm-0.8-serve.json", "guidellm", 24, 21),
        ("guidellm-0.8-vllm.json", "guidellm", 20, 20),
        ("aiperf-0.13-serve.jsonl", "aiperf", 24, 21),
        ("aiperf-0.13-vllm.jsonl", "aiperf", 20, 20),
    ],
)
def test_the_tools_are_recognised_and_no_text_is_kept(
    name: str, tool: str, requests: int, ok: int, tmp_path: Path, typed: Typed
) -> None:
    assert read.read(SAMPLES / name, None, {}).tool == tool
    code, _, err = typed("import", SAMPLES / name, "--out", tmp_path / "run", "--json")
    assert code == 0, err
    rows = rows_of(tmp_path / "run")
    good = rows["outcome"] == Outcome.OK
    assert (len(good), int(good.sum())) == (requests, ok)
    assert (rows["prompt_tokens"][good] > 0).all()
    assert all(b"SECRET" not in path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert typed("import", SAMPLES / name, "--format", "csv", "--out", tmp_path / "no")[0] == 2


def test_an_access_log_says_when_requests_ended_and_not_when_they_began(tmp_path: Path, typed: Typed) -> None:
    code, out, err = typed("import", SAMPLES / "nginx-1.22.csv", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert re.search(r"TTFT P50 +–", out)
    assert re.search(r"tokens per s +–", out)
    assert "time to first token" not in out
    assert typed("why", tmp_path / "run", "--by", "e2e", "--no-figures")[0] == 0
    assert typed("report", tmp_path / "run")[0] == 0
    assert typed("compare", tmp_path / "run", tmp_path / "run", "--no-figures")[0] == 0
    (tmp_path / "own.csv").write_text("time,took_ms,code\n1795887421.094,136,200\n1795887421.331,-,200\n")
    words = (
        "import",
        tmp_path / "own.csv",
        "--columns",
        "finished=time,e2e=took_ms,status=code",
        "--out",
        tmp_path / "n",
    )
    code, _, err = typed(*words)
    assert (code, "line 3, column 'took_ms': expected time to the end of the answer, got nothing" in err) == (2, True)
    (tmp_path / "own.csv").write_text("time,took_ms,code\n1795887421.094,136,200\n1795887421.331,213,200\n")
    assert typed(*words)[0] == 0
    assert rows_of(tmp_path / "n")["sent_s"] == pytest.approx([0.0, 0.16])


@pytest.mark.parametrize(
    ("old", "new", "columns", "says"),
    [
        ("", "", "sent=when,e2e=total_ms", "column 'when', which --columns calls sent, is missing; it has asked_at"),
        ("asked_at", "x", "e2e=total_ms", "no column says when the request was sent; name it with --columns sent=NAME"),
        (",340,", ",3.5,", COLUMNS, "line 3, column 'prompt_tokens': expected a whole number of tokens, got '3.5'"),
        (",940,", ",fast,", COLUMNS, "line 2, column 'total_ms': expected a length of time, not below 0, got 'fast'"),
        ("2026-03-14T09:26:55", "noon", COLUMNS, "line 5, column 'asked_at': expected a number or a date and time"),
        ("81,940", "1081,940", COLUMNS, "line 2: times go backwards: the end came 0.141 s before the first token"),
    ],
)
def test_a_mistake_in_a_table_is_told_by_line_and_column(
    old: str, new: str, columns: str, says: str, tmp_path: Path, typed: Typed
) -> None:
    (tmp_path / "g.csv").write_text(GATEWAY.replace(old, new, 1) if old else GATEWAY)
    code, _, err = typed("import", tmp_path / "g.csv", "--columns", columns, "--out", tmp_path / "run")
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (
            "vllm-bench-0.32-serve.json",
            lambda d: d.pop("start_times"),
            "start_times is missing, so single requests cannot be",
        ),
        ("vllm-bench-0.32-serve.json", lambda d: d["ttfts"].pop(), "ttfts: expected 24 entries, one a request, got 23"),
        (
            "vllm-bench-0.32-serve.json",
            lambda d: d["input_lens"].__setitem__(1, "x"),
            "record 2: input_lens: expected a whole",
        ),
        (
            "guidellm-0.8-serve.json",
            lambda d: d["benchmarks"][0]["requests"]["successful"][1].pop("request_start_time"),
            "benchmark 1, successful record 2: request_start_time: expected Unix seconds, got nothing",
        ),
        (
            "guidellm-0.8-serve.json",
            lambda d: d["benchmarks"][0]["config"].__setitem__("strategy", "poisson"),
            "benchmark 1: config.strategy: expected a mapping, got 'poisson'",
        ),
        (
            "guidellm-0.8-serve.json",
            lambda d: d["benchmarks"][0]["requests"]["successful"][0].__setitem__("info", [1]),
            "benchmark 1, successful record 1: info: expected a mapping, got a list of 1",
        ),
        (
            "vllm-bench-0.32-serve.json",
            lambda d: d["queue_times"].__setitem__(2, None),
            "record 3: queue_times: expected a number, got nothing",
        ),
    ],
)
def test_a_mistake_in_a_tools_file_is_told_by_record_and_field(
    name: str, change: Callable[[Any], object], says: str, tmp_path: Path
) -> None:
    data = json.loads((SAMPLES / name).read_text())
    change(data)
    (tmp_path / name).write_text(json.dumps(data))
    with pytest.raises(InputError, match=re.escape(says)):
        read.read(tmp_path / name, None, {})


def test_benchmarks_appended_to_a_file_are_one_run(tmp_path: Path) -> None:
    first, second = (
        json.loads((SAMPLES / f"vllm-bench-0.32-{against}.json").read_text()) for against in ("vllm", "serve")
    )
    (tmp_path / "many.json").write_text(f"{json.dumps(first)}\n{json.dumps(second)}")
    found = read.read(tmp_path / "many.json", None, {})
    assert (found.tool, len(found.requests)) == ("vllm-bench", 44)
    assert "2 benchmarks, one after the other, are one run" in found.notes
    assert found.requests[20].where.endswith("line 2, record 1")
    (tmp_path / "many.json").write_text(f"{json.dumps(first)}\n{json.dumps(first)}")
    with pytest.raises(InputError, match="line 2: by its start_times it began before the benchmark above it ended"):
        read.read(tmp_path / "many.json", None, {})  # as after a restart, when that clock counts from 0 again
    del second["start_times"]
    (tmp_path / "many.json").write_text(f"{json.dumps(first)}\n{json.dumps(second)}")
    with pytest.raises(InputError, match="line 2: start_times is missing, so single requests cannot be"):
        read.read(tmp_path / "many.json", None, {})


def test_targets_that_guidellm_counts_from_nothing_are_no_schedule(tmp_path: Path, typed: Typed) -> None:
    """As GuideLLM 0.8.1 was seen to write them, in the second of two benchmarks at Poisson rates."""
    data = json.loads((SAMPLES / "guidellm-0.8-serve.json").read_text())
    for k in (0, 3):
        data["benchmarks"][0]["requests"]["successful"][k]["info"]["timings"]["targeted_start"] = 0.24 + k
    (tmp_path / "g.json").write_text(json.dumps(data))
    code, out, err = typed("import", tmp_path / "g.json", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert "when 2 requests were due is not said, or not as a date" in " ".join(out.split())
    rows = rows_of(tmp_path / "run")
    assert int((rows["scheduled_s"] == rows["sent_s"]).sum()) == 2
    assert rows["finished_s"].max() < 60.0


def test_times_that_do_not_belong_together_are_refused(tmp_path: Path, typed: Typed) -> None:
    (tmp_path / "g.csv").write_text(GATEWAY.replace("2026-03-14T09:26:55.000Z", "2.5"))
    code, _, err = typed("import", tmp_path / "g.csv", "--columns", COLUMNS, "--out", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert (
        "line 5: its time is 20526.4 days before the last; expected times of one run, all dates or all seconds" in err
    )


def test_what_is_no_file_of_requests_is_refused(tmp_path: Path, typed: Typed) -> None:
    for text, says in (
        ("", "is empty"),
        ('{"a": 1}', "not recognised; expected requests as vllm-bench, guidellm, aiperf, csv"),
        ('{"metadata": {"request_start_ns": 1}}\n{"broken', "line 2: expected JSON, but it is broken"),
        ("sent_s,e2e_s\n", "has no rows; expected a request a row"),
    ):
        (tmp_path / "f").write_text(text)
        code, _, err = typed("import", tmp_path / "f", "--out", tmp_path / "run")
        assert (code, says in err) == (2, True), err
    assert "cannot be read" in typed("import", tmp_path / "nothing", "--out", tmp_path / "run")[2]


def test_cohorts_are_matched_by_name(tmp_path: Path, typed: Typed) -> None:
    lengths = "prompt_tokens: 9, output_tokens: 9"
    (tmp_path / "s.yaml").write_text(
        "{name: two, duration: 60s, fleet: {kv_blocks: 400, step_time: {linear: {base: 10ms}}}, workload: {rate_per_s: "
        f"1, cohorts: {{chat: {{share: 0.5, {lengths}}}, code: {{share: 0.5, {lengths}}}}}}}}}"
    )
    head, *lines = GATEWAY.splitlines()
    table = [f"{head},kind", *(f"{line},{'code' if k == 2 else 'chat'}" for k, line in enumerate(lines))]
    (tmp_path / "g.csv").write_text("\n".join(table))
    words = ("import", tmp_path / "g.csv", "--scenario", tmp_path / "s.yaml")
    assert typed(*words, "--columns", f"{COLUMNS},cohort=kind", "--out", tmp_path / "run")[0] == 0
    assert sorted(rows_of(tmp_path / "run")["cohort"].tolist()) == [0, 0, 0, 1]
    _, _, err = typed(*words, "--columns", COLUMNS, "--out", tmp_path / "no")
    assert "line 2: which cohort it is of is not said; expected one of chat, code (name its column" in err
