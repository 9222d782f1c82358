"""`blowout serve`: an OpenAI API in front of the same fleet, in real time, whose engine can be played again."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sim import scenario as scenarios
from sim.families import ENGINE
from sim.init.exposition import histogram, parse

pytest.importorskip("gevent")

from loadtest.endpoint.recording import replay

ROOT = Path(__file__).resolve().parents[1]
BLOWOUT = str(Path(sys.prefix) / "bin" / "blowout")
LONGEST_S = 300
"""A server may have to compile the engine first."""
SCENARIO = """\
name: served
duration: 10m
fleet:
  pools:
    chat:
      model: llama-3.1-8b
      hardware: h100
      replicas: 2
      max_num_seqs: 8
      kv_blocks: 60
      max_model_len: 900
      noise: {sigma: 0.1}
      admission: {max_queue: 6}
workload:
  rate_per_s: 8
  cohorts:
    right: {share: 1.0, prompt_tokens: 300, output_tokens: 20}
    wrong: {share: 0.0, prompt_tokens: 300, output_tokens: 20, error: 1.0}
"""
STAMPS = ("arrived_s", "admitted_s", "first_token_s", "finished_s", "preemptions")


class Server:
    """A server on a port of its own, and how to call it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Return status and body of one call; a header X_Blowout_Cohort is X-Blowout-Cohort."""
        connection = self.connect()
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ask(self, output: int = 5, prompt: int = 8, **more: Any) -> tuple[int, Any]:
        """Return status and body of one completion that is not streamed."""
        headers = {name: more.pop(name) for name in list(more) if name.startswith("X_")}
        body = {"prompt": list(range(prompt)), "max_tokens": output, "ignore_eos": True, **more}
        status, text = self.call("POST", "/v1/completions", body, **headers)
        return status, text if body.get("stream") else json.loads(text)

    def admin(self, path: str, **body: Any) -> Any:
        status, text = self.call("POST", f"/admin/{path}", body)
        return json.loads(text) if status == 200 else (status, json.loads(text)["error"]["message"])

    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.call("GET", "/admin/events")[1])["events"]
        return found


@contextmanager
def serving(folder: Path, text: str = SCENARIO, *options: str) -> Iterator[Server]:
    """Serve a scenario on a free port until the block ends."""
    path = folder / "served.yaml"
    path.write_text(text)
    command = [BLOWOUT, "serve", str(path), "--port", "0", "--json", *options]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    watch = threading.Timer(LONGEST_S, process.kill)
    watch.start()
    try:
        assert process.stdout is not None
        start = json.loads(process.stdout.readline())
        yield Server(process, int(start["url"].rpartition(":")[2]))
    finally:
        process.terminate()
        process.wait(30)
        watch.cancel()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served"), SCENARIO, "--admin") as one:
        yield one


def events(text: str) -> list[Any]:
    """What a stream of server-sent events says, comments left out."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line and not line.startswith(":")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def stamps_of(text: str) -> dict[str, Any]:
    (line,) = [line for line in text.split("\n\n") if line.startswith(": blowout ")]
    found: dict[str, Any] = json.loads(line.removeprefix(": blowout "))
    return found


# --- routes and shapes ------------------------------------------------------------------------------------------------


def test_a_chat_streams_as_vllm_does(server: Server) -> None:
    body = {
        "model": "llama-3.1-8b", "messages": [{"role": "user", "content": "hello there"}], "stream": True,
        "max_completion_tokens": 4, "ignore_eos": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    status, text = server.call("POST", "/v1/chat/completions", body)
    role, *tokens, usage, done = events(text)
    assert (status, done) == (200, "[DONE]")
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [one["choices"][0]["finish_reason"] for one in tokens] == [None, None, None, "length"]
    assert all(one["choices"][0]["delta"]["content"] for one in tokens)
    assert {one["object"] for one in [role, *tokens, usage]} == {"chat.completion.chunk"}
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3 + 3 + 4, "completion_tokens": 4, "total_tokens": 14}
    stamps = stamps_of(text)
    assert usage["blowout"] == stamps
    assert stamps["arrived_s"] <= stamps["admitted_s"] < stamps["first_token_s"] < stamps["finished_s"]


def test_a_stream_without_usage_has_none(server: Server) -> None:
    _, text = server.ask(3, stream=True)
    *tokens, done = events(text)
    assert done == "[DONE]"
    assert [one["choices"][0]["text"] for one in tokens] == ["right", " and", " so"]
    assert all("usage" not in one for one in tokens)


