"""``blowout alerts``: Prometheus rules, judged on a past as Prometheus would have judged them."""

import click

from sim.lazy import Lazy

COMMANDS = {
    "audit": ("sim.commands.alerts.audit", "Hold rules against failures, one by one, and against quiet times."),
    "eval": ("sim.commands.alerts.judge", "Say when each rule was pending and firing."),
    "lint": ("sim.commands.alerts.lint", "Say what is wrong with rules, before they are judged."),
    "export": ("sim.commands.alerts.export", "Write rules, promtool tests of them and a dashboard, to be shipped."),
    "score": ("sim.commands.alerts.score", "Hold rules against what really happened to users."),
    "tune": ("sim.commands.alerts.tune", "Find the thresholds, windows and `for` that serve you best."),
    "prove": ("sim.commands.alerts.prove", "Say whether alerts fired when they should, and only then."),
    "verify": ("sim.commands.alerts.verify", "Ask the real promtool whether we are right."),
}


@click.group(cls=Lazy, lazy=COMMANDS)
def command() -> None:
    """Judge Prometheus rules, unchanged, on the series of a run."""
