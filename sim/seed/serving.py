"""What the engine does under load: cliffs, tails, and who waits. Played by the simulator, every engine step of it."""

import numpy as np

from sim.seed.lab import Lab
from sim.seed.verdicts import Check, Found, exact
from sim.theory.queues import mm1_sojourn_quantile_s, mmc_wait_quantile_s

ONE_BAD, LONG = "one-bad-replica", "long-prompt-hol"
CLIFF = {
    f"{name}_{stat}_{where}": f"{name}_{stat}[{rate}]"
    for where, rate in (("below", "1.85"), ("above", "2.22"))
    for name, stat in (("ttft", "p50"), ("ttft", "p99"), ("kv", "mean"))
} | {
    "tail": "ttft_p99[2.22] / ttft_p99[1.85]",
    "median": "ttft_p50[2.22] / ttft_p50[1.85]",
    "bad": "bad[2.4] / bad[1.85]",
    "bad_low": "bad[1.85]",
    "bad_high": "bad[2.4]",
}  # fmt: skip
LATE = (
    "workload.cohorts.reasoning.error=1%",
    "quality={causes: {without_sources: {error: 50%, above: {ttft: 2s}}}}",
)
"""Who waits longer than 2 s for a first token is answered without the sources that were to be looked up."""

TWO_SIGNALS = """
name: two-signals
duration: 8m
warmup: 2m
rows: none
vary:
  faults:
    - - &quiet {name: usual, surge: all, from: 7m59s, to: 8m, factor: 1}
    - - {name: long_prompts, shift: all, prompt_factor: 5}
    - - {name: long_answers, shift: all, output_factor: 5}
fleet: {model: llama-3.1-8b, hardware: h100, replicas: 2}
workload:
  rate_per_s: 8
  cohorts:
    chat: {prompt_tokens: {lognormal: {median: 800, sigma: 0.5}}, output_tokens: {lognormal: {median: 250, sigma: 0.5}}}
"""
GREEN = """
name: all-green
duration: 8m
warmup: 2m
rows: none
vary:
  workload.cohorts:
    - well: &well {prompt_tokens: {named: azure-conv-prompt}, output_tokens: {named: azure-conv-output}, error: 1%}
    - edited: {prompt_tokens: {named: azure-conv-prompt}, output_tokens: {named: azure-conv-output}, error: 5%}
fleet: {model: llama-3.1-8b, hardware: h100, replicas: 2}
workload:
  rate_per_s: 12
  cohorts: {well: *well}
"""


def under_load(lab: Lab) -> Found:
    """Claim 16: the same model, busier."""
    found = lab.play("kv-cliff", CLIFF, LATE, lambda path, rate: rate in (1.85, 2.22, 2.4), few=3)
    why = (
        f"The same model is {found['bad_low'].estimate:.1%} wrong at 1.85 requests/s and "
        f"{found['bad_high'].estimate:.1%} at "
        "2.4, if whoever waits more than 2 s is answered without the sources that were to be looked up."
    )
    return Found([Check("wrong answers at 30% more load", found["bad"], 1.2, np.inf, "times")], why)


def green(lab: Lab) -> Found:
    """Claim 22: five times the errors, and what infrastructure shows of it."""
    questions = {
        "latency": "ttft_p99[edited] / ttft_p99[well]",
        "errors": "errors[edited]",
        "wrong": "wrong[edited] / wrong[well]",
    }
    found = lab.play(GREEN, questions, few=1)
    checks = [
        Check("P99 to first token, after over before", found["latency"], 0.95, 1.05, "times"),
        Check("requests that failed", found["errors"], 0, 0.001, "share"),
        Check("wrong answers, after over before", found["wrong"], 3, np.inf, "times"),
    ]
    return Found(
        checks, f"{found['wrong'].estimate:.1f} times the wrong answers, and not one latency or error code differs."
    )


def signals(lab: Lab) -> Found:
    """Claim 24: long prompts move the one, long answers the other."""
    questions = {
        name: f"ttft_p50[{name}] / ttft_p50[usual] / (tpot_p50[{name}] / tpot_p50[usual])"
        for name in ("long_prompts", "long_answers")
    }
    found = lab.play(TWO_SIGNALS, questions, few=1)
    checks = [
        Check("TTFT grows, over TPOT: prompts five times as long", found["long_prompts"], 1.2, np.inf, "times"),
        Check("TTFT grows, over TPOT: answers five times as long", found["long_answers"], 0, 1, "times"),
    ]
    why = "Longer prompts move the first more than the second, longer answers the second more than the first."
    return Found(checks, why)


def cliff(lab: Lab) -> Found:
    """Claim 25: a fifth more load, and how full the cache is."""
    found = lab.play("kv-cliff", CLIFF, LATE, lambda path, rate: rate in (1.85, 2.22, 2.4), few=3)
    kv = found["kv_mean_above"]
    checks = [
        Check("P99 to first token, at a fifth more load", found["tail"], 5, np.inf, "times"),
        Check("KV memory in use beyond the cliff, on average", kv, 0.9, 1, "share"),
    ]
    why = (
        f"A cliff: 20% more load, {found['tail'].estimate:.0f} times the P99. But "
        f"memory is {kv.estimate:.0%} full on average when it has happened: 90% for 15 minutes comes long after."
    )
    return Found(checks, why, {name: tuple(value) for name, value in found.items()})


