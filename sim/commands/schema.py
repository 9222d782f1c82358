"""``blowout schema``: what editors need to help with scenario files."""

import json

import click

from sim import scenario as scenarios


@click.command()
def command() -> None:
    """Print the JSON Schema of scenario files."""
    click.echo(json.dumps(scenarios.json_schema(), indent=2))
