"""The loop: what happens next, anywhere in the fleet, until a given time."""

import math

from sim.engine.account import count_rows, count_steps
from sim.engine.attempts import leave_replica, wake
from sim.engine.batch import begin_decode, end_steps, plan_step
from sim.engine.clients import answer, ask, decide_race, deliver
from sim.engine.happenings import happen
from sim.engine.jit import inlined, kernel
from sim.engine.meters import meter_answer, meter_token
from sim.engine.queues import oldest_in_bucket
from sim.engine.state import DONE, ENDED_FULL, INBOX_EMPTY, NONE, ROWS_FULL, SCRIPT_END, SLOTS_FULL

COUNT_ROWS = 64  # rows that are counted at once, while they are still in the processor's cache


@inlined
def end_step(
    w, pools, reps, meters, seqs, asked, clients, cache, events, asks, board, tab, tree, rows, latency, r
):  # fmt: skip
    """End the steps planned on replica *r*: tokens appear, sequences finish, the next step is planned."""
    rep = reps[r]
    pool = pools[rep.pool]
    now_s = rep.wake_s
    steps = end_steps(w, pool, rep, r, board)
    if rep.decoding:
        count_steps(w, rep, meters[r], latency, steps, now_s)
    while rep.ready != NONE:
        s = rep.ready
        rep.ready = seqs[s].link
        if w.metered:
            meter_token(meters[r], seqs[s], now_s)
        begin_decode(w, pool, rep, r, seqs, s, board, now_s)
        if not seqs[s].gone and asked[seqs[s].request].twin_number != NONE:
            decide_race(
                w, pools, reps, seqs, asked, clients, cache, events, asks, board, tab, tree, rows, s, now_s
            )  # fmt: skip
    while rep.aborts != NONE:
        s = rep.aborts
        rep.aborts = seqs[s].abort
        leave_replica(w, pools, reps, seqs, cache, board, s)
    s = oldest_in_bucket(w, board, r, seqs, rep.step)
    while s != NONE:
        before = seqs[s].back
        if seqs[s].finish_step == rep.step:
            if w.metered and seqs[s].stop == seqs[s].output:
                meter_answer(meters[r], pool, seqs[s], now_s)
            if not seqs[s].gone:
                answer(w, pools, reps, seqs, asked, clients, events, asks, tab, rows, s, now_s)
            leave_replica(w, pools, reps, seqs, cache, board, s)
            rep.served += 1
        s = before
    plan_step(w, pools, reps, r, seqs, cache, board, tab, now_s)
    wake(reps, tree, r)


@inlined
def has_room(w, events, rows, ended, asks):
    """Tell whether one more event fits into every array."""
    if w.rows_n + w.margin > len(rows) or w.asks_n + w.margin > len(asks):
        return ROWS_FULL
    if w.judged and w.ended_n + w.margin + COUNT_ROWS > len(ended):
        return ENDED_FULL
    if w.free_seq == NONE or w.free_req == NONE or w.events_n + w.margin > len(events):
        return SLOTS_FULL
    if w.entries_from >= 0 and w.entries_free < w.margin:
        return SLOTS_FULL
    return DONE


@kernel
def play(
    w, pools, gates, reps, meters, seqs, asked, clients, cache, script, inbox, events, asks, board, tab, tree,
    rows, ended, latency, windows, minutes, parts, until_s,
):  # fmt: skip
    """Play all that happens up to *until_s*, in the order of (time, kind, id); return why it stopped.

    At equal times engine steps end first, then clients act, then new requests arrive.
    """
    why = DONE
    while True:
        if w.rows_n - w.counted >= COUNT_ROWS:
            count_rows(w, rows, ended, gates, latency, windows, minutes, parts)
        why = has_room(w, events, rows, ended, asks)
        if why != DONE:
            break
        if w.asks_n:
            why = SCRIPT_END
            break
        arrival_s = math.inf
        if w.inbox_next < w.inbox_end:
            arrival_s = inbox[w.inbox_next].scheduled_s
        elif w.more:
            why = INBOX_EMPTY
            break
        r = tree[1]
        step_s = reps[r].wake_s
        client_s = events[0].at_s if w.events_n else math.inf
        if step_s <= client_s and step_s <= arrival_s:
            if step_s > until_s:
                break
            w.now_s = step_s
            end_step(
                w, pools, reps, meters, seqs, asked, clients, cache, events, asks, board, tab, tree, rows, latency, r
            )  # fmt: skip
        elif client_s <= arrival_s:
            if client_s > until_s:
                break
            w.now_s = client_s
            happen(w, pools, reps, seqs, asked, clients, cache, script, events, asks, board, tab, tree, rows)
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
            ask(w, pools, asked, clients, events, row, arrival_s)
        if w.due != NONE:
            deliver(w, pools, reps, seqs, asked, clients, cache, events, asks, board, tab, tree, rows, w.now_s)
    count_rows(w, rows, ended, gates, latency, windows, minutes, parts)
    if why == DONE:
        w.now_s = max(w.now_s, until_s)
    return why
