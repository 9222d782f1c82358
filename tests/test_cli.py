"""The command line as a user meets it: what is printed where, what every mistake says, and every exit code.

Mistakes are typed into `sim.cli.main`, which is all that the command ``blowout`` calls; what depends on processes
(pipes, terminals, start-up time) is typed into a shell.
"""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sim.cli import COMMANDS, main

BLOWOUT = str(Path(sys.prefix) / "bin" / "blowout")
SMALL = """\
name: small
duration: 60s
fleet: {model: llama-3.1-8b, hardware: h100}
workload:
  rate_per_s: 8
  cohorts:
    chat: {prompt_tokens: 300, output_tokens: 20}
"""
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


def shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run *command* in a shell in *folder*, with ``blowout`` on its path."""
    path = os.pathsep.join([str(Path(BLOWOUT).parent), os.environ.get("PATH", os.defpath)])
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


# --- a run ----------------------------------------------------------------------------------------------------------


def test_the_same_run_prints_the_same_bytes_and_nothing_else(tmp_path: Path) -> None:
    said = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "small.yaml").write_text(SMALL)
        both = "blowout run small.yaml --seeds 2 --out here --no-figures && blowout run small.yaml --no-figures --json"
        done = shell(folder, both)
        assert (done.returncode, done.stderr) == (0, "")
        said.append(done.stdout)
    assert said[0] == said[1]
    assert "TTFT P99" in said[0]
    found = json.loads(said[0][said[0].index("\n{") :], parse_constant=pytest.fail)
    assert found["points"][0]["metrics"]["ok"]["values"] == [found["points"][0]["metrics"]["requests"]["estimate"]]
    assert Path(found["run"]) == Path("results/small/001")


def test_workers_change_nothing_but_the_time(typed: Typed) -> None:
    sweep = ("run", "small.yaml", "--set", "vary.workload.rate_per_s=[4, 8]", "--seeds", "2", "--no-figures", "--json")
    found = []
    for workers in ("1", "3"):
        code, out, err = typed(*sweep, "--workers", workers, "--out", f"w{workers}")
        assert (code, err) == (0, "")
        found.append(json.loads(out) | {"run": "w"})
    assert found[0] == found[1]


def test_figures_and_page_are_drawn_unless_left_out(typed: Typed) -> None:
    assert typed("run", "small.yaml", "--out", "plain", "--no-figures")[0] == 0
    assert not Path("plain/report.html").exists()
    assert typed("run", "small.yaml", "--out", "drawn")[0] == 0
    drawn = sorted(path.name for path in Path("drawn/figures").iterdir())
    assert drawn
    assert typed("report", "plain")[0] == 0
    assert sorted(path.name for path in Path("plain/figures").iterdir()) == drawn
    assert Path("plain/report.html").read_text().startswith("<!doctype html>")


def test_seed_and_set_reach_the_run(typed: Typed) -> None:
    code, out, _ = typed(
        "run", "small.yaml", "--seed", "7", "--seeds", "2", "--set", "fleet.replicas=2", "--json", "--no-figures"
    )
    assert code == 0
    assert json.loads(out)["points"][0]["seeds"] == [7, 8]
    written = Path("results/small/001/scenario.yaml").read_text()
    assert all(line in written for line in ("seed: 7\n", "seeds: 2\n", "replicas: 2\n"))


def test_a_claim_that_fails_is_exit_code_1(typed: Typed) -> None:
    fails = ("run", "small.yaml", "--no-figures", "--set", "claims.fast=ttft_p99 < 1us")
    code, out, err = typed(*fails)
    assert (code, err) == (1, "")
    assert "✗ fails" in out
    code, out, _ = typed(*fails, "--set", "claims.served=errors <= 0", "--json")
    assert code == 1
    assert [verdict["passed"] for verdict in json.loads(out)["verdicts"]] == [False, True]
    assert typed("run", "small.yaml", "--no-figures", "--set", "claims.served=errors <= 0")[0] == 0


def test_a_claim_may_be_about_a_part_of_the_run(typed: Typed) -> None:
    part = ("run", "small.yaml", "--no-figures", "--set")
    code, out, _ = typed(*part, "claims={late: requests_per_s@0-1m within 25% of 8, served: errors@0-1m <= 0}")
    assert code == 0
    assert re.search(r"✓ holds +served +0% +≤ 0% +errors@0-1m <= 0", out)
    assert "counts what was asked from" not in out
    code, out, _ = typed(*part, "claims={late: goodput_per_s@10s-20s > 100}", "--json")
    assert code == 1
    assert "goodput_per_s@10s-20s counts what was asked from 0 s to 60 s" in json.loads(out)["assumptions"]
    code, out, err = typed(*part, "claims={late: errors@50s-2m <= 1%}")
    assert code == 2
    assert err.endswith("claims.late: expected a window that ends by duration (60 s), got errors@50s-2m\n"), err


def test_a_run_in_which_nobody_is_served_is_not_valid(typed: Typed) -> None:
    code, out, err = typed("run", "small.yaml", "--no-figures", "--set", "fleet.kv_blocks=10", "--json")
    assert code == 3
    assert err.startswith("not valid: none of ")
    assert "longer than the context" in err
    json.loads(out, parse_constant=pytest.fail)  # what it has is printed, without NaN


def test_too_few_samples_are_said(typed: Typed) -> None:
    _, out, _ = typed("run", "small.yaml", "--no-figures", "--set", "duration=5s")
    assert "few samples: with " in out


# --- traces and sweeps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--set", "fleet.pools.chat.replicas=4"]])
def test_the_recorded_hour_is_replayed_with_one_option(more: list[str], typed: Typed, measured: Path) -> None:
    trace = measured / "azure-llm-2023" / "AzureLLMInferenceTrace_conv.csv"
    replay = ["run", "azure-chat", "--set", f"workload.trace={os.path.relpath(trace)}", *more]
    code, out, err = typed(*replay, "--seeds", "1", "--no-figures", "--json")
    assert code == 0
    assert err.startswith("left out: the sweep over workload.rate_per_s, and 2 claims about its points")
    (point,) = json.loads(out)["points"]
    assert point["metrics"]["requests"]["estimate"] == 19_366
    assert point["metrics"]["errors"]["estimate"] == 0


def test_seeds_of_a_trace_are_said_to_be_no_other_users(typed: Typed) -> None:
    Path("trace.csv").write_text("timestamp,prompt_tokens,output_tokens\n0,10,10\n1,10,10\n")
    _, out, _ = typed("run", "small.yaml", "--set", "workload.trace=trace.csv", "--seeds", "2", "--no-figures")
    assert "every seed replays the same trace" in out


# --- mistakes -------------------------------------------------------------------------------------------------------

TRACES = {
    "unsorted.csv": "timestamp,prompt_tokens,output_tokens\n1,10,10\n3,10,10\n2,10,10\n",
    "narrow.csv": "timestamp,prompt_tokens\n1,10\n",
    "words.csv": "timestamp,prompt_tokens,output_tokens\n1,10,ten\n",
    "header.csv": "timestamp,prompt_tokens,output_tokens\n",
    "empty.csv": "",
}


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("workload.rate=3", "--set workload.rate=3: no such setting; did you mean 'rate_per_s'?"),
        ("workload.rate_per_s=-3", "--set workload.rate_per_s=-3: expected a number greater than 0, got -3"),
        ("duration=5mb", "--set duration=5mb: expected a duration such as 250ms, 5m or 1h30m, not below 0, got '5mb'"),
        ("workload.cohorts.chat.share=0.5",
         "small.yaml:6: workload.cohorts (with --set workload.cohorts.chat.share=0.5): "
         "expected the shares to sum to 1, got 0.5"),
        ("workload.cohorts.chat.error=5", "--set workload.cohorts.chat.error=5: expected a fraction from 0 to 1 or a "
         "percentage such as 5%, got 5; did you mean 5%?"),
        ("fleet.model=llama-3.1-70b", "small.yaml:3: fleet (with --set fleet.model=llama-3.1-70b): llama-3.1-70b on "
         "1 x h100 does not fit: each GPU may use "),
        ("fleet.hardware=h1000", "small.yaml:3: fleet (with --set fleet.hardware=h1000): no hardware 'h1000'; "
         "did you mean 'h100'?"),
        ("vary.fleet.hardware=[h100, h1000]", "small.yaml:3: fleet: no hardware 'h1000'; did you mean 'h100'? "
         "(at fleet.hardware = 'h1000')"),
        ("workload.cohorts.chat.prompt_tokens={named: azure}",
         "--set workload.cohorts.chat.prompt_tokens={named: azure}: no distribution 'azure', expected one of "),
        ("claims.fast=ttf_p99 < 2s", "--set claims.fast=ttf_p99 < 2s: unknown metric 'ttf_p99', expected one like "),
        ("claims.fast=ttft_p99", "--set claims.fast=ttft_p99: expected a comparison"),
        ("slo.ttft_p9=2s", "--set slo.ttft_p9=2s: unknown metric 'ttft_p9', expected one like "),
        ("workload.trace=unsorted.csv", "unsorted.csv, row 3 (line 4), column 'timestamp': 2 is earlier than 3"),
        ("workload.trace=narrow.csv", "narrow.csv: no column 'output_tokens'; it has 'timestamp', 'prompt_tokens'"),
        ("workload.trace=words.csv", "words.csv, row 1 (line 2), column 'output_tokens': 'ten'; expected "),
        ("workload.trace=header.csv", "header.csv: has no rows; expected at least one request"),
        ("workload.trace=empty.csv", "empty.csv: has no rows; expected at least one request"),
        ("workload.trace=nothing.csv", "--set workload.trace=nothing.csv: workload.trace.file: expected a file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_before_anything_is_played(option: str, sentence: str, typed: Typed) -> None:
    for name, text in TRACES.items():
        Path(name).write_text(text)
    for command in ("run", "check"):
        code, out, err = typed(command, "small.yaml", "--set", option)
        assert (code, out) == (2, "")
        assert err.startswith(sentence)
        assert err.count("\n") == 1
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("  rate: 2\n", "small.yaml:5: workload.rate: unknown key; did you mean 'rate_per_s'?"),
        ("  rate_per_s: -2\n", "small.yaml:5: workload.rate_per_s: expected a number greater than 0, got -2"),
        ("  rate_per_s: fast\n", "small.yaml:5: workload.rate_per_s: expected a number, got 'fast'"),
        ("  rate_per_s: [\n", "small.yaml:7: not YAML: "),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_line(line: str, sentence: str, typed: Typed) -> None:
    Path("small.yaml").write_text(SMALL.replace("  rate_per_s: 8\n", line))
    code, out, err = typed("run", "small.yaml")
    assert (code, out) == (2, "")
    assert err.startswith(sentence)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["runn"], "blowout: no such command: runn; did you mean 'run'? See blowout --help"),
        (["run"], "blowout run: missing argument 'SCENARIO'; see blowout run --help"),
        (["run", "small.yaml", "--seeds", "0"], "blowout run: invalid value for '--seeds': 0 is not in the range"),
        (["run", "small.yaml", "--sed", "1"], "blowout run: no such option"),
        (["run", "small.yaml", "more"], "blowout run: got unexpected extra argument"),
        (["run", "small.yaml", "--set", "seeds"], "--set seeds: expected KEY=VALUE, such as workload.rate_per_s=7"),
        (["run", "kv-clif"], "kv-clif: no such scenario file; did you mean 'kv-cliff'?"),
        (["run", "zzz"], "zzz: no such scenario file, expected a file or one of agent-compounding, alert-audit, "),
        (["run", "small.yml"], "small.yml: no such scenario file; did you mean 'small.yaml'?"),
        (["check", "full"], "full: cannot be read: Is a directory"),
        (["hardware", "h1000x"], "nothing in the catalogue matches 'h1000x'"),
        (["report", "nowhere"], "nowhere: expected the folder of a run, but it holds no run.json"),
        (["run", "small.yaml", "--out", "full"], "full: expected a new or an empty folder for the results, but it "),
        (["run", "small.yaml", "--out", "small.yaml"], "blowout run: invalid value for '--out': "),
        (["run", "small.yaml", "--out", "small.yaml/x"], "small.yaml/x: cannot be written (Not a directory)"),
        (["init", "--out", "small.yaml"], "small.yaml: exists; choose another file with --out"),
    ],
)
def test_a_mistyped_command_is_told_what_was_expected(words: list[str], sentence: str, typed: Typed) -> None:
    Path("full").mkdir()
    Path("full/old").touch()
    code, out, err = typed(*words)
    assert (code, out) == (2, "")
    assert err.startswith(sentence)
    assert err.count("\n") == 1


def test_a_fault_of_our_own_is_no_claim_that_fails(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object, **__: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("sim.scenario.load", fault)
    code, out, err = typed("scenarios")
    assert (code, out) == (3, "")
    assert "KeyError: 'oops'" in err
    assert err.endswith("this is a fault of Blowout's own; please report it with the lines above\n")


# --- other commands -------------------------------------------------------------------------------------------------


def test_without_a_command_there_is_help(typed: Typed) -> None:
    code, out, err = typed()
    assert (code, out) == (2, "")
    assert all(f"\n  {name} " in err for name in COMMANDS)
    assert typed("--help") == (0, err, "")
    for name in COMMANDS:
        code, out, err = typed(name, "-h")
        assert (code, err) == (0, "")
        assert out.startswith(f"Usage: blowout {name} ")


def test_check_says_what_would_be_played(typed: Typed) -> None:
    code, out, err = typed("check", "small.yaml", "--set", "vary.workload.rate_per_s=[4, 8]", "--set", "seeds=3")
    assert (code, err) == (0, "")
    assert out.startswith("small.yaml: sound\n  2 points x 3 seeds, about 2,160 requests\n  pool main: 1 replica, ")
    assert out.endswith("next: blowout run small.yaml\n")
    code, out, _ = typed("check", "small.yaml", "--json")
    assert code == 0
    assert json.loads(out)["requests"] == [480]


def test_every_shipped_scenario_is_listed_and_sound(typed: Typed) -> None:
    _, out, _ = typed("scenarios", "--json")
    names = [one["name"] for one in json.loads(out)]
    assert {"azure-chat", "kv-cliff", "ten-million-users", "textbook"} <= set(names)
    assert all(name in typed("scenarios")[1] for name in names)
    for name in names:
        assert typed("check", name)[::2] == (0, "")


def test_what_init_guesses_can_be_played(typed: Typed) -> None:
    code, out, err = typed("init", "--out", "mine.yaml")
    assert code == 0
    assert out == "wrote mine.yaml\nnext: blowout check mine.yaml\n"
    assert err.startswith("guessed, so look at these first: model, ")
    assert typed("check", "mine.yaml")[0] == 0


def test_schema_and_hardware_are_for_programs_too(typed: Typed) -> None:
    assert json.loads(typed("schema")[1])["title"] == "Blowout scenario"
    rows = json.loads(typed("hardware", "70b", "h100", "--json")[1])
    assert rows
    assert {row["hardware"] for row in rows} == {"h100"}
    assert "llama-3.1-70b" in typed("hardware", "70b")[1]


# --- the world around -----------------------------------------------------------------------------------------------


def test_a_reader_may_leave(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    for command, code in (
        ("schema", 0),
        ("--help", 0),
        ("run small.yaml --no-figures --json", 0),
        ("run small.yaml --no-figures --set 'claims.fast=ttft_p99 < 1us'", 1),
    ):
        done = shell(tmp_path, f"blowout {command} | true; exit ${{PIPESTATUS[0]}}")
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_closed_streams_are_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    done = shell(tmp_path, "blowout run small.yaml --no-figures >&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_progress_is_shown_to_a_person_only(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    ours, theirs = pty.openpty()
    command = [BLOWOUT, "run", "small.yaml", "--set", "duration=6h", "--seeds", "2", "--no-figures"]
    environment = {**os.environ, "COLUMNS": "150", "TERM": "xterm"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as run:
        os.close(theirs)
        seen = b""
        try:
            while more := os.read(ours, 4096):
                seen += more
        except OSError:  # how a terminal says that nobody writes to it any more
            pass
        assert run.stdout is not None
        out = run.stdout.read()
    os.close(ours)
    text = seen.decode()
    assert "of 720 min simulated" in text
    assert "times real time" in text
    assert "left" in text
    assert "simulated," not in out
    assert out.count("TTFT P99") == 1


def test_help_needs_nothing_heavy() -> None:
    code = "import sys, sim.cli\ntry:\n    sim.cli.main(['--help'])\nfinally:\n    print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = done.stdout[done.stdout.rindex("[") :]
    assert "'click'" in loaded
    assert not any(
        f"'{heavy}'" in loaded for heavy in ("numpy", "numba", "pydantic", "pyarrow", "rich", "yaml", "scipy")
    )
