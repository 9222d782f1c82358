"""A scenario file: what it may say, what each mistake is told, and that it survives being written down."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import ScenarioError
from sim.scenario import Problem, Scenario, digest, dump, json_schema, load, loads, points, reread, shipped
from sim.scenario.document import write
from sim.scenario.shorter import TOTALS as TOTAL_METRICS
from sim.scenario.shorter import unjudged
from sim.scenario.targets import largest, members
from sim.summary import COUNTS
from sim.units import duration_s, fraction, quantity

SMALL = """\
name: small
duration: 10m
fleet: {model: llama-3.1-8b, hardware: h100}
workload:
  rate_per_s: 2
  cohorts:
    chat: {prompt_tokens: 100, output_tokens: 50}
"""
POOLS = """\
name: pools
duration: 10m
fleet:
  pools:
    chat: {model: llama-3.1-8b, hardware: h100}
    code: {model: qwen3-32b, hardware: h100, replicas: 2}
workload:
  rate_per_s: 2
  cohorts:
    ask: {share: 30%, prompt_tokens: 100, output_tokens: 50}
    edit: {share: 0.7, prompt_tokens: 100, output_tokens: 50, pool: code}
"""


def mistake(text: str, *overrides: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        loads(text, "x.yaml", overrides)
    return str(caught.value)


def outcome(text: str, *overrides: str) -> str:
    """Return "read", or what the reader was told."""
    try:
        loads(text, "x.yaml", overrides)
    except ScenarioError as error:
        return str(error)
    return "read"


def swap(old: str, new: str, text: str = SMALL) -> str:
    assert old in text
    return text.replace(old, new)


# --- what may be said -----------------------------------------------------------------------------------------------


def test_a_small_scenario_has_a_default_for_the_rest() -> None:
    scenario = loads(SMALL)
    pool = scenario.fleet.pools["main"]
    assert (scenario.duration, scenario.warmup, scenario.seed, scenario.rows) == (600.0, 0.0, 1, "all")
    assert (pool.replicas, pool.max_num_seqs, pool.max_num_batched_tokens, pool.block_size) == (1, 256, 8192, 16)
    assert scenario.fleet.router == "least_outstanding"
    assert scenario.workload.arrivals == "poisson"
    assert scenario.workload.cohorts["chat"].prompt_tokens == 100
    assert scenario.clients.timeout is None
    assert scenario.slo.window == 30 * 86_400


def test_every_long_form() -> None:
    scenario = loads(
        POOLS
        + """\
  arrivals: {bursts: {rate_per_s: 9, mean_on: 5s, mean_off: 1m30s}}
  sessions: {turns: {exponential: {mean: 3.5}}, think: 20s, carry: false}
clients: {timeout: 30s}
slo: {ttft_p99: 2s, errors: 0.1%, cohort.ask.ttft_p99: 1, window: 7d}
rows: {sample: 1%}
"""
    )
    kind, bursts = scenario.workload.arrivals.choice
    assert (kind, bursts.mean_off) == ("bursts", 90.0)
    assert scenario.workload.sessions.turns.choice[1].mean == 3.5
    assert list(scenario.fleet.pools) == ["chat", "code"]
    assert scenario.rows.sample == 0.01
    assert scenario.slo.targets == {"ttft_p99": 2.0, "errors": 0.001, "cohort.ask.ttft_p99": 1.0}
    assert scenario.workload.cohorts["ask"].share == 0.3


def test_what_goes_wrong_and_who_decides() -> None:
    text = swap("pool: code}", "pool: code, clients: {timeout: 9s}}", POOLS)
    scenario = loads(
        swap("fleet:", "fleet:\n  router: {power_of_d: {choices: 3, refresh: 5s}}\n  admission: {max_queue: 64}", text)
        + """\
clients: {timeout: 30s, retries: 3, backoff: {base: 1s, jitter: full}, patience: {exponential: {mean: 20s}}}
faults:
  - {stop: code/1, from: 1m, to: 2m, how: hang}
  - random: {slow: chat, mtbf: 6h, mttr: 10m, factor: 3}
control:
  - {autoscale: code, target: 20, max: 9}
  - {python: json:load}
"""
    )
    assert (scenario.fleet.routing[0], scenario.fleet.routing[1].refresh) == ("power_of_d", 5.0)
    assert loads(SMALL).fleet.routing[0] == "least_outstanding"
    assert scenario.fleet.pools["code"].admission is None
    hang, slow = scenario.faults
    assert (hang.stop, hang.from_, hang.to, hang.how) == ("code/1", 60.0, 120.0, "hang")
    assert (slow.random.mtbf, slow.random.from_, slow.random.to) == (21_600.0, 0.0, None)
    assert scenario.control[0].down_window == 300.0
    assert scenario.control[1].python == "json:load"
    assert scenario.workload.cohorts["ask"].clients is None
    assert scenario.workload.cohorts["edit"].clients.retries == 0, "what a cohort says replaces the rest as well"
    assert largest(scenario, "code") == 9
    assert members(scenario, "code/zone-0") == ("code", range(9))


IN_LISTS = """\
faults: [{stop: chat, from: 1m}, {random: {stop: chat, mtbf: 1h, mttr: 1m}}]
control: [{autoscale: code, target: 3, max: 4}]
"""


@pytest.mark.parametrize(
    ("path", "values", "kept"),
    [
        ("faults.0.how", "[crash, hang]", ["crash", "hang"]),
        ("faults[0].from", "[0, 2m]", [0.0, 120.0]),
        ("faults.1.random.mttr", "[1m, 2m]", [60.0, 120.0]),
        ("control.0.cold_start", "[1m, 5m]", [60.0, 300.0]),
    ],
)
def test_a_setting_in_a_list_varies(path: str, values: str, kept: list[Any]) -> None:
    scenario = loads(POOLS + IN_LISTS, overrides=[f"vary={{'{path}': {values}}}"])
    assert list(scenario.vary.values()) == [kept]
    assert len({digest(one) for _, one in points(scenario)}) == 2
    assert loads(dump(scenario)) == scenario


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("faults.0.hwo=hang", "no such setting; did you mean 'how'?"),
        ("faults.0.factor=3", "no such setting, expected one of stop, from, to, how, name, start_cmd, stop_cmd"),
        ("faults.2.how=hang", "no such setting, expected one of 0, 1"),
        ("faults.first.how=hang", "no such setting, expected one of 0, 1"),
        ("control.0.max=1", "expected at least the replicas that code begins with (2), got 1"),
    ],
)
def test_a_mistake_in_a_list_names_the_option(option: str, sentence: str) -> None:
    assert mistake(POOLS + IN_LISTS, option) == f"--set {option}: {sentence}"


def test_settings_of_trouble_vary() -> None:
    scenario = loads(
        SMALL
        + """\
vary:
  fleet.admission.max_queue: [20, 200]
  clients.retry_budget.share: [10%, 20%]
  faults: [[], [{slow: main, factor: 3}]]
