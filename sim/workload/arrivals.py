"""When users come: a clock of unit steps, read through the curve of expected arrivals.

Every arrival process here is one sequence of steps of mean 1 (exponential for Poisson, gamma for other
coefficients of variation) and one curve that says how many arrivals are expected until each moment. The
k-th user comes when the curve reaches the sum of the first k steps: the time-change theorem (Daley and
Vere-Jones, "An Introduction to the Theory of Point Processes", section 7.4), exact for any rate that
the curve can draw. A faster rate is the same users sooner, which makes a sweep over rates a paired
comparison.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim.rng import stream

DAY_S = 86_400.0
_CELLS = 8_640  # of a diurnal day: the rate is constant for 10 s, and the count of each cell is exact
_STEPS_MAX = 10_000_000  # changes between busy and calm in one run


@dataclass(frozen=True)
class RateCurve:
    """Arrivals expected until each moment: straight between knots, then *tail_per_s* or the same day again.

    *at_s* and *expected* are float64 of equal length, starting at 0 and never falling.
    """

    at_s: np.ndarray
    expected: np.ndarray
    tail_per_s: float = 0.0
    repeats: bool = False

    def until(self, time_s: float) -> float:
        """Return the number of arrivals expected in [0, *time_s*)."""
        last_s, total = float(self.at_s[-1]), float(self.expected[-1])
        if self.repeats:
            laps = math.floor(time_s / last_s)
            return laps * total + float(np.interp(time_s - laps * last_s, self.at_s, self.expected))
        return float(np.interp(time_s, self.at_s, self.expected)) + max(0.0, time_s - last_s) * self.tail_per_s

    def times(self, expected: np.ndarray) -> np.ndarray:
        """Return when the curve reaches each of *expected* (increasing); infinite if it never does."""
        last_s, total = float(self.at_s[-1]), float(self.expected[-1])
        if self.repeats:
            if total == 0.0:
                return np.full(len(expected), np.inf)
            laps = np.floor(expected / total)
            return laps * last_s + np.interp(expected - laps * total, self.expected, self.at_s)
        if len(self.at_s) == 1:
            return expected / self.tail_per_s if self.tail_per_s > 0.0 else np.full(len(expected), np.inf)
        reached = np.interp(expected, self.expected, self.at_s)
        beyond = expected > total
        if beyond.any():
            rest = expected[beyond] - total
            reached[beyond] = last_s + rest / self.tail_per_s if self.tail_per_s > 0.0 else np.inf
        return reached


@dataclass(frozen=True)
class Part:
    """*factor* times the arrivals that a curve expects from *from_s* to *to_s*, and none outside."""

    whole: RateCurve
    from_s: float
    to_s: float
    factor: float

    def until(self, time_s: float) -> float:
        """Return the number of arrivals expected in [0, *time_s*)."""
        inside_s = min(max(time_s, self.from_s), self.to_s)
        return self.factor * (self.whole.until(inside_s) - self.whole.until(self.from_s))

    def times(self, expected: np.ndarray) -> np.ndarray:
        """Return when *expected* (increasing) arrivals are reached; infinite if they never are."""
        if self.factor == 0.0:
            return np.full(len(expected), np.inf)
        at_s = self.whole.times(self.whole.until(self.from_s) + expected / self.factor)
        return np.where(at_s < self.to_s, np.maximum(at_s, self.from_s), np.inf)


def constant(rate_per_s: float) -> RateCurve:
    """Return the curve of one rate for ever."""
    return RateCurve(np.zeros(1), np.zeros(1), rate_per_s)


def piecewise(from_s: list[float], rates_per_s: list[float]) -> RateCurve:
    """Return the curve of a rate that jumps: *rates_per_s* [i] holds from *from_s* [i] on.

    *from_s* starts at 0 and rises; the last rate holds for ever.
    """
    at_s, rates = np.array(from_s, np.float64), np.array(rates_per_s, np.float64)
    expected = np.concatenate([np.zeros(1), np.cumsum(np.diff(at_s) * rates[:-1])])
    return RateCurve(at_s, expected, float(rates[-1]))


def diurnal(rate_per_s: float, peak_to_mean: float, peak_at_s: float) -> RateCurve:
    """Return the curve of a day: a sinusoid around the mean *rate_per_s*, highest at *peak_at_s* after midnight.

    t = 0 is midnight, the day has 24 h and repeats. *peak_to_mean* is in [1, 2]: at 2 the rate touches 0
    twelve hours away from the peak. Raise ValueError beyond that.
    """
    if not 1.0 <= peak_to_mean <= 2.0:
        raise ValueError(
            f"peak_to_mean is {peak_to_mean:g}; expected 1 to 2, since a sinusoid that peaks higher would be negative "
            "at night (piecewise rates can peak as high as they like)"
        )
    at_s = np.linspace(0.0, DAY_S, _CELLS + 1)
    turn = 2.0 * math.pi / DAY_S
    wave = (np.sin(turn * (at_s - peak_at_s)) + math.sin(turn * peak_at_s)) / turn
    expected = rate_per_s * np.maximum.accumulate(at_s + (peak_to_mean - 1.0) * wave)
    expected[0], expected[-1] = 0.0, rate_per_s * DAY_S
    return RateCurve(at_s, expected, repeats=True)


def bursts(
    rate_per_s: float, burst_per_s: float, mean_on_s: float, mean_off_s: float, duration_s: float, seed: int
) -> RateCurve:
    """Return the curve of a two-state Markov-modulated rate (MMPP) whose mean is *rate_per_s*.

    Bursts of rate *burst_per_s* last *mean_on_s* on average, the calm between them *mean_off_s*, both
    exponential; the calm rate is what makes the mean over all time *rate_per_s*, so that a bursty and a
    Poisson scenario of one ``rate_per_s`` carry the same load. The run starts in a burst with the
    long-run probability of one. Raise ValueError if the bursts alone exceed the mean, or are no bursts.
    """
    share = mean_on_s / (mean_on_s + mean_off_s)
    calm_per_s = (rate_per_s - share * burst_per_s) / (1.0 - share)
    if burst_per_s < rate_per_s:
        raise ValueError(
            f"a burst of {burst_per_s:g} requests/s is below the mean of {rate_per_s:g} (workload.rate_per_s is the "
            "mean over bursts and calm); expected a higher burst rate"
        )
    if calm_per_s < 0.0:
        raise ValueError(
            f"bursts of {burst_per_s:g} requests/s during {share:.1%} of the time already exceed the mean of "
            f"{rate_per_s:g} (workload.rate_per_s is the mean over bursts and calm); expected at most "
            f"{rate_per_s / share:g}, or rarer bursts"
        )
    if duration_s / (mean_on_s + mean_off_s) * 2.0 > _STEPS_MAX:
        raise ValueError("the bursts change more than ten million times in the run; expected longer ones")
    return _modulated((burst_per_s, calm_per_s), (mean_on_s, mean_off_s), duration_s, seed)


def _modulated(rates: tuple[float, float], means: tuple[float, float], duration_s: float, seed: int) -> RateCurve:
    """Return one path of a process that changes between two rates, long enough for *duration_s*."""
    rng = stream(seed, "bursts")
    state = int(rng.random() >= means[0] / sum(means))
    stays: list[np.ndarray] = []
    states: list[np.ndarray] = []
    total = 0.0
    while total <= duration_s:
        in_state = (np.arange(1024) + state) % 2
        stay = rng.standard_exponential(1024) * np.array(means)[in_state]
        stays.append(stay)
        states.append(in_state)
        total += float(stay.sum())
    stay, rate = np.concatenate(stays), np.array(rates)[np.concatenate(states)]
    start = np.zeros(1)
    at_s, expected = np.concatenate([start, np.cumsum(stay)]), np.concatenate([start, np.cumsum(stay * rate)])
    return RateCurve(at_s, expected)


def steps(seed: int, cv: float = 1.0, name: str = "arrivals") -> Callable[[int], np.ndarray]:
    """Return what draws the next n steps of mean 1 and coefficient of variation *cv* (1: Poisson, 0: a metronome).

    They come from the stream *name*.
    """
    rng = stream(seed, name)
    if cv == 1.0:
        return rng.standard_exponential
    if cv == 0.0:
        return np.ones
    shape = 1.0 / (cv * cv)
    return lambda n: rng.standard_gamma(shape, n) / shape


class Arrivals:
    """The times at which users come, in order, until *duration_s*."""

    def __init__(self, curve: RateCurve | Part, duration_s: float, draw: Callable[[int], np.ndarray]) -> None:
        self.expected = curve.until(duration_s)
        self._curve = curve
        self._duration_s = duration_s
        self._draw = draw
        self._sum = 0.0
        self._last_s = 0.0
        self._over = False

    def take(self, n: int) -> np.ndarray:
        """Return the next *n* times (float64 seconds); fewer when the run's end comes first, then none."""
        if self._over:
            return np.empty(0)
        walked = self._draw(n)
        walked[0] += self._sum
        np.cumsum(walked, out=walked)  # left to right, so that the chunk size changes no bit of it
        self._sum = float(walked[-1])
        times = self._curve.times(walked)
        times[0] = max(times[0], self._last_s)
        np.maximum.accumulate(times, out=times)  # rounding may step back by one unit where two straight pieces meet
        self._last_s = float(times[-1])
        inside = int(np.searchsorted(times, self._duration_s, "left"))
        self._over = inside < n
        return times[:inside]
