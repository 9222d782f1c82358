"""How big a language model is: what a step must read and compute, and what a token of context takes.

Sizes come from a small catalogue (`data/models.csv`) or from any Hugging Face ``config.json`` of a dense
Llama-like model or a known mixture of experts. Everything else is counted from the sizes.
"""

import csv
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sim.errors import HardwareError
from sim.words import did_you_mean

DATA = Path(__file__).with_name("data")
BYTES = 2
"""Of a weight and of a key or value in the cache: bf16. vLLM loads float16 and float32 checkpoints as 2 bytes too."""

DENSE = {"llama", "mistral", "qwen2", "qwen3", "phi3", "granite"}
"""`model_type` of the dense architectures that count like Llama: gated MLP, grouped-query attention, two norms."""
EXPERTS = {"mixtral": ("num_local_experts", "intermediate_size"), "qwen3_moe": ("num_experts", "moe_intermediate_size")}
"""`model_type` of the known mixtures of experts, with the fields that hold their number and their width."""
REFUSED = {
    "quantization_config": "quantised weights have other step times and sizes than the bf16 that is modelled",
    "text_config": "the sizes of its vision or audio part are not modelled",
    "kv_lora_rank": "latent attention (MLA) keeps another KV cache than the one that is modelled",
    "is_encoder_decoder": "encoder-decoder models are not modelled",
}
"""Fields of a config.json that mean something the memory model does not know, and what."""


@dataclass(frozen=True)
class ModelSpec:
    """The sizes of a language model, counted in elements; each weight and each key or value takes `BYTES`.

    ``experts`` is 0 for a dense model; for a mixture, ``intermediate`` is the width of one expert, of which
    ``active_experts`` compute each token.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_position: int
    tied: bool = False
    qk_norm: bool = False
    attention_bias: bool = False
    experts: int = 0
    active_experts: int = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """All that decides step times, without the name: two models with equal sizes are as fast."""
        counts = (self.layers, self.hidden, self.heads, self.kv_heads, self.head_dim, self.intermediate, self.vocab)
        return (*counts, self.experts, self.active_experts)

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, which is looked up, not multiplied."""
        return self.vocab * self.hidden

    @property
    def layer_parameters(self) -> int:
        """Parameters of all layers and the last norm, every expert counted."""
        return self._layers(max(self.experts, 1))

    @property
    def active_layer_parameters(self) -> int:
        """Parameters of the layers that one token goes through."""
        return self._layers(max(self.active_experts, 1))

    @property
    def parameters(self) -> int:
        """Parameters in memory: layers, embedding, and the output layer unless it is tied to the embedding."""
        return self.layer_parameters + self.embedding * (1 if self.tied else 2)

    def _layers(self, experts: int) -> int:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden * (q + 2 * kv) + q * self.hidden + (q + 2 * kv if self.attention_bias else 0)
        router = self.hidden * self.experts
        mlp = 3 * self.hidden * self.intermediate * experts + router
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        return self.layers * (attention + mlp + norms) + self.hidden


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a shipped CSV table, without the comment lines that tell where it is from."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


@cache
def catalogue() -> dict[str, ModelSpec]:
    """Return the models of `data/models.csv` by name."""
    return {row["name"]: _from_row(row) for row in rows_of(DATA / "models.csv")}


def _from_row(row: dict[str, str]) -> ModelSpec:
    flags = {"tied", "qk_norm"}
    sizes: dict[str, Any] = {key: int(value) for key, value in row.items() if key not in {"name", "aliases", *flags}}
    return ModelSpec(name=row["name"], **sizes, **{flag: row[flag] == "1" for flag in flags})


@cache
def _aliases() -> dict[str, str]:
    return {alias: row["name"] for row in rows_of(DATA / "models.csv") for alias in row["aliases"].split()}


def find_model(name: str, base: Path) -> ModelSpec:
    """Return the sizes of the model *name*: of the catalogue, a Hugging Face id in it, or a config.json.

    A path is relative to the folder *base*; a folder stands for the config.json in it.

    Raises:
        HardwareError: no such model, or a config.json that is not understood.
    """
    key = _aliases().get(name.lower(), name.lower())
    if key in catalogue():
        return catalogue()[key]
    path = base / name
    if path.is_dir():
        path = path / "config.json"
    if path.is_file():
        return read_config(path)
    if name.endswith(".json"):
        raise HardwareError(f"{path}: no such file, expected a Hugging Face config.json with a model's sizes")
    near = did_you_mean(key, [*catalogue(), *_aliases()])
    known = f", expected one of {', '.join(catalogue())} or the path of a Hugging Face config.json"
    raise HardwareError(f"no model {name!r}{near or known}")


def read_config(path: Path) -> ModelSpec:
    """Return the sizes in the Hugging Face config.json at *path*.

    Field names are those of `transformers` (LlamaConfig, Qwen3Config, MixtralConfig, Qwen3MoeConfig).

    Raises:
        HardwareError: not JSON, a field missing, or an architecture that does not count like Llama.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HardwareError(f"{path}: expected a Hugging Face config.json, but it cannot be read ({error})") from None
    if not isinstance(config, dict):
        raise HardwareError(f"{path}: expected a Hugging Face config.json, a JSON object with the model's sizes")
    kind = config.get("model_type")
    _refuse_unknown(path, config, kind)
    heads = _size(path, config, "num_attention_heads")
    hidden = _size(path, config, "hidden_size")
    experts, active, width = 0, 0, "intermediate_size"
    if kind in EXPERTS:
        field, width = EXPERTS[kind]
        experts, active = _size(path, config, field), _size(path, config, "num_experts_per_tok")
    return ModelSpec(
        name=path.parent.name if path.name == "config.json" and path.parent.name else path.stem,
        layers=_size(path, config, "num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=_size(path, config, "num_key_value_heads", heads),
        head_dim=_size(path, config, "head_dim", hidden // heads),
        intermediate=_size(path, config, width),
        vocab=_size(path, config, "vocab_size"),
        max_position=_size(path, config, "max_position_embeddings"),
        tied=bool(config.get("tie_word_embeddings", False)),
        qk_norm=kind in {"qwen3", "qwen3_moe"},
        attention_bias=bool(config.get("attention_bias", kind == "qwen2")),
        experts=experts,
        active_experts=active,
    )


def _refuse_unknown(path: Path, config: dict[str, Any], kind: object) -> None:
    for field, why in REFUSED.items():
        if config.get(field):
            raise HardwareError(f"{path}: {field} is set, and {why}")
    layer_types = config.get("layer_types") or []
    used = config.get("use_sliding_window", True)
    window = config.get("sliding_window") if used else None
    if window or any(layer != "full_attention" for layer in layer_types):
        raise HardwareError(f"{path}: its sliding or linear attention layers keep less KV cache than what is modelled")
    if kind not in DENSE and kind not in EXPERTS:
        known = ", ".join(sorted(DENSE | set(EXPERTS)))
        raise HardwareError(f"{path}: model_type {kind!r} is not modelled; expected one of {known}")
    dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    if dtype not in {"bfloat16", "float16", "float32", "auto"}:
        raise HardwareError(f"{path}: dtype {dtype!r} is not modelled; expected bfloat16, float16 or float32")
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        raise HardwareError(f"{path}: only some layers are mixtures of experts, which is not modelled")


def _size(path: Path, config: dict[str, Any], field: str, default: int | None = None) -> int:
    value = config.get(field)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        got = "nothing" if value is None else repr(value)
        raise HardwareError(f"{path}: {field}: expected a whole number of at least 1, got {got}")
    return value
