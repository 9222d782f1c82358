"""The users of a scenario, drawn ahead: chunks of requests that do not depend on who serves them.

Streams and what they decide: ``arrivals`` (when), ``bursts`` (when it is busy), ``cohorts`` (what kind of
user), ``lengths`` (prompt and answer), ``errors`` (which answers are wrong), ``sessions`` (turns and think
times), ``prefixes`` (which shared prefix), ``surge.0`` and so on (when the users of a surge come). Each belongs
to the k-th arrival and its turn, so changing one setting leaves the draws of the others alone, and a sweep
over the rate plays the same users, sooner.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from sim.draws import Luck, who
from sim.errors import ScenarioError
from sim.records import REQUEST
from sim.scenario import Scenario
from sim.scenario import workload as spec
from sim.workload import arrivals as clock
from sim.workload import prefixes
from sim.workload.agents import Agents
from sim.workload.cohorts import CohortTable, lengths
from sim.workload.crowds import Crowds, surges
from sim.workload.sessions import CONTEXT_TOKENS, Circle, Conversations
from sim.workload.traces import Trace, load

CHUNK = 65_536


class Workload(Protocol):
    """Everything that users will ask in one run, a chunk at a time."""

    @property
    def expected_requests(self) -> float:
        """Requests expected, turns after the end of the run included; of a closed circle an upper guess."""
        ...

    @property
    def max_prompt_tokens(self) -> int:
        """No prompt is longer."""
        ...

    @property
    def max_output_tokens(self) -> int:
        """No answer is longer."""
        ...

    @property
    def prefixes(self) -> np.ndarray:
        """The tree of shared prefixes (`PREFIX`) that the rows' ``prefix`` points into; no rows when there are none."""
        ...

    @property
    def agents(self) -> Agents | None:
        """Those among them whose next request depends on what came of the last; None where there are none."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results should know about the users: sentences without a full stop."""
        ...

    def chunks(self, size: int = CHUNK) -> Iterator[np.ndarray]:
        """Yield arrays of `REQUEST`, at most about *size* rows each, with whole sessions.

        Rows that nobody names as ``follow_up`` are sorted by ``scheduled_s``, within and across chunks.
        Concatenated, the chunks do not depend on *size* (but for ``follow_up``, which counts within its chunk).
        Each call starts from the beginning.
        """
        ...

    def more(self, sessions: np.ndarray) -> np.ndarray:
        """Return the next rows of *sessions* whose script ended with ``follow_up`` -2 (see `Circle.more`)."""
        ...


def compile(scenario: Scenario, seed: int, context_tokens: Mapping[str, int] | None = None) -> Workload:
    """Return the users of *scenario* for one *seed*.

    *context_tokens* gives the longest context by pool, where carried conversations are cut; without it a
    pool's ``max_model_len`` is taken, or else `CONTEXT_TOKENS`.

    Raises:
        ScenarioError: settings of the workload that contradict each other; names the field.
        TraceError: the trace cannot be read or a row is wrong; names file, row and column.
    """
    workload = scenario.workload
    luck = Luck(seed)
    cohorts = CohortTable(scenario, luck)
    process = _process(workload)
    surges(scenario)  # raises where there can be none
    users: Open | Closed | Replay
    if workload.trace is not None:
        users = Replay(scenario, cohorts, load(workload.trace, scenario.duration))
    elif isinstance(process, spec.Closed):
        users = Closed(cohorts, Circle(cohorts, luck, process.users, process.think, scenario.duration))
    else:
        conversations = _conversations(scenario, cohorts, luck, context_tokens)
        users = Open(scenario, seed, cohorts, conversations, _agents(scenario, cohorts, luck, context_tokens))
    users.notes += _uncached(scenario, users)
    return users


