"""What the users' software does when the service does not answer: how long it waits, and whether it tries again.

As the engine plays it (sim/engine/clients.py), with the same luck: what is drawn for an attempt of a request is the
engine's own number (`sim.engine.attempts.draw`), so that a load test and its prediction decide alike.
"""

import math

from loadtest.client import Limits
from sim.records import Outcome
from sim.scenario import Clients
from sim.scenario.clients import PatienceDraw

_ONE_TOKEN = 1.0 - 1e-9  # ten tenths of a token are one
HEDGES_SAVED = 10.0
"""Second copies that a cohort may save up, as in the engine."""
THROTTLE_S = 60.0
"""Mean age of what adaptive throttling remembers: that of the two minutes of the SRE book's sliding window."""
ATTEMPT_BITS = 6
MOST_ATTEMPTS = 1 << ATTEMPT_BITS
_PATIENCE, _THROTTLE, _BACKOFF = 51, 52, 53  # purposes, as in sim/engine/clients.py
_MASK = (1 << 64) - 1


def _scramble(x: int) -> int:
    """Return 64 well mixed bits of *x* (the finaliser of SplitMix64), as `sim.engine.steptime.scramble`."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def draw(seed: int, request: int, attempt: int, purpose: int) -> float:
    """Return the number in (0, 1) that belongs to an attempt and a purpose: the engine's, without its compiler."""
    key = ((request << ATTEMPT_BITS) | attempt) & _MASK
    bits = _scramble(_scramble(_scramble(seed & _MASK) ^ key) ^ purpose)
    return (float(bits >> 11) + 0.5) * (1.0 / 9007199254740992.0)


class Policy:
    """The clients of one cohort."""

    def __init__(self, clients: Clients, seed: int, timeout_s: float | None) -> None:
        """*timeout_s* is that of an attempt where *clients* have none."""
        self._clients, self._seed = clients, seed
        self._timeout_s = clients.timeout or timeout_s or math.inf
        self._budget = clients.retry_budget
        self._left = self._budget.burst if self._budget else math.inf
        self._retry_on = {Outcome[name.upper()] for name in clients.retry_on}
        self._hedges = 0.0
        self._asked = self._taken = self._faded_s = 0.0

    def begins(self) -> None:
        """A request begins: it earns its share of a retry, and of a second copy."""
        if self._budget:
            self._left = min(self._budget.burst, self._left + self._budget.share)
        if self._clients.hedge:
            self._hedges = min(HEDGES_SAVED, self._hedges + self._clients.hedge.share)

    def patience_s(self, request: int) -> float:
        """Return how long the user of *request* waits for a first token before leaving for good."""
        patience = self._clients.patience
        if isinstance(patience, PatienceDraw):
            return -math.log(draw(self._seed, request, 0, _PATIENCE)) * float(patience.choice[1].mean)
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

    @property
    def hedge_s(self) -> float | None:
        """After how long without a token a second copy is sent; None: never."""
        return self._clients.hedge.after if self._clients.hedge else None

    @property
    def cancels_losers(self) -> bool:
        """Whether the copy that was not first is cut off; else it is served to the end."""
        return self._clients.hedge is None or self._clients.hedge.cancel

    def hedges(self, attempts: int) -> bool:
        """Tell whether a request with so many *attempts* may have a second copy, and take it from what was earned."""
        if self._hedges < _ONE_TOKEN or attempts >= MOST_ATTEMPTS:
            return False
        self._hedges -= 1.0
        return True

    def holds_back(self, request: int, attempt: int, now_s: float) -> bool:
        """Tell whether the client refuses its own attempt ("Handling Overload", SRE book, chapter 21).

        The probability is (asked - K x taken) / (asked + 1), of what was asked and taken lately.
        """
        if not self._clients.throttle:
            return False
        self._fade(now_s)
        chance = (self._asked - self._clients.throttle * self._taken) / (self._asked + 1.0)
        self._asked += 1.0
        return draw(self._seed, request, attempt, _THROTTLE) < chance

    def answered(self, now_s: float) -> None:
        """An attempt was answered: adaptive throttling takes heart."""
        if self._clients.throttle:
            self._fade(now_s)
            self._taken += 1.0

    def _fade(self, now_s: float) -> None:
        fade = math.exp((self._faded_s - now_s) / THROTTLE_S)
        self._asked, self._taken, self._faded_s = self._asked * fade, self._taken * fade, now_s

    def backoff_s(self, request: int, tries: int, attempts: int) -> float:
        """Return the wait before retry *tries* (from 0) of a request, *attempts* made so far, hedged copies included.

        It is base times factor to the power of *tries*, with jitter.
        """
        backoff = self._clients.backoff
        wait_s = float(min(backoff.max or math.inf, backoff.base * backoff.factor**tries))
        if backoff.jitter == "none" or not wait_s:
            return wait_s
        share = draw(self._seed, request, attempts, _BACKOFF)
        return wait_s * (share if backoff.jitter == "full" else 0.5 + 0.5 * share)
