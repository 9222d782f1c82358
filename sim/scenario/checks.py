"""What several settings must agree on, checked once each of them has its shape."""

import itertools
import math
from collections.abc import Iterator

from sim import claims
from sim.errors import ScenarioError
from sim.scenario.cells import undividable
from sim.scenario.contained import containment
from sim.scenario.fleet import Pool
from sim.scenario.messages import Problem
from sim.scenario.models import Scenario
from sim.scenario.plans import trouble
from sim.scenario.quality import RULES
from sim.scenario.rightness import right_and_wrong
from sim.scenario.workload import ArrivalProcess, Workload
from sim.words import did_you_mean, not_among, show


def disagreements(scenario: Scenario) -> Iterator[Problem]:
    """Yield what is wrong between the settings of one *scenario*, a point of its sweep."""
    if scenario.warmup >= scenario.duration:
        yield ("warmup",), f"expected less than duration ({show(scenario.duration)} s), got {show(scenario.warmup)} s"
    for name, pool in scenario.fleet.pools.items():
        for key, sentence in _pool(pool):
            yield ("fleet", "pools", name, *key), sentence
    for name in scenario.fleet.pools:
        if name.lower() in ("none", "null"):
            yield ("fleet", "pools", name), f"expected another name: `pool: {name}` is read as no pool"
        if name == RULES:
            yield ("fleet", "pools", name), "expected another name: rules are what answers in place of a pool"
    if scenario.alerts and scenario.telemetry is None:
        yield ("telemetry",), "expected something to judge `alerts` on, got none"
    if scenario.alerts and not scenario.slo.targets:
        yield ("slo",), "expected what was promised (such as errors: 0.1%), to tell by it whether alerts were right"
    for name in scenario.slo.targets:
        if near := did_you_mean(name, ["window"]):
            yield ("slo", name), f"unknown key{near}"
    for name, expected in scenario.expect.items():
        if expected != "silent" and expected.fires[0] >= scenario.duration:
            begin_s, length_s = show(expected.fires[0]), show(scenario.duration)
            yield ("expect", name, "fires"), f"expected to begin before the run ends ({length_s} s), got {begin_s} s"
        if expected != "silent" and expected.pending is not None and expected.pending[0] > expected.fires[1]:
            yield ("expect", name, "pending"), "expected to begin before the end of fires: pending comes first"
    for name, check in scenario.checks.items():
        for i, cohort in enumerate(check.cohorts):
            if cohort not in scenario.workload.cohorts:
                yield ("checks", name, "cohorts", i), not_among(cohort, "cohort", scenario.workload.cohorts)
        if check.share is None and scenario.telemetry is None:
            yield ("checks", name, "share"), "missing, expected the share of answers to check, for telemetry is none"
    for key, sentence in itertools.chain(_arrivals(scenario.workload), _cohorts(scenario)):
        yield ("workload", *key), sentence
    yield from trouble(scenario)
    yield from right_and_wrong(scenario)
    yield from containment(scenario)
    yield from undividable(scenario)


def broken_claims(scenario: Scenario, points: list[dict[str, object]]) -> Iterator[Problem]:
    """Yield what is wrong with the claims of *scenario*, whose sweep has *points*."""
    for name, text in scenario.claims.items():
        try:
            for metric, index in sorted(claims.parse(text).metrics):
                claims.point_of(metric, index, points)
                owner, _, rest = metric.partition(".")
                cohort = rest.rpartition(".")[0]
                if owner == "cohort" and cohort not in scenario.workload.cohorts:
                    yield ("claims", name), not_among(cohort, "cohort", scenario.workload.cohorts)
        except ScenarioError as error:
            yield ("claims", name), str(error)


def _pool(pool: Pool) -> Iterator[Problem]:
    replaced = pool.step_time is not None and pool.kv_blocks is not None
    for key in ("model", "hardware"):
        if getattr(pool, key) is None and not replaced:
            yield (key,), "missing, expected a name (`blowout hardware` lists them), or else step_time and kv_blocks"
    if pool.gpu_memory_utilization == 0:
        yield ("gpu_memory_utilization",), "expected more than 0, got 0"
    if pool.max_replicas is not None and pool.max_replicas < pool.replicas:
        yield ("max_replicas",), f"expected at least replicas ({pool.replicas}), got {pool.max_replicas}"
    if pool.watermark == 1:
        yield ("watermark",), "expected less than 1, got 1"
    longest = pool.max_model_len
    if not pool.chunked_prefill and longest is not None and pool.max_num_batched_tokens < longest:
        yield (
            ("max_num_batched_tokens",),
            f"expected at least max_model_len ({longest}) without chunked_prefill, got {pool.max_num_batched_tokens}",
        )


def _arrivals(workload: Workload) -> Iterator[Problem]:
    if workload.trace is not None:  # its times are used: what else the file says of them waits for a run without
        return
    kind = workload.arrivals.choice[0] if isinstance(workload.arrivals, ArrivalProcess) else workload.arrivals
    own_rate = {"closed": "its users make the rate", "piecewise": "its stages give the rates"}.get(kind)
    if own_rate and workload.rate_per_s is not None:
        yield ("rate_per_s",), f"expected none with {kind} arrivals ({own_rate}), got {show(workload.rate_per_s)}"
    if not own_rate and workload.rate_per_s is None:
        yield ("rate_per_s",), "missing, expected arrivals a second, on average"
    if kind == "closed" and workload.sessions is not None:
        yield ("sessions",), "expected none with closed arrivals, whose users already come back"
    if isinstance(workload.arrivals, ArrivalProcess) and workload.arrivals.piecewise:
        yield from _stages([stage.at for stage in workload.arrivals.piecewise])


def _stages(starts_s: list[float]) -> Iterator[Problem]:
    at = ("arrivals", "piecewise")
    if starts_s[0] != 0:
        yield (*at, 0, "at"), f"expected 0, the start of the run, got {show(starts_s[0])}"
    for i, (before_s, start_s) in enumerate(itertools.pairwise(starts_s), start=1):
        if start_s <= before_s:
            yield (*at, i, "at"), f"expected more than the stage before ({show(before_s)} s), got {show(start_s)} s"


def _cohorts(scenario: Scenario) -> Iterator[Problem]:
    workload = scenario.workload
    if not workload.cohorts:
        yield ("cohorts",), "missing, expected at least one cohort"
        return
    if workload.trace is not None and len(workload.cohorts) > 1:
        yield ("cohorts",), f"expected at most one cohort with a trace, got {len(workload.cohorts)}"
    total = math.fsum(cohort.share for cohort in workload.cohorts.values())
    if abs(total - 1) > 1e-6:
        yield ("cohorts",), f"expected the shares to sum to 1, got {show(total)}"
    for name, cohort in workload.cohorts.items():
        if cohort.pool is not None and cohort.pool not in scenario.fleet.pools:
            yield ("cohorts", name, "pool"), not_among(cohort.pool, "pool", scenario.fleet.pools)
        for key in ("prompt_tokens", "output_tokens"):
            if getattr(cohort, key) is None and workload.trace is None:
                yield ("cohorts", name, key), "missing, expected tokens or a distribution of them"
