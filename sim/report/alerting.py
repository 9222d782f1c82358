"""What became of alert rules: a table in a terminal, JSON, and a timeline of when each was pending and firing."""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from sim.alerts.promql.vectors import drop
from sim.alerts.rules import Judgement, Verdict
from sim.alerts.states import Episode
from sim.alerts.truth import Truth
from sim.report import happened, printing, style, words
from sim.words import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

MOST_EPISODES = 30
EPOCH_MS = 1_000_000_000_000
"""Later times are of a calendar; earlier ones are since the start of a run."""
PENDING, FIRING = "#ddaa33", "#bb5566"
SUFFERED, TICKET = "#f3d9a4", "#f7ecd2"
BROKEN: Any = {"facecolor": "white", "edgecolor": style.QUIET, "hatch": "////", "linewidth": 0.6}
"""How the times of faults look: no colour, for what users met is what counts."""


def show(heading: str, judged: Sequence[Judgement], commands: Sequence[tuple[str, str]], file: IO[str]) -> None:
    """Print what became of every rule to *file*, and when its alerts were active."""
    from rich.text import Text

    top: list[RenderableType] = [Text(heading, style="bold"), Text(answer(judged)), Text(), _rules(judged)]
    active = [(one, episode) for one in judged for episode in one.episodes]
    active.sort(key=lambda pair: (pair[1].firing_ms is None, pair[1].pending_ms))
    shown: list[RenderableType] = [_episodes(active[:MOST_EPISODES])] if active else []
    if len(active) > MOST_EPISODES:
        shown.append(Text(f"and {count(len(active) - MOST_EPISODES, 'more episode')}: --json lists all"))
    printing.show([("", top), ("When", shown)], commands, file or sys.stdout)


def answer(judged: Sequence[Judgement]) -> str:
    """Return in one sentence how many alerts fired and how many could not be judged."""
    alerts = [one for one in judged if not one.rule.records]
    fine = [one for one in alerts if one.verdict == Verdict.JUDGED]
    fired = [one for one in fine if one.fired]
    said = f"{len(fired)} of {count(len(fine), 'judged alert')} fired"
    if fired:
        first = min(fired, key=lambda one: one.fired[0].firing_ms or 0)
        said += f", the first at {moment(first.fired[0].firing_ms)}: {first.rule.name}"
    silent = len(judged) - sum(one.verdict == Verdict.JUDGED for one in judged)
    return said + (f". {count(silent, 'rule')} could not be judged: silent, not quiet." if silent else ".")


