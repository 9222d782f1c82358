"""Faults of a scenario on a service that is not simulated: made to happen by commands, or marked by hand.

What could not be made to happen is an event as well (``fault_not_injected``): a fault is reported, never assumed.
"""

import hashlib
import json
import math
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim import fetch
from sim.errors import BlowoutError, InputError
from sim.fetch import Credentials
from sim.results import Run
from sim.scenario import Scenario
from sim.scenario.faults import Random, Surge
from sim.scenario.plans import fault_names, kind_of, occurrence

LIMIT_S = 60.0
"""A command that takes longer has failed, and is killed. Our choice."""
ANSWER_S = 10.0
MOST_OUTPUT = 2000
"""Characters of a command's output that an event keeps: its end."""
MARKED = "marked by hand"
SERVED = "by the endpoint"

Emit = Callable[..., None]
"""Called with the time (s since the start), the name of the event and its fields; from any thread."""


@dataclass(frozen=True)
class Injection:
    """A fault that commands make happen: from when, until when (None: as long as the test lasts), and how."""

    name: str
    mechanism: str
    target: str
    from_s: float
    to_s: float | None
    start_cmd: str
    stop_cmd: str | None

    @property
    def said(self) -> dict[str, str]:
        """What its events have in common."""
        return {"name": self.name, "target": self.target, "mechanism": self.mechanism}


def injections(scenario: Scenario) -> list[Injection]:
    """Return the faults of *scenario* that have commands."""
    found = []
    for fault, name in zip(map(occurrence, scenario.faults), fault_names(scenario)):
        command = getattr(fault, "start_cmd", None)
        if command is not None:
            kind = kind_of(fault)
            stop = getattr(fault, "stop_cmd", None)
            target = str(getattr(fault, kind))
            found.append(Injection(name, kind, target, fault.from_, fault.to, command, stop))
    return found


def not_injected(
    scenario: Scenario, events: Iterable[Mapping[str, Any]], run_commands: bool = True
) -> list[dict[str, Any]]:
    """Return an event for each fault of *scenario* that *events* do not tell of: nobody made it happen.

    A surge is left out: the load itself makes it. *run_commands*: those of faults were run.
    """
    told = {event.get("name") for event in events if event["event"] in ("fault_begins", "fault_not_injected")}
    found = []
    for fault, name in zip(scenario.faults, fault_names(scenario)):
        inner = occurrence(fault)
        if isinstance(inner, Surge) or name in told:
            continue
        kind = kind_of(inner)
        why = "it comes at random" if isinstance(fault, Random) else "it has no start_cmd, and nobody marked it"
        if getattr(inner, "start_cmd", None) is not None and not run_commands:
            why = "its start_cmd was not run, for --run-commands was not given, and nobody marked it"
        found.append(
            {"t_s": inner.from_, "event": "fault_not_injected", "name": name, "target": str(getattr(inner, kind)),
             "mechanism": kind, "why": why}
        )  # fmt: skip
    return found


def faults_digest(scenario: Scenario) -> str:
    """Return what identifies the faults of *scenario*, commands aside: sha256, in hex."""
    faults = [fault.model_dump(mode="json", by_alias=True) for fault in scenario.faults]
    plain = [{key: value for key, value in fault.items() if not key.endswith("_cmd")} for fault in faults]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def served(scenario: Scenario, late_s: float, end_s: float) -> list[dict[str, Any]]:
    """Return the events of faults that the endpoint makes happen by itself, in seconds of a load test.

    The test began *late_s* after second 0 of the endpoint and ended at *end_s*. Those outside were not injected; of
    what comes at random nobody here knows the times.
    """
    found: list[dict[str, Any]] = []
    for fault, name in zip(scenario.faults, fault_names(scenario)):
        inner = occurrence(fault)
        if isinstance(inner, Surge) or inner is not fault:
            continue
        kind = kind_of(inner)
        said = {"name": name, "target": str(getattr(inner, kind)), "mechanism": kind}
        begin_s, to_s = inner.from_ - late_s, None if inner.to is None else inner.to - late_s
        if begin_s >= end_s or (to_s is not None and to_s <= 0):
            when = "ended before this test began" if begin_s < end_s else "begins after this test has ended"
            found.append(
                {"t_s": inner.from_, "event": "fault_not_injected", **said, "why": f"at the endpoint it {when}"}
            )
            continue
        found.append({"t_s": round(max(0.0, begin_s), 3), "event": "fault_begins", **said, "how": SERVED})
        if to_s is not None and to_s < end_s:
            found.append({"t_s": round(to_s, 3), "event": "fault_ends", **said, "how": SERVED})
    return found


