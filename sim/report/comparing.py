"""Two runs side by side: which figures differ by more than the noise, and which alerts paged in either."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sim.alerts.pages import NEVER, Pages, pages_of
from sim.alerts.past import Past
from sim.alerts.rulefile import Group
from sim.alerts.rules import Judgement, Verdict, judge
from sim.report import differences, printing, tables, words
from sim.report.alerting import EPOCH_MS
from sim.report.differences import Difference
from sim.report.sides import Pair, Side, pairs
from sim.results import SCRAPED
from sim.words import count

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST_TIMES = 6
NAMES = {"preemptions_per_request": "preemptions a request", "requests_per_s": "requests asked per s"}


@dataclass(frozen=True)
class Paged:
    """What one alert rule did in A and in B: the pages of each repeat, or why they are not known."""

    rule: str
    pages: tuple[list[Pages], list[Pages]]
    reasons: tuple[str, str]


@dataclass(frozen=True)
class Compared:
    """A pair of points, their figures and their alerts."""

    pair: Pair
    figures: list[Difference]
    alerts: list[Paged] = field(default_factory=list)

    @property
    def differing(self) -> list[Difference]:
        """The figures that differ by more than the noise."""
        return [one for one in self.figures if one.differs]


@dataclass(frozen=True)
class Comparison:
    """Everything that there is to say about two runs."""

    a: Side
    b: Side
    tolerance: float
    points: list[Compared]
    alone: list[str]

    @property
    def differs(self) -> bool:
        """Whether any figure differs by more than the noise."""
        return any(one.differing for one in self.points)

    @property
    def answer(self) -> str:
        """In one sentence: what differs, the largest difference first."""
        found = [(one.pair.label, each) for one in self.points for each in one.differing]
        if not found:
            unknown = sum(not each.noise for one in self.points for each in one.figures)
            said = f"; of {count(unknown, 'figure')} the noise is not known" if unknown else ""
            return f"Nothing differs by more than the noise{said}."
        found.sort(key=lambda pair: -abs(pair[1].gap) / (max(abs(pair[1].a), abs(pair[1].b)) or 1.0))
        several = len(self.points) > 1
        shown = [
            f"{name(each.metric)} {_change(each)}{f' {words.place(label)}' if several and label else ''}"
            for label, each in found[:4]
        ]
        more = f" and {count(len(found) - 4, 'more figure')}" if len(found) > 4 else ""
        return f"B differs from A by more than the noise: {', '.join(shown)}{more}."

    @property
    def test(self) -> str:
        """How it was decided."""
        rests = dict.fromkeys(each.noise for one in self.points for each in one.figures if each.noise)
        said = {
            "windows": f"blocks of 1/{differences.BLOCKS} of the time, drawn again {differences.DRAWS} times",
            "repeats": "the spread over repeats",
            "repeats, seed by seed": "the spread over repeats, compared seed by seed",
        }
        noise = " or ".join(said[one] for one in rests) or "nothing: there is one repeat, and too few windows"
        return (
            f"A figure differs if the interval of its gap leaves out 0 and the gap is more than "
            f"{words.percent(self.tolerance)} of the larger value. Intervals are 95% for all figures together; they "
            f"rest on {noise}. Values are means over repeats."
        )


def compare(a: Side, b: Side, tolerance: float, groups: Sequence[Group] = ()) -> Comparison:
    """Return how *b* differs from *a*, with what the rules in *groups* did in both.

    Raises:
        InputError: they have no point in common.
    """
    both, alone = pairs(a, b)
    scenarios = (a.scenario, b.scenario)
    comparisons = len(both) * len(differences.METRICS)
    found = [
        Compared(
            pair,
            differences.differences(pair.a, pair.b, scenarios, tolerance, comparisons),
            _alerts(pair, groups) if groups else [],
        )
        for pair in both
    ]
    return Comparison(a, b, tolerance, found, alone)


def _alerts(pair: Pair, groups: Sequence[Group]) -> list[Paged]:
    """Return what each alert rule did at both points; nothing unless all repeats kept their series."""
    members = (pair.a.members, pair.b.members)
    if not all((member.path / SCRAPED).is_file() for side in members for member in side):
        return []
    judged = []
    for side in members:
        pasts = [Past("", member.path / SCRAPED, member) for member in side]
        judged.append([(past.span_ms, judge(groups, past.read(groups), span_ms=past.span_ms)) for past in pasts])
    found = []
    for i, rule in enumerate(rule for group in groups for rule in group.rules):
        if rule.records:
            continue
        pages = tuple([_pages(one[i], span) for span, one in side] for side in judged)
        reasons = tuple(next((_why(one[i]) for _, one in side if _why(one[i])), "") for side in judged)
        found.append(Paged(rule.name, pages, reasons))  # type: ignore[arg-type]
    return found


def _pages(one: Judgement, span_ms: tuple[int, int]) -> Pages:
    """Return the pages of a rule, times since the start of the run."""
    found = pages_of(one.episodes)
    zero = span_ms[0] if span_ms[0] >= EPOCH_MS else 0
    return Pages(found.start_ms - zero, np.where(found.end_ms == NEVER, NEVER, found.end_ms - zero))


def _why(one: Judgement) -> str:
    return "" if one.verdict == Verdict.JUDGED else f"{one.verdict}: {one.reason}"


# --- said -----------------------------------------------------------------------------------------------------------


def name(metric: str) -> str:
    """Return what a row calls *metric*."""
    return NAMES.get(metric) or tables.name(metric)


def _change(one: Difference) -> str:
    if not np.isfinite(one.share):
        return f"from 0 to {words.quantity(one.metric, one.b)}"
    return words.change(1 + one.share) if one.share > -1 else "to 0"


def show(found: Comparison, commands: Sequence[tuple[str, str]], file: IO[str]) -> None:
    """Print the comparison to *file*."""
    from rich.text import Text

    top: list[RenderableType] = [
        Text(f"A  {found.a.about}  ({found.a.path})", style="bold"),
        Text(f"B  {found.b.about}  ({found.b.path})", style="bold"),
        Text(),
        Text(found.answer),
    ]
    blocks: list[printing.Block] = [("", top)]
    for one in found.points:
        blocks.append((one.pair.label or "Figures", [_table(one.figures)]))
        if one.alerts:
            blocks.append((f"Pages{f' {words.place(one.pair.label)}' if one.pair.label else ''}", [_paged(one.alerts)]))
    blocks.append(("Not compared", [Text(line) for line in found.alone]))
    blocks.append(("How", [Text(found.test)]))
    printing.show(blocks, commands, file)


def _table(figures: Sequence[Difference]) -> "RenderableType":
    rows = [
        [
            name(one.metric),
            words.quantity(one.metric, one.a),
            words.quantity(one.metric, one.b),
            _signed(one.metric, one.gap),
            f"{_signed(one.metric, one.low)} to {_signed(one.metric, one.high)}" if one.noise else "–",
            _change(one) if one.gap else "",
            _verdict(one),
        ]
        for one in figures
    ]
    looks = {i: "bold" for i, one in enumerate(figures) if one.differs}
    return printing.table(("", "A", "B", "B − A", "interval of it", "change", ""), rows, looks=looks)


def _verdict(one: Difference) -> str:
    if not one.noise:
        return "noise unknown"
    small = "too small to count" if one.gap and (one.low > 0 or one.high < 0) else "within noise"
    return "differs" if one.differs else small


def _signed(metric: str, value: float) -> str:
    shown = words.quantity(metric, abs(value))
    return shown if not value or not np.isfinite(value) else f"{'+' if value > 0 else '−'}{shown}"


def _paged(alerts: Sequence[Paged]) -> "RenderableType":
    rows = []
    for one in alerts:
        cells: list[str] = []
        for repeats, reason in zip(one.pages, one.reasons):
            counts = [len(pages) for pages in repeats]
            cells += ["–", reason] if reason else ["/".join(map(str, counts)), _times(repeats)]
        rows.append([one.rule, *cells])
    return printing.table(("alert", "A:\npages", "A:\nfrom – to", "B:\npages", "B:\nfrom – to"), rows,
                          texts=(2, 4))  # fmt: skip


def _times(repeats: Sequence[Pages]) -> str:
    """Return when pages began and ended, repeat by repeat, as many as one line bears."""
    said = []
    for pages in repeats:
        spans = [
            f"{words.stamp(a / 1000)}–{'' if b == NEVER else words.stamp(b / 1000)}"
            for a, b in zip(pages.start_ms.tolist(), pages.end_ms.tolist())
        ]
        more = f" +{len(spans) - MOST_TIMES}" if len(spans) > MOST_TIMES else ""
        said.append(", ".join(spans[:MOST_TIMES]) + more)
    return " | ".join(said) if any(said) else ""


def as_json(found: Comparison) -> dict[str, Any]:
    """Return everything for programs; times in seconds, null what is not known."""
    return {
        **{
            key: {
                "path": str(side.path),
                "scenario": side.seen.name,
                "kind": side.seen.kind,
                "seeds": sorted({member.seed for point in side.seen.points for member in point.members}),
                "duration_s": side.seen.duration_s,
                "uncalibrated": side.seen.uncalibrated,
            }
            for key, side in (("a", found.a), ("b", found.b))
        },
        "differs": found.differs,
        "answer": found.answer,
        "test": found.test,
        "tolerance": found.tolerance,
        "points": [_point_json(one) for one in found.points],
        "not_compared": found.alone,
    }


def _point_json(one: Compared) -> dict[str, Any]:
    return {
        "a": one.pair.a.values,
        "b": one.pair.b.values,
        "metrics": {
            each.metric: {
                "a": each.a,
                "b": each.b,
                "gap": each.gap,
                "low": each.low,
                "high": each.high,
                "differs": each.differs,
                "noise": each.noise or None,
            }
            for each in one.figures
        },
        "alerts": {
            each.rule: {
                key: {"not_judged": reason or None, "pages_s": [list(_spans(pages)) for pages in repeats]}
                for key, repeats, reason in zip("ab", each.pages, each.reasons)
            }
            for each in one.alerts
        },
    }


def _spans(pages: Pages) -> Iterator[tuple[float, float | None]]:
    for start, end in zip(pages.start_ms.tolist(), pages.end_ms.tolist()):
        yield start / 1000, None if end == NEVER else end / 1000
