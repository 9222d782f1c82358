"""Rule files with other numbers: nothing else changes, whatever the style, and what is written reads back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.alerts.rulefile import reads
from sim.alerts.tuning.knobs import Point, UntunableError, knobs
from sim.alerts.tuning.rewrite import Change, rewritten
from sim.errors import InputError

BLOCK = """\
# Ours, by hand.
groups:
  - name: g   # the first
    interval: 15s
    rules:
      - record: r
        expr: rate(x_total[5m])
      - alert: Errors # not too many
        expr: |
          # share of errors > 3?
          sum(rate(bad_total{code="500"}[5m]))
            / sum(rate(x_total[5m])) > 0.01   # one percent
        for: 5m # long enough
        annotations: {summary: "above 0.01 for 5m [5m]"}
      - expr: 'kv{i=''a''} > 0.9'
        alert: KV
      - {alert: Flow, expr: "rate(x_total{a=\\"b\\"}[5m]) > 3", for: "10m"}
      - {alert: Bare, expr: kv > 7}
      - alert: Folded
        expr: >-
          rate(x_total[5m])
          > 12
          and kv > 0.1
"""


def changed(text: str, **points: Point) -> str:
    rules = [rule for group in reads(text, "r.yml") for rule in group.rules]
    return rewritten(text, "r.yml", [Change(knobs(rule), points[rule.name]) for rule in rules if rule.name in points])


def test_only_numbers_change() -> None:
    got = changed(
        BLOCK,
        Errors=Point(0.02, 600_000, 120_000),
        KV=Point(0.95, 0, 300_000),
        Flow=Point(4.5, 60_000, 0),
        Bare=Point(7, 0, 90_000),
        Folded=Point(11, 300_000, 0),
    )
    expected = BLOCK.replace('code="500"}[5m]', 'code="500"}[10m]')
    expected = expected.replace("(rate(x_total[5m])) > 0.01", "(rate(x_total[10m])) > 0.02")
    expected = expected.replace("for: 5m # long", "for: 2m # long")
    expected = expected.replace("- expr: 'kv{i=''a''} > 0.9'", "- for: 5m\n        expr: 'kv{i=''a''} > 0.95'")
    expected = expected.replace('\\"b\\"}[5m]) > 3", for: "10m"', '\\"b\\"}[1m]) > 4.5", for: 0s')
    expected = expected.replace("Bare, expr", "Bare, for: 90s, expr").replace("> 12", "> 11")
    assert got == expected


def test_nothing_to_change_is_the_same_file() -> None:
    assert changed(BLOCK, Errors=Point(0.01, 300_000, 300_000)) == BLOCK


def test_kubernetes_objects_and_several_documents() -> None:
    text = "kind: ConfigMap\ndata: {}\n---\nkind: PrometheusRule\nspec:\n  groups:\n  - name: k\n    rules:\n"
    text += "    - alert: A\n      expr: kv > 0.9\n---\ngroups: [{name: g, rules: [{alert: B, expr: kv > 1}]}]\n"
    assert changed(text, A=Point(0.8, 0, 0), B=Point(2, 0, 0)) == text.replace("0.9", "0.8").replace("kv > 1", "kv > 2")


def test_an_escaped_text_is_written_anew() -> None:
    text = 'groups: [{name: g, rules: [{alert: A, expr: "k\\x76 > 0.9"}]}]\n'
    assert changed(text, A=Point(0.8, 0, 0)) == text.replace("k\\x76 > 0.9", "kv > 0.8")


def test_an_anchor_for_two_rules_is_refused() -> None:
    text = "groups: [{name: g, rules: [{alert: A, expr: &e kv > 0.9}, {alert: B, expr: *e}]}]\n"
    with pytest.raises(InputError, match="r.yml: A: cannot be written in place"):
        changed(text, A=Point(0.8, 0, 0))


@settings(max_examples=60)
@given(
    st.sampled_from(["plain", "'", '"', "|", ">-", "|-"]),
    st.sampled_from(["kv > 0.9", "rate(x_total[5m]) > 0.9", 'rate(x_total{i="a\'b"}[5m]) > 0.9 and kv > 0.2']),
    st.floats(0.001, 1000),
    st.sampled_from([0, 60_000, 90_000, 3_600_000]),
    st.booleans(),
)
def test_whatever_the_style_it_reads_back(style: str, expr: str, x: float, for_ms: int, with_for: bool) -> None:
    written = {
        "plain": expr,
        "'": "'" + expr.replace("'", "''") + "'",
        '"': '"' + expr.replace('"', '\\"') + '"',
    }.get(style, f"{style}\n        {expr}")
    more = "\n      for: 5m" if with_for else ""
    text = f"groups:\n- name: g\n  rules:\n    - alert: A\n      expr: {written}{more}\n      labels: {{a: b}}\n"
    (rule,) = reads(text, "r")[0].rules
    turn = knobs(rule)
    point = Point(x, 2 * turn.today.window_ms, for_ms)
    (again,) = reads(rewritten(text, "r", [Change(turn, point)]), "r")[0].rules
    assert knobs(again).today == point
    assert again.labels == rule.labels


def test_a_rule_without_knobs_is_no_change() -> None:
    with pytest.raises(UntunableError):
        changed("groups: [{name: g, rules: [{alert: A, expr: absent(kv)}]}]", A=Point(1, 0, 0))
