"""Clients: they ask, wait, give up, and ask the next thing.

What a client will do later (arrive at the engine, lose patience, ask a follow-up) is an entry in one heap,
ordered by (time, kind, id), so that equal times have one order on every machine.
"""

import math

from sim.engine.account import close_state, complete_row, count_request, is_sampled, tokens_made, write_row
from sim.engine.batch import cut_stretch, enter_queue, plan_step, set_blocked
from sim.engine.jit import inlined, kernel
from sim.engine.kv_cache import blocks_for, stop_decoding, tokens_held
from sim.engine.queues import append_waiting, remove_running, remove_waiting
from sim.engine.routing import route
from sim.engine.state import ARRIVE, BLOCKED_NOT, BLOCKED_SEAT, DECODE, FOLLOW_UP, FREE, NONE, TIMEOUT, WAITING
from sim.records import Outcome

_OK = int(Outcome.OK)
_REJECTED = int(Outcome.REJECTED)
_TIMED_OUT = int(Outcome.TIMED_OUT)
_FAILED = int(Outcome.FAILED)
ASK_FOR_MORE = -2


@kernel
def earlier(a, b):
    """Tell whether client event *a* comes before *b*."""
    if a.at_s != b.at_s:
        return a.at_s < b.at_s
    if a.kind != b.kind:
        return a.kind < b.kind
    return a.id < b.id


@kernel
def push_event(w, events, at_s, kind, what, id_):
    """Let something happen to slot *what* at *at_s*."""
    k = w.events_n
    w.events_n += 1
    events[k].at_s = at_s
    events[k].kind = kind
    events[k].what = what
    events[k].id = id_
    while k > 0:
        parent = (k - 1) >> 1
        if not earlier(events[k], events[parent]):
            break
        swap_events(events, k, parent)
        k = parent


@kernel
def swap_events(events, a, b):
    """Exchange two entries of the heap."""
    at_s, kind, what, id_ = events[a].at_s, events[a].kind, events[a].what, events[a].id
    events[a].at_s, events[a].kind = events[b].at_s, events[b].kind
    events[a].what, events[a].id = events[b].what, events[b].id
    events[b].at_s, events[b].kind, events[b].what, events[b].id = at_s, kind, what, id_


@kernel
def drop_first_event(w, events):
    """Remove the earliest entry of the heap."""
    w.events_n -= 1
    n = w.events_n
    swap_events(events, 0, n)
    k = 0
    while True:
        child = 2 * k + 1
        if child >= n:
            break
        if child + 1 < n and earlier(events[child + 1], events[child]):
            child += 1
        if not earlier(events[child], events[k]):
            break
        swap_events(events, child, k)
        k = child


