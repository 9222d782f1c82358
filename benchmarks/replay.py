"""Measured load levels of a real vLLM, and the engine playing the same arrivals and lengths."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.host import HostClock
from sim.calibrate.fit import HOST_WINDOW_S
from sim.calibrate.steplog import Floats, Ints, StepLog, read_steps
from sim.calibrate.travel import Admissions, Limits, Prompts, Transport, admissions, measure, taken_order
from sim.engine.fleet import Fleet, PoolConfig
from sim.engine.latency import StepTimes
from sim.records import PREFIX, REQUEST
from sim.rng import stream

TTFT = ("TTFT P50", "TTFT P95", "TTFT P99")
E2E = ("e2e P50", "e2e P95", "e2e P99")
METRICS = (*TTFT, *E2E)
FOREVER_S = 1e6


@dataclass(frozen=True, eq=False)
class Level:
    """One load level as it was measured: who asked what and when, and what they saw, in the order the engine took them.

    Requests that the server turned away never met the engine and are left out. *cached_tokens* of each prompt were
    found in the prefix cache, as the step log tells; *hit* is their share by the engine's counters (None: no cache).
    """

    name: str
    config: str
    rate_per_s: float
    limits: Limits
    sent_s: Floats
    prompts: Prompts
    cached_tokens: Ints
    output_tokens: Ints
    ttft_s: Floats
    e2e_s: Floats
    refused: int
    preemptions: int
    hit: float | None
    log: StepLog

    @property
    def admissions(self) -> Admissions:
        """In which steps of the log each prompt was computed."""
        return admissions(self.log, self.prompts.tokens - self.cached_tokens)

    def transport(self) -> Transport:
        """Return the travel times between client and engine that the level's own log shows."""
        first_s = self.sent_s + self.ttft_s
        return measure(self.log, self.limits, self.admissions, self.prompts.tokens, self.sent_s, first_s)

    @property
    def measured(self) -> Floats:
        """The percentiles of `METRICS`, seconds."""
        return percentiles(self.ttft_s, self.e2e_s)


def percentiles(ttft_s: Floats, e2e_s: Floats) -> Floats:
    """Return P50, P95 and P99 of both."""
    return np.concatenate([np.percentile(ttft_s, (50, 95, 99)), np.percentile(e2e_s, (50, 95, 99))])


def levels(folder: Path) -> list[Level]:
    """Return the levels in *folder* that have a step log, by name."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    found = []
    for path in sorted(folder.glob("*.requests.csv")):
        name = path.name.removesuffix(".requests.csv")
        run = manifest["runs"].get(name, {})
        kind = run.get("config", name[0])
        if (folder / f"{name}.iterations.csv").is_file():
            found.append(_level(folder, name, kind, run, manifest))
    return found


def _level(folder: Path, name: str, kind: str, run: dict[str, Any], manifest: dict[str, Any]) -> Level:
    with (folder / f"{name}.requests.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    served = sorted((row for row in rows if row["ok"] == "1"), key=lambda row: float(row["send_s"]))
    config = manifest["configs"][kind]
    log = read_steps(folder / f"{name}.iterations.csv")
    caching = config["prefix_caching"]
    shared = run["workload"]["shared"] if caching else 0
    prompts = prompts_of(served, shared, manifest["block_size"])
    order, cached = taken_order(log, prompts, manifest["max_num_batched_tokens"])
    served = [served[k] for k in order]
    return Level(
        name=name,
        config=kind,
        rate_per_s=float(run.get("rate", "nan")),
        limits=Limits(
            max_seqs=manifest["max_num_seqs"],
            max_tokens=manifest["max_num_batched_tokens"],
            blocks=config["usable_blocks"],
            block_size=manifest["block_size"],
            max_len=config["max_model_len"],
        ),
        sent_s=np.array([float(row["send_s"]) for row in served]),
        prompts=prompts_of(served, shared, manifest["block_size"]),
        cached_tokens=cached,
        output_tokens=np.array([int(row["output_tokens"]) for row in served]),
        ttft_s=np.array([float(row["ttft_s"]) for row in served]),
        e2e_s=np.array([float(row["e2e_s"]) for row in served]),
        refused=len(rows) - len(served),
        preemptions=int(run.get("preempt", -1)),
        hit=run["pc_h"] / run["pc_q"] if caching else None,
        log=log,
    )


def prompts_of(rows: list[dict[str, str]], shared: int, block_size: int) -> Prompts:
    """Return the prompts of *rows* of a CSV of requests."""
    tokens, group = (np.array([int(row[name]) for row in rows]) for name in ("prompt_tokens", "group"))
    return Prompts(tokens, group, shared, block_size)


def asks_of(level: Level, order: Ints, scheduled_s: Floats) -> np.ndarray:
    """Return what the level's requests ask in *order*, as the fleet takes it (`sim.records.REQUEST`)."""
    asks = np.zeros(len(order), REQUEST)
    asks["request"] = asks["content"] = np.arange(len(order))
    asks["session"] = asks["follow_up"] = -1
    asks["scheduled_s"] = scheduled_s
    asks["prompt_tokens"], asks["output_tokens"] = level.prompts.tokens[order], level.output_tokens[order]
    asks["prefix"] = level.prompts.group[order]
    asks["prefix_tokens"] = np.where(asks["prefix"] < 0, 0, level.prompts.shared)
    return asks


