"""Rules of a quarter of an hour, proven in a minute: a load as fast as the fleet that is served."""

import importlib.util
import json
from pathlib import Path

import pytest

from sim.results import Run
from tests.load_target import typed
from tests.test_serve import serving

if importlib.util.find_spec("locust") is None:  # to import it would patch this process
    pytest.skip("needs the extra loadtest", allow_module_level=True)

SPEED = 20
RULES = """\
groups:
  - name: long
    interval: 15s
    rules:
      - {alert: KVFull, expr: 'avg_over_time(vllm:kv_cache_usage_perc[5m]) > 0.8', for: 8m, labels: {severity: page}}
      - {alert: Down, expr: 'up{job="vllm"} == 0', for: 5m, labels: {severity: page}}
"""
SCENARIO = """\
name: fills-slowly
duration: 16m
drain: 20s
scrape_interval: 15s
seed: 3
fleet: {kv_blocks: 120, max_num_seqs: 64, max_model_len: 1000, step_time: {linear: {base: 200ms}}}
workload: {rate_per_s: 0.2, cohorts: {chat: {prompt_tokens: 240, output_tokens: 60}}}
faults:
- {surge: all, factor: 3, from: 1m}
- {periodic: {slow: main, factor: 1.01, every: 4m, lasting: 1m}}
expect:
  KVFull: {fires: 11m-15m30s, pending: 3m-8m}
  Down: silent
"""
"""Six requests of 12 s each fit into the KV cache, which is one every two seconds; the surge brings 0.6 a second."""


@pytest.mark.slow
def test_a_rule_of_a_quarter_of_an_hour_is_proven_in_a_minute(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES)
    (tmp_path / "fills.yaml").write_text(SCENARIO)
    with serving(tmp_path, SCENARIO, "--speed", str(SPEED)) as server:
        command = ["load", "run", "fills.yaml", "--url", f"http://127.0.0.1:{server.port}", "--rules", "rules.yml"]
        refused = typed(command, tmp_path)
        done = typed([*command, "--speed", str(SPEED), "--out", "r", "--no-figures", "--json"], tmp_path)
    assert refused.returncode == 2
    assert f"--speed 1: expected {SPEED}" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    shown = json.loads(done.stdout)
    rules = {one["rule"]: one for one in shown["alerts"]["runs"][0]["rules"]}
    assert {name: one["verdict"] for name, one in rules.items()} == dict.fromkeys(rules, "as expected"), done.stdout
    run = Run.open(tmp_path / "r")
    (member,) = run.members
    rows = member.attempts()
    assert max(rows["scheduled_s"].to_pylist()) > 15 * 60
    assert member.info["metrics"]["requests_per_s"] == pytest.approx(0.575, rel=0.25)
    assert member.info["metrics"]["e2e_p50"] >= 12.0
    assert any("20 times as fast" in note for note in member.info["notes"])
    begun = [one["t_s"] for one in member.events() if one["event"] == "fault_begins" and one["mechanism"] == "slow"]
    assert len(begun) >= 3
    assert not [one for one in member.events() if one["event"] == "fault_not_injected"]
    assert done.returncode == (0 if run.info["valid"] else 3), done.stderr  # a busy machine sends late, and says so
