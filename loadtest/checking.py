"""What a load test does with sampled answers: rows wait for verdicts, counters follow, the text is forgotten."""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from loadtest.counts import Counts
from loadtest.evaluator import Evaluation, Evaluator
from loadtest.plan import Plan
from sim.records import Outcome
from sim.report.words import percent
from sim.results import Recorder
from sim.scenario import Scenario


class Checking:
    """The checks of one load test; a scenario without any makes it do nothing."""

    def __init__(self, scenario: Scenario, counts: Counts, recorder: Recorder) -> None:
        self._scenario, self._counts, self._recorder = scenario, counts, recorder
        self.folder = tempfile.mkdtemp(prefix="blowout-") if scenario.checks else ""
        """Where answers are until they were judged: not in the run, which others may be given to read."""
        self._evaluator: Evaluator | None = None
        self._made: list[Evaluation] = []
        self._rows: dict[int, np.ndarray] = {}

    def prepare(self, plan: Plan, plan_file: Path, excerpts: bool) -> None:
        """Get ready for the answers of *plan* (in *plan_file*); *excerpts* of what is wrong are kept, or not."""
        if self.folder:
            self._evaluator = Evaluator(plan, plan_file, self._recorder.folder, excerpts)

    def start(self, wall_t0: float) -> None:
        """Begin: second 0 is *wall_t0* (Unix time)."""
        if self._evaluator:
            self._evaluator.start(wall_t0)

    def look(self) -> None:
        """Take new answers to the judge, and verdicts from there."""
        if self._evaluator:
            self._made += self._evaluator.take()

    @property
    def is_busy(self) -> bool:
        """Whether answers wait for their judge."""
        return self._evaluator is not None and self._evaluator.is_busy

    def write(self, rows: np.ndarray) -> None:
        """Write *rows* (`sim.records.ATTEMPT`), those of sampled answers once there is a verdict."""
        if self._evaluator:
            for k in np.flatnonzero((rows["outcome"] == Outcome.OK) & (rows["last"] == 1)).tolist():
                if self._evaluator.wants(int(rows["request"][k]), int(rows["cohort"][k])):
                    self._rows[int(rows["request"][k])] = rows[k : k + 1].copy()
            rows = rows[~np.isin(rows["request"], list(self._rows)) | (rows["last"] == 0)]
        if len(rows):
            self._recorder.rows(rows)

    def settle(self, until_s: float) -> None:
        """Let verdicts given by *until_s* count."""
        due = [one for one in self._made if one.t_s <= until_s]
        self._made = [one for one in self._made if one.t_s > until_s]
        done = []
        for one in due:
            self._counts.evaluated(one)
            row = self._rows.pop(one.answer.request, None)
            if row is not None:
                row["wrong"] = one.wrong
                done.append(row)
        if done:
            self._recorder.rows(np.concatenate(done))

    def close(self) -> None:
        """Judge nothing more, and count what there is."""
        if self._evaluator:
            self._evaluator.close()
            self.look()
            self.settle(np.inf)
            if self._rows:  # their answers were lost on the way
                self._recorder.rows(np.concatenate(list(self._rows.values())))
                self._rows.clear()
        self.abandon()

    def abandon(self) -> None:
        """Forget what answers say, after a failure too."""
        if self._evaluator:
            self._evaluator.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def notes(self) -> list[str]:
        """Return what a reader must know of the checks."""
        if not self._evaluator:
            return []
        usual = self._scenario.telemetry.evaluate if self._scenario.telemetry else 0.0
        shares = {usual if check.share is None else check.share for check in self._scenario.checks.values()}
        notes = []
        if min(shares) < 1:
            looked = " to ".join(percent(share) for share in sorted({min(shares), max(shares)}))
            notes.append(f"checks looked at {looked} of the answers: wrong answers are those found there, not all")
        notes += [
            f"check {name}: answers could not be judged, the first because {why}"
            for name, why in self._evaluator.failed.items()
        ]
        return notes


__all__ = ["Checking"]
