"""Targets: which replicas of which pool ``chat``, ``chat/3``, ``chat/0-4`` and ``chat/zone-1`` mean."""

from sim.scenario.control import Autoscale
from sim.scenario.models import Scenario
from sim.words import not_among

EVERYBODY = "all"
"""The target of `surge` and `shift` that means every cohort."""


def largest(scenario: Scenario, name: str) -> int:
    """Return how many replicas pool *name* may ever have; those beyond its `replicas` are off at first."""
    pool = scenario.fleet.pools[name]
    asked = [one.max for one in scenario.control if isinstance(one, Autoscale) and one.autoscale == name]
    return max(pool.replicas, pool.max_replicas or 0, *asked)


def members(scenario: Scenario, target: str) -> tuple[str, range]:
    """Return the pool that *target* names, and the indexes in it of the replicas that it means.

    Raises:
        ValueError: there is no such pool, replica or zone; a sentence.
    """
    name, _, part = target.partition("/")
    if name not in scenario.fleet.pools:
        raise ValueError(not_among(name, "pool", scenario.fleet.pools))
    count, zones = largest(scenario, name), scenario.fleet.pools[name].zones
    if not part:
        return name, range(count)
    if part.startswith("zone-"):
        zone = int(part.removeprefix("zone-"))
        if zone >= min(zones, count):
            raise ValueError(f"expected a zone of {name} from 0 to {min(zones, count) - 1}, got {zone}")
        return name, range(zone, count, zones)
    first, _, last = part.partition("-")
    begin, end = int(first), int(last or first)
    if max(begin, end) >= count:
        raise ValueError(f"expected replicas of {name} from 0 to {count - 1}, got {max(begin, end)}")
    if begin > end:
        raise ValueError(f"expected the first of the replicas before the last, got {part}")
    return name, range(begin, end + 1)
