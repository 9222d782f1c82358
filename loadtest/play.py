"""A whole load test: every point of a scenario and every repeat, one after the other, into one run folder."""

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loadtest import agreement, preflight
from loadtest.beside import Say, Wanted
from loadtest.counts import warm
from loadtest.drive import Drive, Progress, Targets
from loadtest.plan import Plan
from sim import __version__, results, workload
from sim.alerts.rulefile import Group
from sim.conclude import conclude
from sim.engine.hardware import resolve
from sim.errors import BlowoutError, HardwareError, RunError
from sim.interrupts import Interrupts
from sim.results import Run
from sim.run import Task, tasks_of
from sim.scenario import Scenario, digest, dump


@dataclass(frozen=True)
class Order:
    """What was asked for on the command line."""

    scenario: Scenario
    url: str
    model: str | None = None
    repeat: int | None = None
    workers: int = 1
    headers: Mapping[str, str] | None = None
    ca: str | None = None
    timeout_s: float | None = None
    max_requests: int | None = None
    max_tokens: int | None = None
    pages: tuple[str, ...] = ()
    prometheus: str | None = None
    prometheus_token: str | None = None
    stand_in: bool = False
    """The scenario's fleet was made up, for there was no scenario."""
    groups: Sequence[Group] = ()
    """Rules to watch meanwhile."""
    run_commands: bool = False
    excerpts: bool = False
    """Keep the beginnings of answers that failed a check."""
    prometheus_bin: str | None = None
    """A real Prometheus to start beside it."""
    rules: tuple[str, ...] = ()
    """The names of *groups*, as they were typed."""
    speed: float = 1.0
    """Model seconds a wall second: as fast as the endpoint is played."""


def planned(order: Order) -> preflight.Found:
    """Ask the endpoint who it is, and refuse what it or the tester could not bear.

    Raises:
        BlowoutError: as `preflight.planned` and `preflight.bearable`.
    """
    scenario = order.scenario
    users = workload.compile(scenario, scenario.seed)
    if not isinstance(users, workload.workload.Closed):
        preflight.bearable(users.expected_requests, scenario.duration / order.speed, order.workers)
    settings = {"timeout_s": order.timeout_s, "max_requests": order.max_requests, "max_tokens": order.max_tokens,
                "speed": order.speed}  # fmt: skip
    return preflight.planned(scenario, "", scenario.seed, order.url, order.model, order.ca, **settings)


def play(
    order: Order, found: preflight.Found, folder: Path, command: Sequence[str], progress: Progress,
    say: Say = lambda _: None,
) -> Run:  # fmt: skip
    """Drive the endpoint with every (point, repeat) of the scenario, and put down what happened.

    *say* hears what alerts do meanwhile.

    Raises:
        RunError: the tester was saturated; everything was written.
        EndpointError: the endpoint was gone; what had been measured was written.
        KeyboardInterrupt: interrupted; rows so far were kept.
    """
    scenario, started = order.scenario, time.time()
    tasks = tasks_of(scenario, folder, order.repeat)
    info = info_of(order, found, tasks, folder, command)
    (folder / "scenario.yaml").write_text(dump(scenario, folder), encoding="utf-8")
    results.write_json(folder / "run.json", info)
    warm()
    testers: list[dict[str, Any]] = []
    ended: dict[str, Any] = {"state": "interrupted"}
    with Interrupts() as interrupts:
        try:
            for task in tasks:
                testers.append(one(order, found, task, progress, interrupts, say))
                interrupts.check()
            ended = {"state": "complete"}
        except BlowoutError as error:
            ended = {"state": "failed", "error": str(error)}
            raise
        finally:
            wrong = [f"{task.words}{said}" for task, told in zip(tasks, testers) for said in told["wrong"]]
            judged = {"valid": not wrong, "wrong": wrong, "started": testers[0]["started"] if testers else None}
            results.write_json(folder / "run.json", info | ended | judged | {"wall_s": round(time.time() - started, 3)})
            conclude(Run.open(folder))
    return Run.open(folder)


def require_valid(run: Run) -> None:
    """Refuse a run in which the tester did not do its part.

    Raises:
        RunError: it was saturated.
    """
    if not run.info.get("valid", True):
        raise RunError(
            f"not valid: client-limited ({'; '.join(run.info['wrong'])}); add --workers, or a quieter machine"
        )


def one(
    order: Order, found: preflight.Found, task: Task, progress: Progress, interrupts: Interrupts, say: Say
) -> dict[str, Any]:
    """Drive one (point, seed); return what is said of the tester."""
    targets = Targets(order.pages or ((found.metrics_url,) if found.metrics_url and not order.prometheus else ()),
                      order.prometheus, order.prometheus_token, list(found.notes))  # fmt: skip
    plan = replace(
        found.plan, scenario=dump(task.scenario), seed=task.seed, salt=found.plan.salt + task.number,
        contexts=contexts(task.scenario),
    )  # fmt: skip
    wanted = Wanted(order.groups, order.excerpts, order.run_commands, found.faults_zero_s, found.faults_url, say)
    drive = Drive(plan, task.folder, order.workers, targets, order.headers or {}, wanted)
    every_s = task.scenario.scrape_interval
    try:
        with agreement.beside(
            order.prometheus_bin, task.folder, targets.pages, order.groups, every_s, order.speed
        ) as real:
            member = drive.run(progress, interrupts)
            if real is not None and not interrupts.asked:
                agreement.keep(real, task.folder)
    except BaseException:
        drive.abandon()
        raise
    tester: dict[str, Any] = member["tester"]
    return tester


def contexts(scenario: Scenario) -> dict[str, int]:
    """Return the longest context by pool, as the simulator has it; of a pool it cannot resolve, none."""
    found = {}
    for name, pool in scenario.fleet.pools.items():
        try:
            found[name] = resolve(pool).max_model_len
        except HardwareError:
            continue
    return found


def info_of(
    order: Order, found: preflight.Found, tasks: Sequence[Task], folder: Path, command: Sequence[str]
) -> dict[str, Any]:
    """Return what ``run.json`` says of a load test that begins."""
    plan: Plan = found.plan
    names = ("locust", "gevent", "geventhttpclient", "numpy", "pyarrow")
    return {
        "format": results.FORMAT,
        "kind": "measured",
        "name": order.scenario.name,
        "state": "running",
        "command": list(command),
        "scenario_sha256": digest(order.scenario),
        "seeds": sorted({task.seed for task in tasks}),
        "versions": {"blowout": __version__, "python": platform.python_version()} | {n: version(n) for n in names},
        "endpoint": {"url": plan.url, "models": plan.models, "version": found.version, "talk": vars(plan.talk)},
        "workers": order.workers,
        "stand_in_fleet": order.stand_in,
        "rules": list(order.rules),
        "speed": order.speed,
        "members": [
            {"point": task.point, "seed": task.seed, "path": str(task.folder.relative_to(folder))} for task in tasks
        ],
    }


__all__ = ["Order", "contexts", "info_of", "one", "planned", "play", "require_valid"]
