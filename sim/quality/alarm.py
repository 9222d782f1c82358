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


SAID = np.dtype([("due_s", "f8"), ("name", "u8"), ("cohort", "i4"), ("flagged", "u1")])
"""What an evaluation says of an answer: when that is known, how its request's luck is named, and whether it is bad."""


class Alarms:
    """One CUSUM of all verdicts, and one a cohort; each verdict counts at its own time, whenever one listens."""

    def __init__(self, usual: Sequence[float], per_s: Sequence[float]) -> None:
        """*usual* is the share of verdicts that are bad, by cohort, and *per_s* verdicts a second."""
        own, rate = np.array(usual, float), np.array(per_s, float)
        together = float(own @ rate / rate.sum()) if rate.sum() else 0.0
        p = np.clip(np.append(own, together), 1e-6, 1.0 - 1e-6)
        worse = np.minimum(TIMES * p, 0.5 * (1.0 + p))
        self._bad, self._good = np.log(worse / p), np.log((1.0 - worse) / (1.0 - p))
        watched = np.append(rate, rate.sum())
        self.limit = np.log(np.maximum(watched * QUIET_S * len(p), 2.0))
        """Where each rings: by cohort, then that of all."""
        self._sum = np.zeros(len(p))
        self._to_come: list[np.ndarray] = []
        self.first_s = np.full(len(p), math.inf)
        """When each rang for the first time; infinite: never."""

    def take(self, said: np.ndarray) -> None:
        """Remember verdicts (`SAID`) that become known in their own time."""
        if len(said) and np.isinf(self.first_s).any():
            self._to_come.append(said)

    def hear(self, now_s: float) -> None:
        """Take notice of what has become known by *now_s*; times must not go back."""
        if not self._to_come:
            return
        said = np.concatenate(self._to_come)
        late = said["due_s"] > now_s
        self._to_come = [said[late]] if late.any() else []
        said = said[~late]
        said = said[np.lexsort((said["name"], said["due_s"]))]
        for k in range(len(self._sum) - 1):
            self._watch(k, said[said["cohort"] == k])
        self._watch(len(self._sum) - 1, said)

    def _watch(self, k: int, said: np.ndarray) -> None:
        """Let the *k*-th go through verdicts in order: S is the walk less its lowest point, if that is below 0."""
        if not len(said) or self.first_s[k] < math.inf:
            return
        walk = self._sum[k] + np.cumsum(np.where(said["flagged"] == 1, self._bad[k], self._good[k]))
        level = walk - np.minimum(0.0, np.minimum.accumulate(walk))
        self._sum[k] = level[-1]
        if (rings := level >= self.limit[k]).any():
            self.first_s[k] = said["due_s"][rings.argmax()]

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
