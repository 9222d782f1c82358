"""How long steps take, fitted on a step log together with how slow the host was when."""

from dataclasses import dataclass

import numpy as np

from sim.calibrate.steplog import Floats, Ints, StepLog
from sim.engine.latency import FAR, StepTimes
from sim.errors import InputError

HOST_WINDOW_S = 1.0
"""The host's speed is taken as constant within this; residuals of E1 and E2 are correlated over about a second."""
LONG_WINDOW_S, FEWEST_WINDOWS = 10.0, 4
NODES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)
ENOUGH = 40  # steps at or above a node, for it to be fitted by itself
TAIL = 0.005  # share of steps at either end whose time is pulled in while fitting
ROUNDS = 30
FEWEST_STEPS = 200
BLOCK_S = 5.0
"""Stretches of time that are drawn anew together for an interval: several times as long as what the host remembers."""
DRAWS = 400


@dataclass(frozen=True, eq=False)
class Fit:
    """Step times fitted on a log, and what they leave over.

    *work_s* is what each step of the log takes by the fit; *fast* and *slow* are standard deviations of the
    logarithm of what it really took over that: from step to step, and by stretch of `HOST_WINDOW_S`. *nodes*: the
    batches for which the fit has a number of its own.
    """

    steps: StepTimes
    work_s: Floats
    fast: float
    slow: float
    nodes: Ints
    alone: bool
    """Steps that decode nothing were met often enough to tell what they take."""


def require_variety(log: StepLog, name: str) -> None:
    """Refuse a log that cannot tell what a step costs.

    Raises:
        InputError: too few steps, one batch size only, or no prompt.
    """
    if len(log) < FEWEST_STEPS:
        raise InputError(f"{name}: {len(log)} steps are too few to fit step times; expected at least {FEWEST_STEPS}")
    if len(np.unique(log.decoding[log.decoding > 0])) < 2:
        only = int(log.decoding.max(initial=0))
        raise InputError(
            f"{name}: every step decoded {only} sequence{'s' * (only != 1)}, so what more of them cost cannot be told; "
            "expected a load at which the batch changes"
        )
    if not (log.prompt > 0).any():
        raise InputError(f"{name}: no step computed a prompt, so what prompts cost cannot be told")


