"""What a pool in a scenario becomes: memory as vLLM counts it, step times it names, and honest refusals."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sim.engine.hardware import PoolSpec, describe, nearest, resolve
from sim.engine.latency import GridKey, grids
from sim.engine.models import catalogue, find_model
from sim.engine.physics import GIB, devices, find_hardware, kv_bytes_per_token, plan_memory
from sim.engine.profiles import PROFILE_FORMAT
from sim.errors import HardwareError
from sim.scenario import Pool

# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # as the publishers count them
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("qwen3-8b", 8_190_735_360),
        ("qwen3-32b", 32_762_123_264),
    ],
)
def test_parameters_are_counted_exactly(name: str, parameters: int):
    assert catalogue()[name].parameters == parameters


LLAMA_8B = {
    "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN3_30B = {
    "model_type": "qwen3_moe", "num_hidden_layers": 48, "hidden_size": 2048, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "max_position_embeddings": 40960,
    "tie_word_embeddings": False, "sliding_window": None, "mlp_only_layers": [], "decoder_sparse_step": 1,
}  # fmt: skip


def config(tmp_path: Path, sizes: dict[str, Any], **changes: Any) -> Path:
    path = tmp_path / "my-model" / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**sizes, **changes}))
    return path


def test_a_config_json_gives_the_same_sizes_as_the_catalogue(tmp_path: Path):
    path = config(tmp_path, LLAMA_8B)
    for name in ("my-model", "my-model/config.json", str(path)):
        spec = find_model(name, tmp_path)
        assert spec.name == "my-model"
        assert (spec.sizes, spec.parameters) == (catalogue()["llama-3.1-8b"].sizes, 8_030_261_248)


def test_a_mixture_of_experts_has_more_parameters_than_it_uses(tmp_path: Path):
    config(tmp_path, QWEN3_30B)
    spec = find_model("my-model", tmp_path)
    assert spec.parameters == 30_532_122_624  # Qwen3-30B-A3B, as published
    assert spec.active_layer_parameters + 2 * spec.embedding == pytest.approx(3.35e9, rel=0.01)


def test_one_embedding_when_it_is_tied(tmp_path: Path):
    config(tmp_path, LLAMA_8B, tie_word_embeddings=True)
    assert find_model("my-model", tmp_path).parameters == 8_030_261_248 - 128256 * 4096


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not modelled; expected one of granite, llama,"),
        ({"num_hidden_layers": None}, "num_hidden_layers: expected a whole number of at least 1, got nothing"),
        ({"hidden_size": "wide"}, "hidden_size: expected a whole number of at least 1, got 'wide'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is set, and quantised weights have other"),
        ({"text_config": {"x": 1}}, "text_config is set"),
        ({"kv_lora_rank": 512}, "latent attention (MLA)"),
        ({"sliding_window": 4096}, "sliding or linear attention layers"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "sliding or linear attention layers"),
        ({"torch_dtype": "float8_e4m3fn"}, "dtype 'float8_e4m3fn' is not modelled"),
        ({"model_type": "mixtral"}, "num_local_experts: expected a whole number of at least 1, got nothing"),
        ({**QWEN3_30B, "decoder_sparse_step": 2}, "only some layers are mixtures of experts"),
    ],
)
def test_a_config_json_that_counts_otherwise_is_refused(tmp_path: Path, changes: dict[str, Any], says: str):
    path = config(tmp_path, LLAMA_8B, **changes)
    with pytest.raises(HardwareError, match=re.escape(says)) as error:
        find_model("my-model", tmp_path)
    assert str(error.value).startswith(f"{path}: ")


def test_what_is_no_config_json_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text("[1, 2")
    with pytest.raises(HardwareError, match="cannot be read"):
        find_model("config.json", tmp_path)
    with pytest.raises(HardwareError, match=re.escape("no such file, expected a Hugging Face config.json")):
        find_model("other.json", tmp_path)


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B", "LLAMA-3.1-8b"])
def test_models_are_known_by_their_names_on_the_hub(name: str, tmp_path: Path):
    assert find_model(name, tmp_path) is catalogue()["llama-3.1-8b"]


@pytest.mark.parametrize("name", ["h100_sxm", "H100", "NVIDIA-H100-80GB", "h100-sxm5-80gb"])
def test_hardware_is_known_by_its_other_names(name: str):
    assert find_hardware(name) is devices()["h100"]


# --- memory -----------------------------------------------------------------------------------------------------------


def pool(**settings: Any) -> Pool:
    """A pool; a `step_time` of another kind than linear is put in place after validation."""
    step = settings.pop("step", None)
    made = Pool(**{"model": "llama-3.1-8b", "hardware": "h100", **settings})
    return made.model_copy(update={"step_time": step}) if step is not None else made


def borrowed(**named: Any) -> SimpleNamespace:
    names = {"model": None, "hardware": None, "tensor_parallel": None, "backend": None, **named}
    return SimpleNamespace(choice=("grid", SimpleNamespace(**names)))


def resolved(**settings: Any) -> PoolSpec:
    return resolve(pool(**settings), Path())


def refusal(**settings: Any) -> str:
    with pytest.raises(HardwareError) as error:
        resolve(pool(**settings), Path(), "fleet.pools.chat")
    message = str(error.value)
    assert message.startswith("fleet.pools.chat: ")
    assert "\n" not in message
    return message.removeprefix("fleet.pools.chat: ")


def test_model_and_hardware_are_enough():
    spec = resolved()
    assert spec.memory is not None
    assert spec.memory.weights_bytes / GIB == pytest.approx(14.96, abs=0.01)  # vLLM logs 14.96 to 14.99 GiB
    assert spec.memory.activation_bytes / GIB == pytest.approx(1.22, abs=0.01)  # ... 1.20 to 1.26 GiB
    # public logs of this model on 79.1 GiB at 0.9: "GPU KV cache size: 447,776 tokens", "# GPU blocks: 28123"
    assert spec.kv_blocks == pytest.approx(28_000, rel=0.01)
    assert not spec.kv_blocks_overridden
    assert spec.max_model_len == 131072
    assert not spec.calibrated
    assert spec.provenance == (
        "kernel estimates of aiconfigurator-core 0.12.0 for llama-3.1-8b on h100 with tensor_parallel 1 (vllm)"
    )
    assert spec.notes == ()


def test_a_token_of_context_takes_its_keys_and_values():
    llama = catalogue()["llama-3.1-8b"]
    assert kv_bytes_per_token(llama, 1) == 2 * 32 * 8 * 128 * 2 == 131072
    assert kv_bytes_per_token(llama, 4) == 131072 / 4
    assert kv_bytes_per_token(llama, 16) == 131072 / 8  # 8 KV heads on 16 GPUs: each is kept twice


def test_one_block_is_the_null_block():
    memory = plan_memory(catalogue()["llama-3.1-8b"], devices()["h100"], 1, 0.9, 16, 256, 8192)
    assert memory.kv_blocks + 1 == int(memory.kv_bytes // (131072 * 16))


def test_more_seats_more_tokens_or_less_utilization_leave_fewer_blocks():
    blocks = resolved().kv_blocks
    assert resolved(max_num_seqs=1024).kv_blocks < blocks
    assert resolved(max_num_batched_tokens=65536).kv_blocks < blocks
    assert resolved(gpu_memory_utilization=0.8).kv_blocks < blocks
    assert resolved(block_size=32).kv_blocks == pytest.approx(blocks / 2, abs=1)


def test_the_longest_sequence_is_what_fits():
    spec = resolved(model="llama-3.1-70b", tensor_parallel=2)
    assert spec.max_model_len == spec.kv_blocks * 16 < 131072
    assert resolved(chunked_prefill=False).max_model_len == 8192
    assert resolved(max_model_len=4000).max_model_len == 4000


def test_an_override_is_said_and_does_not_count_as_calibration():
    spec = resolved(kv_blocks=4000, watermark=0.01)
    assert (spec.kv_blocks, spec.kv_blocks_overridden, spec.calibrated) == (4000, True, False)
    assert (spec.max_model_len, spec.watermark_blocks) == (64000, 40)


def test_neither_model_nor_hardware_with_a_linear_fit_and_blocks():
    spec = resolved(model=None, hardware=None, kv_blocks=100, step_time={"linear": {"base": "10ms"}})
    assert (spec.model, spec.memory, spec.kv_blocks, spec.max_model_len) == (None, None, 100, 1600)
    assert spec.calibrated
    assert spec.notes == ("no model or hardware named: step times were not checked against physics",)


def test_a_calibration_makes_it_calibrated():
    spec = resolved(calibration=1.25, overhead="2ms")
    assert spec.calibrated
    assert spec.provenance.endswith("(vllm), times 1.25, plus 2 ms of host time")
    assert spec.steps.base_s == pytest.approx(1.25 * resolved().steps.base_s + 0.002)


def test_another_grid_can_be_named_and_calibrated():
    spec = resolved(hardware="rtxpro6000", step=borrowed(hardware="h100"), calibration=2.2)
    assert spec.calibrated
    assert spec.provenance.endswith("for llama-3.1-8b on h100 with tensor_parallel 1 (vllm), borrowed, times 2.2")
    assert spec.hardware is devices()["rtxpro6000"]
    assert spec.kv_blocks == pytest.approx(35_300, rel=0.01)


def test_a_fine_tuned_model_uses_the_grid_of_its_sizes(tmp_path: Path):
    config(tmp_path, LLAMA_8B)
    spec = resolve(pool(model="my-model"), tmp_path)
    assert "for llama-3.1-8b on h100" in spec.provenance
    assert spec.kv_blocks == resolved().kv_blocks


def test_a_profile_is_read_beside_the_scenario(tmp_path: Path):
    measured = {
        "format": PROFILE_FORMAT,
        "source": "a quiet machine",
        "base_s": 0.0065,
        "decode_s": {"1": 0.0025, "32": 0.018},
        "prefill_s": {"1": 0.0005},
    }
    (tmp_path / "profile.json").write_text(json.dumps(measured))
    step = SimpleNamespace(choice=("profile", "profile.json"))
    spec = resolve(pool(model=None, hardware=None, kv_blocks=63, block_size=32, step=step), tmp_path)
    assert (spec.calibrated, spec.provenance) == (True, "measured: a quiet machine")
    assert spec.max_model_len == 63 * 32


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_model_that_does_not_fit_is_refused_with_what_would():
    assert refusal(model="llama-3.1-70b", hardware="h200") == (
        "llama-3.1-70b on 1 x h200 does not fit: each GPU may use 125.8 GiB (gpu_memory_utilization 0.9), weights take "
        "131.4 GiB and a step 1.9 GiB, which leaves nothing for the KV cache; tensor_parallel 2 would fit"
    )


def test_one_full_sequence_must_fit():
    assert re.fullmatch(
        r"one sequence of max_model_len 32768 needs 2048 KV blocks and there are \d+; "
        r"expected a max_model_len of at most \d+, or more memory",
        refusal(model="llama-3.1-70b", tensor_parallel=2, max_model_len=32768),
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_model_len": 200_000}, "max_model_len 200000 is more than the 131072 positions of llama-3.1-8b"),
        ({"tensor_parallel": 3}, "tensor_parallel 3 does not divide the 32 attention heads of llama-3.1-8b"),
        (
            {"kv_blocks": 60_000},
            "kv_blocks 60000 do not fit: they take 117.2 GiB of each h100, which has 79.1 GiB and holds 15.0 GiB of "
            "weights; at most 28014 fit at gpu_memory_utilization 0.9",
        ),
        (
            {"chunked_prefill": False, "max_model_len": 10_000},
            "max_num_batched_tokens 8192 is below max_model_len 10000, which needs chunked_prefill: true; vLLM refuses "
            "this too",
        ),
        (
            {"max_num_batched_tokens": 128},
            "max_num_batched_tokens 128 is below max_num_seqs 256, so a full batch could not decode in one step; vLLM "
            "refuses this too",
        ),
        ({"hardware": "h10"}, "no hardware 'h10'; did you mean 'h100'?"),
        ({"hardware": "abacus"}, "no hardware 'abacus', expected one of a100, h100, h200, b200, rtxpro6000"),
        ({"model": "llama-3.1-80b"}, "no model 'llama-3.1-80b'; did you mean 'llama-3.1-8b'?"),
        ({"hardware": None}, "hardware: expected a name of the catalogue, or kv_blocks and step_time without one"),
        (
            {"hardware": None, "kv_blocks": 9},
            "hardware: expected a name of the catalogue to look up step times, or step_time",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(settings: dict[str, Any], says: str):
    assert refusal(**settings) == says


def test_kv_heads_and_gpus_must_divide(tmp_path: Path):
    config(tmp_path, LLAMA_8B, num_attention_heads=48, num_key_value_heads=6, head_dim=128)
    with pytest.raises(HardwareError, match="tensor_parallel 4 and the 6 KV heads of my-model do not divide"):
        resolve(pool(model="my-model", tensor_parallel=4), tmp_path)


@pytest.mark.parametrize(
    ("settings", "gap", "near", "change"),
    [
        ({"hardware": "b200", "tensor_parallel": 2}, "llama-3.1-8b on b200 with tensor_parallel 2 (vllm)",
         "llama-3.1-8b on b200 with tensor_parallel 1 (vllm)", "{tensor_parallel: 1}"),
        ({"model": "qwen3-32b", "hardware": "h200", "tensor_parallel": 2},
         "qwen3-32b on h200 with tensor_parallel 2 (vllm)", "qwen3-32b on h100 with tensor_parallel 2 (vllm)",
         "{hardware: h100}"),
        ({"hardware": "h200", "backend": "sglang"}, "llama-3.1-8b on h200 with tensor_parallel 1 (sglang)",
         "llama-3.1-8b on h200 with tensor_parallel 1 (vllm)", "{backend: vllm}"),
        ({"hardware": "rtxpro6000"}, "llama-3.1-8b on rtxpro6000 with tensor_parallel 1 (vllm)",
         "llama-3.1-8b on h100 with tensor_parallel 1 (vllm)", "{hardware: h100}"),
    ],
)  # fmt: skip
def test_a_gap_is_refused_by_name_with_the_nearest(settings: dict[str, Any], gap: str, near: str, change: str):
    assert refusal(**settings) == (
        f"no step times are tabulated for {gap}; the nearest that exists is {near}: name it with "
        f"step_time: {{grid: {change}}} and a measured calibration, or give step_time: {{linear: ...}}"
    )


@pytest.mark.parametrize("key", grids(), ids=str)
def test_the_nearest_of_a_combination_that_exists_is_itself(key: GridKey):
    assert nearest(key, catalogue()[key.model], devices()[key.hardware]) == key


def test_an_unknown_model_is_nearest_to_one_of_its_size(tmp_path: Path):
    config(tmp_path, LLAMA_8B, num_hidden_layers=64, hidden_size=5120)
    message = refusal_of(tmp_path, tensor_parallel=2)
    assert "no step times are tabulated for my-model on h100 with tensor_parallel 2 (vllm)" in message
    assert "step_time: {grid: {model: qwen3-32b}}" in message


def refusal_of(folder: Path, **settings: Any) -> str:
    with pytest.raises(HardwareError) as error:
        resolve(pool(model="my-model", **settings), folder)
    return str(error.value)


def test_a_decode_step_faster_than_memory_is_refused():
    assert refusal(calibration=0.5) == (
        "a step for 1 decoding sequence with a context of 512 tokens would take 3.08 ms, faster than physics allows: "
        "h100 needs 4.50 ms to read 15.0 GB of weights and 0.1 GB of KV cache at 3350 GB/s; expected slower step times "
        "(step_time, calibration), other hardware or a lower max_model_len"
    )


def test_a_prompt_faster_than_arithmetic_is_refused():
    fit = {"base": "10ms", "per_sequence": "1ms", "per_context_token": "1us", "per_prefill_token": "1us"}
    assert refusal(step_time={"linear": fit}).startswith(
        "a step for a prompt of 1024 tokens would take 11.02 ms, faster than physics allows: h100 needs 14.73 ms for "
        "14.6 TFLOP at 989 TFLOP/s; "
    )


def test_a_grid_borrowed_from_faster_hardware_needs_its_calibration():
    message = refusal(hardware="rtxpro6000", step=borrowed(hardware="h100"))
    assert "rtxpro6000 needs 9.44 ms to read 15.0 GB of weights" in message


# --- what there is ----------------------------------------------------------------------------------------------------


def test_all_combinations_and_all_hardware_are_described():
    rows = describe()
    assert [tuple(row[name] for name in GridKey._fields) for row in rows[:21]] == list(grids())
    assert {row["hardware"] for row in rows} == set(devices())
    assert len({tuple(row) for row in rows}) == 1  # the same columns everywhere


def test_a_filter_holds_all_its_words():
    (row,) = describe("70B h100 tp2")
    assert (row["model"], row["weights_gib"], row["decode_256_ms"], row["prefill_2048_ms"]) == (
        "llama-3.1-70b", 65.7, 49.0, 222.5,
    )  # fmt: skip
    (row,) = describe("70b h200 tp1")
    assert (row["kv_blocks"], row["note"]) == (None, "does not fit into 125.8 GiB of each GPU")
    (row,) = describe("rtx")
    assert "no step times tabulated" in str(row["note"])
    with pytest.raises(HardwareError, match="nothing in the catalogue matches 'tpu'; models are llama-3.1-8b,"):
        describe("tpu")


def test_looking_up_hardware_does_not_wait_for_the_compiler():
    code = "import sys, sim.engine.hardware; sys.exit('numba' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0
