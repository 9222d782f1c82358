"""Rules held against what was expected of them: each verdict by itself, then runs as they are typed."""

import json
from pathlib import Path

import pytest

from sim.alerts import users
from sim.alerts.prove import Finding, Proof, prove, tolerance_ms
from sim.alerts.rulefile import Rule
from sim.alerts.rules import Judgement, Verdict
from sim.alerts.states import Episode
from sim.alerts.truth import Incident
from sim.cli import main
from sim.results import write_json
from sim.run import play
from sim.scenario import loads
from sim.scenario.expect import Expectation, Fires

M = 60_000
SCENARIO = """
name: crash
duration: 40m
rows: none
seed: 3
fleet: {replicas: 2, kv_blocks: 2000, step_time: {linear: {base: 10ms, per_prefill_token: 20us}}}
workload: {rate_per_s: 2, cohorts: {chat: {prompt_tokens: 300, output_tokens: 60}}}
clients: {timeout: 20s}
faults: [{stop: main, how: crash, from: 20m, to: 30m}]
slo: {errors: 0.5%}
alerts: r.yml
expect: {Errors: {fires: 20m-26m, pending: 19m-23m}, Quiet: silent}
"""
RULES = """
groups:
- name: g
  interval: 15s
  rules:
  - record: "bad:ratio"
    expr: sum(rate(gateway_requests_total{code!="200"}[2m])) / sum(rate(gateway_requests_total[2m]))
  - {alert: Errors, expr: "bad:ratio > 0.01", for: 1m, labels: {severity: page}}
  - {alert: Quiet, expr: "bad:ratio > 2"}
  - {alert: Down, expr: up == 0, for: 1m}
  - {alert: Typo, expr: nothing > 3}
"""


def judged(*fired: tuple[int, int | None], pending: int | None = None, verdict: Verdict = Verdict.JUDGED) -> Judgement:
    rule = Rule("A", False, "x > 0", "g", "f.yml", 1, for_ms=2 * M)
    episodes = [Episode((), (a - 2) * M, a * M, None if b is None else b * M) for a, b in fired]
    if pending is not None:
        episodes.append(Episode((), pending * M, None, None))
    return Judgement(rule, 15_000, verdict, "why", episodes=episodes)


def proof(one: Judgement, said: Expectation | None, predicted: Judgement | None = None, zero: int = 0) -> Proof:
    expect = {} if said is None else {"A": said}
    incident = Incident("i", 13 * M, 20 * M, "page", 0.1, "errors")
    (found,) = prove([one], expect, None if predicted is None else [predicted], [incident], zero)
    return found


FIRES = Fires(fires="12m-16m")  # type: ignore[arg-type]
EARLIER = Fires(fires="12m-16m", pending="5m-9m")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "said", "finding", "false", "holds"),
    [
        (judged((14, 20)), FIRES, Finding.AS_EXPECTED, 0, True),
        (judged((12, 20)), FIRES, Finding.AS_EXPECTED, 0, True),
        (judged((16, None)), FIRES, Finding.AS_EXPECTED, 0, True),
        (judged((14, 15), (17, 18), (30, 31)), FIRES, Finding.AS_EXPECTED, 0, True),  # flaps of one that was expected
        (judged((14, 15), (40, 41)), FIRES, Finding.FALSE, 1, False),
        (judged((11, 20)), FIRES, Finding.MISSED, 1, False),
        (judged((3, 4), (14, 20)), FIRES, Finding.FALSE, 1, False),
        (judged(), FIRES, Finding.MISSED, 0, False),
        (judged(pending=14), FIRES, Finding.MISSED, 0, False),
        (judged((14, 20)), EARLIER, Finding.PENDING, 0, False),
        (judged((14, 20), pending=8), EARLIER, Finding.AS_EXPECTED, 0, True),
        (judged(), "silent", Finding.AS_EXPECTED, 0, True),
        (judged(pending=14), "silent", Finding.AS_EXPECTED, 0, True),
        (judged((14, 20)), "silent", Finding.FALSE, 1, False),
        (judged(), None, Finding.NOTHING_EXPECTED, 0, True),
        (judged(verdict=Verdict.NO_SUCH_SERIES), "silent", Finding.NOT_JUDGED, 0, False),
        (judged(verdict=Verdict.NO_SUCH_SERIES), FIRES, Finding.NOT_JUDGED, 0, False),
        (judged(verdict=Verdict.UNSUPPORTED), None, Finding.NOT_JUDGED, 0, True),
    ],
)
def test_what_was_expected_decides(
    one: Judgement, said: Expectation | None, finding: Finding, false: int, holds: bool
) -> None:
    found = proof(one, said)
    assert (found.finding, found.false, found.holds) == (finding, false, holds)


