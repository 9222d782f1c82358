"""``blowout run``: play a scenario in virtual time."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim import results
from sim import scenario as scenarios
from sim.errors import BlowoutError
from sim.run import Progress, play

if TYPE_CHECKING:
    from sim.engine.hardware import PoolSpec


@click.command()
@click.argument("scenario", type=str)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the first run (the scenario's own if left out).")
@click.option("--seeds", type=click.IntRange(min=1), help="How many seeds to play, counted up from the first.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting, by its dotted path.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the results (new or empty).")
@click.option("--workers", type=click.IntRange(min=1), help="Processes to use (all cores if left out).")
@click.option("--no-figures", is_flag=True, help="Neither figures nor report.html.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    scenario: str,
    seed: int | None,
    seeds: int | None,
    overrides: tuple[str, ...],
    out: Path | None,
    workers: int | None,
    no_figures: bool,
    as_json: bool,
) -> int:
    """Play SCENARIO (a file, or the name of a shipped one) in virtual time.

    Exit code 0: every claim of the scenario holds. 1: one does not. 2: bad input. 3: the run is not valid.
    """
    from sim.engine import warm

    changes = [*overrides, *([f"seed={seed}"] if seed is not None else [])]
    loaded = scenarios.load(scenario, changes)
    check_fleet(loaded, scenario)
    folder = results.new_folder(out, loaded.name)
    warm()
    with _progress(loaded.name) as progress:
        try:
            run = play(
                loaded, folder, seeds=seeds, workers=workers, command=["blowout", *sys.argv[1:]], progress=progress
            )
        except KeyboardInterrupt:
            done = len(results.Run.open(folder).members)
            click.echo(f"interrupted; what was finished ({done} runs) is kept in {folder}", err=True)
            return 130
        except BlowoutError as error:
            raise type(error)(f"{error}; what was finished is kept in {folder}") from None
    if not no_figures:
        from sim import report

        report.write_figures(run)
        report.write_html(run)
    _print(run, as_json, no_figures)
    return 1 if any(not verdict["passed"] for verdict in run.verdicts or []) else 0


def check_fleet(loaded: scenarios.Scenario, source: str) -> "dict[str, PoolSpec]":
    """Resolve every pool of every point, so that what cannot be served is refused before anything is played.

    Return the pools of the last point.

    Raises:
        InputError: what does not fit or was never measured, with the pool's place in the file.
    """
    from sim.engine.hardware import resolve

    specs = {}
    for _, point in scenarios.points(loaded):
        for name, pool in point.fleet.pools.items():
            specs[name] = resolve(pool, where=f"{source}: fleet.pools.{name}")
    return specs


def _print(run: results.Run, as_json: bool, no_figures: bool) -> None:
    from sim import report

    if as_json:
        click.echo(json.dumps(report.summary_json(run), indent=1))
        return
    report.tables.show(run)


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """Show simulated time, speed and time left on stderr, when a person is watching it."""
    if not sys.stderr.isatty():
        yield lambda done_s, all_s: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%  {task.fields[clock]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(name, total=1.0, clock="")

        def progress(done_s: float, all_s: float) -> None:
            elapsed = bar.tasks[0].elapsed or 1e-9
            clock = f"{done_s / 60:,.0f} of {all_s / 60:,.0f} min simulated, {done_s / elapsed:,.0f} times real time"
            bar.update(task, completed=done_s / all_s, clock=clock)

        yield progress
