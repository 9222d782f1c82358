"""What alert rules did in one run, as metrics that claims can name: ``alert.RULE.pages``, ``alert.FILE.caught``.

A rule goes by its name; all paging rules of a file together go by the file's, without its ending. What two rules or
files are called has no metrics.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sim.alerts import users
from sim.alerts.past import Past
from sim.alerts.rulefile import read_once
from sim.alerts.rules import judge, names_read
from sim.alerts.score import Judged, Score, score
from sim.alerts.truth import Worth
from sim.scenario import Scenario

OF_ALERT = ("pages", "false_pages", "false_pages_per_week", "caught", "lead_s", "detection_s")
"""How often it paged, and for nothing; its share of the incidents; when its first page came, before and after users
noticed, the median in seconds."""

INCIDENTS = "incidents"
"""How many intervals there were in which users' service broke its SLO so that at least 0.5% of the budget burned."""


def names(files: Sequence[str]) -> set[str]:
    """Return every metric that there is with rule files *files*.

    Raises:
        RuleError: one that is no rule file.
    """
    if not files:
        return set()
    return {INCIDENTS, *(f"alert.{name}.{metric}" for name in _unique(files) for metric in OF_ALERT)}


def _unique(files: Sequence[str]) -> set[str]:
    """Return the names that mean one rule, or one file, alone: there are no metrics of the others."""
    of = [Path(file).stem for file in files]
    of += [rule.name for file in files for group in read_once(Path(file)) for rule in group.rules if not rule.records]
    return {name for name in of if of.count(name) == 1}


def measure(scenario: Scenario, past: Past) -> dict[str, float]:
    """Return these metrics of *past*, a run of *scenario* that promised its users something."""
    truth = users.truth(past, Worth())
    measured = {INCIDENTS: float(len(truth.incidents))}
    unique = _unique(scenario.alerts)
    for file in scenario.alerts:
        groups = read_once(Path(file))
        span_ms = past.span_ms
        judged = Judged(past.name, truth, span_ms[1], judge(groups, past.series(names_read(groups)), span_ms=span_ms))
        scores, together = score([judged])
        for name, one in [*((one.name, one) for one in scores), (Path(file).stem, together)]:
            if name in unique:
                measured |= _said(name, one)
    return measured


def _said(name: str, one: Score) -> Iterator[tuple[str, float]]:
    silent = not one.held
    weekly = one.false_per_week
    values = {
        "pages": math.nan if silent else float(one.pages),
        "false_pages": math.nan if silent else float(one.false),
        "false_pages_per_week": math.nan if weekly is None else weekly.estimate,
        "caught": one.caught / one.incidents if one.incidents else math.nan,
        "lead_s": _median(one.lead_s),
        "detection_s": _median(one.detection_s),
    }
    return ((f"alert.{name}.{metric}", values[metric]) for metric in OF_ALERT)


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan
