"""The command line: each command loads, calls and writes. Commands are imported when they are used."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from sim import __version__
from sim.errors import BlowoutError
from sim.lazy import Lazy

COMMANDS = {
    "run": ("sim.commands.run", "Play a scenario in virtual time."),
    "init": ("sim.commands.init", "Write a scenario from what you already run."),
    "check": ("sim.commands.check", "Check a scenario without playing it."),
    "scenarios": ("sim.commands.scenarios", "List the scenarios that are shipped."),
    "hardware": ("sim.commands.hardware", "List models, hardware and the step times there are."),
    "sweep": ("sim.commands.sweep", "Play every combination of settings, on all cores or a cluster."),
    "load": ("loadtest.commands.load", "Drive a real endpoint with the users of a scenario."),
    "import": ("loadtest.commands.importing", "Make a measured run of another tool's file of requests."),
    "calibrate": ("sim.commands.calibrate", "Make step times out of measured runs, and say how far to trust them."),
    "report": ("sim.commands.report", "Draw the figures and the report of a run again."),
    "compare": ("sim.commands.compare", "Say whether two runs differ by more than their noise."),
    "plan": ("sim.commands.plan", "Find the cheapest fleet that keeps its promises."),
    "why": ("sim.commands.why", "Say why the slowest requests of a run were slow."),
    "odds": ("sim.commands.odds", "Say what an error rate comes to at scale, on the back of an envelope."),
    "calibration": ("sim.commands.calibration", "Say what a model's confidence is worth, from your own answers."),
    "reproduce": ("sim.commands.reproduce", "Measure the 57 claims that Blowout grew from: right, loose or wrong."),
    "alerts": ("sim.commands.alerts", "Judge, score, tune and ship Prometheus rules."),
    "serve": ("loadtest.commands.serve", "Serve a scenario over HTTP as OpenAI would, in real time."),
    "export-metrics": ("sim.commands.export_metrics", "Write a run's series as Prometheus takes them in."),
    "schema": ("sim.commands.schema", "Print the JSON Schema of scenario files."),
}


@click.group(
    cls=Lazy, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="blowout")
def blowout() -> None:
    """Know how your LLM service fails, before its users do.

    Start with: blowout run kv-cliff
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; every failure that a user can mend is one sentence and an exit code."""
    for name in ("stdout", "stderr"):  # None when the shell has closed it
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as we live
    try:
        code = blowout.main(None if args is None else list(args), prog_name="blowout", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        _end(_sentence(error), 2)
    except BlowoutError as error:
        _end(str(error), error.exit_code)
    except OSError as error:
        _end(f"{error.filename or 'a file'}: cannot be read or written ({error.strerror or error})", 2)
    except (KeyboardInterrupt, click.Abort):
        _end("interrupted", 130)
    except Exception:
        traceback.print_exc()
        _end("this is a fault of Blowout's own; please report it with the lines above", 3)


def _end(said: str, code: int) -> NoReturn:
    click.echo(said, err=True)
    sys.exit(code)


def _sentence(error: click.ClickException) -> str:
    """Return what is wrong with how a command was typed, and where to read how it goes."""
    said = error.format_message()
    if said.startswith("Usage:") or not isinstance(error, click.UsageError) or error.ctx is None:  # it is the help
        return said
    path, said = error.ctx.command_path, said[0].lower() + said[1:].rstrip(".")
    return f"{path}: {said}{' See' if said.endswith('?') else '; see'} {path} --help"
