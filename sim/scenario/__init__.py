"""Strict YAML in: a scenario file becomes one frozen `Scenario`, or a sentence that says where it is wrong.

Light on purpose: nothing here imports numpy.
"""

from sim.scenario.files import shipped
from sim.scenario.fleet import Fleet, LinearSteps, Noise, Pool, StepTime
from sim.scenario.load import digest, dump, load, loads, points
from sim.scenario.models import Clients, Sample, Scenario, Slo
from sim.scenario.schema import json_schema
from sim.scenario.workload import ArrivalProcess, Arrivals, Cohort, Dist, Distribution, Sessions, Trace, Workload

__all__ = [
    "ArrivalProcess",
    "Arrivals",
    "Clients",
    "Cohort",
    "Dist",
    "Distribution",
    "Fleet",
    "LinearSteps",
    "Noise",
    "Pool",
    "Sample",
    "Scenario",
    "Sessions",
    "Slo",
    "StepTime",
    "Trace",
    "Workload",
    "digest",
    "dump",
    "json_schema",
    "load",
    "loads",
    "points",
    "shipped",
]
