"""Runs a load test from outside: starts Locust, takes its rows, reads the servers' metrics, writes the run folder.

`import locust` patches the whole process (sockets, threads, time), so it happens in another one.
"""

import json
import math
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from loadtest import preflight, rows, scrape, tester
from loadtest.beside import Beside, Wanted
from loadtest.checking import Checking
from loadtest.counts import Counts
from loadtest.evaluator import DRAIN_S
from loadtest.locust_options import PLAN, command_of
from loadtest.plan import Plan
from sim.errors import BlowoutError, EndpointError
from sim.fetch import Credentials
from sim.interrupts import Interrupts
from sim.results import SCRAPED, Recorder, write_json
from sim.series import SeriesSet

SPOOL = ".drive"
LOOK_S = 0.2
LATE_S = 0.6
"""A row is in its file so long after its attempt has ended, at most: it is written every quarter of a second."""
LEAVE_S = 10.0
"""For Locust to end when it is asked to."""

Progress = Callable[[float, Sequence[Mapping[str, Any]]], None]
"""Called with seconds since the start and the states of the processes."""


@dataclass
class Targets:
    """Where the servers' own metrics are."""

    pages: tuple[str, ...] = ()
    prometheus: str | None = None
    token: str | None = None
    notes: list[str] = field(default_factory=list)


