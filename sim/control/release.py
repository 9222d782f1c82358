"""Release is not deploy: a version that is there gets traffic by steps, is watched, and is taken back by a flag.

*Shadow*: it answers copies of what is evaluated, and no user sees that. A pair of which only one answer is wrong is the
toss of a fair coin while both are as good. *Canary*: it gets a share of the sessions, beside the version before.
*Everybody*: nothing is beside it any more, so it is held against what was known before the release: half of `alpha` is
for its upper bound to be too low, half for the test above that. All three are tests that may be looked at always
(`sim.quality.evidence`, `sim.quality.sequential`): each raises a false alarm with chance `alpha` at most, as long as
answers are wrong by their own luck. Where users share theirs (`user_sigma`, causes `by_session`) false alarms are more
frequent, and what was before may have been better than what is now for another reason. From the alarm it takes
`rollback` until nobody gets the version.

The fleet does not play the copies of a shadow: that they cost as many answers again as are evaluated is only counted
(`graded`).
"""

import math
from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from sim.control.stage import Process, Stage
from sim.quality import evidence, sequential
from sim.quality.judge import Judge
from sim.quality.reading import versions_of
from sim.scenario.containment import Release
from sim.theory.chance import clopper_pearson

LOOK_EVERY_S = 60.0

Alarm = Generator[simpy.Event, Any, bool]
"""A wait that ends with whether the version is worse."""


def release(stage: Stage, plan: Release) -> Process:
    """Give a version its traffic, and take it back if it makes answers worse."""
    trial = _Trial(stage, plan)
    yield stage.timeout(plan.from_)
    trial.remember()
    if plan.trial == "shadow":
        if (yield from trial.shadow()):
            trial.tell("release_stopped")
            return
    elif plan.trial == "canary":
        for share in plan.steps:
            trial.step(share)
            if (yield from trial.compare()):
                yield from trial.roll_back()
                return
    trial.step(1.0)
    trial.measured("released_s", float(stage.now))
    if (yield from trial.watch()):
        yield from trial.roll_back()


class _Trial:
    """One version on its way to everybody."""

    def __init__(self, stage: Stage, plan: Release) -> None:
        assert stage.judge is not None
        self.stage, self.plan, self.judge = stage, plan, stage.judge
        self.version = 1 + versions_of(stage.scenario).index(plan.release)
        self.baseline = math.nan
        self._evidence = np.zeros(len(evidence.ODDS))
        for name in ("released_s", "noticed_s", "rolled_back_s"):
            self.measured(name, math.inf)
        self.measured("graded", 0.0)

    def measured(self, name: str, value: float) -> None:
        """Let *name* be among the metrics of the run."""
        self.stage.measured[f"release.{self.plan.release}.{name}"] = value

    def tell(self, event: str, **fields: Any) -> None:
        """Write *event* into events.jsonl."""
        self.stage.note_event(event, target=self.plan.release, **fields)

    def step(self, share: float) -> None:
        """Give *share* of the sessions the version, from now on."""
        self.judge.release(float(self.stage.now), self.version if share else 0, share)
        self.stage.show("release_share", self.plan.release, share)
        self.tell("release_step" if share else "release_rolled_back", share=share)

    def remember(self) -> None:
        """Keep what is known of the version before as what to be held against."""
        (graded, wrong), _ = self._arms()
        self.baseline = clopper_pearson(int(wrong), int(graded), 1.0 - self.plan.alpha).high if graded else 1.0

    def shadow(self) -> Alarm:
        """Let it answer copies until it is worse for sure, or was long and often enough not."""
        begin_s = float(self.stage.now)
        self.judge.shadow(begin_s, self.version)
        self.tell("release_shadow")
        while True:
            yield self.stage.timeout(LOOK_EVERY_S)
            pairs = self._judge().pairs(float(self.stage.now))
            one, other, graded = int(pairs[0, 1]), int(pairs[1, 0]), int(pairs.sum())
            self.measured("graded", float(graded))
            log_e = float(sequential.log_evidence(one, one + other, 0.5, (1.0, 1.0)))
            worse = self._worse(log_e, self.plan.alpha)
            if worse or (graded >= self.plan.min_graded and self.stage.now >= begin_s + self.plan.dwell):
                self.judge.shadow(0.0, None)
                return worse

    def compare(self) -> Alarm:
        """Watch both arms of a step until it is worse for sure, or was long and often enough not."""
        begin_s, graded = float(self.stage.now), 0.0
        before = self._arms()
        while True:
            yield self.stage.timeout(LOOK_EVERY_S)
            after = self._arms()
            (n0, k0), (n1, k1) = after - before
            before = after
            graded += n1
            self.measured("graded", float(after[1, 0]))
            self._evidence += evidence.log_ratios(n0, k0, n1, k1)
            if self._worse(float(evidence.mixed(self._evidence)), self.plan.alpha):
                return True
            if graded >= self.plan.min_graded and self.stage.now >= begin_s + self.plan.dwell:
                return False

    def watch(self) -> Alarm:
        """Watch the version that everybody gets, until it is worse for sure than what was before."""
        before = self._arms()[1]
        while self.baseline < 1.0:
            yield self.stage.timeout(LOOK_EVERY_S)
            now = self._arms()[1]
            graded, wrong = now - before
            self.measured("graded", float(now[0]))
            if not graded:
                continue
            if self._worse(float(sequential.log_evidence(wrong, graded, self.baseline)), self.plan.alpha / 2):
                return True
        return False  # nobody had looked before: there is nothing to hold it against

    def roll_back(self) -> Process:
        """Take it back, which takes its time."""
        yield self.stage.timeout(self.plan.rollback)
        self.step(0.0)
        self.measured("rolled_back_s", float(self.stage.now))

    def _worse(self, log_e: float, alpha: float) -> bool:
        """Return whether the evidence is enough for a false alarm with chance *alpha* at most, and tell so."""
        if log_e < -math.log(alpha):
            return False
        self.measured("noticed_s", float(self.stage.now))
        self.tell("release_alarm", evidence=math.exp(min(log_e, 700.0)))
        return True

    def _arms(self) -> np.ndarray:
        """Return (graded, called wrong) of the version before and of this one, as known by now: (2, 2)."""
        seen = self._judge().seen(float(self.stage.now)).sum(axis=(0, 1))
        return np.stack([seen[0], seen[self.version]])

    def _judge(self) -> Judge:
        """Return the judge, once it has heard of everything that has ended."""
        assert self.stage.judge is not None
        return self.stage.judge
