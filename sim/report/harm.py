"""In what pattern answers are wrong: with latency, by pool, along the steps of a task, and who noticed when."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.quality.chains import verified
from sim.quality.sampling import equal, for_detection, neyman, proportional
from sim.records import Outcome
from sim.report import style, words
from sim.report.bars import ROW, lying
from sim.report.distribution import colours
from sim.report.view import Estimate, Point, View
from sim.scenario.faults import Misroute
from sim.theory.chance import beta_compound
from sim.theory.counted import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 3
BINS = 8
FEWEST = 25
"""Answers that a bin needs to be drawn."""
COLUMNS = ("scheduled_s", "first_token_s", "outcome", "wrong", "cohort")


# --- slow and wrong -------------------------------------------------------------------------------------------------


def coupling(view: View) -> style.Plate | None:
    """Return wrong answers against the time to the first token, of all and by cohort; None without rows of both."""
    points = [p for p in view.some_points(MOST_POINTS) if p.members]
    cohorts = list(view.scenario.workload.cohorts) if view.scenario else []
    if (
        len(cohorts) < 2
        or not points
        or view.scenario.quality is None
        or not any(c.above for c in view.scenario.quality.causes.values())
    ):
        return None
    if not all((p.members[0].path / "attempts.parquet").exists() for p in points):
        return None
    said = [
        f"{_plain(p.metric('wrong_ttft_correlation'))} over all answers and "
        f"{_plain(p.metric('wrong_ttft_partial'))} within cohorts{' ' + words.place(p.label) if p.label else ''}"
        for p in points
    ]
    title = f"Slow and wrong correlate: {'; '.join(said)}"
    caption = (
        "Wrong answers of those delivered, against the time to the first token, in eight equal "
        "factors of it: of everybody and of each cohort, with 95% intervals (Wilson). A line of all that rises while "
        "those of the cohorts are flat is who asks, not how slow it is."
    )
    return style.Plate("slow-and-wrong", "Slow and wrong", title, caption, partial(_coupling, view, points, title))


def _plain(found: Estimate) -> str:
    return f"{found.value:.2f}".replace("-0.00", "0.00")


def _coupling(view: View, points: list[Point], title: str) -> "Figure":
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(2.5,), widths=(1,) * len(points), sharex=True, sharey=True,
        head=0.56,
    )  # fmt: skip
    names = list(view.scenario.workload.cohorts)
    for ax, point in zip(axes[0], points, strict=True):
        tables = [member.attempts(list(COLUMNS)) for member in point.members]
        found = {name: np.concatenate([one[name].to_numpy() for one in tables]) for name in COLUMNS}
        ok = found["outcome"] == Outcome.OK
        ttft_s, wrong, cohort = (
            (found["first_token_s"] - found["scheduled_s"])[ok],
            found["wrong"][ok],
            found["cohort"][ok],
        )
        for k, (name, colour) in enumerate(zip(["everybody", *names], [style.INK, *style.SERIES], strict=False)):
            mine = np.ones(len(cohort), bool) if k == 0 else cohort == k - 1
            _against(ax, ttft_s[mine], wrong[mine], name, colour)
        ax.set_xscale("log")
        style.log_seconds(ax.xaxis)
        ax.set_xlabel("time to first token")
        ax.set_title(point.label, size=10, weight="bold", loc="left", pad=8)
    style.percent_axis(axes[0, 0].yaxis)
    style.from_zero(list(axes[0]))
    axes[0, 0].set_ylabel("wrong answers")
    style.legend(figure, axes[0, 0].get_legend_handles_labels()[0])
    return figure


def _against(ax: "Axes", x: np.ndarray, wrong: np.ndarray, name: str, colour: str) -> None:
    edges = np.geomspace(np.quantile(x, 0.005), np.quantile(x, 0.999), BINS + 1)[1:-1] if len(x) else np.zeros(0)
    places = np.searchsorted(edges, x)
    groups = [group for k in range(BINS) if len(group := np.flatnonzero(places == k)) >= FEWEST]
    if not groups:
        return
    middle = np.array([np.median(x[group]) for group in groups])
    share = np.array([wilson(int(wrong[group].sum()), len(group)) for group in groups])
    ax.errorbar(middle, share[:, 0], yerr=[share[:, 0] - share[:, 1], share[:, 2] - share[:, 0]], fmt="o-", ms=3.5,
                color=colour, lw=1.4, elinewidth=0.8, label=name)  # fmt: skip


# --- misrouted ------------------------------------------------------------------------------------------------------


def misrouted(view: View) -> style.Plate | None:
    """Return whom wrong servers met, and where it can be seen; None where nothing is misrouted."""
    faults = [f for f in view.scenario.faults if isinstance(f, Misroute)] if view.scenario else []
    points = [p for p in view.some_points(4) if p.members and np.isfinite(p.metric("wrong_share").value)]
    if not faults or not points:
        return None
    pools = list(view.scenario.fleet.pools)
    first = points[0]
    shares = {name: first.metric(f"pool.{name}.wrong_share").value for name in pools}
    worst, best = (choose(shares, key=lambda name: shares[name]) for choose in (max, min))
    title = words.at(
        first.label,
        f"{words.percent(first.metric('wrong_share').value)} of all answers are wrong, {words.percent(shares[worst])} "
        f"of those of {worst} and {words.percent(shares[best])} of those of {best}",
    )
    caption = (
        "Left: wrong answers of those delivered: of everybody, by cohort, and by the pool that answered. Right: "
        "conversations of which some request was answered by another pool than its own, and of which some answer was "
        "wrong."
    )
    return style.Plate("misrouted", "Misrouted", title, caption, partial(_misrouted, view, points, title))


def _misrouted(view: View, points: list[Point], title: str) -> "Figure":
    cohorts, pools = list(view.scenario.workload.cohorts), list(view.scenario.fleet.pools)
    asked = [("everybody", "wrong_share"), *((f"asked by {c}", f"cohort.{c}.wrong_share") for c in cohorts),
             *((f"answered by {p}", f"pool.{p}.wrong_share") for p in pools)]  # fmt: skip
    met = [("went elsewhere", "sessions_misrouted"), ("met a wrong answer", "sessions_wrong")]
    rows = len(asked) * len(points)
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(ROW * rows + 0.3,), widths=(1.15, 1), sharex=False,
        sharey=False, gap=(1.75, 0.2), side=1.75, head=0.56, right=0.25,
    )  # fmt: skip
    for ax, things, text in zip(axes[0], (asked, met), ("Wrong, of the answers", "Of the conversations"), strict=True):
        if not all(np.isfinite(points[0].metric(name).value) for _, name in things):
            ax.set_axis_off()
            continue
        names = [text if k == 0 else "" for text, _ in things for k in range(len(points))]
        tints = [colour for _ in things for colour in colours(points)]
        lying(ax, names, [p.metric(name) for _, name in things for p in points], tints, words.percent)
        ax.set_title(text, size=10, weight="bold", loc="left", pad=8)
        ax.set_ylim(len(names) - rows - 0.6, len(names) - 0.4)  # bars of both are as thick
    if points[0].label:
        from matplotlib.patches import Patch

        style.legend(figure, [Patch(color=c, label=p.label) for c, p in zip(colours(points), points, strict=True)])
    return figure


# --- tasks ----------------------------------------------------------------------------------------------------------


def tasks(view: View) -> style.Plate | None:
    """Return how many tasks came out right against their steps, beside what arithmetic says; None without agents."""
    points = [p for p in view.some_points(MOST_POINTS) if p.members]
    agents = {k: c for k, c in view.scenario.workload.cohorts.items() if c.agent} if view.scenario else {}
    agents = {
        k: c for k, c in agents.items() if points and np.isfinite(points[0].metric(f"cohort.{k}.task_success").value)
    }
    if not agents:
        return None
    most = max(agents, key=lambda name: agents[name].agent.steps)
    said = [
        f"{words.percent(p.metric(f'cohort.{most}.task_success').value)}{' ' + words.place(p.label) if p.label else ''}"
        for p in points
    ]
    formula = right_after(agents[most], agents[most].agent.steps)
    title = f"Of {most} tasks, {agents[most].agent.steps} steps each, {words.listing(said)} come out right"
    if formula is not None:
        title += f"; arithmetic says {words.percent(formula)}"
    caption = (
        "Tasks that come out right, against their steps. Lines: closed forms, if every step is answered in time and "
        "steps fail each by its own luck (or, where tasks differ, share it). Points: what was simulated, with its "
        "interval over seeds; below its line, something was not answered."
    )
    return style.Plate("tasks", "Tasks", title, caption, partial(_tasks, view, points, agents, title))


def right_after(cohort: Any, steps: int) -> float | None:
    """Return the chance that all of *steps* of a cohort's tasks are right if all are answered; None: no closed form."""
    agent = cohort.agent
    if agent.difficulty is not None:
        if agent.verifier is not None:
            return None
        return beta_compound(agent.difficulty * (1 - cohort.error), agent.difficulty * cohort.error, steps)
    if agent.verifier is None:
        return float((1 - cohort.error) ** steps)
    seen = agent.verifier
    one = verified(1 - cohort.error, seen.sensitivity, seen.false_alarm, agent.retries, agent.systematic)
    return float(one.right**steps)


