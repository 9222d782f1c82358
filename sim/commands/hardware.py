"""``blowout hardware``: models, hardware and the step times there are."""

import json
import sys

import click


@click.command()
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(words: tuple[str, ...], as_json: bool) -> None:
    """List the combinations of model and hardware with tabulated step times; WORDS filter, such as ``70b h100 tp2``."""
    from sim.engine.hardware import describe

    rows = describe(" ".join(words))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    titles = {
        "model": "model",
        "hardware": "hardware",
        "tensor_parallel": "TP",
        "backend": "engine",
        "kv_tokens": "KV tokens",
        "decode_1_ms": "decode 1",
        "decode_64_ms": "64",
        "decode_256_ms": "256 ms",
        "prefill_2048_ms": "prefill 2048 ms",
        "note": "note",
    }
    table = Table(box=None, pad_edge=False)
    for title in titles.values():
        table.add_column(title, justify="left" if title in ("model", "hardware", "engine", "note") else "right")
    for row in rows:
        table.add_row(*("" if row[key] is None else f"{row[key]:,}" if isinstance(row[key], int) else str(row[key])
                        for key in titles))  # fmt: skip
    Console(width=max(100, 140 if not sys.stdout.isatty() else Console().width)).print(table)
    click.echo("\nStep times are kernel estimates (aiconfigurator-core 0.12.0) without host overhead: `uncalibrated`.")
