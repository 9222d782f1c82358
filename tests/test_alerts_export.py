"""What is exported: the real promtool takes it, notices a rule that is a step off, and a service played faster."""

import json
import re
import subprocess
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.alerts.promql.parsing import parse
from sim.alerts.rulefile import read, reads, written_ms
from sim.alerts.rules import Verdict, judge
from sim.alerts.shipping import stretches
from sim.alerts.shipping.dashboard import dashboard
from sim.alerts.shipping.export import Export, export, write
from sim.alerts.shipping.faster import sped_up
from sim.cli import main
from sim.errors import InputError
from sim.scenario import loads
from sim.series import NAME, SeriesSet
from sim.world import World
from tests.real_prometheus import binary
from tests.test_alerts_rules import KUBERNETES

RUN = """\
name: small
duration: 50m
fleet: {kv_blocks: 400, max_num_seqs: 8, replicas: 2, step_time: {linear: {base: 10ms, per_sequence: 1ms}}}
workload: {rate_per_s: 2, cohorts: {a: {prompt_tokens: 100, output_tokens: 30}}}
telemetry: {evaluate: 100%}
faults: [{refuse: main/0, share: 50%, status: 503, from: 20m, to: 28m}, {stop: main/1, from: 22m, to: 24m}]
"""


@pytest.fixture(scope="module")
def run() -> SeriesSet:
    """The series of fifty minutes, eight of which are bad."""
    world = World(loads(RUN), 1)
    world.run_to_end()
    return world.spool.series()


def promtool(folder: Path, what: str) -> tuple[bool, str]:
    files = sorted(map(str, (folder / ("rules" if what == "check" else "tests")).glob("*.yml")))
    assert files
    done = subprocess.run([binary("promtool"), what, "rules", *files], capture_output=True, text=True, timeout=120)
    return done.returncode == 0, done.stdout + done.stderr


def shipped(root: Path, *names: str) -> list[Path]:
    return [root / "scenarios" / "alerts" / f"{name}.yml" for name in names]


def exported(folder: Path, *args: Any, **more: Any) -> Export:
    made = export(*args, **more)
    write(made, folder)
    return made


@pytest.mark.parametrize("name", ["seed", "repaired", "burn-rate"])
def test_shipped_rules_are_all_judged_on_a_run(name: str, root: Path, run: SeriesSet) -> None:
    judged = judge(read(shipped(root, name)), run)
    assert [(one.rule.name, one.verdict, one.reason) for one in judged if one.verdict != Verdict.JUDGED] == []
    assert sum(one.failed for one in judged) == 0
    assert all(one.matched for one in judged)


def test_promtool_takes_what_is_exported_and_notices_one_step(root: Path, run: SeriesSet, tmp_path: Path) -> None:
    paths = shipped(root, "seed", "repaired", "burn-rate")
    made = exported(tmp_path / "out", read(paths), run, run.span_ms, "a run")
    for path in paths:
        assert (tmp_path / "out" / "rules" / path.name).read_text() == path.read_text()
    assert [test.file for test in made.tests] == [
        "tests/healthy-15s.yml", "tests/healthy-30s.yml", "tests/incident-15s.yml", "tests/incident-30s.yml"
    ]  # fmt: skip
    fired = {name for test in made.tests for name, episode in test.expected if episode.firing_ms is not None}
    assert {"LLMErrorRateHigh", "LLMRequestsFail", "LLMFailuresBurnSlowly"} <= fired
    assert not any(e.firing_ms is not None for t in made.tests if t.stretch == "healthy" for _, e in t.expected)
    assert promtool(tmp_path / "out", "check")[0]
    passed, said = promtool(tmp_path / "out", "test")
    assert passed, said
    rules = tmp_path / "out" / "rules" / "seed.yml"
    rules.write_text(rules.read_text().replace("for: 5m", "for: 5m15s"))
    passed, said = promtool(tmp_path / "out", "test")
    assert not passed
    assert "LLMErrorRateHigh" in said
    assert said.count("SUCCESS") == 3


