"""What is being done to the fleet, by everybody together.

Two faults that slow one replica multiply, two that lose shares of its requests combine, a replica is up when nobody
keeps it down, and when one of them ends the others stay. Whoever acts begins an effect and ends it; this module
tells the fleet what all of them make together.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sim.engine.fleet import Fleet

NO_LIMIT = (math.inf, 1.0)
RULES = -1
"""In place of a pool: rules answer, at once."""
NOTHING_SHED = 4
"""One above the lowest priority level."""


@dataclass(eq=False)
class Effect:
    """One thing that is being done, to replica, pool or cohort *where*; its *value* is what `Effects.begin` says."""

    kind: str
    where: int
    value: Any


class Effects:
    """Begins and ends effects, and knows which replicas run."""

    def __init__(self, fleet: Fleet, make_room: Callable[[], None]) -> None:
        """Start with a fleet whose spares are off; *make_room* takes its rows when a crash leaves many."""
        self._fleet = fleet
        self._make_room = make_room
        self._active: defaultdict[tuple[str, int], list[Effect]] = defaultdict(list)
        self._pool_of = [p for p, pool in enumerate(fleet.pools) for _ in range(int(pool.count))]
        self._off: set[int] = set()
        for p, (pool, config) in enumerate(zip(fleet.pools, fleet.configs, strict=True)):
            self._off |= set(range(int(pool.first) + config.replicas, int(pool.first + pool.count)))
            if config.limit_per_s < math.inf:  # the pool's own: what limits it for a while never lifts that one
                self._active["limit", p].append(Effect("limit", p, (config.limit_per_s, config.limit_burst)))
        self._running = set(range(len(self._pool_of))) - self._off
        self._draining: set[int] = set()
        self._hung: set[int] = set()

    def begin(self, kind: str, where: int, value: Any = None) -> Effect:
        """Begin an effect and return it, for `change` and `end`.

        On a replica: ``slow`` (factor), ``crash``, ``hang``, ``drain``, ``lose`` (share of attempts that never
        arrive), ``cut`` (share of streams that break), ``refuse`` (share, status), ``shrink`` (share of KV blocks
        taken away). On a pool: ``delay`` (seconds), ``limit`` (attempts a second, burst), ``shed`` (priority
        level), ``divert`` (share, the pool that gets it or `RULES`, whether all of a session go together; who began
        first goes first). On a cohort: ``shift`` (prompt factor, output factor).
        """
        effect = Effect(kind, where, value)
        self._active[kind, where].append(effect)
        self._apply(kind, where)
        return effect

    def change(self, effect: Effect, value: Any) -> None:
        """Give a begun *effect* another value."""
        effect.value = value
        self._apply(effect.kind, effect.where)

    def end(self, effect: Effect) -> None:
        """End *effect*; one that is over already (a hang that a restart has cured) stays so."""
        active = self._active[effect.kind, effect.where]
        if effect in active:
            active.remove(effect)
            self._apply(effect.kind, effect.where)

    def power(self, replica: int, on: bool) -> None:
        """Turn *replica* on (it runs unless something keeps it down) or off (what is in flight there fails)."""
        (self._off.discard if on else self._off.add)(replica)
        self._settle(replica)

    def powered(self, replica: int) -> bool:
        """Return whether *replica* is turned on; it may be down all the same."""
        return replica not in self._off

    def running(self, replica: int) -> bool:
        """Return whether *replica* is on and nothing keeps it down."""
        return replica in self._running

    def draining(self, replica: int) -> bool:
        """Return whether somebody lets *replica* take no new requests."""
        return bool(self._active["drain", replica])

    def _apply(self, kind: str, where: int) -> None:
        """Tell the fleet what all effects of this kind on *where* make together."""
        values = [effect.value for effect in self._active[kind, where]]
        fleet = self._fleet
        match kind:
            case "crash" | "hang" | "drain":
                self._settle(where)
            case "slow":
                fleet.slow(where, math.prod(values))
            case "lose":
                fleet.lose(where, together(values))
            case "cut":
                fleet.cut(where, together(values))
            case "refuse":  # the status of the last to begin
                fleet.refuse(where, together(share for share, _ in values), *[status for _, status in values[-1:]])
            case "shrink":
                blocks = int(fleet.pools[self._pool_of[where]].blocks)
                fleet.shrink(where, round(together(values) * blocks))
            case "delay":
                fleet.delay(where, math.fsum(values))
            case "limit":
                fleet.limit(where, *min(values, default=NO_LIMIT))
            case "shed":
                fleet.shed(where, min(values, default=NOTHING_SHED))
            case "divert":
                fleet.divert(where, values)
            case "shift":
                fleet.shift(where, *(math.prod(factors) for factors in zip((1.0, 1.0), *values)))
            case _:
                raise ValueError(f"no effect {kind!r}")

    def _settle(self, r: int) -> None:
        """Stop or start replica *r*, and let it drain or hang, as everybody together wants it."""
        run = r not in self._off and not self._active["crash", r]
        if r in self._running and not run:
            self._stop(r)
        elif run and r not in self._running:
            self._fleet.restore(r)
            self._running.add(r)
        if not run:
            return
        drain, hang = bool(self._active["drain", r]), bool(self._active["hang", r])
        if drain != (r in self._draining):
            self._fleet.drain(r, drain)
            (self._draining.add if drain else self._draining.discard)(r)
        if hang != (r in self._hung):
            (self._fleet.hang if hang else self._fleet.resume)(r)
            (self._hung.add if hang else self._hung.discard)(r)

    def _stop(self, r: int) -> None:
        """Fail what is in flight on *r* and turn it off; a process that hung is gone, and its hang with it."""
        self._active["hang", r].clear()
        if r in self._hung:
            self._fleet.resume(r)
        for _ in self._fleet.crash(r):
            self._make_room()
        self._running.discard(r)
        self._draining.discard(r)
        self._hung.discard(r)


def limit_of(rate_per_s: float) -> tuple[float, float]:
    """Return the value of a ``limit`` that lets through *rate_per_s*, and a second's worth at once.

    A bucket of a single token would let through much less: it is often full while nobody comes.
    """
    return rate_per_s, max(1.0, rate_per_s)


def together(shares: Iterable[float]) -> float:
    """Return the share that is hit when each of *shares* hits by itself: 1 - (1 - a)(1 - b)..."""
    return 1.0 - math.prod(1.0 - share for share in shares)
