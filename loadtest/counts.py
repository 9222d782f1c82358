"""Measured rows counted exactly as simulated ones: the same histograms, minutes, windows, and gateway."""

import itertools
import math
from typing import Any

import numpy as np

from loadtest.evaluator import Evaluation
from sim import summary
from sim.engine import account, meters, state
from sim.engine.commands import GAUGES
from sim.families import CHECK_SCORES
from sim.records import ATTEMPT, PARTS, Outcome
from sim.scenario import Scenario
from sim.series import SeriesSet
from sim.telemetry.scraper import ALWAYS, GATEWAY, Scraper

WINDOWS = 240
_QUIET = ("queue",)
"""Of latencies, those that only the engine knows."""


class Counts:
    """What the rows of one load test come to; the counting itself is the engine's (`sim.engine.account.count_rows`)."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.cohorts = list(scenario.workload.cohorts)
        self.pools = list(scenario.fleet.pools)
        self._w = state.records(state.WORLD, 1)
        w = self._w[0]
        w.seed, w.metered, w.warmup_s, w.cohorts = seed, 1, scenario.warmup, len(self.cohorts)
        w.window_s = scenario.duration / WINDOWS
        w.slow_ttft_s, w.slow_e2e_s = scenario.slo.latency_s("ttft"), scenario.slo.latency_s("e2e")
        kept = {"all": 1.0, "none": 0.0}[scenario.rows] if isinstance(scenario.rows, str) else scenario.rows.sample
        w.row_mode, w.row_below = 2 if kept >= 1 else 1 if kept > 0 else 0, int(min(kept, 1 - 2**-53) * 2**64)
        self._latency = np.zeros((len(self.cohorts) + 1, len(state.METRICS), state.BINS), np.int64)
        self._windows = np.zeros((2, WINDOWS, state.BINS), np.uint32)
        minutes = max(1, math.ceil(scenario.duration / 60.0))
        self._minutes = np.zeros((minutes + 1, len(state.MINUTE_COLUMNS)), np.int64)
        self._parts = np.zeros((state.BINS, len(PARTS) + 2))
        self._gates = state.records(meters.GATE, len(self.pools))
        self._ended = state.records(ATTEMPT, 1)  # nobody judges these
        self._checked = np.zeros((len(self.pools), len(scenario.checks), 2), np.int64)
        self._seen: list[tuple[float, np.ndarray, np.ndarray]] = []
        self._outcomes = np.zeros((len(self.cohorts), len(Outcome)), np.int64)
        self._retries = self._hedges = self._output_tokens = 0
        self._end_s = 0.0

    def add(self, rows: np.ndarray) -> np.ndarray:
        """Count attempts (any record array with the columns of `ATTEMPT`); return the rows to keep."""
        mine = state.records(ATTEMPT, len(rows) or 1)
        for name in ATTEMPT.names or ():
            mine[name][: len(rows)] = rows[name]
        mine["status"] = np.clip(mine["status"], 0, meters.STATUSES - 1)
        w = self._w[0]
        w.rows_n, w.counted = len(rows), 0
        account.count_rows(w, mine, self._ended, self._gates, self._latency, self._windows, self._minutes, self._parts)
        last = rows[rows["last"] == 1]
        np.add.at(self._outcomes, (last["cohort"], last["outcome"]), 1)
        sent, second = rows["status"] > 0, rows["hedge"] == 1
        self._retries += int(((rows["attempt"] > 0) & sent & ~second).sum())
        self._hedges += int((sent & second).sum())
        self._output_tokens += int(rows["output_tokens"].sum())
        self._end_s = max(self._end_s, float(rows["finished_s"].max(initial=0.0)))
        return np.asarray(mine[: int(w.rows_n)])

    def evaluated(self, one: Evaluation) -> None:
        """Count what checks found in an answer whose row was counted."""
        pool = one.answer.pool
        if one.score is not None:
            self._gates["evaluated"][pool] += 1
            self._gates["evaluated_right"][pool] += one.score
        for k, name in enumerate(self.scenario.checks):
            if name in one.found and one.found[name].verdict != "not_judged":
                self._checked[pool, k] += one.found[name].verdict == "right", 1
        if one.wrong:
            minute = min(len(self._minutes) - 2, int(one.answer.scheduled_s / 60.0))
            self._minutes[minute, state.MINUTE_COLUMNS.index("wrong")] += 1

    def look(self, t_s: float) -> None:
        """Remember what the gateway shows at *t_s*: call it in the order of time, rows that ended before counted."""
        gates = self._gates.view(np.int64).copy().view(self._gates.dtype)
        self._seen.append((t_s, gates, self._checked.copy()))

    @property
    def looks(self) -> int:
        """How often it was looked at so far."""
        return len(self._seen)

    def gateway(self, first: int = 0) -> SeriesSet:
        """Return the series of our own gateway: what clients saw, under the names of simulated runs.

        Only from look *first* on, if there is one.
        """
        from sim.spool import Spool

        seen = self._seen[first:]
        if not seen:
            return SeriesSet()
        codes = sorted({*ALWAYS, *np.flatnonzero(self._gates["codes"].sum(axis=0)).tolist()})
        scraper = Scraper([], GATEWAY, self.pools, codes, bool(self.scenario.checks))
        nobody: list[bool] = np.zeros(0, bool)  # type: ignore[assignment]
        for _, gates, _ in seen:
            scraper.note(np.zeros(0, meters.METER), gates, nobody, nobody)
        spool = Spool(scraper.labels)
        t_s = np.array([t for t, _, _ in seen])
        spool.add(t_s, scraper.take(np.zeros((len(seen), 0), GAUGES)))
        made = SeriesSet()
        for one in spool.series():
            made.add(*one)
        spool.close()
        checked = np.array([one for _, _, one in seen], float)
        for (p, pool), (k, (name, check)) in itertools.product(
            enumerate(self.pools), enumerate(self.scenario.checks.items())
        ):
            labels = CHECK_SCORES.series({**GATEWAY, "pool": pool, "check": name, "kind": check.wrong})
            for part, own in enumerate(labels):
                made.add(own, np.round(t_s * 1000).astype(np.int64), checked[:, p, k, part])
        return made

    def histograms(self, gaps: np.ndarray, played_s: float) -> dict[str, np.ndarray]:
        """Return what ``histograms.npz`` holds; *gaps* are those between tokens, by bin.

        Requests were sent for *played_s*: a minute after that is none in which nobody asked.
        """
        n = len(self.cohorts)
        arrays: dict[str, np.ndarray] = {"edges_s": summary.edges_s(state.BINS)}
        for k, name in enumerate(state.METRICS):
            arrays[name] = self._latency[:n, k] if name != "itl" else gaps[None, :].astype(np.int64)
        for name in _QUIET:
            arrays[name] = np.zeros_like(arrays[name])
        arrays["window_s"] = np.array(float(self._w[0].window_s))
        arrays["ttft_by_window"], arrays["e2e_by_window"] = self._windows
        for k, name in enumerate(state.MINUTE_COLUMNS):
            arrays[f"minute_{name}"] = self._minutes[: self._last_minute(played_s), k]
        return arrays | summary.parts_table(self._parts, arrays["ttft"].sum(axis=0))

    def _last_minute(self, played_s: float) -> int:
        return max(1, min(len(self._minutes) - 1, math.ceil(played_s / 60.0)))

    def metrics(self, histograms: dict[str, np.ndarray], played_s: float) -> dict[str, float]:
        """Return the metrics that a client can measure in *played_s*; what only the engine knows is nan."""
        found = dict.fromkeys(summary.metric_names(self.cohorts), math.nan)
        found |= summary.latencies(histograms, self.cohorts)
        found |= summary.counts(
            self._outcomes.sum(axis=0).tolist(), self._minutes[: self._last_minute(played_s)], played_s
        )
        found |= summary.cohort_errors(self._outcomes, self.cohorts)
        attempts = float(self._minutes[:, state.MINUTE_COLUMNS.index("attempts")].sum())
        totals: dict[str, Any] = dict.fromkeys(("prompt_cached", "prompt_seen", "recomputed", "prompt_tokens"), 0.0)
        totals |= {"attempts": attempts, "retries": self._retries, "hedges": self._hedges}
        found |= summary.traffic(totals, found["requests"], played_s)
        found["throughput_tokens_per_s"] = self._output_tokens / max(self._end_s, played_s - self.scenario.warmup)
        return found


def warm() -> None:
    """Compile what counts, if this machine has not yet."""
    from sim import scenario as scenarios

    text = (
        "{name: warm, duration: 60s, fleet: {kv_blocks: 99, step_time: {linear: {base: 10ms}}}, "
        "workload: {rate_per_s: 1, cohorts: {a: {prompt_tokens: 9, output_tokens: 9}}}}"
    )
    Counts(scenarios.loads(text), 1).add(np.zeros(0, ATTEMPT))


__all__ = ["Counts", "warm"]
