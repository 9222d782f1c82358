"""What a sweep says in a terminal: a row a point, with estimates and intervals over seeds."""

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from sim import claims, summary
from sim.planning.sweep import Sweep
from sim.report import printing, words
from sim.words import count

if TYPE_CHECKING:
    from rich.console import RenderableType

METRICS = ("ttft_p50", "ttft_p99", "e2e_p99", "errors", "goodput_per_s", "kv_max")
MOST_ROWS = 30
MOST_NOTES = 8
PADDING = 2


def show(sweep: Sweep, metrics: Sequence[str], file: IO[str] | None = None) -> None:
    """Print the table of *sweep* with these *metrics* to *file* (stdout), what it rests on, and what to type next."""
    from rich.console import Console
    from rich.text import Text

    file = file or sys.stdout
    width = Console(file=file).width if file.isatty() else printing.PLAIN_WIDTH
    points = len(sweep.points)
    shown = [k for k in range(points) if points <= MOST_ROWS or min(k, points - 1 - k) < MOST_ROWS // 2]
    blocks: list[RenderableType] = [Text(_title(sweep), style="bold"), Text(_about(sweep)), Text()]
    blocks.append(_table(sweep, metrics, shown, width))
    if len(shown) < points:
        blocks.append(Text(f"{len(shown)} of {points:,} points; all are in {sweep.path / 'table.parquet'}"))
    notes: list[RenderableType] = [Text(f"- {line}") for line in assumptions(sweep)]
    printing.show([("", blocks), ("Assumptions", notes)], next_commands(sweep), file)


def _table(sweep: Sweep, metrics: Sequence[str], shown: Sequence[int], width: int) -> "RenderableType":
    """Return the rows of the points *shown*; intervals go below their estimates where they do not fit beside them.

    Where that does not help either, columns that do not fit stand in a table below.
    """
    from rich.table import Table

    keys = list(sweep.scenario.vary)
    rows = [[*_row(sweep, k, metrics), labels(sweep, k)] for k in shown]
    titles = [*(heading(key, keys) for key in keys), *map(words.metric_name, metrics), ""]
    if _width(titles, rows) > width:
        rows = [[re.sub(r" (?=[\[(])|(?<=,) (?=\d+ [A-Z])", "\n", cell) for cell in row] for row in rows]
    for at in [k for k in range(len(shown) - 1, 0, -1) if shown[k] != shown[k - 1] + 1]:
        rows.insert(at, ["...", *[""] * (len(titles) - 1)])
    if _width(titles, rows) > width:
        n = len(keys)
        names = [", ".join(f"{title} {cell}" for title, cell in zip(titles, row[:n]) if cell) for row in rows]
        return printing.Beside(names, [(titles[k], [row[k] for row in rows]) for k in range(n, len(titles))])
    table = Table(box=None, pad_edge=False, padding=(0, PADDING, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(title, justify="right" if title else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _width(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return how wide a table is in which only titles go over several lines, and cells where they say so."""
    lines = [[*title.split(), *(line for cell in column for line in cell.split("\n"))]
             for title, column in zip(titles, zip(*rows))]  # fmt: skip
    return sum(max(map(len, one), default=0) + PADDING for one in lines)


def as_json(sweep: Sweep, metrics: Sequence[str]) -> dict[str, Any]:
    """Return what `show` prints, of all points, for programs."""
    return {
        "sweep": str(sweep.path),
        "scenario": sweep.scenario.name,
        "seeds": sweep.seeds,
        "trials": len(sweep.kept),
        "points": [
            {
                "point": settings,
                "labels": [row["label"] for row in sweep.trials(k)],
                "metrics": {metric: estimate(sweep, k, metric) for metric in metrics},
            }
            for k, (settings, _) in enumerate(sweep.points)
        ],
        "assumptions": assumptions(sweep),
    }


def estimate(sweep: Sweep, point: int, metric: str) -> dict[str, Any]:
    """Return estimate, low and high of *metric* over the seeds of a *point* (`summary.interval`), and the values.

    A point of which a seed has no numbers, for its backlog outgrew every bound, has none: the seeds that came through
    would flatter it.
    """
    trials = [row["metrics"] for row in sweep.trials(point)]
    values = [words.to_float(metrics.get(metric)) for metrics in trials] if all(trials) else []
    return summary.interval(values, scale=summary.scale_of(metric))


def heading(key: str, keys: Sequence[str]) -> str:
    """Return what the column of *key* is called: its last word, or as much of it as tells it from the other *keys*."""
    parts = key.split(".")
    for n in range(1, len(parts)):
        if sum(other.split(".")[-n:] == parts[-n:] for other in keys) == 1:
            return ".".join(parts[-n:])
    return key


def value(settings: Mapping[str, Any], key: str) -> str:
    """Return how a table and a figure name the value that *key* has at a point."""
    return claims.value_name(settings[key]) if not isinstance(settings[key], float) else f"{settings[key]:g}"


def assumptions(sweep: Sweep) -> list[str]:
    """Return what the numbers rest on, one line each."""
    trials = [row for k in range(len(sweep.points)) for row in sweep.trials(k)]
    lines = list(dict.fromkeys(note for row in trials if row["metrics"] for note in row["notes"]))
    if len(lines) > MOST_NOTES:
        lines = [*lines[:MOST_NOTES], f"and {len(lines) - MOST_NOTES} more like these, in trials.jsonl"]
    if any(row["uncalibrated"] for row in trials) and "uncalibrated" not in " ".join(lines).lower():
        lines.append("uncalibrated: step times are kernel estimates that no measurement of this service has corrected")
    if len(sweep.seeds) == 1:
        lines.append("one seed: these numbers have no interval")
    if len(sweep.kept) < sweep.size:
        lines.append(f"not finished: {len(sweep.kept):,} of {count(sweep.size, 'trial')} are counted")
    return lines


def next_commands(sweep: Sweep) -> list[tuple[str, str]]:
    """Return what is worth typing next, each with what it is good for."""
    commands = [(str(sweep.path / "table.parquet"), "a row a point and seed, for pandas, DuckDB and the like")]
    if (sweep.path / "figures" / "sweep.png").exists():
        commands.insert(0, (str(sweep.path / "figures" / "sweep.png"), "the same, drawn"))
    settings = sweep.points[-1][0]
    chosen = " ".join(f"--set {shlex.quote(f'{key}={_typed(settings[key])}')}" for key in settings)
    again = f"blowout run {sweep.path / 'scenario.yaml'} {chosen}"
    commands.append((again, "one point in full: rows, figures, claims, and why its tail is slow"))
    plan = f"blowout plan {sweep.path / 'scenario.yaml'} --slo 'ttft_p99 < 2s, errors < 0.1%'"
    if any(key.endswith(("replicas", "hardware")) for key in settings):
        commands.append((plan, "the cheapest fleet that keeps a promise"))
    if len(sweep.seeds) == 1:
        wider = [word for word in sweep.command if word != "--json"]
        commands.append((shlex.join([*wider, "--seeds", "10"]), "the same with intervals, into another folder"))
    return commands


def _typed(setting: Any) -> str:
    """Return *setting* as one types it behind ``--set KEY=``."""
    return setting if isinstance(setting, str) and setting.isidentifier() else json.dumps(setting)


def _title(sweep: Sweep) -> str:
    over = [f"{heading(key, list(sweep.scenario.vary))} ({len(listed)})" for key, listed in sweep.scenario.vary.items()]
    return f"{sweep.scenario.name}: {words.listing(over)}"


def _about(sweep: Sweep) -> str:
    seeds = len(sweep.seeds)
    length = words.tick(max(scenario.duration for _, scenario in sweep.points))
    of = f"{count(len(sweep.points), 'point')}, {count(seeds, 'seed')} of {length}"
    if seeds == 1:
        return of
    if seeds == 2:
        return f"{of}; mean of both (range: lower..higher; an interval takes 3 seeds)"
    centre = "median" if seeds >= 10 else "mean"
    return f"{of}; {centre} over seeds [95% interval of the {centre}]"


def _row(sweep: Sweep, point: int, metrics: Sequence[str]) -> list[str]:
    settings = sweep.points[point][0]
    cells = [value(settings, key) for key in settings]
    for metric in metrics:
        one = estimate(sweep, point, metric)
        cells.append(words.interval(metric, one["estimate"], one["low"], one["high"], len(one["values"]) == 2))
    return cells


def labels(sweep: Sweep, point: int) -> str:
    """Return the labels of a point's trials, with how many there are of each where they differ."""
    found = [row["label"] for row in sweep.trials(point)]
    if len(set(found)) <= 1:
        return "".join(found[:1])
    return ", ".join(f"{found.count(one)} {one}" for one in sorted(set(found)))
