"""How what is said reaches a terminal or a file: titled blocks, and commands that can be copied."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

PLAIN_WIDTH = 118
"""Columns of text when the output is no terminal, so that a file says the same wherever it was made."""

Block = tuple[str, "Sequence[RenderableType]"]
"""A title (or none) and what stands under it; nothing is printed of a block that is empty."""

GAP = 3
"""Spaces between two columns."""
MOST_FOR_NAMES = 0.42
"""Share of the width that the names of rows get at most; longer ones go on in a second line."""


@dataclass(frozen=True)
class Beside:
    """A table whose columns stand beside each other as far as the terminal is wide; the others in a table below.

    So that no value is ever cut short. *columns* are titles with a cell for each of the *rows*, which are named; those
    at the places *bold* are the ones to look at.
    """

    rows: Sequence[str]
    columns: Sequence[tuple[str, Sequence[str]]]
    bold: Collection[int] = ()

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """Yield as many tables as it takes."""
        for part, some in enumerate(self._parts(options.max_width)):
            yield from [""] if part else []
            yield self._table(some, options.max_width)

    def _names(self, width: int) -> int:
        return min(max(map(len, self.rows), default=0), int(MOST_FOR_NAMES * width))

    def _parts(self, width: int) -> list[list[int]]:
        """Return which columns stand beside each other, of about equal number."""
        fewest = len(self._filled(width, len(self.columns)))
        return self._filled(width, -(-len(self.columns) // max(1, fewest)))

    def _filled(self, width: int, most: int) -> list[list[int]]:
        """Return the columns in their order, as many beside each other as fit, and *most* at most."""
        parts: list[list[int]] = []
        left = 0
        for k in range(len(self.columns)):
            needs = GAP + self._width(k)
            if not parts or needs > left or len(parts[-1]) >= most:
                parts.append([])
                left = width - self._names(width)
            parts[-1].append(k)
            left -= needs
        return parts

    def _width(self, k: int) -> int:
        title, cells = self.columns[k]
        return max(len(text) for text in (*title.split(), *(line for cell in cells for line in cell.split("\n")), "-"))

    def _table(self, some: Sequence[int], width: int) -> "Table":
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        table.add_column("", width=self._names(width))
        for k in some:
            room = width - self._names(width) - GAP
            table.add_column(self.columns[k][0], justify="right", width=min(self._width(k), room), overflow="fold")
        for i, name in enumerate(self.rows):
            table.add_row(name, *(self.columns[k][1][i] for k in some), style="bold" if i in self.bold else "")
        return table


@dataclass(frozen=True)
class ByWidth:
    """One of two renderables: *wide* from *least* columns on, *narrow* below."""

    least: int
    wide: "RenderableType"
    narrow: "RenderableType"

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """Yield the one that fits."""
        yield self.wide if options.max_width >= self.least else self.narrow


def show(blocks: Sequence[Block], commands: Sequence[tuple[str, str]], file: IO[str]) -> None:
    """Print *blocks* to *file*, then *commands* worth typing next, each with what it is good for."""
    from rich.console import Console, Group
    from rich.padding import Padding
    from rich.text import Text

    if hasattr(file, "reconfigure"):
        file.reconfigure(errors="replace")  # a terminal that has no ✓ shows a question mark, never a traceback
    watched = Console(file=file, highlight=False)
    console = watched if watched.is_terminal else Console(file=StringIO(), highlight=False, width=PLAIN_WIDTH)
    for title, lines in blocks:
        if lines:
            console.print(Text(f"\n{title}", style="bold") if title else Text())
            console.print(Padding(Group(*lines), (0, 0, 0, 2)))
    console.print(Text("\nNext", style="bold"))
    for command, good_for in commands:  # longer than the line, a command must stay one that can be copied
        console.print(Text.assemble("  ", (command, "cyan"), (f"   # {good_for}", "dim")), soft_wrap=True)
    if isinstance(console.file, StringIO):
        file.write("\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n")
