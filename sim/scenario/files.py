"""Where a scenario's files are: beside it, where the command runs, or among those that ship."""

import hashlib
import os
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sim.words import did_you_mean, show


def shipped() -> dict[str, Path]:
    """Return the scenarios that ship with Blowout, by name; empty where an installation left them out."""
    return {path.stem: path for path in sorted(_folder().glob("*.yaml"))}


def shipped_rules() -> dict[str, Path]:
    """Return the files of Prometheus rules that ship with Blowout, by name."""
    return {path.stem: path for path in sorted((_folder() / "alerts").glob("*.yml"))}


def _folder() -> Path:
    checkout = Path(__file__).parents[2] / "scenarios"
    return checkout if checkout.is_dir() else Path(sysconfig.get_path("data")) / "share" / "blowout" / "scenarios"


def find_file(name: str, folder: Path | None = None) -> str:
    """Return the path of the file *name*, looked for in *folder* (the scenario's) and then where the command runs.

    A relative path comes back relative to where the command runs, so that a resolved scenario finds its files
    from whatever folder it was written to.

    Raises:
        ValueError: neither place has such a file.
    """
    beside = (folder or Path()) / name
    if os.path.isfile(beside):  # not Path.is_file, which raises for a name too long
        return name if Path(name).is_absolute() else os.path.relpath(beside)
    if os.path.isfile(name):
        return name
    neighbours = [path.name for path in beside.parent.glob("*")] if os.path.isdir(beside.parent) else []
    raise ValueError(f"expected a file, but there is no {show(name)}{did_you_mean(beside.name, neighbours)}")


def contents(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the files that *settings* name (traces, profiles, rules, code), and the sha256 of each, in hex.

    A path alone does not say what is played: the file may have changed since.
    """
    named = {text.rpartition(".py:")[0] + ".py" if ".py:" in text else text for text in _texts(settings)}
    return {
        name: hashlib.sha256(Path(name).read_bytes()).hexdigest()
        for name in sorted(named)
        if "\0" not in name and os.path.isfile(name)
    }


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
