"""Imported requests as a run folder of kind measured: rows, histograms and metrics like those of a load test."""

import hashlib
import math
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from loadtest import scrape, synthesis
from loadtest.counts import Counts
from loadtest.imports.requests import UNIX_FROM, Imported, Request, check, column
from sim import __version__, results
from sim.conclude import conclude
from sim.engine.state import BINS
from sim.errors import InputError
from sim.records import ATTEMPT, Answerer, Outcome
from sim.results import SCRAPED, Recorder, Run
from sim.scenario import Scenario, digest, dump
from sim.series import SeriesSet
from sim.summary import BIN_LOW_S, BIN_RATIO
from sim.words import did_you_mean

UNKNOWN = 0
"""Tokens of a prompt or an answer of which the file says nothing; said among the assumptions."""


def write(found: Imported, source: Path, scenario: Scenario | None, folder: Path, command: Sequence[str]) -> Run:
    """Write what was *found* in the file *source* to *folder*, as a run of *scenario* (a stand-in if left out).

    Its arrivals, faults and claims are left aside: the file says what was asked, and when.

    Raises:
        InputError: times that go backwards, a cohort that the scenario does not have.
    """
    check(found.requests)
    rows, started = _rows(found.requests, scenario)
    played_s = float(rows["scheduled_s"].max()) + 1e-3
    own = _scenario(scenario, rows, played_s)
    counts = Counts(own, own.seed)
    recorder = Recorder(folder)
    looks_s = np.arange(0.0, max(played_s, float(rows["finished_s"].max())) + own.scrape_interval, own.scrape_interval)
    done = np.searchsorted(rows["finished_s"], looks_s, "right")
    kept = []
    for t_s, ended in zip(looks_s, np.split(rows, done[:-1])):
        kept += [counts.add(ended)] if len(ended) else []
        counts.look(float(t_s))
    recorder.rows(np.concatenate(kept))
    counts.gateway().write(folder / SCRAPED)
    recorder.series(scrape.engines(SeriesSet(), "", looks_s, own.scrape_interval))  # nobody asked the engines
    histograms = counts.histograms(_gaps(found.requests), played_s)
    if np.isnan(rows["first_token_s"]).all():  # else the end of an answer would count as its first token
        unknown = [name for name in histograms if name.startswith(("ttft", "parts_"))]
        histograms |= {name: np.zeros_like(histograms[name]) for name in unknown}
    metrics = counts.metrics(histograms, played_s)
    if all(one.output_tokens < 0 for one in found.requests):
        metrics["throughput_tokens_per_s"] = math.nan
    notes = _notes(found, source, rows, scenario is None)
    info = {"metrics": metrics, "notes": notes, "uncalibrated": False, "kv_override": False}
    recorder.close(histograms, info)
    (folder / "scenario.yaml").write_text(dump(own, folder), encoding="utf-8")
    said = {
        "format": results.FORMAT,
        "kind": "measured",
        "name": own.name,
        "state": "complete",
        "command": list(command),
        "scenario_sha256": digest(own),
        "seeds": [own.seed],
        "versions": {"blowout": __version__, "python": platform.python_version()},
        "imported": {
            "tool": found.tool,
            "file": source.name,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        },
        "stand_in_fleet": scenario is None,
        "members": [{"point": {}, "seed": own.seed, "path": "."}],
        "valid": True,
        "wrong": [],
        "started": started,
        "wall_s": 0.0,
    }
    results.write_json(folder / "run.json", said)
    conclude(Run.open(folder))
    return Run.open(folder)


def _rows(requests: list[Request], scenario: Scenario | None) -> tuple[np.ndarray, float | None]:
    """Return the requests as rows in the order of their ends, and the Unix time of t = 0, if their times are dates.

    t = 0 is when the first was asked; where times count from the start of a run already, they stay.
    """
    sent_s, first_s = column(requests, lambda one: one.sent_s), column(requests, lambda one: one.first_s)
    asked_s = column(requests, lambda one: one.scheduled_s)
    asked_s = np.minimum(np.where(np.isnan(asked_s), sent_s, asked_s), sent_s)
    finished_s = column(requests, lambda one: one.finished_s)
    zero_s = float(asked_s.min())
    is_date = zero_s >= UNIX_FROM
    if not is_date and zero_s < 0.5 * float(np.ptp(asked_s)):
        zero_s = min(0.0, zero_s)
    rows = np.zeros(len(requests), ATTEMPT)
    rows["request"] = np.argsort(np.argsort(asked_s, kind="stable"))
    rows["session"], rows["replica"], rows["last"] = -1, -1, 1
    rows["cohort"] = _cohorts(requests, scenario)
    good = np.array([one.ok for one in requests])
    rows["status"] = [one.status for one in requests]
    rows["outcome"] = np.where(good, Outcome.OK, np.where(rows["status"] == 429, Outcome.REJECTED, Outcome.FAILED))
    rows["answerer"] = np.where(good, Answerer.MODEL, Answerer.NOBODY)
    for name in ("prompt_tokens", "output_tokens"):
        rows[name] = [tokens if (tokens := getattr(one, name)) >= 0 else UNKNOWN for one in requests]
    ends_s = np.where(np.isnan(finished_s), np.where(np.isnan(first_s), sent_s, first_s), finished_s)
    for name, times in (
        ("scheduled_s", asked_s),
        ("sent_s", sent_s),
        ("first_token_s", first_s),
        ("finished_s", ends_s),
    ):
        rows[name] = times - zero_s
    rows["admitted_s"] = math.nan
    rows["client_wait_s"] = sent_s - asked_s
    rows["prefill_s"] = np.where(np.isnan(first_s), ends_s, first_s) - sent_s
    rows["decode_alone_s"] = np.where(np.isnan(first_s), 0.0, ends_s - first_s)
    return rows[np.argsort(rows["finished_s"], kind="stable")], zero_s if is_date else None


