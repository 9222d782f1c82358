"""What the engine counts about itself for its operators: the histograms behind a /metrics page, kept without any row.

Counted when it happens, as vLLM does (vllm/v1/metrics/stats.py, 0.32): the first token and each later one when they are
made, everything else about a request when it is finished. Times are the engine's own, from arrival at the replica.
A gateway counts attempts when they end, from when the client sent them until it had its answer; and how long those
that saw a first token had waited for it.
"""

import math

import numpy as np

from sim.buckets import ITL_BOUNDS, REQUEST_BOUNDS, TTFT_BOUNDS
from sim.engine.jit import inlined, kernel
from sim.engine.steptime import hash3, steps_ended
from sim.records import Outcome

_OK = int(Outcome.OK)
STATUSES = 600
"""HTTP status codes are below this."""

METER = np.dtype(
    [
        ("ttft", "i8", (len(TTFT_BOUNDS) + 1,)),
        ("itl", "i8", (len(ITL_BOUNDS) + 1,)),
        ("e2e", "i8", (len(REQUEST_BOUNDS) + 1,)),
        ("queue", "i8", (len(REQUEST_BOUNDS) + 1,)),
        ("ttft_s", "f8"),
        ("itl_s", "f8"),
        ("e2e_s", "f8"),
        ("queue_s", "f8"),
        ("stop", "i8"),  # answers that ended by themselves
        ("length", "i8"),  # ... because the context was full
        ("prompt_done", "i8"),  # prompt tokens of requests whose first token has come
        ("held_s", "f8"),  # how much later than planned the step in flight ends, for it hung
        ("preemptions", "i8"),  # what a replica had counted when its process began, to be subtracted
        ("output_tokens", "i8"),
        ("prompt_seen", "i8"),
        ("prompt_cached", "i8"),
    ],
    align=True,
)
"""What the process on one replica has counted since it began: observations by bucket (not yet cumulative), and sums."""

GATE = np.dtype(
    [
        ("codes", "i8", (STATUSES,)),  # attempts by HTTP status
        ("ttft", "i8", (len(TTFT_BOUNDS) + 1,)),
        ("ttft_s", "f8"),
        ("duration", "i8", (len(REQUEST_BOUNDS) + 1,)),
        ("duration_s", "f8"),
        ("evaluated", "i8"),  # answers whose correctness was looked at
        ("evaluated_right", "i8"),
        ("tasks", "i8", (len(Outcome),)),  # requests, by what became of them in the end
    ],
    align=True,
)
"""What the gateway in front of one pool has counted."""

_TTFT = np.array(TTFT_BOUNDS)
_ITL = np.array(ITL_BOUNDS)
_REQUEST = np.array(REQUEST_BOUNDS)


@kernel
def place(bounds, value):
    """Return the bucket of *value*: the first whose upper bound is not below it."""
    k = 0
    while k < len(bounds) and value > bounds[k]:
        k += 1
    return k


@kernel
def meter_steps(rep, meter, done, steps):
    """Count the gaps between tokens that *steps* steps make, the first of them the one after *done* from the anchor.

    A gap is as long as its step, one for each decoding sequence; steps of a stretch that share a bucket are counted
    at once, for along a straight line they are neighbours.
    """
    meter.itl_s += rep.decoding * (
        steps * rep.first_s + rep.growth_s * (done * steps + 0.5 * steps * (steps - 1)) + meter.held_s
    )
    k = 0
    if meter.held_s > 0.0:
        meter.itl[place(_ITL, rep.first_s + done * rep.growth_s + meter.held_s)] += rep.decoding
        k = 1
    while k < steps:
        b = place(_ITL, rep.first_s + (done + k) * rep.growth_s)
        low = k + 1
        high = steps
        while low < high:
            middle = high if low == k + 1 else (low + high + 1) // 2  # mostly all of them are alike
            if place(_ITL, rep.first_s + (done + middle - 1) * rep.growth_s) == b:
                low = middle
            else:
                high = middle - 1
        meter.itl[b] += rep.decoding * (low - k)
        k = low


@kernel
def meter_token(meter, seq, now_s):
    """Count the token that ends a prompt's computation: the first of its answer, or the first after a preemption."""
    if seq.token_s < 0.0:
        ttft_s = now_s - seq.sent_s
        meter.ttft[place(_TTFT, ttft_s)] += 1
        meter.ttft_s += ttft_s
        meter.prompt_done += seq.prompt
    else:
        gap_s = now_s - seq.lost_s
        meter.itl[place(_ITL, gap_s)] += 1
        meter.itl_s += gap_s


@kernel
def meter_answer(meter, pool, seq, now_s):
    """Count an answer that the engine has made to its end, whether or not anybody waits for it."""
    e2e_s = now_s - seq.sent_s
    queue_s = seq.admitted_s - seq.sent_s
    meter.e2e[place(_REQUEST, e2e_s)] += 1
    meter.e2e_s += e2e_s
    meter.queue[place(_REQUEST, queue_s)] += 1
    meter.queue_s += queue_s
    if seq.prompt + seq.output < pool.max_len:
        meter.stop += 1
    else:
        meter.length += 1


@inlined
def meter_attempt(w, gate, row):
    """Count an attempt at the gateway by its row; of requests answered, a share is looked at by an evaluator."""
    duration_s = row.finished_s - row.sent_s
    gate.codes[row.status] += 1
    if not math.isnan(row.first_token_s):
        gate.ttft[place(_TTFT, row.first_token_s - row.sent_s)] += 1
        gate.ttft_s += row.first_token_s - row.sent_s
    gate.duration[place(_REQUEST, duration_s)] += 1
    gate.duration_s += duration_s
    if row.last:
        gate.tasks[row.outcome] += 1
        if row.outcome == _OK and hash3(w.seed, row.request, 8) < w.evaluate_below:
            gate.evaluated += 1
            gate.evaluated_right += 1 - row.wrong


@kernel
def add_pending(reps, meters, now_s):
    """Bring a copy of the *meters* up to *now_s*: steps that have ended in the midst of a stretch, and what grew."""
    for r in range(len(reps)):
        rep = reps[r]
        meter = meters[r]
        steps = steps_ended(rep, now_s) - rep.step
        if steps and rep.decoding:
            meter_steps(rep, meter, rep.step - rep.anchor_step, steps)
        meter.preemptions = rep.preemptions - meter.preemptions
        meter.output_tokens = rep.output_tokens + steps * rep.decoding - meter.output_tokens
        meter.prompt_seen = rep.prompt_seen - meter.prompt_seen
        meter.prompt_cached = rep.prompt_cached - meter.prompt_cached


def begin(reps: np.recarray, meters: np.recarray, r: int) -> None:
    """Let the process on replica *r* begin anew: its counters are 0."""
    meters[r] = np.zeros(1, METER)[0]
    for name in ("preemptions", "output_tokens", "prompt_seen", "prompt_cached"):
        meters[r][name] = reps[r][name]