@pytest.mark.parametrize("speed", [2.0, 5.0, 7.5])
def test_a_service_played_faster_gets_the_same_alerts_sooner(
    speed: float, root: Path, run: SeriesSet, tmp_path: Path
) -> None:
    groups = read(shipped(root, "repaired"))
    made = exported(tmp_path / "out", groups, run, run.span_ms, "a run", speed)
    assert len(made.tests) == 2, made.left_out
    for what in ("check", "test"):
        passed, said = promtool(tmp_path / "out", what)
        assert passed, said
    text = (tmp_path / "out" / "rules" / "repaired.yml").read_text()
    assert f"interval: {written_ms(round(15_000 / speed))}\n" in text
    slow = exported(tmp_path / "slow", groups, run, run.span_ms, "a run")
    for fast, one in zip(made.tests, slow.tests, strict=True):
        times = [[(name, e.pending_ms, e.firing_ms, e.ended_ms) for name, e in t.expected] for t in (fast, one)]
        scaled = [(name, *(None if t is None else t / speed for t in rest)) for name, *rest in times[1]]
        assert times[0] == scaled
    assert f"played {speed:g} times as fast" in made.files["README.md"]


def test_lengths_of_time_are_divided_and_nothing_else() -> None:
    text = """
groups:
- name: g5m
  interval: 1m
  rules:
  - alert: A
    expr: |
      a:5m:rate1m + sum(rate(x5m_total{w="5m"}[5m] offset 1h30m)) > 5 # of 5m
        and increase(y[1d:1h]) > rate(z[10m])
        and avg_over_time(q[5m]) > 3 unless q offset -2m
    for: 10m
    keep_firing_for: 5m
    annotations: {summary: "in 5m"}
"""
    (group,) = sped_up(reads(text, "r.yml"), 10)
    (rule,) = group.rules
    assert (group.name, group.interval_ms, rule.for_ms, rule.keep_firing_for_ms) == ("g5m", 6000, 60_000, 30_000)
    assert (
        rule.text
        == """\
a:5m:rate1m + sum((rate(x5m_total{w="5m"}[30s] offset 9m) / 10)) > 5 # of 5m
  and increase(y[2h24m:6m]) > (rate(z[1m]) / 10)
  and avg_over_time(q[30s]) > 3 unless q offset -12s
"""
    )
    assert rule.annotations == {"summary": "in 5m"}
    with pytest.raises(InputError, match="less than a millisecond"):
        sped_up(reads(text, "r.yml"), 1e6)


def test_objects_of_kubernetes_become_rule_files(tmp_path: Path) -> None:
    Path(tmp_path / "k.yaml").write_text(KUBERNETES)
    held = SeriesSet()
    held.add({NAME: "x"}, np.arange(0, 900_000, 15_000), np.ones(60))
    made = exported(tmp_path / "out", read([tmp_path / "k.yaml"]), held, held.span_ms, "x")
    assert "kind" not in yaml.safe_load(made.files["rules/k.yml"])
    assert promtool(tmp_path / "out", "check")[0]
    before, after = (read([path]) for path in (tmp_path / "k.yaml", tmp_path / "out" / "rules" / "k.yml"))
    told = [
        [(rule.name, " ".join(rule.text.split()), rule.for_ms, rule.keep_firing_for_ms, rule.labels, rule.annotations)
         for group in groups for rule in group.rules]
        for groups in (before, after)
    ]  # fmt: skip
    assert told[0] == told[1]


RULES = "groups:\n- name: g\n  interval: 15s\n  rules:\n"


def made_of(*rules: str, series: SeriesSet, head: str = RULES) -> Export:
    return export(reads(head + "".join(f"  - {rule}\n" for rule in rules), "r.yml"), series, series.span_ms, "x")


def one_series(values: np.ndarray, step_ms: int = 15_000) -> SeriesSet:
    made = SeriesSet()
    made.add({NAME: "x"}, np.arange(values.size) * step_ms, values)
    return made


