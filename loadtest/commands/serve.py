"""``blowout serve``: the fleet of a scenario behind the OpenAI API, in real time."""

import json
import math
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TextIO

import click

from sim import scenario as scenarios
from sim import summary
from sim.commands import ready
from sim.commands.run import warm
from sim.errors import InputError
from sim.interrupts import Interrupts
from sim.records import Outcome
from sim.scenario.cells import share
from sim.scenario.messages import condition
from sim.words import count

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.argument("scenario", type=str)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0: a free one.")
@click.option(
    "--speed", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True, help="Model seconds a wall second."
)
@click.option("--admin", is_flag=True, help="Open the routes under /admin, for faults by hand.")
@click.option("--errors-in-stream", is_flag=True, help="Refuse streams inside HTTP 200, as a full vLLM may.")
@click.option("--record", type=click.Path(path_type=Path, dir_okay=False), help="File to write who came, and when.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of all randomness (the scenario's own if left out).")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting, by its dotted path.")
@click.option("--json", "as_json", is_flag=True, help="Print where it listens, and what was served, as JSON.")
def command(
    scenario: str,
    host: str,
    port: int,
    speed: float,
    admin: bool,
    errors_in_stream: bool,
    record: Path | None,
    seed: int | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Serve SCENARIO (a file, or the name of a shipped one) to OpenAI clients, until it is interrupted.

    Its faults happen at their times from the start; its users are whoever calls. Exit code 0: it was interrupted.
    2: bad input. 3: the fleet could not keep up (OVERLOADED).
    """
    loaded = ready.load(scenario, [*overrides, *([f"seed={seed}"] if seed is not None else [])])
    point, played = scenarios.points(loaded)[0]
    if point:
        click.echo(f"serving the first point of the sweep: {condition(point)}", err=True)
    if played.fleet.cells > 1:
        click.echo(f"serving the first of {played.fleet.cells} cells", err=True)
        played = share(played, 0)
    warm()
    with Interrupts() as interrupts:
        with _opened(record) as file:
            server = _server(played, host, port, speed, admin, errors_in_stream, file)
            _print_start(server, played.name, host, speed, admin, as_json)
            with suppress(KeyboardInterrupt):
                server.run(interrupts.check)
        _print_end(server, as_json)
    return 0


def _opened(record: Path | None) -> Any:
    if record is None:
        return nullcontext(None)
    try:
        return record.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--record {record}: expected a file that can be written ({error.strerror})") from None


def _server(
    played: scenarios.Scenario, host: str, port: int, speed: float, admin: bool, in_stream: bool, file: TextIO | None
) -> Any:
    """Return a server that listens, its engine loaded: nothing is compiled while somebody waits."""
    try:
        from loadtest.endpoint.server import Server
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is missing: expected the extra, pip install 'blowout[loadtest]'") from None
    from loadtest.endpoint.clock import Clock
    from loadtest.endpoint.recording import Recording
    from loadtest.endpoint.room import Room
    from sim.engine import exercise

    exercise.exercise()
    room = Room(played, played.seed, Clock(speed), Recording(keep=admin, file=file))
    room.tick()
    room.rest_s()
    room.values()
    server = Server(room, host, port, admin=admin, errors_in_stream=in_stream)
    room.clock.start()
    return server


def _print_start(server: Any, name: str, host: str, speed: float, admin: bool, as_json: bool) -> None:
    url = f"http://{f'[{host}]' if ':' in host else host}:{server.port}"
    models = list(server.room.world.callers.longest)
    if as_json:
        click.echo(json.dumps({"url": url, "models": models, "speed": speed, "admin": admin}))
        return
    click.echo(f"{name} at {url}: {', '.join(models)}, {count(server.room.world.fleet.replicas, 'replica')}")
    if speed != 1.0:
        click.echo(
            f"speed {speed:g}: the engine and /metrics are in model seconds; one wall second is {speed:g} of them"
        )
    body = json.dumps({"model": models[0], "messages": [{"role": "user", "content": "hi"}], "stream": True})
    click.echo(f"\n  curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'")
    if admin:
        target = next(iter(server.room.world.specs))
        fault = json.dumps({"stop": f"{target}/0", "how": "hang", "lasting": "30s"})
        click.echo(f"  curl {url}/admin/fault -d '{fault}'")
        if host not in LOOPBACK:
            click.echo(f"whoever reaches {host} can let it fail by hand", err=True)
    click.echo(f"\nNext, in another shell: blowout init --metrics {url}/metrics\nCtrl-C ends it.")


def _print_end(server: Any, as_json: bool) -> None:
    """Say what was served, in model seconds."""
    world = server.room.world
    metrics = summary.latencies(world.histograms(), list(world.scenario.workload.cohorts))
    ended = {outcome.name.lower(): int(n) for outcome, n in zip(Outcome, world.fleet.w[0].outcomes)}
    said = {
        "model_s": round(float(world.fleet.now_s), 3),
        "requests": int(world.fleet.w[0].started),
        **ended,
        "output_tokens": int(world.fleet.reps.output_tokens.sum()),
        "preemptions": int(world.fleet.reps.preemptions.sum()),
        **{name: _or_none(metrics[name]) for name in ("ttft_p50", "ttft_p99", "e2e_p50", "e2e_p99")},
    }
    if as_json:
        click.echo(json.dumps(said))
        return
    ends = ", ".join(f"{n:,} {name}" for name, n in ended.items() if n) or "nobody came"
    click.echo(f"\nserved {said['model_s']:.0f} s: {ends}; {said['output_tokens']:,} tokens")
    if said["ttft_p50"] is not None:
        times = [
            f"{name.upper()} P50 {said[f'{name}_p50']:.3f} s, P99 {said[f'{name}_p99']:.3f} s"
            for name in ("ttft", "e2e")
        ]
        click.echo(f"{'; '.join(times)} (of the engine)")


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
