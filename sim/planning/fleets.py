"""Which fleets there are to choose from: every combination of what may vary, with what each costs an hour."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sim import scenario as scenarios
from sim.errors import InputError, ScenarioError
from sim.planning.prices import Prices
from sim.scenario import Scenario
from sim.scenario.messages import dotted
from sim.scenario.paths import Keys, resolve
from sim.words import show

MOST_FLEETS = 200_000
RUNG = "replicas"
"""The setting of which more is never worse, and always dearer: where the search climbs."""


@dataclass(frozen=True)
class Axis:
    """One setting that may vary: its keys in the scenario, its name, and its values; a rung's are in rising order."""

    keys: Keys
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """What a table calls it: ``chat.replicas``, or ``replicas`` of the only pool."""
        return ".".join(str(key) for key in self.keys if key not in ("fleet", "pools"))

    @property
    def is_rung(self) -> bool:
        """Whether more of it is never worse."""
        return self.keys[-1] == RUNG


@dataclass(frozen=True)
class Fleet:
    """One candidate: a value of every axis, in their order; what it costs an hour, and how many GPUs it has."""

    values: tuple[Any, ...]
    cost: float
    gpus: int


class Space:
    """All fleets that a plan may choose from."""

    def __init__(self, scenario: Scenario, axes: Sequence[Axis], prices: Prices, most_gpus: int | None = None) -> None:
        """Combine *axes* around *scenario*; fleets of more than *most_gpus* are left out.

        Raises:
            InputError: too many, none, or hardware that has no price.
        """
        self.scenario, self.prices, self.most_gpus = scenario, prices, most_gpus
        self.axes = tuple(axes)
        self.rungs = [i for i, axis in enumerate(self.axes) if axis.is_rung]
        self.kinds = [i for i, axis in enumerate(self.axes) if not axis.is_rung]
        if (size := math.prod(len(axis.values) for axis in self.axes)) > MOST_FLEETS:
            raise InputError(f"--vary: expected at most {MOST_FLEETS:,} fleets, got {size:,}; vary less, or in steps")

    @cached_property
    def fleets(self) -> list[Fleet]:
        """Every fleet, the cheapest first; of equally dear ones in the order in which they were named."""
        found = [self.fleet(values) for values in itertools.product(*(axis.values for axis in self.axes))]
        found = [one for one in found if self.most_gpus is None or one.gpus <= self.most_gpus]
        if not found:
            raise InputError(f"--gpus: every fleet has more than {self.most_gpus}; expected more, or fewer replicas")
        return sorted(found, key=lambda one: one.cost)

    def fleet(self, values: tuple[Any, ...]) -> Fleet:
        """Return the fleet with *values*, one an axis."""
        chosen = dict(zip((axis.keys for axis in self.axes), values))
        gpus, cost = 0, 0.0
        for name, pool in self.scenario.fleet.pools.items():
            at = ("fleet", "pools", name)
            count = chosen.get((*at, "replicas"), pool.replicas)
            count *= chosen.get((*at, "tensor_parallel"), pool.tensor_parallel)
            gpus += count
            cost += count * self.prices.of(chosen.get((*at, "hardware"), pool.hardware))
        return Fleet(values, cost, gpus)

    def kind(self, fleet: Fleet) -> tuple[Any, ...]:
        """Return the kind of *fleet*: its values of what is no rung."""
        return tuple(fleet.values[i] for i in self.kinds)

    def chains(self) -> Iterator[tuple[tuple[Any, ...], list[list[Fleet]]]]:
        """Yield each kind (values of what is no rung) with its chains: fleets that differ in the longest rung only."""
        kinds: dict[tuple[Any, ...], dict[tuple[Any, ...], list[Fleet]]] = {}
        longest = max(self.rungs, key=lambda i: len(self.axes[i].values), default=None)
        for one in self.fleets:
            kind = self.kind(one)
            rest = tuple(one.values[i] for i in self.rungs if i != longest)
            kinds.setdefault(kind, {}).setdefault(rest, []).append(one)
        for kind, chains in kinds.items():
            yield kind, list(chains.values())

    def settings(self, fleet: Fleet) -> dict[Keys, Any]:
        """Return what *fleet* sets in the scenario."""
        return dict(zip((axis.keys for axis in self.axes), fleet.values))

    def words(self, fleet: Fleet, short: bool = False) -> str:
        """Return *fleet* in words, such as ``4 x h100``, ``chat: 4 replicas; deep: 1 replica, max_num_seqs 64``.

        Of several pools in *short*: ``chat 4 + deep 1, max_num_seqs 64``.
        """
        several = len(self.scenario.fleet.pools) > 1
        said: dict[str, list[str]] = {}
        chosen = {axis.keys: value for axis, value in zip(self.axes, fleet.values)}
        for keys, value in chosen.items():
            whose = str(keys[2]) if several and keys[:2] == ("fleet", "pools") else ""
            parts = said.setdefault(whose, [])
            hardware = chosen.get((*keys[:-1], "hardware"))
            match keys[-1]:
                case "replicas" if hardware is not None:
                    parts.insert(0, f"{value} x {hardware}")
                case "replicas" if short and several:
                    parts.insert(0, str(value))
                case "replicas":
                    parts.insert(0, f"{value} replica{'' if value == 1 else 's'}")
                case "hardware" if (*keys[:-1], "replicas") in chosen:
                    pass
                case "hardware" | "model":
                    parts.append(str(value))
                case _:
                    parts.append(f"{keys[-1]} {show(value)}")
        colon, between = (" ", " + ") if short else (": ", "; ")
        words = [f"{whose}{colon if whose else ''}{', '.join(parts)}" for whose, parts in said.items()]
        return between.join(words) or "as the scenario says"

    def at_least(self, one: Fleet, other: Fleet) -> bool:
        """Return whether *one* has everything that *other* has: the same kind, and no rung lower."""
        same = all(one.values[i] == other.values[i] for i in self.kinds)
        return same and all(one.values[i] >= other.values[i] for i in self.rungs)


