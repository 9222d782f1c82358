"""``blowout alerts tune`` as it is typed: what is printed, drawn, written and returned, and what every mistake says."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.many_weeks import RULES, many_weeks
from sim.alerts.rulefile import read
from sim.cli import main
from tests.real_prometheus import binary

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type a command beside four weeks and half a week of series, their incidents, rules and a tuning file."""
    monkeypatch.chdir(tmp_path)
    for name, weeks in (("weeks", 4.0), ("short", 0.5)):
        series, incidents = many_weeks(weeks, 240)
        series.write(Path(f"{name}.parquet"))
        with Path(f"{name}.csv").open("w") as file:
            rows = csv.writer(file)
            rows.writerow(["start", "end", "severity", "id"])
            rows.writerows((one.start_ms / 1000, one.end_ms / 1000, one.severity, one.id) for one in incidents)
    Path("rules.yml").write_text(RULES.format(interval="4m"))
    Path("few.yml").write_text("rules:\n  AnswersSlow: {threshold: [1%, 4%], window: [20m], for: [0s, 4m]}\n")

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(("alerts", "tune", *words))
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return typed


WEEKS = ("weeks.parquet", "--rules", "rules.yml", "--incidents", "weeks.csv")


def test_tune_says_what_is_better_and_writes_it(typed: Typed) -> None:
    code, out, err = typed(*WEEKS, "--tuning", "few.yml", "--out", "tuned.yml", "--figure", "tune.png")
    assert (code, err) == (0, "")
    assert "1 of 1 rule could do better than today." in out
    assert "Truth: --incidents weeks.csv: 44 incidents in 1 past, 4 weeks." in out
    assert "Settings are chosen on 2 weeks and checked on the other 2 weeks, dealt in turn." in out
    assert "rules.yml:11. 18 settings tried" in out
    lines = [line.split() for line in out.splitlines()]
    for name in ("today: > 0.05 over 5m for 10m", "recommended: > 0.05 over 20m for 0s"):
        at = lines.index(name.split())
        assert [line[:4] for line in lines[at + 1 : at + 3]] == [["-", "weeks", "that", k] for k in ("choose", "check")]
    assert "Nearby, " in out
    assert "The recommended setting misses i" in out
    assert "KVHigh: few.yml does not ask for it" in out
    assert "blowout alerts score weeks.parquet --rules tuned.yml --against rules.yml --incidents weeks.csv" in out
    assert Path("tune.png").read_bytes()[1:4] == b"PNG"
    before, after = Path("rules.yml").read_text(), Path("tuned.yml").read_text()
    expected = before.replace('{le="2.5"}[5m]', '{le="2.5"}[20m]')
    expected = expected.replace(
        "latency_count[5m])) > 0.05\n        for: 10m", "latency_count[20m])) > 0.05\n        for: 0s"
    )
    assert after == expected


def test_tune_as_json(typed: Typed) -> None:
    code, out, _ = typed(*WEEKS, "--tuning", "few.yml", "--json")
    said = json.loads(out)
    assert code == 0
    (rule,) = said["rules"]
    assert (said["incidents"], said["weeks"]) == ({"page": 33, "ticket": 11}, pytest.approx(4, abs=0.01))
    assert rule["tried"] == {"thresholds": [0.01, 0.04, 0.05], "windows_s": [300, 1200], "fors_s": [0, 240, 600],
                             "settings": 18, "never_fire": 0, "always_fire": 0}  # fmt: skip
    best = rule["recommended"]
    assert best["expr"].endswith("[20m])) > 0.05")
    assert best["chosen_on"]["false_per_week"] <= rule["max_false_pages_per_week"] == 0.5
    assert best["checked_on"]["incidents"] + best["chosen_on"]["incidents"] == 33
    assert {one["rule"] for one in said["not_tuned"]} == {"ErrorsHigh", "P95High", "KVHigh", "QualityLow"}
    assert not list(Path().glob("**/*.png"))


def test_no_holdout_is_said_and_nothing_recommended(typed: Typed) -> None:
    short = ("short.parquet", "--rules", "rules.yml", "--incidents", "short.csv")
    code, out, _ = typed(*short)
    assert code == 0
    assert "No holdout: what the weeks below promise, other weeks need not keep." in out
    assert "Nothing is recommended: 0.5 weeks cannot be halved" in out
    assert "blowout alerts score short.parquet --rules rules.yml --incidents short.csv   # what the rules" in out
    code, _, err = typed(*short, "--out", "tuned.yml")
    assert (code, err) == (3, "tuned.yml: not written, for nothing is recommended\n")
    assert not Path("tuned.yml").exists()


