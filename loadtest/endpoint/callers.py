"""Users who come over HTTP: each call becomes a row of what a user asks, drawn where the call does not say."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from sim import workload
from sim.draws import Luck, who
from sim.engine.hardware import PoolSpec
from sim.errors import InputError
from sim.records import REQUEST
from sim.scenario import Clients, Scenario
from sim.words import not_among
from sim.workload import prefixes
from sim.workload.cohorts import CohortTable


@dataclass(frozen=True)
class Call:
    """What one HTTP request asks of the model."""

    model: str
    prompt_tokens: int
    most: int
    """Output tokens that the caller allows."""
    exact: bool = False
    """All of them are made (``ignore_eos``), whatever the cohort would draw."""
    cohort: str = ""
    """Of the scenario; empty: drawn by their shares."""
    text_key: str = ""
    """Calls with the same key (OpenAI's ``prompt_cache_key``) continue one conversation."""
    wrong: bool = False
    """The answer is to be wrong, whatever was drawn."""


class Callers:
    """Stands where the drawn users of a scenario would: nobody comes unless somebody calls.

    With *rows* (`sim.records.REQUEST`, by schedule) it is these who come: callers of an earlier time, again.
    """

    expected_requests = 0.0
    notes: tuple[str, ...] = ()
    agents = None

    def __init__(self, scenario: Scenario, seed: int, specs: dict[str, PoolSpec], rows: np.ndarray) -> None:
        self._luck = Luck(seed)
        self._table = CohortTable(scenario, self._luck)
        self._rows = rows
        self._pools = list(specs)
        self.models = {name: spec.model.name if spec.model else name for name, spec in specs.items()}
        self.longest = {self.models[name]: spec.max_model_len for name, spec in specs.items()}
        self.prefixes = self._table.prefixes
        self.max_prompt_tokens, self.max_output_tokens = self._table.max_prompt_tokens, self._table.max_output_tokens
        self._traced = np.zeros(0, np.int32)
        if scenario.workload.trace is not None:
            self._traced = workload.load_trace(scenario.workload.trace, scenario.duration).output_tokens

    def chunks(self, size: int = workload.CHUNK) -> Iterator[np.ndarray]:
        """Yield those who are known to come; see `sim.workload.Workload.chunks`."""
        if len(self._rows):
            yield self._rows

    def more(self, sessions: np.ndarray) -> np.ndarray:
        """Return no rows: whoever calls again is somebody new."""
        return np.zeros(0, REQUEST)

    def row(self, request: int, at_s: float, call: Call) -> np.ndarray:
        """Return the one row of *call*: its k-th request belongs to the k-th user of the seed.

        Raises:
            InputError: there is no such cohort, or it does not use that model.
        """
        rows = np.zeros(1, REQUEST)
        names = who(np.array([request]))
        rows["request"] = rows["content"] = request
        rows["session"] = rows["follow_up"] = -1
        rows["scheduled_s"] = at_s
        cohort, pool = self._place(call, names)
        self._table.place(rows, names, np.array([cohort]))
        self._table.measure(rows, names)
        self._table.judge(rows, names)
        if len(self._traced):
            rows["output_tokens"] = self._traced[request % len(self._traced)]
        rows["pool"], rows["prompt_tokens"] = pool, call.prompt_tokens
        drawn = call.most if call.exact else min(max(1, int(rows["output_tokens"][0])), call.most)
        rows["output_tokens"] = drawn
        if call.wrong:
            rows["wrong"] = 1
        if call.text_key:
            rows["session"] = rows["content"] = (1 << 40) + crc32(call.text_key.encode())
        prefixes.fit(rows, self.prefixes)
        return rows

    def _place(self, call: Call, names: np.ndarray) -> tuple[int, int]:
        """Return cohort and pool: of the cohorts that use the model, the one that is named, or one by share."""
        table = self._table
        serving = [p for p, name in enumerate(self._pools) if self.models[name] == call.model]
        users = [c for c, p in enumerate(table.pool) if p in serving]
        if call.cohort:
            if call.cohort not in table.names:
                raise InputError(not_among(call.cohort, "cohort", table.names))
            cohort = table.names.index(call.cohort)
            if cohort not in users:
                raise InputError(f"expected a cohort that uses {call.model}, got {call.cohort!r}")
            return cohort, int(table.pool[cohort])
        if not users:  # nobody's model in this scenario: the first cohort's users try it
            return 0, serving[0]
        cohort = _by_share(users, table.share, float(self._luck.one("cohorts", names)[0]))
        return cohort, int(table.pool[cohort])


def _by_share(among: Sequence[int], share: np.ndarray, luck: float) -> int:
    until = np.cumsum(share[list(among)])
    return among[min(len(among) - 1, int(np.searchsorted(until, luck * until[-1], "right")))]


def served(scenario: Scenario) -> Scenario:
    """Return *scenario* as it is served: real clients wait, retry and leave by themselves, and every attempt has a row.

    What the gateway does for them stays: the limit of a cohort, and whether the engine hears that a client left.
    """
    from sim.scenario.telemetry import Telemetry

    cohorts = {
        name: cohort.model_copy(update={"clients": _passive(cohort.clients or scenario.clients)})
        for name, cohort in scenario.workload.cohorts.items()
    }
    changes = {
        "workload": scenario.workload.model_copy(update={"cohorts": cohorts}),
        "telemetry": scenario.telemetry or Telemetry(),
        "rows": "all",
        "warmup": 0.0,
    }
    return scenario.model_copy(update=changes)


def _passive(clients: Clients) -> Clients:
    return Clients(disconnect=clients.disconnect, limit_per_s=clients.limit_per_s, burst=clients.burst)
