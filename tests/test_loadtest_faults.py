"""Faults on a real service: commands run on time and what fails is told; marks by hand; nothing is assumed."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from loadtest import faults
from loadtest.faults import Injector, execute, injections, not_injected
from sim import results
from sim.cli import main
from sim.report import happened
from sim.scenario import dump, loads

TEXT = """
name: staged
duration: 20m
fleet: {kv_blocks: 99, replicas: 2, step_time: {linear: {base: 10ms}}}
workload: {rate_per_s: 1, cohorts: {a: {prompt_tokens: 9, output_tokens: 9}}}
faults:
- {slow: main/0, factor: 2, from: 100ms, to: 300ms, name: good, start_cmd: "echo on; echo $((1+1))", stop_cmd: echo off}
- {stop: main/1, from: 100ms, to: 200ms, name: fails, start_cmd: "echo no; exit 3", stop_cmd: "echo cleaned"}
- {stop: main/0, from: 100ms, name: stays, start_cmd: "true", stop_cmd: "exit 7"}
- {slow: main/1, factor: 2, from: 500s, name: late, start_cmd: "true"}
- {slow: main/1, factor: 2, from: 5m, to: 6m, name: bare}
- {surge: all, factor: 2, from: 5m, to: 6m}
- {random: {slow: main, factor: 2, mtbf: 5m, mttr: 1m}}
"""


def played(text: str, lasting_s: float, limit_s: float = 5.0) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    injector = Injector(
        injections(loads(text)),
        lambda t_s, event, **said: told.append({"t_s": t_s, "event": event, **said}),
        limit_s=limit_s,
    )
    injector.start()
    time.sleep(lasting_s)
    injector.stop()
    return told


def test_commands_run_on_time_and_what_fails_is_told() -> None:
    told = played(TEXT, 1.5)
    events = {(one["name"], one["event"]): one for one in told}
    assert events.keys() == {
        ("good", "fault_begins"),
        ("good", "fault_ends"),
        ("fails", "fault_not_injected"),
        ("stays", "fault_begins"),
        ("stays", "fault_not_ended"),
        ("late", "fault_not_injected"),
    }
    assert events["good", "fault_begins"]["output"] == "on\n2"
    assert events["good", "fault_begins"]["target"] == "main/0"
    assert 0.1 <= events["good", "fault_begins"]["t_s"] < 1
    assert 0.3 <= events["good", "fault_ends"]["t_s"] < 1.5
    assert events["fails", "fault_not_injected"]["why"] == "exit code 3"
    assert events["fails", "fault_not_injected"]["output"] == "no"
    assert events["stays", "fault_not_ended"]["why"] == "exit code 7"
    assert events["late", "fault_not_injected"]["why"] == "the test ended before it"
    spans = {one.label: one.end_s for one in happened.spans(sorted(told, key=lambda one: float(one["t_s"])), 60)}
    assert spans.keys() == {"good (slow main/0)", "stays (stop main/0)"}
    assert spans["stays (stop main/0)"] == 60


def test_a_test_that_ends_early_ends_what_it_began(tmp_path: Path) -> None:
    text = TEXT.replace("echo off", f'"touch {tmp_path}/ended"').replace("to: 300ms", "to: 10m")
    played(text, 0.8)
    assert (tmp_path / "ended").exists()


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    begun_s = time.monotonic()
    failed, output = execute(f"echo waiting; (sleep 30; touch {tmp_path}/late) ; true", 0.5)
    assert failed == "took longer than 0.5 s"
    assert output == "waiting"
    assert time.monotonic() - begun_s < 10
    assert execute("sleep 30 & echo on", 5) == ("", "on")  # what stays in the background is not waited for
    assert execute("no-such-program-at-all", 5)[0] == "exit code 127"


def test_what_nobody_made_happen_is_told() -> None:
    scenario = loads(TEXT)
    told = not_injected(scenario, [{"t_s": 1, "event": "fault_begins", "name": "good"}, {"t_s": 1, "event": "scaled"}])
    assert {one["name"]: one["why"].partition(",")[0] for one in told} == {
        "fails": "it has no start_cmd",
        "stays": "it has no start_cmd",
        "late": "it has no start_cmd",
        "bare": "it has no start_cmd",
        "slow main": "it comes at random",
    }
    assert {one["event"] for one in told} == {"fault_not_injected"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a load test that goes on, and an older one that ended."""
    monkeypatch.chdir(tmp_path)
    for name, state in (("001", "running"), ("002", "complete")):
        folder = Path("results") / "staged" / name
        folder.mkdir(parents=True)
        info = {"format": results.FORMAT, "kind": "measured", "state": state, "started": time.time() - 60}
        results.write_json(folder / "run.json", info | {"members": [{"point": {}, "seed": 1, "path": "."}]})
        (folder / "scenario.yaml").write_text(dump(loads(TEXT)))
    return Path("results/staged/001")


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["load", "mark", *words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_marks_are_events_of_the_test_that_goes_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed(capsys, "bare", "start")
    assert (code, err) == (0, "")
    assert "fault begins at 60 s: bare" in out
    assert "blowout load mark 'bare' stop" in out
    code, out, _ = typed(capsys, "bare", "stop", "--json")
    assert json.loads(out)["event"] == "fault_ends"
    code, _, err = typed(capsys, "other thing", "start", "--run", str(run))
    assert code == 0
    assert "other thing: no fault of the scenario is called so; noted all the same" in err
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [(one["event"], one["name"]) for one in events] == [
        ("fault_begins", "bare"),
        ("fault_ends", "bare"),
        ("fault_begins", "other thing"),
    ]
    assert events[0]["mechanism"] == "slow"
    assert "bare" not in {one["name"] for one in not_injected(loads(TEXT), events)}
    faults.settle(run / "events.jsonl", events[0]["unix_s"] - 100)
    again = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert again[0]["t_s"] == 100


def test_marks_do_not_tear_what_the_test_itself_writes(tmp_path: Path) -> None:
    recorder = results.Recorder(tmp_path)
    threads = [
        threading.Thread(
            target=lambda: [faults.append(tmp_path / "events.jsonl", {"t_s": 1, "event": "x" * 500}) for _ in range(50)]
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for i in range(200):
        recorder.event(float(i), "own", said="y" * 300)
    for thread in threads:
        thread.join(20)
    recorder.close()
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert len(lines) == 350


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bare", "begin"), "'begin' is not one of 'start', 'stop'"),
        (("bare", "start", "--run", "nowhere"), "expected the folder of a run"),
        (("bare", "start", "--run", "results/staged/003"), "expected a load test, got a simulated run"),
    ],
)
def test_mistakes(words: tuple[str, ...], said: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    third = Path("results/staged/003")
    third.mkdir()
    info = json.loads((run / "run.json").read_text())
    results.write_json(third / "run.json", info | {"kind": "simulated"})
    code, _, err = typed(capsys, *words)
    assert code == 2
    assert said in err


def test_without_a_load_test_there_is_nothing_to_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = typed(capsys, "x", "start")
    assert code == 2
    assert "results: holds no load test; name the folder of one with --run" in err


def test_faults_that_the_endpoint_plays_are_told_at_the_times_of_the_load_test() -> None:
    """The load began 0.2 s after the endpoint, and lasted 60 s."""
    found = faults.served(loads(TEXT), 0.2, 60.0)
    told = {(one["name"], one["event"]): one["t_s"] for one in found}
    assert told[("good", "fault_begins")] == 0.0
    assert told[("good", "fault_ends")] == pytest.approx(0.1)
    assert ("stays", "fault_begins") in told
    assert ("stays", "fault_ends") not in told
    assert ("fails", "fault_not_injected") in told  # over before the load began
    assert ("late", "fault_not_injected") in told
    assert not [name for name, _ in told if name.startswith(("surge", "random"))]


def test_the_same_faults_are_known_by_their_digest_whatever_their_commands() -> None:
    same = loads(TEXT.replace('start_cmd: "true", stop_cmd: "exit 7"', 'start_cmd: "false"'))
    other = loads(TEXT.replace("from: 500s", "from: 501s"))
    assert faults.faults_digest(same) == faults.faults_digest(loads(TEXT)) != faults.faults_digest(other)


def test_commands_that_nobody_allowed_are_reported() -> None:
    found = {one["name"]: one["why"] for one in not_injected(loads(TEXT), [], run_commands=False)}
    assert "--run-commands" in found["good"]
    assert "no start_cmd" in found["bare"]


def test_faults_at_random_are_as_the_endpoint_tells_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"name": "slow main", "target": "main/0", "mechanism": "slow"}
    times = [("fault_begins", 5.0), ("fault_ends", 8.0), ("fault_begins", 9.0), ("fault_ends", 14.0)]
    times += [("fault_begins", 40.0), ("fault_ends", 41.0), ("fault_begins", 65.0)]
    told = [{"t_s": t_s, "event": event, **said} for event, t_s in times]
    told.append({"t_s": 12.0, "event": "fault_begins", "name": "good", "target": "main", "mechanism": "slow"})
    monkeypatch.setattr(faults.fetch, "ask", lambda *_: (json.dumps({"events": told}).encode(), None))
    found = faults.served_now_and_then(loads(TEXT), "http://h/faults", 10.0, 50.0)
    assert [(one["event"], one["t_s"]) for one in found] == [
        ("fault_begins", 0.0), ("fault_ends", 4.0), ("fault_begins", 30.0), ("fault_ends", 31.0)
    ]  # fmt: skip
    assert {one["how"] for one in found} == {faults.SERVED}
    told.clear()
    (none,) = faults.served_now_and_then(loads(TEXT), "http://h/faults", 10.0, 50.0)
    assert (none["event"], none["name"]) == ("fault_not_injected", "slow main")
    assert "did not come up" in none["why"]
