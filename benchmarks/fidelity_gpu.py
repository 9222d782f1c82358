"""A real vLLM on a GPU: step times of the nearest tabulated grid, times one factor fitted on the first requests."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

from benchmarks.tables import Check, Report, Table, percent
from sim.calibrate.steplog import Floats, Ints
from sim.engine.fleet import Fleet, PoolConfig
from sim.engine.latency import Grid, GridKey, from_grid, grids
from sim.engine.models import ModelSpec, find_model
from sim.engine.physics import Hardware, devices, find_hardware, plan_memory
from sim.errors import HardwareError
from sim.records import REQUEST

FITTED = 100  # requests, in order of arrival, that may tell the factor
BOUND = 0.03
BACKEND = "vllm"
BLOCK_SIZE = 16  # vLLM's default on GPUs
FACTORS = (0.1, 20.0)
METRICS = tuple(f"{what} {part}" for what in ("TTFT", "e2e") for part in ("mean", "P50", "P90", "P99"))


@dataclass(frozen=True, eq=False)
class Run:
    """One measured run: its engine, and what its requests asked and saw, in order of arrival, by the engine's clock."""

    name: str
    model: ModelSpec
    hardware: Hardware
    tensor_parallel: int
    max_seqs: int
    max_tokens: int
    max_len: int
    blocks: int
    arrived_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    ttft_s: Floats
    e2e_s: Floats


