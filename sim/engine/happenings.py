"""What a client's event does when its time has come."""

from sim.engine.attempts import ATTEMPT_BITS, key_of
from sim.engine.clients import LEFT, ask, begin_try, give_up, has_token, hedge
from sim.engine.jit import kernel
from sim.engine.state import ARRIVE, DEADLINE, FOLLOW_UP, HEDGE, NONE, RETRY, TIMER, TIMERS, TOTAL
from sim.engine.timers import arm, drop_first_event, push_event, runs_out_s, stop_timer
from sim.records import Outcome

_CANCELLED = int(Outcome.CANCELLED)
_TIMED_OUT = int(Outcome.TIMED_OUT)


@kernel
def happen(w, pools, reps, seqs, asked, clients, cache, script, events, asks, board, tab, tree, rows):
    """Let the earliest client event happen."""
    event = events[0]
    now_s = event.at_s
    kind = event.kind
    what = event.what
    id_ = event.id
    drop_first_event(w, events)
    a = NONE  # who gives up, if anybody does
    outcome = _TIMED_OUT
    final = 1
    if kind == FOLLOW_UP:
        follow_up(w, pools, asked, clients, script, events, what, id_, now_s)
    elif kind == TIMER:
        a = ring(w, pools, seqs, asked, clients, events, id_, now_s)
        final = id_ % TIMERS == DEADLINE
    elif asked[what].live and asked[what].request == id_ >> ATTEMPT_BITS:
        one = asked[what]
        if kind == ARRIVE:
            arrive(w, one, what, id_ & ((1 << ATTEMPT_BITS) - 1))
        elif kind == RETRY:
            if one.number == NONE and id_ == key_of(one, one.attempts):
                w.retries += 1
                begin_try(w, pools, asked, clients, events, what, now_s)
        elif not has_token(pools, seqs, one, now_s):
            a = what
            outcome = _CANCELLED
    if a != NONE:
        give_up(
            w, pools, reps, seqs, asked, clients, cache, events, asks, board, tab, tree, rows,
            a, outcome, LEFT, final, now_s,
        )  # fmt: skip


@kernel
def arrive(w, one, a, number):
    """An attempt comes to the gateway, unless its client has given it up on the way."""
    if (number == one.number and one.seq == NONE) or (number == one.twin_number and one.twin == NONE):
        w.due = a
        w.due_number = number


@kernel
def follow_up(w, pools, asked, clients, script, events, what, id_, now_s):
    """A session goes on: first the think time, then the next turn."""
    row = script[what]
    if row.scheduled_s > 0.0:
        at_s = now_s + row.scheduled_s
        row.scheduled_s = 0.0
        if at_s < w.arrivals_end_s:
            push_event(w, events, at_s, FOLLOW_UP, what, id_)
            return
    elif now_s < w.arrivals_end_s:
        ask(w, pools, asked, clients, events, row, now_s)
    row.follow_up = w.free_script
    w.free_script = what


@kernel
def ring(w, pools, seqs, asked, clients, events, id_, now_s):
    """A timer has run out, if its request is still in the list: return the request that gives up, or `NONE`."""
    c = id_ // TIMERS
    kind = id_ % TIMERS
    client = clients[c]
    client.armed[kind] = 0
    a = client.timer_head[kind]
    gone = NONE
    if a != NONE and runs_out_s(client, asked[a], kind) <= now_s:
        stop_timer(clients, asked, a, kind)
        if kind in (TOTAL, DEADLINE) or not has_token(pools, seqs, asked[a], now_s):
            if kind == HEDGE:
                hedge(w, pools, seqs, asked, clients, events, a, now_s)
            else:
                gone = a
    arm(w, clients, asked, events, c, kind)
    return gone
