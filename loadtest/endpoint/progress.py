"""How far every answer is, read from the engine's own arrays: no event a token, and nothing is changed there."""

import numpy as np

from sim.engine.account import tokens_made
from sim.engine.jit import kernel
from sim.engine.state import NONE
from sim.engine.steptime import steps_ended, stretch_end

TOLD = np.dtype([("request", "i8"), ("made", "i8")], align=True)
"""What the caller in a slot of the fleet has been told: of which request, and how many tokens."""


@kernel
def next_s(w, reps, events, tree):
    """Return when the next thing happens in the fleet; until then time may pass without anybody looking."""
    if w.inbox_next < w.inbox_end:  # somebody is at the door
        return w.now_s
    step_s = reps[tree[1]].wake_s
    if w.events_n and events[0].at_s < step_s:
        return events[0].at_s
    return step_s


@kernel
def next_step_s(reps, now_s):
    """Return when the next step of any replica ends, those in the midst of a stretch included."""
    at_s = np.inf
    for r in range(len(reps)):
        rep = reps[r]
        if rep.steps_planned and not rep.hung:
            begun = steps_ended(rep, now_s) - rep.step + 1
            at_s = min(at_s, stretch_end(rep, rep.step - rep.anchor_step + begun))
    return at_s


@kernel
def find_news(reps, seqs, asked, now_s, told, found):
    """Bring *told* up to *now_s*; put the slots with new tokens into *found* and return how many there are."""
    n = 0
    for a in range(len(asked)):
        one = asked[a]
        if one.live and one.seq != NONE:
            seq = seqs[one.seq]
            made = tokens_made(reps[seq.replica], seq, now_s)
            if told[a].request != one.request:
                told[a].request = one.request
                told[a].made = 0
            if made > told[a].made:
                told[a].made = made
                found[n] = a
                n += 1
    return n
