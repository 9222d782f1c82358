"""Requests out of attempt rows: what each took, where its time went, and which replicas it met on its way."""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import InputError
from sim.records import ATTEMPT, PARTS, Outcome
from sim.report import style, words
from sim.report.parts import Kind
from sim.scenario.targets import largest

if TYPE_CHECKING:
    from sim.results import Member
    from sim.scenario import Scenario

KIND = Kind(
    {"client_wait_s": words.PART_NAMES["client_wait_s"], "lost_s": "in earlier attempts"} | words.PART_NAMES,
    {"client_wait_s": style.PARTS["client_wait_s"], "lost_s": "#d7a3cd"} | style.PARTS,
)
"""The ten parts; and out of the wait in the client, what was lost in attempts that others had to follow."""
IN_ENGINE = PARTS[2:]
"""Parts that an attempt spends behind the gateway: those of one that failed are part of what the next calls lost."""

TIMED = (Outcome.OK, Outcome.TIMED_OUT, Outcome.UNFINISHED)
"""Ends that count in latencies, with the time waited so far; the others are errors and no latencies."""


@dataclass(frozen=True)
class Asked:
    """The requests of one point and seed: attempt rows (`ATTEMPT`) by request and time of sending."""

    rows: np.ndarray
    warmup_s: float

    @cached_property
    def starts(self) -> np.ndarray:
        """Where the attempts of each request begin in `rows`; and behind the last, how many rows there are."""
        new = np.flatnonzero(np.diff(self.rows["request"])) + 1
        return (
            np.concatenate([[0], new, [len(self.rows)]]).astype(np.int64) if len(self.rows) else np.zeros(1, np.int64)
        )

    @cached_property
    def last(self) -> np.ndarray:
        """The row of each request that decided it."""
        return self.rows[np.flatnonzero(self.rows["last"] == 1)]

    def __len__(self) -> int:
        return len(self.last)

    def attempts(self, k: int) -> np.ndarray:
        """Return the rows of the *k*-th request, in the order of sending."""
        return self.rows[self.starts[k] : self.starts[k + 1]]

    @cached_property
    def took_s(self) -> dict[str, np.ndarray]:
        """TTFT and e2e by request, from when the user acted; without a first token TTFT is the time waited."""
        e2e = self.last["finished_s"] - self.last["scheduled_s"]
        ttft = self.last["first_token_s"] - self.last["scheduled_s"]
        return {"ttft": np.where(np.isnan(ttft), e2e, ttft), "e2e": e2e}

    @cached_property
    def counted(self) -> np.ndarray:
        """Which requests have a latency that counts: asked after the warm-up, neither refused, failed nor cancelled."""
        return np.isin(self.last["outcome"], TIMED) & (self.last["scheduled_s"] >= self.warmup_s)

    @cached_property
    def parts_s(self) -> np.ndarray:
        """Seconds by part, shape (requests, parts of `KIND`)."""
        client, *others = (self.last[part].astype(float) for part in PARTS)
        before = self.last["sent_s"] - self.rows["sent_s"][self.starts[:-1]] - others[0]
        lost = np.clip(before, 0.0, client)
        return np.stack([client - lost, lost, *others], axis=1)

    @cached_property
    def parts_first_s(self) -> np.ndarray:
        """Seconds by part as far as they fell before the first token, shape as `parts_s`; they sum to TTFT.

        Preemptions and stalls may fall on either side of it: what the other parts leave of TTFT is theirs.
        """
        names = list(KIND.names)
        whole, at_token = self.parts_s, names.index("prefill_s") + 1
        first = np.zeros_like(whole)
        first[:, :at_token] = whole[:, :at_token]
        for part in ("fault_stall_s", "preempted_s"):
            rest = self.took_s["ttft"] - first.sum(axis=1)
            first[:, names.index(part)] = np.clip(rest, 0.0, whole[:, names.index(part)])
        return first

    def lost_to_s(self, places: np.ndarray) -> dict[str, float]:
        """Return where the requests at *places* lost time in earlier attempts: mean seconds by part."""
        rows = [self.attempts(k) for k in places]
        before = [row[row["finished_s"] <= row["sent_s"][row["last"] == 1]] for row in rows]
        return {part: sum(float(row[part].sum()) for row in before) / max(1, len(rows)) for part in IN_ENGINE}

    @cached_property
    def met(self) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of request (its place) and replica that one of its attempts reached, each once."""
        place = np.repeat(np.arange(len(self)), np.diff(self.starts))
        reached = self.rows["replica"] >= 0
        width = int(self.rows["replica"].max(initial=0)) + 1
        pairs = np.unique(place[reached] * width + self.rows["replica"][reached])
        return pairs // width, pairs % width

    def slow(self, by: str, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of the requests *among* (a mask) around their median of *by*, and of their slowest 1%."""
        places = np.flatnonzero(among & self.counted)
        places = places[np.argsort(self.took_s[by][places], kind="stable")]
        n = len(places)
        return places[int(0.45 * n) : math.ceil(0.55 * n)], places[n - max(1, round(n / 100)) :] if n else places


def asked(member: "Member", scenario: "Scenario") -> Asked:
    """Return the requests of *member*, a point and seed of *scenario*.

    Raises:
        InputError: it kept no rows, or they cannot be read.
    """
    if scenario.rows == "none":
        raise InputError(f"{member.path}: its run kept no rows (`rows: none`); play it again with --set rows=all")
    table = member.attempts()
    rows = np.empty(table.num_rows, ATTEMPT)
    for name in ATTEMPT.names or ():
        rows[name] = table[name].to_numpy()
    rows = rows[np.lexsort((rows["attempt"], rows["sent_s"], rows["request"]))]
    decided = rows["request"][rows["last"] == 1]
    rows = rows[np.isin(rows["request"], decided)]  # an interrupted run has attempts of requests that still wait
    if not len(rows):
        raise InputError(f"{member.path}: there is no row in it, so nothing to explain")
    return Asked(rows, scenario.warmup)


def replica_names(scenario: "Scenario") -> list[str]:
    """Return what each replica of the fleet is called: ``chat/3``; those that were off at first among them."""
    names = [[f"{name}/{k}" for k in range(largest(scenario, name))] for name in scenario.fleet.pools]
    return list(itertools.chain.from_iterable(names))
