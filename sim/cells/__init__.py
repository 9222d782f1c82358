"""One large fleet in cells: each is played by itself, as if the others were not there, and one run is made of all."""

from sim.cells.cell import Cell
from sim.cells.merge import TALLY, folder_of, merge, note_on

__all__ = ["TALLY", "Cell", "folder_of", "merge", "note_on"]
