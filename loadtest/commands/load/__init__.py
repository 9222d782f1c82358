"""``blowout load``: the workload of a scenario against a real endpoint."""

import click

from sim.lazy import Lazy

COMMANDS = {
    "mark": ("loadtest.commands.load.mark", "Note that a fault was begun or ended by hand."),
}


@click.group(cls=Lazy, lazy=COMMANDS)
def command() -> None:
    """Drive any OpenAI-compatible endpoint, in open loop and in real time."""
