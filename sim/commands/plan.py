"""``blowout plan``: the cheapest fleet that keeps its promises."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim import results
from sim import scenario as scenarios
from sim.commands import ready
from sim.commands.alerts.common import JSON, NO_FIGURES, options
from sim.commands.run import warm
from sim.errors import BlowoutError, InputError
from sim.interrupts import Interrupts, to_a_reader
from sim.units import fraction
from sim.workers import cores

if TYPE_CHECKING:
    from sim.planning.objective import Bound
    from sim.planning.plan import Plan


@click.command()
@click.argument("scenario", type=str)
@options(
    click.option("--slo", metavar="BOUNDS", help="Promises, such as 'ttft_p99 < 2s, errors < 0.1%' [the scenario's]."),
    click.option("--vary", multiple=True, metavar="KEY=VALUES",
                 help="What may be chosen: replicas=1:32, hardware=a100,h100 [replicas=1:64 of an only pool]."),
    click.option("--survive", type=click.IntRange(min=0), default=0, help="Replicas of any pool that may be gone."),
    click.option("--under", metavar="SCENARIO", help="Also with what goes wrong in this scenario."),
    click.option("--gpus", type=click.IntRange(min=1), help="Most GPUs there are, for all pools together."),
    click.option("--price", type=click.Path(path_type=Path), metavar="FILE",
                 help="YAML: what a GPU costs an hour, such as `h100: 2.50` [public prices]."),
    click.option("--growth", metavar="RATE", help="Such as 8%/month: says when the fleet runs out, and what to buy."),
    click.option("--model-error", metavar="SHARE",
                 help="How wrong step times may be, as 10% [as the profile was measured; 15% if nobody measured]."),
    click.option("--confidence", default="95%", show_default=True, help="That the next run keeps every promise."),
    click.option("--seeds", type=click.IntRange(min=3), default=10, show_default=True,
                 help="Most runs of a fleet; 19 where they do not look normal."),
    click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting, by its path."),
    click.option("--workers", type=click.IntRange(min=1), help="Processes to use (all cores if left out)."),
    click.option("--out", type=click.Path(path_type=Path, file_okay=False),
                 help="Folder for the plan, new or empty [results/NAME-plan/001, 002, ...]."),
    NO_FIGURES,
    JSON,
)  # fmt: skip
def command(
    scenario: str,
    slo: str | None,
    vary: tuple[str, ...],
    survive: int,
    under: str | None,
    gpus: int | None,
    price: Path | None,
    growth: str | None,
    model_error: str | None,
    confidence: str,
    seeds: int,
    overrides: tuple[str, ...],
    workers: int | None,
    out: Path | None,
    no_figures: bool,
    as_json: bool,
) -> int:
    """Find the cheapest fleet that keeps the promises of SCENARIO, and say why nothing cheaper does.

    Exit code 0: there is one. 1: no fleet that may be chosen keeps them. 2: bad input. 130: interrupted.
    """
    from sim.planning import fleets, headroom, plan, prices, printed, trials, values

    varied = values.varied(vary)
    loaded = _one_point(ready.load(scenario, overrides, built=lambda pool: not fleets.replaces(varied, pool)))
    question = plan.Question(
        loaded,
        _promises(loaded, slo),
        tuple(fleets.axes(loaded, varied)),
        prices.read(price),
        survive,
        _one_point(ready.load(under, ())) if under else None,
        headroom.read_growth(growth) if growth else None,
        gpus,
        seeds,
        _share("--confidence", confidence, 0.5, 0.99),
        None if model_error is None else _share("--model-error", model_error, 0.0, 1.0),
    )
    folder = results.new_folder(out, f"{loaded.name}-plan")
    try:
        warm()
        with Interrupts() as interrupts, _told(loaded.name) as tell, trials.crew(workers) as crew:
            found = plan.make(question, crew, workers or cores(), tell, interrupts.check)
    except KeyboardInterrupt:
        _take_away(folder, out)
        click.echo("interrupted; nothing was decided", err=True)
        return 130
    except BlowoutError:
        _take_away(folder, out)
        raise
    results.write_json(folder / "plan.json", printed.as_json(found))
    commands = _written(found, folder, no_figures)
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(printed.as_json(found), indent=1))
        else:
            printed.show(found, commands, sys.stdout)
    return 0 if found.best else 1


def _take_away(folder: Path, out: Path | None) -> None:
    """Remove *folder*, into which nothing was written, and what was made around it where *out* was left out."""
    for path in (folder, *folder.parents[:2]) if out is None else (folder,):
        with suppress(OSError):
            path.rmdir()


def _promises(loaded: scenarios.Scenario, slo: str | None) -> "tuple[Bound, ...]":
    """Return the promises in *slo*, or those of the scenario itself."""
    from sim.planning import objective
    from sim.run import known_metrics

    if slo is not None:
        return objective.read(slo, known_metrics(loaded))
    if not loaded.slo.targets:
        raise InputError(f"{loaded.name} promises nothing: expected --slo, such as 'ttft_p99 < 2s, errors < 0.1%'")
    return tuple(objective.Bound(name, bound) for name, bound in loaded.slo.targets.items())


def _written(found: "Plan", folder: Path, no_figures: bool) -> list[tuple[str, str]]:
    """Write the figure and the scenario of the chosen fleet into *folder*, and return what is worth typing next."""
    from sim.planning import figure, moves_figure
    from sim.report import style

    commands = []
    if found.best is not None:
        chosen = scenarios.changed(found.question.scenario, found.space.settings(found.best.fleet))
        promises = {f"promise_{k}": bound.text for k, bound in enumerate(found.question.bounds, 1)}
        chosen = chosen.model_copy(update={"claims": promises, "seeds": found.question.seeds})
        file = folder / "scenario.yaml"
        file.write_text(scenarios.dump(chosen, folder), encoding="utf-8")
        commands.append((shlex.join(["blowout", "run", str(file)]), "play the chosen fleet, its promises as claims"))
    commands.append((str(folder / "plan.json"), "every fleet, run and reason"))
    if not no_figures:
        plates = {"plan.png": figure.plate(found)} | ({"moves.png": moves_figure.plate(found)} if found.moves else {})
        for name, plate in plates.items():
            style.save(plate, folder / name)
        commands[:0] = [(str(folder / name), plate.topic.lower()) for name, plate in plates.items()]
    return commands


def _one_point(loaded: scenarios.Scenario) -> scenarios.Scenario:
    """Return *loaded* without its sweep: a plan varies the fleet, at one load."""
    if loaded.vary:
        what = ", ".join(loaded.vary)
        click.echo(f"{loaded.name}: its own sweep of {what} is left out; the file's own value counts", err=True)
    return loaded.model_copy(update={"vary": {}, "claims": {}})


def _share(option: str, text: str, least: float, most: float) -> float:
    try:
        share = fraction(text if not _is_number(text) else float(text))
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None
    if not least <= share <= most:
        raise InputError(f"{option}: expected {100 * least:g}% to {100 * most:g}%, got {text}")
    return share


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextmanager
def _told(name: str) -> Iterator[Callable[[str], None]]:
    """Say on stderr what is being played while a person is watching it; elsewhere only the first of it."""
    if not sys.stderr.isatty():
        said: list[str] = []

        def first(what: str) -> None:
            if not said:
                click.echo(f"{name}: {what}", err=True)
            said.append(what)

        yield first
        return
    from rich.console import Console

    with Console(stderr=True).status(name) as status:
        yield lambda what: status.update(f"{name}: {what}")
