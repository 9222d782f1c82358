"""Tables, figures and the page to send: what a person sees of a run.

Nothing here needs matplotlib or rich until something is drawn or printed.
"""

from sim.report import tables
from sim.report.figures import write_figures
from sim.report.html import write_html
from sim.report.tables import summary_json

__all__ = ["summary_json", "tables", "write_figures", "write_html"]
