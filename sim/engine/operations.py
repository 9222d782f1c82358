"""What faults and operators do to a fleet: the verbs of the control plane; and the laws that hold whatever they do."""

import math
from collections.abc import Sequence

import numpy as np

from sim.engine import commands, state
from sim.engine.attempts import kick
from sim.engine.config import share_below
from sim.engine.prefix import count_cached, count_shared


class Operations:
    """Verbs that change a running fleet from now on; a replica, pool or cohort is named by its index."""

    w: np.recarray
    replicas: int
    pools: np.recarray
    reps: np.recarray
    meters: np.recarray
    seqs: np.recarray
    clients: np.recarray
    cache: np.recarray
    board: np.ndarray
    tab: np.ndarray
    tree: np.ndarray
    latency: np.ndarray

    @property
    def now_s(self) -> float:
        """The time up to which the fleet has been played."""
        return float(self.w[0].now_s)

    def slow(self, replica: int, factor: float) -> None:
        """Make the steps of *replica* take *factor* times as long (at least 1), from its next step on."""
        commands.set_slow(self.reps, self.tree, int(replica), max(1.0, float(factor)), self.now_s)

    def hang(self, replica: int) -> None:
        """Let nothing move on *replica*, which keeps its requests and takes new ones, until `resume`."""
        if not self.reps[replica].hung:
            self._catch_up(replica)
            commands.hang(self.reps, self.tree, int(replica), self.now_s)

    def resume(self, replica: int) -> None:
        """Let *replica* go on where it hung."""
        rep = self.reps[replica]
        if rep.hung:
            if rep.steps_planned and rep.decoding:
                self.meters[replica].held_s += self.now_s - rep.hung_s
            commands.resume(self.reps, self.tree, int(replica), self.now_s)
            self._kick(replica)

    def _catch_up(self, *replicas: int) -> None:
        """Count the steps that have ended until now as played."""
        for r in replicas:
            commands.catch_up(
                self.w[0], self.pools, self.reps, self.meters, self.board, self.latency, int(r), self.now_s
            )

    def _kick(self, replica: int) -> None:
        """Let *replica* begin a step if it is idle while requests wait for it."""
        rep = self.reps[replica]
        if rep.steps_planned == 0 and rep.waiting and not rep.hung:
            kick(
                self.w[0], self.pools, self.reps, int(replica), self.seqs, self.cache, self.board, self.tab, self.tree,
                self.now_s,
            )  # fmt: skip

    def restore(self, replica: int) -> None:
        """Turn *replica* on again (or a spare for the first time), with empty memory."""
        self.reps[replica].up = 1

    def drain(self, replica: int, draining: bool = True) -> None:
        """Let *replica* take no new requests, or take them again."""
        self.reps[replica].up = not draining

    def shrink(self, replica: int, blocks: int) -> None:
        """Take *blocks* KV blocks away from *replica*, in place of those taken before; 0 gives all back."""
        blocks = min(int(blocks), int(self.pools[self.reps[replica].pool].blocks))
        commands.take_blocks(self.reps, self.tree, int(replica), blocks, self.now_s)
        self._kick(replica)

    def refuse(self, replica: int, share: float, status: int = 503) -> None:
        """Let a *share* of the attempts sent to *replica* fail at once with *status*."""
        self.reps[replica].refuse, self.reps[replica].refuse_status = share, status

    def lose(self, replica: int, share: float) -> None:
        """Let a *share* of the attempts sent to *replica* never arrive: their clients wait until they time out."""
        self.reps[replica].lose = share

    def cut(self, replica: int, share: float) -> None:
        """Let a *share* of the streams that *replica* begins break off: status 200, and failed."""
        self.reps[replica].cut = share

    def delay(self, pool: int, seconds: float) -> None:
        """Let every attempt sent to *pool* from now on arrive *seconds* later."""
        self.pools[pool].delay_s = seconds

    def limit(self, pool: int, rate_per_s: float, burst: float = 1.0) -> None:
        """Let *pool* take at most *rate_per_s* attempts a second: a token bucket of *burst*.

        It is full at first; a limit in place of another goes on with what that one had left.
        """
        gate = self.pools[pool]
        if math.isfinite(gate.limit_per_s):
            gate.limit_left += (self.now_s - gate.limit_at_s) * gate.limit_per_s
        else:
            gate.limit_left = burst
        gate.limit_per_s, gate.limit_burst = rate_per_s, burst
        gate.limit_left, gate.limit_at_s = min(gate.limit_left, burst), self.now_s

    def shed(self, pool: int, level: int) -> None:
        """Let *pool* refuse requests of priority *level* and below it (numbers from *level* on)."""
        self.pools[pool].shed_from = level

    def divert(self, pool: int, ways: Sequence[tuple[float, int, bool]]) -> None:
        """Send shares of what is asked of *pool* elsewhere, in place of those sent before.

        Each of *ways* is (share, pool that gets it or -1: rules answer at once, whether all of a session go together);
        a request takes the first that is meant for it. At most `state.DIVERSIONS` of them.
        """
        if len(ways) > state.DIVERSIONS:
            raise ValueError(f"expected at most {state.DIVERSIONS} diversions of a pool at the same time")
        record = self.pools[pool]
        record.divert_below = 0
        for k, (share, to, sticky) in enumerate(way for way in ways if way[0] > 0.0):
            record.divert_below[k], record.divert_to[k], record.divert_sticky[k] = share_below(share), to, sticky

    def shift(self, cohort: int, prompt_factor: float = 1.0, output_factor: float = 1.0) -> None:
        """Make the prompts and answers of *cohort* longer, for requests asked from now on."""
        self.clients[cohort].prompt_factor, self.clients[cohort].output_factor = prompt_factor, output_factor

    def check_laws(self) -> None:
        """Assert that no request and no KV block was lost; called at the end of every run, after `close`."""
        w = self.w[0]
        assert w.started == w.outcomes.sum(), "a request ended in no outcome, or in two"
        assert (self.clients.outcomes.sum(axis=0) == w.outcomes).all(), "cohorts do not add up to all requests"
        assert w.live == 0, "a request is still in flight"
        assert w.attempts_started == w.attempts_ended, "an attempt was lost"
        for r in range(self.replicas):
            self._check_memory(r)

    def _check_memory(self, r: int) -> None:
        rep = self.reps[r]
        total = int(self.pools[rep.pool].blocks)
        held = commands.count_held(self.pools, self.reps, self.seqs, r)
        held += count_shared(self.w[0], self.cache, r)
        grown = commands.next_growth(self.pools, self.reps, self.board, r)
        assert rep.free_blocks + rep.taken_blocks + held + grown == total, f"replica {r} lost KV blocks"
        assert rep.cached_free == count_cached(rep, self.cache), f"replica {r} lost cached blocks"
        idle = not rep.running
        assert not idle or rep.free_blocks + rep.taken_blocks == total, f"replica {r} is idle but holds KV blocks"
        assert not idle or not rep.waiting or rep.taken_blocks or rep.hung, f"replica {r} is idle while requests wait"
