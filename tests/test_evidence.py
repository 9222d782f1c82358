"""Evidence that a version is worse: it may be looked at always, and finds what is there."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sim.quality import sequential
from sim.quality.evidence import ODDS, log_ratios, mixed

RUNS, LOOKS = 2_000, 100


def arms(rate_old: float, rate_new: float, runs: int, seed: int = 1) -> np.ndarray:
    """Log evidence after each look (runs, looks) while the canary's share grows and the base rate drifts."""
    rng = np.random.default_rng(seed)
    n_new = np.repeat([10, 50, 100], [40, 40, 20])
    drift = np.linspace(0.5, 1.5, LOOKS)
    k_old = rng.binomial(200, rate_old * drift, (runs, LOOKS))
    k_new = rng.binomial(n_new, rate_new * drift, (runs, LOOKS))
    return mixed(np.cumsum(log_ratios(200, k_old, n_new, k_new), axis=1))


def test_equal_arms_raise_a_false_alarm_in_one_of_twenty_at_most_however_often_one_looks() -> None:
    alarms = (arms(0.02, 0.02, RUNS) >= math.log(20)).any(axis=1).mean()
    assert alarms <= 0.05
    assert alarms > 0.002, "a test that never alarms tells nothing"


def test_a_worse_arm_is_found_and_the_worse_the_sooner() -> None:
    when = []
    for rate in (0.04, 0.06, 0.12):
        crossed = arms(0.02, rate, 300, seed=2) >= math.log(20)
        assert crossed.any(axis=1).mean() > 0.8
        when.append(np.median(sequential.first(crossed)[crossed.any(axis=1)]))
    assert when == sorted(when, reverse=True)
    better = arms(0.02, 0.01, 300, seed=3)
    assert (better[:, -1] < 0).all()


@settings(max_examples=40, deadline=None)
@given(n0=st.integers(1, 60), n1=st.integers(1, 30), data=st.data())
def test_ratios_are_fishers_and_expect_one_while_arms_are_equal(n0: int, n1: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, min(12, n0 + n1)))
    split = np.arange(max(0, k - n0), min(k, n1) + 1)
    ratio = np.exp(log_ratios(n0, k - split, n1, split))
    equal = stats.hypergeom(n0 + n1, n1, k).pmf(split)
    assert equal @ ratio == pytest.approx(np.ones(len(ODDS)))
    if k:
        worse = stats.nchypergeom_fisher(n0 + n1, n1, k, ODDS[3]).pmf(split)
        assert worse == pytest.approx(equal * ratio[:, 3], abs=1e-9)


def test_pairs_of_a_shadow_are_coins_while_both_are_as_good() -> None:
    rng = np.random.default_rng(4)
    tosses = np.cumsum(rng.binomial(1, 0.5, (RUNS, LOOKS)), axis=1)
    crossed = sequential.log_evidence(tosses, np.arange(1, LOOKS + 1), 0.5, (1.0, 1.0)) >= math.log(20)
    assert 0.005 < crossed.any(axis=1).mean() <= 0.05
