"""What tuning found, in a terminal and as JSON: today's setting, the recommended one, and what both are worth."""

import math
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from sim.alerts.tuning.knobs import Knobs, Point, duration
from sim.alerts.tuning.ledger import Campaign, kinds, mix, weights
from sim.alerts.tuning.tune import Line, Neighbour, Scored, Tuned, said_weeks
from sim.report import printing, words
from sim.results import plain
from sim.words import count

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST_LINES = 8
MOST_MISSES = 12
AGAIN = 2.0
"""From this many pages an incident on, somebody is woken more than once for one thing."""


def show(
    heading: str, campaign: Campaign, tuned: Sequence[Tuned], commands: Sequence[tuple[str, str]], file: IO[str]
) -> None:
    """Print what tuning says of every rule to *file*, and what that rests on."""
    from rich.text import Text

    top: list[RenderableType] = [Text(heading, style="bold"), Text(answer(tuned)), Text(), Text(truth(campaign))]
    if tuned:
        top.append(Text(halves(tuned[0])))
    blocks: list[printing.Block] = [("", top), ("Incidents", [_incidents(campaign)])]
    blocks += [(one.ledger.knobs.rule.name, _rule(one)) for one in tuned]
    silent = [Text(f"{rule.name}: {why}") for rule, why in campaign.silent]
    printing.show([*blocks, ("Not tuned", silent)], commands, file)


def answer(tuned: Sequence[Tuned]) -> str:
    """Return in one sentence for how many rules there is something better than today's setting."""
    if not any(one.held_out for one in tuned):
        return f"Nothing is recommended: {tuned[0].why}."
    chosen = [one for one in tuned if one.recommended is not None]
    better = sum(one.recommended.index != one.today.index for one in chosen if one.recommended is not None)
    said = [f"{better} of {count(len(tuned), 'rule')} could do better than today"]
    if kept := len(chosen) - better:
        said.append(f"{kept} could not")
    if left := len(tuned) - len(chosen):
        said.append(f"for {left} nothing is recommended")
    return "; ".join(said) + "."


def truth(campaign: Campaign) -> str:
    """Return where the incidents come from, and how long was watched."""
    said = "; ".join(dict.fromkeys(one.said for _, one in campaign.truths))
    watched = f"{count(len(campaign.truths), 'past')}, {said_weeks(campaign.weeks)}"
    return f"Truth: {said}: {count(len(campaign.incidents), 'incident')} in {watched}."


def halves(one: Tuned) -> str:
    """Return which weeks choose and which check."""
    if not one.held_out:
        return "No holdout: what the weeks below promise, other weeks need not keep."
    chosen, checked = one.ledger.weeks[one.chooses].sum(), one.ledger.weeks[~one.chooses].sum()
    return f"Settings are chosen on {said_weeks(chosen)} and checked on the other {said_weeks(checked)}, dealt in turn."


def setting(turned: Knobs, point: Point) -> str:
    """Return a setting as it is said: ``> 0.01 over 5m for 10m``."""
    window = f" over {duration(point.window_ms)}" if turned.ranges else ""
    return f"{turned.sign} {point.threshold:.6g}{window} for {duration(point.for_ms)}"


def cautions(one: Tuned) -> list[str]:
    """Return what to know before the recommended setting is used."""
    if one.recommended is None:
        said = [f"Nothing is recommended: {one.why}."]
        if one.quiet is not None:
            point, found = setting(one.ledger.knobs, one.quiet.inside.point), one.quiet.inside
            said.append(
                f"Of those, {point} finds most: {found.caught} of {found.incidents}, today's {one.today.inside.caught}."
            )
        return said
    said, inside, outside = [], one.recommended.inside, one.recommended.outside
    if one.recommended.index == one.today.index:
        said.append("Today's setting is the best of those tried.")
    if outside is not None and outside.false_per_week > one.most:
        said.append(
            f"It does not hold on the other weeks: {_rate(outside.false_per_week)} false pages a week there, "
            f"more than {one.most:g}."
        )
    if outside is not None and one.today.outside is not None and outside.caught < one.today.outside.caught:
        said.append(f"On the other weeks it finds {outside.caught} incidents, today's {one.today.outside.caught}.")
    true = inside.pages - inside.false
    if inside.caught and true >= AGAIN * inside.caught:
        said.append(
            f"It pages {true} times for {count(inside.caught, 'incident')}: `keep_firing_for` would make that fewer."
        )
    return said


