"""How fast are rules judged, and in how much memory? The five of `seed` over a week at 15 s.

    python -m benchmarks.alerts [--replicas 1,40] [--days 7] [--folder DIR]

A replica has 375 series, as a vLLM does; every tenth crashes once, so that its series end and begin again. Each size is
read and judged in a process of its own, for its peak memory. Files are made once and stay in --folder, if given.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

EVERY_MS = 15_000
SERIES = 375
BUCKETS = {"e2e_request_latency_seconds": 22, "time_to_first_token_seconds": 23}
REASONS = ("stop", "length", "abort", "error", "repetition")


def make(path: Path, replicas: int, days: float) -> None:
    """Write the series of some replicas: those that the rules read have values of their own, the others share some."""
    from sim.series import NAME, STALE, SeriesSet

    made = SeriesSet()
    rng = np.random.default_rng(1)
    shared = [rng.poisson(5, int(days * 86_400_000 / EVERY_MS)).cumsum().astype(float) for _ in range(8)]
    for replica in range(replicas):
        t_ms = np.arange(0, int(days * 86_400_000), EVERY_MS) + 307 * replica  # each has its own time of scrape
        who = {"job": "vllm", "instance": f"chat-{replica}:8000", "model_name": "m"}
        down = slice(t_ms.size // 2, t_ms.size // 2 + 20) if replica % 10 == 9 else slice(0, 0)
        gone = np.zeros(t_ms.size, bool)
        gone[down.start + 1 : down.stop] = True

        def add(labels: dict[str, str], values: np.ndarray, t_ms=t_ms, who=who, down=down, gone=gone) -> None:
            values = values.astype(float)
            if gone.any():
                values[down.stop :] -= values[down.start]
                values[down.start : down.start + 1] = STALE
                made.add({**labels, **who}, t_ms[~gone], values[~gone])
            else:
                made.add({**labels, **who}, t_ms, values)

        before = len(made)
        for name, buckets in BUCKETS.items():
            below = np.zeros(t_ms.size)
            for bound in [*np.geomspace(0.01, 100, buckets - 1), np.inf]:
                below = below + rng.poisson(0.5, t_ms.size).cumsum()
                add({NAME: f"vllm:{name}_bucket", "le": "+Inf" if bound == np.inf else f"{bound:.3g}"}, below)
        for i, reason in enumerate(REASONS):
            answers = rng.poisson(1 / (i + 1), t_ms.size).cumsum()
            add({NAME: "vllm:request_success_total", "finished_reason": reason}, answers)
        add({NAME: "vllm:kv_cache_usage_perc"}, rng.random(t_ms.size))
        if replica == 0:
            for name in ("llm_eval_score_sum", "llm_eval_score_count"):
                add({NAME: name}, rng.poisson(3, t_ms.size).cumsum())
        for i in range(SERIES - (len(made) - before)):
            made.add({NAME: f"vllm:other_{i // 20}_bucket", "le": str(i % 20), **who}, t_ms, shared[i % len(shared)])
    made.write(path)


def judge(path: Path) -> dict[str, float]:
    """Return what reading and judging took."""
    from sim.alerts import rules
    from sim.alerts.past import open_pasts
    from sim.alerts.rulefile import read

    root = Path(__file__).parents[1]
    groups, (past,) = read([root / "scenarios" / "alerts" / "seed.yml"]), open_pasts(path)
    before = time.perf_counter()
    series = past.read(groups)
    opened = time.perf_counter()
    made = rules.judge(groups, series, span_ms=past.span_ms)
    ended = time.perf_counter()
    assert all(one.verdict == "judged" for one in made), [one.reason for one in made]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"series": len(series), "samples": series.samples, "read_s": opened - before, "judge_s": ended - opened,
            "peak_gib": peak, "episodes": sum(len(one.episodes) for one in made)}  # fmt: skip


def main() -> None:
    """Print how long rules take on a small and on a large file, and the memory they need."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", default="1,40")
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--judge", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.judge:
        print(json.dumps(judge(chosen.judge)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.folder or Path(scratch)
        print("series in the file | read | samples read | reading | judging | samples/s | peak memory")
        for replicas in map(int, chosen.replicas.split(",")):
            path = folder / f"{replicas}-{chosen.days:g}.parquet"
            if not path.exists():
                make(path, replicas, chosen.days)
            command = [sys.executable, "-m", "benchmarks.alerts", "--judge", str(path)]
            said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout
            one = json.loads(said)
            took = one["read_s"] + one["judge_s"]
            cells = (f"{replicas * SERIES:,}", f"{one['series']:,}", f"{one['samples'] / 1e6:.1f} million")
            times = (f"{one['read_s']:.2f} s", f"{one['judge_s']:.2f} s", f"{one['samples'] / took / 1e6:.1f} million")
            print(" | ".join((*cells, *times, f"{one['peak_gib']:.2f} GiB")), flush=True)


if __name__ == "__main__":
    main()
