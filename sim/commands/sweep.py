"""``blowout sweep``: play every combination of settings, on all cores or on a cluster."""

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

import click

from sim import claims
from sim.commands import ready
from sim.commands.run import progress_of, warm
from sim.errors import BlowoutError, InputError
from sim.interrupts import to_a_reader
from sim.planning import sweep as sweeps
from sim.planning import sweep_table
from sim.planning.cluster import cluster, lost
from sim.planning.trials import crew
from sim.planning.values import varied
from sim.run import known_metrics
from sim.scenario import points
from sim.words import count
from sim.workers import LOST, cores


@click.command()
@click.argument("scenario", type=str)
@click.option("--vary", "vary", multiple=True, metavar="KEY=VALUES", help="1,2,4 or 1:8 or 0.5:2:0.5 or names; repeat.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the first run (the scenario's own if left out).")
@click.option("--seeds", type=click.IntRange(min=1), help="How many seeds at each point, counted up from the first.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting at every point.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="What the table and the figure show; repeat.")
@click.option(
    "--executor", type=click.Choice(["processes", "dask"]), default="processes", help="Who plays [processes]."
)
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="The Dask scheduler (one of this machine if left out).")
@click.option("--workers", type=click.IntRange(min=1), help="Processes to use (all cores if left out).")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder, new, or of this very sweep, which goes on [results/NAME/001, 002, ...].",
)
@click.option("--no-figures", is_flag=True, help="No figure.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def command(
    scenario: str,
    vary: tuple[str, ...],
    seed: int | None,
    seeds: int | None,
    overrides: tuple[str, ...],
    metrics: tuple[str, ...],
    executor: str,
    scheduler: str | None,
    workers: int | None,
    out: Path | None,
    no_figures: bool,
    as_json: bool,
) -> int:
    """Play every combination of settings of SCENARIO with every seed, in virtual time.

    Exit code 0: everything was played. 2: bad input. 3: a trial is not valid. 4: the scheduler does not answer.
    130: interrupted; the same command with the same --out goes on.
    """
    if scheduler is not None and executor != "dask":
        raise InputError("--scheduler: expected --executor dask with it")
    if scheduler is not None and workers is not None:
        raise InputError("--workers: expected none with --scheduler, which has workers of its own")
    sweep = _open(scenario, vary, seed, seeds, overrides, metrics, out)
    try:
        _play(sweep, executor, scheduler, workers)
        if not no_figures:
            from sim.planning import sweep_figure

            sweep_figure.write(sweep, metrics or sweep_table.METRICS)
    except KeyboardInterrupt:
        click.echo(f"interrupted; {_kept(sweep)}", err=True)
        return 130
    except BlowoutError as error:
        raise type(error)(f"{error}; {_kept(sweep)}") from None
    with to_a_reader():
        if as_json:
            from sim.results import plain

            click.echo(json.dumps(plain(sweep_table.as_json(sweep, metrics or sweep_table.METRICS)), indent=1))
        else:
            sweep_table.show(sweep, metrics or sweep_table.METRICS)
    return 0


def _open(
    source: str,
    vary: Sequence[str],
    seed: int | None,
    seeds: int | None,
    overrides: Sequence[str],
    metrics: Sequence[str],
    out: Path | None,
) -> sweeps.Sweep:
    """Return the sweep that was asked for, new or as far as it came, and say which."""
    changes = [
        *overrides,
        *(f"{key}={value}" for key, value in (("seed", seed), ("seeds", seeds)) if value is not None),
    ]
    scenario = ready.load(source, [*changes, "claims={}"], varied(vary))
    if not scenario.vary:
        raise InputError(f"{source}: nothing varies; expected --vary KEY=VALUES, such as --vary fleet.replicas=1:8")
    known = set().union(*(known_metrics(point) - {*claims.OF_CONTROL} for _, point in points(scenario)))
    for metric in metrics:
        if metric not in known or metric.startswith("alert."):
            raise InputError(f"--metric: {claims.unknown(metric, known)}")
    return sweeps.open_sweep(scenario, out, ["blowout", *sys.argv[1:]])


@contextmanager
def _players(executor: str, scheduler: str | None, workers: int | None) -> Iterator[tuple[Executor, int]]:
    if executor == "dask":
        with cluster(scheduler, workers) as found:
            yield found
    else:
        with crew(workers) as pool:
            yield pool, workers or cores()


def _play(sweep: sweeps.Sweep, executor: str, scheduler: str | None, workers: int | None) -> None:
    """Play what is missing of *sweep*, if anything is."""
    if sweep.kept:
        done = len(sweep.kept) == sweep.size
        going = "all of them" if done else f"{len(sweep.kept):,}; going on"
        click.echo(f"{sweep.path}: of {count(sweep.size, 'trial')} it holds {going}", err=True)
        if done:
            return sweeps.finish(sweep, "complete")
    if executor == "processes":
        warm()  # before they fork
    with _players(executor, scheduler, workers) as (players, at_once), progress_of(sweep.scenario.name) as progress:
        return sweeps.play(sweep, players, at_once, progress, lost() if executor == "dask" else LOST)


def _kept(sweep: sweeps.Sweep) -> str:
    """Return what there is of *sweep*, and the command that goes on; nothing stays where no trial was finished."""
    if not sweep.kept:
        sweeps.discard(sweep)
        return "no trial was finished"
    held = f"{len(sweep.kept):,} of {count(sweep.size, 'trial')} kept in {sweep.path}"
    return f"{held}; to go on: {sweep.goes_on}"
