"""Scrapes of all targets: from what the fleet counts to one value a series."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sim.families import (
    DURATION,
    ENGINE,
    FIRST_TOKEN,
    OVERFLOW,
    QUALITY_BREAKER,
    REASONS,
    RELEASE,
    REQUESTS,
    REVIEW,
    SCORES,
    SIGNALS,
    TASKS,
    UP,
    Family,
)
from sim.scenario import Scenario
from sim.scenario.containment import Overflow, QualityBreaker, Release, Team
from sim.scenario.faults import Refuse
from sim.scenario.targets import largest
from sim.series import STALE
from sim.spool import NOTHING

Labels = dict[str, str]
GATEWAY = {"job": "gateway", "instance": "gateway:9090"}
ALWAYS = (200, 400, 429, 499, 502, 503)
"""Statuses that can occur in every scenario."""
_SERVED_NAME = "model_name"  # the engine gives it to its series; `up`, which Prometheus makes, has none


def targets(
    scenario: Scenario, models: Mapping[str, str], before: Mapping[str, int], gateway: str | None = None
) -> "Scraper":
    """Return what scrapes the replicas of *scenario* and their gateway.

    *models* are the names of the models by pool, *before* the number of each pool's first replica. *gateway* is its
    instance, where there are several.
    """
    settings = scenario.telemetry
    own = {} if settings is None else settings.labels
    numbered = [(pool, n + r) for pool, n in before.items() for r in range(largest(scenario, pool))]
    engines = [_engine_labels(pool, r, models[pool], own) for pool, r in numbered]
    shared = {name: value for name, value in own.items() if "{" not in value and name not in (_SERVED_NAME, "pool")}
    codes = {*ALWAYS, *(fault.status for fault in scenario.faults if isinstance(fault, Refuse))}
    evaluated = settings is not None and settings.evaluate > 0
    signals = list(scenario.quality.signals) if scenario.quality else []
    contained = _contained(scenario)
    front = {**shared, **GATEWAY, **({"instance": gateway} if gateway else {})}
    return Scraper(engines, front, list(before), sorted(codes), evaluated, signals, contained)


def _contained(scenario: Scenario) -> list[tuple[Family, str, str]]:
    """Return what the gateway shows of how wrong answers are contained: family, label and its value."""
    found: list[tuple[Family, str, str]] = []
    for one in scenario.control:
        match one:
            case Team():
                found += [(family, "team", one.team) for family in REVIEW]
            case QualityBreaker():
                found.append((QUALITY_BREAKER, "pool", one.quality_breaker))
            case Overflow():
                found.append((OVERFLOW, "pool", one.overflow))
            case Release():
                found.append((RELEASE, "version", one.release))
    return found


def _engine_labels(pool: str, r: int, model: str, own: Mapping[str, str]) -> Labels:
    labels = {"job": "vllm", "instance": f"{pool}-{r}:8000", _SERVED_NAME: model}
    return {**labels, **{name: one.replace("{pool}", pool).replace("{replica}", str(r)) for name, one in own.items()}}


class Scraper:
    """Knows every series of a run, and what each of them shows now."""

    def __init__(
        self,
        engines: Sequence[Labels],
        gateway: Labels,
        pools: Sequence[str],
        codes: Sequence[int],
        evaluated: bool,
        signals: Sequence[str] = (),
        contained: Sequence[tuple[Family, str, str]] = (),
    ) -> None:
        """Set up for replicas with the labels *engines*, and a *gateway* that has the *pools* behind it.

        *contained* are families that show what they are told, each with a label of its own and its value.
        """
        self.labels: list[Labels] = []
        for labels in engines:
            self.labels += UP.series({name: value for name, value in labels.items() if name != _SERVED_NAME})
            for family in ENGINE:
                self.labels += family.series({**labels, "engine": "0"})
        self.labels += UP.series(gateway)
        by_code = replace(REQUESTS, values=tuple(map(str, codes)))
        for pool in pools:
            for family in (by_code, FIRST_TOKEN, DURATION, TASKS, *((SCORES,) if evaluated else ())):
                self.labels += family.series({**gateway, "pool": pool})
        if signals:
            self.labels += replace(SIGNALS, values=tuple(signals)).series(gateway)
        self.told: dict[tuple[str, str], float] = {}
        for family, label, owner in contained:
            self.labels += family.series({**gateway, label: owner})
            self.told |= {(name, owner): 0.0 for name in family.ordered}
        self._codes, self._evaluated = list(codes), evaluated
        self._before = np.zeros((2, 1, len(engines)), bool)  # which were targets at the last scrape, which answered
        self._shown = np.zeros((1, len(engines), 3))
        self._noted: list[tuple[Any, ...]] = []

    def tell(self, series: str, owner: str, value: float) -> None:
        """Let *series* of *owner* show *value* from now on."""
        assert (series, owner) in self.told, f"no series {series} of {owner}"
        self.told[series, owner] = value

    def note(
        self,
        meters: np.ndarray,
        gates: np.ndarray,
        powered: list[bool],
        running: list[bool],
        signals: np.ndarray | None = None,
    ) -> None:
        """Remember one scrape: what `Fleet.read_meters` returned (kept), the gateway's counts (copied), who is there.

        *signals* (copied) are how many of each have arrived, where there are any.

        A replica that is powered and not running is a target that does not answer; one that is not powered is none.
        """
        last = [*([] if signals is None else signals.tolist()), *self.told.values()]
        self._noted.append((meters, gates.view(np.int64).copy().view(gates.dtype), powered, running, last))

    def take(self, gauges: np.ndarray) -> np.ndarray:
        """Return every series at the scrapes noted since the last time (n, m), to which belong *gauges* (n, replicas).

        Those are what `Fleet.look` returned. Stale markers and `NOTHING` are included.
        """
        meters, gates, powered, running, last = map(np.array, zip(*self._noted, strict=True))
        self._noted = []
        return np.hstack([self._values(gauges, meters, gates, powered, running), last.reshape(len(gauges), -1)])

    def _values(
        self, gauges: np.ndarray, meters: np.ndarray, gates: np.ndarray, powered: np.ndarray, running: np.ndarray
    ) -> np.ndarray:
        n = len(gauges)
        shown = np.stack([gauges[name] for name in ("running", "waiting", "kv_used")], axis=-1).astype(float)
        shown = self._frozen(shown, (gauges["hung"] != 0) & running)
        engines = np.concatenate([running[..., None], shown, *engine_values(meters)], axis=-1)
        _withhold(engines[..., :1], powered, self._before[0])
        _withhold(engines[..., 1:], running, self._before[1])
        self._before = np.stack([powered[-1:], running[-1:]])
        return np.hstack([engines.reshape(n, -1), np.ones((n, 1)), self._gateway_values(gates).reshape(n, -1)])

    def _frozen(self, shown: np.ndarray, hung: np.ndarray) -> np.ndarray:
        """Let replicas that hang show what they showed before: vLLM's front end answers with what it last knew."""
        shown = np.concatenate([self._shown, shown])
        at = np.maximum.accumulate(np.where(hung, 0, np.arange(1, len(shown))[:, None]), axis=0)
        self._shown = shown[at[-1], np.arange(shown.shape[1])][None]
        return shown[at, np.arange(shown.shape[1])]

    def _gateway_values(self, gates: np.ndarray) -> np.ndarray:
        """Return what the gateway shows of each pool (n, pools, series)."""
        columns = [
            gates["codes"][..., self._codes],
            *_histogram(gates["ttft"], gates["ttft_s"]),
            *_histogram(gates["duration"], gates["duration_s"]),
            gates["tasks"],
        ]
        if self._evaluated:
            columns += [gates["evaluated_right"][..., None], gates["evaluated"][..., None]]
        return np.concatenate(columns, axis=-1)


def engine_values(meters: np.ndarray) -> list[np.ndarray]:
    """Return what replicas show of `ENGINE` after its three gauges, from *meters*: arrays (n, replicas, series)."""
    counters = ("preemptions", "prompt_done", "output_tokens", "prompt_seen", "prompt_cached", "stop", "length")
    columns = [meters[name][..., None] for name in counters]
    columns.append(
        np.zeros((*meters.shape, len(REASONS) - 2))
    )  # abort: vLLM counts none; error, repetition: never here
    for name in ("ttft", "itl", "e2e", "queue"):
        columns += _histogram(meters[name], meters[f"{name}_s"])
    return columns


def _histogram(counts: np.ndarray, sums: np.ndarray) -> list[np.ndarray]:
    """Return the buckets as Prometheus has them, each with all below it, and the sum and the count."""
    buckets = counts.cumsum(axis=-1)
    return [buckets, sums[..., None], buckets[..., -1:]]


def _withhold(values: np.ndarray, there: np.ndarray, before: np.ndarray) -> None:
    """Where no target is *there* (n, replicas), put a stale marker if one was there just before, and else nothing."""
    was_there = np.concatenate([before, there[:-1]])
    values[~there & was_there] = STALE
    values[~there & ~was_there] = NOTHING
