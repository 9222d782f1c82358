"""Trace files as columns: CSV, JSON lines and Parquet, fast when they are right, precise when they are wrong.

Files are read in batches by Arrow into the types they must have. Whatever Arrow or a check dislikes, the
file is then read again, row by row in plain Python, to name the first row and column that is wrong.
"""

import csv
import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from sim.errors import TraceError
from sim.workload.lengths import MAX_TOKENS

_BLOCK_BYTES = 1 << 22  # Arrow reads several ahead
_SHOWN = 40  # columns of a file that a message lists


@dataclass(frozen=True)
class Layout:
    """Where a text trace keeps what is needed."""

    file: Path
    kind: str  # csv or jsonl
    timestamp: str
    prompt_tokens: str
    output_tokens: str
    unit_s: float = 1.0  # of a timestamp that is a number
    dates: bool = False  # timestamps are ISO 8601
    zoned: bool = False  # ... with a zone
    delimiter: str = ","
    extra: str | None = None  # a column of lists of integers to keep

    @property
    def time_type(self) -> Any:
        """Arrow's type of the timestamp column."""
        return pa.timestamp("ns", "UTC" if self.zoned else None) if self.dates else pa.float64()


@dataclass(frozen=True)
class Batch:
    """Some rows of a trace: times in seconds (float64, as recorded), tokens (int32), and the extra column if any."""

    time_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    extra: Any = None


@dataclass(frozen=True)
class Head:
    """How a text trace begins: its columns, its first row, and what separates its values."""

    columns: list[str]
    first: dict[str, Any]
    delimiter: str = ","


class _WrongError(Exception):
    """Something in the file is not right; which row, the slow reading will say."""


def head(file: Path, kind: str) -> Head:
    """Return how *file* begins.

    Raises:
        TraceError: no such file, not text, or empty.
    """
    try:
        with _text(file) as text:
            if kind == "csv":
                start = text.readline()
                delimiter = max(",;\t", key=start.count)
                columns = next(csv.reader([start], delimiter=delimiter), [])
                row = next(csv.reader(text, delimiter=delimiter), [])
                first = dict(zip(columns, row))
            else:
                delimiter = ","
                first = _json_object(file, 1, next((line for line in text if line.strip()), "{}"))
                columns = list(first)
    except FileNotFoundError:
        raise TraceError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{file}: cannot be read as text ({error}); expected a CSV or JSON lines file") from None
    if not first:
        raise TraceError(f"{file}: has no rows; expected at least one request")
    return Head(columns, first, delimiter)


def require(file: Path, columns: list[str], present: list[str]) -> None:
    """Raise TraceError, listing what is *present*, unless it holds all of *columns*."""
    missing = [name for name in columns if name not in present]
    if missing:
        shown = ", ".join(map(repr, present[:_SHOWN])) + (", ..." if len(present) > _SHOWN else "")
        raise TraceError(
            f"{file}: no column {' and no column '.join(map(repr, missing))}; it has {shown} "
            "(say which to use with workload.trace.columns)"
        )


def batches(layout: Layout) -> Iterator[Batch]:
    """Yield the rows of the file, checked, in its order.

    Raises:
        TraceError: a value that is empty, negative or no whole number, or a time before the one above.
    """
    first: int | None = None
    last_s = -math.inf
    try:
        for table in _tables(layout):
            if any(table.column(name).null_count for name in table.schema.names if name != layout.extra):
                raise _WrongError
            stamps = table.column(layout.timestamp)
            if layout.dates:
                ticks = stamps.cast(pa.int64()).to_numpy(zero_copy_only=False)
                first = int(ticks[0]) if first is None else first
                time_s = (ticks - first) * 1e-9
            else:
                time_s = stamps.to_numpy(zero_copy_only=False) * layout.unit_s
            tokens = [table.column(name).to_numpy(zero_copy_only=False) for name in _token_columns(layout)]
            if not np.isfinite(time_s).all() or time_s[0] < last_s or (np.diff(time_s) < 0.0).any():
                raise _WrongError
            if any(t.min() < 0 or t.max() > MAX_TOKENS for t in tokens):
                raise _WrongError
            last_s = float(time_s[-1])
            extra = None if layout.extra is None else table.column(layout.extra)
            yield Batch(time_s, tokens[0].astype(np.int32), tokens[1].astype(np.int32), extra)
    except (pa.ArrowException, _WrongError) as error:
        _blame(layout)
        raise TraceError(f"{layout.file}: {error or 'cannot be read'}") from None