class Open:
    """Users who come whatever the service does: single requests, first turns of conversations, or tasks of agents."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        cohorts: CohortTable,
        sessions: Conversations | None,
        agents: Agents | None = None,
    ) -> None:
        self._cohorts = cohorts
        self._sessions = sessions
        self.agents = agents
        self._crowds = Crowds(scenario, seed, *_curve(scenario, seed))
        each = sessions.mean_turns if sessions else agents.mean_calls() if agents else 1.0
        self.expected_requests = self._crowds.expected * each
        self.max_prompt_tokens = (sessions or agents or cohorts).max_prompt_tokens
        self.max_output_tokens = cohorts.max_output_tokens
        self.prefixes = cohorts.prefixes

    def chunks(self, size: int = CHUNK) -> Iterator[np.ndarray]:
        """Yield arrays of `REQUEST` in the order of arrival; see `Workload.chunks`."""
        users, requests = self._crowds.numbers(), self._crowds.numbers()
        for times, crowd in self._crowds.come(size):
            ids = users.take(crowd)
            if self._sessions is None:
                rows = single_requests(ids, times, self._cohorts, self._crowds.cohorts(crowd))
                if self.agents is not None:
                    self.agents.begin(rows)
                yield rows
                continue
            turns = self._sessions.turns(ids)
            for some in _whole_sessions(turns, size):
                asked = requests.take(np.repeat(crowd[some], turns[some]))
                given = self._crowds.cohorts(crowd[some])
                yield self._sessions.script(ids[some], times[some], turns[some], asked, given)

    def more(self, sessions: np.ndarray) -> np.ndarray:
        """Return what agents ask next; every other session is complete from the start."""
        return self.agents.more(sessions) if self.agents else np.zeros(0, REQUEST)


class Closed:
    """A fixed number of users who wait for their answer before they ask again."""

    notes: tuple[str, ...] = ()
    agents = None

    def __init__(self, cohorts: CohortTable, circle: Circle) -> None:
        self._circle = circle
        self.expected_requests = circle.expected_requests
        self.max_prompt_tokens = cohorts.max_prompt_tokens
        self.max_output_tokens = cohorts.max_output_tokens
        self.prefixes = cohorts.prefixes

    def chunks(self, size: int = CHUNK) -> Iterator[np.ndarray]:
        """Yield the first script of each user; see `Workload.chunks`."""
        return self._circle.chunks(size)

    def more(self, sessions: np.ndarray) -> np.ndarray:
        """Return the next script of each of *sessions*; see `Circle.more`."""
        return self._circle.more(sessions)


class Replay:
    """Recorded users: times and lengths from a trace, kinds (and wrong answers, where not recorded) drawn."""

    agents = None

    def __init__(self, scenario: Scenario, cohorts: CohortTable, trace: Trace) -> None:
        replay = scenario.workload.trace
        self.trace = trace
        self._cohorts = cohorts
        self._duration_s = scenario.duration
        self._repeat = replay is not None and replay.repeat
        self.expected_requests = float(sum(len(times) for _, times in trace.laps(self._repeat, scenario.duration)))
        self.max_prompt_tokens = int(trace.prompt_tokens.max(initial=1))
        self.max_output_tokens = int(trace.output_tokens.max(initial=1))
        self.notes = trace.notes
        self.prefixes, self._node = cohorts.prefixes, None
        if (blocks := trace.blocks()) is not None:
            self.prefixes, self._node = prefixes.of_blocks(*blocks, trace.prompt_tokens)
            if cohorts.groups.any():
                self.notes += ("the cohort's prefix is left aside: the trace says which prompts begin alike",)
        if trace.complete and not self._repeat and trace.arrival_s[-1] < 0.95 * scenario.duration:
            end_s = float(trace.arrival_s[-1])
            self.notes += (f"the trace ends at {end_s:.5g} s of {scenario.duration:.5g} s; nobody comes after that",)
        if scenario.workload.sessions is not None:
            self.notes += ("workload.sessions is left aside: the trace says who comes, and when",)

    def chunks(self, size: int = CHUNK) -> Iterator[np.ndarray]:
        """Yield the recorded requests in their order; see `Workload.chunks`."""
        trace = self.trace
        for first, times in trace.laps(self._repeat, self._duration_s):
            for start in range(0, len(times), size):
                some = slice(start, min(start + size, len(times)))
                ids = np.arange(first + start, first + some.stop)
                yield self._recorded(ids, times[some], some)

    def _recorded(self, ids: np.ndarray, times: np.ndarray, some: slice) -> np.ndarray:
        """Return the rows (REQUEST) *some* of the trace, asked as *ids* at *times*."""
        trace = self.trace
        rows, names = placed(ids, times, self._cohorts)
        rows["prompt_tokens"] = trace.prompt_tokens[some]
        rows["output_tokens"] = trace.output_tokens[some]
        if trace.wrong is not None and not self._cohorts.error.any():
            rows["wrong"] = trace.wrong[some]
        self._cohorts.judge(rows, names)
        if self._node is not None:
            rows["prefix"] = self._node[some]
        prefixes.fit(rows, self.prefixes)
        return rows

    def more(self, sessions: np.ndarray) -> np.ndarray:
        """Return no rows: a trace has no sessions."""
        return np.zeros(0, REQUEST)


def placed(
    ids: np.ndarray, times: np.ndarray, cohorts: CohortTable, given: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (REQUEST) of requests without a session whose lengths are still open, and their names."""
    rows = np.zeros(len(ids), REQUEST)
    names = who(ids)
    rows["request"] = rows["content"] = ids
    rows["session"] = rows["follow_up"] = -1
    rows["scheduled_s"] = times
    cohorts.place(rows, names, given)
    return rows, names


