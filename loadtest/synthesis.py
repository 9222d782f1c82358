"""A scenario out of a few options, for who has none: Poisson users, or a closed circle of them."""

from collections.abc import Callable
from typing import Any

from sim import scenario as scenarios
from sim.errors import InputError
from sim.scenario import Scenario
from sim.units import duration_s

OPTIONS: dict[str, tuple[Callable[[str], Any], Any, str]] = {
    "rate": (float, 1.0, "Requests a second, Poisson"),
    "duration": (str, "1m", "Length of the run"),
    "prompt_tokens": (int, 256, "Tokens of each prompt"),
    "output_tokens": (int, 128, "Tokens of each answer"),
    "closed": (int, 0, "Users in a closed loop, in place of a rate (0: open loop)"),
}
"""What there is to choose: its type, default and words."""

CLOSED_THINK_S = 0.001
"""Users of a closed loop ask again at once."""
_MOST_SCRAPES = 60


def scenario(
    rate: float, duration: str, prompt_tokens: int, output_tokens: int, closed: int = 0, seed: int = 1
) -> Scenario:
    """Return a scenario of one kind of user; its fleet is a stand-in, for nothing is known of the endpoint's.

    Raises:
        InputError: an option that is no duration, rate or length.
    """
    try:
        seconds = duration_s(duration)
    except ValueError as error:
        raise InputError(f"--duration: {error}") from None
    arrivals: dict[str, Any] = {"rate_per_s": rate}
    if closed:
        arrivals = {"arrivals": {"closed": {"users": closed, "think": CLOSED_THINK_S}}}
    tree = {
        "name": "load",
        "title": "Load test",
        "duration": seconds,
        "seed": seed,
        "scrape_interval": min(15.0, max(1.0, seconds / _MOST_SCRAPES)),
        "fleet": {"kv_blocks": 100_000, "step_time": {"linear": {"base": "10ms"}}},
        "workload": {**arrivals, "cohorts": {"all": {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens}}},
    }
    from sim.scenario.document import write

    return scenarios.loads(write(tree), "the options")
