"""What ``blowout load run --rules`` adds: rules held against what was expected, and against a real Prometheus."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.commands.alerts.common import again, draw_timeline, read_rules
from sim.commands.alerts.prove import PREDICTION, exit_code, proven_of, require_expected
from sim.errors import InputError
from sim.results import Run
from sim.scenario import Scenario

if TYPE_CHECKING:
    from loadtest.agreement import Agreement
    from sim.alerts.rulefile import Group
    from sim.report.proving import Proven


def rules_of(
    rules: tuple[str, ...], scenario: Scenario, prometheus_bin: str | None, prometheus_url: str | None
) -> "list[Group]":
    """Return the rules that are to be judged, or refuse now what would be found wrong after the load.

    Raises:
        InputError: what is wanted cannot be had.
    """
    if prometheus_bin is not None:
        if not rules:
            raise InputError("--prometheus-bin: expected --rules beside it, for it to load")
        if prometheus_url is not None:
            raise InputError("--prometheus-bin: expected pages to scrape (--metrics-url), not --prometheus-url")
        if shutil.which(prometheus_bin) is None:
            raise InputError(
                f"--prometheus-bin {prometheus_bin}: no such program; install Prometheus, or name its path"
            )
    if not rules:
        return []
    groups = read_rules(rules)
    if scenario.telemetry is None:
        raise InputError("--rules: expected a scenario that keeps series to judge them on, not `telemetry: none`")
    require_expected(scenario, groups, scenario.name)
    return groups


def require_judges(scenario: Scenario) -> None:
    """Refuse a scenario whose answers nobody here could check.

    Raises:
        InputError: it has a JSON Schema, and the library for that is missing.
    """
    from sim import answers

    if any(check.json_schema is not None for check in scenario.checks.values()) and not answers.can_check_json():
        raise InputError(answers.NO_JSON)


@dataclass(frozen=True)
class Judged:
    """What came of the rules of a run, and of the real Prometheus beside it."""

    run: Run
    rules: tuple[str, ...]
    proven: "list[Proven]"
    agreements: "list[Agreement]"
    figures: Sequence[Path] = ()

    @property
    def code(self) -> int:
        """The exit code: 1 a rule was not as expected or the two disagree, 3 no rule could be judged, else 0."""
        return 1 if any(not one.holds for one in self.agreements) else exit_code(self.proven)

    @property
    def as_json(self) -> dict[str, Any]:
        """Everything for programs."""
        from sim.report import proving
        from sim.results import plain

        found: dict[str, Any] = {"alerts": proving.as_json(self.proven)}
        if self.agreements:
            found["prometheus"] = [one.as_json for one in self.agreements]
        return dict(plain(found))

    def show(self) -> None:
        """Print what was expected of each rule and what it did, and where a real Prometheus says otherwise."""
        from loadtest import agreement
        from sim.report import proving

        path = self.run.path
        commands = [(f"blowout alerts eval {path} {again(self.rules)}", "each alert")]
        commands[:0] = [(str(figure), "when each was pending and firing") for figure in self.figures[:1]]
        if any(one.is_predicted for one in self.proven):
            commands.insert(0, (f"blowout compare {path}/{PREDICTION} {path}", "how far the prediction was off"))
        for k, sentence in enumerate(agreement.sentences(self.agreements)):
            click.echo("\nA real Prometheus\n" * (not k) + f"  {sentence}")
        proving.show(f"{path}: the rules", self.proven, commands, sys.stdout)


def judged(run: Run, rules: tuple[str, ...], groups: "Sequence[Group]", draw: bool) -> Judged:
    """Return what came of *rules* (read: *groups*) in *run*; predictions that are needed are played.

    With *draw* the timeline of each repeat is drawn into its folder.
    """
    from loadtest import agreement
    from sim.alerts.past import open_pasts
    from sim.alerts.rules import DEFAULT_INTERVAL_MS

    proven = proven_of(run.path, groups, DEFAULT_INTERVAL_MS, True)
    figures = []
    for past, one in zip(open_pasts(run.path), proven) if draw else ():
        figures.append(past.path.parent / "figures" / "alerts.png")
        draw_timeline(past, f"{run.path}: {past.name}", one.judged, figures[-1])
    return Judged(run, rules, proven, agreement.agreements(run, groups), figures)


def not_injected(run: Run) -> list[str]:
    """Return a sentence for each fault of *run* that did not happen."""
    from loadtest.beside import sentence

    events = [event for member in run.members for event in member.events()]
    return list(dict.fromkeys(sentence(event) for event in events if event["event"] == "fault_not_injected"))