def single_requests(
    ids: np.ndarray, times: np.ndarray, cohorts: CohortTable, given: np.ndarray | None = None
) -> np.ndarray:
    """Return the rows (REQUEST) of requests without a session; see `CohortTable.place` for *given*."""
    rows, names = placed(ids, times, cohorts, given)
    cohorts.measure(rows, names)
    cohorts.judge(rows, names)
    prefixes.fit(rows, cohorts.prefixes)
    return rows


def _whole_sessions(turns: np.ndarray, size: int) -> Iterator[slice]:
    """Cut sessions of so many *turns* into runs of at most *size* rows, or one session that has more."""
    until = np.cumsum(turns)
    start = done = 0
    while start < len(turns):
        end = max(start + 1, int(np.searchsorted(until, done + size, "right")))
        yield slice(start, end)
        start, done = end, int(until[end - 1])


def _conversations(
    scenario: Scenario, cohorts: CohortTable, luck: Luck, context_tokens: Mapping[str, int] | None
) -> Conversations | None:
    sessions = scenario.workload.sessions
    if sessions is None:
        return None
    limits = _limits(scenario, cohorts, context_tokens) if sessions.carry else None
    return Conversations(cohorts, luck, lengths(sessions.turns, "workload.sessions.turns"), sessions.think, limits)


def _agents(
    scenario: Scenario, cohorts: CohortTable, luck: Luck, context_tokens: Mapping[str, int] | None
) -> Agents | None:
    if all(cohort.agent is None for cohort in scenario.workload.cohorts.values()):
        return None
    return Agents(scenario, cohorts, luck, _limits(scenario, cohorts, context_tokens))


def _limits(scenario: Scenario, cohorts: CohortTable, context_tokens: Mapping[str, int] | None) -> np.ndarray:
    """Return where prompts that carry others are cut (int64 tokens, one a cohort)."""
    known = context_tokens or {}
    by_pool = [known.get(name, p.max_model_len or CONTEXT_TOKENS) for name, p in scenario.fleet.pools.items()]
    return np.array(by_pool, np.int64)[cohorts.pool]


def _uncached(scenario: Scenario, users: "Open | Closed | Replay") -> tuple[str, ...]:
    """Return a note for each pool that computes again what its prompts have in common."""
    workload, pools = scenario.workload, scenario.fleet.pools
    carried = isinstance(users, Open) and workload.sessions is not None and workload.sessions.carry
    traced = isinstance(users, Replay)
    alike = [
        c
        for c in workload.cohorts.values()
        if carried or (c.agent and c.agent.carry) or (len(users.prefixes) and (traced or c.prefix))
    ]
    served = dict.fromkeys(cohort.pool or next(iter(pools)) for cohort in alike)
    return tuple(
        f"pool {name}: prompts begin alike and are computed in full, since prefix_caching is off (vLLM's default is on)"
        for name in served
        if not pools[name].prefix_caching
    )


def _process(workload: spec.Workload) -> object:
    """Return the settings of the arrival process; None for Poisson."""
    return workload.arrivals.choice[1] if isinstance(workload.arrivals, spec.ArrivalProcess) else None


def _curve(scenario: Scenario, seed: int) -> tuple[clock.RateCurve, float]:
    """Return the curve of expected arrivals and the coefficient of variation of the steps along it."""
    process, rate = _process(scenario.workload), scenario.workload.rate_per_s or 0.0
    kind = ""
    try:
        match process:
            case list():
                return clock.piecewise([stage.at for stage in process], [stage.rate_per_s for stage in process]), 1.0
            case spec.GammaArrivals():
                return clock.constant(rate), process.cv
            case spec.Diurnal():
                kind = "diurnal"
                return clock.diurnal(rate, process.peak_to_mean, process.peak_at), 1.0
            case spec.Bursts():
                kind = "bursts"
                stays = (process.mean_on, process.mean_off)
                return clock.bursts(rate, process.rate_per_s, *stays, scenario.duration, seed), 1.0
    except ValueError as error:
        raise ScenarioError(f"workload.arrivals.{kind}: {error}") from None
    return clock.constant(rate), 1.0
