"""Statements that a run must make true: ``ttft_p99[7.2] / ttft_p99[6.0] >= 10``.

    claim    := sum (`<=` | `<` | `>=` | `>`) sum  |  sum `within` sum `of` sum
    sum      := product ((`+` | `-`) product)*
    product  := operand ((`*` | `/`) operand)*
    operand  := `-` operand | `(` sum `)` | number, duration (2s, 100ms) or percentage (5%) | metric
    metric   := NAME_STATISTIC or cohort.NAME.NAME_STATISTIC, some with a window (``errors@40m-50m``) behind it;
                with a sweep, the point's values in [ ] behind that

A claim is evaluated once a seed, so that the ratio of two points compares the same users, and judged by the median
over seeds; its interval is a percentile bootstrap of that median (Efron and Tibshirani 1993, chapter 13).
"""

import difflib
import math
import operator
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from sim.errors import ScenarioError
from sim.units import DURATION_TOKEN, NUMBER, quantity
from sim.words import show

COMPARE = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}
ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
RESAMPLES = 4000
MOST_PARENTHESES = 50
WINDOWED = (
    *("errors", "goodput_per_s", "attempts_per_s", "requests_per_s"),
    *(f"{time}_{stat}" for time in ("ttft", "e2e") for stat in ("mean", "p50", "p90", "p95", "p99", "p999")),
)
"""Metrics that a claim may ask of a part of the run, by the time at which users asked."""

OF_CONTROL = ("recovery_s", "goodput_kept")
"""Metrics that compare a run with its control run; a claim that names one lets the control run be played."""

Index = tuple[str, ...]
"""Values of `vary` as they are written behind a metric; empty where there is no [ ]."""

Point = Mapping[str, Any]
"""One combination of `vary`: path -> value."""


@dataclass(frozen=True)
class Number:
    """A constant: seconds, a fraction or a plain number; *bare* when it was written without a unit."""

    value: float
    bare: bool = False


@dataclass(frozen=True)
class Metric:
    """A metric of one point of the sweep; its name ends with ``@START-END`` where a window was written."""

    name: str
    index: Index


@dataclass(frozen=True)
class Arithmetic:
    """Two operands and the sign between them."""

    sign: str
    left: "Node"
    right: "Node"


Node = Number | Metric | Arithmetic


@dataclass(frozen=True)
class Claim:
    """A statement that was understood."""

    text: str
    left: Node
    op: str
    right: Node
    tolerance: Node | None = None  # of `within`

    @property
    def metrics(self) -> set[tuple[str, Index]]:
        """Every metric it names, with its index."""
        return _metrics(self.left) | _metrics(self.right) | (_metrics(self.tolerance) if self.tolerance else set())


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: it holds when ``estimate op bound``, or for `within` when |estimate| <= bound.

    `estimate` is the median over seeds of the left side; of left minus right where both sides name metrics (the
    bound is then 0); of the relative deviation for `within`. `low` and `high` are its bootstrap interval.
    """

    name: str
    text: str
    estimate: float
    low: float
    high: float
    bound: float
    op: str
    passed: bool
    seeds: int


def parse(text: str, where: str = "") -> Claim:
    """Return the claim that *text* states; *where* (file, line, field) begins the message of an error.

    Raises:
        ScenarioError: it is not a claim.
    """
    try:
        return _Parser(text).claim()
    except ScenarioError as error:
        raise ScenarioError(f"{where}: {error}" if where else str(error)) from None


def evaluate(
    claims: Mapping[str, str],
    points: Sequence[Point],
    metrics: Sequence[Sequence[Mapping[str, float]]],
    confidence: float = 0.95,
) -> list[Verdict]:
    """Judge *claims* (name -> text) on *metrics*: for each of *points*, for each seed (the same ones), name -> value.

    Raises:
        ScenarioError: a claim that cannot be read, a point that was not played, a metric nobody measured.
    """
    verdicts = []
    for name, text in claims.items():
        try:
            verdicts.append(_verdict(name, _Parser(text).claim(), points, metrics, confidence))
        except ScenarioError as error:
            raise ScenarioError(f"claims.{name}: {error}") from None
    return verdicts


def check_metrics(claims: Mapping[str, str], known: Collection[str], where: str = "claims") -> None:
    """Refuse, before anything is played, *claims* about metrics that are not among *known* names.

    Raises:
        ScenarioError: an unknown metric, with the names close to it.
    """
    for name, text in claims.items():
        for metric, _ in sorted(parse(text, f"{where}.{name}").metrics):
            if window_of(metric)[0] not in known:
                raise ScenarioError(f"{where}.{name}: {unknown(metric, known)}")


def window_of(metric: str) -> tuple[str, tuple[float, float] | None]:
    """Return *metric* without its window, and the window's start and end in seconds; None where it has none."""
    name, at, window = metric.partition("@")
    start, _, end = window.partition("-")
    return name, (quantity(start), quantity(end)) if at else None


