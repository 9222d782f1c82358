"""Agents: what comes of tasks is what absorbing chains say, and what a fleet does to them compounds."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import scenario, theory, workload
from sim.errors import ScenarioError
from sim.ids import first_try, is_step, request_id
from sim.quality.chains import verified
from sim.quality.judge import OPEN, Judge
from sim.quality.reading import rules_of
from sim.records import ATTEMPT, Outcome
from sim.scenario import Scenario
from sim.series import NAME
from sim.workload import agents
from sim.world import World, simulate

TEXT = """
name: tasks
duration: 1h
rows: none
fleet: {{model: llama-3.1-8b, hardware: h100}}
workload:
  rate_per_s: {rate}
  cohorts:
    agents:
      share: 1
      prompt_tokens: 100
      output_tokens: 20
      error: {error}
      agent: {{steps: {steps}{more}}}
    checks: {{share: 0, prompt_tokens: 50, output_tokens: 5}}
"""


def tasks(steps: int = 5, error: str = "5%", more: str = "", rate: float = 0.4, **settings: str) -> Scenario:
    text = TEXT.format(steps=steps, error=error, more=f", {more}" if more else "", rate=rate)
    return scenario.loads(text, "tasks.yaml", [f"{key}={value}" for key, value in settings.items()])


def answered(rows: np.ndarray) -> np.ndarray:
    return np.zeros(len(rows), np.uint8)


def served(
    played: Scenario, outcome: Callable[[np.ndarray], np.ndarray] = answered
) -> tuple[dict[str, float], np.ndarray]:
    """Play tasks on a service that answers at once, as *outcome* says; return their metrics and all requests made."""
    users = workload.compile(played, 3)
    assert users.agents is not None
    judge = Judge(rules_of(played, {"main": 0}), 3, 1, played.duration)
    rows, made = np.concatenate(list(users.chunks())), []
    while len(rows):
        made.append(rows)
        ended = np.zeros(len(rows), ATTEMPT)
        for name in ("request", "session", "turn", "cohort", "pool", "prompt_tokens", "output_tokens"):
            ended[name] = rows[name]
        ended["outcome"] = outcome(rows)
        users.agents.hear(ended, judge.judge(ended)["wrong"])
        rows = users.more(rows["session"])
    users.agents.close()
    return users.agents.tasks.metrics(0.0, list(played.workload.cohorts)), np.concatenate(made)


def near(share: float, n: float) -> Any:
    """Within what luck does to a share once in a thousand times."""
    return pytest.approx(share, abs=3.3 * (share * (1 - share) / n) ** 0.5)


def one_step(p: float, d: float, f: float, retries: int) -> tuple[float, float]:
    """The closed form of a step that a verifier checks: chance to be right, and calls."""
    flagged, through = p * f + (1 - p) * d, p * (1 - f)
    right = sum(through * flagged**k for k in range(retries)) + flagged**retries * p
    return right, sum(flagged**k for k in range(retries + 1))


def test_steps_compound() -> None:
    five, _ = served(tasks(5, "5%"))
    ten, _ = served(tasks(10, "1%"))
    assert five["task_success"] == near(0.77378, five["tasks"])
    assert 1 - ten["task_success"] == near(0.0956, ten["tasks"])
    assert five["tasks"] == five["task_ok"] + five["task_wrong"]
    assert five["task_calls_mean"] == 5


@pytest.mark.parametrize(("retries", "known"), [(1, 0.9302), (2, 0.9450), (3, 0.9463), (50, 0.9464)])
def test_a_verifier_and_retries_are_the_chain(retries: int, known: float) -> None:
    right, calls = one_step(0.95, 0.8, 0.05, retries)
    assert right**5 == pytest.approx(known, abs=6e-5)
    found, _ = served(tasks(more=f"retries: {retries}, verifier: {{sensitivity: 80%, false_alarm: 5%}}"))
    assert found["task_success"] == near(known, found["tasks"])
    assert found["task_calls_mean"] == pytest.approx(5 * calls, rel=0.01)


def test_systematic_failures_keep_their_share_of_what_retries_would_gain() -> None:
    right, calls = one_step(0.95, 0.8, 0.05, 2)
    found, _ = served(tasks(more="retries: 2, systematic: 50%, verifier: {sensitivity: 80%, false_alarm: 5%}"))
    assert found["task_success"] == near((0.5 * 0.95 + 0.5 * right) ** 5, found["tasks"])
    assert verified(0.95, 0.8, 0.05, 2, systematic=0.5).right == pytest.approx(0.5 * 0.95 + 0.5 * right)
    always = 0.95 * (1 + 0.05 + 0.05**2) + 0.05 * (1 + 0.8 + 0.8**2)
    assert found["task_calls_mean"] == pytest.approx(2.5 * (always + calls), rel=0.01)
    hopeless, _ = served(tasks(more="retries: 2, systematic: 100%, verifier: {sensitivity: 100%}"))
    assert hopeless["task_success"] == near(0.95**5, hopeless["tasks"])


@pytest.mark.parametrize(("difficulty", "known"), [(20, 0.7917), (2, 0.8628)])
def test_shared_difficulty_is_the_beta_binomial(difficulty: int, known: float) -> None:
    assert theory.beta_compound(0.95 * difficulty, 0.05 * difficulty, 5) == pytest.approx(known, abs=5e-5)
    found, _ = served(tasks(more=f"difficulty: {difficulty}"))
    assert found["task_success"] == near(known, found["tasks"])


def test_harm_is_what_cannot_be_undone_from_the_first_silent_error_on() -> None:
    found, _ = served(tasks(more="irreversible: 40%"))
    expected = 0.4 * sum(0.05 * 0.95 ** (i - 1) * (5 - i + 1) for i in range(1, 6))
    assert found["irreversible_wrong"] / found["tasks"] == pytest.approx(expected, rel=0.1)
    last, _ = served(tasks(more="irreversible: [5]"))
    assert last["irreversible_wrong"] == last["task_wrong"]


def lost(share: float) -> Callable[[np.ndarray], np.ndarray]:
    """Let a *share* of requests time out, by luck that belongs to each."""
    generator = np.random.default_rng(5)
    return lambda rows: np.where(generator.random(len(rows)) < share, Outcome.TIMED_OUT, Outcome.OK).astype(np.uint8)


def test_steps_that_are_not_answered_compound_too() -> None:
    gone, requests = served(tasks(error="0"), lost(0.1))
    assert gone["task_success"] == near(0.9**5, gone["tasks"])
    assert gone["task_failed"] == gone["tasks"] - gone["task_ok"]
    assert gone["task_calls_mean"] * gone["tasks"] == pytest.approx(len(requests))
    again, _ = served(tasks(error="0", more="unanswered: retry, retries: 2"), lost(0.1))
    assert again["task_success"] == near((1 - 0.1**3) ** 5, again["tasks"])
    resumed, _ = served(tasks(error="0", more="checkpoint: {every: 1, resumes: 1}"), lost(0.1))
    once = 0.9**5 * (1 + 5 * 0.1)  # at most one of the steps is lost, and tried again
    assert resumed["task_success"] == near(once, resumed["tasks"])
    far, _ = served(tasks(error="0", more="checkpoint: {every: 5, resumes: 1}"), lost(0.1))
    assert far["task_success"] == near(0.9**5 + (1 - 0.9**5) * 0.9**5, far["tasks"])
    assert far["task_calls_mean"] > resumed["task_calls_mean"]


def test_a_verifier_that_does_not_answer_lets_everything_pass() -> None:
    more = "irreversible: [5], retries: 3, verifier: {sensitivity: 100%, by: checks}"
    watched, requests = served(tasks(more=more))
    assert watched["task_success"] > 0.999
    assert (requests["cohort"] == 1).sum() == (requests["cohort"] == 0).sum()
    silent = np.uint8(Outcome.TIMED_OUT)
    blind, _ = served(tasks(more=more), lambda rows: np.where(rows["cohort"] == 1, silent, 0).astype(np.uint8))
    assert blind["task_success"] == near(0.95**5, blind["tasks"])
    assert blind["irreversible_wrong"] > 100 * max(1, watched["irreversible_wrong"])


def test_an_answer_of_before_the_checkpoint_stays_and_what_comes_after_is_done_again() -> None:
    """With everything wrong and the second step lost once, the first silent error is that of the checkpoint."""

    def second_is_lost_once(rows: np.ndarray) -> np.ndarray:
        return np.where((rows["turn"] == 1), Outcome.TIMED_OUT, Outcome.OK).astype(np.uint8)

    found, requests = served(tasks(2, "100%", "irreversible: [1, 2], checkpoint: {every: 1}"), second_is_lost_once)
    assert found["task_wrong"] == found["tasks"]
    assert found["irreversible_wrong"] == 2 * found["tasks"]
    assert len(requests) == 3 * found["tasks"]


def test_context_grows_until_it_is_cut() -> None:
    _, rows = served(tasks(more="retries: 1, verifier: {sensitivity: 100%}", error="50%", rate=0.05))
    one = rows[rows["session"] == rows["session"][0]]
    step = (one["request"] >> 49) & 127
    assert (one["prompt_tokens"] == 100 + 120 * step).all()
    assert len(np.unique(one["content"])) == 1
    _, rows = served(tasks(rate=0.05, **{"fleet.max_model_len": "300"}))
    assert rows["prompt_tokens"].max() == 280
    _, rows = served(tasks(more="carry: false", rate=0.05))
    assert (rows["prompt_tokens"] == 100).all()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(0, 99), st.integers(0, 560), st.booleans()
        ),
        min_size=1,
        max_size=20,
        unique=True,
    )  # fmt: skip
)
def test_ids_tell_task_step_and_try(calls: list[tuple[int, int, int, int, bool]]) -> None:
    ids = np.array([request_id(crowd << 40 | user, step, tried, check) for user, crowd, step, tried, check in calls])
    assert len(np.unique(ids)) == len(calls)
    assert is_step(ids).all()
    assert (ids > 0).all()
    assert (ids < 2**57).all()
    firsts = [request_id(crowd << 40 | user, step, 0, check) for user, crowd, step, _, check in calls]
    assert first_try(ids).tolist() == firsts
    assert first_try(np.arange(5)).tolist() == [0, 1, 2, 3, 4]


def test_no_request_is_made_twice_and_turns_count_up() -> None:
    more = "retries: 2, unanswered: retry, checkpoint: {every: 2, resumes: 3}, verifier: {sensitivity: 90%, by: checks}"
    _, rows = served(tasks(more=more, rate=0.3), lost(0.3))
    assert len(np.unique(rows["request"])) == len(rows)
    for session in np.unique(rows["session"])[:50]:
        assert rows["turn"][rows["session"] == session].tolist() == list(range((rows["session"] == session).sum()))


@pytest.mark.parametrize("together", [1, 7])
def test_it_does_not_matter_how_many_are_planned_at_once(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    more = (
        "retries: 2, unanswered: retry, think: 2s, irreversible: 30%, systematic: 40%, difficulty: 3, "
        "checkpoint: {every: 2, resumes: 2}, verifier: {sensitivity: 70%, false_alarm: 10%, by: checks}"
    )
    played = tasks(more=more, rate=0.2, duration="15m", **{"workload.cohorts.agents.prefix": "{tokens: 40, groups: 3}"})
    found, rows = served(played, lost(0.2))
    monkeypatch.setattr(agents, "_TOGETHER", together)
    again, same = served(played, lost(0.2))
    assert again == found
    assert same.tobytes() == rows.tobytes()


def test_it_does_not_matter_what_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some answers are wrong by themselves, some because they were slow or came too late in the day."""
    causes = "{slow: {error: 60%, above: {ttft: 50ms}}, day: {error: 30%, share: 50%, from: 10s, to: 40s, grows: true}}"
    more = "retries: 2, systematic: 30%, difficulty: 3, verifier: {sensitivity: 70%, false_alarm: 10%, by: checks}"
    played = tasks(
        more=more, rate=3, duration="40s", **{"fleet.max_num_seqs": "3", "quality.causes": causes, "rows": "all"}
    )
    seen: list[np.ndarray] = []
    foresee = Judge.foresee

    def looked(judge: Judge, rows: np.ndarray) -> np.ndarray:
        seen.append(foresee(judge, rows))
        return seen[-1]

    monkeypatch.setattr(Judge, "foresee", looked)
    with_it = simulate(played, 1)
    monkeypatch.setattr(Judge, "foresee", lambda judge, rows: np.full(len(rows), OPEN, np.int8))
    without = simulate(played, 1)
    known = np.concatenate(seen)
    assert all((known == what).sum() > 100 for what in (OPEN, 0, 1))
    assert with_it.attempts.tobytes() == without.attempts.tobytes()
    assert repr(with_it.metrics) == repr(without.metrics)  # some are nan, which equals nothing
    assert with_it.metrics["cause.slow.wrong"] > 10 < with_it.metrics["cause.day.wrong"]


