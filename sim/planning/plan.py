"""A plan: the cheapest fleet that keeps its promises, why the next cheaper one does not, and how long it will do."""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from sim import scenario as scenarios
from sim.engine.hardware import resolve
from sim.errors import InputError
from sim.planning import doubt as doubts
from sim.planning import fleets, headroom, moves, reasons, search
from sim.planning.doubt import Doubt
from sim.planning.fleets import Axis, Case, Fleet, Space
from sim.planning.headroom import Growth, Knee, Outlook
from sim.planning.moves import Move
from sim.planning.objective import Bound, Jury
from sim.planning.playing import GOOD
from sim.planning.prices import Prices
from sim.planning.reasons import Reason
from sim.planning.search import Bench, Verdict
from sim.scenario import Scenario
from sim.scenario.control import Autoscale
from sim.words import count

FEW_REQUESTS = 1000
BEYOND = re.compile(r"(?P<pool>.+: outside the profile): (?P<most>[\d,]+) (?P<what>.+), and it was measured up to .+")
"""A note on what a run met and nobody measured, as `sim.engine.profiles.Profile.beyond` words it."""
NO_ROWS = "no rows are kept"
"""Begins a note that every run of a plan has, and that says nothing here."""
LOOKS_S = 60.0
"""Time between looks at a fleet on which nobody acts: each costs as much as hundreds of requests."""


@dataclass(frozen=True)
class Question:
    """What is asked of a plan."""

    scenario: Scenario
    bounds: tuple[Bound, ...]
    axes: tuple[Axis, ...]
    prices: Prices
    survive: int = 0
    under: Scenario | None = None
    growth: Growth | None = None
    most_gpus: int | None = None
    seeds: int = 10
    confidence: float = 0.95
    model_error: float | None = None


@dataclass(frozen=True)
class Money:
    """What a fleet costs: an hour; at the load that was played, a million output tokens and a thousand answers.

    ``thousand_right`` counts right answers, however late; ``thousand_good`` those within what is promised of a
    percentile of TTFT or e2e, and is infinite where nothing is.
    """

    hour: float
    million_tokens: float
    thousand_right: float
    thousand_good: float


@dataclass(frozen=True)
class Plan:
    """The answer. ``best`` is None where no fleet keeps the promises; ``nearest`` is then the one that misses least.

    ``below`` is the next cheaper fleet of all, and ``fewer`` the one with fewer replicas of the same kind where that
    is another; both were played and break a promise. Knees are factors on the planned load.
    """

    question: Question
    space: Space
    cases: tuple[Case, ...]
    doubt: Doubt
    best: Verdict | None
    below: Verdict | None
    fewer: Verdict | None
    nearest: Verdict | None
    known: tuple[Verdict, ...]
    knee: Knee | None
    knee_of_one: Knee | None
    moves: tuple[Move, ...]
    outlook: tuple[Outlook, ...]
    assumptions: tuple[str, ...]
    runs: int

    @property
    def scenario(self) -> Scenario:
        """The scenario that was played, at its peak."""
        return self.space.scenario

    def money(self, verdict: Verdict) -> Money:
        """Return what the fleet of *verdict* costs, at the load that it was played with."""
        rates = [run.metrics for run in verdict.conditions[-1].runs if run.metrics]
        hour = verdict.fleet.cost

        def each(name: str, number: float) -> float:
            per_s = sum(one.get(name, 0.0) for one in rates) / len(rates) if rates else math.nan
            return hour / 3600 / per_s * number if per_s > 0 else math.inf

        return Money(hour, each("throughput_tokens_per_s", 1e6), each("goodput_per_s", 1e3), each(GOOD, 1e3))

    def reason(self, verdict: Verdict) -> Reason:
        """Return why the fleet of *verdict* fails, or what it is nearest to failing in."""
        return reasons.of(verdict.failed or max(verdict.conditions, key=lambda one: one.excess))

    @property
    def origin(self) -> str:
        """What has to stand by every table and figure: that it is simulated, and whether on measured step times."""
        played = (run for one in self.known for condition in one.conditions for run in condition.runs)
        return "simulated, uncalibrated" if any(run.uncalibrated for run in played) else "simulated"

    @property
    def days_left(self) -> float:
        """How many days of growth the fleet holds; infinite where nothing grows."""
        if self.question.growth is None or self.knee is None:
            return math.inf
        return self.question.growth.until(self.knee.keeps)


