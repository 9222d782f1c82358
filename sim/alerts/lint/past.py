"""What a healthy past says of rules: which are true for nothing, and which never even have a value."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import promql_parser as promql

from sim.alerts.lint.findings import Finding
from sim.alerts.lint.quantities import Measured
from sim.alerts.lint.text import comparisons, measure
from sim.alerts.promql.parsing import SyntaxFault, milliseconds, parse, walk
from sim.alerts.promql.vectors import UnsupportedError
from sim.alerts.rulefile import Group, Rule, written_ms
from sim.alerts.rules import Elsewhere, Judgement, Verdict, judge
from sim.series import SeriesSet
from sim.words import count

NEARLY_ALWAYS = 0.9
"""True in this share of all evaluations, a rule says nothing."""


@dataclass(frozen=True)
class _Probe:
    """Two alerts put beside a rule: whether the left side of a comparison has a value, and one that is not 0."""

    left: str
    there: Rule
    moves: Rule


def lint_past(
    groups: Sequence[Group], series: SeriesSet, span_ms: tuple[int, int], elsewhere: Elsewhere | None = None
) -> list[Finding]:
    """Return what is wrong with the alerts of *groups*, held against *series* of a time in which all went well.

    What the subset refuses is asked *elsewhere*, if there is such a place.
    """
    measured = measure(groups)
    probes: dict[int, list[_Probe]] = {}
    asked = []
    for group in groups:
        rules: list[Rule] = []
        for rule in group.rules:
            made = [] if rule.records else list(_probes(rule, measured, span_ms[1] - span_ms[0]))
            probes[id(rule)] = made
            rules += [rule, *(one for probe in made for one in (probe.there, probe.moves))]
        asked.append(replace(group, rules=tuple(rules)))
    judged = {id(one.rule): one for one in judge(asked, series, span_ms=span_ms, elsewhere=elsewhere)}
    found: list[Finding] = []
    for rule in (rule for group in groups for rule in group.rules):
        found += _said(judged[id(rule)], [_seen(probe, judged) for probe in probes[id(rule)]])
    return found


def _probes(rule: Rule, measured: Measured, length_ms: int) -> Iterator[_Probe]:
    """Yield a probe for every comparison in *rule* that a past of *length_ms* is long enough for."""
    if rule.expression is None:
        return
    for _, one in comparisons(rule.expression.tree, measured):
        if _reach_ms(one.left) > length_ms:
            continue
        left = str(one.left.prettify())
        texts = f"({left}) == ({left})", f"(({left}) == ({left})) != 0"
        try:
            there, moves = map(parse, texts)
        except (SyntaxFault, UnsupportedError):
            continue
        bare = replace(rule, for_ms=0, keep_firing_for_ms=0, labels={})
        yield _Probe(
            " ".join(left.split()),
            replace(bare, expression=there, text=texts[0]),
            replace(bare, expression=moves, text=texts[1]),
        )


def _reach_ms(tree: Any) -> int:
    """Return how far back an expression looks."""
    far = 0
    for node in walk(tree):
        if isinstance(node, promql.MatrixSelector):
            far = max(far, milliseconds(node.range) + milliseconds(node.vector_selector.offset))
        elif isinstance(node, promql.VectorSelector):
            far = max(far, milliseconds(node.offset))
    return far


def _seen(probe: _Probe, judged: dict[int, Judgement]) -> tuple[str, bool, bool]:
    """Return the left side, whether it ever had a value, and whether ever another than 0."""
    there, moves = judged[id(probe.there)], judged[id(probe.moves)]
    if there.failed:
        return probe.left, True, True
    return probe.left, bool(there.episodes), bool(moves.episodes)


def _said(one: Judgement, seen: Sequence[tuple[str, bool, bool]]) -> Iterator[Finding]:
    if one.verdict == Verdict.NO_SUCH_SERIES:
        yield Finding.of(one.rule, "not-judged", one.reason, "a run or a file with these series, to see it at work")
    if one.verdict == Verdict.MATCHED_NOTHING:
        yield Finding.of(one.rule, "no-value", one.reason, "labels that the series have")
    if one.verdict != Verdict.JUDGED or one.rule.records or not len(one.t_ms):
        return
    for left, there, _ in seen:
        if not there:
            what = f"{left} has no value at any of {count(len(one.t_ms), 'evaluation')}"
            yield Finding.of(one.rule, "no-value", what, "look at each side of it: labels that do not match, 0/0")
    still = [left for left, there, moves in seen if there and not moves]
    if still:  # one is enough: burn rates read the same thing over several windows
        what = f"{still[0]} is 0 at every one of {count(len(one.t_ms), 'evaluation')}"
        yield Finding.of(one.rule, "always-zero", what, "judge it on a run with an incident too")
    share = true_share(one)
    over = written_ms(int(one.t_ms[-1] - one.t_ms[0]))
    if share >= NEARLY_ALWAYS:
        what = f"true at {share:.0%} of {count(len(one.t_ms), 'evaluation')}"
        yield Finding.of(
            one.rule, "true-when-healthy", what, "another threshold, or another signal: blowout alerts tune"
        )
    elif one.fired:
        what = f"fired {count(len(one.fired), 'time')} in {over} in which all went well"
        yield Finding.of(one.rule, "fires-when-healthy", what, "a higher threshold, a longer window or a longer for")


def true_share(one: Judgement) -> float:
    """Return at which share of its evaluations any alert of a rule was pending or firing."""
    active = np.zeros(len(one.t_ms) + 1, int)
    for episode in one.episodes:
        active[np.searchsorted(one.t_ms, episode.pending_ms)] += 1
        if episode.ended_ms is not None:
            active[np.searchsorted(one.t_ms, episode.ended_ms)] -= 1
    return float((active.cumsum()[:-1] > 0).mean()) if len(one.t_ms) else 0.0