def groups_of(level: Level) -> np.ndarray:
    """Return the texts that the level's prompts begin with, as a tree of shared prefixes (`sim.records.PREFIX`)."""
    return np.array([(-1, level.prompts.shared)] * (int(level.prompts.group.max()) + 1), PREFIX)


@dataclass(frozen=True)
class Host:
    """What slows the fitted steps: the host's own clock, or noise like its (standard deviations of the logarithm)."""

    clock: HostClock | None = None
    fast: float = 0.0
    slow: float = 0.0


@dataclass(frozen=True, eq=False)
class Played:
    """One replay: the percentiles of `METRICS` in seconds, preemptions, share of prompt tokens found in the cache."""

    metrics: Floats
    preemptions: int
    hit: float


def play(level: Level, steps: StepTimes, transport: Transport, host: Host, seed: int) -> Played:
    """Play the level's arrivals and lengths on *steps*; travel times and noise are drawn by *seed*."""
    at_s = level.sent_s + transport.draw(stream(seed, "transport"), len(level.sent_s))
    order = np.argsort(at_s, kind="stable")
    limits = level.limits
    due_s = host.clock.to_work(at_s[order]) if host.clock else at_s[order]
    pool = PoolConfig(
        steps=steps, replicas=1, blocks=limits.blocks, block_size=limits.block_size, max_seqs=limits.max_seqs,
        max_tokens=limits.max_tokens, max_len=limits.max_len, prefix_caching=level.hit is not None, noise=host.fast,
        slow_noise=host.slow, slow_period_s=HOST_WINDOW_S,
    )  # fmt: skip
    fleet = Fleet([pool], seed=seed, duration_s=float(due_s[-1]) + 1.0, prefixes=groups_of(level))
    fleet.submit(asks_of(level, order, due_s))
    fleet.advance(FOREVER_S)
    rows = fleet.take_rows()
    rows = rows[np.argsort(rows["request"])]
    first_s, end_s = rows["first_token_s"], rows["finished_s"]
    if host.clock:
        first_s, end_s = host.clock.to_wall(first_s), host.clock.to_wall(end_s)
    sent_s = level.sent_s[order] - transport.egress_s
    hit = float(rows["cached_tokens"].sum() / rows["prompt_tokens"].sum())
    return Played(percentiles(first_s - sent_s, end_s - sent_s), int(fleet.reps.preemptions.sum()), hit)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Many replays of one level: the median of each metric, its 5% and 95%, and the same of preemptions and hits."""

    middle: Floats
    low: Floats
    high: Floats
    preemptions: tuple[float, float, float]
    hit: tuple[float, float, float]

    def errors(self, level: Level) -> Floats:
        """Return how far the medians are from what was measured, as fractions."""
        return self.middle / level.measured - 1.0


def replay(level: Level, steps: StepTimes, transport: Transport, host: Host, seeds: int) -> Outcome:
    """Play the level with *seeds* draws of what was not logged, and return what comes out in the middle."""
    played = [play(level, steps, transport, host, seed) for seed in range(1, seeds + 1)]
    low, middle, high = np.percentile([one.metrics for one in played], (5, 50, 95), axis=0)
    return Outcome(middle, low, high, _spread(played, "preemptions"), _spread(played, "hit"))


def _spread(played: list[Played], name: str) -> tuple[float, float, float]:
    """Return 5%, the median and 95% of an attribute."""
    least, usual, most = np.percentile([getattr(one, name) for one in played], (5, 50, 95))
    return float(least), float(usual), float(most)
