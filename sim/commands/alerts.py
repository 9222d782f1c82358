"""``blowout alerts``: Prometheus rules, judged on the series of a run as Prometheus would."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.errors import InputError
from sim.interrupts import to_a_reader
from sim.units import duration_s

if TYPE_CHECKING:
    from sim.alerts.rules import Judgement
    from sim.series import SeriesSet

NO_RULE_JUDGED = 3


@click.group()
def command() -> None:
    """Judge Prometheus rules, unchanged, on the series of a run."""


def _options(inner: Callable[..., Any]) -> Callable[..., Any]:
    """Add what both commands take."""
    for decorate in (
        click.option("--interval", default="1m", show_default=True, help="Evaluation interval of groups without one."),
        click.option("--rules", "rules", multiple=True, required=True, metavar="FILE|NAME",
                     help="Rule file, PrometheusRule object, or a shipped set (seed); repeat for more."),
        click.argument("source", metavar="RUN_OR_FILE", type=click.Path(path_type=Path)),
    ):  # fmt: skip
        inner = decorate(inner)
    return inner


@command.command("eval")
@_options
@click.option("--dialect", type=click.Choice(["2.42", "3"]), default="2.42", show_default=True,
              help="Semantics of which Prometheus; 3 rests on its source, unproven.")  # fmt: skip
@click.option("--figure", type=click.Path(path_type=Path), help="Where to draw (figures/alerts.png in a run folder).")
@click.option("--no-figures", is_flag=True, help="Only print.")
@click.option("--json", "as_json", is_flag=True, help="Print every rule and episode as JSON.")
def evaluate(
    source: Path,
    rules: tuple[str, ...],
    interval: str,
    dialect: str,
    figure: Path | None,
    no_figures: bool,
    as_json: bool,
) -> int:
    """Say when each rule was pending and firing on RUN_OR_FILE, and which rules could not be judged.

    RUN_OR_FILE is a run folder, the folder of one of its points and seeds, or a file of series.
    """
    from sim.report import alerting, style

    path, heading = _series_file(source)
    judged, _ = _judge(path, rules, interval, dialect)
    if figure is None and source.is_dir():
        figure = path.parent / "figures" / "alerts.png"
    commands = [(f"blowout alerts verify {source} {_again(rules)}", "the same, asked of the real promtool")]
    if figure is not None and not no_figures:
        figure.parent.mkdir(parents=True, exist_ok=True)
        style.save(alerting.plate(heading, judged), figure)
        commands.insert(0, (str(figure), "the timeline"))
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(alerting.as_json(judged), indent=1))
        else:
            alerting.show(heading, judged, commands, sys.stdout)
    return 0 if any(one.verdict == "judged" for one in judged) else NO_RULE_JUDGED


@command.command()
@_options
@click.option("--promtool", help="Which promtool to run (the first on PATH).")
def verify(source: Path, rules: tuple[str, ...], interval: str, promtool: str | None) -> int:
    """Ask the real promtool whether the rules are valid, and whether alerts change state exactly when we say."""
    from sim.alerts import verify as verifying

    tool = verifying.promtool(promtool)
    path, _ = _series_file(source)
    judged, series = _judge(path, rules, interval, "2.42")
    valid = verifying.check_rules(judged, tool)
    states = verifying.check_states(judged, series, tool) if valid.passed else verifying.Check(False)
    with to_a_reader():
        click.echo(f"promtool check rules: {'accepted' if valid.passed else 'refused'}")
        if valid.passed:
            verdict = "all hold" if states.passed else "some do not hold"
            click.echo(f"promtool test rules: {states.assertions:,} assertions on alert states, {verdict}")
        for line in states.left_out:
            click.echo(f"not asked: {line}")
        click.echo(valid.said + states.said, nl=False)
    return 0 if valid.passed and states.passed else 1


def _judge(path: Path, rules: tuple[str, ...], interval: str, dialect: str) -> "tuple[list[Judgement], SeriesSet]":
    from sim import series
    from sim.alerts import rulefile
    from sim.alerts.rules import judge, names_read
    from sim.alerts.vectors import Dialect

    try:
        interval_ms = round(duration_s(interval) * 1000)
    except ValueError as error:
        raise InputError(f"--interval: {error}") from None
    if interval_ms < 1:
        raise InputError("--interval: expected a duration above 0")
    groups = rulefile.read([_rule_file(name) for name in rules])
    if not any(group.rules for group in groups):
        raise InputError(f"{rules[0]}: holds no rules")
    found = series.SeriesSet.read(path, names_read(groups))
    return judge(groups, found, interval_ms, Dialect(dialect), series.span_ms(path)), found


def _rule_file(name: str) -> Path:
    """Return the file that *name* is, or the shipped one so called."""
    from sim.scenario.files import shipped_rules
    from sim.words import did_you_mean

    known = shipped_rules()
    if Path(name).is_file() or name not in known:
        if not Path(name).is_file() and "." not in name and "/" not in name:
            said = did_you_mean(name, known) or f"; shipped sets: {', '.join(known) or 'none'}"
            raise InputError(f"--rules {name}: no such file or set of rules{said}")
        return Path(name)
    return known[name]


def _series_file(source: Path) -> tuple[Path, str]:
    """Return where the series of *source* are, and what they are of."""
    from sim import results

    if not source.is_dir():
        return source, source.name
    if (source / "metrics.parquet").is_file() and not (source / "run.json").is_file():
        return source / "metrics.parquet", str(source)
    members = [one for one in results.Run.open(source).members if (one.path / "metrics.parquet").is_file()]
    if not members:
        raise InputError(f"{source}: this run kept no metrics.parquet to judge rules on")
    first = members[0]
    what = ", ".join([*(f"{key.rpartition('.')[2]} {value}" for key, value in first.point.items())])
    others = f" (the first of {len(members)}; name the folder of another to judge that)" if len(members) > 1 else ""
    return first.path / "metrics.parquet", f"{source}: {what + ', ' if what else ''}seed {first.seed}{others}"


def _again(rules: tuple[str, ...]) -> str:
    return " ".join(f"--rules {name}" for name in rules)
