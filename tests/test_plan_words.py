"""What a plan says of its answer: only what was played, of profiles the most, and nothing that it cannot hold."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

import pytest

from sim.planning import headroom, objective, plan, printed, trials
from sim.planning.objective import Bound
from sim.planning.trials import Played
from tests import planning

OUTSIDE = re.compile(r"outside the profile: (\d+) sequences")


@pytest.fixture(scope="module")
def crew() -> Iterator[Executor]:
    with trials.crew(2) as executor:
        yield executor


def test_a_lower_bound_stands_where_more_is_better() -> None:
    known = ("goodput_per_s", "prefix_hit", "task_success")
    for metric in known:
        (bound,) = objective.read(f"{metric} >= 0.5", known)
        assert bound == Bound(metric, 0.5, least=True)
        assert bound.kept_by(Played({metric: 0.6}))
        assert not bound.kept_by(Played({metric: 0.4}))


def test_a_fleet_whose_queue_grows_is_not_said_to_hold_its_load(crew: Executor) -> None:
    text = planning.ONE_SEAT.replace("20m", "4m").replace("2m", "30s")
    found = plan.make(
        planning.question(text, "itl_p99 < 1s", {"replicas": [1]}, growth=headroom.read_growth("8%/month")), crew, 2
    )
    assert found.best is not None
    assert found.best.overloaded
    assert found.knee is not None
    assert found.knee.keeps < 0.5  # four a second come, and one seat serves one
    assert found.days_left == 0.0
    assert found.knee_of_one == found.knee
    said = " ".join(map(str, printed.reach(found)))
    assert "less than planned" in said
    assert "4.00 requests/s" not in said


def test_of_what_was_met_outside_a_profile_the_most_is_said_once_and_who_met_it(crew: Executor, tmp_path: Path) -> None:
    profile = {
        "format": "blowout-step-profile/1", "source": "a quiet machine", "base_s": 0.01, "decode_s": {"1": 0.0001},
        "prefill_s": {"1": 0.00002}, "measured": "2026-03-14", "range": {"sequences": [1, 2], "context": [9, 9999]},
    }  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps(profile))
    linear = "linear: {base: 8ms, per_prefill_token: 20us, per_sequence: 100us}"
    assert linear in planning.MEMORY
    text = planning.MEMORY.replace(linear, f"profile: {tmp_path / 'p.json'}").replace("duration: 4m", "duration: 2m")
    found = plan.make(planning.question(text, "ttft_p99 < 500ms", {"replicas": [1, 2, 3, 4]}), crew, 2)
    assert found.best is not None
    assert found.below is not None
    met = {}
    for one in (found.best, found.below):
        notes = (note for condition in one.conditions for run in condition.runs for note in run.notes)
        met[found.space.words(one.fleet)] = max(int(one[1]) for one in map(OUTSIDE.search, notes) if one)
    who = max(met, key=lambda name: met[name])
    said = [note for note in found.assumptions if "outside the profile" in note]
    assert len(said) == 1
    assert f" {met[who]} sequences in a batch" in said[0]
    assert said[0].endswith(f"; met by {who}, the most of those that decide")
