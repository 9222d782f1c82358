"""What the control plane does to replicas, and how it looks at them."""

import math

import numpy as np

from sim.engine.account import NOT_SENT, count_steps
from sim.engine.attempts import leave_replica, wake
from sim.engine.batch import blocks_in_use, cut_stretch, pass_steps, settle
from sim.engine.clients import end_copy, give_up
from sim.engine.jit import kernel
from sim.engine.kv_cache import blocks_for, growth, tokens_held
from sim.engine.prefix import wipe
from sim.engine.queues import first_waiting, last_running
from sim.engine.state import BLOCKED_NOT, LEVELS, NONE, RING
from sim.engine.steptime import steps_ended, stretch_end
from sim.records import Outcome

_FAILED = int(Outcome.FAILED)
_UNFINISHED = int(Outcome.UNFINISHED)

GAUGES = np.dtype(
    [
        ("up", "u1"),
        ("hung", "u1"),
        ("running", "i4"),
        ("waiting", "i4"),
        ("outstanding", "i4"),
        ("oldest_wait_s", "f8"),  # how long the first in its queue has waited
        ("kv_blocks", "i4"),
        ("kv_used", "f8"),
        ("preemptions", "i8"),
        ("prompt_tokens", "i8"),
        ("output_tokens", "i8"),
        ("steps", "i8"),
        ("served", "i8"),
    ],
    align=True,
)
"""A replica as a metrics scrape sees it."""


@kernel
def look(pools, reps, seqs, board, gauges, now_s):
    """Fill *gauges*, one record a replica, with what is true at *now_s*."""
    for r in range(len(gauges)):
        rep = reps[r]
        pool = pools[rep.pool]
        gauge = gauges[r]
        head = first_waiting(rep)
        gauge.up = rep.up
        gauge.hung = rep.hung
        gauge.running = rep.running
        gauge.waiting = rep.waiting
        gauge.outstanding = rep.outstanding
        gauge.oldest_wait_s = 0.0 if head == NONE else now_s - seqs[head].mark_s
        gauge.kv_blocks = blocks_in_use(pool, rep, r, board, now_s)
        gauge.kv_used = min(
            1.0, gauge.kv_blocks / max(1, pool.blocks - rep.taken_blocks)
        )  # blocks are lost while in use
        gauge.preemptions = rep.preemptions
        gauge.prompt_tokens = rep.prompt_tokens
        gauge.steps = steps_ended(rep, now_s)
        gauge.output_tokens = rep.output_tokens + (gauge.steps - rep.step) * rep.decoding
        gauge.served = rep.served


@kernel
def set_slow(reps, tree, r, factor, now_s):
    """Make the steps of replica *r* take *factor* times as long, from the next one on."""
    rep = reps[r]
    rep.slow_next = factor
    cut_stretch(rep, now_s)
    wake(reps, tree, r)


@kernel
def catch_up(w, pools, reps, meters, board, latency, r, now_s):
    """Count the steps of a stretch that have ended by *now_s* as played; the one in flight stays."""
    rep = reps[r]
    steps = steps_ended(rep, now_s) - rep.step
    if steps:
        rep.free_blocks -= growth(board, r, pools[rep.pool].block_size, rep.decoding, rep.step + 1, steps)
        pass_steps(w, rep, steps)
        count_steps(w, rep, meters[r], latency, steps, now_s)


@kernel
def hang(reps, tree, r, now_s):
    """Let nothing move on replica *r*, which has caught up: the step in flight does not end."""
    rep = reps[r]
    cut_stretch(rep, now_s)
    settle(rep, now_s)
    rep.slow_kept = rep.slow
    rep.slow = math.inf
    rep.hung = 1
    rep.hung_s = now_s
    rep.wake_s = math.inf
    wake(reps, tree, r)


@kernel
def thaw(rep, now_s):
    """End the hang of a replica in its books: the time since counts as stalled."""
    settle(rep, now_s)
    rep.slow = rep.slow_kept
    rep.hung = 0


