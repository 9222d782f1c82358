"""What is expected of alert rules: that one stays silent, or that it begins to fire within a stretch of time."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from sim.scenario.kinds import MAPPING, PLAIN, Model, by_form
from sim.units import duration_s
from sim.words import show

RULE_PATTERN = r"^\S.*$"
RuleName = Annotated[str, Field(pattern=RULE_PATTERN, max_length=200)]
WINDOW_WORDS = "from when to when, such as 12m-16m"


def _window_s(value: object) -> tuple[float, float]:
    """Return the two times, seconds, that *value* means.

    Raises:
        ValueError: it is no such text, or ends before it begins.
    """
    parts = value.split("-") if isinstance(value, str) else []
    try:
        begin_s, end_s = (duration_s(float(part) if re.fullmatch(r"\s*0\s*", part) else part.strip()) for part in parts)
    except ValueError:
        raise ValueError(f"expected {WINDOW_WORDS}, got {show(value)}") from None
    if begin_s >= end_s:
        raise ValueError(f"expected {WINDOW_WORDS}, the end after the beginning, got {show(value)}")
    return begin_s, end_s


def _written(window_s: tuple[float, float]) -> str:
    return "-".join(f"{time_s:.6f}".rstrip("0").rstrip(".") + "s" for time_s in window_s)


_TEXT = Annotated[str, Field(pattern=r"^[0-9.]+[a-z0-9.]*\s*-\s*[0-9.]+[a-z0-9.]*$", examples=["12m-16m"])]
Window = Annotated[
    tuple[float, float], BeforeValidator(_window_s, json_schema_input_type=_TEXT), PlainSerializer(_written)
]
"""A stretch of time, both ends in seconds and part of it."""


class Fires(Model):
    """A rule that is expected to fire."""

    fires: Window
    """From when to when it must begin to fire, such as 12m-16m; it must not begin outside of that."""
    pending: Window | None = None
    """From when to when it must become pending before that; none: at any time."""


Expectation = Annotated[
    Annotated[Literal["silent"], PLAIN] | Annotated[Fires, MAPPING],
    by_form("silent or {fires: 12m-16m}", lambda value: value == "silent"),
]
