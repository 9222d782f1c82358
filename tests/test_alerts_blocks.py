"""Many series, a few at a time: aggregations that take in one after the other, windows and times kept once."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.alerts.promql.aggregates import aggregate
from sim.alerts.promql.evaluation import evaluate
from sim.alerts.promql.parsing import parse
from sim.alerts.promql.store import MOST_WINDOWS, Store
from sim.alerts.promql.vectors import Steps
from sim.series import NAME, STALE, SeriesSet, Times

STEPS = 5
Cell = float | None


def by_hand(name: str, cells: list[Cell]) -> float | None:
    """Prometheus' aggregation at one step, element after element."""
    there = [cell for cell in cells if cell is not None]
    if not there:
        return None
    so_far = 1.0 if name == "count" else there[0]
    for n, value in enumerate(there[1:], 2):
        if name == "sum":
            so_far += value
        elif name == "count":
            so_far += 1
        elif name == "avg":
            so_far += value / n - so_far / n
        elif (name == "max" and value > so_far) or (name == "min" and value < so_far) or math.isnan(so_far):
            so_far = value
    return so_far


cell = st.none() | st.floats(-1e9, 1e9) | st.just(math.nan)


@given(
    st.sampled_from(["sum", "avg", "min", "max", "count"]),
    st.lists(st.tuples(st.sampled_from("ab"), st.lists(cell, min_size=STEPS, max_size=STEPS)), max_size=6),
)
def test_element_after_element_is_what_each_step_gives_by_itself(
    name: str, elements: list[tuple[str, list[Cell]]]
) -> None:
    rows = [
        (
            (("g", group),),
            np.array([0.5 if one is None else one for one in cells]),  # a value that must not be looked at
            np.array([one is not None for one in cells]),
        )
        for group, cells in elements
    ]
    found = aggregate(iter(rows), name, lambda labels: labels, STEPS)
    read = {
        labels[0][1]: [value if there else None for value, there in zip(values.tolist(), present.tolist())]
        for labels, values, present in zip(found.labels, found.values, found.present)
    }
    for group in "ab":
        mine = [by_hand(name, [cells[k] for g, cells in elements if g == group]) for k in range(STEPS)]
        if any(one is not None for one in mine):
            assert [repr(one) for one in read.pop(group)] == [repr(one) for one in mine]
    assert not read


def test_windows_do_not_pile_up() -> None:
    series = SeriesSet()
    for i in range(3 * MOST_WINDOWS):  # each with its own time of scrape, and a marker in it
        t_ms = np.arange(0, 600_000, 15_000) + i
        values = np.arange(t_ms.size, dtype=float)
        values[20:21] = STALE
        series.add({NAME: "c_total", "i": str(i), "j": "x"}, t_ms, values)
        series.add({NAME: "c_total", "i": str(i), "j": "y"}, t_ms, values)
    store = Store(series)
    steps = Steps(np.arange(0, 600_000, 15_000))
    found = evaluate(parse("sum(rate(c_total[2m])) + count(c_total)"), store, steps)
    assert len(store._found) <= MOST_WINDOWS
    assert found.present[0][10:].all()
    held = store.select(parse("c_total").selectors[0].matchers)
    assert held[0].sample_t_ms is held[1].sample_t_ms
    assert held[0].sample_t_ms is not held[2].sample_t_ms


def test_times_are_kept_once_and_never_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times()
    a, b = np.arange(5), np.arange(5) * 2
    assert times.once(a) is a
    assert times.once(a.copy()) is a
    assert times.once(b) is b
    monkeypatch.setattr("builtins.hash", lambda _: 0)  # the worst luck
    unlucky = Times()
    assert unlucky.once(a) is a
    assert unlucky.once(b) is b


def test_a_series_longer_than_a_row_group_is_read_whole(tmp_path: Path) -> None:
    t_ms = np.arange((1 << 20) + 1000) * 1000
    series = SeriesSet()
    for i in range(2):
        series.add({NAME: "long", "i": str(i)}, t_ms, np.arange(t_ms.size, dtype=float) + i)
    series.add({NAME: "other"}, t_ms[:3], np.zeros(3))
    series.write(tmp_path / "s.parquet")
    found = SeriesSet.read(tmp_path / "s.parquet", {"long", "other"})
    assert [one.size for one in found.t_ms] == [t_ms.size, t_ms.size, 3]
    for i in range(2):
        assert (found.t_ms[i] == t_ms).all()
        assert (found.values[i] == np.arange(t_ms.size) + i).all()
