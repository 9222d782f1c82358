"""What happened to the world while it was played: faults, restarts, scaling, as ``events.jsonl`` tells it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENDS = {"_begins": "_ends", "_opens": "_closes"}
FAULT = "#fdeee2"
"""Behind everything that was asked while something was broken."""


@dataclass(frozen=True)
class Span:
    """Something that lasted: a fault, a restart, a rollout, an open breaker."""

    kind: str  # fault, restart, rollout, drain, breaker
    label: str  # slow chat/3
    start_s: float
    end_s: float


def spans(events: Iterable[Mapping[str, Any]], end_s: float) -> list[Span]:
    """Return what lasted, in the order of beginning; what has no end lasts until *end_s*."""
    open_: dict[tuple[Any, ...], list[tuple[float, str]]] = {}
    found = []
    for event in events:
        for begins, ends in ENDS.items():
            kind = event["event"].removesuffix(begins).removesuffix(ends)
            key = (kind, event.get("name"), event.get("target"))
            if event["event"] == kind + begins:
                open_.setdefault(key, []).append((event["t_s"], _label(kind, event)))
            elif event["event"] == kind + ends and open_.get(key):
                start_s, label = open_[key].pop(0)
                found.append(Span(kind, label, start_s, event["t_s"]))
    for (kind, *_), begun in open_.items():
        found += [Span(kind, label, start_s, max(end_s, start_s)) for start_s, label in begun]
    return sorted(found, key=lambda span: (span.start_s, span.end_s, span.label))


def moments(events: Iterable[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Return what happened without lasting (``scaled chat``), and when, in seconds."""
    pairs = tuple(end for both in ENDS.items() for end in both)
    alone = [event for event in events if not event["event"].endswith(pairs)]
    return [(f"{event['event'].replace('_', ' ')} {event.get('target', '')}".strip(), event["t_s"]) for event in alone]


def _label(kind: str, event: Mapping[str, Any]) -> str:
    """Return ``slow chat/3``, ``restart chat/3``; a fault that has a name of its own is called by that as well."""
    mechanism, target, name = event.get("mechanism", kind), event.get("target", ""), event.get("name", "")
    plain = f"{mechanism} {target}".strip()
    return plain if not name or name.startswith(mechanism) else f"{name} ({plain})"


def shade(axes: "Sequence[Axes] | np.ndarray", found: Iterable[Span], unit_s: float) -> bool:
    """Shade the times of faults on *axes* and return whether there are any; *unit_s* is what the time axis counts."""
    faults = merged([(span.start_s, span.end_s) for span in found if span.kind == "fault"])
    for start_s, end_s in faults:
        for ax in axes:
            ax.axvspan(start_s / unit_s, end_s / unit_s, color=FAULT, zorder=0, lw=0)
    return bool(faults)


def merged(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the times that any of *intervals* covers, as intervals that do not touch."""
    found: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found
