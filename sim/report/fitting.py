"""A calibration in a terminal: what was found and how sure it is, and predictions beside what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sim.calibrate.calibration import Calibration
from sim.calibrate.play import METRICS, Predicted
from sim.engine.profiles import RANGES
from sim.report import printing, words

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, eq=False)
class Found:
    """A calibration, and the runs held against it: those that it was *made* on, and others that *judge* it."""

    calibration: Calibration
    made: Sequence[Predicted]
    judges: Sequence[Predicted]

    @property
    def passed(self) -> bool | None:
        """Whether all that the judges measured is inside what was predicted; None without a judge."""
        return all(bool(one.inside.all()) for one in self.judges) if self.judges else None


def show(found: Found, commands: Sequence[tuple[str, str]], file: IO[str]) -> None:
    """Print what was *found*, and *commands* worth typing next."""
    from rich.text import Text

    profile = found.calibration.profile
    low, high = profile["scale"]["low"], profile["scale"]["high"]
    scale = f"All step times of another run: times {low:.3g} to {high:.3g} (95%)"
    blocks: list[tuple[str, list[RenderableType]]] = [
        ("", [Text(headline(found)), _numbers(profile), Text(scale), Text(trusted(profile))]),
        ("Played again, on the runs it was made on", [_errors(found.made)]),
        ("Predicted", [_errors(found.judges), *map(Text, [verdict(found), *too_wide(found)])] if found.judges else []),
        ("Assumptions", [Text(f"- {line}") for line in assumptions(found)]),
    ]
    printing.show(blocks, commands, file)


def headline(found: Found) -> str:
    """Return in one sentence what was made of what."""
    profile = found.calibration.profile
    day = f", measured on {profile['measured']}" if "measured" in profile else ""
    source = profile["source"]
    return f"{source[0].upper()}{source[1:]}{day}."


def verdict(found: Found) -> str:
    """Return how many of what judges measured is inside what was predicted."""
    inside = sum(int(one.inside.sum()) for one in found.judges)
    counted = sum(len(METRICS) for _ in found.judges)
    if inside == counted:
        return f"All {counted} percentiles are inside their intervals."
    return f"{counted - inside} of {counted} percentiles are outside their intervals."


def too_wide(found: Found) -> list[str]:
    """Return a sentence for each promise of a judge of which its interval cannot tell whether it would be kept."""
    return [
        f"Too wide to plan with: {METRICS[k]} of {one.name} is predicted as {words.seconds(float(one.low[k]))} to "
        f"{words.seconds(float(one.high[k]))}, and {words.tick(bound)} is promised. Calibrate on more runs, up to "
        "its load."
        for one in found.judges
        for k, bound in one.too_wide
    ]


def trusted(profile: dict[str, Any]) -> str:
    """Return where the profile may be trusted."""
    parts = [f"{low:,} to {high:,} {RANGES[name]}" for name, (low, high) in profile["range"].items()]
    return f"To be trusted for {words.listing(parts)}; beyond, a simulation warns."


def assumptions(found: Found) -> list[str]:
    """Return what a reader should know before believing any of it."""
    said = [f"{one.name}: {text}" for one in found.judges for text in one.beyond]
    return [*found.calibration.notes, *said]


def as_json(found: Found) -> dict[str, Any]:
    """Return everything that `show` prints, for programs."""
    return {
        "profile": found.calibration.profile,
        "paces": {one.name: pace for one, pace in zip(found.calibration.runs, found.calibration.paces)},
        "played_again": [_predicted(one) for one in found.made],
        "predicted": [_predicted(one) for one in found.judges],
        "assumptions": assumptions(found),
        "passed": found.passed,
        "too_wide": too_wide(found),
    }


def _predicted(one: Predicted) -> dict[str, Any]:
    columns = (one.measured, one.predicted, one.errors, one.low, one.high, one.inside)
    names = ("measured_s", "predicted_s", "error", "low_s", "high_s", "inside")
    rows = {
        metric: {name: bool(x) if name == "inside" else float(x) for name, x in zip(names, values)}
        for metric, *values in zip(METRICS, *columns)
    }
    return {"run": one.name, "percentiles": rows, "beyond": list(one.beyond)}


def _numbers(profile: dict[str, Any]) -> "RenderableType":
    """Return the profile's numbers with their intervals."""
    made: list[list[str]] = []
    ends = profile["intervals"]

    def add(name: str, value: float, interval: Sequence[float] | None, unit: float = 1e3, what: str = "ms") -> None:
        between = f"{interval[0] * unit:.3g} to {interval[1] * unit:.3g}" if interval else ""
        made.append([name, f"{value * unit:.3g} {what}".rstrip(), between])

    if "grid" in profile:
        add("factor on the grid", profile["factor"], ends.get("factor"), 1.0, "")
    else:
        base_s = profile["base_s"] + profile["overhead_s"]
        for n, more_s in profile["decode_s"].items():
            if f"step_s.{n}" in ends:
                add(f"step of {n} decoding sequence{'s' * (n != '1')}", base_s + more_s, ends[f"step_s.{n}"])
        add("more for each prompt token", profile["prefill_s"]["1"], ends["prefill_s.1"])
        add("of each step, between model and model", profile["overhead_s"], None)
    for name, what in (("ingress_s", "way to the engine"), ("egress_s", "way back to the client")):
        if name in profile:
            add(what, profile[name], ends.get(name))
    if "noise" in profile:
        noise = profile["noise"]
        add("noise from step to step (sigma)", noise["sigma"], None, 1.0, "")
        add(f"noise of stretches of {noise['slow_period_s']:g} s (sigma)", noise["slow_sigma"], None, 1.0, "")
    return printing.table(("", "value", "95%"), made)


def _errors(some: Sequence[Predicted]) -> "RenderableType":
    """Return predictions beside measurements, a row a percentile."""
    made = []
    for one in some:
        for k, metric in enumerate(METRICS):
            if not np.isfinite(one.measured[k]):
                continue
            made.append([
                f"{one.name} {metric}",
                words.seconds(float(one.measured[k])),
                words.seconds(float(one.predicted[k])),
                f"{100 * one.errors[k]:+.1f}%",
                f"{words.seconds(float(one.low[k]))} to {words.seconds(float(one.high[k]))}",
                "" if one.inside[k] else "outside",
            ])  # fmt: skip
    return printing.table(("run and percentile", "measured", "predicted", "error", "95% interval", ""), made)
