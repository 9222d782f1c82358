"""What every process of one load test must know: the users, the endpoint, and how to talk to it."""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from sim import scenario as scenarios
from sim.scenario import Scenario

MAX_IN_FLIGHT = 2_000
"""Requests that one process has in flight at most; an arrival above that is dropped and counted. A process measures
400 streams with an error of 9 ms at the median, 50 with 0.3 ms (Locust 2.47, one core of two)."""

STALL_S = 30.0
"""A stream that has begun and is silent for so long has stalled. Preemptions that were measured on vLLM silence a
stream for one or two seconds."""


@dataclass(frozen=True)
class Talk:
    """How an endpoint wants to be talked to, as the preflight found out."""

    api: str = "chat"
    """``ids``: /completions with lists of token ids; ``chat``: /chat/completions with text."""
    overhead_tokens: float = 0.0
    """Tokens that the chat template adds to a text."""
    tokens_per_word: float = 1.0
    usage: bool = True
    """Streams end with their usage; without it, tokens are counted as events and prompts are as many words."""
    exact: bool = True
    """Takes ``ignore_eos`` and ``min_tokens``, so that answers are as long as the scenario says."""
    context: int = 0
    """Longest prompt and answer together, tokens, where the endpoint says so; 0: it does not."""


@dataclass(frozen=True)
class Plan:
    """One load test: a scenario (as YAML), a seed, and an endpoint. Times are seconds."""

    scenario: str
    seed: int
    url: str
    models: dict[str, str]
    """The model to ask for, by pool of the scenario."""
    talk: Talk = field(default_factory=Talk)
    salt: int = 0
    """Differs from run to run, so that no prompt is in a prefix cache from before."""
    contexts: dict[str, int] = field(default_factory=dict)
    """The longest context by pool, as the simulator has it."""
    timeout_s: float | None = None
    """Of one attempt, where the scenario's clients have none."""
    stall_s: float = STALL_S
    max_in_flight: int = MAX_IN_FLIGHT
    max_requests: int | None = None
    max_tokens: int | None = None
    ca: str | None = None
    speed: float = 1.0
    """Model seconds a wall second, where the endpoint is played so fast (`blowout serve --speed`): all times of the
    plan and of its rows are model seconds."""
    folder: str = ""
    """Where processes leave rows and their state; empty: nowhere."""
    answers: str = ""
    """Where they leave what sampled answers say, for as long as it takes to judge them; empty: nowhere."""

    @cached_property
    def loaded(self) -> Scenario:
        """The scenario."""
        return scenarios.loads(self.scenario, "scenario.yaml", need_files=True)

    def to_json(self) -> str:
        """Return the plan as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Return the plan that `to_json` wrote."""
        found: dict[str, Any] = json.loads(text)
        return cls(**{**found, "talk": Talk(**found["talk"])})

    def with_folders(self, folder: str, answers: str) -> "Plan":
        """Return the same plan, whose processes write into *folder*, and what sampled answers say into *answers*."""
        return replace(self, folder=folder, answers=answers)


def base_of(url: str) -> str:
    """Return the address before ``/v1`` of an endpoint, however much of its path was typed."""
    url = url.rstrip("/")
    for tail in ("/chat/completions", "/completions", "/models", "/v1"):
        url = url.removesuffix(tail)
    return url


def is_loopback(url: str) -> bool:
    """Tell whether *url* names this machine's own loopback address."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def share(whole: int | None, index: int, of: int) -> float:
    """Return what process *index* of *of* may use of *whole*; the shares sum to it."""
    return math.inf if whole is None else whole // of + (index < whole % of)
