"""Who gets in: what a gateway and a replica refuse before any work is done. Each refusal is a 429 that its client sees.

All of it rests on what a real gateway knows: counts, rates, priorities, and the time-outs that clients send along;
never on how long an answer will be.
"""

import math

from sim.engine.jit import kernel
from sim.engine.queues import first_waiting
from sim.engine.state import LEVELS, NONE


@kernel
def take_token(gate, now_s):
    """Take a token from the bucket of a pool or cohort, which fills at `limit_per_s`; tell whether there was one."""
    if gate.limit_per_s == math.inf:
        return True
    left = gate.limit_left + (now_s - gate.limit_at_s) * gate.limit_per_s
    gate.limit_left = min(gate.limit_burst, left)
    gate.limit_at_s = now_s
    if gate.limit_left < 1.0:
        return False
    gate.limit_left -= 1.0
    return True


@kernel
def gateway_admits(pool, client, one, now_s):
    """Tell whether the gateway lets an attempt in, before it chooses a replica."""
    if one.level >= pool.shed_from:
        return False
    if pool.max_outstanding and pool.outstanding >= pool.max_outstanding:
        return False
    return take_token(client, now_s) and take_token(pool, now_s)


@kernel
def predicted_wait_s(rep, seqs, now_s):
    """Return how long a request that joins the queue now would wait: its length times what a place in it took lately.

    A queue that does not move is as long as its first has waited.
    """
    head = first_waiting(rep)
    if head == NONE:
        return 0.0
    return max(rep.waiting * rep.place_s, now_s - seqs[head].mark_s)


@kernel
def note_wait(rep, seq, now_s):
    """Learn from an admitted sequence how long a place in the queue takes: a moving average over about ten of them."""
    if seq.ahead > 0:
        place_s = (now_s - seq.sent_s) / seq.ahead
        rep.place_s += (place_s - rep.place_s) * (0.1 if rep.place_s > 0.0 else 1.0)


@kernel
def replica_admits(pool, client, rep, seqs, one, now_s):
    """Tell whether the replica lets an attempt into its queue."""
    bound = pool.max_queue[min(one.level, LEVELS - 1)]
    if bound and rep.waiting >= bound:
        return False
    if pool.max_wait_s == math.inf and not pool.deadline_aware:
        return True
    wait_s = predicted_wait_s(rep, seqs, now_s)
    if wait_s > pool.max_wait_s:
        return False
    left_s = min(one.sent_s + client.timeout_s, one.scheduled_s + client.deadline_s) - now_s
    return not (pool.deadline_aware and wait_s > min(left_s, one.sent_s + client.first_token_s - now_s))
