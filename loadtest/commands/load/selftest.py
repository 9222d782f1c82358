"""``blowout load selftest``: prove the tester itself on this machine."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loadtest.commands.load import asking
from sim import results
from sim.errors import RunError
from sim.interrupts import Interrupts, to_a_reader

if TYPE_CHECKING:
    from loadtest.proof.selftest import Proof


@click.command("selftest")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="Folder for selftest.json and a figure, new or empty.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(out: Path | None, as_json: bool) -> int:
    """Measure the tester itself, against a server of its own whose truth is known; it takes about a minute.

    Whether requests are sent when the schedule says, by how much TTFT and ITL are off, how many streams are read in
    time, and whether every kind of failure is told from the others. Exit code 0: it can be trusted at every rate that
    was tried. 3: not at all of them; the sentence says up to which.
    """
    asking.require_locust()
    from loadtest.proof import selftest, told

    folder = results.new_folder(out, "selftest") if out else None
    proof = _proof()
    if folder:
        from sim.report import style

        results.write_json(folder / "selftest.json", selftest.as_json(proof))
        style.save(told.plate(proof), folder / "send-lag.png")
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(results.plain(selftest.as_json(proof)), indent=1))
        else:
            told.show(proof)
    if proof.wrong:
        raise RunError(proof.wrong)
    return 0


def _proof() -> "Proof":
    """Play every level, saying on stderr how far it has come."""
    from loadtest.proof.selftest import RATES, STREAMS, Proof, bench

    def say(what: str) -> None:
        click.echo(f"selftest: {what} ...", err=True)

    with Interrupts() as interrupts, bench(interrupts) as tried:
        say("answers that break")
        failures = tried.failures()
        rates, streams = [], []
        for rate, seconds in RATES.items():
            say(f"{rate} requests/s")
            rates.append(tried.rate(rate, seconds))
        for most in STREAMS:
            say(f"{most} streams")
            streams.append(tried.streams(most))
            if not streams[-1].holds:
                break
    return Proof(rates, streams, failures)
