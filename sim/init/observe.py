"""From windows of counts to what is known of each service: its rate, its lengths, its cache, and what users saw."""

import math
from collections.abc import Iterable, Sequence

from sim.init.exposition import Histogram, Page, histogram
from sim.init.facts import Fact, Mark, Service, derived, guessed, measured
from sim.init.fit import FEW, LengthFit, fit_lengths
from sim.init.sources import SUCCESS, Window

_MARKS: tuple[Mark, ...] = ("measured", "derived", "guessed")  # from the best to the worst
_ENOUGH = 200  # requests in a window, above which its own lengths are used rather than those since the start
_LATENCIES = (
    ("TTFT", "vllm:time_to_first_token_seconds"),
    ("e2e", "vllm:e2e_request_latency_seconds"),
    ("ITL", "vllm:inter_token_latency_seconds"),
)


def observe(windows: Sequence[Window]) -> list[Service]:
    """Return one service for each model name met in *windows*, busiest first."""
    names = {s.labels["model_name"] for w in windows for s in w.page.get(SUCCESS) if "model_name" in s.labels}
    if not names:  # a server that has served nothing yet has its gauges
        names = {s.labels["model_name"] for w in windows for s in w.page if "model_name" in s.labels}
    services = [_service(name, windows) for name in sorted(names)]
    return sorted(services, key=lambda s: -(s.rate.value if s.rate else 0.0))


def _service(name: str, windows: Sequence[Window]) -> Service:
    mine = [w for w in windows if any(s.labels.get("model_name") == name for s in w.page)]
    pages = [w.page.only(name) for w in mine]
    counted = sum(page.total(SUCCESS) for page in pages)
    lifetime = [w.lifetime.only(name) for w in mine]
    lengths = Page(s for page in (pages if counted >= _ENOUGH else lifetime) for s in page)
    page = Page(s for page in pages for s in page)
    service = Service(name=name, aliases=(name,))
    service.rate = _rate(mine, pages)
    service.prompt = _length(lengths, "vllm:request_prompt_tokens")
    service.output = _length(lengths, "vllm:request_generation_tokens")
    service.pool = _cache(page)
    service.pool["replicas"] = _replicas(page)
    steps = _steps(page, lengths)
    if steps is not None:
        service.pool["step_time"] = steps
    when = " and ".join(dict.fromkeys(w.how for w in mine))
    service.observed = [
        f"What its users saw {when}, to compare a run at the same load with:",
        *_observed(page, lengths),
    ]
    return service


def _rate(windows: Sequence[Window], pages: Sequence[Page]) -> Fact | None:
    """Arrivals a second: what finished, was rejected, or is inside now and was not before, over the time that took."""
    rate, arrived, mark, ways = 0.0, 0.0, _MARKS[0], []
    for window, page in zip(windows, pages):
        alone = window.flow if len({s.labels.get("model_name") for s in window.page.get(SUCCESS)}) <= 1 else 0.0
        here = page.total(SUCCESS) + page.total("vllm:admission_rejections_total") + alone
        if here <= 0 or not window.elapsed_s > 0:
            continue
        rate, arrived = rate + here / window.elapsed_s, arrived + here
        mark = max(mark, window.mark, key=_MARKS.index)
        ways.append(window.how)
    if rate <= 0:
        return None
    sure = f"about ±{100 / math.sqrt(arrived):.0f}%" if arrived < 10_000 else "±1% or better"
    why = f"{arrived:,.0f} requests {' and '.join(dict.fromkeys(ways))}: {sure} by count alone"
    if any(page.total("vllm:num_requests_waiting") > 0 and not w.flow for w, page in zip(windows, pages)):
        why += "; requests were waiting, so users may ask for more than was answered"
    return Fact(_digits(rate, 4), mark, why)


def _length(page: Page, name: str) -> Fact | None:
    found = histogram(page, name)
    fit = fit_lengths(found) if found is not None else None
    if found is None or fit is None:
        return None
    if fit.sigma == 0.0:
        return derived(int(fit.median), f"mean of {fit.count:,.0f} requests in {name}, all in one bucket")
    value = {"lognormal": {"median": _digits(fit.median, 3), "sigma": _digits(fit.sigma, 3)}}
    if fit.max is not None:
        value["lognormal"]["max"] = max(fit.max, 1)
    mark = guessed if fit.count < FEW else derived
    return mark(value, f"lognormal fit to {fit.count:,.0f} requests in {name}: {_error(fit)}")


def _error(fit: LengthFit) -> str:
    poor = "; a poor fit: `empirical` may serve better" if fit.cdf_error > 0.05 or abs(fit.mean_error) > 0.2 else ""
    return (
        f"shares off by at most {100 * fit.cdf_error:.1f} points at any bucket edge, "
        f"mean {fit.mean:.4g}, fitted {100 * fit.mean_error:+.1f}%{poor}"
    )


