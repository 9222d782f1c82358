"""The service as the engine knows it: pools and clients of a scenario, in the engine's own terms."""

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from sim.engine.config import ClientPolicy, PoolConfig
from sim.engine.hardware import PoolSpec
from sim.engine.state import LEVELS
from sim.records import Outcome
from sim.scenario import Clients, Scenario
from sim.scenario.clients import PatienceDraw
from sim.scenario.fleet import PowerOfD, PrefixAffinity
from sim.scenario.targets import largest


def pool_config(scenario: Scenario, name: str, spec: PoolSpec) -> PoolConfig:
    """Return what the engine needs of pool *name*, resolved to *spec*."""
    pool = scenario.fleet.pools[name]
    router, routing = scenario.fleet.routing
    admission = pool.admission or scenario.fleet.admission
    queue = admission.max_queue if isinstance(admission.max_queue, list) else [admission.max_queue] * LEVELS
    first, second, third, fourth = (n or 0 for n in queue)
    return PoolConfig(
        steps=spec.steps,
        replicas=pool.replicas,
        spares=largest(scenario, name) - pool.replicas,
        blocks=spec.kv_blocks,
        router=router,
        choices=routing.choices if isinstance(routing, PowerOfD) else 2,
        refresh_s=routing.refresh,
        count_own=routing.count_own,
        load_bound=routing.load_bound if isinstance(routing, PrefixAffinity) else 1.25,
        prefix_caching=pool.prefix_caching,
        max_queue=(first, second, third, fourth),
        max_outstanding=admission.max_outstanding or 0,
        max_wait_s=or_inf(admission.max_wait),
        deadline_aware=admission.deadline_aware,
        limit_per_s=or_inf(admission.limit_per_s),
        limit_burst=admission.burst or max(1.0, admission.limit_per_s or 0.0),
        block_size=spec.block_size,
        max_seqs=spec.max_num_seqs,
        max_tokens=spec.max_num_batched_tokens,
        max_len=spec.max_model_len,
        watermark=spec.watermark_blocks,
        reserve_full=spec.reserve_full_isl,
        chunked=spec.chunked_prefill,
        noise=spec.noise_sigma,
        slow_noise=spec.slow_sigma,
        slow_period_s=spec.slow_period_s,
        ingress_s=spec.ingress_s,
        egress_s=spec.egress_s,
        fallback=pool.fallback,
    )


def client_policy(clients: Clients) -> ClientPolicy:
    """Return what the engine needs of a cohort's *clients*."""
    patience, backoff, budget, hedge = clients.patience, clients.backoff, clients.retry_budget, clients.hedge
    drawn = patience.choice[1].mean if isinstance(patience, PatienceDraw) else None
    return ClientPolicy(
        timeout_s=or_inf(clients.timeout),
        first_token_s=or_inf(clients.first_token_timeout),
        deadline_s=or_inf(clients.deadline),
        patience_s=or_inf(drawn if isinstance(patience, PatienceDraw) else patience),
        patience_exponential=drawn is not None,
        retries=clients.retries,
        retry_on=frozenset(Outcome[name.upper()] for name in clients.retry_on),
        backoff_s=backoff.base,
        backoff_factor=backoff.factor,
        backoff_max_s=or_inf(backoff.max),
        jitter=backoff.jitter,
        budget=budget.share if budget else math.inf,
        budget_burst=budget.burst if budget else 10.0,
        throttle=clients.throttle or 0.0,
        hedge_s=hedge.after if hedge else math.inf,
        hedge_share=hedge.share if hedge else 1.0,
        hedge_cancel=hedge.cancel if hedge else True,
        zombie=clients.disconnect == "zombie",
        limit_per_s=or_inf(clients.limit_per_s),
        limit_burst=clients.burst or max(1.0, clients.limit_per_s or 0.0),
    )


def or_inf(value: float | None) -> float:
    """Return *value*, or infinity where nobody set one."""
    return math.inf if value is None else value


class Met:
    """What the pools of a run have met, to be held against what their profiles have measured.

    Batches are those seen when replicas are looked at; prompts and answers those that were asked for.
    """

    def __init__(self, specs: Mapping[str, PoolSpec]) -> None:
        self._specs = specs
        self._watched = any(spec.profile is not None and spec.profile.range for spec in specs.values())
        self._sequences, self._prompt, self._context = np.zeros((3, len(specs)), np.int64)

    def heard(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass on *chunks* of requests (`sim.records.REQUEST`), having looked at their lengths."""
        for rows in chunks:
            self.hear(rows)
            yield rows

    def hear(self, rows: np.ndarray) -> None:
        """Look at the lengths of what is asked in *rows* (`sim.records.REQUEST`)."""
        if self._watched and len(rows):
            np.maximum.at(self._prompt, rows["pool"], rows["prompt_tokens"])
            np.maximum.at(self._context, rows["pool"], rows["prompt_tokens"] + rows["output_tokens"])

    def look(self, pool: np.ndarray, running: np.ndarray) -> None:
        """Look at how many sequences are *running* on each replica, which is of a *pool* (index)."""
        if self._watched:
            np.maximum.at(self._sequences, pool, running.astype(np.int64))

    def beyond(self, name: str) -> list[str]:
        """Return what pool *name* met that its profile has not measured: a sentence each."""
        spec, k = self._specs[name], list(self._specs).index(name)
        if spec.profile is None:
            return []
        step = min(int(self._prompt[k]), spec.max_num_batched_tokens)
        met = {"sequences": self._sequences[k], "prompt_tokens": step, "context": self._context[k]}
        return [f"pool {name}: {said}" for said in spec.profile.beyond({key: float(n) for key, n in met.items()})]
