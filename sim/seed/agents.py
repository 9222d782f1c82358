"""Steps that must all be right: alone, sharing a task's difficulty, with a verifier, and one task again and again."""

import numpy as np

from sim.quality.chains import fit_beta, verified
from sim.seed.lab import Lab
from sim.seed.verdicts import Check, Found, exact
from sim.theory.chance import beta_compound, compound

TASKS = 200_000
HARD_TASKS = (1.9, 0.1)
"""Beta(1.9, 0.1): steps are 95% right on average, and tasks differ widely."""
VERIFIER = (0.8, 0.05)
"""Flags 80% of the wrong steps and 5% of the right ones."""
CONSISTENCY = (0.6, 8, 0.25)
"""One try in 60%, all of eight in 25%: about what tau-bench (arXiv 2406.12045) found for GPT-4o, 61% and below 25%."""


def _all_right(lab: Lab, p: float, steps: int) -> Check:
    """Tasks of *steps* that are right with chance *p* each: the first wrong step is geometric."""
    found = lab.sample(f"{steps} steps", lambda rng: float((rng.geometric(1 - p, TASKS) > steps).mean()))
    return Check("tasks that succeed", found, compound(p, steps), compound(p, steps), "share")


def five(lab: Lab) -> Found:
    """Claim 11: five steps."""
    check = _all_right(lab, 0.95, 5)
    stated = Check("tasks that succeed, rounded", exact(compound(0.95, 5)), 0.765, 0.775, "share")
    return Found([check, stated], f"0.95^5 = {compound(0.95, 5):.5f}, if each step fails by its own luck.")


def ten(lab: Lab) -> Found:
    """Claim 12: ten steps."""
    right = _all_right(lab, 0.99, 10).found
    found = type(right)(1 - right.estimate, 1 - right.high, 1 - right.low)
    exactly = 1 - compound(0.99, 10)
    checks = [
        Check("tasks that fail", found, exactly, exactly, "share"),
        Check("tasks that fail, rounded", exact(exactly), 0.095, 0.105, "share"),
    ]
    return Found(checks, f"1 - 0.99^10 = {exactly:.2%}.")


def whole(lab: Lab) -> Found:
    """Claim 13: what happens to the arithmetic when steps are not alone."""

    def draw(rng: np.random.Generator) -> list[float]:
        each = rng.beta(*HARD_TASKS, TASKS)
        alike = (rng.random((TASKS, 5)) < 0.95).all(axis=1).mean()
        return [float(alike), float((rng.random(TASKS) < each**5).mean())]

    alone, shared = lab.samples("wholes", draw)
    mended = verified(0.95, *VERIFIER).right
    steps = np.arange(1, 31)
    checks = [
        Check("succeed, if steps fail independently", alone, 0, 0.8, "share"),
        Check("succeed, if some tasks are hard and most easy", shared, 0, 0.8, "share"),
        Check("succeed, with a verifier that sees 80%", exact(compound(mended, 5)), 0, 0.8, "share"),
    ]
    why = (
        f"If steps fail independently. When tasks differ in difficulty, five steps succeed in "
        f"{beta_compound(*HARD_TASKS, 5):.0%}, and a verifier that sees 80% of the errors makes it "
        f"{compound(mended, 5):.1%} "
        f"for {verified(0.95, *VERIFIER).calls:.2f} calls a step."
    )
    data = {
        "steps": steps,
        "alone": 0.95**steps,
        "shared": np.array([beta_compound(*HARD_TASKS, int(n)) for n in steps]),
        "verified": mended**steps,
    }
    return Found(checks, why, data)


def sustained(lab: Lab) -> Found:
    """Claim 17: the same task, eight times and thirty times, all right."""
    mean, k, all_k = CONSISTENCY
    a, b = fit_beta(mean, k, all_k)

    def drop(rng: np.random.Generator) -> list[float]:
        p = rng.beta(a, b, TASKS)
        return [float(1 - (p**n).mean() / p.mean()) for n in (k, 30)]

    few, many = lab.samples("sustained", drop)
    checks = [
        Check("lost over 30 tries of a task", many, 0.75, 1, "share"),
        Check(f"lost over {k} tries of a task", few, 0.75, 1, "share"),
    ]
    tries = np.arange(1, 41)
    why = (
        f"We found no source. Published tests lose {few.estimate:.0%} over eight tries of the same task; 75% takes "
        "about "
        "thirty. That is consistency, and neither load nor time is in it."
    )
    data = {
        "tries": tries,
        "differ": np.array([beta_compound(a, b, int(n)) for n in tries]),
        "alike": mean ** tries.astype(float),
        "beta": (a, b),
    }
    return Found(checks, why, data)


MEASURES = {11: five, 12: ten, 13: whole, 17: sustained}
