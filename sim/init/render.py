"""The scenario as text: short, in the order in which it is read, every value with how we know it beside it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sim.init.facts import POOL_FIELDS, Fact, Service, derived

WIDTH = 118
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*|\d+(\.\d+)?(ms|us|s|m|h|d|%)")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "none", "y", "n"}

_LEGEND = """\
# Every value says how it is known: measured (read from what was given), derived (follows from it, or is vLLM's own
# default) or guessed (nobody said: change these first). Then `blowout check FILE` and `blowout run FILE`."""

_MORE = """\
# What else can be said (`blowout schema` has all of it):
#   seeds: 10                                     # play it ten times, for intervals
#   vary: {workload.rate_per_s: [2.0, 4.0, 8.0]}  # play each of these loads
#   claims: {fast_enough: ttft_p99 <= 2s}         # decides the exit code
#   faults: [{stop: main/0, from: 5m, to: 8m}]    # and slow, lose, refuse, delay, misroute, surge, shift
#   control: [{health: main, action: restart}]    # and autoscale, rollout, breaker, shed, ramp
# under fleet:
#   overhead: 2ms                                 # host time added to each step
# under workload:
#   arrivals: {bursts: {rate_per_s: 20, mean_on: 30s, mean_off: 5m}}  # or gamma, diurnal, piecewise, closed
#   trace: FILE                                   # replay recorded requests instead of rate and lengths
# as lengths: 512, {lognormal: {median: 300, sigma: 0.7}}, {gamma: {mean: 400, cv: 1.2}}, {named: azure-conv-prompt}"""


def render(services: Sequence[Service], name: str, given: Sequence[str], run: Mapping[str, Fact]) -> str:
    """Return the YAML of a scenario of *services*.

    *run* holds what is said once (duration, warmup, router, rate_per_s, clients, slo), *given* what it comes from.
    """
    several = len(services) > 1
    out = [f"# A scenario from {_list(given) or 'nothing but guesses: a place to start'}, written by `blowout init`."]
    out += [_LEGEND, f"name: {name}", *_lines(0, {key: run[key] for key in ("duration", "warmup")}), "", "fleet:"]
    pools = pool_names(services)
    if several:
        out += [*_lines(2, {"router": run["router"]}), "  pools:"]
        for service, pool in zip(services, pools):
            out += [f"    {pool}: # {_clean(service.name or pool)}", *_pool(service, 6)]
    else:
        out += _pool(services[0], 2, {"router": run["router"]})
    out += ["", "workload:", *_lines(2, {"rate_per_s": run["rate_per_s"]}), "  cohorts:"]
    for service, pool in zip(services, pools):
        out.append(f"    {pool if several else 'all'}:")
        out += _cohort(service, pool if several else None, float(run["rate_per_s"].value))
    out += ["", *_lines(0, {"clients": run["clients"], "slo": run["slo"]}), "", _MORE]
    return "\n".join(out) + "\n"


def pool_names(services: Sequence[Service]) -> list[str]:
    """Return a name for the pool of each service, as short as the grammar of names allows, no two alike."""
    names: list[str] = []
    for service in services:
        base = slug((service.name or "model").rstrip("/").rsplit("/", 1)[-1], "model")
        names.append(base if base not in names else f"{base[:60]}-{len(names) + 1}")
    return names


def slug(text: str, otherwise: str) -> str:
    """Return *text* in lower case letters, digits and dashes, at most 64."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].rstrip("-") or otherwise


def _pool(service: Service, indent: int, before: Mapping[str, Fact] | None = None) -> Iterator[str]:
    facts = {field: service.pool[field] for field in POOL_FIELDS if field in service.pool}
    yield from _lines(indent, {**(before or {}), **facts})
    for flag, why in service.unsupported:
        yield from _wrapped(indent, f"not taken over: {flag}: {why}")


def _cohort(service: Service, pool: str | None, total: float) -> Iterator[str]:
    facts: dict[str, Fact] = {}
    if pool is not None and service.rate is not None:
        facts["pool"] = derived(pool, "each model has its own users")
        facts["share"] = derived(service.rate.value / total, f"{service.rate.value:g} of {total:g} requests a second")
    lengths = {"prompt_tokens": service.prompt, "output_tokens": service.output}
    yield from _lines(6, {**facts, **{key: fact for key, fact in lengths.items() if fact is not None}})
    for i, line in enumerate(service.observed):
        yield from _wrapped(6, line if i == 0 else f"  measured: {line}")


def _lines(indent: int, facts: dict[str, Fact]) -> Iterator[str]:
    """Write `key: value # comment`, comments in one column; a comment too long for the line stands above it."""
    texts = {key: f"{' ' * indent}{key}: {_yaml(fact.value)}" for key, fact in facts.items()}
    beside = [key for key in facts if len(texts[key]) <= 48]
    column = max((len(texts[key]) for key in beside), default=0) + 1
    for key, fact in facts.items():
        comment = _clean(fact.comment)
        line = f"{texts[key]:<{column}}" if key in beside else texts[key] + " "
        if len(line) + 2 + len(comment) <= WIDTH:
            yield f"{line}# {comment}"
        else:
            yield from _wrapped(indent, comment)
            yield texts[key]


def _wrapped(indent: int, text: str) -> Iterator[str]:
    words, line = _clean(text, keep_indent=True).split(" "), " " * indent + "#"
    for word in words:
        if len(line) + 1 + len(word) > WIDTH and line.strip() != "#":
            yield line
            line = " " * indent + "#  "
        line += " " + word
    yield line.rstrip()


def _clean(text: str, keep_indent: bool = False) -> str:
    """Return *text* as one printable line: what comes from outside must not end a comment."""
    head = re.match(r" *", text)[0] if keep_indent else ""  # type: ignore[index]
    return head + " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _yaml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.1f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
        case str():
            return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS - {"none"} else json.dumps(value)
        case dict():
            return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.items()) + "}"
        case None:
            return "none"
    return str(value)


def _list(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
