"""GuideLLM's ``benchmarks.json``: benchmarks with their requests by status, times in Unix seconds.

Source: `guidellm/schemas/base/request_stats.py` and `info.py` of GuideLLM 0.8 (``GenerativeRequestStats`` with
request_start_time, request_end_time, time_to_first_token_ms, prompt_tokens, output_tokens; ``info.timings`` and
``info.error``), and `scheduler/strategies.py` (``defines_arrival_schedule``).
"""

import math
import re
from pathlib import Path
from typing import Any

from loadtest.imports.requests import NO_STATUS, UNIX_FROM, Imported, Request, mapping, number, shown, whole
from sim.errors import InputError

GOOD = {"successful": True, "errored": False}
"""Requests that were under way when a benchmark ended (incomplete) are left out."""
SCHEDULED = ("constant", "poisson", "trace")
"""Strategies that say when a request is due; the target of the others is as soon as a worker is free."""
STATUS = re.compile(r"HTTPStatusError\(.{1,20} error '(\d{3})\b")
"""How httpx tells the status of an answer, at the start of ``info.error``."""


def knows(data: Any) -> bool:
    """Tell whether *data* is such a file."""
    return isinstance(data, dict) and isinstance(data.get("benchmarks"), list)


def read(path: Path, data: dict[str, Any]) -> Imported:
    """Return the requests in *data*, the JSON at *path*: of all its benchmarks, as they came.

    Raises:
        InputError: a value is not what was expected; names file, record and field.
    """
    found: list[Request] = []
    left_out = lost = 0
    for k, benchmark in enumerate(data["benchmarks"], start=1):
        requests = benchmark.get("requests") if isinstance(benchmark, dict) else None
        if not isinstance(requests, dict) or not isinstance(requests.get("successful"), list):
            raise InputError(f"{path}, benchmark {k}: requests.successful: expected a list, got {shown(requests)}")
        where = f"{path}, benchmark {k}"
        strategy = mapping(mapping(benchmark, "config", where), "config.strategy", where)
        due, first = strategy.get("type_") in SCHEDULED, len(found)
        for name, good in GOOD.items():
            for n, one in enumerate(requests.get(name) or [], start=1):
                found.append(_request(f"{where}, {name} record {n}", one, good, due))
        left_out += len(requests.get("incomplete") or [])
        lost += sum(math.isnan(one.scheduled_s) for one in found[first:]) if due else 0
    if not found:
        raise InputError(f"{path}: holds no requests; expected a report that keeps them")
    notes = [f"{left_out} requests that were under way when a benchmark ended are left out"] if left_out else []
    if lost:
        notes.append(
            f"when {lost} requests were due is not said, or not as a date: they count from when they were sent"
        )
    if len(data["benchmarks"]) > 1:
        notes.append(f"{len(data['benchmarks'])} benchmarks at different loads, one after the other, are one run")
    return Imported("guidellm", found, tuple(notes))


def _request(where: str, one: Any, good: bool, due: bool) -> Request:
    if not isinstance(one, dict):
        raise InputError(f"{where}: expected a mapping, got {shown(one)}")
    sent_s = number(one.get("request_start_time"), where, "request_start_time", "Unix seconds")
    finished_s = number(one.get("request_end_time"), where, "request_end_time", "Unix seconds")
    info = mapping(one, "info", where)
    ttft_ms = one.get("time_to_first_token_ms")
    said = STATUS.match(str(info.get("error")))
    return Request(
        where=where,
        sent_s=sent_s,
        finished_s=finished_s,
        first_s=math.nan if ttft_ms is None else sent_s + number(ttft_ms, where, "time_to_first_token_ms") * 1e-3,
        scheduled_s=_due_s(info, where) if due else math.nan,
        prompt_tokens=_tokens(one, "prompt_tokens", where, good),
        output_tokens=_tokens(one, "output_tokens", where, good),
        status=200 if good else int(said[1]) if said else NO_STATUS,
        ok=good,
    )


def _due_s(info: dict[str, Any], where: str) -> float:
    """Return when a request was due, nan where that is no date: 0.8.1 counts some targets of a Poisson rate from 0."""
    target = mapping(info, "info.timings", where).get("targeted_start")
    due_s = math.nan if target is None else number(target, where, "info.timings.targeted_start", "Unix seconds")
    return due_s if due_s >= UNIX_FROM else math.nan


def _tokens(one: dict[str, Any], name: str, where: str, needed: bool) -> int:
    return whole(one.get(name), where, name) if needed or one.get(name) is not None else -1
