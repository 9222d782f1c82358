"""Bars that lie, with the interval of each and its number beside it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sim.report import style
from sim.report.view import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 0.27
"""Inches that a bar takes, with the space to the next."""


def lying(
    ax: "Axes",
    names: Sequence[str],
    found: Sequence[Estimate],
    colours: Sequence[str],
    said: Callable[[float], str],
    log: bool = False,
) -> None:
    """Draw one bar for each of *found*, the first on top, and write beside it what *said* makes of its estimate."""
    at = np.arange(len(names))[::-1]
    values = np.nan_to_num(np.array([one.value for one in found]))
    ends = (np.array([getattr(one, end) for one in found]) for end in ("low", "high"))
    low, high = (np.where(np.isfinite(end), end, values) for end in ends)  # one seed has no interval
    whiskers = [np.maximum(values - low, 0), np.maximum(high - values, 0)]
    ax.barh(at, values, color=list(colours), height=0.62, zorder=2)
    ax.errorbar(values, at, xerr=whiskers, fmt="none", ecolor=style.INK, elinewidth=1, zorder=3)
    ax.set_yticks(at, names)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.grid(axis="y", visible=False)
    top = max(float(np.maximum(values, high).max()), 1e-12)
    if log:
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xlim(0, 12 * top)
    else:
        ax.set_xlim(0, 1.28 * top)
        ax.xaxis.set_major_formatter(lambda x, _: said(x))
    for y, value, end in zip(at, values, np.maximum(values, high), strict=True):
        style.mark(ax, float(end), float(y), said(float(value)), style.INK, size=8)