def served_now_and_then(scenario: Scenario, url: str, late_s: float, end_s: float) -> list[dict[str, Any]]:
    """Return the same of faults that come at random or periodically, as the endpoint itself tells of them at *url*.

    One that did not come up meanwhile, or that an endpoint which is gone does not tell of, was not injected.
    """
    names = {n: f for f, n in zip(scenario.faults, fault_names(scenario)) if occurrence(f) is not f}
    if not names:
        return []
    try:
        told: list[dict[str, Any]] = json.loads(fetch.ask(url, None, {}, Credentials(), ANSWER_S)[0])["events"]
        why = "at the endpoint it did not come up while this test went on"
    except (BlowoutError, ValueError, KeyError, TypeError):
        told, why = [], "the endpoint does not tell when it came up"
    found = []
    for begin_s, to_s, one in _spells([one for one in told if one.get("name") in names]):
        said = {key: one[key] for key in ("name", "target", "mechanism")} | {"how": SERVED}
        if begin_s - late_s < end_s and to_s - late_s > 0:
            found.append({"t_s": round(max(0.0, begin_s - late_s), 3), "event": "fault_begins", **said})
        if 0 < to_s - late_s < end_s:
            found.append({"t_s": round(to_s - late_s, 3), "event": "fault_ends", **said})
    for name in sorted(names.keys() - {one["name"] for one in found}):
        inner = occurrence(names[name])
        said = {"name": name, "target": str(getattr(inner, kind_of(inner))), "mechanism": kind_of(inner)}
        found.append({"t_s": inner.from_, "event": "fault_not_injected", **said, "why": why})
    return found


def _spells(told: Iterable[Mapping[str, Any]]) -> list[tuple[float, float, Mapping[str, Any]]]:
    """Return from when to when (infinite: it goes on) each fault of *told* lasted, with the event of its begin."""
    found: list[tuple[float, float, Mapping[str, Any]]] = []
    begun: dict[tuple[str, str], Mapping[str, Any]] = {}
    for one in told:
        place = one["name"], one["target"]
        if one["event"] == "fault_begins":
            begun[place] = one
        elif one["event"] == "fault_ends" and place in begun:
            first = begun.pop(place)
            found.append((first["t_s"], one["t_s"], first))
    return found + [(one["t_s"], math.inf, one) for one in begun.values()]