"""
    )
    played = [one for _, one in points(scenario)]
    assert [one.fleet.admission.max_queue for one in played] == [20] * 4 + [200] * 4
    assert [one.clients.retry_budget.share for one in played] == [0.1, 0.1, 0.2, 0.2] * 2
    assert [len(one.faults) for one in played] == [0, 1] * 4


def test_a_process_of_ones_own_is_found_again_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "here" / "mine.py").touch()
    (tmp_path / "here" / "x.yaml").write_text(SMALL + "control: [{python: 'mine:process'}]\n")
    monkeypatch.chdir(tmp_path)
    scenario = load("here/x.yaml")
    assert scenario.control[0].python == "here/mine.py:process"
    (tmp_path / "there" / "scenario.yaml").write_text(dump(scenario, tmp_path / "there"))
    assert "../here/mine.py:process" in (tmp_path / "there" / "scenario.yaml").read_text()
    assert load("there/scenario.yaml") == scenario
    (tmp_path / "here" / "mine.py").unlink()
    assert reread(tmp_path / "there" / "scenario.yaml").control[0].python == "../here/mine.py:process"


@pytest.mark.parametrize(
    ("workload", "field"),
    [
        ("arrivals: {gamma: {cv: 3}}, rate_per_s: 1", "gamma"),
        ("arrivals: {piecewise: [{at: 0, rate_per_s: 1}, {at: 5m, rate_per_s: 0}]}", "piecewise"),
        ("arrivals: {diurnal: {peak_to_mean: 1.6}}, rate_per_s: 1", "diurnal"),
        ("arrivals: {closed: {users: 40, think: 5s}}", "closed"),
    ],
)
def test_arrivals(workload: str, field: str) -> None:
    text = swap("workload:\n  rate_per_s: 2\n  cohorts:\n    chat: ", "workload: {" + workload + ", cohorts: {chat: ")
    assert loads(text.rstrip() + "}}").workload.arrivals.choice[0] == field


@pytest.mark.parametrize(
    "length",
    [
        "12",
        "10e2",
        "1_000",
        "{lognormal: {median: 300, sigma: 0.7, max: 4096}}",
        "{gamma: {mean: 300, cv: 1.2}}",
        "{exponential: {mean: 80}}",
        "{empirical: {values: [10, 20], weights: [1, 0]}}",
        "{named: azure-conv-prompt}",
    ],
)
def test_lengths(length: str) -> None:
    assert loads(swap("output_tokens: 50", f"output_tokens: {length}")).workload.cohorts["chat"].output_tokens


def test_yaml_1_1_does_not_surprise() -> None:
    scenario = loads(swap("chat:", "on:", swap("rate_per_s: 2", "rate_per_s: 1e-1")) + "title: yes\nseed: 010\n")
    assert list(scenario.workload.cohorts) == ["on"]
    assert (scenario.workload.rate_per_s, scenario.title, scenario.seed) == (0.1, "yes", 10)


def test_an_anchor_may_be_used_again() -> None:
    scenario = loads(
        swap("prompt_tokens: 100, output_tokens: 50", "prompt_tokens: &n {exponential: {mean: 9}}, output_tokens: *n")
    )
    chat = scenario.workload.cohorts["chat"]
    assert chat.prompt_tokens == chat.output_tokens


def test_a_mapping_may_be_merged_into_another() -> None:
    text = swap("{model: qwen3-32b, hardware: h100, replicas: 2}", "{<<: *common, replicas: 2, model: m}", POOLS)
    text = swap("chat: {", "chat: &common {", text)
    pool = loads(text).fleet.pools["code"]
    assert (pool.model, pool.hardware, pool.replicas) == ("m", "h100", 2)
    two = loads(swap("{model: m, hardware: h, seed: 4}", "{<<: [*a, *b]}", """\
name: merged
duration: 1m
fleet:
  pools:
    a: &a {model: a, hardware: a}
    b: &b {model: b, hardware: b, replicas: 7}
    c: {model: m, hardware: h, seed: 4}
