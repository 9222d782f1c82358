"""What a fleet has to keep: bounds on metrics, and how sure a few runs make us that the next one keeps them too.

A run is one draw of users, luck and step times. After n of them the next one keeps a bound with confidence c when
the one-sided prediction limit of a normal sample, mean + t(c, n - 1) s sqrt(1 + 1/n), does (Hahn and Meeker,
*Statistical Intervals*, 1991, section 4.7), on a scale on which the metric is roughly normal: the logarithm of a
time, the arcsine of the root of a share. Each look but that after all runs takes a tenth of the error away
(Bonferroni). Where runs fall into two heaps that limit is far beyond both; but the next of n + 1 runs is among the k
worst of them k in n + 1 times whatever the distribution (section 5.4), so n >= c / (1 - c) runs that all keep the bound
are enough too.

A share that is the same in every run, such as no errors at all, has no spread to judge by. If a run breaks the bound
with probability p, n runs keep it and the next does not with probability p (1 - p)^n, at most 1 / (e (n + 1)) nearly:
below 1 - c from n = 1 / (e (1 - c)) runs on.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from sim import claims, summary
from sim.errors import InputError, ScenarioError
from sim.planning.trials import Played
from sim.words import show

LOOKS = (4, 6)
"""Runs after which it is looked whether they are enough already."""
EARLY = 0.1
"""Share of the error that each look before the last may use."""
LESS = (
    *("errors", "wrong", "wrong_share", "rejected", "timed_out", "cancelled", "unfinished", "failed", "amplification"),
    *("retries", "preemptions", "recomputed", "kv_mean", "kv_max", "running_mean", "waiting_mean", "waiting_max"),
    *("task_failed", "task_unfinished", "task_wrong"),
    *("errors_budget_spent", "wrong_per_min_mean", "wrong_per_min_peak"),
)
"""Metrics that more replicas make smaller, besides times: a plan cannot serve a lower bound on them."""
MORE = ("goodput_per_s", "goodput_kept", "throughput_tokens_per_s", "prefix_hit", "task_success", "task_ok", "ok")
"""Metrics of which more is better: a plan cannot serve an upper bound on them."""


@dataclass(frozen=True)
class Bound:
    """One promise: *metric* stays at or below *bound* (or at or above it, where `least` is true)."""

    metric: str
    bound: float
    least: bool = False

    @property
    def text(self) -> str:
        """The promise as `--slo` takes it."""
        return f"{self.metric} {'>=' if self.least else '<='} {self._written}"

    @property
    def _written(self) -> str:
        if claims.is_time(self.metric):
            return f"{self.bound:.12g}s" if self.bound >= 1 else f"{1e3 * self.bound:.12g}ms"
        if self.is_share:
            return f"{100 * self.bound:.12g}%"
        return f"{self.bound:.12g}"

    @property
    def is_share(self) -> bool:
        """Whether its metric is from 0 to 1; an error budget is none, for it may be spent more than once."""
        return summary.scale_of(self.metric) == "share"

    @property
    def of_an_answer(self) -> bool:
        """Whether an answer itself keeps or breaks it: a percentile of TTFT or e2e, of everybody."""
        time, _, statistic = self.metric.partition("_")
        return time in ("ttft", "e2e") and statistic in summary.QUANTILES and not self.least

    def kept_by(self, played: Played) -> bool:
        """Return whether one run keeps it; one that has no such number does not."""
        value = played.metrics.get(self.metric, math.nan)
        return value >= self.bound if self.least else value <= self.bound

    def excess(self, value: float) -> float:
        """Return how far *value* is beyond the bound: above 1 is broken, infinite is not a number."""
        if math.isnan(value):
            return math.inf
        above, below = (self.bound, value) if self.least else (value, self.bound)
        return above / below if below > 0 else math.inf if above > 0 else 1.0

    def scaled(self, values: Sequence[float]) -> np.ndarray:
        """Return *values* where they are roughly normal, larger is worse: shape (n,)."""
        x = np.asarray(values, float)
        if claims.is_time(self.metric):
            x = np.log(np.maximum(x, 1e-9))
        elif self.is_share:
            x = np.arcsin(np.sqrt(np.clip(x, 0.0, 1.0)))
        return -x if self.least else x


def read(text: str, known: Collection[str]) -> tuple[Bound, ...]:
    """Return the bounds in *text*, such as ``ttft_p99 < 2s, errors < 0.1%``; *known* are the metrics there are.

    Raises:
        InputError: a part that is no bound on one metric, is about none there is, or is one that more replicas break.
    """
    found = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        try:
            claim = claims.parse(part)
        except ScenarioError as error:
            raise InputError(f"--slo: {error}") from None
        left, right = claim.left, claim.right
        if not (isinstance(left, claims.Metric) and isinstance(right, claims.Number) and claim.op in claims.COMPARE):
            raise InputError(f"--slo: expected one metric and its bound, such as ttft_p99 < 2s, got {show(part)}")
        if left.index or "@" in left.name:
            raise InputError(f"--slo: expected a metric of the whole run, got {show(part)}")
        if left.name not in known:
            raise InputError(f"--slo: {claims.unknown(left.name, known)}")
        found.append(_served(Bound(left.name, right.value, claim.op.startswith(">")), part))
    if not found:
        raise InputError("--slo: expected bounds such as 'ttft_p99 < 2s, errors < 0.1%', got none")
    if twice := [one.metric for one in found if sum(one.metric == other.metric for other in found) > 1]:
        raise InputError(f"--slo: expected one bound a metric, got two of {twice[0]}")
    return tuple(found)


def _served(bound: Bound, text: str) -> Bound:
    """Return *bound*, written as *text*, if more replicas bring its metric nearer to it.

    Raises:
        InputError: they lead away from it, so that the search would find the opposite of what was asked.
    """
    kind = bound.metric.rpartition(".")[2]
    time = claims.is_time(bound.metric) and kind != "lead_s"
    if bound.least and (time or kind in LESS):
        why = "a latency is promised from above" if time else "more replicas make it smaller"
        raise InputError(f"--slo: {text}: expected {bound.metric} <, for {why}")
    if not bound.least and kind in MORE:
        raise InputError(f"--slo: {text}: expected {bound.metric} >, for more of it is better")
    return bound


@dataclass(frozen=True)
class Judged:
    """One promise after some runs: each run's value, how many kept it, and the limit that the next run keeps."""

    bound: Bound
    values: tuple[float, ...]
    limit: float
    kept: bool

    @property
    def typical(self) -> float:
        """The median over runs."""
        return float(np.median(self.values)) if self.values else math.nan


