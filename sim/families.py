"""Every metric there is: its name, its kind, the series that it has, and what it says of itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from sim.buckets import ITL_BOUNDS, REQUEST_BOUNDS, TTFT_BOUNDS
from sim.records import Outcome
from sim.series import NAME

REASONS = ("stop", "length", "abort", "error", "repetition")
"""Values of `finished_reason` (vllm/v1/engine/__init__.py, FinishReason, 0.32)."""
SUFFIX = {"gauge": "", "counter": "_total"}


@dataclass(frozen=True)
class Family:
    """One metric; a histogram has *bounds*, and *label* is one that tells its series apart, with all its values."""

    name: str
    kind: Literal["gauge", "counter", "histogram", "summary"]
    help: str
    bounds: tuple[float, ...] = ()
    label: str = ""
    values: tuple[str, ...] = ()

    def series(self, labels: Mapping[str, str]) -> Iterator[dict[str, str]]:
        """Yield the labels of each of its series on a target with *labels*; of a histogram first the buckets."""
        if self.kind == "histogram":
            for bound in [*map(repr, self.bounds), "+Inf"]:
                yield {NAME: f"{self.name}_bucket", **labels, "le": bound}
        if self.kind in ("histogram", "summary"):
            yield {NAME: f"{self.name}_sum", **labels}
            yield {NAME: f"{self.name}_count", **labels}
        elif self.label:
            for value in self.values:
                yield {NAME: self.name + SUFFIX[self.kind], **labels, self.label: value}
        else:
            yield {NAME: self.name + SUFFIX[self.kind], **labels}

    @property
    def ordered(self) -> tuple[str, ...]:
        """The names of its series in the order of `series`, for one that has neither buckets nor a label."""
        return (f"{self.name}_sum", f"{self.name}_count") if self.kind == "summary" else self.names

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its series."""
        if self.kind in ("histogram", "summary"):
            suffixes = ("_bucket", "_count", "_sum") if self.kind == "histogram" else ("_count", "_sum")
            return tuple(self.name + suffix for suffix in suffixes)
        return (self.name + SUFFIX[self.kind],)


UP = Family("up", "gauge", "1: the target was scraped; 0: it did not answer.")
ENGINE = (
    Family("vllm:num_requests_running", "gauge", "Number of requests in model execution batches."),
    Family("vllm:num_requests_waiting", "gauge", "Number of requests waiting to be processed."),
    Family("vllm:kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage."),
    Family("vllm:num_preemptions", "counter", "Cumulative number of preemption from the engine."),
    Family("vllm:prompt_tokens", "counter", "Number of prefill tokens processed."),
    Family("vllm:generation_tokens", "counter", "Number of generation tokens processed."),
    Family("vllm:prefix_cache_queries", "counter", "Prefix cache queries, in terms of number of queried tokens."),
    Family("vllm:prefix_cache_hits", "counter", "Prefix cache hits, in terms of number of cached tokens."),
    Family("vllm:request_success", "counter", "Count of successfully processed requests.", (), "finished_reason",
           REASONS),
    Family("vllm:time_to_first_token_seconds", "histogram", "Histogram of time to first token in seconds.",
           TTFT_BOUNDS),
    Family("vllm:inter_token_latency_seconds", "histogram", "Histogram of inter-token latency in seconds.",
           ITL_BOUNDS),
    Family("vllm:e2e_request_latency_seconds", "histogram", "Histogram of e2e request latency in seconds.",
           REQUEST_BOUNDS),
    Family("vllm:request_queue_time_seconds", "histogram", "Histogram of time spent in WAITING phase for request.",
           REQUEST_BOUNDS),
)  # fmt: skip
"""Of a replica, in the order of `sim.telemetry.scraper.engine_values`; help texts are vLLM's."""
REQUESTS = Family("gateway_requests", "counter", "Attempts that have ended, by HTTP status.", (), "code")
"""Its codes are those that can occur in the scenario."""
FIRST_TOKEN = Family(
    "gateway_time_to_first_token_seconds", "histogram", "Time from when the client sent an attempt to its first token.",
    TTFT_BOUNDS,
)  # fmt: skip
DURATION = Family(
    "gateway_request_duration_seconds", "histogram", "Time from when the client sent an attempt to its end.",
    REQUEST_BOUNDS,
)  # fmt: skip
SCORES = Family("llm_eval_score", "summary", "Score of answers that were evaluated: 1 right, 0 wrong.")
"""The third layer of objectives: what an online evaluation of a share of the answers says."""
CHECK_SCORES = Family(
    "llm_check_score", "summary", "Score of answers that a check looked at: 1 passed, 0 failed.", (), "check",
)  # fmt: skip
"""Of a load test whose scenario has `checks`: each of them, where `SCORES` is of all together."""
TASKS = Family(
    "llm_tasks", "counter", "What users asked, whatever their software tried, by what became of it.", (), "outcome",
    tuple(outcome.name.lower() for outcome in Outcome),
)  # fmt: skip
"""The fourth layer: requests, not attempts."""
REVIEW = (
    Family("review_queue_length", "gauge", "Answers that wait for a reviewer."),
    Family("review_reviewers", "gauge", "Reviewers at work."),
    Family("review_reviewers_busy", "gauge", "Reviewers who are reviewing."),
    Family("review_escalated", "counter", "Answers that a gate has held back for review."),
    Family("review_late", "counter", "Answers of which no review had begun when they were wanted."),
    Family("review_wait_seconds", "summary", "Time from escalation until a review began."),
)
"""Of a team of reviewers."""
QUALITY_BREAKER = Family("quality_breaker_open", "gauge", "1: requests are diverted because answers are bad.")
OVERFLOW = Family("overflow_on", "gauge", "1: requests are diverted because the queue is long.")
RELEASE = Family("release_share", "gauge", "Share of the sessions that a version gets.")
SIGNALS = Family("llm_signals", "counter", "What users did about answers, when it arrived.", (), "signal")
"""Late, and of a few: edits, escalations, complaints. Its signals are those of the scenario."""
FAMILIES = (UP, *ENGINE, REQUESTS, FIRST_TOKEN, DURATION, TASKS, SCORES)
"""Those of every run."""
CONTAINED = (*REVIEW, QUALITY_BREAKER, OVERFLOW, RELEASE, SIGNALS)
"""Those of a run whose scenario asks for them."""
