"""A Prometheus that answers: which series it has, their samples, and what an expression was worth."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim import fetch
from sim.alerts.promql.store import Matcher
from sim.alerts.sources import remote_read
from sim.errors import EndpointError
from sim.fetch import Credentials, RefusedError, UntrustedError

TIMEOUT_S = 120.0
"""For one answer: Prometheus gives up on a query after two minutes itself (--query.timeout)."""

SHORTEST_MS = 60_000
"""A server that refuses even one minute of samples is not asked for less."""

_TOO_MUCH = ("too many", "limit", "timed out", "exceed")  # words of Prometheus, Mimir and Thanos, in several errors

Row = tuple[dict[str, str], np.ndarray, np.ndarray]
"""Labels, times (ms) and values of one series."""


class QueryError(Exception):
    """What the server says against an expression."""


@dataclass
class Server:
    """One at *url*; *remote* is whether it has remote read, as far as we know."""

    url: str
    credentials: Credentials = field(default_factory=Credentials)
    timeout_s: float = field(default_factory=lambda: TIMEOUT_S)
    remote: bool = True
    warnings: list[str] = field(default_factory=list)
    """What it said of answers that may lack some, as Thanos does when a store is down."""

    def series(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[dict[str, str]]:
        """Return the labels of the series that match and have samples between two times.

        Raises:
            EndpointError: the server does not say.
        """
        chosen = {"match[]": written(matchers), "start": str(start_ms / 1000), "end": str(end_ms / 1000)}
        url = fetch.api(self.url, "series", **chosen)
        try:
            found = fetch.answered(url, self._get(url), self.warnings.append)
        except _TooMuchError as error:
            raise error.said from None
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise EndpointError(f"{fetch.shown(url)}: expected a list of series, got: {str(found)[:60]!r}")
        return found

    def samples(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Iterator[Row]:
        """Yield every sample from *start_ms* to before *end_ms*, of each series in one or several pieces in order.

        By remote read, with stale markers; where the server has none, by queries, which know no stale markers. What
        is too much for the server at once is asked for in halves.

        Raises:
            EndpointError: the server does not answer.
        """
        ask = self._read if self.remote else self._select
        return _in_parts(ask, matchers, start_ms, end_ms, SHORTEST_MS)

    def values(self, text: str, start_ms: int, end_ms: int, step_ms: int) -> Iterator[Row]:
        """Yield the values of an expression from *start_ms* to before *end_ms*, every *step_ms*.

        Raises:
            QueryError: the server refuses the expression.
            EndpointError: the server does not answer.
        """
        return _in_parts(lambda _, start, end: self._range(text, start, end, step_ms), (), start_ms, end_ms, step_ms)

    def has_remote_read(self, matchers: Sequence[Matcher], at_ms: int) -> bool:
        """Return whether the server has remote read; found out with one minute of samples."""
        try:
            self._read(matchers, at_ms - SHORTEST_MS, at_ms)
        except _TooMuchError:
            return True
        except (RefusedError, remote_read.FormatError):
            return False
        return True

    def _read(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Row]:
        url = fetch.api(self.url, "read")
        body = remote_read.request(matchers, start_ms, end_ms - 1)
        with _told(self.credentials):
            found, headers = fetch.ask(url, body, remote_read.HEADERS, self.credentials, self.timeout_s)
        if "protobuf" not in headers.get("Content-Type", ""):
            raise remote_read.FormatError("it is no protocol buffer")
        return list(remote_read.answer(found))

    def _select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Row]:
        # A range of Prometheus 2 holds both its ends, one of Prometheus 3 only the later: ask for 1 ms more, and cut.
        query = f"{written(matchers)}[{end_ms - start_ms}ms]"
        url = fetch.api(self.url, "query", query=query, time=f"{(end_ms - 1) / 1000:.3f}")
        return [_cut(row, start_ms, end_ms) for row in self._matrix(url)]

    def _range(self, text: str, start_ms: int, end_ms: int, step_ms: int) -> list[Row]:
        last_ms = start_ms + (end_ms - 1 - start_ms) // step_ms * step_ms
        times = {"start": f"{start_ms / 1000:.3f}", "end": f"{last_ms / 1000:.3f}", "step": f"{step_ms / 1000:.3f}"}
        try:
            return self._matrix(fetch.api(self.url, "query_range", query=text, **times))
        except RefusedError as error:
            if error.status not in (400, 422):
                raise
            raise QueryError(error.detail or f"status {error.status}") from None

    def _matrix(self, url: str) -> list[Row]:
        found = fetch.results(url, fetch.answered(url, self._get(url), self.warnings.append), "matrix")
        try:
            return [_row(one) for one in found]
        except (KeyError, TypeError, ValueError):
            raise EndpointError(f"{fetch.shown(url)}: expected times and values of series in its answer") from None

    def _get(self, url: str) -> str:
        with _told(self.credentials):
            body, _ = fetch.ask(url, None, {"Accept": "application/json"}, self.credentials, self.timeout_s)
        return body.decode("utf-8", errors="replace")


def written(matchers: Sequence[Matcher]) -> str:
    """Return a selector of *matchers* in PromQL."""
    return "{" + ",".join(f"{m.name}{m.op}{json.dumps(m.value, ensure_ascii=False)}" for m in matchers) + "}"


class _TooMuchError(Exception):
    """The server will not give so much at once."""

    def __init__(self, said: RefusedError) -> None:
        super().__init__(str(said))
        self.said = said


class _told:  # noqa: N801 - a context manager reads as a word
    """Turns refusals into what a user can do about them, or into `_TooMuchError`."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UntrustedError):
            raise EndpointError(f"{error}; name its authority with --ca FILE") from None
        if not isinstance(error, RefusedError):
            return
        if error.status in (401, 403):
            where = str(error).partition(": answered")[0]
            had = "the token was refused" if self.credentials.token else "it wants a token"
            said = (
                f"{where}: answered {error.status}: {had}; give one with --token-file FILE or BLOWOUT_PROMETHEUS_TOKEN"
            )
            raise RefusedError(said, error.status) from None
        about = error.detail.lower()
        if error.status == fetch.TOO_MUCH or any(
            word in about for word in ("too many", "limit", "timed out", "exceed")
        ):
            raise _TooMuchError(error) from None


def _in_parts(
    ask: Callable[[Sequence[Matcher], int, int], list[Row]],
    matchers: Sequence[Matcher],
    start_ms: int,
    end_ms: int,
    shortest_ms: int,
) -> Iterator[Row]:
    """Yield what *ask* gives, or where that is too much at once, what it gives for each half."""
    try:
        found = ask(matchers, start_ms, end_ms)
    except _TooMuchError as error:
        half_ms = (end_ms - start_ms) // 2 // shortest_ms * shortest_ms
        if half_ms < shortest_ms:
            raise error.said from None
        yield from _in_parts(ask, matchers, start_ms, start_ms + half_ms, shortest_ms)
        yield from _in_parts(ask, matchers, start_ms + half_ms, end_ms, shortest_ms)
        return
    yield from found


def _row(one: dict[str, Any]) -> Row:
    pairs = one["values"]
    t_ms = np.rint(np.array([t for t, _ in pairs], float) * 1000).astype(np.int64)
    return dict(one["metric"]), t_ms, np.array([float(value) for _, value in pairs])


def _cut(row: Row, start_ms: int, end_ms: int) -> Row:
    low, high = np.searchsorted(row[1], (start_ms, end_ms))
    return row[0], row[1][low:high], row[2][low:high]
