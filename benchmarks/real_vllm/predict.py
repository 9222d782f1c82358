"""Calibrates the engine on the lowest loads of a measured run, predicts the others, and says how far it was off."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fidelity_cpu import own_host
from benchmarks.real_vllm.log import Measured, level_of
from benchmarks.real_vllm.measure import LOG, MACHINE, MEASURED
from benchmarks.replay import Level, Outcome, replay
from benchmarks.rules import same_steps
from sim.calibrate.fit import HOST_WINDOW_S, Fit, fit_steps, work_of
from sim.calibrate.steplog import together
from sim.calibrate.travel import Limits, Transport
from sim.engine.profiles import PROFILE_FORMAT
from sim.results import Run, read_json

RATE = "workload.rate_per_s"
SEEDS = 40
"""Draws of what no log tells (travel times), for each replay."""


def opened(work: Path) -> list[Measured]:
    """Return every (rate, seed) of the measured run in *work*, with the steps that vLLM logged meanwhile."""
    run = Run.open(work / MEASURED)
    uses = {one["path"]: one for one in read_json(work / MACHINE, "members")["members"]}
    pool = next(iter(run.scenario.fleet.pools.values()))
    limits = Limits(
        pool.max_num_seqs, pool.max_num_batched_tokens, pool.kv_blocks, pool.block_size, int(pool.max_model_len)
    )
    found = []
    for member in run.members:
        rate = float(member.point[RATE])
        use = uses[str(member.path.relative_to(run.path))]
        tester = read_json(member.path / "tester.json", "send_lag_s")
        found.append(
            Measured(
                rate_per_s=rate,
                seed=member.seed,
                level=level_of(member, rate, work / LOG, limits),
                metrics=member.info["metrics"],
                foreign_cores=use["foreign_cores"],
                own_cores=use["own_cores"],
                send_lag_s=tester["send_lag_s"],
            )
        )
    return found


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the idle levels tell: step times, their noise, and the way between client and engine, in seconds."""

    fit: Fit
    ingress_s: float
    egress_s: float
    transport: Transport
    steps: int
    most_decoding: int
    """The largest batch among those steps: beyond it step times are extrapolated."""

    def settings(self) -> list[str]:
        """Return what a scenario's pool says besides its profile, as ``--set`` takes it."""
        told = {
            "noise.sigma": f"{self.fit.fast:.3f}", "noise.slow_sigma": f"{self.fit.slow:.3f}",
            "noise.slow_period": f"{HOST_WINDOW_S:g}s", "ingress": f"{self.ingress_s * 1e3:.1f}ms",
            "egress": f"{self.egress_s * 1e3:.1f}ms",
        }  # fmt: skip
        return [f"fleet.{name}={value}" for name, value in told.items()]

    def profile(self, source: str) -> dict[str, Any]:
        """Return the step times as a scenario's ``step_time: {profile: FILE}`` reads them."""
        steps = self.fit.steps
        counts = [n for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32) if n < len(steps.decode_s)]
        return {
            "format": PROFILE_FORMAT,
            "source": source,
            "base_s": round(steps.base_s, 6),
            "decode_s": {str(n): round(float(steps.decode_s[n, 0]), 6) for n in counts},
            "prefill_s": {"1": round(float(steps.tokens_s[1]), 7)},
        }


def calibrated(idle: list[Measured]) -> Calibration:
    """Return what the levels *idle* tell, and nothing of the others."""
    log = together([one.level.log for one in idle])
    limits = idle[0].level.limits
    fit = fit_steps(log, limits.max_seqs, limits.max_tokens)
    ways = [one.level.transport() for one in idle]
    chance = np.mean([way.chance for way in ways], axis=0)
    transport = Transport(chance, float(np.median([way.egress_s for way in ways])))
    return Calibration(fit, transport.ingress_s, transport.egress_s, transport, len(log), int(log.decoding.max()))


@dataclass(frozen=True, eq=False)
class Held:
    """One measured level held against the engine: by rules alone, and with the host as it was at every step."""

    same: int
    steps: int
    ruled_preemptions: int
    """Of the engine, when each of its steps lasts as long as vLLM's did."""
    host: float
    """How much slower the host was than on the idle levels, as a fraction."""
    replayed: Outcome


def held(one: Measured, found: Calibration) -> Held:
    """Hold a level against the engine, with the step times of *found*."""
    level: Level = one.level
    same, preemptions, _ = same_steps(level)
    slower = float(level.log.took_s.sum() / work_of(level.log, found.fit.steps).sum() - 1.0)
    outcome = replay(level, found.fit.steps, found.transport, own_host(level.log, found.fit.steps), SEEDS)
    return Held(same, len(level.log), preemptions, slower, outcome)


def write_profile(found: Calibration, path: Path, source: str) -> None:
    """Write the step times of *found* to *path*."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found.profile(source), indent=1) + "\n", encoding="utf-8")