def test_what_cannot_be_tested_is_said() -> None:
    quiet, loud = one_series(np.zeros(100)), one_series(np.ones(100))
    high = "{alert: High, expr: x > 0.5}"
    assert made_of(high, series=quiet).left_out == ["no incident test: no alert fired in this past"]
    assert made_of(high, series=loud).left_out == ["no healthy test: some alert was firing all the time"]
    made = made_of(high, "{alert: Top, expr: 'topk(1, x)'}", series=loud)
    assert made.left_out[1] == "tests/incident.yml: Top: unsupported (the aggregation topk (column 1))"
    assert "- tests/incident.yml: Top" in made.files["README.md"]
    jitter = SeriesSet()
    jitter.add({NAME: "x"}, np.arange(100) * 15_000 + np.arange(100) % 2, np.zeros(100))
    assert "no regular grid" in made_of(high, series=jitter).left_out[0]
    twice = one_series(np.zeros(100))
    twice.add({NAME: "x", "a": "b"}, twice.t_ms[0], np.ones(100))
    failing = made_of("{alert: Both, expr: 'x * on () x > 0'}", series=twice)
    assert "Both fails in it" in failing.left_out[0]
    groups = [group for name in ("a.yml", "b.yml") for group in reads(f"{RULES}  - {high}\n", name)]
    with pytest.raises(InputError, match="the group 'g' stands in two files"):
        export(groups, quiet, quiet.span_ms, "x")


def test_an_alert_at_two_intervals_is_left_out() -> None:
    values = np.where(np.arange(200) > 100, 1.0, 0.0)
    rules = ("{alert: Same, expr: x > 0.5}", "{alert: Own, expr: x > 0.7}")
    text = RULES + "".join(f"  - {rule}\n" for rule in rules)
    text += "- name: slow\n  interval: 1m\n  rules:\n  - {alert: Same, expr: x > 0.6}\n"
    held = one_series(values)
    made = export(reads(text, "r.yml"), held, held.span_ms, "x")
    assert {name for test in made.tests for name, _ in test.expected} == {"Own"}
    assert "tests/incident-15s.yml: Same: another alert at another interval has the same name" in made.left_out


@settings(max_examples=40)
@given(bad=st.lists(st.booleans(), min_size=10, max_size=400), long=st.integers(1, 40), seconds=st.integers(0, 90))
def test_stretches_lie_in_the_past_and_the_quiet_one_is_quiet(bad: list[bool], long: int, seconds: int) -> None:
    held = one_series(np.repeat(np.array(bad, float), long))
    text = RULES + f"  - {{alert: High, expr: x > 0.5, for: {seconds}s}}\n"
    judged = judge(reads(text, "r.yml"), held)
    first, last = held.span_ms
    calm, loud = stretches.quiet(judged, held.span_ms), stretches.incident(judged, held.span_ms, 3_600_000)
    assert (loud is not None) == any(one.fired for one in judged)
    if loud is not None:
        assert first <= loud[0] < loud[1] <= last or first == last
        assert loud[1] - loud[0] <= 3_600_000 + 90_000 + 15_000 + stretches.DURING_MS
    if calm is not None:
        assert first <= calm[0] < calm[1] <= last
        assert calm[1] - calm[0] <= stretches.QUIET_MS
        assert not any(one.episodes and e.state(int(t)) == "firing" for one in judged for e in one.episodes
                       for t in one.t_ms if calm[0] <= t <= calm[1])  # fmt: skip


def test_a_stretch_is_no_larger_than_promtool_takes() -> None:
    many = SeriesSet()
    t_ms = np.arange(0, 7_200_000, 15_000)
    for i in range(2000):
        many.add({NAME: "x", "i": str(i)}, t_ms, np.zeros(t_ms.size))
    piece = stretches.cut(many, (0, 7_200_000), 15_000, 1.0)
    assert stretches.MOST_SAMPLES * 0.9 < piece.samples <= stretches.MOST_SAMPLES + len(many)
    with pytest.raises(ValueError, match="whole milliseconds"):
        stretches.cut(many, (0, 7_200_000), 15_000, 7.0)


