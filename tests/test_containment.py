"""Breakers on quality, overflow and releases in a world, what they know and when they act; and what is refused."""

import math
from pathlib import Path

import numpy as np
import pytest

from sim.cli import main
from sim.errors import ScenarioError
from sim.run import known_metrics
from sim.scenario import Scenario, loads
from sim.series import NAME
from sim.world import World

TEXT = """\
name: contained
duration: 1h
rows: none
telemetry: none
fleet:
  pools:
    chat: {kv_blocks: 4096, max_num_seqs: 256, max_model_len: 4096, step_time: {linear: {base: 100ms}}}
    small: {kv_blocks: 4096, max_num_seqs: 256, max_model_len: 4096, fallback: true, step_time: {linear: {base: 50ms}}}
workload:
  rate_per_s: 4
  cohorts: {all: {pool: chat, prompt_tokens: 1, output_tokens: 1, error: 1%}}
quality:
  causes:
    bad: {error: 30%, from: 10m, to: 30m}
    edit: {error: 10%, version: b, kind: format}
  confidence: {discrimination: 2}
  evaluation: {share: 100%}
control: []
"""
BREAKER = "quality_breaker: chat, open_above: 10%, close_below: 5%, window: 10m, hold: 5m, probe: 20%"


def described(*control: str, more: tuple[str, ...] = ()) -> Scenario:
    return loads(TEXT, overrides=[f"control=[{', '.join(control)}]", *more])


def played(*control: str, more: tuple[str, ...] = (), seed: int = 1) -> tuple[World, dict[str, float]]:
    world = World(described(*control, more=more), seed)
    world.run_to_end()
    metrics = world.result().metrics
    assert set(metrics) <= known_metrics(world.scenario)
    return world, metrics


def told(world: World, *events: str) -> list[tuple[float, str]]:
    return [(one["t_s"], one["event"]) for one in world.events if one["event"] in events]


# --- the breaker ------------------------------------------------------------------------------------------------------


def test_a_breaker_opens_for_what_it_sees_and_closes_when_its_probes_are_good() -> None:
    opens, closes, stays = (f"quality_breaker_{what}" for what in ("opens", "closes", "stays_open"))
    world, metrics = played(f"{{{BREAKER}}}")
    (opened_s, first), *between, (closed_s, last) = told(world, opens, closes, stays)
    assert (first, last) == (opens, closes)
    assert 600 < opened_s <= 1000, "minutes after answers have become bad"
    assert {event for _, event in between} == {stays}
    assert between, "probes are bad as long as the cause lasts"
    assert 1800 < closed_s < 2700
    assert metrics["breaker.chat.flips"] == 2
    assert metrics["breaker.chat.open_share"] == pytest.approx((closed_s - opened_s) / 3600, abs=1e-3)
    assert metrics["by_fallback"] > 0.5 * 4 * (closed_s - opened_s)


def test_what_nobody_probes_stays_open_and_what_nobody_evaluates_never_opens() -> None:
    world, metrics = played(f"{{{BREAKER.replace('20%', '0%')}}}")
    assert [event for _, event in told(world, "quality_breaker_opens", "quality_breaker_closes")] == [
        "quality_breaker_opens"
    ]
    assert metrics["breaker.chat.open_share"] > 0.75
    _, blind = played(f"{{{BREAKER}}}", more=("quality.evaluation.share=0",))
    assert blind["breaker.chat.flips"] == 0


def test_a_breaker_that_holds_at_the_end_was_open_until_then() -> None:
    _, metrics = played(f"{{{BREAKER.replace('hold: 5m', 'hold: 2h')}}}")
    assert metrics["breaker.chat.open_share"] == pytest.approx(1 - 720 / 3600, abs=0.06)


def test_what_is_known_late_is_acted_on_late() -> None:
    late, _ = played(f"{{{BREAKER}, fallback: small}}", more=("quality.evaluation.delay=10m",))
    (opened_s, _), *_ = told(late, "quality_breaker_opens")
    assert 1200 < opened_s <= 1600


# --- overflow ---------------------------------------------------------------------------------------------------------


