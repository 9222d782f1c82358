"""A real vLLM on a CPU, arrivals and lengths replayed: the scheduler's rules, the host, and what a fit can predict."""

from itertools import groupby
from pathlib import Path

import numpy as np

from benchmarks.host import HostClock, smoothed
from benchmarks.replay import METRICS, TTFT, Host, Level, Outcome, levels, replay
from benchmarks.rules import same_steps
from benchmarks.tables import Check, Report, Table, percent
from sim.calibrate.fit import Fit, fit_steps, work_of
from sim.calibrate.steplog import StepLog
from sim.engine.latency import StepTimes

EDGE_SHARE = 0.05
"""Preemptions a request from which on a level is at the edge: a few per cent of step time decide. Shown, not judged."""
E2E_BOUND, TTFT_BOUND, MEDIAN_BOUND, PREDICTED_BOUND = 0.10, 0.15, 0.06, 0.10
CACHED_TTFT_BOUND, HIT_BOUND = 0.10, 0.01
KNEE_TTFT_BOUND, KNEE_PREEMPTIONS_BOUND = 0.15, 0.10
"""With prefix caching: TTFT P50, the share of prompt tokens found; at the edge TTFT P95 and P99, and preemptions."""
COARSE_S = 1.0


def fitted(level: Level) -> Fit:
    """Return step times fitted on the level's own log."""
    return fit_steps(level.log, level.limits.max_seqs, level.limits.max_tokens)


def own_host(log: StepLog, steps: StepTimes) -> Host:
    """Return the host as it was at every step of *log*."""
    return Host(HostClock(log, work_of(log, steps)))


def at_the_edge(level: Level) -> bool:
    """Tell whether the KV cache was too short for the level's load."""
    return level.preemptions > EDGE_SHARE * len(level.sent_s)


def _played(outcome: Outcome, level: Level) -> tuple[str, ...]:
    pairs = zip(level.measured, outcome.middle, outcome.errors(level))
    return tuple(f"{real:.3f} -> {ours:.3f} ({100 * error:+.1f}%)" for real, ours, error in pairs)


def own_fit(all_levels: list[Level], seeds: int) -> tuple[list[Table], list[Check]]:
    """Replay each level with its own steps, and its host as fine as each step, as a second, and not at all."""
    fine, compare, errors = [], [], []
    checks = []
    for level in all_levels:
        fit = fitted(level)
        hosts = {
            "each step": own_host(level.log, fit.steps),
            "each second": Host(HostClock(level.log, smoothed(level.log, fit.work_s, COARSE_S))),
            "not replayed": Host(),
        }
        for name, host in hosts.items():
            outcome = replay(level, fit.steps, level.transport(), host, seeds)
            least, usual, most = outcome.preemptions
            counts = f"{level.preemptions} -> {usual:.0f} ({least:.0f}..{most:.0f})"
            compare.append((level.name, name, *percent(outcome.errors(level)), counts))
            if name == "each step":
                fine.append((level.name, *_played(outcome, level), counts, _hits(level, outcome)))
                checks += _judged(level, outcome)
                errors += [] if at_the_edge(level) else list(np.abs(outcome.errors(level)))
    checks.append(Check("median of all errors of own-fit replays", float(np.median(errors)), MEDIAN_BOUND))
    note = (
        f"Seconds measured -> replayed, the median of {seeds} draws of the travel times; preemptions with 5% and 95%."
    )
    tables = [
        Table("Own steps, own host at each step", note, ("level", *METRICS, "preemptions", "prefix hit"), fine),
        Table(
            "How finely the host is replayed",
            "Error of each percentile. With the host not replayed, only the fitted steps are left.",
            ("level", "host", *METRICS, "preemptions"),
            compare,
        ),
    ]
    return tables, checks


def _hits(level: Level, outcome: Outcome) -> str:
    return "off" if level.hit is None else f"{level.hit:.4f} -> {outcome.hit[1]:.4f}"


def _judged(level: Level, outcome: Outcome) -> list[Check]:
    errors = np.abs(outcome.errors(level))
    e2e = Check(f"{level.name} worst of e2e P50, P95, P99", float(errors[len(TTFT) :].max()), E2E_BOUND)
    if level.hit is not None:
        hit = Check(f"{level.name} prefix hit rate, difference", abs(outcome.hit[1] - level.hit), HIT_BOUND)
        half = Check(f"{level.name} TTFT P50", float(errors[0]), CACHED_TTFT_BOUND)
        return [hit, e2e, half, *(_judged_at_the_edge(level, outcome) if at_the_edge(level) else [])]
    return [] if at_the_edge(level) else [e2e, Check(f"{level.name} TTFT P50", float(errors[0]), TTFT_BOUND)]


def _judged_at_the_edge(level: Level, outcome: Outcome) -> list[Check]:
    tail = float(np.abs(outcome.errors(level))[1 : len(TTFT)].max())
    preempted = abs(outcome.preemptions[1] / level.preemptions - 1.0)
    return [
        Check(f"{level.name} worst of TTFT P95, P99", tail, KNEE_TTFT_BOUND),
        Check(f"{level.name} preemptions", preempted, KNEE_PREEMPTIONS_BOUND),
    ]


