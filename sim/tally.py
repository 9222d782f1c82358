"""What one run has counted, in numbers that add up: tallies of runs side by side make the tally of all of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from sim import summary
from sim.engine.fleet import Fleet
from sim.engine.state import METRICS, MINUTE_COLUMNS
from sim.scenario import Scenario

_OF_WORLD = ("retries", "hedges", "recomputed", "steps")
_OF_REPLICAS = ("prompt_seen", "prompt_cached", "prompt_tokens", "output_tokens", "preemptions")


@dataclass
class Tally:
    """Histograms, counters and gauges of a run."""

    latency: np.ndarray
    """Latencies by cohort, metric and bin; behind the cohorts a row of what is counted without one."""
    windows: np.ndarray
    """TTFT and e2e by 1/240 of the run, and bin."""
    minutes: np.ndarray
    """`MINUTE_COLUMNS` by minute; the last row is of what was sent after the end."""
    parts: np.ndarray
    """Seconds by TTFT bin and latency part, as `sim.summary.parts_table` takes them."""
    outcomes: np.ndarray
    """Requests by cohort and `sim.records.Outcome`."""
    totals: np.ndarray
    """What else is counted, by `_OF_WORLD` and `_OF_REPLICAS`."""
    window_s: float
    """Length of a window."""
    ended_s: float
    """When the last request had ended."""
    gauges: summary.Gauges
    """What replicas showed at scrapes."""

    @classmethod
    def of(cls, fleet: Fleet, gauges: summary.Gauges, now_s: float) -> "Tally":
        """Return what *fleet* has counted until *now_s*; arrays are the fleet's own."""
        w = fleet.w[0]
        totals = [float(w[name]) for name in _OF_WORLD] + [float(fleet.reps[name].sum()) for name in _OF_REPLICAS]
        return cls(
            fleet.latency,
            fleet.windows,
            fleet.minutes,
            fleet.parts,
            np.asarray(fleet.clients.outcomes),
            np.array(totals),
            float(w.window_s),
            now_s,
            gauges,
        )

    def add(self, other: "Tally") -> None:
        """Add what was counted beside it, with the same cohorts and the same times."""
        for name in ("latency", "windows", "minutes", "parts", "outcomes", "totals"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.ended_s = max(self.ended_s, other.ended_s)
        self.gauges.beside(other.gauges)

    def write(self, path: Path) -> None:
        """Write it to *path* (.npz)."""
        arrays = {one.name: np.asarray(getattr(self, one.name)) for one in fields(self) if one.name != "gauges"}
        seen = {"seen": self.gauges.settled(), "kv_max": np.array(self.gauges.kv_max)}
        np.savez_compressed(path, allow_pickle=False, **arrays, **seen)

    @classmethod
    def read(cls, path: Path) -> "Tally":
        """Return what was written to *path*."""
        with np.load(path) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        gauges = summary.Gauges()
        gauges.seen, gauges.kv_max = found.pop("seen"), float(found.pop("kv_max"))
        window_s, ended_s = float(found.pop("window_s")), float(found.pop("ended_s"))
        return cls(**found, window_s=window_s, ended_s=ended_s, gauges=gauges)

    @property
    def wrong(self) -> float:
        """Wrong answers given."""
        return float(self.minutes[:-1, MINUTE_COLUMNS.index("wrong")].sum())

    def is_scraped(self, scenario: Scenario) -> bool:
        """Tell whether any scrape fell into the counted time; the one at t = 0 says nothing, for nobody has come."""
        return len(self.gauges.settled()) > (scenario.warmup == 0)

    def metrics(self, scenario: Scenario, own: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics of a run of *scenario*; *own* are what others than the fleet have measured."""
        cohorts = list(scenario.workload.cohorts)
        totals = dict(zip((*_OF_WORLD, *_OF_REPLICAS), self.totals.tolist(), strict=True))
        totals["attempts"] = float(self.minutes[:, MINUTE_COLUMNS.index("attempts")].sum())
        metrics = summary.latencies(self.histograms(), cohorts)
        metrics |= summary.counts(self.outcomes.sum(axis=0).tolist(), self.minutes[:-1], scenario.duration)
        metrics |= self.gauges.metrics() if self.is_scraped(scenario) else dict.fromkeys(summary.GAUGES, math.nan)
        counted_s = scenario.duration - scenario.warmup
        metrics["throughput_tokens_per_s"] = totals["output_tokens"] / max(self.ended_s, counted_s)
        metrics |= {name: totals[name] for name in ("preemptions", "steps")}
        metrics |= summary.cohort_errors(self.outcomes, cohorts)
        metrics |= own
        metrics |= summary.budgets(metrics, scenario.slo.targets, scenario.slo.window, scenario.duration)
        return metrics | summary.traffic(totals, metrics["requests"], scenario.duration)

    def histograms(self) -> dict[str, np.ndarray]:
        """Return latency histograms, counters by minute and latency parts, by their names in the run folder."""
        cohorts = len(self.latency) - 1
        arrays: dict[str, np.ndarray] = {"edges_s": summary.edges_s(self.latency.shape[2])}
        for k, name in enumerate(METRICS):
            arrays[name] = self.latency[:cohorts, k] if name != "itl" else self.latency[cohorts:, k]
        arrays["window_s"] = np.array(self.window_s)
        arrays["ttft_by_window"], arrays["e2e_by_window"] = self.windows
        for k, name in enumerate(MINUTE_COLUMNS):
            arrays[f"minute_{name}"] = self.minutes[:-1, k]
        return arrays | summary.parts_table(self.parts, arrays["ttft"].sum(axis=0))
