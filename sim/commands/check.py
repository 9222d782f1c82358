"""``blowout check``: is a scenario sound, and what would it play?"""

import json
from pathlib import Path
from typing import Any

import click

from sim import scenario as scenarios
from sim.commands import ready
from sim.words import count


@click.command()
@click.argument("scenario", type=str)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting, by its dotted path.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(scenario: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check SCENARIO (a file, or the name of a shipped one) without playing it: settings, memory, users, claims."""
    from sim import workload
    from sim.engine.hardware import resolve

    loaded = ready.load(scenario, overrides)
    points = scenarios.points(loaded)
    users = [workload.compile(point, loaded.seed) for _, point in points]
    specs = {name: resolve(pool) for name, pool in points[0][1].fleet.pools.items()}
    pools: list[dict[str, Any]] = [
        {
            "pool": name,
            "replicas": points[0][1].fleet.pools[name].replicas,
            "kv_tokens": spec.kv_blocks * spec.block_size,
            "max_model_len": spec.max_model_len,
            "step_times": spec.provenance,
            "calibrated": spec.calibrated,
        }
        for name, spec in specs.items()
    ]
    requests = [round(one.expected_requests) for one in users]
    found = {
        "scenario": loaded.name,
        "points": len(points),
        "seeds": loaded.seeds,
        "requests": requests,
        "pools": pools,
        "claims": list(loaded.claims),
    }
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    click.echo(f"{Path(scenario)}: sound")
    runs = f"{count(len(points), 'point')} x {count(loaded.seeds, 'seed')}"
    click.echo(f"  {runs}, about {sum(requests) * loaded.seeds:,} requests")
    for pool in pools:
        kv = f"{pool['kv_tokens']:,} tokens of KV cache each, contexts up to {pool['max_model_len']:,}"
        click.echo(f"  pool {pool['pool']}: {count(pool['replicas'], 'replica')}, {kv}")
        click.echo(f"    step times: {pool['step_times']}")
    click.echo(f"  {count(len(loaded.claims), 'claim')}")
    click.echo(f"next: blowout run {scenario}")
