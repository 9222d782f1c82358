"""The score of rules: with known answers, of a simulated crash as it is typed, and what every mistake says."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from sim.alerts.rulefile import Rule
from sim.alerts.rules import Judgement, Verdict
from sim.alerts.score import Judged, beyond, score
from sim.alerts.states import Episode
from sim.alerts.truth import Incident, Spent, Truth
from sim.cli import main
from sim.report import alerting, style
from sim.run import play
from sim.scenario import load
from sim.series import NAME, SeriesSet

M = 60_000
WEEK_M = 7 * 1440
SCENARIO = """
name: crash
duration: 1h
warmup: 5m
seeds: 2
rows: none
fleet: {model: llama-3.1-8b, hardware: h100, replicas: 2}
workload: {rate_per_s: 2, cohorts: {chat: {prompt_tokens: 300, output_tokens: 60}}}
clients: {timeout: 20s}
faults: [{stop: main, how: crash, from: 30m, to: 40m}]
slo: {ttft_p99: 2s, errors: 0.5%, itl_p99: 100ms}
"""
RULES = """
groups:
- name: g
  interval: 15s
  rules:
  - alert: Errors
    expr: sum(rate(gateway_requests_total{code!="200"}[5m])) / sum(rate(gateway_requests_total[5m])) > 0.01
    for: 1m
    labels: {severity: page}
  - {alert: Always, expr: "vector(1) > 0", labels: {severity: page}}
  - {alert: Down, expr: up == 0, for: 1m, labels: {severity: ticket}}
  - {alert: Typo, expr: nothing > 3, labels: {severity: page}}
"""


def judgement(name: str, severity: str, fired: list[tuple[int, int | None]]) -> Judgement:
    rule = Rule(name, False, "x > 0", "g", "f.yml", 1, labels={"severity": severity})
    episodes = [Episode((), a * M, a * M, None if b is None else b * M) for a, b in fired]
    return Judgement(rule, M, episodes=episodes)


def judged(*rules: Judgement, weeks: int = 1) -> Judged:
    """One past from minute 100 on: an incident worth a page, from minute 200, and one worth a ticket, from 1000."""
    found = (
        Incident("i1", 200 * M, 260 * M, "page", 0.06, "errors"),
        Incident("i2", 1000 * M, 1100 * M, "ticket", 0.01, "errors"),
    )
    spent = {"errors": Spent(np.array([0, 200, 260, 1000, 1100]) * M, np.array([0, 0, 0.06, 0.06, 0.07]))}
    truth = Truth(found, "a test", 100 * M, (100 + WEEK_M) * M, spent=spent)
    return Judged("past", truth, (100 + weeks * WEEK_M) * M, rules)


def test_a_rule_that_pages_need_not_catch_a_ticket_but_may() -> None:
    past = judged(judgement("A", "critical", [(50, 60), (210, 270), (1010, 1020), (3000, 3010), (3020, 3030)]))
    (one,), together = score([past])
    assert (one.incidents, one.caught, one.pages, one.true, one.undeserved, one.false) == (1, 1, 4, 2, 1, 2)
    assert one.flaps == 1
    assert one.lead_s.tolist() == [-600]
    assert one.detection_s.tolist() == [600]
    assert one.reset_s.tolist() == [600]
    assert one.burned_before.tolist() == pytest.approx([0.01])
    assert one.false_per_week is not None
    assert one.false_per_week.estimate == pytest.approx(2)
    assert one.missed == []
    assert (together.caught, together.false) == (1, 2)


def test_a_rule_for_tickets_is_there_for_all_incidents() -> None:
    (one,), _ = score([judged(judgement("A", "warning", [(190, 205), (8000, None)]))])
    assert (one.incidents, one.caught, one.undeserved) == (2, 1, 0)
    assert one.lead_s.tolist() == [600]
    assert one.burned_before.tolist() == [0, 0.01]
    assert [incident.id for _, incident in one.missed] == ["i2"]


def test_a_silent_rule_is_not_a_quiet_one() -> None:
    silent = judgement("B", "page", [])
    silent.verdict, silent.reason = Verdict.NO_SUCH_SERIES, "no series is called x"
    (a, b), together = score([judged(judgement("A", "page", [(210, 220)]), silent)])
    assert b.weeks == 0
    assert b.false_per_week is None
    assert (b.incidents, b.pages, len(b.silent)) == (0, 0, 1)
    assert (together.caught, a.caught, together.weeks) == (1, 1, 1)


def test_all_rules_together_page_whenever_one_does() -> None:
    for_ever = judgement("A", "page", [(110, None)])
    past = judged(for_ever, judgement("B", "page", [(205, 215)]), judgement("C", "ticket", [(5000, 5001)]))
    _, together = score([past])
    assert (together.pages, together.caught, together.false) == (2, 1, 1)  # tickets wake nobody
    assert together.held[0].names == ("A", "B")


def test_two_sets_of_rules_compared() -> None:
    one = score([judged(judgement("A", "page", [(205, 215), (5000, 5010)]))])[1]
    other = score([judged(judgement("B", "page", [(5005, 5020), (7000, 7001)]))])[1]
    gained, lost = beyond(one, other), beyond(other, one)
    assert [incident.id for _, incident in gained.incidents] == ["i1"]
    assert gained.pages == [("past", "A", 205 * M, True)]
    assert lost.incidents == []
    assert lost.pages == [("past", "B", 7000 * M, False)]
    assert beyond(one, one).pages == []


Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in which both replicas crash for ten minutes."""
    folder = tmp_path_factory.mktemp("crash")
    (folder / "crash.yaml").write_text(SCENARIO)
    with pytest.raises(SystemExit) as end:
        main(("run", str(folder / "crash.yaml"), "--out", str(folder / "run"), "--no-figures"))
    assert not end.value.code
    return folder / "run"