def sensitivity(one: Tuned) -> list[str]:
    """Return which settings beside the recommended one could still be chosen, and which could not, and why."""
    fine = [near.different for near in one.neighbours if near.feasible]
    broken = [f"{near.different} ({_broken(one, near)})" for near in one.neighbours if not near.feasible]
    said = [f"Nearby, still good: {'; '.join(fine)}."] if fine else []
    return said + ([f"Nearby, no longer good: {'; '.join(broken)}."] if broken else [])


def _broken(one: Tuned, near: Neighbour) -> str:
    if near.scored.false_per_week > one.most:
        return f"{_rate(near.scored.false_per_week)} false a week"
    return f"finds {near.scored.caught} of {near.scored.incidents}"


def _rule(one: Tuned) -> "list[RenderableType]":
    from rich.text import Text

    rule = one.ledger.knobs.rule
    tried = f"{len(one.ledger.grid):,} settings tried"
    if one.never or one.always:
        tried += f"; {one.never:,} never fire, {one.always:,} always do"
    lines = [f"{rule.where}. {tried}."]
    after = cautions(one) + _beaten(one) + sensitivity(one) + _missed(one)
    return [Text(lines[0], style="dim"), _table(one), *(Text(line) for line in after)]


def _beaten(one: Tuned) -> list[str]:
    if one.dominated_by is None:
        return ["Today's setting is beaten by none."]
    said = f"Today's setting is beaten on both axes by {one.dominators:,}, such as "
    said += setting(one.ledger.knobs, one.dominated_by.inside.point)
    out, today = one.dominated_by.outside, one.today.outside
    if out is None or today is None:
        return [said + "."]
    holds = (
        out.detection_s <= today.detection_s
        and out.false_per_week <= today.false_per_week
        and out.recall >= today.recall
    )
    return [said + (", on the other weeks too." if holds else ", but not on the other weeks.")]


def _missed(one: Tuned) -> list[str]:
    lines = [("Today's", one.today.index)]
    if one.recommended is not None and one.recommended.index != one.today.index:
        lines.append(("The recommended", one.recommended.index))
    return [f"{whose} setting misses {_ids(one.ledger.missed(index))}." for whose, index in lines]


def _ids(missed: Sequence[tuple[str, Any]]) -> str:
    several = len({past for past, _ in missed}) > 1
    names = [f"{incident.id} ({past})" if several else incident.id for past, incident in missed]
    more = f" and {len(names) - MOST_MISSES} more (--json lists all)" if len(names) > MOST_MISSES else ""
    return ", ".join(names[:MOST_MISSES]) + more if names else "none"


def _table(one: Tuned) -> "RenderableType":
    """Return the settings; where other weeks check what was chosen, each with a line for either, under its name."""
    made: list[list[str]] = []
    looks: dict[int, str] = {}
    rows = [("today", one.today)]
    rows += [(name, line) for name, line in (("recommended", one.recommended), ("quiet", one.quiet)) if line]
    rest = [line for line in one.front if line.index not in {row.index for _, row in rows}]
    for name, line in rows + [("", line) for line in rest[:MOST_LINES]]:
        called = f"{name}: " * bool(name) + setting(one.ledger.knobs, line.inside.point)
        if line.outside is None:
            some = [[called, *_cells(line.inside)]]
        else:
            some = [[called, *[""] * 4], ["- weeks that choose", *_cells(line.inside)],
                    ["- weeks that check", *_cells(line.outside)]]  # fmt: skip
        looks |= {len(made) + k: "" if name else "dim" for k in range(len(some))}
        made += some
    return printing.table(("setting", "found", "after, min", "false pages", "a week"), made, looks=looks)


def _cells(one: Scored) -> tuple[str, ...]:
    minutes, rate = _minutes(one.detection_s), _rate(one.false_per_week)
    if one.detection_interval is not None:
        minutes += f" [{_minutes(one.detection_interval[0])}, {_minutes(one.detection_interval[1])}]"
    if one.false_at_most is not None:
        rate = f"at most {_rate(one.false_at_most)}"
    elif one.false_interval is not None:
        rate += f" [{', '.join(map(_rate, one.false_interval))}]"
    return f"{one.caught} of {one.incidents}", minutes, f"{one.false} of {one.pages}", rate


