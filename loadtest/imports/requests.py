"""What other tools' files say of each request, in one form: times in seconds, what is not known is nan or -1."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import numpy as np

from sim.errors import InputError

UNIX_FROM = 1e8
"""A time from here on is a date (Unix seconds, 1973 or later); below, it counts from the start of a run."""
MOST_S = 366 * 86400.0
"""Further apart, some times are dates and others are not."""
NO_STATUS = 502
"""What a request gets that failed without an HTTP status of its own: cut off, or never answered."""
LEFT = 499
"""What nginx logs when the client goes away first."""
PHRASES = {one.phrase: int(one) for one in HTTPStatus}


@dataclass(slots=True)
class Request:
    """One request as another tool has measured it: seconds on its clock; nan and -1 where it does not say."""

    where: str
    sent_s: float
    finished_s: float = math.nan
    first_s: float = math.nan
    scheduled_s: float = math.nan
    prompt_tokens: int = -1
    output_tokens: int = -1
    status: int = 200
    ok: bool = True
    cohort: str = ""
    gaps_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Imported:
    """All requests of one file, by the tool that wrote it; *notes*: what a reader should know of them."""

    tool: str
    requests: list[Request]
    notes: tuple[str, ...] = ()


def number(value: Any, where: str, name: str, expected: str = "a number") -> float:
    """Return *value* as a finite number.

    Raises:
        InputError: it is none; names where, which field, and what was expected.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where}: {name}: expected {expected}, got {shown(value)}")
    return float(value)


def whole(value: Any, where: str, name: str) -> int:
    """Return *value* as a whole number of tokens.

    Raises:
        InputError: it is none.
    """
    found = number(value, where, name, "a whole number of tokens")
    if found < 0 or found != int(found):
        raise InputError(f"{where}: {name}: expected a whole number of tokens, got {shown(value)}")
    return int(found)


def listed(data: dict[str, Any], name: str, where: str, length: int | None = None) -> list[Any]:
    """Return the list that *data* has under *name*, of *length* if that is given.

    Raises:
        InputError: there is none, or it has another length.
    """
    found = data.get(name)
    if not isinstance(found, list):
        got = "nothing" if name not in data else shown(found)
        raise InputError(f"{where}: {name}: expected a list with an entry a request, got {got}")
    if length is not None and len(found) != length:
        raise InputError(f"{where}: {name}: expected {length} entries, one a request, got {len(found)}")
    return found


def mapping(data: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """Return the mapping that *data* has under the last word of *name*; an empty one where it has none.

    Raises:
        InputError: it is something else.
    """
    found = data.get(name.rpartition(".")[2])
    if found is not None and not isinstance(found, dict):
        raise InputError(f"{where}: {name}: expected a mapping, got {shown(found)}")
    return found or {}


def shown(value: Any) -> str:
    """Return *value* as a message may show it: never a long text, which may be a prompt."""
    if isinstance(value, str):
        return f"a text of {len(value)} letters" if len(value) > 20 else repr(value)
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return "nothing" if value is None else repr(value)


def check(requests: Iterable[Request]) -> None:
    """Refuse requests whose times go backwards, or do not belong together.

    Raises:
        InputError: a first token before the request was sent, an end before either, or more than a year between them.
    """
    requests = list(requests)
    for one in requests:
        for name, early, late in (
            ("the first token came", one.sent_s, one.first_s),
            ("the end came", one.sent_s, one.finished_s),
            ("the end came", one.first_s, one.finished_s),
        ):
            if late < early - 1e-6:
                before = "the request was sent" if early == one.sent_s else "the first token"
                raise InputError(
                    f"{one.where}: times go backwards: {name} {early - late:.6g} s before {before}; expected times in "
                    "the order in which things happen"
                )
    asked_s = column(requests, lambda one: min(one.sent_s, one.scheduled_s))
    k = int(asked_s.argmin())
    apart_s = float(column(requests, lambda one: np.nanmax([one.sent_s, one.finished_s])).max() - asked_s[k])
    if apart_s > MOST_S:
        raise InputError(
            f"{requests[k].where}: its time is {apart_s / 86400:.6g} days before the last; expected times of one run, "
            "all dates or all seconds from its start"
        )


def column(requests: list[Request], of: Callable[[Request], float]) -> np.ndarray:
    """Return one number of each request, as an array."""
    return np.array([of(one) for one in requests], float)
