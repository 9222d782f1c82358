"""One factor on a tabulated grid, so that the engine takes as long for measured requests as they took.

Where nothing but clients' latencies is known, the shape of step times must come from elsewhere: from the grid of the
same model on the hardware whose balance of arithmetic and memory bandwidth is nearest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from sim.calibrate.fit import DRAWS
from sim.calibrate.play import most_at_once, play
from sim.calibrate.runs import Measured
from sim.calibrate.steplog import Floats, Ints
from sim.engine.hardware import nearest
from sim.engine.latency import GridKey, grids
from sim.engine.models import catalogue
from sim.engine.physics import find_hardware
from sim.engine.profiles import Profile
from sim.errors import InputError

FACTORS = (0.02, 50.0)
AROUND = np.geomspace(0.6, 1.6, 9)
"""Factors around the one found at which runs are played again, to find it anew in stretches of time drawn anew."""
BLOCKS = 20
FEWEST_BLOCKS = 5
TOLD = 0.1
"""Share of the time to the first token, below which what is left of it is more likely an error than a way."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """The *factor* on the grid of *key*, its 95% *interval*, and of each run what it alone would have said over it.

    *within*: the standard error of its logarithm. *way*: what is left of the time to the first token, with its
    interval, where it is more than nothing. *most*: requests that were inside at once, of one replica.
    """

    key: GridKey
    factor: float
    interval: tuple[float, float]
    paces: list[float]
    within: float
    way: tuple[float, float, float] | None
    most: int
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Times:
    """What a run took, and what it takes by the grid at any factor: per request, from *begin* (0: sending) to its end.

    *begin* is the first token where a constant way between client and engine should not count.
    """

    run: Measured
    key: GridKey
    from_first: bool

    @property
    def measured(self) -> Floats:
        return self.run.e2e_s - (self.run.ttft_s if self.from_first else 0.0)

    def played(self, factor: float) -> Floats:
        ttft_s, e2e_s = _played(self.run, self.key, factor)
        return e2e_s - (ttft_s if self.from_first else 0.0)


def _played(one: Measured, key: GridKey, factor: float) -> tuple[Floats, Floats]:
    profile = Profile("", grid=key, factor=factor)
    return play(one, profile.steps(one.config.max_seqs, one.config.max_tokens))


def scale_grid(runs: Sequence[Measured], hardware: str | None, rng: np.random.Generator) -> Scaling:
    """Return the factor at which the mean time of all requests of *runs* is as measured.

    First between the first token and the last, on which the way between client and engine has no part; if then
    requests began later than the engine says, by more than chance, that is the way. Else of the whole time.

    Raises:
        InputError: no model or grid, or no factor does it.
    """
    key, notes = grid_for(runs, hardware)
    way = None
    if all(one.has_ttft for one in runs):
        first = [_Times(one, key, True) for one in runs]
        factor = _factor(first)
        way = _way(runs, key, factor, rng)
    times = [_Times(one, key, way is not None) for one in runs]
    factor = _factor(times)
    notes += [] if way else ["the way between client and engine cannot be told from these rows: it is in the factor"]
    drawn = _drawn(times, factor, rng)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Scaling(
        key=key,
        factor=factor,
        interval=(float(low), float(high)),
        paces=[_factor([one]) / factor for one in times] if len(times) > 1 else [1.0],
        within=float(np.log(drawn).std()),
        way=way,
        most=max(_at_once(one) for one in runs),
        notes=tuple(notes),
    )


def grid_for(runs: Sequence[Measured], hardware: str | None) -> tuple[GridKey, list[str]]:
    """Return which tabulated grid to scale for *runs*, and what a reader should know of that.

    Raises:
        InputError: the scenario names no model or no hardware.
    """
    spec = runs[0].spec
    device = find_hardware(hardware) if hardware else spec.hardware
    if spec.model is None or device is None:
        missing = "model" if spec.model is None else "hardware"
        hint = "" if spec.model is None else ", or --hardware with the nearest that `blowout hardware` lists"
        raise InputError(
            f"{runs[0].name}: its scenario names no {missing}, so no tabulated step times can be scaled; expected "
            f"fleet.{missing} in it{hint}, or the engine's own log with --step-log"
        )
    sizes = spec.model.sizes
    name = next((name for name, other in catalogue().items() if other.sizes == sizes), spec.model.name)
    key = GridKey(name, device.name, spec.tensor_parallel, spec.backend)
    if key in grids():
        return key, []
    near = nearest(key, spec.model, device)
    return near, [f"no step times are tabulated for {key}: those of {near}, the nearest, are scaled"]


def _factor(times: Sequence[_Times]) -> float:
    """Return the factor at which the mean of all *times* is as measured."""
    goal_s = math.fsum(float(one.measured.sum()) for one in times)

    def too_long(factor: float) -> float:
        return math.log(max(1e-9, math.fsum(float(np.nansum(one.played(factor))) for one in times)) / goal_s)

    low, high = FACTORS
    if too_long(low) > 0 or too_long(high) < 0:
        raise InputError(
            f"{times[0].run.name}: no factor from {low:g} to {high:g} makes the engine as slow as it was measured; "
            "expected a run whose scenario describes the service that was measured"
        )
    return float(brentq(too_long, low, high, xtol=1e-4, rtol=1e-4))


def _drawn(times: Sequence[_Times], factor: float, rng: np.random.Generator) -> Floats:
    """Return the factor found anew on stretches of time drawn anew, `DRAWS` times."""
    around = AROUND * factor
    goals, sums = [], []
    for one in times:
        block = _blocks(one.run)
        goals.append(np.bincount(block, one.measured))
        sums.append(np.stack([np.bincount(block, np.nan_to_num(one.played(f))) for f in around]))
    goal, played = np.concatenate(goals), np.concatenate(sums, axis=1)
    found = []
    for _ in range(DRAWS):
        pick = rng.integers(0, len(goal), len(goal))
        off = np.log(np.maximum(played[:, pick].sum(axis=1), 1e-9) / goal[pick].sum())
        found.append(np.interp(0.0, np.maximum.accumulate(off), np.log(around)))
    drawn: Floats = np.exp(np.array(found))
    return drawn


def _way(
    runs: Sequence[Measured], key: GridKey, factor: float, rng: np.random.Generator
) -> tuple[float, float, float] | None:
    """Return how much later than the engine says first tokens came, with its 95% interval; None if it is not told.

    It may be 0, or is so small a part of them (they queued, then) that it may as well be the engine's.
    """
    rests, weights = [], []
    for one in runs:
        late_s = one.ttft_s - _played(one, key, factor)[0]
        known = np.isfinite(late_s)
        block = _blocks(one)
        weights.append(np.bincount(block, known))
        rests.append(np.bincount(block, np.where(known, late_s, 0.0)))
    rest, weight = np.concatenate(rests), np.concatenate(weights)
    picks = rng.integers(0, len(rest), (DRAWS, len(rest)))
    low, high = np.quantile(rest[picks].sum(axis=1) / np.maximum(weight[picks].sum(axis=1), 1), [0.025, 0.975])
    mean = float(rest.sum() / weight.sum())
    if low <= 0 or mean < TOLD * float(np.mean([np.nanmean(one.ttft_s) for one in runs])):
        return None
    return mean, float(low), float(high)


def _blocks(one: Measured) -> Ints:
    """Return in which of `BLOCKS` equal stretches of its time each request was sent."""
    at = ((one.sent_s - one.sent_s[0]) / max(float(np.ptp(one.sent_s)), 1e-9) * BLOCKS).astype(int)
    blocks: Ints = np.unique(np.minimum(at, BLOCKS - 1), return_inverse=True)[1]
    if blocks.max() + 1 < FEWEST_BLOCKS:
        raise InputError(
            f"{one.name}: its requests were sent in so few stretches of time that nothing can be said of how sure a "
            f"factor is; expected them over at least {FEWEST_BLOCKS} of {BLOCKS} equal ones"
        )
    return blocks


def _at_once(one: Measured) -> int:
    """Return the most requests that were in flight at once, for one replica, and no more than it has seats."""
    most = most_at_once(one.sent_s, one.sent_s + one.e2e_s)
    return min(math.ceil(most / one.config.replicas), one.config.max_seqs)


__all__ = ["Scaling", "grid_for", "scale_grid"]
