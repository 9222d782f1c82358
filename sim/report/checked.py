"""Of a measured run: how many of its real answers were checked, and what share failed, check by check."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from sim.report import printing, words
from sim.report.view import Point, view
from sim.results import plain
from sim.theory.counted import wilson

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.results import Run
    from sim.scenario import AnswerCheck

TOPIC = "Checks on answers"
HEAD = ("check", "answers of", "judged", "failed", "share that failed [95%]", "not judged")


def found(run: "Run") -> list[dict[str, Any]]:
    """Return for each point and check, of everybody and by cohort, how many answers were judged and failed.

    With the share that failed and its 95% interval (Wilson); the seeds of a point are counted together.
    """
    seen = view(run)
    checks: dict[str, AnswerCheck] = run.scenario.checks if seen.kind == "measured" else {}
    counted = [(point, _counts(point)) for point in seen.points] if checks else []
    return [
        _entry(point, name, check, whose, counts)
        for point, counts in counted
        for name, check in checks.items()
        for whose in (None, *(check.cohorts or run.scenario.workload.cohorts))
    ]


def _counts(point: Point) -> Counter[tuple[str, str | None, str]]:
    counts: Counter[tuple[str, str | None, str]] = Counter()
    for member in point.members:
        for one in member.evaluations():
            for whose in (None, one["cohort"]):
                counts[one["check"], whose, one["verdict"]] += 1
    return counts


def _entry(
    point: Point, name: str, check: "AnswerCheck", whose: str | None, counts: Counter[tuple[str, str | None, str]]
) -> dict[str, Any]:
    failed = counts[name, whose, "wrong"]
    judged = counts[name, whose, "right"] + failed
    made: dict[str, Any] = plain(
        {
            "point": point.values,
            "label": point.label,
            "check": name,
            "kind": check.wrong,
            "cohort": whose,
            "judged": judged,
            "failed": failed,
            "failed_share": wilson(failed, judged)._asdict(),
            "not_judged": counts[name, whose, "not_judged"],
        }
    )
    return made


def table(run: "Run") -> list[list[str]]:
    """Return head and rows: a row for each check, and where it has several cohorts one for each of them."""
    entries = found(run)
    several = Counter((one["label"], one["check"]) for one in entries)
    rows = [list(HEAD)]
    for one in entries:
        if one["cohort"] is not None and several[one["label"], one["check"]] == 2:
            continue
        share = {key: words.to_float(value) for key, value in one["failed_share"].items()}
        interval = words.interval("errors", share["estimate"], share["low"], share["high"]) if one["judged"] else "–"
        counts = [words.number(one[key]) for key in ("judged", "failed", "not_judged")]
        label = f"{one['label']}: " if one["label"] else ""
        name = f"{label}{one['check']} ({one['kind'].replace('_', ' ')})" if one["cohort"] is None else ""
        rows.append([name, one["cohort"] or "everybody", *counts[:2], interval, counts[2]])
    return rows if entries else []


def block(run: "Run") -> list["RenderableType"]:
    """Return all of it for a terminal; nothing where nothing was to be checked."""
    head, *rows = table(run) or [[]]
    return [printing.table(head, rows, texts=(1,))] if rows else []
