"""What is wrong with rules before they are judged on anything: their names, units, thresholds and shapes."""

from collections.abc import Iterator, Sequence
from typing import Any

import promql_parser as promql

from sim.alerts.lint.exposed import METRICS, OF_ANSWER_LENGTH, OF_LENGTH
from sim.alerts.lint.findings import Finding
from sim.alerts.lint.names import around, check_names
from sim.alerts.lint.quantities import GROWTH, Comparison, Measured, Quantity, conditions
from sim.alerts.promql.parsing import bare, children, walk
from sim.alerts.rulefile import FROM_LABELS, Group, Rule, written_ms
from sim.alerts.rules import DEFAULT_INTERVAL_MS
from sim.series import SeriesSet

_ONLY_WHETHER = ("absent", "absent_over_time", "present_over_time", "count_over_time", "timestamp")
"""Functions that ask only whether there are samples, whatever their values."""


def lint(groups: Sequence[Group], held: SeriesSet | None = None) -> list[Finding]:
    """Return what is wrong with the rules of *groups*, in their order; *held* are series whose names exist."""
    recorded: dict[str, Quantity] = {}
    every = {rule.name for group in groups for rule in group.rules if rule.records}
    names = held.names if held is not None else set()
    strange = {name for name in names if name not in METRICS}
    found: list[Finding] = []
    for group in groups:
        for rule in group.rules:
            tree = tree_of(rule)
            measured = Measured(recorded)
            found += check_names(rule, tree, every, strange)
            found += _check_counters(rule, tree, measured)
            found += _check_rule(rule, group.interval_ms or DEFAULT_INTERVAL_MS)
            found += _check_comparisons(rule, tree, measured)
            if rule.records:
                one = measured.of(tree)
                recorded[rule.name] = one if recorded.get(rule.name, one) == one else Quantity()
    found += _check_files(groups)
    return list(dict.fromkeys(found))


def tree_of(rule: Rule) -> Any:
    """Return the parsed expression of *rule*, also of one that is outside the subset."""
    return rule.expression.tree if rule.expression is not None else promql.parse(rule.text)


def measure(groups: Sequence[Group]) -> Measured:
    """Return what the recording rules of *groups* measure."""
    recorded: dict[str, Quantity] = {}
    for group in groups:
        for rule in group.rules:
            if rule.records:
                recorded[rule.name] = Measured(recorded).of(tree_of(rule))
    return Measured(recorded)


def comparisons(tree: Any, measured: Measured) -> Iterator[tuple[Any, Comparison]]:
    """Yield every comparison of a value with a number, and where it stands."""
    for node in walk(tree):
        if (one := measured.comparison(node)) is not None:
            yield node, one


def _check_rule(rule: Rule, interval_ms: int) -> Iterator[Finding]:
    """Yield what is wrong outside the expression."""
    changing = [label for label, text in rule.labels.items() if "{{" in FROM_LABELS.sub("", text)]
    for label in changing:
        what = f"the label {label} is {rule.labels[label]}"
        yield Finding.of(rule, "templated-label", what, "say it in an annotation, which may change")
    if rule.refused and not changing:
        yield Finding.of(
            rule, "not-judged", f"it uses {rule.refused}", "docs/reference/promql.md has what can be judged"
        )
    if 0 < rule.for_ms < interval_ms:
        what = f"for is {rule.for_ms / 1000:g} s and its group is evaluated every {interval_ms / 1000:g} s"
        yield Finding.of(rule, "for-below-interval", what, "a shorter interval of the group, or no for")


def _check_counters(rule: Rule, tree: Any, measured: Measured) -> Iterator[Finding]:
    for name in dict.fromkeys(_uncounted(tree, measured)):
        over = "rate" if METRICS[name].kind == "bucket" else "rate or increase"
        yield Finding.of(rule, "missing-rate", f"{name} is a counter, read as it is", f"{over}({name}[5m])")
    for node in walk(tree):
        if isinstance(node, promql.Call) and node.func.name in ("rate", "increase", "irate") and node.args:
            metric = measured.of(node.args[0]).metric
            if metric is not None and metric.kind == "gauge":
                what = f"{node.func.name} of {metric.name}, which is a gauge"
                yield Finding.of(rule, "rate-of-gauge", what, f"avg_over_time({metric.name}[5m])")


def _uncounted(node: Any, measured: Measured) -> Iterator[str]:
    """Yield the counters whose values count, and not their growth or their being there."""
    node = bare(node)
    if isinstance(node, promql.VectorSelector) and node.name in METRICS and METRICS[node.name].kind != "gauge":
        yield node.name
    if isinstance(node, promql.Call) and node.func.name in (*GROWTH, *_ONLY_WHETHER):
        return
    if isinstance(node, promql.AggregateExpr) and str(node.op) in ("count", "group"):
        return
    below = children(node)
    if isinstance(node, promql.BinaryExpr) and str(node.op) in ("and", "unless"):
        below = [part for i, part in enumerate(below) if not (i and isinstance(bare(part), promql.VectorSelector))]
    for child in below:
        yield from _uncounted(child, measured)


