"""``blowout load``: the workload of a scenario against a real endpoint."""

import click

from sim.lazy import Lazy

COMMANDS = {
    "run": ("loadtest.commands.load.run", "Drive an endpoint with a scenario, or with a rate."),
    "knee": ("loadtest.commands.load.knee", "Find the highest rate that keeps an SLO."),
    "selftest": ("loadtest.commands.load.selftest", "Prove the tester itself on this machine."),
    "mark": ("loadtest.commands.load.mark", "Note that a fault was begun or ended by hand."),
}


@click.group(cls=Lazy, lazy=COMMANDS)
def command() -> None:
    """Drive any OpenAI-compatible endpoint, in open loop and in real time.

    Start with: blowout load run --url http://127.0.0.1:8000 --rate 5 --duration 1m
    """
