"""Loads a real vLLM with a shipped scenario, and keeps what the analysis needs: the run, vLLM's log, the machine's use.

Everything that is measured is measured by the product's own command, as a user types it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.real_vllm.quiet import Watch
from benchmarks.real_vllm.server import ROOT, Server, Settings, served
from sim.results import Run, read_json

SCENARIO = "vllm-on-a-cpu"
MEASURED, LOG, MACHINE = "measured", "server.log", "machine.json"
BLOWOUT = [sys.executable, "-c", "from sim.cli import main; main()"]
WARM = ("--rate", "4", "--duration", "20s", "--prompt-tokens", "60", "--output-tokens", "100")
"""What is sent before anything counts: the first requests compile, and fill caches."""


def typed(arguments: Sequence[str], may: Sequence[int] = (0,)) -> str:
    """Type ``blowout ...`` and return what it prints.

    Raises:
        RuntimeError: its exit code is none of those it *may* have.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*BLOWOUT, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in may:
        raise RuntimeError(f"blowout {' '.join(arguments)}: exit code {done.returncode}")
    return done.stdout


def measure(work: Path, seed: int) -> None:
    """Start vLLM short of KV cache, drive it with the users of *seed*, and leave everything in the folder *work*."""
    work.mkdir(parents=True)
    started_s = time.time()
    with Watch() as watch, served(Settings(), work) as server:
        print(f"vLLM answers at {server.url} after {time.time() - started_s:.0f} s", file=sys.stderr)
        run = _driven(server, work, seed)
    uses = []
    for member in run.members:
        tester = read_json(member.path / "tester.json", "started")
        start_s = float(tester["started"])
        foreign, own = watch.foreign_cores(start_s, start_s + run.scenario.duration)
        uses.append({"path": str(member.path.relative_to(run.path)), "foreign_cores": foreign, "own_cores": own})
    (work / MACHINE).write_text(json.dumps({"members": uses, "cores": os.cpu_count()}, indent=1), encoding="utf-8")


def _driven(server: Server, work: Path, seed: int) -> Run:
    typed(["load", "run", "--url", server.url, *WARM, "--out", str(work / "warm"), "--no-figures"], may=(0, 3))
    # 1: a claim does not hold, 3: the machine was too busy for the tester; both are results, and told
    command = ["load", "run", SCENARIO, "--url", server.url, "--seed", str(seed), "--out", str(work / MEASURED)]
    typed([*command, "--no-figures"], may=(0, 1, 3))
    return Run.open(work / MEASURED)
