"""The figures of a run: which there are, in the order of a story, and how they become files."""

from pathlib import Path
from typing import TYPE_CHECKING

from sim.report import containing, distribution, harm, parts, sweep, timeline, twins, wrong
from sim.report.style import Plate
from sim.report.view import View, view

if TYPE_CHECKING:
    from sim.results import Run

KINDS = {
    "blowout": sweep.plate,
    "control": twins.plate,
    "timeline": timeline.plate,
    "distribution": distribution.plate,
    "where-time-went": parts.plate,
    "wrong-answers": wrong.plate,
    "breakers": containing.breakers,
    "reviewers": containing.reviewers,
    "gates": containing.gates,
    "releases": containing.releases,
    "slow-and-wrong": harm.coupling,
    "misrouted": harm.misrouted,
    "tasks": harm.tasks,
    "noticed": harm.noticed,
}
"""Every figure there is, by the name of its file; each says by itself whether a run has it."""


def plates(seen: View) -> list[Plate]:
    """Return the figures that a run has, not yet drawn."""
    return [plate for make in KINDS.values() if (plate := make(seen)) is not None]


def write_figures(run: "Run") -> list[Path]:
    """Draw every figure of *run* into its ``figures/`` and return the PNG files, in the order of the story.

    Figures that an earlier report left there, and that the run does not have, are removed.
    """
    from sim.report import style

    folder = Path(run.path) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for plate in plates(view(run)):
        path = folder / f"{plate.name}.png"
        style.save(plate, path)
        written.append(path)
    for name in KINDS:
        if (path := folder / f"{name}.png") not in written:
            path.unlink(missing_ok=True)
    return written
