"""``blowout calibration``: what a model's confidence is worth, from a file of its answers."""

import json
import math
import sys
from pathlib import Path

import click

from sim.commands.alerts.common import JSON, NO_FIGURES, options
from sim.commands.targets import PICTURE
from sim.errors import InputError
from sim.interrupts import to_a_reader

PLACES = ("confidence", "correct", "wrong", "cohort")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@options(
    click.option("--columns", metavar="WHAT=NAME,...",
                 help="Which column is confidence, correct (or wrong), cohort [guessed by name]."),
    click.option("--review-cost", type=click.FloatRange(min=0), metavar="COST", help="Of a look at one answer."),
    click.option("--error-cost", type=click.FloatRange(min=0, min_open=True), metavar="COST",
                 help="Of a wrong answer that gets through."),
    click.option("--figure", type=PICTURE, help="Where to draw [FILE-calibration.png]."),
    NO_FIGURES,
    JSON,
)  # fmt: skip
def command(
    file: Path,
    columns: str | None,
    review_cost: float | None,
    error_cost: float | None,
    figure: Path | None,
    no_figures: bool,
    as_json: bool,
) -> int:
    """Say what the confidence in FILE is worth, and what a gate on it would catch and cost.

    FILE is CSV or Parquet, one answer a row: confidence (0 to 1), correct (1 or 0) and, if you like, cohort.
    """
    from sim.quality import answers
    from sim.report import calibrating, calibrating_figure, style

    if (review_cost is None) != (error_cost is None):
        raise InputError("--review-cost and --error-cost say what a gate costs together; give both")
    for name, cost in (("review", review_cost), ("error", error_cost)):
        if cost is not None and not math.isfinite(cost):
            raise InputError(f"--{name}-cost: expected a number, got {cost}")
    costs = None if review_cost is None or error_cost is None else (review_cost, error_cost)
    found = calibrating.examine(file.name, answers.read(file, _mapping(columns)), costs)
    commands = [("blowout odds --help", "what the errors that are left come to at scale")]
    if costs is None:
        commands.insert(0, (f"blowout calibration {file} --review-cost 1 --error-cost 50", "which gate is cheapest"))
    if not no_figures:
        target = figure or file.with_name(f"{file.stem}-calibration.png")
        style.save(calibrating_figure.plate(found), target)
        commands.insert(0, (str(target), "confidence against accuracy, and what a gate catches"))
    with to_a_reader():
        if as_json:
            from sim.results import plain

            click.echo(json.dumps(plain(calibrating.as_json(found)), indent=1))
        else:
            calibrating.show(found, commands, sys.stdout)
    return 0


def _mapping(text: str | None) -> dict[str, str]:
    """Return the columns by what they are."""
    found: dict[str, str] = {}
    for part in text.split(",") if text else []:
        what, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals or not name or what not in PLACES:
            raise InputError(f"--columns: expected WHAT=NAME with WHAT one of {', '.join(PLACES)}, got {part!r}")
        found[what] = name
    if "correct" in found and "wrong" in found:
        raise InputError("--columns: correct and wrong are the same said twice; give one of them")
    if twice := [name for name in found.values() if list(found.values()).count(name) > 1]:
        raise InputError(f"--columns: expected a column for each, got {twice[0]!r} twice")
    return found
