"""A Llama of 12 million random parameters and a tokenizer of its own: what vLLM needs to start, and no hub.

Four small files. Weights are vLLM's own dummies (`--load-format dummy`); what such a model says is noise, and how long
it takes to say it is not. 32-bit floats, since bf16 is slow on processors without AVX512.
"""

import json
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits, punctuation

ABOUT = "a Llama of 12M random parameters in 32-bit floats"
VOCABULARY = 354
SPACE = "Ġ"  # as byte-level BPE writes it
SPECIAL = ("<s>", "</s>")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 0,
    "eos_token_id": 1,
}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write(folder: Path) -> None:
    """Write the model's files into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    special = [
        {"id": i, "content": word, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}
        for i, word in enumerate(SPECIAL)
    ]  # fmt: skip
    vocabulary, merges = _pieces()
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {piece: i for i, piece in enumerate(vocabulary)}, "merges": merges,
        },
    }  # fmt: skip
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "eos_token": SPECIAL[1],
        "model_max_length": 2048, "clean_up_tokenization_spaces": False, "chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
    generation = {"bos_token_id": 0, "eos_token_id": 1}
    files = {"config": CONFIG, "tokenizer": whole, "tokenizer_config": about, "generation_config": generation}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def _pieces() -> tuple[list[str], list[list[str]]]:
    """Return the vocabulary (letters, words of one letter, pairs of letters) and the merges that make it."""
    letters = [SPACE, "Ċ", *ascii_lowercase, *ascii_uppercase, *digits, *punctuation]
    words = [[SPACE, letter] for letter in ascii_lowercase]
    room = VOCABULARY - len(SPECIAL) - len(letters) - len(words)
    merges = [*words, *([a, b] for a, b in islice(product(ascii_lowercase, repeat=2), room))]
    return [*SPECIAL, *letters, *(a + b for a, b in merges)], merges