class Injector:
    """Makes faults happen while a test goes on, each in its own thread, and ends what it began when the test ends."""

    def __init__(
        self,
        faults: Sequence[Injection],
        emit: Emit,
        clock: Callable[[], float] = time.monotonic,
        limit_s: float = LIMIT_S,
    ) -> None:
        """Prepare *faults*; *clock* gives seconds, and counts from when `start` is called."""
        self._faults, self._emit, self._clock, self._limit_s = faults, emit, clock, limit_s
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._zero_s = 0.0
        self._threads: list[threading.Thread] = []

    def start(self, zero_s: float | None = None) -> None:
        """Begin: *zero_s* of the clock is second 0, or now is."""
        self._zero_s = self._clock() if zero_s is None else zero_s
        self._threads = [threading.Thread(target=self._run, args=(one,), daemon=True) for one in self._faults]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End: faults that have not begun never will; what was begun is ended, within the limit of its command."""
        self._over.set()
        for thread in self._threads:
            thread.join(2 * self._limit_s + 10)

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._zero_s

    def _run(self, one: Injection) -> None:
        if not self._waited(one.from_s):
            self._say(self.now_s, "fault_not_injected", **one.said, why="the test ended before it")
            return
        begun_s = self.now_s
        failed, output = execute(one.start_cmd, self._limit_s)
        if failed:
            self._say(begun_s, "fault_not_injected", **one.said, command=one.start_cmd, why=failed, output=output)
        else:
            took = {"took_s": round(self.now_s - begun_s, 3)}
            self._say(begun_s, "fault_begins", **one.said, command=one.start_cmd, output=output, **took)
            self._waited(one.to_s)
        if one.stop_cmd is None:
            return
        ended_s = self.now_s  # also after a failure: it may have happened in part
        wrong, output = execute(one.stop_cmd, self._limit_s)
        if wrong:
            self._say(ended_s, "fault_not_ended", **one.said, command=one.stop_cmd, why=wrong, output=output)
        elif not failed:
            self._say(ended_s, "fault_ends", **one.said, command=one.stop_cmd, output=output)

    def _waited(self, until_s: float | None) -> bool:
        """Wait until *until_s*, or for the end of the test; return whether the time came before that."""
        if until_s is None:
            self._over.wait()
            return False
        while (left_s := until_s - self.now_s) > 0:
            if self._over.wait(min(left_s, 1.0)):
                return False
        return not self._over.is_set()

    def _say(self, t_s: float, event: str, **fields: Any) -> None:
        with self._lock:
            self._emit(round(t_s, 3), event, **fields)


def execute(command: str, limit_s: float = LIMIT_S) -> tuple[str, str]:
    """Run a shell *command*; return why it failed (nothing if it did not), and the end of what it printed.

    It gets no input. One that takes longer than *limit_s* is killed, with all that it started.
    """
    with tempfile.TemporaryFile() as said:  # a file, not a pipe: what goes on in the background may keep it open
        try:
            process = subprocess.Popen(
                command, shell=True, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        except OSError as error:
            return f"cannot be run ({error.strerror or error})", ""
        failed = ""
        try:
            code = process.wait(limit_s)
            failed = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            failed = f"took longer than {limit_s:g} s"
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(limit_s)
        said.seek(max(0, said.seek(0, os.SEEK_END) - 4 * MOST_OUTPUT))
        return failed, said.read().decode(errors="replace").strip()[-MOST_OUTPUT:]


# --- by hand --------------------------------------------------------------------------------------------------------


def newest(results: Path) -> Path:
    """Return the folder of the load test under *results* that was begun last, one that still goes on before others.

    Raises:
        InputError: there is none.
    """
    found = []
    for path in results.glob("*/*/run.json"):
        with suppress(BlowoutError, OSError):
            info = Run.open(path.parent).info
            if info.get("kind") == "measured":
                found.append((info["state"] == "running", path.stat().st_mtime, path.parent))
    if not found:
        raise InputError(f"{results}: holds no load test; name the folder of one with --run")
    return max(found)[2]


def mark(folder: Path, name: str, phase: str) -> tuple[dict[str, Any], bool]:
    """Add to the events of the load test in *folder* that fault *name* started or stopped now, by hand.

    Returns:
        The event, and whether the scenario has a fault of that name.

    Raises:
        InputError: it is no folder of a load test.
    """
    run = Run.open(folder)
    if run.info.get("kind") != "measured":
        raise InputError(f"{folder}: expected a load test, got a simulated run, in which nobody can break anything")
    faults = dict(zip(fault_names(run.scenario), map(occurrence, run.scenario.faults)))
    now_s = time.time()
    begun_s = run.info.get("started") or (folder / "run.json").stat().st_mtime
    event: dict[str, Any] = {
        "t_s": round(max(0.0, now_s - float(begun_s)) * run.info.get("speed", 1.0), 3),
        "event": "fault_begins" if phase == "start" else "fault_ends",
        "name": name,
        "how": MARKED,
        "unix_s": now_s,
    }
    if name in faults:
        kind = kind_of(faults[name])
        event |= {"mechanism": kind, "target": str(getattr(faults[name], kind))}
    append(_member(run, folder) / "events.jsonl", event)
    return event, name in faults


def _member(run: Run, folder: Path) -> Path:
    """Return the folder of the repeat that goes on, or of the last that did."""
    places = [folder / entry["path"] for entry in run.info["members"]]
    there = [path for path in places if path.is_dir()]
    going_on = [path for path in there if not (path / "member.json").exists()]
    return (going_on or there or [folder])[-1 if not going_on else 0]


def append(path: Path, event: Mapping[str, Any]) -> None:
    """Add one event to the file at *path*, which others may be writing to.

    Raises:
        InputError: it cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # not on this system: one write of one line must do
        fcntl = None  # type: ignore[assignment]
    try:
        with path.open("a", encoding="utf-8") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(event) + "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def read(path: Path) -> list[dict[str, Any]]:
    """Return the events in the file at *path*."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def settle(path: Path, started_unix_s: float, speed: float = 1.0) -> None:
    """Give the marks among the events in the file at *path* their exact times, once it is known when the test began.

    Times are model seconds, *speed* of them in a wall second.
    """
    events = read(path)
    for event in events:
        if event.get("how") == MARKED and "unix_s" in event:
            event["t_s"] = round(max(0.0, event["unix_s"] - started_unix_s) * speed, 3)
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
