"""How sure a share or a rate can be that was counted, however few the counts.

Sources: Wilson, JASA 22 (1927), for shares; Garwood, Biometrika 28 (1936), for Poisson counts.
"""

import math

from scipy import special

from sim.theory.chance import Interval


def wilson(hits: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return the share *hits* / *trials* with Wilson's score interval; nothing is known of no trials: [0, 1].

    Raises:
        ValueError: not 0 <= hits <= trials.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"hits must be in 0..trials, not {hits} of {trials}")
    if trials == 0:
        return Interval(math.nan, 0.0, 1.0)
    z = float(special.ndtri(0.5 + confidence / 2))
    share, weight = hits / trials, z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials)) / (1 + weight)
    low = max(0.0, centre - half) if hits else 0.0
    return Interval(share, low, min(1.0, centre + half) if hits < trials else 1.0)


def poisson_rate(events: int, time: float, confidence: float = 0.95) -> Interval:
    """Return *events* / *time* with Garwood's exact interval, in events per unit of *time*.

    Raises:
        ValueError: fewer than no events, or no time.
    """
    if events < 0 or not time > 0:
        raise ValueError(f"expected counts over a time, not {events} over {time}")
    tail = (1 - confidence) / 2
    low = float(special.gammaincinv(events, tail)) if events else 0.0
    high = float(special.gammaincinv(events + 1, 1 - tail))
    return Interval(events / time, low / time, high / time)


def at_most(events: int, time: float, confidence: float = 0.95) -> float:
    """Return the rate that is exceeded with chance 1 - *confidence* at most: 3 / *time* when nothing was seen."""
    return float(special.gammaincinv(events + 1, confidence)) / time
