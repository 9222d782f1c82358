"""Error budgets: what a burn rate spends, which pages can never fire, and what a rule on accuracy cannot see.

Source: Beyer et al. (eds.), *The Site Reliability Workbook* (2018), chapter 5, table 5-8 for the multipliers.
"""

from typing import NamedTuple

from sim.quality.rates import chance

MONTH_S = 30 * 86_400.0


class BurnAlert(NamedTuple):
    """Alert when errors over a *window_s* burn the budget *multiplier* times as fast as it may last."""

    multiplier: float
    window_s: float


CLASSIC = (BurnAlert(14.4, 3600), BurnAlert(6, 6 * 3600), BurnAlert(3, 24 * 3600), BurnAlert(1, 72 * 3600))
"""Two that page, two that open a ticket (Site Reliability Workbook, table 5-8)."""


class Burned(NamedTuple):
    """A burn-rate alert under one budget: the error rate it fires at, the share of the budget gone by then."""

    alert: BurnAlert
    error: float
    spent: float
    reachable: bool


def burn(error: float, budget: float) -> float:
    """Return how many times too fast the *error* rate spends a *budget* (a share of all requests)."""
    return chance(error, "error") / _budget(budget)


def spent(burn_rate: float, window_s: float, period_s: float = MONTH_S) -> float:
    """Return the share of a period's budget that *burn_rate* spends in *window_s*."""
    return burn_rate * window_s / period_s


def table(budget: float, alerts: tuple[BurnAlert, ...] = CLASSIC, period_s: float = MONTH_S) -> list[Burned]:
    """Return what each of *alerts* means under *budget*; one that asks for more than every request is not reachable."""
    _budget(budget)
    return [
        Burned(alert, alert.multiplier * budget, spent(alert.multiplier, alert.window_s, period_s),
               alert.multiplier * budget < 1)
        for alert in alerts
    ]  # fmt: skip


def _budget(budget: float) -> float:
    if not 0 < budget <= 1:
        raise ValueError(f"a budget must be in (0, 1], not {budget}")
    return budget


def blindness(accuracy: float, drop: float = 0.1) -> tuple[float, float]:
    """Return the error rate at which "accuracy fell by *drop* of its baseline" first fires, and its multiple of before.

    At a baseline of 99% it is 10.9%, 10.9 times the errors; at 80%, 1.4 times. A rule on the error rate sees both.
    """
    chance(drop, "drop")
    if not 0 < accuracy < 1:
        raise ValueError(f"an accuracy must be in (0, 1), not {accuracy}")
    error = 1 - accuracy * (1 - drop)
    return error, error / (1 - accuracy)
