"""Words of the edge: what a person writes for seconds and fractions, and how a value is named in a message.

Behind this edge every time is float seconds and every fraction lies in [0, 1].
"""

import math
import re
from typing import Any

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
    if _is_number(value) and 0 <= value < math.inf:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    if isinstance(value, str) and re.fullmatch(r"\d+(:\d\d)+", value):
        raise ValueError(f"expected {DURATION_WORDS}, got {show(value)} (write hours as h and minutes as m)")
    raise ValueError(f"expected {DURATION_WORDS}, not below 0, got {show(value)}")


def fraction(value: object) -> float:
    """Return the fraction in [0, 1] that *value* means: ``0.01`` or ``1%``.

    Raises:
        ValueError: anything else; a bare 5 is refused with the hint that 5% may be meant.
    """
    hint = ""
    if isinstance(value, str) and (match := re.fullmatch(rf"({NUMBER})\s*%", value.strip())):
        number = float(match[1]) / 100
    elif _is_number(value):
        number = float(value)  # type: ignore[arg-type]
        hint = f" (did you mean {show(value)}%?)" if 1 < number <= 100 else ""
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
    if _is_number(value) and math.isfinite(value):  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    text = value.strip() if isinstance(value, str) else ""
    if match := re.fullmatch(rf"(-?{NUMBER})\s*%", text):
        return float(match[1]) / 100
    if re.fullmatch(rf"-?{NUMBER}", text):
        return float(text)
    if re.fullmatch(DURATION, text):
        return duration_s(text)
    raise ValueError(f"expected a number, a duration such as 2s or a percentage such as 0.1%, got {show(value)}")


def show(value: Any) -> str:
    """Return *value* as a message names it: YAML's words, quotes around a text, never more than 60 characters."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value:.12g}" if isinstance(value, float) else str(value)
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list():
            return "a list" if value else "an empty list"
    return str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
