"""What a run about right and wrong says first: who got wrong answers, what caught them, and when it was noticed."""

import io
from pathlib import Path

import pytest

from sim import report, scenario, summary
from sim.cli import main
from sim.report import mistakes, printing, subject, tables, words
from sim.report.view import view
from sim.results import Run
from sim.run import play

FLEET = "fleet: {kv_blocks: 4096, max_num_seqs: 256, max_model_len: 4096, step_time: {linear: {base: 100ms}}}"
USERS = "workload: {rate_per_s: 4, cohorts: {all: {prompt_tokens: 1, output_tokens: 1, error: 1%}}}"
BREAKER = f"""
name: breaker
duration: 1h
rows: none
{FLEET}
{USERS}
quality:
  causes:
    drift: {{error: 30%, from: 20m}}
    rules: {{error: 5%, at: rules, kind: refusal}}
  evaluation: {{share: 100%}}
control: [{{quality_breaker: main, open_above: 5%, close_below: 3%, window: 10m, hold: 2h}}]
"""
TEAM = f"""
name: team
duration: 20m
rows: none
vary: {{workload.cohorts.all.error: [1%, 2%, 4%], control.1.reviewers: [2, 20]}}
{FLEET}
{USERS}
quality: {{confidence: {{discrimination: 2}}}}
control:
  - {{gate: main, below: 80%, to: support}}
  - {{team: support, reviewers: 2, handling: 3m, patience: 5m}}
claims:
  a_claim_with_a_name_that_is_longer_than_most: team.support.late_share[4%, 20] <= 50%
  another_one: delivered_wrong[4%, 20] / delivered_wrong[4%, 2] <= 1
"""
COHORTS = f"""
name: cohorts
duration: 30m
rows: none
vary: {{quality.evaluation.share.few: [5%, 50%]}}
{FLEET}
workload:
  rate_per_s: 4
  cohorts:
    most: {{share: 90%, prompt_tokens: 1, output_tokens: 1, error: 1%}}
    few: {{share: 10%, prompt_tokens: 1, output_tokens: 1, error: 20%}}
quality: {{evaluation: {{share: {{most: 5%, few: 5%}}}}}}
"""


def played(folder: Path, text: str) -> Run:
    return play(scenario.loads(text), folder)


@pytest.fixture(scope="module")
def breaker(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return played(tmp_path_factory.mktemp("breaker"), BREAKER)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return played(tmp_path_factory.mktemp("team"), TEAM)


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return played(tmp_path_factory.mktemp("cohorts"), COHORTS)


def shown(run: Run, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(printing, "PLAIN_WIDTH", width)
    text = io.StringIO()
    tables.show(run, text)
    return text.getvalue()


def test_a_breaker_is_in_the_table_and_why_says_when_it_was_open(breaker: Run) -> None:
    seen = view(breaker)
    assert tables.headline_metrics(seen)[:2] == ["wrong", "wrong_share"]
    assert {"breaker.main.open_share", "breaker.main.flips", "by_fallback", "cause.drift.wrong"} <= set(seen.lead)
    opened = next(e["t_s"] for e in breaker.members[0].events() if e["event"] == "quality_breaker_opens")
    told = " ".join(mistakes.sentences(seen))
    wrong = seen.points[0].metric("wrong").value
    assert f"{wrong:,.0f} of " in told
    assert "by drift" in told
    assert f"The breaker of main was open from {words.stamp(opened)} to the end" in told
    page = report.write_html(breaker).read_text()
    assert "The breaker of main was open from" in page
    tiles = page.partition('<div class="tiles">')[2].partition("</div></div>")[0]
    assert "wrong answers" in tiles
    assert "KV cache" not in tiles


@pytest.mark.parametrize("width", [80, 100, 118])
def test_tables_fit_the_terminal_and_cut_nothing_short(
    team: Run, breaker: Run, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in (team, breaker):
        text, _, commands = shown(run, width, monkeypatch).partition("\nNext\n")
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
        assert commands
    metrics = view(team).points[-1].metrics
    text = " ".join(shown(team, width, monkeypatch).split())
    assert words.quantity("wait_mean", metrics["team.support.wait_mean"].value) in text
    assert "a_claim_with_a_name_that_is_longer_than_most" in text


def test_a_sweep_leads_with_what_users_got_and_latency_steps_back(team: Run) -> None:
    seen = view(team)
    grid = tables.grid(seen)
    assert grid.columns[0][0] == "wrong answers that users got"
    assert grid.rows[0] == "error 1%, reviewers 2"
    assert "The same at every point:" in grid.same
    assert "TTFT P50" in grid.same
    assert not any("TTFT P50" in title for title, _ in grid.columns)
    told = " ".join(tables.why(seen))
    assert "With error 4%, reviewers 2, " in told
    assert "Team support had no time for" in told
    assert "time to first token" not in told
    assert ("control.1.reviewers=4", "what twice the reviewers of support catch") not in mistakes.next_settings(seen)


def test_a_setting_that_is_worth_trying_can_be_typed(tmp_path: Path) -> None:
    run = played(tmp_path, TEAM.replace("vary:", "# vary:").partition("claims:")[0])
    command, _ = tables.next_commands(run)[0]
    assert command.endswith("--set control.1.reviewers=4")
    assert scenario.load(run.path / "scenario.yaml", ["control.1.reviewers=4"]).control[1].reviewers == 4  # type: ignore[union-attr]


def test_cohorts_are_told_apart_where_they_differ(cohorts: Run) -> None:
    seen = view(cohorts)
    assert [point.label for point in seen.points] == ["5% of few evaluated", "50% of few evaluated"]
    rows = tables.grid(seen).rows
    assert "wrong, of answers to few" in rows, "though it is the same at both points"
    assert rows.index("wrong, of answers to few") < rows.index("wrong, of answers to most")


def test_a_scenario_without_quality_says_what_it_always_said(tmp_path: Path) -> None:
    text = f"name: plain\nduration: 2m\nrows: none\n{FLEET}\n{USERS}\n"
    seen = view(played(tmp_path, text))
    assert seen.lead == ()
    assert tables.headline_metrics(seen)[0] == "ttft_p50"
    assert mistakes.sentences(seen) == []


class Seeds:
    def __init__(self, *values: float) -> None:
        self.values = values
        self.value = sorted(values)[len(values) // 2]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((60.0, 61.0), None),
        ((float("nan"),) * 3, "never"),
        ((3600.0, float("nan"), 7200.0), "90.0 min in 2 of 3 seeds"),
    ],
)
def test_what_never_came_in_some_seeds_says_in_how_many(values: tuple[float, ...], said: str | None) -> None:
    assert subject.moment(Seeds(*values)) == said


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ({"control.0.rollback": 60.0}, "rollback 1 min"),
        ({"control.0.rollback": 5400.0}, "rollback 90 min"),
        ({"workload.cohorts.all.error": 0.01}, "error 1%"),
        ({"quality.evaluation.share.few": 0.278}, "27.8% of few evaluated"),
        ({"quality.confidence.shift": 3.0}, "shift 3"),
        ({"workload.rate_per_s": 1.0}, "1 request/s"),
    ],
)
def test_settings_have_their_units(point: dict[str, float], said: str) -> None:
    assert words.point_name(point) == said


