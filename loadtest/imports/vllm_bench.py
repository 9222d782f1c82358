"""`vllm bench serve --save-result --save-detailed`: one JSON object with a list of each number, an entry a request.

Source: `vllm/benchmarks/serve.py` of vLLM 0.32 (``input_lens``, ``output_lens``, ``ttfts``, ``itls``, ``start_times``,
``queue_times``, ``errors``), and `lib/endpoint_request_func.py`: a request that failed has the reason phrase of its
HTTP status for an error, which a server may leave empty, or a traceback; its ``ttft`` is 0 unless it was cut off.
"""

import math
from pathlib import Path
from typing import Any

from loadtest.imports.requests import NO_STATUS, PHRASES, Imported, Request, listed, number, whole
from sim.errors import InputError

KEYS = ("input_lens", "output_lens", "ttfts", "itls")
NOTE = "the end of an answer is its last token: vllm bench does not keep when the stream closed"


def knows(data: Any) -> bool:
    """Tell whether *data* is such a file, with or without its details."""
    some = data[0] if isinstance(data, list) and data else data
    return isinstance(some, dict) and ("request_throughput" in some or "ttfts" in some) and "backend" in some


def read(path: Path, data: Any) -> Imported:
    """Return the requests in *data*, the JSON at *path*: of all its benchmarks (``--append-result``: lines).

    Raises:
        InputError: it has no details, or a value is not what was expected; names file, record and field.
    """
    if not isinstance(data, list):
        return Imported("vllm-bench", _requests(str(path), data), (NOTE,))
    each = [_requests(f"{path}, line {k}", some) for k, some in enumerate(data, start=1)]
    _check_order(path, each)
    found = [one for some in each for one in some]
    return Imported("vllm-bench", found, (NOTE, f"{len(data)} benchmarks, one after the other, are one run"))


def _check_order(path: Path, each: list[list[Request]]) -> None:
    """Refuse benchmarks at one time: their clock counts from the start of a machine, and may be of another machine."""
    ended_s = -math.inf
    for k, requests in enumerate(each, start=1):
        if min((one.sent_s for one in requests), default=math.inf) < ended_s:
            raise InputError(
                f"{path}, line {k}: by its start_times it began before the benchmark above it ended; expected "
                "benchmarks one after the other, of one machine since it was started (import each line by itself)"
            )
        ended_s = max([ended_s, *(one.finished_s if one.ok else one.sent_s for one in requests)])


def _requests(place: str, data: Any) -> list[Request]:
    missing = [name for name in ("ttfts", "start_times") if not isinstance(data, dict) or name not in data]
    if missing:
        raise InputError(
            f"{place}: {missing[0]} is missing, so single requests cannot be told apart; expected a file that vllm "
            "bench serve (0.11 or later) wrote with --save-result --save-detailed"
        )
    starts = listed(data, "start_times", place)
    lists = {key: listed(data, key, place, len(starts)) for key in KEYS}
    errors = data.get("errors")
    errors = errors if isinstance(errors, list) and len(errors) == len(starts) else [""] * len(starts)
    waits = listed(data, "queue_times", place, len(starts)) if _scheduled(data) else [math.nan] * len(starts)
    requests = []
    for k, start in enumerate(starts):
        where = f"{place}, record {k + 1}"
        sent_s = number(start, where, "start_times", "seconds")
        gaps_s = [number(gap, where, "itls", "seconds") for gap in listed({"itls": lists["itls"][k]}, "itls", where)]
        ttft_s = number(lists["ttfts"][k], where, "ttfts", "seconds")
        tokens = whole(lists["output_lens"][k], where, "output_lens")
        good = not errors[k] and (tokens > 0 or ttft_s > 0)
        requests.append(
            Request(
                where=where,
                sent_s=sent_s,
                first_s=sent_s + ttft_s if good else math.nan,
                finished_s=sent_s + ttft_s + sum(gaps_s) if good else math.nan,
                scheduled_s=sent_s - (waits[k] if waits[k] is math.nan else number(waits[k], where, "queue_times")),
                prompt_tokens=whole(lists["input_lens"][k], where, "input_lens"),
                output_tokens=tokens,
                status=200 if good else PHRASES.get(str(errors[k]).strip(), NO_STATUS),
                ok=good,
                gaps_s=gaps_s if good else [],
            )
        )
    return requests


def _scheduled(data: dict[str, Any]) -> bool:
    """Tell whether requests had a time of their own, and how long each waited after it for --max-concurrency is said.

    At an infinite rate all are due at once, and who waits only waits for its turn.
    """
    rate = data.get("request_rate")
    return "queue_times" in data and isinstance(rate, int | float) and math.isfinite(rate)
