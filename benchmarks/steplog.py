"""What an engine's own step log says: how long steps take, how slow the host was and when, how long messages travel.

vLLM writes one line a step with `--enable-logging-iteration-details`: requests and tokens of prompts (`ctx`),
requests and tokens of generation (`gen`, which includes the recomputation of preempted requests), and the time
that the model took. The line is stamped when the API server writes it, so stamps come late by a random bit.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.engine.latency import FAR, StepTimes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HOST_WINDOW_S = 1.0
"""The host's speed is taken as constant within this; residuals of E1 and E2 are correlated over about a second."""
NODES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)
ENOUGH = 40  # steps at or above a node, for it to be fitted by itself
TAIL = 0.005  # share of steps at either end whose time is pulled in while fitting
ROUNDS = 30


@dataclass(frozen=True, eq=False)
class StepLog:
    """The steps of one engine in order; times in seconds since the start of the run, one entry a step.

    A step took *took_s* up to *end_s*: schedule, model, update and the way to the API server. It computed *prompt*
    tokens and one token for each of *decoding* sequences. *admits* prompts, *fresh* tokens of prompts that have no
    output yet. *busy*: the step before left sequences in the batch. *used*: share of the KV blocks after the step.
    """

    end_s: Floats
    took_s: Floats
    decoding: Ints
    prompt: Ints
    admits: Ints
    fresh: Ints
    running: Ints
    tokens: Ints
    busy: NDArray[np.bool_]
    used: Floats

    def __len__(self) -> int:
        return len(self.end_s)

    @property
    def start_s(self) -> Floats:
        """When each step began."""
        return self.end_s - self.took_s


def read_steps(path: Path) -> StepLog:
    """Return the steps in the CSV at *path* (one row a step, as `../shared/data/vllm-cpu/manifest.json` describes).

    A step that starts when the engine was busy took the whole time since the end of the one before: so the time
    between steps is counted exactly once. After an idle engine it took its model time and the usual time between.
    A line is never later than the next step's beginning: stamps are moved back to there.
    """
    rows = np.genfromtxt(path, delimiter=",", names=True)
    model_s = rows["elapsed_ms"] * 1e-3
    end_s = rows["t_logged_s"].copy()
    for i in range(len(end_s) - 2, -1, -1):
        end_s[i] = min(end_s[i], end_s[i + 1] - model_s[i + 1])
    busy = rows["gen_requests"] > 0
    busy[0] = False
    since_s = np.diff(end_s, prepend=-np.inf)
    between_s = float(np.median((since_s - model_s)[busy]))
    took_s = np.where(busy, since_s, np.minimum(since_s, model_s + between_s))
    again = (rows["gen_tokens"] - rows["gen_requests"]).astype(int)  # beyond one token each: a preempted one recomputes
    resumed = (again > 0).astype(int)
    generating, fresh = rows["gen_requests"].astype(int), rows["ctx_tokens"].astype(int)
    admits = rows["ctx_requests"].astype(int)
    return StepLog(
        end_s=end_s,
        took_s=took_s,
        decoding=generating - resumed,
        prompt=fresh + again + resumed,
        admits=admits,
        fresh=fresh,
        running=generating + admits,
        tokens=fresh + rows["gen_tokens"].astype(int),
        busy=busy,
        used=rows["kv_usage_pct"] * 0.01,
    )


# --- how long steps take ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Fit:
    """Step times fitted on a log, and what they leave over.

    *work_s* is what each step of the log takes by the fit; *fast* and *slow* are standard deviations of the
    logarithm of what it really took over that: from step to step, and by stretch of `HOST_WINDOW_S`.
    """

    steps: StepTimes
    work_s: Floats
    fast: float
    slow: float


