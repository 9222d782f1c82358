"""The same numbers twice: by closed form, and from the shipped scenarios that play what these are about.

A formula says what must come out under its assumptions. A scenario has queues, time-outs, delays and people. Where the
assumptions are the same the interval must contain the formula (`Twice.as_said`); where they are not, it says why.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import stats

from sim.quality.chains import verified
from sim.seed.lab import Lab
from sim.seed.verdicts import Twice
from sim.theory.chance import beta_compound, compound
from sim.theory.queues import erlang_a

Told = dict[int, list[Twice]]
"""By the number of the claim."""
HARD_TASKS = (1.9, 0.1)
STEP, VERIFIER = 0.95, (0.8, 0.05)


def _delivered_right(found: Mapping[str, np.ndarray], cohort: str, replicas: int) -> np.ndarray:
    """Return the share of right ones among the tasks that were delivered, by seed."""
    ok, wrong = (found[f"cohort.{cohort}.task_{end}[{replicas}]"] for end in ("ok", "wrong"))
    return np.asarray(ok / (ok + wrong))


def agents(lab: Lab) -> Told:
    """Claims 11 to 13: tasks whose steps are requests on a fleet that has room, and on half of it."""
    name = "agent-compounding"
    cohorts = ("plain", "long", "uneven", "verified")
    ends = [f"cohort.{c}.task_{end}[2]" for c in cohorts for end in ("ok", "wrong")]
    busy = [f"cohort.{c}.task_success[1]" for c in ("plain", "long")]
    found = lab.values(name, [*ends, *busy], ["duration=2m"] if lab.fast else ())
    right = {c: lab.interval(_delivered_right(found, c, 2)) for c in cohorts}
    late = "one replica of two is away: steps time out, and their tasks are given up"
    step = verified(STEP, *VERIFIER, retries=2)

    def twice(what: str, formula: float, played: Any, differs: str = "") -> Twice:
        return Twice(what, formula, played, name, "share", differs)

    return {
        11: [
            twice("five steps of 95%: right, of tasks delivered", compound(STEP, 5), right["plain"]),
            twice("the same of all tasks, on a fleet too small", compound(STEP, 5), lab.interval(found[busy[0]]), late),
        ],
        12: [
            twice("ten steps of 99%: right, of tasks delivered", compound(0.99, 10), right["long"]),
            twice(
                "the same of all tasks, on a fleet too small", compound(0.99, 10), lab.interval(found[busy[1]]), late
            ),
        ],
        13: [
            twice("five steps, where tasks differ: right", beta_compound(*HARD_TASKS, 5), right["uneven"]),
            twice("five steps, a verifier, two retries: right", compound(step.right, 5), right["verified"]),
        ],
    }


def _caught(mean: float, kappa: float, limit: float) -> float:
    """Return the share of errors among answers whose chance to be right is below *limit*: E[(1 - p); p < limit]."""
    return float(stats.beta(kappa * mean, kappa * (1 - mean) + 1).cdf(limit))


def gate(lab: Lab) -> Told:
    """Claims 19 and 47: a gate before a team that is large enough."""
    name, kappa, mean, shift = "confidence-gate", 2.0, 0.99, 3.0
    asked = ["fixed.caught_share[0, 2]", "fixed.caught_share[3, 2]", "lowest.caught_share[3, 2]"]
    left = [f"team.fixed.delivered_wrong[{s}, 2]" for s in (0, 3)]
    found = lab.values(
        name,
        [*(f"team.{one}" for one in asked), *left],
        keep=lambda path, x: not path.endswith("discrimination") or x == 2,
    )
    sure = 1 / (1 + np.exp(-(np.log(0.8 / 0.2) - shift)))  # a confidence of 80% is then a chance of so much
    fixed = [_caught(mean, kappa, 0.8), _caught(mean, kappa, float(sure))]
    lowest = _caught(mean, kappa, float(stats.beta(kappa * mean, kappa * (1 - mean)).ppf(0.05)))
    words = ("calibrated, a gate at 80%: errors caught", "overconfident, a gate at 80%: errors caught",
             "overconfident, the least sure 5%: errors caught")  # fmt: skip
    formulas = (*fixed, lowest * 119 / 120)  # in the first of 120 minutes it does not know yet what is usual
    ratio = found[left[1]] / found[left[0]]
    return {
        19: [
            Twice("errors that reach users, overconfident over calibrated", (1 - fixed[1]) / (1 - fixed[0]),
                  lab.interval(ratio), name, "times"),
        ],
        47: [
            Twice(what, formula, lab.interval(found[f"team.{one}"]), name, "share")
            for what, formula, one in zip(words, formulas, asked, strict=True)
        ],
    }  # fmt: skip


def team(lab: Lab) -> Told:
    """Claim 41: looking is not free, and not endless: sixteen reviewers, and a model that gets twice as bad."""
    name = "review-team"
    late = [f"team.support.late_share[{error}, 16]" for error in ("1%", "2%")]
    found = lab.values(name, late, ["duration=4h"], lambda path, x: not path.endswith("reviewers") or x == 16)
    told = []
    for error, metric in zip((0.01, 0.02), late, strict=True):
        unsure = float(stats.beta(2 * (1 - error), 2 * error).cdf(0.8))
        queue = erlang_a(5 * unsure, 180.0, 16, 300.0)
        what = f"{error:.0%} wrong: of what waits for one of 16 reviewers, never looked at"
        told.append(Twice(what, queue.abandons, lab.interval(found[metric]), name, "share"))
    return {41: told}


SHORTER = ("duration=6h", "quality.causes.borderline.to=2h", "quality.causes.regression.from=2h",
           "quality.causes.regression.to=5h")  # fmt: skip


def breaker(lab: Lab) -> Told:
    """Claim 48: two hours at the limit, three of a regression, one in which all is well."""
    name = "quality-breaker"
    found = lab.values(name, ["cohort.bare.wrong_share", "cohort.sure.wrong_share"], SHORTER)
    limit, bad, well, rules = (1 - 0.99 * (1 - p) for p in (0.0354, 0.25, 0.0, 0.0707))
    without, at_once = ((2 * limit + 3 * x + well) / 6 for x in (bad, rules))
    why = "it must be sure first, and sure again that all is well; and lets a fifth through to know"
    return {
        48: [
            Twice("wrong answers, no breaker", without, lab.interval(found["cohort.bare.wrong_share"]), name, "share"),
            Twice("wrong answers, a breaker that opens at once", at_once,
                  lab.interval(found["cohort.sure.wrong_share"]), name, "share", why),
        ],
    }  # fmt: skip


def release(lab: Lab) -> Told:
    """Claims 49 and 51: an edit that breaks three answers in a hundred, for whom and for how long."""
    name, per_s, worse = "canary-gate", 10.0, 0.03
    wrong = [f"cause.three_words.wrong[{point}]" for point in ("none, 1m", "none, 1h", "shadow, 1m")]
    times = [f"release.edit.{what}_s[none, 1h]" for what in ("released", "rolled_back", "noticed")]
    found = lab.values(name, [*wrong, *times], ["duration=2h"], lambda path, x: x != "canary")
    flag, pipeline, shadow = (found[one] for one in wrong)
    began_s, back_s, noticed_s = (found[one] for one in times)
    noticed = float((noticed_s - began_s).mean()) / 60
    return {
        49: [Twice("wrong answers that users get, before a shadow stops it", 0.0, lab.interval(shadow), name)],
        51: [
            Twice("wrong answers of a rollback in an hour, over rate x time until it is back",
                  1.0, lab.interval(pipeline / (per_s * worse * (back_s - began_s))), name, "times"),
            Twice("wrong answers of a rollback in an hour, over a minute's",
                  60.0, lab.interval(pipeline / flag), name, "times",
                  f"somebody must notice first: {noticed:.0f} minutes, five of them a report's way, are in both"),
        ],
    }  # fmt: skip


def cohort(lab: Lab) -> Told:
    """Claim 15: one user in two hundred, for whom 40% are wrong from the fourth hour on."""
    name = "silent-cohort"
    few, most = "cohort.few.wrong_share[27.8%]", "wrong_share[27.8%]"
    found = lab.values(name, [few, most], ("telemetry=none", "alerts=[]", "scrape_interval=10m"), lambda path, x: x < 1)
    group = (4 * 0.05 + 20 * (1 - 0.95 * (1 - 0.3684))) / 24
    whole = 0.005 * group + 0.995 * 0.008693
    return {
        15: [
            Twice("right for everybody, over a day", 1 - whole, lab.interval(1 - found[most]), name, "share"),
            Twice("right for the one in two hundred", 1 - group, lab.interval(1 - found[few]), name, "share"),
        ],
    }


def misrouted(lab: Lab) -> Told:
    """Claim 40: the same share of wrong answers, drawn for each request, or the same for all of a conversation."""
    name = "misrouting"
    asked = [f"{metric}[{sticky}]" for metric in ("cohort.chat.wrong_share", "sessions_misrouted")
             for sticky in ("false", "true")]  # fmt: skip
    found = lab.values(name, asked, ["workload.rate_per_s=1", "telemetry=none", "scrape_interval=60s"])
    usual, hour, turns = 0.008, 1 - (1 - 0.008) * (1 - 0.16), 5

    def meets(share: float) -> float:
        """Return the chance that a conversation (turns are geometric) meets it once or more."""
        stays = (1 - share) * (1 - 1 / turns)
        return 1 - (1 - share) / turns / (1 - stays)

    wrong = 1 - 0.98 * (1 - 0.25 * (0.4 * usual + 0.6 * hour))
    once = 0.9 * (0.6 * meets(hour) + 0.4 * meets(usual))
    shares = [lab.interval(found[one]) for one in asked]
    begin = "the first conversations have only begun, so more than three in five requests are of the bad hour"
    return {
        40: [
            Twice("wrong answers to chats, by request", wrong, shares[0], name, "share", begin),
            Twice("the same over that with whole conversations", 1.0,
                  lab.interval(found[asked[0]] / found[asked[1]]), name, "times"),
            Twice("conversations that met the wrong servers, by request", once, shares[2], name, "share",
                  "those that cross an edge of the hour meet it in part"),
        ],
    }  # fmt: skip


def coupled(lab: Lab) -> Told:
    """Claim 55: slow and wrong, where slowness makes nothing wrong."""
    name = "load-coupled-quality"
    asked = ["wrong_ttft_partial[0]", "wrong_ttft_correlation[0]"]
    found = lab.values(name, asked, keep=lambda path, x: x == 0)
    why = "who asks when it is busy asks hard questions: that is the confounder"
    return {
        55: [
            Twice("correlation of wrong and slow within a cohort, uncoupled", 0.0, lab.interval(found[asked[0]]), name),
            Twice("correlation of all answers, uncoupled", 0.0, lab.interval(found[asked[1]]), name, "", why),
        ],
    }


PLAYS: dict[str, Callable[[Lab], Told]] = {
    one.__name__: one for one in (agents, cohort, release, misrouted, breaker, coupled, gate, team)
}
"""The long ones first."""