@pytest.fixture
def typed(tmp_path: Path, crash: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type ``alerts score`` in a folder with the ``run`` and ``rules.yml``; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    Path("run").symlink_to(crash, target_is_directory=True)
    Path("rules.yml").write_text(RULES)
    capsys.readouterr()

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(("alerts", "score", *words))
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out if "--json" in words else flat(out), err

    return typed


def flat(out: str) -> str:
    """Lines without runs of blanks, and sentences on one line."""
    return "\n".join(" ".join(block.split()) if ". " in block else block for block in out.split("\n\n"))


def test_a_crash_is_an_incident_that_a_rule_on_errors_catches(typed: Typed) -> None:
    code, out, err = typed("run", "--rules", "rules.yml", "--figure", "score.png")
    assert (code, err) == (0, "")
    assert "2 of 2 page-worthy incidents caught" in out
    assert "the slo of the scenario (ttft_p99 2s, errors 0.5%)" in out
    assert "2 incidents: 2 worth a page, 0 a ticket" in out
    assert "Not watched: itl_p99." in out
    assert "warm-up left out" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["Errors", "2/2", "100%", "[34,", "100]"] in [line[:5] for line in lines]
    assert "Typo: no such series, no series is called nothing" in out
    assert "Always: was firing already when the warm-up ended, 2 times" in out
    assert Path("score.png").read_bytes()[1:4] == b"PNG"


def test_score_as_json(typed: Typed) -> None:
    code, out, _ = typed("run", "--rules", "rules.yml", "--json", "--no-figures")
    assert code == 0
    found = json.loads(out)
    (incident,) = found["pasts"][0]["incidents"]
    assert abs(incident["start_ms"] - 30 * M) <= M  # asked a minute before the crash, not answered in time
    assert incident["end_ms"] == 40 * M
    assert incident["causes"] == ["stop main"]
    assert incident["severity"] == "page"
    errors, always, down, typo = found["rules"]
    assert (errors["caught"], errors["pages"], errors["false"]) == (2, 2, 0)
    assert all(0 < seconds <= 240 for seconds in errors["detection_s"])
    assert all(0 < share < incident["burned"] for share in errors["burned_before"])
    assert always["firing_before_the_watch"] == 2
    assert (always["pages"], always["false"], down["caught"], down["incidents"]) == (2, 2, 2, 2)
    assert typo["silent"][0]["verdict"] == "no such series"
    assert found["together"]["caught"] == 2
    member = f"run/{next(Path('run').glob('*/seed-1/member.json')).parent.relative_to('run')}"
    alone = json.loads(typed(member, "--rules", "rules.yml", "--json", "--no-figures")[1])
    assert alone["pasts"][0]["incidents"] == found["pasts"][0]["incidents"]


def test_misses_and_two_files_compared(typed: Typed) -> None:
    Path("late.yml").write_text(RULES.replace("for: 1m\n    labels: {severity: page}", "for: 40m"))
    code, out, _ = typed("run", "--rules", "late.yml", "--against", "rules.yml", "--no-figures")
    assert code == 0
    assert "0 of 2 page-worthy incidents caught" in out
    assert "i1 page" in out
    assert "stop main" in out
    assert "late.yml against rules.yml" in out
    assert "0 incidents gained" in out
    assert "2 incidents lost: i1 (seed 1), i1 (seed 2)" in out
    assert "2 pages lost: 2 true, 0 false" in out


def test_incidents_from_a_file_or_an_expression_take_the_place_of_the_slo(typed: Typed) -> None:
    Path("mine.csv").write_text("start,end,id\n10m,12m,blip\n30m,40m,crash\n9h,10h,late\n")
    code, out, _ = typed("run", "--rules", "rules.yml", "--incidents", "mine.csv", "--no-figures")
    assert code == 0
    assert "--incidents mine.csv (1 incident outside the past left out)" in out
    assert "2 of 4 page-worthy incidents caught" in out
    assert "blip page" in out
    found = json.loads(typed("run", "--rules", "rules.yml", "--incidents", "mine.csv", "--no-figures", "--json")[1])
    assert [one["causes"] for one in found["pasts"][0]["incidents"]] == [[], ["stop main"]]
    share = 'sum(rate(gateway_requests_total{code!="200"}[1m])) / sum(rate(gateway_requests_total[1m]))'
    code, out, _ = typed("run", "--rules", "rules.yml", "--sli", share, "--objective", "99.5%", "--no-figures")
    assert code == 0
    assert "share of bad requests, objective 99.5%. 2 incidents: 2 worth a page" in out


def test_several_sources_are_one_score_and_each_has_its_name(typed: Typed) -> None:
    members = sorted(str(path.parent) for path in Path("run").glob("*/*/member.json"))
    words = ("run", *members, members[0], "--rules", "rules.yml", "--json", "--no-figures")
    found = json.loads(typed(*words)[1])
    assert [one["past"] for one in found["pasts"]] == ["run: seed 1", "run: seed 2", *members]
    assert (found["together"]["incidents"], found["together"]["caught"]) == (4, 4)


def test_a_past_without_incidents_still_tells_false_pages(typed: Typed) -> None:
    code, out, _ = typed("run", "--rules", "rules.yml", "--page-burn", "100%", "--ticket-burn", "100%", "--no-figures")
    assert code == 0
    assert "No page-worthy incident; 4 false pages in" in out


def test_nothing_judged_is_3(typed: Typed) -> None:
    Path("typo.yml").write_text("groups: [{name: g, rules: [{alert: A, expr: nothing > 1}]}]")
    code, out, _ = typed("run", "--rules", "typo.yml", "--no-figures")
    assert code == 3
    assert "Not one rule could be judged." in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "nowhere: no such file of series"),
        (("s.parquet",), "s.parquet: a file of series does not say when users suffered; give --incidents"),
        (("run", "--incidents", "no.csv"), "no.csv: cannot be read"),
        (("run", "--incidents", "other.csv"), "other.csv: not one incident lies in 2 pasts"),
        (("run", "--incidents", "other.csv", "--sli", "up"), "--incidents and --sli: expected one of them"),
        (("run", "--sli", "up"), "--objective: missing"),
        (("run", "--objective", "99%"), "--sli: missing"),
        (("run", "--sli", "up", "--objective", "99"), "--objective: expected a fraction"),
        (("run", "--sli", "up", "--objective", "100%"), "--objective: expected a share between 0 and 1"),
        (("run", "--early", "soon"), "--early: expected a duration"),
        (("run", "--gap", "-1m"), "--gap: expected a duration"),
        (("run", "--page-burn", "1%", "--ticket-burn", "2%"), "--ticket-burn: expected above 0 and at most"),
        (("run", "--against", "sead"), "--against sead: no such file or set of rules; did you mean 'seed'?"),
    ],
)
def test_a_mistake_is_one_sentence(typed: Typed, words: tuple[str, ...], said: str) -> None:
    made = SeriesSet()
    made.add({NAME: "kv"}, np.arange(0, 60 * M, M), np.zeros(60))
    made.write(Path("s.parquet"))
    Path("other.csv").write_text("start,end\n2026-05-01T10:00:00Z,2026-05-01T11:00:00Z\n")
    code, out, err = typed(*words, "--rules", "rules.yml", "--no-figures")
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("slo", "said"),
    [
        ("slo: {}", "its scenario promises users nothing"),
        ("slo: {itl_p99: 100ms}", "of `slo` nothing is counted by the minute (itl_p99)"),
    ],
)
def test_a_run_that_promised_nothing_is_refused(typed: Typed, slo: str, said: str) -> None:
    text = SCENARIO.replace("slo: {ttft_p99: 2s, errors: 0.5%, itl_p99: 100ms}", slo)
    Path("quiet.yaml").write_text(text.replace("1h", "10m").replace("from: 30m, to: 40m", "from: 1m, to: 2m"))
    with pytest.raises(SystemExit):
        main(("run", "quiet.yaml", "--seeds", "1", "--out", "quiet", "--no-figures"))
    code, _, err = typed("quiet", "--rules", "rules.yml")
    assert code == 2
    assert said in err
    assert "give --incidents or --sli" in err


