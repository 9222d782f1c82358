"""Agents: tasks whose next request is decided when the one before has ended, by what came of it.

A task is a session of steps that must all be right. The agent sees whether a step was answered and what its verifier
says, never whether the answer is right: a wrong one that passes is a silent error, and the task goes on. A chain that
ends as delivered right, delivered wrong or given up (absorbing Markov chains: Kemeny and Snell, *Finite Markov Chains*,
1960, chapter 3), whose steps are requests that wait in the queues of everybody else.

All that is drawn belongs to (task, step, try): whatever the service does, a task meets the same luck. Streams:
``lengths``, ``sessions`` (think times), ``prefixes``, ``verifier`` (what it flags), ``irreversible`` (which steps are).
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim.draws import Luck, who
from sim.ids import request_id
from sim.records import REQUEST, Outcome
from sim.scenario import Scenario
from sim.scenario.agents import Agent
from sim.workload import prefixes
from sim.workload.cohorts import CohortTable
from sim.workload.sessions import ASK_FOR_MORE, fill, think_times
from sim.workload.tasks import Tasks

_OK = int(Outcome.OK)
_TOGETHER = 256  # tasks that are planned at once: what NumPy takes for one it takes for fifty

_Row = tuple[Any, ...]
"""A REQUEST, for changing one of an array takes NumPy longer."""
_REQUEST, _TURN, _PROMPT, _OUTPUT, _CONTENT = (
    list(REQUEST.fields or ()).index(name) for name in ("request", "turn", "prompt_tokens", "output_tokens", "content")
)

Foresight = Callable[[np.ndarray], np.ndarray]
"""Which of what is asked (REQUEST) will be answered wrong, if it is answered (int8): 0, 1, or -1, that depends."""


@dataclass(slots=True)
class _Ahead:
    """What is known of each try of each step before it is made: lists by number of the try, of lists by step."""

    wrong: list[list[int]]  # as `Foresight` has it
    lots: list[list[float]]  # where they are below the share of answers that the verifier flags, it flags this


@dataclass(slots=True)
class _Task:
    """One task, as far as it has come."""

    agent: Agent
    session: int
    cohort: int
    plan: list[_Row]  # what each step asks, if it carries nothing
    checks: list[_Row] | None  # what the verifier asks about each
    undoable: list[bool]
    ahead: _Ahead
    pool: int = -1
    begun_s: float = 0.0
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

    @property
    def tried(self) -> int:
        """The number of this try of its step, which none before it had."""
        return self.resumed * (self.agent.retries + 1) + self.again


class Agents:
    """The tasks in flight of all cohorts that have an `agent`."""

    def __init__(self, scenario: Scenario, cohorts: CohortTable, luck: Luck, context_tokens: np.ndarray) -> None:
        """*context_tokens* (int, one a cohort): where a prompt that carries the steps before it is cut."""
        self._cohorts = cohorts
        self._luck = luck
        self._context_tokens: list[int] = context_tokens.tolist()
        self._agents = [cohort.agent for cohort in scenario.workload.cohorts.values()]
        self._has_agent = np.array([agent is not None for agent in self._agents])
        names = list(cohorts.names)
        by = [agent.verifier.by if agent and agent.verifier else None for agent in self._agents]
        self._checker = [None if name is None else names.index(name) for name in by]
        self._coming: deque[tuple[np.ndarray, np.ndarray]] = deque()  # sessions and cohorts of tasks not yet planned
        self._planned: dict[int, _Task] = {}
        self._live: dict[int, _Task] = {}
        self.foresee: Foresight = lambda rows: np.full(len(rows), -1, np.int8)
        """Who judges answers may say here what can be told ahead."""
        self.tasks = Tasks(len(scenario.fleet.pools))

    def begin(self, rows: np.ndarray) -> None:
        """Make those of single requests (*rows*, REQUEST) that belong to agents the first steps of their tasks."""
        mine = np.flatnonzero(self._has_agent[rows["cohort"]])
        sessions = rows["request"][mine]
        first = np.zeros_like(sessions)
        rows["session"][mine] = sessions
        rows["request"][mine] = rows["content"][mine] = request_id(sessions, first, first)
        rows["follow_up"][mine] = ASK_FOR_MORE
        cohorts = rows["cohort"][mine]
        for start in range(0, len(mine), _TOGETHER):
            some = slice(start, start + _TOGETHER)
            self._coming.append((sessions[some], cohorts[some]))

    @property
    def max_prompt_tokens(self) -> int:
        """The longest prompt that a step can have, tokens."""
        carried = [self._context_tokens[k] for k, agent in enumerate(self._agents) if agent and agent.carry]
        return max(self._cohorts.max_prompt_tokens, *carried, 1)

    def mean_calls(self) -> float:
        """Return the requests of an arrival, on average, if nothing has to be tried again."""
        agents = zip(self._agents, self._checker, strict=True)
        calls = [agent.steps * (1 if by is None else 2) if agent else 1 for agent, by in agents]
        return float(self._cohorts.share @ calls)

    # --- what became of them ---------------------------------------------------------------------------------------

    def foreseen(self, rows: np.ndarray) -> list[int]:
        """Return which of *rows* (ATTEMPT) are wrong answers, as far as anybody can tell ahead (see `Foresight`).

        Whatever is no answer is none, and whether one of a verifier is wrong matters to nobody.
        """
        found: list[int] = []
        for session, outcome in zip(rows["session"].tolist(), rows["outcome"].tolist()):
            task = None if session < 0 or outcome != _OK else self._live.get(session) or self._begun(session)
            found.append(0 if task is None or task.checking else self._ahead(task).wrong[task.tried][task.step])
        return found

    def hear(self, rows: np.ndarray, wrong: Iterable[int]) -> None:
        """Take notice of how requests ended (*rows*: the deciding ATTEMPT of each), and of which are *wrong* (0 or 1).

        Those that no agent made (they have no session) are passed over.
        """
        columns = ("session", "pool", "outcome", "prompt_tokens", "output_tokens", "scheduled_s", "finished_s")
        values = (rows[name].tolist() for name in columns)
        for session, pool, outcome, prompt, output, at_s, end_s, is_wrong in zip(*values, wrong, strict=True):
            if session < 0:
                continue
            task = self._live.get(session) or self._begun(session)
            if task.pool < 0:
                task.pool, task.begun_s = pool, at_s
            task.tokens += prompt + output
            task.ended = outcome, bool(is_wrong), end_s
            self.tasks.asked(pool, outcome)

    # --- what they will do -----------------------------------------------------------------------------------------

    def _begun(self, session: int) -> _Task:
        """Return the task of *session*, whose first request has ended."""
        while session not in self._planned:
            sessions, cohorts = self._coming.popleft()
            for cohort in np.unique(cohorts).tolist():
                for task in self._plan(sessions[cohorts == cohort], cohort):
                    self._planned[task.session] = task
        task = self._live[session] = self._planned.pop(session)
        return task

    def _plan(self, sessions: np.ndarray, cohort: int) -> Iterable[_Task]:
        """Yield the tasks of *sessions*, of one *cohort*, with all that is drawn for them."""
        agent, by = self._agents[cohort], self._checker[cohort]
        assert agent is not None
        plans = self._asked(sessions, cohort, agent.steps)
        names = who(plans["session"], plans["turn"])
        plans["scheduled_s"] = think_times(self._luck, names, agent.think)
        if agent.carry:
            for column in ("prefix", "prefix_tokens"):
                plans[column] = plans[column][:, :1]
        checks = [None] * len(sessions) if by is None else self._asked(sessions, by, agent.steps).tolist()
        if isinstance(agent.irreversible, list):
            undoable = [[k in agent.irreversible for k in range(1, agent.steps + 1)]] * len(sessions)
        else:
            undoable = (self._luck.one("irreversible", names) < agent.irreversible).tolist()
        ahead = self._look_ahead(sessions, cohort, agent.steps, range(2 if agent.retries or agent.checkpoint else 1))
        for session, *drawn in zip(sessions.tolist(), plans.tolist(), checks, undoable, ahead, strict=True):
            yield _Task(agent, session, cohort, *drawn)

    def _asked(self, sessions: np.ndarray, cohort: int, steps: int) -> np.ndarray:
        """Return what each step of *sessions* asks as *cohort* (REQUEST, (sessions, steps)), if it carries nothing."""
        rows = np.zeros(len(sessions) * steps, REQUEST)
        rows["session"], rows["turn"] = np.repeat(sessions, steps), np.tile(np.arange(steps), len(sessions))
        rows["follow_up"], rows["cohort"] = ASK_FOR_MORE, cohort
        fill(rows, self._cohorts, np.full(len(rows), cohort))
        prefixes.fit(rows, self._cohorts.prefixes)
        return rows.reshape(len(sessions), steps)

    def _look_ahead(self, sessions: np.ndarray, cohort: int, steps: int, tries: range) -> list[_Ahead]:
        """Return what is known of these *tries* of all *steps*, for each of *sessions*."""
        shape = len(sessions), len(tries), steps
        session, tried, step = np.broadcast_arrays(sessions[:, None, None], np.array(tries)[:, None], np.arange(steps))
        rows = np.zeros(session.size, REQUEST)
        rows["request"], rows["session"] = request_id(session, step, tried).ravel(), session.ravel()
        rows["cohort"] = cohort
        wrong = self.foresee(rows).reshape(shape).tolist()
        lots = self._luck.one("verifier", who(request_id(session, step, tried, check=True).ravel()))
        return [_Ahead(*one) for one in zip(wrong, lots.reshape(shape).tolist(), strict=True)]

    def _ahead(self, task: _Task) -> _Ahead:
        """Return what is known of *task*, looking twice as far ahead as before if its try is beyond that."""
        ahead, tried, session = task.ahead, task.tried, np.array([task.session])
        while tried >= (known := len(ahead.wrong)):
            (more,) = self._look_ahead(session, task.cohort, task.agent.steps, range(known, 2 * known))
            ahead.wrong += more.wrong
            ahead.lots += more.lots
        return ahead

    # --- what they do next -----------------------------------------------------------------------------------------

    def more(self, sessions: Iterable[int]) -> np.ndarray:
        """Return the next request (REQUEST) of each of *sessions* whose last has ended; none of a task that is over."""
        rows = [row for session in sessions if (row := self._next(self._live[int(session)])) is not None]
        return np.array(rows, REQUEST)

    def _next(self, task: _Task) -> _Row | None:
        agent = task.agent
        outcome, wrong, _ = task.ended
        if task.checking:
            flagged = outcome == _OK and self._flags(task, agent)  # a verifier that does not answer lets it pass
        elif outcome != _OK:
            return self._not_answered(task)
        else:
            task.wrong = wrong
            if task.checks is not None:
                return self._check(task, task.checks)
            flagged = agent.verifier is not None and self._flags(task, agent)
        task.checking = False
        if flagged and task.again < agent.retries:
            task.again += 1
            return self._ask(task)
        return self._go_on(task)

    def _go_on(self, task: _Task) -> _Row | None:
        """Take the answer at hand, act on it, and ask for the next step; or deliver what has come out."""
        if task.wrong and task.silent < 0:
            task.silent = task.step
        if task.silent >= 0 and task.undoable[task.step]:
            task.harm += 1
        agent, own = task.agent, task.plan[task.step]
        task.carried += own[_PROMPT] + own[_OUTPUT]
        task.step += 1
        task.again = 0
        if task.step == agent.steps:
            self._end(task, "wrong" if task.silent >= 0 else "ok")
            return None
        if agent.checkpoint and task.step % agent.checkpoint.every == 0:
            task.kept = task.step, task.carried
        return self._ask(task)

    def _not_answered(self, task: _Task) -> _Row | None:
        """Try again, go back to the last checkpoint, or give the task up."""
        agent = task.agent
        if agent.unanswered == "retry" and task.again < agent.retries:
            task.again += 1
            return self._ask(task)
        if agent.checkpoint is None or task.resumed == agent.checkpoint.resumes:
            self._end(task, "failed")
            return None
        task.resumed += 1
        task.again = 0
        task.step, task.carried = task.kept
        if task.silent >= task.step:
            task.silent = -1  # that answer is thrown away; what was done about it is not
        return self._ask(task)

    def _ask(self, task: _Task) -> _Row:
        row = list(task.plan[task.step])
        row[_REQUEST] = row[_CONTENT] = request_id(task.session, task.step, task.tried)
        if task.agent.carry:
            own = row[_PROMPT]
            room = max(own, self._context_tokens[task.cohort] - row[_OUTPUT])
            row[_PROMPT] = min(room, own + task.carried)
            if own + task.carried <= room:  # the whole history continues one text, that of the first step
                row[_CONTENT] = request_id(task.session, 0, 0)
        return self._made(task, row)

    def _check(self, task: _Task, checks: list[_Row]) -> _Row:
        row = list(checks[task.step])
        row[_REQUEST] = row[_CONTENT] = request_id(task.session, task.step, task.tried, check=True)
        task.checking = True
        return self._made(task, row)

    def _made(self, task: _Task, row: list[Any]) -> _Row:
        row[_TURN] = task.calls
        task.calls += 1
        return tuple(row)

    def _flags(self, task: _Task, agent: Agent) -> bool:
        """Tell whether the verifier takes the answer at hand for wrong."""
        assert agent.verifier is not None
        share = agent.verifier.sensitivity if task.wrong else agent.verifier.false_alarm
        return self._ahead(task).lots[task.tried][task.step] < share

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
