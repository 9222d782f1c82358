"""The shipped scenarios about wrong answers: each shows what its story says, and its numbers are those of theory.

Quick ones play one seed; `blowout run NAME` judges all claims over all seeds.
"""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sim import scenario, theory
from sim.quality import gates
from sim.run import play
from tests.shipped import bound, says_what_it_shows

NAMES = ("confidence-gate", "review-team", "canary-gate", "quality-breaker")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_scenario_says_what_it_shows(name: str) -> None:
    assert says_what_it_shows(name).quality is not None


@pytest.mark.parametrize(
    ("error", "reviewers", "claim"),
    [
        (0.01, 16, "sixteen_are_enough"),
        (0.02, 16, "half_of_it_is_never_looked_at"),
        (0.02, 32, "with_twice_the_people_hardly_any_is_late"),
    ],
)
def test_claims_about_a_team_are_erlangs(error: float, reviewers: int, claim: str) -> None:
    unsure = float(stats.beta(2 * (1 - error), 2 * error).cdf(0.8))
    queue = theory.erlang_a(5 * unsure, 180.0, reviewers, 300.0)
    assert bound("review-team", claim) == pytest.approx(queue.abandons, rel=2e-3)
    if claim == "sixteen_are_enough":
        busy = 5 * unsure * 180.0 * (1 - queue.abandons) / reviewers
        assert bound("review-team", "and_have_a_minute_now_and_then") == pytest.approx(busy, rel=1e-3)
    more = stats.beta(2 * 0.98, 2 * 0.02).cdf(0.8) / stats.beta(2 * 0.99, 2 * 0.01).cdf(0.8)
    assert bound("review-team", "twice_as_much_comes") == pytest.approx(more, rel=1e-3)


def test_claims_about_a_gate_are_those_of_a_beta_distribution() -> None:
    right = np.random.default_rng(1).beta(2 * 0.99, 2 * 0.01, 2_000_000)
    correct = np.random.default_rng(2).random(right.size) < right
    fixed, lowest = (
        gates.judge(gates.Gate(0.8), right, correct),
        gates.judge(gates.of_share(right, 0.05), right, correct),
    )
    assert bound("confidence-gate", "a_calibrated_gate_catches_two_in_three") == pytest.approx(
        fixed.caught.estimate, abs=0.01
    )
    assert bound("confidence-gate", "which_is_little_work") == pytest.approx(fixed.escalated, rel=0.01)
    assert bound("confidence-gate", "the_least_confident_are_the_same") == pytest.approx(
        lowest.caught.estimate, abs=0.01
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_claims_hold_with_three_seeds(name: str, tmp_path: Path) -> None:
    run = play(scenario.load(name, ["seeds=3"]), tmp_path, workers=1)
    assert run.verdicts
    wide = {verdict["name"] for verdict in run.verdicts if " within " in verdict["text"]}
    for verdict in run.verdicts:
        if verdict["name"] in wide:
            assert abs(verdict["estimate"]) < 2 * verdict["bound"], verdict
        else:
            assert verdict["passed"], verdict
