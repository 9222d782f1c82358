"""Tables and checks of a benchmark, as text, Markdown and JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Check:
    """One bound: what must hold, the value found and the most it may be (fractions), and whether it holds."""

    what: str
    value: float
    bound: float

    @property
    def passed(self) -> bool:
        """True when the value is within the bound."""
        return self.value <= self.bound


@dataclass(frozen=True)
class Table:
    """Rows of text under a title, with a sentence that says how to read them."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass
class Report:
    """What a benchmark found."""

    tables: list[Table] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def text(self) -> str:
        """Return the tables and checks for a terminal."""
        parts = [f"{t.title}\n{t.note}\n\n{_columns(t)}\n" for t in self.tables]
        return "\n".join([*parts, *(_verdict(check) for check in self.checks)])

    def markdown(self) -> str:
        """Return the tables and checks for a document."""
        parts = [f"### {t.title}\n\n{t.note}\n\n{_pipes(t)}\n" for t in self.tables]
        return "\n".join([*parts, "### Bounds\n", *(f"- {_verdict(check)}" for check in self.checks), ""])

    def write(self, path: Path) -> None:
        """Write JSON or, by any other ending, Markdown."""
        if path.suffix == ".json":
            checks = [{**asdict(check), "passed": check.passed} for check in self.checks]
            data = {"tables": [asdict(table) for table in self.tables], "checks": checks}
            path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        else:
            path.write_text(self.markdown(), encoding="utf-8")


def percent(values: Iterable[float]) -> tuple[str, ...]:
    """Return fractions as signed percentages."""
    return tuple(f"{100.0 * value:+.1f}%" for value in values)


def _verdict(check: Check) -> str:
    word = "ok  " if check.passed else "MISS"
    return f"{word} {check.what}: {100 * check.value:.1f}% (at most {100 * check.bound:.0f}%)"


def _columns(table: Table) -> str:
    lines = [table.header, *table.rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(table.header))]
    text = []
    for line in lines:
        cells = (
            cell.ljust(width) if k == 0 else cell.rjust(width) for k, (cell, width) in enumerate(zip(line, widths))
        )
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def _pipes(table: Table) -> str:
    rule = ("---", *("---:" for _ in table.header[1:]))
    return "\n".join("| " + " | ".join(line) + " |" for line in (table.header, rule, *table.rows))
