"""What tests of shipped scenarios share: a point of one, the number in a claim, and what each must say."""

from sim import claims, scenario
from sim.run import known_metrics
from sim.scenario import Scenario


def at(name: str, index: str, *options: str) -> Scenario:
    """Return the point [*index*] of a shipped scenario, with *options* changed."""
    swept = scenario.points(scenario.load(name, ["claims={}", "rows=none", *options]))
    where = tuple(part.strip() for part in index.split(","))
    return swept[claims.point_of("errors", where, [point for point, _ in swept])][1]


def bound(name: str, claim: str) -> float:
    """Return the number on the right side of a claim."""
    right = claims.parse(scenario.load(name).claims[claim]).right
    assert isinstance(right, claims.Number)
    return right.value


def says_what_it_shows(name: str, fewest: int = 5) -> Scenario:
    """Return a shipped scenario, once it tells its story and makes at least *fewest* claims that are measured."""
    shipped = scenario.load(name)
    assert shipped.name == name
    assert shipped.title
    assert len(shipped.story or "") > 300
    assert shipped.seeds >= 10
    assert len(shipped.claims) >= fewest
    claims.check_metrics(shipped.claims, known_metrics(shipped))
    return shipped
