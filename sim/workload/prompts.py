"""Real prompts of a cohort: a file with one JSON object a line, of which a load test sends one for each request."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sim.draws import Luck, who
from sim.errors import InputError
from sim.scenario import Scenario
from sim.words import show

WORDS = '{"messages": [...]} or {"prompt": "..."}'


class Prompts:
    """What each request of a seed really asks, where its cohort has a file of prompts."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        """Read the files of *scenario*.

        Raises:
            InputError: as `read`.
        """
        self._luck = Luck(seed)
        files = [cohort.prompts for cohort in scenario.workload.cohorts.values()]
        self._lines = [read(file) if file else [] for file in files]

    def are_real(self, cohort: int) -> bool:
        """Tell whether *cohort* has a file of prompts."""
        return bool(self._lines[cohort])

    def of(self, cohort: int, request: int) -> Mapping[str, Any] | None:
        """Return the line that *request* of *cohort* asks; None: its prompt is made up."""
        lines = self._lines[cohort]
        if not lines:
            return None
        share = float(self._luck.one("prompts", who(np.array([request])))[0])
        return lines[int(share * len(lines))]


def read(file: str) -> list[dict[str, Any]]:
    """Return the lines of a *file* of prompts.

    Raises:
        InputError: the first line that is none, with its number.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: expected a text in UTF-8, got other bytes at {error.start}") from None
    found = [_line(f"{file}:{n}", line) for n, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise InputError(f"{file}: expected lines such as {WORDS}, but it has none")
    return found


def _line(where: str, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: expected {WORDS}, but it is no JSON ({error})") from None
    if not isinstance(found, dict) or ("messages" in found) == ("prompt" in found):
        raise InputError(f"{where}: expected {WORDS}, got {show(found)}")
    messages, most = found.get("messages"), found.get("max_tokens", 1)
    if messages is not None and not (messages and isinstance(messages, list) and all(map(_is_message, messages))):
        raise InputError(f'{where}: messages: expected a list such as [{{"role": "user", "content": "hi"}}]')
    if messages is None and not (isinstance(found["prompt"], str) and found["prompt"].strip()):
        raise InputError(f"{where}: prompt: expected a text, got {show(found['prompt'])}")
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise InputError(f"{where}: max_tokens: expected a whole number above 0, got {show(most)}")
    return found


def _is_message(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("role"), str)
