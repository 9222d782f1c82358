"""What the next calls will meet, by order: errors and broken answers that come when they are told to, and no others."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.errors import InputError
from sim.units import duration_s
from sim.words import not_among, show

WAYS = ("cut", "reset", "truncate", "stall", "error_in_stream", "wrong", "garbage")
"""A stream that is cut off or reset half-way, or ends there as if it were whole but without [DONE]; one that pauses
half-way; HTTP 200 with an error inside; a wrong answer; HTML in place of JSON."""
MOST = 1_000_000


@dataclass(frozen=True)
class Mischief:
    """What happens to one call."""

    how: str = ""
    status: int = 0
    lasting_s: float = 0.0


class Next:
    """The calls that are still to be spoilt, first come, first served."""

    def __init__(self) -> None:
        self._waiting: deque[list[Any]] = deque()

    def add(self, wanted: Mapping[str, Any]) -> int:
        """Spoil the next calls as *wanted* says, after those ordered before; return how many wait now.

        ``{"count": 2, "status": 429}``, or ``how`` with one of `WAYS`; ``lasting`` is the length of a stall.

        Raises:
            InputError: what was expected.
        """
        if not isinstance(wanted, Mapping):
            raise InputError('expected an order, such as {"count": 2, "status": 429}')
        if unknown := [key for key in wanted if key not in ("count", "status", "how", "lasting")]:
            raise InputError(not_among(str(unknown[0]), "key", ("count", "status", "how", "lasting")))
        count, status, how = wanted.get("count", 1), wanted.get("status", 0), wanted.get("how", "")
        if not _whole(count, 1, MOST):
            raise InputError(f"count: expected a whole number from 1 to {MOST}, got {show(count)}")
        if how and how not in WAYS:
            raise InputError(f"how: {not_among(str(how), 'way', WAYS)}")
        if bool(how) == bool(status) or (status and not _whole(status, 400, 599)):
            raise InputError(f"expected either a status from 400 to 599, or how: one of {', '.join(WAYS)}")
        if (how == "stall") != ("lasting" in wanted):
            raise InputError("lasting: expected the length of a stall, such as 5s, and only of that")
        try:
            lasting_s = duration_s(wanted.get("lasting", 0))
        except ValueError as error:
            raise InputError(f"lasting: {error}") from None
        self._waiting.append([count, Mischief(how, status, lasting_s)])
        return sum(left for left, _ in self._waiting)

    def take(self) -> Mischief:
        """Return what happens to this call: most often nothing."""
        if not self._waiting:
            return Mischief()
        first = self._waiting[0]
        first[0] -= 1
        if not first[0]:
            self._waiting.popleft()
        mischief: Mischief = first[1]
        return mischief

    def clear(self) -> None:
        """Spoil nothing any more."""
        self._waiting.clear()


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
