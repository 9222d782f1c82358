"""Somebody else answers for a while: what breakers on quality and overflow share."""

from sim.control import targets
from sim.control.effects import RULES, Effect
from sim.control.stage import Process, Stage
from sim.scenario.quality import RULES as RULES_NAME


class Switch:
    """Diverts what is asked of a pool while it is on, and measures how often and how long that is."""

    def __init__(self, stage: Stage, kind: str, pool: str, into: str) -> None:
        """Begin off; *kind* (breaker or overflow) begins the names of its metrics, *into* is a pool or ``rules``."""
        self._stage, self._kind, self._name = stage, kind, pool
        self._pool = targets.pool(stage, pool)
        self._into = RULES if into == RULES_NAME else targets.pool(stage, into)
        self._on: Effect | None = None
        self._open_s = self._since_s = 0.0
        self._flips = 0
        self.measure()
        stage.process(self._at_the_end())

    @property
    def on(self) -> bool:
        """Whether it diverts now."""
        return self._on is not None

    def turn(self, share: float) -> None:
        """Divert *share* of the requests from now on; of 0 it is off."""
        self.measure()
        value = (share, self._into, False)
        if self._on is None and share > 0.0:
            self._on = self._stage.effects.begin("divert", self._pool, value)
            self._flips += 1
        elif self._on is not None and share > 0.0:
            self._stage.effects.change(self._on, value)
        elif self._on is not None:
            self._stage.effects.end(self._on)
            self._on = None
            self._flips += 1
        self.measure()

    def _at_the_end(self) -> Process:
        """Measure once more when the run is over, whoever waits for what by then."""
        yield self._stage.timeout(self._stage.scenario.duration)
        self.measure()

    def measure(self) -> None:
        """Bring metrics and series up to now."""
        now_s, end_s = float(self._stage.now), self._stage.scenario.duration
        if self._on is not None:
            self._open_s += max(0.0, min(now_s, end_s) - self._since_s)
        self._since_s = min(now_s, end_s)
        of = f"{self._kind}.{self._name}"
        self._stage.measured[f"{of}.flips"] = float(self._flips)
        self._stage.measured[f"{of}.open_share"] = self._open_s / min(now_s, end_s) if now_s else 0.0
        self._stage.show(SERIES[self._kind], self._name, float(self.on))


SERIES = {"breaker": "quality_breaker_open", "overflow": "overflow_on"}
"""Which gauge shows whether it diverts."""