def _cache(page: Page) -> dict[str, Fact]:
    """Read vllm:cache_config_info (labels are the fields of vLLM's CacheConfig); of several servers, the first."""
    infos = [s.labels for s in page.get("vllm:cache_config_info")]
    facts: dict[str, Fact] = {}
    if not infos:
        return facts
    info = infos[0]
    blocks, size = _whole(info, "num_gpu_blocks"), _whole(info, "block_size")
    share = _real(info, "gpu_memory_utilization")
    if share is not None and 0 < share <= 1:
        facts["gpu_memory_utilization"] = measured(share, "vllm:cache_config_info")
    if size is not None:
        facts["block_size"] = measured(size, "vllm:cache_config_info")
    if (caching := info.get("enable_prefix_caching")) in ("True", "False"):
        facts["prefix_caching"] = measured(caching == "True", "vllm:cache_config_info")
    if blocks is not None and blocks > 1:
        others = {i.get("num_gpu_blocks") for i in infos}
        more = f"; replicas differ: {', '.join(sorted(map(str, others)))}" if len(others) > 1 else ""
        facts["kv_blocks"] = measured(blocks - 1, f"num_gpu_blocks {blocks} less vLLM's null block{more}")
    tokens, at_once = _real(info, "kv_cache_size_tokens"), _real(info, "kv_cache_max_concurrency")
    if tokens and at_once:
        facts["max_model_len"] = derived(
            max(round(tokens / at_once), 1), "kv_cache_size_tokens over kv_cache_max_concurrency, in whole blocks"
        )
    return facts


def _whole(labels: dict[str, str], name: str) -> int | None:
    text = labels.get(name, "")
    return int(text) if text.isdigit() and int(text) > 0 else None


def _real(labels: dict[str, str], name: str) -> float | None:
    try:
        value = float(labels.get(name, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _replicas(page: Page) -> Fact:
    """Count engines: servers, times data-parallel ranks (label `engine`; each has its own queue and KV cache)."""
    for name in ("vllm:cache_config_info", "vllm:num_requests_running", SUCCESS):
        engines = {(s.labels.get("instance"), s.labels.get("engine")) for s in page.get(name)}
        if engines:
            return measured(len(engines), f"engines with {name}")
    return guessed(1, "no engine was seen")


def _steps(page: Page, lengths: Page) -> Fact | None:
    """A linear step time from means: what a token took, and what a prompt took beyond one step, by its length.

    Crude on purpose: it holds at the load it was measured at, and serves where no step times are tabulated.
    """
    gap = histogram(page, "vllm:inter_token_latency_seconds") or histogram(lengths, "vllm:inter_token_latency_seconds")
    prefill = histogram(lengths, "vllm:request_prefill_time_seconds")
    prompts = histogram(lengths, "vllm:request_prompt_tokens")
    if gap is None or not gap.mean > 0:
        return None
    value = {"base": _duration(gap.mean)}
    if prefill is not None and prompts is not None and prompts.mean > 0:
        value["per_prefill_token"] = _duration(max(prefill.mean - gap.mean, 0.0) / prompts.mean)
    return derived({"linear": value}, "mean time between tokens, and of a prefill beyond it, at the load measured")


def _duration(seconds: float) -> str:
    return f"{_digits(seconds * 1e3, 4):.10g}ms" if seconds >= 1e-4 else f"{_digits(seconds * 1e6, 4):.10g}us"


def _observed(page: Page, lengths: Page) -> Iterable[str]:
    for label, name in _LATENCIES:
        found = histogram(page, name) or histogram(lengths, name)
        if found is not None:
            yield f"{label} {_quantiles(found)}"
    finished = page.total(SUCCESS)
    if finished > 0:
        aborted, failed = page.total(SUCCESS, finished_reason="abort"), page.total(SUCCESS, finished_reason="error")
        rejected = page.total("vllm:admission_rejections_total")
        yield f"{finished:,.0f} finished ({aborted:,.0f} aborted, {failed:,.0f} in error), {rejected:,.0f} rejected"
        yield f"{page.total('vllm:num_preemptions_total'):,.0f} preemptions"
    asked = page.total("vllm:prefix_cache_queries_total")
    if asked > 0:
        hits = page.total("vllm:prefix_cache_hits_total") / asked
        yield f"prefix cache: {100 * hits:.1f}% of prompt tokens were hits; give the cohort a `prefix` to have them"
    running, waiting = page.total("vllm:num_requests_running"), page.total("vllm:num_requests_waiting")
    if page.get("vllm:num_requests_running"):
        yield f"at the last scrape {running:,.0f} running, {waiting:,.0f} waiting"
    for sample in page.get("peak"):
        if not math.isfinite(sample.value):
            continue
        yield f"busiest five minutes: {_digits(sample.value, 3)} requests finished a second"


def _quantiles(found: Histogram) -> str:
    parts = (f"P{round(100 * q)} {_seconds(found.quantile(q))}" for q in (0.5, 0.9, 0.99))
    return f"{', '.join(parts)}, mean {_seconds(found.mean)} (quantiles to within a bucket)"


def _seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def _digits(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
