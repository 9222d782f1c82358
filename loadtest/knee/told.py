"""What a search for the knee says: a line a stage, a table, and a figure of rates against time and kept promises."""

import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loadtest.knee.judging import Verdict
from loadtest.knee.search import Knee, Stage
from sim.report import printing, style, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType

GROWS = "in flight still grew"


def line(stage: Stage) -> str:
    """Return what one stage says, for whoever watches."""
    grew = f", {GROWS}" if stage.grows else ""
    return (
        f"{stage.rate_per_s:g} requests/s: {stage.verdict}{grew}; {_objectives(stage)}; TTFT P50 "
        f"{words.seconds(stage.ttft_s['p50'])}, P99 {words.seconds(stage.ttft_s['p99'])} "
        f"(a closed loop would claim {words.seconds(stage.claimed_s['p99'])})"
    )


def _objectives(stage: Stage) -> str:
    return ", ".join(f"{one.objective.text}: {one.missed:,} of {one.requests:,} miss it" for one in stage.shares)


def sentence(found: Knee) -> str:
    """Return the answer: the knee with its interval, or that there is none between the rates that were tried."""
    if not found.rate_per_s:
        return "The SLO is broken at the lowest rate that was tried: no knee was found."
    if len(found.repeats) > 1 and math.isfinite(found.low):
        many = f"mean of {len(found.repeats)} searches [95% interval of the mean]"
        return f"The knee is at {found.rate_per_s:.3g} requests/s [{found.low:.3g} to {found.high:.3g}], {many}."
    if math.isinf(found.high):
        return f"The SLO is kept up to {found.rate_per_s:g} requests/s, the highest rate that was tried."
    low = f"shown to hold at {found.low:g}" if found.low else "shown to hold at no rate"
    return f"The knee is at {found.rate_per_s:g} requests/s: {low}, to break at {found.high:g}."


def remarks(found: Knee, stages: Sequence[Stage]) -> list[str]:
    """Return what was not shown, and what it would take."""
    said = []
    for share in stages[0].shares if stages else ():
        one = share.objective
        most = max(other.requests for stage in stages for other in stage.shares if other.objective == one)
        if most < one.fewest:
            said.append(
                f"{one.text}: to show that it holds takes {one.fewest:,} requests at one rate of which none misses it, "
                f"and at most {most:,} were sent; a longer --stage shows it"
            )
    if any(stage.grows and stage.verdict != Verdict.BREAKS for stage in stages):
        said.append(f"{GROWS} where a stage ended: a longer --stage would end worse there")
    return said


def show(path: Path, found: Knee, stages: Sequence[Stage]) -> None:
    """Print the stages by rate, the knee, and what to type next."""
    from rich.text import Text

    notes = [Text(f"- {text}") for text in remarks(found, stages)]
    head: list[RenderableType] = [Text(sentence(found), style="bold"), Text(), _table(stages)]
    commands = [
        (f"blowout report {path}", "every stage in full, with figures"),
        (f"blowout run {path / 'scenario.yaml'}", "the same rates, simulated"),
    ]
    printing.show([("", head), ("What was not shown", notes)], commands, sys.stdout)


def _table(stages: Sequence[Stage]) -> "RenderableType":
    titles = ("requests/s", "requests", "within SLO", "TTFT P50", "TTFT P99", "a closed loop: P99", "")
    rows = []
    for stage in sorted(stages, key=lambda one: one.rate_per_s):
        requests = max((one.requests for one in stage.shares), default=0)
        times = [stage.ttft_s["p50"], stage.ttft_s["p99"], stage.claimed_s["p99"]]
        verdict = f"{stage.verdict}{f', {GROWS}' if stage.grows else ''}"
        cells = [f"{stage.rate_per_s:g}", f"{requests:,}", words.percent(stage.within), *map(words.seconds, times)]
        rows.append([*cells, verdict])
    return printing.table(titles, rows, texts=(6,))


def plate(found: Knee, stages: Sequence[Stage], slo: str, name: str) -> style.Plate:
    """Return the figure: TTFT and the share within the SLO against the rate, and where the knee is."""
    return style.Plate("knee", "The knee", sentence(found), "", partial(_draw, found, stages, slo, name))


def _draw(found: Knee, stages: Sequence[Stage], slo: str, name: str) -> "Figure":
    small = f"{name}, measured in open loop, each stage from idle; grey: from the highest rate shown to keep {slo} to "
    small += "the lowest shown to break it" if len(found.repeats) < 2 else "its interval over searches"
    figure, axes = style.sheet(
        sentence(found).removesuffix("."),
        f"SLO: {slo}",
        small,
        heights=(2.2, 1.4),
        head=0.36 + style.LEGEND_ROW,
        gap=(0.3, 0.45),
        right=0.25,
    )
    times, kept = axes[0][0], axes[1][0]
    ordered = sorted(stages, key=lambda one: one.rate_per_s)
    x = [stage.rate_per_s for stage in ordered]
    for stat in ("p50", "p99"):
        colour = style.PERCENTILES[stat.upper()]
        y = [stage.ttft_s[stat] if math.isfinite(stage.ttft_s[stat]) else math.nan for stage in ordered]
        times.plot(x, y, "o-", color=colour, mec="white", label=stat.upper())
    claimed = [stage.claimed_s["p99"] for stage in ordered]
    times.plot(x, claimed, "--", color=style.QUIET, lw=1.2, label="P99, as a closed loop would claim it")
    style.legend(figure, times.get_legend_handles_labels()[0])
    times.set_yscale("log")
    times.set_title("Time to first token, logarithmic", size=10, weight="bold", loc="left", pad=8)
    style.log_seconds(times.yaxis)
    kept.plot(x, [stage.within for stage in ordered], "-", color=style.KV)
    marks = {Verdict.STABLE: "o", Verdict.UNDECIDED: "s", Verdict.BREAKS: "D"}
    fills = {Verdict.STABLE: style.KV, Verdict.UNDECIDED: style.QUIET, Verdict.BREAKS: style.PERCENTILES["P99"]}
    for verdict, shape in marks.items():
        some = [stage for stage in ordered if stage.verdict == verdict]
        kept.plot([stage.rate_per_s for stage in some], [stage.within for stage in some], shape, ms=6,
                  color=style.KV, mec="white", mfc=fills[verdict], label=verdict.lower())  # fmt: skip
    kept.set_title("Share of requests within the SLO", size=10, weight="bold", loc="left", pad=8)
    kept.legend(loc="lower left")
    style.percent_axis(kept.yaxis)
    kept.set_xlabel("requests per second")
    for ax in (times, kept):
        if found.rate_per_s:
            ax.axvspan(found.low or x[0], min(found.high, x[-1]), color=style.SHADE, zorder=0, lw=0)
            ax.axvline(found.rate_per_s, color=style.INK, lw=1)
    return figure
