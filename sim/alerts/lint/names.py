"""Do the names, labels and values that a rule reads exist?"""

import difflib
import re
from collections.abc import Collection, Iterator
from typing import Any

import promql_parser as promql

from sim.alerts.lint.exposed import COMPLETE, METRICS, NEVER_COUNTED, RENAMED, TARGET_LABELS, UNFINISHED, Metric
from sim.alerts.lint.findings import Finding
from sim.alerts.promql.parsing import bare, selector, walk
from sim.alerts.promql.store import Matcher
from sim.alerts.promql.vectors import UnsupportedError
from sim.alerts.rulefile import Rule
from sim.series import NAME
from sim.words import show

NEAR = 0.85
"""How alike two names must be for one to be taken for a typing error of the other (difflib's ratio)."""
_OTHER_LABELS = {label for metric in METRICS.values() for label in metric.labels}
_OF_PROMETHEUS = ("ALERTS", "ALERTS_FOR_STATE")


def check_names(rule: Rule, tree: Any, recorded: Collection[str], held: Collection[str] = ()) -> Iterator[Finding]:
    """Yield what is wrong with the selectors of *rule*; *recorded* and *held* are names known otherwise."""
    for node in walk(tree):
        if isinstance(node, promql.VectorSelector):
            chosen = selector(node)
            name = chosen.name
            if not name or name in recorded or name in held or name in _OF_PROMETHEUS:
                continue
            if name in METRICS:
                yield from _check_labels(rule, METRICS[name], chosen.matchers)
            elif not (name.endswith("_created") and name.removesuffix("_created") in UNFINISHED):
                yield _name(rule, name, recorded)
        elif isinstance(node, promql.AggregateExpr):
            yield from _check_grouping(rule, node)
        elif isinstance(node, promql.Call) and node.func.name == "histogram_quantile":
            yield from _check_le(rule, bare(node.args[1]))


def _name(rule: Rule, name: str, recorded: Collection[str]) -> Finding:
    """Return what is wrong with a *name* that the catalogue does not have."""
    if name in RENAMED:
        return Finding.of(rule, "renamed-metric", f"{name} is a name of older versions", f"read {RENAMED[name]}")
    if name in UNFINISHED:
        meant = UNFINISHED[name]
        what = f"{name} is a {'counter' if len(meant) == 1 else 'histogram'} without its suffix"
        return Finding.of(rule, "missing-suffix", what, f"read {' or '.join(meant)}")
    coloned = name.replace("_", ":", 1)
    known = [*METRICS, *recorded]
    near = [coloned] if coloned in METRICS else difflib.get_close_matches(name, known, n=1, cutoff=NEAR)
    if near or name.startswith(COMPLETE):
        near = near or difflib.get_close_matches(name, known, n=1)
        instead = f"did you mean {near[0]}?" if near else "look it up in docs/reference/series.md"
        return Finding.of(rule, "unknown-metric", f"no metric is called {name}", instead)
    what = f"{name} is no metric of vLLM, SGLang or the gateway, and no rule here records it"
    return Finding.of(
        rule, "unchecked", what, "check its unit and its labels yourself, or give the file that records it"
    )


def _check_labels(rule: Rule, metric: Metric, matchers: Collection[Matcher]) -> Iterator[Finding]:
    for matcher in matchers:
        if matcher.name in (NAME, *TARGET_LABELS) and matcher.name not in metric.labels:
            continue
        if matcher.name not in metric.labels:
            yield _label(rule, metric.name, matcher.name, list(metric.labels))
        elif known := metric.labels[matcher.name]:
            yield from _check_value(rule, metric, matcher, known)


def _label(rule: Rule, of: str, label: str, own: list[str]) -> Finding:
    near = difflib.get_close_matches(label, own, n=1)
    sure = near and difflib.SequenceMatcher(None, label, near[0]).ratio() >= NEAR
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(own) or 'none of its own'}"
    if sure or label in _OTHER_LABELS:
        return Finding.of(rule, "unknown-label", f"{of} has no label {label}", hint)
    what = f"{of} has no label {label} of its own"
    return Finding.of(rule, "unchecked", what, f"{hint}; if your scrape configuration adds it, all is well")


def _check_value(rule: Rule, metric: Metric, matcher: Matcher, known: tuple[str, ...]) -> Iterator[Finding]:
    try:
        pattern = matcher.accepts()
    except UnsupportedError:
        return
    named = {v for v in known if (v == matcher.value if pattern is None else pattern.fullmatch(v))}
    if not named and matcher.value:
        does = "matches nothing" if matcher.op in ("=", "=~") else "excludes nothing"
        what = f"{metric.name}{{{matcher.name}{matcher.op}{show(matcher.value)}}} {does}"
        yield Finding.of(rule, "unknown-value", what, _value_meant(matcher, known))
    left = named if matcher.op in ("=", "=~") else set(known) - named
    if metric.name == "vllm:request_success_total" and left and left <= NEVER_COUNTED.get(matcher.name, frozenset()):
        what = f"{metric.name}{{{matcher.name}{matcher.op}{show(matcher.value)}}} stays 0"
        instead = 'count at the gateway: sum(rate(gateway_requests_total{code=~"5.."}[5m]))'
        yield Finding.of(rule, "never-counted", what, instead)


def _value_meant(matcher: Matcher, known: tuple[str, ...]) -> str:
    if matcher.name != "le" or not re.fullmatch(r"[\d.]+", matcher.value):
        return f"its values are {', '.join(known)}"
    bounds = [float(bound) for bound in known if bound != "+Inf"]
    number = float(matcher.value)
    if number in bounds:
        return f'vLLM writes le="{number!r}" (and Prometheus before 3 compares texts)'
    below, above = around(bounds, number)
    return f'the bounds next to it are le="{below!r}" and le="{above!r}"'


def around(bounds: Collection[float], number: float) -> tuple[float, float]:
    """Return the bounds of the bucket that *number* lies in."""
    return max((b for b in bounds if b < number), default=0.0), min(
        (b for b in bounds if b >= number), default=max(bounds)
    )


def _check_grouping(rule: Rule, node: Any) -> Iterator[Finding]:
    """Yield labels after ``by`` or ``without`` that no series below has."""
    below = [METRICS[n.name] for n in walk(node.expr) if isinstance(n, promql.VectorSelector) and n.name in METRICS]
    own = {label for metric in below for label in metric.labels}
    if node.modifier is None or not below:
        return
    for label in node.modifier.labels:
        if label not in own and label not in TARGET_LABELS:
            found = _label(rule, below[0].name, label, sorted(own))
            if found.kind == "unknown-label":
                yield found


def _check_le(rule: Rule, node: Any) -> Iterator[Finding]:
    if not isinstance(node, promql.AggregateExpr):
        return
    labels = () if node.modifier is None else tuple(node.modifier.labels)
    by = node.modifier is None or str(node.modifier.type).endswith("By")
    if by != ("le" in labels):
        what = f"histogram_quantile of {node.op} {'by' if by else 'without'} ({', '.join(labels)})"
        yield Finding.of(rule, "missing-le", what, f"{node.op} by (le{''.join(', ' + one for one in labels if by)})")
