"""The values of PromQL over many evaluation times at once, and how an expression is refused."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from sim.series import NAME

Labels = tuple[tuple[str, str], ...]
"""A label set as sorted pairs: hashable, and ordered as Prometheus orders series."""


Row = tuple[Labels, np.ndarray, np.ndarray]
"""One element at every step: its labels, values and whether there is one."""


class Dialect(StrEnum):
    """Whose semantics: 2.42 is proven against the binary, 3 rests on Prometheus' source and changelog only."""

    PROM_2_42 = "2.42"
    PROM_3 = "3"


class UnsupportedError(Exception):
    """An expression outside the subset: what, and at which character of the expression it stands."""

    def __init__(self, what: str, position: int | None = None) -> None:
        super().__init__(what)
        self.what, self.position = what, position


@dataclass
class Steps:
    """The times at which an expression is evaluated, and where Prometheus would have answered with an error."""

    t_ms: np.ndarray
    dialect: Dialect = Dialect.PROM_2_42
    failed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    reasons: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.failed = np.zeros(len(self.t_ms), bool)

    def fail(self, where: np.ndarray, reason: str) -> None:
        """Note that the evaluation ends with an error *where* (bool, one a step) for *reason*."""
        if (where & ~self.failed).any() and reason not in self.reasons:
            self.reasons.append(reason)
        self.failed |= where


@dataclass
class Vector:
    """An instant vector at every step: labels (m), values (m, steps) and whether there is a value (m, steps)."""

    labels: list[Labels]
    values: np.ndarray
    present: np.ndarray

    @classmethod
    def empty(cls, steps: int) -> "Vector":
        """Return the vector without elements."""
        return cls([], np.empty((0, steps)), np.empty((0, steps), bool))

    @classmethod
    def stacked(cls, rows: Iterable[Row], steps: int) -> "Vector":
        """Return the vector of *rows* (labels, values, present), without those that are never present."""
        kept = [row for row in rows if row[2].any()]
        if not kept:
            return cls.empty(steps)
        labels, values, present = zip(*kept)
        return cls(list(labels), np.stack(values), np.stack(present))

    def __len__(self) -> int:
        return len(self.labels)

    def relabelled(self, labels: list[Labels], steps: Steps) -> "Vector":
        """Return the same values under *labels*, one a row; equal ones at one time are an error, else they merge."""
        if len(set(labels)) == len(labels):
            return Vector(labels, self.values, self.present)
        rows: dict[Labels, tuple[np.ndarray, np.ndarray]] = {}
        for label, values, present in zip(labels, self.values, self.present):
            if label in rows:
                before, there = rows[label]
                steps.fail(there & present, "vector cannot contain metrics with the same labelset")
                values, present = np.where(present, values, before), there | present
            rows[label] = values, present
        return Vector.stacked(((label, *row) for label, row in rows.items()), self.values.shape[1])

    def without_name(self, steps: Steps) -> "Vector":
        """Return the same values without metric names."""
        return self.relabelled([drop(labels, (NAME,)) for labels in self.labels], steps)


Value = Vector | np.ndarray
"""What an expression is: a vector, or a scalar as an array with one number a step."""


def labels_of(pairs: Mapping[str, str]) -> Labels:
    """Return a label set without empty values, which are no labels."""
    return tuple(sorted((name, value) for name, value in pairs.items() if value))


def keep(labels: Labels, names: Iterable[str]) -> Labels:
    """Return only the labels called one of *names*."""
    wanted = set(names)
    return tuple(pair for pair in labels if pair[0] in wanted)


def drop(labels: Labels, names: Iterable[str]) -> Labels:
    """Return the labels not called one of *names*."""
    unwanted = set(names)
    return tuple(pair for pair in labels if pair[0] not in unwanted)


def written(labels: Labels) -> str:
    """Return a label set as Prometheus writes it: ``name{a="b"}``."""
    name = dict(labels).get(NAME, "")
    quoted = (
        f'{key}="' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        for key, value in drop(labels, (NAME,))
    )
    inside = ", ".join(quoted)
    return f"{name}{{{inside}}}" if inside or not name else name
