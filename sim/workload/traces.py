"""Recorded traffic, replayed: who came when, with how long a question and how long an answer.

Read are the Azure LLM inference traces (CSV), Mooncake's (JSON lines, times in milliseconds), a gateway's
own log (CSV or JSON lines; times as ISO 8601 or seconds), and Blowout's own rows (attempts.parquet, which
keep their times; all others begin at t = 0 with their first request).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from sim.errors import TraceError
from sim.records import Outcome
from sim.scenario import Trace as TraceSpec
from sim.workload.trace_files import Head, Layout, batches, head, require

AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MOONCAKE = ("timestamp", "input_length", "output_length")
_MOONCAKE_EXTRA = "hash_ids"
_ALIASES = (
    ("timestamp", "arrival_s", "arrival_time", "arrived_at", "scheduled_s", "time", "ts", "created_at"),
    ("prompt_tokens", "input_tokens", "input_toks", "input_length", "num_prefill_tokens", "ContextTokens"),
    (
        "output_tokens",
        "completion_tokens",
        "generated_tokens",
        "output_toks",
        "output_length",
        "num_decode_tokens",
        "GeneratedTokens",
    ),
)
_KIND_OF_FORMAT = {"azure": "csv", "csv": "csv", "mooncake": "jsonl", "rows": "parquet"}
_ROW_COLUMNS = ["request", "attempt", "last", "outcome", "wrong", "prompt_tokens", "output_tokens", "scheduled_s"]
_FAR_FUTURE_S = 1e11  # the year 5138: such a timestamp is not in seconds


@dataclass(frozen=True)
class Trace:
    """Requests in the order of their arrival: seconds (float64), tokens (int32), wrong (uint8, own rows only).

    *complete* is false when the run's end came before the trace's. *extra* holds columns that are kept as they
    are (Mooncake's ``hash_ids``: one list a request, in Arrow's form; see `blocks`). *notes* say what was changed
    on reading.
    """

    file: Path
    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    wrong: np.ndarray | None = None
    complete: bool = True
    extra: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def period_s(self) -> float:
        """Time after which the trace may begin again: its span and one more mean gap."""
        n = len(self.arrival_s)
        return float(self.arrival_s[-1] - self.arrival_s[0]) * n / (n - 1) if n > 1 else 0.0

    def blocks(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the hashes of all prompts' blocks in one row (int64) and how many each has; None if not recorded.

        Raises:
            TraceError: a list of hashes has holes.
        """
        if _MOONCAKE_EXTRA not in self.extra:
            return None
        lists = self.extra[_MOONCAKE_EXTRA].combine_chunks()
        if lists.values.null_count:
            raise TraceError(f"{self.file}, column {_MOONCAKE_EXTRA!r}: a hash is empty; expected whole numbers")
        bounds = lists.offsets.to_numpy().astype(np.int64)
        return lists.values.to_numpy()[bounds[0] : bounds[-1]], np.diff(bounds)

    def laps(self, repeat: bool, until_s: float) -> Iterator[tuple[int, np.ndarray]]:
        """Yield, for each time the trace is played before *until_s*, the first request's number and all arrivals."""
        lap = 0
        while True:
            arrival_s = self.arrival_s + lap * self.period_s if lap else self.arrival_s
            inside = int(np.searchsorted(arrival_s, until_s, "left"))
            if inside:
                yield lap * len(self.arrival_s), arrival_s[:inside]
            lap += 1
            if inside < len(arrival_s) or not repeat or not self.complete:
                return


def load(spec: TraceSpec, until_s: float) -> Trace:
    """Return the requests of a trace that arrive before *until_s* of the run; later rows are not read.

    Raises:
        TraceError: the file cannot be read or a row is wrong; names file, row and column.
    """
    file = Path(spec.file)
    kind = _KIND_OF_FORMAT[spec.format] if spec.format else _kind_of(file)
    trace = _load_rows(file, spec, until_s) if kind == "parquet" else _load_text(file, kind, spec, until_s)
    if spec.repeat and trace.complete and trace.period_s <= 0.0:
        raise TraceError(f"{file}: all requests have one timestamp; expected at least two to repeat the trace")
    return trace


def _kind_of(file: Path) -> str:
    suffix = Path(file.stem).suffix if file.suffix == ".gz" else file.suffix
    if suffix == ".parquet":
        return "parquet"
    return "jsonl" if suffix in (".jsonl", ".json", ".ndjson") else "csv"


# --- text -----------------------------------------------------------------------------------------------------------


def _load_text(file: Path, kind: str, spec: TraceSpec, until_s: float) -> Trace:
    layout = _layout(file, kind, spec)
    times: list[np.ndarray] = []
    prompts: list[np.ndarray] = []
    outputs: list[np.ndarray] = []
    extras: list[Any] = []
    begin_s, complete = None, True
    for batch in batches(layout):
        begin_s = float(batch.time_s[0]) if begin_s is None else begin_s
        arrival_s = (batch.time_s - begin_s) * spec.time_scale
        inside = int(np.searchsorted(arrival_s, until_s, "left"))
        times.append(arrival_s[:inside])
        prompts.append(batch.prompt_tokens[:inside])
        outputs.append(batch.output_tokens[:inside])
        if batch.extra is not None:
            extras.append(batch.extra[:inside])
        if inside < len(arrival_s):
            complete = False
            break
    notes: list[str] = []
    return Trace(
        file,
        _joined(times),
        _at_least_one(_joined(prompts), "prompt", notes),
        _at_least_one(_joined(outputs), "output", notes),
        complete=complete,
        extra={layout.extra: pa.chunked_array(extras)} if layout.extra and extras else {},
        notes=tuple(notes),
    )