def fit_steps(log: StepLog, max_seqs: int, max_tokens: int) -> Fit:
    """Fit a table by decoding sequences and a slope by prompt tokens, together with the host's speed over time.

    Least squares of relative errors, tails pulled in; then scaled so that the fit adds up to the time measured. The
    host's speed is fitted beside it because a slow stretch at high load would otherwise be taken for a slow batch.
    Beyond the largest batch in the log the table goes on with its average slope.
    """
    nodes = np.array([0] + [n for n in NODES if (log.decoding >= n).sum() >= ENOUGH])
    alone = bool((log.decoding == 0).sum() >= ENOUGH // 4)
    terms = _terms(log, nodes, alone)
    window = (log.end_s / HOST_WINDOW_S).astype(int)
    host = np.ones(len(log))
    work_s = np.full(len(log), log.took_s.mean())
    for turn in range(ROUNDS):
        goal_s = log.took_s / host
        if turn > 3:
            goal_s = _pulled_in(goal_s, work_s)
        found = np.linalg.lstsq(terms / work_s[:, None], goal_s / work_s, rcond=None)[0]
        work_s = np.maximum(terms @ found, 1e-5)
        scale = log.took_s.sum() / work_s.sum()
        host = host_speed(log.took_s, work_s * scale, window)
    table = found[: len(nodes)] * scale
    if not alone and len(nodes) > 1:
        table[0] = table[1]
    steps = _step_times(nodes, table, max(found[-1] * scale, 0.0), max_seqs, max_tokens)
    work_s = work_of(log, steps)
    host = host_speed(log.took_s, work_s, window)
    stretch = np.log(host[np.unique(window, return_index=True)[1]])
    fast = np.log(np.maximum(log.took_s, 1e-5) / (work_s * host))
    return Fit(steps, work_s, float(fast.std()), float(stretch.std()), nodes, alone)


def _terms(log: StepLog, nodes: Ints, alone: bool) -> Floats:
    """Return what the fit is linear in: hats at *nodes* by decoding sequences, and prompts; (steps, nodes + 1)."""
    counts = log.decoding if alone else np.maximum(log.decoding, 1)
    hats = np.stack([np.interp(counts, nodes, column) for column in np.eye(len(nodes))], axis=1)
    return np.column_stack([hats, log.prompt])


def _pulled_in(goal_s: Floats, work_s: Floats) -> Floats:
    low, high = np.quantile(goal_s / work_s, [TAIL, 1.0 - TAIL])
    pulled: Floats = np.clip(goal_s, low * work_s, high * work_s)
    return pulled


def _step_times(nodes: Ints, table: Floats, per_token_s: float, max_seqs: int, max_tokens: int) -> StepTimes:
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


def stretch_s(log: StepLog, fit: Fit) -> float:
    """Return how long the host's speed stays what it is, seconds: stretches that explain how little long means vary.

    If it is drawn anew every T seconds, the variance of means over ten seconds is T/10 of that within a stretch.
    """
    window = (log.end_s / LONG_WINDOW_S).astype(int)
    took, work = np.bincount(window, log.took_s), np.bincount(window, fit.work_s)
    known = work > 0.2 * LONG_WINDOW_S
    if known.sum() < FEWEST_WINDOWS or not fit.slow:
        return HOST_WINDOW_S
    long = float(np.log(took[known] / work[known]).std())
    return min(max(HOST_WINDOW_S, LONG_WINDOW_S * (long / fit.slow) ** 2), LONG_WINDOW_S)


# --- how sure all this is ---------------------------------------------------------------------------------------------


def blocks_of(at_s: Floats, length_s: float = BLOCK_S) -> Ints:
    """Return in which stretch of *length_s* each time is, numbered without gaps."""
    numbers: Ints = np.unique((at_s / length_s).astype(int), return_inverse=True)[1]
    return numbers


def bootstrap_steps(log: StepLog, fit: Fit, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Return 95% intervals of the fit's numbers (seconds), from stretches of `BLOCK_S` drawn anew.

    ``step_s.N`` is a step of N decoding sequences and nothing else, ``prefill_s.1`` a prompt token. The host's speed is
    held as it was: that it may be another on another day is in the interval of the scale, not here.
    """
    terms, work_s = _terms(log, fit.nodes, fit.alone), fit.work_s
    host = host_speed(log.took_s, work_s, (log.end_s / HOST_WINDOW_S).astype(int))
    x, y = terms / work_s[:, None], _pulled_in(log.took_s / host, work_s) / work_s
    block = blocks_of(log.end_s)
    n, k = int(block.max()) + 1, x.shape[1]
    squares, products = np.zeros((n, k, k)), np.zeros((n, k))
    np.add.at(squares, block, x[:, :, None] * x[:, None, :])
    np.add.at(products, block, x * y[:, None])
    found = []
    for _ in range(DRAWS):
        weight = np.bincount(rng.integers(0, n, n), minlength=n)
        found.append(np.linalg.lstsq(np.tensordot(weight, squares, 1), weight @ products, rcond=None)[0])
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    first = 0 if fit.alone else 1
    names = [f"step_s.{n}" for n in fit.nodes.tolist()] + ["prefill_s.1"]
    return {name: (max(float(low[i]), 0.0), float(high[i])) for i, name in enumerate(names) if i >= first}


def bootstrap_pace(log: StepLog, work_s: Floats, rng: np.random.Generator) -> float:
    """Return the standard error of the logarithm of the pace (time taken over the fit's), from stretches drawn anew."""
    block = blocks_of(log.end_s)
    took, work = np.bincount(block, log.took_s), np.bincount(block, work_s)
    picks = rng.integers(0, len(took), (DRAWS, len(took)))
    return float(np.log(took[picks].sum(axis=1) / work[picks].sum(axis=1)).std())
