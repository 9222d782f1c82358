"""``blowout run``: play a scenario in virtual time."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import click

from sim import results
from sim.commands import ready
from sim.errors import BlowoutError, InputError, RunError
from sim.interrupts import Interrupts, to_a_reader
from sim.run import Progress, play, rows_so_far
from sim.words import count

REDRAW_S = 0.1


@click.command()
@click.argument("scenario", type=str)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the first run (the scenario's own if left out).")
@click.option("--seeds", type=click.IntRange(min=1), help="How many seeds to play, counted up from the first.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting, by its dotted path.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results, new or empty [results/NAME/001, 002, ...].",
)
@click.option("--control", is_flag=True, help="Also play each without its faults, and judge whether it recovers.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes to use (all cores if left out).")
@click.option("--no-figures", is_flag=True, help="Neither figures nor report.html.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    scenario: str,
    seed: int | None,
    seeds: int | None,
    overrides: tuple[str, ...],
    out: Path | None,
    control: bool,
    workers: int | None,
    no_figures: bool,
    as_json: bool,
) -> int:
    """Play SCENARIO (a file, or the name of a shipped one) in virtual time.

    Exit code 0: every claim of the scenario holds. 1: one does not. 2: bad input. 3: the run is not valid.
    130: interrupted; whatever was finished is kept.
    """
    changes = [*overrides]
    changes += [f"{key}={value}" for key, value in (("seed", seed), ("seeds", seeds)) if value is not None]
    loaded = ready.load(scenario, changes)
    if control and not ready.has_faults(loaded):
        raise InputError(f"--control: {loaded.name} has no faults, so it is its own control run")
    folder = results.new_folder(out, loaded.name)
    try:
        warm()
        with progress_of(loaded.name) as progress:
            typed = ["blowout", *sys.argv[1:]]
            run = play(loaded, folder, workers=workers, control=control, command=typed, progress=progress)
        if not no_figures:
            from sim import report

            with _said("drawing the figures ..."):
                report.write_figures(run)
                report.write_html(run)
    except KeyboardInterrupt:
        click.echo(f"interrupted; {_kept(folder)}", err=True)
        return 130
    except BlowoutError as error:
        raise type(error)(f"{error}; {_kept(folder)}") from None
    with to_a_reader():
        _print(run, as_json)
    _require_samples(run)
    return 1 if any(not verdict["passed"] for verdict in run.verdicts or []) else 0


def warm() -> None:
    """Compile the engine, if this machine has not yet; it can be interrupted."""
    with Interrupts(at_once=True) as interrupts:
        from sim.engine import exercise

        exercise.warm()
        interrupts.check()  # the compiler may have swallowed it, or what is imported for it


def _kept(folder: Path) -> str:
    """Return what there is in *folder* of a run that did not come to its end; an empty one is taken away."""
    with suppress(OSError):
        folder.rmdir()
    try:
        run = results.Run.open(folder)
        planned, done = len(run.info["members"]), len(run.members)
    except BlowoutError:  # not even begun
        return "nothing was played"
    if not done:
        return f"nothing was finished{rows_so_far(run)}" if rows_so_far(run) else f"see {folder}"
    return f"{done} of {count(planned, 'run')} finished, kept in {folder}: blowout report {folder}"


def _require_samples(run: results.Run) -> None:
    """Refuse to conclude anything from a run in which nobody was served.

    Raises:
        RunError: there is not one latency.
    """
    metrics = [member.info["metrics"] for member in run.members]
    if any(one["e2e_mean"] is not None for one in metrics):
        return
    total = {name: sum(one[name] for one in metrics) for name in ("requests", "rejected", "failed", "cancelled")}
    ends = ", ".join(f"{n:,.0f} {name}" for name, n in total.items() if n and name != "requests")
    if sum(one["ok"] for one in metrics):
        raise RunError(
            f"not valid: none of {total['requests']:,.0f} requests came after the warm-up of "
            f"{run.scenario.warmup:g} s, so nothing is counted; try --set warmup=0s"
        )
    hint = "; longer than the context of its pool, see blowout check" if total["rejected"] else ""
    raise RunError(
        f"not valid: none of {total['requests']:,.0f} requests was served" + (f" ({ends}{hint})" * bool(ends))
    )


def _print(run: results.Run, as_json: bool) -> None:
    from sim import report

    if as_json:
        click.echo(json.dumps(report.summary_json(run), indent=1))
        return
    report.tables.show(run)


def _said(what: str) -> AbstractContextManager[object]:
    """Say on stderr *what* is going on, while a person is watching it."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(what)


@contextmanager
def progress_of(name: str) -> Iterator[Progress]:
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

        drawn_s = 0.0

        def progress(done_s: float, all_s: float) -> None:
            nonlocal drawn_s
            if time.monotonic() - drawn_s < REDRAW_S:
                return
            drawn_s = time.monotonic()
            elapsed = bar.tasks[0].elapsed or 1e-9
            clock = f"{done_s / 60:,.0f} of {all_s / 60:,.0f} min simulated, {done_s / elapsed:,.0f} times real time"
            bar.update(task, completed=done_s / all_s, clock=clock)

        yield progress
