"""Who watches answers beside the judge: users' signals, the evaluation's alarms, and what goes with latency."""

import numpy as np

from sim.quality import signals
from sim.quality.alarm import Alarms
from sim.quality.alarm import metric_names as alarm_names
from sim.quality.correlation import Coupling
from sim.quality.correlation import metric_names as coupling_names
from sim.quality.judge import Judge
from sim.quality.signals import Signals
from sim.quality.signals import metric_names as signal_names
from sim.scenario import Scenario
from sim.scenario.quality import Lags, Signal


class Watch:
    """Everything that is counted about answers that were judged."""

    def __init__(self, scenario: Scenario, seed: int, judge: Judge, requests: float) -> None:
        """*requests* are expected in the run, of all cohorts by their shares."""
        cohorts, pools = scenario.workload.cohorts, list(scenario.fleet.pools)
        rules = judge.rules
        found = scenario.quality.signals if scenario.quality else {}
        self.signals = Signals([_signal(name, one) for name, one in found.items()], seed)
        home = np.array([0 if one.pool is None else pools.index(one.pool) for one in cohorts.values()])
        self._coupling = Coupling(home, len(pools))
        flagged = [e * rules.sensitivity + (1.0 - e) * (1.0 - rules.specificity) for e in rules.errors]
        per_s = [requests / scenario.duration * one.share * k for one, k in zip(cohorts.values(), rules.evaluate)]
        self._alarms = Alarms(flagged, per_s)
        self._judge, self._cohorts, self._pools = judge, list(cohorts), pools

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Judge and count how requests ended (*rows*: the deciding ATTEMPT of each); return the verdicts."""
        verdicts = self._judge.take(rows)
        wrong = verdicts["wrong"]
        self.signals.take(rows, wrong)
        self._coupling.take(rows, wrong)
        self._alarms.take(self._judge.said)
        return verdicts

    def listen(self, now_s: float) -> None:
        """Let the alarms hear of what the evaluation knows by *now_s*."""
        self._alarms.hear(now_s)

    def metrics(self, end_s: float) -> dict[str, float]:
        """Return what they have counted by the end of the run, *end_s*."""
        self.listen(end_s)
        found = self._alarms.metrics(self._cohorts) if any(self._judge.rules.evaluate) else {}
        return found | self._coupling.metrics(self._pools) | self.signals.metrics(end_s)


def _signal(name: str, one: Signal) -> signals.Signal:
    lag = one.lag.choice[1] if isinstance(one.lag, Lags) else None
    median_s, sigma = (lag.median, lag.sigma) if lag else (float(one.lag), 0.0)  # type: ignore[arg-type]
    return signals.Signal(name, one.if_wrong, one.if_right, median_s, sigma)


def metric_names(scenario: Scenario) -> set[str]:
    """Return the names that `Watch.metrics` gives for *scenario*."""
    found = coupling_names(list(scenario.fleet.pools)) | alarm_names(list(scenario.workload.cohorts))
    return found | signal_names(list(scenario.quality.signals) if scenario.quality else [])
