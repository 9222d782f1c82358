"""A user's own answers: how confident the model was, whether it was right, and which cohort asked; CSV or Parquet.

A row that cannot be read is an error that names its line. None is ever left out in silence: answers that are missing
because they were odd are seldom a random sample.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sim.errors import InputError
from sim.units import FRACTION_WORDS, fraction
from sim.words import count, not_among, show

NAMES = {
    "confidence": ("confidence", "conf", "score", "probability", "prob", "certainty", "p"),
    "correct": ("correct", "is_correct", "right", "accurate", "passed", "label", "y", "y_true"),
    "wrong": ("wrong", "is_wrong", "incorrect", "error", "failed"),
    "cohort": ("cohort", "group", "slice", "segment", "category", "domain", "topic", "language", "lang"),
}
"""What the columns may be called, the best names first; "wrong" is "correct" the other way round."""
TRUE = ("1", "true", "yes", "right", "correct", "y", "t", "1.0")
FALSE = ("0", "false", "no", "wrong", "incorrect", "n", "f", "0.0")
TRUTH = {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}
FEW = 3
"""So many bad rows are named; of more, only how many there are."""


class Answers(NamedTuple):
    """Confidence in [0, 1] and right or not, each (n,); the cohort of each if there are any; and how it was read.

    *ungraded* is the confidence of answers whose truth nobody knows, (N,).
    """

    confidence: np.ndarray
    correct: np.ndarray
    cohort: np.ndarray | None
    read_as: str
    ungraded: np.ndarray = np.zeros(0)


def read(path: Path, columns: Mapping[str, str] | None = None) -> Answers:
    """Return the answers in *path*; *columns* names ``confidence``, ``correct`` or ``wrong``, and ``cohort``.

    An answer without a truth is one that nobody has graded.

    Raises:
        InputError: no such column, no rows, or rows that are not as expected, by line.
    """
    if path.is_file() and not path.stat().st_size:
        raise InputError(f"{path}: is empty")
    parquet = path.suffix.lower() in (".parquet", ".pq")
    header, rows, places = _parquet(path) if parquet else _csv(path)
    found, read_as = _columns(path, header, columns or {})
    if not rows:
        raise InputError(f"{path}: holds no answers, only the names of its columns")
    bad: dict[str, str] = {}
    texts = {what: [row[header.index(name)] for row in rows] for what, name in found.items()}
    _refuse_percentages(path, texts["confidence"], found["confidence"])
    confidence = _confidences(texts["confidence"], places, found["confidence"], bad)
    truth = "correct" if "correct" in found else "wrong"
    graded = np.array([bool(text.strip()) for text in texts[truth]])
    if not graded.any():
        raise InputError(f"{path}: {found[truth]}: expected the truth of at least some answers, got nothing")
    correct = _truths(texts[truth], places, found[truth], bad)
    cohort = None
    if "cohort" in found:
        names = [text.strip() for text in texts["cohort"]]
        bad |= {
            place: f"{found['cohort']}: expected a name, got nothing" for place, name in zip(places, names) if not name
        }
        cohort = np.array(names)
    if bad:
        order = {place: i for i, place in enumerate(places)}
        first = sorted(bad, key=order.__getitem__)[:FEW]
        few = "; ".join(f"{path}:{place}: {bad[place]}" for place in first)
        more = f"; and {count(len(bad) - FEW, 'more row')} that cannot be read" if len(bad) > FEW else ""
        raise InputError(few + more)
    correct = (correct if truth == "correct" else ~correct)[graded]
    cohort = None if cohort is None else cohort[graded]
    return Answers(confidence[graded], correct, cohort, read_as, confidence[~graded])


def _csv(path: Path) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the header, the rows, and the line of each; rows of another length than the header are refused."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count))
            header = [name.strip() for name in next(reader, [])]
            rows, places = [], []
            for row in reader:
                if not row:  # an empty line, as at the end of a file
                    continue
                if len(row) != len(header):
                    cells = count(len(header), "column")
                    raise InputError(f"{path}:{reader.line_num}: expected {cells} as in the first line, got {len(row)}")
                rows.append(row)
                places.append(str(reader.line_num))
        except UnicodeDecodeError:
            raise InputError(f"{path}: expected a CSV file in UTF-8, or a Parquet file called .parquet") from None
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: is not CSV ({error})") from None
    return header, rows, places


def _parquet(path: Path) -> tuple[list[str], list[list[str]], list[str]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with path.open("rb") as file:
            table = parquet.read_table(file)
    except pyarrow.ArrowInvalid:
        raise InputError(f"{path}: is not a Parquet file") from None
    columns = [["" if value is None else str(value) for value in column.to_pylist()] for column in table.columns]
    rows = [list(row) for row in zip(*columns)]
    return list(table.column_names), rows, [f"row {i}" for i in range(1, len(rows) + 1)]


def _columns(path: Path, header: Sequence[str], given: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Return the name of each column, and a sentence about what was read as what, and what was not."""
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise InputError(f"{path}: expected columns of different names, got {show(twice[0])} twice")
    found: dict[str, str] = {}
    for what, name in given.items():
        if name not in header:
            raise InputError(f"{path}: {not_among(name, 'column', header)}")
        found[what] = name
    low = {name.lower(): name for name in reversed(header)}
    for what, names in NAMES.items():
        if what in found or (what in ("correct", "wrong") and ("correct" in found or "wrong" in found)):
            continue
        there = [low[name] for name in names if name in low and low[name] not in found.values()]
        if there:
            found[what] = there[0]
    for needed in ("confidence", "correct"):
        if needed not in found and not (needed == "correct" and "wrong" in found):
            known = ", ".join(header) or "none"
            raise InputError(
                f"{path}: no column is called {needed} or alike; say which is with --columns {needed}=NAME "
                f"(columns: {known})"
            )
    order = [what for what in NAMES if what in found]
    said = f"Read {', '.join(f'{found[what]!r} as {what}' for what in order)}; --columns says otherwise."
    if rest := [name for name in header if name not in found.values()]:
        said += f" Not used: {', '.join(rest)}"
        said += "." if "cohort" in found else f"; --columns cohort={rest[0]} looks at each of its values."
    return found, said


