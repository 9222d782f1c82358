"""One request told step by step: every attempt in its order, where it waited, and how it ended."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sim.records import Outcome
from sim.report import words

WAITS = {"seat_wait_s": "a seat in the batch", "kv_wait_s": "KV cache blocks", "step_wait_s": "a step or token budget"}
NOTED_S = 1e-3
"""Shorter waits are not told."""
NOT_SENT = 0
"""Status of an attempt that its client never sent."""
ENDS = {
    Outcome.OK: "answered",
    Outcome.REJECTED: "refused",
    Outcome.TIMED_OUT: "the client's time was up",
    Outcome.FAILED: "failed",
    Outcome.CANCELLED: "the client went away",
    Outcome.UNFINISHED: "still not answered when the run ended",
}


@dataclass(frozen=True)
class Step:
    """Something that happened to a request, *at_s* after the user acted."""

    at_s: float
    text: str


def steps(attempts: np.ndarray, replicas: Sequence[str]) -> list[Step]:
    """Return what happened to the request with these *attempts* (rows of one request, in the order of sending).

    Without names of *replicas* nobody knows which an attempt reached: it was measured by its client.
    """
    start_s = float(attempts["scheduled_s"][0])
    found: list[Step] = []
    before: np.void | None = None
    for number, row in enumerate(attempts, 1):
        found += [Step(at_s - start_s, text) for at_s, text in _attempt(row, number, len(attempts), before, replicas)]
        before = row if not row["hedge"] else before
    return sorted(found, key=lambda step: step.at_s)


def _attempt(
    row: np.void, number: int, of: int, before: np.void | None, replicas: Sequence[str]
) -> Iterator[tuple[float, str]]:
    """Yield when (seconds of the run) and what happened to one attempt."""
    whose = f"attempt {number}: " if of > 1 else ""
    replica = replicas[row["replica"]] if row["replica"] >= 0 else ""
    if before is not None and not row["hedge"] and row["sent_s"] > before["finished_s"]:
        yield before["finished_s"], f"backed off for {words.seconds(row['sent_s'] - before['finished_s'])}"
    what = "sent a second copy" if row["hedge"] else "sent again" if number > 1 else "sent"
    if not replica and row["status"] == NOT_SENT:
        yield row["finished_s"], f"{whose}{_unsent(row)}"
        return
    yield row["sent_s"], f"{whose}{what}{f' to {replica}' if replica else ', and reached no replica' * bool(replicas)}"
    waits = [f"{words.seconds(float(row[part]))} for {name}" for part, name in WAITS.items() if row[part] > NOTED_S]
    stalled_s = _stalled_before_admission(row)
    waits += [f"{words.seconds(stalled_s)} because a fault held it up"] * (stalled_s > NOTED_S)
    admitted = not np.isnan(row["admitted_s"])
    if admitted:
        waited = f" after waiting {words.listing(waits)}" if waits else " at once"
        yield row["admitted_s"], f"{whose}admitted to the batch{waited}"
    elif waits:
        yield row["finished_s"], f"{whose}never admitted, after waiting {words.listing(waits)}"
    if not np.isnan(row["first_token_s"]):
        later = f", {words.seconds(row['first_token_s'] - row['admitted_s'])} after admission" if admitted else ""
        yield row["first_token_s"], f"{whose}first token{later}"
    yield row["finished_s"], f"{whose}{_end(row)}"


def _stalled_before_admission(row: np.void) -> float:
    """Return how much of an attempt's wait for admission is a fault's doing, in seconds: what no queue explains."""
    until_s = row["finished_s"] if np.isnan(row["admitted_s"]) else row["admitted_s"]
    unexplained_s = until_s - row["sent_s"] - sum(float(row[part]) for part in WAITS)
    return float(np.clip(unexplained_s, 0.0, row["fault_stall_s"]))


def _unsent(row: np.void) -> str:
    """Return why an attempt was not sent."""
    if row["outcome"] == Outcome.REJECTED:
        return "held back by the client itself (throttled)"
    return f"not sent: {ENDS[Outcome(row['outcome'])]}"


def _end(row: np.void) -> str:
    """Return how an attempt ended, with what had cost it time until then."""
    outcome = Outcome(row["outcome"])
    lost = "the other copy won" if outcome == Outcome.CANCELLED and not row["last"] else ENDS[outcome]
    status = f" ({row['status']})" if row["status"] not in (0, 200) else ""
    tokens = (
        f", {row['output_tokens']:,} tokens" if row["output_tokens"] else ", without a token" * (outcome != Outcome.OK)
    )
    costs = []
    if row["preemptions"]:
        often = "once" if row["preemptions"] == 1 else f"{row['preemptions']} times"
        costs.append(f"preempted {often}, which cost {words.seconds(float(row['preempted_s']))}")
    stalled_s = float(row["fault_stall_s"]) - _stalled_before_admission(row)
    for cost, cost_s in (("the batch slowed it by", row["decode_slowed_s"]), ("a fault stalled it for", stalled_s)):
        if cost_s > max(NOTED_S, 0.05 * (row["finished_s"] - row["sent_s"])):
            costs.append(f"{cost} {words.seconds(float(cost_s))}")
    return "; ".join([f"{lost}{status}{tokens}", *costs])
