"""Agents: tasks whose next request is decided when the one before has ended, by what came of it.

A task is a session of steps that must all be right. The agent sees whether a step was answered and what its verifier
says, never whether the answer is right: a wrong one that passes is a silent error, and the task goes on. A chain that
ends as delivered right, delivered wrong or given up (absorbing Markov chains: Kemeny and Snell, *Finite Markov Chains*,
1960, chapter 3), whose steps are requests that wait in the queues of everybody else.

All that is drawn belongs to (task, step, try): whatever the service does, a task meets the same luck. Streams:
``lengths``, ``sessions`` (think times), ``prefixes``, ``verifier`` (what it flags), ``irreversible`` (which steps are).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from sim.draws import Luck, who
from sim.ids import IDS, request_id
from sim.records import REQUEST, Outcome
from sim.scenario import Scenario
from sim.scenario.agents import Agent
from sim.workload import prefixes
from sim.workload.cohorts import CohortTable
from sim.workload.sessions import ASK_FOR_MORE, fill, think_times
from sim.workload.tasks import Tasks

_OK = int(Outcome.OK)


@dataclass(slots=True)
class _Task:
    """One task, as far as it has come."""

    session: int
    cohort: int
    pool: int
    begun_s: float
    plan: np.ndarray  # what each step asks (REQUEST)
    checks: np.ndarray | None  # what the verifier asks about each
    undoable: list[bool]
    step: int = 0
    again: int = 0  # retries of this step, since the task came to it
    resumed: int = 0
    calls: int = 1
    tokens: int = 0
    carried: int = 0  # tokens of the steps so far
    kept: tuple[int, int] = (0, 0)  # step and tokens carried, at the last checkpoint
    checking: bool = False  # the last request was the verifier's
    wrong: bool = False  # the answer at hand is
    silent: int = -1  # first step whose wrong answer was taken
    harm: int = 0  # actions that cannot be undone, taken by or after it
    ended: tuple[int, bool, float] = field(default=(_OK, False, 0.0))  # outcome, wrong, time of the last request


class Agents:
    """The tasks in flight of all cohorts that have an `agent`."""

    def __init__(self, scenario: Scenario, cohorts: CohortTable, luck: Luck, context_tokens: np.ndarray) -> None:
        """*context_tokens* (int, one a cohort): where a prompt that carries the steps before it is cut."""
        self._cohorts = cohorts
        self._luck = luck
        self._context_tokens = context_tokens
        self._agents = [cohort.agent for cohort in scenario.workload.cohorts.values()]
        self._has_agent = np.array([agent is not None for agent in self._agents])
        names = list(cohorts.names)
        by = [agent.verifier.by if agent and agent.verifier else None for agent in self._agents]
        self._checker = [None if name is None else names.index(name) for name in by]
        self._live: dict[int, _Task] = {}
        self.tasks = Tasks(len(scenario.fleet.pools))

    def begin(self, rows: np.ndarray) -> None:
        """Make those of single requests (*rows*, REQUEST) that belong to agents the first steps of their tasks."""
        mine = np.flatnonzero(self._has_agent[rows["cohort"]])
        sessions = rows["request"][mine]
        rows["session"][mine] = sessions
        rows["request"][mine] = rows["content"][mine] = request_id(0, 0, 0) | sessions % IDS | sessions // IDS << 32
        rows["follow_up"][mine] = ASK_FOR_MORE

    @property
    def max_prompt_tokens(self) -> int:
        """The longest prompt that a step can have, tokens."""
        carried = [int(self._context_tokens[k]) for k, agent in enumerate(self._agents) if agent and agent.carry]
        return max(self._cohorts.max_prompt_tokens, *carried, 1)

    def mean_calls(self) -> float:
        """Return the requests of an arrival, on average, if nothing has to be tried again."""
        agents = zip(self._agents, self._checker, strict=True)
        calls = [agent.steps * (1 if by is None else 2) if agent else 1 for agent, by in agents]
        return float(self._cohorts.share @ calls)

    # --- what became of them ---------------------------------------------------------------------------------------

    def hear(self, rows: np.ndarray, wrong: np.ndarray) -> None:
        """Take notice of how steps ended (*rows*: the deciding ATTEMPT of each), and of which are *wrong* (0 or 1)."""
        columns = (
            "session",
            "cohort",
            "pool",
            "outcome",
            "prompt_tokens",
            "output_tokens",
            "scheduled_s",
            "finished_s",
        )
        values = (rows[name].tolist() for name in columns)
        for session, cohort, pool, outcome, prompt, output, at_s, end_s, is_wrong in zip(*values, wrong.tolist()):
            task = self._live.get(session)
            if task is None:
                task = self._live[session] = self._new(session, cohort, pool, at_s)
            task.tokens += prompt + output
            task.ended = outcome, bool(is_wrong), end_s
            self.tasks.asked(pool, outcome)

    def _new(self, session: int, cohort: int, pool: int, at_s: float) -> _Task:
        agent = self._agent(cohort)
        plan = self._plan(session, cohort, agent.steps)
        names = who(plan["session"], plan["turn"])
        plan["scheduled_s"] = think_times(self._luck, names, agent.think)
        if agent.carry:
            plan["prefix"], plan["prefix_tokens"] = plan["prefix"][0], plan["prefix_tokens"][0]
        by = self._checker[cohort]
        checks = None if by is None else self._plan(session, by, agent.steps)
        if isinstance(agent.irreversible, list):
            undoable = [k in agent.irreversible for k in range(1, agent.steps + 1)]
        else:
            undoable = (self._luck.one("irreversible", names) < agent.irreversible).tolist()
        return _Task(session, cohort, pool, at_s, plan, checks, undoable)

    def _plan(self, session: int, cohort: int, steps: int) -> np.ndarray:
        """Return what each step of a task asks as *cohort* (REQUEST), if it carries nothing."""
        rows = np.zeros(steps, REQUEST)
        rows["session"], rows["turn"], rows["follow_up"] = session, np.arange(steps), ASK_FOR_MORE
        rows["cohort"] = cohort
        fill(rows, self._cohorts, np.full(steps, cohort))
        prefixes.fit(rows, self._cohorts.prefixes)
        return rows

    def _agent(self, cohort: int) -> Agent:
        agent = self._agents[cohort]
        assert agent is not None
        return agent

    # --- what they do next -----------------------------------------------------------------------------------------

    def more(self, sessions: Iterable[int]) -> np.ndarray:
        """Return the next request (REQUEST) of each of *sessions* whose last has ended; none of a task that is over."""
        rows = [row for session in sessions if (row := self._next(self._live[int(session)])) is not None]
        return np.concatenate(rows) if rows else np.zeros(0, REQUEST)

    def _next(self, task: _Task) -> np.ndarray | None:
        agent = self._agent(task.cohort)
        outcome, wrong, _ = task.ended
        if task.checking:
            flagged = outcome == _OK and self._flags(task, agent)  # a verifier that does not answer lets it pass
        elif outcome != _OK:
            return self._not_answered(task, agent)
        else:
            task.wrong = wrong
            if task.checks is not None:
                return self._check(task, task.checks)
            flagged = agent.verifier is not None and self._flags(task, agent)
        task.checking = False
        if flagged and task.again < agent.retries:
            task.again += 1
            return self._ask(task, agent)
        return self._go_on(task, agent)

    def _go_on(self, task: _Task, agent: Agent) -> np.ndarray | None:
        """Take the answer at hand, act on it, and ask for the next step; or deliver what has come out."""
        if task.wrong and task.silent < 0:
            task.silent = task.step
        if task.silent >= 0 and task.undoable[task.step]:
            task.harm += 1
        own = task.plan[task.step]
        task.carried += int(own["prompt_tokens"]) + int(own["output_tokens"])
        task.step += 1
        task.again = 0
        if task.step == agent.steps:
            self._end(task, "wrong" if task.silent >= 0 else "ok")
            return None
        if agent.checkpoint and task.step % agent.checkpoint.every == 0:
            task.kept = task.step, task.carried
        return self._ask(task, agent)

    def _not_answered(self, task: _Task, agent: Agent) -> np.ndarray | None:
        """Try again, go back to the last checkpoint, or give the task up."""
        if agent.unanswered == "retry" and task.again < agent.retries:
            task.again += 1
            return self._ask(task, agent)
        if agent.checkpoint is None or task.resumed == agent.checkpoint.resumes:
            self._end(task, "failed")
            return None
        task.resumed += 1
        task.again = 0
        task.step, task.carried = task.kept
        if task.silent >= task.step:
            task.silent = -1  # that answer is thrown away; what was done about it is not
        return self._ask(task, agent)

    def _tried(self, task: _Task, agent: Agent) -> int:
        """Return the number of this try of its step, which none before it had."""
        return task.resumed * (agent.retries + 1) + task.again

    def _ask(self, task: _Task, agent: Agent) -> np.ndarray:
        row = task.plan[task.step : task.step + 1].copy()
        row["request"] = row["content"] = request_id(task.session, task.step, self._tried(task, agent))
        if agent.carry:
            own, answer = int(row["prompt_tokens"][0]), int(row["output_tokens"][0])
            room = max(own, int(self._context_tokens[task.cohort]) - answer)
            row["prompt_tokens"] = min(room, own + task.carried)
            if own + task.carried <= room:  # the whole history continues one text, that of the first step
                row["content"] = request_id(task.session, 0, 0)
        row["turn"] = task.calls
        task.calls += 1
        return row

    def _check(self, task: _Task, checks: np.ndarray) -> np.ndarray:
        row = checks[task.step : task.step + 1].copy()
        row["request"] = row["content"] = self._name(task, check=True)
        row["turn"] = task.calls
        task.calls += 1
        task.checking = True
        return row

    def _flags(self, task: _Task, agent: Agent) -> bool:
        """Tell whether the verifier takes the answer at hand for wrong."""
        assert agent.verifier is not None
        share = agent.verifier.sensitivity if task.wrong else agent.verifier.false_alarm
        return bool(self._luck.one("verifier", who(np.array([self._name(task, check=True)])))[0] < share)

    def _name(self, task: _Task, check: bool) -> int:
        return request_id(task.session, task.step, self._tried(task, self._agent(task.cohort)), check)

    def _end(self, task: _Task, how: str) -> None:
        del self._live[task.session]
        self._note(task, how)

    def _note(self, task: _Task, how: str) -> None:
        e2e_s = task.ended[2] - task.begun_s
        self.tasks.ended(task.cohort, task.pool, how, task.begun_s, e2e_s, task.tokens, task.calls, task.harm)

    def close(self) -> None:
        """Note the tasks that the end of the run has cut off."""
        for task in self._live.values():
            self._note(task, "unfinished")
        self._live.clear()
