"""What rules are judged on, as it is typed: a run, a file, or a live Prometheus (``--from URL``)."""

import functools
import os
import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.commands.alerts.common import watched
from sim.errors import InputError
from sim.units import duration_s

if TYPE_CHECKING:
    from sim.alerts.past import Past
    from sim.fetch import Credentials

TOKEN = "BLOWOUT_PROMETHEUS_TOKEN"
_HEADER = re.compile(r"([A-Za-z0-9-]+)\s*:\s*(\S.*)")
_OPTIONS = (
    click.option("--from", "url", metavar="URL", help="A live Prometheus, in place of RUN_OR_FILE."),
    click.option("--range", "range_", metavar="TIME", help="With --from: how much of its past (1d)."),
    click.option("--end", metavar="WHEN", help="With --from: until when, ISO 8601 (UTC) or Unix seconds (now)."),
    click.option("--token-file", metavar="FILE", type=click.Path(path_type=Path),
                 help=f"With --from: holds the bearer token; or set {TOKEN}."),
    click.option("--ca", metavar="FILE", type=click.Path(path_type=Path),
                 help="With --from: certificates to trust (PEM)."),
    click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'",
                 help="With --from: sent along; VALUE may be @FILE or env:VARIABLE."),
    click.option("--cache", metavar="DIR", type=click.Path(path_type=Path),
                 help="With --from: where answers are kept (the user's cache)."),
)  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """What was typed: the pasts that it means, each with a name of its own, and the words to type each again."""

    named: "list[tuple[str, Past]]"
    typed: tuple[str, ...]
    folder: Path | None = None
    """The folder of a run, if it was one and nothing else."""

    @property
    def pasts(self) -> "list[Past]":
        """The pasts alone."""
        return [past for _, past in self.named]

    @property
    def again(self) -> str:
        """The words to type all of it again."""
        return " ".join(self.typed)

    @property
    def is_live(self) -> bool:
        """Whether it is a Prometheus that answers."""
        return self.again.startswith("--from")

    @property
    def title(self) -> str:
        """What all of it is called, and what must be known about it, once it was read."""
        return self._told(self.named[0][0]) if self.is_live else self.again

    @property
    def title_of_first(self) -> str:
        """The same of the first past, where only that is looked at."""
        _, past = self.named[0]
        name = past.name if self.folder is None or past.name == self.typed[0] else f"{self.again}: {past.name}"
        if len(self.named) > 1:
            name += f" (the first of {len(self.named)}; name the folder of another to judge that)"
        return self._told(name)

    def _told(self, name: str) -> str:
        caveat = self.pasts[0].caveat
        return f"{name} ({caveat})" if caveat else name


