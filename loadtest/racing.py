"""Two copies of one request in flight: the first token wins, the other is cancelled, or served for nobody.

As the engine plays it (`sim.engine.clients`, `hedge` and `decide_race`; Dean and Barroso, "The Tail at Scale", 2013).
"""

import math
from collections.abc import Callable
from typing import TypeVar

import gevent
from gevent.pool import Group
from gevent.queue import Empty, Queue

from loadtest.client import LEFT, NOT_SENT, Answer
from sim.records import Outcome

Copy = TypeVar("Copy")
"""An attempt on its way; two are never equal."""


def race(
    first: Copy,
    second: Callable[[], Copy | None],
    after_s: float,
    send: Callable[[Copy, Callable[[], None]], Answer],
    ended: Callable[[Copy, Answer, bool], None],
    losers: Group | None,
) -> tuple[Copy, Answer]:
    """Send *first*, and what *second* gives when no token came for *after_s*; return the copy left, and its answer.

    *send* plays a copy and calls what it is given at its first token. *ended* is told of every other copy: its answer,
    and whether it was the last. The loser of the race is cut off, or goes on among *losers* for nobody.

    Raises:
        GreenletExit: whoever waits was ended; so were both copies, and *ended* knows.
    """
    news: Queue[tuple[Copy, Answer | None]] = Queue()
    alive: dict[Copy, gevent.Greenlet] = {}

    def play(copy: Copy) -> None:
        answer = send(copy, lambda: news.put((copy, None)))
        news.put((copy, answer))

    def start(copy: Copy) -> None:
        alive[copy] = gevent.spawn(play, copy)

    start(first)
    left_s: float | None = after_s
    try:
        while True:
            try:
                copy, answer = news.get(timeout=left_s)
            except Empty:
                left_s = None
                if (twin := second()) is not None:
                    start(twin)
                continue
            left_s = None
            if copy not in alive:  # it has lost
                continue
            if answer is None:
                for other in [one for one in alive if one is not copy]:
                    _lose(alive.pop(other), losers)
                    ended(other, lost(Outcome.CANCELLED, LEFT, "lost"), False)
                continue
            del alive[copy]
            if not alive:
                return copy, answer
            ended(copy, answer, False)
    except gevent.GreenletExit:
        gevent.killall(list(alive.values()))
        for k, copy in enumerate(alive):
            ended(copy, lost(Outcome.UNFINISHED, NOT_SENT, "unfinished"), k == len(alive) - 1)
        raise


def lost(outcome: Outcome, status: int, error: str) -> Answer:
    """Return what becomes of an attempt that nobody waits for any more; it has no end yet."""
    return Answer(outcome, status, error, "", math.nan, math.nan)


def _lose(copy: gevent.Greenlet, losers: Group | None) -> None:
    if losers is None:
        copy.kill(block=False)
    else:
        losers.add(copy)


__all__ = ["lost", "race"]
