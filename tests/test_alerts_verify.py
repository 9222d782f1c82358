"""The states of alerts against the real promtool, and that the comparison notices one step of difference."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.alerts.rulefile import read, reads
from sim.alerts.rules import Judgement, Verdict, judge
from sim.alerts.shipping import verify
from sim.errors import InputError
from sim.scenario import loads
from sim.series import NAME, STALE, SeriesSet
from sim.world import World
from tests.real_prometheus import binary
from tests.test_alerts_rules import KUBERNETES, series

RULES = """
groups:
- name: fast
  interval: 15s
  rules:
  - {record: "i:bad:ratio", expr: 'rate(bad_total[2m]) / rate(all_total[2m])'}
  - {alert: Bad, expr: 'i:bad:ratio > 0.4', for: 45s, labels: {severity: page, who: "x {{ $labels.i }}"}}
  - {alert: BadKept, expr: 'i:bad:ratio > 0.4', for: 30s, keep_firing_for: 1m}
  - {alert: Level, expr: 'level > 1.2'}
  - {alert: LevelKept, expr: 'level > 1.5', keep_firing_for: 45s}
  - {alert: Mean, expr: 'avg_over_time(level[3m]) > 0.5 unless on(i) level < 0', for: 1m}
  - {alert: Absent, expr: 'absent(level{i="0"})', for: 30s}
- name: slow
  interval: 1m
  rules:
  - {alert: Bad, expr: 'sum(rate(bad_total[5m])) / sum(rate(all_total[5m])) > 0.3', for: 2m}
  - {alert: Quiet, expr: 'level > 99'}
  - {alert: Other, expr: 'i:bad:ratio > 0'}
"""


def random_series() -> SeriesSet:
    rng = np.random.default_rng(5)
    t_ms = np.arange(30_000, 3_600_000, 15_000)
    made = SeriesSet()
    for i in range(4):
        share = np.repeat(rng.random(t_ms.size // 20 + 1), 20)[: t_ms.size]
        every = rng.poisson(5, t_ms.size)
        bad = rng.binomial(every, share)
        level = np.convolve(rng.normal(0, 2, t_ms.size + 9), np.ones(10) / 5, "valid")
        for name, values in (("all_total", every.cumsum()), ("bad_total", bad.cumsum()), ("level", level)):
            kept = rng.random(t_ms.size) > 0.05
            samples = values[kept].astype(float)
            ended = rng.random(samples.size) < 0.01
            samples[ended] = STALE[0:1].repeat(int(ended.sum()))
            made.add({NAME: name, "i": str(i)}, t_ms[kept], samples)
    return made


def judged(held: SeriesSet) -> list[Judgement]:
    return judge(reads(RULES, "r.yml"), held)


def test_every_transition_is_where_promtool_sees_it() -> None:
    tool, held = binary("promtool"), random_series()
    found = judged(held)
    assert {one.verdict for one in found} == {Verdict.JUDGED}
    check = verify.check_states(found, held, tool)
    assert check.passed, check.said
    assert check.assertions > 200
    assert check.left_out == ["Other: it reads i:bad:ratio, recorded at another interval"]


@pytest.mark.parametrize("which", ["for_ms", "keep_firing_for_ms"])
def test_one_step_more_is_noticed(which: str) -> None:
    tool, held = binary("promtool"), random_series()
    groups = reads(RULES, "r.yml")
    wrong = [
        replace(
            group,
            rules=tuple(
                replace(rule, **{which: getattr(rule, which) + 15_000}) if getattr(rule, which) else rule
                for rule in group.rules
            ),
        )
        for group in groups
    ]
    claimed = judge(wrong, held)
    for one, right in zip(claimed, (rule for group in groups for rule in group.rules), strict=True):
        one.rule = right  # promtool gets the rule as it is, and what we claim is of one that is a step longer
    check = verify.check_states(claimed, held, tool)
    assert not check.passed
    assert "FAILED" in check.said


def test_the_pitfalls_are_the_ones_of_promtool() -> None:
    tool = binary("promtool")
    held = series(
        kv__gap="0.95x10 _x8 0.95x40",
        kv__stale="0.95x10 stale 0.95x40",
        kv__dips=" ".join(["0.95x18 0.85"] * 5),
        kv__keep="0.95x24 0.5x8 0.95x24",
        err_total="_x40 30x200",
        req_total="0+10x40 400x200",
        nan="NaN NaN Nan 1x9",
    )
    text = """
