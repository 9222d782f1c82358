"""Rules: files read strictly, the states of alerts step by step, recording rules, verdicts; the known pitfalls."""

from pathlib import Path

import numpy as np
import pytest

from sim.alerts.rulefile import reads
from sim.alerts.rules import Judgement, Verdict, judge
from sim.alerts.states import episodes
from sim.errors import InputError, RuleError
from sim.series import NAME, STALE, SeriesSet

EVERY_MS = 15_000


def series(**given: str) -> SeriesSet:
    """Series in promtool's notation, 15 s apart: ``0+10x3`` is four samples, ``_`` none, ``stale`` a stale marker."""
    made = SeriesSet()
    for name, text in given.items():
        name, _, i = name.partition("__")
        values: list[float | None] = []
        for word in text.split():
            body, _, times = word.partition("x")
            start, _, step = body.partition("+")
            if body in ("_", "stale"):
                values += [None if body == "_" else np.inf] * int(times or 1)
            else:
                values += [float(start) + k * float(step or 0) for k in range(int(times or 0) + 1)]
        kept = [(k * EVERY_MS, value) for k, value in enumerate(values) if value is not None]
        numbers = np.array([value for _, value in kept])
        numbers[np.isinf(numbers)] = STALE[0:1].repeat(int(np.isinf(numbers).sum()))
        made.add({NAME: name, "i": i}, np.array([t for t, _ in kept]), numbers)
    return made


def one(expr: str, held: SeriesSet, **rule: str) -> Judgement:
    extra = "".join(f", {key}: {value}" for key, value in rule.items())
    text = f"groups: [{{name: g, interval: 15s, rules: [{{alert: A, expr: '{expr}'{extra}}}]}}]"
    (found,) = judge(reads(text, "r.yml"), held)
    return found


def fired_s(judged: Judgement) -> list[tuple[float, float | None]]:
    return [
        (e.firing_ms / 1000, None if e.ended_ms is None else e.ended_ms / 1000)
        for e in judged.fired
        if e.firing_ms is not None
    ]


# The pitfalls that `promtool test rules` proves in the notes on Prometheus, with the same series.


def test_a_counter_born_above_zero_is_invisible() -> None:
    held = series(req_total="0+10x240", err_total="_x40 30x200")
    ratio = "sum(rate(err_total[5m])) / sum(rate(req_total[5m])) > 0.01"
    judged = one(ratio, held, **{"for": "5m"})
    assert judged.verdict == Verdict.JUDGED
    assert judged.episodes == []
    started_at_zero = series(req_total="0+10x240", err_total="0x39 30x200")
    assert fired_s(one(ratio, started_at_zero))[0][0] == 600


def test_no_traffic_resolves_the_alert_on_errors() -> None:
    held = series(req_total="0+10x40 400x200", err_total="0+10x40 400x200")
    judged = one("sum(rate(err_total[5m])) / sum(rate(req_total[5m])) > 0.01", held, **{"for": "5m"})
    assert fired_s(judged) == [(315, 900)]  # from then on it is 0/0: all requests failed, and now there are none


def test_one_good_sample_in_twenty_resets_for_and_an_average_does_not() -> None:
    held = series(kv=" ".join(["0.95x18 0.85"] * 5))
    judged = one("kv > 0.9", held, **{"for": "5m"})
    assert judged.fired == []
    assert len(judged.episodes) == 5
    assert len(fired_s(one("avg_over_time(kv[5m]) > 0.9", held, **{"for": "5m"}))) == 1


def test_a_gap_is_bridged_and_a_stale_marker_resets_for() -> None:
    held = series(kv__gap="0.95x10 _x8 0.95x40", kv__stale="0.95x10 stale 0.95x40")
    judged = one("kv > 0.9", held, **{"for": "5m"})
    assert [(dict(e.labels)["i"], e.firing_ms) for e in judged.fired] == [("gap", 300_000), ("stale", 480_000)]


def test_keep_firing_for_bridges_a_dip_after_firing_and_not_before() -> None:
    held = series(kv="0.95x24 0.5x8 0.95x24")
    assert fired_s(one("kv > 0.9", held, **{"for": "5m"})) == [(300, 375), (810, None)]
    assert fired_s(one("kv > 0.9", held, **{"for": "5m", "keep_firing_for": "5m"})) == [(300, None)]
    early = series(kv="0.95x10 0.5 0.95x10")
    assert fired_s(one("kv > 0.9", early, **{"for": "5m", "keep_firing_for": "5m"})) == []


