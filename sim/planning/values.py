"""What ``--vary KEY=VALUES`` says: the values of a setting, listed (``1,2,4``) or as a range (``0.5:2:0.5``)."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sim.errors import InputError, ScenarioError
from sim.scenario.document import Document
from sim.units import NUMBER
from sim.words import count, show

MOST_VALUES = 10_000
_END = rf"\s*(-?{NUMBER})\s*([a-z]*|%)\s*"
_RANGE = re.compile(f"{_END}:{_END}(?::{_END})?")
_LOOKS_LIKE_A_RANGE = re.compile(rf"\s*-?{NUMBER}\s*(?:[a-z]*|%)\s*:.*")


def values(text: str) -> list[Any]:
    """Return the values that *text* lists, as a scenario's file would have them.

    Commas stand between them: numbers, names, durations (``30s``), percentages, or any other YAML value (``{gamma:
    {cv: 2}}``). ``1:8`` are the whole numbers from 1 to 8, both of them; ``0.5:2:0.5`` goes on by a step, as far as
    the second number; so does ``10%:50%:10%``, in one unit.

    Raises:
        ValueError: nothing is listed, it is no YAML, a range is empty, has no step or too many values.
    """
    found: list[Any] = []
    for part in _parts(text):
        if not part.strip():
            raise ValueError(f"expected a value between commas, got nothing in {show(text)}")
        if _LOOKS_LIKE_A_RANGE.fullmatch(part):
            found += _range(part.strip())
            continue
        try:
            found.append(Document(part, "value").value)
        except ScenarioError as error:
            raise ValueError(str(error).removeprefix("value:1: ")) from None
    if len(found) > MOST_VALUES:
        raise ValueError(f"expected at most {MOST_VALUES:,} values, got {len(found):,}")
    return found


def varied(options: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values that each of *options* (``KEY=VALUES``) gives, by key as it was typed, in that order.

    Raises:
        InputError: an option that cannot be read, or a key that stands twice.
    """
    found: dict[str, list[Any]] = {}
    for text in options:
        key, equals, listed = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise InputError(f"--vary {text}: expected KEY=VALUES, such as fleet.replicas=1:8 or fleet.replicas=1,2,4")
        if key in found:
            raise InputError(f"--vary {text}: expected each key once, got {key} again")
        try:
            found[key] = values(listed)
        except ValueError as error:
            raise InputError(f"--vary {text}: {error}") from None
    return found


def _parts(text: str) -> list[str]:
    """Return what stands between the commas of *text*, not those inside quotes and brackets."""
    parts, depth = [""], 0
    for match in re.finditer(r""""[^"]*"|'[^']*'|.""", text, re.DOTALL):
        mark = match[0]
        depth += (mark in "[{") - (mark in "]}") if len(mark) == 1 else 0
        if mark == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += mark
    return parts


def _range(text: str) -> list[Any]:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a range such as 1:8 or 0.5:2:0.5, got {show(text)}")
    written, units = (
        [one for one in match.groups()[::2] if one],
        {one for one in match.groups()[1::2] if one is not None},
    )
    if len(units) > 1:
        raise ValueError(f"expected a range in one unit, such as 10s:60s:10s, got {show(text)}")
    start, end, *steps = (Decimal(one) for one in written)
    if not steps and not (start == start.to_integral() and end == end.to_integral() and units == {""}):
        raise ValueError(f"expected a step behind a range that is not of whole numbers, as in {text}:STEP")
    step = steps[0] if steps else Decimal(1)
    if step <= 0:
        raise ValueError(f"expected a step above 0, got {show(text)}")
    if end < start:
        raise ValueError(f"expected a range from the lower value to the higher, got {show(text)}")
    size = int((end - start) / step) + 1
    if size > MOST_VALUES:
        raise ValueError(f"expected at most {count(MOST_VALUES, 'value')}, got {size:,} with {show(text)}")
    unit = units.pop()
    whole = all(re.fullmatch(r"-?\d+", one) for one in written)
    numbers = [start + k * step for k in range(size)]
    if unit:
        return [f"{number.normalize():f}{unit}" for number in numbers]
    return [int(number) if whole else float(number) for number in numbers]
