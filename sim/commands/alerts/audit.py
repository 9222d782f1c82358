"""``blowout alerts audit``: rules against failures that were played one by one, and against times without any."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.commands.alerts.common import INTERVAL, JSON, interval_ms, options, rule_file
from sim.commands.alerts.judge import NO_RULE_JUDGED
from sim.commands.targets import PICTURE
from sim.interrupts import to_a_reader

if TYPE_CHECKING:
    from sim.alerts.audit import Audit
    from sim.alerts.past import Past
    from sim.alerts.score import Judged

RUNS = click.argument("runs", metavar="[RUN]...", nargs=-1, type=click.Path(path_type=Path))
RULES = click.option("--rules", "rules", multiple=True, metavar="FILE|NAME", default=("seed", "repaired", "burn-rate"),
                     show_default=True, help="Rule files, or shipped sets, to hold side by side; repeat.")  # fmt: skip
OUT = click.option("--figure", type=PICTURE, help="Where to draw [figures/audit.png of the first run].")
SHIPPED = ("alert-audit", "healthy-month")


@click.command("audit")
@options(RUNS, RULES, INTERVAL, OUT)
@click.option("--no-figures", is_flag=True, help="Only print.")
@JSON
def command(
    runs: tuple[Path, ...],
    rules: tuple[str, ...],
    interval: str,
    figure: Path | None,
    no_figures: bool,
    as_json: bool,
) -> int:
    """Say for every failure which rules caught it and how soon, and how often they page when there is none.

    Every point of the sweep of each RUN is a failure, or none. Left out: the latest runs of the scenarios
    alert-audit and healthy-month, which are played first if there is none.
    """
    from sim.report import auditing, style

    found = [*dict.fromkeys(runs)] or [_latest(name) or _played(name) for name in SHIPPED]
    audit = _audit(found, rules, interval)
    heading = f"{', '.join(map(str, found))}: {', '.join(rules)}"
    caption = (
        "Time: how long users suffered before the page, the median over seeds; k/n: not every incident was caught. "
        "Green: caught while it lasted; red: missed; a ticket: no incident was worth a page; orange: paged where none "
        "was; always on: fired for more than half of the time without incidents and the hour after; violet, on anyway: "
        "fired in the incident, as it does for more than half of the time without one. A page is true "
        "from 15 min before an incident to 15 min after it. Incidents by the slo of the scenarios. "
        f"{sum(row.plays for row in audit.rows)} runs, simulated."
    )
    target = figure or found[0] / "figures" / "audit.png"
    commands = [(f"blowout alerts score {found[0]} --rules {rules[0]}", "incident by incident")]
    if not no_figures:
        target.parent.mkdir(exist_ok=True)
        style.save(auditing.plate(auditing.headline(audit), audit, caption), target)
        commands.insert(0, (str(target), "the matrix"))
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(auditing.as_json(audit), indent=1))
        else:
            auditing.show(heading, audit, commands, sys.stdout)
    return 0 if any(not cell.silent for row in audit.rows for cell in row.cells) else NO_RULE_JUDGED


def _latest(name: str) -> Path | None:
    """Return the folder of the last finished run of scenario *name* under results/."""
    from sim import results

    for path in sorted(Path("results", name).glob("*/run.json"), reverse=True):
        if results.Run.open(path.parent).info["state"] == "complete":
            return path.parent
    return None


def _played(name: str) -> Path:
    """Play the shipped scenario *name* and return the folder of its run."""
    from sim import results
    from sim.commands import ready
    from sim.commands.run import progress_of, warm
    from sim.run import play

    scenario = ready.load(name, [])
    folder = results.new_folder(None, scenario.name)
    warm()
    with progress_of(scenario.name) as progress:
        play(scenario, folder, command=["blowout", "run", name], progress=progress)
    return folder


def _audit(runs: Sequence[Path], rules: Sequence[str], interval: str) -> "Audit":
    from sim.alerts import audit
    from sim.alerts.past import open_pasts

    cases: dict[str, dict[str, list[Judged]]] = {}
    pasts = [(run, past) for run in runs for past in open_pasts(run)]
    with click.progressbar(pasts, label="judging", file=sys.stderr, hidden=not sys.stderr.isatty()) as shown:
        for run, past in shown:
            case = cases.setdefault(_case(run, past), {})
            for name, judged in _judged(past, rules, interval_ms(interval)):
                case.setdefault(name, []).append(judged)
    quiet = [
        name for name, files in cases.items() if not any(one.truth.incidents for one in next(iter(files.values())))
    ]
    return audit.audit({name: cases[name] for name in [*quiet, *(name for name in cases if name not in quiet)]})


def _case(run: Path, past: "Past") -> str:
    """Return what was played: the point of a sweep, or else the scenario."""
    from sim import claims, results

    point = past.member.point if past.member else {}
    scenario: str = results.Run.open(run).info["name"]
    label = ", ".join(claims.value_name(value) for value in point.values())
    return label or scenario


def _judged(past: "Past", rules: Sequence[str], every_ms: int) -> "list[tuple[str, Judged]]":
    from sim.alerts import users
    from sim.alerts.rulefile import read_once
    from sim.alerts.rules import judge, names_read
    from sim.alerts.score import Judged
    from sim.alerts.truth import Worth

    truth, span_ms = users.truth(past, Worth()), past.span_ms
    made = []
    files = list(dict.fromkeys(rules))
    stems = [Path(name).stem for name in files]
    for name, stem in zip(files, stems):
        groups = read_once(rule_file(name))
        judged = judge(groups, past.series(names_read(groups)), every_ms, span_ms=span_ms)
        label = name if stems.count(stem) > 1 else stem
        made.append((label, Judged(past.name, truth, span_ms[1], judged)))
    return made
