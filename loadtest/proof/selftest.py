"""How far the tester can be trusted on this machine: what it read of a server whose truth is known.

The whole of it is put to the proof, Locust included: the same processes, the same schedule and the same rows as in
`blowout load run`. The limits are those of issue and verdict: a median that is worth a millisecond, and a P99 that a
run would call valid (`loadtest.tester`).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import tester
from loadtest.client import ERRORS
from loadtest.drive import end
from loadtest.locust_options import PLAN, command_of
from loadtest.plan import Plan, Talk
from loadtest.proof.known import BROKEN, FIRST_S, GAPS_S
from loadtest.rows import Reader
from sim import scenario as scenarios
from sim import summary
from sim.errors import BlowoutError
from sim.interrupts import Interrupts
from sim.records import Outcome
from sim.scenario import dump

RATES = {10: 7.0, 50: 5.0, 200: 4.0}
"""Requests a second that are tried, and for how many seconds."""
STREAMS = (50, 100, 200, 400)
"""Concurrent streams that are tried, each of 50 tokens/s, until one level is too much."""
TOKENS = {"short": 8, "long": 100}
SPOILT_S = 0.010
"""A median error of TTFT from which on the tester measures itself. Our choice: a first token takes 20 ms at least."""
CV_OFF, ERROR_P50_S, ERROR_P99_S, LAG_P50_S = 0.10, 0.001, 0.020, 0.003
STALL_S = 2.0
"""A silence that is taken for a stall where answers are meant to break; a busy machine is silent for half a second."""
PATIENCE_S = 60.0
FLEET = "{kv_blocks: 999, step_time: {linear: {base: 10ms}}}"


@dataclass(frozen=True)
class Check:
    """One thing that was measured, in words; whether it is as wanted (None: nothing is)."""

    what: str
    measured: str
    wanted: str = ""
    holds: bool | None = None


@dataclass
class Level:
    """One load: what was planned and sent, by how much times are off (seconds), and how much was read."""

    name: str
    rate_per_s: float
    planned: int
    sent: int
    cv: tuple[float, float]
    lag_s: tuple[float, float]
    ttft_error_s: tuple[float, float]
    itl_error_s: tuple[float, float]
    streams: int
    tokens_per_s: float
    failed: int
    checks: list[Check] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether everything was as wanted."""
        return all(check.holds is not False for check in self.checks)


@dataclass(frozen=True)
class Proof:
    """Everything that was found."""

    rates: list[Level]
    streams: list[Level]
    failures: list[Check]

    @property
    def trusted_per_s(self) -> float:
        """The highest rate that was held, with every lower one; 0 where the first was not."""
        held = 0.0
        for level in self.rates:
            if not level.holds:
                break
            held = level.rate_per_s
        return held

    @property
    def read(self) -> Level | None:
        """The most streams that were read in time, with every lower level; None where the first were too many."""
        found = None
        for level in self.streams:
            if not level.holds:
                break
            found = level
        return found

    @property
    def wrong(self) -> str:
        """Why this machine cannot be trusted, in one sentence; nothing where it can."""
        highest = self.rates[-1].rate_per_s
        if missed := [check.what for check in self.failures if not check.holds]:
            return f"not to be trusted: failures were not told apart ({', '.join(missed)})"
        if self.trusted_per_s < highest:
            to = f"up to {self.trusted_per_s:g}" if self.trusted_per_s else "not even at the lowest rate"
            return f"not to be trusted at every rate: {to} of {highest:g} requests/s were held; try a quieter machine"
        return ""


