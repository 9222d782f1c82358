"""Incidents from a file: CSV with a header, or a list of mappings in YAML or JSON."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from sim.alerts.past import Past
from sim.alerts.truth import Incident, Truth
from sim.errors import InputError
from sim.units import duration_s
from sim.words import count, not_among, show

FIELDS = ("start", "end", "severity", "id")
SEVERITIES = {"page": "page", "critical": "page", "ticket": "ticket", "warning": "ticket"}


@dataclass(frozen=True)
class _Row:
    """One entry of the file: where it stands, and its fields as they were written."""

    where: str
    fields: dict[str, str]


def read(path: Path) -> list[Incident]:
    """Return the incidents that the file at *path* lists, in order of time.

    ``start`` and ``end`` are durations or seconds of run time, seconds since 1970, or RFC 3339; ``severity`` is page
    (also: critical) or ticket (also: warning), page if left out; ``id`` i1, i2, ... if left out.

    Raises:
        InputError: names file, line and field.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected a text in UTF-8") from None
    rows = _yaml(text, path) if path.suffix.lower() in (".yaml", ".yml", ".json") else _csv(text, path)
    found = sorted((_incident(row) for row in rows), key=lambda one: (one.start_ms, one.end_ms))
    if not found:
        raise InputError(f"{path}: expected incidents, but it lists none")
    named = [replace(one, id=one.id or f"i{number}") for number, one in enumerate(found, 1)]
    twice = [one.id for i, one in enumerate(named) if one.id in {other.id for other in named[:i]}]
    if twice:
        raise InputError(f"{path}: two incidents have the id {show(twice[0])}")
    return named


def truth(past: Past, path: Path, listed: list[Incident], from_ms: int = 0) -> Truth:
    """Return what of *listed*, read from *path*, lies in *past*; nothing that ended before *from_ms* counts."""
    first_ms, last_ms = past.span_ms
    first_ms = max(first_ms, from_ms)
    inside = tuple(one for one in listed if one.end_ms > first_ms and one.start_ms < last_ms)
    left = len(listed) - len(inside)
    said = f"--incidents {path}" + (f" ({count(left, 'incident')} outside the past left out)" if left else "")
    return Truth(inside, said, first_ms, last_ms)


def _csv(text: str, path: Path) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text))
    header = [name.strip().lower() for name in next(reader, [])]
    _known(header, f"{path}:1")
    for values in _lines(reader, path):
        if any(value.strip() for value in values):
            where = f"{path}:{reader.line_num}"
            if len(values) > len(header):
                raise InputError(f"{where}: expected {count(len(header), 'field')} as in the header, got {len(values)}")
            yield _Row(where, dict(zip(header, (value.strip() for value in values))))


def _lines(reader: Any, path: Path) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _yaml(text: str, path: Path) -> Iterator[_Row]:
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(node, yaml.SequenceNode):
        raise InputError(f"{path}: expected a list of incidents, each with start and end")
    for item in node.value:
        where = f"{path}:{item.start_mark.line + 1}"
        if not isinstance(item, yaml.MappingNode):
            raise InputError(f"{where}: expected a mapping with start and end")
        for _, value in item.value:
            if not isinstance(value, yaml.ScalarNode):
                raise InputError(
                    f"{path}:{value.start_mark.line + 1}: expected a text or a number, got a list or a mapping"
                )
        fields = {str(key.value): str(value.value).strip() for key, value in item.value}
        _known(list(fields), where)
        yield _Row(where, fields)


def _known(names: list[str], where: str) -> None:
    for name in names:
        if name not in FIELDS:
            raise InputError(f"{where}: {not_among(name, 'field', FIELDS)}")
    for name in FIELDS[:2]:
        if name not in names:
            raise InputError(f"{where}: {name}: missing, expected the fields start and end; severity and id may follow")


def _incident(row: _Row) -> Incident:
    severity = row.fields.get("severity", "").lower() or "page"
    if severity not in SEVERITIES:
        raise InputError(f"{row.where}: severity: expected page or ticket, got {show(severity)}")
    start_ms, end_ms = (_field(row, name, moment_ms) for name in FIELDS[:2])
    if end_ms <= start_ms:
        raise InputError(
            f"{row.where}: end: expected a time after start ({row.fields['start']}), got {row.fields['end']}"
        )
    return Incident(row.fields.get("id", ""), start_ms, end_ms, SEVERITIES[severity])


def _field(row: _Row, name: str, read_as: Callable[[str], int]) -> int:
    try:
        return read_as(row.fields.get(name, ""))
    except ValueError as error:
        raise InputError(f"{row.where}: {name}: {error}") from None


def moment_ms(text: str) -> int:
    """Return the time that *text* means, in milliseconds as series have them.

    Raises:
        ValueError: it is none; a sentence.
    """
    try:
        return round(float(text) * 1000)
    except (ValueError, OverflowError):
        pass
    try:
        return round(duration_s(text) * 1000)
    except ValueError as error:
        if "did you mean" in str(error):
            raise
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected seconds, a duration such as 1h30m, or RFC 3339, got {show(text)}") from None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
