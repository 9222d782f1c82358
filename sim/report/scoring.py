"""What rules are worth, in a terminal and as JSON: what they caught and missed, how often they paged for nothing."""

import math
import re
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sim.alerts.pages import NEVER
from sim.alerts.score import Difference, Judged, Score
from sim.alerts.truth import Incident
from sim.report import printing, words
from sim.report.alerting import moment
from sim.results import plain
from sim.theory.chance import Interval
from sim.words import count

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST_LISTED = 30


def show(
    heading: str,
    pasts: Sequence[Judged],
    scored: tuple[Sequence[Score], Score],
    window: str,
    compared: Sequence["RenderableType"],
    commands: Sequence[tuple[str, str]],
    file: IO[str],
) -> None:
    """Print the score of every rule and of all together to *file*; *window* says when a page is true."""
    from rich.text import Text

    scores, together = scored
    rows = [*scores, together] if len(scores) > 1 else list(scores)
    top: list[RenderableType] = [Text(heading, style="bold"), Text(answer(together)), Text(), Text(truth(pasts)),
                                 Text(window, style="dim")]  # fmt: skip
    blocks: list[printing.Block] = [("", top), ("Incidents", [_caught(rows)]), ("Pages", [_paged(rows)])]
    blocks += [("Missed", _missed(scores, together)), ("Silent, not quiet", _silent(scores)), ("Compared", compared)]
    printing.show(blocks, commands, file)


def answer(together: Score) -> str:
    """Return in a sentence how many incidents all rules caught together, and how often they paged for nothing."""
    if not together.held:
        return "Not one rule could be judged."
    kind = "page-worthy incident" if together.severity == "page" else "incident"
    said = f"{together.caught} of {count(together.incidents, kind)} caught" if together.incidents else f"No {kind}"
    if len(together.detection_s):
        said += f", the median {_after(quantiles(together.detection_s, (0.5,))[0])}"
    return f"{said}; {rate(together)}."


def rate(one: Score) -> str:
    """Return how often a rule paged for nothing, with what that rests on."""
    false = one.false_per_week
    if false is None:
        return "nothing was watched"
    if one.false == 0:
        return f"0 false pages seen in {weeks(one.weeks)}, so at most {_few(one.false_at_most or 0)} a week (95%)"
    return f"{count(one.false, 'false page')} in {weeks(one.weeks)}: {_between(false)} a week"


def weeks(number: float) -> str:
    """Return how long rules were watched."""
    return f"{_few(number)} weeks" if number >= 0.95 else f"{_few(number)} weeks ({words.seconds(number * 604_800)})"


def truth(pasts: Sequence[Judged]) -> str:
    """Return where incidents come from, and how many there are."""
    said = list(dict.fromkeys(one.truth.said for one in pasts))
    found = [incident for one in pasts for incident in one.truth.incidents]
    page = sum(one.severity == "page" for one in found)
    text = (
        f"Truth: {'; '.join(said)}. {count(len(found), 'incident')}: {page} worth a page, {len(found) - page} a ticket"
    )
    text += f"; {count(len(pasts), 'past')}, {weeks(sum(one.weeks for one in pasts))}"
    if any(one.truth.from_ms > 0 and one.truth.from_ms < 1e12 for one in pasts):
        text += ", warm-up left out"
    unwatched = dict.fromkeys(name for one in pasts for name in one.truth.unwatched)
    return f"{text}. Not watched: {', '.join(unwatched)}." if unwatched else f"{text}."


def _after(seconds: float) -> str:
    return f"{_time(seconds)} after it began" if seconds > 0 else "before users noticed"


def _few(value: float) -> str:
    return words.significant(value, 2)


def _between(value: Interval, show: Any = _few) -> str:
    return f"{show(value.estimate)} [{show(value.low)}, {show(value.high)}]"


def _share(value: Interval) -> str:
    low, high = (words.percent(x).removesuffix("%") for x in (value.low, value.high))
    return "–" if math.isnan(value.estimate) else f"{words.percent(value.estimate)} [{low}, {high}]"


def _spread(values: np.ndarray, show: Any) -> str:
    """Return median, P90 and worst of sorted *values*."""
    if not len(values):
        return "–"
    return " / ".join(show(value) for value in (*quantiles(values, (0.5, 0.9)), float(values[-1])))


