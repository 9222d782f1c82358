"""What users ask, and when: arrivals, lengths, cohorts, sessions, traces.

``compile(scenario, seed)`` gives a `Workload`, whose ``chunks()`` are arrays of `sim.records.REQUEST`. It
knows nothing of the fleet: two fleets, routers or policies meet the same users.
"""

from sim.workload.fitted import FITS
from sim.workload.traces import Trace
from sim.workload.traces import load as load_trace
from sim.workload.workload import CHUNK, Workload, compile

__all__ = ["CHUNK", "FITS", "Trace", "Workload", "compile", "load_trace"]
