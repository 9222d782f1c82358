"""What seeing late costs: signals of users that come hours after the answer, thinned and delayed.

A wrong answer is reported with some chance, after a lognormal lag. Thinned Poisson counts stay Poisson, so what has
been reported by a time is Poisson too, with a mean in closed form.
"""

import math

import numpy as np
import scipy
from scipy import special


def excess(delay_s: float, asked_per_s: float, rise: float) -> float:
    """Return the wrong answers more than before that users got while nobody noticed: delay x rate x *rise*."""
    return delay_s * asked_per_s * rise


def reported(t_s: float, wrong_per_s: float, share: float, median_lag_s: float, sigma: float) -> float:
    """Return the expected reports until *t_s* of wrong answers that began at 0: a *share* is told, lognormal lag.

    The integral of the lag's distribution F from 0 to t: t F(t) - E[lag; lag <= t].
    """
    if t_s <= 0:
        return 0.0
    x = (math.log(t_s) - math.log(median_lag_s)) / sigma
    mean = median_lag_s * math.exp(sigma**2 / 2)
    return float(wrong_per_s * share * (t_s * special.ndtr(x) - mean * special.ndtr(x - sigma)))


def noticed_s(
    wrong_per_s: float, share: float, median_lag_s: float, sigma: float, background_per_s: float = 0.0, z: float = 3.0
) -> float:
    """Return when the expected reports of wrong answers first stand *z* standard deviations above the background's.

    Without any background: when the first report is to be expected.
    """
    if not (wrong_per_s > 0 and 0 < share <= 1 and median_lag_s > 0 and sigma > 0 and background_per_s >= 0):
        raise ValueError("expected rates, a share, a median lag and a sigma above 0")

    def missing(log_t: float) -> float:
        t = math.exp(log_t)
        needed = max(1.0, z * math.sqrt(background_per_s * t))
        return reported(t, wrong_per_s, share, median_lag_s, sigma) - needed

    return math.exp(
        scipy.optimize.brentq(missing, math.log(median_lag_s) - 40 * sigma, math.log(median_lag_s) + 60, xtol=1e-9)
    )


def reports(
    rng: np.random.Generator, wrong_at_s: np.ndarray, share: float, median_lag_s: float, sigma: float
) -> np.ndarray:
    """Return the sorted times (seconds) at which users report some of the answers that were wrong at *wrong_at_s*."""
    told = wrong_at_s[rng.random(len(wrong_at_s)) < share]
    return np.sort(told + rng.lognormal(math.log(median_lag_s), sigma, len(told)))