def edge(all_levels: list[Level], seeds: int) -> Table:
    """Replay levels at the edge of their KV cache with steps a few per cent shorter and longer."""
    rows = []
    for level in (one for one in all_levels if at_the_edge(one)):
        fit = fitted(level)
        for factor in (0.97, 1.0, 1.03):
            host = Host(HostClock(level.log, fit.work_s / factor))
            outcome = replay(level, fit.steps, level.transport(), host, seeds)
            spans = [f"{low:.3f}..{high:.3f}" for low, high in zip(outcome.low, outcome.high)]
            least, _, most = outcome.preemptions
            rows.append((f"{level.name} steps x {factor}", *spans, f"{least:.0f}..{most:.0f}"))
        rows.append((f"{level.name} measured", *(f"{value:.3f}" for value in level.measured), str(level.preemptions)))
    note = "Seconds, 5% to 95% over draws of the travel times; the host at each step, made faster or slower as a whole."
    return Table("At the edge of the KV cache", note, ("level", *METRICS, "preemptions"), rows)


def predictions(all_levels: list[Level], seeds: int) -> tuple[Table, list[Check]]:
    """Predict the other levels of each configuration from the log of its lowest load alone."""
    rows, checks = [], []
    for _, group in groupby(sorted(all_levels, key=lambda one: (one.config, one.rate_per_s)), lambda one: one.config):
        source, *targets = group
        fit, transport = fitted(source), source.transport()
        for target in targets:
            log = target.log
            pace = log.took_s.sum() / work_of(log, fit.steps).sum() - 1.0
            for label, host in (("", Host(None, fit.fast, fit.slow)), (", its host", own_host(log, fit.steps))):
                outcome = replay(target, fit.steps, transport, host, seeds)
                name = f"{source.name} -> {target.name}{label}"
                rows.append((name, *_spans(outcome, target), *percent([pace])))
                if (source.name, target.name) == ("E1_r6", "E2_r8"):
                    worst = float(np.abs(outcome.errors(target)).max())
                    checks.append(Check(f"{name}: worst percentile", worst, PREDICTED_BOUND))
    note = (
        "Error of each percentile, with 5% to 95% over seeds. Steps, noise and travel times come from the first level's"
        " log; of the second only arrivals and lengths, and where it says so its host at each step instead of noise. "
        "Last column: how much slower the host really was than on the first."
    )
    return Table("Fitted on one load, predicting another", note, ("levels", *METRICS, "host"), rows), checks


def _spans(outcome: Outcome, level: Level) -> tuple[str, ...]:
    ends = zip(outcome.errors(level), outcome.low / level.measured - 1.0, outcome.high / level.measured - 1.0)
    return tuple(f"{100 * error:+.1f}% ({100 * low:+.0f}..{100 * high:+.0f})" for error, low, high in ends)


def rules(all_levels: list[Level]) -> list[Table]:
    """Compare the engine with the log step by step, also with a rule broken: a comparison must be able to fail."""
    rows, cached = [], []
    for level in all_levels:
        limits = level.limits
        same, preempted, found = same_steps(level)
        broken = [
            same_steps(level, blocks=limits.blocks - 1),
            same_steps(level, reserve_full=False),
            same_steps(level, max_tokens=limits.max_tokens // 2),
            same_steps(level, max_seqs=limits.max_seqs // 2),
        ]
        counts = (f"{level.preemptions} -> {preempted}", *(str(alike) for alike, *_ in broken))
        rows.append((level.name, str(len(level.log)), str(same), *counts))
        if level.hit is not None:
            without, more, _ = same_steps(level, prefix_caching=False)
            tokens = f"{level.cached_tokens.sum()} -> {found}"
            cached.append((level.name, tokens, f"{without} of {len(level.log)}", f"{level.preemptions} -> {more}"))
    note = (
        "Every request reaches the engine just before the step that took it in the log; each step of the engine is "
        "then compared with the log's: sequences in the batch and tokens computed. Then the same with one rule broken."
    )
    wrong = ("one KV block fewer", "prompt may not fit whole", "half the tokens a step", "half the seats")
    header = ("level", "prompt tokens found in the cache", "identical without a cache", "preemptions without a cache")
    more_note = "The same for the prefix cache: what was found at first admission, and the comparison with it off."
    return [
        Table("Rules, step by step", note, ("level", "steps", "identical", "preemptions", *wrong), rows),
        Table("Rules of the prefix cache", more_note, header, cached),
    ]


def run(folder: Path, seeds: int) -> Report:
    """Return everything this benchmark finds in *folder*."""
    all_levels = levels(folder)
    own, checks = own_fit(all_levels, seeds)
    predicted, more = predictions(all_levels, 2 * seeds)
    tables = [*rules(all_levels), *own, edge(all_levels, seeds), predicted]
    return Report(tables, [*checks, *more])