def takes_pasts(many: bool = False, optional: bool = False) -> Callable[..., Any]:
    """Let a command take RUN_OR_FILE, or *many*, or ``--from URL`` and its options; it gets all that as *chosen*.

    *chosen* is a `Chosen`, or None where it is *optional* and nothing was named.
    """

    def decorate(inner: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(inner)
        def outer(paths: tuple[Path, ...] | Path | None, url: str | None, **given: Any) -> Any:
            live = {name: given.pop(name) for name in ("range_", "end", "token_file", "ca", "headers", "cache")}
            named = paths if isinstance(paths, tuple) else (paths,) if paths else ()
            if url is not None and named:
                raise InputError(f"{named[0]}: expected either a run or a file, or --from URL, not both")
            chosen = _at(named, live, optional) if url is None else _live(url, **live)
            return inner(chosen=chosen, **given)

        command: Callable[..., Any] = outer
        for one in reversed(_OPTIONS):
            command = one(command)
        metavar = "RUN_OR_FILE..." if many else "[RUN_OR_FILE]" if optional else "RUN_OR_FILE"
        kind = click.Path(path_type=Path)
        return click.argument("paths", metavar=metavar, nargs=-1 if many else 1, required=False, type=kind)(command)

    return decorate


def _at(paths: tuple[Path, ...], live: dict[str, Any], optional: bool) -> Chosen | None:
    from sim.alerts.past import open_pasts

    if alone := [name for name, value in live.items() if value]:
        raise InputError(f"--{alone[0].rstrip('_s').replace('_', '-')}: only with --from URL")
    if not paths and not optional:
        raise InputError("expected what to judge: RUN_OR_FILE, or --from URL of a Prometheus")
    if not paths:
        return None
    named = [(_name(path, one, len(paths)), one) for path in dict.fromkeys(paths) for one in open_pasts(path)]
    folder = paths[0] if len(paths) == 1 and paths[0].is_dir() else None
    return Chosen(named, tuple(shlex.quote(str(path)) for path in paths), folder)


def _name(path: Path, past: "Past", paths: int) -> str:
    """Return what *past*, found at *path*, is called: another name for each."""
    if paths == 1:
        return past.name
    return str(path) if past.name in (str(path), path.name) else f"{path}: {past.name}"


def _live(
    url: str,
    range_: str | None,
    end: str | None,
    token_file: Path | None,
    ca: Path | None,
    headers: tuple[str, ...],
    cache: Path | None,
) -> Chosen:
    from sim.alerts.live import LivePast
    from sim.alerts.sources.server import Server
    from sim.fetch import shown
    from sim.report.alerting import moment

    range_ = range_ or "1d"
    credentials = _credentials(token_file, ca, headers)
    try:
        length_ms = round(duration_s(range_) * 1000)
    except ValueError as error:
        raise InputError(f"--range: {error}") from None
    end_ms = _moment_ms(end) if end else time.time_ns() // 60_000_000_000 * 60_000
    if length_ms < 1 or length_ms > end_ms:
        raise InputError(f"--range {range_}: expected a duration above 0 that ends at {moment(end_ms)}")
    start_ms = end_ms - length_ms
    name = f"{shown(url)}, {moment(start_ms)} to {moment(end_ms)} UTC"
    past = LivePast(
        name, Path(shown(url)), server=Server(url, credentials), start_ms=start_ms, end_ms=end_ms,
        cache=cache or _cache(), progress=functools.partial(watched, "asking Prometheus"),
    )  # fmt: skip
    until = f" --end {shlex.quote(end)}" if end else ""
    return Chosen([(name, past)], (f"--from {shlex.quote(shown(url))} --range {shlex.quote(range_)}{until}",))


def _moment_ms(text: str) -> int:
    try:
        return round(float(text) * 1000)
    except (ValueError, OverflowError):
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"--end {text}: expected a time such as 2026-11-28T06:00 (UTC) or 1764309600") from None
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


def _credentials(token_file: Path | None, ca: Path | None, headers: tuple[str, ...]) -> "Credentials":
    import ssl

    from sim.fetch import Credentials

    where = f"--token-file {token_file}" if token_file else TOKEN
    token = _secret(token_file, where) if token_file else os.environ.get(TOKEN, "").strip() or None
    _require_plain(token or "x", where)
    found: dict[str, str] = {}
    for header in headers:
        match = _HEADER.fullmatch(header.strip())
        if match is None:
            raise InputError("--header: expected 'NAME: VALUE', VALUE being a text, @FILE or env:VARIABLE")
        name, value = match[1], match[2].strip()
        if value.startswith("@"):
            value = _secret(Path(value[1:]), f"--header {name}")
        elif value.startswith("env:"):
            value = os.environ.get(value[4:], "")
        _require_plain(value, f"--header {name}")
        found[name] = value
    trusted = None
    if ca is not None:
        try:
            trusted = ssl.create_default_context(cafile=str(ca))
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"--ca {ca}: expected certificates in PEM ({error.strerror or error})") from None
    return Credentials(token, found, trusted)


def _secret(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{where}: expected a text") from None


def _require_plain(value: str, where: str) -> None:
    """Refuse what no header can carry, without repeating it: it may be a secret."""
    if not value or not value.isascii() or not value.isprintable():
        raise InputError(f"{where}: expected one line of printable ASCII, and not nothing")


def _cache() -> Path:
    root = os.environ.get("BLOWOUT_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blowout"
    return base / "prometheus"
