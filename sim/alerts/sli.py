"""Incidents by an expression: the share of bad requests in PromQL, asked of the same series as the rules."""

import numpy as np

from sim.alerts.past import Past
from sim.alerts.promql.evaluation import evaluate
from sim.alerts.promql.parsing import Expression, SyntaxFault, parse
from sim.alerts.promql.store import Store
from sim.alerts.promql.vectors import Dialect, Steps, UnsupportedError
from sim.alerts.truth import BUDGET_WINDOW_S, Incident, Spent, Truth, Worth, grouped, joined, spans
from sim.errors import InputError

STEP_MS = 60_000
"""How often the expression is asked: once a minute, as finely as a simulated run counts."""


def expression(text: str) -> Expression:
    """Return the ``--sli`` that *text* is.

    Raises:
        InputError: it is no PromQL, or not of the subset; names the column.
    """
    try:
        found = parse(text)
    except SyntaxFault as fault:
        raise InputError(f"--sli: not PromQL at column {fault.position + 1}: {fault.what}") from None
    except UnsupportedError as error:
        raise InputError(f"--sli: expected PromQL of the subset, got {error.what}") from None
    if not found.selectors:
        raise InputError("--sli: expected an expression that reads series, such as the share of bad requests")
    return found


def truth(past: Past, sli: Expression, objective: float, worth: Worth, dialect: Dialect, from_ms: int = 0) -> Truth:
    """Return the incidents of *past*: while *sli*, a share of bad requests, is not below 1 - *objective* (a fraction).

    Nothing before *from_ms* counts.

    The budget is that of 30 days at even traffic, since a share says nothing of how many requests there were.

    Raises:
        InputError: no series has what it reads, it has several values at a time, or values that are no shares.
    """
    store = Store(past.read((), [sli]))
    first_ms, last_ms = past.span_ms
    from_ms = max(first_ms, from_ms)
    t_ms = np.arange(first_ms // STEP_MS * STEP_MS, last_ms + 1, STEP_MS, dtype=np.int64)
    bad = np.where(t_ms < from_ms, 0.0, _share(store, sli, t_ms, dialect, past.name))
    budget = 1.0 - objective
    cost = bad * (STEP_MS / 1000) / (budget * BUDGET_WINDOW_S)
    name = f"SLI {100 * objective:.5g}%"
    found = []
    for group in grouped(spans(bad >= budget), -(-worth.gap_ms // STEP_MS)):
        a, b = group[0][0], group[-1][1]
        burned = float(cost[a:b].sum())
        if severity := worth.severity(burned):
            found.append(Incident("", int(t_ms[a]), int(t_ms[b - 1]) + STEP_MS, severity, burned, name))
    edges = np.append(t_ms, t_ms[-1] + STEP_MS)
    spent = Spent(edges, np.concatenate([[0.0], np.cumsum(cost)]))
    said = f"--sli {sli.text!r}, share of bad requests, objective {100 * objective:.5g}%"
    return Truth(joined(found), said, from_ms, last_ms, spent={name: spent})


def _share(store: Store, sli: Expression, t_ms: np.ndarray, dialect: Dialect, name: str) -> np.ndarray:
    """Return the share of bad requests at each of *t_ms*; no value, as without traffic, is none."""
    unmatched = [str(one) for one in sli.selectors if not store.select(one.matchers)]
    if unmatched:
        raise InputError(f"--sli: no series of {name} matches {', '.join(unmatched)}")
    steps = Steps(t_ms, dialect)
    found = evaluate(sli, store, steps)
    if len(found) > 1:
        raise InputError(f"--sli: expected one value at a time, got {len(found)} on {name}; sum them up")
    if steps.failed.any():
        raise InputError(f"--sli: cannot be evaluated on {name}: {'; '.join(steps.reasons)}")
    values = np.zeros(len(t_ms))
    if len(found):
        values = np.where(found.present[0] & np.isfinite(found.values[0]), found.values[0], 0.0)
    if len(values) and (values.min() < -1e-9 or values.max() > 1 + 1e-9):
        worst = values[np.argmax(np.abs(values - 0.5))]
        raise InputError(f"--sli: expected a share of bad requests, from 0 to 1, got {worst:.6g} on {name}")
    return values
