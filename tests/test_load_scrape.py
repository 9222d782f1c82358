"""What servers say of themselves, read from their pages and from a Prometheus."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from loadtest import scrape
from sim.fetch import Credentials
from sim.results import SERIES
from sim.series import NAME, SeriesSet, is_stale

PAGE = """# HELP vllm:num_requests_running x
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} KV
vllm:num_preemptions_total{engine="0",model_name="m"} PRE
vllm:num_preemptions_created{engine="0",model_name="m"} 1.7e9
nonsense
"""


def page(kv: float, preempted: int) -> str:
    return PAGE.replace("KV", str(kv)).replace("PRE", str(preempted))


def read(*pages: str | None) -> tuple[scrape.Scraper, SeriesSet]:
    scraper = scrape.Scraper("http://a:8000/metrics", 1.0, Credentials())
    for k, one in enumerate(pages):
        scraper.read(float(k), one)
    series = SeriesSet()
    scraper.add_to(series)
    return scraper, series


def test_a_page_becomes_series_of_its_instance() -> None:
    scraper, series = read(page(0.5, 0), page(0.7, 2))
    assert series.names == {"up", "vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:num_preemptions_total"}
    for one, t_ms, _ in series:
        assert (one["job"], one["instance"]) == ("vllm", "a:8000")
        assert t_ms.tolist() == [0, 1000]
    assert (scraper.answered, scraper.failed) == (2, 0)


def test_a_server_that_is_gone_ends_its_series_and_is_down() -> None:
    _, series = read(page(0.5, 0), None, None, page(0.1, 0))
    values = {one[NAME]: v for one, _, v in series}
    assert values["up"].tolist() == [1, 0, 0, 1]
    assert is_stale(values["vllm:kv_cache_usage_perc"]).tolist() == [False, True, False]


def test_columns_of_engines_and_what_they_come_to() -> None:
    _, series = read(page(0.5, 1), page(0.7, 4), None)
    columns = scrape.engines(series, "main", np.array([0.0, 1.0, 2.0]), 1.0)
    assert set(columns) == {"t_s", "pool", "replica", *SERIES}
    assert columns["vllm:kv_cache_usage_perc"].tolist()[:2] == [0.5, 0.7]
    assert np.isnan(columns["vllm:kv_cache_usage_perc"][2])
    found = scrape.gauges(columns, 0.0, 10.0)
    assert found["kv_max"] == 0.7
    assert found["kv_mean"] == pytest.approx(0.6)
    assert found["running_mean"] == 3
    assert found["preemptions"] == 3


def test_without_any_engine_the_columns_are_there_and_not_known() -> None:
    columns = scrape.engines(SeriesSet(), "main", np.array([0.0, 1.0]), 1.0)
    assert all(np.isnan(columns[name]).all() and len(columns[name]) == 2 for name in SERIES)
    assert scrape.gauges(columns, 0.0, 10.0) == {}


def test_a_prometheus_is_asked_for_the_models_in_run_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kv = {NAME: "vllm:kv_cache_usage_perc", "instance": "a:8000", "model_name": "m"}
    up = [{NAME: "up", "instance": name} for name in ("a:8000", "elsewhere:9100")]

    class Fake:
        remote = True

        def __init__(self, url: str, credentials: Credentials) -> None:
            assert credentials.token == "secret"

        def has_remote_read(self, matchers: object, at_ms: int) -> bool:
            return True

        def samples(self, matchers: Sequence[object], start_ms: int, end_ms: int) -> Iterator[object]:
            assert (start_ms, end_ms) == (1_000_000, 1_060_000)
            rows = up if len(matchers) == 1 else [kv]
            for half in (np.array([1_000_000, 1_015_000]), np.array([1_030_000])):  # in pieces
                for one in rows:
                    yield one, half, np.full(len(half), 0.5)

    monkeypatch.setattr("sim.alerts.sources.server.Server", Fake)
    series = scrape.remembered("http://p:9090", ["m"], 1000.0, 60.0, "secret")
    assert [one for one, _, _ in series] == [dict(sorted(kv.items())), dict(sorted(up[0].items()))]
    assert all(t_ms.tolist() == [0, 15_000, 30_000] for _, t_ms, _ in series)


def test_labels_of_the_page_stay_and_what_it_says_as_a_gateway_is_left_to_clients() -> None:
    scraper, series = read('a{instance="main-0"} 1\ngateway_requests_total{job="gateway",code="200"} 5\n')
    assert [(one[NAME], one["instance"]) for one, _, _ in series] == [("up", "a:8000"), ("a", "main-0")]
    taken = [(one[NAME], v.tolist()) for one, _, v in scraper.take()]
    scraper.read(1.0, 'a{instance="main-0"} 2\n')
    assert taken == [("up", [1.0]), ("a", [1.0])]
    assert [(one[NAME], v.tolist()) for one, _, v in scraper.take()] == [("up", [1.0]), ("a", [2.0])]
