"""The command line: each command loads, calls and writes. Commands are imported when they are used."""

import importlib
import sys
from collections.abc import Sequence

import click

from sim import __version__
from sim.errors import BlowoutError

COMMANDS = {
    "run": ("sim.commands.run", "Play a scenario in virtual time."),
    "init": ("sim.commands.init", "Write a scenario from what you already run."),
    "check": ("sim.commands.check", "Check a scenario without playing it."),
    "scenarios": ("sim.commands.scenarios", "List the scenarios that are shipped."),
    "hardware": ("sim.commands.hardware", "List models, hardware and the step times there are."),
    "report": ("sim.commands.report", "Draw the figures and the report of a run again."),
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


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="blowout")
def blowout() -> None:
    """Know how your LLM service fails, before its users do.

    Start with: blowout run kv-cliff
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; every failure that a user can mend is one sentence and an exit code."""
    try:
        code = blowout.main(args=list(args) if args is not None else None, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except BlowoutError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        sys.exit(0)
