"""What the commands about alerts share: their options, and how rules and the past are opened."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.commands.targets import PICTURE
from sim.errors import InputError
from sim.units import duration_s

if TYPE_CHECKING:
    from rich.progress import Progress

    from sim.alerts.past import Past
    from sim.alerts.rulefile import Group
    from sim.alerts.rules import Judgement

INTERVAL = click.option(
    "--interval", default="1m", show_default=True, help="Evaluation interval of groups without one."
)
RULES = click.option("--rules", "rules", multiple=True, required=True, metavar="FILE|NAME",
                     help="Rule file, PrometheusRule object, or a shipped set (seed); repeat for more.")  # fmt: skip
DIALECT = click.option("--dialect", type=click.Choice(["2.42", "3"]), default="2.42", show_default=True,
                       help="Semantics of which Prometheus; 3 rests on its source, unproven.")  # fmt: skip
NO_FIGURES = click.option("--no-figures", is_flag=True, help="Only print.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")


_bars: "list[Progress]" = []
"""The progress bar that is on the screen, if there is one."""


def drawn_as(name: str) -> Callable[..., Any]:
    """Return the option that says where to draw what is called *name*."""
    said = f"Where to draw (figures/{name}.png in a run folder)."
    return click.option("--figure", type=PICTURE, help=said)


def options(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    """Return one decorator for all of *decorators*, in the order in which they are to be listed."""

    def decorate(inner: Callable[..., Any]) -> Callable[..., Any]:
        for one in reversed(decorators):
            inner = one(inner)
        return inner

    return decorate


def read_rules(rules: tuple[str, ...], option: str = "--rules") -> "list[Group]":
    """Return the groups in the files, or shipped sets, *rules*, as *option* named them.

    Raises:
        InputError: there is no such file or set, or it holds no rules.
    """
    from sim.alerts import rulefile

    groups = rulefile.read([rule_file(name, option) for name in rules])
    if not any(group.rules for group in groups):
        raise InputError(f"{rules[0]}: holds no rules")
    return groups


def rule_file(name: str, option: str = "--rules") -> Path:
    """Return the file that *name* is, or the shipped one so called."""
    from sim.scenario.files import shipped_rules
    from sim.words import did_you_mean

    known = shipped_rules()
    if Path(name).is_file() or name not in known:
        if not Path(name).is_file() and "." not in name and "/" not in name:
            said = did_you_mean(name, known) or f"; shipped sets: {', '.join(known) or 'none'}"
            raise InputError(f"{option} {name}: no such file or set of rules{said}")
        return Path(name)
    return known[name]


def interval_ms(text: str) -> int:
    """Return the ``--interval`` in milliseconds."""
    try:
        found = round(duration_s(text) * 1000)
    except ValueError as error:
        raise InputError(f"--interval: {error}") from None
    if found < 1:
        raise InputError("--interval: expected a duration above 0")
    return found


def judge_past(past: "Past", groups: "list[Group]", interval: str, dialect: str) -> "list[Judgement]":
    """Return a judgement on every rule in *groups*, over all of *past*."""
    from sim.alerts.promql.vectors import Dialect
    from sim.alerts.rules import judge

    series = past.read(groups)
    return judge(groups, series, interval_ms(interval), Dialect(dialect), past.span_ms, elsewhere=past.elsewhere)


def draw_timeline(past: "Past", heading: str, judged: "Sequence[Judgement]", figure: Path) -> None:
    """Draw into *figure* what rules did on *past*, before what users met and what was broken."""
    from sim.alerts import users
    from sim.report import alerting, style

    events = past.member.events() if past.member else []
    faults = [(a, b) for a, b, _ in users.faults_on(events, past.span_ms[1] / 1000)]
    figure.parent.mkdir(exist_ok=True)  # figures/ of a run; any other is there
    style.save(alerting.plate(heading, judged, users.known(past), faults), figure)


def again(rules: tuple[str, ...]) -> str:
    """Return the options that name *rules* again."""
    return " ".join(f"--rules {name}" for name in rules)


@contextmanager
def watched(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show on stderr how many of *total* are done, when a person is watching; what is given is called after each.

    Work within work has a line of its own, below.
    """
    if not total or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not _bars:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            _bars.append(bar)
            try:
                with watched(what, total) as done:
                    yield done
            finally:
                _bars.clear()
        return
    bar = _bars[0]
    task = bar.add_task(what, total=total)
    try:
        yield lambda: bar.advance(task)
    finally:
        bar.remove_task(task)
