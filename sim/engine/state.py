"""What the fleet remembers: one record array for each kind of thing, and nothing hidden.

The kernels in this room are plain functions over these arrays. Times are seconds since the start of
the run; ``-1`` is "none" for an index and "not yet" for a time. Counters only grow.
"""

from functools import cache

import numpy as np

LEVELS = 4  # priorities; a few, each a FIFO of its own
RING = 4096  # finish buckets a replica keeps; longer answers wait in their bucket for another lap
NONE = -1

# State of an attempt on a replica.
FREE, WAITING, PREFILL, DECODE = 0, 1, 2, 3
# Why the head of a replica's queue is not admitted.
BLOCKED_NOT, BLOCKED_SEAT, BLOCKED_KV = 0, 1, 2
# Why `play` came back before its time.
DONE, INBOX_EMPTY, ROWS_FULL, SLOTS_FULL, SCRIPT_END, ENDED_FULL = 0, 1, 2, 3, 4, 5
SCRIPT_FULL = 6  # `sim.engine.sessions.go_on` has no slots for more turns
# Routers, in the order of `sim.engine.routing.ROUTERS`.
ROUND_ROBIN, RANDOM, LEAST_OUTSTANDING, POWER_OF_D, PREFIX_AFFINITY, SESSION_STICKY = 0, 1, 2, 3, 4, 5
# What a client event is about.
FOLLOW_UP, ARRIVE, RETRY, PATIENCE, TIMER = 0, 1, 2, 3, 4
# Timers that are alike for all requests of a cohort, each a list in the order in which they run out.
TIMERS = 4
DIVERSIONS = 4  # of a pool, at the same time
TOTAL, FIRST_TOKEN, HEDGE, DEADLINE = 0, 1, 2, 3
# Jitter of back-off, in the order of `sim.engine.config.JITTERS`.
NO_JITTER, FULL_JITTER, EQUAL_JITTER = 0, 1, 2

