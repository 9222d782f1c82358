"""``blowout alerts lint``: what is wrong with rules, from their text alone or held against a healthy run."""

import json
import sys

import click

from sim.commands.alerts.common import JSON, RULES, again, options, read_rules
from sim.commands.alerts.pasts import Chosen, takes_pasts
from sim.interrupts import to_a_reader


@click.command()
@takes_pasts(optional=True)
@options(RULES, JSON)
def command(chosen: Chosen | None, rules: tuple[str, ...], as_json: bool) -> int:
    """Say what is wrong with rules: names, labels, units, thresholds, shapes that misfire, and what to write instead.

    With RUN_OR_FILE or --from, a past in which all went well, also which are true for nothing and which never have a
    value. Exit code 1 when anything found is an error.
    """
    from sim.alerts.lint.findings import Level
    from sim.alerts.lint.text import lint
    from sim.report import linting

    groups = read_rules(rules)
    found = lint(groups)
    if chosen is not None:
        from sim.alerts.lint.past import lint_past

        past = chosen.pasts[0]
        series = past.read(groups)
        found = lint(groups, series) + lint_past(groups, series, past.span_ms, past.elsewhere)
    order = list(dict.fromkeys(rule.file for group in groups for rule in group.rules))
    found.sort(key=lambda one: (order.index(one.file), one.line))
    typed = f"{chosen.again if chosen else 'RUN'} {again(rules)}"
    commands = [(f"blowout alerts eval {typed}", "when each rule was pending and firing")]
    if chosen is None:
        commands.append((f"blowout alerts lint {typed}", "which are true on a healthy run"))
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(linting.as_json(found), indent=1))
        else:
            held = chosen.title_of_first if chosen else ""
            linting.show(found, sum(len(group.rules) for group in groups), held, commands, sys.stdout)
    return 1 if any(one.level == Level.ERROR for one in found) else 0
