"""A run of a few requests that touches every kernel, so that each is compiled and cached."""

import gc
import os
import sys

import numpy as np

from sim.engine import cache_folder, is_compiled
from sim.engine.fleet import ClientPolicy, Fleet, PoolConfig
from sim.engine.latency import linear
from sim.records import PREFIX, REQUEST

COMPILE_S = "20 to 60"  # on small machines, quick and slow; said to the user before the first compilation


def warm() -> None:
    """Compile the engine once, and say so, unless the cache already holds it."""
    if is_compiled() or os.environ.get("NUMBA_DISABLE_JIT") == "1":
        return
    print(f"compiling the engine, once, about {COMPILE_S} s ...", file=sys.stderr, flush=True)
    gc.disable()  # a compiler makes many objects that live on: collecting them is an eighth of its time
    try:
        exercise()
    finally:
        gc.enable()
    cache_folder().mkdir(parents=True, exist_ok=True)
    (cache_folder() / "complete").touch()


def exercise() -> None:
    """Play a tiny fleet through every verb it has."""
    steps = linear(8, 256, 0.01, 1e-4, 1e-4)
    pool = PoolConfig(steps=steps, replicas=2, blocks=64, max_seqs=8, max_tokens=256, prefix_caching=True)
    clients = ClientPolicy(timeout_s=50.0, retries=1, backoff_s=0.1, hedge_s=20.0, patience_s=60.0, throttle=2.0)
    prefixes = np.array([(-1, 20)], PREFIX)
    fleet = Fleet([pool], duration_s=100.0, clients=clients, prefixes=prefixes, judged=True)
    requests = np.zeros(8, REQUEST)
    requests["request"] = requests["content"] = np.arange(8)
    requests["session"] = requests["follow_up"] = requests["prefix"] = -1
    requests["scheduled_s"] = np.linspace(0.1, 1.0, 8)
    requests["prompt_tokens"], requests["output_tokens"] = 40, 20
    requests["follow_up"][6] = 7
    requests["follow_up"][7] = -2
    fleet.submit(requests)
    fleet.advance(0.5)
    fleet.slow(0, 2.0)
    fleet.hang(1)
    fleet.cancel(3)
    fleet.resume(1)
    fleet.shrink(0, 2)
    fleet.look()
    fleet.read_meters()
    for _ in fleet.crash(1):
        fleet.take_rows()
    fleet.restore(1)
    while (why := fleet.advance(200.0)) != "done":
        if why == "script":
            asks = fleet.take_asks()
            fleet.continue_sessions(asks, requests[:0])
    fleet.take_ended()
    list(fleet.close())
    fleet.check_laws()
