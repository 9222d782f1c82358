"""Which replica gets an attempt. A router is one function and one line in `route`.

Routers see what a real one could know: which replicas take requests and how many attempts are outstanding there, now
or when they last looked (`refresh_s`). They never see how long an answer will be.
"""

import numpy as np

from sim.engine.jit import inlined, kernel
from sim.engine.state import LEAST_OUTSTANDING, NONE, POWER_OF_D, PREFIX_AFFINITY, RANDOM, SESSION_STICKY
from sim.engine.steptime import hash3

ROUTERS = ("round_robin", "random", "least_outstanding", "power_of_d", "prefix_affinity", "session_sticky")
TRIES = 8  # draws of a replica that happens to be out of the running, before the next in line is taken


@inlined
def takes(pool, rep):
    """Tell whether the router believes that the replica takes requests."""
    return rep.seen_up if pool.refresh_s > 0.0 else rep.up


@inlined
def load_of(pool, rep):
    """Return how many attempts the router believes to be outstanding on the replica."""
    return rep.seen if pool.refresh_s > 0.0 else rep.outstanding


@kernel
def look_again(pool, reps, now_s):
    """Renew what the routers know, if it is older than `refresh_s`: they all look at its multiples."""
    if pool.refresh_s <= 0.0 or now_s < pool.looked_s + pool.refresh_s:
        return
    pool.looked_s = now_s - now_s % pool.refresh_s
    for r in range(pool.first, pool.first + pool.count):
        reps[r].seen = reps[r].outstanding
        reps[r].seen_up = reps[r].up


@kernel
def in_turn(pool, reps, avoid):
    """Return the next replica in turn that takes requests."""
    for k in range(pool.count):
        r = pool.first + (pool.next_turn + k) % pool.count
        if takes(pool, reps[r]) and r != avoid:
            pool.next_turn = (pool.next_turn + k + 1) % pool.count
            return r
    return NONE


@kernel
def at_random(w, pool, reps, key, avoid):
    """Return a random replica that takes requests; the draw belongs to the attempt, not to the order."""
    for k in range(TRIES):
        r = pool.first + int(hash3(w.seed, key, 11 + k) % np.uint64(pool.count))
        if takes(pool, reps[r]) and r != avoid:
            return r
    for _ in range(pool.count):  # few are left: the next in line
        r = pool.first + (r - pool.first + 1) % pool.count
        if takes(pool, reps[r]) and r != avoid:
            return r
    return NONE


@kernel
def least_outstanding(pool, reps, avoid):
    """Return the replica with the fewest outstanding attempts; ties go to the next in turn."""
    best = NONE
    fewest = 1 << 30
    r = pool.first + pool.next_turn
    end = pool.first + pool.count
    for _ in range(pool.count):
        rep = reps[r]
        if takes(pool, rep) and r != avoid:
            load = load_of(pool, rep)
            if load < fewest:
                best = r
                fewest = load
                if fewest == 0:
                    break
        r += 1
        if r == end:
            r = pool.first
    if best != NONE:
        pool.next_turn = (best - pool.first + 1) % pool.count
    return best


@kernel
def power_of_d(w, pool, reps, key, avoid):
    """Return the least loaded of `choices` random replicas (Mitzenmacher 2001, "The power of two choices")."""
    best = at_random(w, pool, reps, key, avoid)
    for k in range(1, pool.choices):
        other = at_random(w, pool, reps, int(hash3(w.seed, key, 131 + k) >> np.uint64(1)), avoid)
        if other != NONE and load_of(pool, reps[other]) < load_of(pool, reps[best]):
            best = other
    return best


@kernel
def by_text(w, pool, reps, text, bound, avoid):
    """Return the replica that always gets this text, or the next in its line while more than *bound* are there.

    Rendezvous hashing (Thaler and Ravishankar 1998): each text has its own order of replicas, so one that leaves takes
    only its own texts along. The bound on loads: Mirrokni et al. 2018, "Consistent hashing with bounded loads".
    """
    best = NONE
    spare = NONE
    highest = np.uint64(0)
    highest_spare = np.uint64(0)
    for r in range(pool.first, pool.first + pool.count):
        rep = reps[r]
        if not takes(pool, rep) or r == avoid:
            continue
        score = hash3(w.seed, text, r)
        if load_of(pool, rep) < bound:
            if best == NONE or score > highest:
                best = r
                highest = score
        elif spare == NONE or score > highest_spare:
            spare = r
            highest_spare = score
    return best if best != NONE else spare


@kernel
def bound_of(pool, reps):
    """Return how many outstanding attempts a replica may have: `load_bound` times the mean with one more attempt."""
    up = 0
    load = 1
    for r in range(pool.first, pool.first + pool.count):
        if takes(pool, reps[r]):
            up += 1
            load += load_of(pool, reps[r])
    return pool.load_bound * load / max(1, up)


@kernel
def route(w, pool, reps, one, key, text, avoid, now_s):
    """Return the replica for attempt *key* of request *one*, or `NONE` when no replica takes any.

    *text* is what the prompt begins with, *avoid* a replica that a second copy should not go to.
    """
    look_again(pool, reps, now_s)
    if pool.router == LEAST_OUTSTANDING or (pool.router == PREFIX_AFFINITY and text == NONE):
        r = least_outstanding(pool, reps, avoid)
    elif pool.router == POWER_OF_D:
        r = power_of_d(w, pool, reps, key, avoid)
    elif pool.router == RANDOM:
        r = at_random(w, pool, reps, key, avoid)
    elif pool.router == PREFIX_AFFINITY:
        r = by_text(w, pool, reps, text, bound_of(pool, reps), avoid)
    elif pool.router == SESSION_STICKY:
        r = by_text(w, pool, reps, one.session if one.session >= 0 else one.request, np.inf, avoid)
    else:
        r = in_turn(pool, reps, avoid)
    if r != NONE and pool.refresh_s > 0.0 and pool.count_own:
        reps[r].seen += 1
    return r
