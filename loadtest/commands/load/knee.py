"""``blowout load knee``: the highest rate at which an endpoint keeps an SLO."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtest.commands.load import asking
from sim import results
from sim.errors import BlowoutError, InputError
from sim.interrupts import to_a_reader
from sim.scenario import Scenario

if TYPE_CHECKING:
    from loadtest.knee.judging import Objective
    from loadtest.knee.stages import Stages


@click.command("knee")
@click.argument("scenario", type=str, required=False)
@click.option("--url", required=True, help="The endpoint, such as http://127.0.0.1:8000.")
@click.option("--model", help="Model to ask for (the only one there, or those called like the pools).")
@click.option("--slo", help="What is to be kept, such as 'ttft_p99 < 2s, errors < 0.1%' [the scenario's slo].")
@click.option("--from", "low", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True,
              help="The first rate, requests a second.")  # fmt: skip
@click.option("--to", "high", type=click.FloatRange(min=0, min_open=True), default=1000.0, show_default=True,
              help="The highest rate.")  # fmt: skip
@click.option("--stage", default="30s", show_default=True, help="Length of a stage, after a quarter of it to warm up.")
@click.option("--repeat", type=click.IntRange(min=1), default=1, show_default=True, help="Search so often.")
@click.option("--prompt-tokens", type=click.IntRange(min=1), help="Without SCENARIO: tokens of a prompt [256].")
@click.option("--output-tokens", type=click.IntRange(min=1), help="Without SCENARIO: tokens of an answer [128].")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting, by its dotted path.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the first stage; later ones count up.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the results, new or empty.")
@click.option("--workers", type=click.IntRange(min=1, max=64), default=1, show_default=True, help="Sending processes.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'",
              help="Sent along; VALUE may be @FILE or env:VARIABLE.")  # fmt: skip
@click.option("--ca", type=click.Path(path_type=Path), help="Certificates to trust (PEM).")
@click.option("--i-own-this-endpoint", "owned", is_flag=True, help="Load something that is not this machine.")
@click.option("--no-figures", is_flag=True, help="Neither figures nor report.html.")
@click.option("--json", "as_json", is_flag=True, help="Print the knee and every stage as JSON.")
def command(
    scenario: str | None, url: str, model: str | None, slo: str | None, low: float, high: float, stage: str,
    repeat: int, out: Path | None, workers: int, headers: tuple[str, ...], ca: Path | None, owned: bool,
    no_figures: bool, as_json: bool, **given: Any,
) -> int:  # fmt: skip
    """Find the highest rate at which an endpoint keeps an SLO, for the users of SCENARIO or of the lengths given.

    Stages at doubled rates until one breaks, then between the last two. Each begins when the last was drained, and is
    judged by the share of its requests. Exit code 0: the knee was found, or everything was kept. 1: not even the first
    rate is. 2: bad input. 3: the tester was the limit. 4: the endpoint does not do its part. 130: interrupted.
    """
    asking.require_locust()
    from loadtest import play, preflight
    from loadtest.knee import judging, stages

    if low > high:
        raise InputError(f"--from {low:g}: expected no more than --to {high:g}")
    stage_s = asking.seconds("--stage", stage)
    sent = asking.headers(headers)
    os.environ[preflight.HEADERS] = json.dumps(sent)
    loaded = asking.scenario(scenario, rate=None, closed=None, duration=None, **given)
    wanted = stages.Wanted(judging.objectives(_slo(slo, loaded), loaded), low, high, stage_s, repeat)
    users = stages.scenario_of(loaded, stage_s)
    preflight.allowed(url, owned)
    order = play.Order(users, url, model, 1, workers, sent, str(ca) if ca else None, 600.0, stand_in=scenario is None)
    found = play.planned(order)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    folder = results.new_folder(out, f"{loaded.name}-knee")
    return _searched(order, found, wanted, folder, no_figures, as_json)


def _searched(order: Any, found: Any, wanted: Any, folder: Path, no_figures: bool, as_json: bool) -> int:
    """Search, print what was found, and return the exit code."""
    from loadtest.knee import told
    from loadtest.knee.stages import Stages

    typed = ["blowout", *asking.without_secrets(sys.argv[1:])]
    searched = Stages(
        order, found, wanted, folder, typed, lambda one: click.echo(told.line(one), err=True), lambda *_: None
    )
    try:
        run = searched.run()
        if not no_figures:
            from sim import report

            report.write_figures(run)
            report.write_html(run)
            _draw(searched, wanted.objectives, order.scenario, folder)
    except KeyboardInterrupt:
        click.echo(f"interrupted; stages so far are kept in {folder}: blowout report {folder}", err=True)
        return 130
    except BlowoutError as error:
        if searched.stages:
            _print(searched, folder, as_json)
        raise type(error)(f"{error}; see {folder}") from None
    _print(searched, folder, as_json)
    return 0 if searched.knee.rate_per_s else 1


def _print(searched: "Stages", folder: Path, as_json: bool) -> None:
    from loadtest.knee import stages as played
    from loadtest.knee import told

    with to_a_reader():
        if as_json:
            shown = played.as_json(searched.knee, searched.stages) | {"run": str(folder)}
            click.echo(json.dumps(results.plain(shown), indent=1))
        else:
            told.show(folder, searched.knee, searched.stages)


def _slo(given: str | None, scenario: Scenario) -> list[str]:
    """Return each objective as a text: those given, else those of the scenario."""
    if given is not None:
        return given.split(",")
    from sim.claims import is_time
    from sim.words import show

    targets = scenario.slo.targets
    if not targets:
        raise InputError("--slo: expected what is to be kept, such as 'ttft_p99 < 2s', for the scenario has no slo")
    return [f"{name} < {show(bound)}{'s' if is_time(name) else ''}" for name, bound in targets.items()]


def _draw(searched: "Stages", slo: "Sequence[Objective]", scenario: Scenario, folder: Path) -> None:
    from loadtest.knee import told
    from sim.report import style

    text = ", ".join(one.text for one in slo)
    style.save(told.plate(searched.knee, searched.stages, text, scenario.name), folder / "figures" / "knee.png")
