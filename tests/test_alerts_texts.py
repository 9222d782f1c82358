"""Text as a past: what is read, what it is taken for, and what each mistake says."""

import gzip
import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.alerts.past import open_pasts
from sim.alerts.sources.texts import _Reader
from sim.errors import InputError
from sim.series import NAME, SeriesSet
from sim.telemetry.openmetrics import _lines
from tests.real_prometheus import binary

OPENMETRICS = """# HELP a_total it said \\n
# TYPE a_total counter
a_total{x="1",y="q \\" z} # 1 2"} 1 1700000000.015
a_total{x="1",y="q \\" z} # 1 2"} 2.5 1700000015.015
a_total{y="q \\" z} # 1 2",x="1"} 3 1700000030 # {trace_id="x"} 0.5 1700000029.9

up NaN 15
up +Inf 15.001
# EOF
"""
DUMP = """{__name__="up", job="a b"} 1 1700000000015
{__name__="up", job="a b"} NaN 1700000015001
{__name__="down"} 1 1700000015001
"""


def read(tmp_path: Path, text: str | bytes) -> SeriesSet:
    (tmp_path / "a.om").write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_pasts(tmp_path / "a.om")[0].series()


@pytest.mark.parametrize("packed", [False, True])
def test_openmetrics_with_times_in_seconds(tmp_path: Path, packed: bool) -> None:
    raw = gzip.compress(OPENMETRICS.encode()) if packed else OPENMETRICS
    found = read(tmp_path, raw)
    assert found.labels == [{NAME: "a_total", "x": "1", "y": 'q " z} # 1 2'}, {NAME: "up"}]
    assert found.t_ms[0].tolist() == [1_700_000_000_015, 1_700_000_015_015, 1_700_000_030_000]
    assert found.values[0].tolist() == [1, 2.5, 3]
    assert found.t_ms[1].tolist() == [15_000, 15_001]
    past = open_pasts(tmp_path / "a.om")[0]
    assert past.span_ms == (15_000, 1_700_000_030_000)
    assert past.series({"up", "nothing"}).names == {"up"}


def test_a_dump_and_the_older_format_have_milliseconds(tmp_path: Path) -> None:
    found = read(tmp_path, DUMP + "older 3 1700000015002\n")
    assert [one[NAME] for one in found.labels] == ["up", "down", "older"]
    assert found.labels[0] == {NAME: "up", "job": "a b"}
    assert found.t_ms[0].tolist() == [1_700_000_000_015, 1_700_000_015_001]
    assert np.isnan(found.values[0][1])


def test_what_promtool_makes_of_our_text_and_dumps_is_the_same_series(tmp_path: Path) -> None:
    tool = binary("promtool")
    text = OPENMETRICS.replace("\n\n", "\n").replace(" 15", " 1700000015")  # not forty years of empty blocks
    (tmp_path / "in.om").write_text(text)
    make = [tool, "tsdb", "create-blocks-from", "openmetrics", str(tmp_path / "in.om"), str(tmp_path / "data")]
    subprocess.run(make, check=True, capture_output=True)
    (tmp_path / "data" / "wal").mkdir()
    out = subprocess.run([tool, "tsdb", "dump", tmp_path / "data"], check=True, capture_output=True).stdout
    mine, theirs = read(tmp_path, text), read(tmp_path, out)
    assert sorted(map(str, (sorted(one.items()) for one in mine.labels))) == sorted(
        map(str, (sorted(one.items()) for one in theirs.labels))
    )
    for labels, t_ms, values in mine:
        i = theirs.labels.index(labels)
        assert theirs.t_ms[i].tolist() == t_ms.tolist()
        assert theirs.values[i].tolist() == pytest.approx(values.tolist(), nan_ok=True)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**11), st.floats(allow_nan=False)), min_size=1, max_size=30, unique_by=lambda x: x[0]
    ),
    st.dictionaries(st.sampled_from("abc"), st.text(max_size=8).filter(lambda t: t.isprintable() or not t)),
)
def test_what_is_exported_comes_back_bit_for_bit(samples: list[tuple[int, float]], labels: dict[str, str]) -> None:
    samples.sort()
    t_ms, values = np.array([t for t, _ in samples]), np.array([v for _, v in samples])
    text = "".join(_lines({NAME: "m", **labels}, t_ms, values)) + "# EOF\n"
    reader = _Reader("x")
    for number, line in enumerate(io.BytesIO(text.encode()), 1):
        reader.take(number, line)
    (found,) = reader.series()
    assert found[0] == {NAME: "m", **{k: v for k, v in labels.items() if v}}
    assert found[1].tolist() == t_ms.tolist()
    assert found[2].view(np.int64).tolist() == values.view(np.int64).tolist()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a 1 15\na 2 15\n", "a.om, line 2: expected a later time of a, got: 15"),
        ("a 1 15\na 2 nan\n", "a.om, line 2: expected a later time of a, got: nan"),
        ("a 1 15\na x 30\n", "a.om, line 2: expected a Prometheus sample like"),
        ("a 1 15\na 1\n", "a.om, line 2: expected a time after the value, for this is a past and no scrape, got: a 1"),
        ('{a="b"} 1 15\n', "a.om, line 1: expected a Prometheus sample like"),
        ('a{a="b",a="c"} 1 15\n', "a.om, line 1: expected a Prometheus sample like"),
        ("groups:\n", "a.om, line 1: expected a Prometheus sample like"),
        ("<!doctype html>\n", "a.om, line 1: expected a Prometheus sample like"),
        ("a 1 1.5\n", "a.om, line 1: expected whole milliseconds, or # EOF at the end"),
        ("a 1 15\n# EOF\na 1 16\n", "a.om, line 3: expected nothing after # EOF, got: a 1 16"),
        (b"\xff\xfe\x00", "a.om, line 1: expected series as Parquet or as OpenMetrics text, got neither"),
        (b"\x1f\x8b12345678901234567890", "a.om: cannot be read"),
        (gzip.compress(b"a 1 15\n" * 999, mtime=0)[:-20], "a.om: cannot be read"),
    ],
)
def test_a_mistake_names_file_and_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path, text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_in_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.om").write_text("# EOF\n")
    with pytest.raises(InputError, match="holds no samples"):
        _ = open_pasts(tmp_path / "a.om")[0].span_ms
