"""``blowout alerts prove``: whether rules fired when they should, and only then."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.commands.alerts.common import INTERVAL, JSON, again, interval_ms, options, read_rules
from sim.errors import BlowoutError, InputError
from sim.interrupts import to_a_reader

if TYPE_CHECKING:
    from sim.alerts.past import Past
    from sim.alerts.rulefile import Group
    from sim.alerts.rules import Judgement
    from sim.report.proving import Proven
    from sim.results import Run
    from sim.scenario import Scenario

NO_RULE_JUDGED = 3
PREDICTION = "prediction"


@click.command("prove")
@click.argument("run", type=click.Path(path_type=Path))
@options(
    click.option("--rules", "rules", multiple=True, metavar="FILE|NAME",
                 help="Rules to prove [those of the scenario]; repeat for more."),
    INTERVAL,
    JSON,
)  # fmt: skip
def command(run: Path, rules: tuple[str, ...], interval: str, as_json: bool) -> int:
    """Say whether alerts fired on RUN when they should, and only then: a folder of a run, measured or simulated.

    Expected is what `expect` of the scenario says. Of other rules of a measured run it is the prediction: the same
    scenario and seed, simulated into RUN/prediction. Exit code 1: a rule was not as expected. 3: none could be judged.
    """
    from sim.report import proving
    from sim.results import Run

    top = next((one for one in (run, *run.parents, *run.resolve().parents[:3]) if (one / "run.json").is_file()), run)
    opened = Run.open(top)
    groups = read_rules(rules or _named(opened))
    require_expected(opened.scenario, groups, str(top))
    is_measured = opened.info.get("kind") == "measured"
    proven = proven_of(run, groups, interval_ms(interval), is_measured)
    commands = [(f"blowout alerts eval {run} {again(rules or _named(opened))}", "each alert, with a figure")]
    if is_measured and any(one.is_predicted for one in proven):
        one = opened.members[0].path
        commands.insert(0, (f"blowout compare {one / PREDICTION} {one}", "how far the prediction was off"))
    with to_a_reader():
        if as_json:
            from sim.results import plain

            click.echo(json.dumps(plain(proving.as_json(proven)), indent=1))
        else:
            proving.show(f"{run}: {opened.info.get('kind', 'simulated')}", proven, commands, sys.stdout)
    return exit_code(proven)


def require_expected(scenario: "Scenario", groups: "Sequence[Group]", where: str) -> None:
    """Refuse rules among which one is missing that `expect` of *scenario* names.

    Raises:
        InputError: it is missing.
    """
    names = {rule.name for group in groups for rule in group.rules if not rule.records}
    if unknown := [name for name in scenario.expect if name not in names]:
        raise InputError(f"{where}: `expect` names {unknown[0]}, but no alert rule that was given is called so")


def proven_of(run: Path, groups: "Sequence[Group]", every_ms: int, is_measured: bool) -> "list[Proven]":
    """Return the proofs of every repeat in the folder *run*; what must be predicted for them is played."""
    from sim.alerts.past import open_pasts

    return [_proven(past, groups, every_ms, is_measured) for past in open_pasts(run)]


def exit_code(proven: "Sequence[Proven]") -> int:
    """Return 1 where a rule was not as expected, 3 where none could be judged, else 0."""
    from sim.alerts.prove import Finding

    proofs = [proof for one in proven for proof in one.proofs]
    if not all(proof.holds for proof in proofs):
        return 1
    return NO_RULE_JUDGED if all(proof.finding == Finding.NOT_JUDGED for proof in proofs) else 0


def _named(run: "Run") -> tuple[str, ...]:
    """Return the rule files of a run's scenario.

    Raises:
        InputError: it has none.
    """
    if not run.scenario.alerts:
        raise InputError("--rules: missing, for the scenario names no `alerts`")
    return tuple(run.scenario.alerts)


def _proven(past: "Past", groups: "Sequence[Group]", every_ms: int, is_measured: bool) -> "Proven":
    from sim.alerts import prove, users
    from sim.report.proving import Proven

    scenario = users.scenario_of(past)
    judged = _judged(past, groups, every_ms)
    rules = {one.rule.name for one in judged if not one.rule.records}
    predicted, uncalibrated = None, False
    if is_measured and rules - scenario.expect.keys():
        predicted, uncalibrated = _prediction(past, scenario, groups, every_ms)
    zero = prove.zero_ms(past.span_ms)
    truth = users.known(past)
    proofs = prove.prove(judged, scenario.expect, predicted, truth.incidents if truth else (), zero)
    return Proven(past.name, proofs, predicted is not None, uncalibrated, judged)


def _judged(past: "Past", groups: "Sequence[Group]", every_ms: int) -> "list[Judgement]":
    from sim.alerts.rules import judge

    return judge(groups, past.read(groups), every_ms, span_ms=past.span_ms)


def _prediction(
    past: "Past", scenario: "Scenario", groups: "Sequence[Group]", every_ms: int
) -> "tuple[list[Judgement], bool]":
    """Return what the rules do in the simulation of the same scenario and seed; it is played unless it was before."""
    from sim.alerts.past import open_pasts
    from sim.commands.run import progress_of, warm
    from sim.results import Run
    from sim.run import play
    from sim.scenario import digest
    from sim.scenario.telemetry import Telemetry

    assert past.member is not None
    changes = {"seed": past.member.seed, "seeds": 1, "alerts": [], "claims": {}, "expect": {}, "rows": "none"}
    played = scenario.model_copy(update={**changes, "telemetry": scenario.telemetry or Telemetry()})
    folder = past.member.path / PREDICTION
    try:
        made = Run.open(folder)
        is_there = made.info["state"] == "complete" and made.info.get("scenario_sha256") == digest(played)
    except BlowoutError:
        is_there = False
    if not is_there:
        if (folder / "run.json").is_file():  # of another scenario, or not finished
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        warm()
        with progress_of(f"{scenario.name}, predicted") as progress:
            made = play(played, folder, command=["blowout", *sys.argv[1:]], progress=progress)
    return _judged(open_pasts(folder)[0], groups, every_ms), bool(made.summary.get("uncalibrated"))
