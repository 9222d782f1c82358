"""``blowout alerts verify``: the real promtool, asked whether we are right."""

import click

from sim.commands.alerts.common import INTERVAL, RULES, interval_ms, options, read_rules
from sim.commands.alerts.pasts import Chosen, takes_pasts
from sim.interrupts import to_a_reader


@click.command()
@takes_pasts()
@options(RULES, INTERVAL)
@click.option("--promtool", help="Which promtool to run (the first on PATH).")
def command(chosen: Chosen, rules: tuple[str, ...], interval: str, promtool: str | None) -> int:
    """Ask the real promtool whether the rules are valid, and whether alerts change state exactly when we say."""
    from sim.alerts.rules import judge
    from sim.alerts.shipping import verify as verifying

    tool = verifying.promtool(promtool)
    past, groups = chosen.pasts[0], read_rules(rules)
    series = verifying.since(past.read(groups), past.span_ms[0])
    judged = judge(groups, series, interval_ms(interval), span_ms=past.span_ms)
    valid = verifying.check_rules(judged, tool)
    states = verifying.check_states(judged, series, tool) if valid.passed else verifying.Check(False)
    with to_a_reader():
        click.echo(chosen.title_of_first)
        click.echo(f"promtool check rules: {'accepted' if valid.passed else 'refused'}")
        if valid.passed:
            verdict = "all hold" if states.passed else "some do not hold"
            click.echo(f"promtool test rules: {states.assertions:,} assertions on alert states, {verdict}")
        for line in states.left_out:
            click.echo(f"not asked: {line}")
        click.echo(valid.said + states.said, nl=False)
    return 0 if valid.passed and states.passed else 1
