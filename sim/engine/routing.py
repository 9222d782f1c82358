"""Which replica gets a request. A router is one function and one line in `route`.

Routers see what a real one could know: who takes requests and how many attempts are outstanding. They
never see how long an answer will be.
"""

import numpy as np

from sim.engine.jit import kernel
from sim.engine.state import LEAST_OUTSTANDING, NONE, RANDOM
from sim.engine.steptime import hash3

ROUTERS = ("round_robin", "random", "least_outstanding")


@kernel
def in_turn(pool, reps):
    """Return the next replica in turn that takes requests."""
    for k in range(pool.count):
        r = pool.first + (pool.next_turn + k) % pool.count
        if reps[r].up:
            pool.next_turn = (pool.next_turn + k + 1) % pool.count
            return r
    return NONE


@kernel
def at_random(w, pool, reps, request):
    """Return a random replica that takes requests; the draw belongs to the request, not to the order."""
    up = 0
    for r in range(pool.first, pool.first + pool.count):
        up += reps[r].up
    if up == 0:
        return NONE
    skip = int(hash3(w.seed, request, 11) % np.uint64(up))
    for r in range(pool.first, pool.first + pool.count):
        if reps[r].up:
            if skip == 0:
                return r
            skip -= 1
    return NONE


@kernel
def least_outstanding(pool, reps):
    """Return the replica with the fewest outstanding attempts; ties go to the next in turn."""
    best = NONE
    fewest = 1 << 30
    r = pool.first + pool.next_turn
    end = pool.first + pool.count
    for _ in range(pool.count):
        rep = reps[r]
        if rep.up and rep.outstanding < fewest:
            best = r
            fewest = rep.outstanding
            if fewest == 0:
                break
        r += 1
        if r == end:
            r = pool.first
    if best != NONE:
        pool.next_turn = (best - pool.first + 1) % pool.count
    return best


@kernel
def route(w, pool, reps, request):
    """Return the replica for a request, or `NONE` when no replica takes any."""
    if pool.router == LEAST_OUTSTANDING:
        return least_outstanding(pool, reps)
    if pool.router == RANDOM:
        return at_random(w, pool, reps, request)
    return in_turn(pool, reps)
