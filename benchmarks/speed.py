"""How fast: the engine, the big day, compilation and the command line, against what was promised.

    python benchmarks/speed.py [--quick] [--only engine,day,week,rows,compile,cli,alerts]

Each figure is the median of several runs, but for the day, the week and all rows, which run once.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from sim.series import SeriesSet

AZURE = ["prompt_tokens={named: azure-conv-prompt}", "output_tokens={named: azure-conv-output}"]
CHILD = """
import json, resource, sys, time
from pathlib import Path
from sim.engine.exercise import warm; warm()
from sim import report, results, run, scenario
loaded = scenario.load(sys.argv[1], sys.argv[3:])
folder = results.new_folder(Path(sys.argv[2]), loaded.name)
t = time.perf_counter()
done = run.play(loaded, folder)
played = time.perf_counter() - t
report.write_figures(done); report.write_html(done)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
steps = done.summary["points"][0]["metrics"]["steps"]["values"][0]
print(json.dumps({"played_s": played, "total_s": time.perf_counter() - t, "peak_gib": peak, "steps": steps}))
"""
Row = tuple[str, str, str]


BUSY_CLIENTS = [
    "fleet.router=power_of_d",
    "clients={timeout: 60s, first_token_timeout: 10s, retries: 3, backoff: {base: 1s}, retry_budget: {share: 10%}}",
]


def engine(quick: bool) -> list[Row]:
    """CPU time of an engine step, and requests a second of it: 64 replicas, least outstanding, Azure-like lengths."""
    rows: list[Row] = []
    for rate in (2, 10):
        each: list[float] = []
        for leap in (True, False):
            how = "leaping" if leap else "every step by itself"
            ns, per_s = _engine(quick, rate, leap)
            each.append(ns)
            rows.append((f"engine step, {rate} requests/s a replica, {how}", f"{ns:.0f} ns", "200 ns"))
            rows.append((f"requests on one core, {rate}/s a replica, {how}", f"{per_s:,.0f}/s", ""))
        promised = "3 times" if rate == 2 else ""
        rows.append((f"leaping, {rate}/s a replica, makes a run faster", f"{each[1] / each[0]:.1f} times", promised))
    for leap in (True, False):
        how = "leaping" if leap else "every step by itself"
        ns, _ = _engine(quick, 10, leap, *BUSY_CLIENTS)
        what = f"engine step, 10/s a replica, time-outs, retries and power of two, {how}"
        rows.append((what, f"{ns:.0f} ns", "260 ns"))
    return rows


def _engine(quick: bool, rate: int, leap: bool, *overrides: str) -> tuple[float, float]:
    """Return nanoseconds a step and requests a second, medians of several runs."""
    from sim import scenario
    from sim.world import World

    seconds = 600 if quick else 1800
    ns, per_s = [], []
    for _ in range(3 if quick else 5):
        loaded = scenario.load(
            "azure-chat",
            ["vary={}", "claims={}", f"duration={seconds}s", "rows=none", "scrape_interval=60s",
             "fleet.pools.chat.replicas=64", f"workload.rate_per_s={64 * rate}", *overrides],
        )  # fmt: skip
        world = World(loaded, 1, leap=leap)
        started = time.process_time()  # what else runs on the machine is not in it
        world.run_to_end()
        used = time.process_time() - started
        ns.append(used / int(world.fleet.w[0].steps) * 1e9)
        per_s.append(int(world.fleet.w[0].started) / used)
    return statistics.median(ns), statistics.median(per_s)


def _child(name: str, *overrides: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CHILD, name, str(Path(folder) / "run"), *overrides]
        out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    found: dict[str, float] = json.loads(out)
    return found


def day(quick: bool) -> list[Row]:
    """Ten million requests over a day, figures and report written, 1% of rows."""
    found = _child("ten-million-users", *(["duration=4h", "claims={}"] if quick else []))
    return [
        ("ten-million-users, start to finish", f"{found['total_s']:.1f} s", "60 s"),
        ("  of that, figures and report", f"{found['total_s'] - found['played_s']:.1f} s", ""),
        ("  engine steps", f"{found['steps'] / 1e6:.0f} million", ""),
        ("  peak memory", f"{found['peak_gib']:.2f} GiB", "1.5 GiB"),
    ]


def week(quick: bool) -> list[Row]:
    """The same day seven times: memory must not grow."""
    found = _child("ten-million-users", "claims={}", f"duration={'28h' if quick else '7d'}")
    return [
        ("ten-million-users for a week", f"{found['total_s']:.1f} s", ""),
        ("  peak memory", f"{found['peak_gib']:.2f} GiB", "as the day"),
    ]


def rows(quick: bool) -> list[Row]:
    """The day with every row written."""
    found = _child("ten-million-users", "rows=all", *(["duration=4h", "claims={}"] if quick else []))
    return [
        ("ten-million-users, all rows written", f"{found['total_s']:.1f} s", "120 s"),
        ("  peak memory", f"{found['peak_gib']:.2f} GiB", "1.5 GiB"),
    ]


def _median_s(command: list[str], runs: int, before: Callable[[], dict[str, str]] = dict) -> float:
    walls = []
    for _ in range(runs):
        environment = os.environ | before()
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True, cwd=ROOT, env=environment)
        walls.append(time.perf_counter() - started)
    return statistics.median(walls)


def compile_(quick: bool) -> list[Row]:
    """Compiling the engine into an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        count = iter(range(9))
        wall = _median_s(
            [sys.executable, "-m", "sim.engine"],
            1 if quick else 3,
            lambda: {"BLOWOUT_CACHE": f"{folder}/{next(count)}"},
        )
    return [("compiling the engine, once", f"{wall:.1f} s", "15 s")]


