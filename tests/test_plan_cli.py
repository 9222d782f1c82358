"""`blowout plan` as a user types it: what it prints and leaves behind, and each way to ask wrongly."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sim.cli import main
from tests import planning
from tests.load_target import BLOWOUT, PATIENCE_S, ROOT

SLO = "ttft_p99 < 500ms, errors < 0.1%"


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    file = tmp_path / "memory.yaml"
    file.write_text(planning.MEMORY)
    (tmp_path / "prices.yaml").write_text("none: 2\ncurrency: EUR\n")
    return file


def plan(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    with pytest.raises(SystemExit) as end:
        main(["plan", *map(str, args)])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.mark.slow
def test_a_plan_is_printed_drawn_and_left_to_be_played(memory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = memory.parent / "out"
    asked = (memory, "--slo", SLO, "--vary", "replicas=1:6", "--price", memory.parent / "prices.yaml", "--seeds", "4",
             "--set", "duration=2m")  # fmt: skip
    code, out, _ = plan(capsys, *asked, "--growth", "3%/month", "--survive", "1", "--out", folder)
    assert code == 0
    for said in ("Answer", "EUR an hour", "Why not less", "KV cache", "How far it reaches", "3%/month",
                 "To last longer", "12 months", "requests +20%", "What this rests on", "Next",
                 "without 1 replica"):  # fmt: skip
        assert said in out
    found = json.loads((folder / "plan.json").read_text())
    assert found["best"]["settings"] == {"main.replicas": found["best"]["gpus"]}
    assert found["best"]["cost_an_hour"] == 2 * found["best"]["gpus"]
    assert "promise_1: ttft_p99 <= 500ms" in (folder / "scenario.yaml").read_text()
    assert [one["months"] for one in found["growth"]] == [3, 6, 12]
    assert [one["end"] for one in found["moves"][0]["ends"]]
    for name in ("plan.png", "moves.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
        assert str(folder / name) in out
    assert "for a thousand good answers (TTFT within 500 ms)" in " ".join(out.split())
    assert found["best"]["cost"]["thousand_good"] >= found["best"]["cost"]["thousand_right"]
    with pytest.raises(SystemExit) as end:
        main(["check", str(folder / "scenario.yaml"), "--json"])
    assert not end.value.code
    capsys.readouterr()
    # The same question has the same answer, and JSON says it all.
    code, again, _ = plan(
        capsys, *asked, "--growth", "3%/month", "--survive", "1", "--no-figures", "--out", folder / "b", "--json"
    )
    assert code == 0
    assert json.loads(again) == found


@pytest.mark.slow
def test_on_a_narrow_terminal_nothing_is_cut(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout", terminal := planning.Terminal())
    two = memory.parent / "two.yaml"
    two.write_text(planning.TWO_POOLS.replace("duration: 4m", "duration: 1m").replace("per_s: 30", "per_s: 10"))
    slo = "cohort.chat.ttft_p99 < 2s, cohort.deep.e2e_p99 < 60s, errors < 1%"
    with pytest.raises(SystemExit) as end:
        main(["plan", str(two), "--slo", slo, "--vary", "pools.chat.replicas=1:4", "--vary", "pools.deep.replicas=1:2",
              "--seeds", "3", "--survive", "1", "--out", str(memory.parent / "out"), "--no-figures"])  # fmt: skip
    assert not end.value.code
    said = terminal.getvalue()
    assert "chat 2 + deep 2" in said
    assert "chat: 2 replicas; deep: 2 replicas" in said
    assert planning.nothing_is_cut(said, 80)


def test_nobody_keeps_it(memory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = plan(
        capsys, memory, "--slo", "itl_p99 < 5ms", "--vary", "replicas=2,4", "--price", memory.parent / "prices.yaml",
        "--seeds", "3", "--out", memory.parent / "out", "--no-figures",
    )  # fmt: skip
    assert code == 1
    assert "memory: none of 2 fleets keeps itl_p99 <= 5ms" in out
    assert "cheapest" not in out
    assert "No fleet keeps itl_p99 <= 5ms. The best that can be had is" in " ".join(out.split())
    assert "What runs out:" in out


def test_what_most_runs_keep_is_not_said_to_be_out_of_reach(memory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = plan(
        capsys, memory, "--slo", "e2e_p50 < 1.1s", "--vary", "replicas=8", "--price", memory.parent / "prices.yaml",
        "--model-error", "40%", "--seeds", "3", "--out", memory.parent / "out", "--no-figures",
    )  # fmt: skip
    assert code == 1
    assert "No fleet keeps e2e_p50 <= 1.1s surely enough. The nearest is 8 replicas, as it is:" in " ".join(out.split())
    assert "in one of them" in out


WRONG = {
    ("--slo", "ttft_p99 < 2"): "ttft_p99 is a time: expected a bound such as 2ms or 2s",
    ("--slo", "ttft_p9 < 2s"): "--slo: unknown metric 'ttft_p9'",
    ("--slo", "ttft_p99"): "--slo: expected a comparison",
    ("--slo", "ttft_p99 < 2s, ttft_p99 < 3s"): "--slo: expected one bound a metric, got two of ttft_p99",
    ("--slo", ""): "expected bounds",
    ("--slo", "ttft_p99 / ttft_p50 < 3"): "expected one metric and its bound",
    ("--slo", "errors < 1%, ttft_p99 > 1s"): "--slo: ttft_p99 > 1s: expected ttft_p99 <, for a latency is promised",
    ("--slo", "cohort.all.e2e_p50 >= 1s"): "--slo: cohort.all.e2e_p50 >= 1s: expected cohort.all.e2e_p50 <",
    ("--slo", "errors > 1%"): "--slo: errors > 1%: expected errors <, for more replicas make it smaller",
    ("--slo", "goodput_per_s < 9"): "--slo: goodput_per_s < 9: expected goodput_per_s >, for more of it is better",
    ("--vary", "replicas=8:2"): "expected a range from the lower value to the higher",
    ("--vary", "replicas=0:4"): "expected whole numbers from 1 on",
    ("--vary", "replica=1:4"): "no such setting; did you mean 'replicas'?",
    ("--vary", "pools.other.replicas=1:4"): "--vary pools.other.replicas",
    ("--vary", "replicas=1:4", "--vary", "fleet.replicas=1:4"): "expected each setting once",
    ("--vary", "replicas=true"): "expected whole numbers from 1 on",
    ("--vary", "hardware=1,2"): "--vary hardware: expected a text",
    ("--vary", "tensor_parallel=x"): "--vary tensor_parallel: expected a whole number, got 'x'",
    ("--vary", "router=random,nonsense"): "--vary router: expected",
    ("--growth", "8%"): "--growth: expected such as 8%/month",
    ("--confidence", "100%"): "--confidence: expected 50% to 99%",
    ("--model-error", "20"): "--model-error: expected a fraction",
    ("--price", "no.yaml"): "--price: no.yaml: cannot be read",
    ("--under", "no-such"): "no-such: no such scenario file",
    ("--seeds", "2"): "2 is not in the range x>=3",
    ("--gpus", "1", "--vary", "replicas=2:4"): "--gpus: every fleet has more than 1",
    ("--survive", "1", "--vary", "max_num_seqs=32,64", "--vary", "replicas=1"): "nothing is left of main without 1",
    ("--confidence", "99.9%"): "--confidence: expected 50% to 99%",
    ("--under", "ten-million-users"): "--under ten-million-users: expected a scenario in which something goes wrong",
    ("--under", "quality-breaker"): "no pool 'single', expected one of main",
}


@pytest.mark.parametrize("options", WRONG, ids=" ".join)
def test_a_wrong_question_is_one_sentence(
    options: tuple[str, ...], memory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(memory.parent)
    given = list(options)
    if "--slo" not in given:
        given += ["--slo", SLO]
    if "--price" not in given:
        given += ["--price", "prices.yaml"]
    code, out, err = plan(capsys, memory.name, "--seeds", "3", *given, "--no-figures")
    assert code == 2
    assert WRONG[options] in err
    assert len(err.strip().splitlines()) == 1
    assert not (memory.parent / "results").exists()


def test_a_price_file_names_its_line(memory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = memory.parent / "prices.yaml"
    for text, said in (
        ("none: 2\nh100: cheap\n", "prices.yaml:2: h100: expected the price of a GPU for an hour"),
        ("none: 2\nh1000: 3\n", "prices.yaml:2: h1000: no hardware 'h1000'"),
        ("none: 0\n", "prices.yaml:1: none: expected the price of a GPU for an hour"),
        ("- 3\n", "expected lines such as `h100: 2.50`"),
        ("h100: 3\n", "no price for none"),
    ):
        prices.write_text(text)
        code, _, err = plan(capsys, memory, "--slo", SLO, "--price", prices, "--seeds", "3")
        assert (code, said in err) == (2, True), err


def test_workers_that_were_killed_before_they_got_any_work_are_one_sentence(
    memory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(memory.parent)
    monkeypatch.setattr("sim.planning.trials.processes", planning.processes_that_are_gone)
    code, out, err = plan(capsys, memory.name, "--slo", SLO, "--vary", "replicas=1:4", "--price", "prices.yaml")
    assert (code, out) == (3, "")
    assert err.splitlines()[1:] == [
        "as it is, seed 1: whoever played it was killed or is gone, most likely because memory ran out; expected to "
        "fit with fewer workers"
    ]
    assert not Path("results").exists()


BIG = """
name: big
duration: 2m
fleet: {model: llama-3.1-70b, hardware: h100}
workload:
  rate_per_s: 0.2
  cohorts: {all: {prompt_tokens: 200, output_tokens: 50}}
