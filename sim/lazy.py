"""Groups of commands that are imported only when one is called."""

import importlib
from collections.abc import Mapping
from typing import Any

import click

from sim.interrupts import to_a_reader

Commands = Mapping[str, tuple[str, str]]
"""Module and one sentence by name, in the order in which a new user meets them."""


class Lazy(click.Group):
    """A group whose commands are imported only when one is called: each module has one called ``command``."""

    def __init__(self, *args: Any, lazy: Commands, **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a new user meets them."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in self.lazy:
            return None
        command: click.Command = importlib.import_module(self.lazy[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in self.lazy.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse an unknown command with the names close to it."""
        if args[0] not in self.lazy:
            from sim.words import did_you_mean

            ctx.fail(f"no such command: {args[0]}{did_you_mean(args[0], self.lazy)}")
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
