"""Users who come back: conversations of several turns, and a closed circle of users who ask, wait and think.

A session's rows stand one after the other and each names the next as its ``follow_up``; a follow-up's
``scheduled_s`` is the think time after the turn before has finished, for the engine to add. All that a
session does is a function of (seed, session, turn), so it can be drawn in any order and at any time.
"""

from collections.abc import Iterator

import numpy as np

from sim.draws import Luck, exponential, who
from sim.records import REQUEST
from sim.workload import prefixes
from sim.workload.cohorts import CohortTable
from sim.workload.lengths import Lengths

CONTEXT_TOKENS = 131_072
"""Where a carried conversation is cut when its pool gives no ``max_model_len``: the context of Llama 3.1 and Qwen3."""

TURNS_MAX = 1_000
"""No conversation is longer."""

ASK_FOR_MORE = -2
"""``follow_up`` of a script's last row when the session goes on: see `Circle.more`."""

_BLOCK_ROWS = 65_536
_SCRIPT_MIN, _SCRIPT_MAX = 8, 1_024


class Conversations:
    """Sessions of several turns: how many, how long each user thinks, and what a later prompt carries along."""

    def __init__(
        self, cohorts: CohortTable, luck: Luck, turns: Lengths, think_s: float, context_tokens: np.ndarray | None
    ) -> None:
        """*context_tokens* (int, one a cohort): where a carried prompt is cut; None: prompts carry nothing."""
        self._cohorts = cohorts
        self._luck = luck
        self._turns = turns
        self._think_s = think_s
        self._context_tokens = context_tokens

    @property
    def mean_turns(self) -> float:
        """Requests in a session, on average."""
        return min(self._turns.mean, float(TURNS_MAX))

    @property
    def max_prompt_tokens(self) -> int:
        """The longest prompt that a turn can have, tokens."""
        if self._context_tokens is None:
            return self._cohorts.max_prompt_tokens
        return max(self._cohorts.max_prompt_tokens, int(self._context_tokens.max()))

    def turns(self, sessions: np.ndarray) -> np.ndarray:
        """Return how many turns each of *sessions* has (int64, at least 1)."""
        share, _ = self._luck.two("sessions", who(sessions))
        return np.minimum(self._turns.at(share), TURNS_MAX).astype(np.int64)

    def script(
        self,
        sessions: np.ndarray,
        begin_s: np.ndarray,
        turns: np.ndarray,
        requests: np.ndarray,
        cohorts: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the rows (REQUEST) of whole *sessions* that begin at *begin_s*; *requests* are their ids.

        *cohorts* gives each session's where it is not drawn: see `CohortTable.place`.
        """
        first = np.cumsum(turns) - turns
        rows = np.zeros(int(turns.sum()), REQUEST)
        place = np.arange(len(rows))
        rows["session"] = np.repeat(sessions, turns)
        rows["turn"] = place - np.repeat(first, turns)
        rows["request"] = rows["content"] = requests
        rows["follow_up"] = place + 1
        rows["follow_up"][first + turns - 1] = -1
        names = fill(rows, self._cohorts, None if cohorts is None else np.repeat(cohorts, turns))
        rows["scheduled_s"] = think_times(self._luck, names, self._think_s)
        rows["scheduled_s"][first] = begin_s
        if self._context_tokens is not None:
            self._carry(rows, first, turns)
        prefixes.fit(rows, self._cohorts.prefixes)
        return rows

    def _carry(self, rows: np.ndarray, first: np.ndarray, turns: np.ndarray) -> None:
        """Put the turns before into each prompt, and drop the oldest of it where the context would not fit.

        A shared prefix stays at the start of all turns, or of none when the first is too short for it. Whole
        histories continue one text, that of the first turn; what was cut is a text of its own.
        """
        assert self._context_tokens is not None
        new, answer = rows["prompt_tokens"].astype(np.int64), rows["output_tokens"].astype(np.int64)
        said = np.cumsum(new + answer)
        before = np.repeat(said[first] - new[first] - answer[first], turns)
        prompt = said - before - answer
        room = np.maximum(self._context_tokens[rows["cohort"]] - answer, new)
        rows["prompt_tokens"] = np.minimum(prompt, room)
        rows["content"] = np.repeat(rows["request"][first], turns)
        cut = np.flatnonzero(prompt > room)
        rows["content"][cut] = rows["request"][cut]
        if len(self._cohorts.prefixes):
            begins = rows[first]
            prefixes.fit(begins, self._cohorts.prefixes)
            rows["prefix"] = np.repeat(begins["prefix"], turns)


class Circle:
    """A closed circle: *users* sessions without end, each asking a mean of *think_s* after its last answer."""

    def __init__(self, cohorts: CohortTable, luck: Luck, users: int, think_s: float, duration_s: float) -> None:
        self._cohorts = cohorts
        self._luck = luck
        self._users = users
        self._think_s = think_s
        self._duration_s = duration_s
        self._script = max(_SCRIPT_MIN, min(_SCRIPT_MAX, _BLOCK_ROWS // users))
        self._drawn = np.zeros(users, np.int64)  # turns handed out so far
        begin_s = think_times(luck, who(np.arange(users)), think_s)
        order = np.argsort(begin_s, kind="stable")
        self._order = order[begin_s[order] < duration_s]

    @property
    def expected_requests(self) -> float:
        """What the users would ask if answers came at once (and thinking took a second at least): an upper guess."""
        return self._users * self._duration_s / max(self._think_s, 1.0)

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        """Yield each user's first script, in the order in which the users begin, whole scripts of about *size* rows."""
        self._drawn[:] = 0
        at_once = max(1, size // self._script)
        for start in range(0, len(self._order), at_once):
            yield self.more(self._order[start : start + at_once])

    def more(self, sessions: np.ndarray) -> np.ndarray:
        """Return the next script (REQUEST) of each of *sessions*; every row's ``scheduled_s`` is a think time.

        That of turn 0 begins at 0. Sessions stand in the order given, each with the same number of rows, the
        last of which asks for more.
        """
        length = self._script
        rows = np.zeros(len(sessions) * length, REQUEST)
        place = np.arange(len(rows))
        rows["session"] = np.repeat(sessions, length)
        rows["turn"] = np.repeat(self._drawn[sessions], length) + place % length
        rows["request"] = rows["content"] = rows["turn"].astype(np.int64) * self._users + rows["session"]
        rows["follow_up"] = place + 1
        rows["follow_up"][length - 1 :: length] = ASK_FOR_MORE
        names = fill(rows, self._cohorts)
        rows["scheduled_s"] = think_times(self._luck, names, self._think_s)
        prefixes.fit(rows, self._cohorts.prefixes)
        self._drawn[sessions] += length
        return rows


def fill(rows: np.ndarray, cohorts: CohortTable, given: np.ndarray | None = None) -> np.ndarray:
    """Fill in what the cohorts draw for *rows* with a session and a turn; return the names of their turns."""
    names = who(rows["session"], rows["turn"])
    cohorts.place(rows, who(rows["session"]), given)
    cohorts.measure(rows, names)
    cohorts.judge(rows, names)
    return names


def think_times(luck: Luck, names: np.ndarray, mean_s: float) -> np.ndarray:
    """Return the time (float64 seconds) that passes before each of the turns *names*: exponential."""
    _, share = luck.two("sessions", names)
    return exponential(share, mean_s)
