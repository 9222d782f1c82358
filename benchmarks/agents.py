"""What does a step of an agent cost, and how much of that is the fleet?

python -m benchmarks.agents [--minutes 30] [--times 3]

Plays the tasks of `agent-compounding` on two replicas: as shipped; with a cause that may strike one answer in three, so
that those are judged one by one when they end; and the same requests from users who ask by themselves. Prints the
microseconds of CPU a request of each, in turn, whole runs with their start and what they count.
"""

import argparse
import statistics
import time

from sim import scenario
from sim.world import World

SLOW = "quality={causes: {slow: {error: 33%, above: {ttft: 100ms}}}}"
ALONE = tuple(f"workload.cohorts.{name}.agent=null" for name in ("plain", "long", "uneven", "verified", "systematic"))
KINDS = {
    "agents": (),
    "agents, one answer in three judged when it ends": (SLOW,),
    "users who ask by themselves, as many requests": (*ALONE, "workload.rate_per_s=7.1", "quality={}"),
}


def played(minutes: float, *options: str) -> float:
    """Return the microseconds of CPU a request that so many *minutes* take."""
    shared = ("claims={}", "vary={}", f"duration={minutes}m", *options)
    one = scenario.load("agent-compounding", list(shared))
    began = time.process_time()
    world = World(one, 1)
    world.run_to_end()
    requests = world.result().metrics["requests"]
    return (time.process_time() - began) / requests * 1e6


def main() -> None:
    """Print what a request of each kind costs: the median, and the least and most."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=30)
    arguments.add_argument("--times", type=int, default=3)
    given = arguments.parse_args()
    played(1.0)  # whatever is compiled or loaded once
    took: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(given.times):
        for kind, options in KINDS.items():
            took[kind].append(played(given.minutes, *options))
    for kind, us in took.items():
        print(f"{kind}: {statistics.median(us):.0f} us of CPU a request ({min(us):.0f} to {max(us):.0f})")


if __name__ == "__main__":
    main()
