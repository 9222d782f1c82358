"""How an error rate is known: grading, judges that err, signals that lag, and what moves together without a cause."""

import math

import numpy as np

from sim.quality import delays, gates, judges, latent
from sim.seed.lab import Lab
from sim.seed.verdicts import Check, Found, exact

PER_S = 10e6 / 86400
SENSITIVITY, SPECIFICITY = 0.9, 0.95
ERROR = 0.01
KAPPA, HELD = 2.0, 0.05
"""How well the model knows when it is wrong (small: well), and the share of answers that people look at first."""
HUMAN = 2200
"""Answers that people grade: 2,000 of them to learn the judge's false alarms, 200 to learn its misses."""


def layers(lab: Lab) -> Found:
    """Claim 23: advice."""
    return Found([], "Advice, not a measurement. Claims 22, 24 and 53 show failures that only one kind of signal sees.")


def grading(lab: Lab) -> Found:
    """Claim 26: does the interval contain the truth?"""
    runs = 300

    def covers(rng: np.random.Generator) -> float:
        hits = 0
        for _ in range(runs):
            flagged = rng.binomial(2000, judges.apparent(ERROR, SENSITIVITY, SPECIFICITY))
            known = (int(rng.binomial(200, SENSITIVITY)), 200), (int(rng.binomial(2000, SPECIFICITY)), 2000)
            found = judges.rogan_gladen((int(flagged), 2000), *known)
            hits += found.low <= ERROR <= found.high
        return hits / runs

    check = Check("of 95% intervals that contain the true rate", lab.sample("grading", covers), 0.92, 1, "share")
    why = (
        f"A judge that sees 90% of the wrong answers and passes 95% of the right ones reports "
        f"{judges.apparent(ERROR, SENSITIVITY, SPECIFICITY):.2%} where 1% is wrong. Corrected for what it is known "
        "to miss, its "
        "intervals contain the truth. Check it on answers of each kind."
    )
    return Found([check], why)


def forecast(lab: Lab) -> Found:
    """Claim 27: nothing to simulate."""
    return Found([], "A forecast of an analyst. Nothing here can say whether it comes true, and we do not repeat it.")


SIGNALS = {
    "schema check, 5 min": 300.0, "graded sample, 1 h": 3600.0, "complaints, 6 h": 6 * 3600.0,
    "dashboards, 24 h": 86400.0,
    "business figures, 7 d": 7 * 86400.0,
}  # fmt: skip


def lag(lab: Lab) -> Found:
    """Claim 28: complaints, and what users meet until then."""
    rise = 0.02

    def noticed(rng: np.random.Generator) -> float:
        horizon = 2 * 86400
        wrong = np.sort(rng.uniform(0, horizon, rng.poisson(PER_S * rise / 10 * horizon)))  # a tenth of the traffic
        told = delays.reports(rng, wrong, 0.02, 24 * 3600, 1.0)
        noise = np.sort(rng.uniform(0, horizon, rng.poisson(0.05 * horizon / 10)))
        hours = np.arange(1, 49) * 3600
        seen, usual = np.searchsorted(told, hours), 0.005 * hours
        stands_out = seen + np.searchsorted(noise, hours) - usual > 3 * np.sqrt(usual)
        return float(hours[stands_out.argmax()] / 3600) if stands_out.any() else math.inf

    found = lab.sample("lag", noticed)
    missed = {name: delays.excess(s, PER_S, rise) for name, s in SIGNALS.items()}
    why = (
        "If 2% of the people told something wrong complain, after a day in the median, it stands out after "
        f"{found.estimate:.0f} h. "
        f"Two points worse cost {missed['schema check, 5 min']:,.0f} wrong answers in 5 minutes, "
        f"{missed['complaints, 6 h']:,.0f} in "
        f"6 h, {missed['dashboards, 24 h']:,.0f} in a day and {missed['business figures, 7 d']:,.0f} in a week."
    )
    return Found([Check("hours until complaints stand out", found, 1, 7 * 24, "h")], why, {"missed": missed})