def test_what_rules_answer_at_once_took_no_time() -> None:
    assert words.quantity("ttft_p50", summary.BIN_LOW_S * 1.005) == "0 ms"
    assert words.quantity("ttft_p50", 4e-5) == "40.0 µs"


def test_the_busiest_hour_is_never_below_the_mean() -> None:
    import numpy as np

    minutes = np.array([[20, 20, 10, 0]])
    found = summary.counts((20, 0, 0, 0, 0, 0), minutes, 40.0)
    assert found["wrong_per_min_peak"] == pytest.approx(found["wrong_per_min_mean"]) == pytest.approx(15.0)


def test_the_figure_of_wrong_answers_has_the_numbers_of_the_table(cohorts: Run) -> None:
    from sim.report import wrong

    plate = wrong.plate(view(cohorts))
    assert plate is not None
    assert f"{view(cohorts).points[-1].metric('wrong').value:,.0f} in all" in plate.title


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cause.drift.wrong - cause.rules.wrong <= 1", "1"),
        ("breaker.main.open_share >= 50%", "50%"),
        ("ttft_p99 - ttft_p50 <= 1s", "1.00 s"),
        ("ttft_p99 / ttft_p50 <= 2", "2"),
        ("2 * ttft_p99 <= 2s", "2.00 s"),
    ],
)
def test_a_bound_has_the_unit_of_what_it_bounds(text: str, said: str) -> None:
    from sim.claims import parse

    bound = parse(text).right.value  # type: ignore[union-attr]
    verdict = {
        "name": "c",
        "text": text,
        "op": "<=",
        "bound": bound,
        "estimate": 1.0,
        "low": 1.0,
        "high": 1.0,
        "seeds": 9,
    }
    assert tables.bound(verdict).partition(" ")[2] == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("share: 100%}", "share: 110%}"), "quality.evaluation.share: expected a fraction from 0 to 1"),
        (("share: 100%}", "share: often}"), "quality.evaluation.share: expected a fraction from 0 to 1"),
        (("share: 100%}", "share: [1]}"), "quality.evaluation.share: expected a fraction such as 5% or one by cohort"),
        (("name: breaker", "name: breaker\nclaims: {x: delivered_wrong <= 9}"), "it needs a team in control"),
        (("name: breaker", "name: breaker\nclaims: {x: release.a.noticed_s <= 9}"), "it needs a release in control"),
    ],
)
def test_errors_about_quality_name_the_field(
    change: tuple[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(BREAKER.replace(*change))
    with pytest.raises(SystemExit) as end:
        main(["check", str(tmp_path / "s.yaml")])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert "constrained" not in err
