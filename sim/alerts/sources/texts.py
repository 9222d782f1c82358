"""Series from text: OpenMetrics with times, the older Prometheus format with times, and `promtool tsdb dump`.

Lines repeat the labels of their series, so those are understood once and then looked up as bytes: 40 MB take a second.
"""

import gzip
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from sim import exposition
from sim.errors import InputError
from sim.series import NAME, SeriesSet, Times

LATEST = 1e14
"""A later time (ms) is none: it would be after the year 5000."""

_PARQUET, _GZIP = b"PAR1", b"\x1f\x8b"


@dataclass
class _Series:
    labels: dict[str, str]
    times: "array[float]" = field(default_factory=lambda: array("d"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    latest: float = -LATEST


def is_text(path: Path) -> bool:
    """Return whether the file at *path* is to be read as text, compressed or not: anything that is no Parquet."""
    try:
        with path.open("rb") as file:
            return file.read(4) != _PARQUET
    except OSError:
        return False


def read_text(path: Path) -> SeriesSet:
    """Return the series in the text at *path*, which may be compressed with gzip.

    Times are seconds where the text ends with ``# EOF`` (OpenMetrics), else whole milliseconds (the Prometheus text
    format, and what ``promtool tsdb dump`` prints). Neither can say stale markers; a dump prints them as NaN.

    Raises:
        InputError: it is no such text, with file and line.
    """
    found = _Reader(str(path))
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, 1):
                found.take(number, line)
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return found.series()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.open(file) as inside:
            yield inside  # type: ignore[misc] # a GzipFile can all that is needed here


class _Reader:
    """What has been read of one text so far."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.by_head: dict[bytes, _Series] = {}
        self.by_labels: dict[tuple[tuple[str, str], ...], _Series] = {}
        self.head: bytes | None = None
        self.one = _Series({})
        self.ended = False
        self.fraction_at = 0  # the first line whose time is no whole number

    def take(self, number: int, line: bytes) -> None:
        """Take in one line."""
        parts = line.rsplit(None, 2)
        if len(parts) == 3:
            head, value, time = parts
            if head != self.head:
                one = self.by_head.get(head)
                if one is None:
                    self.slowly(number, line)
                    return
                self.head, self.one = head, one
            try:
                self.add(number, float(value), time)
                return
            except ValueError:
                pass
        self.slowly(number, line)

    def add(self, number: int, value: float, time: bytes) -> None:
        """Add a sample to the series of the last line."""
        one, t = self.one, float(time)
        if not one.latest < t < LATEST:
            name = one.labels[NAME]
            raise InputError(f"{self.where}, line {number}: expected a later time of {name}, got: {time.decode()}")
        if b"." in time and not self.fraction_at:
            self.fraction_at = number
        one.latest = t
        one.times.append(t)
        one.values.append(value)

    def slowly(self, number: int, line: bytes) -> None:
        """Take in a line of a series not met before, a comment, or what is neither."""
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            raise InputError(
                f"{self.where}, line {number}: expected series as Parquet or as OpenMetrics text, got neither"
            ) from None
        if not text or text.startswith("#"):
            self.ended, self.head = self.ended or text == "# EOF", None
            self.by_head = {} if self.ended else self.by_head  # so that what comes after it is looked at
            return
        if self.ended:
            self.refuse(number, "expected nothing after # EOF", text)
        head, value, time = _split(text)
        known, at = _labels(head), exposition.number(value)
        if known is None or at is None:
            self.refuse(number, exposition.EXPECTED + " 1700000000", text)
        key = tuple(sorted(known.items()))
        self.head, self.one = head.encode(), self.by_labels.setdefault(key, _Series(known))
        self.by_head[self.head] = self.one
        try:
            self.add(number, at, time.encode())
        except ValueError:
            self.refuse(number, "expected a time after the value, for this is a past and no scrape", text)

    def refuse(self, number: int, expected: str, text: str) -> NoReturn:
        """Raise that line *number* is not what was expected."""
        raise InputError(f"{self.where}, line {number}: {expected}, got: {exposition.shown(text)}")

    def series(self) -> SeriesSet:
        """Return all series."""
        if not self.ended and self.fraction_at:
            raise InputError(
                f"{self.where}, line {self.fraction_at}: expected whole milliseconds, or # EOF at the end "
                "of the file as OpenMetrics has it; was it cut short?"
            )
        made = SeriesSet()
        shared = Times()
        for one in self.by_labels.values():
            times = np.rint(np.frombuffer(one.times) * (1000.0 if self.ended else 1.0)).astype(np.int64)
            try:
                made.add(one.labels, shared.once(times), np.frombuffer(one.values))
            except ValueError as error:
                raise InputError(f"{self.where}: {error}") from None
        return made


def _split(text: str) -> tuple[str, str, str]:
    """Return series, value and time of a line; an exemplar, which may follow, is left out."""
    match = exposition.SAMPLE.match(text)
    if match is not None:
        return text[: match.start("value")].rstrip(), match["value"], match["time"] or ""
    parts = text.rsplit(None, 2)  # of a dump: the name is among the labels
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else ("", "", "")


def _labels(head: str) -> dict[str, str] | None:
    """Return name and labels of a series as it is written; None where it is none."""
    match = exposition.SERIES.fullmatch(head)
    found = None if match is None else exposition.labels(match["labels"] or "")
    if match is None or found is None or (match["name"] is not None) == (NAME in found):
        return None
    named = found if match["name"] is None else {NAME: match["name"], **found}
    return {name: value for name, value in named.items() if value}
