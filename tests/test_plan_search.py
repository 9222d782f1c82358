"""The search for the cheapest fleet, on fleets whose truth is made up: monotone, wrong at one place, with holes."""

import math
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import RunError
from sim.planning import labels, moves, search
from sim.planning.fleets import Axis, Case, Fleet, Space
from sim.planning.objective import Bound
from sim.planning.prices import Prices
from sim.planning.search import Bench, Condition, Verdict
from sim.planning.trials import Played
from sim.scenario import changed, loads
from tests import planning

Values = tuple[int | str, ...]
SCENARIO = loads(planning.TWO_POOLS)
KINDS = ("a100", "h100", "h200")


class Told(Bench):
    """A bench that plays nothing: fleets in *kept* keep their promises, those in *missing* cannot be played."""

    def __init__(self, space: Space, kept: frozenset[Values], missing: frozenset[Values] = frozenset()) -> None:
        nobody = ThreadPoolExecutor(1)
        super().__init__(space, [Bound("errors", 0.1)], [Case("", lambda one: one)], None, nobody, 10, 0.95, 1)
        self.kept, self.missing = kept, missing

    def refusal(self, fleet: Fleet) -> str:
        return "no such fleet" if fleet.values in self.missing else ""

    def _played(self, fleet: Fleet) -> Verdict:
        self._count["runs"] += 1
        return Verdict(fleet, fleet.values in self.kept)


@st.composite
def truths(draw: st.DrawFn) -> tuple[Space, frozenset[Values]]:
    """Draw fleets of two pools and up to three kinds of hardware, and a set that holds all that has more."""
    first, second = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    kinds = KINDS[: draw(st.integers(1, 3))]
    prices = Prices({kind: float(draw(st.integers(1, 4))) for kind in KINDS})
    pool = ("fleet", "pools", "chat")
    axes = (
        Axis((*pool, "replicas"), tuple(range(1, first + 1))),
        Axis((*pool, "hardware"), kinds),
        Axis(("fleet", "pools", "deep", "replicas"), tuple(range(1, second + 1))),
    )
    space = Space(SCENARIO, axes, prices, draw(st.none() | st.integers(8, 25)))
    least = [
        (draw(st.integers(1, first + 1)), kind, draw(st.integers(1, second + 1)))
        for kind in kinds for _ in range(draw(st.integers(0, 3)))
    ]  # fmt: skip
    kept = frozenset(
        one.values for one in space.fleets
        if any(one.values[1] == kind and one.values[0] >= a and one.values[2] >= b for a, kind, b in least)
    )  # fmt: skip
    return space, kept


def found_by(bench: Bench) -> tuple[Verdict | None, Verdict | None]:
    """The answer, and the next cheaper fleet."""
    found = [one for one in search.cheapest(bench).values() if one is not None]
    assert all(one.kept for one in found)
    return search.settled(bench, min(found, key=lambda one: one.fleet.cost)) if found else (None, None)


@given(truths())
def test_it_is_as_cheap_as_what_trying_all_of_them_finds(truth: tuple[Space, frozenset[Values]]) -> None:
    space, kept = truth
    best, below = found_by(Told(space, kept))
    cheapest = next((one for one in space.fleets if one.values in kept), None)
    assert (best and best.fleet.cost) == (cheapest and cheapest.cost)
    assert below is None or not below.kept


@given(truths(), st.data())
def test_one_fleet_that_is_better_or_worse_than_it_should_be_makes_no_wrong_answer(
    truth: tuple[Space, frozenset[Values]], data: st.DataObject
) -> None:
    """The answer was played and keeps its promises, and the next cheaper one was played and does not."""
    space, kept = truth
    kept ^= {data.draw(st.sampled_from([one.values for one in space.fleets]))}
    best, below = found_by(Told(space, kept))
    if best is not None:
        assert best.fleet.values in kept
        cheaper = [one for one in space.fleets if one.cost < best.fleet.cost]
        assert (below is None) == (not cheaper)
    assert below is None or below.fleet.values not in kept


@given(truths(), st.data())
def test_fleets_that_cannot_be_played_hide_none_that_can(
    truth: tuple[Space, frozenset[Values]], data: st.DataObject
) -> None:
    """Too few replicas for a fault, too many for an autoscaler: of each chain the ends, or all."""
    space, kept = truth
    rungs = space.axes[0].values
    low, high = data.draw(st.integers(0, max(rungs))), data.draw(st.integers(1, max(rungs) + 1))
    missing = frozenset(one.values for one in space.fleets if not low <= one.values[0] <= high)
    best, below = found_by(Told(space, kept, missing))
    cheapest = next((one for one in space.fleets if one.values in kept - missing), None)
    assert (best and best.fleet.cost) == (cheapest and cheapest.cost)
    assert below is None or below.refused or not below.kept