def _token_columns(layout: Layout) -> tuple[str, str]:
    return layout.prompt_tokens, layout.output_tokens


def _tables(layout: Layout) -> Iterator[Any]:
    """Yield the needed columns of the file as Arrow record batches that are not empty."""
    types: dict[str, Any] = {layout.timestamp: layout.time_type}
    types |= dict.fromkeys(_token_columns(layout), pa.int64())
    if layout.kind == "csv":
        source = pa.csv.open_csv(
            layout.file,
            read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(delimiter=layout.delimiter),
            convert_options=pa.csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )
    else:
        if layout.extra is not None:
            types[layout.extra] = pa.list_(pa.int64())
        source = pa.json.read_json(
            layout.file,
            read_options=pa.json.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=pa.json.ParseOptions(
                explicit_schema=pa.schema(list(types.items())), unexpected_field_behavior="ignore"
            ),
        ).to_batches()
    for table in source:
        if table.num_rows:
            yield table


def _blame(layout: Layout) -> None:
    """Read the file row by row and raise TraceError at the first that is wrong."""
    before = ""
    last_s = -math.inf
    for row, (line, values) in enumerate(_records(layout), 1):
        where = f"{layout.file}, row {row} (line {line})"
        shown = values.get(layout.timestamp)
        time_s = _time_s(layout, shown, f"{where}, column {layout.timestamp!r}")
        if time_s < last_s:
            raise TraceError(
                f"{where}, column {layout.timestamp!r}: {shown} is earlier than {before} in the row above; "
                "expected a trace that is sorted by time"
            )
        before, last_s = str(shown), time_s
        for name in _token_columns(layout):
            _check_tokens(values.get(name), f"{where}, column {name!r}")


def _records(layout: Layout) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line and the values of each row."""
    with _text(layout.file) as text:
        if layout.kind == "csv":
            reader = csv.reader(text, delimiter=layout.delimiter)
            columns = next(reader)
            for row in reader:
                if len(row) != len(columns) and row:
                    raise TraceError(
                        f"{layout.file}, line {reader.line_num}: {len(row)} values; expected {len(columns)}"
                    )
                if row:
                    yield reader.line_num, dict(zip(columns, row))
        else:
            for number, line in enumerate(text, 1):
                if line.strip():
                    yield number, _json_object(layout.file, number, line)


def _time_s(layout: Layout, value: Any, where: str) -> float:
    expected = "a date and time as ISO 8601, like in the first row" if layout.dates else "a number of seconds"
    if layout.unit_s == 1e-3:
        expected = "a number of milliseconds"
    if value is None or value == "":
        raise TraceError(f"{where}: is empty; expected {expected}")
    try:
        if layout.dates:
            date = datetime.fromisoformat(str(value).strip())
            if (date.tzinfo is not None) != layout.zoned:
                raise TraceError(f"{where}: {value!r}; expected a time zone in every row or in none")
            return date.timestamp() if layout.zoned else (date - datetime(1970, 1, 1)).total_seconds()
        number = float(value)
        if not math.isfinite(number) or isinstance(value, bool):
            raise ValueError
    except (TypeError, ValueError):
        raise TraceError(f"{where}: {value!r}; expected {expected}") from None
    return number


def _check_tokens(value: Any, where: str) -> None:
    expected = f"a whole number of tokens from 0 to {MAX_TOKENS:,}"
    if value is None or value == "":
        raise TraceError(f"{where}: is empty; expected {expected}")
    try:
        tokens = int(value) if isinstance(value, str) else value
    except ValueError:
        tokens = None
    if not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 <= tokens <= MAX_TOKENS:
        raise TraceError(f"{where}: {value!r}; expected {expected}")


def _json_object(file: Path, line: int, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise TraceError(f"{file}, line {line}: is not JSON ({error}); expected one object a line") from None
    if not isinstance(value, dict):
        raise TraceError(f"{file}, line {line}: expected a JSON object with a request's time and tokens")
    return value


def _text(file: Path) -> TextIO:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return file.open(encoding="utf-8-sig", newline="")
