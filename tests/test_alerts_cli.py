"""``blowout alerts`` as it is typed: what is printed, drawn and returned, and what every mistake says."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest

from sim.cli import main
from sim.commands.alerts import command
from sim.series import NAME, SeriesSet
from tests.real_prometheus import binary

RULES = """
groups:
- name: g
  interval: 15s
  rules:
  - {alert: High, expr: kv > 0.9, for: 5m}
  - {alert: Top, expr: 'topk(1, kv)'}
  - {alert: Typo, expr: kw > 0.9}
"""
Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type a command in a folder that holds ``kv.parquet`` and ``rules.yml``; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    t_ms = np.arange(0, 3_600_000, 15_000)
    values = np.where((t_ms >= 1_200_000) & (t_ms < 2_400_000), 0.95, 0.5)
    made = SeriesSet()
    made.add({NAME: "kv", "i": "a"}, t_ms, values)
    made.write(Path("kv.parquet"))
    Path("rules.yml").write_text(RULES)

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(("alerts", *words))
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return typed


def test_eval_says_when_each_rule_fired_and_which_were_not_judged(typed: Typed) -> None:
    code, out, err = typed("eval", "kv.parquet", "--rules", "rules.yml", "--figure", "alerts.png")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["High", "judged", "1", "1", "1", "15.0", "min"] in lines
    assert ["High", "0:20:00", "0:25:00", "0:40:00", "i=a"] in lines
    assert "1 of 1 judged alert fired, the first at 0:25:00: High. 2 rules could not be judged" in out
    assert "the aggregation topk (column 1)" in out
    assert "no series is called kw" in out
    assert Path("alerts.png").read_bytes()[1:4] == b"PNG"


def test_eval_as_json(typed: Typed) -> None:
    code, out, _ = typed("eval", "kv.parquet", "--rules", "rules.yml", "--json")
    high, top, typo = json.loads(out)
    assert code == 0
    assert high["episodes"] == [
        {
            "labels": {"alertname": "High", "i": "a"},
            "pending_ms": 1_200_000,
            "firing_ms": 1_500_000,
            "ended_ms": 2_400_000,
        }
    ]
    assert (high["line"], high["series_matched"], high["evaluations"]) == (6, 1, 240)
    assert [top["verdict"], typo["verdict"]] == ["unsupported", "no such series"]
    assert not list(Path().glob("**/*.png"))


def test_a_member_of_a_run_keeps_its_figure(typed: Typed) -> None:
    Path("seed-1").mkdir()
    Path("kv.parquet").rename("seed-1/metrics.parquet")
    assert typed("eval", "seed-1", "--rules", "rules.yml", "--no-figures")[0] == 0
    assert not Path("seed-1/figures").exists()
    assert typed("eval", "seed-1", "--rules", "rules.yml")[0] == 0
    assert Path("seed-1/figures/alerts.png").is_file()


def test_shipped_rules_are_known_by_name_and_nothing_judged_is_3(typed: Typed) -> None:
    code, out, _ = typed("eval", "kv.parquet", "--rules", "seed")
    assert code == 3
    assert "0 of 0 judged alerts fired. 5 rules could not be judged: silent, not quiet." in out


def test_verify_asks_the_real_promtool(typed: Typed) -> None:
    binary("promtool")
    code, out, _ = typed("verify", "kv.parquet", "--rules", "rules.yml")
    assert code == 0
    assert "promtool check rules: accepted\npromtool test rules: 7 assertions on alert states, all hold\n" in out
    Path("bad.yml").write_text(RULES.replace("for: 5m", "for: 5m, annotations: {a: '{{ $bad }}'}"))
    code, out, _ = typed("verify", "kv.parquet", "--rules", "bad.yml")
    assert code == 1
    assert "promtool check rules: refused" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("eval", "nowhere", "--rules", "rules.yml"), "nowhere: no such file of series"),
        (("eval", "rules.yml", "--rules", "rules.yml"), "rules.yml, line 2: expected a Prometheus sample like"),
        (("eval", ".", "--rules", "rules.yml"), "expected the folder of a run"),
        (("eval", "kv.parquet", "--rules", "sead"), "no such file or set of rules; did you mean 'seed'?"),
        (("eval", "kv.parquet", "--rules", "no.yml"), "no.yml: cannot be read (No such file or directory)"),
        (("eval", "kv.parquet", "--rules", "bad.yml"), "bad.yml:1: group 'g', rule 'A': expr: not PromQL at column 4"),
        (("eval", "kv.parquet", "--rules", "rules.yml", "--interval", "0"), "--interval: expected a duration"),
        (("eval", "kv.parquet"), "missing option '--rules'"),
        (("verify", "kv.parquet", "--rules", "rules.yml", "--promtool", "nothing-here"), "no nothing-here here"),
        (("evaluate", "kv.parquet"), "no such command"),
    ],
)
def test_a_mistake_is_one_sentence(typed: Typed, words: tuple[str, ...], said: str) -> None:
    Path("bad.yml").write_text("groups: [{name: g, rules: [{alert: A, expr: sum(x}]}]")
    code, out, err = typed(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["audit", "eval", "export", "lint", "score", "tune", "verify"])
def test_every_option_is_documented(name: str, root: Path) -> None:
    page = (root / "docs" / "reference" / "cli.md").read_text()

    def section(title: str) -> str:
        found = re.search(rf"^## {title}.*?(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
        assert found, title
        return found[0]

    said = section(rf"`blowout alerts {name}\b")
    if "(#where-the-past-comes-from)" in said:
        said += section("Where the past comes from")
    made = command.get_command(click.Context(command), name)
    assert made is not None
    for parameter in made.params:
        assert isinstance(parameter, click.Argument) or f"`{parameter.opts[0]}" in said, parameter.name


def test_a_run_of_two_seeds_is_judged_by_its_first(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.yaml").write_text(
        "name: small\nduration: 60s\nseeds: 2\nfleet: {model: llama-3.1-8b, hardware: h100}\n"
        "workload: {rate_per_s: 2, cohorts: {chat: {prompt_tokens: 300, output_tokens: 20}}}\n"
    )
    with pytest.raises(SystemExit):
        main(("run", "small.yaml", "--out", "run", "--no-figures"))
    capsys.readouterr()
    for series in Path("run").glob("**/metrics.parquet"):
        series.unlink()
    code, _, err = typed("eval", "run", "--rules", "rules.yml")
    assert (code, err) == (2, "run: kept no metrics.parquet to judge rules on: its scenario says `telemetry: none`\n")
    members = sorted(path.parent for path in Path("run").glob("*/*/member.json"))
    for member in members:
        (member / "metrics.parquet").write_bytes(Path("kv.parquet").read_bytes())
    code, out, _ = typed("eval", "run", "--rules", "rules.yml")
    assert code == 0
    assert "seed 1 (the first of 2; name the folder of another to judge that)" in out
    assert (members[0] / "figures" / "alerts.png").is_file()
    assert typed("eval", str(members[1]), "--rules", "rules.yml", "--no-figures")[0] == 0
