"""The world: SimPy processes that wait, look and decide, over a fleet that is played between their events.

`World` is a `simpy.Environment` whose step first plays the fleet up to the time of the next control event.
Control events are few (a scrape, a decision), requests are many: no request is ever a process.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from sim import cells, control, quality, summary, telemetry, workload
from sim.cells import Cell
from sim.control import Effects
from sim.engine.fleet import Fleet
from sim.engine.hardware import resolve
from sim.engine.state import MINUTE_COLUMNS
from sim.errors import RunError
from sim.quality.judge import OPEN, Judge
from sim.quality.reading import containment_of, rules_of
from sim.quality.watch import Watch
from sim.records import ATTEMPT, PARTS, REQUEST
from sim.results import SCRAPED, SERIES, Recorder
from sim.scenario import Scenario
from sim.service import Met, client_policy, pool_config
from sim.spool import Spool
from sim.tally import Tally

FLUSH_LOOKS = 1 << 14  # replicas looked at in scrapes that are kept in memory before they are written


@dataclass
class Result:
    """One (point, seed), played."""

    metrics: dict[str, float]
    histograms: dict[str, np.ndarray]
    notes: list[str]
    uncalibrated: bool
    kv_override: bool
    attempts: np.ndarray
    tally: Tally


class World(simpy.Environment):
    """Virtual time: users, fleet and control processes of one scenario and seed."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        recorder: Recorder | None = None,
        progress: Callable[[float], None] | None = None,
        leap: bool = True,
        users: workload.Workload | None = None,
        cell: Cell | None = None,
    ) -> None:
        """Set up the world at t = 0; with a *recorder* rows and series go to its files, else they stay in memory.

        *users* come in place of those that the scenario would draw. What leaves a *cell* has the whole fleet's numbers.
        """
        super().__init__()
        self.scenario = scenario
        self.seed = seed
        self.recorder = recorder
        self.specs = {name: resolve(pool, where=f"fleet.pools.{name}") for name, pool in scenario.fleet.pools.items()}
        longest = {name: spec.max_model_len for name, spec in self.specs.items()}
        self.cell = cell
        self.before = cell.before if cell else dict.fromkeys(self.specs, 0)
        self.users = users or (cell.users(longest) if cell else workload.compile(scenario, seed, longest))
        self.met = Met(self.specs)
        self.chunks = self.met.heard(self.users.chunks())
        rows = scenario.rows
        self.fleet = Fleet(
            [pool_config(scenario, name, spec) for name, spec in self.specs.items()],
            seed=seed,
            cohorts=len(scenario.workload.cohorts),
            duration_s=scenario.duration,
            warmup_s=scenario.warmup,
            rows={"all": 1.0, "none": 0.0}[rows] if isinstance(rows, str) else rows.sample,
            metered=scenario.telemetry is not None,
            evaluate=scenario.telemetry.evaluate if scenario.telemetry and scenario.quality is None else 0.0,
            slow_s=(scenario.slo.latency_s("ttft"), scenario.slo.latency_s("e2e")),
            clients=[client_policy(one.clients or scenario.clients) for one in scenario.workload.cohorts.values()],
            prefixes=self.users.prefixes,
            judged=scenario.quality is not None,
            leap=leap,
        )
        self._judge = _judge_of(scenario, seed, self.fleet, self.users) if scenario.quality else None
        self.containment = containment_of(scenario, seed)
        self.watch = Watch(scenario, seed, self._judge, self.users.expected_requests) if self._judge else None
        self._heard = 0  # of what has ended since the judge took it, what agents have heard of
        self.fleet.submit(next(self.chunks, np.zeros(0, REQUEST)), more=True)
        self.kept: list[np.ndarray] = []
        self.scrapes: list[tuple[float, np.ndarray]] = []
        self.gauges = summary.Gauges()
        models = {name: spec.model.name if spec.model else name for name, spec in self.specs.items()}
        self.scraper = telemetry.targets(scenario, models, self.before, cell.gateway if cell else None)
        self.spool = Spool(self.scraper.labels if scenario.telemetry else [], recorder.folder if recorder else None)
        self.progress = progress
        self.events: list[dict[str, Any]] = []
        self.measured: dict[str, float] = {}
        self.effects = Effects(self.fleet, lambda: self._keep(self.fleet.take_rows()))
        self.process(self._scrape())
        self.ended = self.process(self._end())
        control.start(self)

    def step(self) -> None:
        """Play the fleet up to the next control event, then let that happen."""
        self.play(self.peek())
        super().step()

    def play(self, until_s: float) -> None:
        """Play the fleet up to *until_s*, feeding it users and taking its rows as it asks."""
        while (why := self.fleet.advance(until_s)) != "done":
            if self.progress:  # may raise: with a circle of users one call can take many passes
                self.progress(self.fleet.now_s)
            if why == "inbox":
                chunk = next(self.chunks, None)
                self.fleet.submit(np.zeros(0, REQUEST) if chunk is None else chunk, more=chunk is not None)
            elif why == "script":
                self._hear()
                asks = self.fleet.take_asks()
                more = self.users.more(asks["session"])
                self.met.hear(more)
                self.fleet.continue_sessions(asks, more)
            elif why == "ended":
                _ = self.judge  # who takes what has ended
            else:
                self._keep(self.fleet.take_rows())

    @property
    def judge(self) -> Judge | None:
        """Who judges answers, having heard of all that have ended; None in a scenario without `quality`."""
        self._hear()
        if self.watch is not None and len(ended := self.fleet.take_ended()):
            self._heard = 0
            verdicts = self.watch.take(ended)
            if self.containment is not None:
                self.containment.take(ended, verdicts)
        return self._judge

    def _hear(self) -> None:
        """Tell agents what has come of theirs; the judge counts it with all else that has ended, when somebody asks."""
        agents = self.users.agents
        if agents is None or self._judge is None or not len(ended := self.fleet.look_ended(self._heard)):
            return
        self._heard += len(ended)
        wrong = agents.foreseen(ended)
        if OPEN in wrong:
            unclear = np.flatnonzero(np.array(wrong) == OPEN)
            for k, found in zip(unclear.tolist(), self._judge.judge(ended[unclear])["wrong"].tolist(), strict=True):
                wrong[k] = found
        agents.hear(ended, wrong)

    def run_to_end(self) -> None:
        """Play until every request has ended or the drain time is over, and settle all accounts."""
        self.run(until=self.ended)
        for _ in self.fleet.close():
            self._keep(self.fleet.take_rows())
        self.write_out()
        self.fleet.check_laws()

    def write_out(self) -> None:
        """Hand over the rows and scrapes that are still in memory."""
        self._keep(self.fleet.take_rows())
        self._flush()
        if self.recorder and self.scenario.telemetry:
            self.spool.series().write(self.recorder.folder / SCRAPED)

    def _end(self) -> Generator[simpy.Event, None, None]:
        """End the run: arrivals stop at `duration`, and what is in flight gets `drain` to finish."""
        scenario = self.scenario
        yield self.timeout(scenario.duration)
        last_s = scenario.duration + scenario.drain
        while self.fleet.live and self.now < last_s:
            yield self.timeout(min(1.0, last_s - self.now))

    def _scrape(self) -> Generator[simpy.Event, None, None]:
        """Look at every replica at the scrape interval."""
        while True:
            if self.judge is not None and self.watch is not None:  # who has heard of all that has ended
                self.watch.listen(float(self.now))
                if self.containment is not None:
                    self.containment.play(float(self.now))
            gauges = self.fleet.look()
            self.met.look(self.fleet.reps.pool, gauges["running"])
            self.scrapes.append((self.now, gauges))
            if self.scenario.telemetry:
                self._sample()
            if len(self.scrapes) * (self.fleet.replicas + 16) >= FLUSH_LOOKS:
                self._flush()
            if self.progress:
                self.progress(self.now)
            yield self.timeout(self.scenario.scrape_interval)

    def _sample(self) -> None:
        """Remember what every target would answer to a Prometheus now."""
        fleet, effects, replicas = self.fleet, self.effects, range(self.fleet.replicas)
        signals = None
        if self.judge is not None and self.watch is not None:
            seen = self.judge.seen(float(self.now)).sum(axis=(1, 2))
            signals = self.watch.signals.arrived(float(self.now))
            fleet.gates.evaluated, fleet.gates.evaluated_right = seen[:, 0], seen[:, 0] - seen[:, 1]
        if self.containment is not None:
            for name, team in zip(self.containment.names, self.containment.teams, strict=True):
                for series, value in team.shown.items():
                    self.show(series, name, value)
        powered, running = [effects.powered(r) for r in replicas], [effects.running(r) for r in replicas]
        gates = fleet.gates
        if self.users.agents is not None:
            gates = gates.copy()
            gates["tasks"] = self.users.agents.tasks.instead_of_requests(gates["tasks"])
        self.scraper.note(fleet.read_meters(), gates, powered, running, signals)

    def show(self, series: str, owner: str, value: float) -> None:
        """Let *series* of pool, team or version *owner* show *value* at scrapes from now on."""
        if self.scenario.telemetry:
            self.scraper.tell(series, owner, value)

    def note_event(self, event: str, **fields: Any) -> None:
        """Write down that *event* happened now, with what there is to say about it: a line of events.jsonl."""
        self.events.append({"t_s": float(self.now), "event": event, **fields})
        if self.recorder:
            self.recorder.event(float(self.now), event, **fields)

    def _keep(self, rows: np.ndarray) -> None:
        check_rows(rows)
        if self._judge is not None and len(rows):
            rows["wrong"] = self._judge.judge(rows)["wrong"]
        if self.cell is not None:
            self.cell.renumber(rows)
        if self.recorder is None:
            self.kept.append(rows)
        elif len(rows):
            self.recorder.rows(rows)

    def _flush(self) -> None:
        """Write the scrapes in memory as series."""
        scrapes, self.scrapes = self.scrapes, []
        if not scrapes:
            return
        t_s = np.array([t for t, _ in scrapes], float)
        shown = np.stack([gauges for _, gauges in scrapes])
        self.gauges.add(shown[(t_s >= self.scenario.warmup) & (t_s <= self.scenario.duration)])
        if self.scenario.telemetry:
            self.spool.add(t_s, self.scraper.take(shown))
        if self.recorder is None:
            return
        names = np.array(list(self.specs))[self.fleet.reps.pool]
        gauges = shown.reshape(-1)
        replicas = np.arange(self.fleet.replicas, dtype=np.int32)
        columns = ("running", "waiting", "kv_used", "preemptions", "output_tokens", "prompt_tokens")
        self.recorder.series(
            {
                "t_s": np.repeat(t_s, self.fleet.replicas),
                "pool": np.tile(names, len(scrapes)),
                "replica": np.tile(self.cell.replicas(replicas) if self.cell else replicas, len(scrapes)),
                **{series: gauges[column] for series, column in zip(SERIES, columns, strict=True)},
            }
        )

    def tally(self) -> Tally:
        """Return everything that was counted so far."""
        if self.judge is not None:
            self.fleet.minutes[:-1, MINUTE_COLUMNS.index("wrong")] = self.judge.wrong_by_minute()
        return Tally.of(self.fleet, self.gauges, float(self.now))

    def histograms(self) -> dict[str, np.ndarray]:
        """Return latency histograms, counters by minute and latency parts, by their names in the run folder."""
        return Tally.of(self.fleet, self.gauges, float(self.now)).histograms()

    def result(self) -> Result:
        """Return the run in numbers."""
        scenario, cohorts = self.scenario, list(self.scenario.workload.cohorts)
        tally = self.tally()
        own: dict[str, float] = {}
        if self.judge is not None and self.watch is not None:
            own |= quality.judge.metrics(self.judge, cohorts) | self.watch.metrics(float(self.now))
        if self.containment is not None:
            self.containment.close()
            own |= self.containment.metrics(tally.wrong)
            own["delivered_bad"] = _bad(tally.outcomes, own)
        if self.users.agents is not None:
            self.users.agents.close()
            own |= self.users.agents.tasks.metrics(scenario.warmup, cohorts)
        notes = []
        for name, spec in self.specs.items():
            factor = ", as the scenario says" if scenario.fleet.pools[name].calibration != 1.0 else ""
            notes += [f"pool {name}: step times: {spec.provenance}{factor}", *spec.notes, *self.met.beyond(name)]
        notes += self.users.notes
        if not tally.is_scraped(scenario):
            notes.append("running, waiting and KV use are unknown: no scrape fell into the time that counts")
        if isinstance(scenario.rows, str) and scenario.rows == "none":
            notes.append("no rows are kept: percentiles come from histograms with bins of 1%")
        return Result(
            tally.metrics(scenario, own | self.measured),
            tally.histograms(),
            list(dict.fromkeys(notes)),
            any(not spec.calibrated for spec in self.specs.values()),
            any(spec.kv_blocks_overridden for spec in self.specs.values()),
            np.concatenate(self.kept) if self.kept else np.zeros(0, ATTEMPT),
            tally,
        )