def test_a_whole_answer(server: Server) -> None:
    status, body = server.ask(3)
    assert (status, body["object"]) == (200, "text_completion")
    assert body["choices"][0]["text"] == "right and so"
    assert body["usage"] == {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}
    assert body["blowout"]["outcome"] == "ok"
    chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    status, text = server.call("POST", "/v1/chat/completions", chat)
    assert json.loads(text)["choices"][0]["message"] == {"role": "assistant", "content": "right and"}


def test_the_cohort_decides_how_long_an_answer_is_and_whether_it_is_right(server: Server) -> None:
    status, body = server.ask(500, ignore_eos=False, X_Blowout_Cohort="wrong")
    assert body["usage"]["completion_tokens"] == 20
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["choices"][0]["text"].startswith("wrong")
    assert server.ask(10, ignore_eos=False)[1]["choices"][0]["finish_reason"] == "length"
    assert server.ask(9, ignore_eos=False, X_Blowout_Output_Tokens="33")[1]["usage"]["completion_tokens"] == 33


def test_the_other_routes(server: Server) -> None:
    (card,) = json.loads(server.call("GET", "/v1/models")[1])["data"]
    assert (card["id"], card["max_model_len"]) == ("llama-3.1-8b", 900)
    assert server.call("GET", "/health") == (200, "")
    assert "version" in json.loads(server.call("GET", "/version")[1])
    counted = json.loads(server.call("POST", "/tokenize", {"prompt": "Hello, wonderful world"})[1])
    assert counted["count"] == len(counted["tokens"]) == 2 + 1 + 3 + 2
    assert server.call("GET", "/v1/completions")[0] == 405
    assert server.call("GET", "/nowhere")[0] == 404


@pytest.mark.parametrize(
    ("status", "said", "body"),
    [
        (400, "max_tokens must be at least 1", {"prompt": "a", "max_tokens": 0}),
        (400, "expected one prompt", {"prompt": []}),
        (400, "expected one prompt", {"prompt": ["a", "b"]}),
        (400, "maximum context length is 900 tokens", {"prompt": "a", "max_tokens": 900}),
        (400, "expected n = 1", {"prompt": "a", "n": 2}),
        (400, "expected JSON", b"{"),
        (400, "expected a JSON object", []),
        (404, "The model `gpt` does not exist", {"prompt": "a", "model": "gpt"}),
    ],
)
def test_what_a_wrong_body_is_told(server: Server, status: int, said: str, body: Any) -> None:
    got, text = server.call("POST", "/v1/completions", body)
    error = json.loads(text)["error"]
    assert (got, error["code"]) == (status, status)
    assert said in error["message"]


def test_an_unknown_cohort_is_told_which_there_are(server: Server) -> None:
    status, body = server.ask(X_Blowout_Cohort="rigt")
    assert status == 400
    assert "did you mean 'right'?" in body["error"]["message"]


def test_a_full_queue_refuses(server: Server) -> None:
    end_s = time.monotonic() + 20
    while running(server) and time.monotonic() < end_s:  # those of earlier tests have seats too
        time.sleep(0.05)
    found: list[int] = []

    def ask() -> None:
        found.append(server.ask(100, 8)[0])

    callers = [threading.Thread(target=ask) for _ in range(40)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert set(found) == {200, 429}
    assert found.count(200) >= 16


# --- callers who go, and what is ordered ------------------------------------------------------------------------------


def test_a_caller_who_goes_is_taken_out_of_the_batch(server: Server) -> None:
    server.admin("fault", slow="chat", factor=20, lasting="20s", name="slowly")
    body = json.dumps({"prompt": [1], "max_tokens": 800, "ignore_eos": True, "stream": True}).encode()
    sock = socket.create_connection(("127.0.0.1", server.port))
    sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert b"200 OK" in sock.recv(1024)
    sock.close()
    end_s = time.monotonic() + 20
    while running(server) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert running(server) == 0
    server.admin("heal")
    page = parse(server.call("GET", "/metrics")[1], "page")
    assert page.total("gateway_requests_total", code="499") >= 1


def running(server: Server) -> float:
    return parse(server.call("GET", "/metrics")[1], "page").total("vllm:num_requests_running")


def test_the_next_calls_fail_as_ordered_and_no_others(server: Server) -> None:
    before = parse(server.call("GET", "/metrics")[1], "page").total("gateway_requests_total", code="429")
    assert server.admin("next", count=2, status=429) == {"waiting": 2}
    server.admin("next", how="wrong")
    assert [server.ask(1)[0] for _ in range(2)] == [429, 429]
    assert [server.ask(1)[1]["choices"][0]["text"] for _ in range(2)] == ["wrong", "right"]
    after = parse(server.call("GET", "/metrics")[1], "page").total("gateway_requests_total", code="429")
    assert after - before == 2
    assert server.events()[-2]["event"] == "next_calls"


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_a_broken_stream_ends_half_way_without_a_proper_end(server: Server, how: str) -> None:
    server.admin("next", how=how)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)) as broken:
        server.ask(6, stream=True)
    if isinstance(broken.value, http.client.IncompleteRead):
        assert broken.value.partial.count(b'"text"') == 3


