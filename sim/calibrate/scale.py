"""How wrong all step times may be together on another day: the interval of one factor on them.

Stretches within a run say little about that: the host of one run is not the host of the next. On a shared machine of
two cores the pace of runs of one configuration differed by −4%, +14%, −2%, +1% and +7% (docs/explanation/fidelity.md:
E1 to E2, B2 to B3 and B4, C2 to C3, D2 to D3): their root mean square over √2 is `HOST_SD`, from `HOST_PAIRS` pairs.
It is where a calibration on one run begins; every further run says more about its own machine (the variance of a normal
distribution with its conjugate prior, Gelman et al., *Bayesian Data Analysis*, 2.6 and 3.2).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

HOST_SD = 0.05
HOST_PAIRS = 5
WAY_SD = 0.2
"""The same of the way between client and engine: 8.1 ms at B2, 13.7 at B3, 9.7 at B4; 5.3 and 5.9 at E; 4.9 and 6.1
at C; 5.8 and 6.8 at D."""
COVERED = 0.95


def scale_interval(paces: Sequence[float], within: float, usual_sd: float = HOST_SD) -> tuple[float, float]:
    """Return the 95% interval of the factor that another run's step times have, of those fitted on all runs together.

    *paces*: of each run, time taken over time fitted; *within*: the standard error of the logarithm of all of them
    together, from stretches of time within runs. *usual_sd* is what runs differ by where nothing more is known.
    """
    logs = np.log(paces)
    degrees = HOST_PAIRS + len(logs) - 1
    variance = (HOST_PAIRS * usual_sd**2 + float(((logs - logs.mean()) ** 2).sum())) / degrees
    sd = math.sqrt(variance * (1.0 + 1.0 / len(logs)) + within**2)
    half = float(special.stdtrit(degrees, 0.5 + COVERED / 2)) * sd
    return math.exp(-half), math.exp(half)


def draw_scales(interval: tuple[float, float], n: int, rng: np.random.Generator) -> np.ndarray:
    """Return *n* factors of which 95% are in *interval*: lognormal, in the middle of it."""
    low, high = np.log(interval)
    return np.exp(0.5 * (low + high) + 0.5 * (high - low) / float(special.ndtri(0.975)) * rng.standard_normal(n))


__all__ = ["COVERED", "HOST_PAIRS", "HOST_SD", "WAY_SD", "draw_scales", "scale_interval"]
