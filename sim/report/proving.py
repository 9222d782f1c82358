"""Rules held against what was expected of them: a table in a terminal, JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from sim.alerts.pages import NEVER, Pages
from sim.alerts.prove import Finding, Proof, Span
from sim.alerts.rules import Judgement
from sim.report import printing, words
from sim.words import count

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST_TIMES = 4
_LOOKS = {Finding.AS_EXPECTED: "", Finding.NOTHING_EXPECTED: "dim", Finding.NOT_JUDGED: "yellow"}


@dataclass(frozen=True)
class Proven:
    """The proofs of one repeat at one point: what it is called, and whether its prediction is uncalibrated."""

    name: str
    proofs: list[Proof]
    is_predicted: bool
    uncalibrated: bool
    judged: Sequence[Judgement] = ()
    """What the rules did, for a figure."""


def answer(proven: Sequence[Proven]) -> str:
    """Return in one sentence how many rules were as expected."""
    proofs = [proof for one in proven for proof in one.proofs]
    asked = [proof for proof in proofs if proof.expected is not None and proof.finding != Finding.NOT_JUDGED]
    good = sum(proof.finding == Finding.AS_EXPECTED for proof in asked)
    said = f"{good} of {count(len(asked), 'rule')} as expected" if asked else "Nothing was proven"
    silent = sum(proof.finding == Finding.NOT_JUDGED for proof in proofs)
    if silent:
        said += f"; {count(silent, 'rule')} could not be judged: silent, not quiet"
    nothing = sum(proof.finding == Finding.NOTHING_EXPECTED for proof in proofs)
    if nothing:
        said += f"; of {count(nothing, 'rule')} nothing was expected"
    return said + "."


def show(heading: str, proven: Sequence[Proven], commands: Sequence[tuple[str, str]], file: IO[str]) -> None:
    """Print what was expected of each rule to *file*, what it did, and whether that is the same."""
    from rich.text import Text

    blocks: list[printing.Block] = [("", [Text(heading, style="bold"), Text(answer(proven))])]
    for one in proven:
        blocks.append((one.name if len(proven) > 1 else "Rules", [_table(one.proofs)]))
        reasons = [Text(f"{proof.rule}: {proof.reason}") for proof in one.proofs if proof.reason]
        blocks.append(("Why" if len(proven) == 1 else f"Why, {one.name}", reasons))
    blocks.append(("How", [Text(how(proven))]))
    printing.show(blocks, commands, file)


def how(proven: Sequence[Proven]) -> str:
    """Return where expectations came from, and what the columns mean."""
    said = "Expected is what `expect` of the scenario says"
    if any(one.is_predicted for one in proven):
        note = ", uncalibrated" if any(one.uncalibrated for one in proven) else ""
        said += (
            f", else the prediction (the simulation of the same scenario and seed{note}): the time at which the rule "
            "fires there, give or take two evaluations, half of its `for` or a minute, whichever is longest"
        )
    return (
        f"{said}. Times are since the start. Lead: the page before the incident that it caught, by the `slo` of the "
        "scenario; below 0, users noticed first. A page within 15 min of the end of the last is a flap, and false only "
        "if that was."
    )


def _table(proofs: Sequence[Proof]) -> "RenderableType":
    from rich.text import Text

    rows: list[list[printing.Cell]] = []
    for one in proofs:
        judged = one.finding != Finding.NOT_JUDGED
        lead = "–" if one.lead_s is None else f"{'−' if one.lead_s < 0 else ''}{words.stamp(abs(one.lead_s))}"
        counts = (str(one.pages.flaps), "yes" if one.missed else "no", str(one.false)) if judged else ("–",) * 3
        look = _LOOKS.get(one.finding, "red")
        fired = _times(one.pages) if judged else "–"
        rows.append([one.rule, expected(one), fired, lead, *counts, Text(one.finding, style=look)])
    head = ("rule", "expected", "fired", "lead", "flaps", "missed", "false", "verdict")
    return printing.table(head, rows, texts=(1, 2, 7))


def expected(one: Proof) -> str:
    """Return what was expected of a rule: ``silent``, or from when to when; and by whom."""
    if one.expected is None:
        return "–"
    said = ", ".join(map(_span, one.expected.spans_ms[:MOST_TIMES])) or "silent"
    return said if one.expected.source == "expect" else f"{said} (predicted)"


def _span(span_ms: Span) -> str:
    return f"{words.stamp(max(0, span_ms[0]) / 1000)}–{words.stamp(span_ms[1] / 1000)}"


def _times(pages: Pages) -> str:
    shown = [words.stamp(start / 1000) for start in pages.start_ms[:MOST_TIMES].tolist()]
    more = f" +{len(pages) - MOST_TIMES}" if len(pages) > MOST_TIMES else ""
    return ", ".join(shown) + more or "no"


def as_json(proven: Sequence[Proven]) -> dict[str, Any]:
    """Return everything for programs; times in seconds since the start, null what has not happened."""
    return {
        "holds": all(proof.holds for one in proven for proof in one.proofs),
        "answer": answer(proven),
        "how": how(proven),
        "runs": [
            {
                "name": one.name,
                "predicted": one.is_predicted,
                "uncalibrated": one.uncalibrated,
                "rules": [_json(proof) for proof in one.proofs],
            }
            for one in proven
        ],
    }


def _json(one: Proof) -> dict[str, Any]:
    expects = one.expected
    return {
        "rule": one.rule,
        "expected": None
        if expects is None
        else {
            "by": expects.source,
            "silent": not expects.spans_ms,
            "fires_s": [[first / 1000, last / 1000] for first, last in expects.spans_ms],
            "pending_s": None if expects.pending_ms is None else [t / 1000 for t in expects.pending_ms],
        },
        "predicted_s": None if one.predicted is None else _spans_s(one.predicted),
        "pages_s": None if one.finding == Finding.NOT_JUDGED else _spans_s(one.pages),
        "pending_s": None if one.pending_ms is None else one.pending_ms / 1000,
        "lead_s": one.lead_s,
        "flaps": one.pages.flaps,
        "missed": one.missed,
        "false": one.false,
        "verdict": str(one.finding),
        "reason": one.reason,
        "holds": one.holds,
    }


def _spans_s(pages: Pages) -> list[list[float | None]]:
    return [
        [start / 1000, None if end == NEVER else end / 1000]
        for start, end in zip(pages.start_ms.tolist(), pages.end_ms.tolist())
    ]
