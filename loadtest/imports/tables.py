"""Per-request tables (CSV, as gateways and scripts write them): which column is what, and in which unit."""

import csv
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from loadtest.imports.requests import Imported, Request
from sim.errors import InputError
from sim.words import did_you_mean

FIELDS = {
    "scheduled": "when the user acted",
    "sent": "when the request was sent",
    "first_token": "when the first token came",
    "finished": "when the answer was whole",
    "ttft": "time to the first token",
    "e2e": "time to the end of the answer",
    "prompt_tokens": "tokens of the prompt",
    "output_tokens": "tokens of the answer",
    "status": "HTTP status",
    "cohort": "which kind of request, as the scenario names it",
}
"""What a column may be."""
ALIASES = {
    "scheduled": ("scheduled_s", "scheduled", "arrival_s"),
    "sent": ("sent_s", "sent", "send_s", "start", "start_time", "timestamp", "time", "starttime"),
    "first_token": ("first_token_s", "first_token", "first_token_time", "completionstarttime"),
    "finished": ("finished_s", "finished", "end", "end_time", "endtime", "msec"),
    "ttft": ("ttft_s", "ttft", "ttft_ms", "time_to_first_token"),
    "e2e": (
        *("e2e_s", "e2e", "latency", "latency_s", "latency_ms", "duration", "duration_ms", "duration_s"),
        "request_time",
    ),
    "prompt_tokens": ("prompt_tokens", "input_tokens"),
    "output_tokens": ("output_tokens", "completion_tokens", "generated_tokens"),
    "status": ("status", "status_code", "http_status"),
    "cohort": ("cohort",),
}
"""Names that are understood without `--columns`.

LiteLLM's spend logs call them startTime and completionStartTime; nginx has `$msec`, when it wrote the line, and
`$request_time`.
"""
UNITS = {"_ns": 1e-9, "_us": 1e-6, "_ms": 1e-3, "_s": 1.0}
SCALES = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))
"""Dates so large count nanoseconds, microseconds or milliseconds since 1970."""
OK = 200, 299


def read(path: Path, columns: Mapping[str, str]) -> Imported:
    """Return the requests in the CSV at *path*; *columns* says what is what where names do not.

    Raises:
        InputError: a column is missing, or a value is not what was expected; names file, line and column.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or ())
        chosen = _chosen(path, names, columns)
        requests = [_request(f"{path}, line {reader.line_num}", row, chosen) for row in reader]
    if not requests:
        raise InputError(f"{path}: has no rows; expected a request a row")
    notes = []
    if not {"first_token", "ttft"} & set(chosen):
        notes.append("first tokens are not in the file: no TTFT (`blowout why --by e2e` tells what was slow)")
    notes += [f"{name} are not in the file" for name in ("prompt_tokens", "output_tokens") if name not in chosen]
    return Imported("csv", requests, tuple(notes))


def _chosen(path: Path, names: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return the name of the column of each thing that is there."""
    for field, name in columns.items():
        if name not in names:
            near = did_you_mean(name, names) or f"; it has {', '.join(names[:40])}"
            raise InputError(f"{path}: column {name!r}, which --columns calls {field}, is missing{near}")
    lower = {name.lower(): name for name in reversed(names) if name not in columns.values()}
    known = {field: next((lower[one] for one in ALIASES[field] if one in lower), "") for field in ALIASES}
    found = {field: name for field, name in {**known, **columns}.items() if name}
    if "sent" not in found and "scheduled" in found:
        found["sent"] = found["scheduled"]
    ends = {"finished", "e2e"} & set(found)
    for field, other, said in (("sent", "sent", len(ends) == 2), ("finished", "e2e", bool(ends))):
        if field not in found and not said:
            raise InputError(
                f"{path}: no column says {FIELDS[field]}; name it with --columns {other}=NAME (it has "
                f"{', '.join(names[:40]) or 'no columns'})"
            )
    return found


def _request(where: str, row: Mapping[str, str | None], chosen: Mapping[str, str]) -> Request:
    def text(field: str) -> str:
        value = (row.get(chosen.get(field) or "") or "").strip()
        return "" if value == "-" else value  # nginx and Envoy write a dash for what is not there

    def time_s(field: str) -> float:
        return _time_s(text(field), f"{where}, column {chosen[field]!r}") if text(field) else math.nan

    def span_s(field: str) -> float:
        return _span_s(text(field), chosen[field], where) if text(field) else math.nan

    sent_s = time_s("sent") if "sent" in chosen else time_s("finished") - span_s("e2e")  # an access log: at the end
    if math.isnan(sent_s):
        name = "sent" if "sent" in chosen else "e2e" if text("finished") else "finished"
        raise InputError(f"{where}, column {chosen[name]!r}: expected {FIELDS[name]}, got nothing")
    status = _count(text("status"), f"{where}, column {chosen.get('status')!r}", "an HTTP status")
    first_s, finished_s = time_s("first_token"), time_s("finished")
    good = status == -1 or OK[0] <= status <= OK[1]
    if math.isnan(first_s):
        first_s = sent_s + span_s("ttft")
    if math.isnan(finished_s):
        finished_s = sent_s + span_s("e2e")
    if good and math.isnan(finished_s):
        name = chosen["finished" if "finished" in chosen else "e2e"]
        raise InputError(f"{where}, column {name!r}: expected {FIELDS['finished']}, got nothing")
    return Request(
        where=where,
        sent_s=sent_s,
        finished_s=finished_s,
        first_s=first_s,
        scheduled_s=time_s("scheduled"),
        prompt_tokens=_count(text("prompt_tokens"), f"{where}, column {chosen.get('prompt_tokens')!r}"),
        output_tokens=_count(text("output_tokens"), f"{where}, column {chosen.get('output_tokens')!r}"),
        status=200 if status == -1 else status,
        ok=good,
        cohort=text("cohort"),
    )


def _time_s(text: str, where: str) -> float:
    """Return a time as Unix seconds, or as seconds of the tool's own clock."""
    try:
        value = float(text)
    except ValueError:
        try:
            read = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise InputError(f"{where}: expected a number or a date and time, got {text[:30]!r}") from None
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(value):
        raise InputError(f"{where}: expected a number or a date and time, got {text[:30]!r}")
    return next((value * scale for least, scale in SCALES if value >= least), value)


def _span_s(text: str, name: str, where: str) -> float:
    """Return a length of time in seconds; the end of the column's *name* tells its unit (seconds without)."""
    unit = next((scale for end, scale in UNITS.items() if name.lower().endswith(end)), 1.0)
    try:
        value = float(text) * unit
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{where}, column {name!r}: expected a length of time, not below 0, got {text[:30]!r}")
    return value


def _count(text: str, where: str, what: str = "a whole number of tokens") -> int:
    if not text:
        return -1
    try:
        value = float(text)
        if value < 0 or value != int(value):
            raise ValueError
    except (ValueError, OverflowError):
        raise InputError(f"{where}: expected {what}, got {text[:30]!r}") from None
    return int(value)
