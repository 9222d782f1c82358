"""What the fleet remembers: one record array for each kind of thing, and nothing hidden.

The kernels in this room are plain functions over these arrays. Times are seconds since the start of
the run; ``-1`` is "none" for an index and "not yet" for a time. Counters only grow.
"""

import numpy as np

LEVELS = 4  # priorities; a few, each a FIFO of its own
RING = 4096  # finish buckets a replica keeps; longer answers wait in their bucket for another lap
NONE = -1

# State of an attempt on a replica.
FREE, WAITING, PREFILL, DECODE = 0, 1, 2, 3
# Why the head of a replica's queue is not admitted.
BLOCKED_NOT, BLOCKED_SEAT, BLOCKED_KV = 0, 1, 2
# Why `play` came back before its time.
DONE, INBOX_EMPTY, ROWS_FULL, SLOTS_FULL, SCRIPT_END = 0, 1, 2, 3, 4
# Routers, in the order of `sim.engine.routing.ROUTERS`.
ROUND_ROBIN, RANDOM, LEAST_OUTSTANDING = 0, 1, 2
# What a client event is about.
FOLLOW_UP, ARRIVE, TIMEOUT = 0, 1, 2

WORLD = np.dtype(
    [
        ("now_s", "f8"),
        ("seed", "u8"),
        ("leap", "u1"),  # 0: play every step by itself (same rows, slower)
        ("more", "u1"),  # 1: the inbox can be refilled
        ("row_mode", "u1"),  # 0: no rows, 1: a sample, 2: all
        ("row_below", "u8"),  # a request is sampled when its hash is below this
        ("warmup_s", "f8"),
        ("arrivals_end_s", "f8"),  # requests after this are not sent
        ("window_s", "f8"),  # width of a time window of the histograms
        ("cohorts", "i8"),
        ("margin", "i8"),  # rows that one event may add at most
        ("ring_at", "i8"),  # columns of the board: blocks needed by residue, finish buckets, which are in use
        ("bits_at", "i8"),
        ("timeout_s", "f8"),  # clients give up after this; infinite: never
        ("inbox_next", "i8"),
        ("inbox_end", "i8"),
        ("events_n", "i8"),
        ("event_id", "i8"),
        ("rows_n", "i8"),
        ("asks_n", "i8"),
        ("free_seq", "i4"),
        ("free_req", "i4"),
        ("free_script", "i4"),
        ("pace_next", "i8"),
        ("pace_n", "i8"),
        ("live", "i8"),  # requests in flight
        ("live_max", "i8"),
        ("attempts_live", "i8"),
        ("attempts_started", "i8"),
        ("attempts_ended", "i8"),
        ("started", "i8"),
        ("outcomes", "i8", (6,)),  # of all requests
        ("steps", "i8"),  # engine steps played, fleet-wide
        ("stretches", "i8"),  # times a replica was looked at to play them
    ],
    align=True,
)

POOL = np.dtype(
    [
        ("first", "i4"),
        ("count", "i4"),
        ("next_turn", "i4"),  # where round robin, or a tie, continues
        ("router", "i1"),
        ("reserve_full", "u1"),
        ("chunked", "u1"),
        ("block_size", "i4"),
        ("blocks", "i4"),
        ("watermark", "i4"),
        ("max_seqs", "i4"),
        ("max_tokens", "i4"),  # max_num_batched_tokens
        ("max_len", "i4"),  # longest prompt and answer together that the pool can hold
        ("contexts", "i4"),  # columns of the decode table
        ("edges_at", "i8"),  # where this pool's tables begin in the shared table
        ("decode_at", "i8"),
        ("tokens_at", "i8"),
        ("alone_at", "i8"),
        ("base_s", "f8"),
        ("prefill_ctx_s", "f8"),
        ("noise", "f8"),
        ("slow_noise", "f8"),
        ("slow_period_s", "f8"),
        ("ingress_s", "f8"),
        ("egress_s", "f8"),
    ],
    align=True,
)

