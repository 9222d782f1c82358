"""What tests of plans share: small scenarios that are played in a moment, and a bench to judge their fleets on."""

import io
import os
import re
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any

from sim import scenario as scenarios
from sim import workers
from sim.planning import fleets, objective, plan, prices, search
from sim.run import known_metrics
from sim.scenario import Scenario

CHAT = """
name: chat
duration: 4m
warmup: 30s
fleet: {model: llama-3.1-8b, hardware: h100, replicas: 1}
workload:
  rate_per_s: 30
  cohorts: {all: {prompt_tokens: {named: azure-conv-prompt}, output_tokens: {named: azure-conv-output}}}
slo: {ttft_p99: 1s, errors: 0.1%}
"""
ONE_SEAT = """
name: one-seat
duration: 20m
warmup: 2m
fleet: {replicas: 1, kv_blocks: 100000, max_num_seqs: 1, max_num_batched_tokens: 256, step_time: {linear: {base: 10ms}}}
workload:
  rate_per_s: 4
  cohorts: {all: {prompt_tokens: 1, output_tokens: {exponential: {mean: 100}}}}
"""
MEMORY = """
name: memory
duration: 4m
warmup: 30s
fleet: {replicas: 1, kv_blocks: 600, max_num_seqs: 64, max_num_batched_tokens: 2048,
        step_time: {linear: {base: 8ms, per_prefill_token: 20us, per_sequence: 100us}}}
workload:
  rate_per_s: 12
  cohorts:
    all: {prompt_tokens: {lognormal: {median: 300, sigma: 0.7}}, output_tokens: {lognormal: {median: 120, sigma: 0.6}}}
"""
TWO_POOLS = """
name: two-pools
duration: 4m
warmup: 30s
fleet:
  pools:
    chat: {model: llama-3.1-8b, hardware: h100, replicas: 1}
    deep: {model: llama-3.1-70b, hardware: h100, tensor_parallel: 4, replicas: 1}
workload:
  rate_per_s: 30
  cohorts:
    chat:
      {share: 0.95, pool: chat, prompt_tokens: {named: azure-conv-prompt}, output_tokens: {named: azure-conv-output}}
    deep: {share: 0.05, pool: deep, prompt_tokens: 500, output_tokens: {lognormal: {median: 400, sigma: 0.5}}}
"""
SLOW = CHAT + "faults: [{slow: main/0, from: 1m, to: 3m, factor: 4}]\n"


def read(text: str) -> Scenario:
    """The scenario in *text*, as a plan plays it."""
    return plan.lean(scenarios.loads(text))


def space_of(
    scenario: Scenario, varied: dict[str, Sequence[Any]], given: dict[str, float] | None = None
) -> fleets.Space:
    """The fleets of *varied*, at the public prices or those *given*."""
    cost = prices.Prices(given) if given else prices.read(None)
    return fleets.Space(scenario, fleets.axes(scenario, varied), cost)


def bench_of(
    space: fleets.Space,
    slo: str,
    crew: Executor,
    cases: Sequence[fleets.Case] = (),
    seeds: int = 6,
    error: float | None = 0.1,
) -> search.Bench:
    """A bench for the fleets of *space*."""
    bounds = objective.read(slo, known_metrics(space.scenario))
    usual = list(cases) or fleets.cases(space.scenario, 0, None)
    return search.Bench(space, bounds, usual, error, crew, seeds, 0.95, 2)


def question(text: str, slo: str, varied: dict[str, Sequence[Any]], **more: Any) -> plan.Question:
    """What is asked of a plan of the scenario in *text*, a fleet without a GPU at 1 an hour."""
    scenario = read(text)
    bounds = objective.read(slo, known_metrics(scenario))
    given = prices.Prices({"none": 1.0, **prices.PUBLIC})
    return plan.Question(scenario, bounds, tuple(fleets.axes(scenario, varied)), given, seeds=6, **more)


def processes_that_are_gone(*given: Any) -> ProcessPoolExecutor:
    """As `sim.workers.processes`, but somebody has killed one, and they take no more work."""
    pool = workers.processes(*given)
    with suppress(BrokenProcessPool):
        pool.submit(os._exit, 1).result()
    return pool


class Terminal(io.StringIO):
    """Where a person watches; as wide as COLUMNS says."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def nothing_is_cut(text: str, width: int) -> bool:
    """Whether in *text*, as a terminal shows it, no cell is shortened and only what is to be copied is wider."""
    above, _, _ = text.partition("Next")
    return "…" not in above and all(len(ANSI.sub("", line)) <= width for line in above.splitlines())


ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
