"""Prompts of an exact length without a tokenizer, that begin alike exactly where the scenario says so.

Where the endpoint takes lists of token ids, a prompt of n tokens is n ids. Else it is a text of one-letter words, and
how many tokens each is, and how many the chat template adds, is calibrated from the ``usage`` of two probes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from loadtest.plan import Talk

FIRST_ID = 100
"""Ids from 100 to 227 are ordinary tokens in every vocabulary that was looked at (Llama, Qwen, GPT, byte-level)."""
_IDS = [str(FIRST_ID + (byte & 127)) for byte in range(256)]
_LETTERS = bytes(ord("a") + byte % 26 for byte in range(256))
_TEXT, _PREFIX = 0, 1
SENT = ("messages", "prompt", "max_tokens", "response_format", "temperature", "stop", "tools", "tool_choice")
"""Of a line in a file of prompts, what the endpoint is told."""
ENOUGH_TOKENS = 1024
"""Longest answer to a real prompt whose line says no ``max_tokens``."""


class Prompts:
    """Writes prompts: the same text for the same content, another with another salt."""

    def __init__(self, talk: Talk, salt: int, tree: np.ndarray) -> None:
        """*tree* is that of shared prefixes (`sim.records.PREFIX`)."""
        self._talk, self._salt, self._tree = talk, salt, tree
        self._prefix = lru_cache(maxsize=512)(self._of_node)

    def bytes_of(self, prefix: int, prefix_tokens: int, content: int, tokens: int) -> bytes:
        """Return a prompt of *tokens* words, one byte a word: its shared *prefix*, and then its own *content*."""
        head = self._prefix(prefix)[: min(prefix_tokens, tokens)] if prefix >= 0 else b""
        return head + self._draw(_TEXT, content, max(0, tokens - len(head)))

    def written(self, prefix: int, prefix_tokens: int, content: int, tokens: int) -> str:
        """Return the prompt as JSON: a list of ids, or a text."""
        words = tokens if self._talk.api == "ids" else words_for(self._talk, tokens)
        return to_json(self._talk.api, self.bytes_of(prefix, prefix_tokens, content, words))

    def _of_node(self, node: int) -> bytes:
        parent = int(self._tree["parent"][node])
        head = self._prefix(parent) if parent >= 0 else b""
        return head + self._draw(_PREFIX, node, int(self._tree["tokens"][node]) - len(head))

    def _draw(self, kind: int, number: int, length: int) -> bytes:
        """Return the first *length* bytes of an endless text; longer draws begin with shorter ones."""
        return hashlib.shake_128(f"{self._salt} {kind} {number}".encode()).digest(max(0, length))


def words_for(talk: Talk, tokens: int) -> int:
    """Return how many words make a prompt of *tokens*, the template included."""
    return max(1, round((tokens - talk.overhead_tokens) / max(talk.tokens_per_word, 1e-6)))


def to_json(api: str, words: bytes) -> str:
    """Return *words*, one a byte, as JSON: a list of ids or a text of one-letter words."""
    if api == "ids":
        return f"[{','.join([_IDS[byte] for byte in words])}]"
    return f'"{" ".join(words.translate(_LETTERS).decode())}"'


def calibrated(talk: Talk, few: tuple[int, int], many: tuple[int, int]) -> Talk:
    """Return *talk* with what two probes say, each (words sent, prompt tokens counted)."""
    per_word = (many[1] - few[1]) / (many[0] - few[0])
    if per_word <= 0:
        return replace(talk, overhead_tokens=0.0, tokens_per_word=1.0)
    return replace(talk, overhead_tokens=few[1] - few[0] * per_word, tokens_per_word=per_word)


def body(talk: Talk, model: str, prompt: str, output_tokens: int) -> str:
    """Return the JSON of a streamed request whose *prompt* is JSON already."""
    asked = f'"prompt":{prompt}' if talk.api == "ids" else f'"messages":[{{"role":"user","content":{prompt}}}]'
    exact = f',"ignore_eos":true,"min_tokens":{output_tokens}' if talk.exact else ""
    usage = ',"stream_options":{"include_usage":true}' if talk.usage else ""
    return f'{{"model":{json.dumps(model)},{asked},"max_tokens":{output_tokens},"stream":true{usage}{exact}}}'


def real(talk: Talk, model: str, line: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return path and body of a streamed request that asks what *line* of a file of prompts says.

    Its answer ends by itself: one that were as long as a scenario says would be cut off, and be wrong.
    """
    own = {name: line[name] for name in SENT if name in line}
    usage = {"stream_options": {"include_usage": True}} if talk.usage else {}
    asked = {**own, "model": model, "max_tokens": most_tokens(talk, line), "stream": True, **usage}
    return "/v1/chat/completions" if "messages" in line else "/v1/completions", json.dumps(asked).encode()


def most_tokens(talk: Talk, line: Mapping[str, Any]) -> int:
    """Return how long the answer to *line* may be: what it says itself, else `ENOUGH_TOKENS` or half the context."""
    return int(line.get("max_tokens") or min(ENOUGH_TOKENS, talk.context // 2 or ENOUGH_TOKENS))


def path(talk: Talk) -> str:
    """Return where such a request is sent, behind the base of the endpoint."""
    return "/v1/completions" if talk.api == "ids" else "/v1/chat/completions"
