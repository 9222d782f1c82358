"""Which settings of a rule are tried: derived from how it stands today, or asked for in a tuning file.

The file is YAML and holds knobs, never rules::

    max_false_pages_per_week: 0.5
    mix: {page: 2/month, ticket: 5/month}
    rules:
      ErrorsHigh:
        threshold: {from: 0.5%, to: 10%, steps: 12}
        window: [2m, 5m, 10m]
        for: [0s, 2m, 5m]

What a rule's entry leaves out is not turned, and a rule without an entry is not tuned, where there are ``rules``.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sim.alerts.tuning.knobs import Knobs, Point, milliseconds_of
from sim.errors import InputError
from sim.scenario.document import Document
from sim.units import NUMBER, is_number, quantity
from sim.words import did_you_mean, show

MAX_FALSE_PAGES_PER_WEEK = 0.5
"""One false page in two weeks: what a person on call may be asked to bear, where nobody says otherwise. Our choice."""

STEPS, LOWEST, HIGHEST = 12, 0.3, 3.0
"""How many thresholds are tried by default, and from what to what times today's."""

WINDOWS_MS = (60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000)
FORS_MS = (0, 60_000, 120_000, 300_000, 600_000, 900_000)
SCRAPES = 4
"""A range that holds fewer samples knows too little: `rate` needs two, and one scrape may be lost."""

MOST = 20_000
"""Settings of one rule; more are refused."""

_T = TypeVar("_T", int, float)
_PER_WEEK = {"day": 7.0, "week": 1.0, "month": 7 / 30, "year": 7 / 365}


@dataclass(frozen=True)
class Grid:
    """The settings of one rule that are tried: all combinations, today's among them; each sorted, without doubles."""

    thresholds: tuple[float, ...]
    windows_ms: tuple[int, ...]
    fors_ms: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.thresholds) * len(self.windows_ms) * len(self.fors_ms)

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many windows, thresholds and times of `for`: the order in which results lie."""
        return len(self.windows_ms), len(self.thresholds), len(self.fors_ms)

    def at(self, index: Sequence[int]) -> Point:
        """Return the setting at an index into `shape`."""
        w, k, f = index
        return Point(self.thresholds[k], self.windows_ms[w], self.fors_ms[f])

    def index(self, point: Point) -> tuple[int, int, int]:
        """Return where *point* is."""
        return (
            self.windows_ms.index(point.window_ms),
            self.thresholds.index(point.threshold),
            self.fors_ms.index(point.for_ms),
        )


@dataclass(frozen=True)
class Asked:
    """What a tuning file asks to try of one rule; None: that knob stays as it is."""

    line: int
    thresholds: tuple[float, ...] | None = None
    windows_ms: tuple[int, ...] | None = None
    fors_ms: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Tuning:
    """A tuning file: what to try, what may be borne, and which incidents are to be expected (each a week)."""

    file: str = ""
    rules: dict[str, Asked] | None = None
    max_false_pages_per_week: float | None = None
    mix: dict[str, float] = field(default_factory=dict)

    def check(self, names: Collection[str]) -> None:
        """Make sure that every rule of the file is one of *names*.

        Raises:
            InputError: one is not.
        """
        for name, asked in (self.rules or {}).items():
            if name not in names:
                said = did_you_mean(name, names) or f", expected one of {', '.join(names)}"
                raise InputError(f"{self.file}:{asked.line}: rules: no alert is called {show(name)}{said}")

    def asks_for(self, name: str) -> bool:
        """Return whether the rule called *name* is to be tuned."""
        return self.rules is None or name in self.rules

    def grid(self, knobs: Knobs, scrape_ms: int) -> Grid:
        """Return the settings to try of a rule that is to be tuned.

        *scrape_ms* is the time between samples of what it reads.

        Raises:
            InputError: more than `MOST`, or a window for a rule that has none to turn.
        """
        today = knobs.today
        if self.rules is None:
            asked = Asked(0, around(today.threshold), None, FORS_MS)
            windows = tuple(ms for ms in WINDOWS_MS if ms >= SCRAPES * scrape_ms) if knobs.ranges else ()
        else:
            asked = self.rules[knobs.rule.name]
            windows = asked.windows_ms or ()
            if windows and not knobs.ranges:
                said = "compares no range, or ranges of several lengths, so it has no window to turn"
                raise InputError(f"{self.file}:{asked.line}: rules: {knobs.rule.name}: window: the rule {said}")
        made = Grid(
            _sorted(today.threshold, asked.thresholds),
            _sorted(today.window_ms, windows),
            _sorted(today.for_ms, asked.fors_ms),
        )
        if len(made) > MOST:
            raise InputError(f"{self.file}: {knobs.rule.name}: expected at most {MOST:,} settings, got {len(made):,}")
        return made


def limit(typed: float | None, tuning: Tuning) -> float:
    """Return how many false pages a week may be borne: as *typed*, else as *tuning* says, else our default."""
    said = tuning.max_false_pages_per_week
    return typed if typed is not None else said if said is not None else MAX_FALSE_PAGES_PER_WEEK


def around(threshold: float) -> tuple[float, ...]:
    """Return thresholds around today's: from 0.3 to 3 times, evenly in ratio, two digits each.

    Between 0 and 1 it is taken for a share, and stays one; above a half its distance from 1 is varied.
    """
    factors = np.geomspace(LOWEST, HIGHEST, STEPS)
    if 0.5 < threshold < 1:
        return tuple(float(f"{1 - _digits(f * (1 - threshold)):.12g}") for f in factors if f * (1 - threshold) < 1)
    found = (_digits(f * threshold) for f in factors)
    return tuple(x for x in found if not 0 < threshold < 1 or x <= 1)


def nearby(threshold: float, share: float) -> tuple[float, float]:
    """Return *threshold* lowered and raised by *share* of it; above a half, of its distance from 1."""
    by = share * (1 - threshold if 0.5 < threshold < 1 else abs(threshold))
    return threshold - by, threshold + by


def read(path: Path) -> Tuning:
    """Return what the tuning file at *path* says.

    Raises:
        InputError: it cannot be read, or says something else than a tuning file may; with file, line and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise InputError(f"{path}: cannot be read ({reason})") from None
    return reads(text, str(path))