def _refuse_percentages(path: Path, texts: Sequence[str], name: str) -> None:
    """Refuse confidences most of which are numbers from 1 to 100, in one sentence for all."""
    above = [text for text in texts if _above_1(text)]
    if len(above) > len(texts) / 2:
        raise InputError(
            f"{path}: {name}: expected confidences from 0 to 1, but most are above 1, such as {above[0].strip()}; "
            f"divide by 100, or write {above[0].strip()}%"
        )


def _confidences(texts: Sequence[str], places: Sequence[str], name: str, bad: dict[str, str]) -> np.ndarray:
    try:
        values = np.array(texts, dtype=float)
        if np.all((values >= 0) & (values <= 1)):
            return values
    except ValueError:
        pass
    values = np.zeros(len(texts))
    for i, text in enumerate(texts):
        try:
            values[i] = fraction(text if "%" in text else float(text))
        except ValueError:
            hint = f"; did you mean {text.strip()}%?" if _above_1(text) else ""
            bad[places[i]] = f"{name}: expected {FRACTION_WORDS}, got {show(text.strip() or None)}{hint}"
    return values


def _above_1(text: str) -> bool:
    try:
        return 1 < float(text) <= 100
    except ValueError:
        return False


def _truths(texts: Sequence[str], places: Sequence[str], name: str, bad: dict[str, str]) -> np.ndarray:
    values = [TRUTH.get(text.strip().lower()) for text in texts]
    for i, value in enumerate(values):
        if value is None and texts[i].strip():
            bad.setdefault(places[i], f"{name}: expected 1 or 0, true or false, got {show(texts[i].strip())}")
    return np.array(values, dtype=bool)
