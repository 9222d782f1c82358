"""Measured runs, opened: what each request asked and saw, what the engine behind it was told, and its step log."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sim.calibrate.steplog import Floats, Ints, StepLog, read_steps
from sim.calibrate.travel import Limits, Prompts, Transport, measure, taken_order
from sim.calibrate.travel import admissions as admissions_of
from sim.engine.config import PoolConfig
from sim.engine.hardware import PoolSpec, resolve
from sim.errors import InputError
from sim.records import REQUEST, Outcome
from sim.results import Member, Run, read_json
from sim.scenario import Scenario, points
from sim.service import pool_config
from sim.workload import prefixes

FEWEST = 30
"""Answered requests of a run, below which it tells next to nothing."""
MANY_LEFT_OUT = 0.02


@dataclass(frozen=True, eq=False)
class Measured:
    """One (point, seed) of a measured run, as far as one pool answered it: times in seconds from its start.

    Answered attempts in order of sending: *ttft_s* (nan where the first token was not seen) and *e2e_s* count from
    *sent_s*. *asks* is what they asked, as the fleet takes it (`sim.records.REQUEST`), *tree* the shared prefixes these
    point into. *left_out* attempts were not answered. *started* is the Unix time of t = 0, if it is known. *promised*:
    what the scenario's `slo` bounds, by metric.
    """

    name: str
    path: Path
    digest: str
    pool: str
    config: PoolConfig
    spec: PoolSpec
    sent_s: Floats
    ttft_s: Floats
    e2e_s: Floats
    asks: np.ndarray
    tree: np.ndarray
    left_out: int
    started: float | None
    log: StepLog | None = None
    log_name: str = ""
    notes: tuple[str, ...] = field(default=())
    promised: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sent_s)

    @property
    def has_ttft(self) -> bool:
        """Tell whether first tokens were seen."""
        return bool(np.isfinite(self.ttft_s).mean() > 0.9)

    def transport(self) -> Transport | None:
        """Return the travel times between client and engine that its step log shows; None where it shows none.

        Only one engine, whose log is known, and clients that saw first tokens can tell.
        """
        if self.log is None or not self.has_ttft or self.config.replicas > 1:
            return None
        config, asks = self.config, self.asks
        limits = Limits(config.max_seqs, config.max_tokens, config.blocks, config.block_size, config.max_len)
        shared = int(self.tree["tokens"].max(initial=0)) if config.prefix_caching else 0
        group = asks["prefix"] if shared else np.full(len(asks), -1)
        prompts = Prompts(asks["prompt_tokens"].astype(np.int64), group, shared, config.block_size)
        taken, cached = taken_order(self.log, prompts, config.max_tokens)
        tokens, sent_s = prompts.tokens[taken], self.sent_s[taken]
        found = admissions_of(self.log, tokens - cached)
        if (found.last >= 0).sum() < FEWEST:
            return None
        return measure(self.log, limits, found, tokens, sent_s, sent_s + self.ttft_s[taken])


def open_runs(paths: Sequence[Path], pool: str | None, logs: Sequence[Path] = ()) -> list[Measured]:
    """Return every (point, seed) of the measured runs in *paths*, as far as *pool* answered it, with its step log.

    *logs*: one of vLLM's own for all of them, or one for each, in the order of the runs.

    Raises:
        InputError: a run is simulated, has too few answers or no such pool; logs that fit no run.
    """
    members = []
    for path in paths:
        run = Run.open(path)
        if run.info.get("kind") != "measured":
            raise InputError(
                f"{path}: expected a measured run (of `blowout load run`, or `blowout import`), but it is simulated"
            )
        scenarios = {tuple(point.items()): scenario for point, scenario in points(run.scenario)}
        members += [(run, member, scenarios[tuple(member.point.items())]) for member in run.members]
    if not members:
        raise InputError(f"{paths[0]}: nothing was finished, so there is nothing to calibrate on")
    if len(logs) not in (0, 1, len(members)):
        raise InputError(f"--step-log: got {len(logs)} for {len(members)} measured runs; expected one for each, or one")
    found = []
    for k, (run, member, scenario) in enumerate(members):
        one = _opened(run, member, scenario, pool)
        found.append(_with_log(one, logs[k if len(logs) > 1 else 0], len(members)) if logs else one)
    return found


def _with_log(one: Measured, path: Path, runs: int) -> Measured:
    until_s = float((one.sent_s + one.e2e_s).max()) + 1.0
    log = read_steps(path, one.started, until_s)
    if log.end_s[-1] < 0.5 * one.sent_s[-1]:
        raise InputError(
            f"{path}: its last step ended {log.end_s[-1]:.0f} s after the start of {one.name}, and requests were sent "
            f"until {one.sent_s[-1]:.0f} s; expected the log of the same time"
        )
    return Measured(**{**vars(one), "log": log, "log_name": path.name})


def _opened(run: Run, member: Member, scenario: Scenario, pool: str | None) -> Measured:
    pools = list(scenario.fleet.pools)
    if pool is None and len(pools) > 1:
        raise InputError(f"{run.path}: has several pools ({', '.join(pools)}); say which with --pool")
    name = pool or pools[0]
    if name not in pools:
        raise InputError(f"--pool {name}: {run.path} has no such pool; expected one of {', '.join(pools)}")
    spec = resolve(scenario.fleet.pools[name], where=f"{run.path}: fleet.pools.{name}")
    rows = _rows(member)
    mine = rows["pool"] == pools.index(name)
    good = mine & _answered(rows)
    label = run.path.name if member.path == run.path else f"{run.path.name}/{member.path.relative_to(run.path)}"
    if good.sum() < FEWEST:
        raise InputError(
            f"{run.path}: {int(good.sum())} answered requests of known length are too few; expected at least {FEWEST}"
        )
    order = np.flatnonzero(good)[np.argsort(rows["sent_s"][good], kind="stable")]
    seen = {column: values[order] for column, values in rows.items()}
    left_out = int(mine.sum() - good.sum())
    asks, tree, notes = _asks(scenario, scenario.fleet.pools[name].prefix_caching, seen, label)
    if left_out > MANY_LEFT_OUT * mine.sum():
        notes.append(f"{label}: {left_out} of {int(mine.sum())} attempts were not answered and are left out")
    return Measured(
        name=label,
        path=member.path,
        digest=hashlib.sha256((member.path / "attempts.parquet").read_bytes()).hexdigest(),
        pool=name,
        config=pool_config(scenario, name, spec),
        spec=spec,
        sent_s=seen["sent_s"].astype(float),
        ttft_s=(seen["first_token_s"] - seen["sent_s"]).astype(float),
        e2e_s=(seen["finished_s"] - seen["sent_s"]).astype(float),
        asks=asks,
        tree=tree,
        left_out=left_out,
        started=_started(run, member),
        notes=tuple(notes),
        promised=scenario.slo.targets,
    )


def _rows(member: Member, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    table = member.attempts(columns)
    return {column: table[column].to_numpy() for column in table.column_names}


def _answered(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return which rows are answered requests of known length."""
    done: np.ndarray = (rows["outcome"] == Outcome.OK) & np.isfinite(rows["finished_s"]) & (rows["prompt_tokens"] > 0)
    return done


