"""The same share, differently spread: over groups, over users, over a test set and production, over a sample."""

from functools import partial

import numpy as np
from scipy import stats

from sim.quality import mix, rates, spread
from sim.quality.sampling import neyman, whole
from sim.seed.lab import DRAWN_CONFIDENCE, Lab
from sim.seed.verdicts import Check, Found, exact
from sim.theory.chance import Interval, student_interval

ACCURACY = np.array([0.995, 0.97, 0.70])
"""Of common, uncommon and rare requests."""
TESTED, MET, HARDER = np.array([0.9, 0.09, 0.01]), np.array([0.6, 0.25, 0.15]), np.array([0.4, 0.3, 0.3])
"""The mix of a test set, and two of production: more of what is rare."""
GROUP, BEFORE, AFTER = 0.005, 0.05, 0.4
"""A group of 0.5% of the traffic whose error turns from 5% to 40%."""
OTHERS = (0.0089 - GROUP * BEFORE) / (1 - GROUP)
"""The error of all others, so that the whole begins at 0.89%."""
GRADED, HOURS, FALSE = 1000, 48, 0.0035
"""Answers graded an hour, for how long, and the chance of a false alarm in all of that."""
LOTS = 400


def test_set(lab: Lab) -> Found:
    """Claim 8: other users, the same model."""

    def gap(rng: np.random.Generator) -> float:
        tested, met = (rng.multinomial(200_000, w) for w in (TESTED, MET))
        return float(sum(rng.binomial(n, 1 - ACCURACY).sum() * sign for n, sign in ((met, 1), (tested, -1)))) / 200_000

    check = Check("error in production above that of the test", lab.sample("shift", gap), 1e-4, 1, "share")
    moved = mix.shift(TESTED, ACCURACY, MET)
    why = (
        f"The same model, group by group, is {moved.before:.2%} right on the test's mix and {moved.after:.2%} on "
        f"production's: {(1 - moved.after) / (1 - moved.before):.1f} times the errors, all of it because of who asks."
    )
    return Found([check], why)


def worse(lab: Lab) -> Found:
    """Claim 9: worse by how much of what?"""
    before = float(TESTED @ ACCURACY)
    tail = np.linspace(0.01, 1, 100)
    accuracy = (1 - tail) * float(TESTED[:2] @ ACCURACY[:2] / TESTED[:2].sum()) + tail * ACCURACY[2]
    lost = [1 - float(w @ ACCURACY) / before for w in (MET, HARDER, np.array([0, 0, 1]))]
    checks = [
        Check("of accuracy lost, if all requests are rare ones", exact(lost[2]), 0.2, 0.4, "share"),
        Check("of accuracy lost, if 30% are", exact(lost[1]), 0.2, 0.4, "share"),
        Check("more errors, if 15% are", exact((1 - float(MET @ ACCURACY)) / (1 - before) - 1), 0.2, 0.4, "share"),
    ]
    reading = mix.worse_by(0.99, 0.2)
    why = (
        f"20% worse than 99% is {reading.relative_accuracy:.1%}, {reading.percentage_points:.0%} or "
        f"{reading.relative_error:.1%}, as one reads it: twentyfold apart. We found no source. A mix with 30% rare "
        "requests "
        f"loses {lost[1]:.0%} of its accuracy."
    )
    return Found(checks, why, {"tail": tail, "accuracy": accuracy, "before": before})


def never_met(lab: Lab) -> Found:
    """Claim 10: kinds of failure by Zipf, and a test set of 2,000."""
    kinds = 1 / np.arange(1, 1001)
    kinds /= kinds.sum()

    def unseen(rng: np.random.Generator) -> float:
        met = rng.multinomial(rng.binomial(2000, 0.01), kinds)
        return float(kinds[met == 0].sum())

    found = lab.sample("unseen", unseen)
    why = (
        f"If kinds of failure are as unequal as words are (Zipf), the 20 failures of a test of 2,000 leave "
        f"{found.estimate:.0%} of production's failures of a kind never met. To meet one in a thousand takes "
        f"{rates.to_see(0.001):,} answers."
    )
    return Found([Check("of failures are of a kind the test never met", found, 0.05, 1, "share")], why)


def average(lab: Lab) -> Found:
    """Claim 15: a small group and the average."""
    n = 1_000_000

    def draw(rng: np.random.Generator) -> list[float]:
        few = int(n * GROUP)
        wrong = rng.binomial(few, AFTER)
        return [1 - float(wrong + rng.binomial(n - few, OTHERS)) / n, 1 - wrong / few]

    overall, group = lab.samples("average", draw)
    checks = [
        Check("right overall, after it broke for one group", overall, 0.985, 1, "share"),
        Check("right for that group", group, 0, 0.65, "share"),
    ]
    why = f"A group of 0.5% falls from 95% to 60% right, and the average from 99.11% to {overall.estimate:.2%}."
    return Found(checks, why)


def _users(rng: np.random.Generator, systematic: bool) -> np.ndarray:
    """Wrong answers of 20,000 users who ask 30 times: by luck, or always the same 1% of them."""
    users, asked = 20_000, 30
    return rng.binomial(asked, 0.01, users) if not systematic else asked * (rng.random(users) < 0.01)


def _hit_twice(rng: np.random.Generator, systematic: bool) -> float:
    """Return the share of users who met two wrong answers or more."""
    return float((_users(rng, systematic) >= 2).mean())


