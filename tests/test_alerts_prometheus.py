"""PromQL as evaluated here against the real Prometheus 2.42, on random series: bit for bit where that is promised."""

from collections.abc import Iterator

import numpy as np
import pytest

from sim.alerts.promql.evaluation import evaluate
from sim.alerts.promql.parsing import parse
from sim.alerts.promql.store import Store
from sim.alerts.promql.vectors import Dialect, Steps, Vector
from sim.series import NAME, STALE, SeriesSet
from tests.real_prometheus import Server, running

START_MS = 1_700_000_000_000
LENGTH_MS = 2 * 3_600_000
STEPS = np.arange(START_MS - 120_000, START_MS + LENGTH_MS + 600_000, 13_000, dtype=np.int64)
LEAST_POINTS = 100_000

EXACT = [
    "c_total",
    "g",
    "g offset 7m",
    "g offset -3m",
    'c_total{i=~"[1-3]",job!="a"}',
    '{__name__=~"g|whole", i!~"2|3"}',
    *(f"{f}({m}[{r}])" for f in ("rate", "increase") for m in ("c_total", "h_bucket") for r in ("1m", "5m", "1h")),
    "rate(slow_total[2m])",
    "increase(c_total[4m] offset 90s)",
    *(f"{f}_over_time(g[2m])" for f in ("avg", "min", "max", "sum", "count", "last", "present")),
    *(f"{f}_over_time(g[20m])" for f in ("avg", "min", "max", "sum", "count", "last", "present")),
    "stddev_over_time(g[5m])",
    "stdvar_over_time(g[5m])",
    "sum_over_time(whole[10m])",
    "quantile_over_time(0.3, g[5m])",
    "quantile_over_time(1.5, whole[5m])",
    'absent_over_time(g{i="1"}[1m])',
    'absent(g{i="1",job=~".*"})',
    "absent(nothing{a=\"b\",a=\"c\",d=\"e\"})",
    *(f"histogram_quantile({q}, rate(h_bucket[5m]))" for q in ("0", "0.5", "0.99", "1", "-1", "2")),
    "histogram_quantile(0.9, h_bucket)",
    "histogram_quantile(scalar(whole{i=\"0\"}) / 10, increase(h_bucket[10m]))",
    "-g",
    "g * 2 - whole",
    "whole / ignoring(job) g",
    "g % 3",
    "7 % whole",
    "g > 1",
    "1 < g",
    "g > bool 1",
    "2 == bool 2",
    "g >= whole",
    "g != bool on(i) whole",
    "g < on(i, job) whole",
    "whole > ignoring(job) g",
    "g and whole > 2",
    "g or whole",
    "whole unless on(i) g > 1",
    "g and on() (whole{i=\"0\"} > 3)",
    "rate(h_bucket[5m]) / on(i) group_left() rate(h_count[5m])",
    "rate(h_count[5m]) * on(i) group_right(job) rate(h_bucket[5m])",
    "g * on(i) group_left(kind) info",
    "g > on(i) group_left(kind) info",
    "info < on(i) group_right(kind) g",
    "h_count >= bool on(i) group_right h_bucket",
    "whole and on(i) g unless on(i) (whole > 5)",
    "(whole > 4) or on(job) g",
    "absent(g > 1e9)",
    "count_over_time(g[90s] offset 3m)",
    'g{job="",i!="1"} or c_total{nothing=""}',
    "vector(scalar(g))",
    "max(g) - min(g)",
    "max by (nothing) (-g / 0)",
    "1 - (whole == 3)",
    "g - on(i) g",
    "clamp(g, 0, 1)",
    "clamp(g, scalar(whole{i=\"0\"}), 3)",
    "clamp_min(g, 1)",
    "clamp_max(g, 1)",
    "vector(scalar(whole{i=\"1\"}))",
    "vector(1) / 0",
    "count(g)",
    "count by (job) (c_total)",
    "min by (job) (g)",
    "max without (i) (g)",
    "max(whole) by (__name__)",
]  # fmt: skip
CLOSE = [
    "sum(whole)",
    "sum by (job) (rate(c_total[5m]))",
    "sum by (le) (rate(h_bucket[5m]))",
    "avg by (job) (whole)",
    "avg without (i) (rate(c_total[1m]))",
    "sum(rate(c_total{job=\"a\"}[5m])) / sum(rate(c_total[5m]))",
    "histogram_quantile(0.95, sum by (le) (rate(h_bucket[5m])))",
]  # fmt: skip


