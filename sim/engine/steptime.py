"""How long a step takes, and how the step times of a growing batch follow a straight line.

The tables come from `sim.engine.latency`. While nobody joins or leaves, every decoding sequence grows by
one token a step, so the mean context grows by one, and inside one cell of the table the step time grows
by a constant. That is what lets `batch.plan_step` play a stretch of steps at once.
"""

import math

import numpy as np

from sim.engine.jit import inlined, kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)


@kernel
def scramble(x):
    """Return 64 well mixed bits of *x* (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = np.uint64(x) + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _MIX_A
    x = (x ^ (x >> np.uint64(27))) * _MIX_B
    return x ^ (x >> np.uint64(31))


@kernel
def hash3(seed, a, b):
    """Return 64 random bits that belong to (*seed*, *a*, *b*): no state, so policies cannot disturb them."""
    return scramble(scramble(scramble(np.uint64(seed)) ^ np.uint64(a)) ^ np.uint64(b))


@kernel
def uniform(bits):
    """Return a number in (0, 1) from 64 random *bits*."""
    return (float(bits >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)


@kernel
def lognormal_factor(bits, sigma):
    """Return a factor with mean 1 whose logarithm has standard deviation *sigma* (Box-Muller)."""
    u = uniform(bits)
    v = uniform(scramble(bits))
    z = math.sqrt(-2.0 * math.log(u)) * math.cos(2.0 * math.pi * v)
    return math.exp(sigma * z - 0.5 * sigma * sigma)


@inlined
def decode_line(pool, tab, n, context):
    """Return the decode time of *n* sequences, its growth a step, and how many steps the line holds.

    *context* is the sum of their tokens in the cache; the time is beyond the base of a step, in seconds.
    """
    mean = context / n + 1.0
    j = 0
    while j < pool.contexts - 2 and mean >= tab[pool.edges_at + j + 1]:
        j += 1
    low = tab[pool.edges_at + j]
    high = tab[pool.edges_at + j + 1]
    at = pool.decode_at + n * pool.contexts + j
    slope = (tab[at + 1] - tab[at]) / (high - low)
    time = tab[at] + slope * (mean - low)
    steps = 1 << 40
    if j < pool.contexts - 2:
        steps = max(1, int(math.ceil(high - mean)))
    if time < 0.0:
        return 0.0, 0.0, steps
    return time, slope, steps


@kernel
def step_factor(w, pool, rep, r, tab, now_s):
    """Return the factor on the next step's time: step noise, a slow term, and a replayed host.

    Both noises leave the mean length of a step as it is. A slow stretch of time holds fewer steps than a fast one, so
    the slow term has a mean above 1 over time in order to have a mean of 1 over steps.
    """
    factor = 1.0
    if pool.noise > 0.0:
        factor *= lognormal_factor(hash3(w.seed, r, rep.step), pool.noise)
    if pool.slow_noise > 0.0:
        slice_ = int(now_s / pool.slow_period_s)
        factor *= lognormal_factor(hash3(w.seed ^ np.uint64(0x51), r, slice_), pool.slow_noise)
        factor *= math.exp(pool.slow_noise * pool.slow_noise)
    if w.pace_n:
        while w.pace_next + 1 < w.pace_n and tab[w.pace_at + 3 * w.pace_next] <= now_s:
            w.pace_next += 1
        factor *= tab[w.pace_at + 3 * w.pace_next + 1]
    return factor


@inlined
def stretch_end(rep, steps):
    """Return when the *steps*-th step after the anchor ends."""
    return rep.anchor_s + steps * rep.first_s + rep.growth_s * (0.5 * steps * (steps - 1))


@inlined
def steps_begun(rep, now_s):
    """Return how many of the planned steps have begun by *now_s* (at least 1 when any is in flight).

    A step that ends exactly at *now_s* has been played, so the next one has begun.
    """
    done = rep.step - rep.anchor_step
    low = 1
    high = rep.steps_planned
    while low < high:  # the first step whose end is after now
        middle = (low + high) // 2
        if stretch_end(rep, done + middle) > now_s:
            high = middle
        else:
            low = middle + 1
    return low


@kernel
def steps_ended(rep, now_s):
    """Return how many steps the replica has ended by *now_s*, those in the midst of a stretch included."""
    if rep.steps_planned > 1:
        return rep.step + steps_begun(rep, now_s) - 1
    return rep.step
