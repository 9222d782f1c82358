"""Plays the stages of a search for the knee against an endpoint, each from idle to idle, into one run folder."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import play, preflight, tester
from loadtest.counts import warm
from loadtest.drive import Progress
from loadtest.knee import judging
from loadtest.knee.judging import Objective
from loadtest.knee.search import Knee, Stage, bracket_of, knee, search
from loadtest.preflight import MOST_PER_S
from sim import results
from sim.conclude import conclude
from sim.errors import BlowoutError, InputError, RunError
from sim.interrupts import Interrupts
from sim.results import Member, Run
from sim.run import Task
from sim.scenario import Scenario, dump, points

RATE = "workload.rate_per_s"
WARMUP = 0.25
"""Of a stage's length, played before it and not counted."""
MOST_PLAYS = 4
"""Plays of a stage that is undecided: a P99 of few requests needs more of them."""
TRIES = 2
"""Plays of a stage in which the tester was not valid, before it is the tester that is taken for the limit."""
KEPT = "knee.json"


@dataclass(frozen=True)
class Wanted:
    """What is looked for: *objectives*, between two rates (requests/s), by stages of *stage_s* seconds."""

    objectives: Sequence[Objective]
    low: float
    high: float
    stage_s: float
    repeats: int = 1


def scenario_of(scenario: Scenario, stage_s: float) -> Scenario:
    """Return what every stage plays: users of *scenario* in open loop, without its faults, claims and sweep.

    Raises:
        InputError: its rate cannot be changed.
    """
    users = points(scenario)[0][1]
    arrivals = users.workload.arrivals
    closed = not isinstance(arrivals, str) and arrivals.closed is not None
    if users.workload.rate_per_s is None or users.workload.trace is not None or closed:
        raise InputError(f"{scenario.name}: expected users with a rate to change: workload.rate_per_s, in open loop")
    changes: dict[str, Any] = {"duration": stage_s * (1 + WARMUP), "warmup": stage_s * WARMUP, "rows": "all"}
    changes |= {"vary": {}, "claims": {}, "faults": [], "control": [], "alerts": [], "expect": {}, "seeds": 1}
    changes["scrape_interval"] = min(users.scrape_interval, max(1.0, stage_s / 10))
    return users.model_copy(update=changes)


