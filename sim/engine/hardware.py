"""From a pool in a scenario to what its replicas really are: KV blocks, limits and step times.

``hardware: h100, model: llama-3.1-8b`` is enough; memory gives the KV blocks, a tabulated grid the step times.
What does not fit, was never tabulated or would be faster than physics allows is refused with a sentence.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.engine import latency
from sim.engine.latency import GridKey, StepTimes
from sim.engine.models import ModelSpec, catalogue, find_model
from sim.engine.physics import (
    GIB,
    Hardware,
    Memory,
    attention_floor_s,
    context_floor_s,
    devices,
    find_hardware,
    plan_memory,
    refuse_impossible,
)
from sim.engine.profiles import Profile, read_profile
from sim.errors import HardwareError

if TYPE_CHECKING:
    from sim.scenario import Pool

TENSOR_PARALLEL_TRIED = (1, 2, 4, 8)
"""Sizes that a refusal tries, to name the smallest that would fit."""


@dataclass(frozen=True, eq=False)
class PoolSpec:
    """Everything the engine needs to know about the replicas of one pool.

    ``kv_blocks`` are usable blocks (vLLM's null block is not among them). ``model``, ``hardware`` and ``memory``
    are None where the scenario names none. ``calibrated``: the step times were fitted by the user.
    ``profile`` is None where step times come from elsewhere; it gives noise and the way to the client where the
    scenario is silent. ``provenance`` says where step times come from, ``notes`` what a reader should know.
    """

    model: ModelSpec | None
    hardware: Hardware | None
    tensor_parallel: int
    backend: str
    memory: Memory | None
    kv_blocks: int
    kv_blocks_overridden: bool
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    watermark_blocks: int
    reserve_full_isl: bool
    chunked_prefill: bool
    steps: StepTimes
    noise_sigma: float
    slow_sigma: float
    slow_period_s: float
    ingress_s: float
    egress_s: float
    profile: Profile | None
    calibrated: bool
    provenance: str
    notes: tuple[str, ...]


def resolve(pool: "Pool", base: Path = Path(), where: str = "pool") -> PoolSpec:
    """Return what the replicas of *pool* are; *where* begins each message.

    Paths in the pool are relative to *base*: a loaded scenario's are relative to where the command runs.

    Raises:
        HardwareError: an unknown model or hardware, a model that does not fit, step times that nobody tabulated,
            or a step faster than physics allows.
    """
    try:
        return _resolve(pool, base)
    except HardwareError as error:
        raise HardwareError(f"{where}: {error}") from None


def _resolve(pool: "Pool", base: Path) -> PoolSpec:
    model = None if pool.model in (None, "none") else find_model(str(pool.model), base)
    hardware = None if pool.hardware in (None, "none") else find_hardware(str(pool.hardware))
    if model is not None:
        _check_split(model, pool.tensor_parallel)
    memory = None
    if model is not None and hardware is not None:
        memory = _memory(pool, model, hardware)
        _check_weights(pool, model, hardware, memory)
    kv_blocks = _kv_blocks(pool, model, hardware, memory)
    max_model_len = _max_model_len(pool, model, kv_blocks)
    profile = read_profile(base / _form(pool)[1]) if _form(pool)[0] == "profile" else None
    steps, provenance = _steps(pool, base, model, hardware, profile)
    sigma, slow_sigma, slow_period_s = _noise(pool, profile)
    if pool.max_num_batched_tokens < pool.max_num_seqs:
        raise HardwareError(
            f"max_num_batched_tokens {pool.max_num_batched_tokens} is below max_num_seqs {pool.max_num_seqs}, so a "
            "full batch could not decode in one step; vLLM refuses this too"
        )
    notes = list(steps.notes)
    if model is not None and hardware is not None:
        kv_tokens = kv_blocks * pool.block_size
        refuse_impossible(steps, model, hardware, pool.tensor_parallel, kv_tokens, max_model_len)
    else:
        notes.append("no model or hardware named: step times were not checked against physics")
    return PoolSpec(
        model=model,
        hardware=hardware,
        tensor_parallel=pool.tensor_parallel,
        backend=pool.backend,
        memory=memory,
        kv_blocks=kv_blocks,
        kv_blocks_overridden=pool.kv_blocks is not None,
        block_size=pool.block_size,
        max_num_seqs=pool.max_num_seqs,
        max_num_batched_tokens=pool.max_num_batched_tokens,
        max_model_len=max_model_len,
        watermark_blocks=int(pool.watermark * kv_blocks),
        reserve_full_isl=pool.reserve_full_isl,
        chunked_prefill=pool.chunked_prefill,
        steps=steps,
        noise_sigma=sigma,
        slow_sigma=slow_sigma,
        slow_period_s=slow_period_s,
        ingress_s=pool.ingress if pool.ingress is not None else profile.ingress_s if profile else 0.0,
        egress_s=pool.egress if pool.egress is not None else profile.egress_s if profile else 0.0,
        profile=profile,
        calibrated=_form(pool)[0] in {"linear", "profile"} or pool.calibration != 1.0,
        provenance=provenance,
        notes=tuple(notes),
    )


# --- what fits --------------------------------------------------------------------------------------------------------


def _check_split(model: ModelSpec, tensor_parallel: int) -> None:
    """Check that heads divide over GPUs, as vLLM demands: KV heads may be split or replicated, not mixed."""
    if model.heads % tensor_parallel:
        raise HardwareError(
            f"tensor_parallel {tensor_parallel} does not divide the {model.heads} attention heads of {model.name}"
        )
    if max(model.kv_heads, tensor_parallel) % min(model.kv_heads, tensor_parallel):
        raise HardwareError(
            f"tensor_parallel {tensor_parallel} and the {model.kv_heads} KV heads of {model.name} do not divide "
            "one another"
        )


def _memory(pool: "Pool", model: ModelSpec, hardware: Hardware, tensor_parallel: int | None = None) -> Memory:
    return plan_memory(
        model,
        hardware,
        tensor_parallel or pool.tensor_parallel,
        pool.gpu_memory_utilization,
        pool.block_size,
        pool.max_num_seqs,
        pool.max_num_batched_tokens,
    )


def _check_weights(pool: "Pool", model: ModelSpec, hardware: Hardware, memory: Memory) -> None:
    if memory.kv_blocks >= 1:
        return
    larger = [tp for tp in TENSOR_PARALLEL_TRIED if tp > pool.tensor_parallel and model.heads % tp == 0]
    fits = next((tp for tp in larger if _memory(pool, model, hardware, tp).kv_blocks >= 1), None)
    hint = f"tensor_parallel {fits} would fit" if fits else "expected a smaller model or larger hardware"
    used = memory.activation_bytes + memory.other_bytes
    raise HardwareError(
        f"{_named(model, hardware, pool.tensor_parallel)} does not fit: each GPU may use "
        f"{memory.budget_bytes / GIB:.1f} GiB (gpu_memory_utilization {pool.gpu_memory_utilization:g}), weights take "
        f"{memory.weights_bytes / GIB:.1f} GiB and a step {used / GIB:.1f} GiB, which leaves nothing for the KV cache; "
        f"{hint}"
    )


def _kv_blocks(pool: "Pool", model: ModelSpec | None, hardware: Hardware | None, memory: Memory | None) -> int:
    if pool.kv_blocks is None:
        if memory is None:
            missing = "model" if model is None else "hardware"
            raise HardwareError(f"{missing}: expected a name of the catalogue, or kv_blocks and step_time without one")
        return memory.kv_blocks
    if memory is not None and model is not None and hardware is not None:
        cache = (pool.kv_blocks + 1) * pool.block_size * memory.kv_bytes_per_token
        if memory.weights_bytes + cache > hardware.memory_bytes:
            raise HardwareError(
                f"kv_blocks {pool.kv_blocks} do not fit: they take {cache / GIB:.1f} GiB of each {hardware.name}, "
                f"which has {hardware.memory_bytes / GIB:.1f} GiB and holds {memory.weights_bytes / GIB:.1f} GiB of "
                f"weights; at most {memory.kv_blocks} fit at gpu_memory_utilization {pool.gpu_memory_utilization:g}"
            )
    return pool.kv_blocks


UNNAMED_LONGEST = 131_072
"""Longest sequence of a pool that names no model: tables grow with it."""


def _max_model_len(pool: "Pool", model: ModelSpec | None, kv_blocks: int) -> int:
    """Return the longest sequence: what was asked for, else the most that model, KV cache and budget allow."""
    fits = kv_blocks * pool.block_size
    asked = pool.max_model_len
    whole = math.inf if pool.chunked_prefill else pool.max_num_batched_tokens
    if asked is None:
        return int(min(fits, whole, model.max_position if model else UNNAMED_LONGEST))
    if model is not None and asked > model.max_position:
        raise HardwareError(f"max_model_len {asked} is more than the {model.max_position} positions of {model.name}")
    if asked > fits:
        blocks = math.ceil(asked / pool.block_size)
        raise HardwareError(
            f"one sequence of max_model_len {asked} needs {blocks} KV blocks and there are {kv_blocks}; expected a "
            f"max_model_len of at most {fits}, or more memory"
        )
    if asked > whole:
        raise HardwareError(
            f"max_num_batched_tokens {pool.max_num_batched_tokens} is below max_model_len {asked}, which needs "
            "chunked_prefill: true; vLLM refuses this too"
        )
    return asked


# --- step times -------------------------------------------------------------------------------------------------------


def _form(pool: "Pool") -> tuple[str, Any]:
    """Return which form `step_time` has, and what it says: linear, profile, grid, or table when it is left out."""
    return ("table", None) if pool.step_time is None else pool.step_time.choice


def _noise(pool: "Pool", profile: Profile | None) -> tuple[float, float, float]:
    """Return the luck in step times: what the scenario says, else what the profile has measured."""
    if pool.noise is not None:
        return pool.noise.sigma, pool.noise.slow_sigma, pool.noise.slow_period
    return (profile.noise if profile else None) or (0.0, 0.0, 10.0)


def _steps(
    pool: "Pool", base: Path, model: ModelSpec | None, hardware: Hardware | None, profile: Profile | None
) -> tuple[StepTimes, str]:
    """Return the step times of *pool* and where they come from."""
    limits = (pool.max_num_seqs, pool.max_num_batched_tokens)
    scaled = f", times {pool.calibration:g}" if pool.calibration != 1.0 else ""
    scaled += f", plus {pool.overhead * 1e3:g} ms of host time" if pool.overhead else ""
    form, said = _form(pool)
    if form == "linear":
        terms = (said.base, said.per_prefill_token, said.per_sequence, said.per_context_token)
        return latency.linear(*limits, *terms, pool.calibration, pool.overhead), f"linear fit of the scenario{scaled}"
    if profile is not None:
        day = f", profile {Path(said).name}, measured on {profile.measured}" if profile.measured else ""
        return profile.steps(*limits, pool.calibration, pool.overhead), f"measured: {profile.source}{day}{scaled}"
    key = _grid_key(pool, base, model, hardware, said)
    own, gpu, tp = catalogue()[key.model], devices()[key.hardware], key.tensor_parallel
    floors = attention_floor_s(own, gpu, tp), context_floor_s(own, gpu, tp)
    steps = latency.from_grid(latency.grids()[key], *limits, pool.calibration, pool.overhead, *floors)
    return steps, f"{latency.SOURCE} for {key}{', borrowed' if form == 'grid' else ''}{scaled}"


def _grid_key(pool: "Pool", base: Path, model: ModelSpec | None, hardware: Hardware | None, named: Any) -> GridKey:
    """Return which grid *pool* uses: that of its own model and hardware, but for what *named* says."""
    if named is not None and named.model is not None:
        model = find_model(named.model, base)
    if named is not None and named.hardware is not None:
        hardware = find_hardware(named.hardware)
    if model is None or hardware is None:
        missing = "model" if model is None else "hardware"
        raise HardwareError(f"{missing}: expected a name of the catalogue to look up step times, or step_time")
    tensor_parallel = (named.tensor_parallel if named else None) or pool.tensor_parallel
    backend = (named.backend if named else None) or pool.backend
    key = GridKey(_same_sizes(model), hardware.name, tensor_parallel, backend)
    if key in latency.grids():
        return key
    near = nearest(key, model, hardware)
    raise HardwareError(
        f"no step times are tabulated for {key}; the nearest that exists is {near}: name it with "
        f"step_time: {{grid: {_difference(key, near)}}} and a measured calibration, or give step_time: {{linear: ...}}"
    )


def _same_sizes(model: ModelSpec) -> str:
    """Return the catalogue's name of a model with the same sizes (a fine-tuned one is as fast), else its own."""
    return next((name for name, spec in catalogue().items() if spec.sizes == model.sizes), model.name)


def _difference(key: GridKey, near: GridKey) -> str:
    changed = [f"{name}: {new}" for name, old, new in zip(GridKey._fields, key, near) if old != new]
    return "{" + ", ".join(changed) + "}"


def nearest(key: GridKey, model: ModelSpec, hardware: Hardware) -> GridKey:
    """Return the tabulated combination whose step times are most like those of *key*, but for one factor.

    Another backend is nearest, then another number of GPUs, then other hardware (how much it computes for each
    byte it reads decides the shape, so that counts more than bandwidth), then another model, by its size.
    """

    def distance(other: GridKey) -> float:
        spec, gpu = catalogue()[other.model], devices()[other.hardware]
        far = 0.5 * (other.backend != key.backend) + _octaves(other.tensor_parallel, key.tensor_parallel)
        far += (other.hardware != key.hardware) + _octaves(_intensity(gpu), _intensity(hardware))
        far += 0.5 * _octaves(gpu.bandwidth_bytes_per_s, hardware.bandwidth_bytes_per_s)
        return far + 2.0 * (other.model != key.model) + 2.0 * _octaves(spec.parameters, model.parameters)

    return min(latency.grids(), key=distance)


def _intensity(device: Hardware) -> float:
    return device.flop_per_s / device.bandwidth_bytes_per_s


def _octaves(a: float, b: float) -> float:
    return abs(math.log2(a / b))


def _named(model: ModelSpec, hardware: Hardware, tensor_parallel: int) -> str:
    return f"{model.name} on {tensor_parallel} x {hardware.name}"


# --- what there is ----------------------------------------------------------------------------------------------------

Row = dict[str, str | int | float | None]
"""One line of `blowout hardware`, by column name; None where nothing is known."""


def describe(filter: str = "") -> list[Row]:
    """Return what can be named in a scenario: each tabulated combination, then hardware without step times.

    Only rows that hold every word of *filter* (in model, hardware, backend or ``tp2``), with vLLM's defaults
    (0.9 of the memory, 256 sequences, 8192 tokens a step). Times in milliseconds, weights per GPU in GiB.

    Raises:
        HardwareError: no row matches.
    """
    rows = [_describe_grid(key) for key in latency.grids()]
    used = {key.hardware for key in latency.grids()}
    rows += [_describe_device(device) for name, device in devices().items() if name not in used]
    words = filter.lower().split()
    found = [row for row in rows if all(any(word in text for text in _names(row)) for word in words)]
    if not found:
        raise HardwareError(
            f"nothing in the catalogue matches {filter!r}; models are {', '.join(catalogue())}, "
            f"hardware {', '.join(devices())}"
        )
    return found


def _names(row: Row) -> list[str]:
    return [str(row["model"] or ""), str(row["hardware"]), str(row["backend"] or ""), f"tp{row['tensor_parallel']}"]


def _describe_grid(key: GridKey) -> Row:
    model, device = catalogue()[key.model], devices()[key.hardware]
    memory = plan_memory(model, device, key.tensor_parallel, 0.9, 16, 256, 8192)
    steps = latency.from_grid(latency.grids()[key], 256, 8192)
    fits = memory.kv_blocks > 0
    return {
        **key._asdict(),
        "weights_gib": round(memory.weights_bytes / GIB, 1),
        "kv_blocks": memory.kv_blocks if fits else None,
        "kv_tokens": memory.kv_blocks * 16 if fits else None,
        "decode_1_ms": round(steps.step_s(1, 1024) * 1e3, 1),
        "decode_64_ms": round(steps.step_s(64, 1024) * 1e3, 1),
        "decode_256_ms": round(steps.step_s(256, 1024) * 1e3, 1),
        "prefill_2048_ms": round(steps.step_s(chunks=[(2048, 0)]) * 1e3, 1),
        "note": "" if fits else f"does not fit into {0.9 * device.memory_bytes / GIB:.1f} GiB of each GPU",
    }


def _describe_device(device: Hardware) -> Row:
    empty: Row = dict.fromkeys(_describe_grid(next(iter(latency.grids()))))
    note = "no step times tabulated: name another grid with step_time and a calibration"
    return {**empty, "hardware": device.name, "note": note}
