"""``blowout alerts``: Prometheus rules, judged on a past as Prometheus would have judged them."""

import click

from sim.lazy import Lazy

COMMANDS = {
    "eval": ("sim.commands.alerts.judge", "Say when each rule was pending and firing."),
    "score": ("sim.commands.alerts.score", "Hold rules against what really happened to users."),
    "tune": ("sim.commands.alerts.tune", "Find the thresholds, windows and `for` that serve you best."),
    "verify": ("sim.commands.alerts.verify", "Ask the real promtool whether we are right."),
}


@click.group(cls=Lazy, lazy=COMMANDS)
def command() -> None:
    """Judge Prometheus rules, unchanged, on the series of a run."""
