"""The load tester against a real vLLM, as a user types it: `make test-vllm`, never part of `make test`.

Counters, kinds and orders are asserted, and no latency: what a shared machine's clock says is not the code's doing.
"""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.real_vllm.quiet import Watch
from benchmarks.real_vllm.server import MODEL, MissingError, Server, Settings, python, served
from sim.records import Outcome
from sim.results import SERIES, Run, read_json
from tests.load_target import typed

MOST_QUEUED = 24
LONGEST = 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    try:
        python()
    except MissingError as missing:
        pytest.skip(str(missing))
    with Watch(), served(Settings(eager=True, most_queued=MOST_QUEUED), tmp_path_factory.mktemp("vllm")) as one:
        yield one


def driven(folder: Path, url: str, *options: str, scenario: str = "") -> Run:
    """Drive the server and return the run; a busy machine (exit code 3) is no failure here."""
    command = ["load", "run", *([scenario] if scenario else []), "--url", url, "--no-figures", "--out", "r", *options]
    done = typed(command, folder)
    assert done.returncode in (0, 3), done.stderr
    return Run.open(folder / "r")


def gauge(url: str, name: str) -> float:
    """Read one number from the server's own /metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith(f"{name}{{")]
    assert lines, f"no {name} in /metrics"
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_one_line_measures_it(server: Server, tmp_path: Path) -> None:
    options = ("--model", MODEL, "--rate", "3", "--duration", "8s", "--prompt-tokens", "40", "--output-tokens", "16")
    run = driven(tmp_path, server.url, *options)
    assert run.info["endpoint"]["talk"]["api"] == "ids"
    assert run.info["endpoint"]["version"]
    (member,) = run.members
    rows = member.attempts()
    assert rows.num_rows > 5
    assert set(rows["outcome"].to_pylist()) == {int(Outcome.OK)}
    assert set(rows["prompt_tokens"].to_pylist()) == {40}
    assert set(rows["output_tokens"].to_pylist()) == {16}
    assert read_json(member.path / "tester.json", "prompt_tokens_off")["prompt_tokens_off"] == 0
    # a busy server puts the tokens of several steps into one chunk, so gaps may be fewer than tokens
    assert 0 < member.histograms()["itl"].sum() <= 15 * rows.num_rows


def test_its_metrics_are_understood_unchanged(server: Server, tmp_path: Path) -> None:
    """Five answers that need 13 blocks each share 63, so all that the rules ask about is there and has moved."""
    (tmp_path / "s.yaml").write_text(
        "name: full\nduration: 12s\ndrain: 2m\nscrape_interval: 1s\n"
        "fleet: {kv_blocks: 63, step_time: {linear: {base: 10ms}}}\n"
        "workload:\n  arrivals: {closed: {users: 8, think: 100ms}}\n"
        "  cohorts: {a: {prompt_tokens: 64, output_tokens: 352}}\n"
    )
    run = driven(tmp_path, server.url, scenario="s.yaml")
    (member,) = run.members
    assert member.info["metrics"]["preemptions"] > 0
    assert member.info["metrics"]["kv_max"] > 0.9
    names = member.metrics().names
    assert set(SERIES) <= names
    assert {"vllm:time_to_first_token_seconds_bucket", "vllm:e2e_request_latency_seconds_bucket"} <= names
    assert {"vllm:request_success_total", "vllm:generation_tokens_total"} <= names
    asked = {"seed": ("LLMKVCacheHigh", "LLMP95LatencyHigh"), "repaired": ("LLMKVCacheShort", "LLMFirstTokensSlow")}
    for rules, wanted in asked.items():
        done = typed(["alerts", "eval", "r", "--rules", rules, "--json", "--no-figures"], tmp_path)
        found = {one["rule"]: one for one in json.loads(done.stdout)}
        for rule in wanted:
            assert found[rule]["verdict"] == "judged", found[rule]
            assert found[rule]["series_matched"] > 0


def test_preflight_says_what_is_wrong(server: Server, tmp_path: Path) -> None:
    done = typed(["load", "run", "--url", server.url, "--model", "other", "--rate", "1"], tmp_path)
    assert done.returncode == 2
    assert f"--model other: not served at {server.url}; there are: {MODEL}" in done.stderr


def test_a_server_that_lists_no_models_refuses_a_wrong_one(server: Server, tmp_path: Path) -> None:
    with between(server.url, "/v1/models") as url:
        done = typed(["load", "run", "--url", url, "--model", "other", "--rate", "1"], tmp_path)
    assert done.returncode == 2
    assert "--model other: not served at" in done.stderr
    assert "does not exist" in done.stderr  # vLLM's own words


def test_prompts_that_are_too_long_are_refused(server: Server, tmp_path: Path) -> None:
    options = ("--rate", "2", "--duration", "3s", "--prompt-tokens", str(LONGEST + 1), "--output-tokens", "4")
    run = driven(tmp_path, server.url, *options)
    rows = run.members[0].attempts()
    assert set(rows["outcome"].to_pylist()) == {int(Outcome.REJECTED)}
    assert set(rows["status"].to_pylist()) == {400}
    said = " ".join(read_json(run.members[0].path / "tester.json", "said")["said"].values())
    assert str(LONGEST) in said


def test_refusals_of_a_full_queue_are_never_successes(server: Server, tmp_path: Path) -> None:
    """Some come as 503, and in a burst some inside a stream whose status is 200."""
    before = gauge(server.url, "vllm:admission_rejections_total")
    options = ("--rate", "150", "--duration", "1s", "--prompt-tokens", "16", "--output-tokens", "64")
    run = driven(tmp_path, server.url, *options)
    rejected = gauge(server.url, "vllm:admission_rejections_total") - before
    rows = run.members[0].attempts()
    outcomes = rows["outcome"].to_numpy()
    good = outcomes == Outcome.OK
    assert rejected > 0
    assert (~good).sum() == rejected
    assert (rows["output_tokens"].to_numpy()[good] == 64).all()
    errors = read_json(run.members[0].path / "tester.json", "errors")["errors"]
    assert sum(errors.values()) == rejected
    assert set(errors) <= {"error_event", "server_error"}
    inside = (rows["status"].to_numpy() == 200) & ~good
    assert inside.sum() == errors.get("error_event", 0)


def test_clients_that_leave_free_the_cache(server: Server, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "name: impatient\nduration: 3s\nscrape_interval: 1s\n"
        "fleet: {kv_blocks: 63, step_time: {linear: {base: 10ms}}}\n"
        "workload:\n  rate_per_s: 2\n  cohorts: {a: {prompt_tokens: 32, output_tokens: 900}}\n"
        "clients: {timeout: 1s, retries: 0}\n"
    )
    run = driven(tmp_path, server.url, scenario="s.yaml")
    rows = run.members[0].attempts()
    assert set(rows["outcome"].to_pylist()) == {int(Outcome.TIMED_OUT)}
    assert run.members[0].info["metrics"]["kv_max"] > 0
    until_s = time.monotonic() + 10
    while gauge(server.url, "vllm:kv_cache_usage_perc") or gauge(server.url, "vllm:num_requests_running"):
        assert time.monotonic() < until_s, "requests that nobody waits for still hold the cache"
        time.sleep(0.2)


def test_text_prompts_have_the_length_asked_for(server: Server, tmp_path: Path) -> None:
    """Where token ids are not taken, words are calibrated from ``usage``, the chat template included."""
    with between(server.url, "/v1/completions") as url:
        options = ("--rate", "2", "--duration", "5s", "--prompt-tokens", "77", "--output-tokens", "6")
        run = driven(tmp_path, url, *options)
    assert run.info["endpoint"]["talk"]["api"] == "chat"
    rows = run.members[0].attempts()
    assert set(rows["outcome"].to_pylist()) == {int(Outcome.OK)}
    assert set(rows["prompt_tokens"].to_pylist()) == {77}


@contextmanager
def between(url: str, hidden: str) -> Iterator[str]:
    """Stand between the tester and the server, without the route *hidden*; whole answers are passed on."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass(None)

        def do_POST(self) -> None:
            self._pass(self.rfile.read(int(self.headers["Content-Length"])))

        def _pass(self, body: bytes | None) -> None:
            kind, status, said = "application/json", 404, b'{"error": {"message": "no such route"}}'
            if self.path != hidden:
                asked = urllib.request.Request(url + self.path, body, {"Content-Type": kind})
                try:
                    with urllib.request.urlopen(asked, timeout=60) as answer:
                        kind, status, said = answer.headers["Content-Type"], answer.status, answer.read()
                except urllib.error.HTTPError as error:
                    status, said = error.code, error.read()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join(5)
