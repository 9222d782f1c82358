"""What is known of every metric that rules about an LLM service read: kind, labels and their values, bounds.

Names beyond those that a run has: what vLLM 0.32.0 printed on its /metrics page, what older ones printed, and SGLang's
as its source has them (not run).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from sim.buckets import ITL_BOUNDS, REQUEST_BOUNDS
from sim.families import CHECK_SCORES, CONTAINED, FAMILIES, SUFFIX, Family

Kind = Literal["gauge", "counter", "bucket"]


def _words(text: str) -> list[str]:
    return text.split()


ENGINE_LABELS = ("model_name", "engine")
GATEWAY_LABELS = ("pool",)
TARGET_LABELS = frozenset(
    _words("job instance namespace pod container service endpoint node cluster region zone env environment app team")
    + _words("host deployment prometheus replica tenant stage severity alertname")
)
"""Labels that scrape configurations commonly add: any metric may have them."""
COMPLETE = ("vllm:", "vllm_", "sglang:", "sglang_")
"""How names begin of which the catalogue has all: another is a mistake. Gateways and evaluations differ."""

FRACTIONS = frozenset(["vllm:kv_cache_usage_perc", "up", "sglang:token_usage", "sglang:cache_hit_rate"])
"""Gauges from 0 to 1, whatever their names promise (vllm/v1/metrics/loggers.py: "1 means 100 percent usage")."""
OF_ANSWER_LENGTH = frozenset(
    [
        "vllm:e2e_request_latency_seconds",
        "vllm:request_inference_time_seconds",
        "vllm:request_decode_time_seconds",
        "gateway_request_duration_seconds",
        "sglang:e2e_request_latency_seconds",
    ]
)
"""Latencies that grow with the length of the answer, so that they also say what users asked for."""
OF_LENGTH = OF_ANSWER_LENGTH | {"vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds"}
"""Latencies that grow with the length of the prompt or of the answer."""
NEVER_COUNTED = {"finished_reason": frozenset(["abort", "error"])}
"""Values that vLLM 0.32.0 shows and leaves at 0 when requests fail or clients go away (measured; vllm#9346, #31503)."""
OF_ONE_WHOLE = {
    ("vllm:prefix_cache_hits", "vllm:prefix_cache_queries"),
    ("llm_eval_score", "llm_eval_score"),
    ("llm_check_score", "llm_check_score"),
}
"""Counters of which the first can never grow faster than the second."""

_KNOWN = (
    CHECK_SCORES,
    Family("vllm:num_requests_waiting_by_reason", "gauge", "", (), "reason", ("capacity", "deferred")),
    Family("vllm:engine_sleep_state", "gauge", "", (), "sleep_state", ("awake", "weights_offloaded", "discard_all")),
    Family("vllm:cache_config_info", "gauge", ""),
    Family("vllm:lora_requests_info", "gauge", ""),
    *(
        Family(f"vllm:{name}", "counter", "")
        for name in _words(
            "external_prefix_cache_queries external_prefix_cache_hits mm_cache_queries mm_cache_hits corrupted_requests"
            " prompt_tokens_cached estimated_flops_per_gpu estimated_read_bytes_per_gpu estimated_write_bytes_per_gpu"
            " spec_decode_num_drafts spec_decode_num_draft_tokens spec_decode_num_accepted_tokens"
        )
    ),
    Family("vllm:spec_decode_num_accepted_tokens_per_pos", "counter", "", (), "position"),
    Family("vllm:prompt_tokens_by_source", "counter", "", (), "source"),
    Family("vllm:prompt_tokens_cached_by_source", "counter", "", (), "source"),
    Family("vllm:admission_rejections", "counter", "", (), "reason"),
    *(
        Family(f"vllm:{name}", "histogram", "")
        for name in _words(
            "request_prompt_tokens request_generation_tokens iteration_tokens_total request_max_num_generation_tokens"
            " request_params_n request_params_max_tokens request_prefill_kv_computed_tokens request_num_preemptions"
        )
    ),
    Family("vllm:request_time_per_output_token_seconds", "histogram", "", ITL_BOUNDS),
    Family("vllm:request_inference_time_seconds", "histogram", "", REQUEST_BOUNDS),
    Family("vllm:request_prefill_time_seconds", "histogram", "", REQUEST_BOUNDS),
    Family("vllm:request_decode_time_seconds", "histogram", "", REQUEST_BOUNDS),
    *(
        Family(f"sglang:{name}", "gauge", "")
        for name in _words(
            "num_running_reqs num_queue_reqs num_used_tokens token_usage gen_throughput cache_hit_rate"
            " num_retracted_reqs"
        )
    ),
    *(Family(f"sglang:{name}", "counter", "") for name in ("prompt_tokens", "generation_tokens", "num_requests")),
    *(
        Family(f"sglang:{name}_seconds", "histogram", "")
        for name in ("time_to_first_token", "inter_token_latency", "e2e_request_latency", "time_per_output_token")
    ),
)
"""Known, not simulated. The bounds are left out where no rule compares with them, or where they depend on settings."""

RENAMED = {
    "vllm:gpu_cache_usage_perc": "vllm:kv_cache_usage_perc",
    "vllm:gpu_prefix_cache_queries_total": "vllm:prefix_cache_queries_total",
    "vllm:gpu_prefix_cache_hits_total": "vllm:prefix_cache_hits_total",
    "vllm:gpu_prefix_cache_hit_rate": "vllm:prefix_cache_hits_total over vllm:prefix_cache_queries_total",
    "vllm:time_per_output_token_seconds_bucket": "vllm:inter_token_latency_seconds_bucket",
    "vllm:time_per_output_token_seconds_sum": "vllm:inter_token_latency_seconds_sum",
    "vllm:time_per_output_token_seconds_count": "vllm:inter_token_latency_seconds_count",
    "vllm:cpu_cache_usage_perc": "vllm:kv_cache_usage_perc",
    "vllm:num_requests_swapped": "vllm:num_preemptions_total",
}
"""Names of older versions and what took their place (gone from the default page since 0.9 to 0.11)."""


@dataclass(frozen=True)
class Metric:
    """One name that a rule may read: its *kind*, its *family*, the *labels* the process itself gives it.

    *labels* have their known values, or none where any may come; a bucket has *bounds* where they are known; no sample
    is above *top*; *counts* tells a number of things from the sum of their sizes.
    """

    name: str
    kind: Kind
    family: str
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    bounds: tuple[float, ...] = ()
    top: float = math.inf
    counts: bool = True


def _metrics(family: Family) -> Iterable[Metric]:
    own = dict.fromkeys(GATEWAY_LABELS if family.name.startswith(("gateway_", "llm_")) else ENGINE_LABELS, ())
    labels: dict[str, tuple[str, ...]] = {} if family.name == "up" else dict(own)
    if family.label:
        labels[family.label] = family.values
    if family.kind == "gauge":
        yield Metric(family.name, "gauge", family.name, labels, top=1.0 if family.name in FRACTIONS else math.inf)
    elif family.kind == "counter":
        yield Metric(family.name + SUFFIX["counter"], "counter", family.name, labels)
    else:
        for part in ("sum", "count"):
            yield Metric(f"{family.name}_{part}", "counter", family.name, labels, counts=part == "count")
    if family.kind == "histogram":
        bounds = (*map(repr, family.bounds), "+Inf") if family.bounds else ()
        yield Metric(f"{family.name}_bucket", "bucket", family.name, {**labels, "le": bounds}, family.bounds)


METRICS = {metric.name: metric for family in (*FAMILIES, *CONTAINED, *_KNOWN) for metric in _metrics(family)}
"""Every metric known, by the name that rules read."""
UNFINISHED = {
    family.name: tuple(metric.name for metric in _metrics(family))
    for family in (*FAMILIES, *CONTAINED, *_KNOWN)
    if family.kind != "gauge" and family.name not in METRICS
}
"""Names without the suffix that Prometheus adds, and the names meant."""
