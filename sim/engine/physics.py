"""What a GPU has, what fits into it, and how fast a step can possibly be.

Memory follows vLLM V1 (`gpu_worker.determine_available_memory`): of ``gpu_memory_utilization`` x total, weights
and the peak of one profiling step are taken away; what is left becomes KV blocks, one of them the null block.
"""

from dataclasses import dataclass
from functools import cache

from sim.engine.latency import StepTimes
from sim.engine.models import BYTES, DATA, ModelSpec, rows_of
from sim.errors import HardwareError
from sim.words import did_you_mean

GIB = 2.0**30
GB = 1e9

SAMPLER_BYTES = 40
"""For each sequence and word of the vocabulary while sampling: float32 logits and probabilities, sorted values and
int64 indices. Reproduces the activation peak of 1.20 to 1.26 GiB that vLLM logs for Llama-3.1-8B with 256 sequences
(for example vllm-project/vllm pull request 10511), on one GPU and on two alike."""
OUTSIDE_TORCH_BYTES = 0.3 * GIB
"""CUDA context and libraries: vLLM logs 0.11 to 0.35 GiB as non_torch_memory on one GPU."""
COLLECTIVES_BYTES = 0.7 * GIB
"""Buffers of NCCL and of the custom all-reduce, on each GPU when there is more than one."""


@dataclass(frozen=True)
class Hardware:
    """One GPU: total memory as CUDA reports it, and the dense bf16 peaks of its data sheet."""

    name: str
    memory_bytes: float
    bandwidth_bytes_per_s: float
    flop_per_s: float
    source: str


