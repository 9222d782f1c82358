"""Five common alert rules and a budget: what they do on healthy days, when they fire, and what they cannot see."""

from functools import partial

import numpy as np

from sim.quality import budgets
from sim.seed.lab import Lab
from sim.seed.serving import lindley
from sim.seed.verdicts import Check, Found, exact
from sim.theory.chance import Interval

DAYS = 30
FOUR_CHIPS = ("a100", "h100", "h200", "b200")
TRACES = ("azure", "mooncake")
IDLE = """
name: idle
duration: 2h
warmup: 2m
rows: none
vary:
  fleet.hardware: [a100, h100, h200, b200]
  workload.cohorts:
    - azure: &azure {prompt_tokens: {named: azure-conv-prompt}, output_tokens: {named: azure-conv-output}}
    - mooncake: {prompt_tokens: {named: mooncake-conv-prompt}, output_tokens: {named: mooncake-conv-output}}
fleet: {model: llama-3.1-8b, hardware: h100, replicas: 1}
workload:
  rate_per_s: 0.05
  cohorts: {azure: *azure}
"""
"""Two recorded mixes of lengths, four GPUs, and a request every 20 s: hardly anybody waits for anybody."""
AUDIT = ("usual", "surge", "less_memory", "long_prompts")


def _idle(lab: Lab) -> dict[str, dict[str, Interval]]:
    """Return, by trace and GPU, P95 of answers and P99/P50 of answers and of the time per token."""
    cells = [(chip, trace) for trace in TRACES for chip in FOUR_CHIPS]
    asked = {}
    for chip, trace in cells:
        at = f"[{chip}, {trace}]"
        asked[f"p95_{chip}_{trace}"] = f"e2e_p95{at}"
        asked[f"ratio_{chip}_{trace}"] = f"e2e_p99{at} / e2e_p50{at}"
        asked[f"per_token_{chip}_{trace}"] = f"tpot_p99{at} / tpot_p50{at}"
    found = lab.play(IDLE, asked, few=1)
    return {
        f"{trace} on {chip}": {what: found[f"{what}_{chip}_{trace}"] for what in ("p95", "ratio", "per_token")}
        for chip, trace in cells
    }


def false_pages(rng: np.random.Generator, rate_per_s: float, base: float) -> float:
    """Return how often "more than 1% over 5 minutes, for 5 minutes" fires in 30 days in which nothing happens."""
    looks = DAYS * 24 * 60 * 4  # one every 15 s
    failed = np.cumsum(rng.poisson(15 * rate_per_s * base, looks))
    asked = failed + np.cumsum(rng.poisson(15 * rate_per_s * (1 - base), looks))
    window = 20
    with np.errstate(invalid="ignore"):
        high = (failed[window:] - failed[:-window]) > 0.01 * (asked[window:] - asked[:-window])
    held = np.convolve(high, np.ones(window, int), "valid") == window
    return float((held[1:] & ~held[:-1]).sum() + held[0])


def error_rate(lab: Lab) -> Found:
    """Claim 29: a month of nothing, at the article's own error rate."""
    busy = {
        rate: lab.sample(f"pages at {rate}", partial(false_pages, rate_per_s=rate, base=0.01))
        for rate in (10.0, 2778.0)
    }
    base = (0.006, 0.008, 0.01, 0.012)
    table = {
        rate: [lab.sample(f"pages {rate} {b}", partial(false_pages, rate_per_s=rate, base=b)).estimate for b in base]
        for rate in (1.0, 2778.0)
    }
    checks = [Check(f"false pages in 30 days at {rate:,.0f} requests/s", found, 0, 1) for rate, found in busy.items()]
    why = (
        f"At the 1% that the article calls normal it pages {busy[10.0].estimate:.0f} times a month from chance "
        "alone. What it means "
        "depends on traffic: the same rule at 0.8% is silent on a large service and pages on a small one."
    )
    return Found(checks, why, {"base": base, "table": table})


def p95(lab: Lab) -> Found:
    """Claim 30: nobody waits, and answers are long."""
    cells = _idle(lab)
    silent = np.mean([cell["p95"].high <= 3 for cell in cells.values()])
    times = sorted(cell["p95"].estimate for cell in cells.values())
    why = (
        f"P95 is {times[0]:.1f} to {times[-1]:.1f} s on an idle service with recorded lengths, because long answers "
        "take "
        f"long: {silent:.0%} of {len(cells)} are silent. It belongs on the time to the first token."
    )
    return Found([Check("of idle services on which it is silent", exact(float(silent)), 1, 1, "share")], why)


