"""How near the engine comes to a real vLLM: tables, misses included. `docs/explanation/fidelity.md` explains them.

    python -m benchmarks.fidelity [--data ../shared/data] [--seeds 40] [--out FILE.md|FILE.json]

Exit code 1 when a bound is missed, 2 when there is no data.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # also when started as a script

from benchmarks import fidelity_cpu, fidelity_gpu  # noqa: E402
from benchmarks.tables import Report  # noqa: E402


def measure(data: Path, seeds: int) -> Report:
    gpu, cpu = fidelity_gpu.run(data / "vllm-gpu"), fidelity_cpu.run(data / "vllm-cpu", seeds)
    return Report([*gpu.tables, *cpu.tables], [*gpu.checks, *cpu.checks])


def main() -> int:
    """Print every table of fidelity, and end with 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description="Compare the engine with measured runs of a real vLLM.")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of measured runs")
    parser.add_argument("--seeds", type=int, default=40, help="draws of what was not logged, for each replay [40]")
    parser.add_argument("--out", type=Path, help="also write the tables here, as JSON or Markdown by its ending")
    options = parser.parse_args()
    if not (options.data / "vllm-cpu" / "manifest.json").is_file():
        print(f"no measured runs in {options.data}: expected vllm-cpu/manifest.json there", file=sys.stderr)
        return 2
    report = measure(options.data, options.seeds)
    print(report.text())
    if options.out:
        report.write(options.out)
    return 0 if all(check.passed for check in report.checks) else 1


if __name__ == "__main__":
    sys.exit(main())
