"""``blowout alerts export``: rules, promtool tests of them, a dashboard, in one folder to be shipped."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import click

from sim.commands.alerts.common import JSON, RULES, again, options, read_rules
from sim.commands.alerts.pasts import Chosen, takes_pasts
from sim.errors import InputError
from sim.interrupts import to_a_reader


@click.command()
@takes_pasts()
@options(RULES)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write, new or empty.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="For a service served this much faster.")
@JSON
def command(chosen: Chosen, rules: tuple[str, ...], out: Path, speed: float, as_json: bool) -> int:
    """Write the rules, promtool tests of when they fire on RUN_OR_FILE, and a Grafana dashboard to a folder.

    The tests hold a stretch in which no alert fired and one around the first that did.
    """
    from sim.alerts.shipping.export import export, write
    from sim.report import shipping

    if not 0 < speed < float("inf"):
        raise InputError(f"--speed: expected a number above 0, got {speed:g}")
    past, groups = chosen.pasts[0], read_rules(rules)
    series = past.read(groups)
    name = past.name if chosen.is_live else chosen.again
    with _watched() as say:
        made = export(groups, series, past.span_ms, name if past.member is None else f"{name}, {past.name}", speed, say)
    write(made, out)
    checks = [(f"promtool check rules {out}/rules/*.yml", "whether they are valid")]
    if made.tests:
        checks.append((f"promtool test rules {out}/tests/*.yml", "whether they fire when we say"))
    checks.append((f"blowout alerts lint {chosen.again} {again(rules)}", "what is wrong with them"))
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(shipping.as_json(made, out), indent=1))
        else:
            shipping.show(made, f"{out}, from {chosen.title_of_first}", checks, sys.stdout)
    return 0


class _Said:
    """Says on stderr what is going on, in one line that changes."""

    def __init__(self) -> None:
        from rich.console import Console

        self.status = Console(stderr=True).status("reading")

    def __enter__(self) -> "_Said":
        self.status.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.status.stop()

    def __call__(self, what: str) -> None:
        self.status.update(f"{what} ...")


def _watched() -> "_Said | nullcontext":
    return _Said() if sys.stderr.isatty() else nullcontext(lambda what: None)
