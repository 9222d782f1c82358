"""What is compared: a run, or one point and seed of it, and which points of two of them belong together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sim import conclude, results
from sim.errors import InputError, RunError
from sim.report import words
from sim.report.view import Estimate, Point, View, view
from sim.results import Member, Run
from sim.scenario import Scenario
from sim.scenario.paths import get, resolve
from sim.words import count


@dataclass(frozen=True)
class Side:
    """One of the two: where it is, its run, and the points of it that are compared."""

    path: Path
    run: Run
    seen: View

    @property
    def scenario(self) -> Scenario:
        """The scenario that was played."""
        found: Scenario = self.run.scenario
        return found

    @property
    def about(self) -> str:
        """What it is: scenario, simulated or measured, seeds, length, and whether it rests on kernel times alone."""
        seeds = list(dict.fromkeys(member.seed for point in self.seen.points for member in point.members))
        named = f"{count(len(seeds), 'seed')} ({', '.join(map(str, seeds[:5]))}{', ...' if len(seeds) > 5 else ''})"
        said = [self.seen.name, self.seen.kind, named, f"{words.lasting(self.seen.duration_s)} each"]
        repeats = max((len(point.members) for point in self.seen.points), default=0)
        said += [f"{repeats} repeats"] if repeats > len(seeds) else []
        said += [self.seen.kv_note] if self.seen.kv_note else []
        said += ["uncalibrated"] if self.seen.uncalibrated else []
        said += [state] if (state := self.run.info["state"]) != "complete" else []
        return ", ".join(said)


def opened(path: Path) -> Side:
    """Return the run in the folder *path*, or the point and seed that it is the folder of.

    Raises:
        InputError: it is neither.
        RunError: nothing was finished.
    """
    top = next(
        (one for one in (path, *path.parents, *path.resolve().parents[:3]) if (one / "run.json").is_file()), path
    )
    run = Run.open(path if top == path or not (path / "member.json").is_file() else top)
    if not run.members:
        raise RunError(f"{run.path}: nothing was finished ({run.info.get('error') or run.info['state']})")
    if not (run.path / "summary.json").exists():  # its process was killed, or still plays
        conclude.conclude(run)
    if run.path == path:
        return Side(path, run, view(run))
    here = [one for one in (*run.members, *run.controls) if one.path.resolve() == path.resolve()]
    if not here:
        raise InputError(f"{path}: expected the folder of a run, or of a point and seed that one lists in its run.json")
    return Side(path, run, _alone(view(run), here[0]))


def _alone(seen: View, member: Member) -> View:
    """Return *seen* as if nothing but *member* had been played."""
    metrics = {name: words.to_float(value) for name, value in member.info["metrics"].items()}
    nan = float("nan")
    estimates = {name: Estimate(value, nan, nan, (value,)) for name, value in metrics.items()}
    point = Point(dict(member.point), words.point_name(member.point), estimates, (member,))
    return replace(seen, points=[point])


@dataclass(frozen=True)
class Pair:
    """A point of A and the point of B that has the same settings."""

    label: str
    a: Point
    b: Point


def pairs(a: Side, b: Side) -> tuple[list[Pair], list[str]]:
    """Return which points of *a* and *b* have the same values of all that varies in either, and which have no twin.

    Two sides of one point each belong together whatever they are.

    Raises:
        InputError: no point of one is a point of the other.
    """
    if len(a.seen.points) == len(b.seen.points) == 1:
        (one,), (other,) = a.seen.points, b.seen.points
        same = one.label == other.label
        return [Pair(one.label if same else f"{one.label or 'A'} and {other.label or 'B'}", one, other)], []
    paths = list(dict.fromkeys([*a.scenario.vary, *b.scenario.vary]))
    keys = [{_key(side, point, paths): point for point in side.seen.points} for side in (a, b)]
    both = [key for key in keys[0] if key in keys[1]]
    alone = [
        f"only in {name}: {keys[i][key].label or 'its only point'}"
        for i, name in enumerate("AB")
        for key in keys[i]
        if key not in both
    ]
    if not both:
        named = [" ; ".join(point.label or "one point" for point in side.seen.points) for side in (a, b)]
        raise InputError(
            f"no point of {a.path} is one of {b.path} (A: {named[0]}; B: {named[1]}); "
            "to compare two that differ, name the folder of a point and seed, such as point-0/seed-1"
        )
    return [Pair(keys[0][key].label or keys[1][key].label, keys[0][key], keys[1][key]) for key in both], alone


def _key(side: Side, point: Point, paths: Sequence[str]) -> str:
    """Return what identifies a point among those of both sides: its values of *paths*, varied there or not."""
    tree = side.scenario.model_dump(by_alias=True)
    return json.dumps(results.plain([_value(point.values, tree, path) for path in paths]), sort_keys=True)


def _value(values: Mapping[str, Any], tree: Mapping[str, Any], path: str) -> Any:
    if path in values:
        return values[path]
    try:
        return get(tree, resolve(path, tree))
    except (ValueError, KeyError, IndexError, TypeError):
        return None