def test_a_long_queue_overflows_into_another_pool() -> None:
    overflow = "{overflow: chat, into: small, above: 20, below: 2}"
    slow = ("faults=[{slow: chat, from: 20m, to: 30m, factor: 20}]", "fleet.pools.chat.max_num_seqs=1")
    world, metrics = played(overflow, more=slow)
    times = told(world, "overflow_begins", "overflow_ends")
    assert times[0][1] == "overflow_begins"
    assert 1200 <= times[0][0] <= 1230
    assert [event for _, event in times] == ["overflow_begins", "overflow_ends"] * (len(times) // 2)
    assert metrics["overflow.chat.flips"] == len(times)
    assert 0.05 < metrics["overflow.chat.open_share"] < 0.3
    assert metrics["by_fallback"] > 100


# --- releases ---------------------------------------------------------------------------------------------------------

CALM = ("quality.causes.bad.error=0",)


def test_a_shadow_harms_nobody() -> None:
    world, metrics = played("{release: b, from: 10m, trial: shadow, dwell: 5m}", more=CALM)
    assert told(world, "release_shadow", "release_alarm", "release_stopped", "release_step")[-1][1] == "release_stopped"
    assert 600 < metrics["release.b.noticed_s"] <= 720
    assert metrics["version.b.answered"] == 0
    assert math.isinf(metrics["release.b.released_s"])
    assert math.isinf(metrics["release.b.rolled_back_s"])


def test_a_canary_harms_few_and_everybody_at_once_many_until_it_is_rolled_back() -> None:
    canary = "{release: b, from: 10m, trial: canary, steps: [10%, 50%], dwell: 5m, min_graded: 50, rollback: 2m}"
    world, few = played(canary, more=CALM)
    steps = [one["share"] for one in world.events if one["event"] == "release_step"]
    assert steps in ([0.1], [0.1, 0.5])
    assert few["release.b.rolled_back_s"] == few["release.b.noticed_s"] + 120
    _, many = played("{release: b, from: 10m, trial: none, rollback: 20m}", more=CALM)
    assert many["release.b.released_s"] == 600
    assert many["release.b.rolled_back_s"] == many["release.b.noticed_s"] + 1200
    assert many["version.b.answered"] == pytest.approx(4 * (many["release.b.rolled_back_s"] - 600), rel=0.1)
    assert many["version.b.wrong"] > 3 * few["version.b.wrong"]


@pytest.mark.parametrize("trial", ["none", "shadow", "canary"])
def test_a_version_that_is_as_good_comes_to_everybody(trial: str) -> None:
    same = (*CALM, "quality.causes.edit.error=0", "duration=40m")
    plan = f"{{release: b, from: 5m, trial: {trial}, steps: [20%, 50%], dwell: 2m, min_graded: 50, alpha: 0.01}}"
    _, metrics = played(plan, more=same)
    assert metrics["release.b.released_s"] < 1500
    assert math.isinf(metrics["release.b.noticed_s"])


# --- gates in a world -------------------------------------------------------------------------------------------------

GATED = (
    "{gate: chat, lowest: 10%, to: people}",
    "{team: people, reviewers: 60, handling: {exponential: {mean: 2m}}, patience: 5m, late: withhold}",
)


def test_what_users_get_is_what_the_judge_says_less_what_people_caught() -> None:
    world, metrics = played(*GATED, f"{{{BREAKER}}}")
    assert world.containment is not None
    team = world.containment.teams[0]
    assert metrics["escalated"] == team.reviewed + team.late > 500
    assert metrics["withheld"] == team.late
    assert metrics["delivered_wrong"] == metrics["wrong"] - team.wrong + team.reviewed_wrong
    assert metrics["caught_share"] == metrics["caught"] / metrics["wrong"]
    lost = metrics["requests"] - metrics["ok"]
    assert metrics["delivered_bad"] * metrics["requests"] == pytest.approx(
        lost + metrics["withheld"] + metrics["delivered_wrong"]
    )
    assert world.containment.came[0, 0] == metrics["ok"] - metrics["by_fallback"]


def test_a_team_that_nobody_waits_for_does_not_look_like_an_improvement() -> None:
    few = GATED[1].replace("reviewers: 60", "reviewers: 1").replace("lowest: 10%", "lowest: 50%")
    _, well = played(*GATED)
    _, poor = played(GATED[0].replace("10%", "50%"), few)
    assert poor["delivered_wrong"] < well["delivered_wrong"], "what is withheld is not wrong"
    assert poor["delivered_bad"] > 2 * well["delivered_bad"], "and not right either"


def test_it_does_not_matter_how_often_somebody_looks() -> None:
    one = played(*GATED, more=("duration=20m",))[1]
    other = played(*GATED, more=("duration=20m", "scrape_interval=7s"))[1]
    names = [name for name in one if name.startswith("team.")]
    assert len(names) == 16
    assert [one[name] for name in names] == pytest.approx([other[name] for name in names], nan_ok=True)


def test_alert_rules_can_see_all_of_it() -> None:
    release = "{release: b, from: 30m, trial: none}"
    overflow = "{overflow: small, above: 9, below: 1}"
    world, metrics = played(
        *GATED, f"{{{BREAKER}}}", overflow, release, more=("telemetry={evaluate: 5%}", "scrape_interval=60s")
    )
    found: dict[tuple[str, ...], np.ndarray] = {}
    for name in ("review_queue_length", "review_escalated_total", "review_wait_seconds_count", "quality_breaker_open",
                 "release_share", "overflow_on"):  # fmt: skip
        (mine,) = [k for k, labels in enumerate(world.spool.series().labels) if labels[NAME] == name]
        labels, values = world.spool.series().labels[mine], world.spool.series().values[mine]
        owner = next(labels[key] for key in ("team", "pool", "version") if key in labels)
        found[name, owner] = values
    assert found["review_escalated_total", "people"][-1] == metrics["team.people.escalated"]
    assert (np.diff(found["review_wait_seconds_count", "people"]) >= 0).all()
    assert found["quality_breaker_open", "chat"].mean() == pytest.approx(metrics["breaker.chat.open_share"], abs=0.05)
    assert {0.0, 1.0} == set(found["release_share", "b"].tolist())
    assert not found["overflow_on", "small"].any()


def test_a_small_cohort_spends_its_budget_while_the_whole_one_is_hardly_touched() -> None:
    cohorts = ("workload.cohorts={many: {share: 90%, pool: chat, prompt_tokens: 1, output_tokens: 1, error: 0.5%}, "
               "few: {share: 10%, pool: chat, prompt_tokens: 1, output_tokens: 1, error: 20%}}")  # fmt: skip
    slo = "slo={wrong: 5%, errors: 1%, window: 1h}"
    _, metrics = played(more=(*CALM, cohorts, slo))
    assert metrics["wrong_budget_spent"] == pytest.approx(metrics["wrong_share"] / 0.05)
    assert metrics["wrong_budget_spent"] < 0.7
    assert metrics["cohort.few.wrong_budget_spent"] == pytest.approx(4.0, rel=0.2)
    assert metrics["cohort.many.wrong_budget_spent"] < 0.2
    assert metrics["errors_budget_spent"] == 0
    _, longer = played(more=(*CALM, cohorts, slo.replace("1h", "10h")))
    assert longer["wrong_budget_spent"] == pytest.approx(0.1 * metrics["wrong_budget_spent"])


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "more", "said"),
    [
        ("{gate: chat, to: people}, {team: people, reviewers: 1, handling: 1m}", (), "got none"),
        ("{gate: chat, below: 1%, lowest: 5%, to: p}, {team: p, reviewers: 1, handling: 1m}", (), "below and lowest"),
        ("{gate: chat, lowest: 5%, to: pp}, {team: p, reviewers: 1, handling: 1m}", (), "did you mean 'p'"),
        ("{gate: chat, lowest: 5%, to: people}", (), "expected a team"),
        ("{gate: chat, load_aware: 1, to: p}, {gate: small, lowest: 5%, to: p}, {team: p, reviewers: 1, handling: 1m}",
         (), "expected no other gate to p"),
        ("{gate: chat, lowest: 5%, to: p}, {team: p, reviewers: 1, handling: 1m}",
         ("workload.cohorts.all.agent={steps: 2}",), "agents do not wait for a person; all does"),
        ("{gate: chat, lowest: 5%, to: p}, {team: p, reviewers: 1, handling: 1m}", ("quality.confidence=null",),
         "confidence"),
        ("{team: p, reviewers: [{at: 1h, reviewers: 1}], handling: 1m}", (), "when the day begins"),
        ("{team: p, reviewers: [{at: 0, reviewers: 0}], handling: 1m}", (), "somebody who works"),
        ("{team: p, reviewers: 1, handling: 1m}, {team: p, reviewers: 2, handling: 1m}", (), "got another"),
        ("{team: p, reviewers: 1, handling: {exponential: {mean: 1m}, lognormal: {median: 1m, sigma: 1}}}", (),
         "exactly one of"),
        ("{team: p, reviewers: 1, handling: {lognormal: {median: 1m, sigma: 1000}}}", (), "at most 5"),
        ("{quality_breaker: chat, open_above: 1%, close_below: 2%}", (), "at most open_above"),
        ("{quality_breaker: chat, open_above: 2%, close_below: 1%, fallback: chat}", (), "another pool"),
        ("{quality_breaker: chat, open_above: 2%, close_below: 1%, sure: 10%}", (), "at least 50%"),
        ("{quality_breaker: chat, open_above: 2%, close_below: 1%}", ("quality=null",), "expected `quality`"),
        ("{overflow: chat, into: smal, above: 9, below: 1}", (), "did you mean 'small'"),
        ("{overflow: chat, into: small, above: 9, below: 9}", (), "less than above"),
        ("{release: c}", (), "no version 'c'"),
        ("{release: b}, {release: b}", (), "expected one release"),
        ("{release: b, steps: [5%, 5%]}", (), "more than the step before"),
        ("{release: b, from: 2h}", (), "less than duration"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(control: str, more: tuple[str, ...], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        described(control, more=more)


def test_the_command_line_tells_it_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(TEXT.replace("control: []", "control:\n  - {release: c, from: 10m}"))
    with pytest.raises(SystemExit) as stop:
        main(["check", "a.yaml"])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert "a.yaml:19" in err
    assert "no version 'c'" in err
    assert "Traceback" not in err
