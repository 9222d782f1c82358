"""An explanation in a terminal or as JSON: tables, shares, five requests step by step, and what to type next."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sim.records import Outcome
from sim.report import causes, explain, printing, words
from sim.report.asked import KIND
from sim.report.explain import Explanation
from sim.report.parts import Group

if TYPE_CHECKING:
    from rich.console import RenderableType

SEEN = 1e-5
"""Share of the whole below which a part is left out: parts are kept as 4-byte floats."""
LEAST_S = 1e-9
"""Shorter times are rounding, and shown as none."""
BLIND = ("round_robin", "random")
"""Routers that do not look at how busy a replica is."""


def show(found: Explanation, file: IO[str] | None = None) -> None:
    """Print *found* to *file* (stdout), plain wherever nobody watches."""
    from rich.text import Text

    top: list[RenderableType] = [Text(found.view.heading, style="bold"), Text(explain.rests_on(found)), Text()]
    top += [Text(explain.answer(found), style="bold"), Text(explain.in_full(found))]
    blocks: list[printing.Block] = [
        ("", top),
        ("Where the time went", _parts(found)),
        *((f"By {what}", _groups(found, slow)) for what, slow in found.groups.items()),
        ("Not answered", _errors(found)),
        ("Meanwhile", [Text(line) for line in _meanwhile(found)]),
        (f"The {'five ' * (len(found.slowest) == 5)}slowest, step by step", _stories(found)),
    ]
    printing.show(blocks, next_commands(found), file or sys.stdout)


def _parts(found: Explanation) -> list["RenderableType"]:
    group = found.whole.group
    if group is None:
        return []
    rows: list[list[str]] = []
    looks: dict[int, str] = {}
    extra = _extra(group, found.by)
    for name, median_s, tail_s, more_s in zip(found.kind.names.values(), group.median_s, group.tail_s, extra):
        if max(median_s, tail_s) > SEEN * group.tail_s.sum():
            looks[len(rows)] = "bold" if more_s == extra.max() > 0 else ""
            rows.append([name, *_times(median_s, tail_s)])
    rows.append(["all", *_times(group.median_s.sum(), group.tail_s.sum())])
    return [printing.table(("", "around the median", "slowest 1%", "more"), rows, looks=looks)]


def _times(median_s: float, tail_s: float) -> list[str]:
    median_s, tail_s = (0.0 if value < LEAST_S else value for value in (median_s, tail_s))
    if abs(tail_s - median_s) <= SEEN * (tail_s + median_s):
        return [words.seconds(median_s), words.seconds(tail_s), "±0"]
    more = words.seconds(abs(tail_s - median_s))
    return [words.seconds(median_s), words.seconds(tail_s), f"{'+' if tail_s >= median_s else '−'}{more}"]


def _groups(found: Explanation, some: Sequence[causes.Slow]) -> list["RenderableType"]:
    what = words.SHORT_NAMES[found.by]
    most = "its slowest 1% waited most for"
    rows = []
    for slow in some:
        share = [words.percent(slow.share.of_traffic), words.percent(slow.share.of_trouble)]
        times = [words.seconds(slow.p50_s), words.seconds(slow.p99_s)]
        rows.append([slow.share.label, *share, *times, _most(slow, found)])
    head = ("", "of traffic", "of slowest 1%", f"{what} P50", f"{what} P99", most)
    return [printing.table(head, rows, texts=(5,))]


def _most(slow: causes.Slow, found: Explanation) -> str:
    """Return the part that a group's slowest 1% spent most more on than those around its median, and how much.

    By time to first token only what fell before that token counts.
    """
    if slow.group is None:
        return "(too few)"
    extra = _extra(slow.group, found.by)
    k = int(np.argmax(extra))
    return f"{list(found.kind.names.values())[k]} (+{words.seconds(extra[k])})" if extra[k] > 0 else "nothing"


def _extra(group: Group, by: str) -> np.ndarray:
    """Return how many seconds by part the slowest 1% spent more than those around the median, as far as *by* counts."""
    return group.tail_first_s - group.median_first_s if by == "ttft" else group.tail_s - group.median_s


def _errors(found: Explanation) -> list["RenderableType"]:
    from rich.text import Text

    lines: list[RenderableType] = [Text(line) for line in _errors_in_words(found)]
    if found.burning:
        rows = [
            [share.label, *(words.percent(x) for x in (share.of_traffic, share.of_trouble, share.rate))]
            for share in found.burning
        ]
        head = ("these have far more than their share", "of traffic", "of errors", "not answered")
        lines.append(printing.table(head, rows))
    return lines


def _errors_in_words(found: Explanation) -> list[str]:
    errors = sum(found.ends.values())
    if not errors:
        return ["Every request was answered."]
    how = words.listing([f"{n:,} {name.replace('_', ' ')}" for name, n in found.ends.items()])
    text = f"{errors:,} of {found.requests:,} requests ({words.percent(errors / found.requests)}): {how}."
    if found.allowed:
        text += f" The SLO allows {words.percent(found.allowed)}: {_spent(errors / found.requests / found.allowed)}."
    if not found.burning:
        text += " No kind of request has far more than its share of them."
    return [text]


def _spent(ratio: float) -> str:
    return (
        f"that is {words.percent(ratio)} of it"
        if ratio <= 1
        else f"that is {words.significant(ratio, 2)} times as many"
    )


def _meanwhile(found: Explanation) -> list[str]:
    return [
        f"{share.label}: {words.percent(share.of_trouble)} of the slowest 1% were in flight then, "
        f"{words.percent(share.of_traffic)} of all"
        for share in found.meanwhile
    ]


def _stories(found: Explanation) -> list["RenderableType"]:
    from rich.text import Text

    lines: list[RenderableType] = []
    for row, steps in found.slowest:
        lines.append(Text(_about(found, row), style="bold"))
        told = [[f"+{words.seconds(step.at_s)}", step.text] for step in steps]
        lines += [printing.table(("", ""), told, texts=(1,)), Text()]
    return lines[:-1]


def _about(found: Explanation, row: np.void) -> str:
    """Return the heading of a story: which request, what it took, when it was asked, and how long its prompt is."""
    took = row["first_token_s"] - row["scheduled_s"] if found.by == "ttft" else np.nan
    took = row["finished_s"] - row["scheduled_s"] if np.isnan(took) else took
    cohort = list(found.scenario.workload.cohorts)[row["cohort"]]
    asked = f"asked at {words.stamp(float(row['scheduled_s']))} by {cohort}, {row['prompt_tokens']:,} prompt tokens"
    ends = "" if row["outcome"] == Outcome.OK else " and was not answered"
    return f"Request {row['request']}: {words.SHORT_NAMES[found.by]} {words.seconds(float(took))}{ends}; {asked}"


def next_commands(found: Explanation) -> list[tuple[str, str]]:
    """Return what is worth typing next, each with what it is good for."""
    other = "e2e" if found.by == "ttft" else "ttft"
    commands = [(f"blowout why {found.run} --by {other}", f"the slowest by {words.TIME_NAMES[other]}")]
    if found.groups.get("replica") and found.scenario.fleet.routing[0] in BLIND:
        again = f"blowout run {found.run / 'scenario.yaml'} --set fleet.router=least_outstanding"
        commands.insert(0, (again, f"a router that sees how busy {found.groups['replica'][0].share.label} is"))
    commands.append((f"blowout report {found.run}", "all figures, and the page to send"))
    return commands


def as_json(found: Explanation) -> dict[str, Any]:
    """Return everything `show` prints, for programs: JSON types only, what is not a number as None."""
    from sim.results import plain

    group = found.whole.group
    both = zip(KIND.names, group.median_s, group.tail_s) if group else ()
    groups = {what: [_slow(slow) for slow in some] for what, some in found.groups.items()}
    told = {
        "run": str(found.run),
        "point": found.point.values,
        "seed": found.member.seed,
        "by": found.by,
        "rests_on": explain.rests_on(found),
        "answer": explain.answer(found),
        "why": explain.in_full(found),
        "parts": {part: {"median_s": median_s, "tail_s": tail_s} for part, median_s, tail_s in both},
        "lost_to_s": found.lost_to_s,
        "groups": groups,
        "requests": found.requests,
        "not_answered": found.ends,
        "allowed": found.allowed,
        "burning": [asdict(share) for share in found.burning],
        "meanwhile": [{k: v for k, v in asdict(share).items() if k != "rate"} for share in found.meanwhile],
        "slowest": [
            {
                "request": int(row["request"]),
                "scheduled_s": float(row["scheduled_s"]),
                "outcome": Outcome(row["outcome"]).name.lower(),
                "steps": [asdict(step) for step in steps],
            }
            for row, steps in found.slowest
        ],
        "next": [command for command, _ in next_commands(found)],
    }
    result: dict[str, Any] = plain(told)
    return result


def _slow(slow: causes.Slow) -> dict[str, Any]:
    group = slow.group
    parts = zip(KIND.names, group.median_s, group.tail_s) if group else ()
    return {
        **asdict(slow.share),
        "p50_s": slow.p50_s,
        "p99_s": slow.p99_s,
        "parts": {part: {"median_s": median_s, "tail_s": tail_s} for part, median_s, tail_s in parts},
    }
