"""The /metrics page: the same series as a run has, with what they show now, in the text format of Prometheus 0.0.4."""

from collections.abc import Callable, Iterator, Sequence

import gevent
import numpy as np

from sim.families import FAMILIES, UP
from sim.series import NAME, is_stale
from sim.spool import NOTHING

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_OF_SCRAPE = ("job", "instance")

Labels = dict[str, str]


class Pages:
    """The page of the whole fleet, and that of each replica as its own vLLM would show it."""

    def __init__(self, labels: Sequence[Labels], values: Callable[[], np.ndarray]) -> None:
        """Set up for series with *labels* (those of `sim.telemetry.Scraper`), of which *values* tells the values."""
        self._values = values
        self._whole = list(_families(labels, range(len(labels)), lambda one: one))
        self._up = [i for i, one in enumerate(labels) if one[NAME] == UP.name]  # each target's series begin with it
        ends = [*self._up[1:], len(labels)]
        self._of = [
            list(_families(labels, range(begin + 1, end), _as_seen_there)) for begin, end in zip(self._up, ends)
        ]

    def fleet(self) -> str:
        """Return every series, labelled as in a run: under `honor_labels: true` Prometheus keeps the labels."""
        return "".join(_written(self._whole, self._values()))

    def target(self, number: int) -> str | None:
        """Return what target *number* shows, without the labels that Prometheus adds; None: it is down.

        Replicas are numbered through all pools; the last target is the gateway.
        """
        values = self._values()
        if values[self._up[number]] != 1.0:
            return None
        return "".join(_written(self._of[number], values))


Written = tuple[str, list[tuple[int, str]]]
"""The head of a metric, and of each of its series where its value is and what stands before it."""


def _as_seen_there(labels: Labels) -> Labels:
    return {name: value for name, value in labels.items() if name not in _OF_SCRAPE}


def _families(labels: Sequence[Labels], some: Sequence[int], shown: Callable[[Labels], Labels]) -> Iterator[Written]:
    by_name: dict[str, list[int]] = {}
    for i in some:
        by_name.setdefault(labels[i][NAME], []).append(i)
    for family in FAMILIES:
        found = sorted(i for name in family.names for i in by_name.get(name, []))
        if not found:
            continue
        counter = "_total" if family.kind == "counter" else ""
        head = f"# HELP {family.name}{counter} {family.help}\n# TYPE {family.name}{counter} {family.kind}\n"
        yield head, [(i, _series(labels[i][NAME], shown(labels[i]))) for i in found]


def _series(name: str, labels: Labels) -> str:
    inside = ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels.items() if key != NAME)
    return f"{name}{{{inside}}} " if inside else f"{name} "


def _written(families: Sequence[Written], values: np.ndarray) -> Iterator[str]:
    there = ~is_stale(values) & (values.view(np.uint64) != NOTHING.view(np.uint64))
    shown = values.tolist()
    for head, series in families:
        lines = [f"{before}{shown[i]!r}\n" for i, before in series if there[i]]
        if lines:
            yield head
            yield from lines
        gevent.sleep(0)  # a large fleet has many lines, and tokens must not wait for them
