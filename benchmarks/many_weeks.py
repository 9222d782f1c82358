"""Weeks of a service that nobody simulated: day and night, incidents whose times are known, and blips that are none.

Error incidents are fast (a fifth to a half of all requests for half an hour) or slow (3% for three hours); in tail
incidents a fifth of the answers is slow. Blips are one to four minutes of either, which users were not promised to be
spared. All invented, seeded, and the same each time.
"""

import numpy as np

from sim.alerts.truth import Incident
from sim.rng import stream
from sim.series import NAME, SeriesSet

WEEK_S = 604_800
BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
SLOW = np.array([0.0, 0.0, 0.0, 0.05, 0.15, 0.4, 0.3, 0.1, 0.0, 0.0, 0.0])
HEALTHY = np.array([0.3, 0.35, 0.2, 0.1, 0.045, 0.004, 0.001, 0.0, 0.0, 0.0, 0.0])

RULES = """\
groups:
  - name: five
    interval: {interval}
    rules:
      - alert: ErrorsHigh # of all requests
        expr: |
          sum(rate(gateway_requests_total{{code="500"}}[5m]))
            / sum(rate(gateway_requests_total[5m])) > 0.01
        for: 5m
        labels: {{severity: page}}
      - alert: AnswersSlow
        expr: 1 - sum(rate(latency_bucket{{le="2.5"}}[5m])) / sum(rate(latency_count[5m])) > 0.05
        for: 10m
        labels: {{severity: page}}
      - alert: P95High
        expr: histogram_quantile(0.95, sum by (le) (rate(latency_bucket[5m]))) > 2.5
        for: 10m
        labels: {{severity: page}}
      - alert: KVHigh
        expr: avg by (instance) (avg_over_time(kv[5m])) > 0.9 and on () sum(rate(latency_count[5m])) > 0.1
        for: 15m
        labels: {{severity: ticket}}
      - alert: QualityLow
        expr: sum(increase(score_sum[1h])) / sum(increase(score_count[1h])) < 0.9 * 0.92
        labels: {{severity: ticket}}
"""


def many_weeks(weeks: float, every_s: int, seed: int = 1, rate_per_s: float = 4.0) -> tuple[SeriesSet, list[Incident]]:
    """Return the series (four instances) and the incidents of *weeks*, scraped every *every_s* seconds."""
    rng = stream(seed, "many weeks")
    n = round(weeks * WEEK_S / every_s)
    t_s = np.arange(n) * every_s
    load = rate_per_s * every_s * (0.65 - 0.35 * np.cos(2 * np.pi * t_s / 86_400))
    bad, slow, full, wrong = np.full(n, 0.002), np.zeros(n), np.zeros(n), np.full(n, 0.08)
    incidents = []
    for number in range(round(11 * weeks)):
        start = int(rng.integers(0, n))
        kind = ("errors, fast", "errors, slow", "tail", "tail")[number % 4]
        length_s = rng.uniform(1200, 3600) if kind != "errors, slow" else rng.uniform(7200, 14_400)
        end = min(n, start + int(length_s / every_s))
        if kind.startswith("errors"):
            bad[start:end] = rng.uniform(0.2, 0.5) if kind == "errors, fast" else rng.uniform(0.02, 0.04)
        else:
            slow[start:end], full[start:end] = rng.uniform(0.1, 0.4), 0.5
        severity = "ticket" if kind == "errors, slow" else "page"
        incidents.append(Incident("", start * every_s * 1000, end * every_s * 1000, severity, objective=kind))
    for _ in range(round(42 * weeks)):
        start = int(rng.integers(0, n))
        blip = slice(start, start + max(1, int(rng.uniform(60, 240) / every_s)))
        bad[blip] = np.maximum(bad[blip], rng.uniform(0.01, 0.08))
        slow[blip] = np.maximum(slow[blip], rng.uniform(0.0, 0.1))
    wrong[rng.integers(0, n) :][: int(0.2 * n)] = 0.2
    incidents.sort(key=lambda one: one.start_ms)
    named = [Incident(f"i{k}", *list(vars(one).values())[1:]) for k, one in enumerate(incidents, 1)]
    return _series(rng, t_s * 1000, load, (bad, slow, full, wrong)), named


def _series(rng: np.random.Generator, t_ms: np.ndarray, load: np.ndarray, state: tuple[np.ndarray, ...]) -> SeriesSet:
    bad, slow, full, wrong = state
    made = SeriesSet()
    n = len(t_ms)
    for instance in "abcd":
        requests = rng.poisson(load / 4)
        failed = rng.binomial(requests, np.minimum(bad, 1))
        late = rng.binomial(requests, np.minimum(slow, 1))
        cells = _spread(rng, requests - late, HEALTHY) + _spread(rng, late, SLOW)
        labels = {"instance": instance}
        for code, counts in (("200", requests - failed), ("500", failed)):
            made.add({NAME: "gateway_requests_total", "code": code, **labels}, t_ms, counts.cumsum().astype(float))
        for bound, counts in zip([*map(repr, BOUNDS), "+Inf"], cells.cumsum(axis=1).T):
            made.add({NAME: "latency_bucket", "le": bound, **labels}, t_ms, counts.cumsum().astype(float))
        made.add({NAME: "latency_count", **labels}, t_ms, requests.cumsum().astype(float))
        made.add({NAME: "kv", **labels}, t_ms, np.clip(0.4 + full + rng.normal(0, 0.05, n), 0, 1))
        looked = rng.binomial(requests, 0.05)
        made.add({NAME: "score_count", **labels}, t_ms, looked.cumsum().astype(float))
        made.add({NAME: "score_sum", **labels}, t_ms, rng.binomial(looked, 1 - wrong).cumsum().astype(float))
    return made


def _spread(rng: np.random.Generator, counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return *counts* (steps) dealt to cells with *shares*: (steps, cells)."""
    return rng.multinomial(counts, shares / shares.sum())