def beyond(metric: str, duration_s: float) -> str:
    """Return what is wrong with the window of *metric* in a run of *duration_s*: it ends later; or nothing."""
    window = window_of(metric)[1]
    if window is None or window[1] <= duration_s:
        return ""
    return f"expected a window that ends by duration ({show(duration_s)} s), got {metric}"


def needs_control(claims: Mapping[str, str]) -> bool:
    """Return whether one of *claims* (name -> text) compares a run with its control run."""
    return any(metric in OF_CONTROL for text in claims.values() for metric, _ in parse(text).metrics)


def point_of(metric: str, index: Index, points: Sequence[Point]) -> int:
    """Return which of *points* ``metric[index]`` means.

    Raises:
        ScenarioError: none of them, or the index is missing where there are several.
    """
    known = ", ".join(f"[{', '.join(map(value_name, point.values()))}]" for point in points[:8])
    if not index and len(points) == 1:
        return 0
    if not index:
        raise ScenarioError(f"expected {metric} with one of the points of vary behind it: {known}")
    if not points[0]:
        raise ScenarioError(f"expected {metric} without [{', '.join(index)}], since nothing varies")
    for i, point in enumerate(points):
        if len(index) == len(point) and all(map(_same, index, point.values())):
            return i
    raise ScenarioError(f"vary has no point [{', '.join(index)}] for {metric}, expected one of {known}")


def value_name(value: Any) -> str:
    """Return how an index names a value of `vary`.

    A mapping with one key is named by that key; a list of mappings, such as faults, by the name of the first, or none.
    """
    if isinstance(value, dict) and len(value) == 1:
        return str(next(iter(value)))
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        return str(value[0].get("name") or next(iter(value[0]))) if value else "none"
    return "none" if value is None else value if isinstance(value, str) else show(value)


def _same(written: str, value: Any) -> bool:
    try:
        return math.isclose(quantity(written), quantity(value), rel_tol=1e-9)
    except ValueError:
        return written == value_name(value)


def _metrics(node: Node) -> set[tuple[str, Index]]:
    match node:
        case Metric(name, index):
            return {(name, index)}
        case Arithmetic(_, left, right):
            return _metrics(left) | _metrics(right)
    return set()