def test_less_than_a_minute_is_nothing_to_be_scored(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(SCENARIO)
    (tmp_path / "short").mkdir()
    changes = ["duration=150s", "warmup=2m", "faults=[]", "seeds=1"]
    play(load(tmp_path / "short.yaml", changes), tmp_path / "short", workers=1)
    code, out, err = typed("short", "--rules", "rules.yml")
    assert (code, out) == (3, "")
    assert err == (
        "short: 30 s were watched, and what users met is counted by the minute; expected at least a minute after the "
        "warm-up\n"
    )
    assert not (tmp_path / "short" / "figures").exists()


def test_the_timeline_shades_incidents_and_hatches_faults(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[style.Plate] = []
    monkeypatch.setattr(style, "save", lambda plate, path: drawn.append(plate))
    with pytest.raises(SystemExit):
        main(("alerts", "eval", "run", "--rules", "rules.yml"))
    (plate,) = drawn
    figure = plate.draw()
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "incident: users met less than was promised" in said
    assert "fault: something was broken" in said
    ax = figure.axes[0]
    assert ax.get_yticklabels()[0].get_text() == "faults"
    (hatched,) = [one for one in ax.collections if one.get_hatch()]
    (box,) = [path.get_extents() for path in hatched.get_paths()]
    assert (box.x0, box.x1) == (30, 40), "minutes"
    spans = [patch for patch in ax.patches if patch.get_facecolor()[:3] == to_rgb(alerting.SUFFERED)]
    assert spans
    assert all(28 <= patch.get_x() <= 42 for patch in spans)


def test_a_file_of_series_has_nothing_to_shade() -> None:
    plate = alerting.plate("a file", [judgement("A", "page", [(5, 9)])])
    said = [text.get_text() for text in plate.draw().legends[0].get_texts()]
    assert said == ["pending: true, not yet for long enough", "firing"]
    assert "Nobody counted what users met" in plate.caption
