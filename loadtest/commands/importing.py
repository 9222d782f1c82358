"""``blowout import``: other tools' per-request files as run folders."""

import json
import sys
from pathlib import Path

import click

from loadtest.imports.read import FORMATS
from loadtest.imports.tables import FIELDS
from sim.errors import InputError
from sim.interrupts import to_a_reader


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "tool", type=click.Choice(FORMATS), help="Which tool wrote it [recognised].")
@click.option("--columns", metavar="WHAT=NAME,...", help=f"Of a CSV, which column is {', '.join(FIELDS)} [by name].")
@click.option("--scenario", metavar="FILE|NAME", help="The service that was measured; calibrate needs to know it.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the run; new or empty.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(file: Path, tool: str | None, columns: str | None, scenario: str | None, out: Path, as_json: bool) -> None:
    """Make a measured run of FILE, which holds a line or record for each request.

    Of vllm bench serve (--save-detailed), GuideLLM, AIPerf (JSON) or a gateway (CSV). Texts are left out.
    """
    from loadtest.imports import folder, read
    from sim import results
    from sim.commands import ready
    from sim.report import tables

    found = read.read(file, tool, _mapping(columns))
    loaded = ready.load(scenario, []) if scenario else None
    run = folder.write(found, file, loaded, results.new_folder(out, ""), ["blowout", *sys.argv[1:]])
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(tables.summary_json(run), indent=1))
        else:
            tables.show(run, sys.stdout)


def _mapping(text: str | None) -> dict[str, str]:
    """Return the columns by what they are."""
    found: dict[str, str] = {}
    for part in text.split(",") if text else []:
        what, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals or not name or what not in FIELDS:
            raise InputError(f"--columns: expected WHAT=NAME with WHAT one of {', '.join(FIELDS)}, got {part!r}")
        found[what] = name
    return found