def test_a_truncated_stream_lacks_its_last_word(server: Server) -> None:
    server.admin("next", how="truncate")
    status, text = server.ask(6, stream=True)
    assert (status, len(events(text))) == (200, 3)
    assert "[DONE]" not in text


def test_a_stall_pauses_and_goes_on(server: Server) -> None:
    server.admin("next", how="stall", lasting="1s")
    begin_s = time.monotonic()
    _, text = server.ask(6, stream=True)
    assert time.monotonic() - begin_s > 1.0
    assert len(events(text)) == 7


def test_garbage_and_an_error_inside_a_stream(server: Server) -> None:
    server.admin("next", how="garbage")
    server.admin("next", how="error_in_stream")
    assert server.ask(stream=True)[1].startswith("<!doctype html>")
    status, text = server.ask(stream=True)
    error, done = events(text)
    assert (status, error["error"]["code"], done) == (200, 503, "[DONE]")


@pytest.mark.parametrize(
    ("path", "said", "body"),
    [
        ("next", "no key 'time'", {"time": 1}),
        ("next", "count: expected a whole number", {"count": 0, "status": 429}),
        ("next", "no way 'cuts'; did you mean 'cut'?", {"how": "cuts"}),
        ("next", "lasting: expected the length of a stall", {"how": "stall"}),
        ("fault", "stop: no pool 'chatt'; did you mean 'chat'?", {"stop": "chatt/0"}),
        ("fault", "how: expected 'crash' or 'hang', got 'hank'", {"stop": "chat/0", "how": "hank"}),
        ("fault", "from: expected `lasting` in its place", {"stop": "chat/0", "from": "3s"}),
        ("fault", "lasting: expected a duration", {"stop": "chat/0", "lasting": "soon"}),
        ("fault", "surge: expected another fault", {"surge": "all", "factor": 2}),
    ],
)
def test_a_wrong_order_is_told_what_was_expected(server: Server, path: str, said: str, body: Any) -> None:
    status, message = server.admin(path, **body)
    assert status == 400
    assert said in message


def test_a_fault_by_hand_begins_now_and_is_healed(server: Server) -> None:
    name = server.admin("fault", stop="chat", how="crash")["fault"]
    assert server.ask()[0] == 503
    assert server.call("GET", "/metrics/chat/0")[0] == 503
    server.admin("heal")
    assert server.ask()[0] == 200
    begins, ends = (event for event in server.events() if event.get("name") == name)
    assert (begins["event"], ends["event"], begins["by_hand"]) == ("fault_begins", "fault_ends", True)
    assert begins["t_s"] < ends["t_s"]


# --- /metrics ---------------------------------------------------------------------------------------------------------


def test_the_page_has_every_series_in_vllms_names(server: Server) -> None:
    server.ask(9)
    text = server.call("GET", "/metrics")[1]
    page = parse(text, "page")
    for family in ENGINE:
        assert all(page.get(name, instance="chat-1:8000") for name in family.names), family.name
    assert page.total("vllm:generation_tokens_total") >= 9
    found = histogram(page, "vllm:time_to_first_token_seconds")
    assert found is not None
    assert found.count >= 1
    assert text.count("# TYPE vllm:num_preemptions_total counter") == 1
    own = parse(server.call("GET", "/metrics/chat/0")[1], "page")
    assert {name for sample in own for name in sample.labels} <= {"engine", "model_name", "le", "finished_reason"}
    assert parse(server.call("GET", "/metrics/gateway")[1], "page").get("gateway_requests_total", code="200")
    assert server.call("GET", "/metrics/chat/2")[0] == 404


# --- the same again, in virtual time ----------------------------------------------------------------------------------


