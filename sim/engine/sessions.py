"""Sessions in flight: the turns that users will ask later, waiting in slots of their own."""

from sim.engine.jit import kernel
from sim.engine.state import FOLLOW_UP, NONE
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
def resume_session(w, script, events, row, at_s):
    """Let a session whose script had ended at *at_s* go on with *row*, after its think time."""
    slot = w.free_script
    w.free_script = script[slot].follow_up
    script[slot] = row
    push_event(w, events, at_s, FOLLOW_UP, slot, row.session)
