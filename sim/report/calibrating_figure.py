"""Confidence as a figure: is it kept (reliability diagram), and does it tell wrong from right (gate curve)?"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sim.quality import calibration
from sim.report import style, words
from sim.report.calibrating import Found, verdict
from sim.theory.counted import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, BEST, NONE = style.SERIES[0], style.SERIES[3], style.QUIET


def plate(found: Found) -> style.Plate:
    """Return the reliability diagram of *found* beside what holding back the least confident answers catches."""
    wrong = words.percent(found.whole.wrong.estimate)
    caption = (
        f"{found.name}: {found.whole.answers:,} answers, {wrong} wrong. Left: bins of about equally many answers, bars "
        "95% (Wilson); on the line confidence is kept. Right: the share of errors among the least confident answers; "
        "best is every error first, none is no order at all."
    )
    return style.Plate("calibration", "Confidence", verdict(found)[0], caption, partial(_draw, found, caption))


def _draw(found: Found, caption: str) -> "Figure":
    area = f"AUROC {found.whole.auroc.estimate:.3f}, " if found.whole.auroc else ""
    below = f"{area}calibration error {words.percent(found.whole.ece.interval.estimate)}"
    figure, axes = style.sheet(
        verdict(found)[0], below, caption, heights=(3.4,), widths=(1, 1), sharey=False, sharex=False, gap=(0.75, 0.2),
        head=0.3,
    )  # fmt: skip
    _reliability(axes[0, 0], found)
    _caught(axes[0, 1], found)
    return figure


def _reliability(ax: "Axes", found: Found) -> None:
    bins = found.bins
    rows = [wilson(int(k), int(n)) for k, n in zip(bins.right, bins.answers)]
    down = [row.estimate - row.low for row in rows]
    up = [row.high - row.estimate for row in rows]
    least = max(0.0, min(float(bins.confidence.min()), *(row.low for row in rows)) - 0.02)
    ax.plot([least, 1], [least, 1], color=NONE, lw=1, ls="--")
    ax.errorbar(bins.confidence, bins.accuracy, yerr=[down, up], fmt="o-", color=OURS, ms=4, lw=1.2, elinewidth=1)
    ax.set_xlim(least, 1 + 0.02 * (1 - least))
    ax.set_ylim(least, 1 + 0.02 * (1 - least))
    ax.set_xlabel("confidence, mean of a bin")
    ax.set_ylabel("share that was right")


def _caught(ax: "Axes", found: Found) -> None:
    c, y = found.data.confidence, found.data.correct
    coverage, risk = calibration.risk_coverage(c, y)
    wrong = found.whole.wrong.estimate
    held = np.concatenate([[1.0], 1 - coverage])
    caught = np.concatenate([[1.0], 1 - risk * coverage / wrong])
    some = np.unique(np.linspace(0, len(held) - 1, 2000).astype(int))
    ax.plot([0, wrong, 1], [0, 1, 1], color=BEST, lw=1.2)
    ax.plot([0, 1], [0, 1], color=NONE, lw=1, ls="--")
    ax.plot(held[some], caught[some], color=OURS)
    for label, at, colour in (("best", 0.72, BEST), ("this model", 0.64, OURS), ("none", 0.56, NONE)):
        ax.text(0.97, at - 0.4, label, color=colour, ha="right", size=8.5, weight="bold", transform=ax.transAxes)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)
    for axis in (ax.xaxis, ax.yaxis):
        style.percent_axis(axis)
    ax.set_xlabel("least confident answers, held back")
    ax.set_ylabel("errors among them")
