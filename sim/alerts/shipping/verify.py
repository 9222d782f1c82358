"""Asks the real promtool: are these rule files valid, and do alerts change state exactly when we say?

For every interval one unit test of promtool is written: the series as they are, and for every predicted transition
what `ALERTS` must be one evaluation before it and at it.
"""

import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sim.alerts.promql.store import Series, Store
from sim.alerts.promql.vectors import Labels, written
from sim.alerts.rules import Judgement, Verdict
from sim.errors import InputError
from sim.series import SeriesSet, is_stale

FINEST_MS = 1_000
"""A finer grid of samples than this is taken for jitter, which promtool's unit tests cannot hold."""

LONGEST_S = 600


@dataclass
class Check:
    """What promtool said: whether all went well, how many assertions it was given, and its words where it did not."""

    passed: bool
    assertions: int = 0
    said: str = ""
    left_out: list[str] = field(default_factory=list)
    """Alerts that a unit test cannot judge, with the reason."""


def promtool(path: str | None = None) -> str:
    """Return the promtool to run.

    Raises:
        InputError: there is none.
    """
    found = shutil.which(path or "promtool")
    if found is None:
        raise InputError(f"no {path or 'promtool'} here: install Prometheus (Debian's package prometheus has promtool)")
    return found


def since(series: SeriesSet, start_ms: int) -> SeriesSet:
    """Return *series* without the samples before *start_ms*: promtool's unit tests begin with the first evaluation."""
    made = SeriesSet()
    for labels, t_ms, values in series:
        first = int(np.searchsorted(t_ms, start_ms))
        if first < len(t_ms):
            made.add(labels, t_ms[first:], values[first:])
    return made


def check_rules(rules: Sequence[Judgement], tool: str) -> Check:
    """Return whether ``promtool check rules`` accepts *rules*, whatever file or object they came from."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.yml"
        path.write_text(rule_file(rules), encoding="utf-8")
        return _run([tool, "check", "rules", str(path)], 0)


def check_states(judged: Sequence[Judgement], series: SeriesSet, tool: str) -> Check:
    """Return whether promtool sees every alert change its state exactly when *judged* says.

    Raises:
        InputError: the samples lie on no regular grid.
    """
    whole = Check(True)
    for interval_ms in sorted({one.interval_ms for one in judged}):
        rules = [one for one in judged if one.verdict == Verdict.JUDGED and one.interval_ms == interval_ms]
        rules, left_out = self_contained(rules, judged)
        whole.left_out += left_out
        if not any(not one.rule.records for one in rules):
            continue
        test, assertions = unit_test(rules, series)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "rules.yml").write_text(rule_file(rules), encoding="utf-8")
            (Path(folder) / "test.yml").write_text(as_yaml(test), encoding="utf-8")
            one = _run([tool, "test", "rules", str(Path(folder) / "test.yml")], assertions)
        whole.passed &= one.passed
        whole.assertions += assertions
        whole.said += one.said
    return whole


def rule_file(rules: Sequence[Judgement]) -> str:
    """Return *rules* as a rule file of Prometheus, group by group."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for one in rules:
        rule = one.rule
        name = rule.group if (rule.file, rule.group) in groups or not _taken(groups, rule.group) else None
        group = groups.setdefault(
            (rule.file, rule.group),
            {"name": name or f"{rule.group} of {rule.file}", "interval": f"{one.interval_ms}ms", "rules": []},
        )
        entry: dict[str, Any] = {"record" if rule.records else "alert": rule.name, "expr": rule.text}
        if rule.for_ms:
            entry["for"] = f"{rule.for_ms}ms"
        if rule.keep_firing_for_ms:
            entry["keep_firing_for"] = f"{rule.keep_firing_for_ms}ms"
        entry |= {key: dict(texts) for key in ("labels", "annotations") if (texts := getattr(rule, key))}
        group["rules"].append(entry)
    return as_yaml({"groups": list(groups.values())})


def unit_test(rules: Sequence[Judgement], series: SeriesSet) -> tuple[dict[str, Any], int]:
    """Return promtool's unit test of *rules* (of one interval), and how many assertions it makes.

    Raises:
        InputError: the samples lie on no regular grid.
    """
    base_ms, every_ms = int(rules[0].t_ms[0]), rules[0].interval_ms
    inputs = _inputs(rules, series, base_ms)
    alerts: dict[str, list[Judgement]] = {}
    for one in rules:
        if not one.rule.records:
            alerts.setdefault(one.rule.name, []).append(one)
    checks = []
    for name, judged in alerts.items():
        for t_ms in _times(judged, every_ms):
            states = [
                (episode.labels, state) for one in judged for episode in one.episodes if (state := episode.state(t_ms))
            ]
            checks.append(
                {
                    "expr": f"ALERTS{written((('alertname', name),))}",
                    "eval_time": f"{t_ms - base_ms}ms",
                    "exp_samples": [{"labels": _alert(*state), "value": 1} for state in states],
                }
            )
    test = {"interval": f"{inputs[0]}ms", "input_series": inputs[1], "promql_expr_test": checks}
    order = list(dict.fromkeys(one.rule.group for one in rules))  # promtool has none of its own
    head = {"rule_files": ["rules.yml"], "evaluation_interval": f"{every_ms}ms", "group_eval_order": order}
    return {**head, "tests": [test]}, len(checks)