def moment(t_ms: int | None) -> str:
    """Return a time: hours, minutes and seconds since the start of the run, or of the calendar (UTC)."""
    if t_ms is None:
        return "–"
    if t_ms < EPOCH_MS:
        minutes, ms = divmod(t_ms, 60_000)
        return f"{minutes // 60}:{minutes % 60:02}:{ms / 1000:0{6 if ms % 1000 else 2}.{3 if ms % 1000 else 0}f}"
    return datetime.fromtimestamp(t_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def firing_ms(one: Judgement) -> int:
    """Return for how long any alert of a rule was firing, each by itself, up to its last evaluation."""
    last = int(one.t_ms[-1]) if len(one.t_ms) else 0
    return sum((last if e.ended_ms is None else e.ended_ms) - (e.firing_ms or 0) for e in one.fired)


def as_json(judged: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Return everything for programs; times are milliseconds as in the series, null what has not happened."""
    return [
        {
            "rule": one.rule.name,
            "kind": "record" if one.rule.records else "alert",
            "group": one.rule.group,
            "file": one.rule.file,
            "line": one.rule.line,
            "verdict": str(one.verdict),
            "reason": one.reason,
            "series_matched": one.matched,
            "interval_ms": one.interval_ms,
            "evaluations": len(one.t_ms),
            "evaluations_failed": one.failed,
            "episodes": [
                {
                    "labels": dict(e.labels),
                    "pending_ms": e.pending_ms,
                    "firing_ms": e.firing_ms,
                    "ended_ms": e.ended_ms,
                }
                for e in one.episodes
            ],
        }
        for one in judged
    ]


def _rules(judged: Sequence[Judgement]) -> "RenderableType":
    from rich.text import Text

    rows: list[list[printing.Cell]] = []
    for one in judged:
        fine = one.verdict == Verdict.JUDGED
        lasted = words.seconds(firing_ms(one) / 1000) if one.fired else "–"
        counts = (str(len(one.episodes)), str(len(one.fired)), lasted) if fine and not one.rule.records else ("",) * 3
        look = "" if fine else "yellow"
        why = one.reason
        if one.failed:
            why = f"{count(one.failed, 'evaluation')} of {len(one.t_ms)} failed: {why}"
        rows.append([one.rule.name, Text(one.verdict, style=look), str(one.matched), *counts, Text(why, style="dim")])
    head = ("rule", "verdict", "series", "pending", "fired", "firing for", "")
    return printing.table(head, rows, texts=(1, 6))


def _episodes(active: Sequence[tuple[Judgement, Episode]]) -> "RenderableType":
    rows = []
    for one, episode in active:
        over = "still on" if episode.ended_ms is None else moment(episode.ended_ms)
        labels = ", ".join(f"{k}={v}" for k, v in drop(episode.labels, ("alertname", *one.rule.labels)))
        rows.append([one.rule.name, moment(episode.pending_ms), moment(episode.firing_ms), over, labels])
    return printing.table(("alert", "pending", "firing", "over", "labels"), rows, texts=(4,))


def plate(
    heading: str,
    judged: Sequence[Judgement],
    truth: Truth | None = None,
    faults: Sequence[tuple[float, float]] = (),
) -> style.Plate:
    """Return the timeline: one line an alert rule, amber while pending, red while firing.

    Behind them the incidents of *truth*, where it is known; above them when *faults* were on (start and end, s).
    """
    alerts = [one for one in judged if not one.rule.records]
    met = "Nobody counted what users met, so no incidents are shown."
    if truth is not None:
        met = f"Incidents are what users met against {truth.said}: {count(len(truth.incidents), 'incident')}."
    caption = (
        f"{heading}. Any of a rule's alerts counts. {met} Rules were evaluated as Prometheus 2.42 does, all groups at "
        "round times; a real server is up to one interval later."
    )
    draw = partial(_draw, alerts, answer(judged), caption, truth, happened.merged(faults))
    return style.Plate("alerts", "Alerts", answer(judged), caption, draw)


def shade_incidents(ax: "Axes", truth: Truth, first_ms: float, at: Callable[[float], float]) -> None:
    """Shade the incidents of *truth*, those worth a page darker, and the warm-up from *first_ms* on.

    *at* places a time in milliseconds on the axis.
    """
    if truth.from_ms > first_ms:
        ax.axvspan(at(first_ms), at(truth.from_ms), color=style.SHADE, linewidth=0, zorder=0)
    for one in truth.incidents:
        colour = SUFFERED if one.severity == "page" else TICKET
        ax.axvspan(at(one.start_ms), at(one.end_ms), color=colour, linewidth=0, zorder=0)


def _draw(
    alerts: Sequence[Judgement], title: str, caption: str, truth: Truth | None, faults: list[tuple[float, float]]
) -> "Figure":
    top = 1 if faults else 0
    handles = _handles(truth, bool(faults))
    rows = style.legend_rows([str(handle.get_label()) for handle in handles])
    figure, axes = style.sheet(title, "", caption, [max(0.6, 0.3 * (len(alerts) + top))], side=2.6,
                               head=0.15 + rows * style.LEGEND_ROW)  # fmt: skip
    ax: Axes = axes[0, 0]
    times = [t for one in alerts for t in (one.t_ms[:1].tolist() + one.t_ms[-1:].tolist())] or [0]
    first, last = min(times), max(times)
    start = first if first >= EPOCH_MS else 0
    unit_s, name, ticks = style.time_scale(max((last - start) / 1000, 1.0))
    if truth is not None:
        shade_incidents(ax, truth, first, lambda t_ms: (t_ms - start) / 1000 / unit_s)
    if faults:
        ax.broken_barh([(a / unit_s, (b - a) / unit_s) for a, b in faults], (-1.3, 0.6), **BROKEN)
    for row, one in enumerate(alerts):
        if one.verdict != Verdict.JUDGED:
            ax.text(0.01, row, str(one.verdict), transform=ax.get_yaxis_transform(), va="center", color=style.QUIET)
        for colour, spans in ((PENDING, _spans(one, False, last)), (FIRING, _spans(one, True, last))):
            bars = [((a - start) / 1000 / unit_s, (b - a) / 1000 / unit_s) for a, b in spans]
            ax.broken_barh(bars, (row - 0.36, 0.72), facecolors=colour, linewidth=0)
    ax.set_yticks(range(-top, len(alerts)), ["faults"] * top + [one.rule.name for one in alerts])
    ax.set_ylim(len(alerts) - 0.4, -0.6 - top)
    ax.set_xlim((first - start) / 1000 / unit_s, max((last - start) / 1000, 1.0) / unit_s)
    ax.set_xticks(ticks)
    ax.set_xlabel(name if start == 0 else f"{name.partition(' ')[0]} since {moment(start)} UTC")
    ax.grid(axis="y", visible=False)
    style.legend(figure, handles)
    return figure


def _handles(truth: Truth | None, broken: bool) -> list[Any]:
    """Return what the legend explains: only what there is."""
    from matplotlib.patches import Patch

    said = [(PENDING, "pending: true, not yet for long enough"), (FIRING, "firing")]
    severities = {one.severity for one in truth.incidents} if truth is not None else set()
    if "page" in severities:
        said.append((SUFFERED, "incident: users met less than was promised"))
    if "ticket" in severities:
        said.append((TICKET, "incident, too small for a page"))
    if truth is not None and truth.from_ms > 0:
        said.append((style.SHADE, "warm-up, not counted"))
    handles = [Patch(color=colour, lw=0, label=label) for colour, label in said]
    return handles + [Patch(label="fault: something was broken", **BROKEN)] * broken


def _spans(one: Judgement, firing: bool, last_ms: int) -> list[tuple[int, int]]:
    """Return from when to when alerts of a rule were firing, or else pending."""
    found = []
    for episode in one.episodes:
        end = last_ms if episode.ended_ms is None else episode.ended_ms
        fired = end if episode.firing_ms is None else episode.firing_ms
        span = (fired, end) if firing else (episode.pending_ms, fired)
        if span[0] < span[1] or (firing and episode.firing_ms is not None):
            found.append(span)
    return found