def quantiles(values: np.ndarray, at: Sequence[float]) -> list[float]:
    """Return quantiles of sorted *values* that may be infinite: the smallest value that so many do not exceed."""
    return [float(values[min(len(values) - 1, math.ceil(q * len(values)) - 1)]) for q in at]


def _lasting(value: float) -> str:
    return "never" if math.isinf(value) else "0" if value == 0 else _time(value)


def _time(value: float) -> str:
    return re.sub(r"\.0+ ", " ", words.seconds(value))  # evaluations are at round times


def _lead(value: float) -> str:
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{_lasting(abs(value))}"


def _caught(rows: Sequence[Score]) -> "RenderableType":
    head = ("rule", "caught", "recall", "lead\nmedian", "detected after\np50 / p90 / worst",
            "budget burned before\np50 / p90 / worst", "reset after\np50 / worst")  # fmt: skip
    cells = []
    for one in rows:
        if not one.held:
            cells.append([one.name, "silent", *[""] * (len(head) - 2)])
            continue
        reset = one.reset_s
        cells.append([
            one.name,
            f"{one.caught}/{one.incidents}",
            _share(one.recall),
            _lead(quantiles(one.lead_s, (0.5,))[0]) if len(one.lead_s) else "–",
            _spread(one.detection_s, _lasting),
            _spread(one.burned_before, words.percent),
            f"{_lasting(quantiles(reset, (0.5,))[0])} / {_lasting(reset[-1])}" if len(reset) else "–",
        ])  # fmt: skip
    return printing.table(head, cells)


def _paged(rows: Sequence[Score]) -> "RenderableType":
    head = ("rule", "severity", "pages", "true", "precision", "not deserved", "flaps", "false", "false a week")
    cells = []
    for one in rows:
        if not one.held:
            cells.append([one.name, one.severity, "silent", *[""] * (len(head) - 3)])
            continue
        false = one.false_per_week
        weekly = (
            "–" if false is None else _between(false) if one.false else f"0, at most {_few(one.false_at_most or 0)}"
        )
        cells.append([one.name, one.severity, str(one.pages), str(one.true), _share(one.precision),
                      str(one.undeserved), str(one.flaps), str(one.false), weekly])  # fmt: skip
    return printing.table(head, cells)


def _missed(scores: Sequence[Score], together: Score) -> "list[RenderableType]":
    """Return what was missed by all rules that were there to catch it, and by how many of each."""
    from rich.text import Text

    lines: list[RenderableType] = []
    missed = together.missed
    if missed:
        lines.append(listed(missed[:MOST_LISTED]))
    if len(missed) > MOST_LISTED:
        lines.append(Text(f"and {len(missed) - MOST_LISTED:,} more: --json lists all"))
    for one in scores:
        alone = [f"{incident.id} ({past})" for past, incident in one.missed if (past, incident) not in missed]
        if alone:
            more = f" and {len(alone) - 8:,} more" if len(alone) > 8 else ""
            lines.append(Text(f"{one.name} also missed {len(alone):,}: {', '.join(alone[:8])}{more}"))
    return lines


def listed(found: Sequence[tuple[str, Incident]]) -> "RenderableType":
    """Return incidents as a table: id, past, when, which objective, and what was on meanwhile."""
    rows = []
    for past, one in found:
        burned = "–" if one.burned is None else words.percent(one.burned)
        lasted = words.seconds((one.end_ms - one.start_ms) / 1000, 2)
        rows.append([f"{one.id} {one.severity}", past, moment(one.start_ms), lasted, burned, one.objective,
                     ", ".join(one.causes) or "–"])  # fmt: skip
    head = ("incident", "past", "began", "lasted", "burned", "objective", "cause")
    return printing.table(head, rows, texts=(1, 5, 6))


def _silent(scores: Sequence[Score]) -> "list[RenderableType]":
    from rich.text import Text

    lines: list[RenderableType] = []
    for one in scores:
        if one.silent:
            of = len(one.silent) + len(one.held)
            where = "" if not one.held else f" on {len(one.silent)} of {count(of, 'past')}"
            _, why = one.silent[0]
            lines.append(Text(f"{one.name}{where}: {why.verdict}, {why.reason}", style="yellow"))
        if one.already:
            said = f"was firing already when the warm-up ended, {count(one.already, 'time')}; counted as a false page"
            lines.append(Text(f"{one.name}: {said}", style="yellow"))
    return lines


