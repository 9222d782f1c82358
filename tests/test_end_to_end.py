"""End to end: a service whose KV cache fills at a known time, driven over HTTP; the right rules fire, no others.

Where there is a real Prometheus, it says the same.
"""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from sim.cli import main
from sim.results import Run
from tests.load_target import typed
from tests.test_serve import serving

if importlib.util.find_spec("locust") is None:  # to import it would patch this process
    pytest.skip("needs the extra loadtest", allow_module_level=True)

RULES = """\
groups:
  - name: short
    interval: 2s
    rules:
      - {record: "kv:mean", expr: 'avg_over_time(vllm:kv_cache_usage_perc[6s])'}
      - {alert: KVFull, expr: 'kv:mean > 0.8', for: 6s, labels: {severity: page}}
      - {alert: Queueing, expr: 'sum(vllm:num_requests_waiting) > 3', for: 4s, labels: {severity: page}}
      - {alert: Down, expr: 'up{job="vllm"} == 0', for: 4s, labels: {severity: page}}
      - alert: Errors
        expr: sum(rate(gateway_requests_total{code!="200"}[10s])) / sum(rate(gateway_requests_total[10s])) > 0.05
        for: 4s
"""
SCENARIO = """\
name: fills
duration: 45s
scrape_interval: 1s
seed: 3
fleet: {kv_blocks: 120, max_num_seqs: 64, max_model_len: 1000, step_time: {linear: {base: 20ms}}}
workload: {rate_per_s: 2, cohorts: {chat: {prompt_tokens: 240, output_tokens: 60}}}
faults:
- {surge: all, factor: 4, from: 15s, to: 25s}
- {slow: main, factor: 1.01, from: 2s, to: 4s, name: told, start_cmd: echo on >> told, stop_cmd: echo off >> told}
slo: {errors: 1%}
alerts: rules.yml
expect:
  KVFull: {fires: 20s-34s, pending: 15s-28s}
  Queueing: {fires: 17s-34s, pending: 15s-30s}
  Errors: silent
"""
"""Six requests fit into the KV cache, which is five a second; the surge brings eight."""


@pytest.mark.slow
def test_the_right_rules_fire_and_the_others_stay_silent(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES)
    (tmp_path / "fills.yaml").write_text(SCENARIO)
    real = shutil.which("prometheus")
    beside = ["--prometheus-bin", real] if real else []
    with serving(tmp_path, SCENARIO) as server:
        command = ["load", "run", "fills.yaml", "--url", f"http://127.0.0.1:{server.port}", "--rules", "rules.yml"]
        command += ["--run-commands", "--out", "r", "--no-figures", "--json", *beside]
        done = typed(command, tmp_path)
    shown = json.loads(done.stdout)
    rules = {one["rule"]: one for one in shown["alerts"]["runs"][0]["rules"]}
    assert {name: one["verdict"] for name, one in rules.items()} == dict.fromkeys(rules, "as expected"), done.stdout
    assert rules.keys() == {"KVFull", "Queueing", "Down", "Errors"}
    assert rules["Down"]["expected"]["by"] == "prediction"
    assert {name for name, one in rules.items() if one["pages_s"]} == {"KVFull", "Queueing"}
    run = Run.open(tmp_path / "r")
    events = run.members[0].events()
    watched = [(one["name"], one["state"]) for one in events if one["event"] == "alert"]
    for name in ("KVFull", "Queueing"):
        assert [state for other, state in watched if other == name][:2] == ["pending", "firing"]
    assert {name for name, _ in watched} == {"KVFull", "Queueing"}
    assert (tmp_path / "told").read_text() == "on\noff\n"
    assert [one["event"] for one in events if one["name"] == "told"] == ["fault_begins", "fault_ends"]
    if real:
        (agreement,) = shown["prometheus"]
        assert agreement["holds"], agreement
        assert (agreement["compared"], agreement["left_out"]) == (3, ["Errors"])
        assert agreement["firing_s"].keys() == agreement["pending_s"].keys() == {"KVFull", "Queueing"}
        for name, begun_s in agreement["firing_s"].items():
            assert agreement["pending_s"][name][0] < begun_s[0] < 34
    assert done.returncode == (0 if run.info["valid"] else 3), done.stderr  # a busy machine sends late, and says so


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prometheus-bin", "prometheus"], "expected --rules beside it"),
        (["--rules", "rules.yml", "--prometheus-bin", "no-such-program"], "no such program"),
        (["--rules", "rules.yml", "--prometheus-bin", "x", "--prometheus-url", "http://h"], "not --prometheus-url"),
        (["--rules", "rules.yml", "--set", "telemetry=none"], "telemetry"),
        (["--rules", "seed"], "`expect` names KVFull"),
        (["--rules", "nowhere.yml"], "nowhere.yml"),
    ],
)
def test_what_cannot_be_judged_is_said_before_the_load(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.yml").write_text(RULES)
    Path("fills.yaml").write_text(SCENARIO)
    with pytest.raises(SystemExit) as ended:
        main(["load", "run", "fills.yaml", "--url", "http://127.0.0.1:9", *options])
    err = capsys.readouterr().err
    assert ended.value.code == 2, err
    assert words in err
    assert len(err.strip().splitlines()) == 1
