"""Processes that play: how many there may be, how they are begun, and that none outlives its parent."""

import os
import platform
import signal
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

LOST: tuple[type[BaseException], ...] = (BrokenProcessPool, CancelledError)
"""What a future raises when whoever was to play it is gone."""
GONE = "whoever played it was killed or is gone, most likely because memory ran out"
"""How a sentence about that goes on; what to do instead hangs on what was played."""

Answer = TypeVar("Answer")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(workers: int, begin: Callable[..., None] | None = None, *given: Any) -> ProcessPoolExecutor:
    """Return a pool of *workers* processes, each of which calls *begin* with what is *given* when it starts.

    An interrupt is the parent's to decide; they end with it, however it ends. Where processes can be forked they are,
    so that they have what the parent has imported and compiled.
    """
    context = get_context("fork" if platform.system() == "Linux" else None)
    return ProcessPoolExecutor(workers, context, _start, (begin, given))


def hand(executor: Executor, what: Callable[..., Answer], *given: Any) -> "Future[Answer]":
    """Let *executor* do *what* with what is *given*; where its processes are gone, the future raises it (`LOST`).

    So that it is heard in one place whether a process was killed at its work or between two pieces of it.
    """
    try:
        return executor.submit(what, *given)
    except LOST as error:
        future: Future[Answer] = Future()
        future.set_exception(error)
        return future


def terminate(executor: ProcessPoolExecutor) -> None:
    """End the processes of *executor* at once, whatever they do."""
    for process in list((executor._processes or {}).values()):
        process.terminate()


def _start(begin: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin(*given)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