def enough(run: Run) -> str | None:
    """Return the first pool that answered enough requests in every (point, seed) of *run* to calibrate on, if any."""
    pools = list(run.scenario.fleet.pools)
    fewest = np.full(len(pools), FEWEST if run.members else 0)
    for member in run.members:
        rows = _rows(member, ("pool", "outcome", "finished_s", "prompt_tokens"))
        of_pool = rows["pool"][_answered(rows)]
        fewest = np.minimum(fewest, [(of_pool == k).sum() for k in range(len(pools))])
    return next((name for name, n in zip(pools, fewest) if n >= FEWEST), None)


def _asks(
    scenario: Scenario, caching: bool, seen: dict[str, np.ndarray], label: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return what was asked, the tree of shared prefixes, and what a reader should know of both."""
    n = len(seen["sent_s"])
    asks = np.zeros(n, REQUEST)
    asks["request"] = asks["content"] = np.arange(n)
    asks["session"] = asks["follow_up"] = asks["prefix"] = -1
    asks["scheduled_s"] = seen["sent_s"]
    asks["prompt_tokens"], asks["output_tokens"] = seen["prompt_tokens"], np.maximum(seen["output_tokens"], 1)
    asks["level"] = seen["level"]
    cohorts = list(scenario.workload.cohorts.values())
    groups = np.array([one.prefix.groups if one.prefix else 0 for one in cohorts])
    tokens = np.array([one.prefix.tokens if one.prefix else 0 for one in cohorts])
    tree = prefixes.roots(groups, tokens)
    first = np.concatenate([[0], np.cumsum(groups)])[:-1]
    notes = []
    if len(tree):
        asks["prefix"] = np.where(groups == 1, first, -1)[seen["cohort"]]
        prefixes.fit(asks, tree)
    if caching and not len(tree):
        notes.append(f"{label}: prefix_caching is on and no cohort says which prompts begin alike: all are computed")
    if caching and (groups > 1).any():
        notes.append(f"{label}: rows do not say which of several prefixes a prompt began with: those are computed")
    return asks, tree, notes


def _started(run: Run, member: Member) -> float | None:
    path = member.path / "tester.json"
    said = read_json(path, "started")["started"] if path.exists() else run.info.get("started")
    return None if said is None else float(said)


__all__ = ["Ints", "Measured", "enough", "open_runs"]