def fit_steps(log: StepLog, max_seqs: int, max_tokens: int) -> Fit:
    """Fit a table by decoding sequences and a slope by prompt tokens, together with the host's speed over time.

    Least squares of relative errors, tails pulled in; then scaled so that the fit adds up to the time measured. The
    host's speed is fitted beside it because a slow stretch at high load would otherwise be taken for a slow batch.
    Beyond the largest batch in the log the table goes on with its average slope.
    """
    nodes = np.array([0.0] + [n for n in NODES if (log.decoding >= n).sum() >= ENOUGH])
    alone = bool((log.decoding == 0).sum() >= ENOUGH // 4)
    counts = log.decoding if alone else np.maximum(log.decoding, 1)
    hats = np.stack([np.interp(counts, nodes, column) for column in np.eye(len(nodes))], axis=1)
    terms = np.column_stack([hats, log.prompt])
    window = (log.end_s / HOST_WINDOW_S).astype(int)
    host = np.ones(len(log))
    work_s = np.full(len(log), log.took_s.mean())
    for turn in range(ROUNDS):
        goal_s = log.took_s / host
        if turn > 3:
            low, high = np.quantile(goal_s / work_s, [TAIL, 1.0 - TAIL])
            goal_s = np.clip(goal_s, low * work_s, high * work_s)
        found = np.linalg.lstsq(terms / work_s[:, None], goal_s / work_s, rcond=None)[0]
        work_s = np.maximum(terms @ found, 1e-5)
        scale = log.took_s.sum() / work_s.sum()
        host = host_speed(log.took_s, work_s * scale, window)
    table = found[: len(nodes)] * scale
    if not alone and len(nodes) > 1:
        table[0] = table[1]
    return _finished(log, _step_times(nodes, table, max(found[-1] * scale, 0.0), max_seqs, max_tokens), window)


def _step_times(nodes: Floats, table: Floats, per_token_s: float, max_seqs: int, max_tokens: int) -> StepTimes:
    """Return *table* (seconds of a step, by decoding sequences) as the engine takes it; it may go down, as measured."""
    counts = np.arange(max_seqs + 1)
    beyond = max(0.0, (table[-1] - table[1]) / (nodes[-1] - nodes[1])) if len(nodes) > 2 else 0.0
    times = np.interp(counts, nodes, table) + beyond * np.maximum(counts - nodes[-1], 0.0)
    base_s = max(float(times.min()), 1e-5)
    decode = np.maximum(times - base_s, 0.0)
    decode[0] = 0.0
    return StepTimes(
        base_s, np.stack([decode, decode], axis=1), np.array([0.0, FAR]), np.arange(max_tokens + 1) * per_token_s
    )


def host_speed(took_s: Floats, work_s: Floats, window: Ints) -> Floats:
    """Return for each step how much slower than the fit the host was in its window (1: as fitted)."""
    took, work = np.bincount(window, took_s), np.bincount(window, work_s)
    known = work > 0.2 * HOST_WINDOW_S
    ratio: Floats = np.where(known, took / np.maximum(work, 1e-9), 1.0)[window]
    return ratio


def work_of(log: StepLog, steps: StepTimes) -> Floats:
    """Return what *steps* say that each step of the log takes, seconds."""
    decode = steps.decode_s[np.minimum(log.decoding, len(steps.decode_s) - 1), 0]
    work: Floats = steps.base_s + decode + steps.tokens_s[np.minimum(log.prompt, len(steps.tokens_s) - 1)]
    return work


def _finished(log: StepLog, steps: StepTimes, window: Ints) -> Fit:
    work_s = work_of(log, steps)
    host = host_speed(log.took_s, work_s, window)
    stretch = np.log(host[np.unique(window, return_index=True)[1]])
    fast = np.log(np.maximum(log.took_s, 1e-5) / (work_s * host))
    return Fit(steps, work_s, float(fast.std()), float(stretch.std()))


# --- how slow the host was, and when ----------------------------------------------------------------------------------


class HostClock:
    """The host's slowness as a change of time: how much *work* (seconds of fitted steps) it had done by when.

    While step i of the log ran, the host did ``work_s[i]`` in ``took_s[i]``; between steps it stood ready at its
    fitted speed. The engine is played in seconds of work with no host in it, and its times are mapped back. So a
    slow moment slows whatever step runs then, in proportion to how much of it falls into that moment: nothing is
    counted twice, and a stall of the host adds its length to a step, not a factor.
    """

    def __init__(self, log: StepLog, work_s: Floats) -> None:
        starts = np.maximum(log.start_s, np.concatenate([[0.0], log.end_s[:-1]]))
        wall = np.column_stack([starts, log.end_s]).ravel()
        idle_s = starts - np.concatenate([[0.0], log.end_s[:-1]])
        done = np.cumsum(np.column_stack([idle_s, work_s]).ravel())
        far = 1e6  # after the log the host is as fitted
        self.wall_s = np.concatenate([[0.0], wall, [wall[-1] + far]])
        self.work_s = np.concatenate([[0.0], done, [done[-1] + far]])

    def to_work(self, wall_s: Floats) -> Floats:
        """Return how much work the host can have done by *wall_s*."""
        return np.interp(wall_s, self.wall_s, self.work_s)

    def to_wall(self, work_s: Floats) -> Floats:
        """Return when the host has done *work_s*."""
        return np.interp(work_s, self.work_s, self.wall_s)


def smoothed(log: StepLog, work_s: Floats, window_s: float) -> Floats:
    """Return work that gives the host one speed in each window of *window_s*: what a coarser log would tell."""
    return log.took_s / host_speed(log.took_s, work_s, (log.end_s / window_s).astype(int))
