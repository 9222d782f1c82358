"""AIPerf's ``profile_export.jsonl``: one record a line, times in nanoseconds since 1970, metrics with units.

Source: docs/tutorials/working-with-profile-exports.md of AIPerf 0.5 (``MetricRecordInfo``).
"""

import math
from pathlib import Path
from typing import Any

from loadtest.imports.requests import Imported, Request, number, shown, whole
from sim.errors import InputError

UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "sec": 1.0, "s": 1.0}
LEFT, FAILED = 499, 502


def knows(data: Any) -> bool:
    """Tell whether *data* is the records of such a file."""
    some = data[0] if isinstance(data, list) and data else data
    return isinstance(some, dict) and "request_start_ns" in (some.get("metadata") or {})


def read(path: Path, data: Any) -> Imported:
    """Return the requests in *data*, the records at *path*; those of the warm-up are left out.

    Raises:
        InputError: a value is not what was expected; names file, record and field.
    """
    records = data if isinstance(data, list) else [data]
    made = [_request(f"{path}, record {k}", record) for k, record in enumerate(records, start=1)]
    found = [one for one in made if one is not None]
    if not found:
        raise InputError(f"{path}: holds no requests but those of a warm-up")
    warm = len(made) - len(found)
    return Imported("aiperf", found, (f"{warm} requests of the warm-up are left out",) if warm else ())


def _request(where: str, record: Any) -> Request | None:
    said = record.get("metadata") if isinstance(record, dict) else None
    if not isinstance(said, dict):
        raise InputError(f"{where}: metadata: expected a mapping with request_start_ns, got {shown(said)}")
    if said.get("benchmark_phase", "profiling") != "profiling":
        return None
    sent_s = number(said.get("request_start_ns"), where, "metadata.request_start_ns", "nanoseconds") * 1e-9
    finished_s = number(said.get("request_end_ns"), where, "metadata.request_end_ns", "nanoseconds") * 1e-9
    metrics, error = record.get("metrics") or {}, record.get("error")
    if error:
        code = error.get("code") if isinstance(error, dict) else None
        status = LEFT if said.get("was_cancelled") else code if isinstance(code, int) and 100 <= code < 600 else FAILED
        return Request(where, sent_s, finished_s, status=status, ok=False)
    ttft_s = _time_s(metrics, "time_to_first_token", where)
    tokens = "output_token_count" if "output_sequence_length" not in metrics else "output_sequence_length"
    return Request(
        where=where,
        sent_s=sent_s,
        finished_s=finished_s,
        first_s=sent_s + ttft_s,
        prompt_tokens=_tokens(metrics, "input_sequence_length", where),
        output_tokens=_tokens(metrics, tokens, where),
    )


def _time_s(metrics: dict[str, Any], name: str, where: str) -> float:
    """Return a metric in seconds, nan where there is none (an answer that was not streamed)."""
    if (found := metrics.get(name)) is None:
        return math.nan
    if not isinstance(found, dict) or found.get("unit") not in UNITS:
        raise InputError(f"{where}: metrics.{name}: expected a value with a unit of {', '.join(UNITS)}")
    return number(found.get("value"), where, f"metrics.{name}") * UNITS[found["unit"]]


def _tokens(metrics: dict[str, Any], name: str, where: str) -> int:
    found = metrics.get(name)
    if not isinstance(found, dict):
        raise InputError(f"{where}: metrics.{name}: expected a value in tokens, got {shown(found)}")
    return whole(found.get("value"), where, f"metrics.{name}")
