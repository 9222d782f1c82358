"""``blowout load run`` as it is typed: what it leaves, and one sentence for each thing that can be wrong."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from loadtest import synthesis
from loadtest.commands.load.run import progress_of
from sim.cli import main
from sim.records import Outcome
from sim.report import tables
from sim.results import Run, is_whole
from tests.load_target import BLOWOUT, PATIENCE_S, ROOT, target, typed

SMALL = ["--prompt-tokens", "24", "--output-tokens", "6", "--no-figures"]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with target(tmp_path_factory.mktemp("good")) as url:
        yield url


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return exit code and stderr."""
    with pytest.raises(SystemExit) as stopped:
        main(["load", "run", *arguments])
    return int(stopped.value.code or 0), capsys.readouterr().err


def test_a_run_leaves_what_a_simulated_one_leaves(good: str, tmp_path: Path) -> None:
    done = typed(["load", "run", "--url", good, "--rate", "20", "--duration", "4s", "--out", "r", *SMALL], tmp_path)
    assert done.returncode in (0, 3), done.stderr  # 3: this machine is too busy for a tester
    assert "from the schedule" in done.stdout
    assert "a closed loop would claim" in done.stdout
    assert "by time to first token spent" in done.stdout
    assert "prefill" not in done.stdout, "a client cannot know"
    run = Run.open(tmp_path / "r")
    assert run.info["kind"] == "measured"
    assert run.info["state"] == "complete"
    assert run.info["endpoint"]["talk"]["api"] == "ids"
    assert (done.returncode == 0) == run.info["valid"]
    (member,) = run.members
    rows = member.attempts()
    assert set(rows["outcome"].to_pylist()) == {int(Outcome.OK)}
    assert set(rows["prompt_tokens"].to_pylist()) == {24}
    assert set(rows["output_tokens"].to_pylist()) == {6}
    metrics = member.info["metrics"]
    assert metrics["requests"] == metrics["ok"] == rows.num_rows
    assert metrics["kv_mean"] == pytest.approx(0.25)
    assert metrics["queue_p99"] is None
    histograms = member.histograms()
    assert histograms["ttft"].sum() == histograms["e2e"].sum() == rows.num_rows
    assert histograms["itl"].sum() == 5 * rows.num_rows
    assert np.isclose(histograms["parts_all_first"].sum(), metrics["ttft_mean"], rtol=0.02)
    series = member.metrics()
    answered = [values[-1] for one, _, values in series if one["__name__"] == "gateway_requests_total"]
    assert sum(answered) == rows.num_rows
    assert {"up", "vllm:num_requests_running", "llm_tasks_total"} <= series.names
    for command in (["report", "r", "--no-figures"], ["alerts", "eval", "r", "--rules", "seed", "--no-figures"]):
        again = typed(command, tmp_path)
        assert again.returncode in (0, 3), again.stderr
        assert "Traceback" not in again.stderr
    shown = json.loads(typed(["report", "r", "--no-figures", "--json"], tmp_path).stdout)
    assert shown["tester"][0]["sent"] == rows.num_rows
    why = typed(["why", "r"], tmp_path)
    assert "before the first token" in why.stdout, why.stderr
    assert "prefill" not in why.stdout
    assert "replica" not in why.stdout
    assert "alerts prove" not in done.stdout
    run.info["rules"] = ["seed"]
    assert (f"blowout alerts prove {tmp_path / 'r'} --rules seed") in [said for said, _ in tables.next_commands(run)]


def test_a_scenario_is_driven_with_text_and_repeats(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "name: a\nduration: 10m\nscrape_interval: 1s\nfleet: {kv_blocks: 999, step_time: {linear: {base: 10ms}}}\n"
        "workload: {rate_per_s: 10, cohorts: {a: {prompt_tokens: 51, output_tokens: 4}}}\nclaims: {fine: errors <= 0}\n"
    )
    with target(tmp_path, "--chat-only") as url:
        command = ["load", "run", "s.yaml", "--url", url, "--duration", "2s", "--repeat", "2", "--out", "r", "--json"]
        done = typed([*command, "--no-figures"], tmp_path)
    assert done.returncode in (0, 3), done.stderr
    shown = json.loads(done.stdout)
    assert shown["passed"]
    assert shown["points"][0]["seeds"] == [1, 2]
    run = Run.open(tmp_path / "r")
    for member in run.members:  # the server counts 7 + 2 a word
        assert set(member.attempts(["prompt_tokens"])["prompt_tokens"].to_pylist()) == {51}


