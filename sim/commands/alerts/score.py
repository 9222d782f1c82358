"""``blowout alerts score``: rules held against what really happened to users."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.commands.alerts.common import DIALECT, INTERVAL, JSON, RULES, again, interval_ms, options, read_rules
from sim.commands.alerts.judge import NO_RULE_JUDGED
from sim.commands.alerts.truth import TRUTH, WINDOW, Source, option_ms
from sim.errors import InputError
from sim.interrupts import to_a_reader
from sim.words import count

if TYPE_CHECKING:
    from sim.alerts.past import Past
    from sim.alerts.rulefile import Group
    from sim.alerts.score import Difference, Judged

SOURCES = click.argument("sources", metavar="RUN_OR_FILE...", nargs=-1, required=True,
                         type=click.Path(path_type=Path))  # fmt: skip
AGAINST = click.option("--against", multiple=True, metavar="FILE|NAME",
                       help="Other rules, to say what --rules gain and lose; repeat for more.")  # fmt: skip
FIGURE = click.option("--figure", type=click.Path(path_type=Path),
                      help="Where to draw (figures/score.png in the folder of a single run).")  # fmt: skip
NO_FIGURES = click.option("--no-figures", is_flag=True, help="Only print.")


@click.command("score")
@options(SOURCES, RULES, AGAINST, *TRUTH, *WINDOW, INTERVAL, DIALECT, FIGURE, NO_FIGURES, JSON)
def command(
    sources: tuple[Path, ...],
    rules: tuple[str, ...],
    against: tuple[str, ...],
    early: str,
    grace: str,
    interval: str,
    dialect: str,
    figure: Path | None,
    no_figures: bool,
    as_json: bool,
    **truth: Any,
) -> int:
    """Say which incidents each rule caught, how early, and how often it paged for nothing.

    RUN_OR_FILE is a run folder (all its points and seeds are judged), the folder of one of them, or a file of series.
    Incidents are what users of a run met against the slo of its scenario, unless --incidents or --sli says otherwise.
    """
    from sim.alerts.score import beyond, score
    from sim.report import scoring, scoring_figure, style

    window_ms = option_ms("--early", early), option_ms("--grace", grace)
    sets = [read_rules(rules), *([read_rules(against, "--against")] if against else [])]
    judged = _judged(sources, sets, Source(**truth), interval, dialect)
    scored = [score(one, *window_ms) for one in judged]
    pasts, (scores, together) = judged[0], scored[0]
    differences = (beyond(together, scored[1][1]), beyond(scored[1][1], together)) if against else None
    window = f"A page is true from {early} before an incident to {grace} after it."
    if figure is None and len(sources) == 1 and sources[0].is_dir():
        figure = sources[0] / "figures" / "score.png"
    typed = " ".join(map(str, sources))
    commands = [(f"blowout alerts eval {sources[0]} {again(rules)}", "when each rule was pending and firing")]
    if not against:
        commands.append((f"blowout alerts score {typed} {again(rules)} --against FILE", "what other rules gain"))
    if figure is not None and not no_figures:
        figure.parent.mkdir(parents=True, exist_ok=True)
        style.save(scoring_figure.plate(scoring.answer(together), pasts, scores, window), figure)
        commands.insert(0, (str(figure), "pages against incidents"))
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(scoring.as_json(pasts, (scores, together), window_ms, differences), indent=1))
        else:
            shown = _compared(rules, against, differences)
            heading = f"{typed}: {' '.join(rules)}"
            scoring.show(heading, pasts, (scores, together), window, shown, commands, sys.stdout)
    return 0 if together.held else NO_RULE_JUDGED


def _compared(
    rules: tuple[str, ...], against: tuple[str, ...], differences: "tuple[Difference, Difference] | None"
) -> list[Any]:
    from sim.report import scoring

    return scoring.compared(" ".join(rules), " ".join(against), *differences) if differences else []


def _judged(
    sources: Sequence[Path], sets: "Sequence[list[Group]]", source: Source, interval: str, dialect: str
) -> "list[list[Judged]]":
    """Return every past in *sources*, judged by each set of rules; of a past, all read what they need only once.

    Raises:
        InputError: a source or the truth is not there, or not one incident of a file lies in any past.
    """
    from sim.alerts.past import open_pasts
    from sim.alerts.rules import judge, names_read
    from sim.alerts.score import Judged
    from sim.alerts.vectors import Dialect

    find = source.finder(dialect)
    named = [(_name(path, one, len(sources)), one) for path in dict.fromkeys(sources) for one in open_pasts(path)]
    every_ms = interval_ms(interval)
    made: list[list[Judged]] = [[] for _ in sets]
    wanted = [names_read(groups) for groups in sets]
    with _progress(len(named)) as done:
        for name, past in named:
            truth = find(past)
            series = past.series(_union(wanted))
            for into, groups in zip(made, sets):
                rules = judge(groups, series, every_ms, Dialect(dialect), past.span_ms)
                into.append(Judged(name, truth, past.span_ms[1], rules))
            done()
    if source.incidents and not any(one.truth.incidents for one in made[0]):
        raise InputError(f"{source.incidents}: not one incident lies in {count(len(named), 'past')}; "
                         "expected times on the clock of the series")  # fmt: skip
    return made


def _union(wanted: Sequence[set[str] | None]) -> set[str] | None:
    known = [names for names in wanted if names is not None]
    return set().union(*known) if len(known) == len(wanted) else None


def _name(path: Path, past: "Past", sources: int) -> str:
    """Return what *past* of the source *path* is called, another name for each."""
    if sources == 1:
        return past.name
    return str(path) if past.name in (str(path), path.name) else f"{path}: {past.name}"


@contextmanager
def _progress(pasts: int) -> Iterator[Any]:
    """Show on stderr how many pasts are judged, when a person is watching."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("judging", total=pasts)
        yield lambda: bar.advance(task)