def times(rng: np.random.Generator, every_ms: int) -> np.ndarray:
    """Scrapes with jitter, some of them missing, some for minutes; the series is born late."""
    t_ms = np.arange(START_MS, START_MS + LENGTH_MS, every_ms) + rng.integers(0, every_ms // 4)
    if rng.random() < 0.7:
        t_ms = t_ms + rng.integers(-every_ms // 3, every_ms // 3, t_ms.size)
    kept = rng.random(t_ms.size) > 0.03
    for _ in range(3):
        hole = rng.integers(t_ms.size)
        kept[hole : hole + rng.integers(2, 60)] = False
    kept[: rng.integers(0, t_ms.size // 2) if rng.random() < 0.5 else 0] = False
    return t_ms[kept]


def with_ends(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """Stale markers here and there, and at the end of some series."""
    ended = rng.random(values.size) < 0.01
    ended[-1] = rng.random() < 0.5
    values[ended] = STALE[0:1].repeat(ended.sum())
    return values


def counter(rng: np.random.Generator, size: int, whole: bool) -> np.ndarray:
    """Growing, at times not at all, with resets; some start above zero."""
    grown = rng.poisson(rng.choice([0.1, 3, 50]), size) if whole else rng.exponential(2, size)
    values = grown.cumsum() + rng.choice([0.0, 30.0])
    for at in rng.integers(0, size, rng.integers(0, 12)):
        values[at:] = grown[at:].cumsum()
    return values.astype(float)


def random_series(seed: int) -> SeriesSet:
    """Sixty and some series of every kind that Prometheus meets."""
    rng = np.random.default_rng(seed)
    made = SeriesSet()
    for i in range(10):
        who = {"i": str(i), "job": "ab"[i % 2]}
        t = times(rng, 15_000)
        made.add({NAME: "c_total", **who}, t, with_ends(rng, counter(rng, t.size, i % 2 == 0)))
        t = times(rng, 15_000)
        values = rng.normal(1, 2, t.size) * 10.0 ** rng.integers(-3, 4)
        values[rng.random(t.size) < 0.01] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0])
        made.add({NAME: "g", **who}, t, with_ends(rng, values))
        t = times(rng, 15_000)
        made.add({NAME: "whole", **who}, t, with_ends(rng, rng.integers(0, 9, t.size).astype(float)))
    for i in range(3):
        t = times(rng, 60_000)
        made.add({NAME: "slow_total", "i": str(i)}, t, with_ends(rng, counter(rng, t.size, True)))
        t = times(rng, 15_000)
        made.add({NAME: "info", "i": str(i), "kind": "xyz"[i]}, t, np.ones(t.size))
    for i in range(3):
        grid = times(rng, 15_000)
        counts = np.cumsum([counter(rng, grid.size, True) for _ in range(8)], axis=0)
        bounds = (["0.1", "0.5", "1.0", "1", "2.5", "10", "99", "+Inf"], ["-1", "0", "1", "2", "3", "4", "5", "+Inf"])
        for bound, values in zip(bounds[i == 1], counts):
            kept = rng.random(grid.size) > 0.02
            labels = {NAME: "h_bucket", "i": str(i), "le": bound, "job": "a"}
            made.add(labels, grid[kept], with_ends(rng, values[kept]))
        made.add({NAME: "h_count", "i": str(i), "job": "a"}, grid, counts[-1].copy())
    return made


def ours(store: Store, query: str, t_ms: np.ndarray) -> Vector:
    steps = Steps(t_ms)
    found = evaluate(parse(query), store, steps)
    assert not steps.failed.any(), (query, steps.reasons)
    return found


def ulps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many floats lie between *a* and *b*; NaN is as far from NaN as nothing."""
    bits = [np.where(x.view(np.int64) < 0, np.int64(-(2**63)) - x.view(np.int64), x.view(np.int64)) for x in (a, b)]
    apart = np.abs(bits[0].astype(float) - bits[1].astype(float))
    return np.where(np.isnan(a) & np.isnan(b), 0, np.where(np.isnan(a) | np.isnan(b), np.inf, apart))


def compare(query: str, t_ms: np.ndarray, mine: Vector, theirs: dict, most_ulps: int) -> int:
    """Check presence and values of every point, and return how many there are."""
    here = {labels: (v, p) for labels, v, p in zip(mine.labels, mine.values, mine.present) if p.any()}
    assert here.keys() == theirs.keys(), query
    points = 0
    for labels, (values, present) in here.items():
        assert t_ms[present].tolist() == list(theirs[labels]), (query, labels)
        real, found = np.array(list(theirs[labels].values())), values[present]
        apart = ulps(found, real)
        if most_ulps == 0:
            apart = np.where(np.signbit(found) == np.signbit(real), apart, np.where(np.isnan(found), 0, np.inf))
        worst = int(apart.argmax())
        assert apart[worst] <= most_ulps, (query, labels, t_ms[present][worst], found[worst], real[worst])
        points += len(real)
    return points


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Store]]:
    with running(tmp_path_factory.mktemp("prometheus")) as server:
        series = random_series(1)
        server.write(series)
        yield server, Store(series)


@pytest.mark.slow
def test_every_point_is_the_one_of_the_real_prometheus(real: tuple[Server, Store]) -> None:
    server, store = real
    points = 0
    for most_ulps, queries in ((0, EXACT), (4, CLOSE)):
        for query in queries:
            points += compare(query, STEPS, ours(store, query, STEPS), server.range(query, STEPS), most_ulps)
    assert points >= LEAST_POINTS


@pytest.mark.slow
def test_instant_queries_are_the_same_too(real: tuple[Server, Store]) -> None:
    server, store = real
    rng = np.random.default_rng(2)
    for query in EXACT:
        t_ms = rng.integers(START_MS, START_MS + LENGTH_MS, 1)
        compare(query, t_ms, ours(store, query, t_ms), server.instant(query, int(t_ms[0])), 0)


@pytest.mark.slow
def test_the_comparison_has_power(real: tuple[Server, Store]) -> None:
    server, store = real
    steps = Steps(np.arange(START_MS, START_MS + LENGTH_MS, 15_000, dtype=np.int64), Dialect.PROM_3)
    for query in ("rate(c_total[5m])", "rate(h_bucket[1m])"):
        other = evaluate(parse(query), store, steps)
        with pytest.raises(AssertionError):
            compare(query, steps.t_ms, other, server.range(query, steps.t_ms), 0)
