"""The past that rules are judged on: a run, or a file of series."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sim import results, series
from sim.alerts.sources.texts import is_text, read_text
from sim.claims import value_name
from sim.errors import InputError
from sim.results import SCRAPED, Member
from sim.series import SeriesSet

if TYPE_CHECKING:
    from sim.alerts.promql.parsing import Expression
    from sim.alerts.rulefile import Group
    from sim.alerts.rules import Elsewhere


@dataclass(frozen=True)
class Past:
    """One stretch of it: how it is called, where its series are, and of a run the point and seed that was played."""

    name: str
    path: Path
    member: Member | None = None

    def series(self, names: Collection[str] | None = None) -> SeriesSet:
        """Return its series; with *names* only those so called.

        Raises:
            InputError: they cannot be read.
        """
        return SeriesSet.read(self.path, names)

    def read(self, groups: "Sequence[Group]", also: "Sequence[Expression]" = ()) -> SeriesSet:
        """Return the series that the rules in *groups* and the expressions *also* read.

        Not those that the rules record: they do so anew.

        Raises:
            InputError: they cannot be read.
        """
        rules = [rule for group in groups for rule in group.rules]
        read = [*(rule.expression for rule in rules if rule.expression is not None), *also]
        names = {select.name for one in read for select in one.selectors}
        return self.series(None if "" in names else names - {rule.name for rule in rules if rule.records})

    @property
    def span_ms(self) -> tuple[int, int]:
        """Time of the first and of the last evaluation: of its first and of its last sample."""
        return series.span_ms(self.path)

    @property
    def caveat(self) -> str:
        """What must be known about it, if anything, once it was read."""
        return ""

    @property
    def elsewhere(self) -> "Elsewhere | None":
        """Who can evaluate what the subset cannot."""
        return None


@dataclass(frozen=True)
class TextPast(Past):
    """A past that is a file of text, read once and as a whole."""

    @cached_property
    def _all(self) -> SeriesSet:
        return read_text(self.path)

    def series(self, names: Collection[str] | None = None) -> SeriesSet:
        """Return its series; with *names* only those so called."""
        return self._all if names is None else self._all.only(names)

    @property
    def span_ms(self) -> tuple[int, int]:
        """Time of its first and of its last sample.

        Raises:
            InputError: there is none.
        """
        try:
            return self._all.span_ms
        except InputError:
            raise InputError(f"{self.path}: holds no samples") from None


def open_pasts(source: Path) -> list[Past]:
    """Return what there is in *source*: the folder of a run, of one of its points and seeds, or a file of series.

    A file is Parquet as runs have it, or text: OpenMetrics, Prometheus' own format, a dump of promtool.

    Raises:
        InputError: nothing that rules can be judged on.
    """
    if not source.is_dir():
        return [(TextPast if is_text(source) else Past)(source.name, source)]
    if not (source / "run.json").is_file() and (source / SCRAPED).is_file():
        member = Member({}, 0, source) if (source / "member.json").is_file() else None
        return [Past(str(source), source / SCRAPED, member)]
    members = [one for one in results.Run.open(source).members if (one.path / SCRAPED).is_file()]
    if not members:
        raise InputError(f"{source}: kept no {SCRAPED} to judge rules on: its scenario says `telemetry: none`")
    return [Past(_name(one), one.path / SCRAPED, one) for one in members]


def _name(member: Member) -> str:
    return ", ".join(
        [
            *(f"{key.rpartition('.')[2]} {value_name(value)}" for key, value in member.point.items()),
            f"seed {member.seed}",
        ]
    )
