"""How long a step takes: tables in seconds, made from a tabulated grid, a linear fit or a profile.

A step computes p prompt tokens (in chunks, each after some context) and one token for each of n decoding
sequences. All engines share three facts, and `StepTimes` is made of them:

* weights are read once a step, whatever the batch: ``base_s``;
* what decoding adds depends on how many sequences there are and how much context each reads: ``decode_s``;
* what prompt tokens add is work per token, hidden at first under the reading of weights (``tokens_s``, convex at
  its foot, then a straight line), and attention, which grows with token x token pairs (``prefill_ctx_s``).

The grids are kernel estimates of aiconfigurator-core 0.12.0 (see `data/decode_ms.csv`): no host overhead.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np

from sim.engine.models import DATA, rows_of

SOURCE = "kernel estimates of aiconfigurator-core 0.12.0"
FAR = 131_072.0
"""Last context edge of a grid: beyond its last tabulated context, times go on in a straight line up to here, and on."""
LONG = 1024
"""Prompts at least this long tell the attention coefficient; shorter ones hide it under the reading of weights."""


@dataclass(frozen=True, eq=False)
class StepTimes:
    """How long a step takes, in seconds; calibration factor applied, host overhead in the base.

    Non-decreasing in sequences, context and prompt tokens. ``decode_s`` has shape (max_num_seqs + 1,
    len(ctx_edges)): what n sequences with a mean context of ``ctx_edges[j]`` tokens add; row 0 is 0.
    ``tokens_s`` has shape (max_num_batched_tokens + 1,): what p prompt tokens add without their attention.
    ``prefill_ctx_s``: for each pair of a prompt token and a token that it attends to. ``notes``: what a
    reader of the results should know.
    """

    base_s: float
    decode_s: np.ndarray
    ctx_edges: np.ndarray
    tokens_s: np.ndarray
    prefill_ctx_s: float = 0.0
    notes: tuple[str, ...] = field(default=())

    @property
    def prefill_s(self) -> np.ndarray:
        """What one prompt of p tokens, computed whole, adds: shape (max_num_batched_tokens + 1,), seconds."""
        tokens = np.arange(len(self.tokens_s))
        return self.tokens_s + self.prefill_ctx_s * 0.5 * tokens * tokens

    def step_s(self, sequences: int = 0, context: float = 0.0, chunks: Sequence[tuple[int, int]] = ()) -> float:
        """Return the seconds of one step, as the compiled engine computes them (the reference for its tests).

        *sequences* decode with a mean of *context* tokens; *chunks* are (prompt tokens, context before them).
        Beside n decoding tokens, p prompt tokens cost what the tokens from n to n + p do, because a batch that
        keeps the GPU busy hides nothing more under the reading of weights; and never less than they cost alone.
        """
        prompt = sum(chunk for chunk, _ in chunks)
        pairs = sum(chunk * (offset + 0.5 * chunk) for chunk, offset in chunks)
        last = len(self.tokens_s) - 1
        beside = self.tokens_s[min(sequences + prompt, last)] - self.tokens_s[min(sequences, last)]
        work = max(self.tokens_s[prompt], beside)
        return float(self.base_s + self.decode(sequences, context) + work + self.prefill_ctx_s * pairs)

    def decode(self, sequences: int, context: float) -> float:
        """Return what *sequences* that decode with a mean of *context* tokens add, seconds."""
        edges, row = self.ctx_edges, self.decode_s[sequences]
        j = int(np.clip(np.searchsorted(edges, context, side="right") - 1, 0, len(edges) - 2))
        slope = (row[j + 1] - row[j]) / (edges[j + 1] - edges[j])
        return float(max(0.0, row[j] + slope * (context - edges[j])))

    def alone(self, longest: int) -> np.ndarray:
        """Return the seconds in which one sequence alone decodes up to each context length: (*longest* + 1,)."""
        context = np.arange(1, longest + 1, dtype=float)
        edges, times = self.ctx_edges, self.decode_s[1]
        cell = np.clip(np.searchsorted(edges, context, side="right") - 1, 0, len(edges) - 2)
        slope = np.diff(times) / np.diff(edges)
        decode = np.maximum(0.0, times[cell] + slope[cell] * (context - edges[cell]))
        return np.concatenate([[0.0], np.cumsum(self.base_s + decode)])


class GridKey(NamedTuple):
    """What a tabulated grid of step times was made for."""

    model: str
    hardware: str
    tensor_parallel: int
    backend: str

    def __str__(self) -> str:
        return f"{self.model} on {self.hardware} with tensor_parallel {self.tensor_parallel} ({self.backend})"


@dataclass(frozen=True, eq=False)
class Grid:
    """Tabulated step times, seconds; ``decode_s`` has shape (sequences, contexts), nan where nothing is tabulated."""

    key: GridKey
    sequences: np.ndarray
    contexts: np.ndarray
    decode_s: np.ndarray
    prompts: np.ndarray
    prefill_s: np.ndarray


@cache
def grids() -> dict[GridKey, Grid]:
    """Return all shipped grids, by what they were made for, in the order of the files."""
    decode: dict[GridKey, list[list[float]]] = {}
    for row in rows_of(DATA / "decode_ms.csv"):
        *key, sequences = list(row.values())[:5]
        times = [float(ms or "nan") * 1e-3 for ms in list(row.values())[5:]]
        decode.setdefault(_key(key), []).append([float(sequences), *times])
    contexts = _columns("decode_ms.csv", 5)
    prompts = _columns("prefill_ms.csv", 4)
    found = {}
    for row in rows_of(DATA / "prefill_ms.csv"):
        key_ = _key(list(row.values())[:4])
        table = np.array(decode[key_])
        prefill = np.array([float(ms) * 1e-3 for ms in list(row.values())[4:]])
        found[key_] = Grid(key_, table[:, 0], contexts, table[:, 1:], prompts, prefill)
    return found


def _key(values: Sequence[str]) -> GridKey:
    return GridKey(values[0], values[1], int(values[2]), values[3])


def _columns(name: str, skip: int) -> np.ndarray:
    lines = (line for line in (DATA / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return np.array([float(text) for text in next(csv.reader(lines))[skip:]])


# --- from a grid ------------------------------------------------------------------------------------------------------


def from_grid(
    grid: Grid,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    factor: float = 1.0,
    overhead_s: float = 0.0,
    attention_floor_s: float = 0.0,
    context_floor_s: float = 0.0,
) -> StepTimes:
    """Return the step times of *grid* for any batch: straight lines between its points and beyond its ends.

    Cells that are not tabulated (large batch and long context) continue the last cell of their row; contexts
    below the first column too. Estimates are noisy where they are flat, so the table is made non-decreasing
    in both directions. Attention is a quadratic in the prompt's length, fitted to the prompts of at least
    `LONG` tokens. Beyond the grid nothing gets faster than hardware can be: a pair of tokens takes at least
    *attention_floor_s* in a prompt, a token of context at least *context_floor_s* for each decoding sequence.
    """
    edges = np.concatenate([[0.0], grid.contexts, [FAR]])
    table = non_decreasing(_extended(grid, context_floor_s))
    base = float(table[0, 0])
    counts = np.arange(1, max_num_seqs + 1)
    decode = np.zeros((max_num_seqs + 1, len(edges)))
    for j in range(len(edges)):
        decode[1:, j] = line(counts, grid.sequences, table[:, j] - base)
    pair_s = max(_attention_s(grid), attention_floor_s)
    alone = grid.prefill_s - base - 0.5 * pair_s * grid.prompts**2
    nodes = non_decreasing(np.concatenate([[0.0], np.maximum(alone, 0.0)])[None, :])[0]
    tokens = line(np.arange(max_num_batched_tokens + 1), np.concatenate([[0.0], grid.prompts]), nodes - nodes[0])
    notes = []
    if max_num_seqs > grid.sequences[-1]:
        notes.append(f"step times beyond {grid.sequences[-1]:.0f} sequences are extrapolated in a straight line")
    return StepTimes(base * factor + overhead_s, decode * factor, edges, tokens * factor, pair_s * factor, tuple(notes))


def _extended(grid: Grid, context_floor_s: float) -> np.ndarray:
    """Return the decode table with its gaps filled and a column at no context and at `FAR`, seconds."""
    contexts = grid.contexts
    columns = [grid.decode_s[:, j].copy() for j in range(len(contexts))]
    floor = grid.sequences * context_floor_s

    def beyond(j: int, context: float) -> np.ndarray:
        slope = (columns[j] - columns[j - 1]) / (contexts[j] - contexts[j - 1])
        return columns[j] + np.maximum(slope, floor) * (context - contexts[j])

    for j in range(2, len(columns)):
        columns[j] = np.where(np.isnan(columns[j]), beyond(j - 1, contexts[j]), columns[j])
    first = columns[0] - np.maximum(columns[1] - columns[0], 0.0) / (contexts[1] - contexts[0]) * contexts[0]
    return np.stack([first, *columns, beyond(len(columns) - 1, FAR)], axis=1)


def non_decreasing(table: np.ndarray) -> np.ndarray:
    """Return the mean of the lowest non-decreasing table above *table* and the highest one below it."""
    above = np.maximum.accumulate(np.maximum.accumulate(table, axis=0), axis=1)
    below = np.minimum.accumulate(np.minimum.accumulate(table[::-1, ::-1], axis=0), axis=1)[::-1, ::-1]
    return 0.5 * (above + below)


def line(at: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the broken line through (x, y) at *at*; beyond its end it goes on as it was."""
    slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
    return np.interp(at, x, y) + slope * np.maximum(at - x[-1], 0.0)


