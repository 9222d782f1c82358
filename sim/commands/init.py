"""``blowout init``: a scenario from what you already run."""

from pathlib import Path

import click

from sim.errors import InputError


@click.command()
@click.option(
    "--vllm", metavar="COMMAND", help='The command line of your server: "vllm serve MODEL --max-num-seqs 128 ...".'
)
@click.option(
    "--metrics", multiple=True, metavar="FILE|URL", help="A /metrics page of your server (repeat for a pair)."
)
@click.option("--prometheus", metavar="URL", help="A Prometheus that scrapes it ($BLOWOUT_PROMETHEUS_TOKEN if needed).")
@click.option("--over", default=None, metavar="TIME", help="How far apart to scrape a metrics URL twice [10s].")
@click.option("--range", "range_", default=None, metavar="TIME", help="How far back to ask Prometheus [1h].")
@click.option("--hardware", help="GPU, as in `blowout hardware`.")
@click.option("--name", help="Name of the scenario.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write (stdout if left out).")
def command(
    vllm: str | None,
    metrics: tuple[str, ...],
    prometheus: str | None,
    over: str | None,
    range_: str | None,
    hardware: str | None,
    name: str | None,
    out: Path | None,
) -> None:
    """Write a commented scenario from what you already run; every value is marked measured, derived or guessed."""
    from sim.init import describe

    if out is not None and out.exists():
        raise InputError(f"{out}: exists; choose another file with --out")
    if any("://" in source for source in metrics):
        click.echo(f"scraping twice, {over or '10s'} apart ...", err=True)
    text, notes = describe(vllm, metrics, prometheus, over, range_, hardware, name)
    for note in notes:
        click.echo(note, err=True)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from None
    click.echo(f"wrote {out}\nnext: blowout check {out}")
