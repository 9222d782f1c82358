"""All claims, measured: one process for each kind of claim, so that what two claims share is played once.

And one for each shipped scenario that plays what a formula says.
"""

import dataclasses
from collections.abc import Callable
from concurrent.futures import as_completed
from importlib import import_module

from sim.errors import RunError
from sim.seed.lab import Lab
from sim.seed.played import PLAYS, Told
from sim.seed.table import CLAIMS
from sim.seed.verdicts import Found, Twice, Verdict
from sim.workers import GONE, LOST, processes, terminate

KINDS = ("serving", "alerting", "containment", "agents", "arithmetic", "pattern", "seeing")
"""The long ones first."""
WORKERS = 2


def examine(fast: bool, done: Callable[[], None] = lambda: None) -> dict[int, Found]:
    """Return what was found about every claim, by its number; *done* is called after each.

    *fast* plays scenarios with fewer seeds; what is drawn and what is computed stays the same.

    Raises:
        RunError: a process that measured was killed.
    """
    found: dict[int, Found] = {}
    twice: dict[int, list[Twice]] = {}
    pool = processes(WORKERS)
    try:
        played = [pool.submit(_play, name, fast) for name in PLAYS]
        for future in as_completed([pool.submit(_kind, name, fast) for name in KINDS]):
            for number, one in future.result().items():
                found[number] = one
                done()
        for one_play in played:
            for number, both in one_play.result().items():
                twice.setdefault(number, []).extend(both)
    except LOST:
        raise RunError(f"some claims were not measured: {GONE}; expected memory for {WORKERS} processes") from None
    except KeyboardInterrupt:
        terminate(pool)  # they do not hear of it themselves
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return {number: dataclasses.replace(found[number], twice=twice.get(number, ())) for number in sorted(CLAIMS)}


def _play(name: str, fast: bool) -> Told:
    return PLAYS[name](Lab(fast))


def _kind(name: str, fast: bool) -> dict[int, Found]:
    lab = Lab(fast)
    return {number: measure(lab) for number, measure in import_module(f"sim.seed.{name}").MEASURES.items()}


def changed(found: dict[int, Found]) -> list[int]:
    """Return the claims whose verdict is not the one that is expected; one that is not decided contradicts nothing."""
    return [n for n, one in found.items() if one.verdict not in (CLAIMS[n].expected, Verdict.UNDECIDED)]


def undecided(found: dict[int, Found]) -> list[int]:
    """Return the claims that are not decided."""
    return [number for number, one in found.items() if one.verdict == Verdict.UNDECIDED]


def disagree(found: dict[int, Found]) -> list[tuple[int, Twice]]:
    """Return the claims, and the numbers, of which what was played is not what the formula says, without a reason."""
    return [(number, both) for number, one in found.items() for both in one.twice if not both.as_said]