def compared(name: str, other: str, gained: Difference, lost: Difference) -> "list[RenderableType]":
    """Return what the rules *name* have and *other* have not, and what they lost."""
    from rich.text import Text

    lines: list[RenderableType] = []
    for verb, found, pages in (("gained", gained.incidents, gained.pages), ("lost", lost.incidents, lost.pages)):
        ids = [f"{one.id} ({past})" for past, one in found]
        more = f" and {len(ids) - 8:,} more" if len(ids) > 8 else ""
        said = f": {', '.join(ids[:8])}{more}" if ids else ""
        lines.append(Text(f"{count(len(found), 'incident')} {verb}{said}"))
        true = sum(page[3] for page in pages)
        lines.append(Text(f"{count(len(pages), 'page')} {verb}: {true} true, {len(pages) - true} false"))
        lines += [
            Text(f"  {'true' if true else 'false'}  {moment(at)}  {rule}  ({past})", style="dim")
            for past, rule, at, true in pages[:8]
        ]
    return [Text(f"{name} against {other}"), *lines]


def as_json(
    pasts: Sequence[Judged],
    scored: tuple[Sequence[Score], Score],
    window_ms: tuple[int, int],
    differences: tuple[Difference, Difference] | None = None,
) -> dict[str, Any]:
    """Return everything for programs: times are milliseconds as in the series, null what is not known."""
    scores, together = scored
    said: dict[str, Any] = {
        "truth": list(dict.fromkeys(one.truth.said for one in pasts)),
        "early_ms": window_ms[0],
        "grace_ms": window_ms[1],
        "pasts": [
            {"past": one.name, "from_ms": one.truth.from_ms, "end_ms": one.end_ms, "weeks": one.weeks,
             "unwatched": list(one.truth.unwatched), "incidents": [vars(i) for i in one.truth.incidents]}
            for one in pasts
        ],
        "rules": [_numbers(one) for one in scores],
        "together": _numbers(together),
    }  # fmt: skip
    if differences:
        said["compared"] = dict(zip(("gained", "lost"), map(_difference, differences)))
    found: dict[str, Any] = plain(said)
    return found


def _numbers(one: Score) -> dict[str, Any]:
    return {
        "rule": one.name,
        "severity": one.severity,
        "weeks": one.weeks,
        "incidents": one.incidents,
        "caught": one.caught,
        "caught_by_a_page_at_work": one.at_work,
        "recall": one.recall._asdict(),
        "pages": one.pages,
        "true": one.true,
        "false": one.false,
        "not_deserved": one.undeserved,
        "precision": one.precision._asdict(),
        "false_per_week": None if one.false_per_week is None else one.false_per_week._asdict(),
        "false_per_week_at_most": one.false_at_most,
        "flaps": one.flaps,
        "firing_before_the_watch": one.already,
        "lead_s": one.lead_s,
        "detection_s": one.detection_s,
        "burned_before": one.burned_before,
        "reset_s": one.reset_s,
        "never_reset": int(np.isinf(one.reset_s).sum()),
        "missed": [{"past": past, "incident": incident.id} for past, incident in one.missed],
        "silent": [{"past": past, "rule": why.rule.name, "verdict": str(why.verdict), "reason": why.reason}
                   for past, why in one.silent],
        "list": [
            {"past": held.judged.name, "rule": name, "start_ms": int(start),
             "end_ms": None if end == NEVER else int(end),
             "incident": held.judged.truth.incidents[credited].id if credited >= 0 else None}
            for held in one.held
            for name, start, end, credited in zip(
                held.names, held.pages.start_ms, held.pages.end_ms, held.matching.credited.tolist()
            )
        ],
    }  # fmt: skip


def _difference(one: Difference) -> dict[str, Any]:
    return {
        "pages": [{"past": past, "rule": rule, "start_ms": at, "true": true} for past, rule, at, true in one.pages],
        "incidents": [{"past": past, "incident": incident.id} for past, incident in one.incidents],
    }