def _layout(file: Path, kind: str, spec: TraceSpec) -> Layout:
    """Recognise the format and find its columns."""
    start = head(file, kind)
    columns = spec.columns
    mapped = (columns.timestamp, columns.prompt_tokens, columns.output_tokens)
    standard = tuple(names[0] for names in _ALIASES)
    fixed = {"azure": AZURE, "mooncake": MOONCAKE}.get(spec.format or "")
    if spec.format is None and mapped == standard:
        known = AZURE if kind == "csv" else MOONCAKE
        fixed = known if set(known) <= set(start.columns) else None
    preferred = fixed or standard
    names = [
        want if want != usual else _present(preferred[i], _ALIASES[i] if fixed is None else (), start.columns)
        for i, (want, usual) in enumerate(zip(mapped, standard))
    ]
    require(file, names, start.columns)
    mooncake = spec.format == "mooncake" or fixed == MOONCAKE
    layout = Layout(
        file,
        kind,
        timestamp=names[0],
        prompt_tokens=names[1],
        output_tokens=names[2],
        unit_s=1e-3 if mooncake else 1.0,
        delimiter=start.delimiter,
        extra=_MOONCAKE_EXTRA if mooncake and _MOONCAKE_EXTRA in start.columns else None,
    )
    return _with_clock(layout, start, spec.time_scale)


def _present(name: str, aliases: tuple[str, ...], columns: list[str]) -> str:
    """Return the first of *name* and its *aliases* that is among *columns*; *name* when none is."""
    return next((one for one in (name, *aliases) if one in columns), name)


def _with_clock(layout: Layout, start: Head, time_scale: float) -> Layout:
    """Decide from the first row whether timestamps are numbers or dates."""
    text = str(start.first.get(layout.timestamp, "")).strip()
    try:
        number = float(text)
    except ValueError:
        dates = ":" in text or text.count("-") == 2
        clock = text[10:]
        zoned = dates and (clock.upper().endswith("Z") or "+" in clock or "-" in clock)
        return replace(layout, dates=dates, zoned=zoned)
    if number * layout.unit_s * time_scale > _FAR_FUTURE_S:
        factor = next((f for f in (1e-3, 1e-6) if number * f <= _FAR_FUTURE_S), 1e-9)
        raise TraceError(
            f"{layout.file}, row 1, column {layout.timestamp!r}: {text} is too large for seconds since 1970; if it "
            f"counts finer units, say so with workload.trace.time_scale, such as {factor:g}"
        )
    return layout


def _at_least_one(tokens: np.ndarray, what: str, notes: list[str]) -> np.ndarray:
    """Return *tokens* without zeros, which no engine can play, and note how many there were."""
    empty = int((tokens == 0).sum())
    if empty:
        notes.append(f"{empty} of {len(tokens)} traced requests have 0 {what} tokens and are played with 1")
    return np.maximum(tokens, 1, out=tokens)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Return *parts* as one array, and forget them: a long trace should not be held twice."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


# --- Blowout's own rows ---------------------------------------------------------------------------------------------


def _load_rows(file: Path, spec: TraceSpec, until_s: float) -> Trace:
    rows = _read_rows(file)
    order = np.lexsort((rows["attempt"], rows["request"]))
    rows = {name: column[order] for name, column in rows.items()}
    request = rows["request"]
    first = np.flatnonzero(np.concatenate([[True], request[1:] != request[:-1]]))
    decided = np.maximum.reduceat(np.where(rows["last"] > 0, rows["outcome"], 0), first)
    output = np.maximum.reduceat(rows["output_tokens"], first)
    arrival_s = rows["scheduled_s"][first] * spec.time_scale
    asked = np.argsort(arrival_s, kind="stable")
    asked = asked[: np.searchsorted(arrival_s[asked], until_s, "left")]
    notes: list[str] = []
    short = int((decided[asked] != Outcome.OK).sum())
    if short:
        notes.append(
            f"{short} of {len(asked)} traced requests were not answered: their answers are as long as delivered"
        )
    return Trace(
        file,
        arrival_s[asked],
        _at_least_one(rows["prompt_tokens"][first][asked], "prompt", notes),
        _at_least_one(output[asked], "output", notes),
        wrong=np.maximum.reduceat(np.where(rows["last"] > 0, rows["wrong"], 0), first)[asked].astype(np.uint8),
        complete=len(asked) == len(first),
        notes=tuple(notes),
    )


def _read_rows(file: Path) -> dict[str, np.ndarray]:
    try:
        parquet = pa.parquet.ParquetFile(file)
        require(file, _ROW_COLUMNS, parquet.schema_arrow.names)
        table = parquet.read(columns=_ROW_COLUMNS)
    except FileNotFoundError:
        raise TraceError(f"{file}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"{file}: cannot be read as Parquet ({error}); expected attempts.parquet of a run") from None
    if table.num_rows == 0:
        raise TraceError(f"{file}: has no rows; expected at least one request")
    rows = {}
    for name in _ROW_COLUMNS:
        column = table.column(name)
        values = column.to_numpy()
        if values.dtype.kind not in "iuf":
            raise TraceError(f"{file}, column {name!r}: holds {column.type}; expected numbers")
        if np.isnan(values).any():
            row = int(np.argmax(np.isnan(values))) + 1
            raise TraceError(f"{file}, row {row}, column {name!r}: is empty; expected a number")
        rows[name] = values
    return rows