"""


def test_a_fleet_of_the_file_that_nobody_will_play_need_not_fit(
    memory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory.write_text(BIG)
    asked = (memory, "--slo", "ttft_p99 < 5s", "--seeds", "3", "--no-figures", "--vary", "replicas=1:2")
    code, _, err = plan(capsys, *asked, "--out", memory.parent / "a")
    assert code == 2
    assert "memory.yaml:4: fleet: llama-3.1-70b on 1 x h100 does not fit" in err
    code, out, err = plan(capsys, *asked, "--vary", "tensor_parallel=1,2", "--out", memory.parent / "b", "--json")
    assert (code, err) == (
        0,
        "big: 4 fleets to choose from, at most 3 seeds each; the chosen one again, up to 19 runs, with more load and "
        "with inputs moved\n",
    )
    assert json.loads(out)["best"]["settings"] == {"main.replicas": 1, "main.tensor_parallel": 2}
    code, _, err = plan(capsys, *asked, "--vary", "max_num_seqs=8,16", "--out", memory.parent / "c")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("no fleet that may be chosen can be played; ")


@pytest.mark.slow
def test_answers_are_not_called_good_where_nothing_was_promised_of_one(
    memory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory.write_text(BIG)
    code, out, _ = plan(
        capsys, memory, "--slo", "itl_p99 < 1s", "--seeds", "3", "--no-figures", "--vary", "tensor_parallel=2",
        "--out", memory.parent / "d",
    )  # fmt: skip
    assert code == 0
    assert "for a thousand answers, at the load" in " ".join(out.split())
    assert "good" not in out.partition("Next")[0]


def test_an_interrupt_waits_for_a_good_place_and_leaves_nothing(memory: Path) -> None:
    asked = [*BLOWOUT, "plan", memory.name, "--slo", SLO, "--vary", "replicas=1:40", "--price", "prices.yaml"]
    asked += ["--seeds", "60"]  # it must not be done before it is interrupted, however fast the machine
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(
        asked, cwd=memory.parent, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not (memory.parent / "results").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)  # workers are at it
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the command and its workers
        _, err = running.communicate(timeout=PATIENCE_S)
    finally:
        if running.poll() is None:
            running.kill()
    assert running.returncode == 130, err
    assert err.strip().splitlines()[-1] == "interrupted; nothing was decided"
    assert not (memory.parent / "results").exists()
