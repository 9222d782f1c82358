"""Binary operators: arithmetic, comparison and sets, and which series of the two sides belong together.

After VectorBinop, VectorscalarBinop and VectorAnd of promql/engine.go, Prometheus 2.42.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim.alerts.promql.vectors import Labels, Steps, Value, Vector, drop, keep
from sim.series import NAME

ARITHMETIC: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
}
COMPARISON: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}
SETS = ("and", "or", "unless")
OPERATORS = (*ARITHMETIC, *COMPARISON, *SETS)


@dataclass(frozen=True)
class Match:
    """Which labels decide that two series belong together, and how many may on each side."""

    on: bool = False
    labels: tuple[str, ...] = ()
    group: str = ""
    """``left`` or ``right``: the side that may have several."""
    include: tuple[str, ...] = ()

    def signature(self, labels: Labels) -> Labels:
        """Return the part of *labels* that must be equal on both sides."""
        return keep(labels, self.labels) if self.on else drop(labels, (*self.labels, NAME))


@dataclass(frozen=True)
class Operator:
    """One binary operator as it stands in an expression."""

    sign: str
    match: Match = Match()
    gives_bool: bool = False

    @property
    def drops_name(self) -> bool:
        """Whether its result is another metric than its operands."""
        return self.sign in ARITHMETIC or self.gives_bool

    def __call__(self, left: Value, right: Value, steps: Steps) -> Value:
        """Return ``left <operator> right``."""
        with np.errstate(all="ignore"):
            if isinstance(left, Vector):
                if isinstance(right, Vector):
                    return self._set(left, right) if self.sign in SETS else self._vectors(left, right, steps)
                values, kept = self.compute(left.values, right)
                return self._filtered(left.labels, values, left.present & kept, steps)
            if isinstance(right, Vector):
                values, kept = self.compute(left, right.values)
                if self.sign in COMPARISON and not self.gives_bool:
                    values = right.values  # the element stays, whichever side it stands on
                return self._filtered(right.labels, values, right.present & kept, steps)
            return self.compute(left, right)[0]

    def compute(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray | bool]:
        """Return values and where they are kept."""
        if self.sign in ARITHMETIC:
            return ARITHMETIC[self.sign](left, right), True
        holds = COMPARISON[self.sign](left, right)
        return (holds.astype(float), True) if self.gives_bool else (left, holds)

    def _filtered(self, labels: list[Labels], values: np.ndarray, present: np.ndarray, steps: Steps) -> Vector:
        found = Vector(labels, values, present)
        return found.without_name(steps) if self.drops_name else found

    def _set(self, left: Vector, right: Vector) -> Vector:
        steps = left.present.shape[1]
        sides = [[self.match.signature(labels) for labels in side.labels] for side in (left, right)]
        there = [_any_by_signature(names, side) for names, side in zip(sides, (left, right))]
        never = np.zeros(steps, bool)
        if self.sign == "or":
            gone = [there[0].get(name, never) for name in sides[1]]
            rows = [
                *zip(left.labels, left.values, left.present),
                *((a, v, p & ~g) for a, v, p, g in zip(right.labels, right.values, right.present, gone)),
            ]
            return _merged(rows, steps)
        other = [there[1].get(name, never) for name in sides[0]]
        return Vector.stacked(
            (
                (labels, values, present & (match if self.sign == "and" else ~match))
                for labels, values, present, match in zip(left.labels, left.values, left.present, other)
            ),
            steps,
        )

    def _vectors(self, left: Vector, right: Vector, steps: Steps) -> Vector:
        """Return the operation between all pairs that belong together; the *one* side may have one of a kind."""
        many, one = (right, left) if self.match.group == "right" else (left, right)
        partners: dict[Labels, list[int]] = {}
        for j, labels in enumerate(one.labels):
            partners.setdefault(self.match.signature(labels), []).append(j)
        both = many.present.any(axis=0)
        for rows in partners.values():
            if len(rows) > 1:
                steps.fail(both & (one.present[rows].sum(axis=0) > 1), "many-to-many matching not allowed")
        pairs: list[tuple[int, int]] = []
        taken: dict[Labels, list[int]] = {}
        for i, labels in enumerate(many.labels):
            for j in partners.get(signature := self.match.signature(labels), ()):
                taken.setdefault(signature, []).append(len(pairs))
                pairs.append((i, j))
        if not pairs:
            return Vector.empty(len(steps.t_ms))
        first, second = [i for i, _ in pairs], [j for _, j in pairs]
        a, b = many.values[first], one.values[second]
        values, kept = self.compute(b, a) if self.match.group == "right" else self.compute(a, b)
        present = many.present[first] & one.present[second] & kept
        if not self.match.group:
            for rows in taken.values():
                if len(rows) > 1:
                    steps.fail(present[rows].sum(axis=0) > 1, "many-to-one matching must be explicit (group_left)")
        labels_out = [self._result(many.labels[x], one.labels[y]) for x, y in pairs]
        return Vector(labels_out, values, present).relabelled(labels_out, steps)

    def _result(self, many: Labels, one: Labels) -> Labels:
        found = drop(many, (NAME,)) if self.drops_name else many
        if not self.match.group:
            return keep(found, self.match.labels) if self.match.on else drop(found, self.match.labels)
        given = keep(one, self.match.include)
        return tuple(sorted((*drop(found, self.match.include), *given)))


def _any_by_signature(names: list[Labels], side: Vector) -> dict[Labels, np.ndarray]:
    there: dict[Labels, np.ndarray] = {}
    for name, present in zip(names, side.present):
        there[name] = there[name] | present if name in there else present
    return there


def _merged(rows: list[tuple[Labels, np.ndarray, np.ndarray]], steps: int) -> Vector:
    """Return *rows* as a vector; rows of equal labels, never present together, become one."""
    found: dict[Labels, tuple[np.ndarray, np.ndarray]] = {}
    for labels, values, present in rows:
        if labels in found:
            before, there = found[labels]
            found[labels] = np.where(present, values, before), there | present
        else:
            found[labels] = values, present
    return Vector.stacked(((labels, *row) for labels, row in found.items()), steps)
