"""Prometheus' remote read: every sample of the chosen series, bit for bit, stale markers among them.

Messages are protocol buffers (prompb/remote.proto) under snappy. A query with a range selector would give the same
samples without stale markers, so the ends of series would not be known.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from sim.alerts.promql.store import Matcher

HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Read-Version": "0.1.0",
}
_TYPES = {"=": 0, "!=": 1, "=~": 2, "!~": 3}
_WHOLE = 18  # bytes of a sample whose value is not zero, at times from 1971 to 2109
_ZERO = 9  # of one whose value is zero: it is left out


class FormatError(Exception):
    """An answer that is no remote read."""


def request(matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> bytes:
    """Return the body that asks for all samples of matching series from *start_ms* to *end_ms*, both included."""
    import pyarrow as pa

    chosen = b"".join(
        _field(3, _number(1, _TYPES[m.op]) + _field(2, m.name.encode()) + _field(3, m.value.encode())) for m in matchers
    )
    query = _field(1, _number(1, start_ms) + _number(2, end_ms) + chosen)
    return bytes(pa.compress(query, codec="snappy", asbytes=True))


def answer(body: bytes) -> Iterator[tuple[dict[str, str], np.ndarray, np.ndarray]]:
    """Yield labels, times (ms) and values of each series in an answer.

    Raises:
        FormatError: it is none.
    """
    import pyarrow as pa

    try:
        size, _ = _varint(body, 0)
        if size > 1 << 31:
            raise FormatError("the answer is too large")
        message = bytes(pa.decompress(body, size, codec="snappy", asbytes=True)) if size else b""
        for result in _fields(message, 1):
            for series in _fields(result, 1):
                yield _series(series)
    except (IndexError, ValueError, OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise FormatError(str(error)) from None


def _series(message: bytes) -> tuple[dict[str, str], np.ndarray, np.ndarray]:
    labels: dict[str, str] = {}
    at = 0
    while at < len(message) and message[at] == 0x0A:  # labels come first
        length, start = _varint(message, at + 1)
        name, value = (b"".join(_fields(message[start : start + length], k)).decode() for k in (1, 2))
        labels[name] = value
        at = start + length
    starts = []
    while at < len(message):
        if message[at] != 0x12 or message[at + 1] > 127:
            raise FormatError("a series with something other than samples")
        starts.append(at)
        at += 2 + message[at + 1]
    if at != len(message):
        raise FormatError("a series that was cut off")
    return labels, *_samples(np.frombuffer(message, np.uint8), np.array(starts, np.int64), at)


def _samples(raw: np.ndarray, starts: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Return times and values of the samples that begin at *starts*: those of usual sizes all at once."""
    t_ms, values = np.zeros(len(starts), np.int64), np.zeros(len(starts))
    sizes = np.diff(starts, append=end)
    done = np.zeros(len(starts), bool)
    for size in (_WHOLE, _ZERO):
        here = np.flatnonzero(sizes == size)
        if not len(here):
            continue
        rows = raw[starts[here, None] + np.arange(size)]
        usual = (rows[:, -7] == 0x10) & (rows[:, -1] < 128) & (rows[:, -6:-1] > 127).all(axis=1)
        if size == _WHOLE:
            usual &= rows[:, 2] == 0x09
            values[here] = np.ascontiguousarray(rows[:, 3:11]).view("<f8")[:, 0]
        digits = (rows[:, -6:] & 127).astype(np.int64)
        t_ms[here] = (digits << (7 * np.arange(6))).sum(axis=1)
        done[here] = usual
    message = raw.tobytes() if not done.all() else b""
    for i in np.flatnonzero(~done).tolist():
        t_ms[i], values[i : i + 1] = _sample(message[starts[i] + 2 : starts[i] + sizes[i]])
    return t_ms, values


def _sample(message: bytes) -> tuple[int, np.ndarray]:
    """Return time and value (an array, which keeps the bits of a NaN) of one sample."""
    value, t_ms, at = np.zeros(1), 0, 0
    while at < len(message):
        if message[at] == 0x09:
            value, at = np.frombuffer(message[at + 1 : at + 9], "<f8"), at + 9
        elif message[at] == 0x10:
            t_ms, at = _varint(message, at + 1)
        else:
            raise FormatError("a sample with something other than value and time")
    return (t_ms - (1 << 64) if t_ms >> 63 else t_ms), value


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    """Yield the contents of the fields *wanted*, all fields being texts or messages or numbers."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            _, at = _varint(message, at)
            continue
        if key & 7 != 2:
            raise FormatError("a field of an unexpected kind")
        length, at = _varint(message, at)
        if at + length > len(message):
            raise FormatError("a field that was cut off")
        if key >> 3 == wanted:
            yield message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while True:
        number |= (message[at] & 127) << shift
        if message[at] < 128:
            return number, at + 1
        at, shift = at + 1, shift + 7
        if shift > 63:
            raise FormatError("a number without end")


def _written(number: int) -> bytes:
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _number(field: int, number: int) -> bytes:
    return _written(field << 3) + _written(number)


def _field(field: int, content: bytes) -> bytes:
    return _written(field << 3 | 2) + _written(len(content)) + content
