"""What clients will do later: one heap of events, and lists of timers that run out in the order they began.

Events are ordered by (time, kind, id), so that equal times have one order on every machine. Timers of one kind are
equally long for all requests of a cohort, so the first to begin is the first to run out: each kind is a list through
the requests in flight, of which only the head has an event. Most timers never run out, and cost no event.
"""

import math

from sim.engine.jit import kernel
from sim.engine.state import DEADLINE, FIRST_TOKEN, HEDGE, NONE, TIMER, TIMERS, TOTAL


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


@kernel
def runs_out_s(client, one, kind):
    """Return when the timer of request *one* runs out."""
    if kind == TOTAL:
        return one.sent_s + client.timeout_s
    if kind == FIRST_TOKEN:
        return one.sent_s + client.first_token_s
    if kind == HEDGE:
        return one.sent_s + client.hedge_s
    return one.scheduled_s + client.deadline_s


@kernel
def start_timer(w, clients, asked, events, a, kind):
    """Start a timer of the request in slot *a*, unless its clients have none of that kind."""
    one = asked[a]
    client = clients[one.cohort]
    at_s = runs_out_s(client, one, kind)
    if at_s == math.inf:
        return
    tail = client.timer_tail[kind]
    one.timed[kind] = 1
    one.timer_prev[kind] = tail
    one.timer_next[kind] = NONE
    client.timer_tail[kind] = a
    if tail == NONE:
        client.timer_head[kind] = a
    else:
        asked[tail].timer_next[kind] = a
    if not client.armed[kind]:
        client.armed[kind] = 1
        push_event(w, events, at_s, TIMER, one.cohort, one.cohort * TIMERS + kind)


@kernel
def stop_timer(clients, asked, a, kind):
    """Stop a timer of the request in slot *a*, if it runs."""
    one = asked[a]
    if not one.timed[kind]:
        return
    client = clients[one.cohort]
    before = one.timer_prev[kind]
    after = one.timer_next[kind]
    one.timed[kind] = 0
    if before == NONE:
        client.timer_head[kind] = after
    else:
        asked[before].timer_next[kind] = after
    if after == NONE:
        client.timer_tail[kind] = before
    else:
        asked[after].timer_prev[kind] = before


@kernel
def start_try_timers(w, clients, asked, events, a):
    """Start the timers of one attempt."""
    start_timer(w, clients, asked, events, a, TOTAL)
    start_timer(w, clients, asked, events, a, FIRST_TOKEN)
    start_timer(w, clients, asked, events, a, HEDGE)


@kernel
def stop_try_timers(clients, asked, a):
    """Stop the timers of one attempt."""
    stop_timer(clients, asked, a, TOTAL)
    stop_timer(clients, asked, a, FIRST_TOKEN)
    stop_timer(clients, asked, a, HEDGE)


@kernel
def stop_timers(clients, asked, a):
    """Stop all timers of a request."""
    stop_try_timers(clients, asked, a)
    stop_timer(clients, asked, a, DEADLINE)


@kernel
def arm(w, clients, asked, events, c, kind):
    """Let the first timer in the list of cohort *c* have an event, if there is one."""
    client = clients[c]
    a = client.timer_head[kind]
    if a != NONE and not client.armed[kind]:
        client.armed[kind] = 1
        push_event(w, events, runs_out_s(client, asked[a], kind), TIMER, c, c * TIMERS + kind)
