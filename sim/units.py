"""The edge: what a person may write for seconds and fractions.

Behind this edge every time is float seconds and every fraction lies in [0, 1].
"""

import math
import re
from typing import TypeGuard

from sim.words import show

UNITS_S = {"w": 604_800.0, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
"""Units of a duration, in the order in which they may follow each other (``1h30m``)."""

NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
"""Matches a number without a sign."""

DURATION = "(?=.)" + "".join(rf"(?:(\d+\.?\d*|\.\d+){unit})?" for unit in UNITS_S)
"""Matches a whole duration; group k is the number before the k-th unit."""

DURATION_TOKEN = r"(?:(?:\d+\.?\d*|\.\d+)(?:us|ms|[wdhms]))+"
"""Matches what looks like a duration, whatever the order of its units."""

DURATION_WORDS = "a duration such as 250ms, 5m or 1h30m"
FRACTION_WORDS = "a fraction from 0 to 1 or a percentage such as 5%"


def duration_s(value: object) -> float:
    """Return the seconds that *value* means: a number, or a text such as ``250ms``, ``5m`` or ``1h30m``.

    Raises:
        ValueError: anything else, not finite, or below zero.
    """
    if isinstance(value, str) and (match := re.fullmatch(DURATION, value.strip())):
        # the sum of exact parts: 250ms is 250/1000, the float that 0.25 is, not 250 * 0.001
        return math.fsum(
            float(text) / round(1 / unit_s) if unit_s < 1 else float(text) * unit_s
            for text, unit_s in zip(match.groups(), UNITS_S.values())
            if text
        )
    if is_number(value) and 0 <= value < math.inf:
        return float(value)
    if isinstance(value, str) and (clock := re.fullmatch(r"(\d+):(\d\d)", value)):
        either = f"; did you mean {clock[1]}m{clock[2]}s or {clock[1]}h{clock[2]}m?"
        raise ValueError(f"expected {DURATION_WORDS}, got {show(value)}{either}")
    raise ValueError(f"expected {DURATION_WORDS}, not below 0, got {show(value)}")


def fraction(value: object) -> float:
    """Return the fraction in [0, 1] that *value* means: ``0.01`` or ``1%``.

    Raises:
        ValueError: anything else; a bare 5 is refused with the hint that 5% may be meant.
    """
    hint = ""
    if isinstance(value, str) and (match := re.fullmatch(rf"({NUMBER})\s*%", value.strip())):
        number = float(match[1]) / 100
    elif is_number(value):
        number = float(value)
        hint = f"; did you mean {show(value)}%?" if 1 < number <= 100 else ""
    else:
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError(f"expected {FRACTION_WORDS}, got {show(value)}{hint}")
    return number


def quantity(value: object) -> float:
    """Return the number that *value* means: a number, a duration in seconds or a percentage as a fraction.

    Raises:
        ValueError: anything else.
    """
    if is_number(value) and math.isfinite(value):
        return float(value)
    text = value.strip() if isinstance(value, str) else ""
    if match := re.fullmatch(rf"(-?{NUMBER})\s*%", text):
        return float(match[1]) / 100
    if re.fullmatch(rf"-?{NUMBER}", text):
        return float(text)
    if re.fullmatch(DURATION, text):
        return duration_s(text)
    raise ValueError(f"expected a number, a duration such as 2s or a percentage such as 0.1%, got {show(value)}")


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether *value* is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
