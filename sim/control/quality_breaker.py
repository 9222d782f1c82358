"""A circuit breaker on quality: while answers are bad for sure, rules or another pool answer.

*Closed*: all pass. When at least `min_graded` answers of the window were evaluated and the lower bound of the share
called wrong is above `open_above`, it opens. *Open*: everything is diverted for `hold`. *Half open*: a share, `probe`,
passes and is evaluated; once enough of it is, it closes if the upper bound is below `close_below`, and opens again for
`hold` if the lower bound is above `open_above`; else it waits for more. Without probes nothing would ever be known.
Source: Nygard, *Release It!* (2007), for the states; bounds are Wilson's, one-sided, and hold for one look: it looks
every minute, so right at a limit it changes sides more often than `sure` says.

It knows what the evaluation has told by now, with its errors and its delay, and nothing else. After a change it counts
only what was answered since.
"""

import math
from collections import deque
from collections.abc import Generator
from typing import Any

import simpy

from sim.control import targets
from sim.control.stage import Process, Stage
from sim.control.switch import Switch
from sim.scenario.containment import QualityBreaker
from sim.theory.chance import Interval
from sim.theory.counted import wilson

LOOK_EVERY_S = 60.0

Verdict = Generator[simpy.Event, Any, Interval]
"""A wait that ends with what is known of the share of wrong answers."""


def quality_breaker(stage: Stage, rule: QualityBreaker) -> Process:
    """Watch what is said of a pool's answers, and open and close."""
    switch = Switch(stage, "breaker", rule.quality_breaker, rule.fallback)
    seen = _Seen(stage, rule, switch)
    while True:
        said = yield from seen.until(lambda known: known.low > rule.open_above)
        _tell(stage, rule, "quality_breaker_opens", said)
        while said.low > rule.open_above:
            switch.turn(1.0)
            yield stage.timeout(rule.hold)
            switch.turn(1.0 - rule.probe)
            stage.note_event("quality_breaker_probes", target=rule.quality_breaker, share=rule.probe)
            yield from seen.begin()
            said = yield from seen.until(
                lambda known: known.low > rule.open_above or known.high < rule.close_below
            )  # fmt: skip
            if said.low > rule.open_above:
                _tell(stage, rule, "quality_breaker_stays_open", said)
        switch.turn(0.0)
        _tell(stage, rule, "quality_breaker_closes", said)
        yield from seen.begin()


class _Seen:
    """What the evaluation has said of a pool's answers in the window that ends now."""

    def __init__(self, stage: Stage, rule: QualityBreaker, switch: Switch) -> None:
        self._stage, self._rule, self._switch = stage, rule, switch
        self._pool = targets.pool(stage, rule.quality_breaker)
        self._looks: deque[tuple[float, int, int]] = deque([(0.0, 0, 0)])

    def begin(self) -> Process:
        """Forget everything; go on when what comes in is about answers from now on."""
        assert self._stage.judge is not None
        yield self._stage.timeout(self._stage.judge.rules.delay_s)
        self._looks = deque([self._look()])

    def until(self, enough: Any) -> Verdict:
        """Wait until what is known is *enough*."""
        while True:
            yield self._stage.timeout(min(LOOK_EVERY_S, self._rule.window))
            self._switch.measure()
            self._looks.append(self._look())
            while len(self._looks) > 2 and self._looks[1][0] <= self._stage.now - self._rule.window:
                self._looks.popleft()
            (_, graded_before, wrong_before), (_, graded, wrong) = self._looks[0], self._looks[-1]
            graded, wrong = graded - graded_before, wrong - wrong_before
            if graded < self._rule.min_graded:
                continue
            known = wilson(wrong, graded, 2.0 * self._rule.sure - 1.0)
            if enough(known):
                return known

    def _look(self) -> tuple[float, int, int]:
        assert self._stage.judge is not None
        graded, wrong = self._stage.judge.seen(float(self._stage.now))[self._pool].sum(axis=(0, 1)).tolist()
        return float(self._stage.now), graded, wrong


def _tell(stage: Stage, rule: QualityBreaker, event: str, said: Interval) -> None:
    wrong = None if math.isnan(said.estimate) else said.estimate
    stage.note_event(event, target=rule.quality_breaker, wrong=wrong, low=said.low, high=said.high)
