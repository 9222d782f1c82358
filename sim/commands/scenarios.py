"""``blowout scenarios``: what is shipped."""

import json

import click

from sim import scenario as scenarios


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(as_json: bool) -> None:
    """List the scenarios that are shipped; each can be played by its name."""
    found = {name: scenarios.load(path) for name, path in scenarios.shipped().items()}
    if as_json:
        rows = [{"name": name, "title": one.title, "story": one.story} for name, one in found.items()]
        click.echo(json.dumps(rows, indent=1))
        return
    width = max(map(len, found), default=0)
    for name, one in found.items():
        click.echo(f"{name:<{width}}  {one.title or one.story}")
    click.echo("\nnext: blowout run " + next(iter(found), "SCENARIO"))
