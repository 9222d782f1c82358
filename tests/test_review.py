"""Gates and the people behind them: Erlang's queue with abandonment, and nothing lost between gate and user."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import theory
from sim.quality.containment import Containment, GateRules, TeamRules
from sim.quality.review import Staff, Team
from sim.quality.verdicts import VERDICT
from sim.records import ATTEMPT, Outcome


def staff(reviewers: int) -> Staff:
    return Staff(((0.0, reviewers),))


def poisson(rng: np.random.Generator, rate_per_s: float, until_s: float) -> np.ndarray:
    return np.sort(rng.uniform(0.0, until_s, rng.poisson(rate_per_s * until_s)))


def served(
    seed: int, reviewers: int, rate_per_s: float, until_s: float, patience_s: float | None, handling_s: float = 1.0
) -> Team:
    rng = np.random.default_rng(seed)
    at_s = poisson(rng, rate_per_s, until_s)
    team, n = Team(staff(reviewers), until_s), len(at_s)
    patience = None if patience_s is None else rng.exponential(patience_s, n)
    team.take(at_s, rng.exponential(handling_s, n), patience, np.zeros(n), np.zeros(n))
    team.close()
    return team


# --- oracles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reviewers", "rate_per_s", "leaving_per_s", "waits", "abandons", "queue"),
    [
        (10, 12.0, 0.5, 0.850385, 0.195656, 4.695743),
        (10, 9.0, 0.5, 0.468942, 0.067012, 1.206211),
        (50, 55.0, 1 / 3, 0.913562, 0.098128, 16.191071),
        (100, 100.0, 1.0, 0.513299, 0.039861, 3.9861),
    ],
)
def test_an_impatient_queue_is_erlangs(
    reviewers: int, rate_per_s: float, leaving_per_s: float, waits: float, abandons: float, queue: float
) -> None:
    until_s = max(20_000 / rate_per_s, 600.0)  # an end of a busy spell takes long where there are many
    teams = [served(seed, reviewers, rate_per_s, until_s, 1 / leaving_per_s) for seed in range(12)]
    known = theory.erlang_a(rate_per_s, 1.0, reviewers, 1 / leaving_per_s)
    assert (known.waits, known.abandons, known.mean_waiting) == pytest.approx((waits, abandons, queue), rel=1e-4)
    for name, expected, measured in (
        ("waits", waits, [team.waited / team.escalated for team in teams]),
        ("abandons", abandons, [team.late / team.escalated for team in teams]),
        ("queue", queue, [team.queued_s / team.end_s for team in teams]),
        (
            "busy",
            rate_per_s * (1 - abandons) / reviewers,
            [team.busy_s / team.staff.worked_s(team.end_s) for team in teams],
        ),
    ):  # fmt: skip
        found = theory.student_interval(measured, 0.999)
        assert found.low - 2e-3 * expected <= expected <= found.high + 2e-3 * expected, name
        assert found.high - found.low < 0.35 * expected, name


def test_a_patient_queue_waits_as_erlang_c_says() -> None:
    teams = [served(seed, 10, 8.0, 4_000.0, None) for seed in range(12)]
    found = theory.student_interval([team.waits.total_s / team.escalated for team in teams], 0.999)
    assert found.low <= 0.204590 <= found.high
    waited = theory.student_interval([team.waited / team.escalated for team in teams], 0.999)
    assert waited.low <= theory.erlang_c(10, 8.0) <= waited.high
    assert [team.waits.quantile_s(0.5) for team in teams] == [0.0] * 12
    p95 = theory.student_interval([team.waits.quantile_s(0.95) for team in teams], 0.999)
    assert p95.low <= theory.mmc_wait_quantile_s(0.95, 8.0, 1.0, 10) <= p95.high


# --- laws -------------------------------------------------------------------------------------------------------------


def by_hand(
    at_s: list[float], handling_s: list[float], patience_s: list[float], reviewers: int
) -> tuple[list[float], int]:
    """When each review begins, found by asking of each answer in turn who is free first (for a constant team)."""
    free = [0.0] * reviewers
    waits, late = [], 0
    for t, handling, patience in zip(at_s, handling_s, patience_s, strict=True):
        first = min(range(reviewers), key=free.__getitem__)
        begin = max(t, free[first])
        if begin > t and begin >= t + patience:
            late += 1
            continue
        waits.append(begin - t)
        free[first] = begin + handling
    return waits, late


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(0.01, 3.0), min_size=1, max_size=60),
    reviewers=st.integers(1, 4),
    patience_s=st.floats(0.1, 10.0),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    seed=st.integers(0, 1000),
)
def test_first_come_first_served_whatever_pieces_it_comes_in(
    gaps: list[float], reviewers: int, patience_s: float, cuts: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    at_s, n = np.cumsum(gaps), len(gaps)
    handling, patience = rng.exponential(3.0, n), np.full(n, patience_s)
    wrong = rng.random(n) < 0.5
    after = wrong & (rng.random(n) < 0.2)
    team = Team(staff(reviewers), math.inf)
    for part in np.split(np.arange(n), sorted(min(cut, n) for cut in cuts)):
        team.take(at_s[part], handling[part], patience[part], wrong[part], after[part])
        assert team.escalated == team.reviewed + team.late + team.waiting
        assert team.busy <= reviewers
    team.close()
    waits, late = by_hand(at_s.tolist(), handling.tolist(), patience.tolist(), reviewers)
    assert (team.reviewed, team.late, team.waiting) == (len(waits), late, 0)
    assert team.waits.total_s == pytest.approx(sum(waits))
    assert team.wrong == team.caught + team.reviewed_wrong + team.late_wrong


def test_shifts_come_and_go_and_who_reviews_finishes() -> None:
    day = Staff(((0.0, 0), (100.0, 2), (200.0, 1)))
    assert [day.at(t) for t in (0, 99.9, 100, 200, 86_399, 86_400, 86_500)] == [0, 0, 2, 1, 1, 0, 2]
    assert [day.next_s(t) for t in (0, 100, 200, 86_400)] == [100, 200, 86_400, 86_500]
    assert day.worked_s(86_400 + 150) == 2 * 100 + 86_200 + 2 * 50
    team = Team(day, 1000.0)
    team.take(np.array([1.0, 2.0, 3.0]), np.full(3, 150.0), None, np.zeros(3), np.zeros(3))
    team.play(50)
    assert (team.waiting, team.busy, team.count) == (3, 0, 0)
    team.play(220)
    assert (team.waiting, team.busy, team.count) == (1, 2, 1)
    team.play(250)
    assert (team.waiting, team.busy) == (0, 1), "two have finished, one goes on"
    team.close()
    assert team.waits.total_s == pytest.approx(99 + 98 + 247)


def test_waits_are_counted_to_one_percent() -> None:
    rng = np.random.default_rng(3)
    at_s = poisson(rng, 4.5, 3_000.0)
    handling, patience = rng.exponential(1.0, len(at_s)), np.full(len(at_s), 30.0)
    team = Team(staff(4), 3_000.0)
    team.take(at_s, handling, patience, np.zeros(len(at_s)), np.zeros(len(at_s)))
    team.close()
    waits, late = by_hand(at_s.tolist(), handling.tolist(), patience.tolist(), 4)
    assert (team.late, team.waits.counts.sum()) == (late, len(waits))
    for q in (0.5, 0.95):
        assert team.waits.quantile_s(q) == pytest.approx(np.quantile(waits, q), rel=0.02)


def test_a_wait_of_years_is_a_wait() -> None:
    team = Team(staff(1), 1000.0)
    n = 3000
    team.take(np.arange(float(n)), np.full(n, 1e6), None, np.zeros(n), np.zeros(n))
    team.close()
    assert team.waits.counts.sum() == n
    assert team.waits.quantile_s(0.95) >= 365 * 86_400


def test_a_review_of_a_million_years_keeps_nobody_waiting() -> None:
    team = Team(Staff(((0.0, 1), (3600.0, 2))), 1000.0)
    team.take(np.array([1.0]), np.array([3e13]), None, np.ones(1), np.zeros(1))
    team.close()
    assert (team.reviewed, team.caught) == (1, 1)


@pytest.mark.parametrize("day", [1, 3, 30, 365])
def test_a_shift_begins_at_its_time_on_any_day(day: int) -> None:
    begin_s = 8 * 3600 + 0.1
    team = Staff(((0.0, 1), (begin_s, 9)))
    assert team.next_s(86_400.0 * day) == 86_400.0 * day + begin_s
    assert team.at(team.next_s(86_400.0 * day)) == 9


# --- gates ------------------------------------------------------------------------------------------------------------


def ended(n: int, seconds: float, seed: int = 1, **columns: object) -> tuple[np.ndarray, np.ndarray]:
    """Answers over *seconds*; the less sure, the more likely wrong."""
    rows, verdicts = np.zeros(n, ATTEMPT), np.zeros(n, VERDICT)
    rng = np.random.default_rng(seed)
    rows["request"], rows["finished_s"] = np.arange(n), np.linspace(0.0, seconds, n, endpoint=False)
    verdicts["confidence"] = rng.beta(9.0, 1.0, n)
    verdicts["wrong"] = rng.random(n) > verdicts["confidence"]
    for name, value in columns.items():
        rows[name] = value
    return rows, verdicts


def contained(gate: dict[str, float], seconds: float = 7200.0, reviewers: int = 500, **team: object) -> Containment:
    rules = TeamRules(**({"name": "people", "staff": staff(reviewers), "handling": ("fixed", 60.0, 0.0)} | team))  # type: ignore[arg-type]
    return Containment([GateRules(0, "chat", 0, **gate)], [rules], 1, seconds)


@settings(max_examples=15, deadline=None)
@given(
    gate=st.sampled_from([{"below": 0.7}, {"lowest": 0.1}, {"load_aware": 0.8}]),
    misses=st.sampled_from([0.0, 0.3]),
    false_alarms=st.sampled_from([0.0, 0.1]),
    withhold=st.booleans(),
    cuts=st.lists(st.integers(0, 4000), max_size=5),
)
def test_every_answer_passes_or_is_reviewed_or_late(
    gate: dict[str, float], misses: float, false_alarms: float, withhold: bool, cuts: list[int]
) -> None:
    rows, verdicts = ended(4000, 3600.0)
    kinds = {
        "misses": misses,
        "false_alarms": false_alarms,
        "withhold": withhold,
        "patience": ("exponential", 30.0, 0.0),
    }
    made = []
    for edges in (sorted(cuts), []):
        one = contained(gate, 3600.0, reviewers=4, **kinds)
        for begin, end in zip([0, *edges], [*edges, 4000]):
            one.take(rows[begin:end], verdicts[begin:end])
            if begin < end:
                one.play(float(rows["finished_s"][end - 1]))
        one.close()
        made.append(one.metrics(float(verdicts["wrong"].sum())))
    assert made[0] == pytest.approx(made[1], nan_ok=True), "whatever pieces it comes in"
    found = {name.removeprefix("team.people."): value for name, value in made[0].items() if name.startswith("team.")}
    assert found["escalated"] == found["reviewed"] + found["late"]
    wrong = float(verdicts["wrong"].sum())
    if false_alarms == 0.0 and not withhold:
        assert found["delivered_wrong"] == wrong - found["caught"]
    assert made[0]["delivered_wrong"] == found["delivered_wrong"]
    assert found["withheld"] == (found["late"] if withhold else 0)


def test_a_fixed_gate_reads_a_number_and_the_other_an_order() -> None:
    rows, verdicts = ended(200_000, 7200.0)
    surer = verdicts.copy()
    surer["confidence"] = verdicts["confidence"] ** 0.1
    shares = {}
    for name, said in (("calibrated", verdicts), ("surer", surer)):
        for gate in ({"below": 0.7}, {"lowest": 0.05}):
            one = contained(gate)
            one.take(rows, said)
            one.close()
            shares[name, *gate] = one.metrics(1.0)["team.people.escalated_share"]
    assert shares["calibrated", "below"] == pytest.approx(0.7**9, rel=0.05)
    assert shares["surer", "below"] < 0.01 * shares["calibrated", "below"]
    assert shares["calibrated", "lowest"] == pytest.approx(0.05, rel=0.03)
    assert shares["surer", "lowest"] == pytest.approx(shares["calibrated", "lowest"], rel=1e-3)


def test_a_gate_to_whom_all_are_alike_draws_lots() -> None:
    rows, verdicts = ended(100_000, 7200.0)
    verdicts["confidence"] = 0.9
    one = contained({"lowest": 0.05})
    one.take(rows, verdicts)
    one.close()
    found = one.metrics(float(verdicts["wrong"].sum()))
    assert found["team.people.escalated_share"] == pytest.approx(0.05, rel=0.05)
    assert found["caught_share"] == pytest.approx(0.05, rel=0.1)


def test_a_load_aware_gate_keeps_the_team_busy_and_no_busier() -> None:
    rows, verdicts = ended(100_000, 7200.0)
    one = contained({"load_aware": 0.9}, reviewers=40)
    one.take(rows, verdicts)
    one.close()
    assert one.metrics(1.0)["team.people.busy_share"] == pytest.approx(0.9, abs=0.02)


def test_who_was_not_answered_by_a_model_comes_to_no_gate() -> None:
    rows, verdicts = ended(1000, 600.0)
    rows["outcome"][::2], rows["replica"][1::4], rows["pool"][3::8] = Outcome.FAILED, -1, 1
    one = contained({"below": 1.1})
    one.take(rows, verdicts)
    one.close()
    assert one.came[0, 0] == one.teams[0].escalated == 125


def test_reviewers_err_as_often_as_said() -> None:
    rows, verdicts = ended(100_000, 7200.0)
    one = contained({"below": 1.1}, reviewers=100_000, misses=0.2, false_alarms=0.05)
    one.take(rows, verdicts)
    one.close()
    team, right = one.teams[0], float((verdicts["wrong"] == 0).sum())
    assert team.caught / team.wrong == pytest.approx(0.8, abs=0.02)
    assert (team.reviewed_wrong - (team.wrong - team.caught)) / right == pytest.approx(0.05, abs=0.005)
