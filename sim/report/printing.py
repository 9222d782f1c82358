"""How what is said reaches a terminal or a file: titled blocks, and commands that can be copied."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import IO, TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table
    from rich.text import Text

PLAIN_WIDTH = 118
"""Columns of text when the output is no terminal, so that a file says the same wherever it was made."""

Block = tuple[str, "Sequence[RenderableType]"]
"""A title (or none) and what stands under it; nothing is printed of a block that is empty."""

GAP = 3
"""Spaces between two columns."""
TIGHT = 2
"""The same where that lets the columns stand beside each other."""
MOST_FOR_NAMES = 0.42
"""Share of the width that the names of rows get at most; longer ones go on in a second line."""
LEAST_FOR_TEXT = 26
"""Columns of the terminal for a column of sentences: narrower than this they are hard to read."""

Cell: TypeAlias = "str | Text"
"""What stands in a table: plain, or with a look of its own."""


@dataclass(frozen=True)
class Beside:
    """A table whose columns stand beside each other as far as the terminal is wide; the others in a table below.

    So that no value is ever cut short, nor a word broken that fits. *columns* are titles with a cell for each of the
    *rows*, which are named, under the title *first*; *looks* is how some rows look, by place. A column of *texts*
    (their places) is of sentences, which may go on in a second line; a title of several lines keeps them.
    """

    rows: Sequence[str]
    columns: Sequence[tuple[str, Sequence[Cell]]]
    looks: Mapping[int, str] = field(default_factory=dict)
    first: str = ""
    texts: Collection[int] = ()

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """Yield as many tables as it takes."""
        room = options.max_width
        roomy = (_Way(GAP, False, self._names(room, 1.0)), _Way(GAP, True, self._names(room, 1.0)))
        narrow = (_Way(GAP, True, self._names(room)), _Way(TIGHT, True, self._names(room)))
        whole = range(len(self.columns))
        way = next((way for way in (*roomy, *narrow) if self._needs(whole, way) <= room), narrow[0])
        for part, some in enumerate(self._parts(room, way)):
            yield from [""] if part else []
            yield self._table(some, room, way)

    def _names(self, room: int, share: float = MOST_FOR_NAMES) -> int:
        """Return the width of the names: that of the longest, but no more than a *share* of the *room* or a word."""
        lines = [line for name in (self.first, *self.rows) for line in name.split("\n")]
        word = max((len(word) for line in lines for word in line.split()), default=0)
        beside = max((self._least(k, True) for k in range(len(self.columns))), default=0) + GAP
        longest = max(map(len, lines), default=0)
        return max(1, min(longest, max(int(share * room), word), max(room - beside, int(MOST_FOR_NAMES * room))))

    def _needs(self, some: Sequence[int], way: "_Way") -> int:
        return way.names + sum(way.gap + self._least(k, way.breaks) for k in some)

    def _least(self, k: int, breaks: bool) -> int:
        """Return the narrowest that column *k* can be; *breaks*: its title may go on in a second line."""
        title, cells = self.columns[k]
        heads = title.split("\n") if "\n" in title or not breaks else title.split()
        head = max(map(len, heads), default=0)
        if k in self.texts:
            word = max((len(word) for cell in cells for word in str(cell).split()), default=1)
            return max(head, min(self._longest(k), max(LEAST_FOR_TEXT, word)))
        return max(head, self._longest(k), 1)

    def _longest(self, k: int) -> int:
        return max((len(line) for cell in self.columns[k][1] for line in str(cell).split("\n")), default=1)

    def _parts(self, room: int, way: "_Way") -> list[list[int]]:
        """Return which columns stand beside each other, of about equal number."""
        fewest = len(self._filled(room, way, len(self.columns)))
        return self._filled(room, way, -(-len(self.columns) // max(1, fewest)))

    def _filled(self, room: int, way: "_Way", most: int) -> list[list[int]]:
        """Return the columns in their order, as many beside each other as fit, and *most* at most."""
        parts: list[list[int]] = []
        for k in range(len(self.columns)):
            if not parts or len(parts[-1]) >= most or self._needs([*parts[-1], k], way) > room:
                parts.append([])
            parts[-1].append(k)
        return parts

    def _widths(self, some: Sequence[int], room: int, way: "_Way") -> list[int]:
        """Return how wide columns are that stand together: sentences share what the others leave."""
        widths = [self._least(k, way.breaks) for k in some]
        left = room - way.names - sum(widths) - way.gap * len(some)
        longer = {i: self._longest(k) for i, k in enumerate(some) if k in self.texts}
        while left > 0 and (grow := [i for i, most in longer.items() if widths[i] < most]):
            for i in grow[:left]:
                widths[i], left = widths[i] + 1, left - 1
        return [max(1, min(width, room - way.names - way.gap)) for width in widths]

    def _table(self, some: Sequence[int], room: int, way: "_Way") -> "Table":
        from rich.table import Table
        from rich.text import Text

        titled = bool(self.first) or any(self.columns[k][0] for k in some)
        table = Table(box=None, pad_edge=False, padding=(0, way.gap, 0, 0), header_style="bold", show_header=titled)
        table.add_column(Text(self.first), width=way.names, overflow="fold")
        widths = self._widths(some, room, way)
        for k, width in zip(some, widths):
            side: Literal["left", "right"] = "left" if k in self.texts else "right"
            table.add_column(Text(self.columns[k][0]), justify=side, width=width, overflow="fold")
        for i, name in enumerate(self.rows):
            cells = (self.columns[k][1][i] for k in some)  # rich would take "[never, never]" for a style, and drop it
            plain = (Text(cell) if isinstance(cell, str) else cell for cell in (name, *cells))
            table.add_row(*plain, style=self.looks.get(i, ""))
        return table


class _Way(NamedTuple):
    """How close columns stand, whether titles may go on in a second line, and how wide the names are."""

    gap: int
    breaks: bool
    names: int


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    texts: Collection[int] = (),
    looks: Mapping[int, str] | None = None,
) -> Beside:
    """Return *rows* under their *head* as a table for a terminal of any width; the first column names the rows.

    *texts* are the places in *head* of columns of sentences.
    """
    columns = [(title, [row[k] for row in rows]) for k, title in enumerate(head) if k]
    return Beside([str(row[0]) for row in rows], columns, looks or {}, head[0], [k - 1 for k in texts])


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
