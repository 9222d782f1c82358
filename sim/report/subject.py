"""What a run is about, where it is about right and wrong: the metrics that lead its table, and what they are called.

A scenario with `quality` asks who got wrong answers and what kept them from users; latency is then beside the point.
Names of metrics are those of docs/reference/metrics.md.
"""

import math
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sim.report import words

if TYPE_CHECKING:
    from sim.scenario import Scenario


class Values(Protocol):
    """What seeds gave of one metric."""

    @property
    def value(self) -> float:
        """The estimate over seeds."""

    @property
    def values(self) -> Sequence[float]:
        """The value of each seed, nan where it has none."""


class Measured(Protocol):
    """A point of a run: estimates by metric."""

    @property
    def metrics(self) -> dict[str, Any]:
        """Estimates by metric."""


MOST_COHORTS = 6
"""More are not told apart in a table; the figures have them."""
UNLIKE = 1.25
"""Ratio of the shares of wrong answers from which on cohorts, or pools, are told apart."""
NEVER = ("alarm_s", "noticed_s", "rolled_back_s", "released_s")
"""Moments that may never come: not a number or infinite in a seed in which they did not."""
NAMED = {
    r"delivered_wrong": "wrong answers that users got",
    r"wrong_share": "wrong, of all answers",
    r"escalated": "held back for review",
    r"caught": "caught by reviewers",
    r"caught_share": "caught, of the wrong answers",
    r"withheld": "withheld, nobody had time",
    r"by_fallback": "answered by a fallback",
    r"alarm_s": "evaluation: noticed at",
    r"sessions_wrong": "sessions with a wrong answer",
    r"sessions_misrouted": "sessions misrouted",
    r"wrong_ttft_partial": "wrong and slow, correlation",
    r"cohort\.(.+)\.wrong_share": "wrong, of answers to {}",
    r"cohort\.(.+)\.alarm_s": "evaluation of {}: noticed at",
    r"pool\.(.+)\.wrong_share": "wrong, of answers by {}",
    r"cause\.(.+)\.wrong": "wrong because of {}",
    r"team\.(.+)\.delivered_wrong": "team {}: wrong and delivered",
    r"team\.(.+)\.escalated_share": "team {}: held back, of answers",
    r"team\.(.+)\.caught_share": "team {}: caught, of the wrong",
    r"team\.(.+)\.late_share": "team {}: not looked at in time",
    r"team\.(.+)\.wait_mean": "team {}: wait, mean",
    r"team\.(.+)\.busy_share": "team {}: reviewers busy",
    r"breaker\.(.+)\.flips": "breaker {}: opened or closed",
    r"breaker\.(.+)\.open_share": "breaker {}: open, of the time",
    r"overflow\.(.+)\.flips": "overflow {}: on or off",
    r"overflow\.(.+)\.open_share": "overflow {}: on, of the time",
    r"release\.(.+)\.noticed_s": "release {}: alarm at",
    r"release\.(.+)\.rolled_back_s": "release {}: nobody has it from",
    r"release\.(.+)\.released_s": "release {}: everybody has it from",
}
"""What a row of a table calls a metric, in which the first name is put."""


def name(metric: str) -> str | None:
    """Return what a row of a table calls *metric*; None where it is not about right and wrong."""
    for pattern, text in NAMED.items():
        if found := re.fullmatch(pattern, metric):
            return text.format(*found.groups())
    return None


def leading(scenario: "Scenario", points: Sequence[Measured]) -> tuple[str, ...]:
    """Return the metrics that lead the table of *scenario*, most telling first; none where it has no `quality`."""
    if scenario.quality is None or not points:
        return ()
    known = points[0].metrics
    teams, causes, cohorts = names(known, "team"), names(known, "cause"), list(scenario.workload.cohorts)
    wanted = ["task_success"] * ("tasks" in known) + ["delivered_wrong"] * bool(teams)
    wanted += ["wrong", "wrong_share", *(["caught", "escalated", "withheld"] if teams else [])]
    for team in teams:
        several = ("delivered_wrong", "escalated_share") if len(teams) > 1 else ()
        wanted += [
            f"team.{team}.{what}" for what in (*several, "caught_share", "late_share", "wait_mean", "busy_share")
        ]
    wanted += _apart([f"cohort.{one}.wrong_share" for one in cohorts], points)
    wanted += _apart([f"pool.{one}.wrong_share" for one in scenario.fleet.pools], points)
    if len(causes) > 1 or any(one.version for one in scenario.quality.causes.values()):
        wanted += [f"cause.{one}.wrong" for one in causes]
    wanted += [f"release.{one}.{what}" for one in names(known, "release") for what in NEVER[1:]]
    for kind in ("breaker", "overflow"):
        wanted += [f"{kind}.{one}.{what}" for one in names(known, kind) for what in ("open_share", "flips")]
    wanted += ["by_fallback", "sessions_misrouted"]
    wanted += ["wrong_ttft_partial"] * any(one.above is not None for one in scenario.quality.causes.values())
    wanted += ["alarm_s", *(f"cohort.{one}.alarm_s" for one in cohorts if len(cohorts) > 1)]
    always = {"delivered_wrong", "wrong", "wrong_share"}
    return tuple(m for m in wanted if m in known and (m in always or _tells(m, points)))


def names(known: Collection[str], first: str, last: str = "") -> list[str]:
    """Return the names in metrics such as ``team.NAME.caught``, in their order, each once; those that end in *last*."""
    some = [metric for metric in known if metric.startswith(f"{first}.") and metric.endswith(last)]
    return list(dict.fromkeys(metric.split(".", 1)[1].rpartition(".")[0] for metric in some))


def _apart(metrics: Sequence[str], points: Sequence[Measured]) -> list[str]:
    """Return *metrics*, shares of wrong answers, where some point tells them apart, the worst first."""
    some = [metric for metric in metrics if all(metric in point.metrics for point in points)]
    if len(some) < 2 or not any(_unlike([p.metrics[m].value for m in some]) for p in points):
        return []
    return sorted(some, key=lambda m: -max((p.metrics[m].value for p in points), default=0.0))[:MOST_COHORTS]


def _unlike(shares: Sequence[float]) -> bool:
    finite = [share for share in shares if math.isfinite(share)]
    return len(finite) > 1 and max(finite) > UNLIKE * min(finite)


def _tells(metric: str, points: Sequence[Measured]) -> bool:
    """Say whether *metric* tells anything: something happened, or might have and did not."""
    if metric.endswith(NEVER):
        # Of cohorts only those that were noticed; and who everybody got it from only where somebody did.
        seldom = metric.startswith("cohort.") or metric.endswith("released_s")
        return not seldom or any(math.isfinite(v) for p in points for v in p.metrics[metric].values)
    return any(p.metrics[metric].value != 0 for p in points)


def moment(estimate: Values) -> str | None:
    """Return in how many seeds a moment of `NEVER` came, and when; None where it came in all of them."""
    came = sorted(value for value in estimate.values if math.isfinite(value))
    if not came:
        return "never"
    if len(came) == len(estimate.values):
        return None
    middle = (came[(len(came) - 1) // 2] + came[len(came) // 2]) / 2
    return f"{words.seconds(middle)} in {len(came)} of {len(estimate.values)} seeds"