@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 45), st.integers(0, 8), st.integers(0, 8))
def test_from_wherever_it_begins_the_least_fleet_of_a_chain_is_found(
    length: int, least: int, begin: int, low: int, high: int
) -> None:
    """Up or down; a few at either end may be fleets that cannot be played."""
    axis = Axis(("fleet", "pools", "chat", "replicas"), tuple(range(1, length + 1)))
    space = Space(SCENARIO, [axis], Prices({"h100": 2.0}))
    missing = frozenset((n,) for n in range(1, length + 1) if n <= low or n > length - high)
    kept = frozenset((n,) for n in range(least, length + 1)) - missing
    bench = Told(space, kept, missing)
    found = search.least_from(bench, space.fleets, begin)
    assert (found and found.fleet.values) == min(kept, default=None)
    assert bench.played <= 2 * math.log2(length + 1) + 2


def test_what_is_found_on_another_bench_is_not_known_here_but_its_runs_are_counted() -> None:
    space = Space(SCENARIO, [Axis(("fleet", "pools", "chat", "replicas"), (1, 2, 3))], Prices({"h100": 2.0}))
    bench = Told(space, frozenset({(3,)}))
    other = bench.other(lambda one: one)
    assert search.least_from(other, space.fleets, 0) is not None
    assert not bench.known
    assert bench.played == other.played == 3


class Easy(Told):
    """Every fleet that physics allows keeps its promises; nothing is played."""

    def refusal(self, fleet: Fleet) -> str:
        return Bench.refusal(self, fleet)

    def _played(self, fleet: Fleet) -> Verdict:
        (bound,) = self.bounds
        return Verdict(fleet, True, (Condition("", (), (), labels.STABLE, True, bound),))

    def pairs(self, fleet: Fleet, most: int) -> tuple[Played, ...]:
        return ()


def test_steps_faster_than_physics_allows_are_no_input_that_no_fleet_is_enough_for() -> None:
    """Tabulated times of an H200 are within 2% of what its memory takes, and 15% in doubt."""
    scenario = loads(planning.CHAT.replace("h100", "h200"))
    space = Space(scenario, [Axis(("fleet", "pools", "main", "replicas"), (1, 2))], Prices({"h200": 2.0}))
    bench = Easy(space, frozenset())
    ends = {move.name: [side.end for side in move.sides] for move in moves.of(bench, bench.judge(space.fleets[0]))}
    assert ends["step time"] == ["+15%"]
    assert ends["KV memory"] == ["−10%", "+10%"]
    fuller = changed(scenario, {("fleet", "pools", "main", "gpu_memory_utilization"): 0.98})
    bench = Easy(Space(fuller, space.axes, space.prices), frozenset())
    ends = {move.name: [side.end for side in move.sides] for move in moves.of(bench, bench.judge(space.fleets[0]))}
    assert ends["KV memory"] == ["−10%"]


class Lucky(Told):
    """Some of its fleets keep their promises only at first sight."""

    lucky: frozenset[Values] = frozenset()

    def confirmed(self, verdict: Verdict) -> Verdict:
        sure = Verdict(verdict.fleet, verdict.fleet.values not in self.lucky)
        self.known[verdict.fleet.values] = sure
        return sure


@given(truths(), st.data())
def test_fleets_that_were_lucky_are_not_the_answer(truth: tuple[Space, frozenset[Values]], data: st.DataObject) -> None:
    space, kept = truth
    bench = Lucky(space, kept)
    bench.lucky = frozenset(data.draw(st.sets(st.sampled_from([one.values for one in space.fleets]), max_size=4)))
    kinds, best, below = search.best_of(bench)
    really = kept - bench.lucky
    assert bool(best) == bool(kinds)
    if best is not None:
        assert best.fleet.values in really
        assert below is None or below.fleet.cost < best.fleet.cost
    if not bench.lucky:
        cheapest = next((one for one in space.fleets if one.values in kept), None)
        assert (best and best.fleet.cost) == (cheapest and cheapest.cost)


def test_a_long_chain_takes_few_plays() -> None:
    space = Space(
        SCENARIO, [Axis(("fleet", "pools", "chat", "replicas"), tuple(range(1, 1001)))], Prices({"h100": 2.0})
    )
    bench = Told(space, frozenset((n,) for n in range(37, 1001)))
    best, below = found_by(bench)
    assert best is not None
    assert below is not None
    assert (best.fleet.values, below.fleet.values) == ((37,), (36,))
    assert bench.played <= 14


class Gone(Executor):
    """An executor whose processes were killed."""

    def submit(self, fn: object, /, *args: object, **kwargs: object) -> "Future[object]":  # type: ignore[override]
        future: Future[object] = Future()
        future.set_exception(BrokenProcessPool("a process was terminated abruptly"))
        return future


def test_a_worker_that_was_killed_is_a_sentence() -> None:
    scenario = planning.read(planning.MEMORY)
    space = planning.space_of(scenario, {"replicas": range(1, 4)}, {"none": 1.0})
    bench = planning.bench_of(space, "ttft_p99 < 1s", Gone())
    with pytest.raises(RunError, match="as it is, seed 1: whoever played it was killed or is gone"):
        bench.judge(space.fleets[0])