class Drive:
    """One load test: one seed of one scenario against one endpoint."""

    def __init__(
        self, plan: Plan, folder: Path, workers: int, targets: Targets, headers: Mapping[str, str], wanted: Wanted
    ) -> None:
        self.scenario = plan.loaded
        self.folder, self.workers, self.targets = folder, workers, targets
        self.recorder = Recorder(folder)
        self.spool = folder / SPOOL
        self.spool.mkdir()
        self.counts = Counts(self.scenario, plan.seed)
        self.checking = Checking(self.scenario, self.counts, self.recorder)
        self.plan = plan.with_folders(str(self.spool.resolve()), self.checking.folder)
        (self.spool / "plan.json").write_text(self.plan.to_json(), encoding="utf-8")
        self.reader = rows.Reader(self.spool)
        self.checking.prepare(self.plan, self.spool / "plan.json", wanted.excerpts)
        self.wall_t0 = 0.0
        self._interrupted_s = math.inf
        self.speed = plan.speed
        self._environment = {
            **os.environ,
            PLAN: str(self.spool / "plan.json"),
            preflight.HEADERS: json.dumps(dict(headers)),
        }
        self._log = (self.spool / "locust.log").open("wb")
        self._held = np.zeros(0, rows.ROW)
        self._all: list[np.ndarray] = []
        self._looked = 0
        self._scrapers = [
            scrape.Scraper(url, self.scenario.scrape_interval, _credentials(url, plan), plan.speed)
            for url in targets.pages
        ]
        self.beside = Beside(wanted, self.scenario, self.counts, self._scrapers, plan.speed)

    def run(self, progress: Progress, interrupts: Interrupts) -> dict[str, Any]:
        """Play it to its end, or until somebody interrupts; return ``member.json``, with ``tester`` in it.

        Raises:
            EndpointError: the endpoint was gone, and was left alone.
            BlowoutError: Locust did not do its part.
        """
        child = subprocess.Popen(
            command_of(self.workers), env=self._environment, stdin=subprocess.DEVNULL, stdout=self._log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            while child.poll() is None:
                time.sleep(LOOK_S)
                self._take(progress)
                if interrupts.asked:
                    self._interrupted_s = self._now_s()
                    break
        finally:
            end(child)
            self._log.close()
            self.beside.stop()
        until_s = time.monotonic() + DRAIN_S
        self._take(progress)
        while self.checking.is_busy and not interrupts.asked and time.monotonic() < until_s:
            time.sleep(LOOK_S)
            self._take(progress)
        states = self.reader.states()
        if interrupts.asked and not states:
            raise KeyboardInterrupt
        if not states or (not all(state["done"] for state in states) and not interrupts.asked):
            raise BlowoutError(f"Locust ended before its time: {self._last_words()}")
        return self._finish(states)

    def _take(self, progress: Progress) -> None:
        """Take the rows that have come, and look at the gateway at every scrape that is over."""
        states = self.reader.states()
        if states and not self.wall_t0:
            self.wall_t0 = float(states[0]["wall_t0"])
            for scraper in self._scrapers:
                scraper.start(self.wall_t0)
            self.beside.start(self.wall_t0, self.recorder)
            self.checking.start(self.wall_t0)
        self._held = np.concatenate([self._held, self.reader.take()])
        if not self.wall_t0:
            return
        self.checking.look()
        now_s = self._now_s()
        interval_s = self.scenario.scrape_interval
        while self._looked * interval_s + LATE_S * self.speed < now_s:
            self._count(self._looked * interval_s)
            self.counts.look(self._looked * interval_s)
            self.beside.look(self._looked * interval_s)
            self._looked += 1
        progress(now_s, states)

    def _now_s(self) -> float:
        """Return how long the load has gone on, seconds of the model where it is played faster than the clock."""
        return (time.time() - self.wall_t0) * self.speed

    def _count(self, until_s: float) -> None:
        """Count and write the rows of attempts that ended by *until_s*."""
        ended = self._held["finished_s"] <= until_s
        some, self._held = np.sort(self._held[ended], order="finished_s"), self._held[~ended]
        if len(some):
            self._all.append(some[list(_EXAMINED)].copy())
            kept = self.counts.add(some)
            self.checking.write(kept)
        self.checking.settle(until_s)

    def _finish(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        end_s = self._now_s()
        played_s = self._played_s(states)
        self._count(np.inf)
        self.checking.close()
        self.counts.look(end_s)
        for scraper in self._scrapers:
            scraper.stop()
        self.beside.look(end_s)
        series = self._series(end_s)
        if self.scenario.telemetry is not None:
            whole = self.counts.gateway()
            for one in series:
                whole.add(*one)
            whole.write(self.folder / SCRAPED)
        t_s = np.arange(0.0, max(end_s, 1e-3), self.scenario.scrape_interval)
        columns = scrape.engines(series, next(iter(self.plan.models)), t_s, self.scenario.scrape_interval)
        self.recorder.series(columns)
        gaps = self.reader.gaps()
        histograms = self.counts.histograms(gaps, played_s)
        metrics = self.counts.metrics(histograms, played_s) | scrape.gauges(columns, self.scenario.warmup, played_s)
        metrics["prefix_hit"] = scrape.counter_ratio(
            series, "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"
        )
        seen = np.concatenate(self._all) if self._all else np.zeros(0, rows.ROW)
        found = tester.examine(seen, states, played_s, self.scenario.warmup, self.speed)
        found |= {"started": self.wall_t0, "played_s": played_s}
        write_json(self.folder / "tester.json", found)
        info = {"metrics": metrics, "notes": self._notes(states, played_s), "uncalibrated": False, "kv_override": False}
        self.recorder.close(histograms, info)
        self.beside.settle(self.folder / "events.jsonl", self.wall_t0, end_s)
        shutil.rmtree(self.spool, ignore_errors=True)
        if found["stopped"] == "gone":
            kind = max(found["errors"], key=lambda one: int(found["errors"][one]))
            raise EndpointError(
                f"{self.plan.url}: left alone after no connection could be made many times in a row "
                f"({found['said'].get(kind, kind)}); expected an endpoint that stays"
            )
        return {**info, "tester": found}

    def _played_s(self, states: Sequence[Mapping[str, Any]]) -> float:
        """Return for how long requests were sent: rates are over it, and not over what was planned."""
        ended = [self._interrupted_s if state["stopped_s"] is None else float(state["stopped_s"]) for state in states]
        return max(1e-3, min(self.scenario.duration, max(ended, default=math.inf)))

    def abandon(self) -> None:
        """Close what is open, after a failure."""
        for scraper in self._scrapers:
            scraper.stop()
        self.checking.abandon()
        with suppress(OSError, ValueError):
            self.recorder.close()
        shutil.rmtree(self.spool, ignore_errors=True)

    def _series(self, end_s: float) -> SeriesSet:
        made = SeriesSet()
        for scraper in self._scrapers:
            scraper.add_to(made)
            if scraper.failed:
                self.targets.notes.append(
                    f"{scraper.url}: {scraper.failed} scrapes failed, {scraper.answered} did not ({scraper.said})"
                )
        if self.targets.prometheus:
            models = set(self.plan.models.values())
            for one in scrape.remembered(self.targets.prometheus, models, self.wall_t0, end_s, self.targets.token):
                made.add(*one)
            if not len(made):
                self.targets.notes.append(f"{self.targets.prometheus}: has no vllm: series of {', '.join(models)}")
        return made

    def _notes(self, states: Sequence[Mapping[str, Any]], played_s: float) -> list[str]:
        scenario = self.scenario
        notes = [
            f"measured at {self.plan.url}, by clients: they know when a first token came, and not what it waited for",
            *self.checking.notes(),
        ]
        if self.speed != 1:
            notes.append(
                f"played {self.speed:g} times as fast as the clock; all times are those of the model, so what this "
                f"machine adds to a latency counts {self.speed:g} times"
            )
        if played_s < scenario.duration:
            cut = sum(state["cut"] for state in states)
            left_out = f"; {cut:,} requests in flight then are left out" if cut else ""
            notes.append(
                f"requests were sent for {played_s:,.0f} of {scenario.duration:,.0f} s, over which rates are{left_out}"
            )
        notes += self.targets.notes
        arrivals = scenario.workload.arrivals
        if not isinstance(arrivals, str) and arrivals.closed is not None:
            notes.append(
                "a closed loop: these users wait for each answer, so they hide what others would have suffered"
            )
        policies = [c.clients or scenario.clients for c in scenario.workload.cohorts.values()]
        if self.workers > 1 and any(one.hedge or one.throttle or one.retry_budget for one in policies):
            notes.append("budgets of clients and throttling are kept by each sending process for its own requests")
        return notes

    def _last_words(self) -> str:
        lines = (self.spool / "locust.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"


_EXAMINED = ("attempt", "turn", "error", "outcome", "scheduled_s", "sent_s", "first_token_s", "finished_s")


def end(child: "subprocess.Popen[bytes]") -> None:
    """Ask Locust to end, and see to it that it does, its own processes included."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(LEAVE_S)
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _credentials(page: str, plan: Plan) -> Credentials:
    """Return the endpoint's key for its own page and nothing for others, and whom else to trust for all of them."""
    same = urlsplit(page).netloc == urlsplit(plan.url).netloc
    trusted = ssl.create_default_context(cafile=plan.ca) if plan.ca else None
    return Credentials(None, preflight.headers_from_environment() if same else {}, trusted)


__all__ = ["Drive", "Targets", "end"]
