"""Why a fleet breaks a promise: which promise, by how much, what ran out, and whom it hits most."""

from dataclasses import dataclass

import numpy as np

from sim.planning import labels
from sim.planning.objective import Bound
from sim.planning.search import Condition
from sim.planning.trials import Played
from sim.records import PARTS

RESOURCES = {
    "client_wait_s": "the client's own time",
    "backoff_s": "clients that back off",
    "seat_wait_s": "seats in the batch (max_num_seqs)",
    "kv_wait_s": "KV cache",
    "step_wait_s": "token budget of a step (max_num_batched_tokens)",
    "prefill_s": "arithmetic for prompts",
    "decode_alone_s": "speed of a single sequence",
    "decode_slowed_s": "speed of a full batch",
    "preempted_s": "KV cache, so that sequences are preempted",
    "fault_stall_s": "what the fault took away",
}
"""What each part of a request's time is spent for: what would have to be more."""

PROMPTS_OF_OTHERS = "steps without others' long prompts (a lower max_num_batched_tokens, or more replicas)"
LONG_STEPS = 2.0
"""How many times the usual time of a token an interval between two must be, to be blamed on prompts in its step."""
STANDS_OUT = 1.2
"""How many times everybody's value a cohort's must be, to be named."""


@dataclass(frozen=True)
class Reason:
    """Why a condition fails: the promise broken most, its median over runs and worst run, and what ran out.

    ``limit`` is what the next run stays within with the confidence asked for; not a number where runs do not tell.
    ``resource`` is empty where the runs do not tell. ``share`` is what it takes of the time that the slowest 1%
    lose against the median. ``cohort`` is who is hit far harder than everybody, or empty.
    """

    case: str
    bound: Bound
    typical: float
    worst: float
    limit: float
    label: str
    resource: str
    share: float
    cohort: str
    overloaded: str


def of(condition: Condition) -> Reason:
    """Return why *condition* fails, or how near it is to failing."""
    bound = condition.worst
    values = np.array([run.metrics.get(bound.metric, np.nan) for run in condition.runs], float)
    known = values[np.isfinite(values)]
    worst = float(known.min() if bound.least else known.max()) if len(known) else np.nan
    typical = float(np.median(known)) if len(known) else np.nan
    limit = next(one.limit for one in condition.findings if one.bound == bound)
    resource, share = _resource(bound.metric, condition)
    overloaded = next((run.overloaded for run in condition.runs if run.overloaded), "")
    return Reason(
        condition.case,
        bound,
        typical,
        worst,
        limit,
        condition.label,
        resource,
        share,
        _cohort(bound, condition),
        overloaded,
    )


def _resource(metric: str, condition: Condition) -> tuple[str, float]:
    """Return what the slowest 1% wait for that others do not, and its share of the difference."""
    runs = [run for run in condition.runs if run.histograms]
    if not runs:
        return "", 0.0
    name = metric.rpartition(".")[2]
    if name.startswith(("itl", "tpot")):
        return _decoding(metric, runs)
    first = "_first" if name.startswith(("ttft", "queue")) else ""
    tail = np.mean([run.histograms[f"parts_tail{first}"] for run in runs], axis=0)
    median = np.mean([run.histograms[f"parts_median{first}"] for run in runs], axis=0)
    # A queue that overflows delays the median too: then all of the time counts, and not what the tail adds.
    more = tail if condition.label != labels.STABLE else tail - median
    parts = np.maximum(more[: len(PARTS)], 0.0)
    if not parts.sum() > 0:
        return "", 0.0
    k = int(parts.argmax())
    return RESOURCES[PARTS[k]], float(parts[k] / parts.sum())


def _decoding(metric: str, runs: list[Played]) -> tuple[str, float]:
    """Return whether tokens are slow because of the batch around them, or would be if they were alone."""
    means = {key: float(np.mean([run.metrics[key] for run in runs])) for key in (metric, "tpot_p50")}
    if means[metric] > LONG_STEPS * means["tpot_p50"]:
        return PROMPTS_OF_OTHERS, 1.0 - means["tpot_p50"] / means[metric]
    parts = np.mean([run.histograms["parts_median"] for run in runs], axis=0)
    alone, slowed = (float(parts[PARTS.index(name)]) for name in ("decode_alone_s", "decode_slowed_s"))
    name = "decode_slowed_s" if slowed > alone else "decode_alone_s"
    return RESOURCES[name], max(alone, slowed) / max(1e-12, alone + slowed)


def _cohort(bound: Bound, condition: Condition) -> str:
    """Return the cohort whose own value is worst, if it is far worse than everybody's."""
    if bound.metric.startswith("cohort."):
        return bound.metric.split(".")[1]
    suffix = f".{bound.metric}"
    runs = [run.metrics for run in condition.runs if run.metrics]
    names = {name for run in runs for name in run if name.startswith("cohort.") and name.endswith(suffix)}
    if not runs or len(names) < 2:
        return ""
    means = {name: float(np.mean([run.get(name, np.nan) for run in runs])) for name in names}
    everybody = float(np.mean([run.get(bound.metric, np.nan) for run in runs]))
    name = max(means, key=lambda one: bound.excess(means[one]))
    return name.split(".")[1] if means[name] > STANDS_OUT * everybody else ""
