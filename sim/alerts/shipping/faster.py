"""The same rules for a service that is played faster than real time: every length of time in them divided.

A service played k times as fast shows in a minute what takes k minutes, while latencies in its histograms stay model
seconds. So windows, offsets, `for` and intervals are divided by k, and what grows per second is divided by k too.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from sim.alerts.promql.parsing import parse, visible
from sim.alerts.promql.vectors import UnsupportedError
from sim.alerts.rulefile import DURATION, UNITS_MS, Group, Rule, written_ms
from sim.errors import InputError

_LENGTH = re.compile(r"(?<![\w.])(?:\d+(?:ms|[smhdwy]))+(?![\w.])")
_PER_SECOND = re.compile(r"(?<![\w:])(?:rate|irate|deriv)\s*\(")


def sped_up(groups: Sequence[Group], speed: float) -> list[Group]:
    """Return *groups* for a service that is played *speed* times as fast.

    Raises:
        InputError: a length of time would be less than a millisecond.
    """
    return [
        replace(
            group,
            interval_ms=None if group.interval_ms is None else _divided(group.interval_ms, speed, group.name),
            rules=tuple(_rule(rule, speed) for rule in group.rules),
        )
        for group in groups
    ]


def _rule(rule: Rule, speed: float) -> Rule:
    text = _per_model_second(_shortened(rule.text, speed, rule.name), speed)
    try:
        expression = parse(text) if rule.expression is not None else None
    except UnsupportedError:
        expression = None
    return replace(
        rule,
        text=text,
        expression=expression,
        for_ms=_divided(rule.for_ms, speed, rule.name) if rule.for_ms else 0,
        keep_firing_for_ms=_divided(rule.keep_firing_for_ms, speed, rule.name) if rule.keep_firing_for_ms else 0,
    )


def _divided(ms: int, speed: float, name: str) -> int:
    found = round(ms / speed)
    if found < 1:
        raise InputError(f"--speed {speed:g}: {name}: {written_ms(ms)} would be less than a millisecond")
    return found


def _shortened(text: str, speed: float, name: str) -> str:
    """Return *text* with the lengths of time in it divided; names, strings and comments stay."""
    made, last, seen = "", 0, visible(text)
    for hit in _LENGTH.finditer(seen):
        match = DURATION.fullmatch(hit[0])
        within = seen.count("[", 0, hit.start()) > seen.count("]", 0, hit.start())
        named = ":" in (seen[hit.start() - 1 : hit.start()], seen[hit.end() : hit.end() + 1]) and not within
        if match is None or named:
            continue
        ms = sum(int(number) * unit for number, unit in zip(match.groups(), UNITS_MS) if number)
        made += text[last : hit.start()] + written_ms(_divided(ms, speed, name))
        last = hit.end()
    return made + text[last:]


def _per_model_second(text: str, speed: float) -> str:
    """Return *text* with every ``rate(...)`` divided by *speed*: growth a second of the model, as it was tuned."""
    for hit in reversed(list(_PER_SECOND.finditer(visible(text)))):
        end = _closing(visible(text), hit.end() - 1)
        text = f"{text[: hit.start()]}({text[hit.start() : end + 1]} / {speed:g}){text[end + 1 :]}"
    return text


def _closing(text: str, opening: int) -> int:
    """Return where the bracket that opens at *opening* is closed."""
    depth = 0
    for i in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    return len(text) - 1
