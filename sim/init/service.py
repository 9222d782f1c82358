"""Put together what a command line, pages of metrics and a Prometheus say of a service, and write it down."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from sim.engine.hardware import resolve
from sim.errors import HardwareError, InputError, ScenarioError
from sim.init.commandline import parse_vllm
from sim.init.complete import complete
from sim.init.facts import Fact, Service, derived, guessed
from sim.init.observe import observe
from sim.init.render import render, slug
from sim.init.sources import load_metrics, load_prometheus
from sim.scenario import loads
from sim.units import duration_s

RANGE_S = 3600.0
ENOUGH_REQUESTS = 3000  # for a P99 that means something: thirty requests lie beyond it


def describe(
    vllm: str | None = None,
    metrics: Sequence[str] = (),
    prometheus: str | None = None,
    over_s: float | str | None = None,
    range_: float | str | None = None,
    hardware: str | None = None,
    name: str | None = None,
) -> tuple[str, list[str]]:
    """Return a commented scenario of the service that is described, and notes on what to check first.

    *vllm* is a command line, *metrics* are files or URLs of /metrics pages, *prometheus* is the address of an
    HTTP API (token in BLOWOUT_PROMETHEUS_TOKEN). *over_s* is the time between two scrapes (10 s), *range_* the
    time asked of Prometheus (1 h): seconds or texts such as ``5m``. With nothing, a scenario to start from.

    Raises:
        InputError: text that is not what it should be; EndpointError: a server that does not answer as it should.
    """
    over, span_s = _duration("--over", over_s), _duration("--range", range_)
    told = parse_vllm(vllm) if vllm is not None else None
    services = observe([load_prometheus(prometheus, span_s or RANGE_S)]) if prometheus else []
    notes: list[str] = []
    if metrics:
        services = _joined(services, observe(load_metrics(metrics, over)))
    if told is not None:
        services = _merge(services, told, notes)
    services = services or [Service()]
    for service in services:
        notes += complete(service, hardware, told is not None)
        _workload(service)
    given = ["a vLLM command line"] * bool(vllm) + [_counted(len(metrics), "/metrics page")] * bool(metrics)
    given += ["Prometheus"] * bool(prometheus)
    title = slug(name if name is not None else (services[0].name or "").rsplit("/", 1)[-1], "my-service")
    text = render(services, title, given, _run(services))
    return text, [*notes, *_notes(services), *_obstacles(text)]


def _duration(option: str, value: float | str | None) -> float | None:
    try:
        return None if value is None else duration_s(value)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


def _merge(services: list[Service], told: Service, notes: list[str]) -> list[Service]:
    """Join the command line with the service that it started: what a running server says of itself is believed."""
    if not services:
        return [told]
    match = next((s for s in services if s.name in told.aliases), services[0] if len(services) == 1 else None)
    if match is None:
        names = ", ".join(str(s.name) for s in services)
        raise InputError(f"--vllm serves {told.name}, but the metrics are of {names}; expected metrics of that server")
    if match.name not in told.aliases:
        notes.append(f"the command line serves {told.name}, the metrics are of {match.name}: taken for the same")
    for field, fact in told.pool.items():
        seen = match.pool.get(field)
        if seen is None or field == "max_model_len":  # seen only in whole blocks
            match.pool[field] = fact
        elif seen.value != fact.value:
            notes.append(f"{field}: {fact.value} on the command line, {seen.value} in the metrics, which is used")
    match.unsupported += told.unsupported
    return services


def _joined(services: list[Service], seen: list[Service]) -> list[Service]:
    """Fill in what a Prometheus does not know of a model from the pages of its servers; its own counts are longer."""
    known = {service.name: service for service in services}
    for other in seen:
        service = known.get(other.name)
        if service is None:
            services.append(other)
            continue
        service.pool = {**other.pool, **service.pool}
        service.rate = service.rate or other.rate
        service.prompt, service.output = service.prompt or other.prompt, service.output or other.output
        service.observed = service.observed or other.observed
    return services


def _workload(service: Service) -> None:
    """Give *service* a rate and lengths, guessed where nobody counted."""
    why = "as in the Azure conversation trace of 2023"
    service.prompt = service.prompt or guessed({"named": "azure-conv-prompt"}, why)
    service.output = service.output or guessed({"named": "azure-conv-output"}, why)
    service.rate = service.rate or guessed(float(service.pool["replicas"].value), "one a second for each replica")


def _run(services: Sequence[Service]) -> dict[str, Fact]:
    rates = [service.rate for service in services if service.rate is not None]
    total = rates[0] if len(rates) == 1 else derived(math.fsum(r.value for r in rates), "the sum over all models")
    if len(rates) > 1 and any(rate.mark == "guessed" for rate in rates):
        total = guessed(total.value, "the sum over all models, some of them guessed")
    minutes = max(30, math.ceil(ENOUGH_REQUESTS / total.value / 60))
    duration = f"{minutes}m" if minutes <= 120 else f"{math.ceil(minutes / 60)}h"
    return {
        "duration": guessed(duration, f"at least {ENOUGH_REQUESTS} requests, and half an hour"),
        "warmup": guessed("2m", "what an empty service does first is not counted"),
        "router": guessed("least_outstanding", "or round_robin, random, power_of_d, prefix_affinity, session_sticky"),
        "rate_per_s": total,
        "clients": guessed({"timeout": None, "retries": 0}, "users wait for ever and do not try again"),
        "slo": guessed({"ttft_p99": "2s", "errors": "1%", "window": "30d"}, "write here what you promised"),
    }


def _notes(services: Sequence[Service]) -> Iterator[str]:
    for service in services:
        yield from (f"not taken over: {flag}: {why}" for flag, why in service.unsupported)
        users = {"rate_per_s": service.rate, "prompt_tokens": service.prompt, "output_tokens": service.output}
        facts = {**service.pool, **users}
        guesses = [field for field, fact in facts.items() if fact is not None and fact.mark == "guessed"]
        if guesses:
            of = f" for {service.name}" if len(services) > 1 else ""
            yield f"guessed{of}, so look at these first: {', '.join(guesses)}"


def _obstacles(text: str) -> Iterator[str]:
    """Check the scenario that was written, and yield why it cannot be played yet.

    Raises InputError when it is not even a scenario: what was described contradicts itself.
    """
    try:
        scenario = loads(text, "the scenario")
    except ScenarioError as error:
        raise InputError(f"what was described makes no valid scenario: {error}") from None
    for name, pool in scenario.fleet.pools.items():
        try:
            resolve(pool, Path(), f"pool {name}")
        except HardwareError as error:
            yield f"cannot be played yet: {error}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
