"""AIPerf's ``profile_export.jsonl``: one record a line, times in nanoseconds since 1970, metrics with units.

Source: docs/tutorials/working-with-profile-exports.md of AIPerf (``MetricRecordInfo``), and what AIPerf 0.13 writes.
"""

import math
from pathlib import Path
from typing import Any

from loadtest.imports.requests import LEFT, NO_STATUS, Imported, Request, mapping, number, shown, whole
from sim.errors import InputError

UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "sec": 1.0, "s": 1.0}
PROMPT = "usage_prompt_tokens", "input_sequence_length"
OUTPUT = "usage_completion_tokens", "output_sequence_length", "output_token_count"
"""Tokens as the server counted them (its ``usage``), and by default as AIPerf's own tokenizer does."""


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
    notes = [f"{warm} requests of the warm-up are left out"] if warm else []
    if other := sum(_counts_otherwise(record) for record, one in zip(records, made) if one is not None):
        notes.append(
            f"tokens are the server's count: of {other} answers AIPerf's own tokenizer finds another number, and its "
            "inter token latency and output token throughput rest on that"
        )
    return Imported("aiperf", found, tuple(notes))


def _request(where: str, record: Any) -> Request | None:
    said = record.get("metadata") if isinstance(record, dict) else None
    if not isinstance(said, dict):
        raise InputError(f"{where}: metadata: expected a mapping with request_start_ns, got {shown(said)}")
    if said.get("benchmark_phase", "profiling") != "profiling":
        return None
    sent_s, finished_s = (_at_s(said, f"request_{name}_ns", where) for name in ("start", "end"))
    scheduled_s = _at_s(said, "credit_issued_ns", where) if said.get("credit_issued_ns") is not None else math.nan
    metrics, error = mapping(record, "metrics", where), record.get("error")
    if error:
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 100 <= code < 600 else NO_STATUS
        status = LEFT if said.get("was_cancelled") else status
        return Request(where, sent_s, finished_s, scheduled_s=scheduled_s, status=status, ok=False)
    took_s = _time_s(metrics, "request_latency", where)  # to the last token; request_end_ns is when the stream closed
    return Request(
        where=where,
        sent_s=sent_s,
        finished_s=finished_s if math.isnan(took_s) else sent_s + took_s,
        first_s=sent_s + _time_s(metrics, "time_to_first_token", where),
        scheduled_s=scheduled_s,
        prompt_tokens=_tokens(metrics, PROMPT, where),
        output_tokens=_tokens(metrics, OUTPUT, where),
        gaps_s=_times_s(metrics, "inter_chunk_latency", where),
    )


def _at_s(said: dict[str, Any], name: str, where: str) -> float:
    return number(said.get(name), where, f"metadata.{name}", "nanoseconds") * 1e-9


def _counts_otherwise(record: Any) -> bool:
    """Tell whether AIPerf and the server count the tokens of an answer differently."""
    metrics = record.get("metrics") or {}
    theirs, own = (metrics.get(name) for name in OUTPUT[:2])
    return isinstance(theirs, dict) and isinstance(own, dict) and theirs.get("value") != own.get("value")


def _time_s(metrics: dict[str, Any], name: str, where: str) -> float:
    """Return a metric in seconds, nan where there is none (an answer that was not streamed)."""
    found = _times_s(metrics, name, where)
    return found[0] if found else math.nan


def _times_s(metrics: dict[str, Any], name: str, where: str) -> list[float]:
    """Return a metric of one or many values in seconds, an empty list where there is none."""
    if (found := metrics.get(name)) is None:
        return []
    if not isinstance(found, dict) or found.get("unit") not in UNITS:
        raise InputError(f"{where}: metrics.{name}: expected a value with a unit of {', '.join(UNITS)}")
    values = found.get("value")
    each = values if isinstance(values, list) else [values]
    return [number(value, where, f"metrics.{name}") * UNITS[found["unit"]] for value in each]


def _tokens(metrics: dict[str, Any], names: tuple[str, ...], where: str) -> int:
    """Return the first of the counts *names* that is there."""
    name = next((one for one in names if one in metrics), names[-1])
    found = metrics.get(name)
    if not isinstance(found, dict):
        raise InputError(f"{where}: metrics.{name}: expected a value in tokens, got {shown(found)}")
    return whole(found.get("value"), where, f"metrics.{name}")
