"""``blowout why``: why the slowest requests of a run were slow."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim import claims, results
from sim.errors import InputError
from sim.interrupts import to_a_reader
from sim.run import require_finished
from sim.words import show

if TYPE_CHECKING:
    from sim.report.view import Point


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--by", type=click.Choice(["ttft", "e2e"]), default="ttft", show_default=True, help="What is slow.")
@click.option("--point", help="Point of a sweep, by its values: 7.2, or 7.2,random (the slowest if left out).")
@click.option("--seed", type=int, help="Which seed (the most typical one if left out).")
@click.option("--no-figures", is_flag=True, help="Only print.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(run: Path, by: str, point: str | None, seed: int | None, no_figures: bool, as_json: bool) -> None:
    """Say why the slowest 1% of RUN (a folder under results/) were slow, from the rows it kept.

    Where their time went, who they were, which kinds of request were not answered, what happened meanwhile, and the
    five slowest step by step; with a figure, figures/why.png.
    """
    from sim.report import explain, style, told

    opened = results.Run.open(run)
    require_finished(opened)
    chosen = _point(opened, point)
    seeds = [member.seed for member in chosen.members]
    if seed is not None and seed not in seeds:
        raise InputError(f"--seed {seed}: not played, expected one of {', '.join(map(str, seeds))}")
    found = explain.explain(opened, chosen, seed, by)
    plate = None if no_figures else explain.plate(found)
    if plate is not None:
        (run / "figures").mkdir(exist_ok=True)
        style.save(plate, run / "figures" / "why.png")
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(told.as_json(found), indent=1))
        else:
            told.show(found)


def _point(run: results.Run, written: str | None) -> "Point":
    """Return the point of the sweep that *written* means, or the slowest.

    Raises:
        InputError: there is no such point, or nothing of it was finished.
    """
    from sim.report.view import view, worst

    points = view(run).points
    if written is None:
        return worst(points)
    index = tuple(part.strip() for part in written.split(","))
    try:
        return points[claims.point_of("the values", index, [point.values for point in points])]
    except InputError:
        known = "; ".join(", ".join(map(show, point.values.values())) for point in points)
        raise InputError(f"--point {written}: expected one of {known or 'none, since nothing varies'}") from None
