"""Step times out of measured runs, as a profile: how sure each number is, and where it may be trusted."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim.calibrate import factor, fit
from sim.calibrate.runs import Measured
from sim.calibrate.scale import WAY_SD, scale_interval
from sim.calibrate.steplog import Ints, StepLog, together
from sim.engine.profiles import PROFILE_FORMAT
from sim.rng import stream

SEED = 1
"""Of the draws for intervals: the same runs give the same profile."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What measured runs tell of step times: the *profile* as its file holds it, and what it rests on.

    *paces*: how slow the host was in each run, over the fit of all of them. *log* and *fitted* are there where step
    logs were, *scaling* where only clients' rows were.
    """

    profile: dict[str, Any]
    runs: Sequence[Measured]
    paces: Sequence[float]
    log: StepLog | None = None
    fitted: fit.Fit | None = None
    scaling: factor.Scaling | None = None
    notes: Sequence[str] = field(default=())


def calibrate(runs: Sequence[Measured], hardware: str | None = None) -> Calibration:
    """Return what *runs* tell: a full step model where each has a step log, else one factor on a tabulated grid.

    *hardware*: whose grid, where the scenario's own has none.

    Raises:
        InputError: they cannot tell.
    """
    return _of_logs(runs) if all(one.log is not None for one in runs) else _of_rows(runs, hardware)


def _of_logs(runs: Sequence[Measured]) -> Calibration:
    logs = [one.log for one in runs if one.log is not None]
    log = together(logs)
    fit.require_variety(log, ", ".join(dict.fromkeys(one.log_name for one in runs)))
    found = fit.fit_steps(log, max(one.config.max_seqs for one in runs), max(one.config.max_tokens for one in runs))
    rng = stream(SEED, "bootstrap")
    paces = [float(one.took_s.sum() / fit.work_of(one, found.steps).sum()) for one in logs]
    scale = scale_interval(paces, fit.bootstrap_pace(log, found.work_s, rng))
    intervals = fit.bootstrap_steps(log, found, rng)
    ways, notes = _ways(runs)
    intervals |= {name: ends for name, (_, *ends) in ways.items()}  # type: ignore[misc]
    batch = _met_often(log.decoding[log.decoding > 0], fit.ENOUGH)
    prompt = _met_often(log.prompt[log.prompt > 0], fit.ENOUGH // 4)
    profile = {
        **_head(runs, f"{len(log):,} engine steps of {_runs(runs)}"),
        **_tables(found, log, batch[1]),
        **{name: round(way[0], 6) for name, way in ways.items()},
        "noise": {
            "sigma": round(found.fast, 4), "slow_sigma": round(found.slow, 4),
            "slow_period_s": round(fit.stretch_s(log, found), 1),
        },
        "range": {"sequences": batch, "prompt_tokens": prompt, "context": _context(runs)},
        **_ends(scale, intervals),
    }  # fmt: skip
    return Calibration(profile, runs, paces, log, found, notes=[*_notes(runs), *notes])


def _of_rows(runs: Sequence[Measured], hardware: str | None) -> Calibration:
    found = factor.scale_grid(runs, hardware, stream(SEED, "bootstrap"))
    scale = scale_interval(found.paces, found.within)
    intervals = {"factor": found.interval} | ({"egress_s": _way_ends(*found.way)} if found.way else {})
    asks = np.concatenate([one.asks for one in runs])
    most = [min(int(asks["prompt_tokens"].max()), max(one.config.max_tokens for one in runs))]
    profile = {
        **_head(runs, f"one factor on the tabulated step times of {found.key}, by the latencies of {_runs(runs)}"),
        "grid": found.key._asdict(),
        "factor": round(found.factor, 4),
        **({"egress_s": round(found.way[0], 6)} if found.way else {}),
        "range": {"sequences": [1, found.most], "prompt_tokens": [1, *most], "context": _context(runs)},
        **_ends(scale, intervals),
    }
    return Calibration(profile, runs, found.paces, scaling=found, notes=[*_notes(runs), *found.notes])


def _head(runs: Sequence[Measured], source: str) -> dict[str, Any]:
    """Return how a profile begins: what it is, from which runs, and of what day."""
    days = [one.started for one in runs if one.started is not None]
    day = {"measured": time.strftime("%Y-%m-%d", time.gmtime(max(days)))} if days else {}
    rests = [
        {"run": one.name, "sha256": one.digest, "requests": len(one), "steps": len(one.log) if one.log else 0}
        for one in runs
    ]
    return {"format": PROFILE_FORMAT, "source": source, **day, "runs": rests}


def _tables(found: fit.Fit, log: StepLog, most: int) -> dict[str, Any]:
    """Return the step times of a fit as a profile has them; behind the last batch measured, one point straight on."""
    steps, between_s = found.steps, min(log.between_s, found.steps.base_s)
    seats = len(steps.decode_s) - 1
    counts = sorted({*(n for n in found.nodes.tolist() if 0 < n <= seats), min(most, seats), seats})
    return {
        "base_s": round(steps.base_s - between_s, 7),
        "overhead_s": round(between_s, 7),
        "decode_s": {str(n): round(float(steps.decode_s[n, 0]), 7) for n in counts},
        "prefill_s": {"1": round(float(steps.tokens_s[1]), 9)},
    }


def _ends(scale: tuple[float, float], intervals: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    return {
        "scale": {"low": round(scale[0], 4), "high": round(scale[1], 4)},
        "intervals": {name: [float(f"{end:.4g}") for end in ends] for name, ends in intervals.items()},
    }


def _ways(runs: Sequence[Measured]) -> tuple[dict[str, tuple[float, float, float]], list[str]]:
    """Return the mean ways to the engine and back, each with its 95% interval in another run; and what is not told."""
    ways = [way for one in runs if (way := one.transport()) is not None]
    if not ways:
        return {}, ["the logs do not show when requests reached the engine, so ingress and egress are left at 0"]
    there, back = (float(np.mean([getattr(way, name) for way in ways])) for name in ("ingress_s", "egress_s"))
    whole = max(there + back, 1e-6)
    error = float(np.mean([np.hypot(way.ingress_error_s, way.egress_error_s) for way in ways])) / whole
    low, high = scale_interval(
        [max(way.ingress_s + way.egress_s, 1e-6) / whole for way in ways], error / len(ways) ** 0.5, WAY_SD
    )
    return {name: (mean, mean * low, mean * high) for name, mean in (("ingress_s", there), ("egress_s", back))}, []


def _way_ends(mean: float, low: float, high: float) -> tuple[float, float]:
    """Return the 95% interval of a way in another run, of whose mean here *low* to *high* is known."""
    ends = scale_interval([1.0], np.log(high / low) / (2 * 1.96), WAY_SD)
    return mean * ends[0], mean * ends[1]


def _met_often(values: Ints, often: int) -> list[int]:
    """Return the least of *values*, and the most that was met or exceeded *often* enough to be trusted."""
    ordered = np.sort(values)
    return [int(ordered[0]), int(ordered[-min(often, len(ordered))])]


def _context(runs: Sequence[Measured]) -> list[int]:
    whole = np.concatenate([one.asks["prompt_tokens"] + one.asks["output_tokens"] for one in runs])
    return [int(whole.min()), int(whole.max())]


def _runs(runs: Sequence[Measured]) -> str:
    names = list(dict.fromkeys(one.name for one in runs))
    return f"{len(runs)} run{'s' * (len(runs) != 1)} ({', '.join(names[:4])}{', ...' * (len(names) > 4)})"


def _notes(runs: Sequence[Measured]) -> list[str]:
    notes = [note for one in runs for note in one.notes]
    if len(runs) == 1:
        notes.append(
            "one run says nothing of how hosts differ from run to run: the scale is as wide as runs of one "
            "configuration differed on a shared machine (5%); calibrate on several to learn your own"
        )
    if all(one.started is None for one in runs):
        notes.append("when it was measured is not known")
    return notes
