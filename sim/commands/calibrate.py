"""``blowout calibrate``: step times out of measured runs."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from sim.commands.alerts.common import JSON, NO_FIGURES, options, watched
from sim.commands.targets import PICTURE, FileToWrite
from sim.errors import InputError
from sim.interrupts import to_a_reader


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@options(
    click.option("--step-log", "logs", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
                 help="Log of vLLM's steps, or CSV; one for all runs, or repeat, one a run."),
    click.option("--hardware", metavar="NAME", help="Whose tabulated step times to scale [the scenario's]."),
    click.option("--pool", metavar="NAME", help="Which pool of the scenario was measured [the only one]."),
    click.option("--judge", "judges", multiple=True, type=click.Path(path_type=Path), metavar="RUN",
                 help="Another measured run, to be predicted; repeat for more."),
    click.option("--out", type=FileToWrite(), metavar="PROFILE.json", help="Where to write the profile."),
    click.option("--figure", type=PICTURE, help="Where to draw [beside the profile]."),
    NO_FIGURES,
    JSON,
)  # fmt: skip
def command(
    runs: tuple[Path, ...],
    logs: tuple[Path, ...],
    hardware: str | None,
    pool: str | None,
    judges: tuple[Path, ...],
    out: Path | None,
    figure: Path | None,
    no_figures: bool,
    as_json: bool,
) -> int:
    """Make a profile of step times out of measured RUNs (of ``load run`` or ``import``).

    With step logs a full model of a step; without, one factor on the step times tabulated for the scenario's model.
    Exit code 1: something that a judge measured is outside what was predicted.
    """
    from sim.calibrate import calibration, play
    from sim.calibrate import runs as measured
    from sim.engine.profiles import parse_profile
    from sim.report import fitting, fitting_figure, style

    if hardware and logs:
        raise InputError("--hardware: says whose tabulated step times to scale; with --step-log they are measured")
    opened = measured.open_runs(runs, pool, logs)
    others = measured.open_runs(judges, pool) if judges else []
    made = calibration.calibrate(opened, hardware)
    profile = parse_profile(out or Path("the profile"), json.loads(json.dumps(made.profile)))
    with watched("Playing", len(opened) + len(others)) as done:
        predicted = []
        for one in [*opened, *others]:
            predicted.append(play.predict(one, profile))
            done()
    found = fitting.Found(made, predicted[: len(opened)], predicted[len(opened) :])
    commands = _next(out, runs, judged=bool(judges))
    if out is not None:
        _write(out, made.profile)
    if not no_figures:
        target = figure or (out.with_suffix(".png") if out else runs[0] / "figures" / "calibration.png")
        target.parent.mkdir(exist_ok=True)
        style.save(fitting_figure.plate(found), target)
        commands.insert(0, (str(target), "fit, what is left over, and predictions beside measurements"))
    with to_a_reader():
        if as_json:
            from sim.results import plain

            click.echo(json.dumps(plain(fitting.as_json(found)), indent=1))
        else:
            fitting.show(found, commands, sys.stdout)
    return 1 if found.passed is False else 0


def _write(out: Path, profile: dict[str, Any]) -> None:
    out.write_text(json.dumps(profile, indent=1) + "\n", encoding="utf-8")


def _next(out: Path | None, runs: tuple[Path, ...], judged: bool) -> list[tuple[str, str]]:
    """Return what is worth typing next, each with what it is good for; judged, a profile is ready to be planned on."""
    if out is None:
        return [(f"blowout calibrate {' '.join(map(str, runs))} --out profile.json", "the same, kept for simulations")]
    setting = f"'fleet.step_time={{profile: {out}}}'"
    scenario = runs[0] / "scenario.yaml"
    if judged:
        then = f"blowout plan {scenario} --set {setting} --slo 'ttft_p99 < 2s, errors < 0.1%'"
        said = "the cheapest fleet that keeps a promise, on these step times"
    else:
        then = f"blowout calibrate {' '.join(map(str, runs))} --judge RUN"
        said = "what it predicts of another measured run"
    return [
        (f"blowout run {scenario} --set {setting}", "the measured load on these step times"),
        (then, said),
    ]
