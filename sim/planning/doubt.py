"""How wrong step times may be: the interval of one factor on them, and the factors that the runs are played with.

Luck of users is drawn by the seed; what we do not know of the machine is drawn here. Run i of n gets the middle of
one of n equally likely slices, slowest and fastest first, so that a few runs already see both ends.
"""

import math
from dataclasses import dataclass

from sim.engine.hardware import resolve
from sim.scenario import Scenario

UNMEASURED = (1 / 1.15, 1.15)
"""95% interval of the factor where nobody measured: tabulated kernel times of one model and GPU differ by 10 to 15%
from source to source (aiconfigurator-core 0.12.0 against the profiles of Vidur), and hold no time of the host."""
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Doubt:
    """The 95% interval of the factor on the step times of each pool, and in words where it comes from."""

    intervals: dict[str, tuple[float, float]]
    said: tuple[str, ...]

    def factors(self, i: int, n: int, enough: int) -> dict[str, float]:
        """Return the factor of every pool in run *i* of *n*; pools are slow together, which is the worse case.

        Runs after the first *n* are *enough* - n, with slices of their own: they are played where order decides, and
        what a few slices never reach would otherwise count as never happening.
        """
        from scipy import special

        if i >= n:
            i, n = i - n, enough - n
        k = n - 1 - i // 2 if i % 2 == 0 else i // 2
        z = float(special.ndtri((k + 0.5) / n)) if n > 1 else 0.0
        return {name: _between(low, high, z) for name, (low, high) in self.intervals.items()}


def _between(low: float, high: float, z: float) -> float:
    """Return the factor at *z* standard deviations: lognormal on each side of 1."""
    side = high if z > 0 else 1 / low
    return math.exp(math.log(side) / Z95 * z)


def of(scenario: Scenario, said: float | None = None) -> Doubt:
    """Return what there is to doubt in the step times of *scenario*; *said* is the user's own, as 0.15 for 15%.

    A measured profile brings its own interval; times that the scenario states are taken at its word.
    """
    intervals: dict[str, tuple[float, float]] = {}
    words: list[str] = []
    for name, pool in scenario.fleet.pools.items():
        spec = resolve(pool, where=f"fleet.pools.{name}")
        measured = spec.profile.scale if spec.profile else None
        if said is not None:
            intervals[name] = (1 / (1 + said), 1 + said)
            why = "as --model-error says"
        elif measured is not None:
            intervals[name] = measured
            why = "as its profile was measured"
        elif spec.calibrated:
            intervals[name] = (1.0, 1.0)
            why = "taken as the scenario states them"
        else:
            intervals[name] = UNMEASURED
            why = "nobody measured them: calibrate, or say --model-error"
        low, high = intervals[name]
        words.append(f"step times of {name}: {_percent(low)} to {_percent(high)} (95%), {why}")
    return Doubt(intervals, tuple(words))


def _percent(factor: float) -> str:
    return f"{100 * (factor - 1):+.0f}%"
