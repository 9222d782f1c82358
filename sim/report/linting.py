"""Findings about rules, told in a terminal: what is wrong, why (once a kind), what to write instead; and as JSON."""

import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from sim.alerts.lint.findings import Finding, Level
from sim.report import printing
from sim.words import count

if TYPE_CHECKING:
    from rich.console import RenderableType

LOOKS = {Level.ERROR: "bold red", Level.WARNING: "yellow", Level.INFO: "dim"}
NAMES = {Level.ERROR: "error", Level.WARNING: "warning", Level.INFO: "remark"}


def show(found: Sequence[Finding], rules: int, past: str, commands: Sequence[tuple[str, str]], file: IO[str]) -> None:
    """Print *found* in the order of the files, of so many *rules*, to *file*; *past* is what they were held against."""
    from rich.padding import Padding
    from rich.text import Text

    lines: list[RenderableType] = [Text(answer(found, rules), style="bold")]
    if past:
        lines.append(Text(f"Held against {past}.", style="dim"))
    explained: set[str] = set()
    where = ""
    for one in found:
        here = f"{one.file}:{one.line}  {one.rule or 'the file'}"
        if here != where:
            lines += [Text(), Text(here)]
            where = here
        head = Text.assemble((NAMES[one.level], LOOKS[one.level]), ": ", one.what, (f"  [{one.kind}]", "dim"))
        lines.append(Padding(head, (0, 0, 0, 2)))
        if one.kind not in explained:
            lines.append(Padding(Text(f"why: {one.why}"), (0, 0, 0, 4)))
            explained.add(one.kind)
        lines.append(Padding(Text(f"instead: {one.instead}"), (0, 0, 0, 4)))
    printing.show([("", lines)], commands, file or sys.stdout)


def answer(found: Sequence[Finding], rules: int) -> str:
    """Return in one sentence what was found."""
    of = f"in {count(rules, 'rule')}"
    if not found:
        return f"Nothing wrong {of}."
    counts = {level: sum(one.level == level for one in found) for level in Level}
    return ", ".join(count(n, NAMES[level]) for level, n in counts.items() if n) + f" {of}."


def as_json(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return every finding for programs."""
    return [
        {
            "kind": one.kind,
            "level": one.level,
            "file": one.file,
            "line": one.line,
            "rule": one.rule or None,
            "what": one.what,
            "why": one.why,
            "instead": one.instead,
        }
        for one in found
    ]
