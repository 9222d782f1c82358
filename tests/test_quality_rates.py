"""Right and wrong in closed form: the article's numbers, formulas against simulation, what holds for any numbers.

Numbers marked statsmodels were printed by statsmodels 0.15.0, which is not among the dependencies.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from sim.quality import budgets, chains, decision, delays, mix, rates, sampling, spread, volume
from sim.rng import stream
from sim.theory.chance import Interval, beta_compound, clopper_pearson, compound
from sim.theory.counted import wilson

SHARES = st.floats(0.001, 0.999)


def test_the_numbers_of_the_article() -> None:
    assert compound(0.95, 5) == pytest.approx(0.7737809375)
    assert 1 - compound(0.99, 10) == pytest.approx(0.0956, abs=5e-5)
    found = volume.volume(10e6, 0.01, peak=2)
    assert found == pytest.approx((100_000, math.sqrt(100_000), 69.444, 138.889), rel=1e-4)
    assert volume.reached_s(1e6, 24 * 10e6 * 0.01) == 10 * 3600
    assert volume.record_error(0.01, 30) == pytest.approx(0.2603, abs=5e-5)
    exact = clopper_pearson(20, 2000)
    assert (exact.low, exact.high) == pytest.approx((0.0061, 0.0154), abs=5e-5)


def test_a_million_is_later_after_a_quiet_night_and_the_curve_agrees() -> None:
    per_day, peak = 2.4e6, 1.8
    at_s = volume.reached_s(1e6, per_day, peak)
    assert 12 * 3600 < at_s < 15 * 3600

    def rate(t: float) -> float:
        return per_day / 86400 * (1 + (peak - 1) * math.cos(2 * math.pi * (t - volume.PEAK_AT_S) / 86400))

    assert integrate.quad(rate, 0, at_s)[0] == pytest.approx(1e6)
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        volume.volume(1e6, 0.01, peak=3)


@given(SHARES, st.integers(1, 1000))
def test_the_error_of_a_segment_gives_the_error_of_its_record(error: float, segments: int) -> None:
    assert volume.record_error(volume.segment_error(error, segments), segments) == pytest.approx(error)


def test_sizes_of_samples_are_those_of_the_notes_and_have_the_power_they_claim() -> None:
    assert rates.to_see(0.005) == 598
    assert rates.to_notice(0.01, 0.02) == 793
    assert rates.to_notice(0.01, 0.012) == pytest.approx(16_000, rel=0.02)
    assert rates.to_notice(0.01, 0.02, arms=2) == 1826  # statsmodels: 1825.9
    n = rates.to_notice(0.1, 0.11)
    limit = stats.binom.isf(0.05, n, 0.1)
    assert stats.binom.sf(limit, n, 0.11) == pytest.approx(0.8, abs=0.015)
    assert (1 - 0.005) ** rates.to_see(0.005) <= 0.05 < (1 - 0.005) ** (rates.to_see(0.005) - 1)


def test_newcombes_interval_of_a_difference() -> None:
    assert rates.difference((20, 2000), (40, 2000)) == pytest.approx(
        (0.01, 0.002451734, 0.017940148), abs=1e-8
    )  # statsmodels
    assert rates.difference((1, 500), (3, 200)) == pytest.approx((0.013, -0.000532145, 0.041213834), abs=1e-8)


def test_an_estimate_worth_n_plain_answers_has_wilsons_interval() -> None:
    p, n = 0.03, 500
    assert rates.effective(p, p * (1 - p) / n, n) == pytest.approx(wilson(15, 500))
    assert rates.effective(0.0, 0.0, n) == pytest.approx(wilson(0, 500))


def test_verifiers_and_retries() -> None:
    step = chains.verified(0.95, 0.8, 0.05)
    assert step == pytest.approx((0.98904, 1.0959), abs=5e-5)
    assert step.right**5 == pytest.approx(0.9464, abs=5e-5)
    some = [chains.verified(0.95, 0.8, 0.05, retries).right ** 5 for retries in (1, 2, 3)]
    assert some == pytest.approx([0.9302, 0.9450, 0.9463], abs=5e-5)
    assert chains.verified(0.95, 0.8, 0.05, 0) == pytest.approx((0.95, 1.0))


@given(SHARES, SHARES, st.floats(0, 0.9), st.integers(0, 6), st.floats(0, 0.9))
def test_a_verified_step_is_the_chain_it_says(p: float, d: float, f: float, retries: int, systematic: float) -> None:
    """The same by walking through the tries one by one."""

    def walk(chance: float, left: int) -> tuple[float, float]:
        flagged = chance * f + (1 - chance) * d
        if left == 0:
            return chance, 1.0
        right, calls = walk(chance, left - 1)
        return chance * (1 - f) + flagged * right, 1 + flagged * calls

    (right, calls), (_, confirmed), (_, wasted) = (walk(chance, retries) for chance in (p, 1.0, 0.0))
    tied = p, p * confirmed + (1 - p) * wasted
    expected = [(1 - systematic) * fresh + systematic * same for fresh, same in zip((right, calls), tied)]
    assert chains.verified(p, d, f, retries, systematic) == pytest.approx(expected)


def test_tasks_that_differ() -> None:
    assert beta_compound(19, 1, 5) == pytest.approx(0.7917, abs=5e-5)
    a, b = chains.fit_beta(0.6, 8, 0.25)
    assert (a, b) == pytest.approx((0.768, 0.512), abs=5e-4)
    assert [beta_compound(a, b, k) for k in (1, 4, 8, 16)] == pytest.approx([0.6, 0.346, 0.25, 0.178], abs=5e-4)
    p = stream(1, "test.pass").beta(a, b, 200_000)
    assert (p**8).mean() == pytest.approx(0.25, abs=0.004)
    with pytest.raises(ValueError, match=r"pass\^8 between"):
        chains.fit_beta(0.6, 8, 0.7)


def test_voting_mends_random_errors_only() -> None:
    assert rates.majority(0.05) == pytest.approx(0.00725)
    assert rates.majority(1.0) == 1.0


def test_errors_on_the_same_users_are_told_from_random_ones() -> None:
    rng = stream(1, "test.spread")
    asked = rng.integers(5, 60, 4000)
    random = spread.dispersion(rng.binomial(asked, 0.05), asked)
    same = spread.dispersion(rng.binomial(asked, rng.beta(0.45, 8.55, 4000)), asked)
    assert random.p_value > 0.01
    assert random.icc < 0.01
    assert same.p_value < 1e-6
    assert same.icc == pytest.approx(0.1, abs=0.02)  # 1 / (a + b + 1)
    assert same.gini > random.gini
    assert spread.gini([1, 1, 1, 1]) == 0
    assert spread.gini([0, 0, 0, 1]) == 0.75
    users, held = spread.lorenz([3, 1])
    assert (users.tolist(), held.tolist()) == ([0, 0.5, 1], [0, 0.25, 1])


def test_the_mix_of_the_notes() -> None:
    found = mix.shift([0.9, 0.09, 0.01], [0.995, 0.97, 0.70], [0.6, 0.25, 0.15])
    assert (found.before, found.after) == pytest.approx((0.9898, 0.9445))
    assert found.rate.sum() == 0
    assert mix.shift([0.9, 0.09, 0.01], [0.995, 0.97, 0.70], [0.4, 0.3, 0.3]).after == pytest.approx(0.899)
    assert mix.worse_by(0.99, 0.2) == pytest.approx((0.792, 0.79, 0.988))
    assert mix.worse_by(0.99, 0.4) == pytest.approx((0.594, 0.59, 0.986))


@given(st.lists(st.tuples(SHARES, SHARES, SHARES, SHARES), min_size=1, max_size=6))
def test_both_ways_to_split_a_difference_add_up(cohorts: list[tuple[float, float, float, float]]) -> None:
    w, r, v, s = np.array(cohorts).T
    found = mix.shift(w / w.sum(), r, v / v.sum(), s)
    change = found.after - found.before
    assert found.mix.sum() + found.rate.sum() == pytest.approx(change, abs=1e-12)
    parts = found.endowment.sum() + found.coefficient.sum() + found.interaction.sum()
    assert parts == pytest.approx(change, abs=1e-12)


def test_kinds_never_seen() -> None:
    rng = stream(1, "test.unseen")
    kinds = 1 / np.arange(1, 2001)
    kinds /= kinds.sum()
    inside = 0
    for _ in range(300):
        counts = rng.multinomial(400, kinds)
        found = mix.unseen(counts)
        inside += found.low <= kinds[counts == 0].sum() <= found.high
    assert 0.92 <= inside / 300 <= 0.98


def test_budgets() -> None:
    rows = budgets.table(0.02)
    assert [row.error for row in rows] == pytest.approx([0.288, 0.12, 0.06, 0.02])
    assert [row.spent for row in rows] == pytest.approx([0.02, 0.05, 0.1, 0.1])
    assert [row.reachable for row in budgets.table(0.1)] == [False, True, True, True]
    assert budgets.burn(0.01, 0.02) == 0.5
    assert budgets.blindness(0.99) == pytest.approx((0.109, 10.9))
    assert budgets.blindness(0.8)[1] == pytest.approx(1.4)


def test_what_seeing_late_costs() -> None:
    days = [delays.excess(s, 10e6 / 86400, 0.02) for s in (300, 6 * 3600, 86400, 7 * 86400)]
    assert days == pytest.approx([694.4, 50_000, 200_000, 1_400_000], rel=1e-3)
    rng = stream(1, "test.lag")
    at_s = np.sort(rng.uniform(0, 86400, 400_000))
    told = delays.reports(rng, at_s, 0.02, 6 * 3600, 1.0)
    for t in (3 * 3600, 12 * 3600, 86400):
        expected = delays.reported(t, 400_000 / 86400, 0.02, 6 * 3600, 1.0)
        assert abs((told <= t).sum() - expected) < 4 * math.sqrt(expected)
    noticed = delays.noticed_s(2.3, 0.02, 6 * 3600, 1.0, background_per_s=0.1)
    assert delays.reported(noticed, 2.3, 0.02, 6 * 3600, 1.0) == pytest.approx(3 * math.sqrt(0.1 * noticed))


def sure(p: float) -> Interval:
    return Interval(p, p, p)


def test_good_enough() -> None:
    stakes = decision.Stakes(wrong=50, review=0.5, reversible=0.9, detectable=0.3, catch=0.9)
    assert stakes.harm == pytest.approx(50 * 0.73 + 0.5 * 0.27)
    assert decision.decide(sure(0.01), stakes).choice == "ship"
    assert decision.decide(sure(0.02), stakes).choice == "review"
    assert decision.decide(clopper_pearson(20, 2000), stakes).choice == "unsure"
    assert decision.repair_hours(100_000, 600) == pytest.approx((16_667, 2083), rel=1e-3)


@given(st.floats(0.01, 1e4), st.floats(0.001, 100), SHARES, SHARES, SHARES, SHARES)
def test_the_choice_is_the_cheaper_one(
    wrong: float, review: float, reversible: float, detectable: float, catch: float, error: float
) -> None:
    made = decision.decide(sure(error), decision.Stakes(wrong, review, reversible, detectable, catch))
    assert (made.choice == "ship") == (made.ship_cost < made.review_cost) or math.isclose(error, made.break_even)


COHORTS = st.lists(st.tuples(SHARES, st.floats(0.001, 0.6)), min_size=2, max_size=6)


@given(COHORTS, st.lists(st.floats(0.05, 1), min_size=6, max_size=6))
def test_no_allocation_is_better_than_neymans(cohorts: list[tuple[float, float]], other: list[float]) -> None:
    w, p = np.array(cohorts).T
    w = w / w.sum()
    n = 1000
    best = sampling.variance(w, p, n * sampling.neyman(w, p))
    assert best == pytest.approx((w * np.sqrt(p * (1 - p))).sum() ** 2 / n)
    weights = np.array(other[: w.size]) / sum(other[: w.size])
    for allocation in (sampling.proportional(w), sampling.equal(w), weights):
        assert best <= sampling.variance(w, p, n * allocation) * (1 + 1e-9)


@given(st.integers(6, 5000), st.lists(SHARES, min_size=1, max_size=6))
def test_whole_sizes_add_up(total: int, weights: list[float]) -> None:
    sizes = sampling.whole(total, weights)
    assert sizes.sum() == total
    assert sizes.min() >= 1


def test_stratified_estimates_vary_as_said() -> None:
    rng = stream(2, "test.strata")
    w, p = np.array([0.9, 0.095, 0.005]), np.array([0.005, 0.03, 0.4])
    sizes = sampling.whole(2000, sampling.neyman(w, p))
    wrong = rng.binomial(sizes, p, (3000, 3))
    assert (w * wrong / sizes).sum(axis=1).var() == pytest.approx(sampling.variance(w, p, sizes), rel=0.1)


def test_many_tests_at_once() -> None:
    p = [0.01, 0.04, 0.03, 0.005, 0.2]
    assert sampling.holm(p) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.2])  # statsmodels


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_of_cohorts_alike_one_is_called_worse_in_at_most_5_percent_of_files(share: float) -> None:
    rng, answers = stream(3, "test.worse"), np.array([2000, 500, 300, 100, 40])
    files = [sampling.worse_than_the_others(rng.binomial(answers, share), answers) for _ in range(1000)]
    alarms = np.mean([(p < 0.05).any() for p in files])
    assert alarms <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_a_cohort_that_is_worse_is_found_and_no_other() -> None:
    p = sampling.worse_than_the_others([20, 30, 3], [2000, 500, 300])
    assert (p < 0.05).tolist() == [False, True, False]
    table = [[30, 470], [23, 2277]]
    assert p[1] == pytest.approx(3 * stats.fisher_exact(table, alternative="greater").pvalue)


def test_detection_grades_small_cohorts_as_much_as_large_ones() -> None:
    even = sampling.for_detection([0.01, 0.01, 0.01], [0.02, 0.02, 0.02])
    assert even == pytest.approx([1 / 3] * 3)
    harder = sampling.for_detection([0.01, 0.10], [0.02, 0.11])
    assert harder[0] == pytest.approx(1 - harder[1])
    assert 0.85 < harder[1] < 0.9


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: rates.to_see(0.0),
        lambda: rates.to_notice(0.1, 0.1),
        lambda: rates.to_notice(0.1, 0.2, arms=3),
        lambda: rates.to_estimate(0.1, 0),
        lambda: rates.majority(0.1, 2),
        lambda: chains.verified(1.2, 0.5),
        lambda: chains.verified(0.9, 0.5, retries=-1),
        lambda: volume.record_error(0.1, 0),
        lambda: mix.shift([0.5, 0.6], [0.1, 0.1], [0.5, 0.5]),
        lambda: mix.unseen([]),
        lambda: spread.dispersion([0, 0], [5, 5]),
        lambda: spread.gini([0.0]),
        lambda: budgets.table(0.0),
        lambda: delays.noticed_s(0, 0.1, 1, 1),
        lambda: decision.decide(sure(0.1), decision.Stakes(-1, 1)),
        lambda: sampling.whole(2, [1, 1, 1]),
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(ValueError):
        wrong()
