"""Figures of containment and of patterns: each shipped scenario has its own, drawn from its run folder and no other."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import scenario
from sim.quality import sampling
from sim.quality.chains import verified
from sim.report import containing, figures, harm, style
from sim.report.view import view
from sim.results import Run
from sim.run import play

SHORT = {
    "quality-breaker": ("breakers", ["duration=40m", "quality.causes.borderline.to=10m",
                                     "quality.causes.regression.from=10m", "quality.causes.regression.to=40m"]),
    "review-team": ("reviewers", ["duration=20m"]),
    "confidence-gate": ("gates", ["duration=6m"]),
    "canary-gate": ("releases", ["duration=50m"]),
    "load-coupled-quality": ("slow-and-wrong", ["duration=4m", "faults=[]"]),
    "misrouting": ("misrouted", ["duration=5m", "faults=[{misroute: chat, into: documents, share: 16%}]",
                                 "vary={workload.rate_per_s: [1, 2]}"]),
    "agent-compounding": ("tasks", ["duration=30s"]),
    "silent-cohort": ("noticed", ["duration=30m", "quality.causes.new_tokenizer.from=5m", "alerts=[]"]),
}  # fmt: skip
OWN = {"breakers", "reviewers", "gates", "releases", "slow-and-wrong", "misrouted", "tasks", "noticed"}


@pytest.mark.parametrize("name", SHORT)
def test_a_shipped_scenario_has_its_figure(name: str, tmp_path: Path) -> None:
    own, settings = SHORT[name]
    run = play(scenario.load(name, ["claims={}", *settings]), tmp_path, seeds=1, workers=1)
    found = {plate.name: plate for plate in figures.plates(view(Run.open(run.path)))}
    assert OWN & set(found) == {own}
    plate = found[own]
    assert "nan" not in plate.title
    assert plate.caption.endswith(".")
    style.save(plate, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_a_breaker_is_open_from_its_opening_to_its_closing() -> None:
    events = [
        {"t_s": 5.0, "event": "quality_breaker_opens", "target": "a"},
        {"t_s": 6.0, "event": "quality_breaker_opens", "target": "b"},
        {"t_s": 7.0, "event": "quality_breaker_probes", "target": "a"},
        {"t_s": 9.0, "event": "quality_breaker_closes", "target": "a"},
    ]
    assert containing._open(events, "a", 20.0) == [(5.0, 9.0)]
    assert containing._open(events, "b", 20.0) == [(6.0, 20.0)]


SHARES = st.lists(st.floats(0.001, 1), min_size=2, max_size=6).map(lambda x: np.array(x) / sum(x))


@given(SHARES, st.floats(0.01, 1), st.data())
def test_every_allocation_spends_the_same_and_grades_nobody_twice(
    share: np.ndarray, spent: float, data: st.DataObject
) -> None:
    weights = np.array(data.draw(st.lists(st.floats(0.001, 1), min_size=len(share), max_size=len(share))))
    graded = harm._within(weights / weights.sum() * spent, share)
    assert (graded <= 1 + 1e-9).all()
    assert share @ graded == pytest.approx(spent, rel=1e-6)


def test_the_points_of_silent_cohort_are_the_allocations() -> None:
    shipped = scenario.load("silent-cohort")
    found = {name: float(one[1]) for name, one in harm.allocations(shipped).items()}
    uniform, neyman, whole = shipped.vary["quality.evaluation.share.few"]
    assert found["uniform or proportional"] == pytest.approx(uniform, abs=1e-3)
    assert found["Neyman"] == pytest.approx(neyman, abs=5e-3)
    assert found["equal"] == found["for detection"] == whole == 1.0
    best = sampling.variance([0.995, 0.005], [0.008693, 0.05], 1000 * sampling.neyman([0.995, 0.005], [0.008693, 0.05]))
    assert best < sampling.variance([0.995, 0.005], [0.008693, 0.05], [995, 5])


def test_lines_of_tasks_are_those_of_theory() -> None:
    cohorts = scenario.load("agent-compounding").workload.cohorts
    assert harm.right_after(cohorts["plain"], 5) == pytest.approx(0.95**5)
    assert harm.right_after(cohorts["long"], 10) == pytest.approx(0.99**10)
    assert harm.right_after(cohorts["verified"], 5) == pytest.approx(verified(0.95, 0.8, 0.05, 2).right ** 5)
