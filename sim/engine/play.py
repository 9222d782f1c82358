"""The loop: what happens next, anywhere in the fleet, until a given time."""

import math

from sim.engine.account import count_steps
from sim.engine.batch import begin_decode, end_steps, plan_step
from sim.engine.clients import ask, end_attempt, happen, leave_replica, travel, wake
from sim.engine.jit import inlined, kernel
from sim.engine.state import DONE, INBOX_EMPTY, NONE, RING, ROWS_FULL, SCRIPT_END, SLOTS_FULL
from sim.records import Outcome

_OK = int(Outcome.OK)


@inlined
def end_step(
    w, pools, reps, seqs, asked, events, asks, board, tab, pace, tree, rows, latency, windows, minutes, parts, r
):
    """End the steps planned on replica *r*: tokens appear, sequences finish, the next step is planned."""
    rep = reps[r]
    pool = pools[rep.pool]
    now_s = rep.wake_s
    steps = end_steps(w, pool, rep, r, board)
    if rep.decoding:
        count_steps(w, rep, latency, steps, now_s)
    while rep.ready != NONE:
        s = rep.ready
        rep.ready = seqs[s].link
        begin_decode(w, pool, rep, r, seqs, s, board, now_s)
    while rep.aborts != NONE:
        s = rep.aborts
        rep.aborts = seqs[s].abort
        leave_replica(w, pool, rep, r, seqs, board, s)
    s = board[r, w.ring_at + (rep.step & (RING - 1))]
    while s != NONE:
        after = seqs[s].link
        if seqs[s].finish_step == rep.step:
            if not seqs[s].gone:
                end_attempt(
                    w, pools, reps, seqs, asked, events, asks, tab, rows, latency, windows, minutes, parts,
                    s, _OK, 200, now_s,
                )  # fmt: skip
            leave_replica(w, pool, rep, r, seqs, board, s)
            rep.served += 1
        s = after
    plan_step(w, pools, reps, r, seqs, board, tab, pace, now_s)
    wake(reps, tree, r)


@inlined
def has_room(w, seqs, asked, events, rows, asks):
    """Tell whether one more event fits into every array."""
    if w.rows_n + w.margin > len(rows) or w.asks_n + w.margin > len(asks):
        return ROWS_FULL
    if w.free_seq == NONE or w.free_req == NONE or w.events_n + w.margin > len(events):
        return SLOTS_FULL
    return DONE


@kernel
def play(
    w, pools, reps, seqs, asked, script, inbox, events, asks, board, tab, pace, tree,
    rows, latency, windows, minutes, parts, until_s,
):  # fmt: skip
    """Play all that happens up to *until_s*, in the order of (time, kind, id); return why it stopped.

    At equal times engine steps end first, then clients act, then new requests arrive.
    """
    while True:
        full = has_room(w, seqs, asked, events, rows, asks)
        if full != DONE:
            return full
        if w.asks_n:
            return SCRIPT_END
        arrival_s = math.inf
        if w.inbox_next < w.inbox_end:
            arrival_s = inbox[w.inbox_next].scheduled_s
        elif w.more:
            return INBOX_EMPTY
        r = tree[1]
        step_s = reps[r].wake_s
        client_s = events[0].at_s if w.events_n else math.inf
        if step_s <= client_s and step_s <= arrival_s:
            if step_s > until_s:
                break
            w.now_s = step_s
            end_step(
                w, pools, reps, seqs, asked, events, asks, board, tab, pace, tree,
                rows, latency, windows, minutes, parts, r,
            )  # fmt: skip
        elif client_s <= arrival_s:
            if client_s > until_s:
                break
            w.now_s = client_s
            happen(
                w, pools, reps, seqs, asked, script, events, asks, board, tab, pace, tree,
                rows, latency, windows, minutes, parts,
            )  # fmt: skip
        else:
            if arrival_s > until_s:
                break
            w.now_s = arrival_s
            row = inbox[w.inbox_next]
            w.inbox_next += 1
            if arrival_s >= w.arrivals_end_s:
                w.inbox_next = w.inbox_end
                w.more = 0
                continue
            a = ask(w, pools, asked, events, row, row.follow_up, arrival_s)
            travel(
                w, pools, reps, seqs, asked, events, asks, board, tab, pace, tree,
                rows, latency, windows, minutes, parts, a, arrival_s,
            )  # fmt: skip
    w.now_s = max(w.now_s, until_s)
    return DONE
