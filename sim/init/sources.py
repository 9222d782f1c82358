"""Where numbers come from: pages in files, servers that are scraped twice, a Prometheus. All become windows of counts.

A window is what counters gained over a known time, with gauges as they were at its end. Every series in it
carries `instance` (which server) and, where it can be told, `model_name`, as in a Prometheus.
"""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.errors import EndpointError, InputError
from sim.fetch import get, is_url, looks_like_html, query, shown
from sim.init.exposition import Page, Sample, difference, parse
from sim.init.facts import Mark

SUCCESS = "vllm:request_success_total"
TOKEN_VARIABLE = "BLOWOUT_PROMETHEUS_TOKEN"
SCRAPE_S = 10.0

# Counters and histograms that are asked of a Prometheus, as increases, and gauges, as they are.
_INCREASES = (
    SUCCESS,
    "vllm:admission_rejections_total",
    "vllm:num_preemptions_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
)
_HISTOGRAMS = (
    "vllm:request_prompt_tokens",
    "vllm:request_generation_tokens",
    "vllm:time_to_first_token_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:request_prefill_time_seconds",
)
_GAUGES = ("vllm:cache_config_info", "vllm:num_requests_running", "vllm:num_requests_waiting")


@dataclass(frozen=True)
class Window:
    """What one source gained over ``elapsed_s`` seconds (NaN: unknown); ``mark`` and ``how`` say how that is known."""

    page: Page
    elapsed_s: float
    mark: Mark
    how: str
    lifetime: Page  # counters since the servers started, or the same page: lengths have more to go on
    flow: float = 0.0  # requests that arrived and have not finished: change of running and waiting


@dataclass(frozen=True)
class _Scrape:
    source: str
    page: Page
    at_s: float  # wall clock
    from_file: bool


def load_metrics(sources: Sequence[str], over_s: float | None) -> list[Window]:
    """Read every file once and every URL twice, *over_s* seconds apart (10 when None; 0: once).

    Pages of one and the same process are a pair, and *over_s*, or the age of the files, is the time between them.
    Raises InputError for a file, EndpointError for a server, that holds no metrics of vLLM.
    """
    first = [_scrape(source) for source in sources]
    gap_s = SCRAPE_S if over_s is None else over_s
    urls = [scrape.source for scrape in first if not scrape.from_file]
    if urls and gap_s > 0:
        time.sleep(gap_s)
        first += [_scrape(url) for url in urls]
    groups: list[list[_Scrape]] = []
    for scrape in first:
        for group in groups:
            if _same_process(group[0], scrape, over_s):
                group.append(scrape)
                break
        else:
            groups.append([scrape])
    return [_window(group, over_s) for group in groups]


def _scrape(source: str) -> _Scrape:
    if is_url(source):
        url = source if source.split("://", 1)[1].rstrip("/").count("/") else source.rstrip("/") + "/metrics"
        text, at_s, where = get(url), time.time(), shown(url)
    else:
        text, at_s = _read(source)
        where = source
    error = EndpointError if is_url(source) else InputError
    if looks_like_html(text):
        raise error(f"{where}: expected Prometheus text, got a web page (HTML); vLLM serves its metrics under /metrics")
    page = parse(text, where, error)
    if not any(sample.name.startswith("vllm:") for sample in page):
        raise error(f"{where}: expected metrics of vLLM (vllm:...), got none; is this a vLLM server's /metrics?")
    return _Scrape(source, _named(page, where), at_s, not is_url(source))


def _read(source: str) -> tuple[str, float]:
    try:
        return Path(source).read_text(encoding="utf-8", errors="replace"), Path(source).stat().st_mtime
    except OSError as error:
        raise InputError(f"--metrics: {source}: {error.strerror or error}; expected a file or a URL") from None


def _named(page: Page, instance: str | None = None) -> Page:
    """Fill in `instance`, and `model_name` where an instance serves one model (vllm:cache_config_info names none)."""
    samples = [Sample(s.name, {"instance": instance or "", **s.labels}, s.value) for s in page]
    models: dict[str, set[str]] = {}
    for sample in samples:
        if sample.name.startswith("vllm:") and "model_name" in sample.labels:
            models.setdefault(sample.labels["instance"], set()).add(sample.labels["model_name"])
    for sample in samples:
        here = models.get(sample.labels["instance"], set())
        if sample.name.startswith("vllm:") and len(here) == 1:
            sample.labels.setdefault("model_name", *here)
    return Page(samples)


