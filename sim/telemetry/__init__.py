"""What operators see: the series that a Prometheus would have scraped from the replicas and the gateway of a run.

Names, labels and bucket bounds are those of vLLM 0.32; docs/reference/series.md lists them. Counters start at 0, a
replica's begin anew when its process does, and a process that is gone leaves Prometheus' stale markers.
"""

from sim.families import FAMILIES, Family
from sim.telemetry.openmetrics import write_openmetrics
from sim.telemetry.scraper import Scraper, targets

__all__ = ["FAMILIES", "Family", "Scraper", "targets", "write_openmetrics"]
