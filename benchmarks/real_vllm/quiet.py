"""How much of this machine others use while we measure, and a place in front of them where the system grants it.

Linux only: processor times are read from /proc.
"""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np

PROC = Path("/proc")
AHEAD = "-15"
"""The nice value asked for the sessions of what we measure (`autogroup`: sched(7))."""
PROMPT = (b"locust", b"\0load\0run\0", b"vllm.entrypoints")
"""The tester and the server's front door get real-time priority: they use little, and must not wait for vLLM's engine,
which polls on one core without a pause."""
EVERY_S = 1.0


class Watch:
    """Samples, each second, the processor time of the machine and of this process and its descendants.

    *times_s* are Unix times, *ours_s* and *all_s* seconds of processor time since the machine started.
    """

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.ours_s: list[float] = []
        self.all_s: list[float] = []
        self._ours: dict[int, float] = {}
        self._ahead: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def foreign_cores(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Return how many processor cores others used between two Unix times, and how many we did."""
        ours, whole = (np.interp([start_s, end_s], self.times_s, values) for values in (self.ours_s, self.all_s))
        length_s = max(end_s - start_s, 1e-9)
        own = float(ours[1] - ours[0]) / length_s
        return max(0.0, float(whole[1] - whole[0]) / length_s - own), own

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            family = descendants(os.getpid())
            for pid in family - self._ahead:
                with suppress(OSError):  # not ours to change, or gone
                    put_ahead(pid)
            self._ahead |= family
            for pid in family:
                with suppress(OSError, ValueError):
                    self._ours[pid] = used_s((PROC / str(pid) / "stat").read_text())
            self.times_s.append(time.time())
            self.ours_s.append(sum(self._ours.values()))
            self.all_s.append(busy_s((PROC / "stat").read_text()))


def put_ahead(pid: int) -> None:
    """Put a process before others.

    Raises:
        OSError: it is gone, or the system does not grant it.
    """
    (PROC / str(pid) / "autogroup").write_text(AHEAD)
    if any(word in (PROC / str(pid) / "cmdline").read_bytes() for word in PROMPT):
        os.sched_setscheduler(pid, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def descendants(root: int) -> set[int]:
    """Return the process *root* and all that it started, and they."""
    children: dict[int, list[int]] = {}
    for path in PROC.iterdir():
        if path.name.isdecimal():
            with suppress(OSError, ValueError):
                children.setdefault(parent((path / "stat").read_text()), []).append(int(path.name))
    found, left = {root}, [root]
    while left:
        more = children.get(left.pop(), [])
        found |= set(more)
        left += more
    return found


def parent(stat: str) -> int:
    """Return the parent in a process' *stat*: its name, in parentheses, may hold anything."""
    return int(stat.rpartition(")")[2].split()[1])


def used_s(stat: str) -> float:
    """Return the processor seconds in a process' *stat*: user and system."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_s(stat: str) -> float:
    """Return the seconds of the machine's *stat* in which processors were not idle, or taken by the host, added up."""
    user, nice, system, _, _, irq, softirq, steal, *_ = (int(field) for field in stat.split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def processor() -> str:
    """Return what the machine's processor is called."""
    lines = (PROC / "cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
