"""How many wrong answers a rate comes to: a day, a minute, the busiest minute, before noon, in a record of segments.

Arrivals are Poisson (so is what is left of them after thinning); over the day their rate is flat, or the sinusoid of
`arrivals: {diurnal: ...}`, here with its peak at 15:00.
"""

import math
from typing import NamedTuple

import scipy

from sim.quality.rates import chance

DAY_S = 86_400.0
PEAK_AT_S = 15 * 3600.0
"""When the busiest moment of a day is, where nobody says: mid-afternoon. An assumption, shown wherever it is used."""

MANY_DAYS = 1e6
"""So late, the hours that one day's wave moves it by are lost in rounding."""


class Volume(NamedTuple):
    """Wrong answers of a day: their mean, the standard deviation of chance alone, a minute, and the busiest minute."""

    per_day: float
    sd: float
    per_minute: float
    peak_minute: float


def volume(asked_per_day: float, error: float, peak: float = 1.0) -> Volume:
    """Return the wrong answers among *asked_per_day* when each is wrong with chance *error*.

    *peak* is the busiest moment's rate over the mean one, in [1, 2].
    """
    chance(error, "error")
    _peak(peak)
    if not asked_per_day >= 0:
        raise ValueError(f"expected 0 or more a day, not {asked_per_day}")
    bad = asked_per_day * error
    return Volume(bad, math.sqrt(bad), bad / 1440, peak * bad / 1440)


def reached_s(total: float, per_day: float, peak: float = 1.0, peak_at_s: float = PEAK_AT_S) -> float:
    """Return the seconds after midnight at which *total* of *per_day* have come; above a day if it takes longer.

    Flat at *peak* 1. Above, the rate is (1 + (peak - 1) cos(2 pi (t - peak_at) / day)), so nights count less.
    """
    _peak(peak)
    if not (total >= 0 and per_day > 0):
        raise ValueError(f"expected a total of 0 or more and a rate above 0, not {total} and {per_day}")
    turn = 2 * math.pi / DAY_S

    def short(t: float) -> float:
        wave = (math.sin(turn * (t - peak_at_s)) + math.sin(turn * peak_at_s)) / turn
        return per_day / DAY_S * (t + (peak - 1) * wave) - total

    flat = total / per_day * DAY_S
    if peak == 1 or flat > MANY_DAYS * DAY_S:
        return flat
    return float(scipy.optimize.brentq(short, max(0.0, flat - DAY_S), flat + DAY_S, xtol=1e-6))


def _peak(peak: float) -> None:
    if not 1 <= peak <= 2:
        raise ValueError(f"peak must be in [1, 2], not {peak}: a sinusoid that peaks higher would be negative at night")


def record_error(segment_error: float, segments: int) -> float:
    """Return the share of records with an error in one of their *segments* or more: 1 - (1 - e)^n."""
    chance(segment_error, "segment_error")
    if segments < 1:
        raise ValueError(f"expected 1 segment or more, not {segments}")
    return -math.expm1(segments * math.log1p(-segment_error)) if segment_error < 1 else 1.0


def segment_error(record_error: float, segments: int) -> float:
    """Return the error of a segment that gives *record_error* of a record: 1 - (1 - e)^(1/n)."""
    chance(record_error, "record_error")
    if segments < 1:
        raise ValueError(f"expected 1 segment or more, not {segments}")
    return -math.expm1(math.log1p(-record_error) / segments) if record_error < 1 else 1.0