def reads(text: str, file: str) -> Tuning:
    """Return what *text*, a tuning file called *file*, says.

    Raises:
        InputError: as `read`.
    """
    document = Document(text, file)
    said = _Said(document, file, (), document.value)
    top = said.mapping(("rules", "max_false_pages_per_week", "mix"))
    rules = {name: _asked(one) for name, one in top["rules"].mapping().items()} if "rules" in top else None
    if rules is not None and not rules:
        raise top["rules"].fault("expected the name of at least one rule")
    most = top["max_false_pages_per_week"].number() if "max_false_pages_per_week" in top else None
    if most is not None and most < 0:
        raise top["max_false_pages_per_week"].fault("expected a number, not below 0")
    mix = {name: one.rate() for name, one in top["mix"].mapping().items()} if "mix" in top else {}
    return Tuning(file, rules, most, mix)


@dataclass(frozen=True)
class _Said:
    """A value of the file that knows where it stands."""

    document: Document
    file: str
    path: tuple[str | int, ...]
    value: Any

    def fault(self, said: str) -> InputError:
        where = "".join(f"{key}: " for key in self.path)
        return InputError(f"{self.file}:{self.document.line(self.path)}: {where}{said}, got {show(self.value)}")

    def below(self, key: str | int) -> "_Said":
        return _Said(self.document, self.file, (*self.path, key), self.value[key])

    def mapping(self, known: Sequence[str] = ()) -> "dict[str, _Said]":
        if not isinstance(self.value, dict):
            raise self.fault("expected a mapping" + (f" of {', '.join(known)}" if known else ""))
        for key in self.value:
            if known and key not in known:
                where = "".join(f"{one}: " for one in self.path)
                said = f"no key {show(key)} here{did_you_mean(key, known) or ', expected one of ' + ', '.join(known)}"
                raise InputError(f"{self.file}:{self.document.line((*self.path, key))}: {where}{said}")
        return {key: self.below(key) for key in self.value}

    def items(self) -> "list[_Said]":
        if not isinstance(self.value, list) or not self.value:
            raise self.fault("expected a list with at least one value")
        return [self.below(i) for i in range(len(self.value))]

    def number(self) -> float:
        try:
            return quantity(self.value)
        except ValueError:
            raise self.fault("expected a number or a percentage such as 0.5%") from None

    def duration_ms(self, least_ms: int) -> int:
        try:
            found = milliseconds_of(self.value)
        except ValueError as error:
            raise self.fault(str(error)) from None
        if found < least_ms:
            raise self.fault("expected a duration above 0")
        return found

    def rate(self) -> float:
        """Return how many a week: ``2/month``, or a number a week."""
        if is_number(self.value) and self.value >= 0:
            return float(self.value)
        match = re.fullmatch(rf"\s*({NUMBER})\s*/\s*({'|'.join(_PER_WEEK)})\s*", str(self.value))
        if match is None:
            raise self.fault("expected incidents a day, week, month or year, such as 2/month")
        return float(match[1]) * _PER_WEEK[match[2]]


def _asked(said: _Said) -> Asked:
    keys = said.mapping(("threshold", "window", "for"))
    if not keys:
        raise said.fault("expected threshold, window or for")
    line = said.document.line(said.path)
    return Asked(
        line,
        _thresholds(keys["threshold"]) if "threshold" in keys else None,
        _each(keys["window"], lambda one: one.duration_ms(1)) if "window" in keys else None,
        _each(keys["for"], lambda one: one.duration_ms(0)) if "for" in keys else None,
    )


def _each(said: _Said, read_one: Callable[[_Said], int]) -> tuple[int, ...]:
    return tuple(map(read_one, said.items()))


def _thresholds(said: _Said) -> tuple[float, ...]:
    if not isinstance(said.value, dict):
        return tuple(one.number() for one in said.items())
    keys = said.mapping(("from", "to", "steps"))
    if len(keys) < 3:
        raise said.fault("expected from, to and steps")
    low, high, steps = keys["from"].number(), keys["to"].number(), keys["steps"].value
    if not isinstance(steps, int) or isinstance(steps, bool) or not 2 <= steps <= MOST:
        raise keys["steps"].fault("expected a whole number from 2")
    if low >= high:
        raise keys["to"].fault("expected more than from")
    spaced = np.geomspace if low > 0 else np.linspace
    return tuple(float(f"{x:.4g}") for x in spaced(low, high, steps))


def _digits(x: float) -> float:
    return float(f"{x:.2g}")


def _sorted(today: _T, others: Iterable[_T] | None) -> tuple[_T, ...]:
    return tuple(sorted({today}.union(others or ())))
