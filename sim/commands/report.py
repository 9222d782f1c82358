"""``blowout report``: figures and report of a run, drawn again."""

import json
from pathlib import Path

import click

from sim import results
from sim.conclude import conclude
from sim.run import require_finished


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("--no-figures", is_flag=True, help="Only print.")
def command(run: Path, as_json: bool, no_figures: bool) -> None:
    """Draw the figures and report.html of RUN (a folder under results/) again, and print its tables."""
    from sim import report

    opened = results.Run.open(run)
    require_finished(opened)
    if not (run / "summary.json").exists():  # its process was killed, or still plays
        conclude(opened)
    if not no_figures:
        report.write_figures(opened)
        report.write_html(opened)
    if as_json:
        click.echo(json.dumps(report.summary_json(opened), indent=1))
    else:
        report.tables.show(opened)
