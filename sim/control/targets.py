"""Targets of a scenario as the fleet's own numbers: replicas, pools and cohorts by index."""

from sim.control.stage import Stage
from sim.scenario import targets


def pool(stage: Stage, name: str) -> int:
    """Return the index of pool *name*."""
    return list(stage.scenario.fleet.pools).index(name)


def replicas(stage: Stage, target: str) -> list[int]:
    """Return the replicas that *target* means, those that are off among them."""
    name, members = targets.members(stage.scenario, target)
    first = int(stage.fleet.pools[pool(stage, name)].first)
    return [first + member for member in members]


def cohorts(stage: Stage, target: str) -> list[int]:
    """Return the cohorts that *target*, a name or ``all``, means."""
    names = list(stage.scenario.workload.cohorts)
    return list(range(len(names))) if target == targets.EVERYBODY else [names.index(target)]


def replica_name(stage: Stage, replica: int) -> str:
    """Return what events call *replica*: ``chat/3``."""
    for name, one in zip(stage.scenario.fleet.pools, stage.fleet.pools):
        if one.first <= replica < one.first + one.count:
            return f"{name}/{replica - int(one.first) + stage.before.get(name, 0)}"
    raise ValueError(f"no replica {replica}")


def said(stage: Stage, target: str) -> str:
    """Return what events call *target*: as it is written, but for some replicas of a cell, which count in the fleet."""
    name, _, part = target.partition("/")
    if not (before := stage.before.get(name, 0)) or not part or part.startswith("zone-"):
        return target
    return f"{name}/{'-'.join(str(int(number) + before) for number in part.split('-'))}"