REPLICA = np.dtype(
    [
        ("pool", "i4"),
        ("up", "u1"),  # takes new requests
        ("fresh", "u1"),  # the batch changed: the next step starts a new anchor
        ("blocked", "u1"),
        ("preempted", "u1"),  # the step in flight preempted somebody
        ("outstanding", "i4"),  # attempts sent here and not yet ended
        ("running", "i4"),
        ("waiting", "i4"),
        ("decoding", "i4"),
        ("partial", "i4"),  # the one sequence whose prompt is partly computed
        ("ready", "i4"),  # list of sequences whose prompt is complete when this step ends
        ("aborts", "i4"),  # list of sequences to drop when this step ends
        ("run_head", "i4", (LEVELS,)),
        ("run_tail", "i4", (LEVELS,)),
        ("wait_head", "i4", (LEVELS,)),
        ("wait_tail", "i4", (LEVELS,)),
        ("free_blocks", "i4"),
        ("prefill_now", "i4"),  # prompt tokens computed in the step in flight
        ("context", "i8"),  # tokens in the KV cache of all decoding sequences
        ("step", "i8"),  # steps ended
        ("steps_planned", "i8"),  # steps in flight: 0 idle, more than 1 when leaping
        ("anchor_step", "i8"),
        ("cell_end", "i8"),  # step at which the step time leaves its straight line
        ("anchor_s", "f8"),
        ("first_s", "f8"),  # length of the first step after the anchor
        ("growth_s", "f8"),  # how much longer each next step is
        ("wake_s", "f8"),  # when the planned steps end; infinite while idle
        ("slow", "f8"),  # factor on step times (fault)
        ("slow_next", "f8"),  # the same, from the next step on
        ("since_s", "f8"),  # the integrals below are exact up to here
        ("seat_s", "f8"),  # time that the queue was blocked by seats
        ("kv_s", "f8"),  # ... by KV blocks
        ("stall_s", "f8"),  # time lost to faults
        ("preemptions", "i8"),
        ("prompt_tokens", "i8"),  # computed, recomputation included
        ("output_tokens", "i8"),
        ("served", "i8"),
    ],
    align=True,
)

SEQUENCE = np.dtype(
    [
        ("next", "i4"),
        ("prev", "i4"),
        ("link", "i4"),  # next in the finish bucket, or in the ready list
        ("back", "i4"),
        ("abort", "i4"),  # next in the list of sequences to drop
        ("replica", "i4"),
        ("request", "i4"),  # slot of the request
        ("state", "i1"),
        ("level", "i1"),
        ("gone", "u1"),  # the client is no longer there
        ("attempt", "i2"),
        ("preemptions", "i2"),
        ("prompt", "i4"),
        ("output", "i4"),
        ("done", "i4"),  # output tokens made before this stay in the batch
        ("target", "i4"),  # tokens to compute before the next new token
        ("computed", "i4"),  # of those, computed
        ("cached", "i4"),
        ("begin_step", "i8"),  # the step that made this stay's first new token
        ("finish_step", "i8"),
        ("sent_s", "f8"),
        ("admitted_s", "f8"),
        ("token_s", "f8"),  # first token
        ("mark_s", "f8"),  # start of the present state
        ("lost_s", "f8"),  # since when it waits to get back what preemption took
        ("seat0_s", "f8"),  # the replica's integrals at mark_s
        ("kv0_s", "f8"),
        ("stall0_s", "f8"),
        ("seat_s", "f8"),  # the latency parts so far
        ("kv_s", "f8"),
        ("step_s", "f8"),
        ("prefill_s", "f8"),
        ("decode_s", "f8"),
        ("alone_s", "f8"),
        ("preempted_s", "f8"),
        ("stall_s", "f8"),
    ],
    align=True,
)

ASKED = np.dtype(
    [
        ("next_free", "i4"),
        ("live", "u1"),
        ("seq", "i4"),  # the attempt in flight; -1: none has reached the engine
        ("sent_s", "f8"),
        ("request", "i8"),
        ("session", "i8"),
        ("turn", "i4"),
        ("follow_up", "i4"),  # slot of the script row; -2: ask for more
        ("cohort", "i2"),
        ("pool", "i2"),
        ("level", "i1"),
        ("wrong", "u1"),
        ("prompt", "i4"),
        ("output", "i4"),
        ("scheduled_s", "f8"),
    ],
    align=True,
)
"""What one user asked, while it is in flight."""

EVENT = np.dtype([("at_s", "f8"), ("kind", "i4"), ("what", "i4"), ("id", "i8")], align=True)
"""Something a client will do, to *what* slot; ordered by (time, kind, id of the request or session)."""

ASK = np.dtype([("session", "i8"), ("at_s", "f8")])
"""A session that has used up its script."""

BIN_LOW_S = 1e-5
BIN_RATIO = 1.01
BINS = 2400  # 10 us to 2.3e5 s in steps of 1%
METRICS = ("ttft", "e2e", "tpot", "queue", "itl")
TTFT, E2E, TPOT, QUEUE, ITL = 0, 1, 2, 3, 4
MINUTE_COLUMNS = ("requests", "ok", "wrong", "errors")


def records(dtype: np.dtype, n: int) -> np.recarray:
    """Return *n* zeroed records whose fields are attributes, with or without the JIT."""
    return np.zeros(n, dtype).view(np.recarray)


def grown(array: np.recarray, n: int) -> np.recarray:
    """Return a copy of *array* with room for *n* records."""
    bigger = np.zeros((n,) + array.shape[1:], array.dtype)
    bigger[: len(array)] = array
    return bigger.view(np.recarray)
