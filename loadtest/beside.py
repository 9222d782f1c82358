"""What happens beside the load: faults that commands make happen, and rules that are watched while the test goes on."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest import faults
from loadtest.counts import Counts
from loadtest.scrape import Scraper
from sim.alerts.following import Follower
from sim.alerts.rulefile import Group
from sim.results import Recorder
from sim.scenario import Scenario

Say = Callable[[str], None]
"""Called with a sentence for whoever watches."""


@dataclass(frozen=True)
class Wanted:
    """What is wanted beside the load."""

    groups: Sequence[Group] = ()
    """Rules to watch."""
    excerpts: bool = False
    """Keep the beginnings of answers that failed a check: they may be private."""
    run_commands: bool = False
    """Run the commands of faults: they have the rights of whoever runs the test."""
    faults_zero_s: float | None = None
    """Where the endpoint plays the faults of the scenario by itself: when its second 0 was (Unix time)."""
    faults_url: str = ""
    """And where it tells of them."""
    say: Say = lambda _: None


class Beside:
    """All of it, for one test: start it when the load begins, let it look often, stop it when the load ends."""

    def __init__(
        self, wanted: Wanted, scenario: Scenario, counts: Counts, scrapers: Sequence[Scraper], speed: float = 1.0
    ) -> None:
        self._speed = speed
        self._wanted, self._scenario, self._counts, self._scrapers = wanted, scenario, counts, scrapers
        self._follower = Follower(wanted.groups) if wanted.groups else None
        self._looks = 0
        self._recorder: Recorder | None = None
        self._injector: faults.Injector | None = None
        self._lock = threading.Lock()

    def start(self, wall_t0: float, recorder: Recorder) -> None:
        """Begin: second 0 is *wall_t0* (Unix time); events go to *recorder*."""
        self._recorder = recorder
        commands = faults.injections(self._scenario) if self._wanted.run_commands else []
        self._injector = faults.Injector(commands, self._emit, time.time)
        self._injector.start(wall_t0)

    def look(self, counted_s: float) -> None:
        """Evaluate the rules that are due: clients are counted until *counted_s*, pages as far as they were read."""
        if self._follower is None:
            return
        for scraper in self._scrapers:
            self._follower.add(scraper.take())
        self._follower.add(self._counts.gateway(self._looks))
        self._looks = self._counts.looks
        until_s = min([counted_s, *(scraper.done_s for scraper in self._scrapers)])
        for change in self._follower.advance(int(until_s * 1000)):
            labels, name = dict(change.labels), change.rule.name
            said = {"name": name, "state": change.state, "target": f"{name} {change.state}", "labels": labels}
            self._emit(change.t_ms / 1000, "alert", **said)
            self._wanted.say(f"{change.t_ms / 1000:,.0f} s: {name} is {change.state}")

    def stop(self) -> None:
        """End what commands began."""
        if self._injector is not None:
            self._injector.stop()
            self._injector = None

    def settle(self, events: Path, wall_t0: float, end_s: float) -> None:
        """Complete the file of *events*, once it is closed: times of marks, and faults that nobody made happen."""
        faults.settle(events, wall_t0, self._speed)
        found = []
        if self._wanted.faults_zero_s is not None:
            late_s = (wall_t0 - self._wanted.faults_zero_s) * self._speed
            found = faults.served(self._scenario, late_s, end_s)
            found += faults.served_now_and_then(self._scenario, self._wanted.faults_url, late_s, end_s)
        told = faults.read(events)
        names = {one.get("name") for one in told if one["event"] in ("fault_begins", "fault_not_injected")}
        found = [one for one in found if one["name"] not in names]
        missing = faults.not_injected(self._scenario, [*told, *found], self._wanted.run_commands)
        for one in [*found, *missing]:
            faults.append(events, one)

    def _emit(self, t_s: float, event: str, **said: Any) -> None:
        with self._lock:
            if self._recorder is not None:
                self._recorder.event(t_s, event, **said)


def sentence(event: Mapping[str, Any]) -> str:
    """Return in words that a fault did not happen, and why."""
    return f"fault {event['name']} was not injected: {event['why']}"


__all__ = ["Beside", "Say", "Wanted", "sentence"]