def cli(quick: bool) -> list[Row]:
    """The command line, as a user waits for it."""
    blowout = [sys.executable, "-c", "from sim.cli import main; main()"]
    small = [
        "run",
        "azure-chat",
        "--set",
        "vary={}",
        "--set",
        "claims={}",
        "--set",
        "duration=10m",
        "--set",
        "warmup=0",
    ]
    runs = 3 if quick else 7
    with tempfile.TemporaryDirectory() as folder:
        count = iter(range(99))

        def out() -> list[str]:
            return ["--out", f"{folder}/{next(count)}", "--seeds", "1"]

        plain = [_median_s([*blowout, *small, "--no-figures", *out()], 1) for _ in range(runs)]
        drawn = [_median_s([*blowout, *small, *out()], 1) for _ in range(runs)]
    return [
        ("blowout --help", f"{_median_s([*blowout, '--help'], runs):.2f} s", "0.3 s"),
        ("blowout run --no-figures, small", f"{statistics.median(plain):.2f} s", "2 s"),
        ("blowout run with figures, small", f"{statistics.median(drawn):.2f} s", "6 s"),
    ]


def _week_of_series() -> "SeriesSet":
    """What one vLLM and its judge export in a week at 15 s: 60 series, two histograms among them."""
    from sim.series import SeriesSet

    rng = np.random.default_rng(1)
    t_ms = np.arange(0, 7 * 86_400_000, 15_000)
    labels: list[dict[str, str]] = []
    values: list[np.ndarray] = []
    for name, buckets in (("e2e_request_latency", 26), ("time_to_first_token", 23)):
        bounds = np.geomspace(0.01, 1000, buckets - 1)
        parts = rng.poisson(0.5, (buckets, t_ms.size)).cumsum(axis=1).cumsum(axis=0)
        labels += [{"__name__": f"vllm:{name}_seconds_bucket", "le": f"{bound:.3g}"} for bound in bounds]
        labels.append({"__name__": f"vllm:{name}_seconds_bucket", "le": "+Inf"})
        values += list(parts)
    for reason in ("stop", "length", "abort", "error", "repetition"):
        labels.append({"__name__": "vllm:request_success_total", "finished_reason": reason})
        values.append(rng.poisson(0.1, t_ms.size).cumsum())
    for name in ("llm_eval_score_sum", "llm_eval_score_count"):
        labels.append({"__name__": name})
        values.append(rng.poisson(3, t_ms.size).cumsum())
    for name in ("kv_cache_usage_perc", "num_requests_waiting", "num_requests_running", "num_preemptions_total"):
        labels.append({"__name__": f"vllm:{name}", "instance": "a"})
        values.append(rng.random(t_ms.size))
    return SeriesSet.regular(labels, t_ms, np.array(values, float))


def alerts(quick: bool) -> list[Row]:
    """The five rules of `seed`, evaluated every 15 s over a week of 60 series, and reading those from a file."""
    from sim.alerts.rulefile import read
    from sim.alerts.rules import judge, names_read
    from sim.series import SeriesSet

    series, groups = _week_of_series(), read([ROOT / "scenarios" / "alerts" / "seed.yml"])
    judged, opened = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "week.parquet"
        series.write(path)
        size = path.stat().st_size / 1e6
        for _ in range(3 if quick else 7):
            started = time.perf_counter()
            found = SeriesSet.read(path, names_read(groups))
            opened.append(time.perf_counter() - started)
            judge(groups, found)
            judged.append(time.perf_counter() - started - opened[-1])
    return [
        (f"five alert rules over a week of {len(series)} series at 15 s", f"{statistics.median(judged):.2f} s", "1 s"),
        (f"  reading those series, {size:.1f} MB", f"{statistics.median(opened):.2f} s", ""),
    ]


PARTS = {"engine": engine, "day": day, "week": week, "rows": rows, "compile": compile_, "cli": cli, "alerts": alerts}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter runs, fewer repeats")
    parser.add_argument("--only", default=",".join(PARTS), help="which parts, separated by commas")
    options = parser.parse_args()
    from sim.engine.exercise import warm

    warm()
    print("| what | measured | promised |\n| --- | ---: | ---: |")
    for name in options.only.split(","):
        for what, measured, promised in PARTS[name](options.quick):
            print(f"| {what} | {measured} | {promised} |", flush=True)


if __name__ == "__main__":
    main()