def make(
    question: Question,
    executor: Executor,
    at_once: int,
    tell: Callable[[str], None] = lambda what: None,
    check: Callable[[], None] = lambda: None,
) -> Plan:
    """Return the answer to *question*, played on *executor*, *at_once* runs at a time.

    *tell* hears what is played; *check* is called after each run, and may raise to end it.

    Raises:
        InputError: a question without an answer: no fleets, none that can be played, no price, two seeds, no trouble.
    """
    bench, first, at_peak = _begun(question, executor, at_once, tell, check)
    space, cases = bench.space, bench.cases
    kept, best, below = search.best_of(bench)
    fewer, knee, knee_of_one = None, None, None
    moved: tuple[Move, ...] = ()
    later: tuple[Outlook, ...] = ()
    if best is not None:
        fewer = _fewer(bench, best, below)
        chosen = bench.scenario(best.fleet)
        knee = headroom.knee(bench, chosen, cases, kept=not best.overloaded)
        knee_of_one = _knee_of_one(bench, chosen, knee if len(cases) == 1 else None)
        moved = tuple(moves.of(bench, best)) if space.rungs else ()
        later = tuple(headroom.outlook(bench, question.growth, [*kept, best])) if question.growth else ()
    doubt = doubts.of(bench.scenario(best.fleet if best else first), question.model_error)
    return Plan(
        question,
        space,
        cases,
        doubt,
        best,
        below,
        fewer,
        None if best else _nearest(bench),
        tuple(bench.known.values()),
        knee,
        knee_of_one,
        moved,
        later,
        tuple(filter(None, (at_peak, *doubt.said, *_notes(bench, best, (below, fewer))))),
        bench.played,
    )


def _begun(
    question: Question,
    executor: Executor,
    at_once: int,
    tell: Callable[[str], None],
    check: Callable[[], None],
) -> tuple[Bench, Fleet, str]:
    """Return the bench for *question*, the cheapest fleet that can be played on it, and what is said of the peak.

    Raises:
        InputError: as `make`.
    """
    if question.seeds < 3:
        raise InputError(f"--seeds: expected at least 3, or nothing can be said of the next run, got {question.seeds}")
    scenario, at_peak = fleets.at_peak(lean(question.scenario))
    space = Space(scenario, question.axes, question.prices, question.most_gpus)
    if question.survive and not space.rungs:
        raise InputError("--survive: expected replicas that vary, such as --vary replicas=1:32")
    cases = fleets.cases(scenario, question.survive, question.under)
    error = question.model_error
    bench = Bench(
        space, question.bounds, cases, error, executor, question.seeds, question.confidence, at_once, tell, check
    )
    first = next((fleet for fleet in space.fleets if not bench.refusal(fleet)), None)
    if first is None:
        words, why = space.words(space.fleets[-1]), bench.refusal(space.fleets[-1])
        raise InputError(f"no fleet that may be chosen can be played; {words}: {why}")
    moved, most = " and with inputs moved" if space.rungs else "", Jury(bench.bounds, bench.seeds, bench.confidence)
    tell(
        f"{count(len(space.fleets), 'fleet')} to choose from, at most {question.seeds} seeds each; the chosen one "
        f"again, up to {most.enough} runs, with more load{moved}"
    )
    return bench, first, at_peak


def lean(scenario: Scenario) -> Scenario:
    """Return *scenario* without what a plan has no use for: sweep, claims, alerts, series where nobody needs them."""
    settings: dict[tuple[str | int, ...], Any] = {("alerts",): [], ("expect",): {}, ("rows",): "none"}
    if scenario.quality is None and not scenario.control:
        settings["telemetry",] = None
        settings["scrape_interval",] = max(scenario.scrape_interval, LOOKS_S)
    return scenarios.changed(scenario, settings)