def states(true: str, for_steps: int, keep_steps: int) -> str:
    """What an alert is at each step: p, f or a dot, from the episodes."""
    t_ms = np.arange(len(true)) * 1000
    found = episodes((), t_ms, np.array([c == "1" for c in true]), for_steps * 1000, keep_steps * 1000)
    at = [[e.state(int(t)) for e in found] for t in t_ms]
    assert all(sum(map(bool, here)) <= 1 for here in at)
    return "".join(("".join(here) or ".")[0] for here in at)


def naive(true: str, for_steps: int, keep_steps: int) -> str:
    """The same, written down from Prometheus' loop over evaluations."""
    out, state, since, missing = "", ".", 0, None
    for t, now in enumerate(true):
        if now == "1":
            missing = None
            if state == ".":
                state, since = "p", t
        else:
            if state == "f" and missing is None:
                missing = t
            if state == "p" or not (state == "f" and keep_steps and missing is not None and t - missing < keep_steps):
                state = "."
        if state == "p" and t - since >= for_steps:
            state = "f"
        out += state
    return out


@pytest.mark.parametrize("for_steps", [0, 1, 3])
@pytest.mark.parametrize("keep_steps", [0, 1, 2, 4])
def test_an_alert_goes_through_its_states_as_prometheus_writes_them(for_steps: int, keep_steps: int) -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        true = "".join(rng.choice(["0", "1"], rng.integers(1, 30), p=[0.3, 0.7]))
        assert states(true, for_steps, keep_steps) == naive(true, for_steps, keep_steps), true


def test_recording_rules_feed_later_rules_at_the_same_time_and_end_with_a_stale_marker() -> None:
    text = """
groups:
- name: g
  interval: 15s
  rules:
  - {record: "job:high", expr: 'x > 1', labels: {job: j}}
  - {alert: High, expr: 'job:high > 1'}
  - {alert: Counted, expr: 'count_over_time(job:high[1m]) == 3'}
"""
    recorded, high, counted = judge(reads(text, "r.yml"), series(x__a="1x3 2x2 0x9"))
    assert recorded.verdict == Verdict.JUDGED
    assert [(e.pending_ms, e.firing_ms, e.ended_ms) for e in high.episodes] == [(60_000, 60_000, 105_000)]
    assert dict(high.episodes[0].labels) == {"alertname": "High", "i": "a", "job": "j"}
    assert counted.episodes[0].pending_ms == 90_000


@pytest.mark.parametrize(
    ("expr", "verdict", "reason"),
    [
        ("x > 0", Verdict.JUDGED, ""),
        ("topk(1, x)", Verdict.UNSUPPORTED, "the aggregation topk (column 1)"),
        ("nothing > 0", Verdict.NO_SUCH_SERIES, "no series is called nothing"),
        ("absent(nothing)", Verdict.NO_SUCH_SERIES, "no series is called nothing"),
        ('x{i="z"} > 0', Verdict.MATCHED_NOTHING, 'no series matches x{i="z"}'),
        ('x > 0 and x{i="z"}', Verdict.MATCHED_NOTHING, 'no series matches x{i="z"}'),
        ('x > 0 or x{i="z"}', Verdict.JUDGED, ""),
        ('x unless x{i="z"}', Verdict.JUDGED, ""),
        ('absent(x{i="z"})', Verdict.JUDGED, ""),
        ("ALERTS > 0", Verdict.UNSUPPORTED, "it reads ALERTS"),
    ],
)
def test_every_rule_has_a_verdict(expr: str, verdict: Verdict, reason: str) -> None:
    text = f"groups: [{{name: g, rules: [{{alert: A, expr: {expr!r}}}, {{alert: B, expr: x}}]}}]"
    judged, other = judge(reads(text, "r.yml"), series(x__a="1x9", x__b="1x9"))
    assert (judged.verdict, judged.reason) == (verdict, reason)
    assert other.verdict == Verdict.JUDGED
    assert other.matched == 2


def test_what_cannot_be_recorded_silences_who_reads_it() -> None:
    text = """
groups:
- name: g
  rules:
  - {record: "a:b", expr: 'topk(1, x)'}
  - {alert: A, expr: 'a:b > 1'}
  - {alert: B, expr: 'c:d > 1'}
  - {record: "c:d", expr: x}
  - {record: "c:d", expr: x}
"""
    verdicts = [(one.verdict, one.reason) for one in judge(reads(text, "r.yml"), series(x="1x9"))]
    assert verdicts == [
        (Verdict.UNSUPPORTED, "the aggregation topk (column 1)"),
        (Verdict.UNSUPPORTED, "it reads a:b: the aggregation topk (column 1)"),
        (Verdict.UNSUPPORTED, "it reads c:d, which a later rule records"),
        (Verdict.JUDGED, ""),
        (Verdict.UNSUPPORTED, "it records c:d, which there is already"),
    ]


