"""Where claims are measured: samples drawn over seeds, and scenarios played over seeds."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sim import rng
from sim.claims import parse, point_of
from sim.run import play
from sim.scenario import Scenario, load, loads, shipped
from sim.theory.chance import Interval, student_interval

DRAWN_SEEDS = 10
PLAYED_SEEDS, FEW_SEEDS = 10, 2
DRAWN_CONFIDENCE = 0.999
"""Of intervals of sampled numbers: some twenty are held against exact ones, and all of them should contain these."""


@dataclasses.dataclass
class Lab:
    """Draws and plays with the same seeds every time; *fast* plays scenarios with few seeds."""

    fast: bool = False
    _played: dict[str, dict[str, Interval]] = dataclasses.field(default_factory=dict)

    def sample(self, name: str, draw: Callable[[np.random.Generator], float]) -> Interval:
        """Return the mean of what *draw* gives over ten seeds, each with the stream *name*, and its 99.9% interval."""
        values = [draw(rng.stream(seed, f"reproduce {name}")) for seed in range(DRAWN_SEEDS)]
        return student_interval(values, DRAWN_CONFIDENCE)

    def samples(self, name: str, draw: Callable[[np.random.Generator], Sequence[float]]) -> list[Interval]:
        """Return the same of several numbers that *draw* gives together."""
        values = np.array([draw(rng.stream(seed, f"reproduce {name}")) for seed in range(DRAWN_SEEDS)])
        return [student_interval(column, DRAWN_CONFIDENCE) for column in values.T]

    @property
    def seeds(self) -> int:
        """How many seeds a scenario is played with."""
        return FEW_SEEDS if self.fast else PLAYED_SEEDS

    def play(
        self,
        source: str,
        questions: Mapping[str, str],
        settings: Sequence[str] = (),
        keep: Callable[[str, Any], bool] = lambda path, value: True,
        few: int = FEW_SEEDS,
    ) -> dict[str, Interval]:
        """Return the answers to *questions* (a metric, or arithmetic of metrics, as in a claim) over seeds.

        *source* is the name of a shipped scenario or a text of one; *keep* says which values of its `vary` are played.
        Intervals are those of the median over seeds (95%, bootstrap). *few* is how many seeds are enough when fast.
        What was asked of the same scenario before is not played again.
        """
        key = repr((source, sorted(questions.items()), list(settings)))
        if key not in self._played:
            scenario = _read(source, settings)
            vary = {path: [v for v in values if keep(path, v)] for path, values in scenario.vary.items()}
            claims = {name: f"{text} >= 0" for name, text in questions.items()}
            asked = scenario.model_copy(update={"vary": vary, "claims": claims})
            self._played[key] = _play(asked, few if self.fast else PLAYED_SEEDS)
        return self._played[key]

    def values(
        self,
        source: str,
        metrics: Sequence[str],
        settings: Sequence[str] = (),
        keep: Callable[[str, Any], bool] = lambda path, value: True,
    ) -> dict[str, np.ndarray]:
        """Return what each seed says (seeds,) of *metrics*, written as in a claim; the rest as in `play`.

        A fast run plays one seed.
        """
        scenario = _read(source, settings)
        vary = {path: [v for v in values if keep(path, v)] for path, values in scenario.vary.items()}
        asked = scenario.model_copy(update={"vary": vary, "claims": {}})
        with tempfile.TemporaryDirectory() as folder:
            points = play(asked, Path(folder), seeds=1 if self.fast else PLAYED_SEEDS).summary["points"]
        return {metric: _values(metric, points) for metric in metrics}

    def interval(self, values: np.ndarray) -> Interval:
        """Return the mean over seeds and its 99.9% interval; of the one seed of a fast run, that alone."""
        if len(values) == 1:
            return Interval(*values.tolist() * 3)
        return student_interval(values, DRAWN_CONFIDENCE)


def _values(metric: str, points: Sequence[Mapping[str, Any]]) -> np.ndarray:
    ((name, index),) = parse(f"{metric} >= 0").metrics
    found = points[point_of(name, index, [one["point"] for one in points])]["metrics"][name]["values"]
    return np.array(found, float)


def _read(source: str, settings: Sequence[str]) -> Scenario:
    return load(source, settings) if source in shipped() else loads(source, "reproduce", settings)


def _play(scenario: Scenario, seeds: int) -> dict[str, Interval]:
    with tempfile.TemporaryDirectory() as folder:
        run = play(scenario, Path(folder), seeds=seeds)
        return {one["name"]: Interval(one["estimate"], one["low"], one["high"]) for one in run.verdicts or []}