def ratio(lab: Lab) -> Found:
    """Claim 31: idle, and overloaded."""
    cells = _idle(lab)
    silent = np.mean([cell["ratio"].high <= 3 for cell in cells.values()])
    loads = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5)
    curve = {load: lab.sample(f"ratio at {load}", partial(_ratio, load=load)) for load in loads}
    gain = lab.sample("ratio gain", lambda rng: _ratio(rng, 1.3) - _ratio(rng, 0.8))
    per_token = [cell["per_token"].estimate for cell in cells.values()]
    checks = [
        Check("of idle services on which it is silent", exact(float(silent)), 1, 1, "share"),
        Check("P99/P50 at 130% of capacity, minus that at 80%", gain, 0, np.inf),
    ]
    why = (
        f"Lengths differ, so the ratio is above three on {1 - silent:.0%} of idle services; and it falls when a "
        "queue is "
        f"overloaded ({curve[1.3].estimate:.1f} at 130%), when everybody waits. Per token it is "
        f"{min(per_token):.2f} to "
        f"{max(per_token):.2f} when idle, above three on {sum(x > 3 for x in per_token)} of them."
    )
    return Found(checks, why, {"cells": cells, "curve": curve})


def _ratio(rng: np.random.Generator, load: float) -> float:
    wait = lindley(rng, load, 60_000)[20_000:]
    took = wait + rng.exponential(1.0, wait.size)
    return float(np.quantile(took, 0.99) / np.quantile(took, 0.5))


def _audit(lab: Lab) -> dict[str, Interval]:
    asked = {
        "kv_sees_memory": "alert.LLMKVCacheHigh.caught[less_memory]",
        "kv_sees_prompts": "alert.LLMKVCacheHigh.caught[long_prompts]",
        "kv_late": "alert.LLMKVCacheHigh.detection_s[less_memory]",
        "surge_late": "alert.seed.detection_s[surge]",
        "memory_late": "alert.seed.detection_s[less_memory]",
    }

    def keep(path: str, value: object) -> bool:
        return isinstance(value, list) and value[0].get("name") in AUDIT

    return lab.play("alert-audit", asked, ["telemetry.evaluate=10%"], keep, few=1)


def kv(lab: Lab) -> Found:
    """Claim 32: how much of it, and how late."""
    found = _audit(lab)
    late = found["kv_late"]
    checks = [
        Check("of incidents caught when memory is short", found["kv_sees_memory"], 1, 1, "share"),
        Check("of incidents caught when prompts are long", found["kv_sees_prompts"], 1, 1, "share"),
        Check("from users' first harm to the page", late, -np.inf, 300, "s"),
    ]
    why = (
        f"It sees memory that is short, {late.estimate / 60:.0f} minutes after users do; a queue that fills for "
        "another reason "
        "it does not see at all."
    )
    return Found(checks, why)


def quality(lab: Lab) -> Found:
    """Claim 33: how many more errors it takes."""
    error, multiple = budgets.blindness(0.99)
    accuracy = np.linspace(0.6, 0.995, 159)
    curve = np.array([budgets.blindness(float(a))[1] for a in accuracy])
    check = Check("times the errors before it fires, at 99% right", exact(multiple), 1, 2, "times")
    why = (
        f"At 99% right it fires at {error:.1%} wrong: {multiple:.1f} times the errors. Five times as many, half a "
        "million a "
        f"day, never page. At 80% right it is {budgets.blindness(0.8)[1]:.1f} times. Put the rule on the error rate."
    )
    return Found([check], why, {"accuracy": accuracy, "multiple": curve})


def early(lab: Lab) -> Found:
    """Claim 34: before or after."""
    found = _audit(lab)
    served = 10e6 / 86400 * 300
    checks = [
        Check("from users' first harm to the first page: more users", found["surge_late"], -np.inf, 0, "s"),
        Check("from users' first harm to the first page: less memory", found["memory_late"], -np.inf, 0, "s"),
        Check("requests served before a rule of 5 minutes can fire", exact(served), 0, 0),
    ]
    why = (
        f"A rule that must hold for 5 minutes fires after {served:,.0f} requests of ten million a day. In the audit "
        "the five "
        f"page {found['surge_late'].estimate / 60:.0f} and {found['memory_late'].estimate / 60:.0f} minutes after "
        "users are hurt."
    )
    return Found(checks, why)


def budget(lab: Lab) -> Found:
    """Claim 46: what 2% of a month allows."""
    rows = budgets.table(0.02)
    monthly = 300e6 * 0.02
    used = lab.sample("budget", lambda rng: float(rng.binomial(int(300e6), 0.01)) / monthly)
    burn = budgets.burn(0.01, 0.02)
    checks = [
        Check("of the budget that 1% wrong uses in a month", used, 0, 1, "share"),
        Check("burn rate at which the 1% rule pages", exact(burn), 1, np.inf, "times"),
    ]
    why = (
        f"2% of 300 million is {monthly / 1e6:.0f} million wrong answers a month, and 1% wrong uses half of them: "
        "healthy, and the 1% rule pages. "
        f"The usual burn-rate pages are blunt here: 14.4 times means {rows[0].error:.1%} wrong."
    )
    return Found(checks, why, {"rows": [(row.alert.multiplier, row.alert.window_s, row.error) for row in rows]})


MEASURES = {29: error_rate, 30: p95, 31: ratio, 32: kv, 33: quality, 34: early, 46: budget}
