"""What the control plane does to replicas, and how it looks at them."""

import math

import numpy as np

from sim.engine.account import count_steps
from sim.engine.batch import blocks_in_use, cut_stretch, pass_steps, settle
from sim.engine.clients import end_attempt, give_up, leave_replica, push_event, refuse, wake
from sim.engine.jit import kernel
from sim.engine.kv_cache import blocks_for, growth, tokens_held
from sim.engine.queues import first_waiting, last_running
from sim.engine.state import BLOCKED_NOT, FOLLOW_UP, LEVELS, NONE, RING
from sim.engine.steptime import steps_ended
from sim.records import Outcome

_FAILED = int(Outcome.FAILED)
_UNFINISHED = int(Outcome.UNFINISHED)

GAUGES = np.dtype(
    [
        ("up", "u1"),
        ("running", "i4"),
        ("waiting", "i4"),
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
def look(pools, reps, board, gauges, now_s):
    """Fill *gauges*, one record a replica, with what is true at *now_s*."""
    for r in range(len(gauges)):
        rep = reps[r]
        pool = pools[rep.pool]
        gauge = gauges[r]
        gauge.up = rep.up
        gauge.running = rep.running
        gauge.waiting = rep.waiting
        gauge.kv_blocks = blocks_in_use(pool, rep, r, board, now_s)
        gauge.kv_used = gauge.kv_blocks / pool.blocks
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
def catch_up(w, pools, reps, board, latency, r, now_s):
    """Count the steps of a stretch that have ended by *now_s* as played; the one in flight stays."""
    rep = reps[r]
    steps = steps_ended(rep, now_s) - rep.step
    if steps:
        rep.free_blocks -= growth(board, r, pools[rep.pool].block_size, rep.decoding, rep.step + 1, steps)
        pass_steps(w, rep, steps)
        count_steps(w, rep, latency, steps, now_s)


@kernel
def lose_all(
    w, pools, reps, seqs, asked, events, asks, board, tab, tree, rows, latency, windows, minutes, parts, r, now_s
):
    """Fail every attempt on replica *r*, as far as rows have room; True when none is left."""
    rep = reps[r]
    pool = pools[rep.pool]
    catch_up(w, pools, reps, board, latency, r, now_s)
    while w.rows_n + w.margin <= len(rows):
        s = last_running(rep)
        if s == NONE:
            s = first_waiting(rep)
        if s == NONE:
            break
        if not seqs[s].gone:
            end_attempt(
                w, pools, reps, seqs, asked, events, asks, tab, rows, latency, windows, minutes, parts,
                s, _FAILED, 502, now_s,
            )  # fmt: skip
        leave_replica(w, pool, rep, r, seqs, board, s)
    return rep.running == 0 and rep.waiting == 0


@kernel
def stop(w, pools, reps, board, tree, r, now_s):
    """Turn off replica *r*, which holds no attempt any more: its memory is gone and it takes no requests."""
    rep = reps[r]
    settle(rep, now_s)
    rep.up = 0
    rep.blocked = BLOCKED_NOT
    rep.partial = NONE
    rep.ready = NONE
    rep.aborts = NONE
    rep.free_blocks = pools[rep.pool].blocks
    rep.steps_planned = 0
    rep.fresh = 1
    rep.wake_s = math.inf
    for k in range(w.bits_at + RING // 32):
        board[r, k] = NONE if w.ring_at <= k < w.bits_at else 0
    wake(reps, tree, r)


@kernel
def close_all(
    w, pools, reps, seqs, asked, events, asks, board, tab, tree, rows, latency, windows, minutes, parts, now_s
):
    """End every request still in flight as unfinished, as far as rows have room; True when none is left."""
    for r in range(len(reps)):
        catch_up(w, pools, reps, board, latency, r, now_s)
    for a in range(len(asked)):
        if not asked[a].live:
            continue
        if w.rows_n + w.margin > len(rows):
            return False
        s = asked[a].seq
        asked[a].follow_up = NONE
        if s == NONE:
            refuse(w, asked, events, asks, rows, latency, windows, minutes, parts, a, _UNFINISHED, 0, now_s)
        else:
            end_attempt(
                w, pools, reps, seqs, asked, events, asks, tab, rows, latency, windows, minutes, parts,
                s, _UNFINISHED, 0, now_s,
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
def load_script(w, script, rows, first):
    """Store the follow-up turns of *rows* and point the turns before them at their slots.

    Rows that nobody follows up to (conversation starts) keep their place; *first* is filled with 1 for them.
    Return how many there are, or -1 when the script has no room.
    """
    n = len(rows)
    for k in range(n):
        first[k] = 1
    for k in range(n):
        if rows[k].follow_up >= 0:
            first[rows[k].follow_up] = 0
    need = 0
    for k in range(n):
        need += 1 - first[k]
    if need > count_free(w, script, need):
        return -1
    for k in range(n - 1, -1, -1):
        after = rows[k].follow_up
        if after >= 0:
            slot = w.free_script
            w.free_script = script[slot].follow_up
            script[slot] = rows[after]
            rows[k].follow_up = slot
    return n - need


@kernel
def count_free(w, script, need):
    """Return how many script slots are free, counting no further than *need*."""
    slot = w.free_script
    n = 0
    while slot != NONE and n < need:
        n += 1
        slot = script[slot].follow_up
    return n


@kernel
def give_up_slot(
    w, pools, reps, seqs, asked, events, asks, board, tab, tree, rows, latency, windows, minutes, parts, a, outcome,
    now_s,
):  # fmt: skip
    """A client stops waiting for the request in slot *a*."""
    give_up(
        w, pools, reps, seqs, asked, events, asks, board, tab, tree, rows, latency, windows, minutes, parts,
        a, outcome, now_s,
    )  # fmt: skip


@kernel
def resume_session(w, script, events, row, at_s):
    """Let a session whose script had ended at *at_s* go on with *row*, after its think time."""
    slot = w.free_script
    w.free_script = script[slot].follow_up
    script[slot] = row
    push_event(w, events, at_s, FOLLOW_UP, slot, row.session)


@kernel
def count_held(pools, reps, seqs, r):
    """Return the KV blocks that the sequences running on replica *r* hold for their tokens, counted one by one."""
    rep = reps[r]
    block_size = pools[rep.pool].block_size
    blocks = 0
    for level in range(LEVELS):
        s = rep.run_head[level]
        while s != NONE:
            blocks += blocks_for(tokens_held(rep, seqs[s]), block_size)
            s = seqs[s].next
    return blocks


@kernel
def next_growth(pools, reps, board, r):
    """Return the KV blocks already taken for the step in flight on replica *r*."""
    rep = reps[r]
    if rep.steps_planned == 0:
        return 0
    return board[r, (rep.step + 1) % pools[rep.pool].block_size]