def _attention_s(grid: Grid) -> float:
    """Return the seconds a (token, attended token) pair takes: least squares of relative errors, never negative."""
    long = grid.prompts >= LONG
    p, times = grid.prompts[long], grid.prefill_s[long]
    terms = np.stack([np.ones_like(p), p, 0.5 * p * p], axis=1) / times[:, None]
    scale = np.linalg.norm(terms, axis=0)
    fitted = np.linalg.lstsq(terms / scale, np.ones_like(p), rcond=None)[0] / scale
    return max(0.0, float(fitted[2]))


# --- from a fit -------------------------------------------------------------------------------------------------------


def linear(
    max_num_seqs: int,
    max_num_batched_tokens: int,
    base_s: float,
    per_prefill_token_s: float = 0.0,
    per_sequence_s: float = 0.0,
    per_context_token_s: float = 0.0,
    factor: float = 1.0,
    overhead_s: float = 0.0,
) -> StepTimes:
    """Return the step times of a linear fit: base + prompt tokens + sequences + tokens of context they read."""
    edges = np.array([0.0, FAR])
    counts = np.arange(max_num_seqs + 1)
    decode = counts[:, None] * (per_sequence_s + per_context_token_s * edges[None, :])
    tokens = np.arange(max_num_batched_tokens + 1) * per_prefill_token_s
    return StepTimes(base_s * factor + overhead_s, decode * factor, edges, tokens * factor)
