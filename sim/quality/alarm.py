"""When an online evaluation would have noticed: a CUSUM over its verdicts, of everything and of each cohort.

S = max(0, S + log-likelihood ratio) of a doubled error rate against the usual one (Page, Biometrika 41, 1954). An alarm
at S >= log(N) comes by mistake at most once in N verdicts on average (Lorden, Annals of Mathematical Statistics 42,
1971); N is what is looked at in `QUIET_S`, shared by all that watch.
"""

import math
from collections.abc import Sequence

import numpy as np

QUIET_S = 30 * 86_400.0
"""Mean time between false alarms, of all who watch together: a month."""
TIMES = 2.0
"""The error rate that an alarm is made for, over the usual one."""


class Alarms:
    """One CUSUM of all verdicts, and one a cohort."""

    def __init__(self, usual: Sequence[float], per_s: Sequence[float]) -> None:
        """*usual* is the share of verdicts that are bad, by cohort, and *per_s* verdicts a second."""
        own, rate = np.array(usual, float), np.array(per_s, float)
        together = float(own @ rate / rate.sum()) if rate.sum() else 0.0
        p = np.clip(np.append(own, together), 1e-6, 0.5)
        worse = np.minimum(TIMES * p, 0.5 * (1.0 + p))
        self._bad, self._good = np.log(worse / p), np.log((1.0 - worse) / (1.0 - p))
        watched = np.append(rate, rate.sum())
        self._limit = np.log(np.maximum(watched * QUIET_S * len(p), 2.0))
        self._sum = np.zeros(len(p))
        self._before = np.zeros((len(own), 2), np.int64)
        self.first_s = np.full(len(p), math.inf)
        """When each rang for the first time: by cohort, then that of all; infinite: never."""

    def hear(self, now_s: float, seen: np.ndarray) -> None:
        """Take notice of what is known by now: *seen* (cohorts, 2), looked at and called wrong since the start."""
        new = seen - self._before
        self._before = seen.copy()
        new = np.vstack([new, new.sum(axis=0)])
        self._sum = np.maximum(0.0, self._sum + new[:, 1] * self._bad + (new[:, 0] - new[:, 1]) * self._good)
        rings = (self._sum >= self._limit) & np.isinf(self.first_s)
        self.first_s[rings] = now_s

    def metrics(self, cohorts: Sequence[str]) -> dict[str, float]:
        """Return whether the evaluation rang (1 or 0), and when: seconds from the start of the run, nan for never."""
        found = {}
        for prefix, at_s in zip((*(f"cohort.{name}." for name in cohorts), ""), self.first_s.tolist(), strict=True):
            found[f"{prefix}alarmed"] = float(at_s < math.inf)
            found[f"{prefix}alarm_s"] = at_s if at_s < math.inf else math.nan
        return found


def metric_names(cohorts: Sequence[str]) -> set[str]:
    """Return the names that `Alarms.metrics` gives."""
    return {f"{prefix}{name}" for prefix in ("", *(f"cohort.{c}." for c in cohorts)) for name in ("alarmed", "alarm_s")}
