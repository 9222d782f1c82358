"""``blowout load mark``: somebody broke something by hand, or mended it, while a load test goes on."""

import json
from pathlib import Path

import click

from loadtest import faults
from sim.interrupts import to_a_reader


@click.command("mark")
@click.argument("name")
@click.argument("phase", metavar="start|stop", type=click.Choice(["start", "stop"]))
@click.option("--run", type=click.Path(path_type=Path), help="Folder of the run [the newest under results/].")
@click.option("--json", "as_json", is_flag=True, help="Print the event as JSON.")
def command(name: str, phase: str, run: Path | None, as_json: bool) -> None:
    """Note in the events of a load test that the fault NAME was begun or ended by hand just now."""
    folder = run or faults.newest(Path("results"))
    event, known = faults.mark(folder, name, phase)
    if not known:
        click.echo(f"{name}: no fault of the scenario is called so; noted all the same", err=True)
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(event))
            return
        click.echo(f"{folder}: {event['event'].replace('_', ' ')} at {event['t_s']:.0f} s: {name}")
        other = "stop" if phase == "start" else "start"
        click.echo(
            f"\nNext\n  blowout load mark {name!r} {other}   # when it {'ends' if other == 'stop' else 'begins'}"
        )