def test_what_was_served_can_be_played_again_to_the_last_bit(tmp_path: Path) -> None:
    text = SCENARIO + "faults:\n- {slow: chat/0, from: 500ms, to: 3s, factor: 3}\n"
    seen: dict[int, dict[str, Any]] = {}
    recorded = tmp_path / "recorded.jsonl"
    with serving(tmp_path, text, "--admin", "--speed", "2", "--record", str(recorded)) as server:

        def ask(k: int) -> None:
            if k % 7 == 3:
                leave_early(server)
                return
            status, text = server.ask(40 + 11 * (k % 13), 30 + 17 * (k % 9), stream=k % 2 == 0)
            if status == 200:
                stamps = stamps_of(text) if k % 2 == 0 else text["blowout"]
                seen[stamps["request"]] = stamps

        callers = [threading.Thread(target=ask, args=(k,)) for k in range(60)]
        for k, caller in enumerate(callers):
            caller.start()
            time.sleep(0.02)
            if k == 20:
                server.admin("fault", stop="chat/1", how="hang", lasting="1s")
        for caller in callers:
            caller.join(60)
        lines = server.call("GET", "/admin/arrivals")[1].splitlines()
        end_s = json.loads(server.call("POST", "/admin/heal", {})[1])["at_s"]
    assert recorded.read_text().splitlines()[: len(lines)] == lines
    assert sum('"leave"' in line for line in lines) > 0
    assert len(seen) > 20
    assert any(stamps["preemptions"] for stamps in seen.values())
    rows = replay(scenarios.loads(text), 1, lines, end_s)
    again = {int(row["request"]): row for row in rows}
    for request, stamps in seen.items():
        row = again[request]
        names = ("scheduled_s", "admitted_s", "first_token_s", "finished_s", "preemptions")
        assert [row[name] for name in names] == [stamps[name] for name in STAMPS], request


def leave_early(server: Server) -> None:
    body = json.dumps({"prompt": [1] * 50, "max_tokens": 200, "ignore_eos": True, "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(0.2)


def test_faults_of_the_scenario_happen_on_time_and_alerts_see_them(tmp_path: Path) -> None:
    text = SCENARIO + "faults:\n- {stop: chat, from: 60s, to: 150s}\n"
    rules = tmp_path / "rules.yml"
    rules.write_text(
        "groups:\n- name: a\n  interval: 10s\n  rules:\n"
        "  - {alert: Down, expr: 'up{job=\"vllm\"} == 0', for: 30s, labels: {severity: page}}\n"
        "  - {alert: Full, expr: 'vllm:kv_cache_usage_perc > 0.9', for: 30s, labels: {severity: page}}\n"
    )
    page = tmp_path / "page.txt"
    with serving(tmp_path, text, "--admin", "--speed", "60") as server, page.open("w") as file:
        times: list[int] = []
        while not times or times[-1] < 200_000:
            answer = server.call("GET", "/metrics")[1]
            now_ms = int(1000 * json.loads(server.call("GET", "/admin/events")[1])["now_s"])
            samples = [line for line in answer.splitlines() if line.startswith(("up{", "vllm:kv_"))]
            file.writelines(f"{line} {now_ms}\n" for line in samples)
            times.append(now_ms)
            time.sleep(0.05)
        told = [(event["event"], event["t_s"]) for event in server.events()]
    assert told[:2] == [("fault_begins", 60.0), ("fault_ends", 150.0)]
    command = [BLOWOUT, "alerts", "eval", str(page), "--rules", str(rules), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    judged = {one["rule"]: one for one in json.loads(done.stdout)}
    assert all(one["verdict"] == "judged" for one in judged.values())
    fired_ms = [episode["firing_ms"] for episode in judged["Down"]["episodes"]]
    assert len(fired_ms) == 2
    assert all(90_000 <= one <= 120_000 for one in fired_ms)
    assert judged["Full"]["episodes"] == []


def test_errors_can_come_inside_the_stream(tmp_path: Path) -> None:
    text = SCENARIO + "faults: [{refuse: chat}]\n"
    with serving(tmp_path, text, "--errors-in-stream") as server:
        status, answer = server.ask(stream=True)
        error, done = events(answer)
        assert (status, error["error"]["code"], done) == (200, 503, "[DONE]")
        assert server.ask()[0] == 503
        assert server.call("GET", "/admin/events")[0] == 404


# --- the command ------------------------------------------------------------------------------------------------------


def test_it_says_where_it_is_and_ends_with_a_summary(tmp_path: Path) -> None:
    (tmp_path / "served.yaml").write_text(SCENARIO)
    command = [BLOWOUT, "serve", "served.yaml", "--port", "0", "--speed", "3"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ, cwd=tmp_path)
    assert process.stdout is not None
    lines = []
    while not lines or not lines[-1].startswith("Ctrl-C"):
        lines.append(process.stdout.readline())
    port = int(lines[0].split("http://127.0.0.1:")[1].split(":")[0])
    assert "model seconds" in lines[1]
    assert any("curl" in line for line in lines)
    assert Server(process, port).ask()[0] == 200
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "1 ok; 5 tokens" in rest


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "served.yaml").write_text(SCENARIO)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [BLOWOUT, "serve", "served.yaml", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"--port {command[-1]}: expected a free port")
