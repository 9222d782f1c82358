"""What rules are judged on, as it is typed: a run, a file, or a live Prometheus (``--from URL``)."""

import functools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.errors import InputError
from sim.units import duration_s

if TYPE_CHECKING:
    from sim.alerts.past import Past
    from sim.fetch import Credentials

TOKEN = "BLOWOUT_PROMETHEUS_TOKEN"
_HEADER = re.compile(r"([A-Za-z0-9-]+)\s*:\s*(\S.*)")
_OPTIONS = (
    click.argument("path", metavar="RUN_OR_FILE", required=False, type=click.Path(path_type=Path)),
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
class Source:
    """What was typed: the pasts that it means, the words to type it again, and of a run its folder."""

    pasts: "list[Past]"
    again: str
    folder: Path | None = None

    @property
    def is_live(self) -> bool:
        """Whether it is a Prometheus that answers."""
        return self.again.startswith("--from")


def takes_pasts(inner: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take RUN_OR_FILE or ``--from URL`` and its options, and hand it all as one `Source`, *source*."""

    @functools.wraps(inner)
    def outer(
        path: Path | None,
        url: str | None,
        range_: str | None,
        end: str | None,
        token_file: Path | None,
        ca: Path | None,
        headers: tuple[str, ...],
        cache: Path | None,
        **rest: Any,
    ) -> Any:
        if url is None:
            given = {"range": range_, "end": end, "token-file": token_file, "ca": ca, "header": headers, "cache": cache}
            source = _at(path, [name for name, value in given.items() if value])
        elif path is not None:
            raise InputError(f"{path}: expected either a run or a file, or --from URL, not both")
        else:
            source = _live(url, range_ or "1d", end, _credentials(token_file, ca, headers), cache)
        return inner(source=source, **rest)

    command: Callable[..., Any] = outer
    for one in reversed(_OPTIONS):
        command = one(command)
    return command


def _at(path: Path | None, alone: list[str]) -> Source:
    from sim.alerts.past import open_pasts

    if alone:
        raise InputError(f"--{alone[0]}: only with --from URL")
    if path is None:
        raise InputError("expected what to judge: RUN_OR_FILE, or --from URL of a Prometheus")
    return Source(open_pasts(path), str(path), path if path.is_dir() else None)


def _live(url: str, range_: str, end: str | None, credentials: "Credentials", cache: Path | None) -> Source:
    from sim.alerts.live import LivePast
    from sim.alerts.server import Server
    from sim.fetch import shown
    from sim.report.alerting import moment

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
        cache=cache or _cache(), progress=_progress,
    )  # fmt: skip
    return Source([past], f"--from {shown(url)} --range {range_}" + (f" --end {end}" if end else ""))


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


@contextmanager
def _progress(chunks: int) -> Iterator[Callable[[], None]]:
    """Show how many answers have come, on stderr, when a person is watching it."""
    if not chunks or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("asking Prometheus"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=chunks)
        yield lambda: bar.advance(task)
