"""Strict YAML in: a scenario file becomes one frozen `Scenario`, or a sentence that says where it is wrong.

Light on purpose: nothing here imports numpy.
"""

from sim.scenario.answers import AnswerCheck
from sim.scenario.clients import Clients
from sim.scenario.files import shipped
from sim.scenario.fleet import Fleet, LinearSteps, Noise, Pool, StepTime
from sim.scenario.load import Check, at_points, changed, digest, dump, load, loads, points, reread
from sim.scenario.messages import Problem
from sim.scenario.models import Sample, Scenario, Slo
from sim.scenario.schema import json_schema
from sim.scenario.workload import ArrivalProcess, Arrivals, Cohort, Dist, Distribution, Sessions, Trace, Workload

__all__ = [
    "AnswerCheck",
    "ArrivalProcess",
    "Arrivals",
    "Check",
    "Clients",
    "Cohort",
    "Dist",
    "Distribution",
    "Fleet",
    "LinearSteps",
    "Noise",
    "Pool",
    "Problem",
    "Sample",
    "Scenario",
    "Sessions",
    "Slo",
    "StepTime",
    "Trace",
    "Workload",
    "at_points",
    "changed",
    "digest",
    "dump",
    "json_schema",
    "load",
    "loads",
    "points",
    "reread",
    "shipped",
]