WORLD = np.dtype(
    [
        ("now_s", "f8"),
        ("seed", "u8"),
        ("leap", "u1"),  # 0: play every step by itself (same rows, slower)
        ("more", "u1"),  # 1: the inbox can be refilled
        ("row_mode", "u1"),  # 0: no rows, 1: a sample, 2: all
        ("row_below", "u8"),  # a request is sampled when its hash is below this
        ("metered", "u1"),  # 1: count for operators, see `sim.engine.meters`
        ("evaluate_below", "u8"),  # an answer is evaluated when its hash is below this
        ("warmup_s", "f8"),
        ("arrivals_end_s", "f8"),  # requests after this are not sent
        ("window_s", "f8"),  # width of a time window of the histograms
        ("slow_ttft_s", "f8"),  # a request is slow above this: what the SLO says
        ("slow_e2e_s", "f8"),
        ("cohorts", "i8"),
        ("margin", "i8"),  # rows that one event may add at most
        ("ring_at", "i8"),  # columns of the board: blocks needed by residue, finish buckets, which are in use
        ("bits_at", "i8"),
        ("inbox_next", "i8"),
        ("inbox_end", "i8"),
        ("events_n", "i8"),
        ("event_id", "i8"),
        ("rows_n", "i8"),
        ("counted", "i8"),  # of those, already in the histograms
        ("asks_n", "i8"),
        ("judged", "u1"),  # 1: what became of each request is handed out
        ("ended_n", "i8"),
        ("due", "i4"),  # request whose next attempt is at the gateway now; -1: none
        ("due_number", "i4"),
        ("due_throttled", "u1"),  # its client refuses it itself
        ("due_rules", "u1"),  # rules answer it at the gateway, no model
        ("free_seq", "i4"),
        ("free_req", "i4"),
        ("free_script", "i4"),
        ("nodes", "i8"),  # of the tree of shared prefixes; each replica has a cache entry for each
        ("entries_from", "i8"),  # the first cache entry that is not a node's
        ("free_entry", "i4"),
        ("entries_free", "i8"),
        ("pace_at", "i8"),  # where the host to replay begins in the shared table
        ("pace_next", "i8"),
        ("pace_n", "i8"),
        ("live", "i8"),  # requests in flight
        ("live_max", "i8"),
        ("attempts_live", "i8"),
        ("attempts_started", "i8"),
        ("attempts_ended", "i8"),
        ("retries", "i8"),
        ("hedges", "i8"),
        ("recomputed", "i8"),  # tokens computed again after a preemption
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
        ("choices", "i4"),  # replicas that a power-of-d router compares
        ("refresh_s", "f8"),  # age at which routers look at the replicas again; 0: they always see the present
        ("looked_s", "f8"),
        ("count_own", "u1"),  # between two looks a router adds what it has sent itself
        ("load_bound", "f8"),  # prefix affinity: no replica gets more than this times the mean
        ("outstanding", "i4"),
        ("answered", "i8"),  # attempts that ended well
        ("errors", "i8"),  # attempts that failed, were refused or timed out
        ("max_queue", "i4", (LEVELS,)),  # waiting requests from which on a priority is refused; 0: no bound
        ("max_outstanding", "i4"),
        ("max_wait_s", "f8"),
        ("deadline_aware", "u1"),
        ("limit_per_s", "f8"),  # token bucket of the pool
        ("limit_burst", "f8"),
        ("limit_left", "f8"),
        ("limit_at_s", "f8"),
        ("shed_from", "i4"),  # priorities from this one on are refused
        ("caching", "u1"),  # prefix cache
        ("delay_s", "f8"),  # added by a fault to the way in
        ("fallback", "u1"),  # who answers here stands in for somebody better
        ("divert_below", "u8", (DIVERSIONS,)),  # a request is sent elsewhere when its hash is below this
        ("divert_to", "i4", (DIVERSIONS,)),  # pool; -1: rules answer
        ("divert_sticky", "u1", (DIVERSIONS,)),  # all of a session, or none of it
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
        ("hung", "u1"),  # nothing moves (fault)
        ("seen_up", "u1"),  # what routers saw when they last looked
        ("seen", "i4"),
        ("fresh", "u1"),  # the batch changed: the next step starts a new anchor
        ("blocked", "u1"),
        ("preempted", "u1"),  # the step in flight preempted somebody
        ("outstanding", "i4"),  # attempts sent here and not yet ended
        ("running", "i4"),
        ("waiting", "i4"),
        ("decoding", "i4"),
        ("partial", "i4"),  # the one sequence whose prompt is partly computed
        ("ready", "i4"),  # list of sequences whose prompt is complete when this step ends, as scheduled
        ("ready_last", "i4"),
        ("aborts", "i4"),  # list of sequences to drop when this step ends
        ("run_head", "i4", (LEVELS,)),
        ("run_tail", "i4", (LEVELS,)),
        ("wait_head", "i4", (LEVELS,)),
        ("wait_tail", "i4", (LEVELS,)),
        ("free_blocks", "i8"),  # below 0 when a fault has taken more than was free
        ("taken_blocks", "i8"),  # by a fault
        ("cached_free", "i8"),  # of the free blocks, those that hold cached prefixes (evicted as free blocks are used)
        ("lru_head", "i4"),  # entries of the prefix cache that nobody uses, the next to be evicted first
        ("lru_tail", "i4"),
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
        ("slow_kept", "f8"),  # the factor to go on with after a hang
        ("hung_s", "f8"),  # since when nothing moves
        ("refuse", "f8"),  # share of attempts that fail at once (fault)
        ("refuse_status", "i4"),
        ("lose", "f8"),  # share of attempts that never arrive (fault)
        ("cut", "f8"),  # share of streams that break (fault)
        ("place_s", "f8"),  # how long a place in the queue took lately
        ("since_s", "f8"),  # the integrals below are exact up to here
        ("seat_s", "f8"),  # time that the queue was blocked by seats
        ("kv_s", "f8"),  # ... by KV blocks
        ("stall_s", "f8"),  # time lost to faults
        ("preemptions", "i8"),
        ("prompt_seen", "i8"),  # prompt tokens of first admissions, with a prefix cache
        ("prompt_cached", "i8"),  # of those, found in it
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
        ("prefix", "i4"),  # node of the tree of shared prefixes
        ("prefix_blocks", "i4"),  # whole blocks that it fills, from the root on
        ("ahead", "i4"),  # how many were waiting when it came
        ("shared", "i4"),  # blocks of its tokens that belong to nodes of that tree, not to the sequence alone
        ("content", "i8"),
        ("prompt", "i4"),
        ("output", "i4"),
        ("stop", "i4"),  # output tokens after which a fault breaks the stream; `output`: none does
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
        ("number", "i2"),  # of the attempt in flight, counted from 0; -1: it waits to try again
        ("twin_number", "i2"),  # of its second copy; -1: none
        ("hedge_number", "i2"),  # of the last second copy
        ("attempts", "i2"),  # begun so far
        ("tries", "i2"),  # retries begun so far
        ("seq", "i4"),  # the attempt in flight; -1: it has not reached the engine
        ("twin", "i4"),  # its second copy
        ("sent_s", "f8"),
        ("twin_sent_s", "f8"),
        ("backoff_s", "f8"),  # waited between attempts so far
        ("request", "i8"),
        ("session", "i8"),
        ("turn", "i4"),
        ("follow_up", "i4"),  # slot of the script row; -2: ask for more
        ("cohort", "i2"),
        ("pool", "i2"),
        ("level", "i1"),
        ("wrong", "u1"),
        ("prefix", "i4"),
        ("prefix_tokens", "i4"),
        ("content", "i8"),
        ("prompt", "i4"),
        ("output", "i4"),
        ("scheduled_s", "f8"),
        ("timed", "u1", (TIMERS,)),  # which timers run
        ("timer_next", "i4", (TIMERS,)),
        ("timer_prev", "i4", (TIMERS,)),
    ],
    align=True,
)
"""What one user asked, while it is in flight."""

