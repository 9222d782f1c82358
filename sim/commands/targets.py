"""Files that a command is to write: refused before the work begins, and not after it."""

from pathlib import Path

import click

from sim.errors import InputError


class FileToWrite(click.ParamType):
    """A file in a folder that is there; one with a *suffix* must end so, for that says what is written."""

    name = "path"

    def __init__(self, suffix: str = "", folder_too: bool = False) -> None:
        """*folder_too*: it may be a folder, which a command then fills."""
        self.suffix = suffix
        self.folder_too = folder_too

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return *value* as a path.

        Raises:
            InputError: its folder is missing, it is a folder itself, or it ends otherwise.
        """
        path, option = Path(value), param.opts[0] if param else "file"
        if self.suffix and path.suffix.lower() != self.suffix:
            raise InputError(f"{option} {path}: expected a name that ends with {self.suffix}")
        if not path.parent.is_dir():
            raise InputError(f"{option} {path}: there is no folder {path.parent}")
        if path.is_dir() and not self.folder_too:
            raise InputError(f"{option} {path}: expected a file, but it is a folder")
        return path


PICTURE = FileToWrite(".png")
"""Where ``--figure`` draws."""
