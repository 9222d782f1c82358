"""``blowout alerts eval``: when each rule was pending and firing, and which could not be judged."""

import json
import sys
from pathlib import Path

import click

from sim.commands.alerts.common import (
    DIALECT,
    INTERVAL,
    JSON,
    NO_FIGURES,
    RULES,
    again,
    draw_timeline,
    drawn_as,
    judge_past,
    options,
    read_rules,
)
from sim.commands.alerts.pasts import Chosen, takes_pasts
from sim.interrupts import to_a_reader

NO_RULE_JUDGED = 3


@click.command("eval")
@takes_pasts()
@options(RULES, INTERVAL, DIALECT, drawn_as("alerts"), NO_FIGURES, JSON)
def command(
    chosen: Chosen,
    rules: tuple[str, ...],
    interval: str,
    dialect: str,
    figure: Path | None,
    no_figures: bool,
    as_json: bool,
) -> int:
    """Say when each rule was pending and firing on RUN_OR_FILE, and which rules could not be judged.

    RUN_OR_FILE is a run folder, the folder of one of its points and seeds, or a file of series: Parquet as in a run,
    or OpenMetrics text. With --from, it is what a live Prometheus remembers.
    """
    from sim.report import alerting

    past = chosen.pasts[0]
    judged = judge_past(past, read_rules(rules), interval, dialect)
    heading = chosen.title_of_first
    if figure is None and chosen.folder is not None:
        figure = past.path.parent / "figures" / "alerts.png"
    typed = f"{chosen.again} {again(rules)}"
    commands = [(f"blowout alerts verify {typed}", "the same, asked of the real promtool")]
    if chosen.is_live:
        commands = [(f"blowout alerts eval {typed} --figure alerts.png", "draws the timeline")]
    if figure is not None and not no_figures:
        draw_timeline(past, heading, judged, figure)
        commands = [(str(figure), "the timeline"), *([] if chosen.is_live else commands)]
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(alerting.as_json(judged), indent=1))
        else:
            alerting.show(heading, judged, commands, sys.stdout)
    return 0 if any(one.verdict == "judged" for one in judged) else NO_RULE_JUDGED
