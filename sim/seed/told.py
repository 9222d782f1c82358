"""The claims in words: numbers with their intervals, a table to print, and everything as JSON."""

import math
from typing import IO, Any

from sim.report import printing
from sim.report.words import number, percent, seconds, significant
from sim.seed.table import CLAIMS, PARTS
from sim.seed.verdicts import Check, Found, Twice, Verdict


def value(x: float, unit: str) -> str:
    """Return *x* in its unit."""
    if not math.isfinite(x):
        return "∞" if x > 0 else "-∞"
    if unit == "share":
        return percent(x) if 0 <= x <= 1 else f"{100 * x:+.1f}%"
    if unit == "s":
        return seconds(x) if x >= 0 else f"-{seconds(-x)}"
    if unit == "h":
        return f"{x:.1f} h"
    return number(x) + ("x" if unit == "times" else "")


def estimate(check: Check) -> str:
    """Return the estimate, and its interval if it has one."""
    middle, low, high = (value(x, check.unit) for x in check.found)
    return middle if low == high else f"{middle} [{low}, {high}]"


def beside(both: Twice) -> tuple[str, str, str]:
    """Return what the formula says, what was played with its interval, and what to think of the two."""
    middle, low, high = (value(x, both.unit) for x in both.played)
    if both.played.low == both.played.high:
        return value(both.formula, both.unit), middle, both.differs or ("the same" if both.agrees else "one seed")
    said = both.differs or ("agree" if both.agrees else "they differ")
    if both.agrees and both.differs:
        said = f"within the interval, and yet: {said}"
    return value(both.formula, both.unit), f"{middle} [{low}, {high}]", said


def wanted(check: Check) -> str:
    """Return what the check asks for."""
    low, high = value(check.low, check.unit), value(check.high, check.unit)
    if check.low == check.high:
        return low
    if math.isinf(check.high):
        return f"at least {low}"
    return f"at most {high}" if math.isinf(check.low) else f"{low} to {high}"


def undecided(one: Found) -> str:
    """Return why a claim is not decided and how much more would decide it; nothing of one that is."""
    check = one.headline
    if one.verdict != Verdict.UNDECIDED or check is None:
        return ""
    if math.isnan(check.limit):
        return "Not decided: there is no interval."
    said = f"Not decided: the interval holds the limit, {value(check.limit, check.unit)}"
    if not math.isfinite(check.more):
        return f"{said}."
    return f"{said}; about {significant(check.more, 2)} times as many seeds would decide it, if the estimate stays."


def counted(found: dict[int, Found]) -> str:
    """Return how many claims have which verdict."""
    counts = [(sum(one.verdict == verdict for one in found.values()), verdict) for verdict in Verdict]
    return ", ".join(f"{n} {verdict.value}" for n, verdict in counts if n or verdict != Verdict.UNDECIDED)


def as_json(found: dict[int, Found], fast: bool) -> dict[str, Any]:
    """Return everything: claims in order, their checks, verdicts and reasons."""
    return {
        "fast": fast,
        "counts": {verdict.value: sum(one.verdict == verdict for one in found.values()) for verdict in Verdict},
        "claims": [
            {
                "number": n,
                "part": next(part for part, claims in PARTS.items() if CLAIMS[n] in claims),
                "says": CLAIMS[n].says,
                "verdict": one.verdict.value,
                "expected": CLAIMS[n].expected.value,
                "why": " ".join(filter(None, (undecided(one), one.why))),
                "checks": [_check(check) for check in [*one.checks, *([one.number] if one.number else [])]],
                "twice": [_twice(both) for both in one.twice],
            }
            for n, one in found.items()
        ],
    }


def _check(check: Check) -> dict[str, Any]:
    estimated, low, high = (round_to(x) for x in check.found)
    return {
        "what": check.what,
        "estimate": estimated,
        "low": low,
        "high": high,
        "unit": check.unit,
        "needs": [round_to(check.low), round_to(check.high)],
        "holds": check.holds,
    }


def _twice(both: Twice) -> dict[str, Any]:
    played, low, high = (round_to(x) for x in both.played)
    return {
        "what": both.what,
        "formula": round_to(both.formula),
        "played": played,
        "low": low,
        "high": high,
        "unit": both.unit,
        "scenario": both.scenario,
        "agrees": both.agrees,
        "differs": both.differs,
    }


def round_to(x: float, digits: int = 6) -> float | None:
    """Return *x* to six digits: the last ones differ between processors; None where it is not finite."""
    return float(f"{x:.{digits}g}") if math.isfinite(x) else None


def show(found: dict[int, Found], place: str, to: IO[str]) -> None:
    """Print the table of all claims, the count of verdicts, and where to read on."""
    from rich.text import Text

    blocks: list[printing.Block] = []
    for part, claims in PARTS.items():
        rows = []
        for claim in claims:
            one = found[claim.number]
            main = one.headline
            said = f"{estimate(main)}: {main.what}" if main else ""
            said = f"{said}. {hangs}" if (hangs := undecided(one)) else said
            rows.append([f"{claim.number:2}", claim.says, one.verdict.value, said])
        blocks.append((part, [printing.table(("#", "the article says", "verdict", "found"), rows, texts=(1, 2, 3))]))
    numbers = [both for one in found.values() for both in one.twice]
    agree = sum(both.agrees for both in numbers)
    lines = [f"57 claims: {counted(found)}."]
    if any(both.played.low < both.played.high for both in numbers):
        known = sum(not both.agrees and both.as_said for both in numbers)
        lines.append(f"{len(numbers)} numbers by formula and played: {agree} agree, {known} differ for a known reason.")
    blocks.append(("", [Text(line) for line in lines]))
    printing.show(blocks, [(place, "every claim with its figures, one by one")], to)
