"""Has the sampled answers of a load test judged while it goes on, and writes down what each check found."""

import json
import queue
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest import samples
from loadtest.judge import READY
from loadtest.plan import Plan
from loadtest.samples import Kept
from sim.answers import Judged
from sim.results import EVALUATIONS
from sim.workload.prompts import Prompts

START_S = 60.0
"""For the process that judges to start."""
VERDICT_S = 10.0
"""For one check of one answer; then its process is ended, and another one begun."""
STUCK = 3
"""A check that has overrun so often in a row is given up."""
DRAIN_S = 30.0
"""After the load, for answers that still wait to be judged."""
OVER = "the test was over before it could be judged"
EXCERPT = 200
"""Characters of an answer that failed, where they are kept."""


@dataclass
class Evaluation:
    """What became of one answer: *score* 1 right, 0 wrong, None where not every check could look at it."""

    answer: Kept
    t_s: float
    found: dict[str, Judged] = field(default_factory=dict)
    whole: bool = True
    """All checks of its cohort were to look at it."""

    @property
    def wrong(self) -> bool:
        """Whether any check says so."""
        return any(one.verdict == "wrong" for one in self.found.values())

    @property
    def score(self) -> int | None:
        """What it adds to ``llm_eval_score``."""
        if not self.whole:
            return None
        right = all(one.verdict == "right" for one in self.found.values())
        return 0 if self.wrong else 1 if right else None


class Evaluator:
    """Takes answers as they come, and gives evaluations as they are made."""

    def __init__(self, plan: Plan, plan_file: Path, folder: Path, excerpts: bool) -> None:
        """Judge by the checks of *plan* (in *plan_file*); write into the run *folder*, *excerpts* too or not."""
        self._scenario = plan.loaded
        self._cohorts = list(self._scenario.workload.cohorts)
        self._sample = samples.Sample(self._scenario, plan.seed)
        self._prompts = Prompts(self._scenario, plan.seed)
        self._reader = samples.Reader(Path(plan.answers))
        self._bench = _Bench(plan_file)
        self._excerpts = excerpts
        self._file = (folder / EVALUATIONS).open("w", encoding="utf-8", buffering=1)
        self._waiting: queue.Queue[Kept | None] = queue.Queue()
        self._made: queue.Queue[Evaluation] = queue.Queue()
        self._open = 0
        self.failed: dict[str, str] = {}
        """By check, the first sentence about an answer that could not be judged."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._wall_t0 = 0.0

    def start(self, wall_t0: float) -> None:
        """Begin: second 0 is *wall_t0* (Unix time)."""
        self._wall_t0 = wall_t0
        self._thread.start()

    def wants(self, request: int, cohort: int) -> bool:
        """Tell whether an answer is in the sample."""
        return self._sample.wants(request, cohort)

    def take(self) -> list[Evaluation]:
        """Hand new answers to the judge; return the evaluations that were made since the last time."""
        for one in self._reader.take():
            self._open += 1
            self._waiting.put(one)
        found = []
        with suppress(queue.Empty):
            while True:
                found.append(self._made.get_nowait())
        self._open -= len(found)
        return found

    @property
    def is_busy(self) -> bool:
        """Whether answers wait for their judge."""
        return self._open > 0

    def close(self) -> None:
        """Judge nothing more: what waits is not judged, and that is written down."""
        self._bench.stop()
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join(VERDICT_S)
        self._bench.end()
        self._file.close()

    def _run(self) -> None:
        self._bench.begin()  # so that the first answer need not wait for that
        while (one := self._waiting.get()) is not None:
            names, whole = self._sample.checks(one.request, one.cohort)
            line = self._prompts.of(one.cohort, one.request)
            asked = {**(line or {}), "request": one.request, "cohort": self._cohorts[one.cohort]}
            made = Evaluation(one, 0.0, whole=whole)
            for name in names:
                made.found[name] = self._bench.judge(name, one.text, asked)
            made.t_s = time.time() - self._wall_t0
            self._write(made)
            self._made.put(made)

    def _write(self, made: Evaluation) -> None:
        for name, found in made.found.items():
            if found.verdict == "not_judged":
                self.failed.setdefault(name, found.why)
            line: dict[str, Any] = {
                "t_s": round(made.t_s, 3),
                "request": made.answer.request,
                "cohort": self._cohorts[made.answer.cohort],
                "check": name,
                "kind": self._scenario.checks[name].wrong,
                "verdict": found.verdict,
            }
            if self._excerpts and found.verdict == "wrong":
                line |= {"why": found.why, "excerpt": made.answer.text[:EXCERPT]}
            with suppress(ValueError):  # closed: nobody waits for it any more
                self._file.write(json.dumps(line) + "\n")


class _Bench:
    """The process that judges; it is begun when it is needed, and again when it had to be ended."""

    def __init__(self, plan_file: Path) -> None:
        self._command = [sys.executable, "-m", "loadtest.judge", str(plan_file)]
        self._process: subprocess.Popen[bytes] | None = None
        self._stuck: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stopped = False

    def begin(self) -> None:
        """Begin the process; what is wrong with it is said when an answer is to be judged."""
        try:
            self._begun()
        except (OSError, ValueError, _OverError):
            self.end()

    def judge(self, name: str, text: str, asked: dict[str, Any]) -> Judged:
        """Return what check *name* finds in *text*."""
        if self._stuck[name] >= STUCK:
            return Judged("not_judged", f"given up after no verdict within {VERDICT_S:g} s, {STUCK} times in a row")
        try:
            process = self._begun()
            assert process.stdin is not None
            process.stdin.write(json.dumps([name, text, asked]).encode() + b"\n")
            process.stdin.flush()
            said = self._line(process, VERDICT_S)
        except (OSError, ValueError, _OverError) as error:
            self.end()
            self._stuck[name] += isinstance(error, _LateError)
            return Judged("not_judged", OVER if self._stopped else str(error))
        self._stuck[name] = 0
        verdict, why = json.loads(said)
        return Judged(verdict, why)

    def stop(self) -> None:
        """Judge nothing more; whoever waits for a verdict hears so at once."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def end(self) -> None:
        """End the process."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was written for it is lost
                    pipe.close()

    def _begun(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._stopped:
                raise _OverError(OVER)
            if self._process is not None:
                return self._process
            process = self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        if self._line(process, START_S) != READY:
            raise _OverError("the process that judges did not start")
        return process

    def _line(self, process: "subprocess.Popen[bytes]", within_s: float) -> bytes:
        """Return the next line that *process* says."""
        assert process.stdout is not None
        until_s, said = time.monotonic() + within_s, b""
        while not said.endswith(b"\n"):
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
                raise _LateError(f"no verdict within {within_s:g} s")
            part = process.stdout.read1(65_536)  # type: ignore[attr-defined]
            if not part:
                raise _OverError("the process that judges has ended")
            said += part
        return said


class _OverError(Exception):
    """There is no verdict."""


class _LateError(_OverError):
    """There was none in time."""


__all__ = ["DRAIN_S", "Evaluation", "Evaluator"]
