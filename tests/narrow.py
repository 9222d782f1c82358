"""What a table owes to a terminal of any width: every line fits, and no word and no digit is lost or broken."""

import io
from collections import Counter

from rich.console import Console

from sim.report.printing import GAP, Beside

WIDTHS = (78, 116)
"""Of a terminal of 80 columns, and of a pipe, less the margin of a block."""


def printed(table: Beside, width: int) -> str:
    """Return *table* as a terminal of *width* columns shows it."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def owed(table: Beside, width: int) -> None:
    """Hold *table* against what it owes at *width*."""
    text = printed(table, width)
    assert max(map(len, (line.rstrip() for line in text.splitlines())), default=0) <= width
    cells = [*table.rows, table.first, *(str(cell) for title, cells in table.columns for cell in (title, *cells))]
    assert not Counter("".join("".join(cells).split())) - Counter("".join(text.split())), text
    longest = max((len(word) for name in table.rows for word in name.split()), default=0)
    room = width - GAP - max(longest, len(table.first))  # what a word beside the longest name can have
    whole = Counter(word for cell in cells for word in cell.split() if len(word) <= min(room, width // 3))
    assert not whole - Counter(text.split()), f"broken at {width} columns:\n{text}"
