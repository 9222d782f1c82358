"""Does the engine schedule as vLLM did? Every step of a log beside the engine's, whatever the steps take."""

import dataclasses

import numpy as np

from benchmarks.replay import Level, asks_of, groups_of
from sim.calibrate.travel import had_room
from sim.engine.fleet import Fleet, PoolConfig
from sim.engine.latency import linear

HELD_S = 0.1  # a request that the log took later than this, and had no room for, waited in the engine
TRAVEL_S = 0.05  # it had certainly reached the engine after this


def same_steps(level: Level, **changes: object) -> tuple[int, int, int]:
    """Return how many steps of the log the engine makes exactly alike, its preemptions, and prompt tokens found cached.

    Step k lasts from k to k + 1. A request comes half a step before the one that took it in the log; one that the
    engine held (no seat, tokens or blocks) comes when it had surely arrived, so holding it is the engine's doing.
    *changes* break a rule of the engine's pool (`PoolConfig`), to see how many steps notice.
    """
    log, limits = level.log, level.limits
    found = level.admissions
    waited_s = log.start_s[found.first] - level.sent_s
    held = ~had_room(log, found, level.prompts.tokens, limits) & (waited_s > HELD_S)
    surely = np.searchsorted(log.start_s, level.sent_s + TRAVEL_S)
    arrives = np.where(held, np.minimum(surely, found.first), found.first)
    arrives = np.where(found.first < 0, surely, arrives)
    due = np.maximum(np.maximum.accumulate(arrives) - 0.5, 0.0)
    pool = PoolConfig(
        steps=linear(limits.max_seqs, limits.max_tokens, 1.0), replicas=1, blocks=limits.blocks,
        block_size=limits.block_size, max_seqs=limits.max_seqs, max_tokens=limits.max_tokens, max_len=limits.max_len,
        prefix_caching=level.hit is not None,
    )  # fmt: skip
    pool = dataclasses.replace(pool, **changes)  # type: ignore[arg-type]
    fleet = Fleet([pool], duration_s=len(log) + 1.0, leap=False, prefixes=groups_of(level))
    fleet.submit(asks_of(level, np.arange(len(due)), due))
    same = 0
    for step in range(len(log)):
        fleet.advance(step + 0.25)
        replica = fleet.reps[0]
        tokens = int(replica.decoding + replica.prefill_now)
        same += (int(replica.running), tokens) == (log.running[step], log.tokens[step])
    fleet.advance(len(log) + 1.0)  # until the last of them has its answer
    return same, int(fleet.reps.preemptions.sum()), int(fleet.take_rows()["cached_tokens"].sum())
