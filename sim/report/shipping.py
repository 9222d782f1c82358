"""What was written to be shipped: files, assertions, and what is not tested; in a terminal and as JSON."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sim.alerts.shipping.export import Export
from sim.report import alerting, printing
from sim.words import count

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(made: Export, heading: str, commands: Sequence[tuple[str, str]], file: IO[str]) -> None:
    """Print what was written to *file*, under *heading*."""
    from rich.text import Text

    rows: list[list[printing.Cell]] = []
    tests = {test.file: test for test in made.tests}
    for name in made.files:
        said = ""
        if name in tests:
            test = tests[name]
            fired = len({alert for alert, episode in test.expected if episode.firing_ms is not None})
            said = f"{count(test.assertions, 'assertion')} from {alerting.moment(test.from_ms)} on; "
            said += f"{count(fired, 'alert')} fired"
        rows.append([name, Text(said, style="dim")])
    table = printing.table(("file", ""), rows, texts=(1,))
    lines: list[RenderableType] = [Text(heading, style="bold"), Text(), table]
    missing: list[RenderableType] = [Text(line) for line in made.left_out]
    printing.show([("", lines), ("Not tested", missing)], commands, file or sys.stdout)


def as_json(made: Export, folder: Path) -> dict[str, Any]:
    """Return the same for programs; times are milliseconds."""
    return {
        "folder": str(folder),
        "files": list(made.files),
        "tests": [
            {
                "file": t.file,
                "stretch": t.stretch,
                "from_ms": t.from_ms,
                "length_ms": t.length_ms,
                "assertions": t.assertions,
            }
            for t in made.tests
        ],
        "not_tested": made.left_out,
    }
