"""What the commands that load an endpoint have in common: who asks, and what is sent along."""

import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loadtest import synthesis
from sim.commands import ready
from sim.errors import InputError, ScenarioError
from sim.scenario import Scenario
from sim.units import duration_s

_HEADER = re.compile(r"([A-Za-z0-9-]+)\s*:\s*(\S.*)")
_ALONE = {name: default for name, (_, default, _) in synthesis.OPTIONS.items()}


def require_locust() -> None:
    """Refuse to go on where the load tester is not installed: before anything of it is imported.

    Raises:
        InputError: it is not; the sentence says how it would be.
    """
    if find_spec("locust") is None:
        raise InputError("load tests need Locust, which is not installed; try: pip install 'blowout[loadtest]'")


def scenario(source: str | None, overrides: tuple[str, ...], seed: int | None, **given: Any) -> Scenario:
    """Return the scenario to play: the one named, or one made of options."""
    if source is None:
        chosen = {name: _ALONE[name] if value is None else value for name, value in given.items()}
        if given["rate"] is not None and given["closed"] is not None:
            raise InputError("--closed: expected either --rate (open loop) or --closed (so many users), not both")
        made = synthesis.scenario(**chosen, seed=1 if seed is None else seed)
        if overrides:
            raise InputError(f"--set {overrides[0]}: expected a SCENARIO to change")
        return made
    for name in ("rate", "closed", "prompt_tokens", "output_tokens"):
        if given[name] is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option}: expected none with a scenario; change that with --set KEY=VALUE")
    changes = [*overrides]
    changes += [f"duration={given['duration']}"] if given["duration"] else []
    changes += [f"seed={seed}"] if seed is not None else []
    try:
        loaded = ready.load(source, changes)
    except ScenarioError as error:
        if not given["duration"]:
            raise
        ready.load(source, [change for change in changes if not change.startswith("duration=")])
        raise InputError(
            f"--duration {given['duration']}: does not suit the scenario, which is right without it ({error})"
        ) from None
    for name, cohort in loaded.workload.cohorts.items():
        if cohort.agent is not None:
            why = "which needs to know which answers are right, and nobody knows that of a real service"
            raise InputError(f"{source}: workload.cohorts.{name}.agent: expected none in a load test, {why}")
    return loaded


def seconds(option: str, text: str) -> float:
    """Return the duration that an *option* says, in seconds.

    Raises:
        InputError: it is none, or not above 0.
    """
    try:
        found = duration_s(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None
    if found <= 0:
        raise InputError(f"{option}: expected a duration above 0")
    return found


def headers(given: Sequence[str]) -> dict[str, str]:
    """Return the headers that *given* says; values may come from a file or a variable."""
    found = {}
    for one in given:
        match = _HEADER.fullmatch(one)
        if match is None:
            raise InputError(f"--header {one[:20]!r}: expected 'NAME: VALUE'")
        name, value = match.groups()
        if value.startswith("@"):
            try:
                value = Path(value[1:]).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise InputError(f"--header {name}: {value[1:]} cannot be read ({error.strerror})") from None
        elif value.startswith("env:"):
            if value[4:] not in os.environ:
                raise InputError(f"--header {name}: there is no variable {value[4:]}")
            value = os.environ[value[4:]]
        found[name] = value
    return found


def without_secrets(typed: Sequence[str]) -> list[str]:
    """Return the command as it was typed, without the values of headers."""
    return [
        re.sub(r":.*", ": ...", word) if before == "--header" else word for before, word in zip(["", *typed], typed)
    ]
