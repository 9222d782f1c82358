"""Lengths of real traffic: distributions fitted to public traces, by name, with their source.

Neither trace is lognormal (Kolmogorov-Smirnov distance 0.07 to 0.21: templates make spikes and shoulders),
so each fit is 41 points of the measured distribution, straight in between; every one lies within 0.005 of
the trace, and its mean within 0.5%. Prompt and answer are drawn independently: their rank correlation is
0.073 in the Azure trace and 0.072 in Mooncake's, significant but of no consequence for an engine.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim.workload.lengths import Table

KNOTS = 41
_TAIL = (0.99, 0.995, 0.999, 0.9995)


@dataclass(frozen=True)
class Fit:
    """A fitted distribution of tokens: *share* of *requests* had at most *tokens*."""

    source: str
    requests: int
    share: tuple[float, ...]
    tokens: tuple[int, ...]

    def table(self) -> Table:
        """Return the distribution to draw from."""
        return Table(self.share, self.tokens)


def fit(values: np.ndarray, knots: int = KNOTS) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return the *knots* points (share, tokens) between which straight lines follow the distribution of *values* best.

    Starting with both ends and the far tail, the point that lies farthest from the line is added until
    there are enough (Ramer, Douglas and Peucker's idea, applied to a cumulative distribution).
    """
    tokens, counts = np.unique(values, return_counts=True)
    tokens = np.concatenate([[tokens[0] - 1], tokens])
    share = np.concatenate([[0.0], np.round(np.cumsum(counts) / len(values), 6)])
    kept = {0, len(tokens) - 1} | {int(np.searchsorted(share, tail)) for tail in _TAIL}
    while len(kept) < min(knots, len(tokens)):
        at = np.array(sorted(kept))
        kept.add(int(np.abs(np.interp(tokens, tokens[at], share[at]) - share).argmax()))
    at = np.array(sorted(kept))
    return tuple(share[at].tolist()), tuple(tokens[at].tolist())


_AZURE = (
    "Azure Public Dataset, AzureLLMInferenceTrace_conv (2023), CC-BY 4.0; Patel et al., 'Splitwise: Efficient "
    "generative LLM inference using phase splitting', ISCA 2024"
)
_MOONCAKE = (
    "Mooncake FAST'25 release, conversation_trace, Apache-2.0; Qin et al., 'Mooncake: Trading more storage for less "
    "computation', FAST 2025"
)
_SOURCES = {
    "azure-conv-prompt": (_AZURE, 19_366),
    "azure-conv-output": (_AZURE, 19_366),
    "mooncake-conv-prompt": (_MOONCAKE, 12_031),
    "mooncake-conv-output": (_MOONCAKE, 12_031),
}


def _read() -> dict[str, Fit]:
    points: dict[str, list[tuple[float, int]]] = {name: [] for name in _SOURCES}
    with Path(__file__).with_name("fits.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            points[row["name"]].append((float(row["share"]), int(row["tokens"])))
    return {
        name: Fit(*_SOURCES[name], share=tuple(p[0] for p in found), tokens=tuple(p[1] for p in found))
        for name, found in points.items()
    }


FITS = _read()
"""Every distribution that ships, by the name that a scenario gives it (``{named: azure-conv-prompt}``)."""
