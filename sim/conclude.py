"""From what was played to what is said of it: metrics over seeds, claims, and what became of it after the faults."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sim import claims, metastability, results, summary
from sim.results import Member, Run
from sim.scenario import Scenario, points

FEW_REQUESTS = 300
"""Below so many requests a run, a P99 rests on the two or three slowest."""


def conclude(run: Run) -> None:
    """Write the summary of what was finished, and the verdicts when everything was."""
    scenario = run.scenario
    swept = points(scenario)
    asked = {metric for text in scenario.claims.values() for metric, _ in claims.parse(text).metrics}
    windows = sorted(metric for metric in asked if "@" in metric)
    found: dict[int, _Found] = {}
    widened: list[str] = []
    for member in run.members:
        k = [point for point, _ in swept].index(member.point)
        one = found.setdefault(k, _Found(*swept[k]))
        one.add(member)
        one.values[-1].update(_in_windows(member, swept[k][1].duration, windows, widened))
    entries = [found[k] for k in sorted(found)]
    for one in entries:
        one.compare([member for member in run.controls if member.point == one.point])
    infos = [info for one in entries for info in one.infos]
    notes = dict.fromkeys(note for info in infos for note in info["notes"])
    results.write_json(
        run.path / "summary.json",
        {
            "scenario": scenario.name,
            "state": run.info["state"],
            "assumptions": [*_warnings(run, infos), *notes, *dict.fromkeys(widened)],
            "uncalibrated": any(info["uncalibrated"] for info in infos),
            "kv_override": any(info["kv_override"] for info in infos),
            "points": [one.summary() for one in entries],
        },
    )
    if scenario.claims and run.info["state"] == "complete":
        verdicts = claims.evaluate(scenario.claims, [one.point for one in entries], [one.values for one in entries])
        results.write_json(run.path / "verdict.json", [asdict(verdict) for verdict in verdicts])


class _Found:
    """What the finished seeds of one point say."""

    def __init__(self, point: dict[str, Any], scenario: Scenario) -> None:
        self.point, self.scenario = point, scenario
        self.members: list[Member] = []
        self.infos: list[dict[str, Any]] = []
        self.values: list[dict[str, float]] = []
        self.control: metastability.Verdict | None = None

    def add(self, member: Member) -> None:
        self.members.append(member)
        self.infos.append(member.info)
        self.values.append(_numbers(member.info["metrics"]))

    def compare(self, controls: Sequence[Member]) -> None:
        """Judge what became of the point after its faults, once every seed has its control run."""
        without = {member.seed: member for member in controls}
        if not self.scenario.faults or not without.keys() >= {member.seed for member in self.members}:
            return
        pairs = [(member, without[member.seed]) for member in self.members]
        twins = [metastability.twins(self.scenario, *pair) for pair in pairs]
        self.control = metastability.judge(twins, metastability.faults_end_s(self.scenario))
        for k, values in enumerate(self.values):
            values["recovery_s"] = self.control.recovery_s["values"][k]
            values["goodput_kept"] = self.control.goodput_kept["values"][k]

    def summary(self) -> dict[str, Any]:
        """Return the point's entry in summary.json."""
        names = [name for name in self.values[0] if "@" not in name and name not in claims.OF_CONTROL]
        metrics = {
            name: summary.interval([values[name] for values in self.values], scale=summary.scale_of(name))
            for name in names
        }
        entry = {"point": self.point, "seeds": [member.seed for member in self.members], "metrics": metrics}
        if self.control:
            verdict = asdict(self.control) | {"provisional": self.control.provisional}
            metrics |= {name: verdict.pop(name) for name in claims.OF_CONTROL}
            entry["control"] = verdict
        return entry


def _in_windows(member: Member, duration_s: float, metrics: Sequence[str], widened: list[str]) -> dict[str, float]:
    """Return the values of *metrics* that have a window; what was *widened* for it is noted there."""
    histograms = member.histograms() if metrics else {}
    found = {}
    for metric in metrics:
        name, window = claims.window_of(metric)
        assert window is not None
        found[metric], exact = summary.in_window(histograms, name, window, duration_s)
        if max(abs(a - b) for a, b in zip(exact, window)) > 1e-6:
            widened.append(f"{metric} counts what was asked from {exact[0]:g} s to {exact[1]:g} s")
    return found


def _warnings(run: Run, infos: Sequence[dict[str, Any]]) -> list[str]:
    """Return what a reader must know of the run as a whole before believing its numbers."""
    found = []
    state, planned = run.info["state"], len(run.info["members"])
    if state != "complete":
        why = f" ({run.info['error']})" if "error" in run.info else ""
        what = "not finished" if state == "running" else state
        found.append(f"{what}{why}: {len(infos)} of {planned} runs are counted")
    fewest = min((info["metrics"]["requests"] for info in infos), default=FEW_REQUESTS)
    if fewest < FEW_REQUESTS:
        found.append(f"few samples: with {fewest:,.0f} requests a run, a P99 rests on the slowest two or three")
    if run.scenario.workload.trace is not None and len(infos) > 1:
        found.append("every seed replays the same trace: intervals over seeds show the service's luck, not other users")
    return found


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float("nan") if value is None else float(value) for name, value in metrics.items()}
