"""What does it cost to judge, gate, review, evaluate and watch ten million answers a day?

python -m benchmarks.quality [--hours 24] [--times 3]

Plays hours of `ten-million-users` without and with all of it, in turn, and prints the seconds of CPU of each. The rate
is the day's mean all the time, so that a few hours say what a day would.
"""

import argparse
import statistics
import time

from sim import scenario
from sim.world import World

QUALITY = (
    "quality={causes: {dates: {error: 90%, share: 0.1%}, edit: {error: 0.1%, kind: format, version: edit}, "
    "rules: {error: 8%, at: rules}}, user_sigma: 0, confidence: {discrimination: 2}, "
    "evaluation: {share: 5%, sensitivity: 90%, specificity: 98%, delay: 5m}}"
)
CONTROL = (
    "control=[{gate: chat, lowest: 2%, to: people}, {team: people, reviewers: 800, patience: 10m, misses: 5%, "
    "handling: {exponential: {mean: 3m}}}, {quality_breaker: chat, open_above: 10%, close_below: 5%}, "
    "{release: edit, from: 5m, trial: canary}]"
)


def played(hours: float, *options: str) -> tuple[float, dict[str, float]]:
    """Return the seconds of CPU that so many *hours* of the day take, and what was measured."""
    one = scenario.load("ten-million-users", ["claims={}", f"duration={hours}h", "workload.arrivals=poisson", *options])
    began = time.process_time()
    world = World(one, 1)
    world.run_to_end()
    metrics = world.result().metrics
    return time.process_time() - began, metrics


def main() -> None:
    """Print what each takes, and how much more the one is than the other."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--hours", type=float, default=24)
    arguments.add_argument("--times", type=int, default=3)
    given = arguments.parse_args()
    played(0.2, QUALITY, CONTROL)  # whatever is compiled or loaded once
    without, with_it = [], []
    for _ in range(given.times):
        without.append(played(given.hours)[0])
        took, metrics = played(given.hours, QUALITY, CONTROL)
        with_it.append(took)
    plain, more = statistics.median(without), statistics.median(with_it)
    print(f"{metrics['requests']:,.0f} requests in {given.hours:g} hours, {metrics['escalated']:,.0f} of them reviewed")
    print(f"without {plain:.1f} s of CPU, with {more:.1f} s: {more / plain:.2f} times as much")
    print(f"{(more - plain) / metrics['requests'] * 1e6:.2f} us a request")


if __name__ == "__main__":
    main()
