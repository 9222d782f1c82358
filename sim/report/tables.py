"""What a run says in a terminal: headline figures with intervals, verdicts, assumptions, and what to type next.

Plain text wherever nobody watches; nothing in it depends on how long the run took.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from typing import IO, TYPE_CHECKING, Any

from sim.report import checked, parts, printing, tester, twins, words
from sim.report.view import Point, View, view, worst

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.results import Run

HEADLINE = (
    *("ttft_p50", "ttft_p95", "ttft_p99", "e2e_p50", "e2e_p99", "itl_p99", "tpot_p50", "queue_p99"),
    *("kv_mean", "kv_max", "running_mean", "waiting_mean", "waiting_max", "preemptions"),
    *("requests", "errors", "goodput_per_s", "throughput_tokens_per_s"),
    *("tasks", "task_success", "task_failed", "task_e2e_p50", "task_e2e_p99", "task_calls_mean", "irreversible_wrong"),
)
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
"""For a sweep too wide for columns: one row a point, and intervals for `SWEEP_INTERVALS` only."""
SWEEP_INTERVALS = ("ttft_p50", "ttft_p99")
NAMES = {
    "kv_mean": "KV cache in use, mean",
    "kv_max": "KV cache in use, peak",
    "running_mean": "running, mean",
    "waiting_mean": "waiting, mean",
    "waiting_max": "waiting, peak",
    "errors": "requests not answered",
    "goodput_per_s": "good answers per s",
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
ENOUGH_FOR_CLAIMS = 6
"""Seeds from which on their median has a 95% interval at all: even from the lowest to the highest of n values the
chance to miss it is 2^(1-n) (order statistics), 6% for five."""


def name(metric: str) -> str:
    """Return what a row of a table calls *metric*."""
    return NAMES.get(metric) or words.metric_name(metric)


def headline_metrics(seen: View) -> list[str]:
    """Return the metrics worth a row: the usual ones, and those that count what went wrong if anything did."""
    known = set(seen.points[0].metrics) if seen.points else set()
    bad = [m for m in ONLY_IF_ANY if any(p.metric(m).value > 0 for p in seen.points)]
    unusual = [m for m, usual in USUAL.items() if any(p.metric(m).value > usual for p in seen.points)]
    wanted = [*HEADLINE, *bad, *(WRONG if "wrong" in bad else ()), *unusual]
    return [metric for metric in wanted if metric in known]


def cell(point: Point, metric: str) -> str:
    """Return the estimate of *metric* at *point* with its interval."""
    estimate = point.metric(metric)
    return words.interval(metric, estimate.value, estimate.low, estimate.high, estimate.is_range)


def sweep_cells(point: Point) -> list[str]:
    """Return one row of a sweep's table."""
    return [
        cell(point, metric) if metric in SWEEP_INTERVALS else words.quantity(metric, point.metric(metric).value)
        for metric in SWEEP
    ]


def columns(seen: View) -> list[str]:
    """Return what the columns of values are called."""
    return [point.label or "value" for point in seen.points]


def headline(run: "Run") -> list["RenderableType"]:
    """Return what was played and its headline figures, with intervals over seeds."""
    from rich.table import Table
    from rich.text import Text

    seen = view(run)
    renderables: list[RenderableType] = [Text(seen.heading, style="bold"), Text(about(seen)), Text()]
    if not seen.points:
        return [*renderables, Text("Nothing was finished.")]
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    if len(seen.points) <= MOST_COLUMNS:
        table.add_column("")
        for title in columns(seen):
            table.add_column(title, justify="right")
        for metric in headline_metrics(seen):
            look = "bold" if metric in ("ttft_p50", "ttft_p99") else ""
            table.add_row(name(metric), *(cell(point, metric) for point in seen.points), style=look)
    else:
        table.add_column("", no_wrap=True)
        for title in SWEEP.values():
            table.add_column(title, justify="right", no_wrap=True)
        for point in seen.points:
            table.add_row(point.label, *sweep_cells(point))
    return [*renderables, table]


def about(seen: View) -> str:
    """Return the line under the title: how long, how many seeds, what an interval is, and on what it rests."""
    length = words.tick(seen.duration_s)
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
    from rich.table import Table
    from rich.text import Text

    if not run.verdicts:
        return []
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for title, justify in (("", "left"), ("claim", "left"), ("found", "right"), ("bound", "right"), ("", "left")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for verdict in run.verdicts:
        passed = verdict["passed"]
        mark = Text("✓ holds" if passed else "✗ fails", style="green" if passed else "bold red")
        table.add_row(mark, verdict["name"], found(verdict), bound(verdict), Text(verdict["text"], style="dim"))
    return [table, Text(tally(run.verdicts)), *map(Text, few_seeds(run.verdicts))]


def tally(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return how many claims hold."""
    hold = sum(bool(verdict["passed"]) for verdict in verdicts)
    if hold == len(verdicts):
        return "The claim holds." if hold == 1 else f"All {hold} claims hold."
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
    """Return a metric with the unit of a claim: its own metric, a fraction for `within`, else a plain number."""
    if verdict["op"] == "within":
        return "errors"
    alone = re.match(r"\s*([\w.@-]+)\s*(\[[^]]*\])?\s*(<=|>=|<|>)", verdict["text"])
    return alone[1] if alone else "ratio"


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
            commands.append((again, "the same users, simulated"))
            commands.append((f"blowout calibrate {folder}", "step times out of what was measured"))
    elif seen.seeds == 1:
        commands.append((f"{again} --seeds 10", "the same with intervals"))
    if seen.points and seen.kind == "simulated":
        full = worst(seen.points)
        if full.metric("kv_max").value > 0.95 or full.metric("waiting_mean").value > 1:
            pool, settings = next(iter(run.scenario.fleet.pools.items()))
            more = f"fleet.pools.{pool}.replicas={settings.replicas + 1}"
            commands.append((f"{again} --set {more}", "what one more replica would do"))
    return commands


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
    """Return what the slowest 1% waited for at the worst point, as sentences; nothing when it was not kept."""
    if not seen.points:
        return []
    point = worst(seen.points)
    if not point.members or "parts_tail_first" not in point.histograms[0]:
        return []
    text = parts.told(parts.of_point(point), parts.ten(point, seen.kind).names)
    return [text] if text else []
