"""What others do to a command that runs: Ctrl-C and SIGTERM, and readers of its output who leave.

The exception that an interrupt raises anywhere can be swallowed by compiled code, or tear a file that is being
written. So an interrupt is remembered, and raised where there is a good place to stop.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

PATIENCE_S = 3.0
"""Interrupted again after this time, we stop wherever we are."""


class Interrupts:
    """While entered, remembers an interrupt until `check` raises it; if *at_once*, raises it immediately as well."""

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self._since_s: float | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():  # no other may set handlers, or is interrupted
            self._before = {one: signal.signal(one, self._remember) for one in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    @property
    def asked(self) -> bool:
        """Whether somebody has interrupted us."""
        return self._since_s is not None

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if somebody has interrupted us."""
        if self.asked:
            raise KeyboardInterrupt

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        impatient = self._since_s is not None and now_s - self._since_s > PATIENCE_S
        self._since_s = self._since_s or now_s
        if self.at_once or impatient:
            raise KeyboardInterrupt


@contextmanager
def to_a_reader() -> Iterator[None]:
    """Print to stdout; a reader who has seen enough (``| head``) may leave without a word from us."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
