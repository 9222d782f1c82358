"""``blowout load run``: drive an endpoint with a scenario, or with a rate."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtest.commands.load import asking, judging
from sim import results
from sim.errors import BlowoutError, InputError
from sim.interrupts import to_a_reader
from sim.scenario import Scenario

if TYPE_CHECKING:
    from loadtest.beside import Say
    from loadtest.drive import Progress
    from sim.alerts.rulefile import Group

TOKEN = "BLOWOUT_PROMETHEUS_TOKEN"
REDRAW_S = 0.5
LINE_S = 30.0
"""Between two lines of progress where nobody watches a terminal."""


@click.command()
@click.argument("scenario", type=str, required=False)
@click.option("--url", required=True, help="The endpoint, such as http://127.0.0.1:8000.")
@click.option("--model", help="Model to ask for (the only one there, or those called like the pools).")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Without SCENARIO: requests a second [1].")
@click.option("--closed", type=click.IntRange(min=1), help="Without SCENARIO: so many users in a closed loop instead.")
@click.option("--prompt-tokens", type=click.IntRange(min=1), help="Without SCENARIO: tokens of a prompt [256].")
@click.option("--output-tokens", type=click.IntRange(min=1), help="Without SCENARIO: tokens of an answer [128].")
@click.option("--duration", help="Length of the run [the scenario's, or 1m].")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting, by its dotted path.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of all users (the scenario's own if left out).")
@click.option("--repeat", type=click.IntRange(min=1), default=1, show_default=True,
              help="Play it so often, with seeds counted up.")  # fmt: skip
@click.option("--speed", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True,
              help="Model seconds a wall second, as `blowout serve --speed` says.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the results, new or empty.")
@click.option("--workers", type=click.IntRange(min=1, max=64), default=1, show_default=True, help="Sending processes.")
@click.option("--timeout", help="Of an attempt, where the scenario's clients have none [10m].")
@click.option("--max-requests", type=click.IntRange(min=1), help="Send no more requests than this.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Ask for no more tokens than this, prompts included.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'",
              help="Sent along; VALUE may be @FILE or env:VARIABLE.")  # fmt: skip
@click.option("--ca", type=click.Path(path_type=Path), help="Certificates to trust (PEM).")
@click.option("--metrics-url", "pages", multiple=True, metavar="URL",
              help="A server's /metrics page; repeat for more [URL/metrics].")  # fmt: skip
@click.option("--prometheus-url", "prometheus", metavar="URL", help="A Prometheus that scrapes the servers, instead.")
@click.option("--rules", "rules", multiple=True, metavar="FILE|NAME",
              help="Rule file, or a shipped set, to judge and prove; repeat for more.")  # fmt: skip
@click.option("--prometheus-bin", metavar="PATH", help="A Prometheus to start beside it, to be compared with us.")
@click.option("--run-commands", is_flag=True, help="Run start_cmd and stop_cmd of faults, with your rights.")
@click.option("--excerpts", is_flag=True, help="Keep the first 200 letters of answers that fail a check.")
@click.option("--i-own-this-endpoint", "owned", is_flag=True, help="Load something that is not this machine.")
@click.option("--no-figures", is_flag=True, help="Neither figures nor report.html.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    scenario: str | None, url: str, model: str | None, out: Path | None, workers: int, timeout: str | None,
    max_requests: int | None, max_tokens: int | None, headers: tuple[str, ...], ca: Path | None,
    pages: tuple[str, ...], prometheus: str | None, owned: bool, no_figures: bool, as_json: bool, repeat: int,
    rules: tuple[str, ...], prometheus_bin: str | None, run_commands: bool, excerpts: bool, speed: float, **given: Any,
) -> int:  # fmt: skip
    """Send what the users of SCENARIO ask to an OpenAI-compatible endpoint, when they ask it.

    SCENARIO is a file or the name of a shipped one; without it, --rate and the lengths say who asks. The key is taken
    from BLOWOUT_API_KEY or OPENAI_API_KEY.

    Exit code 0: every claim of the scenario holds, and every rule did what was expected. 1: one does not. 2: bad
    input. 3: not valid, the tester was saturated. 4: the endpoint does not do its part. 130: interrupted; rows so far
    are kept.
    """
    asking.require_locust()
    from loadtest import play, preflight

    if run_commands and speed != 1:
        raise InputError("--run-commands: expected none with --speed, for commands take their time on the wall clock")
    sent = asking.headers(headers)
    os.environ[preflight.HEADERS] = json.dumps(sent)
    loaded = asking.scenario(scenario, **given)
    judging.require_judges(loaded)
    groups = judging.rules_of(rules, loaded, prometheus_bin, prometheus)
    preflight.allowed(url, owned)
    timeout_s = asking.seconds("--timeout", timeout or "10m")
    order = play.Order(
        loaded, url, model, repeat, workers, sent, str(ca) if ca else None, timeout_s,
        max_requests, max_tokens, pages, prometheus, os.environ.get(TOKEN), scenario is None,
        groups, run_commands, excerpts, prometheus_bin, rules, speed,
    )  # fmt: skip
    found = play.planned(order)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    folder = results.new_folder(out, loaded.name)
    typed = ["blowout", *asking.without_secrets(sys.argv[1:])]
    try:
        with progress_of(loaded, repeat) as (progress, say):
            run = play.play(order, found, folder, typed, progress, say)
        if not no_figures:
            from sim import report

            report.write_figures(run)
            report.write_html(run)
    except KeyboardInterrupt:
        click.echo(f"interrupted; rows so far are kept in {folder}: blowout report {folder}", err=True)
        return 130
    except BlowoutError as error:
        raise type(error)(f"{error}; see {folder}") from None
    return _concluded(run, rules, groups, as_json, not no_figures)


def _concluded(run: results.Run, rules: tuple[str, ...], groups: "Sequence[Group]", as_json: bool, draw: bool) -> int:
    """Print what came of a run, and of the rules; return the exit code."""
    from loadtest import play

    for said in judging.not_injected(run):
        click.echo(f"note: {said}", err=True)
    with to_a_reader():
        if not as_json:
            _print(run)
        judged = judging.judged(run, rules, groups, draw) if groups else None
        if as_json:
            from sim import report

            click.echo(json.dumps(report.summary_json(run) | (judged.as_json if judged else {}), indent=1))
        elif judged:
            judged.show()
    play.require_valid(run)
    if any(not verdict["passed"] for verdict in run.verdicts or []):
        return 1
    return judged.code if judged else 0


def _print(run: results.Run) -> None:
    from sim import report

    report.tables.show(run)


@contextmanager
def progress_of(scenario: Scenario, repeats: int) -> "Iterator[tuple[Progress, Say]]":
    """Show time, requests sent, in flight and dropped, and what alerts do, on stderr: a line now and then in a file."""
    if not sys.stderr.isatty():
        yield _line_now_and_then(scenario), lambda said: click.echo(said, err=True)
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{scenario.name}: starting Locust ...") as status:
        drawn_s = 0.0

        def progress(now_s: float, states: Sequence[Mapping[str, Any]]) -> None:
            nonlocal drawn_s
            if time.monotonic() - drawn_s < REDRAW_S:
                return
            drawn_s = time.monotonic()
            status.update(_how_far(scenario, now_s, states))

        yield progress, lambda said: status.console.print(said, markup=False)


def _line_now_and_then(scenario: Scenario) -> "Progress":
    told_s = time.monotonic()

    def progress(now_s: float, states: Sequence[Mapping[str, Any]]) -> None:
        nonlocal told_s
        if time.monotonic() - told_s > LINE_S:
            told_s = time.monotonic()
            click.echo(_how_far(scenario, now_s, states), err=True)

    return progress


def _how_far(scenario: Scenario, now_s: float, states: Sequence[Mapping[str, Any]]) -> str:
    total = {name: sum(state[name] for state in states) for name in ("sent", "in_flight", "dropped")}
    dropped = f", {total['dropped']:,} dropped" if total["dropped"] else ""
    return (
        f"{scenario.name}: {max(0.0, now_s):,.0f} of {scenario.duration:,.0f} s, {total['sent']:,} sent, "
        f"{total['in_flight']:,} in flight{dropped}"
    )
