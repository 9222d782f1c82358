"""Measured step times as a file: what `blowout calibrate` writes and a pool's ``step_time: {profile: FILE}`` reads.

A profile holds tables of its own, or one factor on a tabulated grid; and beside them where it comes from, how far it
may be trusted, and how wrong all of it may be together.
"""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from sim.engine.latency import FAR, GridKey, StepTimes, from_grid, grids, line, non_decreasing
from sim.engine.models import catalogue
from sim.engine.physics import attention_floor_s, context_floor_s, devices
from sim.errors import HardwareError

PROFILE_FORMAT = "blowout-step-profile/1"
PROFILE_FIELDS = {
    "format": PROFILE_FORMAT,
    "source": "what was measured, in words",
    "base_s": "seconds of a step that does nothing else",
    "decode_s": "seconds that so many decoding sequences add, such as {'1': 0.002, '8': 0.006}",
    "prefill_s": "seconds that so many prompt tokens add, such as {'1': 0.0005} (a slope) or a table",
    "context_s": "seconds for each token of context that decoding sequences read [0]",
    "prefill_ctx_s": "seconds for each pair of a prompt token and a token it attends to [0]",
    "overhead_s": "seconds of host time between steps [0]",
    "grid": "in place of the four tables: the tabulated grid {model, hardware, tensor_parallel, backend}",
    "factor": "one factor on all times of the grid, above 0 [1]",
    "ingress_s": "seconds between a client and the engine [0]",
    "egress_s": "seconds between the engine and a client [0]",
    "noise": "standard deviations of the logarithm of step times, {sigma, slow_sigma, slow_period_s} [none]",
    "measured": "the day of the measurement, such as '2026-03-14'",
    "runs": "a list of the runs that it rests on",
    "range": "the least and the most that was measured, {sequences: [1, 24], prompt_tokens: ..., context: ...}",
    "scale": "the 95% interval of one factor on all step times, {low: 0.9, high: 1.1}",
    "intervals": "the 95% intervals of the numbers above by name, {ingress_s: [0.002, 0.009]}",
}
"""The keys of a profile file, and what each means. Tables are straight lines through (0, 0) and their points."""
TABLES = ("base_s", "decode_s", "prefill_s")
RANGES = {
    "sequences": "sequences in a batch",
    "prompt_tokens": "prompt tokens in a step",
    "context": "tokens of prompt and answer together",
}
"""What a range may bound, in words."""
NOISE = ("sigma", "slow_sigma", "slow_period_s")

Table = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Profile:
    """Measured step times: see `PROFILE_FIELDS`; tables are (points, seconds) beginning at (0, 0).

    *grid* stands in place of the tables, with one *factor*. *noise* is (sigma, slow sigma, slow period in seconds),
    *range* the least and the most of what `RANGES` names, *scale* the 95% interval of one factor on everything,
    *intervals* those of single numbers by name.
    """

    source: str
    base_s: float = 0.0
    decode: Table = ((0.0,), (0.0,))
    prefill: Table = ((0.0,), (0.0,))
    context_s: float = 0.0
    prefill_ctx_s: float = 0.0
    overhead_s: float = 0.0
    grid: GridKey | None = None
    factor: float = 1.0
    ingress_s: float = 0.0
    egress_s: float = 0.0
    noise: tuple[float, float, float] | None = None
    measured: date | None = None
    range: dict[str, tuple[float, float]] | None = None
    scale: tuple[float, float] | None = None
    intervals: dict[str, tuple[float, float]] | None = None

    def steps(
        self, max_num_seqs: int, max_num_batched_tokens: int, factor: float = 1.0, overhead_s: float = 0.0
    ) -> StepTimes:
        """Return these times for any batch; *factor* scales all but the overheads, in seconds."""
        overhead_s += self.overhead_s
        if self.grid is not None:
            model, gpu, tp = catalogue()[self.grid.model], devices()[self.grid.hardware], self.grid.tensor_parallel
            floors = attention_floor_s(model, gpu, tp), context_floor_s(model, gpu, tp)
            limits = max_num_seqs, max_num_batched_tokens
            return from_grid(grids()[self.grid], *limits, self.factor * factor, overhead_s, *floors)
        edges = np.array([0.0, FAR])
        counts, prompt = np.arange(max_num_seqs + 1), np.arange(max_num_batched_tokens + 1)
        x, y = np.array(self.prefill[0]), np.array(self.prefill[1])
        alone = y - 0.5 * self.prefill_ctx_s * x * x  # measured on whole prompts, with their own attention
        tokens = line(prompt, x, non_decreasing(np.maximum(alone, 0.0)[None, :])[0])
        smooth = non_decreasing(np.array(self.decode[1])[None, :])[0]
        decode = line(counts, np.array(self.decode[0]), smooth)
        decode = decode[:, None] + self.context_s * counts[:, None] * edges[None, :]
        notes = tuple(
            f"measured step times end at {points[-1]:.0f} {name} and are extrapolated beyond"
            for name, points, most in (
                ("sequences", self.decode[0], max_num_seqs),
                ("prompt tokens", self.prefill[0], max_num_batched_tokens),
            )
            if len(points) > 2 and most > points[-1] and self.range is None  # else it is said of what was really met
        )
        base = self.base_s * factor + overhead_s
        return StepTimes(base, decode * factor, edges, tokens * factor, self.prefill_ctx_s * factor, notes)

    def beyond(self, met: dict[str, float]) -> list[str]:
        """Return a sentence for each number in *met* (the most of what `RANGES` names) that was never measured."""
        said = []
        for name, what in RANGES.items():
            high = (self.range or {}).get(name, (0.0, float("inf")))[1]
            if (most := met.get(name, 0.0)) > high:
                said.append(
                    f"outside the profile: {most:,.0f} {what}, and it was measured up to {high:,.0f} "
                    f"({100 * (most / max(high, 1.0) - 1):.0f}% beyond): times there are extrapolated"
                )
        return said