def axes(scenario: Scenario, varied: Mapping[str, Sequence[Any]]) -> list[Axis]:
    """Return what *varied* (path as typed -> values) lets vary; without replicas, those of the only pool from 1 to 64.

    Paths may leave out ``fleet.``; a setting of the only pool may leave out ``pools.NAME.`` too.

    Raises:
        InputError: no such setting of the fleet, or a value that it cannot have.
    """
    tree = scenario.model_dump(by_alias=True)
    found: dict[Keys, Axis] = {}
    for path, values in varied.items():
        try:
            keys = resolve(path if path.startswith("fleet.") else f"fleet.{path}", tree)
        except ValueError as error:
            raise InputError(f"--vary {path}: {error}") from None
        if keys in found:
            raise InputError(f"--vary {path}: expected each setting once")
        if not values:
            raise InputError(f"--vary {path}: expected values, got none")
        if keys[-1] == RUNG and not all(type(value) is int and value >= 1 for value in values):
            raise InputError(f"--vary {path}: expected whole numbers from 1 on, such as 1:32, got {show(values[0])}")
        if len(set(map(str, values))) < len(values):
            raise InputError(f"--vary {path}: expected each value once")
        for value in values if keys[-1] != RUNG else ():
            _check(scenario, keys, value, path)
        found[keys] = Axis(keys, tuple(sorted(values)) if keys[-1] == RUNG else tuple(values))
    for name in scenario.fleet.pools:
        keys = ("fleet", "pools", name, RUNG)
        if not any(axis.is_rung for axis in found.values()) and len(scenario.fleet.pools) == 1 and keys not in found:
            found[keys] = Axis(keys, tuple(range(1, 65)))
    return list(found.values())


def replaces(varied: Iterable[str], pool: str) -> bool:
    """Return whether fleets of *varied* paths, as typed, are none of them built with *pool* as the scenario has it."""
    paths = [path.split(".") for path in varied]
    return any(keys[-1] != RUNG and ("pools" not in keys or pool in keys) for keys in paths)


def _check(scenario: Scenario, keys: Keys, value: Any, path: str) -> None:
    """Refuse a *value* that the setting can never have; what contradicts only some fleets is no matter here."""
    try:
        scenarios.changed(scenario, {keys: value})
    except ScenarioError as error:
        field, _, said = str(error).splitlines()[0].partition(": ")
        if field == dotted(keys):
            raise InputError(f"--vary {path}: {said}") from None


# --- what a fleet has to live through -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A condition under which a fleet has to keep its promises: its name, and the scenario of a fleet under it."""

    name: str
    of: Callable[[Scenario], Scenario]


def cases(scenario: Scenario, survive: int, under: Scenario | None) -> list[Case]:
    """Return what every fleet is judged under, the hardest first.

    With *survive* replicas fewer in each pool in turn; with what goes wrong in *under*; and as it is.

    Raises:
        InputError: nothing goes wrong in *under*.
    """
    if under is not None and not (under.faults or under.control):
        raise InputError(f"--under {under.name}: expected a scenario in which something goes wrong, got no faults")
    found = []
    for name in scenario.fleet.pools if survive else ():
        without = f"without {survive} replica{'' if survive == 1 else 's'}"
        found.append(Case(without if len(scenario.fleet.pools) == 1 else f"{without} of {name}", _fewer(name, survive)))
    if under is not None:
        found.append(Case(f"under {under.name}", _trouble(under)))
    found.append(Case("as it is", lambda one: one))
    return found


