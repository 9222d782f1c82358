"""Does slowness make answers wrong, or do the same users ask for both? Correlations, with and without the confounder.

When long questions come at the busy hour, latency and errors rise together though neither causes the other. Within a
cohort the mix cannot change: what is left of the correlation there is coupling (partial correlation, Pearson 1896; by
strata: Cochran, *Planning and Analysis of Observational Studies*, 1983, chapter 4).
"""

import math

import numpy as np

from sim.records import Outcome

ROUNDING = 1e-9
"""Share of a sum of squares below which what is left around the mean may be rounding, and no variation."""


class Moments:
    """Sums of two numbers by stratum, from which correlations follow, however many rows were added."""

    def __init__(self, strata: int) -> None:
        self._sums = np.zeros((strata, 6))  # n, x, y, xx, yy, xy

    def add(self, x: np.ndarray, y: np.ndarray, stratum: np.ndarray) -> None:
        """Add pairs *x*, *y*, each of its *stratum* (an index)."""
        for k, values in enumerate((np.ones(len(x)), x, y, x * x, y * y, x * y)):
            self._sums[:, k] += np.bincount(stratum, values, minlength=len(self._sums))

    def correlation(self) -> float:
        """Return Pearson's correlation of all pairs together; nan where one of the two does not vary."""
        return _pearson(self._sums.sum(axis=0, keepdims=True))

    def partial(self) -> float:
        """Return the correlation within strata: of what is left of each number after its stratum's mean."""
        return _pearson(self._sums)


def _pearson(sums: np.ndarray) -> float:
    n, x, y, xx, yy, xy = sums[sums[:, 0] > 0].T
    varies_x, varies_y = float((xx - x * x / n).sum()), float((yy - y * y / n).sum())
    if varies_x <= ROUNDING * xx.sum() or varies_y <= ROUNDING * yy.sum():
        return math.nan
    return float((xy - x * y / n).sum()) / math.sqrt(varies_x * varies_y)


class Coupling:
    """What is counted of how latency and errors go together, and which sessions met them."""

    def __init__(self, home: np.ndarray, pools: int) -> None:
        """*home* is the pool that is meant to serve each cohort; there are so many *pools*."""
        self._home = home
        self._moments = Moments(len(home))
        self._by_pool = np.zeros((pools, 2), np.int64)
        self._met: list[np.ndarray] = []  # sessions: all; those answered elsewhere; those answered wrong
        self._elsewhere: list[np.ndarray] = []
        self._wrong: list[np.ndarray] = []

    def take(self, rows: np.ndarray, wrong: np.ndarray) -> None:
        """Count how requests ended (*rows*: the deciding ATTEMPT of each), of which those *wrong* (0 or 1) were."""
        answered = rows["outcome"] == Outcome.OK
        bad, cohort, pool = wrong[answered].astype(float), rows["cohort"][answered], rows["pool"][answered]
        ttft_s = np.maximum((rows["first_token_s"] - rows["scheduled_s"])[answered], 1e-6)
        self._moments.add(np.log(ttft_s), bad, cohort)
        for column, weight in enumerate((None, bad)):
            counted = np.bincount(pool, weight, minlength=len(self._by_pool))
            self._by_pool[:, column] += counted.astype(np.int64)
        if (rows["session"] >= 0).any():
            sessions = rows["session"][answered]
            self._met.append(np.unique(rows["session"]))
            self._elsewhere.append(np.unique(sessions[pool != self._home[cohort]]))
            self._wrong.append(np.unique(sessions[bad == 1.0]))

    def metrics(self, pools: list[str]) -> dict[str, float]:
        """Return the correlations, wrong answers by pool, and shares of sessions that met something."""
        found = {"wrong_ttft_correlation": self._moments.correlation(), "wrong_ttft_partial": self._moments.partial()}
        for name, (answered, wrong) in zip(pools, self._by_pool.tolist(), strict=True):
            found[f"pool.{name}.wrong_share"] = wrong / answered if answered else math.nan
        if self._met:
            met, elsewhere, wrong = (
                len(np.unique(np.concatenate(x))) for x in (self._met, self._elsewhere, self._wrong)
            )
            found |= {"sessions_misrouted": elsewhere / met, "sessions_wrong": wrong / met}
        return found


def metric_names(pools: list[str]) -> set[str]:
    """Return the names that `Coupling.metrics` gives."""
    by_pool = {f"pool.{name}.wrong_share" for name in pools}
    return by_pool | {"wrong_ttft_correlation", "wrong_ttft_partial", "sessions_misrouted", "sessions_wrong"}