# --- reading --------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    rf"""\s*(?:
      (?P<quantity>{DURATION_TOKEN}|{NUMBER}\s*%|{NUMBER})(?![\w.%])
    | (?P<name>[A-Za-z_]\w*(?:\.[\w-]+\.\w+)?)(?P<window>@[\w.]*(?:-[\w.]*)?)?\s*(?:\[(?P<index>[^\[\]]*)\])?
    | (?P<sign><=|>=|<|>|[-+*/()])
    )""",
    re.VERBOSE,
)


def is_time(metric: str) -> bool:
    """Return whether *metric* is a latency, which is said in seconds or milliseconds."""
    name = window_of(metric)[0].rpartition(".")[2].removeprefix("task_")
    return name.partition("_")[0] in ("ttft", "e2e", "itl", "tpot", "queue", "recovery", "lead", "detection", "alarm")


def _window(name: str, written: str) -> str:
    """Return *written* (``@40m-50m``) once it is known to be a window that metric *name* may have."""
    if name not in WINDOWED:
        known = f"{', '.join(WINDOWED[:4])}, or a statistic of ttft or e2e"
        raise ScenarioError(f"{name} has no windows, expected one of {known}")
    match = re.fullmatch(rf"@({DURATION_TOKEN}|0)-({DURATION_TOKEN})", written)
    try:
        start_s, end_s = map(quantity, match.groups() if match else ("1", "0"))
    except ValueError as error:
        raise ScenarioError(f"{name}{written}: {error}") from None
    if not start_s < end_s:
        raise ScenarioError(f"expected a window from its start to its end, such as {name}@40m-50m, got {name}{written}")
    return written


class _Parser:
    """Recursive descent over the tokens of one claim; each method reads what it is called."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        if text.count("(") > MOST_PARENTHESES:
            raise ScenarioError(f"expected at most {MOST_PARENTHESES} parentheses, got {text.count('(')}")

    def claim(self) -> Claim:
        left, tolerance = self.sum(), None
        op = self.take("<=", "<", ">=", ">", "within")
        if op is None:
            self.expected("a comparison (<=, <, >=, > or within 5% of)")
        if op == "within":
            tolerance = self.sum()
            if self.take("of") is None:
                self.expected("'of'")
        right = self.sum()
        if self.text[self.at :].strip():
            self.expected("the end of the claim")
        if isinstance(left, Metric) and isinstance(right, Number) and right.bare and right.value and is_time(left.name):
            raise ScenarioError(
                f"{left.name} is a time: expected a bound such as {right.value:g}ms or {right.value:g}s, "
                f"got {right.value:g} in {show(self.text)}"
            )
        return Claim(self.text, left, op, right, tolerance)

    def sum(self) -> Node:
        node = self.product()
        while sign := self.take("+", "-"):
            node = Arithmetic(sign, node, self.product())
        return node

    def product(self) -> Node:
        node = self.operand()
        while sign := self.take("*", "/"):
            node = Arithmetic(sign, node, self.operand())
        return node

    def operand(self) -> Node:
        if self.take("-"):
            return Arithmetic("-", Number(0.0), self.operand())
        if self.take("("):
            node = self.sum()
            if self.take(")") is None:
                self.expected("')'")
            return node
        match = _TOKEN.match(self.text, self.at)
        if match is None or match["sign"] or match["name"] in ("within", "of"):
            self.expected("a metric, a number or '('")
        self.at = match.end()
        if match["quantity"]:
            try:
                return Number(quantity(match["quantity"]), match["quantity"].strip()[-1].isdigit())
            except ValueError as error:
                raise ScenarioError(str(error)) from None
        index = match["index"]
        name = match["name"] + (_window(match["name"], match["window"]) if match["window"] else "")
        return Metric(name, tuple(part.strip() for part in index.split(",")) if index is not None else ())

    def take(self, *wanted: str) -> str | None:
        """Read the next token if it is one of *wanted*."""
        match = _TOKEN.match(self.text, self.at)
        found = match and (match["sign"] or (match["index"] is None and not match["window"] and match["name"]))
        if not match or found not in wanted:
            return None
        self.at = match.end()
        return str(found)

    def expected(self, what: str) -> NoReturn:
        """Say what should have come next."""
        rest = self.text[self.at :].strip()
        raise ScenarioError(f"expected {what}, got {show(rest) if rest else 'the end'} in {show(self.text)}")


# --- judging --------------------------------------------------------------------------------------------------------


def _verdict(
    name: str,
    claim: Claim,
    points: Sequence[Point],
    metrics: Sequence[Sequence[Mapping[str, float]]],
    confidence: float,
) -> Verdict:
    import numpy as np

    from sim.rng import stream

    seeds = min(map(len, metrics), default=0)

    def values(node: Node) -> np.ndarray:
        """The value of *node* for each seed."""
        match node:
            case Number(value):
                return np.full(seeds, value)
            case Metric(metric, index):
                rows = metrics[point_of(metric, index, points)][:seeds]
                if missing := [row for row in rows if metric not in row]:
                    raise ScenarioError(unknown(metric, missing[0]))
                return np.array([row[metric] for row in rows], dtype=float)
            case Arithmetic(sign, left, right):
                return np.asarray(ARITHMETIC[sign](values(left), values(right)))

    with np.errstate(all="ignore"):  # 0/0 is nan, and nan makes no claim true
        left, right, bound = values(claim.left), values(claim.right), 0.0
        if claim.tolerance is not None:
            sample = np.where(left == right, 0.0, (left - right) / np.abs(right))
            bound = float(np.median(values(claim.tolerance)))
        elif _metrics(claim.right):
            sample = left - right
        else:
            sample, bound = left, float(right[0]) if seeds else math.nan
        estimate = float(np.median(sample)) if seeds else math.nan
        draws = stream(0, f"claims.{name}").integers(0, max(seeds, 1), (RESAMPLES, seeds))
        medians = np.median(sample[draws], axis=1) if seeds else np.full(1, math.nan)
        tail = (1 - confidence) / 2
        low, high = np.quantile(medians, [tail, 1 - tail], method="inverted_cdf")
    passed = abs(estimate) <= bound if claim.tolerance is not None else COMPARE[claim.op](estimate, bound)
    return Verdict(name, claim.text, estimate, float(low), float(high), bound, claim.op, bool(passed), seeds)


_TEAM, _QUALITY = "a team in control, with a gate that escalates to it", "quality in the scenario"
NEEDS = {
    **dict.fromkeys(("delivered_wrong", "escalated", "caught", "caught_share", "withheld", "team"), _TEAM),
    **dict.fromkeys(("wrong_share", "bad", "by_fallback", "alarmed", "alarm_s", "cause"), _QUALITY),
    "breaker": "a quality_breaker in control",
    "overflow": "an overflow in control",
    "release": "a release in control",
}
"""What a scenario must have to measure a metric that begins so."""


def unknown(metric: str, known: Collection[str]) -> str:
    """Return that there is no such *metric*, with those of the *known* ones that are close to it."""
    first = metric.partition(".")[0]
    if (needs := NEEDS.get(first)) and not any(one.partition(".")[0] == first for one in known):
        return f"unknown metric {metric!r}: it needs {needs}"
    near = difflib.get_close_matches(metric, list(known), n=5, cutoff=0.5)
    return f"unknown metric {metric!r}, expected " + (f"one like {', '.join(near)}" if near else "one of the summary's")
