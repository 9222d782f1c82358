"""Whether requests of one stage kept an SLO: each objective is true or false of a request, and so many may miss it.

``ttft_p99 < 2s`` says that of all requests at least 99% have their first token within 2 s; so what is judged is a
share, and its exact interval (Clopper and Pearson 1934), one-sided 95% at either end. A P99 of thirty requests is no
P99: no share of so few is shown to be under 1%, and the stage stays undecided. Requests of one stage wait in the
same queue and miss together, which makes them fewer than they are: their number is divided by how much more the
misses of ten tenths of the stage differ than chance would have it (the design effect; Kish 1965).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sim import claims
from sim.errors import InputError
from sim.records import Outcome
from sim.scenario import Scenario
from sim.summary import QUANTILES

LATENCIES = ("ttft", "e2e", "tpot")
CONFIDENCE = 0.95
BATCHES = 10
FEWEST_MISSES = 5
"""Fewer of them say nothing of whether they come together."""
GROWS, GROWS_BY = 0.01, 0.5
"""In flight grows where chance would have it so less often than this, and by more than this share of its mean."""


class Verdict(StrEnum):
    """What a stage says of its rate."""

    STABLE = "STABLE"
    BREAKS = "BREAKS"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True)
class Objective:
    """One promise: of the requests of *cohort* (None: all), at most the share *allowed* may miss *bound* seconds.

    ``errors`` has no bound: a request misses it that is not answered.
    """

    text: str
    latency: str
    bound_s: float
    allowed: float
    cohort: int | None = None

    @property
    def fewest(self) -> int:
        """Requests of which none may miss it, for it to be shown that it is kept."""
        return math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - self.allowed))

    def missed(self, rows: np.ndarray) -> np.ndarray:
        """Return which of *rows* (`sim.records.ATTEMPT`, the last of each request) miss it.

        Whoever is not answered misses every objective: an endpoint that refuses everybody is not fast.
        """
        missed = rows["outcome"] != Outcome.OK
        if self.latency != "errors":
            with np.errstate(divide="ignore", invalid="ignore"):
                took_s = {
                    "ttft": rows["first_token_s"] - rows["scheduled_s"],
                    "e2e": rows["finished_s"] - rows["scheduled_s"],
                    "tpot": (rows["finished_s"] - rows["first_token_s"]) / (rows["output_tokens"] - 1.0),
                }[self.latency]
            missed = missed | ~((took_s < self.bound_s) | ((rows["output_tokens"] < 2) & (self.latency == "tpot")))
        return np.asarray(missed if self.cohort is None else missed[rows["cohort"] == self.cohort])


def objectives(texts: Sequence[str], scenario: Scenario) -> list[Objective]:
    """Return what the *texts* promise, in the grammar of claims: ``ttft_p99 < 2s``.

    Raises:
        InputError: one that is no promise about the share of requests.
    """
    return [_objective(text.strip(), scenario) for text in texts]


def _objective(text: str, scenario: Scenario) -> Objective:
    claim = claims.parse(text, "--slo")
    if not isinstance(claim.left, claims.Metric) or not isinstance(claim.right, claims.Number) or claim.op[0] != "<":
        raise InputError(f"--slo: expected METRIC < VALUE, such as ttft_p99 < 2s or errors < 0.1%, got {text!r}")
    name, bound, cohorts = claim.left.name, claim.right.value, list(scenario.workload.cohorts)
    cohort = None
    if name.startswith("cohort."):
        _, whose, name = name.split(".", 2)
        if whose not in cohorts:
            raise InputError(f"--slo: {text}: expected one of the cohorts {', '.join(cohorts)}, got {whose}")
        cohort = cohorts.index(whose)
    latency, _, stat = name.partition("_")
    if name == "errors" and 0 < bound < 1:
        return Objective(text, name, math.inf, bound, cohort)
    if latency not in LATENCIES or stat not in QUANTILES or bound <= 0 or claim.left.index:
        raise InputError(
            f"--slo: {text}: expected a percentile of {', '.join(LATENCIES)} below a time, or errors below a share "
            "between 0 and 1: what is true or false of each request"
        )
    return Objective(text, latency, bound, 1 - QUANTILES[stat], cohort)


@dataclass(frozen=True)
class Share:
    """How many requests missed an objective, and the interval of the share that misses it in the long run."""

    objective: Objective
    requests: int
    missed: int
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """What that says."""
        if self.high < self.objective.allowed:
            return Verdict.STABLE
        return Verdict.BREAKS if self.low > self.objective.allowed else Verdict.UNDECIDED

    @property
    def kept(self) -> bool:
        """Whether those that were seen kept it."""
        return self.requests > 0 and self.missed <= self.objective.allowed * self.requests


def share(objective: Objective, plays: Sequence[np.ndarray]) -> Share:
    """Return how *objective* was kept in all *plays* of one rate: rows by the time of asking."""
    missed = [objective.missed(rows) for rows in plays]
    n, k = sum(map(len, missed)), int(sum(one.sum() for one in missed))
    return Share(objective, n, k, *interval(k, n, effect(missed)))


def effect(missed: Sequence[np.ndarray]) -> float:
    """Return by how much misses of tenths of a stage differ more than those of independent requests: 1 at least."""
    batches = [batch for one in missed for batch in np.array_split(one, BATCHES) if len(batch)]
    n, k = sum(map(len, batches)), sum(int(batch.sum()) for batch in batches)
    if k < FEWEST_MISSES or k == n or len(batches) < 3:
        return 1.0
    p = k / n
    spread = sum((int(batch.sum()) - p * len(batch)) ** 2 / (len(batch) * p * (1 - p)) for batch in batches)
    return max(1.0, spread / (len(batches) - 1))


def interval(k: int, n: int, times: float = 1.0) -> tuple[float, float]:
    """Return the share in the long run of what *k* of *n* show, at least and at most; *times* fewer count."""
    from scipy import stats

    if not n:
        return 0.0, 1.0
    hits, misses = k / times, (n - k) / times
    low = float(stats.beta.ppf(1 - CONFIDENCE, hits, misses + 1)) if k else 0.0
    high = float(stats.beta.ppf(CONFIDENCE, hits + 1, misses)) if k < n else 1.0
    return low, high


def grows(rows: np.ndarray) -> bool:
    """Tell whether more and more requests were in flight as long as they were sent: a longer stage would end worse.

    Means of tenths of the stage are fitted with a line, whose slope is tested.
    """
    from scipy import stats

    if len(rows) < 2 * BATCHES:
        return False
    begun, ended = np.sort(rows["scheduled_s"]), np.sort(rows["finished_s"])
    in_flight = np.arange(len(begun)) - np.searchsorted(ended, begun)
    means = np.array([batch.mean() for batch in np.array_split(in_flight, BATCHES)])
    if means.mean() < 1 or not means.std():
        return False
    line = stats.linregress(np.arange(BATCHES), means, alternative="greater")
    return bool(line.pvalue < GROWS and line.slope * (BATCHES - 1) > GROWS_BY * means.mean())
