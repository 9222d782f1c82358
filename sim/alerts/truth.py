"""What really happened to users: the incidents that pages are held against."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Incident:
    """An interval in which what users saw broke the objective badly enough to matter.

    *burned* is the share of the error budget that went in it (None: not known), *severity* what it deserves (``page``
    or ``ticket``), *objective* which one it broke, *causes* the faults that were on: kept apart, for a fault that
    nobody notices is no incident, and an incident needs no fault.
    """

    id: str
    start_ms: int
    end_ms: int
    severity: str = "page"
    burned: float | None = None
    objective: str = ""
    causes: tuple[str, ...] = ()
