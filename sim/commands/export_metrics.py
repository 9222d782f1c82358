"""``blowout export-metrics``: the series of a run as OpenMetrics text."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click

from sim import results
from sim.commands.targets import FileToWrite
from sim.errors import InputError
from sim.interrupts import to_a_reader
from sim.run import require_finished
from sim.scenario.messages import condition


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=FileToWrite(), help="File to write (stdout if left out).")
def command(run: Path, out: Path | None) -> None:
    """Write what a Prometheus would have scraped from RUN as OpenMetrics text.

    RUN is the folder of a run, or of one point and seed in it. The text becomes the past of a real Prometheus with:
    promtool tsdb create-blocks-from openmetrics FILE DATA
    """
    from sim.telemetry import write_openmetrics

    member = _member(run)
    member.metrics(())
    with _opened(out) as text, to_a_reader():
        write_openmetrics(lambda name: member.metrics([name]), text)


def _member(path: Path) -> results.Member:
    """Return the one point and seed that *path* means."""
    if not (path / "run.json").exists() and (path / "member.json").exists():
        return results.Member({}, 0, path)
    run = results.Run.open(path)
    require_finished(run)
    if len(run.members) > 1:
        some = ", ".join(f"{one.path} ({condition({**one.point, 'seed': one.seed})})" for one in run.members[:3])
        raise InputError(f"{path}: {len(run.members)} points and seeds, expected the folder of one, such as {some}")
    return run.members[0]


@contextlib.contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    with out.open("w", encoding="utf-8") as file:
        yield file
