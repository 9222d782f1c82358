"""How wrong answers were contained: breakers, gates and the people behind them, releases. One figure each."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.report import style, words
from sim.report.bars import ROW, lying
from sim.report.distribution import colours
from sim.report.view import Estimate, Point, View
from sim.scenario.containment import Gate, QualityBreaker, Release, Team
from sim.scenario.control import Control

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 8
OPEN, BLUE, RED, YELLOW = "#bb5566", *style.SERIES[:3]


def _rules(view: View, kind: type[Control]) -> list[Any]:
    return [one for one in view.scenario.control if isinstance(one, kind)] if view.scenario else []


def _named(points: list[Point], name: str, text: str) -> list[tuple[str, Estimate]]:
    """Return what metric *name* is at each point, called by *text* and the point."""
    return [(f"{text}{', ' * bool(text and p.label)}{p.label}", p.metric(name)) for p in points]


# --- breakers on quality --------------------------------------------------------------------------------------------


def breakers(view: View) -> style.Plate | None:
    """Return when breakers on quality were open, and what their users were told; None without any."""
    rules = _rules(view, QualityBreaker)
    points = [p for p in view.points if p.members][:1]
    if not rules or not points:
        return None
    pools = [one.quality_breaker for one in rules]
    flips = {pool: points[0].metric(f"breaker.{pool}.flips").value for pool in pools}
    most = max(pools, key=lambda pool: flips[pool])
    wrong = dict(_by_pool(view, points[0]))
    best = min(wrong, key=lambda name: wrong[name].value)
    title = (
        f"{most} changes sides {words.number(flips[most])} times; the fewest wrong answers reach the users of {best}, "
        f"{words.percent(wrong[best].value)}"
    )
    caption = (
        "Left: when the breaker of each pool was open, in one seed; while it is, somebody else answers, but for the "
        "share that probes. Beside it how often it changed sides, and which share of the time it was open, over "
        "seeds. Right: wrong answers of those that users of each pool got."
    )
    return style.Plate("breakers", "Breakers", title, caption, partial(_breakers, view, points[0], pools, title))


def _by_pool(view: View, point: Point) -> list[tuple[str, Estimate]]:
    """Return the wrong share of each cohort, called by its pool where that is its own."""
    return [(name, point.metric(f"cohort.{name}.wrong_share")) for name in view.scenario.workload.cohorts]


def _breakers(view: View, point: Point, pools: list[str], title: str) -> "Figure":
    wrong = _by_pool(view, point)
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(max(1.7, 0.42 * max(len(pools), len(wrong))),), widths=(1.5, 1),
        sharex=False, sharey=False, gap=(1.0, 0.2), side=1.1, head=0.36, right=0.3,
    )  # fmt: skip
    left, right = axes[0]
    unit_s, unit_name, ticks = style.time_scale(view.duration_s)
    events = point.members[0].events()
    for y, pool in zip(range(len(pools))[::-1], pools, strict=False):
        for start_s, end_s in _open(events, pool, view.duration_s):
            left.barh(y, (end_s - start_s) / unit_s, left=start_s / unit_s, height=0.3, color=OPEN, lw=0, zorder=2)
        share, flips = (point.metric(f"breaker.{pool}.{what}").value for what in ("open_share", "flips"))
        text = f"{words.number(flips)} changes, open {words.percent(share)} of the time"
        left.text(0, y + 0.22, text, size=8, va="bottom", color=style.INK)
    left.set_yticks(range(len(pools))[::-1], pools)
    left.set_ylim(-0.5, len(pools) - 0.3)
    left.grid(axis="y", visible=False)
    left.set_xlim(0, view.duration_s / unit_s)
    left.set_xticks(ticks)
    left.set_xlabel(unit_name)
    left.set_title(f"Open (seed {point.members[0].seed})", size=10, weight="bold", loc="left", pad=8)
    names, found = zip(*wrong, strict=True)
    lying(right, names, found, [BLUE if name in pools else style.QUIET for name in names], words.percent)
    right.set_title("Wrong, of the answers users got", size=10, weight="bold", loc="left", pad=8)
    return figure


def _open(events: list[dict[str, Any]], pool: str, end_s: float) -> list[tuple[float, float]]:
    """Return when the breaker of *pool* was open, in seconds."""
    found, since = [], None
    for event in events:
        if event.get("target") != pool:
            continue
        if event["event"] == "quality_breaker_opens" and since is None:
            since = event["t_s"]
        elif event["event"] == "quality_breaker_closes" and since is not None:
            found.append((since, event["t_s"]))
            since = None
    return found + ([(since, max(end_s, since))] if since is not None else [])


# --- gates ----------------------------------------------------------------------------------------------------------


def gates(view: View) -> style.Plate | None:
    """Return what gates held back and what of the errors they caught, side by side; None of fewer than two."""
    rules = _rules(view, Gate)
    points = [p for p in view.some_points(MOST_POINTS) if p.members]
    if len(rules) < 2 or not points:
        return None
    caught = {(g.to, p.label): p.metric(f"team.{g.to}.caught_share").value for g in rules for p in points}
    if not np.isfinite(list(caught.values())).any():
        return None
    (good, where), (bad, there) = (choose(caught, key=lambda key: caught[key]) for choose in (max, min))
    title = (
        f"{good} catches {words.percent(caught[good, where])} of the errors {words.place(where) if where else ''}, "
        f"{bad} {words.percent(caught[bad, there])} {words.place(there) if there else ''}"
    )
    caption = "Of the wrong answers of a pool, the share that its gate and the people behind it caught (left), and the "
    caption += "share of all answers that it held back for that (right)."
    return style.Plate("gates", "Gates", title.strip(), caption, partial(_gates, view, points, rules, title))


def _gates(view: View, points: list[Point], rules: list[Any], title: str) -> "Figure":
    rows = len(rules) * len(points)
    names = [f"{g.to}: {p.label}" if p.label else g.to for g in rules for p in points]
    tints = [style.SERIES[k % len(style.SERIES)] for k in range(len(rules)) for _ in points]
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(max(1.2, ROW * rows),), widths=(1, 1), sharex=False,
        sharey=True, gap=(0.4, 0.2), side=0.5 + 0.066 * max(map(len, names)), head=0.36, right=0.2,
    )  # fmt: skip
    for ax, metric, text in zip(
        axes[0],
        ("caught_share", "escalated_share"),
        ("Of the errors, caught", "Of the answers, held back"),
        strict=True,
    ):
        found = [p.metric(f"team.{g.to}.{metric}") for g in rules for p in points]
        lying(ax, names, found, tints, words.percent)
        ax.set_title(text, size=10, weight="bold", loc="left", pad=8)
    return figure


# --- the people behind them -----------------------------------------------------------------------------------------


def reviewers(view: View) -> style.Plate | None:
    """Return the queue before a team, who was never looked at, and what users got; None where nobody leaves it."""
    teams = [one for one in _rules(view, Team) if one.patience is not None]
    points = [p for p in view.some_points(4) if p.members]
    if not teams or not points:
        return None
    name = teams[0].team
    worst = max(points, key=lambda p: p.metric(f"team.{name}.late_share").value)
    late, left = (worst.metric(f"team.{name}.{what}").value for what in ("late_share", "delivered_share"))
    title = words.at(
        worst.label,
        f"{words.percent(late)} of what waits for {name} is never looked at, and {words.percent(left)} of all answers "
        "that users get are wrong",
    )
    caption = (
        "Left: answers that wait for a reviewer, in one seed. Right: of those that came to the team, the share whose "
        "patience ended first; and wrong answers that users got, of all that passed or were held by the gate."
    )
    return style.Plate("reviewers", "Reviewers", title, caption, partial(_reviewers, view, points, name, title))


def _reviewers(view: View, points: list[Point], name: str, title: str) -> "Figure":
    from matplotlib.patches import Patch

    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(0.5 + ROW * len(points),) * 2, widths=(1.25, 1), sharex=False,
        sharey=False, gap=(2.0, 0.62), head=0.56, right=0.3,
    )  # fmt: skip
    grid = axes[0, 0].get_gridspec()
    for ax in axes[:, 0]:
        ax.remove()
    queue = figure.add_subplot(grid[:, 0])
    _queues(queue, view, points, name)
    if points[0].label:
        style.legend(figure, [Patch(color=c, label=p.label) for c, p in zip(colours(points), points, strict=True)])
    names = [p.label or name for p in points]
    for ax, metric, text in zip(
        axes[:, 1], ("late_share", "delivered_share"), ("Never looked at, of what waited", "Wrong, of what users got"),
        strict=True,
    ):  # fmt: skip
        lying(ax, names, [p.metric(f"team.{name}.{metric}") for p in points], colours(points), words.percent)
        ax.set_title(text, size=10, weight="bold", loc="left", pad=8)
    return figure


def _queues(ax: "Axes", view: View, points: list[Point], name: str) -> None:
    """Draw the queue of one seed at each point, where it was scraped; else its mean, as a line across."""
    unit_s, unit_name, ticks = style.time_scale(view.duration_s)
    for point, colour in zip(points, colours(points), strict=True):
        drawn = False
        if view.scenario.telemetry is not None:
            series = point.members[0].metrics({"review_queue_length"})
            for labels, t_ms, values in zip(series.labels, series.t_ms, series.values, strict=True):
                if name in labels.values():
                    style.held(ax, t_ms / 1000 / unit_s, values, color=colour, label=point.label, lw=1)
                    drawn = True
        if not drawn:
            ax.axhline(point.metric(f"team.{name}.queue_mean").value, color=colour, label=point.label)
    style.from_zero([ax])
    ax.set_xlim(0, view.duration_s / unit_s)
    ax.set_xticks(ticks)
    ax.set_xlabel(unit_name)
    ax.set_title(
        f"Waiting for a reviewer (seed {points[0].members[0].seed})", size=10, weight="bold", loc="left", pad=8
    )


# --- releases -------------------------------------------------------------------------------------------------------


def releases(view: View) -> style.Plate | None:
    """Return what each way of releasing a version cost users, and when it was noticed; None without a release."""
    rules = _rules(view, Release)
    points = [p for p in view.some_points(MOST_POINTS) if p.members]
    if not rules or not points:
        return None
    name = rules[0].release
    wrong = [p.metric(f"version.{name}.wrong") for p in points]
    ordered = sorted(zip(points, wrong, strict=True), key=lambda pair: pair[1].value)
    (least, few), (most, many) = ordered[0], ordered[-1]
    title = (
        f"{words.number(many.value)} wrong answers of {name} reach users {_where(most)}, "
        f"{words.number(few.value)} {_where(least)}"
    )
    caption = (
        f"Left: wrong answers of version {name} that users got until it was taken back, on a logarithmic scale. Right: "
        "time from the beginning of the release until it was noticed."
    )
    return style.Plate("releases", "Releases", title, caption, partial(_releases, view, points, rules[0], title))


def _where(point: Point) -> str:
    return words.place(point.label) if point.label else ""


def _releases(view: View, points: list[Point], rule: Any, title: str) -> "Figure":
    names = [p.label or rule.release for p in points]
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(max(1.2, ROW * len(points)),), widths=(1.3, 1), sharex=False,
        sharey=True, gap=(0.4, 0.2), side=0.5 + 0.066 * max(map(len, names)), head=0.36, right=0.2,
    )  # fmt: skip
    left, right = axes[0]
    tints = [RED if p.metric(f"version.{rule.release}.wrong").value > 0 else BLUE for p in points]
    wrong = [p.metric(f"version.{rule.release}.wrong") for p in points]
    lying(left, names, wrong, tints, lambda x: words.number(round(x, 1)), log=True)
    left.set_title("Wrong answers that users got", size=10, weight="bold", loc="left", pad=8)
    lying(right, names, [_since(p, rule) for p in points], [YELLOW] * len(points), lambda x: f"{x:.0f} min")
    right.set_title("Noticed after", size=10, weight="bold", loc="left", pad=8)
    right.set_xlabel("minutes since the release began")
    return figure


def _since(point: Point, rule: Any) -> Estimate:
    """Return the minutes from the beginning of the release until it was noticed."""
    found = point.metric(f"release.{rule.release}.noticed_s")
    value, low, high = ((x - rule.from_) / 60 for x in (found.value, found.low, found.high))
    return Estimate(value, low, high, ())
