"""What the servers say of themselves while they are loaded: their /metrics pages, or what a Prometheus has of them."""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from sim import fetch
from sim.errors import BlowoutError
from sim.exposition import SAMPLE, labels, number
from sim.fetch import Credentials
from sim.results import SERIES
from sim.series import NAME, STALE, SeriesSet, is_stale
from sim.telemetry.scraper import GATEWAY

ANSWER_S = 10.0
JOB = "vllm"
_FRESH = 1.5
"""A sample stands for its series up to so many scrape intervals later."""


class Scraper:
    """Reads one page at every interval, in a thread of its own, until it is stopped."""

    def __init__(self, url: str, interval_s: float, credentials: Credentials, speed: float = 1.0) -> None:
        """Read *url* every *interval_s* of the model, of which *speed* seconds are a wall second."""
        self._speed = speed
        self.url, self._interval_s, self._credentials = url, interval_s, credentials
        self.instance = instance_of(url)
        self.failed = self.answered = 0
        self.said = ""
        self._known: dict[str, int] = {}
        self._labels: list[dict[str, str]] = []
        self._samples: list[tuple[list[int], list[float]]] = []
        self._there: set[int] = set()
        self._taken: list[int] = []
        self.done_s = -1.0
        """Everything until then has been read (seconds since the start)."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._up = self._series(f'up{{job="{JOB}",instance="{self.instance}"}}', bare=True)

    def start(self, wall_t0: float) -> None:
        """Read at *wall_t0* (Unix time) and at every interval from then on."""
        self._thread = threading.Thread(target=self._run, args=(wall_t0,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()
        if self._thread:
            self._thread.join(ANSWER_S)

    def add_to(self, series: SeriesSet) -> None:
        """Add everything that was read to *series*."""
        for one, (t_ms, values) in zip(self._labels, self._samples):
            if t_ms:
                series.add(one, np.array(t_ms, np.int64), np.array(values, np.float64))

    def take(self) -> SeriesSet:
        """Return what was read since it was last taken."""
        made = SeriesSet()
        self._taken += [0] * (len(self._samples) - len(self._taken))
        for k, (one, (t_ms, values)) in enumerate(zip(self._labels, self._samples)):
            first, end = self._taken[k], len(values)  # a value is added after its time
            if end > first:
                made.add(one, np.array(t_ms[first:end], np.int64), np.array(values[first:end], np.float64))
                self._taken[k] = end
        return made

    def read(self, t_s: float, page: str | None) -> None:
        """Take in a *page* as of *t_s*; None: nobody answered, which ends every series until somebody does."""
        t_ms = round(t_s * 1000)
        self._add(self._up, t_ms, float(page is not None))
        if page is None:
            self.failed += 1
            for index in self._there:
                self._add(index, t_ms, float(STALE[0]))
            self._there = set()
            return
        self.answered += 1
        there = set()
        for line in page.splitlines():
            if not line or line[0] == "#":
                continue
            text, _, value = line.rpartition(" ")
            found = number(value)
            index = self._series(text.rstrip()) if found is not None else -1
            if index >= 0 and found is not None:
                self._add(index, t_ms, found)
                there.add(index)
        for index in self._there - there:
            self._add(index, t_ms, float(STALE[0]))
        self._there = there

    def _series(self, text: str, bare: bool = False) -> int:
        """Return the number of the series that *text* names; -1: it is none to keep.

        What the page of `blowout serve` says as a gateway is none: here that is what clients saw.
        """
        if text in self._known:
            return self._known[text]
        match = SAMPLE.match(f"{text} 0")
        found = labels(match["labels"] or "") if match else None
        if match is None or found is None or match["name"].endswith("_created") or found.get("job") == GATEWAY["job"]:
            self._known[text] = -1
            return -1
        target = {} if bare else {"job": JOB, "instance": self.instance}
        self._labels.append({NAME: match["name"], **target, **found})  # as with `honor_labels: true`
        self._samples.append(([], []))
        self._known[text] = len(self._labels) - 1
        return self._known[text]

    def _add(self, index: int, t_ms: int, value: float) -> None:
        times, values = self._samples[index]
        if not times or times[-1] < t_ms:
            times.append(t_ms)
            values.append(value)

    def _run(self, wall_t0: float) -> None:
        k = 0
        every_s = self._interval_s / self._speed
        while not self._stop.wait(max(0.0, wall_t0 + k * every_s - time.time())):
            t_s = (time.time() - wall_t0) * self._speed
            self.read(t_s, self._page())
            self.done_s = t_s
            k = max(k + 1, int((time.time() - wall_t0) / every_s) + 1)

    def _page(self) -> str | None:
        try:
            body, _ = fetch.ask(self.url, None, {"Accept": "text/plain"}, self._credentials, ANSWER_S)
        except BlowoutError as error:
            self.said = self.said or str(error)
            return None
        return body.decode("utf-8", errors="replace")


def instance_of(url: str) -> str:
    """Return what a Prometheus calls the target at *url*: host and port."""
    return urlsplit(url).netloc.rpartition("@")[2]


def remembered(url: str, models: Collection[str], wall_t0: float, seconds: float, token: str | None) -> SeriesSet:
    """Return what the Prometheus at *url* has of the engines that serve *models*, in run time.

    Raises:
        EndpointError: it does not answer.
    """
    from sim.alerts.promql.store import Matcher
    from sim.alerts.sources.server import Server

    server = Server(url, Credentials(token))
    start_ms, end_ms = round(wall_t0 * 1000), round((wall_t0 + seconds) * 1000)
    of_models = [Matcher(NAME, "=~", "vllm:.+"), Matcher("model_name", "=~", "|".join(sorted(models)))]
    server.remote = server.has_remote_read(of_models, end_ms)
    found: dict[tuple[tuple[str, str], ...], list[tuple[np.ndarray, np.ndarray]]] = {}
    pieces = list(server.samples(of_models, start_ms, end_ms))
    instances = {one.get("instance", "") for one, _, _ in pieces}
    ups = list(server.samples([Matcher(NAME, "=", "up")], start_ms, end_ms))
    for one, t_ms, values in [*pieces, *(row for row in ups if row[0].get("instance") in instances)]:
        found.setdefault(tuple(sorted(one.items())), []).append((t_ms - start_ms, values))
    made = SeriesSet()
    for key, parts in found.items():
        made.add(dict(key), np.concatenate([t for t, _ in parts]), np.concatenate([v for _, v in parts]))
    return made


def engines(series: SeriesSet, pool: str, t_s: np.ndarray, interval_s: float) -> dict[str, np.ndarray]:
    """Return the columns of ``series.parquet``: at each of *t_s*, of each instance, the metrics called `SERIES`.

    Without any instance, one whose values are not known.
    """
    instances = sorted({one["instance"] for one, _, _ in series if one[NAME] in SERIES}) or [""]
    values = np.full((len(SERIES), len(t_s), len(instances)), np.nan)
    for one, t_ms, v in series:
        if one[NAME] not in SERIES:
            continue
        at = np.searchsorted(t_ms, np.round(t_s * 1000) + 0.3 * interval_s * 1000, "right") - 1
        known = (at >= 0) & (t_s * 1000 - t_ms[at] < _FRESH * interval_s * 1000)
        known &= ~is_stale(v)[at]
        cell = values[SERIES.index(one[NAME])][:, instances.index(one["instance"])]
        cell[known] = np.where(np.isnan(cell[known]), 0.0, cell[known]) + v[at][known]
    columns: dict[str, np.ndarray] = {
        "t_s": np.repeat(t_s, len(instances)),
        "pool": np.full(len(t_s) * len(instances), pool),
        "replica": np.tile(np.arange(len(instances), dtype=np.int32), len(t_s)),
    }
    return columns | {name: values[k].reshape(-1) for k, name in enumerate(SERIES)}


def gauges(columns: Mapping[str, np.ndarray], warmup_s: float, duration_s: float) -> dict[str, float]:
    """Return the metrics about engines that their pages give: means and peaks after the warm-up, and preemptions."""
    counted = (columns["t_s"] >= warmup_s) & (columns["t_s"] <= duration_s)
    found: dict[str, float] = {}
    kv = columns["vllm:kv_cache_usage_perc"][counted]
    if np.isfinite(kv).any():
        found |= {"kv_mean": float(np.nanmean(kv)), "kv_max": float(np.nanmax(kv))}
    for name in ("running", "waiting"):
        per_time = _per_time(columns["t_s"][counted], columns[f"vllm:num_requests_{name}"][counted], np.nansum)
        if len(per_time):
            found |= {f"{name}_mean": float(per_time.mean()), f"{name}_max": float(per_time.max())}
    found.pop("running_max", None)
    counter = columns["vllm:num_preemptions_total"]
    if np.isfinite(counter).any():
        grown = [counter[columns["replica"] == r] for r in np.unique(columns["replica"])]
        found["preemptions"] = float(sum(np.nanmax(one) - np.nanmin(one) for one in grown if np.isfinite(one).any()))
    return found


def _per_time(t_s: np.ndarray, values: np.ndarray, total: Callable[..., Any]) -> np.ndarray:
    known = np.isfinite(values)
    return np.array([total(values[known & (t_s == t)]) for t in np.unique(t_s[known])])


def counter_ratio(series: SeriesSet, part: str, whole: str) -> float:
    """Return by how much counter *part* grew for each that *whole* did; nan where it did not."""
    grown = {name: sum(float(v[-1] - v[0]) for one, _, v in series if one[NAME] == name) for name in (part, whole)}
    return grown[part] / grown[whole] if grown[whole] > 0 else float("nan")


__all__: Sequence[str] = ["Scraper", "counter_ratio", "engines", "gauges", "instance_of", "remembered"]
