"""The steps that a vLLM logged while it was measured, and what clients saw, as `benchmarks.steplog` reads them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.replay import Level
from benchmarks.steplog import StepLog, read_steps
from benchmarks.transport import Limits, Prompts, taken_order
from sim.records import Outcome
from sim.results import Member, read_json

STEP = re.compile(
    r"^(\d+\.\d+) .*Iteration\((\d+)\): (\d+) context requests, (\d+) context tokens, (\d+) generation requests, "
    r"(\d+) generation tokens, iteration elapsed time: ([\d.]+) ms, \S+ KV cache usage: ([\d.]+)%"
)
"""A step in vLLM 0.32's log (`vllm/v1/metrics/loggers.py`), behind the stamp that `server.STAMPED` puts before it."""
HEADER = "t_logged_s,iteration,ctx_requests,ctx_tokens,gen_requests,gen_tokens,elapsed_ms,kv_usage_pct"


def steps_between(log: Path, start_s: float, end_s: float) -> list[str]:
    """Return the steps logged between two Unix times as rows under `HEADER`, with seconds since the first of them."""
    rows = []
    with log.open(errors="replace") as lines:
        for line in lines:
            found = STEP.match(line)
            if found and start_s <= float(found[1]) <= end_s:
                rows.append(",".join([f"{float(found[1]) - start_s:.6f}", *found.groups()[1:]]))
    return rows


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


def level_of(member: Member, rate_per_s: float, log: Path, limits: Limits, scratch: Path) -> Level:
    """Return what a measured *member* of a run saw, with the steps that *log* holds of its time; *scratch*: a file.

    Requests that were not answered are left out, as in `benchmarks.replay`.
    """
    tester = read_json(member.path / "tester.json", "started")
    rows = member.attempts()
    columns = {name: rows[name].to_numpy() for name in rows.column_names}
    good = columns["outcome"] == Outcome.OK
    order = np.argsort(columns["sent_s"][good], kind="stable")
    seen = {name: values[good][order] for name, values in columns.items()}
    start_s = float(tester["started"])
    text = steps_between(log, start_s, start_s + float(seen["finished_s"].max()) + 1.0)
    scratch.write_text("\n".join([HEADER, *text]) + "\n", encoding="utf-8")
    steps = read_steps(scratch)
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


def together(logs: list[StepLog]) -> StepLog:
    """Return several logs as one, each after the other with a pause between."""
    shift, parts = 0.0, []
    for log in logs:
        parts.append({**vars(log), "end_s": log.end_s + shift})
        shift += float(log.end_s[-1]) + 10.0
    return StepLog(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