class Stages:
    """One search, or several: what was played so far, in a run folder whose points are rates."""

    def __init__(
        self, order: play.Order, found: preflight.Found, wanted: Wanted, folder: Path, command: Sequence[str],
        say: Callable[[Stage], None], progress: Progress,
    ) -> None:  # fmt: skip
        """Prepare it; *say* hears of each stage as it ends."""
        self._order, self._found, self._wanted, self._folder = order, found, wanted, folder
        self._command, self._say, self._progress = command, say, progress
        self.stages: list[Stage] = []
        self.brackets: list[tuple[float, float]] = []
        self._tasks: list[Task] = []
        self._info: dict[str, Any] = {}

    @property
    def knee(self) -> Knee:
        """What was found so far."""
        return knee(self.stages, self.brackets)

    def run(self) -> Run:
        """Search as often as is wanted, and put everything down.

        Raises:
            RunError: the tester was the limit; what was found below is kept.
            EndpointError: the endpoint was gone.
            KeyboardInterrupt: interrupted; stages so far are kept.
        """
        started, ended = time.time(), {"state": "interrupted"}
        self._put_down(ended)
        warm()
        with Interrupts() as interrupts:
            try:
                for _ in range(self._wanted.repeats):
                    self._search(interrupts)
                ended = {"state": "complete"}
            except BlowoutError as error:
                ended = {"state": "failed", "error": str(error)}
                raise
            finally:
                self._put_down(ended | {"wall_s": round(time.time() - started, 3)})
                if self._tasks:
                    conclude(Run.open(self._folder))
        return Run.open(self._folder)

    def _search(self, interrupts: Interrupts) -> None:
        """Look for the knee once; later searches begin near the first."""
        judged: dict[float, bool] = {}
        wanted, begin = self._wanted, self._wanted.low
        if self.brackets and self.brackets[0][0]:
            begin = max(wanted.low, self.brackets[0][0] / 1.5)
        self.brackets.append((0.0, np.inf))
        for rate in search(begin, min(wanted.high, MOST_PER_S * self._order.workers), judged):
            stage = Stage(rate)
            self._play(stage, interrupts)
            judged[rate] = stage.kept
            self.stages.append(stage)
            self.brackets[-1] = bracket_of(judged)
            self._put_down({"state": "running"})
            self._say(stage)

    def _play(self, stage: Stage, interrupts: Interrupts) -> None:
        """Play a stage until it is decided, or has been played as often as is worth it."""
        plays: list[np.ndarray] = []
        claimed: list[dict[str, dict[str, float]]] = []
        invalid = 0
        while not stage.plays or (stage.plays < MOST_PLAYS and stage.may_change):
            task = self._task(stage.rate_per_s)
            found = play.one(self._order, self._found, task, self._progress, interrupts, lambda _: None)
            interrupts.check()
            if wrong := saturated(found):
                invalid += 1
                if invalid >= TRIES:
                    raise RunError(self._limit(stage.rate_per_s, wrong))
                continue
            stage.plays += 1
            stage.seeds.append(task.seed)
            plays.append(asked(task))
            claimed.append(found["claims"])
            stage.grows = all(judging.grows(rows) for rows in plays)
            stage.shares = [judging.share(one, plays) for one in self._wanted.objectives]
        self._sum_up(stage, plays, claimed)

    def _sum_up(self, stage: Stage, plays: list[np.ndarray], claimed: list[dict[str, dict[str, float]]]) -> None:
        rows = np.concatenate(plays)
        ttft_s = np.where(np.isnan(rows["first_token_s"]), np.inf, rows["first_token_s"]) - rows["scheduled_s"]
        for name, q in (("p50", 0.5), ("p99", 0.99)):
            stage.ttft_s[name] = float(np.quantile(ttft_s, q, method="inverted_cdf")) if len(rows) else np.nan
            told = [one[f"ttft_{name}"]["closed"] for one in claimed if one]
            stage.claimed_s[name] = float(np.median(told)) if told else np.nan
        whole = [one for one in self._wanted.objectives if one.cohort is None]
        missed = np.any([one.missed(rows) for one in whole], axis=0) if whole else np.zeros(len(rows), bool)
        stage.within = float(1 - missed.mean()) if len(rows) else np.nan

    def _task(self, rate: float) -> Task:
        number = len(self._tasks)
        swept = self._order.scenario.model_copy(update={"vary": {RATE: [rate]}})
        ((point, scenario),) = points(swept)
        seed = self._order.scenario.seed + number
        task = Task(number, point, scenario, seed, self._folder / f"stage-{number}" / f"seed-{seed}", False)
        self._tasks.append(task)
        return task

    def _put_down(self, ended: dict[str, Any]) -> None:
        """Write what a run folder says at its top: its points are the rates played so far."""
        rates = sorted({task.point[RATE] for task in self._tasks})
        scenario = self._order.scenario.model_copy(update={"vary": {RATE: rates} if rates else {}})
        (self._folder / "scenario.yaml").write_text(dump(scenario, self._folder), encoding="utf-8")
        info = play.info_of(self._order, self._found, self._tasks, self._folder, self._command)
        results.write_json(self._folder / "run.json", info | {"valid": True, "wrong": []} | ended)
        results.write_json(self._folder / KEPT, as_json(self.knee, self.stages))

    def _limit(self, rate: float, wrong: Sequence[str]) -> str:
        held = max((stage.rate_per_s for stage in self.stages), default=0.0)
        below = f"the highest rate that it held is {held:g}/s" if held else "it held none"
        return f"not valid: client-limited at {rate:g} requests/s ({'; '.join(wrong)}); {below}; add --workers"


def saturated(found: dict[str, Any]) -> list[str]:
    """Return what makes a play not valid, except requests dropped because too many were in flight.

    Those the endpoint has not answered: they miss the SLO, and the tester is not to blame.
    """
    return tester.wrong({**found, "dropped": 0, "planned": found["planned"] - found["dropped"]})


def asked(task: Task) -> np.ndarray:
    """Return the row that decided each request asked after the warm-up, by the time of asking."""
    table = Member(task.point, task.seed, task.folder).attempts()
    from sim.records import ATTEMPT

    rows = np.zeros(table.num_rows, ATTEMPT)
    for name in ATTEMPT.names or ():
        rows[name] = table[name].to_numpy()
    counted = rows[(rows["last"] == 1) & (rows["scheduled_s"] >= task.scenario.warmup)]
    return np.sort(counted, order="scheduled_s")


def as_json(found: Knee, stages: Sequence[Stage]) -> dict[str, Any]:
    """Return everything for programs."""
    return {
        "knee": found.as_json,
        "stages": [
            {
                **{key: value for key, value in vars(stage).items() if key != "shares"},
                "verdict": stage.verdict,
                "kept": stage.kept,
                "objectives": [
                    {"text": share.objective.text, "requests": share.requests, "missed": share.missed,
                     "low": share.low, "high": share.high, "allowed": share.objective.allowed, "verdict": share.verdict}
                    for share in stage.shares
                ],
            }
            for stage in stages
        ],
    }  # fmt: skip