def _times(judged: Sequence[Judgement], every_ms: int) -> list[int]:
    """Return one evaluation before each transition and at it; of an alert that has none, the last evaluation."""
    changes = {
        t_ms
        for one in judged
        for episode in one.episodes
        for t_ms in (episode.pending_ms, episode.firing_ms, episode.ended_ms)
        if t_ms is not None
    }
    last_ms = int(judged[0].t_ms[-1])
    first_ms = int(judged[0].t_ms[0])
    return sorted({last_ms} | changes | {t_ms - every_ms for t_ms in changes if t_ms > first_ms})


def _alert(labels: Labels, state: str) -> str:
    return written(tuple(sorted((*labels, ("__name__", "ALERTS"), ("alertstate", state)))))


def _inputs(rules: Sequence[Judgement], series: SeriesSet, base_ms: int) -> tuple[int, list[dict[str, str]]]:
    """Return the grid (ms) and the series that *rules* read, as promtool writes them."""
    store, read = Store(series), {}
    for one in rules:
        for select in one.rule.expression.selectors if one.rule.expression else ():
            read.update({found.labels: found for found in store.select(select.matchers)})
    grid_ms = math.gcd(*(int(gap) for one in read.values() for gap in np.unique(np.diff(one.t_ms, prepend=base_ms))))
    if read and grid_ms < FINEST_MS:
        raise InputError(
            f"the samples lie on no regular grid ({grid_ms} ms), so promtool's unit tests cannot hold them"
        )
    grid_ms = grid_ms or rules[0].interval_ms
    written_series = [
        {"series": written(labels), "values": _values(one, base_ms, grid_ms)} for labels, one in read.items()
    ]
    return grid_ms, written_series


def _values(one: Series, base_ms: int, grid_ms: int) -> str:
    """Return samples in promtool's notation: ``1x4`` is five ones, ``_`` a missing sample."""
    texts = ["stale" if ended else repr(float(value)) for value, ended in zip(one.values, is_stale(one.values))]
    names = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}
    at = (one.t_ms - base_ms) // grid_ms
    pieces: list[str] = []
    before, last, repeats = -1, "", 0
    for i, text in zip(at.tolist(), texts):
        gap = i - before - 1
        if gap == 0 and text == last and text[-1].isdigit():
            repeats += 1
        else:
            _close(pieces, repeats)
            repeats = 0
            pieces += [f"_x{gap}"] * (gap > 0) + [names.get(text, text)]
        before, last = i, text
    _close(pieces, repeats)
    return " ".join(pieces)


def _close(pieces: list[str], repeats: int) -> None:
    if repeats:
        pieces[-1] += f"x{repeats}"


def self_contained(rules: Sequence[Judgement], judged: Sequence[Judgement]) -> tuple[list[Judgement], list[str]]:
    """Return *rules* without those that a unit test would see otherwise, and why those are left out."""
    elsewhere = {one.rule.name for one in judged if one.rule.records and one not in rules}
    kept, left_out = [], []
    for one in rules:
        reads = [s.name for s in one.rule.expression.selectors if one.rule.expression] if one.rule.expression else []
        other = [name for name in reads if name in elsewhere]
        if other or one.failed:
            why = f"it reads {other[0]}, recorded at another interval" if other else "some of its evaluations fail"
            elsewhere |= {one.rule.name} if one.rule.records else set()
            if not one.rule.records:
                left_out.append(f"{one.rule.name}: {why}")
        else:
            kept.append(one)
    return kept, left_out


def _taken(groups: dict[tuple[str, str], dict[str, Any]], name: str) -> bool:
    return any(group["name"] == name for group in groups.values())


def as_yaml(value: Any) -> str:
    """Return *value* as YAML with every text on one line."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10_000_000)


def _run(command: list[str], assertions: int) -> Check:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except OSError as error:
        raise InputError(f"{command[0]}: cannot be run ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{command[0]} has not ended after {LONGEST_S} s; verify a shorter run") from None
    return Check(done.returncode == 0, assertions, "" if done.returncode == 0 else done.stdout + done.stderr)
