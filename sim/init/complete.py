"""What a pool still lacks: the catalogue's name of its model, hardware, step times, and vLLM's own defaults."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim.engine.hardware import nearest
from sim.engine.latency import GridKey, grids
from sim.engine.models import ModelSpec, catalogue, find_model
from sim.engine.physics import GIB, devices, find_hardware
from sim.errors import HardwareError, InputError
from sim.init.facts import Fact, Service, derived, guessed, measured
from sim.scenario import StepTime

FAVOURITE = "h100"
_PREFERENCE = (FAVOURITE, "h200", "b200", "a100")

# Published with the same config.json sizes as a model of the catalogue (their Hugging Face repositories).
SAME_SIZES = {
    "llama-3-8b": "llama-3.1-8b",
    "llama-3-70b": "llama-3.1-70b",
    "llama-3.3-70b": "llama-3.1-70b",
    "deepseek-r1-distill-llama-8b": "llama-3.1-8b",
    "deepseek-r1-distill-llama-70b": "llama-3.1-70b",
    "deepseek-r1-0528-qwen3-8b": "qwen3-8b",
}
_QUANTISED = re.compile(r"fp8|fp4|int8|int4|w4a16|w8a8|awq|gptq|gguf|bnb|[48]bit")


def complete(service: Service, hardware: str | None, from_vllm: bool) -> list[str]:
    """Fill in what *service* lacks, in place, and return notes on what a reader should check first.

    *from_vllm*: its command line was given, so that an absent flag means vLLM's default and not ignorance.
    Raises InputError when *hardware* is not in the catalogue.
    """
    pool, steps = service.pool, service.pool.pop("step_time", None)
    named = str(pool["model"].value) if "model" in pool else service.name
    own = recognise(named) if named else None
    if hardware is not None:
        pool["hardware"] = _hardware(hardware)
    if named and _QUANTISED.search(named.lower()):
        service.unsupported.append((named, "the name says quantised; step times and weights are those of bf16"))
    if own is None and steps is not None and "kv_blocks" in pool:
        pool.pop("model", None)
        pool["step_time"] = derived(steps.value, f"{steps.why}: {named} is not in the catalogue")
        _defaults(pool, from_vllm)
        return [f"{named} is not in the catalogue: its step times are means of its metrics, true at the measured load"]
    pool["model"] = own or _similar(named)
    _defaults(pool, from_vllm)
    notes = _grid(pool)
    if own is None and named:
        better = "give the path of its config.json"
        notes.insert(0, f"{named} is not in the catalogue: {pool['model'].value} stands in for it; {better}")
    return notes


def recognise(name: str) -> Fact | None:
    """Return the catalogue's name of the model *name*, or the path of its config.json; None when there is neither."""
    try:
        spec = find_model(name, Path())
    except HardwareError:
        spec = None
    if spec is not None and spec.name in catalogue():
        return derived(spec.name, f"the catalogue's name of {name}")
    if spec is not None:
        path = Path(name)
        return measured(str(path / "config.json" if path.is_dir() else path), "the sizes in its config.json")
    same = {**{known: known for known in catalogue()}, **SAME_SIZES}
    tail = name.rstrip("/").rsplit("/", 1)[-1].lower().removeprefix("meta-").replace("_", "-")
    for known in sorted(same, key=len, reverse=True):
        if re.fullmatch(rf"{re.escape(known)}(-.*)?", tail):
            return derived(same[known], f"{name} has its sizes")
    return None


def _similar(name: str | None) -> Fact:
    """Return the model of the catalogue with the nearest number of parameters, read from the name (`...-7B`)."""
    sizes = re.findall(r"(\d+(?:\.\d+)?)b(?![a-z])", (name or "").lower())
    if name is None:
        return guessed("llama-3.1-8b", "`blowout hardware` lists what is known, or the path of a config.json")
    if not sizes or float(sizes[0]) == 0:
        return guessed("llama-3.1-8b", f"{name} is not in the catalogue; better: the path of its config.json")
    wanted = float(sizes[0]) * 1e9
    best = min(catalogue().values(), key=lambda spec: abs(math.log(spec.parameters / wanted)))
    return guessed(best.name, f"the nearest in size to {name}; better: the path of its config.json")


