"""The Prometheus text format, read strictly: one sample a line, or one sentence about the line that is not.

Written here rather than taken from `prometheus_client`, which is no dependency of the simulator, is lenient
about lines that it cannot read, and cannot say where a file is wrong.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sim import exposition
from sim.errors import BlowoutError, InputError


@dataclass(frozen=True)
class Sample:
    """One number of one series."""

    name: str
    labels: dict[str, str]
    value: float


class Page:
    """The samples of one scrape, or of one query, found by name."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_name.setdefault(sample.name, []).append(sample)

    def __iter__(self) -> Iterator[Sample]:
        for samples in self._by_name.values():
            yield from samples

    def get(self, name: str, **labels: str) -> list[Sample]:
        """Return the samples of *name* that carry all of *labels*."""
        found = self._by_name.get(name, [])
        return [s for s in found if all(s.labels.get(k) == v for k, v in labels.items())]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over the series of *name* (0 when there is none; NaN counts as 0)."""
        return math.fsum(s.value for s in self.get(name, **labels) if not math.isnan(s.value))

    def only(self, model: str) -> "Page":
        """Return the samples of one model, and those that name no model."""
        return Page(s for s in self if s.labels.get("model_name", model) == model)


def parse(text: str, where: str, error: type[BlowoutError] = InputError) -> Page:
    """Read a page of the text format; what is no sample raises *error*, naming *where*, the line and what was met."""
    return Page(_samples(text, where, error))


def _samples(text: str, where: str, error: type[BlowoutError]) -> Iterator[Sample]:
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = exposition.SAMPLE.match(line)
        labels = None if match is None else exposition.labels(match["labels"] or "")
        value = None if match is None else exposition.number(match["value"])
        if match is None or labels is None or value is None:
            raise error(f"{where}, line {number}: {exposition.EXPECTED}, got: {exposition.shown(line)}")
        yield Sample(match["name"], labels, value)


@dataclass(frozen=True)
class Histogram:
    """A distribution in buckets: upper ``edges`` (finite, increasing), ``counts`` at or below each, count and sum."""

    edges: tuple[float, ...]
    counts: tuple[float, ...]
    count: float
    total: float

    @property
    def mean(self) -> float:
        """The mean, exact: the sum over the count."""
        return self.total / self.count if self.count else math.nan

    def quantile(self, q: float) -> float:
        """Return the *q*-quantile as Prometheus' histogram_quantile: linear in its bucket, the last edge beyond."""
        below, rank, lower = 0.0, q * self.count, 0.0
        for edge, here in zip(self.edges, self.counts):
            if here >= rank and here > below:
                return lower + (edge - lower) * (rank - below) / (here - below)
            below, lower = here, edge
        return self.edges[-1] if self.edges else math.nan


def histogram(page: Page, name: str) -> Histogram | None:
    """Return the histogram *name* summed over all series of *page*, or None when it is absent or empty.

    Servers with different `max_model_len` have different buckets (vLLM's build_1_2_5_buckets); only edges
    that every series has are kept, because a sum over the others would count requests of some servers only.
    """
    series: dict[tuple, dict[float, float]] = {}
    for sample in page.get(f"{name}_bucket"):
        edge = exposition.number(sample.labels.get("le", ""))
        if edge is not None and not math.isnan(sample.value):
            series.setdefault(_key(sample, "le"), {})[edge] = sample.value
    used = [buckets for buckets in series.values() if max(buckets.values(), default=0.0) > 0]
    if not used:
        return None
    edges = sorted(set.intersection(*(set(buckets) for buckets in used)))
    counts, most = [], 0.0
    for edge in edges:  # extrapolated increases may dip by a hair: cumulative counts never do
        most = max(most, math.fsum(buckets[edge] for buckets in used))
        counts.append(most)
    if not edges or edges[-1] != math.inf:
        return None
    return Histogram(tuple(edges[:-1]), tuple(counts[:-1]), counts[-1], page.total(f"{name}_sum"))


def difference(later: Page, earlier: Page) -> Page | None:
    """Return what counters gained from *earlier* to *later*, gauges as they are; None when one shrank (a restart)."""
    before = {(s.name, _key(s)): s.value for s in earlier}
    gained = []
    for sample in later:
        value = sample.value
        if sample.name.endswith(("_total", "_bucket", "_count", "_sum")):
            value -= before.get((sample.name, _key(sample)), 0.0)
            if value < 0:
                return None
        gained.append(Sample(sample.name, sample.labels, value))
    return Page(gained)


def _key(sample: Sample, *without: str) -> tuple:
    return tuple(sorted((k, v) for k, v in sample.labels.items() if k not in without))