def _tasks(view: View, points: list[Point], agents: dict[str, Any], title: str) -> "Figure":
    figure, axes = style.sheet(
        title, view.kv_note, view.small_print, heights=(2.7,), widths=(1,) * len(points), sharex=True, sharey=True,
        head=0.56, right=0.3,
    )  # fmt: skip
    last = max(one.agent.steps for one in agents.values())
    steps = np.arange(1, last + 1)
    tints = dict(zip(agents, style.SERIES, strict=False))
    for ax, point in zip(axes[0], points, strict=True):
        for k, (name, cohort) in enumerate(agents.items()):
            colour = tints.get(name, style.QUIET)
            if right_after(cohort, 1) is not None:
                ax.plot(steps, [right_after(cohort, int(n)) or 0.0 for n in steps], color=colour, lw=1.1)
            found = point.metric(f"cohort.{name}.task_success")
            x = cohort.agent.steps + 0.14 * (k - (len(agents) - 1) / 2)
            ax.errorbar([x], [found.value], yerr=[[found.value - found.low], [found.high - found.value]], fmt="o", ms=5,
                        color=colour, mec="white", mew=0.6, label=name, zorder=4)  # fmt: skip
        ax.set_xticks(steps)
        ax.set_xlabel("steps of a task")
        ax.set_title(point.label, size=10, weight="bold", loc="left", pad=6)
    style.percent_axis(axes[0, 0].yaxis)
    axes[0, 0].set_ylabel("tasks that come out right")
    style.legend(figure, axes[0, 0].get_legend_handles_labels()[0])
    return figure


