"""The command line: each command loads, calls and writes. Commands are imported when they are used."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from sim import __version__
from sim.errors import BlowoutError
from sim.interrupts import to_a_reader

COMMANDS = {
    "run": ("sim.commands.run", "Play a scenario in virtual time."),
    "init": ("sim.commands.init", "Write a scenario from what you already run."),
    "check": ("sim.commands.check", "Check a scenario without playing it."),
    "scenarios": ("sim.commands.scenarios", "List the scenarios that are shipped."),
    "hardware": ("sim.commands.hardware", "List models, hardware and the step times there are."),
    "report": ("sim.commands.report", "Draw the figures and the report of a run again."),
    "why": ("sim.commands.why", "Say why the slowest requests of a run were slow."),
    "export-metrics": ("sim.commands.export_metrics", "Write a run's series as Prometheus takes them in."),
    "schema": ("sim.commands.schema", "Print the JSON Schema of scenario files."),
}


class Lazy(click.Group):
    """A group whose commands are imported only when one is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a new user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse an unknown command with the names close to it."""
        if args[0] not in COMMANDS:
            from sim.words import did_you_mean

            ctx.fail(f"no such command: {args[0]}{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Call the command; whoever reads its output may stop reading."""
        with to_a_reader():
            return super().invoke(ctx)
        return 0

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the options; ``--help`` prints here."""
        with to_a_reader():
            return super().make_context(*args, **extra)
        raise click.exceptions.Exit(0)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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
    return f"{error.ctx.command_path}: {said[0].lower()}{said[1:].rstrip('.')}; see {error.ctx.command_path} --help"