def _bad(outcomes: np.ndarray, own: Mapping[str, float]) -> float:
    """Return the share of all requests that got no answer, or a wrong one; *outcomes* by cohort and outcome."""
    requests, ok = float(outcomes.sum()), float(outcomes[:, 0].sum())
    return summary.ratio(requests - ok + own["withheld"] + own["delivered_wrong"], requests)


def _judge_of(scenario: Scenario, seed: int, fleet: Fleet, users: workload.Workload) -> Judge:
    """Return the judge of a run of *scenario* on *fleet*, who tells the agents among *users* what can be foreseen."""
    first = {name: int(pool.first) for name, pool in zip(scenario.fleet.pools, fleet.pools)}
    judge = Judge(rules_of(scenario, first), seed, len(fleet.pools), scenario.duration)
    if users.agents is not None:
        users.agents.foresee = judge.foresee
    return judge


def check_rows(rows: np.ndarray) -> None:
    """Assert causality and that the ten latency parts sum to the whole, on every row."""
    if not len(rows):
        return
    whole = rows["finished_s"] - rows["scheduled_s"]
    parts = sum(rows[part].astype(float) for part in PARTS)
    late = rows["sent_s"] >= rows["scheduled_s"]
    assert late.all(), "causality: a request was sent before it was scheduled"
    assert (np.abs(parts - whole) <= 1e-6 + 1e-5 * whole).all(), "latency parts do not sum to the whole"
    assert not (rows["admitted_s"] < rows["sent_s"]).any(), "causality: admitted before it was sent"
    assert not (rows["first_token_s"] < rows["admitted_s"]).any(), "causality: a token before admission"
    assert not (rows["finished_s"] < rows["first_token_s"] - 1e-9).any(), "causality: finished before the first token"