def test_a_fleet_plays_them_and_every_task_ends_once() -> None:
    found = simulate(tasks(more="think: 5s", rate=1, duration="2m"), 1).metrics
    assert found["task_unfinished"] > 3
    assert found["tasks"] == sum(found[f"task_{end}"] for end in ("ok", "wrong", "failed", "unfinished"))
    assert found["requests"] <= 5 * found["tasks"]
    assert found["cohort.agents.task_success"] == found["task_success"]
    assert found["task_e2e_p50"] == pytest.approx(20, rel=0.5)


def test_two_fleets_meet_the_same_tasks_and_the_busy_one_fails_more() -> None:
    quiet, slow, late = (
        simulate(tasks(rate=2, duration="60s", **more), 1).metrics
        for more in (
            {"fleet.max_num_seqs": "8"},
            {"fleet.max_num_seqs": "2"},
            {"fleet.max_num_seqs": "2", "clients.timeout": "300ms"},
        )
    )
    assert 0 <= quiet["task_wrong"] - slow["task_wrong"] <= slow["task_unfinished"]  # those cut off at the end
    assert slow["task_e2e_p50"] > 1.3 * quiet["task_e2e_p50"]
    assert late["task_success"] < 0.9 * quiet["task_success"]
    assert late["task_failed"] > 5


