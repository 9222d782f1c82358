"""A real Prometheus beside a load test: what it says fired, and whether we say the same."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

from loadtest.prometheus import Disagreement, Prometheus, Target, configuration, disagreements
from sim.alerts.following import Follower
from sim.alerts.pages import Pages
from sim.alerts.rulefile import Rule, reads
from sim.alerts.rules import Judgement, judge
from sim.alerts.states import Episode
from sim.errors import InputError
from sim.series import NAME, SeriesSet
from tests.real_prometheus import binary

SCRAPE_S = 0.5
RULES = """
groups:
- name: g
  interval: 10s
  rules:
  - {record: "q:mean", expr: 'avg_over_time(queue[20s])'}
  - {alert: Grows, expr: 'q:mean > 10', for: 20s, labels: {severity: page}}
  - {alert: Quiet, expr: 'q:mean > 1000'}
  - {alert: Gone, expr: 'up{job="vllm"} == 0'}
"""
SPEED = 10.0


class Page(BaseHTTPRequestHandler):
    """A page of metrics whose queue is long from second 3 to second 10."""

    def do_GET(self) -> None:
        body = f"# TYPE queue gauge\nqueue {queue(time.time() - self.server.began_s)}\n".encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


def queue(t_s: float) -> float:
    return 50.0 if 3 <= t_s < 10 else 0.0


@pytest.fixture
def page() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.began_s = time.time() + 3600  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_real_prometheus_says_what_we_say(page: ThreadingHTTPServer, tmp_path: Path) -> None:
    """At speed 10: twelve real seconds are two minutes of the model."""
    program, groups = binary("prometheus"), reads(RULES, "r.yml")
    url = f"http://127.0.0.1:{page.server_address[1]}/metrics"
    ours, follower, changes = SeriesSet(), Follower(groups), []
    target = Target(url, {"job": "vllm", "instance": "a"})
    rows: list[tuple[int, float]] = []
    with Prometheus(program, tmp_path, [target], groups, SCRAPE_S, speed=SPEED) as real:
        began_s = page.began_s = time.time()  # type: ignore[attr-defined]
        while (now_s := time.time() - began_s) < 14:
            t_ms = int(now_s * SPEED * 1000)
            rows.append((t_ms, queue(now_s)))
            labels = {"job": "vllm", "instance": "a"}
            follower.scraped(t_ms, [({NAME: "queue", **labels}, queue(now_s)), ({NAME: "up", **labels}, 1.0)])
            changes += follower.advance(t_ms)
            real.poll()
            time.sleep(0.4)
        theirs, unhealthy = real.pages(), real.unhealthy()
    t_ms, values = map(np.array, zip(*rows))
    for name, value in (("queue", values), ("up", np.ones(len(values)))):
        ours.add({NAME: name, "job": "vllm", "instance": "a"}, t_ms, value)
    judged = judge(groups, ours, span_ms=(0, int(t_ms[-1])))
    assert [one.rule.name for one in judged if one.fired] == ["Grows"]
    assert set(theirs) == {"Grows"}
    assert unhealthy == {}
    assert disagreements(judged, theirs, began_s, SCRAPE_S, SPEED) == []
    assert [one.state for one in real.changes if dict(one.labels)["alertname"] == "Grows"][:2] == ["pending", "firing"]
    assert [one.state for one in changes] == ["pending", "firing", "resolved"]
    later = {"Grows": Pages(theirs["Grows"].start_ms + 5000, theirs["Grows"].end_ms + 5000)}
    assert disagreements(judged, later, began_s, SCRAPE_S, SPEED) != []  # it can tell


def test_disagreements_are_found() -> None:
    def judged(*fired_s: int) -> Judgement:
        rule = Rule("A", False, "x", "g", "f", 1)
        episodes = [Episode((), t * 1000, t * 1000, t * 1000 + 5000) for t in fired_s]
        return Judgement(rule, 15_000, t_ms=np.arange(0, 3_600_001, 15_000), episodes=episodes)

    def real(*fired_s: int) -> dict[str, Pages]:
        start_ms = np.array(fired_s, np.int64) * 1000 + 1_700_000_000_000
        return {"A": Pages(start_ms, start_ms + 5000)}

    def found(one: Judgement, theirs: dict[str, Pages]) -> list[Disagreement]:
        return disagreements([one], theirs, 1_700_000_000, 15.0)

    assert found(judged(60, 300), real(80, 270)) == []
    assert found(judged(60), real(100)) == [Disagreement("A", 60, 100), Disagreement("A", None, 100)]
    assert found(judged(60), {}) == [Disagreement("A", 60, None)]
    assert found(judged(), real(60)) == [Disagreement("A", None, 60)]
    assert found(judged(3590), {}) == []  # it need not have seen it yet


def test_its_configuration() -> None:
    found = yaml.safe_load(
        configuration([Target("https://h:8000/prom?x", {"job": "vllm"}), Target("http://b")], ["r.yml"], 1.5, 6)
    )
    assert found["global"] == {"scrape_interval": "1s500ms", "scrape_timeout": "1s500ms", "evaluation_interval": "6s"}
    assert found["rule_files"] == ["r.yml"]
    first, second = found["scrape_configs"]
    assert (first["scheme"], first["metrics_path"]) == ("https", "/prom")
    assert first["static_configs"] == [{"targets": ["h:8000"], "labels": {"job": "vllm"}}]
    assert (second["scheme"], second["metrics_path"]) == ("http", "/metrics")
    with pytest.raises(InputError, match="expected the address of a page of metrics"):
        configuration([Target("h:8000/metrics")], [], 15, 60)


def test_what_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such program"):
        Prometheus("no-such-prometheus", tmp_path, [], [])
    with pytest.raises(InputError, match="did not start"), Prometheus("false", tmp_path, [], []):
        pass
