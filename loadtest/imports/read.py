"""Which tool wrote a file, and its requests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtest.imports import aiperf, guidellm, tables, vllm_bench
from loadtest.imports.requests import Imported
from sim.errors import InputError

FORMATS = ("vllm-bench", "guidellm", "aiperf", "csv")


def read(path: Path, tool: str | None, columns: Mapping[str, str]) -> Imported:
    """Return the requests in the file at *path*, as *tool* (one of `FORMATS`; recognised if left out) wrote them.

    Raises:
        InputError: it cannot be read, is none of these, or a value is not what was expected.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            begins = file.read(4096).lstrip()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not begins:
        raise InputError(f"{path}: is empty; expected requests that a load tester or gateway has written")
    if tool == "csv" or (tool is None and begins[0] not in "{["):
        return tables.read(path, columns)
    if columns:
        raise InputError(f"--columns: only says what is what in a CSV, and {path} is none")
    data = _json(path)
    for name, module in (("vllm-bench", vllm_bench), ("guidellm", guidellm), ("aiperf", aiperf)):
        if tool in (None, name) and module.knows(data):
            return module.read(path, data)
    if tool:
        raise InputError(f"{path}: not what {tool} writes; leave --format out to have it recognised")
    raise InputError(f"{path}: not recognised; expected requests as {', '.join(FORMATS)} has them")


def _json(path: Path) -> Any:
    """Return the JSON at *path*: one value, or one a line."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    try:
        return json.loads(text)
    except ValueError as error:
        lines = text.splitlines()
        if len(lines) < 2:
            raise InputError(f"{path}: expected JSON, but it is broken ({error})") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise InputError(f"{path}, line {number}: expected JSON, but it is broken ({error})") from None
    return found