@dataclass(frozen=True)
class Memory:
    """How the memory of each GPU of a replica is spent, bytes; ``kv_blocks`` are usable (without the null block)."""

    budget_bytes: float
    weights_bytes: float
    activation_bytes: float
    other_bytes: float
    kv_bytes_per_token: float
    block_size: int

    @property
    def kv_bytes(self) -> float:
        """What is left for the KV cache on each GPU; below 0 when the rest does not fit."""
        return self.budget_bytes - self.weights_bytes - self.activation_bytes - self.other_bytes

    @property
    def kv_blocks(self) -> int:
        """Blocks that sequences can hold: vLLM keeps one of those that fit as its null block."""
        return max(0, int(self.kv_bytes // (self.kv_bytes_per_token * self.block_size)) - 1)


@cache
def devices() -> dict[str, Hardware]:
    """Return the GPUs of `data/hardware.csv` by name."""
    return {
        row["name"]: Hardware(
            row["name"],
            float(row["memory_gib"]) * GIB,
            float(row["bandwidth_gb_s"]) * 1e9,
            float(row["bf16_tflops"]) * 1e12,
            row["source"],
        )
        for row in rows_of(DATA / "hardware.csv")
    }


def find_hardware(name: str) -> Hardware:
    """Return the GPU called *name*, or known under that alias.

    Raises:
        HardwareError: it is not in the catalogue.
    """
    key = name.lower().removeprefix("nvidia-").removeprefix("nvidia ")
    aliases = {alias: row["name"] for row in rows_of(DATA / "hardware.csv") for alias in row["aliases"].split()}
    key = aliases.get(key, key)
    if key in devices():
        return devices()[key]
    near = did_you_mean(key, [*devices(), *aliases])
    raise HardwareError(f"no hardware {name!r}{near or ', expected one of ' + ', '.join(devices())}")


def kv_bytes_per_token(model: ModelSpec, tensor_parallel: int) -> float:
    """Return what one token of context takes in the KV cache of each GPU, bytes.

    Keys and values of every layer; KV heads are split over the GPUs, and replicated when there are fewer.
    """
    heads = max(1.0, model.kv_heads / tensor_parallel)
    return 2.0 * model.layers * heads * model.head_dim * BYTES


def plan_memory(
    model: ModelSpec,
    hardware: Hardware,
    tensor_parallel: int,
    utilization: float,
    block_size: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
) -> Memory:
    """Return how vLLM would spend the memory of each GPU; *utilization* is its ``gpu_memory_utilization``.

    The activation peak is an estimate: the larger of one layer's MLP for a full step (residual, input, gate, up
    and their product) and of sampling for a full batch. CUDA graphs come on top of the budget and are left out.
    """
    width = model.intermediate * max(model.active_experts, 1)
    mlp = max_num_batched_tokens * (2.0 * model.hidden + 3.0 * width / tensor_parallel) * BYTES
    sampling = float(SAMPLER_BYTES) * max_num_seqs * model.vocab
    return Memory(
        budget_bytes=utilization * hardware.memory_bytes,
        weights_bytes=float(BYTES) * model.parameters / tensor_parallel,
        activation_bytes=max(mlp, sampling),
        other_bytes=OUTSIDE_TORCH_BYTES + (COLLECTIVES_BYTES if tensor_parallel > 1 else 0.0),
        kv_bytes_per_token=kv_bytes_per_token(model, tensor_parallel),
        block_size=block_size,
    )


# --- how fast a step can be -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Roofline:
    """The least a step needs on hardware that is never idle: work over peak FLOP/s, bytes over bandwidth."""

    flop: float
    weight_bytes: float
    kv_bytes: float
    hardware: Hardware
    tensor_parallel: int

    @property
    def compute_s(self) -> float:
        """Seconds of multiplying at the peak of all GPUs."""
        return self.flop / (self.hardware.flop_per_s * self.tensor_parallel)

    @property
    def memory_s(self) -> float:
        """Seconds of reading weights and KV cache at the full bandwidth of all GPUs."""
        return (self.weight_bytes + self.kv_bytes) / (self.hardware.bandwidth_bytes_per_s * self.tensor_parallel)

    @property
    def least_s(self) -> float:
        """The larger of the two, seconds."""
        return max(self.compute_s, self.memory_s)

    def why(self) -> str:
        """Say which of the two it is, with its numbers."""
        gpus = self.hardware.name if self.tensor_parallel == 1 else f"{self.tensor_parallel} x {self.hardware.name}"
        if self.compute_s >= self.memory_s:
            peak = self.hardware.flop_per_s * self.tensor_parallel / 1e12
            return f"{gpus} needs {self.compute_s * 1e3:.2f} ms for {self.flop / 1e12:.3g} TFLOP at {peak:.0f} TFLOP/s"
        rate = self.hardware.bandwidth_bytes_per_s * self.tensor_parallel / GB
        cache = f" and {self.kv_bytes / GB:.1f} GB of KV cache" if self.kv_bytes else ""
        read = f"{self.weight_bytes / GB:.1f} GB of weights{cache}"
        return f"{gpus} needs {self.memory_s * 1e3:.2f} ms to read {read} at {rate:.0f} GB/s"


def roofline(
    model: ModelSpec,
    hardware: Hardware,
    tensor_parallel: int,
    sequences: int = 0,
    context: float = 0.0,
    prompt: int = 0,
) -> Roofline:
    """Return the least a step needs: *sequences* decode with *context* tokens each, beside one whole *prompt*.

    The embedding is looked up, not multiplied; the output layer computes one row a sequence. Of a mixture of
    experts, only what one token needs is counted: a bound, whatever the routing.
    """
    tokens = sequences + prompt
    rows = sequences + (1 if prompt else 0)
    attended = sequences * context + 0.5 * prompt * prompt
    flop = 2.0 * model.active_layer_parameters * tokens + 2.0 * model.embedding * rows
    flop += attention_flop(model) * attended
    weights = float(BYTES) * (model.active_layer_parameters + model.embedding)
    cache = sequences * context * kv_bytes_per_token(model, tensor_parallel) * tensor_parallel
    return Roofline(flop, weights, cache, hardware, tensor_parallel)


def attention_flop(model: ModelSpec) -> float:
    """Return the floating-point operations of one token attending to one other, in all layers."""
    return 4.0 * model.layers * model.heads * model.head_dim


def attention_floor_s(model: ModelSpec, hardware: Hardware, tensor_parallel: int) -> float:
    """Return the least seconds one prompt token attending to one other token takes: it computes."""
    return attention_flop(model) / (hardware.flop_per_s * tensor_parallel)


def context_floor_s(model: ModelSpec, hardware: Hardware, tensor_parallel: int) -> float:
    """Return the least seconds one decoding sequence takes for a token of its context: it reads keys and values."""
    return kv_bytes_per_token(model, tensor_parallel) / hardware.bandwidth_bytes_per_s


def refuse_impossible(
    steps: StepTimes, model: ModelSpec, hardware: Hardware, tensor_parallel: int, kv_tokens: int, max_model_len: int
) -> None:
    """Check that no step which this pool can reach is faster than physics allows.

    Batches by powers of two at each context edge that *kv_tokens* tokens of KV cache hold, and whole prompts by
    powers of two, up to *max_model_len* tokens.

    Raises:
        HardwareError: some step is too fast; the sentence says which, and what it needs at least.
    """
    for n in _powers(len(steps.decode_s) - 1):
        most = min(kv_tokens / n, max_model_len)
        for context in sorted({float(edge) for edge in steps.ctx_edges if 1.0 <= edge <= most} | {most}):
            least = roofline(model, hardware, tensor_parallel, sequences=n, context=context)
            what = f"{_count(n, 'decoding sequence')} with a context of {context:.0f} tokens"
            _refuse_faster(steps.step_s(n, context), least, what)
    for prompt in _powers(min(len(steps.tokens_s) - 1, max_model_len)):
        least = roofline(model, hardware, tensor_parallel, prompt=prompt)
        _refuse_faster(steps.step_s(chunks=[(prompt, 0)]), least, f"a prompt of {_count(prompt, 'token')}")


def _refuse_faster(time_s: float, least: Roofline, what: str) -> None:
    if time_s < least.least_s * (1.0 - 1e-9):
        raise HardwareError(
            f"a step for {what} would take {time_s * 1e3:.2f} ms, faster than physics allows: {least.why()}; "
            "expected slower step times (step_time, calibration), other hardware or a lower max_model_len"
        )


def _powers(most: int) -> list[int]:
    return sorted({most, *(1 << k for k in range(most.bit_length()))}) if most > 0 else []


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