def test_an_evaluation_that_fails_leaves_the_alert_as_it_was() -> None:
    held = series(x__a="5x39", y__a="1x39", y__b="_x10 1 stale")
    judged = one("x > ignoring(i) y", held, **{"for": "5m"})
    assert judged.failed == 1
    assert "many-to-many" in judged.reason
    assert fired_s(judged) == [(300, None)]


def test_labels_of_an_alert() -> None:
    held = series(x__a="1x3")
    text = """
groups:
- name: g
  interval: 15s
  rules:
  - {alert: A, expr: x, labels: {i: "", who: "the {{ $labels.i }}", n: 1, gone: "{{$labels.nothing}}"}}
  - {alert: B, expr: x, labels: {value: "{{ $value }}"}}
"""
    first, second = judge(reads(text, "r.yml"), held)
    assert dict(first.episodes[0].labels) == {"alertname": "A", "who": "the a", "n": "1"}
    assert (second.verdict, second.reason) == (Verdict.UNSUPPORTED, "the template in the label value")


KUBERNETES = """
apiVersion: v1
kind: ConfigMap
data: {a: b}
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: r}
spec:
  groups:
  - name: g
    interval: 30s
    partial_response_strategy: warn
    rules:
    - {alert: A, expr: x > 0, for: 1h30m, keep_firing_for: 90s, annotations: {summary: hi}}
"""


def test_a_prometheus_rule_of_kubernetes_is_a_rule_file() -> None:
    (group,) = reads(KUBERNETES, "k.yaml")
    (rule,) = group.rules
    assert (group.interval_ms, rule.for_ms, rule.keep_firing_for_ms, rule.line) == (30_000, 5_400_000, 90_000, 15)
    listed = "kind: List\nitems:\n- " + KUBERNETES.split("---\n")[1].replace("\n", "\n  ")
    assert reads(listed, "k.yaml")[0].rules[0].for_ms == 5_400_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("groups: [", "r.yml:1: not YAML"),
        ("rules: []", "r.yml:1: no key 'rules' here"),
        ("kind: Pod", "r.yml: expected groups of rules"),
        ("groups:\n- name: g\n  rulez: []", "r.yml:3: no key 'rulez' here; did you mean 'rules'?"),
        ("groups:\n- rules: []", "r.yml:2: expected a group with a name"),
        ("groups: [{name: g}, {name: g}]", "the group 'g' stands twice"),
        ("groups: [{name: g, rules: [{alert: A}]}]", "group 'g', rule 'A': expected an expression under expr"),
        ("groups: [{name: g, rules: [{expr: x}]}]", "group 'g', rule '?': expected either record or alert"),
        ("groups: [{name: g, rules: [{alert: A, expr: x, for: 5}]}]", "a duration such as 5m or 1h30m, got '5'"),
        ("groups: [{name: g, rules: [{record: a-b, expr: x}]}]", "expected the name of a metric to record, got 'a-b'"),
        ("groups: [{name: g, rules: [{record: ab, expr: x, for: 5m}]}]", "for: only an alert may have this"),
        ("groups: [{name: g, rules: [{alert: A, expr: x, labels: {a-b: c}}]}]", "the name of a label, got 'a-b'"),
        ("groups: [{name: g, rules: [{alert: A, alert: B, expr: x}]}]", "the key 'alert' stands twice"),
        ("groups: [{name: g, rules: [{alert: A, expr: rate(x)}]}]", "not PromQL at column 1"),
        (
            "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: |\n      sum(x)\n        + nosuch(x)\n",
            "r.yml:7: group 'g', rule 'A': expr: not PromQL at line 2, column 5: unknown function with name 'nosuch'",
        ),
    ],
)  # fmt: skip
def test_a_bad_rule_file_says_where(text: str, said: str) -> None:
    with pytest.raises(RuleError) as error:
        reads(text, "r.yml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_samples_are_no_run(root: Path) -> None:
    with pytest.raises(InputError):
        judge(reads((root / "scenarios" / "alerts" / "seed.yml").read_text(), "seed.yml"), SeriesSet())