@pytest.mark.parametrize(
    ("one", "predicted", "finding", "holds"),
    [
        (judged((14, 20)), judged((14, 20)), Finding.AS_EXPECTED, True),
        (judged((15, 20)), judged((14, 20)), Finding.AS_EXPECTED, True),
        (judged((16, 20)), judged((14, 20)), Finding.MISSED, False),
        (judged((14, 20)), judged((14, 20), (50, 60)), Finding.AS_EXPECTED, True),  # only the first must be there
        (judged((14, 20), (51, 52)), judged((14, 20), (50, 60)), Finding.AS_EXPECTED, True),
        (judged((14, 20)), judged(), Finding.FALSE, False),
        (judged(), judged(), Finding.AS_EXPECTED, True),
        (judged((14, 20)), judged(verdict=Verdict.NO_SUCH_SERIES), Finding.NOTHING_EXPECTED, True),
        (judged(verdict=Verdict.NO_SUCH_SERIES), judged((14, 20)), Finding.NOT_JUDGED, False),
        (judged(verdict=Verdict.NO_SUCH_SERIES), judged(), Finding.NOT_JUDGED, True),
    ],
)
def test_without_a_word_the_prediction_decides(
    one: Judgement, predicted: Judgement, finding: Finding, holds: bool
) -> None:
    found = proof(one, None, predicted)
    assert (found.finding, found.holds) == (finding, holds)


def test_a_word_goes_before_the_prediction_and_times_may_be_of_a_calendar() -> None:
    assert proof(judged((14, 20)), "silent", judged((14, 20))).finding == Finding.FALSE
    zero = 1_700_000_000_000
    found = proof(judged((14 + zero // M, 20 + zero // M)), FIRES, zero=zero // M * M)
    assert found.finding == Finding.AS_EXPECTED
    assert found.pages.start_ms.tolist() == [14 * M]
    assert found.lead_s == -60


def test_how_far_off_a_rule_may_fire() -> None:
    assert tolerance_ms(15_000, 0) == 60_000
    assert tolerance_ms(60_000, 0) == 120_000
    assert tolerance_ms(15_000, 600_000) == 300_000


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("r.yml").write_text(RULES)
    Path("run").mkdir()
    play(loads(SCENARIO, folder=tmp_path), Path("run"), workers=1)
    users._points.cache_clear()  # its scenario may be another by the time it is read
    return Path("run")


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["alerts", "prove", *words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def as_measured(run: Path, **changes: str) -> None:
    """Let a simulated run look like a load test, of a scenario that is changed like this."""
    write_json(run / "run.json", json.loads((run / "run.json").read_text()) | {"kind": "measured"})
    text = (run / "scenario.yaml").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (run / "scenario.yaml").write_text(text)


def test_of_a_simulated_run_only_what_was_said_counts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "run")
    assert code == 0
    assert "2 of 2 rules as expected; 1 rule could not be judged: silent, not quiet; of 1 rule nothing was" in out
    assert "prediction" not in out
    code, out, _ = typed(capsys, "run", "--json")
    rules = {one["rule"]: one for one in json.loads(out)["runs"][0]["rules"]}
    assert rules["Errors"]["expected"]["fires_s"] == [[1200.0, 1560.0]]
    assert 1200 <= rules["Errors"]["pages_s"][0][0] <= 1560
    assert rules["Errors"]["lead_s"] < 0
    assert rules["Down"]["expected"] is None
    assert rules["Typo"]["pages_s"] is None


def test_a_measured_run_is_held_against_its_prediction(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    as_measured(run)
    code, out, _ = typed(capsys, "run")
    assert code == 0
    assert "3 of 3 rules as expected" in out
    assert "(predicted)" in out
    assert (run / "prediction" / "metrics.parquet").is_file()
    assert "blowout compare run/prediction run" in out
    before = (run / "prediction" / "run.json").stat().st_mtime_ns
    assert typed(capsys, "run")[0] == 0
    assert (run / "prediction" / "run.json").stat().st_mtime_ns == before


def test_what_is_not_as_predicted_fails(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    as_measured(run, **{"how: crash": "how: hang"})  # what is predicted is not what was measured
    code, out, _ = typed(capsys, "run", "--json")
    assert code == 1
    rules = {one["rule"]: one for one in json.loads(out)["runs"][0]["rules"]}
    assert rules["Down"]["verdict"] == "false page"
    assert rules["Down"]["expected"]["by"] == "prediction"


@pytest.mark.parametrize(
    ("changes", "words", "code", "said"),
    [
        ({}, ("nowhere",), 2, "expected the folder of a run"),
        (
            {"1200s-1560s": "60s-120s", "1140s-1380s": "30s-110s"},
            ("run",),
            1,
            "Errors: it did not begin to fire in time; it fired",
        ),
        ({"  Quiet: silent": "  Quite: silent"}, ("run",), 2, "`expect` names Quite, but no alert rule"),
    ],
)
def test_what_fails_and_what_is_wrong(
    run: Path, changes: dict[str, str], words: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (run / "scenario.yaml").read_text()
    for old, new in changes.items():
        text = text.replace(old, new)
    (run / "scenario.yaml").write_text(text)
    got, out, err = typed(capsys, *words)
    assert got == code
    assert said in (err or out)
