"""Series on disk and back, bit for bit, and only what was asked for."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sim.errors import InputError
from sim.series import NAME, STALE, STALE_BITS, SeriesSet, _groups, is_stale, span_ms


def week(noise: bool = False) -> SeriesSet:
    rng = np.random.default_rng(1)
    t_ms = np.arange(0, 7 * 86_400_000, 15_000)
    values = rng.normal(size=(60, t_ms.size)) if noise else rng.poisson(3, (60, t_ms.size)).cumsum(axis=1)
    return SeriesSet.regular([{NAME: f"m{i % 5}", "i": str(i)} for i in range(60)], t_ms, values)


def test_what_was_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    series = SeriesSet()
    values = np.array([0.1, np.nan, np.inf, -0.0, 5e-324, 0.0])
    values[5:] = STALE
    series.add({NAME: "b", "x": 'é"\\\n', "empty": ""}, np.array([0, 15_000, 15_001, 99_999, 1 << 40, 1 << 41]), values)
    series.add({NAME: "a"}, np.array([-5, 7]), np.array([1.0, 2.0]))
    series.write(tmp_path / "s.parquet")
    back = SeriesSet.read(tmp_path / "s.parquet")
    assert span_ms(tmp_path / "s.parquet") == (-5, 1 << 41)
    assert back.labels == [{NAME: "a"}, {NAME: "b", "x": 'é"\\\n'}]
    assert back.t_ms[1].tolist() == series.t_ms[0].tolist()
    assert back.values[1].view(np.uint64).tolist() == values.view(np.uint64).tolist()
    assert back.values[1].view(np.uint64)[5] == STALE_BITS
    assert is_stale(back.values[1]).tolist() == [False] * 5 + [True]
    assert back.span_ms == (-5, 1 << 41)
    assert back.samples == 8


def test_a_week_is_small_and_one_name_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    week(noise=True).write(path)
    assert path.stat().st_size < 20e6
    week().write(path)
    assert path.stat().st_size < 4e6
    some = SeriesSet.read(path, {"m3", "absent"})
    assert [one["i"] for one in some.labels] == [str(i) for i in range(3, 60, 5)]
    assert all(t is some.t_ms[0] for t in some.t_ms)
    assert (some.values[1] == week().values[8]).all()
    assert len(SeriesSet.read(path, {"absent"})) == 0


def test_a_missing_sample_is_no_sample() -> None:
    missing = np.array([[False, True], [True, True], [False, False]])
    labels = [{NAME: "a"}, {NAME: "b"}, {NAME: "c"}]
    series = SeriesSet.regular(labels, np.array([0, 1]), np.arange(6.0).reshape(3, 2), missing)
    assert [(one[NAME], t.tolist(), v.tolist()) for one, t, v in series] == [
        ("a", [0], [0.0]),
        ("c", [0, 1], [4.0, 5.0]),
    ]
    assert series.names == {"a", "c"}


@pytest.mark.parametrize(
    ("labels", "t_ms", "values"),
    [({NAME: "a"}, [0, 0], [1, 2]), ({NAME: "a"}, [0], [1, 2]), ({"x": "a"}, [0], [1])],
)
def test_a_series_that_is_none_is_refused(labels: dict[str, str], t_ms: list[int], values: list[int]) -> None:
    with pytest.raises(ValueError):
        SeriesSet().add(labels, np.array(t_ms), np.array(values))


def test_a_file_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        SeriesSet.read(tmp_path / "nowhere")
    (tmp_path / "text").write_text("not a parquet file")
    with pytest.raises(InputError, match="cannot be read"):
        SeriesSet.read(tmp_path / "text")
    SeriesSet().write(tmp_path / "empty")
    assert len(SeriesSet.read(tmp_path / "empty")) == 0
    with pytest.raises(InputError, match="no samples"):
        span_ms(tmp_path / "empty")
    with pytest.raises(InputError, match="none"):
        _ = SeriesSet().span_ms


def test_row_groups_of_other_names_stay_unread(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    week().write(path)
    with pq.ParquetFile(path) as file:
        assert len(_groups(file.metadata, list(range(12, 24)))) == 1  # twelve series of m1
        assert len(_groups(file.metadata, [])) == 0
        assert file.metadata.num_row_groups == 5
