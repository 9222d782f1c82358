"""A Grafana dashboard of alert rules: a row for each severity, a panel for each rule, its threshold as a line."""

from collections.abc import Sequence
from typing import Any

from sim.alerts.lint.quantities import Comparison, Measured
from sim.alerts.lint.text import comparisons, measure, tree_of
from sim.alerts.rulefile import Group, Rule, written_ms

SCHEMA = 39
"""Version of Grafana's dashboard JSON (11.x exports it)."""
WIDTH, HEIGHT = 12, 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
ORDER = ("page", "critical", "ticket", "warning", "info")


def dashboard(groups: Sequence[Group], title: str) -> dict[str, Any]:
    """Return the dashboard of all alerts in *groups*, as Grafana imports it."""
    measured = measure(groups)
    alerts = [rule for group in groups for rule in group.rules if not rule.records]
    severities = {rule.labels.get("severity", "") for rule in alerts}
    panels: list[dict[str, Any]] = []
    y = 0
    for severity in sorted(severities, key=lambda one: (ORDER.index(one) if one in ORDER else len(ORDER), one)):
        panels.append(_row(severity or "no severity", y))
        y += 1
        own = [rule for rule in alerts if rule.labels.get("severity", "") == severity]
        for i, rule in enumerate(own):
            panels.append(_panel(rule, measured, i % 2 * WIDTH, y + i // 2 * HEIGHT))
        y += (len(own) + 1) // 2 * HEIGHT
    variable = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "title": title,
        "uid": None,
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "tags": ["alerts", "llm"],
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [variable]},
        "annotations": {"list": [_firings()]},
        "panels": panels,
    }


def _firings() -> dict[str, Any]:
    """Return what marks on every panel when alerts were firing."""
    return {
        "name": "firing",
        "enable": True,
        "iconColor": "red",
        "datasource": SOURCE,
        "expr": 'ALERTS{alertstate="firing"}',
        "titleFormat": "{{alertname}}",
    }


def _row(title: str, y: int) -> dict[str, Any]:
    return {
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"h": 1, "w": 24, "x": 0, "y": y},
        "panels": [],
    }


def _panel(rule: Rule, measured: Measured, x: int, y: int) -> dict[str, Any]:
    """Return the panel of one alert: the left side of its first comparison, the number as a line."""
    tree = tree_of(rule)
    found = next((one for _, one in comparisons(tree, measured)), None)
    shown = str((tree if found is None else found.left).prettify())
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if found is not None:
        steps = [{"color": "red" if not found.upwards else "green", "value": None}]
        steps.append({"color": "red" if found.upwards else "green", "value": found.number})
    lasting = f" for {written_ms(rule.for_ms)}" if rule.for_ms else ""
    said = rule.annotations.get("reason") or rule.annotations.get("summary", "")
    return {
        "type": "timeseries",
        "title": rule.name,
        "description": f"{' '.join(rule.text.split())}{lasting}" + (f"\n\n{said}" if said else ""),
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": x, "y": y},
        "targets": [{"refId": "A", "datasource": SOURCE, "expr": shown, "legendFormat": "__auto"}],
        "fieldConfig": {
            "defaults": {
                "unit": "short" if found is None else _unit(found),
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {"thresholdsStyle": {"mode": "off" if found is None else "line"}, "spanNulls": False},
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def _unit(one: Comparison) -> str:
    """Return Grafana's name of the unit."""
    if one.quantity.fraction or one.quantity.kind == "share":
        return "percentunit"
    metric = one.quantity.metric
    seconds = one.quantity.kind == "percentile" and metric is not None and metric.family.endswith("_seconds")
    return "s" if seconds else "short"