@kernel
def resume(reps, tree, r, now_s):
    """Let replica *r* go on with the step in flight where it hung."""
    rep = reps[r]
    thaw(rep, now_s)
    if rep.steps_planned:
        rep.anchor_s += now_s - rep.hung_s
        rep.wake_s = max(now_s, stretch_end(rep, rep.step - rep.anchor_step + rep.steps_planned))
        wake(reps, tree, r)


@kernel
def take_blocks(reps, tree, r, blocks, now_s):
    """Let *blocks* KV blocks of replica *r* be gone, from its next step on: who has none left is preempted."""
    rep = reps[r]
    cut_stretch(rep, now_s)
    rep.free_blocks -= blocks - rep.taken_blocks
    rep.taken_blocks = blocks
    wake(reps, tree, r)


@kernel
def lose_all(w, pools, reps, seqs, asked, clients, cache, events, asks, board, tab, tree, rows, r, now_s):
    """Fail every attempt on replica *r*, as far as rows have room; True when none is left."""
    rep = reps[r]
    if rep.hung:
        thaw(rep, now_s)
    while w.rows_n + w.margin <= len(rows):
        s = last_running(rep)
        if s == NONE:
            s = first_waiting(rep)
        if s == NONE:
            break
        if not seqs[s].gone:
            end_copy(
                w, pools, reps, seqs, asked, clients, events, asks, tab, rows,
                seqs[s].request, seqs[s].attempt, _FAILED, 502, 0, 0.0, now_s,
            )  # fmt: skip
        leave_replica(w, pools, reps, seqs, cache, board, s)
        wipe(w, rep, cache)
    return rep.running == 0 and rep.waiting == 0


@kernel
def stop(w, pools, reps, cache, board, tree, r, now_s):
    """Turn off replica *r*, which holds no attempt any more: its memory is gone and it takes no requests."""
    rep = reps[r]
    settle(rep, now_s)
    wipe(w, rep, cache)
    rep.up = 0
    rep.blocked = BLOCKED_NOT
    rep.partial = NONE
    rep.ready = NONE
    rep.aborts = NONE
    rep.free_blocks = pools[rep.pool].blocks - rep.taken_blocks
    rep.place_s = 0.0
    rep.steps_planned = 0
    rep.fresh = 1
    rep.wake_s = math.inf
    for k in range(w.bits_at + RING // 32):
        board[r, k] = NONE if w.ring_at <= k < w.bits_at else 0
    wake(reps, tree, r)


@kernel
def close_all(w, pools, reps, seqs, asked, clients, cache, events, asks, board, tab, tree, rows, now_s):
    """End every request still in flight as unfinished, as far as rows have room; True when none is left."""
    for a in range(len(asked)):
        if not asked[a].live:
            continue
        if w.rows_n + w.margin > len(rows):
            return False
        asked[a].follow_up = NONE
        give_up(
            w, pools, reps, seqs, asked, clients, cache, events, asks, board, tab, tree, rows,
            a, _UNFINISHED, NOT_SENT, 1, now_s,
        )  # fmt: skip
    return True


@kernel
def slot_of(asked, request):
    """Return the slot of a request in flight, or `NONE`."""
    for a in range(len(asked)):
        if asked[a].live and asked[a].request == request:
            return a
    return NONE


@kernel
def count_held(pools, reps, seqs, r):
    """Return the KV blocks that sequences on replica *r* hold for themselves alone, counted one by one."""
    rep = reps[r]
    block_size = pools[rep.pool].block_size
    blocks = 0
    for level in range(LEVELS):
        s = rep.run_head[level]
        while s != NONE:
            blocks += blocks_for(tokens_held(rep, seqs[s]), block_size) - seqs[s].shared
            s = seqs[s].next
    return blocks


@kernel
def next_growth(pools, reps, board, r):
    """Return the KV blocks already taken for the step in flight on replica *r*."""
    rep = reps[r]
    if rep.steps_planned == 0:
        return 0
    return board[r, (rep.step + 1) % pools[rep.pool].block_size]
