"""Which time it is in the model, while the wall clock goes on."""

import time


class Clock:
    """Model seconds since the start: wall seconds times *speed*.

    The engine chases this clock; it is never asked how long something takes.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self.start()

    def start(self) -> None:
        """Let it be the start now."""
        self._start_s = time.monotonic()

    def now_s(self) -> float:
        """Return the time in the model now, seconds."""
        return (time.monotonic() - self._start_s) * self.speed
