"""What a run says in a terminal: headline figures with intervals, verdicts, assumptions, and what to type next.

Plain text wherever nobody watches; nothing in it depends on how long the run took.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import IO, TYPE_CHECKING, Any

from sim.report import checked, mistakes, parts, printing, subject, tester, twins, words
from sim.report.view import Point, View, view, worst

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from sim.results import Run

HEADLINE = (
    *("ttft_p50", "ttft_p95", "ttft_p99", "e2e_p50", "e2e_p99", "itl_p99", "tpot_p50", "queue_p99"),
    *("kv_mean", "kv_max", "running_mean", "waiting_mean", "waiting_max", "preemptions"),
    *("requests", "errors", "goodput_per_s", "throughput_tokens_per_s"),
    *("tasks", "task_success", "task_failed", "task_e2e_p50", "task_e2e_p99", "task_calls_mean", "irreversible_wrong"),
)
BESIDE = ("requests", "errors", "goodput_per_s", "ttft_p50", "ttft_p99", "e2e_p99", "kv_mean", "waiting_mean")
"""What is still worth a row where a run is about right and wrong."""
ONLY_IF_ANY = ("rejected", "timed_out", "failed", "cancelled", "unfinished", "wrong")
WRONG = ("wrong_per_min_mean", "wrong_per_min_peak")
USUAL = {"retries": 0.0, "hedges": 0.0, "amplification": 1.0, "prefix_hit": 0.0, "recomputed": 0.0}
"""What these are while clients send everything once and nothing is cached or computed again: not worth a row."""
SWEEP = {
    "ttft_p50": "TTFT P50",
    "ttft_p99": "TTFT P99",
    "e2e_p99": "e2e P99",
    "kv_mean": "KV mean",
    "waiting_mean": "waiting",
    "preemptions": "preempted",
    "errors": "unanswered",
}
"""For a sweep of many points: one row a point, and intervals for `SWEEP_INTERVALS` only, or for the first that lead."""
SWEEP_INTERVALS = ("ttft_p50", "ttft_p99")
NAMES = {
    "kv_mean": "KV cache in use, mean",
    "kv_max": "KV cache in use, peak",
    "running_mean": "running, mean",
    "waiting_mean": "waiting, mean",
    "waiting_max": "waiting, peak",
    "errors": "requests not answered",
    "throughput_tokens_per_s": "tokens per s",
    "timed_out": "timed out",
    "wrong": "wrong answers",
    "wrong_per_min_mean": "wrong per minute, mean",
    "wrong_per_min_peak": "wrong per minute, peak hour",
    "hedges": "second copies sent",
    "amplification": "attempts a request",
    "task_success": "tasks delivered right",
    "task_failed": "tasks given up",
    "task_e2e_p50": "task e2e P50",
    "task_e2e_p99": "task e2e P99",
    "task_calls_mean": "requests a task",
    "irreversible_wrong": "wrong and irreversible",
    "prefix_hit": "prompt tokens found in a cache",
    "recomputed": "prompt tokens computed again",
}
MOST_COLUMNS = 4
MOST_LEADING = 10
"""Metrics that lead the table of a sweep of many points; the rest is in summary.json."""
LEAST_OF_A_CLAIM = 30
"""Columns for what a claim says beside its verdict; in a narrower terminal it stands below the name."""
ENOUGH_FOR_CLAIMS = 6
"""Seeds from which on their median has a 95% interval at all: even from the lowest to the highest of n values the
chance to miss it is 2^(1-n) (order statistics), 6% for five."""


def name(metric: str) -> str:
    """Return what a row of a table calls *metric*."""
    return subject.name(metric) or NAMES.get(metric) or words.metric_name(metric)


def headline_metrics(seen: View) -> list[str]:
    """Return the metrics worth a row: the usual ones, and those that count what went wrong if anything did."""
    known = set(seen.points[0].metrics) if seen.points else set()
    bad = [m for m in ONLY_IF_ANY if any(p.metric(m).value > 0 for p in seen.points)]
    unusual = [m for m, usual in USUAL.items() if any(p.metric(m).value > usual for p in seen.points)]
    usual = BESIDE if seen.lead else HEADLINE
    wanted = dict.fromkeys([*seen.lead, *usual, *bad, *(WRONG if "wrong" in bad else ()), *unusual])
    return [metric for metric in wanted if metric in known]


def cell(point: Point, metric: str) -> str:
    """Return the estimate of *metric* at *point* with its interval."""
    estimate = point.metric(metric)
    if metric.endswith(subject.NEVER) and (partly := subject.moment(estimate)):
        return partly
    return words.interval(metric, estimate.value, estimate.low, estimate.high, estimate.is_range)


@dataclass(frozen=True)
class Grid:
    """The headline figures as a table: names of rows, columns with a cell for each row, and what is the same in all."""

    rows: list[str]
    columns: list[tuple[str, list[str]]]
    key: frozenset[int]  # rows to look at
    same: str  # one line; empty where nothing is


def grid(seen: View) -> Grid:
    """Return the table of *seen*: a column a point, or of many points a row a point.

    What is the same at every point steps back into one line, unless everything is, or it is what the run is about and
    there is room.
    """
    points, sweep = seen.points, len(seen.points) > MOST_COLUMNS
    metrics = headline_metrics(seen) if not sweep else list(dict.fromkeys([*seen.lead[:MOST_LEADING], *SWEEP]))
    cells = {metric: [_cell(seen, point, metric, sweep) for point in points] for metric in metrics}
    stays = () if sweep else seen.lead
    same = [m for m in metrics if len(points) > 1 and len(set(cells[m])) == 1 and m not in stays]
    same = [] if len(same) == len(metrics) else same
    metrics = [metric for metric in metrics if metric not in same]
    line = "; ".join(f"{name(m)} {alone(points[0], m)}" for m in same)
    line = f"The same at every point: {line}." if same else ""
    if sweep:
        titles = {m: SWEEP.get(m) or name(m) for m in metrics}
        return Grid([p.label for p in points], [(titles[m], cells[m]) for m in metrics], frozenset(), line)
    by_point = [(title, [cells[m][i] for m in metrics]) for i, title in enumerate(columns(seen))]
    key = seen.lead[:2] or SWEEP_INTERVALS
    return Grid([name(m) for m in metrics], by_point, frozenset(i for i, m in enumerate(metrics) if m in key), line)


def _cell(seen: View, point: Point, metric: str, sweep: bool) -> str:
    """Return a cell of the table; in a *sweep* only what leads has an interval."""
    if not sweep or metric in (seen.lead[:2] or SWEEP_INTERVALS):
        return cell(point, metric)
    return alone(point, metric)


def alone(point: Point, metric: str) -> str:
    """Return the estimate of *metric* at *point* without its interval; of what never came, that it did not."""
    partly = subject.moment(point.metric(metric)) if metric.endswith(subject.NEVER) else None
    return partly or words.quantity(metric, point.metric(metric).value)


def columns(seen: View) -> list[str]:
    """Return what the columns of values are called."""
    return [point.label or "value" for point in seen.points]


def headline(run: "Run") -> list["RenderableType"]:
    """Return what was played and its headline figures, with intervals over seeds."""
    from rich.text import Text

    seen = view(run)
    renderables: list[RenderableType] = [Text(seen.heading, style="bold"), Text(about(seen)), Text()]
    if not seen.points:
        return [*renderables, Text("Nothing was finished.")]
    shown = grid(seen)
    renderables.append(printing.Beside(shown.rows, shown.columns, dict.fromkeys(shown.key, "bold")))
    return [*renderables, *([Text(), Text(shown.same)] if shown.same else [])]


def about(seen: View) -> str:
    """Return the line under the title: how long, how many seeds, what an interval is, and on what it rests."""
    length = words.lasting(seen.duration_s)
    if seen.seeds == 2:
        seeds = f"2 seeds of {length}; mean of both (range: lower..higher; an interval takes 3 seeds)"
    elif seen.seeds > 2:
        what = seen.points[0].centre
        seeds = f"{seen.seeds} seeds of {length}; {what} over seeds [95% interval of the {what}]"
    else:
        seeds = f"1 seed of {length}"
    return "; ".join(
        [seen.kind, seeds, *(["uncalibrated"] if seen.uncalibrated else []), *([seen.kv_note] * bool(seen.kv_note))]
    )


def claims(run: "Run") -> list["RenderableType"]:
    """Return the verdict on every claim: whether it holds, its estimate, interval and bound."""
    from rich.text import Text

    if not run.verdicts:
        return []
    taken = [max(len(of(verdict)) for verdict in run.verdicts) for of in (lambda v: v["name"], found, bound)]
    wide = sum(taken) + 4 * printing.GAP + len("✓ holds") + LEAST_OF_A_CLAIM
    table = printing.ByWidth(wide, _claims(run.verdicts), _claims_below(run.verdicts))
    return [table, Text(tally(run.verdicts)), *map(Text, few_seeds(run.verdicts))]


def _claims(verdicts: Sequence[Mapping[str, Any]]) -> "RenderableType":
    """Return the table of *verdicts* for a terminal that is wide enough."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, printing.GAP, 0, 0), header_style="bold")
    for title, justify in (("", "left"), ("claim", "left"), ("found", "right"), ("bound", "right")):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("")
    for verdict in verdicts:
        row = (verdict["name"], found(verdict), bound(verdict))
        table.add_row(_mark(verdict), *row, Text(verdict["text"], style="dim"))
    return table