def test_tasks_are_what_the_fourth_layer_counts() -> None:
    world = World(tasks(rate=1, duration="60s", scrape_interval="5s"), 1)
    world.run_to_end()
    found = world.result().metrics
    shown = [one for one in world.spool.series() if one[0][NAME] == "llm_tasks_total"]
    last = {labels["outcome"]: values[-1] for labels, _, values in shown}
    assert last["ok"] == found["task_ok"] + found["task_wrong"]
    assert last["failed"] == found["task_failed"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            ["workload.sessions={turns: 3, think: 5s}"],
            "expected none beside a cohort with an `agent`",
        ),
        (
            ["workload.arrivals={closed: {users: 5, think: 5s}}", "workload.rate_per_s=null"],
            "expected none beside a cohort with an `agent`",
        ),
        (["workload.cohorts.agents.agent.irreversible=[6]"], "expected steps up to 5, the last of a task, got 6"),
        (["workload.cohorts.agents.agent.verifier={sensitivity: 1, by: nobody}"], "no cohort 'nobody'"),
        (
            ["workload.cohorts.agents.agent.verifier={sensitivity: 1, by: agents}"],
            "expected a cohort without an `agent`",
        ),
        (["workload.cohorts.agents.agent.irreversible={}"], "a share such as 20%, or a list of steps"),
        (["workload.cohorts.agents.agent.steps=101"], "workload.cohorts.agents.agent.steps"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(changes: list[str], sentence: str) -> None:
    text = TEXT.format(steps=5, error="5%", more="", rate=1)
    with pytest.raises(ScenarioError, match=changes[0].partition("=")[0]) as refused:
        scenario.loads(text, "tasks.yaml", changes)
    assert sentence in str(refused.value)


def test_a_load_test_refuses_what_it_cannot_judge(tmp_path: Path) -> None:
    (tmp_path / "tasks.yaml").write_text(TEXT.format(steps=5, error="5%", more="", rate=1))
    command = [
        sys.executable,
        "-c",
        "from sim.cli import main; main()",
        "load",
        "run",
        "tasks.yaml",
        "--url",
        "http://127.0.0.1:9",
    ]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert refused.returncode == 2
    assert "workload.cohorts.agents.agent: expected none in a load test" in refused.stderr
    assert "Traceback" not in refused.stderr