def test_ctrl_c_keeps_the_rows_so_far(good: str, tmp_path: Path) -> None:
    command = ["load", "run", "--url", good, "--rate", "20", "--duration", "2m", "--out", "r", *SMALL]
    child = subprocess.Popen(
        [*BLOWOUT, *command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until_s = time.monotonic() + PATIENCE_S
    while child.poll() is None and not list(tmp_path.glob("r/.drive/rows-*.bin")) and time.monotonic() < until_s:
        time.sleep(0.1)
    time.sleep(2.0)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    assert "rows so far" in err
    assert is_whole(tmp_path / "r" / "attempts.parquet")
    run = Run.open(tmp_path / "r")
    assert run.info["state"] == "interrupted"
    assert not (tmp_path / "r" / ".drive").exists()
    assert run.members[0].attempts().num_rows > 1
    assert set(run.members[0].attempts()["outcome"].to_pylist()) == {int(Outcome.OK)}, "nothing of it was the service's"
    info = run.members[0].info
    assert info["metrics"]["requests"] == info["metrics"]["ok"]
    assert 8 < info["metrics"]["requests_per_s"] < 50, "over the time that was played, not the two minutes planned"
    assert info["metrics"]["goodput_per_s"] == pytest.approx(info["metrics"]["requests_per_s"])
    assert any("of 120 s" in note for note in info["notes"])
    assert len(run.members[0].histograms()["minute_requests"]) == 1
    assert typed(["report", "r", "--no-figures"], tmp_path).returncode == 0


def test_an_endpoint_that_dies_is_left_alone_and_rows_are_kept(tmp_path: Path) -> None:
    with target(tmp_path, "--die", "20") as url:
        done = typed(["load", "run", "--url", url, "--rate", "40", "--duration", "60s", "--out", "r", *SMALL], tmp_path)
    assert done.returncode == 4, done.stderr
    assert "left alone" in done.stderr
    assert "Traceback" not in done.stderr
    run = Run.open(tmp_path / "r")
    assert run.info["state"] == "failed"
    assert run.members[0].info["metrics"]["ok"] > 5
    assert run.members[0].info["metrics"]["failed"] > 5


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--url", "http://127.0.0.1:9"], 4, "could not be reached"),
        (["--url", "http://no-such-host.invalid", "--i-own-this-endpoint"], 4, "no such host"),
        (["--url", "http://192.0.2.1"], 2, "--i-own-this-endpoint"),
        (["--url", "127.0.0.1:8000"], 2, "expected the address"),
        (["--url", "http://127.0.0.1:9", "--rate", "1e6"], 2, "requests/s"),
        (["--url", "http://127.0.0.1:9", "--rate", "1", "--closed", "3"], 2, "--closed"),
        (["--url", "http://127.0.0.1:9", "--duration", "soon"], 2, "--duration"),
        (["--url", "http://127.0.0.1:9", "--header", "nonsense"], 2, "--header"),
        (["--url", "http://127.0.0.1:9", "--header", "A: env:NO_SUCH_VARIABLE_HERE"], 2, "NO_SUCH_VARIABLE_HERE"),
        (["kv-cliff", "--url", "http://127.0.0.1:9", "--rate", "3"], 2, "--set"),
        (
            ["kv-cliff", "--url", "http://127.0.0.1:9", "--duration", "1m"],
            2,
            "--duration 1m: does not suit the scenario",
        ),
        (["--url", "http://127.0.0.1:9", "--speed", "2", "--run-commands"], 2, "--run-commands"),
        (["no-such-scenario", "--url", "http://127.0.0.1:9"], 2, "no-such-scenario"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    options: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, err = said(options, capsys)
    assert found == code, err
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_where_nobody_watches_a_line_now_and_then_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = synthesis.scenario(5.0, "1m", 24, 6)
    states = [{"sent": 40, "in_flight": 2, "dropped": 0}, {"sent": 41, "in_flight": 1, "dropped": 3}]
    with progress_of(scenario, 1) as (progress, say):
        progress(9.0, states)
        assert not capsys.readouterr().err
        monkeypatch.setattr("loadtest.commands.load.run.LINE_S", -1.0)
        progress(10.0, states)
        say("12 s: KVFull is firing")
    said = capsys.readouterr().err.splitlines()
    assert said == ["load: 10 of 60 s, 81 sent, 3 in flight, 3 dropped", "12 s: KVFull is firing"]


def test_a_load_as_fast_as_nobody_plays_is_refused(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = said(["--url", good, "--speed", "5"], capsys)
    assert code == 2
    assert "--speed 5: expected 1" in err
    assert len(err.strip().splitlines()) == 1


def test_a_wrong_model_names_those_there_are(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = said(["--url", good, "--model", "gpt-9"], capsys)
    assert code == 2
    assert "gpt-9" in err
    assert "tiny" in err


def test_a_key_is_wanted_and_taken_from_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("BLOWOUT_API_KEY", raising=False)
    with target(tmp_path, "--key", "sesame") as url:
        code, err = said(["--url", url], capsys)
        assert code == 4
        assert "wants a key" in err
        monkeypatch.setenv("BLOWOUT_API_KEY", "wrong")
        code, err = said(["--url", url], capsys)
        assert code == 4
        assert "refused" in err
        monkeypatch.setenv("BLOWOUT_API_KEY", "sesame")
        code, err = said(["--url", url, "--model", "x"], capsys)
        assert code == 2


def test_a_web_page_is_no_endpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with target(tmp_path, "--mode", "html") as url:
        code, err = said(["--url", url], capsys)
    assert code == 4
    assert "HTML" in err


def test_a_server_that_closes_is_no_endpoint(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)

        def close() -> None:
            connection, _ = server.accept()
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=close)
        thread.start()
        code, err = said(["--url", f"http://127.0.0.1:{server.getsockname()[1]}"], capsys)
        thread.join(30)
    assert code == 4
    assert "closes the connection" in err


WITHOUT_LOCUST = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("locust", "gevent"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "locust" else found(name, *more)
sys.meta_path.insert(0, Blocked())
from sim.cli import main
main(sys.argv[1:])
"""


AT = "--url http://127.0.0.1:9"


@pytest.mark.parametrize("command", ["selftest", f"run {AT}", f"knee {AT} --slo x"])
def test_what_is_not_installed_is_one_sentence(command: str, tmp_path: Path) -> None:
    typed = [sys.executable, "-c", WITHOUT_LOCUST, "load", *command.split()]
    ended = subprocess.run(typed, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "pip install 'blowout[loadtest]'" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
