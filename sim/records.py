"""The rows everything else speaks in: what users ask, and what became of each attempt.

All times are seconds since the start of the run (t = 0). Not-yet is ``nan``.
"""

import enum

import numpy as np

SCHEMA_VERSION = 2


class Outcome(enum.IntEnum):
    """How an attempt, and a request, ended. Closed: each ends in exactly one."""

    OK = 0
    REJECTED = 1
    TIMED_OUT = 2
    FAILED = 3
    CANCELLED = 4
    UNFINISHED = 5


class Answerer(enum.IntEnum):
    """Who answered the user."""

    MODEL = 0
    FALLBACK = 1
    HUMAN = 2
    NOBODY = 3


PARTS = (
    "client_wait_s",
    "backoff_s",
    "seat_wait_s",
    "kv_wait_s",
    "step_wait_s",
    "prefill_s",
    "decode_alone_s",
    "decode_slowed_s",
    "preempted_s",
    "fault_stall_s",
)
"""The ten parts of an attempt's latency, in the order of its life; they sum to finished - scheduled.

client_wait: scheduled but not yet sent. backoff: waiting to retry. seat_wait: queued because
``max_num_seqs`` run. kv_wait: queued because KV blocks are short. step_wait: queued for the running
step to end or for token budget. prefill: until the first token. decode_alone: what decoding would take
with nobody else in the batch. decode_slowed: what the batch added. preempted: from losing the KV blocks
to the next token. fault_stall: time that a fault added.
"""

REQUEST = np.dtype(
    [
        ("request", "i8"),  # id, unique in the run; those of one crowd are in order of schedule
        ("session", "i8"),  # id of the conversation or user; -1: none
        ("turn", "i4"),  # 0-based position in the session
        ("cohort", "i2"),  # index into the scenario's cohorts
        ("level", "i1"),  # priority: 0 is served first
        ("wrong", "u1"),  # 1: the answer, if one is given, is wrong (drawn ahead)
        ("pool", "i2"),  # index into the scenario's pools
        ("scheduled_s", "f8"),  # when the user acts; for a follow-up: the think time after the turn before
        ("prompt_tokens", "i4"),
        ("output_tokens", "i4"),
        ("follow_up", "i8"),  # row (in the same array) of the session's next turn; -1: none
        ("prefix", "i8"),  # node of the tree of shared prefixes (`PREFIX`) that the prompt begins with; -1: none
        ("prefix_tokens", "i4"),  # tokens from the root of the tree to the end of that node
        ("content", "i8"),  # what follows the shared prefix: equal ids continue the same text
    ]
)
"""What a user will ask, drawn ahead. Rows that other rows name as ``follow_up`` start after those finish."""

PREFIX = np.dtype([("parent", "i4"), ("tokens", "i4")])
"""A node of the tree of shared prefixes: the node before it (-1: none), and tokens from the root to its end."""

ATTEMPT = np.dtype(
    [
        ("request", "i8"),
        ("session", "i8"),
        ("turn", "i4"),
        ("attempt", "i2"),
        ("cohort", "i2"),
        ("pool", "i2"),
        ("replica", "i4"),
        ("level", "i1"),
        ("outcome", "u1"),
        ("answerer", "u1"),
        ("wrong", "u1"),
        ("status", "i2"),  # HTTP status code the client saw
        ("preemptions", "i2"),
        ("last", "u1"),  # 1: this attempt decided the request's outcome
        ("hedge", "u1"),  # 1: a second copy, sent because the first was slow
        ("prompt_tokens", "i4"),
        ("cached_tokens", "i4"),  # prompt tokens found in the prefix cache
        ("output_tokens", "i4"),  # tokens delivered to the client
        ("scheduled_s", "f8"),
        ("sent_s", "f8"),
        ("admitted_s", "f8"),  # first scheduled by the engine
        ("first_token_s", "f8"),
        ("finished_s", "f8"),
    ]
    + [(part, "f4") for part in PARTS]
)
"""One attempt, as its client saw it."""
