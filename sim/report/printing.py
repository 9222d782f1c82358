"""How what is said reaches a terminal or a file: titled blocks, and commands that can be copied."""

from collections.abc import Sequence
from io import StringIO
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

PLAIN_WIDTH = 118
"""Columns of text when the output is no terminal, so that a file says the same wherever it was made."""

Block = tuple[str, "Sequence[RenderableType]"]
"""A title (or none) and what stands under it; nothing is printed of a block that is empty."""


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
