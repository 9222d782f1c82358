"""What the proof of the tester says in a terminal and in a figure."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from loadtest import tester
from loadtest.proof.selftest import LAG_P50_S, Check, Level, Proof
from sim.report import printing, style, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType

COLUMNS = ("what", "measured", "wanted", "")
MARKS = {True: "✓", False: "✗", None: ""}
NEXT = ("blowout load run --url http://127.0.0.1:8000 --rate 5 --duration 1m", "measure an endpoint")


def show(proof: Proof) -> None:
    """Print what was measured of the tester beside what is wanted, and what it can be trusted with."""
    from rich.text import Text

    blocks: list[printing.Block] = [("The tester, against a server whose truth is known", [Text(sentence(proof))])]
    blocks += [(level.name, [_table(level.checks)]) for level in proof.rates]
    reads = [(f"{level.name}: {level.streams:,} at once, {level.tokens_per_s:,.0f} tokens/s", [_table(level.checks)])
             for level in proof.streams]  # fmt: skip
    blocks += [*reads, ("What breaks, and what it is called", [_table(proof.failures)])]
    printing.show(blocks, [NEXT], sys.stdout)


def sentence(proof: Proof) -> str:
    """Return in words what this machine can be trusted with as a tester, one process of it."""
    read = proof.read
    streams = (
        f"{read.streams:,} streams at once, {read.tokens_per_s:,.0f} tokens/s" if read
        else f"fewer than {proof.streams[0].streams:,} streams at once"
    )  # fmt: skip
    most = "at least " if read is proof.streams[-1] else ""
    rate = f"up to {proof.trusted_per_s:g} requests/s" if proof.trusted_per_s else "no rate"
    return f"One process can be trusted with {rate}, and with {most}{streams}; more of either: --workers."


def _table(checks: Sequence[Check]) -> "RenderableType":
    rows = [[check.what, check.measured, check.wanted, MARKS[check.holds]] for check in checks]
    looks = {i: "" if check.holds else "bold" for i, check in enumerate(checks)}
    return printing.table(COLUMNS, rows, texts=(1, 2, 3), looks=looks)


def plate(proof: Proof) -> style.Plate:
    """Return the figure: how late requests were sent, and how wrong TTFT was, against the rate."""
    return style.Plate("send-lag", "The tester", sentence(proof), "", partial(_draw, proof))


def _draw(proof: Proof) -> "Figure":
    from matplotlib.lines import Line2D

    small = (
        "measured against a server of our own on this machine; grey: the most that is wanted of the median and of P99"
    )
    kinds = [("lag_s", "requests sent late", "-"), ("ttft_error_s", "TTFT off by", ":")]
    figure, axes = style.sheet(
        sentence(proof).removesuffix("."), "", small, heights=(2.4,), widths=(1, 1), sharex=False,
        head=0.4 + style.LEGEND_ROW, gap=(0.6, 0.3),
    )  # fmt: skip
    panels: list[tuple[str, Sequence[Level], str]] = [
        ("Short answers, by rate", proof.rates, "requests per second"),
        ("Long answers, by streams at once", proof.streams, "streams"),
    ]
    for ax, (title, some, unit) in zip(axes[0], panels):
        x = [float(level.rate_per_s if some is proof.rates else level.streams) for level in some]
        for name, _, look in kinds:
            for k, stat in enumerate(("P50", "P99")):
                y = [getattr(level, name)[k] for level in some]
                ax.plot(x, y, f"o{look}", color=style.PERCENTILES[stat], mec="white")
        for most_s in (LAG_P50_S, tester.MOST_LAG_P99_S):
            ax.axhline(most_s, color=style.QUIET, lw=0.8, ls=(0, (4, 3)))
        ax.set_yscale("log")
        ax.set_title(title, size=10, weight="bold", loc="left", pad=8)
        ax.set_xlabel(unit)
        ax.set_xticks(x, [words.number(value) for value in x])
    style.log_seconds(axes[0][0].yaxis)
    stats = style.PERCENTILES
    style.legend(
        figure,
        [Line2D([], [], color=stats[stat], ls=look, label=f"{words_}, {stat}")
         for _, words_, look in kinds for stat in ("P50", "P99")],
    )  # fmt: skip
    return figure


__all__ = ["plate", "sentence", "show"]