def _claims_below(verdicts: Sequence[Mapping[str, Any]]) -> "RenderableType":
    """Return the same for a narrow one: under the name of each claim what was found, and what it says."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, printing.GAP, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for verdict in verdicts:
        told = Text.assemble(f"{verdict['name']}: {found(verdict)}, {bound(verdict)}\n", (verdict["text"], "dim"))
        table.add_row(_mark(verdict), told)
    return table


def _mark(verdict: Mapping[str, Any]) -> "Text":
    """Return whether a claim holds."""
    from rich.text import Text

    return Text("✓ holds", style="green") if verdict["passed"] else Text("✗ fails", style="bold red")


def tally(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return how many claims hold."""
    hold = sum(bool(verdict["passed"]) for verdict in verdicts)
    if hold == len(verdicts):
        return "The claim holds." if hold == 1 else f"All {hold} claims hold."
    if len(verdicts) == 1:
        return "The claim fails."
    return f"{len(verdicts) - hold} of {len(verdicts)} claims {'fails' if len(verdicts) - hold == 1 else 'fail'}."


def few_seeds(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence where verdicts rest on fewer than `ENOUGH_FOR_CLAIMS` seeds."""
    fewest = min((int(verdict["seeds"]) for verdict in verdicts), default=ENOUGH_FOR_CLAIMS)
    if fewest >= ENOUGH_FOR_CLAIMS:
        return []
    said = "is on 1 seed" if fewest == 1 else f"rests on {fewest} seeds"
    between = " (found: the median, lowest..highest)" if fewest > 1 else ""
    return [
        f"Provisional: the verdict {said}{between}; a 95% interval of a median takes {ENOUGH_FOR_CLAIMS} (--seeds 10)."
    ]


def found(verdict: Mapping[str, Any]) -> str:
    """Return the estimate of a claim with its interval, in the unit of its metric if it is about one alone."""
    estimate, low, high = (words.to_float(verdict[key]) for key in ("estimate", "low", "high"))
    return words.interval(_unit(verdict), estimate, low, high, verdict["seeds"] < ENOUGH_FOR_CLAIMS)


def bound(verdict: Mapping[str, Any]) -> str:
    """Return what a claim's estimate is compared with."""
    sign = {">=": "≥", "<=": "≤", "within": "±"}.get(verdict["op"], verdict["op"])
    return f"{sign} {words.quantity(_unit(verdict), words.to_float(verdict['bound']))}"


def _unit(verdict: Mapping[str, Any]) -> str:
    """Return a metric with the unit of a claim: its own or, of a difference, that of both; a fraction for `within`.

    Anything else is a plain number.
    """
    if verdict["op"] == "within":
        return "errors"
    from sim.claims import parse

    return _metric_of(parse(verdict["text"]).left) or "ratio"


def _metric_of(node: Any) -> str | None:
    """Return a metric in whose unit the value of *node* of a claim is; ``ratio`` of what has none, None of a number."""
    from sim.claims import Arithmetic, Metric

    if isinstance(node, Metric):
        return node.name
    if not isinstance(node, Arithmetic):
        return None
    left, right = _metric_of(node.left), _metric_of(node.right)
    if left is None or right is None:
        return "ratio" if node.sign == "/" else left or right
    return left if node.sign in "+-" and words.unit(left) == words.unit(right) else "ratio"


def assumptions(run: "Run") -> list[str]:
    """Return what the numbers rest on, one line each."""
    seen = view(run)
    lines = [words.aged(line, date.today()) for line in seen.assumptions]
    said = " ".join(lines).lower()
    if seen.uncalibrated and "uncalibrated" not in said:
        lines.append("uncalibrated: step times are kernel estimates that no measurement of this service has corrected")
    if seen.kv_note and seen.kv_note.lower() not in said:
        lines.append(seen.kv_note)
    if seen.seeds == 1:
        lines.append("one seed: these numbers have no interval")
    return lines


def next_commands(run: "Run") -> list[tuple[str, str]]:
    """Return what is worth typing next, each with what it is good for."""
    seen, folder = view(run), run.path
    again = f"blowout run {folder / 'scenario.yaml'}"
    commands = []
    hints = mistakes.next_settings(seen) if seen.kind == "simulated" else []
    commands += [(f"{again} --set {setting}", what) for setting, what in hints]
    if (folder / "report.html").exists():
        commands.append((str(folder / "report.html"), "figures and explanation, in one file to open or send"))
    else:
        commands.append((f"blowout report {folder}", "draw the figures and the report"))
    if any((member.path / "attempts.parquet").exists() for member in run.members):
        commands.append((f"blowout why {folder}", "what the slowest waited for, by cohort, pool and replica"))
    if run.scenario.faults and not run.controls and seen.kind == "simulated":
        commands.append((f"{again} --control", "whether it recovers from the faults"))
    if seen.kind == "measured":
        rules = [rule for rule in run.info.get("rules", ()) if rule not in run.scenario.alerts]
        if rules or (run.scenario.expect and run.scenario.alerts):
            proving = " ".join([f"blowout alerts prove {folder}", *(f"--rules {rule}" for rule in run.info["rules"])])
            commands.append((proving, "whether alerts fired when they should, and only then"))
        else:
            commands.append((f"blowout alerts eval {folder} --rules seed", "which rules would have paged"))
        if not run.info.get("stand_in_fleet"):
            commands.append(
                (again, "as many users, simulated" if "imported" in run.info else "the same users, simulated")
            )
            commands += _calibrating(run)
    elif seen.seeds == 1:
        commands.append((f"{again} --seeds 10", "the same with intervals"))
    if seen.points and seen.kind == "simulated":
        full = worst(seen.points)
        if full.metric("kv_max").value > 0.95 or full.metric("waiting_mean").value > 1:
            pool, settings = next(iter(run.scenario.fleet.pools.items()))
            more = f"fleet.pools.{pool}.replicas={settings.replicas + 1}"
            commands.append((f"{again} --set {more}", "what one more replica would do"))
    return commands


def _calibrating(run: "Run") -> list[tuple[str, str]]:
    """Return the command that makes step times out of a measured *run*; none where it was answered too seldom."""
    from sim.calibrate.runs import enough

    kept = all((member.path / "attempts.parquet").exists() for member in run.members)
    pool = enough(run) if kept else None
    if pool is None:
        return []
    named = f" --pool {pool}" if len(run.scenario.fleet.pools) > 1 else ""
    return [(f"blowout calibrate {run.path}{named}", "step times out of what was measured")]


def summary_json(run: "Run") -> dict[str, Any]:
    """Return everything `show` prints, for programs: JSON types only, what is not a number as None."""
    seen = view(run)
    verdicts = run.verdicts
    return {
        **run.summary,
        "run": str(run.path),
        "title": seen.title,
        "kind": seen.kind,
        "assumptions": assumptions(run),
        "why": why(seen),
        "after_faults": twins.sentences(seen),
        **({"tester": [one for _, one in tester.of(seen)]} if seen.kind == "measured" else {}),
        **({"checks": checked.found(run)} if seen.kind == "measured" and run.scenario.checks else {}),
        "verdicts": verdicts,
        "passed": None if verdicts is None else all(verdict["passed"] for verdict in verdicts),
    }


def show(run: "Run", file: IO[str] | None = None) -> None:
    """Print everything there is to say about *run* to *file* (stdout): table, why, verdicts, assumptions, next."""
    from rich.text import Text

    blocks: list[tuple[str, list[RenderableType]]] = [
        ("", headline(run)),
        ("Why", [Text(line) for line in why(view(run))]),
        (twins.TOPIC, [Text(line) for line in twins.sentences(view(run))]),
        (tester.TOPIC, tester.block(view(run))),
        (checked.TOPIC, checked.block(run)),
        ("Claims", claims(run)),
        ("Assumptions", [Text(f"- {line}") for line in assumptions(run)]),
    ]
    printing.show(blocks, next_commands(run), file or sys.stdout)


def why(seen: View) -> list[str]:
    """Return why answers were wrong, and what the slowest 1% waited for at the worst point, as sentences."""
    if not seen.points:
        return []
    point = worst(seen.points)
    if not point.members or "parts_tail_first" not in point.histograms[0]:
        return mistakes.sentences(seen)
    text = parts.told(parts.of_point(point), parts.ten(point, seen.kind).names)
    same = len(seen.points) > 1 and len({cell(one, "ttft_p99") for one in seen.points}) == 1
    if seen.lead and same:
        return mistakes.sentences(seen)  # latency does not come into it
    return [*mistakes.sentences(seen), *([text] if text else [])]