groups:
- name: p
  interval: 15s
  rules:
  - {alert: Errors, expr: 'sum(rate(err_total[5m])) / sum(rate(req_total[5m])) > 0.01', for: 5m}
  - {alert: OrZero, expr: '(sum(rate(err_total[5m])) or vector(0)) / sum(rate(req_total[5m])) >= 0', for: 5m}
  - {alert: KV, expr: 'kv > 0.9', for: 5m}
  - {alert: KVKept, expr: 'kv > 0.9', for: 5m, keep_firing_for: 5m}
  - {alert: KVMean, expr: 'avg_over_time(kv[5m]) > 0.9', for: 5m}
  - {alert: IsNaN, expr: 'req_total / req_total != 1', for: 0s}
"""
    check = verify.check_states(judge(reads(text, "r.yml"), held), held, tool)
    assert check.passed, check.said


def test_shipped_rules_are_accepted_by_promtool(root: Path) -> None:
    tool = binary("promtool")
    for path in sorted((root / "scenarios" / "alerts").glob("*.yml")):
        groups = read([path])
        held = series(x="1x9")
        found = judge(groups, held)
        check = verify.check_rules(found, tool)
        assert check.passed, check.said
        assert verify._run([tool, "check", "rules", str(path)], 0).passed


def test_rules_of_kubernetes_are_checked_as_rules() -> None:
    tool = binary("promtool")
    found = judge(reads(KUBERNETES, "k.yaml"), series(x="1x9"))
    assert verify.check_rules(found, tool).passed
    broken = KUBERNETES.replace("summary: hi", "summary: '{{ $bad }}'")
    check = verify.check_rules(judge(reads(broken, "k.yaml"), series(x="1x9")), tool)
    assert not check.passed
    assert re.search(r"undefined variable", check.said)


def test_jitter_and_a_missing_promtool_are_said() -> None:
    held = SeriesSet()
    held.add({NAME: "x"}, np.array([0, 15_001, 30_000]), np.ones(3))
    found = judge(reads("groups: [{name: g, rules: [{alert: A, expr: x}]}]", "r.yml"), held)
    with pytest.raises(InputError, match="no regular grid"):
        verify.unit_test(found, held)
    with pytest.raises(InputError, match="install Prometheus"):
        verify.promtool("no-such-promtool")


SERVICE = """\
name: small
duration: 70m
fleet: {kv_blocks: 400, max_num_seqs: 8, replicas: 2, step_time: {linear: {base: 10ms, per_sequence: 1ms}}}
workload: {rate_per_s: 3, cohorts: {a: {prompt_tokens: 100, output_tokens: 30, error: 8%}}}
clients: {timeout: 20s}
telemetry: {evaluate: 100%}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults",
    ["[]", "[{stop: main, from: 20m, to: 35m}]", "[{stop: main, how: hang, from: 20m, to: 45m}]"],
    ids=["healthy", "outage", "silence"],
)
def test_the_real_promtool_sees_every_shipped_rule_change_when_we_say(faults: str, root: Path) -> None:
    world = World(loads(SERVICE, overrides=[f"faults={faults}"]), 1)
    world.run_to_end()
    held = world.spool.series()
    files = sorted((root / "scenarios" / "alerts").glob("*.yml"))
    judged = [one for file in files for one in judge(read([file]), held)]
    checks = [verify.check_states(judge(read([file]), held), held, binary("promtool")) for file in files]
    assert [check.said for check in checks if not check.passed] == []
    changes = sum(len(one.episodes) for one in judged)
    assert sum(check.assertions for check in checks) >= changes >= (0 if faults == "[]" else 3)