def _check_comparisons(rule: Rule, tree: Any, measured: Measured) -> Iterator[Finding]:
    for node, one in comparisons(tree, measured):
        if one.never or one.always:
            yield _out_of_range(rule, node, one)
        elif one.quantity.kind == "percentile":
            yield from _check_percentile(rule, one)
        elif one.quantity.kind == "tail" and one.quantity.metric and one.quantity.metric.family in OF_LENGTH:
            family = one.quantity.metric.family
            what = f"P{one.quantity.quantile * 100:g} over a lower percentile of {family} {one.op} {one.number:g}"
            instead = (
                "the share of slow requests at a bucket's bound, or inter-token latency, against its own last week"
            )
            yield Finding.of(rule, "tail-ratio", what, instead)
        elif one.quantity.kind == "gauge" and not one.quantity.smooth and rule.for_ms and one.op not in ("==", "!="):
            name = one.quantity.metric.name if one.quantity.metric else "a gauge"
            what = f"{name} {one.op} {one.number:g} for {rule.for_ms / 1000:g} s, sample by sample"
            yield Finding.of(rule, "gauge-with-for", what, f"avg_over_time({name}[5m]) {one.op} {one.number:g}")
    if not rule.records:
        yield from _check_traffic(rule, tree, measured)


def _out_of_range(rule: Rule, node: Any, one: Comparison) -> Finding:
    said, q = str(node.prettify()).replace("\n", " "), one.quantity
    what = f"{' '.join(said.split())} is {'never' if one.never else 'always'} true"
    if q.fraction and one.product and one.never:
        instead = (
            f"a factor below 1/(1-SLO), the number below 1 and not {one.number:g}; or a longer window and a low factor"
        )
        return Finding.of(rule, "unreachable-burn", what, instead)
    if q.fraction and one.number > 0 and (one.never or one.number > 1):
        return Finding.of(rule, "percent-for-fraction", what, f"{one.op} {_as_fraction(one.number)}")
    if q.kind == "percentile" and one.never:
        top = f"{q.high:g} s is the highest that a bucket can say"
        return Finding.of(
            rule, "never-true", what, f"{top}; the unit is seconds, {one.number:g} ms is {one.number / 1000:g}"
        )
    span = f"the value lies between {q.low:g} and {q.high:g}"
    return Finding.of(rule, "never-true" if one.never else "always-true", what, f"a number inside: {span}")


def _as_fraction(number: float) -> str:
    return f"{number / 100:g}"


def _check_percentile(rule: Rule, one: Comparison) -> Iterator[Finding]:
    metric, q = one.quantity.metric, one.quantity
    if metric is None:
        return
    name = f"P{q.quantile * 100:g} of {metric.family} {one.op} {one.number:g}"
    bound = one.number
    if metric.bounds and one.number not in metric.bounds:
        below, above = around(metric.bounds, one.number)
        bound = below if below and one.number - below <= above - one.number else above
        what = f"{name}: {one.number:g} lies inside the bucket ({below:g}, {above:g}]"
        yield Finding.of(rule, "threshold-in-bucket", what, _share_above(metric.family, bound, q.quantile))
    if metric.family in OF_ANSWER_LENGTH:
        instead = (
            _share_above("vllm:time_to_first_token_seconds", 2.5, q.quantile) + ", and the same of inter-token latency"
        )
        yield Finding.of(rule, "whole-answer-latency", name, instead)


def _share_above(family: str, bound: float, quantile: float) -> str:
    slow = f'1 - sum(rate({family}_bucket{{le="{bound!r}"}}[5m])) / sum(rate({family}_count[5m])) > {1 - quantile:.3g}'
    return f"count the share above a bound: {slow}"


def _check_traffic(rule: Rule, tree: Any, measured: Measured) -> Iterator[Finding]:
    """Yield a share that is compared without asking of how many."""
    for way in conditions(tree):
        shares = [one for part in way if (one := measured.comparison(part)) and one.quantity.kind == "share"]
        guarded = any(measured.guards(part) for part in way) or any(one.quantity.guarded for one in shares)
        if shares and not guarded and not any(one.never or one.always for one in shares):
            metric = shares[0].quantity.metric
            counted = _count_of(metric.name) if metric else "the count"
            what = f"a share {shares[0].op} {shares[0].number:g}, of however few"
            window = written_ms(shares[0].quantity.window_ms or 300_000)
            yield Finding.of(rule, "no-minimum-traffic", what, f"... and sum(increase({counted}[{window}])) > 100")
            return


def _count_of(name: str) -> str:
    for suffix in ("_bucket", "_sum"):
        if name.endswith(suffix):
            return name.removesuffix(suffix) + "_count"
    return name


def _check_files(groups: Sequence[Group]) -> Iterator[Finding]:
    """Yield files with shares or percentiles where no rule at all notices that nothing comes any more."""
    measured = measure(groups)
    trees = [(rule, tree_of(rule)) for group in groups for rule in group.rules]
    if any(not rule.records and _notices_absence(tree, measured) for rule, tree in trees):
        return
    seen: set[str] = set()
    for rule, tree in trees:
        kinds = {one.quantity.kind for _, one in comparisons(tree, measured)}
        if not rule.records and rule.file not in seen and kinds & {"share", "percentile", "tail"}:
            seen.add(rule.file)
            instead = 'an alert on absent(up{job="vllm"} == 1), and one on traffic that was there an hour ago'
            yield Finding("no-absence-rule", "no rule notices that there is nothing to count", instead, rule.file, 1)


def _notices_absence(tree: Any, measured: Measured) -> bool:
    for node in walk(tree):
        if isinstance(node, promql.Call) and node.func.name in ("absent", "absent_over_time"):
            return True
        if isinstance(node, promql.VectorSelector) and node.name == "up":
            return True
        if (one := measured.comparison(node)) and one.quantity.kind == "growth" and (one.op, one.number) == ("==", 0):
            return True
    return False
