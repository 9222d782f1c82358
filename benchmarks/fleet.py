"""What a day of 240 million requests takes: `ten-million-users-per-hour`, its cells side by side on all cores.

    python -m benchmarks.fleet [--hours 24]

Prints wall time, CPU time and the most memory that all processes had together: proportional set size, in which pages
that they share count once, looked at every half second.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sim.results import Run

SCENARIO = "ten-million-users-per-hour"
MIB = 2**20


def family(pid: int) -> list[int]:
    """Return *pid* and all processes that descend from it."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    except OSError:
        pass  # it has just ended
    return found


def memory_mib(pid: int) -> float:
    """Return the proportional set size of *pid* and its descendants."""
    kib = 0
    for one in family(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


def main() -> None:
    """Play, watch and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0, help="of the day, from midnight")
    hours = parser.parse_args().hours
    shorter = [] if hours == 24.0 else ["--set", f"duration={hours:g}h", "--set", "claims={}"]
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "run"
        command = [sys.executable, "-c", "from sim.cli import main; main()", "run", SCENARIO, "--out", str(folder)]
        load, started, peak = os.getloadavg()[0], time.perf_counter(), 0.0
        child = subprocess.Popen([*command, *shorter], stdout=subprocess.DEVNULL)
        while child.poll() is None:
            peak = max(peak, memory_mib(child.pid))
            time.sleep(0.5)
        wall = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = Run.open(folder)
        metrics = run.summary["points"][0]["metrics"]
        kept = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB
        claims = run.verdicts or []
        print(f"exit code {child.returncode}; load {load:.1f} before, {os.getloadavg()[0]:.1f} after")
        print(f"claims that hold: {sum(one['passed'] for one in claims)} of {len(claims)}" if claims else "no claims")
        for name in ("requests", "steps"):
            print(f"{name}: {metrics[name]['estimate'] / 1e6:.1f} million")
        print(f"wall: {wall:.0f} s, played and merged: {run.info['wall_s']:.0f} s")
        print(f"CPU: {used.ru_utime + used.ru_stime:.0f} s")
        print(f"peak memory of all processes: {peak / 1024:.2f} GiB; run folder: {kept:.0f} MiB")


if __name__ == "__main__":
    main()
