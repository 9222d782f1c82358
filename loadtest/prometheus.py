"""A real Prometheus beside a load test: it scrapes the same pages, loads the same rules, and is asked what fired.

It listens on 127.0.0.1 only, keeps its data in a folder of the run, and is stopped by its process id.
"""

import json
import math
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sim.alerts.pages import Pages, merged, pages_of
from sim.alerts.rulefile import Group, written_ms
from sim.alerts.rules import Judgement, Verdict
from sim.alerts.shipping.export import rule_files
from sim.alerts.shipping.faster import sped_up
from sim.errors import InputError, RunError

READY_S = 30.0
STOP_S = 10.0
_STATE = "alertstate"


@dataclass(frozen=True)
class Target:
    """A page of metrics, and the labels that its series get (``job`` and ``instance`` among them, if they matter)."""

    url: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """An alert as it was seen to change when we asked: when (Unix, seconds), which, and what it is now."""

    unix_s: float
    labels: tuple[tuple[str, str], ...]
    state: str


@dataclass(frozen=True)
class Disagreement:
    """A rule that began to fire here and not there: when by us and when by the real one (None: not at all), seconds."""

    rule: str
    ours_s: float | None
    theirs_s: float | None


class Prometheus:
    """A Prometheus of our own: enter it, and it runs and has scraped every target once; leave it, and it is stopped."""

    def __init__(
        self,
        program: str,
        folder: Path,
        targets: Sequence[Target],
        groups: Sequence[Group],
        scrape_s: float = 15.0,
        evaluate_s: float = 60.0,
        speed: float = 1.0,
    ) -> None:
        """Prepare it in *folder*, new or its own: it scrapes *targets* every *scrape_s* real seconds.

        *groups* are those of the service in model seconds; at *speed* they are divided. *evaluate_s* (real seconds) is
        for groups that state no interval.

        Raises:
            InputError: there is no such program, or a rule does not survive the speed.
        """
        found = shutil.which(program)
        if not found:
            raise InputError(f"--prometheus-bin {program}: no such program; install Prometheus, or name its path")
        self.program, self.folder = found, folder
        self.scrape_s, self.evaluate_s = scrape_s, evaluate_s
        self.changes: list[Change] = []
        self._last: dict[tuple[tuple[str, str], ...], str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._targets = len(targets)
        self._write(targets, list(groups) if speed == 1 else sped_up(groups, speed), speed)

    def _write(self, targets: Sequence[Target], groups: Sequence[Group], speed: float) -> None:
        files = rule_files(groups, speed)
        config = configuration(targets, list(files), self.scrape_s, self.evaluate_s)
        for name, text in {**files, "prometheus.yml": config}.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def __enter__(self) -> "Prometheus":
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            self.program,
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        with (self.folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.started_s = time.time()
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _wait(self) -> None:
        deadline_s = time.monotonic() + READY_S
        while time.monotonic() < deadline_s:
            if self._process is None or self._process.poll() is not None:
                raise InputError(f"{self.program}: did not start: {self._said()}")
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                    self._wait_for_scrapes(deadline_s)
                    return
            except OSError:
                time.sleep(0.1)
        raise RunError(f"{self.program}: did not get ready in {READY_S:g} s: {self._said()}")

    def _wait_for_scrapes(self, deadline_s: float) -> None:
        """Wait until every target was asked once, answering or not.

        That takes more than five seconds: so long its discovery waits before it tells anybody of targets.
        """
        while time.monotonic() < deadline_s:
            targets = self.ask("targets")["activeTargets"]
            if len(targets) == self._targets and all(not one["lastScrape"].startswith("0001-") for one in targets):
                return
            time.sleep(0.1)

    def _said(self) -> str:
        """Return the last line of its log."""
        text = (self.folder / "prometheus.log").read_text(encoding="utf-8", errors="replace")
        return text.strip().splitlines()[-1][:400] if text.strip() else "it said nothing"

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_S)
        self._process = None

    def ask(self, path: str, **parameters: object) -> Any:
        """Return the data of an answer of its API, such as ``alerts`` or ``query``.

        Raises:
            RunError: it does not answer.
        """
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise RunError(f"{self.program}: {path}: {error.read().decode(errors='replace')[:200]}") from None
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{self.program}: {path}: no answer ({error}); {self._said()}") from None

    def poll(self) -> list[Change]:
        """Return which alerts have changed since it was last asked; `changes` keeps all."""
        now_s = time.time()
        active = {_labels(one["labels"]): str(one["state"]) for one in self.ask("alerts")["alerts"]}
        found = [Change(now_s, labels, state) for labels, state in active.items() if self._last.get(labels) != state]
        gone = [(labels, state) for labels, state in self._last.items() if labels not in active]
        found += [Change(now_s, labels, "resolved" if state == "firing" else "inactive") for labels, state in gone]
        self._last = active
        self.changes += found
        return found

    def unhealthy(self) -> dict[str, str]:
        """Return what is wrong with the last evaluation of each rule that failed, by the rule's name."""
        rules = [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]
        return {rule["name"]: rule.get("lastError", "") for rule in rules if rule.get("health") == "err"}

    def pages(self, state: str = "firing") -> dict[str, Pages]:
        """Return when each rule fired (or was in another *state*), ms (Unix), as it was evaluated: from ``ALERTS``.

        An episode that begins within one evaluation of the end of another belongs to it.
        """
        length_s = math.ceil(time.time() - self.started_s) + 60
        rows = self.ask("query", query=f'ALERTS{{{_STATE}="{state}"}}[{length_s}s]')["result"]
        every_ms = {
            rule["name"]: round(float(group["interval"]) * 1000)
            for group in self.ask("rules")["groups"]
            for rule in group["rules"]
        }
        spans: dict[str, list[tuple[int, int]]] = {}
        for row in rows:
            name = row["metric"]["alertname"]
            step_ms = every_ms.get(name, round(self.evaluate_s * 1000))
            spans.setdefault(name, []).extend(
                (round(t * 1000), round(t * 1000) + 3 * step_ms // 2) for t, _ in row["values"]
            )
        return {name: merged(np.array(found, np.int64)) for name, found in spans.items()}


def configuration(targets: Sequence[Target], rules: Sequence[str], scrape_s: float, evaluate_s: float) -> str:
    """Return the configuration of a Prometheus that scrapes *targets* and evaluates the files *rules*."""
    jobs: list[dict[str, Any]] = []
    for i, one in enumerate(targets):
        where = urllib.parse.urlsplit(one.url)
        if where.scheme not in ("http", "https") or not where.netloc:
            raise InputError(
                f"{one.url}: expected the address of a page of metrics, such as http://127.0.0.1:8000/metrics"
            )
        static: dict[str, Any] = {"targets": [where.netloc]}
        if one.labels:
            static["labels"] = dict(one.labels)
        jobs.append(
            {
                "job_name": f"target-{i}",
                "scheme": where.scheme,
                "metrics_path": where.path or "/metrics",
                "honor_labels": True,  # as our own scrapes do
                "static_configs": [static],
            }
        )
    every, timeout = written_ms(round(scrape_s * 1000)), written_ms(max(1, round(min(scrape_s, 10) * 1000)))
    shared = {
        "scrape_interval": every,
        "scrape_timeout": timeout,
        "evaluation_interval": written_ms(round(evaluate_s * 1000)),
    }
    text: str = yaml.safe_dump({"global": shared, "rule_files": list(rules), "scrape_configs": jobs}, sort_keys=False)
    return text


def disagreements(
    ours: Sequence[Judgement], theirs: Mapping[str, Pages], zero_unix_s: float, scrape_s: float, speed: float = 1.0
) -> list[Disagreement]:
    """Return where the pages of rules that we judged and those of a real Prometheus do not begin together.

    They do when they are no more than an evaluation and a scrape apart: a real server shifts evaluations and scrapes
    by up to one interval each. Ours begin at *zero_unix_s* and are in model seconds, *speed* of them a real one;
    *scrape_s* is real. A page so near the end of what was evaluated that the other need not have seen it is left out.
    """
    found = []
    alerts: dict[str, list[Judgement]] = {}
    for one in ours:
        if not one.rule.records and one.verdict == Verdict.JUDGED:
            alerts.setdefault(one.rule.name, []).append(one)
    for name, own in alerts.items():
        give_s = max(one.interval_ms for one in own) / 1000 / speed + scrape_s
        end_s = max((float(one.t_ms[-1]) for one in own if len(one.t_ms)), default=0.0) / 1000 / speed
        here = pages_of(e for one in own for e in one.episodes).start_ms / 1000 / speed
        there = theirs[name].start_ms / 1000 - zero_unix_s if name in theirs else here[:0]
        left = [float(t) for t in there]
        for t in here.tolist():
            near = min(left, key=lambda other, t=t: abs(other - t), default=None)  # type: ignore[misc]
            if near is not None and abs(near - t) <= give_s:
                left.remove(near)
            elif t <= end_s - give_s:
                found.append(Disagreement(name, t, near))
        found += [Disagreement(name, None, t) for t in left if t <= end_s - give_s]
    return found


def _labels(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
