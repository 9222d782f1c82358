"""``blowout check``: is a scenario sound, and what would it play?"""

import json
from pathlib import Path

import click

from sim import claims, summary
from sim import scenario as scenarios
from sim.commands.run import check_fleet


@click.command()
@click.argument("scenario", type=str)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting, by its dotted path.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(scenario: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check SCENARIO (a file, or the name of a shipped one) without playing it: settings, memory, users, claims."""
    from sim import workload

    loaded = scenarios.load(scenario, overrides)
    specs = check_fleet(loaded, scenario)
    claims.check_metrics(loaded.claims, summary.metric_names(list(loaded.workload.cohorts)), f"{scenario}: claims")
    points = scenarios.points(loaded)
    users = [workload.compile(point, loaded.seed) for _, point in points]
    pools = [
        {
            "pool": name,
            "replicas": loaded.fleet.pools[name].replicas,
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
    click.echo(f"  {len(points)} points x {loaded.seeds} seeds, about {sum(requests) * loaded.seeds:,} requests")
    for pool in pools:
        click.echo(
            f"  pool {pool['pool']}: {pool['replicas']} replicas, {pool['kv_tokens']:,} tokens of KV cache each, "
            f"contexts up to {pool['max_model_len']:,}\n    step times: {pool['step_times']}"
        )
    click.echo(f"  {len(loaded.claims)} claims")
    click.echo(f"next: blowout run {scenario}")
