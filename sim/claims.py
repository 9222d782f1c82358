"""Statements that a run must make true: ``ttft_p99[7.2] / ttft_p99[6.0] >= 10``.

    claim    := sum (`<=` | `<` | `>=` | `>`) sum  |  sum `within` sum `of` sum
    sum      := product ((`+` | `-`) product)*
    product  := operand ((`*` | `/`) operand)*
    operand  := `-` operand | `(` sum `)` | number, duration (2s, 100ms) or percentage (5%) | metric
    metric   := NAME_STATISTIC, or cohort.NAME.NAME_STATISTIC, with the values of `vary` in [ ] where there are several

A claim is evaluated once a seed, so that a ratio of two points compares the same users, and judged by the median
over the seeds; the interval is a percentile bootstrap of that median (Efron and Tibshirani, 1993, chapter 13).
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.errors import ScenarioError
from sim.scenario.files import did_you_mean
from sim.units import DURATION_TOKEN, NUMBER, quantity, show

if TYPE_CHECKING:
    import numpy as np