def _started_s(page: Page) -> float | None:
    """Return when the server began to count, epoch seconds: its process, or else its first counter."""
    for name in ("process_start_time_seconds", "vllm:request_success_created", "vllm:prompt_tokens_created"):
        found = [s.value for s in page.get(name) if s.value > 0]
        if found:
            return min(found)
    return None


def _same_process(a: _Scrape, b: _Scrape, over_s: float | None) -> bool:
    """Tell whether two pages are of one process: it began at one time, or that is untold and *over_s* was given."""
    if not a.from_file or not b.from_file:
        return a.source == b.source
    started = _started_s(a.page), _started_s(b.page)
    return over_s is not None if started == (None, None) else started[0] == started[1]


def _window(group: list[_Scrape], over_s: float | None) -> Window:
    group = sorted(group, key=lambda scrape: (scrape.page.total(SUCCESS), scrape.at_s))
    earlier, later = group[0], group[-1]
    if not later.from_file:
        group.sort(key=lambda scrape: scrape.at_s)
        earlier, later = group[0], group[-1]
    before = earlier.page if earlier.source == later.source else _relabel(earlier.page, later.source)
    gained = difference(later.page, before) if len(group) > 1 else None
    if gained is None or gained.total(SUCCESS) <= 0:
        return _since_start(later)
    flow = _inside(later.page) - _inside(earlier.page)
    if later.from_file and over_s is None:
        elapsed_s = abs(later.at_s - earlier.at_s)
        if elapsed_s < 1.0:  # copies made together do not say how far apart the scrapes were
            elapsed_s = math.nan
        return Window(gained, elapsed_s, "guessed", "between the dates of two files", later.page, flow)
    elapsed_s = over_s if later.from_file and over_s else later.at_s - earlier.at_s
    return Window(gained, elapsed_s, "measured", f"between two scrapes {elapsed_s:.3g} s apart", later.page, flow)


def _relabel(page: Page, instance: str) -> Page:
    return Page(Sample(s.name, {**s.labels, "instance": instance}, s.value) for s in page)


def _inside(page: Page) -> float:
    return page.total("vllm:num_requests_running") + page.total("vllm:num_requests_waiting")


def _since_start(scrape: _Scrape) -> Window:
    """Take one page by itself: everything since the server started, idle hours included."""
    started_s = _started_s(scrape.page)
    elapsed_s = math.nan if started_s is None or scrape.at_s <= started_s else scrape.at_s - started_s
    how = "since the server started, idle time included"
    if scrape.from_file:  # a page does not say when it was scraped
        how += ", up to the date of the file"
    return Window(scrape.page, elapsed_s, "guessed" if scrape.from_file else "derived", how, scrape.page)


def load_prometheus(base: str, range_s: float) -> Window:
    """Ask a Prometheus what all vLLM servers did over the last *range_s* seconds.

    Raises EndpointError when it does not answer as its HTTP API does, or has no vLLM series.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip() or None
    if token is not None and not (token.isascii() and token.isprintable()):
        raise InputError(f"{TOKEN_VARIABLE}: expected a token of printable ASCII characters")
    span = f"{max(round(range_s), 1)}s"
    samples = []
    for name in (*_INCREASES, *(f"{h}{suffix}" for h in _HISTOGRAMS for suffix in ("_bucket", "_sum", "_count"))):
        samples += _vector(base, f"increase({name}[{span}])", name, token)
        if name == SUCCESS and not samples:
            raise EndpointError(f"{shown(base)}: expected {SUCCESS} in the last {span}, got none; does it scrape vLLM?")
    for name in _GAUGES:
        samples += _vector(base, name, name, token)
    samples += _vector(base, f"max_over_time((sum by (model_name) (rate({SUCCESS}[5m])))[{span}:1m])", "peak", token)
    page = _named(Page(samples))
    return Window(page, range_s, "measured", f"over the last {span} in Prometheus", page)


def _vector(base: str, promql: str, name: str, token: str | None) -> list[Sample]:
    try:
        return [
            Sample(name, {str(k): str(v) for k, v in item["metric"].items()}, float(item["value"][1]))
            for item in query(base, promql, token)
        ]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise EndpointError(f"{shown(base)}: expected the Prometheus HTTP API, got a series it cannot have") from None