workload: {trace: null, rate_per_s: 1, cohorts: {x: {prompt_tokens: 1, output_tokens: 1}}}
"""))  # fmt: skip
    assert (two.fleet.pools["c"].model, two.fleet.pools["c"].replicas) == ("a", 7)
    assert mistake(swap("chat: &common {", "chat: &common {modle: a, ", text)).splitlines() == [
        "x.yaml:5: fleet.pools.chat.modle: unknown key; did you mean 'model'?",
        "x.yaml:5: fleet.pools.code.modle: unknown key; did you mean 'model'?",
    ]


def test_none_is_a_word() -> None:
    linear = "model: none, hardware: null, kv_blocks: 900, step_time: {linear: {base: 5ms, per_sequence: 40us}}"
    scenario = loads(swap("model: llama-3.1-8b, hardware: h100", linear) + "clients: {timeout: none}\nrows: none\n")
    pool = scenario.fleet.pools["main"]
    assert (pool.model, scenario.clients.timeout, scenario.rows) == (None, None, "none")
    assert pool.step_time.linear.per_sequence == 40e-6


def test_a_trace_needs_neither_rate_nor_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").touch()
    (tmp_path / "x.yaml").write_text(
        "name: t\nduration: 1m\nfleet: {model: m, hardware: h}\nworkload: {trace: a.csv}\n"
    )
    scenario = load(tmp_path / "x.yaml")
    assert scenario.workload.trace.time_scale == 1.0
    assert list(scenario.workload.cohorts) == ["all"]
    monkeypatch.chdir(tmp_path)
    assert load("x.yaml").workload.trace.file == "a.csv"
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.yaml").write_text(dump(load("x.yaml")))
    assert load("deep/x.yaml") == load("x.yaml"), "a resolved scenario finds its files from where the command runs"
    scaled = load("x.yaml", ["workload.trace.time_scale=0.5"])
    assert (scaled.workload.trace.file, scaled.workload.trace.time_scale) == ("a.csv", 0.5)
    assert loads(SMALL, "x.yaml", ["workload.trace=a.csv"], tmp_path).workload.trace.file == "a.csv"


def test_a_model_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    text = swap("llama-3.1-8b", "config.json")
    pool = loads(text, "x.yaml", folder=tmp_path).fleet.pools["main"]
    assert Path(pool.model).resolve() == tmp_path / "config.json"
    assert mistake(text) == "x.yaml:3: fleet.model: expected a file, but there is no 'config.json'"


# --- what each mistake is told --------------------------------------------------------------------------------------

MISTAKES = [
    # values
    ("rate_per_s: 2", "rate_per_s: -3", "5: workload.rate_per_s: expected a number greater than 0, got -3"),
    ("rate_per_s: 2", "rate_per_s: 2/s", "5: workload.rate_per_s: expected a number, got '2/s'"),
    ("rate_per_s: 2", "rate_per_s: .nan", "5: workload.rate_per_s: expected a number, got '.nan'"),
    ("rate_per_s: 2", "rate_per_s: 1e999", "5: workload.rate_per_s: expected a number, got '1e999'"),
    ("rate_per_s: 2", "rate_per_s: true", "5: workload.rate_per_s: expected a number, got true"),
    ("rate_per_s: 2", "rate_per_s: [2]", "5: workload.rate_per_s: expected a number, got a list"),
    ("name: small", "name: Small One", "1: name: expected a name of lower case letters, digits and -, got 'Small One'"),
    ("name: small", "name: 7", "1: name: expected a text, got 7 (quotes make it a text)"),
    ("name: small", f"name: {'a' * 65}", f"1: name: expected at most 64 characters, got '{'a' * 57}...'"),
    ("chat:", "a b:", "7: workload.cohorts.a b: expected a name of letters, digits, - and _, got 'a b'"),
    (
        "duration: 10m",
        "duration: 10 minutes",
        "2: duration: expected a duration such as 250ms, 5m or 1h30m, not below 0, got '10 minutes'",
    ),
    (
        "duration: 10m",
        "duration: 1:30",
        "2: duration: expected a duration such as 250ms, 5m or 1h30m, got '1:30'; did you mean 1m30s or 1h30m?",
    ),
    (
        "duration: 10m",
        "duration: 0",
        "2: duration: expected a duration such as 250ms, 5m or 1h30m, greater than 0, got 0",
    ),
    (
        "duration: 10m",
        "duration:",
        "2: duration: expected a duration such as 250ms, 5m or 1h30m, not below 0, got nothing",
    ),
    (
        "hardware: h100",
        "hardware: h100, watermark: 5",
        "3: fleet.watermark: expected a fraction from 0 to 1 or a percentage such as 5%, got 5; did you mean 5%?",
    ),
    (
        "hardware: h100",
        "hardware: h100, chunked_prefill: yes",
        "3: fleet.chunked_prefill: expected true or false, got 'yes'",
    ),
    ("hardware: h100", "hardware: h100, replicas: 1.5", "3: fleet.replicas: expected a whole number, got 1.5"),
    ("hardware: h100", "hardware: h100, replicas: 0", "3: fleet.replicas: expected a number of at least 1, got 0"),
    (
        "hardware: h100",
        "hardware: h100, router: round-robin",
        "3: fleet.router: expected 'round_robin', 'random', 'least_outstanding', 'power_of_d', 'prefix_affinity' or "
        "'session_sticky', got 'round-robin'",
    ),
    ("fleet: {model: llama-3.1-8b, hardware: h100}", "fleet: h100", "3: fleet: expected a mapping, got 'h100'"),
    ("fleet: {model: llama-3.1-8b, hardware: h100}", "fleet: {pools: {}}",
     "3: fleet.pools: expected at least 1 entry, got an empty mapping"),
    (
        "output_tokens: 50",
        "output_tokens: long",
        "7: workload.cohorts.chat.output_tokens: expected a whole number of tokens or a mapping with one of "
        "lognormal, gamma, exponential, empirical, named, got 'long'",
    ),
    (
        "output_tokens: 50",
        "output_tokens: {lognormal: {median: 9, sigma: 1}, gamma: {mean: 9, cv: 1}}",
        "7: workload.cohorts.chat.output_tokens: expected exactly one of lognormal, gamma, exponential, empirical, "
        "named, got lognormal and gamma",
    ),
    (
        "output_tokens: 50",
        "output_tokens: {lognormal: {median: 9, sigma: 1, min: 10, max: 5}}",
        "7: workload.cohorts.chat.output_tokens.lognormal: expected max to be at least min, got max 5 and min 10",
    ),
    (
        "output_tokens: 50",
        "output_tokens: {empirical: {values: [1, 0], weights: [1]}}",
        "7: workload.cohorts.chat.output_tokens.empirical.values[1]: expected a number of at least 1, got 0",
    ),
    (
        "output_tokens: 50",
        "output_tokens: {empirical: {values: [1, 2], weights: [1]}}",
        "7: workload.cohorts.chat.output_tokens.empirical: expected 2 weights, one a value, with a sum above 0",
    ),
    ("output_tokens: 50", "output_tokens: 50, priority: 4",
     "7: workload.cohorts.chat.priority: expected a number of at most 3, got 4"),
    (
        "  rate_per_s: 2",
        "  rate_per_s: 2\n  arrivals: {diurnal: {peak_to_mean: 3}}",
        "6: workload.arrivals.diurnal.peak_to_mean: expected a number of at most 2, got 3",
    ),
    # keys
    ("hardware: h100", "hardware: h100, replica: 2", "3: fleet.replica: unknown key; did you mean 'replicas'?"),
    ("fleet: {", "fleet: {pool: {}, ", "3: fleet.pool: unknown key; did you mean 'pools'?"),
    ("duration: 10m", "duraton: 10m", "2: duraton: unknown key; did you mean 'duration'?"),
    ("duration: 10m", "warmup: 0", "1: duration: missing, expected the length of a run, in simulated time"),
    (
        "output_tokens: 50",
        "output_tokens: {lognormal: {mean: 9, sigma: 1}}",
        "7: workload.cohorts.chat.output_tokens.lognormal.mean: unknown key; did you mean 'median'?",
    ),
    (
        "output_tokens: 50",
        "output_tokens: {weibull: {}}",
        "7: workload.cohorts.chat.output_tokens.weibull: unknown key, expected one of lognormal, gamma, exponential, "
        "empirical, named",
    ),
    ("duration: 10m", "duration: 10m\nduration: 5m", "3: the key 'duration' stands twice; the first is on line 2"),
    ("duration: 10m", "duration: 10m\n? [a]\n: 5m", "3: expected a plain key, got a list or a mapping"),
    # what settings must agree on
    ("duration: 10m", "duration: 10m\nwarmup: 10m", "3: warmup: expected less than duration (600 s), got 600 s"),
    ("output_tokens: 50", "output_tokens: 50, share: 40%",
     "6: workload.cohorts: expected the shares to sum to 1, got 0.4"),
    ("output_tokens: 50", "output_tokens: 50, pool: mian",
     "7: workload.cohorts.chat.pool: no pool 'mian'; did you mean 'main'?"),
    (", output_tokens: 50", "",
     "7: workload.cohorts.chat.output_tokens: missing, expected tokens or a distribution of them"),
    ("    chat: {prompt_tokens: 100, output_tokens: 50}\n", "",
     "6: workload.cohorts: expected a mapping, got nothing"),
    ("  rate_per_s: 2\n", "", "4: workload.rate_per_s: missing, expected arrivals a second, on average"),
    (
        "  rate_per_s: 2",
        "  rate_per_s: 2\n  arrivals: {closed: {users: 3, think: 1s}}",
        "5: workload.rate_per_s: expected none with closed arrivals (its users make the rate), got 2",
    ),
    (
        "  rate_per_s: 2",
        "  arrivals: {closed: {users: 3, think: 0}}",
        "5: workload.arrivals.closed.think: expected a duration such as 250ms, 5m or 1h30m, greater than 0, got 0",
    ),
    (
        "  rate_per_s: 2",
        "  rate_per_s: 2\n  sessions: {turns: 3, think: 0}",
        "6: workload.sessions.think: expected a duration such as 250ms, 5m or 1h30m, greater than 0, got 0",
    ),
    (
        "  rate_per_s: 2",
        "  arrivals:\n    piecewise:\n      - {at: 0, rate_per_s: 1}\n      - {at: 5m, rate_per_s: 2}\n"
        "      - {at: 5m, rate_per_s: 2}",
        "9: workload.arrivals.piecewise[2].at: expected more than the stage before (300 s), got 300 s",
    ),
    (
        "  rate_per_s: 2",
        "  arrivals: {piecewise: [{at: 1m, rate_per_s: 1}]}",
        "5: workload.arrivals.piecewise[0].at: expected 0, the start of the run, got 60",
    ),
    (
        "  rate_per_s: 2",
        "  arrivals: {closed: {users: 3, think: 1s}}\n  sessions: {turns: 3, think: 1s}",
        "6: workload.sessions: expected none with closed arrivals, whose users already come back",
    ),
    (
        "hardware: h100",
        "hardware: h100, chunked_prefill: false, max_model_len: 9000",
        "3: fleet.max_num_batched_tokens: expected at least max_model_len (9000) without chunked_prefill, got 8192",
    ),
    (
        ", hardware: h100",
        "",
        "3: fleet.hardware: missing, expected a name (`blowout hardware` lists them), or else step_time and kv_blocks",
    ),
    (
        "  rate_per_s: 2",
        "  trace: nowhere.csv",
        "5: workload.trace.file: expected a file, but there is no 'nowhere.csv'",
    ),
    # what was promised
    ("duration: 10m", "duration: 10m\nclients: {timeot: 3}", "3: clients.timeot: unknown key; did you mean 'timeout'?"),
    ("duration: 10m", "duration: 10m\nslo: {windw: 7d}", "3: slo.windw: unknown key; did you mean 'window'?"),
    ("duration: 10m", "duration: 10m\nslo: {ttft_p99: fast}",
     "3: slo.ttft_p99: expected a number, a duration such as 2s or a percentage such as 0.1%, got 'fast'"),
    ("duration: 10m", "duration: 10m\nrows: some", "3: rows: expected all, none or {sample: 1%}, got 'some'"),
    # the sweep
    ("duration: 10m", "duration: 10m\nvary: {workload.rate: [1]}",
     "3: vary.workload.rate: no such setting; did you mean 'rate_per_s'?"),
    ("duration: 10m", "duration: 10m\nvary: {fleet.replica: [1]}",
     "3: vary.fleet.replica: no such setting; did you mean 'replicas'?"),
    ("duration: 10m", "duration: 10m\nvary: {workload.cohorts.chta.share: [1]}",
     "3: vary.workload.cohorts.chta.share: no such setting; did you mean 'chat'?"),
    ("duration: 10m", "duration: 10m\nvary: {duration.s: [1]}",
     "3: vary.duration.s: no such setting, duration has none below it"),
    ("duration: 10m", "duration: 10m\nvary:\n  fleet.replicas:\n    - 1\n    - two",
     "6: vary.fleet.replicas[1]: expected a whole number, got 'two'"),
    ("duration: 10m", "duration: 10m\nvary: {workload.arrivals: [poisson, {gamma: {cvv: 3, cv: 1}}]}",
     "3: vary.workload.arrivals[1]: gamma.cvv: unknown key; did you mean 'cv'?"),
    ("duration: 10m", "duration: 10m\nvary: {warmup: [60, 1m]}",
     "3: vary.warmup[1]: expected each value once, got 60 again"),
    ("duration: 10m", "duration: 10m\nvary: {warmup: []}",
     "3: vary.warmup: expected at least 1 entry, got an empty list"),
    ("duration: 10m", "duration: 10m\nvary: {warmup: 5}", "3: vary.warmup: expected a list, got 5"),
    ("duration: 10m", "duration: 10m\nvary: {seed: [1, 2]}",
     "3: vary.seed: expected a setting that may change from point to point, got seed"),
    ("duration: 10m", "duration: 10m\nwarmup: 2m\nvary: {duration: [1m, 1h]}",
     "3: warmup: expected less than duration (60 s), got 120 s (at duration = 60)"),
    # claims
    ("duration: 10m", "duration: 10m\nclaims: {fast: ttft_p99 == 2}",
     "3: claims.fast: expected a comparison (<=, <, >=, > or within 5% of), got '== 2' in 'ttft_p99 == 2'"),
    ("duration: 10m", "duration: 10m\nclaims:\n  fast: 'ttft_p99[2] < 2s'",
     "4: claims.fast: expected ttft_p99 without [2], since nothing varies"),
    ("duration: 10m", "duration: 10m\nvary: {fleet.replicas: [1, 2]}\nclaims:\n  fast: 'ttft_p99[3] < 2s'",
     "5: claims.fast: vary has no point [3] for ttft_p99, expected one of [1], [2]"),
    ("duration: 10m", "duration: 10m\nclaims: {fast: cohort.chta.ttft_p99 < 2s}",
     "3: claims.fast: no cohort 'chta'; did you mean 'chat'?"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "sentence"), MISTAKES, ids=[m[2].split(" ", 1)[1][:50] for m in MISTAKES])
def test_a_mistake_is_one_sentence(old: str, new: str, sentence: str) -> None:
    assert mistake(swap(old, new)) == f"x.yaml:{sentence}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "x.yaml:1: expected a mapping with name, duration, fleet and workload, got nothing"),
        ("- a", "x.yaml:1: expected a mapping with name, duration, fleet and workload, got a list"),
        ("a: b: c", "x.yaml:1: not YAML: mapping values are not allowed here"),
        ("a:\n\tb: 1", "x.yaml:2: not YAML: found character '\\t' that cannot start any token (indent with spaces)"),
        ("a: 1\n---\na: 2", "x.yaml:2: not YAML: but found another document"),
        ("a: *b", "x.yaml:1: not YAML: found undefined alias 'b'"),
        ("a: &a [*a]", "x.yaml:1: expected a value, got an alias of what it stands in"),
        ("a: {<<: 3}", "x.yaml:1: expected a mapping, or a list of them, behind <<"),
        ("a: &a {<<: *a}", "x.yaml:1: expected a mapping, or a list of them, behind <<"),
        ("a: {<<: &b {<<: *b}}", "x.yaml: not a scenario: nested too deep"),
        ("a: !python/object:os.system {}", "x.yaml:1: expected a plain value, got the tag !python/object:os.system"),
        ("a: 1\nb: \x07", "x.yaml:2: not YAML: a character that cannot be printed"),
        ("[" * 5000, "x.yaml: not a scenario: nested too deep"),
    ],
)
def test_a_file_that_is_no_scenario(text: str, sentence: str) -> None:
    assert mistake(text) == sentence


MECHANISMS = "a mapping with one mechanism: slow, stop, lose, refuse, delay, misroute, surge, shift, random, periodic"
PROCESSES = (
    "a mapping with one kind of process: health, autoscale, rollout, breaker, shed, ramp, gate, team, quality_breaker, "
    "overflow, release, python"
)
TROUBLE = [
    ("faults: [{slwo: chat}]",
     f"faults[0]: expected {MECHANISMS}; did you mean 'slow'?"),
    ("faults: [{slow: chat, stop: chat}]",
     f"faults[0]: expected {MECHANISMS}, got slow and stop"),
    ("faults: [slow]",
     f"faults[0]: expected {MECHANISMS}, got 'slow'"),
    ("faults: {slow: chat}", "faults: expected a list, got a mapping"),
    ("faults: [{slow: chat}]", "faults[0].factor: missing, expected how many times as long a step takes"),
    ("faults: [{slow: chat, factor: 0.5}]", "faults[0].factor: expected a number of at least 1, got 0.5"),
    ("faults: [{slow: chat, factor: 2, form: 1m}]", "faults[0].form: unknown key; did you mean 'from'?"),
    ("faults: [{slow: caht, factor: 2}]", "faults[0].slow: no pool 'caht'; did you mean 'chat'?"),
    ("faults: [{slow: chat/x, factor: 2}]",
     "faults[0].slow: expected a pool or replicas of one, such as chat, chat/3, chat/0-4 or chat/zone-1, got 'chat/x'"),
    ("faults: [{slow: code/2, factor: 2}]", "faults[0].slow: expected replicas of code from 0 to 1, got 2"),
    ("faults: [{slow: code/1-0, factor: 2}]",
     "faults[0].slow: expected the first of the replicas before the last, got 1-0"),
    ("faults: [{slow: code/zone-1, factor: 2}]", "faults[0].slow: expected a zone of code from 0 to 0, got 1"),
    ("faults: [{stop: code, from: 3m, to: 2m}]", "faults[0].to: expected more than from (180 s), got 120 s"),
    ("faults: [{stop: code, from: 10m}]", "faults[0].from: expected less than duration (600 s), got 600 s"),
    ("faults: [{stop: code, how: sleep}]", "faults[0].how: expected 'crash' or 'hang', got 'sleep'"),
    ("faults: [{lose: code, share: 120%}]",
     "faults[0].share: expected a fraction from 0 to 1 or a percentage such as 5%, got '120%'"),
    ("faults: [{lose: code, what: kv}]",
     "faults[0].share: expected less than 1 with what: kv (a replica without any is one that stops), got 1"),
    ("faults: [{refuse: code, status: 200}]", "faults[0].status: expected a number of at least 400, got 200"),
    ("faults: [{refuse: code, above_per_s: 3, share: 20%}]",
     "faults[0].share: expected none with above_per_s, got 0.2"),
    ("faults: [{refuse: code/0, above_per_s: 3}]",
     "faults[0].refuse: expected a whole pool, such as code, got 'code/0'"),
    ("faults: [{random: {refuse: code, above_per_s: 3, mtbf: 1h, mttr: 1m}}]",
     "faults[0].random.above_per_s: expected none at random, which befalls each replica by itself"),
    ("faults: [{delay: code/0, by: 1s}]", "faults[0].delay: expected a whole pool, such as code, got 'code/0'"),
    ("faults: [{surge: chat, factor: 3}]", "faults[0].surge: no cohort 'chat', expected one of ask, edit, all"),
    ("faults: [{shift: edti, prompt_factor: 3}]", "faults[0].shift: no cohort 'edti'; did you mean 'edit'?"),
    ("faults: [{shift: all, prompt_factor: 0}]", "faults[0].prompt_factor: expected a number greater than 0, got 0"),
    ("faults: [{random: {slow: chat, factor: 3, mtbf: 1h}}]",
     "faults[0].random.mttr: missing, expected mean time that it lasts, exponential"),
    ("faults: [{random: {surge: all, factor: 3, mtbf: 1h, mttr: 1m}}]",
     "faults[0].random: expected a mapping with one mechanism: slow, stop, lose, refuse"),
    ("faults: [{random: {slow: caht, factor: 3, mtbf: 1h, mttr: 1m}}]",
     "faults[0].random.slow: no pool 'caht'; did you mean 'chat'?"),
    ("faults: [{periodic: {slow: chat, factor: 3, every: 1m, lasting: 1m}}]",
     "faults[0].periodic.lasting: expected less than every (60 s), got 60 s"),
    ("faults: [{stop: chat, name: a}, {stop: code, name: a}]",
     "faults[1].name: expected a name of its own, got 'a' again"),
    ("control: [{helth: chat}]",
     f"control[0]: expected {PROCESSES}; did you mean 'health'?"),
    ("control: [{health: caht}]", "control[0].health: no pool 'caht'; did you mean 'chat'?"),
    ("control: [{health: chat/0}]",
     "control[0].health: expected a name of letters, digits, - and _, got 'chat/0'"),
    ("control: [{health: chat, timeout: 20s}]", "control[0].timeout: expected at most the interval (10 s), got 20 s"),
    ("control: [{health: chat, timeout: 0}]",
     "control[0].timeout: expected a duration such as 250ms, 5m or 1h30m, greater than 0, got 0"),
    ("control: [{autoscale: code, target: 3}]", "control[0].max: missing, expected most replicas"),
    ("control: [{autoscale: code, target: 3, min: 5, max: 4}]", "control[0].min: expected at most max (4), got 5"),
    ("control: [{autoscale: code, target: 3, min: 3, max: 4}]",
     "control[0].min: expected at most the replicas that code begins with (2), got 3"),
    ("control: [{autoscale: code, target: 3, max: 1}]",
     "control[0].max: expected at least the replicas that code begins with (2), got 1"),
    ("control: [{autoscale: code, target: 80, max: 4, metric: kv}]",
     "control[0].target: expected a share of KV blocks from 0 to 1, got 80"),
    ("control: [{autoscale: code, target: 3, max: 4}, {autoscale: code, target: 3, max: 4}]",
     "control[1].autoscale: expected one autoscaler a pool, got another for code"),
    ("control: [{rollout: code, at_once: 3}]", "control[0].at_once: expected at most the replicas of code (2), got 3"),
    ("control: [{rollout: code, from: 1h}]", "control[0].from: expected less than duration (600 s), got 3600 s"),
    ("control: [{breaker: code, errors: 0}]", "control[0].errors: expected more than 0, got 0"),
    ("control: [{shed: code, above: 9, below: 9}]", "control[0].below: expected less than above (9), got 9"),
    ("control: [{shed: code, above: 9, below: 1, level: 4}]",
     "control[0].level: expected a number of at most 3, got 4"),
    ("control: [{ramp: code, from: 1m, to: 1m, start_per_s: 1, end_per_s: 2}]",
     "control[0].to: expected more than from (60 s), got 60 s"),
    ("control: [{python: my_process}]",
     "control[0].python: expected a module and a function, such as my_module:my_process, got 'my_process'"),
    ("control: [{python: 'nowhere.py:f'}]", "control[0].python: expected a file, but there is no 'nowhere.py'"),
    ("clients: {retries: -1}", "clients.retries: expected a number of at least 0, got -1"),
    ("clients: {patience: [3]}",
     "clients.patience: expected a duration, {exponential: {mean: 20s}} or none, got a list"),
    ("clients: {patience: {exponential: {mean: 0}}}",
     "clients.patience.exponential.mean: expected a duration such as 250ms, 5m or 1h30m, greater than 0, got 0"),
    ("clients: {retry_on: [ok]}", "clients.retry_on[0]: expected 'rejected', 'timed_out' or 'failed', got 'ok'"),
    ("clients: {retry_on: [failed, failed]}", "clients: expected each outcome of retry_on once, got failed, failed"),
    ("clients: {backoff: {jitter: some}}", "clients.backoff.jitter: expected 'none', 'full' or 'equal', got 'some'"),
    ("clients: {backoff: 3s}", "clients.backoff: expected a mapping, got '3s'"),
    ("clients: {hedge: {}}",
     "clients.hedge.after: missing, expected sent when no first token has come after this time"),
    ("clients: {throttle: 0.5}", "clients.throttle: expected a number of at least 1, got 0.5"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), TROUBLE, ids=[text[:50] for text, _ in TROUBLE])
def test_a_mistake_about_trouble_is_one_sentence(text: str, sentence: str) -> None:
    assert mistake(POOLS + text + "\n") == f"x.yaml:12: {sentence}"


FLEETS = [
    ("router: 3", "fleet.router: expected one of round_robin, random, least_outstanding, power_of_d, prefix_affinity, "
     "session_sticky, or a mapping with one, got 3"),
    ("router: {power_of_d: {choice: 3}}", "fleet.router.power_of_d.choice: unknown key; did you mean 'choices'?"),
    ("router: {random: {}, round_robin: {}}",
     "fleet.router: expected exactly one of round_robin, random, least_outstanding, power_of_d, prefix_affinity, "
     "session_sticky, got random and round_robin"),
    ("router: {random: {choices: 3}}", "fleet.router.random.choices: unknown key, expected one of refresh, count_own"),
    ("admission: {max_queue: long}",
     "fleet.admission.max_queue: expected a whole number, or a list of four of them, one a priority level, got 'long'"),
    ("admission: {max_queue: [8, 4]}", "fleet.admission: expected max_queue for 4 priority levels, got 2"),
    ("admission: {max_queue: 0}", "fleet.admission.max_queue: expected a number of at least 1, got 0"),
    ("admission: {max_queues: 3}", "fleet.admission.max_queues: unknown key; did you mean 'max_queue'?"),
    ("replicas: 3, max_replicas: 2", "fleet.max_replicas: expected at least replicas (3), got 2"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), FLEETS, ids=[text for text, _ in FLEETS])
def test_a_mistake_about_the_fleet_is_one_sentence(text: str, sentence: str) -> None:
    assert mistake(swap("hardware: h100", f"hardware: h100, {text}")) == f"x.yaml:3: {sentence}"


def test_the_autoscaler_stays_within_what_the_pool_may_have() -> None:
    text = (
        swap("replicas: 2", "replicas: 2, max_replicas: 3", POOLS) + "control: [{autoscale: code, target: 3, max: 4}]\n"
    )
    assert mistake(text) == "x.yaml:12: control[0].max: expected at most max_replicas of code (3), got 4"


@pytest.mark.parametrize("name", ["none", "None", "null", "NULL"])
def test_what_is_read_as_no_pool_is_no_name_of_one(name: str) -> None:
    """So a pool of that name could not be asked for, nor taken as a fallback."""
    text = swap("    code: {", f"    {name}: {{", POOLS).replace(", pool: code", "")
    assert mistake(text) == f"x.yaml:6: fleet.pools.{name}: expected another name: `pool: {name}` is read as no pool"


def test_rules_are_no_pool() -> None:
    said = "expected another name: rules are what answers in place of a pool"
    assert mistake(swap("    chat: {", "    rules: {", POOLS)) == f"x.yaml:5: fleet.pools.rules: {said}"


def test_what_is_wrong_at_one_point_of_a_sweep_is_told_with_the_point() -> None:
    text = SMALL + "vary: {fleet.replicas: [4, 2]}\nfaults: [{stop: main/3}]\n"
    assert (
        mistake(text)
        == "x.yaml:9: faults[0].stop: expected replicas of main from 0 to 1, got 3 (at fleet.replicas = 2)"
    )


def test_mistakes_are_listed_in_the_order_of_the_file() -> None:
    text = "name: X\nduration: -1\nwarmup: z\nseed: -1\nseeds: 0\nrows: 3\nfleet: {}\nworkload: {}\n"
    lines = mistake(text).splitlines()
    assert [line.split(":")[1] for line in lines[:5]] == ["1", "2", "3", "4", "5"]
    assert lines[5:] == ["and 1 more"]


def test_settings_of_a_named_pool_stand_in_it() -> None:
    assert mistake(swap("  pools:", "  replicas: 2\n  pools:", POOLS)) == (
        "x.yaml:4: fleet.replicas: unknown key, expected one of router, admission, cells, pools"
    )
    assert mistake(swap("replicas: 2", "replcas: 2", POOLS)) == (
        "x.yaml:6: fleet.pools.code.replcas: unknown key; did you mean 'replicas'?"
    )


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("nowhere.yaml", "nowhere.yaml: no such scenario file"),
        ("kv-clif", "kv-clif: no such scenario file; did you mean 'kv-cliff'?"),
        ("latin.yaml", "latin.yaml: expected a text in UTF-8, got other bytes at 6"),
        ("folder", "folder: cannot be read: Is a directory"),
    ],
)
def test_a_file_that_cannot_be_read(path: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ScenarioError) as caught:
        load(path)
    assert str(caught.value) == sentence


# --- options --------------------------------------------------------------------------------------------------------


def test_options_come_before_the_checks() -> None:
    scenario = loads(
        SMALL,
        overrides=["fleet.replicas=4", "workload.arrivals={gamma: {cv: 2}}", "duration=1h", "workload.rate_per_s=1e1"],
    )
    assert scenario.fleet.pools["main"].replicas == 4
    assert scenario.workload.arrivals.choice[0] == "gamma"
    assert (scenario.duration, scenario.workload.rate_per_s) == (3600.0, 10.0)


def test_options_reach_a_sweep() -> None:
    scenario = loads(SMALL, overrides=["vary.workload.rate_per_s=[1, 2e0, 3]", "claims.ok=ttft_p99[2] < ttft_p99[3]"])
    assert scenario.vary == {"workload.rate_per_s": [1.0, 2.0, 3.0]}
    assert loads(POOLS, overrides=["fleet.pools.code.replicas=3"]).fleet.pools["code"].replicas == 3
    assert loads(swap("fleet: {", "fleet: {replicas: 2, "), overrides=["fleet={model: m, hardware: h}"])


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("seeds", "expected KEY=VALUE, such as workload.rate_per_s=7"),
        ("=3", "expected KEY=VALUE, such as workload.rate_per_s=7"),
        ("workload.rate_per_s=-3", "expected a number greater than 0, got -3"),
        ("workload.rate=3", "no such setting; did you mean 'rate_per_s'?"),
        ("fleet.replica=3", "no such setting; did you mean 'replicas'?"),
        ("workload.cohorts.chta.share=1", "no such setting; did you mean 'chat'?"),
        ("zzz=1", f"no such setting, expected one of {', '.join(Scenario.model_fields)}"),
        ("fleet.noise={sgma: 1}", "fleet.noise.sgma: unknown key; did you mean 'sigma'?"),
        ("duration=[", "not YAML: expected the node content, but found '<stream end>'"),
        ("vary.fleet.replicas=[1, x]", "vary.fleet.replicas[1]: expected a whole number, got 'x'"),
        ("fleet=3", "expected a mapping, got 3"),
        ("workload.cohorts=3", "expected a mapping, got 3"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_option_names_the_option(option: str, sentence: str) -> None:
    assert mistake(SMALL, option) == f"--set {option}: {sentence}"


SWEEP = SMALL + (
    "vary: {workload.rate_per_s: [1, 2], warmup: [0, 1m]}\n"
    "claims: {points: 'ok[1, 0] > ok[2, 1m]', all: 'errors[1, 0] < 1'}\n"
)


@pytest.mark.parametrize(
    ("overrides", "vary", "claims", "note"),
    [
        (["warmup=0", "workload.rate_per_s=3"], [], [],
         "left out: the sweep over warmup, workload.rate_per_s, and 2 claims about its points (points, all)"),
        (["warmup=0", "claims.one=errors[2] < 1"], ["workload.rate_per_s"], ["one"],
         "left out: the sweep over warmup, and 2 claims about its points (points, all)"),
        (["workload={rate_per_s: 3, cohorts: {chat: {prompt_tokens: 1, output_tokens: 1}}}"], ["warmup"], [],
         "left out: the sweep over workload.rate_per_s, and 2 claims about its points (points, all)"),
        (["workload.trace=trace.csv"], ["warmup"], [],
         "left out: the sweep over workload.rate_per_s, and 2 claims about its points (points, all)"),
        (["vary.workload.rate_per_s=[1, 3]"], ["workload.rate_per_s", "warmup"], ["all"],
         "left out: 1 claim about points that are not played (points)"),
        (["workload.trace=none"], ["workload.rate_per_s", "warmup"], ["points", "all"], None),
        (["seeds=3"], ["workload.rate_per_s", "warmup"], ["points", "all"], None),
    ],
)  # fmt: skip
def test_a_setting_that_is_set_no_longer_varies(
    overrides: list[str], vary: list[str], claims: list[str], note: str | None, tmp_path: Path
) -> None:
    (tmp_path / "trace.csv").write_text("timestamp,prompt_tokens,output_tokens\n0,1,1\n")
    notes: list[str] = []
    scenario = loads(SWEEP, overrides=overrides, folder=tmp_path, tell=notes.append)
    assert (list(scenario.vary), list(scenario.claims), notes) == (vary, claims, [note] if note else [])


def test_a_claim_that_an_option_makes_is_never_left_out() -> None:
    assert mistake(SWEEP, "warmup=0", "claims.mine=errors[9] < 1") == (
        "--set claims.mine=errors[9] < 1: vary has no point [9] for errors, expected one of [1], [2]"
    )


TOTALS = (
    SMALL.replace("10m", "24h")
    + """claims:
  total: requests within 1% of 172800
  of_a_cohort: cohort.chat.wrong * 2 >= 10
  a_minute: wrong_per_min_mean <= 3
  later: errors@2h-20h <= 1%
  soon: errors@1m-20m <= 1%
  none_at_all: preemptions <= 0
  share: wrong / requests <= 10%
  latency: ttft_p99 <= 2s
  rate: requests / 86400 >= 1