def _fewer(bench: Bench, best: Verdict, below: Verdict | None) -> Verdict | None:
    """Return the fleet of the same kind with one rung less, unless it is *below* or cannot be built."""
    space = bench.space
    same = [one for one in space.fleets if one.cost < best.fleet.cost and space.at_least(best.fleet, one)]
    if not same or (below is not None and same[-1].values == below.fleet.values):
        return None
    found = bench.judge(same[-1])
    return found if found.conditions else None


def _knee_of_one(bench: Bench, chosen: Scenario, known: Knee | None) -> Knee | None:
    """Return the load that one replica holds, as a factor on the planned load; None with several pools.

    *known* is that of the fleet itself, where nothing is taken from it.
    """
    if len(chosen.fleet.pools) != 1:
        return None
    ((name, pool),) = chosen.fleet.pools.items()
    if pool.replicas == 1 and known is not None:
        return known
    one = scenarios.changed(chosen, {("fleet", "pools", name, "replicas"): 1})
    return headroom.knee(bench, one, [Case("one replica", lambda same: same)], 1 / pool.replicas)


def _nearest(bench: Bench) -> Verdict | None:
    """Return the fleet that misses its promises least; of each kind the dearest is played for it."""
    for _, chains in bench.space.chains():
        fleets_ = sorted(itertools.chain(*chains), key=lambda one: -one.cost)
        next(filter(lambda one: not bench.judge(one).refused, fleets_), None)
    played = [one for one in bench.known.values() if one.failed]
    return min(played, key=lambda one: one.failed.excess if one.failed else math.inf, default=None)


def _beyond(space: Space, verdicts: Sequence[Verdict]) -> list[str]:
    """Return a note a quantity that was met outside a profile: the most of it in runs of *verdicts*, and by which."""
    most: dict[tuple[str, str], tuple[int, str]] = {}
    for verdict in verdicts:
        for note in (note for one in verdict.conditions for run in one.runs for note in run.notes):
            if found := BEYOND.fullmatch(note):
                met, key = int(found["most"].replace(",", "")), (found["pool"], found["what"])
                if met > most.get(key, (0, ""))[0]:
                    most[key] = met, f"{note}; met by {space.words(verdict.fleet)}, the most of those that decide"
    return [note for _, note in most.values()]


def _notes(bench: Bench, best: Verdict | None, beside: Sequence[Verdict | None]) -> Sequence[str]:
    """Return what a reader has to know of the runs that were played; those *beside* the chosen fleet decide too."""
    runs = [run for verdict in bench.known.values() for one in verdict.conditions for run in one.runs if run.metrics]
    notes: dict[str, None] = {}
    chosen = bench.scenario(best.fleet) if best else bench.space.scenario
    for name, pool in chosen.fleet.pools.items():
        spec = resolve(pool, where=name)
        notes |= dict.fromkeys((f"pool {name}: step times: {spec.provenance}", *spec.notes))
    shown = [run for one in best.conditions for run in one.runs] if best else runs
    said = (note for run in shown for note in run.notes if ": step times: " not in note and NO_ROWS not in note)
    notes |= dict.fromkeys(note for note in said if not BEYOND.fullmatch(note))
    deciding = [one for one in bench.known.values() if best is None or one.kept or one in beside]
    notes |= dict.fromkeys(_beyond(bench.space, deciding))
    for one in itertools.chain(*(case.of(chosen).control for case in bench.cases)) if best else ():
        if isinstance(one, Autoscale):
            notes[f"an autoscaler may add replicas of {one.autoscale}, up to {one.max}: prices are without them"] = None
    few = min((run.metrics["requests"] for run in runs), default=math.inf)
    if few < FEW_REQUESTS:
        notes[f"few samples: with {few:,.0f} requests a run, a P99 rests on the slowest handful"] = None
    refused = [one for one in bench.known.values() if one.refused]
    if refused:
        words = bench.space.words(refused[0].fleet)
        notes[f"some fleets cannot be played, such as {words}: {refused[0].refused}"] = None
    return list(notes)