@inlined
def wake(reps, tree, r):
    """Tell the tournament of next wake-ups that replica *r* has another one."""
    k = (len(tree) // 2 + r) >> 1
    while k >= 1:
        left = tree[2 * k]
        right = tree[2 * k + 1]
        tree[k] = right if right != NONE and reps[right].wake_s < reps[left].wake_s else left
        k >>= 1


@kernel
def ask(w, pools, asked, events, row, follow_up, now_s):
    """A user asks: take a slot for the request and send it on its way; return the slot."""
    a = w.free_req
    one = asked[a]
    w.free_req = one.next_free
    one.live = 1
    one.seq = NONE
    one.sent_s = now_s
    one.request = row.request
    one.session = row.session
    one.turn = row.turn
    one.follow_up = follow_up
    one.cohort = row.cohort
    one.pool = row.pool
    one.level = row.level
    one.wrong = row.wrong
    one.prompt = row.prompt_tokens
    one.output = row.output_tokens
    one.scheduled_s = now_s
    w.live += 1
    w.live_max = max(w.live_max, w.live)
    w.started += 1
    if w.timeout_s < math.inf:
        push_event(w, events, now_s + w.timeout_s, TIMEOUT, a, one.request)
    return a


@kernel
def refuse(w, asked, events, asks, rows, latency, windows, minutes, parts, a, outcome, status, now_s):
    """End a request that no replica has seen, with an error its client sees."""
    one = asked[a]
    row = write_row(w, rows, one, outcome, status, now_s)
    row.client_wait_s = now_s - one.scheduled_s
    count_request(w, one, row, latency, windows, minutes, parts)
    if not is_sampled(w, one.request):
        w.rows_n -= 1
    end_request(w, asked, events, asks, a, outcome, now_s)


@kernel
def end_request(w, asked, events, asks, a, outcome, now_s):
    """Count the request's one outcome, free its slot, and let its session go on."""
    one = asked[a]
    w.outcomes[outcome] += 1
    w.live -= 1
    one.live = 0
    one.next_free = w.free_req
    w.free_req = a
    if one.follow_up == ASK_FOR_MORE:
        asks[w.asks_n].session = one.session
        asks[w.asks_n].at_s = now_s
        w.asks_n += 1
    elif one.follow_up != NONE:
        push_event(w, events, now_s, FOLLOW_UP, one.follow_up, one.session)


@kernel
def send(w, pools, reps, seqs, asked, board, tab, pace, tree, a, now_s):
    """Let a replica have the request; return the HTTP status that stands in its way, or 0."""
    one = asked[a]
    pool = pools[one.pool]
    longest = pool.max_len - one.prompt
    if longest < 1:
        return 400
    one.output = min(one.output, longest)
    r = route(w, pool, reps, one.request)
    if r == NONE:
        return 503
    rep = reps[r]
    s = w.free_seq
    seq = seqs[s]
    w.free_seq = seq.next
    one.seq = s
    begin_attempt(seq, one, a, r, now_s)
    rep.outstanding += 1
    w.attempts_live += 1
    w.attempts_started += 1
    if rep.blocked == BLOCKED_NOT and rep.running == pool.max_seqs:
        set_blocked(rep, BLOCKED_SEAT, now_s)  # the first to wait: it waits for a seat, not for a step to end
    enter_queue(rep, seq, now_s)
    append_waiting(rep, seqs, s)
    if rep.steps_planned == 0:
        plan_step(w, pools, reps, r, seqs, board, tab, pace, now_s)
        wake(reps, tree, r)
    elif rep.steps_planned > 1 and seq.prev == NONE and rep.running < pool.max_seqs:
        cut_stretch(rep, now_s)
        wake(reps, tree, r)
    return 0


@kernel
def begin_attempt(seq, one, a, r, now_s):
    """Set up a sequence for what its client asked."""
    seq.replica = r
    seq.request = a
    seq.state = WAITING
    seq.level = one.level
    seq.gone = 0
    seq.attempt = 0
    seq.preemptions = 0
    seq.prompt = one.prompt
    seq.output = one.output
    seq.done = 0
    seq.target = one.prompt
    seq.computed = 0
    seq.cached = 0
    seq.sent_s = now_s
    seq.admitted_s = -1.0
    seq.token_s = -1.0
    seq.lost_s = -1.0
    seq.seat_s = 0.0
    seq.kv_s = 0.0
    seq.step_s = 0.0
    seq.prefill_s = 0.0
    seq.decode_s = 0.0
    seq.alone_s = 0.0
    seq.preempted_s = 0.0
    seq.stall_s = 0.0


@kernel
def end_attempt(
    w, pools, reps, seqs, asked, events, asks, tab, rows, latency, windows, minutes, parts, s, outcome, status, now_s
):
    """The client's story of this attempt is over: write its row, count it, end its request.

    An answer that is still on its way when its client loses patience is not one.
    """
    seq = seqs[s]
    one = asked[seq.request]
    rep = reps[seq.replica]
    pool = pools[rep.pool]
    close_state(pool, rep, seq, tab, now_s)
    egress_s = pool.egress_s if outcome == _OK else 0.0
    patience_s = one.scheduled_s + w.timeout_s - now_s
    if egress_s > patience_s:
        egress_s = max(0.0, patience_s)
        outcome = _TIMED_OUT
        status = 499
    row = write_row(w, rows, one, outcome, status, now_s + egress_s)
    complete_row(pool, row, rep, seq.replica, seq, tokens_made(rep, seq, now_s), egress_s)
    count_request(w, one, row, latency, windows, minutes, parts)
    if not is_sampled(w, one.request):
        w.rows_n -= 1
    seq.gone = 1
    w.attempts_live -= 1
    w.attempts_ended += 1
    end_request(w, asked, events, asks, seq.request, outcome, now_s + egress_s)


@kernel
def leave_replica(w, pool, rep, r, seqs, board, s):
    """Free the seat and the KV blocks of a sequence between two steps, and its slot."""
    seq = seqs[s]
    if seq.state == WAITING:
        remove_waiting(rep, seqs, s)
    else:
        rep.free_blocks += blocks_for(tokens_held(rep, seq), pool.block_size)
        if seq.state == DECODE:
            stop_decoding(w, pool, rep, r, seqs, s, board)
        elif rep.partial == s:
            rep.partial = NONE
        remove_running(rep, seqs, s)
    rep.outstanding -= 1
    seq.state = FREE
    seq.next = w.free_seq
    w.free_seq = s


@kernel
def hang_up(w, pools, reps, seqs, board, tree, s, now_s):
    """The client of sequence *s* has gone: leave the queue at once, or the batch when the step ends."""
    seq = seqs[s]
    r = seq.replica
    rep = reps[r]
    if seq.state == WAITING:
        if seq.prev == NONE:
            cut_stretch(rep, now_s)  # the next in line may fit where this one did not
        leave_replica(w, pools[rep.pool], rep, r, seqs, board, s)
    else:
        seq.abort = rep.aborts
        rep.aborts = s
        cut_stretch(rep, now_s)
    wake(reps, tree, r)


@kernel
def give_up(
    w,
    pools,
    reps,
    seqs,
    asked,
    events,
    asks,
    board,
    tab,
    tree,
    rows,
    latency,
    windows,
    minutes,
    parts,
    a,
    outcome,
    now_s,
):
    """A client stops waiting for its request: it sees *outcome* now, the engine notices at its next step."""
    s = asked[a].seq
    if s == NONE:
        refuse(w, asked, events, asks, rows, latency, windows, minutes, parts, a, outcome, 499, now_s)
        return
    end_attempt(
        w, pools, reps, seqs, asked, events, asks, tab, rows, latency, windows, minutes, parts, s, outcome, 499, now_s
    )
    hang_up(w, pools, reps, seqs, board, tree, s, now_s)


@kernel
def is_waiting_for(asked, a, request):
    """Tell whether slot *a* still holds the request that the event was made for."""
    return asked[a].live and asked[a].request == request


@kernel
def happen(
    w, pools, reps, seqs, asked, script, events, asks, board, tab, pace, tree, rows, latency, windows, minutes, parts
):
    """Let the earliest client event happen."""
    event = events[0]
    now_s = event.at_s
    kind = event.kind
    what = event.what
    id_ = event.id
    drop_first_event(w, events)
    if kind == FOLLOW_UP:
        # First the think time, then the next turn.
        row = script[what]
        if row.scheduled_s > 0.0:
            at_s = now_s + row.scheduled_s
            row.scheduled_s = 0.0
            if at_s < w.arrivals_end_s:
                push_event(w, events, at_s, FOLLOW_UP, what, id_)
                return
        elif now_s < w.arrivals_end_s:
            a = ask(w, pools, asked, events, row, row.follow_up, now_s)
            travel(
                w, pools, reps, seqs, asked, events, asks, board, tab, pace, tree,
                rows, latency, windows, minutes, parts, a, now_s,
            )  # fmt: skip
        row.follow_up = w.free_script
        w.free_script = what
    elif is_waiting_for(asked, what, id_):
        if kind == TIMEOUT:
            give_up(
                w, pools, reps, seqs, asked, events, asks, board, tab, tree,
                rows, latency, windows, minutes, parts, what, _TIMED_OUT, now_s,
            )  # fmt: skip
        else:
            deliver(
                w, pools, reps, seqs, asked, events, asks, board, tab, pace, tree,
                rows, latency, windows, minutes, parts, what, now_s,
            )  # fmt: skip


@kernel
def travel(
    w, pools, reps, seqs, asked, events, asks, board, tab, pace, tree, rows, latency, windows, minutes, parts, a, now_s
):
    """Bring the request from its client to the engine: at once, or after the pool's ingress time."""
    ingress_s = pools[asked[a].pool].ingress_s
    if ingress_s > 0.0:
        push_event(w, events, now_s + ingress_s, ARRIVE, a, asked[a].request)
        return
    deliver(
        w, pools, reps, seqs, asked, events, asks, board, tab, pace, tree,
        rows, latency, windows, minutes, parts, a, now_s,
    )  # fmt: skip


@kernel
def deliver(
    w, pools, reps, seqs, asked, events, asks, board, tab, pace, tree, rows, latency, windows, minutes, parts, a, now_s
):
    """Send the request to a replica, or refuse it."""
    status = send(w, pools, reps, seqs, asked, board, tab, pace, tree, a, now_s)
    if status:
        outcome = _REJECTED if status == 400 else _FAILED
        refuse(w, asked, events, asks, rows, latency, windows, minutes, parts, a, outcome, status, now_s)