"""
)


@pytest.mark.parametrize(
    ("overrides", "lost"),
    [
        ([], ""),
        (["duration=24h"], ""),
        (["duration=48h"], ""),
        (["duration=1h"], "total, of_a_cohort, a_minute, later, rate"),
        (["duration=23h"], "total, of_a_cohort, a_minute, rate"),
        (["duration=1h", "claims.total=requests within 1% of 7200"], "of_a_cohort, a_minute, later, rate"),
    ],
)
def test_a_run_shorter_than_its_file_does_not_judge_totals(overrides: list[str], lost: str) -> None:
    notes: list[str] = []
    scenario = loads(TOTALS, overrides=overrides, tell=notes.append)
    said = f"not judged: shorter than the scenario ({scenario.duration:g} s of 86400 s): {lost}"
    assert notes == ([said] if lost else [])
    assert [name for name in loads(TOTALS).claims if name not in scenario.claims] == lost.split(", ") * bool(lost)


def test_everything_that_a_run_counts_is_a_total() -> None:
    assert set(COUNTS) <= TOTAL_METRICS


@pytest.mark.parametrize(
    ("claim", "total"),
    [
        ("cohort.a.task_failed - cohort.b.task_failed >= 1", True),
        ("task_wrong within 5% of 400", True),
        ("delivered_wrong <= 100", True),
        ("team.few.delivered_wrong / team.few.escalated <= 10%", False),
        ("errors_budget_spent <= 1%", True),
        ("cohort.a.wrong_budget_spent >= 10", True),
        ("signal.edits.count >= 50", True),
        ("team.few.caught >= 50", True),
        ("alert.seed.caught >= 1", False),
        ("task_success >= 77%", False),
    ],
)
def test_what_adds_up_over_a_run_is_not_judged_on_a_part_of_it(claim: str, total: bool) -> None:
    assert unjudged({"one": claim}, 60.0, []) == ["one"] * total


def test_a_duration_within_the_warm_up_says_what_to_set_too() -> None:
    text = SMALL.replace("duration: 10m", "duration: 1h\nwarmup: 10m")
    said = "x.yaml:3: warmup: expected less than duration (300 s), got 600 s"
    assert mistake(text, "duration=5m") == f"{said}; set it too, as in --set warmup=30s"
    assert loads(text, overrides=["duration=5m", "warmup=30s"]).warmup == 30.0
    assert mistake(text, "duration=5m", "warmup=6m").endswith("got 360 s")
    assert mistake(text.replace("1h", "5m")) == said


def test_what_a_trace_replaces_does_not_vary(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("timestamp,prompt_tokens,output_tokens\n0,1,1\n")
    text = swap("  rate_per_s: 2\n", f"  trace: {tmp_path / 'trace.csv'}\n") + "vary: {workload.rate_per_s: [1, 2]}\n"
    assert mistake(text).endswith(
        "vary.workload.rate_per_s: expected none with workload.trace, which says who comes, when and how long"
    )


def test_a_scenario_is_found_again_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "there", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("trace.csv").write_text("timestamp,prompt_tokens,output_tokens\n0,1,1\n")
    scenario = loads(SMALL, overrides=["workload.trace=trace.csv"])
    written = tmp_path / "there" / "scenario.yaml"
    written.write_text(dump(scenario, written.parent))
    assert load(written) == scenario
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(written).workload.trace.file == "../here/trace.csv"
    (tmp_path / "here" / "trace.csv").unlink()
    with pytest.raises(ScenarioError, match="expected a file"):
        load(written)
    assert reread(written).workload.trace.file == "../here/trace.csv"


def test_what_others_find_wrong_is_placed_in_the_file() -> None:
    def also(scenario: Scenario) -> list[Problem]:
        return [(("fleet", "pools", "main"), "too small"), (("seed",), "unlucky")] if scenario.seed == 13 else []

    with pytest.raises(ScenarioError) as caught:
        loads(SMALL, overrides=["seed=13"], also=also)
    assert str(caught.value) == "--set seed=13: unlucky\nscenario.yaml:3: fleet: too small"
    assert loads(SMALL, also=also).seed == 1


def test_with_several_pools_an_option_says_which() -> None:
    assert mistake(POOLS, "fleet.replicas=3") == (
        "--set fleet.replicas=3: no such setting: with several pools say which, as in fleet.pools.NAME; "
        "there are chat, code"
    )


# --- the sweep ------------------------------------------------------------------------------------------------------


def test_points_are_every_combination_in_the_order_of_the_file() -> None:
    scenario = loads(SMALL + "vary: {fleet.replicas: [1, 2], warmup: [0, 1m]}\nclaims: {a: 'ok[1, 0] > ok[2, 1m]'}\n")
    played = points(scenario)
    assert [point for point, _ in played] == [
        {"fleet.replicas": replicas, "warmup": warmup} for replicas in (1, 2) for warmup in (0.0, 60.0)
    ]
    assert [one.fleet.pools["main"].replicas for _, one in played] == [1, 1, 2, 2]
    assert all(one.vary == {} and one.claims == {} for _, one in played)


def test_a_scenario_without_sweep_is_its_only_point() -> None:
    scenario = loads(SMALL + "claims: {a: ok > 1}\n")
    assert points(scenario) == [({}, scenario)]


def test_a_sweep_may_supply_what_the_file_leaves_out() -> None:
    scenario = loads(swap("  rate_per_s: 2\n", "") + "vary: {workload.rate_per_s: [1, 2]}\n")
    assert [one.workload.rate_per_s for _, one in points(scenario)] == [1.0, 2.0]


def test_a_sweep_over_kinds() -> None:
    scenario = loads(
        SMALL + "vary: {workload.arrivals: [poisson, {gamma: {cv: 3}}], fleet.router: [random, round_robin]}\n"
        "claims: {a: 'ttft_p99[gamma, random] > ttft_p99[poisson, random]'}\n"
    )
    assert points(scenario)[2][1].workload.arrivals.gamma.cv == 3.0


def test_a_sweep_has_an_end() -> None:
    many = list(range(1, 102))
    text = SMALL + f"vary: {{fleet.replicas: {many}, seed: [1], warmup: {many}}}\n"
    assert mistake(text.replace("seed: [1], ", "")) == (
        "x.yaml:8: vary: expected at most 10000 combinations, got 10201"
    )


# --- writing it down ------------------------------------------------------------------------------------------------

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True)
seconds = st.one_of(st.floats(1e-6, 1e6), st.integers(1, 10**6), st.sampled_from(["250ms", "5m", "1h30m", "40us"]))
fractions = st.one_of(st.floats(0, 0.999), st.sampled_from(["5%", "0.1%"]))
positive = st.floats(1e-6, 1e9)
counts = st.integers(1, 10**6)
lengths = st.one_of(
    counts,
    st.fixed_dictionaries({"lognormal": st.fixed_dictionaries({"median": positive, "sigma": positive})}),
    st.fixed_dictionaries(
        {"gamma": st.fixed_dictionaries({"mean": positive, "cv": positive}, optional={"min": counts})}
    ),
    st.fixed_dictionaries({"empirical": st.fixed_dictionaries({"values": st.lists(counts, min_size=1)})}),
    st.fixed_dictionaries({"named": names}),
)
pools = st.fixed_dictionaries(
    {"model": names, "hardware": names},
    optional={
        "replicas": counts,
        "kv_blocks": st.none() | counts,
        "watermark": fractions,
        "overhead": seconds,
        "chunked_prefill": st.booleans(),
        "step_time": st.fixed_dictionaries({"linear": st.fixed_dictionaries({"base": seconds})}),
        "noise": st.fixed_dictionaries({}, optional={"sigma": positive, "slow_period": seconds}),
    },
)
open_arrivals = st.sampled_from(["poisson", {"gamma": {"cv": 2}}, {"diurnal": {"peak_to_mean": 1.5, "peak_at": "6h"}}])


clients = st.fixed_dictionaries(
    {},
    optional={
        "timeout": st.none() | seconds,
        "patience": st.sampled_from([None, "20s", {"exponential": {"mean": "20s"}}]),
        "retries": st.integers(0, 5),
        "retry_on": st.lists(st.sampled_from(["rejected", "timed_out", "failed"]), unique=True),
        "backoff": st.fixed_dictionaries({}, optional={"base": seconds, "jitter": st.sampled_from([None, "full"])}),
        "retry_budget": st.none() | st.fixed_dictionaries({"share": fractions}),
        "hedge": st.none() | st.fixed_dictionaries({"after": seconds}),
        "disconnect": st.sampled_from(["abort", "zombie"]),
    },
)
times = st.sampled_from([{}, {"from": 0}, {"to": "400d"}, {"to": None}])


def faults(pool: str) -> st.SearchStrategy[dict[str, Any]]:
    what = st.sampled_from([
        {"slow": pool, "factor": 2}, {"stop": f"{pool}/0", "how": "hang"}, {"lose": f"{pool}/zone-0", "share": "20%"},
        {"refuse": pool, "above_per_s": 3}, {"delay": pool, "by": "200ms"}, {"surge": "all", "factor": 3},
        {"shift": "all", "output_factor": 0.5}, {"random": {"stop": pool, "mtbf": "1h", "mttr": 60}},
        {"periodic": {"lose": pool, "every": "1h", "lasting": 60, "what": "streams"}},
    ])  # fmt: skip
    return st.builds(lambda one, when: one if {"random", "periodic"} & one.keys() else one | when, what, times)


def control(pool: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from([
        {"health": pool}, {"rollout": pool, "drain": 3}, {"breaker": pool}, {"python": "a_module:a_function"},
        {"shed": pool, "above": 9, "below": 1}, {"ramp": pool, "from": 0, "to": 9, "start_per_s": 1, "end_per_s": 2},
    ])  # fmt: skip


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    cohorts = draw(
        st.dictionaries(
            names,
            st.fixed_dictionaries(
                {"prompt_tokens": lengths, "output_tokens": lengths},
                optional={"priority": st.integers(0, 3), "error": fractions},
            ),
            min_size=1,
            max_size=4,
        )
    )
    for cohort in cohorts.values():
        cohort["share"] = 1 / len(cohorts)
    fleet = draw(pools | st.fixed_dictionaries({"pools": st.dictionaries(names, pools, min_size=1, max_size=3)}))
    return {
        "name": draw(st.from_regex(r"[a-z0-9][a-z0-9-]{0,9}", fullmatch=True)),
        "title": draw(st.none() | st.text()),
        "story": draw(st.text()),
        "duration": draw(seconds),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "vary": draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "workload.rate_per_s": st.lists(positive, min_size=1, max_size=3, unique=True),
                    "workload.arrivals": st.just(["poisson", {"gamma": {"cv": 3}}]),
                    "clients.timeout": st.just([None, "30s"]),
                },
            )
        ),
        "rows": draw(st.sampled_from(["all", "none", {"sample": "1%"}])),
        "fleet": fleet,
        "workload": {"rate_per_s": draw(positive), "arrivals": draw(open_arrivals), "cohorts": cohorts},
        "slo": draw(st.dictionaries(names.map("m_{}".format), positive, max_size=2)),
        "clients": draw(clients),
        "faults": draw(st.lists(faults(next(iter(fleet.get("pools", {"main": {}})))), max_size=3)),
        "control": draw(st.lists(control(next(iter(fleet.get("pools", {"main": {}})))), max_size=3)),
    }


@given(scenarios())
def test_what_is_written_down_reads_back_the_same(tree: dict[str, Any]) -> None:
    scenario = loads(write(tree))
    again = loads(dump(scenario))
    assert again == scenario
    assert dump(again) == dump(scenario)
    assert digest(again) == digest(scenario)
    assert points(again) == points(scenario)


@given(st.integers(0, len(POOLS)), st.integers(0, 12), st.text(alphabet=" \n\t{}[]:,-#&*!|>'\"%@`a0.e~?", max_size=6))
def test_no_file_whatever_ends_in_a_traceback(at: int, gone: int, added: str) -> None:
    said = outcome(POOLS[:at] + added + POOLS[at + gone :])
    assert said == "read" or all(line.startswith(("x.yaml:", "and ")) for line in said.splitlines())


PATHS = """name title duration seed vary vary.x rows fleet fleet.pools fleet.pools.chat fleet.pools.chat.step_time
    fleet.router fleet.admission fleet.admission.max_queue fleet.pools.chat.kv_blocks workload workload.arrivals
    workload.trace workload.cohorts workload.sessions workload.cohorts.ask workload.cohorts.ask.output_tokens
    clients clients.hedge workload.cohorts.ask.clients faults control slo slo.x alerts claims claims.x"""
VALUES = [[], 3, -1.5, "", "x", None, True, {}, [{}], {"a": 1}, 10**400, 10**99, "1e400", ["a"]]


@given(st.sampled_from(VALUES), st.sampled_from(PATHS.split()))
def test_no_option_whatever_ends_in_a_traceback(value: Any, path: str) -> None:
    assert outcome(POOLS, f"{path}={json.dumps(value)}")


def test_the_digest_knows_what_was_said_not_how() -> None:
    other = """\
