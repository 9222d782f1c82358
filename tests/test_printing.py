"""Tables in terminals of any width: one way for all, which loses and breaks nothing."""

import ast
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.knee import told as knee
from loadtest.knee.search import Stage
from loadtest.proof import told as proof
from loadtest.proof.selftest import Check
from sim.report import printing
from tests.narrow import WIDTHS, owed, printed

WORDS = st.text("abcdefgh019[],", min_size=1, max_size=12)
CELLS = st.lists(WORDS, max_size=4).map(" ".join)


@st.composite
def tables(draw: st.DrawFn) -> printing.Beside:
    columns, rows = draw(st.integers(2, 9)), draw(st.integers(1, 5))
    head = draw(st.lists(CELLS, min_size=columns, max_size=columns))
    cells = [draw(st.lists(CELLS, min_size=columns, max_size=columns)) for _ in range(rows)]
    texts = draw(st.sets(st.integers(1, columns - 1)))
    return printing.table(head, cells, texts=texts)


@given(tables(), st.integers(78, 150))
def test_whatever_its_columns_a_table_loses_nothing(table: printing.Beside, width: int) -> None:
    owed(table, width)


@given(tables())
def test_where_there_is_room_all_columns_stand_beside_each_other(table: printing.Beside) -> None:
    lines = printed(table, 1000).splitlines()
    assert len(lines) == len(table.rows) + bool(table.first or any(title for title, _ in table.columns))


def test_a_column_of_sentences_goes_on_in_a_second_line_and_numbers_do_not() -> None:
    said = "its clients waited for an engine that had no room for them, and then for the one beside it"
    table = printing.table(("", "of traffic", "TTFT P99", "most"), [["chat/0", "25%", "1.66 s", said]], texts=(3,))
    lines = printed(table, 78).splitlines()
    assert "25%" in lines[1]
    assert "1.66 s" in lines[1]
    assert len(lines) > 2
    at = lines[0].index("most")
    assert [word for line in lines[1:] for word in line[at:].split()] == said.split()


def test_what_looks_like_a_style_is_no_style() -> None:
    """An interval that begins with a letter is printed, not obeyed."""
    table = printing.table(("rule [a]", "after [b]"), [["any [bold]", "never [never, never]"]])
    assert printed(table, 78).split() == ["rule", "[a]", "after", "[b]", "any", "[bold]", "never", "[never,", "never]"]


def test_only_one_place_lays_out_tables(root: Path) -> None:
    """Whoever makes a table of their own has it cut in narrow terminals; a claim has its own narrow form."""
    own = {"sim/report/printing.py", "sim/report/tables.py", "sim/planning/printed.py", "sim/planning/sweep_table.py"}
    made = {
        str(path.relative_to(root))
        for room in ("sim", "loadtest")
        for path in (root / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "rich.table"
        and any(name.name == "Table" for name in node.names)
    }  # fmt: skip
    assert made <= own


@pytest.mark.parametrize("width", WIDTHS)
def test_the_tables_of_load_tests_fit(width: int) -> None:
    times = {"p50": 0.0123, "p99": 12.3}
    stages = [Stage(rate, grows=True, ttft_s=times, within=0.987, claimed_s=times) for rate in (0.125, 128.5)]
    table = knee._table(stages)
    assert isinstance(table, printing.Beside)
    owed(table, width)
    table = proof._table([Check("gaps between sends, as planned, P99", "1.234 ms late", "at most 5 ms")])
    assert isinstance(table, printing.Beside)
    owed(table, width)


def test_a_real_terminal_of_80_columns(root: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}
    command = [sys.executable, "-c", "from sim.cli import main; main()", "hardware", "70b"]
    with subprocess.Popen(command, stdout=theirs, cwd=root, env=environment) as process:
        os.close(theirs)
        said = b""
        while piece := _read(ours):
            said += piece
        assert process.wait(60) == 0
    os.close(ours)
    table, _, _ = said.decode().replace("\r", "").partition("Step times")
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", table).splitlines()]
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("  llama-3.1-70b   b200") for line in lines) == 1
    assert any("1,377,504" in line for line in lines)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the other side has closed
        return b""