class Bench:
    """A server whose truth is known, and a tester before it."""

    def __init__(self, url: str, folder: Path, interrupts: Interrupts) -> None:
        self.url, self._folder, self._interrupts = url, folder, interrupts
        self._runs = 0

    def rate(self, rate_per_s: float, seconds: float) -> Level:
        """Send so many short requests a second, and hold them against what is wanted."""
        level = self._level(f"{rate_per_s:g} requests/s", "short", rate_per_s, seconds)
        planned, sent = level.cv
        off = abs(sent / planned - 1)
        level.checks = [
            Check("sent of planned", f"{level.sent:,} of {level.planned:,}", "all", level.sent == level.planned),
            Check("gaps vary (cv) by", f"{sent:.2f}, planned {planned:.2f}", f"within {CV_OFF:.0%}", off <= CV_OFF),
            *_times("sent late", level.lag_s, LAG_P50_S, tester.MOST_LAG_P99_S),
            *_times("TTFT off by", level.ttft_error_s, ERROR_P50_S, ERROR_P99_S),
            *_times("ITL off by", level.itl_error_s, ERROR_P50_S, ERROR_P99_S),
        ]
        return level

    def streams(self, streams: int) -> Level:
        """Keep about so many long answers in flight, and see whether the tester still reads them in time."""
        answer_s = FIRST_S + TOKENS["long"] * GAPS_S["long"]
        level = self._level(f"{streams} streams", "long", streams / answer_s, answer_s + 1.5)
        level.checks = [
            *_times("sent late", level.lag_s, tester.MOST_LAG_P50_S, tester.MOST_LAG_P99_S),
            _time("TTFT off by, P50", level.ttft_error_s[0], SPOILT_S),
            Check("answers lost", f"{level.failed:,}", "none", not level.failed),
        ]
        return level

    def failures(self) -> list[Check]:
        """Let answers break in every way, and see whether each is told from the others."""
        asks = "prompt_tokens: 9, output_tokens: 8"
        pools = ", ".join(f"'p{k}': {FLEET}" for k in range(len(BROKEN)))
        cohorts = ", ".join(f"c{k}: {{share: {1 / len(BROKEN)}, {asks}, pool: p{k}}}" for k in range(len(BROKEN)))
        text = f"duration: 3s\nfleet: {{pools: {{{pools}}}}}\nworkload: {{rate_per_s: 35, cohorts: {{{cohorts}}}}}"
        rows, _, _ = self._play(text, {f"p{k}": model for k, model in enumerate(BROKEN)}, STALL_S)
        checks = []
        for k, (model, name) in enumerate(BROKEN.items()):
            mine = rows[rows["cohort"] == k]
            called = sorted({ERRORS[error] for error in mine["error"]})
            right = len(mine) > 0 and called == [name] and not (mine["outcome"] == Outcome.OK).any()
            checks.append(Check(model, f"{', '.join(called) or 'nobody asked'} ({len(mine)})", name, right))
        return checks

    def _level(self, name: str, model: str, rate_per_s: float, seconds: float) -> Level:
        tokens = TOKENS[model]
        users = f"{{rate_per_s: {rate_per_s}, cohorts: {{a: {{prompt_tokens: 16, output_tokens: {tokens}}}}}}}"
        self._stamps()  # those of an earlier level, whose requests have the same names
        rows, states, gaps = self._play(f"duration: {seconds}s\nfleet: {FLEET}\nworkload: {users}", {"main": model})
        stamps = self._stamps()
        found = tester.examine(rows, states, seconds)
        ok = rows[rows["outcome"] == Outcome.OK]
        t0 = states[0]["t0"]
        off = [row["first_token_s"] + t0 - stamps[f"blowout-{row['request']}-{row['attempt']}"][0] for row in ok]
        true_gaps = np.concatenate([np.diff(one) for one in stamps.values()] or [np.zeros(0)])
        itl = [abs(summary.percentile(gaps, q) - _quantile(true_gaps, q)) for q in (0.5, 0.99)]
        lag = found["send_lag_s"]
        busy_s = float(ok["finished_s"].max() - ok["first_token_s"].min()) if len(ok) else np.nan
        return Level(
            name, rate_per_s, found["planned"], found["sent"],
            (found["gaps_cv"]["scheduled"], found["gaps_cv"]["sent"]), (lag["p50"], lag["p99"]),
            (_quantile(off, 0.5), _quantile(off, 0.99)), (itl[0], itl[1]), _most_at_once(ok),
            float(ok["output_tokens"].sum()) / busy_s, int(len(rows) - len(ok)),
        )  # fmt: skip

    def _stamps(self) -> dict[str, list[float]]:
        """Return when the server sent each token (monotonic seconds), by request, since it was last asked."""
        with urllib.request.urlopen(f"{self.url}/stamps", timeout=PATIENCE_S) as answer:
            found: dict[str, list[float]] = json.load(answer)
        return found

    def _play(
        self, text: str, models: dict[str, str], stall_s: float = PATIENCE_S
    ) -> tuple[np.ndarray, list[dict[str, Any]], np.ndarray]:
        """Play a scenario with Locust as `blowout load run` does; return rows, states, and gaps by bin."""
        self._runs += 1
        folder = self._folder / str(self._runs)
        folder.mkdir()
        scenario = dump(scenarios.loads(f"name: proof\ndrain: 20s\n{text}"))
        plan = Plan(scenario, 1, self.url, models, Talk("ids"), stall_s=stall_s, folder=str(folder))
        (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
        environment = {**os.environ, PLAN: str(folder / "plan.json")}
        with (folder / "locust.log").open("wb") as log:
            child = subprocess.Popen(
                command_of(1), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            until_s = time.monotonic() + 3 * PATIENCE_S
            while child.poll() is None and time.monotonic() < until_s:
                self._interrupts.check()
                time.sleep(0.05)
        finally:
            end(child)
        reader = Reader(folder)
        states = reader.states()
        if not states or not states[0]["done"]:
            last = (folder / "locust.log").read_text(errors="replace").strip().splitlines()[-1:]
            raise BlowoutError(f"Locust ended before its time: {last[0][:200] if last else 'it said nothing'}")
        return reader.take(), states, reader.gaps()


@contextmanager
def bench(interrupts: Interrupts) -> Iterator[Bench]:
    """Start the server whose truth is known, and stop it at the end.

    Raises:
        BlowoutError: it did not start.
    """
    with tempfile.TemporaryDirectory(prefix="blowout-") as name:
        folder = Path(name)
        address = folder / "address"
        command = [sys.executable, "-m", "loadtest.proof.known", str(address)]
        with (folder / "known.log").open("wb") as log:
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until_s = time.monotonic() + PATIENCE_S
            while not (address.exists() and address.read_text()):
                interrupts.check()
                if server.poll() is not None or time.monotonic() > until_s:
                    said = (folder / "known.log").read_text(errors="replace").strip().splitlines()[-1:]
                    raise BlowoutError(
                        f"the server to be measured did not start: {said[0] if said else 'no reason given'}"
                    )
                time.sleep(0.05)
            yield Bench(address.read_text(), folder, interrupts)
        finally:
            server.kill()
            server.wait()


def _times(what: str, found_s: tuple[float, float], p50_s: float, p99_s: float) -> list[Check]:
    return [_time(f"{what}, P50", found_s[0], p50_s), _time(f"{what}, P99", found_s[1], p99_s)]


def _time(what: str, found_s: float, most_s: float) -> Check:
    return Check(what, f"{1000 * found_s:.2f} ms", f"under {1000 * most_s:g} ms", found_s < most_s)


def _most_at_once(rows: np.ndarray) -> int:
    """Return how many attempts were in flight at once, at most."""
    times = np.concatenate([rows["sent_s"], rows["finished_s"]])
    steps = np.repeat([1, -1], len(rows))[np.argsort(times, kind="stable")]
    return int(np.cumsum(steps).max(initial=0))


def _quantile(values: Sequence[float] | np.ndarray, q: float) -> float:
    return float(np.quantile(values, q)) if len(values) else float("nan")


def as_json(proof: Proof) -> Mapping[str, Any]:
    """Return everything for programs."""
    read = proof.read
    return {
        "valid": not proof.wrong,
        "wrong": proof.wrong,
        "trusted_per_s": proof.trusted_per_s,
        "streams": read.streams if read else 0,
        "tokens_per_s": read.tokens_per_s if read else 0.0,
        "levels": [
            {**vars(level), "checks": [vars(check) for check in level.checks], "holds": level.holds}
            for level in [*proof.rates, *proof.streams]
        ],
        "failures": [vars(check) for check in proof.failures],
    }


__all__ = ["RATES", "STREAMS", "Bench", "Check", "Level", "Proof", "as_json", "bench"]
