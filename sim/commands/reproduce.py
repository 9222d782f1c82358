"""``blowout reproduce``: every claim of the article that Blowout grew from, measured and judged."""

import json
import sys
from pathlib import Path

import click

from sim.commands.alerts.common import JSON, options, watched
from sim.commands.run import warm
from sim.errors import InputError
from sim.interrupts import to_a_reader


@click.command()
@options(
    click.option("--fast", is_flag=True, help="Fewer seeds where a fleet is played."),
    click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("results/seed"),
                 show_default=True, help="Folder for the page, its figures and claims.json."),
    JSON,
)  # fmt: skip
def command(fast: bool, out: Path, as_json: bool) -> int:
    """Measure all 57 claims of "1% Error Rate, 10 Million Users", and say which are right, loose or wrong.

    Exit code 1: a verdict is not the one that is expected, or a formula is not in the interval of what was played. 3: a
    claim is not decided, for an interval holds the limit.
    """
    from sim.results import plain
    from sim.seed import examine, page, told
    from sim.seed.table import CLAIMS

    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another with --out") from None
    warm()
    with watched("claims", len(CLAIMS)) as done:
        found = examine.examine(fast, done)
    page.write(found, out, fast)
    with to_a_reader():
        if as_json:
            click.echo(json.dumps(plain(told.as_json(found, fast)), indent=1))
        else:
            told.show(found, str(out / "README.md"), sys.stdout)
    different = examine.changed(found)
    for number in different:
        claim, verdict = CLAIMS[number], found[number].verdict.value
        click.echo(f"claim {number} is {verdict}, expected {claim.expected.value}: {claim.says}", err=True)
    apart = examine.disagree(found)
    for number, both in apart:
        formula, played, _ = told.beside(both)
        click.echo(f"claim {number}: {both.what}: expected {formula}, {both.scenario} played {played}", err=True)
    unknown = examine.undecided(found)
    for number in unknown:
        click.echo(f"claim {number}: {told.undecided(found[number])}", err=True)
    return 1 if different or apart else 3 if unknown else 0
