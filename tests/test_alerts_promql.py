"""What the subset of PromQL is, what it refuses and where, and what an error at one step does to the others."""

import numpy as np
import pytest

from sim.alerts.promql.evaluation import evaluate
from sim.alerts.promql.parsing import SyntaxFault, parse, place
from sim.alerts.promql.store import Store
from sim.alerts.promql.vectors import Dialect, Steps, UnsupportedError, Vector, labels_of, written
from sim.series import NAME, STALE, SeriesSet

T_MS = np.arange(0, 600_000, 15_000)


def store(**series: list[float]) -> Store:
    made = SeriesSet()
    for name, values in series.items():
        name, _, i = name.partition("__")
        made.add({NAME: name, "i": i}, T_MS[: len(values)], np.array(values, float))
    return Store(made)


def run(query: str, held: Store, t_ms: np.ndarray = T_MS, dialect: Dialect = Dialect.PROM_2_42) -> tuple[Vector, Steps]:
    steps = Steps(t_ms, dialect)
    return evaluate(parse(query), held, steps), steps


@pytest.mark.parametrize(
    ("query", "what", "column"),
    [
        ("sum(x) > 1 and topk(3, x)", "the aggregation topk", 16),
        ('x{a="topk"} + label_replace(x, "a", "b", "c", "d")', "the function label_replace", 15),
        ("x + predict_linear(x[5m], 60)", "the function predict_linear", 5),
        ("x ^ 2", "the operator ^", 3),
        ("max_over_time(rate(x[5m])[1h:])", "a subquery", 21),
        ("x @ 5", "the modifier @", 3),
        ("x > 1h", "the duration 1h as a number (of Prometheus 3)", 5),
        ('count_values("v", x)', "the aggregation count_values", 1),
        ('x{a=~"\\\\pL+"}', "the regular expression '\\\\pL+'", None),
        ("time() - x", "the function time", 1),
    ],
)
def test_what_is_not_in_the_subset_is_refused_by_name(query: str, what: str, column: int | None) -> None:
    with pytest.raises(UnsupportedError) as refused:
        parse(query)
    assert refused.value.what == what
    if column is not None:
        assert refused.value.position is not None
        assert place(query, refused.value.position) == (1, column)


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("sum(x", (1, 4)),
        ("sum(x)\n  + rate(y))", (2, 12)),
        ("x > > 1", (1, 3)),
        ("nosuch(x)", (1, 1)),
        ("1 +\n  bad_rate(x[5m])", (2, 3)),
        ('x{a=~"["}', (1, 7)),
    ],
)
def test_what_is_no_promql_says_where(query: str, where: tuple[int, int]) -> None:
    with pytest.raises(SyntaxFault) as fault:
        parse(query)
    assert place(query, fault.value.position) == where


@pytest.mark.parametrize("query", ["rate(x)", "x and 1", "1 > 2", "sum()", "", "rate(x[0s])", "{}"])
def test_what_is_no_promql_is_refused(query: str) -> None:
    with pytest.raises(SyntaxFault):
        parse(query)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("x / ignoring(i) y", "many-to-many matching not allowed"),
        ("x <= ignoring(i) sum(y)", "many-to-one matching must be explicit (group_left)"),
        ('rate({__name__=~"x|y"}[5m])', "vector cannot contain metrics with the same labelset"),
    ],
)
def test_an_error_is_of_its_step_only(query: str, said: str) -> None:
    many, few = [5.0] * 40, [5.0] * 10
    held = store(x__a=many, y__a=few) if "rate" in query else store(x__a=many, x__b=few, y__a=many, y__b=few)
    found, steps = run(query, held)
    assert steps.reasons == [said]
    last = 9 + 20 - ("rate" in query)  # what has ended is seen for another five minutes, two samples of it for less
    assert np.flatnonzero(steps.failed).tolist() == list(range("rate" in query, last + 1))
    assert found.present[:, last + 1 :].any()


def test_a_stale_marker_ends_a_series_and_a_gap_does_not() -> None:
    values = [1.0] * 10 + [np.nan] + [1.0] * 10
    series = SeriesSet()
    ended = np.array(values)
    ended[10:11] = STALE
    series.add({NAME: "ended"}, T_MS[:21], ended)
    series.add({NAME: "gap"}, np.delete(T_MS[:21], 10), np.delete(ended, 10))
    series.add({NAME: "a_nan"}, T_MS[:21], np.array(values))
    held = Store(series)
    for name, there in (("ended", False), ("gap", True), ("a_nan", True)):
        found, _ = run(name, held)
        assert found.present[0, 10] == there, name
        assert found.present[0, [9, 11, 39]].all(), name
        assert run(f"count_over_time({name}[1m])", held)[0].values[0, 10] == (5 if name == "a_nan" else 4)


def test_a_lookback_ends_after_five_minutes_to_the_millisecond() -> None:
    held = store(x=[1.0])
    at = np.array([299_999, 300_000, 300_001])
    assert run("x", held, at)[0].present[0].tolist() == [True, True, False]
    assert run("x", held, at, Dialect.PROM_3)[0].present[0].tolist() == [True, False, False]


def test_the_dialect_of_prometheus_3_leaves_the_older_end_of_a_window_out() -> None:
    held = store(x=[float(i) for i in range(40)])
    at = np.array([300_000])
    assert run("count_over_time(x[5m])", held, at)[0].values[0, 0] == 21
    assert run("count_over_time(x[5m])", held, at, Dialect.PROM_3)[0].values[0, 0] == 20


def test_nothing_times_something_is_nothing() -> None:
    held = store(x=[1.0] * 40)
    for query in ("nothing", "nothing + x", "x and nothing", "sum(nothing)", "rate(nothing[5m])", "-nothing", "x < 1"):
        found, steps = run(query, held)
        assert not found.present.any(), query
        assert not steps.failed.any()
    assert run("scalar(nothing)", held)[0].values.size
    assert run("x or nothing", held)[0].present.all()


def test_labels_are_written_as_prometheus_writes_them() -> None:
    assert written(labels_of({NAME: "x", "b": 'say "hi"\n', "a": "\\", "c": ""})) == 'x{a="\\\\", b="say \\"hi\\"\\n"}'
    assert written(()) == "{}"
    assert written(labels_of({NAME: "x"})) == "x"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sum(x)", "sum(x offset 15s)"),
        ("sum(x offset 1ms)", "sum(x offset 15001ms)"),
        ("sum(x * 1.0000000000000002)", "sum(x * 1)"),
        ("sum(rate(x[5m]))", "sum(rate(x[300001ms]))"),
        ("sum(x > bool 3)", "sum(x > 3)"),
        ("sum(x)", "avg(x)"),
        ('sum(x{i="a"})', "sum(x)"),
        ("sum(x / on(i) group_left() x)", "sum(x / x)"),
    ],
)
def test_alike_is_not_the_same(one: str, other: str) -> None:
    held = store(x__a=[float(k**2) for k in range(40)], x__b=[1.0] * 40)
    apart, _ = run(f"{one} - {other}", held)
    alone = [run(query, held)[0] for query in (one, other)]
    assert len(apart) <= 1
    if len(apart):
        assert np.array_equal(apart.values[0], alone[0].values[0] - alone[1].values[0], equal_nan=True)