def read_run(folder: Path) -> Run:
    """Return the run in *folder*: meta.json (vLLM's arguments), config.json (hardware), requests.jsonl (stamps)."""
    flags = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["engine_kwargs"]
    instance = json.loads((folder / "config.json").read_text(encoding="utf-8"))["nodes"][0]["instances"][0]
    lines = (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    rows = sorted((json.loads(line) for line in lines if line), key=lambda row: float(row["queued_ts"]))
    model, hardware = find_model(flags["model"], folder), find_hardware(instance["hardware"])
    memory = plan_memory(
        model, hardware, flags["tensor_parallel_size"], instance["npu_mem"].get("mem_util", 0.9), BLOCK_SIZE,
        flags["max_num_seqs"], flags["max_num_batched_tokens"],
    )  # fmt: skip
    queued = np.array([row["queued_ts"] for row in rows])
    return Run(
        name=folder.name,
        model=model,
        hardware=hardware,
        tensor_parallel=flags["tensor_parallel_size"],
        max_seqs=flags["max_num_seqs"],
        max_tokens=flags["max_num_batched_tokens"],
        max_len=flags.get("max_model_len") or model.max_position,
        blocks=memory.kv_blocks,
        arrived_s=queued - queued[0],
        prompt_tokens=np.array([row["input_toks"] for row in rows]),
        output_tokens=np.array([row["output_toks"] for row in rows]),
        ttft_s=np.array([row["first_token_ts"] for row in rows]) - queued,
        e2e_s=np.array([row["last_token_ts"] for row in rows]) - queued,
    )


def nearest(run: Run) -> list[GridKey]:
    """Return the tabulated grids, nearest first: model and tensor parallelism alike, then FLOP per byte.

    One factor can make up for a faster or slower GPU, not for another balance of arithmetic and memory bandwidth.
    """

    def distance(key: GridKey) -> tuple[Any, ...]:
        model, hardware = find_model(key.model, Path()), devices()[key.hardware]
        return (
            key.backend != BACKEND,
            abs(math.log(model.active_layer_parameters / run.model.active_layer_parameters)),
            abs(math.log2(key.tensor_parallel / run.tensor_parallel)),
            abs(math.log(_balance(hardware) / _balance(run.hardware))),
        )

    return sorted(grids(), key=distance)


def _balance(hardware: Hardware) -> float:
    return hardware.flop_per_s / hardware.bandwidth_bytes_per_s


def play(run: Run, grid: Grid, factor: float) -> tuple[Floats, Floats]:
    """Return TTFT and e2e of every request when the steps take *factor* times what *grid* says, seconds."""
    asks = np.zeros(len(run.arrived_s), REQUEST)
    asks["request"] = np.arange(len(asks))
    asks["session"] = asks["follow_up"] = asks["prefix"] = -1
    asks["scheduled_s"] = run.arrived_s
    asks["prompt_tokens"], asks["output_tokens"] = run.prompt_tokens, run.output_tokens
    pool = PoolConfig(
        steps=from_grid(grid, run.max_seqs, run.max_tokens, factor), replicas=1, blocks=run.blocks,
        block_size=BLOCK_SIZE, max_seqs=run.max_seqs, max_tokens=run.max_tokens, max_len=run.max_len,
    )  # fmt: skip
    fleet = Fleet([pool], duration_s=float(run.arrived_s[-1]) + 1.0)
    fleet.submit(asks)
    fleet.advance(1e6)
    rows = fleet.take_rows()
    rows = rows[np.argsort(rows["request"])]
    return rows["first_token_s"] - run.arrived_s, rows["finished_s"] - run.arrived_s


def fit_factor(run: Run, grid: Grid) -> float:
    """Return the factor at which the mean e2e of the first `FITTED` requests is as measured."""

    def too_long(factor: float) -> float:
        return float(np.log(play(run, grid, factor)[1][:FITTED].mean() / run.e2e_s[:FITTED].mean()))

    return float(brentq(too_long, *FACTORS, xtol=1e-4))


def statistics(ttft_s: Floats, e2e_s: Floats) -> Floats:
    """Return what `METRICS` names, seconds."""
    return np.array([part for times in (ttft_s, e2e_s) for part in (times.mean(), *np.percentile(times, (50, 90, 99)))])


def run_one(run: Run, others: int = 8) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]], Check]:
    """Return the rows of the nearest grid, those of the next ones, and the check of the nearest."""
    real = statistics(run.ttft_s, run.e2e_s)
    main, more = [], []
    check = None
    for key in [key for key in nearest(run) if _comparable(key, run)][:others] or nearest(run)[:1]:
        factor = fit_factor(run, grids()[key])
        ours = statistics(*play(run, grids()[key], factor))
        errors = ours / real - 1.0
        name = f"{key.hardware} {key.backend}"
        if check is None:
            check = Check(f"{run.name} on {key}, worst of {len(METRICS)}", float(np.abs(errors).max()), BOUND)
            main = [
                (metric, f"{a:.3f}", f"{b:.3f}", *percent([e])) for metric, a, b, e in zip(METRICS, real, ours, errors)
            ]
        more.append((name, f"{factor:.3f}", *percent(errors)))
    assert check is not None
    return main, more, check


def _comparable(key: GridKey, run: Run) -> bool:
    return find_model(key.model, Path()).sizes == run.model.sizes and key.tensor_parallel == run.tensor_parallel


def run(folder: Path) -> Report:
    """Return everything this benchmark finds in the runs under *folder*; a model or GPU that is unknown is said."""
    report = Report()
    for path in sorted(folder.glob("*/requests.jsonl")):
        try:
            measured = read_run(path.parent)
        except HardwareError as error:
            report.tables.append(Table(path.parent.name, f"Not replayed: {error}.", ("",), []))
            continue
        main, more, check = run_one(measured)
        title = f"{measured.name}: {len(measured.arrived_s)} requests, {measured.max_seqs} seats"
        note = (
            f"Seconds; the nearest grid, and one factor that makes the mean e2e of the first {FITTED} requests right."
        )
        report.tables += [
            Table(title, note, ("metric", "measured", "replayed", "error"), main),
            Table(
                f"{measured.name}: every grid of this model",
                "Nearest first; each with its own factor. Only the first is judged.",
                ("grid", "factor", *METRICS),
                more,
            ),
        ]
        report.checks.append(check)
    return report