def read_profile(path: Path) -> Profile:
    """Return the measured step times in the JSON file at *path*; its keys are those of `PROFILE_FIELDS`.

    Raises:
        HardwareError: not JSON, a key missing, unknown or of the wrong kind.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HardwareError(f"{path}: expected a step profile in JSON, but it cannot be read ({error})") from None
    return parse_profile(path, data)


def parse_profile(path: Path, data: Any) -> Profile:
    """Return the step times in *data*, the JSON at *path*.

    Raises:
        HardwareError: a key is missing, unknown or of the wrong kind.
    """
    if not isinstance(data, dict) or data.get("format") != PROFILE_FORMAT:
        raise HardwareError(f"{path}: expected a JSON object with format: {PROFILE_FORMAT}")
    for key in data:
        if key not in PROFILE_FIELDS:
            raise HardwareError(f"{path}: {key}: unknown; expected one of {', '.join(PROFILE_FIELDS)}")
    told: dict[str, Any] = {name: _seconds(path, data, name, 0.0) for name in ("overhead_s", "ingress_s", "egress_s")}
    times: dict[str, Any]
    if data.get("grid") is not None:
        if double := next((key for key in TABLES if key in data), None):
            raise HardwareError(f"{path}: {double}: a profile has tables of its own or a grid; take one away")
        times = {"grid": _grid(path, data["grid"]), "factor": _above_zero(path, data, "factor", 1.0)}
    else:
        times = {
            "base_s": _seconds(path, data, "base_s"),
            "decode": _table(path, data, "decode_s"),
            "prefill": _table(path, data, "prefill_s"),
            "context_s": _seconds(path, data, "context_s", 0.0),
            "prefill_ctx_s": _seconds(path, data, "prefill_ctx_s", 0.0),
        }
    source = str(data.get("source", path.name))
    return Profile(source=source, **times, **told, **_provenance(path, data))


def _provenance(path: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Return the noise of a profile, when it was measured, and how far it may be trusted."""
    found: dict[str, Any] = {}
    if (noise := data.get("noise")) is not None:
        if not (isinstance(noise, dict) and set(noise) == set(NOISE) and all(map(_is_number, noise.values()))):
            raise HardwareError(f"{path}: noise: expected {PROFILE_FIELDS['noise']}, got {noise!r}")
        _above_zero(path, noise, "slow_period_s", 1.0, "noise")
        found["noise"] = tuple(float(noise[name]) for name in NOISE)
    if (day := data.get("measured")) is not None:
        try:
            found["measured"] = date.fromisoformat(str(day))
        except ValueError:
            raise HardwareError(f"{path}: measured: expected {PROFILE_FIELDS['measured']}, got {day!r}") from None
    for key in ("range", "intervals"):
        if (bounds := data.get(key)) is not None:
            pairs = bounds.values() if isinstance(bounds, dict) else [None]
            if not all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) for pair in pairs):
                raise HardwareError(f"{path}: {key}: expected {PROFILE_FIELDS[key]}, got {bounds!r}")
            found[key] = {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
    if unknown := set(found.get("range", ())) - set(RANGES):
        raise HardwareError(f"{path}: range.{min(unknown)}: unknown; expected one of {', '.join(RANGES)}")
    if (scale := data.get("scale")) is not None:
        ends: list[Any] = [scale.get(name) for name in ("low", "high")] if isinstance(scale, dict) else []
        if not (len(ends) == 2 and all(map(_is_number, ends)) and 0 < ends[0] <= ends[1]):
            raise HardwareError(f"{path}: scale: expected {PROFILE_FIELDS['scale']}, got {scale!r}")
        found["scale"] = (float(ends[0]), float(ends[1]))
    return found


def _grid(path: Path, said: Any) -> GridKey:
    """Return the tabulated grid that a profile scales."""
    if not isinstance(said, dict) or set(said) != set(GridKey._fields):
        raise HardwareError(f"{path}: grid: expected {PROFILE_FIELDS['grid']}, got {said!r}")
    key = GridKey(**said)
    if key not in grids():
        raise HardwareError(f"{path}: grid: no step times are tabulated for {key}; `blowout hardware` lists them")
    return key


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value < float("inf")


def _above_zero(path: Path, data: dict[str, Any], key: str, default: float, inside: str = "") -> float:
    value = data.get(key, default)
    if not _is_number(value) or value <= 0:
        what = PROFILE_FIELDS[inside or key]
        raise HardwareError(f"{path}: {f'{inside}.' if inside else ''}{key}: expected {what}, got {value!r}")
    return float(value)


def _seconds(path: Path, data: dict[str, Any], key: str, default: float | None = None) -> float:
    value: Any = data.get(key, default)
    if not _is_number(value):
        got = "nothing" if value is None else repr(value)
        raise HardwareError(f"{path}: {key}: expected {PROFILE_FIELDS[key]}, not below 0, got {got}")
    return float(value)


def _table(path: Path, data: dict[str, Any], key: str) -> Table:
    table = data.get(key)
    if not isinstance(table, dict) or not table:
        raise HardwareError(f"{path}: {key}: expected {PROFILE_FIELDS[key]}, got {table!r}")
    points = {}
    for count, seconds in table.items():
        if not (count.isdecimal() and int(count) > 0 and _is_number(seconds)):
            raise HardwareError(f"{path}: {key}: expected {PROFILE_FIELDS[key]}, got {count!r}: {seconds!r}")
        points[int(count)] = float(seconds)
    counts = sorted(points)
    return (0.0, *map(float, counts)), (0.0, *(points[count] for count in counts))
