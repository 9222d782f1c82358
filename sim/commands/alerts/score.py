"""``blowout alerts score``: rules held against what really happened to users."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.commands.alerts.common import (
    DIALECT,
    INTERVAL,
    JSON,
    NO_FIGURES,
    RULES,
    again,
    drawn_as,
    interval_ms,
    options,
    read_rules,
    watched,
)
from sim.commands.alerts.judge import NO_RULE_JUDGED
from sim.commands.alerts.pasts import Chosen, takes_pasts
from sim.commands.alerts.truth import TRUTH, WINDOW, Source, option_ms, said_again
from sim.errors import InputError, RunError
from sim.interrupts import to_a_reader
from sim.summary import MINUTE_S
from sim.words import count

if TYPE_CHECKING:
    from sim.alerts.rulefile import Group
    from sim.alerts.score import Difference, Judged

AGAINST = click.option("--against", multiple=True, metavar="FILE|NAME",
                       help="Other rules, to say what --rules gain and lose; repeat for more.")  # fmt: skip


@click.command("score")
@takes_pasts(many=True)
@options(RULES, AGAINST, *TRUTH, *WINDOW, INTERVAL, DIALECT, drawn_as("score"), NO_FIGURES, JSON)
def command(
    chosen: Chosen,
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
    Incidents are what users of a run met against the slo of its scenario, unless --incidents or --sli says otherwise;
    of a file, or with --from, one of these must.
    """
    from sim.alerts.score import beyond, score
    from sim.report import scoring, scoring_figure, style

    window_ms = option_ms("--early", early), option_ms("--grace", grace)
    sets = [read_rules(rules), *([read_rules(against, "--against")] if against else [])]
    judged = _judged(chosen, sets, Source(**truth), interval, dialect)
    scored = [score(one, *window_ms) for one in judged]
    pasts, (scores, together) = judged[0], scored[0]
    differences = (beyond(together, scored[1][1]), beyond(scored[1][1], together)) if against else None
    window = f"A page is true from {early} before an incident to {grace} after it."
    if figure is None and chosen.folder is not None:
        figure = chosen.folder / "figures" / "score.png"
    commands = [(f"blowout alerts eval {chosen.typed[0]} {again(rules)}", "when each rule was pending and firing")]
    if not against:
        said = f"{chosen.again} {again(rules)} --against FILE{said_again(truth)}"
        commands.append((f"blowout alerts score {said}", "what other rules gain"))
    if figure is not None and not no_figures:
        figure.parent.mkdir(parents=True, exist_ok=True)
        style.save(scoring_figure.plate(scoring.answer(together), pasts, scores, window), figure)
        commands.insert(0, (str(figure), "pages against incidents"))
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(scoring.as_json(pasts, (scores, together), window_ms, differences), indent=1))
        else:
            shown = _compared(rules, against, differences)
            heading = f"{chosen.title}: {' '.join(rules)}"
            scoring.show(heading, pasts, (scores, together), window, shown, commands, sys.stdout)
    return 0 if together.held else NO_RULE_JUDGED


def _compared(
    rules: tuple[str, ...], against: tuple[str, ...], differences: "tuple[Difference, Difference] | None"
) -> list[Any]:
    from sim.report import scoring

    return scoring.compared(" ".join(rules), " ".join(against), *differences) if differences else []


def _judged(
    chosen: Chosen, sets: "Sequence[list[Group]]", source: Source, interval: str, dialect: str
) -> "list[list[Judged]]":
    """Return every past of those *chosen*, judged by each set of rules.

    Raises:
        InputError: a past or the truth is not there, or not one incident of a file lies in any past.
        RunError: nothing was watched for a minute.
    """
    from sim.alerts.promql.vectors import Dialect
    from sim.alerts.rules import judge
    from sim.alerts.score import WEEK_MS, Judged

    find = source.finder(chosen, [group for groups in sets for group in groups], dialect)
    every_ms = interval_ms(interval)
    made: list[list[Judged]] = [[] for _ in sets]
    with watched("judging", len(chosen.named)) as done:
        for name, past in chosen.named:
            truth = find(past)
            for into, groups in zip(made, sets):
                series = past.read(groups)
                rules = judge(groups, series, every_ms, Dialect(dialect), past.span_ms, elsewhere=past.elsewhere)
                into.append(Judged(name, truth, past.span_ms[1], rules))
            done()
    if source.incidents and not any(one.truth.incidents for one in made[0]):
        raise InputError(f"{source.incidents}: not one incident lies in {count(len(chosen.named), 'past')}; "
                         "expected times on the clock of the series")  # fmt: skip
    longest_s = max((one.weeks * WEEK_MS / 1000 for one in made[0]), default=0.0)
    if longest_s < MINUTE_S:
        raise RunError(f"{chosen.title}: {longest_s:,.0f} s were watched, and what users met is counted by the minute; "
                       "expected at least a minute after the warm-up")  # fmt: skip
    return made
