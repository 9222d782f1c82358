"""Does a sweep keep all cores busy, and what does a trial cost beside its simulation? ``python -m benchmarks.sweep``.

Busy, twice: CPU seconds of the workers over wall seconds times cores, which other work on the machine lowers; and with
the time added in which a worker could have run and others had the core (Linux: ``/proc/PID/schedstat``).
"""

import os
import tempfile
import time
from pathlib import Path

from sim.engine import exercise
from sim.planning.playing import measure
from sim.planning.sweep import Sweep, open_sweep, play
from sim.planning.trials import crew
from sim.scenario import loads
from sim.workers import cores

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


def measured(text: str, folder: Path) -> tuple[float, float, float, float]:
    """Return wall and CPU seconds of a sweep, parent included, and how busy its cores were by either measure."""
    sweep = swept(text, folder)
    before, started = time.process_time(), time.perf_counter()
    with crew() as pool:
        play(sweep, pool, cores())
        wall_s = time.perf_counter() - started
        workers = list((getattr(pool, "_processes", None) or {}).values())
        spent = [tuple(map(int, Path(f"/proc/{one.pid}/schedstat").read_text().split()[:2])) for one in workers]
    ran_s, waited_s = (1e-9 * sum(one[k] for one in spent) for k in (0, 1))
    cpu_s = ran_s + time.process_time() - before
    return wall_s, cpu_s, ran_s / wall_s / cores(), (ran_s + waited_s) / wall_s / cores()


def main() -> None:
    """Print how busy a sweep keeps the cores, and what a trial costs beside its simulation."""
    exercise.warm()
    print(f"{cores()} cores, load {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory() as name:
        for told, text in (("a tiny scenario", TINY), ("ten minutes of chat", CHAT)):
            wall_s, cpu_s, ran, wanted = measured(text, Path(name))
            print(
                f"{told}, {POINTS} points: {wall_s:.1f} s, {1e3 * cpu_s / POINTS:.1f} ms of CPU a trial; cores "
                f"{ran:.0%} busy with it, {wanted:.0%} counting the time in which others had them"
            )
            trials = [(trial.scenario, trial.seed) for trial in swept(text, Path(name)).missing]
            measure(*trials[0])
            before = time.process_time()
            for trial in trials:
                measure(*trial)
            print(f"  the same in one process, nothing kept: {1e3 * (time.process_time() - before) / POINTS:.1f} ms")
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
