"""CUSUM for wrong answers: the standard alarm for a rate that turns from good to bad, and how long it takes.

Sources: Page, Biometrika 41 (1954) 100; Reynolds and Stoumbos, Journal of Quality Technology 31 (1999) 87, for single
answers, whose log likelihood ratio is made a whole number of steps; Brook and Evans, Biometrika 59 (1972) 539, for the
Markov chain that gives its average run length exactly.
"""

import math
import warnings
from typing import NamedTuple

import numpy as np
from scipy import linalg

MOST_STATES = 20_000
LONGEST = 1e14
"""Average run lengths from here on are lost in rounding, and as good as never."""


class Cusum(NamedTuple):
    """An alarm over single answers: up *up* steps for a wrong one, down one for a right one, never below 0.

    It is raised when the sum reaches *limit*.
    """

    up: int
    limit: int


def scores(good: float, bad: float) -> int:
    """Return *up*, the steps a wrong answer is worth when the rate may turn from *good* to *bad*.

    The log likelihood ratio of a wrong answer over that of a right one, rounded to a whole number (Reynolds and
    Stoumbos): log((bad (1 - good)) / (good (1 - bad))) / log((1 - good) / (1 - bad)) - 1.
    """
    if not 0 < good < bad < 1:
        raise ValueError(f"expected 0 < good < bad < 1, not {good} and {bad}")
    fall = math.log((1 - good) / (1 - bad))
    return max(1, round(math.log(bad * (1 - good) / (good * (1 - bad))) / fall) - 1)


def run_length(alarm: Cusum, rate: float) -> float:
    """Return the average number of answers until the *alarm* is raised from 0, each wrong with chance *rate*.

    Brook and Evans: the expected time to absorption of a chain on 0..limit - 1, (I - Q) x = 1, here a band.
    Infinite from `LONGEST` on.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"a rate must be in (0, 1], not {rate}")
    up, size = alarm.up, alarm.limit
    if not 1 <= size <= MOST_STATES:
        raise ValueError(f"a limit must be in 1..{MOST_STATES}, not {size}")
    band = min(up, size - 1)
    matrix = np.zeros((band + 2, size))  # row r holds the diagonal that is band - r above the main one
    matrix[band] = 1.0
    matrix[band, 0] = rate  # a right answer at 0 stays at 0
    matrix[band + 1, : size - 1] = -(1 - rate)
    if up < size:
        matrix[0, up:] = -rate
    below = 1 if size > 1 else 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", linalg.LinAlgWarning)
        found = float(linalg.solve_banded((below, band), matrix[: band + 1 + below], np.ones(size))[0])
    return found if 0 < found < LONGEST else math.inf


def alarm(good: float, bad: float, seldom: float) -> Cusum:
    """Return the alarm for a turn from *good* to *bad* that is false no more than once in *seldom* answers, on average.

    Raises:
        ValueError: no limit that can be computed makes false alarms so seldom.
    """
    up = scores(good, bad)
    low, high = 0, 1
    while run_length(Cusum(up, high), good) < seldom:
        low, high = high, 2 * high
        if high > MOST_STATES:
            raise ValueError(f"false alarms once in {seldom:g} answers need a limit above {MOST_STATES} steps")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if run_length(Cusum(up, middle), good) < seldom else (low, middle)
    return Cusum(up, high)


def run_lengths(rng: np.random.Generator, alarm: Cusum, rate: float, runs: int) -> np.ndarray:
    """Return simulated answers until the alarm, (runs,), from one wrong answer to the next: only they raise it."""
    length, level = np.zeros(runs, np.int64), np.zeros(runs, np.int64)
    going = np.arange(runs)
    while going.size:
        gap = rng.geometric(rate, going.size)
        length[going] += gap
        level[going] = np.maximum(0, level[going] - (gap - 1)) + alarm.up
        going = going[level[going] < alarm.limit]
    return length