def limit(bound: Bound, values: Sequence[float], confidence: float) -> float:
    """Return what the next run's metric stays within with *confidence*, in the metric's own unit; at least two values.

    Not a number when some run had none.
    """
    from scipy import special

    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return math.nan
    x = bound.scaled(values)
    reach = float(special.stdtrit(n - 1, confidence)) * math.sqrt(1 + 1 / n)
    worst = float(x.mean() + reach * x.std(ddof=1))
    worst = -worst if bound.least else worst
    if claims.is_time(bound.metric):
        return math.exp(worst)
    if bound.is_share:
        return math.sin(min(max(worst, 0.0), math.pi / 2)) ** 2
    return worst


class Jury:
    """Judges one fleet, run by run, until it is sure: kept, broken, or no more runs."""

    def __init__(self, bounds: Sequence[Bound], most: int, confidence: float, early: bool = True) -> None:
        """Judge *bounds* after *most* runs, or fewer; the next run shall keep them with *confidence*.

        Without *early*, nothing is kept before as many runs as are `enough` for order to decide.
        """
        self.bounds, self.most, self.confidence = tuple(bounds), most, confidence
        self.runs: list[Played] = []
        self._early = early
        self._alike = math.ceil(1 / (math.e * (1 - confidence)))
        self._looks = {*(n for n in LOOKS if n < most), self._alike, most}
        self.enough = max(most, self._alike, math.ceil(confidence / (1 - confidence) - 1e-9))
        """Runs after which order alone decides."""
        self._ranks = math.floor((1 - confidence) * (self.enough + 1) + 1e-9)

    def add(self, played: Played) -> None:
        """Hear of one more run."""
        self.runs.append(played)

    @property
    def verdict(self) -> bool | None:
        """Whether the promises are kept; None where more runs have to tell."""
        n, broken = len(self.runs), max(map(self._broken, self.bounds))
        # One may be the normal limit's own doing; of more than order allows none comes back.
        if broken > max(1, self._ranks - 1) or any(run.overloaded for run in self.runs):
            return False
        looked = n == self.enough or (self._early and n in self._looks)
        if looked and all(self._within(bound) for bound in self.bounds):
            return True
        return False if n >= self.enough or (n >= self.most and broken) else None

    def _broken(self, bound: Bound) -> int:
        return sum(not bound.kept_by(run) for run in self.runs)

    def limit(self, bound: Bound) -> float:
        """Return what the next run's metric stays within; not a number where so many runs do not tell."""
        values = [run.metrics.get(bound.metric, math.nan) for run in self.runs]
        n = len(values)
        if n >= self.enough and self._broken(bound) < self._ranks:
            return sorted(values, key=bound.excess)[-self._ranks]
        if n < min(self._looks) or (n < self._alike and len(set(values)) == 1 and not claims.is_time(bound.metric)):
            return math.nan
        share = 1 - EARLY * (len(self._looks) - 1) if n == self.most else EARLY
        return limit(bound, values, 1 - (1 - self.confidence) * share)

    def _within(self, bound: Bound) -> bool:
        reached = self.limit(bound)
        return reached >= bound.bound if bound.least else reached <= bound.bound

    def findings(self) -> list[Judged]:
        """Return each promise with what the runs said of it, in the order of the promises."""
        found = []
        for bound in self.bounds:
            values = [run.metrics.get(bound.metric, math.nan) for run in self.runs]
            told = not any(run.overloaded for run in self.runs)
            reached = self.limit(bound) if told else math.nan
            found.append(Judged(bound, tuple(values), reached, told and self._within(bound)))
        return found

    def worst(self) -> Bound:
        """Return the promise that is broken most, or nearest to it."""
        return max(self.bounds, key=lambda bound: self.excess(bound))

    def excess(self, bound: Bound) -> float:
        """Return how far the worst run is beyond *bound*."""
        if any(run.overloaded for run in self.runs):
            return math.inf
        return max((bound.excess(run.metrics.get(bound.metric, math.nan)) for run in self.runs), default=math.nan)
