"""``blowout load run``: drive an endpoint with a scenario, or with a rate."""

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtest import synthesis
from loadtest.commands.load import judging
from sim import results
from sim.commands import ready
from sim.errors import BlowoutError, InputError
from sim.interrupts import to_a_reader
from sim.scenario import Scenario
from sim.units import duration_s

if TYPE_CHECKING:
    from loadtest.beside import Say
    from loadtest.drive import Progress
    from sim.alerts.rulefile import Group

TOKEN = "BLOWOUT_PROMETHEUS_TOKEN"
REDRAW_S = 0.5
_HEADER = re.compile(r"([A-Za-z0-9-]+)\s*:\s*(\S.*)")
_ALONE = {name: default for name, (_, default, _) in synthesis.OPTIONS.items()}


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
@click.option("--i-own-this-endpoint", "owned", is_flag=True, help="Load something that is not this machine.")
@click.option("--no-figures", is_flag=True, help="Neither figures nor report.html.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    scenario: str | None, url: str, model: str | None, out: Path | None, workers: int, timeout: str | None,
    max_requests: int | None, max_tokens: int | None, headers: tuple[str, ...], ca: Path | None,
    pages: tuple[str, ...], prometheus: str | None, owned: bool, no_figures: bool, as_json: bool, repeat: int,
    rules: tuple[str, ...], prometheus_bin: str | None, run_commands: bool, **given: Any,
) -> int:  # fmt: skip
    """Send what the users of SCENARIO ask to an OpenAI-compatible endpoint, when they ask it.

    SCENARIO is a file or the name of a shipped one; without it, --rate and the lengths say who asks. The key is taken
    from BLOWOUT_API_KEY or OPENAI_API_KEY.

    Exit code 0: every claim of the scenario holds, and every rule did what was expected. 1: one does not. 2: bad
    input. 3: not valid, the tester was saturated. 4: the endpoint does not do its part. 130: interrupted; rows so far
    are kept.
    """
    from loadtest import play, preflight

    if find_spec("locust") is None:
        raise InputError("load tests need Locust, which is not installed; try: pip install 'blowout[loadtest]'")
    sent = _headers(headers)
    os.environ[preflight.HEADERS] = json.dumps(sent)
    loaded = _scenario(scenario, **given)
    groups = judging.rules_of(rules, loaded, prometheus_bin, prometheus)
    preflight.allowed(url, owned)
    order = play.Order(
        loaded, url, model, repeat, workers, sent, str(ca) if ca else None, _seconds("--timeout", timeout or "10m"),
        max_requests, max_tokens, pages, prometheus, os.environ.get(TOKEN), scenario is None,
        groups, run_commands, prometheus_bin,
    )  # fmt: skip
    found = play.planned(order)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    folder = results.new_folder(out, loaded.name)
    typed = ["blowout", *_without_secrets(sys.argv[1:])]
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
    return _concluded(run, rules, groups, as_json)


def _concluded(run: results.Run, rules: tuple[str, ...], groups: "Sequence[Group]", as_json: bool) -> int:
    """Print what came of a run, and of the rules; return the exit code."""
    from loadtest import play

    for said in judging.not_injected(run):
        click.echo(f"note: {said}", err=True)
    with to_a_reader():
        if not as_json:
            _print(run)
        judged = judging.judged(run, rules, groups) if groups else None
        if as_json:
            from sim import report

            click.echo(json.dumps(report.summary_json(run) | (judged.as_json if judged else {}), indent=1))
        elif judged:
            judged.show()
    play.require_valid(run)
    if any(not verdict["passed"] for verdict in run.verdicts or []):
        return 1
    return judged.code if judged else 0


def _scenario(source: str | None, overrides: tuple[str, ...], seed: int | None, **given: Any) -> Scenario:
    """Return the scenario to play: the one named, or one made of options."""
    if source is None:
        chosen = {name: _ALONE[name] if value is None else value for name, value in given.items()}
        if given["rate"] is not None and given["closed"] is not None:
            raise InputError("--closed: expected either --rate (open loop) or --closed (so many users), not both")
        made = synthesis.scenario(**chosen, seed=1 if seed is None else seed)
        if overrides:
            raise InputError(f"--set {overrides[0]}: expected a SCENARIO to change")
        return made
    for name in ("rate", "closed", "prompt_tokens", "output_tokens"):
        if given[name] is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option}: expected none with a scenario; change that with --set KEY=VALUE")
    changes = [*overrides]
    changes += [f"duration={given['duration']}"] if given["duration"] else []
    changes += [f"seed={seed}"] if seed is not None else []
    loaded = ready.load(source, changes)
    for name, cohort in loaded.workload.cohorts.items():
        if cohort.agent is not None:
            why = "which needs to know which answers are right, and nobody knows that of a real service"
            raise InputError(f"{source}: workload.cohorts.{name}.agent: expected none in a load test, {why}")
    return loaded


def _seconds(option: str, text: str) -> float:
    try:
        found = duration_s(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None
    if found <= 0:
        raise InputError(f"{option}: expected a duration above 0")
    return found


def _headers(given: Sequence[str]) -> dict[str, str]:
    """Return the headers that *given* says; values may come from a file or a variable."""
    found = {}
    for one in given:
        match = _HEADER.fullmatch(one)
        if match is None:
            raise InputError(f"--header {one[:20]!r}: expected 'NAME: VALUE'")
        name, value = match.groups()
        if value.startswith("@"):
            try:
                value = Path(value[1:]).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise InputError(f"--header {name}: {value[1:]} cannot be read ({error.strerror})") from None
        elif value.startswith("env:"):
            if value[4:] not in os.environ:
                raise InputError(f"--header {name}: there is no variable {value[4:]}")
            value = os.environ[value[4:]]
        found[name] = value
    return found


def _without_secrets(typed: Sequence[str]) -> list[str]:
    """Return the command as it was typed, without the values of headers."""
    return [
        re.sub(r":.*", ": ...", word) if before == "--header" else word for before, word in zip(["", *typed], typed)
    ]


def _print(run: results.Run) -> None:
    from sim import report

    report.tables.show(run)


@contextmanager
def progress_of(scenario: Scenario, repeats: int) -> "Iterator[tuple[Progress, Say]]":
    """Show time, requests sent, in flight and failed, and what alerts do, on stderr, when a person is watching it."""
    if not sys.stderr.isatty():
        yield lambda now_s, states: None, lambda said: None
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{scenario.name}: starting Locust ...") as status:
        drawn_s = 0.0

        def progress(now_s: float, states: Sequence[Mapping[str, Any]]) -> None:
            nonlocal drawn_s
            if time.monotonic() - drawn_s < REDRAW_S:
                return
            drawn_s = time.monotonic()
            total = {name: sum(state[name] for state in states) for name in ("sent", "in_flight", "dropped")}
            dropped = f", {total['dropped']:,} dropped" if total["dropped"] else ""
            status.update(
                f"{scenario.name}: {max(0.0, now_s):,.0f} of {scenario.duration:,.0f} s, {total['sent']:,} sent, "
                f"{total['in_flight']:,} in flight{dropped}"
            )

        yield progress, lambda said: status.console.print(said, markup=False)