def together(lab: Lab) -> Found:
    """Claim 54: what the same 2,200 human grades are worth."""
    human = ERROR * (1 - ERROR) / HUMAN
    share = judges.best_split(ERROR, SENSITIVITY, SPECIFICITY)
    flagged, passed = share * HUMAN, (1 - share) * HUMAN
    pointed = judges.two_phase_variance(ERROR, SENSITIVITY, SPECIFICITY, 1e6, flagged, passed)
    w = judges.apparent(ERROR, SENSITIVITY, SPECIFICITY)
    measured = judges.corrected_variance(ERROR, SENSITIVITY, SPECIFICITY, 1e6, 2000, 200)

    def spread(rng: np.random.Generator) -> float:
        runs = 4000
        high = rng.binomial(round(flagged), ERROR * SENSITIVITY / w, runs) / round(flagged)
        low = rng.binomial(round(passed), ERROR * (1 - SENSITIVITY) / (1 - w), runs) / round(passed)
        return float(human / (w * high + (1 - w) * low).var())

    found = lab.sample("judge points", spread)
    checks = [
        Check(
            "variance of human grades alone, over that with a judge who says where to look", found, 1, np.inf, "times"
        ),
        Check("the same, over a judge who counts and is corrected", exact(human / measured), 1, np.inf, "times"),
    ]
    why = (
        f"A judge who says where people should look (41% of their time on what it flags) makes 2,200 grades worth "
        f"{found.estimate:.1f} times as many. A judge who counts in their stead makes them worth "
        f"{human / measured:.2f} times: at 1% "
        "wrong most of what it flags is right. A schema check errs in neither way, and needs nobody."
    )
    data = {
        "variance": {"people alone": human, "judge points, people grade": pointed, "judge counts, corrected": measured}
    }
    return Found(checks, why, data)


def correlated(lab: Lab) -> Found:
    """Claim 55: slow hours, wrong hours, and who asks then."""

    def hours(rng: np.random.Generator, coupled: bool) -> list[float]:
        hour = np.arange(14 * 24)
        day = 0.5 + 0.5 * np.sin(2 * np.pi * hour / 24)
        hard = 0.1 + 0.3 * day  # by day people bring the hard questions
        slow = 0.3 + 0.7 * day + rng.normal(0, 0.15, hour.size)
        extra = 0.04 * np.clip(slow - 0.5, 0, None) if coupled else 0.0
        asked = 20_000
        p_easy, p_hard = 0.005 + extra, 0.05 + extra
        n_hard = rng.binomial(asked, hard)
        wrong_hard = rng.binomial(n_hard, p_hard)
        wrong_easy = rng.binomial(asked - n_hard, p_easy)
        raw = np.corrcoef(slow, (wrong_hard + wrong_easy) / asked)[0, 1]
        within = np.corrcoef(slow, wrong_easy / (asked - n_hard))[0, 1]
        return [float(raw), float(within)]

    off = lab.samples("uncoupled", lambda rng: hours(rng, False))
    on = lab.samples("coupled", lambda rng: hours(rng, True))
    checks = [
        Check("correlation within a group, where slowness does harm quality", on[1], 0.2, 1),
        Check("correlation of all, where it does not", off[0], -0.2, 0.2),
    ]
    why = (
        f"They correlate ({off[0].estimate:.2f}) even if slowness harms nothing, because harder questions come in "
        "busy hours. Within "
        f"one group of questions it is {off[1].estimate:.2f}, and {on[1].estimate:.2f} if slowness does harm: look "
        "there."
    )
    return Found(checks, why)


def teams(lab: Lab) -> Found:
    """Claim 56: nothing to simulate."""
    return Found([], "A statement about teams, without a source. It needs a survey, not a simulator.")


def systems(lab: Lab) -> Found:
    """Claim 57: the same model, the same error rate, another system around it."""

    def harm(rng: np.random.Generator) -> float:
        def day(noticed_s: float, left: float) -> float:
            extra = rng.poisson(delays.excess(min(noticed_s, 86400), PER_S, 0.02))
            return float((rng.poisson(1e5) + extra) * left)

        one = latent.draw(rng, 500_000, 1 - ERROR, KAPPA)
        caught = gates.judge(gates.of_share(one.confidence, HELD), one.confidence, one.correct).caught.estimate
        return day(86400, 1.0) / day(300, 1 - caught)

    found = lab.sample("systems", harm)
    why = (
        "The same model, 1% wrong, two points worse from midnight on. Noticed next day and passed on as it is, or "
        "noticed in "
        f"five minutes with the least sure 5% held back: {found.estimate:.0f} times the harm, and the accuracy is "
        "the same."
    )
    return Found(
        [Check("wrong answers that reach users, the one system over the other", found, 10, np.inf, "times")], why
    )


MEASURES = {
    23: layers, 26: grading, 27: forecast, 28: lag, 54: together, 55: correlated, 56: teams, 57: systems,
}  # fmt: skip
