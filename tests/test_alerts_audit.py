"""The audit: what every rule did in every failure; and the shipped failures, which show what their story says."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sim import claims, scenario
from sim.alerts.audit import Audit, audit
from sim.alerts.outcome import measure, names
from sim.alerts.past import Past
from sim.alerts.rulefile import reads
from sim.alerts.rules import Judgement
from sim.alerts.score import Judged
from sim.alerts.states import Episode
from sim.alerts.truth import Incident, Truth
from sim.cli import main
from sim.report import auditing
from sim.results import FORMAT, Member
from sim.scenario import Scenario
from sim.world import simulate

M = 60_000
RULES = """
groups:
  - name: g
    rules:
      - {alert: Fast, expr: x > 1, labels: {severity: page}}
      - {alert: Always, expr: x > 0, labels: {severity: page}}
      - {alert: Later, expr: x > 2, labels: {severity: ticket}}
"""


def judged(incidents: list[Incident], *fired: tuple[int, int | None]) -> Judged:
    """A past of ten hours in which Fast fired in these minutes, and Always all the time."""
    fast, always, later = (Judgement(rule, M, t_ms=np.arange(0, 600 * M, M)) for rule in reads(RULES, "r")[0].rules)
    fast.episodes = [Episode((), a * M, a * M, None if b is None else b * M) for a, b in fired]
    always.episodes = [Episode((), 0, 0, None)]
    return Judged("p", Truth(tuple(incidents), "", 60 * M, 600 * M), 600 * M, [fast, always, later])


def made() -> Audit:
    crash = [Incident("i1", 100 * M, 130 * M)]
    small = [Incident("i1", 100 * M, 130 * M, "ticket")]
    return audit(
        {
            "none": {"r": [judged([], (300, 310)), judged([])]},
            "crash": {"r": [judged(crash, (104, 131)), judged(crash, (106, 131)), judged(crash)]},
            "small": {"r": [judged(small)]},
        }
    )


def test_cells_say_what_rules_did() -> None:
    found = made()
    assert [column.name for column in found.columns] == ["Fast", "Always", "Later", "any page of r"]
    none, crash, small = found.rows
    assert [(row.plays, row.incidents) for row in found.rows] == [(2, 0), (3, 3), (1, 1)]
    fast, always, later, together = crash.cells
    assert (fast.caught, fast.incidents, fast.detection_s, fast.false) == (2, 3, 5 * 60, 0)
    assert (always.caught, always.idle, always.false) == (0, 1.0, 3)
    assert (later.caught, later.incidents) == (0, 3)
    assert (together.caught, together.false) == (2, 3)
    assert none.cells[0].false == 1
    assert 0 < none.cells[0].idle < 0.05
    assert (small.cells[0].incidents, small.cells[0].found) == (0, 1)
    said = [[auditing.said(cell) for cell in row.cells] for row in found.rows]
    assert said == [
        ["1 false", "always on", "", "always on"],
        ["2/3  5 min", "always on", "missed", "2/3  5 min"],
        ["a ticket", "always on", "missed", "always on"],
    ]
    assert not any(auditing.on_anyway(found, k, cell) for row in found.rows for k, cell in enumerate(row.cells))
    assert auditing.headline(found) == "r catches 2 of 3 incidents worth a page"


def test_a_rule_that_is_on_for_most_of_the_time_has_caught_nothing_new() -> None:
    noisy = [(a, a + 18) for a in range(60, 600, 20)]  # it pages in every incident, and whenever there is none
    crash = [Incident("i1", 305 * M, 330 * M)]
    found = audit({"none": {"r": [judged([], *noisy)]}, "crash": {"r": [judged(crash, *noisy)]}})
    cell = found.rows[1].cells[0]
    assert (cell.caught, cell.incidents) == (1, 1)
    assert cell.idle > 0.5
    assert auditing.on_anyway(found, 0, cell)
    assert auditing.said(cell, True) == "on anyway"
    assert auditing.colour(cell, True) not in (auditing.CAUGHT, auditing.PARTLY)
    quiet = audit({"none": {"r": [judged([])]}, "crash": {"r": [judged(crash, (306, 330))]}})
    assert not auditing.on_anyway(quiet, 0, quiet.rows[1].cells[0])


def test_a_figure_and_json_of_it(tmp_path: Path) -> None:
    from sim.report import style

    style.save(auditing.plate("t", made(), "c"), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert json.loads(json.dumps(auditing.as_json(made())))["rows"][1]["cells"][0]["caught"] == 2


def test_the_command_as_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.yaml").write_text(
        "name: f\nduration: 20m\nrows: none\nslo: {errors: 1%, window: 1h}\nclients: {timeout: 30s}\n"
        "vary: {faults: [[], [{name: crash, stop: main, from: 10m, to: 16m}]]}\n"
        "fleet: {model: llama-3.1-8b, hardware: h100}\n"
        "workload: {rate_per_s: 3, cohorts: {chat: {prompt_tokens: 300, output_tokens: 20}}}\n"
        "alerts: r.yml\nclaims: {caught: 'alert.Down.caught[crash] >= 1', quiet: 'alert.r.pages[none] <= 0'}\n"
    )
    Path("r.yml").write_text(
        "groups: [{name: g, interval: 15s, rules: [{alert: Down, expr: 'up{job=\"vllm\"} == 0', "
        "labels: {severity: page}}]}]\n"
    )

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(words)
        return int(str(stop.value.code or 0)), *capsys.readouterr()

    assert typed("run", "f.yaml", "--out", "run", "--no-figures")[0] == 0
    code, out, err = typed("alerts", "audit", "run", "--rules", "r.yml")
    assert (code, err) == (0, "")
    assert "r: 1 of 1 incident worth a page caught" in " ".join(out.split())
    assert Path("run/figures/audit.png").is_file()
    code, out, _ = typed("alerts", "audit", "run", "--rules", "r.yml", "--json", "--no-figures")
    assert [row["failure"] for row in json.loads(out)["rows"]] == ["none", "crash"]
    Path("none.yml").write_text("groups: [{name: g, rules: [{alert: A, expr: 'topk(1, up)'}]}]\n")
    assert typed("alerts", "audit", "run", "--rules", "none.yml", "--no-figures")[0] == 3
    code, _, err = typed("alerts", "audit", "nothing", "--rules", "r.yml")
    assert code == 2
    assert err.count("\n") == 1


Metrics = Callable[..., dict[str, float]]


@pytest.fixture
def played(tmp_path: Path) -> Metrics:
    """Play one failure of alert-audit for one seed, and say what the alerts did."""

    def play(failure: str, *options: str) -> dict[str, float]:
        points = scenario.points(scenario.load("alert-audit", ["claims={}", *options]))
        point, one = points[claims.point_of("errors", (failure,), [values for values, _ in points])]
        entry = {"point": point, "seed": 1, "path": "."}
        (tmp_path / "run.json").write_text(json.dumps({"format": FORMAT, "state": "running", "members": [entry]}))
        text = scenario.dump(scenario.load("alert-audit", ["claims={}", *options]), tmp_path)
        (tmp_path / "scenario.yaml").write_text(text)
        simulate(one, 1, tmp_path)
        return measure(one, Past("", tmp_path / "metrics.parquet", Member(point, 1, tmp_path)))

    return play


@pytest.mark.parametrize("name", ["alert-audit", "healthy-month", "random-weeks"])
def test_a_shipped_scenario_says_what_it_shows(name: str) -> None:
    shipped: Scenario = scenario.load(name)
    assert len(shipped.story) > 250
    assert len(shipped.claims) >= 3
    known = names(shipped.alerts)
    asked = {metric for text in shipped.claims.values() for metric, _ in claims.parse(text).metrics}
    assert asked <= known | {"errors"}


def test_a_slow_network_is_seen_by_the_repaired_rules_alone(played: Metrics) -> None:
    found = played("slow_network", "duration=110m")
    assert found["incidents"] == 1
    assert found["alert.seed.caught"] == 0
    assert found["alert.repaired.caught"] == 1
    assert found["alert.LLMFirstTokensSlow.caught"] == 1
    assert found["alert.LLMP95LatencyHigh.false_pages"] >= 1


def test_a_crowd_is_seen_sooner_by_the_repaired_rules(played: Metrics) -> None:
    found = played("surge", "duration=110m")
    assert found["alert.repaired.detection_s"] < 0.7 * found["alert.seed.detection_s"]
    assert found["alert.LLMErrorRateHigh.caught"] == 0


def test_nothing_happens_and_a_common_rule_pages(played: Metrics) -> None:
    found = played("usual", "duration=100m")
    assert found["incidents"] == 0
    assert found["alert.LLMP95LatencyHigh.pages"] >= 1
    assert found["alert.repaired.pages"] == found["alert.burn-rate.pages"] == 0
