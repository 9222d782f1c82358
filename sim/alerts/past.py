"""The past that rules are judged on: a run, or a file of series."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sim import results, series
from sim.errors import InputError
from sim.results import SCRAPED, Member
from sim.series import SeriesSet


@dataclass(frozen=True)
class Past:
    """One stretch of it: how it is called, its file of series, and of a run the point and seed that was played."""

    name: str
    path: Path
    member: Member | None = None

    def series(self, names: Collection[str] | None = None) -> SeriesSet:
        """Return its series; with *names* only those so called.

        Raises:
            InputError: they cannot be read.
        """
        return SeriesSet.read(self.path, names)

    @property
    def span_ms(self) -> tuple[int, int]:
        """Time of its first and of its last sample."""
        return series.span_ms(self.path)


def open_pasts(source: Path) -> list[Past]:
    """Return what there is in *source*: the folder of a run, of one of its points and seeds, or a file of series.

    Raises:
        InputError: nothing that rules can be judged on.
    """
    if not source.is_dir():
        return [Past(source.name, source)]
    if not (source / "run.json").is_file() and (source / SCRAPED).is_file():
        member = Member({}, 0, source) if (source / "member.json").is_file() else None
        return [Past(str(source), source / SCRAPED, member)]
    members = [one for one in results.Run.open(source).members if (one.path / SCRAPED).is_file()]
    if not members:
        raise InputError(f"{source}: kept no {SCRAPED} to judge rules on: its scenario says `telemetry: none`")
    return [Past(_name(one), one.path / SCRAPED, one) for one in members]


def _name(member: Member) -> str:
    return ", ".join(
        [*(f"{key.rpartition('.')[2]} {value}" for key, value in member.point.items()), f"seed {member.seed}"]
    )