def patterns(lab: Lab) -> Found:
    """Claim 40: the same share, evenly or on few."""

    def draw(rng: np.random.Generator) -> list[float]:
        even, few = _users(rng, False), _users(rng, True)
        return [few.mean() / even.mean(), spread.gini(few) - spread.gini(even), (even >= 2).mean(), (few >= 2).mean()]

    rate, gap, _, _ = lab.samples("patterns", draw)
    rng = np.random.default_rng(0)
    curves = {name: spread.lorenz(_users(rng, name == "few")) for name in ("even", "few")}
    even, few = (lab.sample(f"two or more {int(s)}", partial(_hit_twice, systematic=s)) for s in (False, True))
    checks = [
        Check("the same share of wrong answers: ratio", rate, 1, 1, "times"),
        Check("more unevenly spread: Gini", gap, 0.1, 1),
    ]
    why = (
        f"1% wrong either way. By luck {even.estimate:.1%} of the users meet two or more a month, and hardly anyone "
        f"ten; if it is systematic, {few.estimate:.1%} meet nothing else and 99% nothing at all."
    )
    return Found(checks, why, {"curves": curves})


def measured(lab: Lab) -> Found:
    """Claim 44: what one number more shows."""

    def draw(rng: np.random.Generator) -> list[float]:
        return [spread.dispersion(_users(rng, s), np.full(20_000, 30)).ratio for s in (False, True)]

    even, few = lab.samples("measured", draw)
    checks = [
        Check("variance over that of chance, errors at random", even, 1, 1, "times"),
        Check("variance over that of chance, errors on the same users", few, 2, np.inf, "times"),
    ]
    return Found(checks, f"The share is 1% for both. One number more, the dispersion, is 1 or {few.estimate:.0f}.")


def voting(lab: Lab) -> Found:
    """Claim 45: asking three times."""
    n = 500_000

    def draw(rng: np.random.Generator) -> list[float]:
        luck = (rng.random((n, 3)) < 0.05).sum(axis=1) >= 2
        same = rng.random(n) < 0.05
        return [float(luck.mean()), float(same.mean())]

    luck, same = lab.samples("voting", draw)
    mended = rates.majority(0.05)
    checks = [
        Check("wrong of the majority of three, errors at random", luck, mended, mended, "share"),
        Check("wrong of the majority of three, errors systematic", same, 0.05, 0.05, "share"),
    ]
    return Found(
        checks, f"5% wrong: a vote of three leaves {mended:.2%} of the random ones, and all of the systematic ones."
    )


def _noticed(rng: np.random.Generator, sizes: np.ndarray, by_group: bool) -> np.ndarray:
    """Hours until a binomial test at each hour's end says worse, (LOTS,), inf if not within HOURS.

    The level is shared by all looks (Bonferroni), and by both groups where each has its own test.
    """
    group = rng.binomial(sizes[0], AFTER, (LOTS, HOURS))
    others = rng.binomial(sizes[1], OTHERS, (LOTS, HOURS))
    if by_group:
        level = FALSE / HOURS / 2
        alarm = stats.binom.sf(group - 1, sizes[0], BEFORE) <= level
        alarm |= stats.binom.sf(others - 1, sizes[1], OTHERS) <= level
    else:
        alarm = stats.binom.sf(group + others - 1, GRADED, 0.0089) <= FALSE / HOURS
    return np.where(alarm.any(axis=1), alarm.argmax(axis=1) + 1.0, np.inf)


def sample(lab: Lab) -> Found:
    """Claim 53: a small group breaks, and who notices."""
    shares, before = np.array([GROUP, 1 - GROUP]), np.array([BEFORE, OTHERS])
    plans = {
        "uniform sample, one test for all": (whole(GRADED, shares), False),
        "uniform sample, a test for each group": (whole(GRADED, shares), True),
        "Neyman's sample, a test for each group": (whole(GRADED, neyman(shares, before)), True),
        "as many of each group, a test for each": (np.array([GRADED // 2, GRADED // 2]), True),
    }
    times = {}
    for name, plan in plans.items():
        times[name] = np.stack([_noticed(np.random.default_rng([53, seed]), *plan) for seed in range(10)])
    counted = {name: student_interval(np.isfinite(t).mean(axis=1), DRAWN_CONFIDENCE) for name, t in times.items()}
    seen = {name: Interval(x.estimate, max(0.0, x.low), min(1.0, x.high)) for name, x in counted.items()}  # of shares
    medians = {name: float(np.median(t)) for name, t in times.items()}
    first, second, _, last = plans
    checks = [
        Check("noticed within 48 h from a uniform sample", seen[first], 0, 0.5, "share"),
        Check("noticed within 48 h from a stratified one", seen[last], 0.99, 1, "share"),
    ]
    why = (
        f"A group of 0.5% turns from 5% to 40% wrong: {seen[first].estimate:.0%} against {seen[last].estimate:.0%} "
        "within two "
        f"days. But half of it is testing each group by itself: with that a uniform sample sees it too, after "
        f"{medians[second]:.0f} h instead of {medians[last]:.0f} (medians)."
    )
    return Found(checks, why, {"times": {name: np.sort(t.ravel()) for name, t in times.items()}, "hours": HOURS})


MEASURES = {
    8: test_set, 9: worse, 10: never_met, 15: average, 40: patterns, 44: measured, 45: voting, 53: sample,
}  # fmt: skip
