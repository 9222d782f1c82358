"""Surges: more users than usual, and not one of the usual ones moved."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sim import workload
from sim.errors import ScenarioError
from sim.ids import IDS
from sim.records import REQUEST
from sim.scenario import Scenario, loads
from sim.workload import arrivals
from sim.workload.crowds import merged

ALPHA = 1e-3
CHAT = {"prompt_tokens": {"lognormal": {"median": 300, "sigma": 0.7}}, "output_tokens": {"exponential": {"mean": 200}}}
COHORTS = {
    "chat": {**CHAT, "share": 0.6, "error": 0.05, "prefix": {"groups": 4, "tokens": 200}},
    "code": {**CHAT, "share": 0.3, "priority": 2, "pool": "small"},
    "batch": {**CHAT, "share": 0.1},
}
ARRIVALS: dict[str, dict[str, Any]] = {
    "poisson": {"rate_per_s": 8.0},
    "gamma": {"rate_per_s": 8.0, "arrivals": {"gamma": {"cv": 2.0}}},
    "diurnal": {"rate_per_s": 8.0, "arrivals": {"diurnal": {"peak_to_mean": 2.0, "peak_at": 0}}},
    "bursts": {"rate_per_s": 8.0, "arrivals": {"bursts": {"rate_per_s": 16, "mean_on": 5, "mean_off": 20}}},
    "piecewise": {"arrivals": {"piecewise": [{"at": 0, "rate_per_s": 3}, {"at": 60, "rate_per_s": 12}]}},
    "conversations": {"rate_per_s": 2.0, "sessions": {"turns": {"exponential": {"mean": 4}}, "think": "10s"}},
}
KINDS = st.sampled_from(list(ARRIVALS))
SEEDS = st.integers(0, 2**63 - 1)


def surge(whom: str = "all", start: float = 30, to: float | None = 90, factor: float = 3.0) -> dict[str, Any]:
    return {"surge": whom, "from": start, "to": to, "factor": factor}


def scenario(faults: list[dict[str, Any]], duration: Any = "3m", cohorts: Any = COHORTS, **users: Any) -> Scenario:
    pool = {"model": "m", "hardware": "h"}
    document = {"name": "x", "duration": duration, "faults": faults, "fleet": {"pools": {"big": pool, "small": pool}}}
    return loads(json.dumps(document | {"workload": {"cohorts": cohorts, **users}}))


def joined(users: workload.Workload, size: int = workload.CHUNK) -> np.ndarray:
    """All rows; ``follow_up`` becomes the distance to the next turn, which does not depend on the chunk."""
    chunks = [np.zeros(0, REQUEST)]
    for chunk in users.chunks(size):
        chunk["follow_up"] -= np.where(chunk["follow_up"] >= 0, np.arange(len(chunk)), 0)
        chunks.append(chunk)
    return np.concatenate(chunks)


def rows(*faults: dict[str, Any], seed: int = 1, **users: Any) -> np.ndarray:
    return joined(workload.compile(scenario(list(faults), **users), seed))


def extra(found: np.ndarray, which: int | None = None) -> np.ndarray:
    """The rows of surges, or of the one *which*."""
    crowd = found["request"] // IDS
    return found[crowd > 0] if which is None else found[crowd == which + 1]


SURGES = st.lists(
    st.builds(
        surge,
        st.sampled_from(["all", *COHORTS]),
        st.floats(0, 179),
        st.one_of(st.none(), st.floats(179.5, 1000)),
        st.floats(1, 5),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=40)
@given(KINDS, SURGES, SEEDS, st.sampled_from([40, 333, 2_000]))
def test_the_usual_users_are_the_same_with_and_without_a_surge(
    kind: str, faults: list[dict[str, Any]], seed: int, size: int
) -> None:
    without = rows(seed=seed, **ARRIVALS[kind])
    users = workload.compile(scenario(faults, **ARRIVALS[kind]), seed)
    found = joined(users, size)
    np.testing.assert_array_equal(found[found["request"] < IDS], without)
    np.testing.assert_array_equal(found, joined(users))  # however many are drawn at once, and again
    begins = found["scheduled_s"][found["turn"] == 0]
    assert (np.diff(begins) >= 0).all()
    assert len(np.unique(found["request"])) == len(found)
    if kind == "conversations":
        np.testing.assert_array_equal(found["request"] // IDS, found["session"] // IDS)
        assert len(np.unique(found["session"])) == len(begins)
        whole = np.flatnonzero(found["follow_up"] >= 0)
        np.testing.assert_array_equal(found["session"][whole], found["session"][whole + found["follow_up"][whole]])
        of_content = np.unique(np.stack([found["content"], found["session"]]), axis=1)
        assert len(np.unique(of_content[0])) == of_content.shape[1]
    else:
        np.testing.assert_array_equal(found["content"], found["request"])
        assert (found["session"] == -1).all()


@settings(max_examples=60)
@given(SURGES, SEEDS)
def test_extra_users_come_inside_their_window_and_are_of_their_cohort(faults: list[dict[str, Any]], seed: int) -> None:
    found = rows(*faults, seed=seed, **ARRIVALS["poisson"])
    names = list(COHORTS)
    for which, fault in enumerate(faults):
        mine = extra(found, which)
        inside = (mine["scheduled_s"] >= fault["from"]) & (mine["scheduled_s"] < (fault["to"] or math.inf))
        assert inside.all()
        if fault["surge"] != "all":
            assert (mine["cohort"] == names.index(fault["surge"])).all()
            assert (mine["level"] == COHORTS[fault["surge"]].get("priority", 0)).all()
            assert (mine["pool"] == ("pool" in COHORTS[fault["surge"]])).all()
        if fault["factor"] == 1.0:
            assert len(mine) == 0
    alone = rows(faults[0], seed=seed, **ARRIVALS["poisson"])
    np.testing.assert_array_equal(extra(alone), extra(found, 0))  # another surge moves nobody of the first


@pytest.mark.parametrize("kind", ["poisson", "diurnal", "bursts", "piecewise"])
@pytest.mark.parametrize("seed", range(2))
def test_extra_users_are_poisson_along_the_curve_of_the_usual_ones(kind: str, seed: int) -> None:
    curve = {
        "diurnal": arrivals.diurnal(8.0, 2.0, 0.0),
        "bursts": arrivals.bursts(8.0, 16.0, 5.0, 20.0, 3600.0, seed),
        "piecewise": arrivals.piecewise([0.0, 60.0], [3.0, 12.0]),
        "poisson": arrivals.constant(8.0),
    }[kind]
    found = rows(surge(start=50, to=3000, factor=2.5), seed=seed, duration="1h", **ARRIVALS[kind])
    came = extra(found)["scheduled_s"]
    passed = 1.5 * (np.array([curve.until(float(at_s)) for at_s in came]) - curve.until(50.0))
    total = 1.5 * (curve.until(3000.0) - curve.until(50.0))
    assert stats.kstest(np.diff(passed), "expon").pvalue > ALPHA
    assert stats.kstest(passed / total, "uniform").pvalue > ALPHA
    assert abs(len(came) - total) < 3.3 * math.sqrt(total)
    usual = found["scheduled_s"][found["request"] < IDS]
    per_10s = [np.histogram(at_s, np.arange(50, 3001, 10))[0] for at_s in (came, usual)]
    if kind == "poisson":
        assert abs(np.corrcoef(per_10s)[0, 1]) < 3.3 / math.sqrt(len(per_10s[0]))


def test_gaps_of_extra_users_vary_as_those_of_the_usual_ones() -> None:
    came = extra(rows(surge(start=0, to=None, factor=2), duration="2h", **ARRIVALS["gamma"]))["scheduled_s"]
    gaps = np.diff(came)
    assert gaps.mean() == pytest.approx(1 / 8, rel=4 * 2.0 / math.sqrt(len(gaps)))
    assert gaps.std() / gaps.mean() == pytest.approx(2.0, rel=0.08)


def test_a_surge_of_one_cohort_has_its_share_and_surges_that_overlap_add_up() -> None:
    faults = [surge(start=600, to=1800), surge("code", start=1200, to=2400, factor=5.0)]
    found = rows(*faults, duration="1h", **ARRIVALS["poisson"])
    per_s = {"chat": 4.8, "code": 2.4, "batch": 0.8}
    for start, to, factors in ((0, 600, (1, 1)), (600, 1200, (3, 3)), (1200, 1800, (3, 7)), (1800, 2400, (1, 5))):
        here = found[(found["scheduled_s"] >= start) & (found["scheduled_s"] < to)]
        for index, name in enumerate(COHORTS):
            expected = (to - start) * per_s[name] * factors[name == "code"]
            assert abs((here["cohort"] == index).sum() - expected) < 3.3 * math.sqrt(expected)
    assert (found["scheduled_s"][found["request"] >= IDS] < 2400).all()


def test_two_surges_alike_bring_different_users_and_neither_the_usual_ones() -> None:
    found = rows(surge(start=0, to=None, factor=2), surge(start=0, to=None, factor=2), **ARRIVALS["poisson"])
    crowds = [found[found["request"] // IDS == crowd]["scheduled_s"] for crowd in range(3)]
    assert not set(crowds[0]) & set(crowds[1]) | set(crowds[1]) & set(crowds[2]) | set(crowds[0]) & set(crowds[2])


@given(st.floats(0, 1e6), st.floats(1e-3, 1e6), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_a_part_of_a_curve_never_leaves_its_window(from_s: float, long_s: float, rate: float, factor: float) -> None:
    part = arrivals.Part(arrivals.constant(rate), from_s, from_s + long_s, factor)
    total = part.until(math.inf)
    at_s = part.times(np.array([1e-300, 1e-12 * total, 0.5 * total, total, 2 * total + 1]))
    assert ((at_s >= from_s) & (at_s < part.to_s) | np.isinf(at_s)).all()
    assert (np.diff(at_s[:4]) >= 0).all() if np.isfinite(at_s[:4]).all() else at_s[2] >= from_s
    assert at_s[-1] == math.inf
    assert part.until(from_s) == 0.0
    assert part.until(part.to_s) == total


def test_a_larger_factor_is_the_same_extra_users_sooner() -> None:
    small, large = (
        extra(rows(surge(start=30, to=None, factor=factor), **ARRIVALS["poisson"])) for factor in (2.0, 4.0)
    )
    n = len(small)
    assert len(large) > 2.5 * n
    np.testing.assert_allclose((small["scheduled_s"] - 30) / 3, large["scheduled_s"][:n] - 30)
    for name in set(REQUEST.names) - {"scheduled_s"}:
        np.testing.assert_array_equal(small[name], large[name][:n])


def test_extra_conversations_are_whole_and_of_their_cohort() -> None:
    found = rows(surge("code", start=0, to=None, factor=4), duration="1h", **ARRIVALS["conversations"])
    mine = extra(found)
    assert (mine["cohort"] == 1).all()
    turns = np.unique(mine["session"], return_counts=True)[1]
    last = mine["turn"][mine["follow_up"] < 0]
    np.testing.assert_array_equal(last + 1, turns)
    assert turns.mean() == pytest.approx(4.0, abs=4 * turns.std() / math.sqrt(len(turns)))
    expected = 3 * 0.3 * 2.0 * 3600
    assert abs(len(turns) - expected) < 3.3 * math.sqrt(expected)


@pytest.mark.parametrize("kind", list(ARRIVALS))
def test_expected_requests_counts_the_extra_ones(kind: str) -> None:
    faults = [surge(factor=3), surge("code", start=0, to=None, factor=2), surge("batch", start=100, to=1000)]
    usual, more = (workload.compile(scenario(f, **ARRIVALS[kind]), 5) for f in ([], faults))
    if kind == "poisson":
        assert more.expected_requests == pytest.approx(8 * 180 * (1 + 0.3) + 8 * 60 * 2 + 8 * 0.1 * 80 * 2)
    assert more.expected_requests > usual.expected_requests
    came = len(joined(more))
    assert came == pytest.approx(more.expected_requests, abs=20 * math.sqrt(more.expected_requests))


@given(st.lists(st.lists(st.sampled_from([1.0, 2.0, 2.5, 3.0]), max_size=9), min_size=1, max_size=4), st.integers(1, 5))
def test_merging_keeps_every_arrival_in_one_order_whatever_the_size(times: list[list[float]], size: int) -> None:
    class Listed:
        def __init__(self, at_s: list[float]) -> None:
            self.left = sorted(at_s)

        def take(self, n: int) -> np.ndarray:
            taken, self.left = self.left[:n], self.left[n:]
            return np.array(taken)

    parts = list(merged([Listed(at_s) for at_s in times], size))  # type: ignore[misc]
    found = [pair for came, origin in parts for pair in zip(came.tolist(), origin.tolist(), strict=True)]
    assert found == sorted((at_s, index) for index, one in enumerate(times) for at_s in one)
    assert all(0 < len(came) <= size for came, _ in parts)


def test_nothing_grows_with_the_length_of_a_run() -> None:
    users = workload.compile(scenario([surge(start=100, to=None)], duration="30d", **ARRIVALS["poisson"]), 1)
    chunks = users.chunks(1000)
    assert max(len(next(chunks)) for _ in range(200)) <= 1000


def test_a_trace_or_a_closed_circle_has_no_surge(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("timestamp,prompt_tokens,output_tokens\n1,2,3\n")
    closed = {"closed": {"users": 3, "think": 1}}
    slow = {"slow": "big", "factor": 2}
    for users, said in (
        ({"trace": str(file), "cohorts": {"all": {}}}, "faults.1.surge: expected none with a trace"),
        ({"arrivals": closed}, "faults.1.surge: expected none with closed arrivals"),
    ):
        with pytest.raises(ScenarioError, match=said):
            workload.compile(scenario([slow, surge()], **users), 1)
        workload.compile(scenario([slow], **users), 1)
