"""How long does it take to tune five alert rules: a thousand settings on four weeks of series?

python -m benchmarks.alerts_tune [--weeks 4] [--every 15]
"""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.many_weeks import RULES, many_weeks
from sim.alerts.past import Past
from sim.alerts.rulefile import reads
from sim.alerts.truth import Truth
from sim.alerts.tuning.grids import Tuning, around
from sim.alerts.tuning.grids import reads as tuning_of
from sim.alerts.tuning.ledger import Campaign
from sim.alerts.tuning.tune import tune


def thousand() -> Tuning:
    """Return a tuning file that asks for some thousand settings of each of the five rules."""
    today = {"ErrorsHigh": 0.01, "AnswersSlow": 0.05, "P95High": 2.5, "KVHigh": 0.9, "QualityLow": 0.828}
    text = "rules:\n"
    for name, threshold in today.items():
        low, high = min(around(threshold)), max(around(threshold))
        text += f"  {name}: {{threshold: {{from: {low}, to: {high}, steps: 28}}, window: [1m, 2m, 5m, 10m, 30m, 1h],"
        text += " for: [0s, 1m, 2m, 5m, 10m, 15m]}\n"
    return tuning_of(text, "thousand.yaml")


def main() -> None:
    """Print the seconds that each part takes, for the default grid and for a thousand settings a rule."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--weeks", type=float, default=4)
    arguments.add_argument("--every", type=int, default=15, help="seconds between scrapes and between evaluations")
    given = arguments.parse_args()
    series, incidents = many_weeks(given.weeks, given.every)
    groups = reads(RULES.format(interval=f"{given.every}s"), "five.yml")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weeks.parquet"
        series.write(path)
        past = Past("weeks", path)
        print(f"{given.weeks:g} weeks, {len(series)} series at {given.every} s, {len(incidents)} incidents")
        for name, tuning in (("default grid", Tuning()), ("a thousand settings a rule", thousand())):
            began, cpu = time.perf_counter(), time.process_time()
            campaign = Campaign(groups, tuning, given.every * 1000)
            campaign.play("weeks", past, Truth(tuple(incidents), "known", 0, past.span_ms[1]))
            swept = time.perf_counter() - began
            ledgers = campaign.ledgers()
            tuned = [tune(one, 0.5) for one in ledgers]
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
            settings = ", ".join(str(len(one.grid)) for one in ledgers)
            print(f"{name} ({settings}): {took:.1f} s ({cpu:.1f} s of CPU), of that choosing {took - swept:.1f} s")
            chosen = sum(one.recommended is not None for one in tuned)
            print(f"  recommended for {chosen} of {len(tuned)} rules")


if __name__ == "__main__":
    main()