def simulate(scenario: Scenario, seed: int, folder: Path | None = None, **settings: Any) -> Result:
    """Play *scenario* with one *seed*; with a *folder* its rows and series are written there, else rows are returned.

    The cells of a fleet that has several are played one after the other, and make one result.

    Raises:
        RunError: the fleet cannot keep up (OVERLOADED).
    """
    if scenario.fleet.cells == 1:
        return _played(scenario, seed, folder, **settings)
    numbers = range(scenario.fleet.cells)
    results = (simulate_cell(scenario, seed, number, folder, **settings) for number in numbers)
    one = next(results)
    tally, rows = one.tally, [one.attempts]
    for other in results:
        tally.add(other.tally)
        rows.append(other.attempts)
    if folder:
        cells.merge(scenario, folder)
    found = tally.metrics(scenario, {}), tally.histograms(), [cells.note_on(scenario), *one.notes]
    return Result(*found, one.uncalibrated, one.kv_override, np.concatenate(rows), tally)


def simulate_cell(scenario: Scenario, seed: int, number: int, member: Path | None = None, **settings: Any) -> Result:
    """Play cell *number* of *scenario*, as `simulate` plays a whole; its files wait below *member* to be merged."""
    cell = Cell(scenario, number, seed)
    folder = cells.folder_of(member, number) if member else None
    result = _played(cell.scenario, cell.seed, folder, cell=cell, **settings)
    if folder:
        result.tally.write(folder / cells.TALLY)
    return result


def _played(scenario: Scenario, seed: int, folder: Path | None, **settings: Any) -> Result:
    recorder = Recorder(folder) if folder else None
    world = World(scenario, seed, recorder, **settings)
    try:
        world.run_to_end()
    except BaseException as error:  # whatever happened, files stay readable; a good place to stop loses no row
        if recorder:
            if isinstance(error, RunError | KeyboardInterrupt):
                world.write_out()
            recorder.close(world.histograms())
        raise
    finally:
        world.spool.close()
    result = world.result()
    if recorder:
        recorder.close(result.histograms, member_info(result))
    return result


def member_info(result: Result) -> Mapping[str, Any]:
    """Return what ``member.json`` says of a result."""
    return {
        "metrics": result.metrics,
        "notes": result.notes,
        "uncalibrated": result.uncalibrated,
        "kv_override": result.kv_override,
    }
