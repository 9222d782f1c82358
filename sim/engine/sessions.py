"""Sessions in flight: the turns that users will ask later, waiting in slots of their own."""

from sim.engine.jit import kernel
from sim.engine.state import DONE, FOLLOW_UP, NONE, SCRIPT_FULL, SLOTS_FULL
from sim.engine.timers import push_event


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
def go_on(w, script, events, rows, first, asks):
    """Let sessions whose script had ended (*asks*) go on with *rows*, after their think time; see `load_script`.

    Return `DONE`, or which array has no room: `SLOTS_FULL` for the events, `SCRIPT_FULL` for the script, and then
    nothing has changed; or `NONE` if a session did not ask.
    """
    n = len(rows)
    if w.events_n + n + w.margin > len(events):
        return SLOTS_FULL
    if count_free(w, script, n) < n:
        return SCRIPT_FULL
    load_script(w, script, rows, first)
    k = 0  # sessions most often stand in the order in which they asked
    for row in range(n):
        if not first[row]:
            continue
        tried = 0
        while tried < len(asks) and asks[k].session != rows[row].session:
            k = k + 1 if k + 1 < len(asks) else 0
            tried += 1
        if tried == len(asks):
            return NONE
        slot = w.free_script
        w.free_script = script[slot].follow_up
        script[slot] = rows[row]
        push_event(w, events, asks[k].at_s, FOLLOW_UP, slot, asks[k].session)
    return DONE
