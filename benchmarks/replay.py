"""Measured load levels of a real vLLM, and the engine playing the same arrivals and lengths."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.steplog import HOST_WINDOW_S, Floats, HostClock, Ints, StepLog, read_steps
from benchmarks.transport import Limits, Transport, measure, taken_order
from sim.engine.fleet import Fleet, PoolConfig
from sim.engine.latency import StepTimes
from sim.records import REQUEST
from sim.rng import stream

TTFT = ("TTFT P50", "TTFT P95", "TTFT P99")
E2E = ("e2e P50", "e2e P95", "e2e P99")
METRICS = (*TTFT, *E2E)
FOREVER_S = 1e6


@dataclass(frozen=True, eq=False)
class Level:
    """One load level as it was measured: who asked what and when, and what they saw, in the order the engine took them.

    Requests that the server turned away never met the engine and are left out.
    """

    name: str
    config: str
    rate_per_s: float
    limits: Limits
    sent_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    ttft_s: Floats
    e2e_s: Floats
    refused: int
    preemptions: int
    log: StepLog

    def transport(self) -> Transport:
        """Return the travel times between client and engine that the level's own log shows."""
        return measure(self.log, self.limits, self.sent_s, self.prompt_tokens, self.sent_s + self.ttft_s)

    @property
    def measured(self) -> Floats:
        """The percentiles of `METRICS`, seconds."""
        return percentiles(self.ttft_s, self.e2e_s)


def percentiles(ttft_s: Floats, e2e_s: Floats) -> Floats:
    """Return P50, P95 and P99 of both."""
    return np.concatenate([np.percentile(ttft_s, (50, 95, 99)), np.percentile(e2e_s, (50, 95, 99))])


def levels(folder: Path) -> list[Level]:
    """Return the levels in *folder* whose configuration has no prefix caching, by name."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    found = []
    for path in sorted(folder.glob("*.requests.csv")):
        name = path.name.removesuffix(".requests.csv")
        run = manifest["runs"].get(name, {})
        kind = run.get("config", name[0])
        if not manifest["configs"][kind]["prefix_caching"] and (folder / f"{name}.iterations.csv").is_file():
            found.append(_level(folder, name, kind, run, manifest))
    return found


def _level(folder: Path, name: str, kind: str, run: dict[str, Any], manifest: dict[str, Any]) -> Level:
    with (folder / f"{name}.requests.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    served = sorted((row for row in rows if row["ok"] == "1"), key=lambda row: float(row["send_s"]))
    config = manifest["configs"][kind]
    log = read_steps(folder / f"{name}.iterations.csv")
    lengths = np.array([int(row["prompt_tokens"]) for row in served])
    served = [served[k] for k in taken_order(log, lengths, manifest["max_num_batched_tokens"])]
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
        prompt_tokens=np.array([int(row["prompt_tokens"]) for row in served]),
        output_tokens=np.array([int(row["output_tokens"]) for row in served]),
        ttft_s=np.array([float(row["ttft_s"]) for row in served]),
        e2e_s=np.array([float(row["e2e_s"]) for row in served]),
        refused=len(rows) - len(served),
        preemptions=int(run.get("preempt", -1)),
        log=log,
    )


@dataclass(frozen=True)
class Host:
    """What slows the fitted steps: the host's own clock, or noise like its (standard deviations of the logarithm)."""

    clock: HostClock | None = None
    fast: float = 0.0
    slow: float = 0.0


@dataclass(frozen=True, eq=False)
class Played:
    """One replay: the percentiles of `METRICS` in seconds, and how many preemptions it took."""

    metrics: Floats
    preemptions: int


def play(level: Level, steps: StepTimes, transport: Transport, host: Host, seed: int) -> Played:
    """Play the level's arrivals and lengths on *steps*; travel times and noise are drawn by *seed*."""
    at_s = level.sent_s + transport.draw(stream(seed, "transport"), len(level.sent_s))
    order = np.argsort(at_s, kind="stable")
    limits = level.limits
    asks = np.zeros(len(order), REQUEST)
    asks["request"] = np.arange(len(order))
    asks["session"] = asks["follow_up"] = asks["prefix"] = -1
    asks["scheduled_s"] = host.clock.to_work(at_s[order]) if host.clock else at_s[order]
    asks["prompt_tokens"] = level.prompt_tokens[order]
    asks["output_tokens"] = level.output_tokens[order]
    pool = PoolConfig(
        steps=steps, replicas=1, blocks=limits.blocks, block_size=limits.block_size, max_seqs=limits.max_seqs,
        max_tokens=limits.max_tokens, max_len=limits.max_len, noise=host.fast, slow_noise=host.slow,
        slow_period_s=HOST_WINDOW_S,
    )  # fmt: skip
    fleet = Fleet([pool], seed=seed, duration_s=float(asks["scheduled_s"][-1]) + 1.0)
    fleet.submit(asks)
    fleet.advance(FOREVER_S)
    rows = fleet.take_rows()
    rows = rows[np.argsort(rows["request"])]
    first_s, end_s = rows["first_token_s"], rows["finished_s"]
    if host.clock:
        first_s, end_s = host.clock.to_wall(first_s), host.clock.to_wall(end_s)
    sent_s = level.sent_s[order] - transport.egress_s
    return Played(percentiles(first_s - sent_s, end_s - sent_s), int(fleet.reps.preemptions.sum()))


@dataclass(frozen=True, eq=False)
class Outcome:
    """Many replays of one level: the median of each metric, its 5% and 95%, and the same of preemptions."""

    middle: Floats
    low: Floats
    high: Floats
    preemptions: tuple[float, float, float]

    def errors(self, level: Level) -> Floats:
        """Return how far the medians are from what was measured, as fractions."""
        return self.middle / level.measured - 1.0


def replay(level: Level, steps: StepTimes, transport: Transport, host: Host, seeds: int) -> Outcome:
    """Play the level with *seeds* draws of what was not logged, and return what comes out in the middle."""
    played = [play(level, steps, transport, host, seed) for seed in range(1, seeds + 1)]
    low, middle, high = np.percentile([one.metrics for one in played], (5, 50, 95), axis=0)
    least, usual, most = np.percentile([one.preemptions for one in played], (5, 50, 95))
    return Outcome(middle, low, high, (float(least), float(usual), float(most)))
