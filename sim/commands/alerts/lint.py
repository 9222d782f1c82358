"""``blowout alerts lint``: what is wrong with rules, from their text alone or held against a healthy run."""

import json
import sys
from pathlib import Path

import click

from sim.commands.alerts.common import JSON, RULES, again, options, read_rules
from sim.interrupts import to_a_reader


@click.command()
@click.argument("source", metavar="[RUN_OR_FILE]", type=click.Path(path_type=Path), required=False)
@options(RULES, JSON)
def command(source: Path | None, rules: tuple[str, ...], as_json: bool) -> int:
    """Say what is wrong with rules: names, labels, units, thresholds, shapes that misfire, and what to write instead.

    With RUN_OR_FILE, a past in which all went well, also which are true for nothing and which never have a value.
    Exit code 1 when anything found is an error.
    """
    from sim.alerts.findings import Level
    from sim.alerts.lint import lint
    from sim.report import linting

    groups = read_rules(rules)
    found = lint(groups)
    if source is not None:
        from sim.alerts.lint_past import lint_past
        from sim.alerts.past import open_pasts
        from sim.alerts.rules import names_read

        past = open_pasts(source)[0]
        series = past.series(names_read(groups))
        found = lint(groups, series) + lint_past(groups, series, past.span_ms)
    order = list(dict.fromkeys(rule.file for group in groups for rule in group.rules))
    found.sort(key=lambda one: (order.index(one.file), one.line))
    run = source or "RUN"
    commands = [(f"blowout alerts eval {run} {again(rules)}", "when each rule was pending and firing")]
    if source is None:
        commands.append((f"blowout alerts lint {run} {again(rules)}", "which are true on a healthy run"))
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(linting.as_json(found), indent=1))
        else:
            linting.show(found, sum(len(group.rules) for group in groups), commands, sys.stdout)
    return 1 if any(one.level == Level.ERROR for one in found) else 0
