"""The steps that a vLLM logged while it was measured, and what clients saw, as `sim.calibrate.steplog` reads them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.replay import Level
from sim.calibrate.steplog import read_steps
from sim.calibrate.travel import Limits, Prompts, taken_order
from sim.records import Outcome
from sim.results import Member, read_json


@dataclass(frozen=True, eq=False)
class Measured:
    """One (rate, seed) as it was measured: what clients saw and the engine logged, metrics, and the machine's use."""

    rate_per_s: float
    seed: int
    level: Level
    metrics: dict[str, Any]
    foreign_cores: float
    own_cores: float
    send_lag_s: dict[str, float]


def level_of(member: Member, rate_per_s: float, log: Path, limits: Limits) -> Level:
    """Return what a measured *member* of a run saw, with the steps that *log* holds of its time.

    Requests that were not answered are left out, as in `benchmarks.replay`.
    """
    tester = read_json(member.path / "tester.json", "started")
    rows = member.attempts()
    columns = {name: rows[name].to_numpy() for name in rows.column_names}
    good = columns["outcome"] == Outcome.OK
    order = np.argsort(columns["sent_s"][good], kind="stable")
    seen = {name: values[good][order] for name, values in columns.items()}
    start_s = float(tester["started"])
    steps = read_steps(log, start_s, float(seen["finished_s"].max()) + 1.0)
    prompts = _prompts(seen["prompt_tokens"], limits)
    taken, cached = taken_order(steps, prompts, limits.max_tokens)
    seen = {name: values[taken] for name, values in seen.items()}
    return Level(
        name=f"{rate_per_s:g}/s, seed {member.seed}",
        config="measured",
        rate_per_s=rate_per_s,
        limits=limits,
        sent_s=seen["sent_s"],
        prompts=_prompts(seen["prompt_tokens"], limits),
        cached_tokens=cached,
        output_tokens=seen["output_tokens"].astype(np.int64),
        ttft_s=seen["first_token_s"] - seen["sent_s"],
        e2e_s=seen["finished_s"] - seen["sent_s"],
        refused=int((~good).sum()),
        preemptions=int(member.info["metrics"].get("preemptions") or 0),
        hit=None,
        log=steps,
    )


def _prompts(tokens: np.ndarray, limits: Limits) -> Prompts:
    none = np.full(len(tokens), -1)
    return Prompts(tokens.astype(np.int64), none, 0, limits.block_size)
