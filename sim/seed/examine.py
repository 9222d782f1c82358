"""All claims, measured: one process for each kind of claim, so that what two claims share is played once."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import import_module
from multiprocessing import get_context
from platform import system

from sim.seed.lab import Lab
from sim.seed.table import CLAIMS
from sim.seed.verdicts import Found

KINDS = ("serving", "alerting", "containment", "agents", "arithmetic", "pattern", "seeing")
"""The long ones first."""
WORKERS = 2


def examine(fast: bool, done: Callable[[], None] = lambda: None) -> dict[int, Found]:
    """Return what was found about every claim, by its number; *done* is called after each.

    *fast* plays scenarios with fewer seeds; what is drawn and what is computed stays the same.
    """
    context = get_context("fork" if system() == "Linux" else None)
    found: dict[int, Found] = {}
    with ProcessPoolExecutor(WORKERS, context) as pool:
        for future in as_completed([pool.submit(_kind, name, fast) for name in KINDS]):
            for number, one in future.result().items():
                found[number] = one
                done()
    return {number: found[number] for number in sorted(CLAIMS)}


def _kind(name: str, fast: bool) -> dict[int, Found]:
    lab = Lab(fast)
    return {number: measure(lab) for number, measure in import_module(f"sim.seed.{name}").MEASURES.items()}


def changed(found: dict[int, Found]) -> list[int]:
    """Return the claims whose verdict is not the one that is expected."""
    return [number for number, one in found.items() if one.verdict != CLAIMS[number].expected]
