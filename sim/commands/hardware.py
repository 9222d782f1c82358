"""``blowout hardware``: models, hardware and the step times there are."""

import json
import sys

import click

NEXT = (
    "blowout init --vllm 'vllm serve MODEL --max-num-seqs 128' --hardware h100 --out mine.yaml",
    "a scenario of what you run on one of them",
)


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
    from rich.text import Text

    from sim.report import printing

    titles = {
        "model": "model",
        "hardware": "hardware",
        "tensor_parallel": "TP",
        "backend": "engine",
        "kv_tokens": "KV tokens",
        "decode_1_ms": "decode\nof 1, ms",
        "decode_64_ms": "of 64",
        "decode_256_ms": "of 256",
        "prefill_2048_ms": "prefill of\n2048, ms",
        "note": "note",
    }
    cells = [
        ["" if row[key] is None else f"{row[key]:,}" if isinstance(row[key], int) else str(row[key]) for key in titles]
        for row in rows
    ]
    table = printing.table(list(titles.values()), cells, texts=(1, 3, 9))
    rests = "Step times are kernel estimates (aiconfigurator-core 0.12.0) without host overhead: `uncalibrated`."
    printing.show([("", [table, Text(), Text(rests)])], [NEXT], sys.stdout)