def _notes(found: Imported, source: Path, rows: np.ndarray, stand_in: bool) -> list[str]:
    """Return what the numbers rest on."""
    wrote = "" if found.tool == "csv" else f", as {found.tool} wrote it"
    notes = [f"imported from {source.name}{wrote}: what only the engine knows is not there"]
    if stand_in:
        notes.append("the fleet is a stand-in, for the file says nothing of the servers; give --scenario to calibrate")
    unknown = int((np.isnan(rows["first_token_s"]) & (rows["outcome"] == Outcome.OK)).sum())
    if 0 < unknown < int((rows["outcome"] == Outcome.OK).sum()):
        notes.append(f"of {unknown} answers no first token is known: their end counts as theirs")
    return [*notes, *found.notes, *_waited(found.tool, rows)]


def _waited(tool: str, rows: np.ndarray) -> list[str]:
    """Say from when latencies count, where the tool says when requests were due and sent some of them later."""
    wait_s = float((rows["sent_s"] - rows["scheduled_s"]).mean())
    if wait_s < 1e-3:
        return []
    others = "those" if tool == "csv" else f"TTFT and end-to-end latency as {tool} prints them"
    return [
        f"latencies count from when requests were due, on average {wait_s * 1e3:.3g} ms before they were sent, from "
        f"where on {others} count"
    ]


def _cohorts(requests: list[Request], scenario: Scenario | None) -> list[int]:
    """Return the cohort (index) of each request: by its name in the scenario, or the only one."""
    if scenario is None:
        return [0] * len(requests)
    names = list(scenario.workload.cohorts)
    place = {name: k for k, name in enumerate(names)}
    found = []
    for one in requests:
        if one.cohort not in place and len(names) > 1:
            near = did_you_mean(one.cohort, names) or f"; expected one of {', '.join(names)}"
            what = f"the scenario has no cohort {one.cohort!r}" if one.cohort else "which cohort it is of is not said"
            raise InputError(f"{one.where}: {what}{near}{'' if one.cohort else ' (name its column with --columns)'}")
        found.append(place.get(one.cohort, 0))
    return found


def _scenario(scenario: Scenario | None, rows: np.ndarray, played_s: float) -> Scenario:
    """Return the scenario that describes the run: its fleet and cohorts, as long and at the rate that was measured."""
    rate = len(rows) / played_s
    lengths = [max(1, round(float(rows[name].mean()))) for name in ("prompt_tokens", "output_tokens")]
    if scenario is None:
        return synthesis.scenario(rate, f"{played_s:.3f}s", *lengths).model_copy(update={"name": "imported"})
    tree = scenario.model_dump()
    for name in ("vary", "claims", "faults", "control", "expect", "warmup", "seeds", "rows", "drain"):
        tree.pop(name, None)
    tree["duration"], tree["workload"]["trace"] = played_s, None
    tree["workload"]["arrivals"], tree["workload"]["rate_per_s"] = "poisson", rate
    for cohort in tree["workload"]["cohorts"].values():
        cohort["prompt_tokens"] = cohort["prompt_tokens"] or lengths[0]
        cohort["output_tokens"] = cohort["output_tokens"] or lengths[1]
    return Scenario.model_validate(tree)


def _gaps(requests: list[Request]) -> np.ndarray:
    """Return how many gaps between tokens fell into each bin of the histogram, where the file has them."""
    gaps_s = np.array([gap for one in requests for gap in one.gaps_s])
    bins = np.log(np.maximum(gaps_s, BIN_LOW_S) / BIN_LOW_S) / math.log(BIN_RATIO)
    return np.bincount(np.clip(bins.astype(int), 0, BINS - 1), minlength=BINS)