CLIENT = np.dtype(
    [
        ("timeout_s", "f8"),  # of one attempt
        ("first_token_s", "f8"),  # of one attempt, to its first token
        ("deadline_s", "f8"),  # of the request
        ("patience_s", "f8"),
        ("timed", "u1"),  # these clients have timers at all
        ("patience_exponential", "u1"),
        ("zombie", "u1"),
        ("hedge_cancel", "u1"),
        ("retry_on", "u1"),  # one bit an outcome
        ("jitter", "i1"),
        ("retries", "i2"),
        ("backoff_s", "f8"),
        ("backoff_factor", "f8"),
        ("backoff_max_s", "f8"),
        ("budget", "f8"),  # retries earned by a request
        ("budget_burst", "f8"),
        ("budget_left", "f8"),
        ("throttle", "f8"),  # K of adaptive throttling; 0: off
        ("throttle_at_s", "f8"),
        ("throttle_asked", "f8"),
        ("throttle_taken", "f8"),
        ("hedge_s", "f8"),
        ("hedge_share", "f8"),
        ("hedge_left", "f8"),
        ("limit_per_s", "f8"),  # token bucket of the cohort
        ("limit_burst", "f8"),
        ("limit_left", "f8"),
        ("limit_at_s", "f8"),
        ("prompt_factor", "f8"),  # a fault makes prompts and answers longer
        ("output_factor", "f8"),
        ("timer_head", "i4", (TIMERS,)),
        ("timer_tail", "i4", (TIMERS,)),
        ("armed", "u1", (TIMERS,)),
        ("outcomes", "i8", (6,)),
    ],
    align=True,
)
"""The clients of one cohort: what they do when the service does not answer, and what came of it."""

ENTRY = np.dtype(
    [
        ("content", "i8"),  # whose text it is; of a node: by which node routers know it
        ("replica", "i4"),
        ("parent", "i4"),  # entry of the node before
        ("begin", "i4"),  # blocks before this node's
        ("full", "i4"),  # blocks that the node has in all (a record has a `size` of its own)
        ("blocks", "i4"),  # of those, the first so many are in memory
        ("refs", "i4"),  # sequences that use them
        ("prev", "i4"),  # towards the next to be evicted
        ("next", "i4"),
        ("chain", "i4"),  # next entry in the same hash bucket, or next free one
        ("bucket", "i4"),  # first entry of the hash bucket with this index
    ],
    align=True,
)
"""Blocks of one text in the prefix cache of one replica, always the first ones of it."""

EVENT = np.dtype([("at_s", "f8"), ("kind", "i4"), ("what", "i4"), ("id", "i8")], align=True)
"""Something a client will do, to *what* slot; ordered by (time, kind, id of the request or session)."""

ASK = np.dtype([("session", "i8"), ("at_s", "f8")])
"""A session that has used up its script."""

BIN_LOW_S = 1e-5
BIN_RATIO = 1.01
BINS = 2400  # 10 us to 2.3e5 s in steps of 1%
METRICS = ("ttft", "e2e", "tpot", "queue", "itl")
TTFT, E2E, TPOT, QUEUE, ITL = 0, 1, 2, 3, 4
MINUTE_COLUMNS = ("requests", "ok", "wrong", "errors", "attempts", "slow_ttft", "slow_e2e")
"""Of each minute; slow: a latency that counts and is above the bound of the SLO."""


def records(dtype: np.dtype, n: int) -> np.recarray:
    """Return *n* zeroed records whose fields are attributes, with or without the JIT."""
    return attributed(np.zeros(n, dtype))


def attributed(array: np.ndarray) -> np.recarray:
    """Return *array* with its fields as attributes."""
    return array.view(np.ndarray).view(_record(array.dtype)).view(np.recarray)


@cache
def _record(dtype: np.dtype) -> np.dtype:
    """Return *dtype* with attributes, always the same object: any other, Numba compares field by field at each call."""
    return np.dtype((np.record, dtype))


def grown(array: np.recarray, n: int) -> np.recarray:
    """Return a copy of *array* with room for *n* records."""
    bigger = np.zeros((n,) + array.shape[1:], array.dtype)
    bigger[: len(array)] = array
    return bigger.view(np.recarray)