def test_every_alert_has_a_panel_with_its_threshold(root: Path) -> None:
    groups = read(shipped(root, "seed", "repaired", "burn-rate"))
    made = dashboard(groups, "t")
    alerts = [rule for group in groups for rule in group.rules if not rule.records]
    panels = [panel for panel in made["panels"] if panel["type"] == "timeseries"]
    rows = [panel["title"] for panel in made["panels"] if panel["type"] == "row"]
    assert rows == ["page", "ticket", "warning"]
    assert sorted(panel["title"] for panel in panels) == sorted(rule.name for rule in alerts)
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
    for panel in panels:
        parse(panel["targets"][0]["expr"])
    boxes = [panel["gridPos"] for panel in made["panels"]]
    for a, b in combinations(boxes, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (a, b)
    by_name = {panel["title"]: panel["fieldConfig"]["defaults"] for panel in panels}
    shown = {name: (d["thresholds"]["steps"][-1]["value"], d["unit"]) for name, d in by_name.items()}
    assert shown["LLMFailuresBurnFast"] == (14.4 * 0.005, "percentunit")
    assert shown["LLMP95LatencyHigh"] == (3, "s")
    assert shown["LLMQueueGrows"] == (10, "short")
    assert shown["LLMNoReplicaAnswers"][0] in (None, 1)
    assert json.loads(json.dumps(made)) == made


Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type a command in a folder that holds ``x.parquet`` and ``r.yml``; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    one_series(np.where(np.arange(200) // 50 == 2, 1.0, 0.0)).write(Path("x.parquet"))
    Path("r.yml").write_text(RULES + "  - {alert: High, expr: x > 0.5, for: 1m}\n")

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(("alerts", "export", *words))
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return typed


def test_export_as_typed(typed: Typed) -> None:
    code, out, err = typed("x.parquet", "--rules", "r.yml", "--out", "a")
    assert (code, err) == (0, "")
    assert re.search(r"tests/incident.yml +7 assertions from 0:00:00 on; 1 alert fired", out)
    assert "promtool test rules a/tests/*.yml" in out
    assert promtool(Path("a"), "test")[0]
    assert "| High | 25m | 26m | 37m30s |" in Path("a/README.md").read_text()
    code, out, _ = typed("x.parquet", "--rules", "r.yml", "--out", "b", "--speed", "3", "--json")
    assert code == 0
    assert [test["length_ms"] for test in json.loads(out)["tests"]] == [515_000, 950_000]
    assert sorted(json.loads(out)["files"]) == sorted(
        str(path.relative_to("b")) for path in Path("b").rglob("*") if path.is_file()
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("x.parquet", "--rules", "r.yml"), "missing option '--out'"),
        (("x.parquet", "--rules", "r.yml", "--out", "."), ".: expected a folder that is new or empty"),
        (("x.parquet", "--rules", "r.yml", "--out", "r.yml/a"), "cannot be written"),
        (("x.parquet", "--rules", "r.yml", "--out", "a", "--speed", "0"), "--speed: expected a number above 0, got 0"),
        (("x.parquet", "--rules", "r.yml", "--out", "a", "--speed", "nan"), "--speed: expected a number above 0"),
        (("x.parquet", "--rules", "r.yml", "--out", "a", "--speed", "1e9"), "would be less than a millisecond"),
        (("no.parquet", "--rules", "r.yml", "--out", "a"), "no.parquet: no such file of series"),
    ],
)
def test_a_mistake_is_one_sentence(typed: Typed, words: tuple[str, ...], said: str) -> None:
    code, out, err = typed(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not Path("a").exists()


def test_the_group_order_of_a_test_is_that_of_the_rules(run: SeriesSet, root: Path) -> None:
    made = export(read(shipped(root, "burn-rate")), run, run.span_ms, "x")
    for test in made.tests:
        assert yaml.safe_load(made.files[test.file])["group_eval_order"] == ["llm-slo-recording", "llm-slo-alerts"]
