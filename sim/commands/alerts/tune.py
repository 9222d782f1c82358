"""``blowout alerts tune``: thresholds, windows and `for` swept together, and whether the best holds on other weeks."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.commands.alerts.common import (
    DIALECT,
    INTERVAL,
    JSON,
    NO_FIGURES,
    RULES,
    again,
    drawn_as,
    interval_ms,
    options,
    read_rules,
    rule_file,
    watched,
)
from sim.commands.alerts.pasts import Chosen, takes_pasts
from sim.commands.alerts.truth import TRUTH, WINDOW, Source, option_ms, said_again
from sim.commands.targets import FileToWrite
from sim.errors import InputError, RunError
from sim.interrupts import to_a_reader

if TYPE_CHECKING:
    from sim.alerts.tuning.grids import Tuning
    from sim.alerts.tuning.ledger import Campaign
    from sim.alerts.tuning.tune import Tuned

FILE = click.option("--tuning", type=click.Path(path_type=Path), metavar="FILE",
                    help="What to try of which rule, your mix of incidents, your limit (YAML).")  # fmt: skip
MOST = click.option("--max-false-pages", type=click.FloatRange(min=0), metavar="N",
                    help="False pages a week that may be borne (0.5, or what --tuning says).")  # fmt: skip
OUT = click.option("--out", type=FileToWrite(folder_too=True), metavar="FILE",
                   help="Where to write the rules with the recommended numbers; a folder for several.")  # fmt: skip


@click.command("tune")
@takes_pasts(many=True)
@options(RULES, FILE, MOST, OUT, *TRUTH, *WINDOW, INTERVAL, DIALECT, drawn_as("tune"), NO_FIGURES, JSON)
def command(
    chosen: Chosen,
    rules: tuple[str, ...],
    tuning: Path | None,
    max_false_pages: float | None,
    out: Path | None,
    early: str,
    grace: str,
    interval: str,
    dialect: str,
    figure: Path | None,
    no_figures: bool,
    as_json: bool,
    **truth: Any,
) -> int:
    """Say which threshold, window and `for` find incidents soonest, for how many false pages a week.

    RUN_OR_FILE is a run folder (all its points and seeds count), the folder of one of them, or a file of series. Half
    of the weeks choose a setting, the other half say what it is worth; with less than two weeks nothing is recommended.
    """
    from sim.alerts.tuning import grids
    from sim.alerts.tuning.tune import tune
    from sim.report import style, tuning_figure
    from sim.report import tuning as report

    _check_out(out, rules)
    asked = grids.read(tuning) if tuning is not None else grids.Tuning()
    window_ms = option_ms("--early", early), option_ms("--grace", grace)
    campaign = _played(chosen, rules, asked, Source(**truth), (interval, dialect, window_ms))
    most = grids.limit(max_false_pages, asked)
    tuned = [tune(one, most) for one in campaign.ledgers()]
    written = _write(out, rules, tuned) if out is not None else []
    if figure is None and chosen.folder is not None:
        figure = chosen.folder / "figures" / "tune.png"
    better = any(one.recommended is not None for one in tuned)
    commands = _next(chosen, rules, out, (better, bool(written)), {**truth, "tuning": tuning})
    if figure is not None and not no_figures:
        figure.parent.mkdir(parents=True, exist_ok=True)
        style.save(tuning_figure.plate(report.answer(tuned), tuned), figure)
        commands.insert(0, (str(figure), "detection against false pages"))
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(report.as_json(campaign, tuned), indent=1))
        else:
            report.show(f"{chosen.title}: {' '.join(rules)}", campaign, tuned, commands, sys.stdout)
    if out is not None and not written:
        raise RunError(f"{out}: not written, for nothing is recommended")
    return 0


def _played(
    chosen: Chosen,
    rules: tuple[str, ...],
    asked: "Tuning",
    source: Source,
    settings: tuple[str, str, tuple[int, int]],
) -> "Campaign":
    """Return every setting of every rule, played on every past of those *chosen*.

    Raises:
        InputError: something that was typed is wrong.
        RunError: there is nothing to tune on.
    """
    from sim.alerts.promql.vectors import Dialect
    from sim.alerts.tuning.ledger import Campaign

    interval, dialect, window_ms = settings
    groups = read_rules(rules)
    find = source.finder(chosen, groups, dialect)
    campaign = Campaign(groups, asked, interval_ms(interval), Dialect(dialect), window_ms)
    with watched("trying settings", len(chosen.named) * campaign.rules) as done:
        for name, past in chosen.named:
            campaign.play(name, past, find(past), done)
    if not campaign.incidents:
        raise RunError("nothing to tune on: not one incident lies in the past")
    if not campaign.ledgers():
        why = "; ".join(f"{rule.name}: {reason}" for rule, reason in campaign.silent) or "there is no alert"
        raise RunError(f"nothing to tune: {why}")
    return campaign


def _check_out(out: Path | None, rules: tuple[str, ...]) -> None:
    """Refuse to write over what is read.

    Raises:
        InputError: *out* is one of the rule files, or a file where a folder is needed.
    """
    if out is None:
        return
    for name in rules:
        path = rule_file(name)
        into = out / path.name if len(rules) > 1 else out
        if into.exists() and path.exists() and into.samefile(path):
            raise InputError(f"--out {out}: expected another place than that of the rules themselves")
    if len(rules) > 1 and out.is_file():
        raise InputError(f"--out {out}: expected a folder, for there are several files of rules")


def _write(out: Path, rules: tuple[str, ...], tuned: "Sequence[Tuned]") -> list[Path]:
    """Write the rule files with the recommended settings; none where nothing is recommended."""
    from sim.alerts.tuning.rewrite import Change, rewritten

    if not any(one.recommended for one in tuned):
        return []
    written = []
    for name in rules:
        path = rule_file(name)
        changes = [
            Change(one.ledger.knobs, one.recommended.inside.point)
            for one in tuned
            if one.recommended is not None and one.ledger.knobs.rule.file == str(path)
        ]
        into = out / path.name if len(rules) > 1 else out
        into.parent.mkdir(parents=True, exist_ok=True)
        with path.open(encoding="utf-8", newline="") as file:  # whatever its lines end with
            made = rewritten(file.read(), str(path), changes)
        into.write_text(made, encoding="utf-8", newline="")
        written.append(into)
    return written


def _next(
    chosen: Chosen, rules: tuple[str, ...], out: Path | None, done: tuple[bool, bool], truth: dict[str, Any]
) -> list[tuple[str, str]]:
    better, written = done
    said, typed = said_again(truth, *(("tuning",) if better and not written else ())), chosen.again
    if written and out is not None:
        new = again((str(out),) if len(rules) == 1 else tuple(str(out / rule_file(name).name) for name in rules))
        against = again(rules).replace("--rules", "--against")
        return [(f"blowout alerts score {typed} {new} {against}{said}", "what is gained")]
    if better:
        return [(f"blowout alerts tune {typed} {again(rules)}{said} --out tuned.yml", "write the recommended rules")]
    return [(f"blowout alerts score {typed} {again(rules)}{said}", "what the rules are worth as they are")]
