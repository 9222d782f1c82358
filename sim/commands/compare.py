"""``blowout compare``: two runs side by side, and whether they differ by more than their noise."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.commands.alerts.common import JSON, options, read_rules
from sim.commands.targets import PICTURE
from sim.errors import InputError
from sim.interrupts import to_a_reader
from sim.units import fraction

if TYPE_CHECKING:
    from sim.alerts.rulefile import Group
    from sim.report.sides import Side

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("a", type=FOLDER)
@click.argument("b", type=FOLDER)
@options(
    click.option("--rules", "rules", multiple=True, metavar="FILE|NAME",
                 help="Alert rules to hold against both [those of the scenarios]."),
    click.option("--tolerance", default="5%", show_default=True, help="A gap below this share never counts."),
    click.option("--figure", type=PICTURE, help="Where to draw [figures/compare.png of B]."),
    click.option("--no-figures", is_flag=True, help="Only print."),
    JSON,
)  # fmt: skip
def command(
    a: Path, b: Path, rules: tuple[str, ...], tolerance: str, figure: Path | None, no_figures: bool, as_json: bool
) -> int:
    """Compare run B with run A: folders of runs, or of one point and seed of a run, simulated or measured.

    Points of a sweep are matched by their values. Exit code 1: some figure differs by more than the noise.
    """
    from sim.report import comparing, comparing_figure, sides, style

    try:
        least = fraction(tolerance)
    except ValueError:
        try:
            least = fraction(float(tolerance))
        except ValueError as error:
            raise InputError(f"--tolerance: {error}") from None
    first, second = sides.opened(a), sides.opened(b)
    found = comparing.compare(first, second, least, _groups(rules, first, second))
    commands = [(f"blowout why {second.run.path}", "why the slowest requests of B were slow")]
    if not no_figures:
        target = figure or b / "figures" / "compare.png"
        target.parent.mkdir(exist_ok=True)
        style.save(comparing_figure.plate(found), target)
        commands.insert(0, (str(target), "both over time"))
    with to_a_reader():
        if as_json:
            from sim.results import plain

            click.echo(json.dumps(plain(comparing.as_json(found)), indent=1))
        else:
            comparing.show(found, commands, sys.stdout)
    return 1 if found.differs else 0


def _groups(rules: tuple[str, ...], a: "Side", b: "Side") -> "list[Group]":
    """Return the rules that were named, or else those of either scenario as far as their files are still there."""
    if rules:
        return read_rules(rules)
    files = dict.fromkeys(file for side in (a, b) for file in side.scenario.alerts)
    there = {Path(file).resolve(): file for file in files if Path(file).is_file()}
    return read_rules(tuple(there.values())) if there else []