# the same, in other words
duration: 600
workload: {cohorts: {chat: {output_tokens: 50.0, prompt_tokens: 1e2, share: 100%}}, rate_per_s: 2.0}
name: 'small'
fleet: {pools: {main: {hardware: h100, model: llama-3.1-8b}}}
"""
    assert digest(loads(other)) == digest(loads(SMALL))
    assert digest(loads(SMALL)) != digest(loads(SMALL, overrides=["seed=2"]))
    assert re.fullmatch("[0-9a-f]{64}", digest(loads(SMALL)))


def test_the_digest_is_the_same_in_another_process(tmp_path: Path, root: Path) -> None:
    (tmp_path / "x.yaml").write_text(POOLS)
    code = "import sys; from sim.scenario import *; print(digest(load(sys.argv[1])))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "x.yaml")],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert seen == {digest(loads(POOLS)) + "\n"}


# --- for editors, and for a command line that answers at once -------------------------------------------------------


def test_the_schema_for_editors_is_current(root: Path) -> None:
    kept = json.loads((root / "docs" / "scenario.schema.json").read_text())
    assert kept == json_schema(), "make it again: blowout schema > docs/scenario.schema.json"


def test_every_setting_is_described() -> None:
    schema = json_schema()
    for name, model in {"Scenario": schema, **schema["$defs"]}.items():
        for key, field in model.get("properties", {}).items():
            kind = schema["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
            assert field.get("description") or kind.get("description"), f"{name}.{key}"


def test_the_schema_knows_the_short_forms() -> None:
    schema = json_schema()
    assert {"admission", "zones"} <= schema["$defs"]["Fleet"]["properties"].keys()
    assert {"slow", "from", "to", "factor", "name", "start_cmd", "stop_cmd"} == schema["$defs"]["Slow"][
        "properties"
    ].keys()
    assert len(schema["properties"]["faults"]["items"]["oneOf"]) == 10
    assert {"router", "pools", "replicas", "model"} <= schema["$defs"]["Fleet"]["properties"].keys()
    assert {"const": "none"} in schema["$defs"]["Clients"]["properties"]["timeout"]["anyOf"]
    assert {"type": "string"} in schema["$defs"]["Workload"]["properties"]["trace"]["anyOf"]


def test_shipped_scenarios_load_by_name(root: Path) -> None:
    assert shipped()["kv-cliff"] == root / "scenarios" / "kv-cliff.yaml"
    for name, path in shipped().items():
        assert load(name) == load(path)
        assert load(path).name == name


def test_reading_a_scenario_imports_nothing_heavy(root: Path) -> None:
    code = "import sys, sim.scenario, sim.claims; print({'numpy', 'scipy', 'numba'} & set(sys.modules))"
    seen = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert seen.stdout == "set()\n"


# --- units ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("250ms", 0.25), ("5m", 300.0), ("1h30m", 5400.0), ("30d", 2_592_000.0), ("1w", 604_800.0), ("1.5s", 1.5),
     ("40us", 40e-6), ("1m0.5s", 60.5), (2, 2.0), (0.1, 0.1), (0, 0.0)],
)  # fmt: skip
def test_durations(written: Any, seconds: float) -> None:
    assert duration_s(written) == seconds


@pytest.mark.parametrize("written", ["", "5", "m", "5 m", "30m1h", "5m5m", "-5m", "5M", "1e3s", -1, True, None, [5]])
def test_what_is_no_duration(written: Any) -> None:
    with pytest.raises(ValueError, match="expected a duration such as"):
        duration_s(written)


@pytest.mark.parametrize(("written", "value"), [("5%", 0.05), ("0.1%", 0.001), ("100 %", 1.0), (0.5, 0.5), (1, 1.0)])
def test_fractions(written: Any, value: float) -> None:
    assert fraction(written) == value


@pytest.mark.parametrize("written", [5, "101%", "-1%", -0.1, "0.5", True, None, 1.0001])
def test_what_is_no_fraction(written: Any) -> None:
    with pytest.raises(ValueError, match="expected a fraction from 0 to 1"):
        fraction(written)


@pytest.mark.parametrize(("written", "value"), [("2s", 2.0), ("0.1%", 0.001), (7, 7.0), ("7.2", 7.2), ("-5%", -0.05)])
def test_quantities(written: Any, value: float) -> None:
    assert quantity(written) == value
