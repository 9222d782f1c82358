"""A calibration as a figure: the fit beside the steps, what is left over time, and predictions beside measurements."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sim.calibrate.fit import BLOCK_S, blocks_of
from sim.calibrate.play import METRICS
from sim.report import style
from sim.report.fitting import Found, headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIT, SEEN, JUDGED, NONE = style.SERIES[0], style.QUIET, style.SERIES[3], style.QUIET
FEWEST = 10
"""Steps of one batch, below which their spread is not drawn."""


def plate(found: Found) -> style.Plate:
    """Return the figure of what was *found*."""
    profile = found.calibration.profile
    title = f"Step times are known to within {profile['scale']['low']:.2g} to {profile['scale']['high']:.2g} times"
    caption = (
        f"{headline(found)} Left: steps that only decode, median with P10 to P90, beside the fit (line). Middle: time "
        f"taken over the fit's, by {BLOCK_S:g} s. Right: percentiles of whole runs, predicted (95%) against measured."
    )
    if found.calibration.log is None:
        caption = f"{headline(found)} Percentiles of whole runs, predicted (95%) against measured."
    return style.Plate("calibration", "Calibration", title, caption, partial(_draw, found, title, caption))


def _draw(found: Found, title: str, caption: str) -> "Figure":
    many = found.calibration.log is not None
    below = f"{len(found.calibration.runs)} measured runs, {len(found.judges)} predicted"
    figure, axes = style.sheet(
        title, below, caption, heights=(3.2,), widths=(1, 1, 1) if many else (1,), sharey=False, sharex=False,
        gap=(0.75, 0.2), head=0.3,
    )  # fmt: skip
    if many:
        _steps(axes[0, 0], found)
        _rest(axes[0, 1], found)
    _percentiles(axes[0, -1], found)
    return figure


def _steps(ax: "Axes", found: Found) -> None:
    log, fitted = found.calibration.log, found.calibration.fitted
    assert log is not None
    assert fitted is not None
    pure = (log.prompt == 0) & (log.decoding > 0)
    counts = np.array([n for n in np.unique(log.decoding[pure]) if (pure & (log.decoding == n)).sum() >= FEWEST])
    spread = np.array([np.quantile(log.took_s[pure & (log.decoding == n)], [0.1, 0.5, 0.9]) for n in counts]) * 1e3
    if len(counts):
        error = np.abs(spread[:, [0, 2]] - spread[:, [1]]).T
        ax.errorbar(counts, spread[:, 1], yerr=error, fmt="o", color=SEEN, ms=3, lw=0, elinewidth=1)
    line = np.arange(1, int(log.decoding.max()) + 1)
    ax.plot(line, 1e3 * (fitted.steps.base_s + fitted.steps.decode_s[line, 0]), color=FIT)
    style.from_zero([ax])
    ax.set_xlabel("decoding sequences")
    ax.set_ylabel("step, ms")


def _rest(ax: "Axes", found: Found) -> None:
    log, fitted = found.calibration.log, found.calibration.fitted
    assert log is not None
    assert fitted is not None
    block = blocks_of(log.end_s)
    ratio = np.bincount(block, log.took_s) / np.bincount(block, fitted.work_s)
    ax.axhline(1.0, color=NONE, lw=1, ls="--")
    ax.plot(np.arange(len(ratio)) * BLOCK_S, ratio, color=FIT, lw=1)
    ax.set_xlabel("seconds, one run after the other")
    ax.set_ylabel("taken / fitted")


def _percentiles(ax: "Axes", found: Found) -> None:
    ends: list[float] = []
    for some, colour, label in ((found.made, FIT, "made on"), (found.judges, JUDGED, "judges")):
        for k, one in enumerate(some):
            known = np.isfinite(one.measured) & np.isfinite(one.predicted)
            down, up = one.predicted - one.low, one.high - one.predicted
            ax.errorbar(
                one.measured[known], one.predicted[known], yerr=[down[known], up[known]], fmt="o", color=colour, ms=4,
                lw=0, elinewidth=1, label=label if k == 0 else None,
            )  # fmt: skip
            ends += [*one.measured[known], *one.low[known], *one.high[known]]
    low, high = min(ends) / 1.3, max(ends) * 1.3
    ax.plot([low, high], [low, high], color=NONE, lw=1, ls="--")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    for axis in (ax.xaxis, ax.yaxis):
        style.log_seconds(axis)
    if found.judges:
        ax.legend(loc="upper left")
    ax.set_xlabel(f"measured {' '.join(METRICS[0].split()[:1])} and e2e percentiles")
    ax.set_ylabel("predicted")