BAD = {
    "p99": "ttft_p99@4m-24m / ttft_p99@2m-4m",
    "p95": "ttft_p95@4m-24m / ttft_p95@2m-4m",
    "p50": "ttft_p50@4m-24m / ttft_p50@2m-4m",
    "tail_grows": "ttft_p99@14m-24m / ttft_p99@4m-14m",
    "median_grows": "ttft_p50@14m-24m / ttft_p50@4m-14m",
} | {f"{stat}_{name}": f"ttft_{stat}@{window}" for stat in ("p50", "p95", "p99")
     for name, window in (("before", "2m-4m"), ("after", "4m-24m"))}  # fmt: skip
ROUND_ROBIN = "fleet.router=round_robin"


def one_bad(lab: Lab) -> Found:
    """Claim 35: one of fifty replicas is slow."""
    found = lab.play(ONE_BAD, BAD, [ROUND_ROBIN], few=1)
    checks = [
        Check("P99 to first token", found["p99"], 5, np.inf, "times"),
        Check("P50 to first token", found["p50"], 0.85, 1.15, "times"),
    ]
    why = (
        f"One of fifty replicas, three times slower: P99 {found['p99'].estimate:,.0f} times as long, P95 "
        f"{found['p95'].estimate:.2f}, P50 {found['p50'].estimate:.2f}. Who is sent there is 2% of the users."
    )
    return Found(checks, why, {name: tuple(value) for name, value in found.items()})


def queue_grows(lab: Lab) -> Found:
    """Claim 36: their own queue, or everybody's."""
    found = lab.play(ONE_BAD, BAD, [ROUND_ROBIN], few=1)

    def shared(rng: np.random.Generator) -> float:
        wait = lindley(rng, 1.2, 40_000)
        return float(np.median(wait[20_000:]) / np.median(wait[:20_000]))

    everyone = lab.sample("a shared queue", shared)
    checks = [
        Check(
            "the slow replica: P99 of its second ten minutes over the first", found["tail_grows"], 1.2, np.inf, "times"
        ),
        Check("the slow replica: the same of P50", found["median_grows"], 0.85, 1.15, "times"),
        Check("one queue for all, overloaded: the same of P50", everyone, 0.85, 1.15, "times"),
    ]
    why = (
        "If the 1% have a queue of their own (a slow replica, a tenant, a priority). In one queue for all, one that "
        "only "
        f"grows is everybody's: P50 is {everyone.estimate:.1f} times as long in the second half."
    )
    return Found(checks, why)


def lindley(rng: np.random.Generator, load: float, n: int) -> np.ndarray:
    """Return the waits (n,) of one FIFO queue that begins empty, in mean services: Lindley's recursion, all at once."""
    steps = rng.exponential(1.0, n) - rng.exponential(1 / load, n)
    walk = np.concatenate([[0.0], np.cumsum(steps)[:-1]])
    waits: np.ndarray = walk - np.minimum.accumulate(walk)
    return waits


def together(lab: Lab) -> Found:
    """Claim 37: one server, or ten."""

    def ratio(load: float) -> float:
        return mm1_sojourn_quantile_s(0.99, load, 1.0) / mm1_sojourn_quantile_s(0.5, load, 1.0)

    waits = [(mmc_wait_quantile_s(0.5, load, 1.0, 10), mmc_wait_quantile_s(0.99, load, 1.0, 10)) for load in (5.0, 8.0)]
    checks = [
        Check("one server: P99/P50 at load 0.9 over that at 0.3", exact(ratio(0.9) / ratio(0.3)), 0.99, 1.01, "times"),
        Check(
            "ten servers: P50 of the wait grows from load 0.5 to 0.8, s", exact(waits[1][0] - waits[0][0]), 0.01, np.inf
        ),
    ]
    why = (
        f"With one server P99 is {ratio(0.5):.2f} times P50 at every load. With ten, P50 of the wait is 0 at both "
        "loads while P99 "
        f"goes from {waits[0][1]:.2f} to {waits[1][1]:.2f} services: any fleet with a load balancer has that tail."
    )
    return Found(checks, why)


def blind_p95(lab: Lab) -> Found:
    """Claim 38: one user in seven hundred attaches a book."""
    questions = {
        stat: f"cohort.chat.ttft_{stat}[chat, 512] / cohort.chat.ttft_{stat}[books, 512]"
        for stat in ("p50", "p95", "p99")
    }
    found = lab.play(LONG, questions, keep=lambda path, value: value != 65536, few=1)
    checks = [
        Check("P99 of the others' time to first token", found["p99"], 5, np.inf, "times"),
        Check("P95 of it", found["p95"], 0, 1.6, "times"),
    ]
    why = (
        f"One user in seven hundred sends 60,000 tokens: for the others P99 is {found['p99'].estimate:.0f} times as "
        "long, and "
        f"P95 {found['p95'].estimate:.2f}. What hits less than 5% of the users is invisible at P95."
    )
    return Found(checks, why, {name: tuple(value) for name, value in found.items()})


MEASURES = {
    16: under_load, 22: green, 24: signals, 25: cliff, 35: one_bad, 36: queue_grows, 37: together, 38: blind_p95,
}  # fmt: skip