def test_incidents_by_an_expression(typed: Typed) -> None:
    sli = 'sum(rate(gateway_requests_total{code="500"}[10m])) / sum(rate(gateway_requests_total[10m]))'
    code, out, _ = typed(
        "weeks.parquet", "--rules", "rules.yml", "--sli", sli, "--objective", "99%", "--tuning", "few.yml"
    )
    assert code == 0
    assert "Truth: --sli 'sum(rate(" in out
    assert f"blowout alerts score weeks.parquet --rules rules.yml --sli '{sli}' --objective 99%   # what" in out


def test_ones_own_mix_and_limit(typed: Typed) -> None:
    Path("mix.yml").write_text("max_false_pages_per_week: 3\nmix: {page: 2/month, ticket: 5/month}\n")
    code, out, _ = typed(*WEEKS, "--tuning", "mix.yml", "--json")
    said = json.loads(out)
    assert code == 0
    assert said["your_mix_per_week"] == {"page": pytest.approx(2 * 7 / 30), "ticket": pytest.approx(5 * 7 / 30)}
    assert {one["max_false_pages_per_week"] for one in said["rules"]} == {3}
    _, out, _ = typed(*WEEKS, "--tuning", "mix.yml", "--max-false-pages", "1")
    assert ["page", "33", "8.25", "0.467"] in [line.split() for line in out.splitlines()]


def test_the_real_promtool_accepts_what_is_written(typed: Typed) -> None:
    promtool = binary("promtool")
    Path("rules.yml").write_bytes(Path("rules.yml").read_bytes().replace(b"\n", b"\r\n"))
    assert typed(*WEEKS, "--out", "tuned.yml")[0] == 0
    assert subprocess.run([promtool, "check", "rules", "tuned.yml"], capture_output=True, check=False).returncode == 0
    lines = [Path(name).read_bytes().split(b"\r\n") for name in ("rules.yml", "tuned.yml")]
    assert [len(line) > 0 for line in lines[0]] == [len(line) > 0 for line in lines[1]]
    assert 2 <= sum(a != b for a, b in zip(*lines)) <= 10


def test_several_files_of_rules_go_into_a_folder(typed: Typed) -> None:
    Path("more.yml").write_text("groups: [{name: more, interval: 4m, rules: [{alert: Queue, expr: kv > 0.95}]}]\n")
    code, out, err = typed(*WEEKS, "--rules", "more.yml", "--out", "tuned")
    assert "--rules tuned/rules.yml --rules tuned/more.yml --against rules.yml --against more.yml --incidents" in out
    assert (code, err) == (0, "")
    assert [len(group.rules) for group in read([Path("tuned/rules.yml"), Path("tuned/more.yml")])] == [5, 1]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("weeks.parquet", "--rules", "rules.yml"), 2, "a file of series does not say when users suffered"),
        ((*WEEKS, "--tuning", "no.yml"), 2, "no.yml: cannot be read (No such file or directory)"),
        ((*WEEKS, "--tuning", "odd.yml"), 2, "odd.yml:1: rules: no alert is called 'Answers'; did you mean 'Answers"),
        ((*WEEKS, "--out", "rules.yml"), 2, "--out rules.yml: expected another place than that of the rules"),
        ((*WEEKS, "--rules", "dull.yml", "--out", "few.yml"), 2, "--out few.yml: expected a folder"),
        ((*WEEKS, "--early", "x"), 2, "--early: expected a duration"),
        ((*WEEKS, "--max-false-pages", "-1"), 2, "--max-false-pages"),
        (("weeks.parquet", "--rules", "dull.yml", "--incidents", "weeks.csv"), 3, "nothing to tune: Gone: its expr"),
        (
            ("weeks.parquet", "--rules", "rules.yml", "--incidents", "far.csv"),
            3,
            "nothing to tune on: not one incident",
        ),
    ],
)
def test_a_mistake_is_one_sentence(typed: Typed, words: tuple[str, ...], code: int, said: str) -> None:
    Path("odd.yml").write_text("rules: {Answers: {for: [1m]}}\n")
    Path("dull.yml").write_text("groups: [{name: d, rules: [{alert: Gone, expr: absent(kv)}]}]\n")
    Path("far.csv").write_text("start,end\n900d,901d\n")
    got, out, err = typed(*words)
    assert (got, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1
