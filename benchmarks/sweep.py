"""Does a sweep keep all cores busy, and what does a trial cost beside its simulation? ``python -m benchmarks.sweep``.

Busy, twice: CPU seconds of the workers over wall seconds times cores, which other work on the machine lowers; and the
share of the workers' wall time in which they had a trial to play, which it does not.
"""

import os
import resource
import tempfile
import time
from pathlib import Path

from sim.engine import exercise
from sim.planning.sweep import Sweep, open_sweep, play
from sim.planning.trials import cores, crew, measure
from sim.planning.trials import play as play_one
from sim.scenario import loads

POINTS = 200
TINY = """
name: tiny
duration: 30s
fleet: {kv_blocks: 400, step_time: {linear: {base: 10ms}}}
workload: {rate_per_s: 1, cohorts: {chat: {prompt_tokens: 100, output_tokens: 20}}}
"""
CHAT = """
name: chat
duration: 10m
warmup: 1m
fleet: {model: llama-3.1-8b, hardware: h100, replicas: 2}
workload:
  rate_per_s: 24
  cohorts:
    chat: {prompt_tokens: {named: azure-conv-prompt}, output_tokens: {named: azure-conv-output}}
"""


def swept(text: str, folder: Path) -> Sweep:
    rates = [1 + k / 10 for k in range(POINTS)]
    return open_sweep(loads(text, swept={"workload.rate_per_s": rates}), folder / str(time.time_ns()), ["benchmark"])


def measured(text: str, folder: Path) -> tuple[float, float, float]:
    """Return wall seconds of a sweep, how busy its cores were, and its workers."""
    sweep = swept(text, folder)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with crew() as pool:
        play(sweep, pool, cores())
        wall_s = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    played_s = sum(row["wall_s"] for row in sweep.kept.values())
    return wall_s, cpu_s / wall_s / cores(), played_s / wall_s / cores()


def main() -> None:
    exercise.warm()
    print(f"{cores()} cores, load {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory() as name:
        for told, text in (("a tiny scenario", TINY), ("ten minutes of chat", CHAT)):
            wall_s, cpu, with_trial = measured(text, Path(name))
            print(
                f"{told}, {POINTS} points: {wall_s:.1f} s, {1e3 * wall_s * cores() / POINTS:.1f} ms of a core a trial; "
                f"cores {cpu:.0%} busy with it, workers {with_trial:.0%} of the time with a trial"
            )
    scenario = loads(TINY)
    play_one(scenario, 1)
    started = time.perf_counter()
    for seed in range(POINTS):
        measure(scenario, seed)
    print(f"the tiny scenario alone, in this process: {1e3 * (time.perf_counter() - started) / POINTS:.1f} ms")
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