def _rate(per_week: float) -> str:
    return f"{per_week:,.0f}" if per_week >= 10 else f"{per_week:.2g}"


def _minutes(seconds: float) -> str:
    if math.isnan(seconds):
        return "–"
    return "never" if math.isinf(seconds) else f"{seconds / 60:.1f}".removesuffix(".0")


def _incidents(campaign: Campaign) -> "RenderableType":
    """Return the mix that everything rests on, and the user's own beside it."""
    own = campaign.tuning.mix
    rows = []
    found = [one for _, one in campaign.incidents]
    weight = weights(found, campaign.weeks, campaign.tuning)
    for name, seen in mix(found).items():
        counted = [w for w, one in zip(weight, found) if name in kinds(one)]
        mine = (words.number(sum(counted) / campaign.weeks),) if own else ()
        rows.append([name, f"{seen:,}", words.number(seen / campaign.weeks), *mine])
    return printing.table(("incidents", "seen", "a week", *(("in your mix, a week",) if own else ())), rows)


def as_json(campaign: Campaign, tuned: Sequence[Tuned]) -> Any:
    """Return everything for programs: times in seconds, null for never."""
    found = [one for _, one in campaign.incidents]
    return plain(
        {
            "truth": list(dict.fromkeys(one.said for _, one in campaign.truths)),
            "pasts": [name for name, _ in campaign.truths],
            "weeks": campaign.weeks,
            "incidents": mix(found),
            "your_mix_per_week": campaign.tuning.mix or None,
            "page_true_before_and_after_s": [ms / 1000 for ms in campaign.window_ms],
            "rules": [_rule_json(one) for one in tuned],
            "not_tuned": [
                {"rule": rule.name, "file": rule.file, "line": rule.line, "reason": why}
                for rule, why in campaign.silent
            ],
        }
    )


def _rule_json(one: Tuned) -> dict[str, Any]:
    rule, grid = one.ledger.knobs.rule, one.ledger.grid
    return {
        "rule": rule.name,
        "file": rule.file,
        "line": rule.line,
        "tried": {
            "thresholds": grid.thresholds,
            "windows_s": [ms / 1000 for ms in grid.windows_ms],
            "fors_s": [ms / 1000 for ms in grid.fors_ms],
            "settings": len(grid),
            "never_fire": one.never,
            "always_fire": one.always,
        },
        "max_false_pages_per_week": one.most,
        "weeks_that_choose": one.ledger.weeks[one.chooses].tolist(),
        "weeks_that_check": one.ledger.weeks[~one.chooses].tolist(),
        "today": _line_json(one, one.today),
        "recommended": None if one.recommended is None else _line_json(one, one.recommended),
        "said": cautions(one),
        "quiet": None if one.quiet is None else _line_json(one, one.quiet),
        "front": [_line_json(one, line) for line in one.front],
        "today_beaten_by": one.dominators,
        "such_as": None if one.dominated_by is None else _line_json(one, one.dominated_by),
        "nearby": [
            {"different": near.different, "still_good": near.feasible, **_scored_json(near.scored)}
            for near in one.neighbours
        ],
    }


def _line_json(one: Tuned, line: Line) -> dict[str, Any]:
    return {
        "expr": one.ledger.knobs.text(line.inside.point),
        "chosen_on": _scored_json(line.inside),
        "checked_on": None if line.outside is None else _scored_json(line.outside),
        "missed": [{"past": past, "incident": incident.id} for past, incident in one.ledger.missed(line.index)],
    }


def _scored_json(one: Scored) -> dict[str, Any]:
    """Return a score with its setting in seconds; the rest is called as in `Scored`."""
    rest = {name: value for name, value in vars(one).items() if name != "point"}
    point = one.point
    return {
        "threshold": point.threshold,
        "window_s": point.window_ms / 1000,
        "for_s": point.for_ms / 1000,
        **rest,
        "false_at_most": one.false_at_most,
    }
