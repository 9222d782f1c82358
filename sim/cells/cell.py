"""A cell: the scenario, seed and users it has by itself, and the numbers that its requests and replicas have in all."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sim import workload
from sim.draws import Luck, who
from sim.records import REQUEST
from sim.scenario import Scenario
from sim.scenario.cells import before, share
from sim.scenario.targets import largest
from sim.scenario.workload import ArrivalProcess, Bursts, Stage
from sim.workload import arrivals as clock

_BITS = 63


@dataclass(frozen=True)
class Cell:
    """Cell *number* of *whole*, a point of a sweep, in the run with one *seed*."""

    whole: Scenario
    number: int
    whole_seed: int

    @property
    def count(self) -> int:
        """How many cells there are."""
        return self.whole.fleet.cells

    @cached_property
    def scenario(self) -> Scenario:
        """What is played: an ordinary scenario."""
        return _same_bursts(share(self.whole, self.number), self.whole_seed)

    @property
    def seed(self) -> int:
        """The seed of its luck, which no other cell has."""
        key = (*b"cell", self.number)
        return int(np.random.SeedSequence(self.whole_seed, spawn_key=key).generate_state(1, np.uint64)[0]) >> 64 - _BITS

    @property
    def before(self) -> dict[str, int]:
        """How many replicas of each pool stand in the cells before it."""
        return before(self.whole, self.number)

    @property
    def gateway(self) -> str:
        """The instance by which its gateway is scraped."""
        return f"gateway-{self.number}:9090"

    @cached_property
    def _replicas(self) -> np.ndarray:
        """The number in the whole fleet of each of its replicas, and -1 behind them, which is none's."""
        first, numbers = 0, []
        for name in self.whole.fleet.pools:
            size = largest(self.scenario, name)
            numbers.append(first + self.before[name] + np.arange(size))
            first += size * self.count
        return np.concatenate([*numbers, [-1]]).astype(np.int32)

    def replicas(self, own: np.ndarray) -> np.ndarray:
        """Return the numbers in the whole fleet (int32) of its *own* replicas; -1 stays none."""
        return self._replicas[own]

    def renumber(self, rows: np.ndarray) -> None:
        """Give *rows* (`sim.records.ATTEMPT`) the numbers of the whole: request modulo cells is the cell's number."""
        rows["replica"] = self.replicas(rows["replica"])
        for name in ("request", "session"):
            rows[name] = np.where(rows[name] >= 0, rows[name] * self.count + self.number, rows[name])

    def users(self, context_tokens: Mapping[str, int]) -> workload.Workload:
        """Return its users: its own draws, or of a trace the rows that fall to it."""
        users = workload.compile(self.scenario, self.seed, context_tokens)
        return users if self.whole.workload.trace is None else _Part(users, self)


def _same_bursts(scenario: Scenario, whole_seed: int) -> Scenario:
    """Return *scenario* with its bursts at the times at which *whole_seed* has them: the same in every cell."""
    process, rate = scenario.workload.arrivals, scenario.workload.rate_per_s
    bursts = process.bursts if isinstance(process, ArrivalProcess) else None
    if not isinstance(bursts, Bursts) or rate is None or scenario.workload.trace is not None:
        return scenario
    stays = (bursts.mean_on, bursts.mean_off)
    curve = clock.bursts(rate, bursts.rate_per_s, *stays, scenario.duration, whole_seed)
    rates = np.diff(curve.expected) / np.diff(curve.at_s)
    stages = [Stage(at=at_s, rate_per_s=rate) for at_s, rate in zip(curve.at_s.tolist(), rates.tolist())]
    told = scenario.workload.model_copy(update={"rate_per_s": None, "arrivals": ArrivalProcess(piecewise=stages)})
    return scenario.model_copy(update={"workload": told})


class _Part:
    """The rows of a trace that fall to one cell: which, a hash of seed and row says, whatever else is played."""

    agents = None

    def __init__(self, whole: workload.Workload, cell: Cell) -> None:
        self._whole, self._cell, self._luck = whole, cell, Luck(cell.whole_seed)
        self.expected_requests = whole.expected_requests / cell.count
        self.max_prompt_tokens, self.max_output_tokens = whole.max_prompt_tokens, whole.max_output_tokens
        self.prefixes, self.notes = whole.prefixes, whole.notes

    def chunks(self, size: int = workload.CHUNK) -> Iterator[np.ndarray]:
        """Yield its requests in their order; see `Workload.chunks`."""
        for rows in self._whole.chunks(size):
            drawn = self._luck.one("cells", who(rows["request"])) * self._cell.count
            yield rows[drawn.astype(np.int64) == self._cell.number]

    def more(self, sessions: np.ndarray) -> np.ndarray:
        """Return no rows: a trace has no sessions."""
        return np.zeros(0, REQUEST)
