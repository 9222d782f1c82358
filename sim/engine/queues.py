"""The lists of a replica: who runs, who waits, and who finishes at which step.

Running and waiting are doubly linked through ``next`` and ``prev``, one list for each priority. Finish
buckets are doubly linked through ``link`` and ``back`` and live on the *board*: one row of integers a
replica, first the KV blocks needed by residue of the step, then `RING` bucket heads, then one bit a
bucket that tells whether it is in use.
"""

import numpy as np

from sim.engine.jit import inlined, kernel
from sim.engine.state import LEVELS, NONE, RING

_BIT = np.zeros(37, np.int64)  # 2^k mod 37 is different for each k < 32
for _k in range(32):
    _BIT[(1 << _k) % 37] = _k


@kernel
def append_running(rep, seqs, s):
    """Put sequence *s* last in the batch (of its priority)."""
    seq = seqs[s]
    level = seq.level
    tail = rep.run_tail[level]
    seq.prev = tail
    seq.next = NONE
    if tail == NONE:
        rep.run_head[level] = s
    else:
        seqs[tail].next = s
    rep.run_tail[level] = s
    rep.running += 1


@kernel
def remove_running(rep, seqs, s):
    """Take sequence *s* out of the batch."""
    seq = seqs[s]
    level = seq.level
    if seq.prev == NONE:
        rep.run_head[level] = seq.next
    else:
        seqs[seq.prev].next = seq.next
    if seq.next == NONE:
        rep.run_tail[level] = seq.prev
    else:
        seqs[seq.next].prev = seq.prev
    rep.running -= 1


@kernel
def append_waiting(rep, seqs, s):
    """Put sequence *s* at the end of its queue."""
    seq = seqs[s]
    level = seq.level
    tail = rep.wait_tail[level]
    seq.prev = tail
    seq.next = NONE
    if tail == NONE:
        rep.wait_head[level] = s
    else:
        seqs[tail].next = s
    rep.wait_tail[level] = s
    rep.waiting += 1


@kernel
def push_waiting(rep, seqs, s):
    """Put sequence *s* at the front of its queue (a preempted one comes back first)."""
    seq = seqs[s]
    level = seq.level
    head = rep.wait_head[level]
    seq.next = head
    seq.prev = NONE
    if head == NONE:
        rep.wait_tail[level] = s
    else:
        seqs[head].prev = s
    rep.wait_head[level] = s
    rep.waiting += 1


@kernel
def remove_waiting(rep, seqs, s):
    """Take sequence *s* out of its queue."""
    seq = seqs[s]
    level = seq.level
    if seq.prev == NONE:
        rep.wait_head[level] = seq.next
    else:
        seqs[seq.prev].next = seq.next
    if seq.next == NONE:
        rep.wait_tail[level] = seq.prev
    else:
        seqs[seq.next].prev = seq.prev
    rep.waiting -= 1


@kernel
def first_waiting(rep):
    """Return the sequence to admit next, or `NONE`: the oldest of the highest priority."""
    for level in range(LEVELS):
        if rep.wait_head[level] != NONE:
            return rep.wait_head[level]
    return NONE


@kernel
def last_running(rep):
    """Return the sequence to preempt next, or `NONE`: the newest of the lowest priority."""
    for back in range(LEVELS):
        tail = rep.run_tail[LEVELS - 1 - back]
        if tail != NONE:
            return tail
    return NONE


@inlined
def put_in_bucket(w, board, r, seqs, s):
    """Remember at which step sequence *s* makes its last token."""
    bucket = seqs[s].finish_step & (RING - 1)
    at = w.ring_at + bucket
    head = board[r, at]
    seqs[s].link = head
    seqs[s].back = NONE
    if head != NONE:
        seqs[head].back = s
    board[r, at] = s
    board[r, w.bits_at + (bucket >> 5)] |= 1 << (bucket & 31)


@inlined
def take_from_bucket(w, board, r, seqs, s):
    """Forget when sequence *s* would have finished."""
    seq = seqs[s]
    bucket = seq.finish_step & (RING - 1)
    if seq.link != NONE:
        seqs[seq.link].back = seq.back
    if seq.back != NONE:
        seqs[seq.back].link = seq.link
    else:
        board[r, w.ring_at + bucket] = seq.link
        if seq.link == NONE:
            board[r, w.bits_at + (bucket >> 5)] &= ~(1 << (bucket & 31))


@inlined
def oldest_in_bucket(w, board, r, seqs, step):
    """Return which of those that may finish at *step* began to decode first, or `NONE`; ``back`` leads to the next."""
    s = board[r, w.ring_at + (step & (RING - 1))]
    while s != NONE and seqs[s].link != NONE:
        s = seqs[s].link
    return s


@inlined
def steps_to_finish(w, board, r, step):
    """Return after how many steps from *step* somebody may finish (at most `RING`)."""
    start = (step + 1) & (RING - 1)
    at = start >> 5
    word = (board[r, w.bits_at + at] & 0xFFFFFFFF) >> (start & 31)
    if word:
        return 1 + _BIT[(word & -word) % 37]
    ahead = 32 - (start & 31)
    while ahead < RING:
        at = (at + 1) & ((RING >> 5) - 1)
        word = board[r, w.bits_at + at] & 0xFFFFFFFF
        if word:
            return 1 + min(ahead + _BIT[(word & -word) % 37], RING - 1)
        ahead += 32
    return RING