def _hardware(name: str) -> Fact:
    try:
        return measured(find_hardware(name).name, f"--hardware {name}")
    except HardwareError as error:
        raise InputError(f"--hardware: {error}") from None


def _defaults(pool: dict[str, Fact], from_vllm: bool) -> None:
    """Fill in what vLLM uses when a flag is absent.

    Sources: vllm/engine/arg_utils.py get_batch_defaults (OPENAI_API_SERVER; larger for GPUs from 70 GiB that are
    not A100) and vllm/config/cache.py, scheduler.py. gpu_memory_utilization is 0.92 in 0.32 and was 0.9 before.
    """

    def default(name: str, value: Any, why: str = "vLLM's default") -> None:
        why = f"{why}, the flag is absent" if from_vllm else why
        pool.setdefault(name, Fact(value, "derived" if from_vllm else "guessed", why))

    if "model" in pool:
        default("tensor_parallel", 1)
        pool.setdefault("hardware", _guess_hardware(pool))
        default("gpu_memory_utilization", 0.92, "vLLM's default (0.9 in older versions)")
    pool.setdefault("replicas", guessed(1, "servers behind one router"))
    device = devices().get(pool["hardware"].value) if "hardware" in pool else None
    large = device is not None and device.memory_bytes >= 70 * GIB and device.name != "a100"
    usual = f"vLLM's default on {device.name}" if device else "vLLM's default"
    default("block_size", 16)
    default("prefix_caching", True)
    tokens = 8192 if large else 2048
    if not pool.get("chunked_prefill", guessed(True, "")).value:
        pool.setdefault("max_model_len", guessed(8192, "without chunked prefill a whole prompt must fit one step"))
        tokens, usual = max(tokens, int(pool["max_model_len"].value)), f"{usual}, and at least max_model_len"
    default("max_num_batched_tokens", tokens, usual)
    default("max_num_seqs", min(1024 if large else 256, int(pool["max_num_batched_tokens"].value)), usual)


def _guess_hardware(pool: Mapping[str, Fact]) -> Fact:
    """Return hardware whose step times are tabulated for this model and number of GPUs, or else the most usual."""
    model, tensor_parallel = str(pool["model"].value), int(pool["tensor_parallel"].value)
    known = [name for name in _PREFERENCE if GridKey(model, name, tensor_parallel, "vllm") in grids()]
    return guessed((known or [FAVOURITE])[0], "say --hardware; `blowout hardware` lists what is known")


def _grid(pool: dict[str, Fact]) -> list[str]:
    """Borrow the nearest tabulated step times where there are none, and say that one factor must be measured."""
    spec, device = find_model(str(pool["model"].value), Path()), find_hardware(str(pool["hardware"].value))
    key = GridKey(_tabulated_name(spec), device.name, int(pool["tensor_parallel"].value), "vllm")
    pool["calibration"] = guessed(1.0, "one factor on tabulated kernel times; fit it to a measured latency")
    if key in grids():
        return []
    near = nearest(key, spec, device)
    note = f"no step times are tabulated for {key}; the nearest are {near}"
    if "grid" not in StepTime.model_fields:
        return []  # then the check of the finished scenario says it
    changed = {name: new for name, old, new in zip(GridKey._fields, key, near) if old != new}
    pool["step_time"] = guessed({"grid": changed}, f"{note}: calibrate before you believe them")
    return [note]


def _tabulated_name(spec: ModelSpec) -> str:
    return next((name for name, known in catalogue().items() if known.sizes == spec.sizes), spec.name)