# --- noticed --------------------------------------------------------------------------------------------------------


def allocations(scenario: Any) -> dict[str, np.ndarray]:
    """Return the shares of answers to grade, by cohort, that spend what the first point does: by allocation.

    Uniform is proportional; equal: as many of each cohort; Neyman's; and the one that notices a doubled error of any
    cohort equally soon. A cohort cannot be graded more than wholly: what is over goes to the others.
    """
    cohorts = scenario.workload.cohorts.values()
    share, error = np.array([c.share for c in cohorts]), np.array([c.error for c in cohorts])
    spent = float(share @ _graded(scenario))
    plans = {
        "uniform or proportional": proportional(share),
        "Neyman": neyman(share, error),
        "equal": equal(share),
        "for detection": for_detection(error, 2 * error),
    }
    return {name: _within(weights * spent, share) for name, weights in plans.items()}


def _graded(scenario: Any) -> np.ndarray:
    given = scenario.quality.evaluation.share
    names = scenario.workload.cohorts
    return np.array([given.get(name, 0.0) if isinstance(given, dict) else given or 0.0 for name in names])


def _within(graded: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return *graded* over *share*, at most 1 each; what is over is spread over the others as they are."""
    full = np.zeros(len(share), bool)
    while (over := ~full & (graded > share * (1 + 1e-12))).any():
        spare = float((graded - share)[over].sum())
        full |= over
        rest = np.where(full, 0.0, graded)
        graded = np.where(full, share, graded + (spare * rest / rest.sum() if rest.sum() else 0.0))
    return np.asarray(np.minimum(graded / share, 1.0))


def noticed(view: View) -> style.Plate | None:
    """Return how soon an evaluation noticed what turned worse in one cohort, by how much of it was graded; or None."""
    path = "quality.evaluation.share."
    points = [p for p in view.points if p.members and any(key.startswith(path) for key in p.values)]
    if len(points) < 2:
        return None
    key = next(key for key in points[0].values if key.startswith(path))
    name = key.removeprefix(path)
    begun = [c.from_ for c in view.scenario.quality.causes.values() if c.cohorts and name in c.cohorts]
    if not begun:
        return None
    hours = [_hours(p.metric(f"cohort.{name}.alarm_s"), begun[0]) for p in points]
    said = [
        f"{'never' if np.isnan(one.value) else f'after {one.value:.1f} h'} with {words.percent(p.values[key])}"
        for p, one in zip(points, hours, strict=True)
    ]
    rung = points[0].metric("alarmed").value > 0
    title = (
        f"{name} is noticed {words.listing(said)} of its answers graded; "
        f"the sum over everybody {'rings too' if rung else 'never rings'}"
    )
    caption = (
        f"Hours from the beginning of the trouble until the alarm of cohort {name} (a CUSUM of its own verdicts), "
        "against the share of its answers that are graded, as simulated, with the interval over seeds. Dashed: what "
        "four allocations of the grades of the first point give this cohort; none can give it more than all."
    )
    return style.Plate("noticed", "Noticed", title, caption, partial(_noticed, view, points, key, hours, title))


def _hours(found: Estimate, begun_s: float) -> Estimate:
    value, low, high = ((x - begun_s) / 3600 for x in (found.value, found.low, found.high))
    return Estimate(value, low, high, ())


def _noticed(view: View, points: list[Point], key: str, hours: list[Estimate], title: str) -> "Figure":
    figure, axes = style.sheet(title, view.kv_note, view.small_print, heights=(2.8,), head=0.2, right=0.5)
    ax = axes[0, 0]
    scenario, name = view.scenario, key.rpartition(".")[2]
    names = list(scenario.workload.cohorts)
    k = names.index(name)
    per_h = 3600 * words.to_float(scenario.workload.rate_per_s) * scenario.workload.cohorts[name].share
    x = np.array([p.values[key] for p in points])
    y = np.array([one.value for one in hours])
    low, high = (np.array([getattr(one, end) for one in hours]) for end in ("low", "high"))
    low, high = np.where(np.isfinite(low), low, y), np.where(np.isfinite(high), high, y)
    ax.errorbar(x, y, yerr=[y - low, high - y], fmt="o", ms=6, color=style.SERIES[1], zorder=4)
    for at, value in zip(x[np.isfinite(y)], y[np.isfinite(y)], strict=True):
        graded = per_h * at
        style.mark(
            ax,
            at,
            value,
            f"{graded:.0f} graded an hour: {value:.1f} h",
            style.SERIES[1],
            "right, up" if at < 0.8 else "left",
        )
    shares = allocations(scenario)
    for at in sorted({round(float(one[k]), 3) for one in shares.values()}):
        same = [text for text, one in shares.items() if round(float(one[k]), 3) == at]
        ax.axvline(at, color=style.QUIET, lw=1, ls=(0, (4, 3)), zorder=1)
        ax.text(at, 1.0, f" {words.listing(same)} ", transform=ax.get_xaxis_transform(), size=8, color=style.QUIET,
                ha="right" if at > 0.8 else "left", va="bottom")  # fmt: skip
    ax.set_xlim(0, 1.03)
    ax.set_ylim(0, 1.25 * float(np.nanmax(high)) if np.isfinite(high).any() else 1.0)
    style.percent_axis(ax.xaxis)
    ax.set_xlabel(f"of the answers to {name}, graded")
    ax.set_ylabel("hours until noticed")
    return figure