def _fewer(name: str, survive: int) -> Callable[[Scenario], Scenario]:
    def of(scenario: Scenario) -> Scenario:
        keys = ("fleet", "pools", name, RUNG)
        left = scenario.fleet.pools[name].replicas - survive
        if left < 1:
            raise InputError(f"nothing is left of {name} without {survive}")
        return scenarios.changed(scenario, {keys: left})

    return of


def _trouble(under: Scenario) -> Callable[[Scenario], Scenario]:
    def of(scenario: Scenario) -> Scenario:
        told = under.model_dump(by_alias=True)
        faults, control = told["faults"], told["control"]
        mine, theirs = list(scenario.fleet.pools), list(under.fleet.pools)
        if len(mine) == len(theirs) == 1:
            faults, control = (_renamed(one, theirs[0], mine[0]) for one in (faults, control))
        for name, pool in scenario.fleet.pools.items():
            faults, control = (_nearer(one, name, pool.replicas) for one in (faults, control))
        settings: dict[Keys, Any] = {("duration",): under.duration, ("warmup",): under.warmup}
        return scenarios.changed(scenario, {**settings, ("faults",): faults, ("control",): control})

    return of


def _renamed(tree: Any, old: str, new: str) -> Any:
    """Return *tree* with pool *old* called *new*, in targets such as ``old/3`` too."""
    if isinstance(tree, dict):
        return {key: _renamed(value, old, new) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_renamed(value, old, new) for value in tree]
    if isinstance(tree, str) and (tree == old or tree.startswith(f"{old}/")):
        return new + tree.removeprefix(old)
    return tree


def _nearer(tree: Any, pool: str, replicas: int) -> Any:
    """Return *tree* with targets such as ``pool/3`` no further than the last of so many *replicas*.

    One bad replica is no reason for a fleet that has it: a smaller one has a bad replica too.
    """
    if isinstance(tree, dict):
        return {key: _nearer(value, pool, replicas) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_nearer(value, pool, replicas) for value in tree]
    if isinstance(tree, str) and (match := re.fullmatch(rf"{re.escape(pool)}/(\d+)", tree)):
        return f"{pool}/{min(int(match[1]), replicas - 1)}"
    return tree


# --- how much comes ---------------------------------------------------------------------------------------------------

PEAK_S = 3600.0
PEAK_WARMUP_S = 600.0


def at_peak(scenario: Scenario) -> tuple[Scenario, str]:
    """Return *scenario* at its busiest, and a sentence that says so where something was changed.

    A daily curve, or a load in stages, becomes an hour at its highest rate; everything else stays. With faults
    nothing changes, for they have their times.
    """
    load = scenario.workload
    process = load.arrivals
    if isinstance(process, str) or scenario.faults or load.trace is not None:
        return scenario, ""
    kind, what = process.choice
    if kind == "diurnal" and load.rate_per_s is not None:
        rate, whose = load.rate_per_s * what.peak_to_mean, "the peak of its day"
    elif kind == "piecewise":
        rate, whose = max(stage.rate_per_s for stage in what), "its highest stage"
    else:
        return scenario, ""
    length_s = min(scenario.duration, PEAK_S)
    warmup_s = min(scenario.warmup, PEAK_WARMUP_S, length_s / 6)
    settings: dict[Keys, Any] = {("workload", "arrivals"): "poisson", ("workload", "rate_per_s"): rate}
    peak = scenarios.changed(scenario, {**settings, ("duration",): length_s, ("warmup",): warmup_s})
    return peak, f"played at {whose}, {rate:,.4g} requests/s for {length_s / 60:g} min"


def scaled(scenario: Scenario, factor: float) -> Scenario:
    """Return *scenario* with *factor* times the requests."""
    load = scenario.workload
    if load.trace is not None:
        return scenarios.changed(scenario, {("workload", "trace", "time_scale"): load.trace.time_scale / factor})
    settings: dict[Keys, Any] = {}
    if load.rate_per_s is not None:
        settings["workload", "rate_per_s"] = load.rate_per_s * factor
    if not isinstance(load.arrivals, str):
        kind, what = load.arrivals.choice
        if kind == "piecewise":
            stages = [{"at": one.at, "rate_per_s": one.rate_per_s * factor} for one in what]
            settings["workload", "arrivals"] = {"piecewise": stages}
        elif kind == "bursts":
            settings["workload", "arrivals", "bursts", "rate_per_s"] = what.rate_per_s * factor
        elif kind == "closed":
            settings["workload", "arrivals", "closed", "users"] = max(1, round(what.users * factor))
    return scenarios.changed(scenario, settings)


def calibrated(scenario: Scenario, factors: Mapping[str, float]) -> Scenario:
    """Return *scenario* with every step of a pool taking its one of *factors* (pool -> factor) times as long."""
    settings: dict[Keys, Any] = {
        ("fleet", "pools", name, "calibration"): scenario.fleet.pools[name].calibration * factor
        for name, factor in factors.items()
        if factor != 1.0
    }
    return scenarios.changed(scenario, settings) if settings else scenario
