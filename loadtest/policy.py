"""What the users' software does when the service does not answer: how long it waits, and whether it tries again.

As the engine plays it (sim/engine/clients.py). The numbers drawn are this module's own: by request and attempt, from
the streams ``patience`` and ``backoff`` of the seed.
"""

import math

import numpy as np

from loadtest.client import Limits
from sim.records import Outcome
from sim.scenario import Clients
from sim.scenario.clients import PatienceDraw
from sim.workload.draws import Luck, exponential, who

_ONE_TOKEN = 1.0 - 1e-9  # ten tenths of a token are one


class Policy:
    """The clients of one cohort."""

    def __init__(self, clients: Clients, luck: Luck, timeout_s: float | None) -> None:
        """*timeout_s* is that of an attempt where *clients* have none."""
        self._clients, self._luck = clients, luck
        self._timeout_s = clients.timeout or timeout_s or math.inf
        self._budget = clients.retry_budget
        self._left = self._budget.burst if self._budget else math.inf
        self._retry_on = {Outcome[name.upper()] for name in clients.retry_on}

    def begins(self) -> None:
        """A request begins: it earns its share of a retry."""
        if self._budget:
            self._left = min(self._budget.burst, self._left + self._budget.share)

    def patience_s(self, request: int) -> float:
        """Return how long the user of *request* waits for a first token before leaving for good."""
        patience = self._clients.patience
        if isinstance(patience, PatienceDraw):
            mean = patience.choice[1].mean
            return float(exponential(self._luck.one("patience", who(np.array([request]))), mean)[0])
        return math.inf if patience is None else float(patience)

    def deadline_s(self) -> float:
        """Return how long a request may take, retries and all."""
        return self._clients.deadline or math.inf

    def limits(self, sent_s: float, deadline_s: float, leaves_s: float, stall_s: float) -> Limits:
        """Return until when an attempt sent at *sent_s* is waited for; the other two are of its request."""
        whole = min((sent_s + self._timeout_s, "timeout"), (deadline_s, "deadline"))
        first_s = sent_s + (self._clients.first_token_timeout or math.inf)
        return Limits(min((first_s, "first_token_timeout"), (leaves_s, "left")), whole, stall_s)

    def tries_again(self, outcome: Outcome, status: int, tries: int, why: str) -> bool:
        """Tell whether a client tries again after such an end, *tries* retries made; one is taken from its budget."""
        if why in ("deadline", "left") or outcome not in self._retry_on or status == 400:
            return False
        if tries >= self._clients.retries or self._left < _ONE_TOKEN:
            return False
        self._left -= 1.0
        return True

    def backoff_s(self, request: int, tries: int) -> float:
        """Return the wait before retry *tries* (from 0): base times factor to the power of it, with jitter."""
        backoff = self._clients.backoff
        wait_s = float(min(backoff.max or math.inf, backoff.base * backoff.factor**tries))
        if backoff.jitter == "none" or not wait_s:
            return wait_s
        share = float(self._luck.one("backoff", who(np.array([request]), np.array([tries])))[0])
        return wait_s * (share if backoff.jitter == "full" else 0.5 + 0.5 * share)
