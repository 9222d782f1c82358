"""A small OpenAI-compatible server for tests: streams tokens at set times, stamps them, and misbehaves when told to.

Its address is written to the file named first. It runs as a process of its own:
``python tests/sse_server.py ADDRESS_FILE [--mode cut] [--token-ms 5] ...``. The first two requests, those of a
preflight, are answered well in every mode.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import socket  # noqa: E402
import struct  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.pywsgi import WSGIHandler, WSGIServer  # noqa: E402

STAMPS: list[tuple[str, float]] = []
SEEN: list[str] = []
LOCK = threading.Lock()


def chunk(text: str | None, finish: str | None = None, role: bool = False, ids: bool = True) -> bytes:
    if ids:
        choice: dict[str, Any] = {"index": 0, "text": text or "", "finish_reason": finish}
    else:
        delta: dict[str, Any] = {"role": "assistant", "content": ""} if role else {"content": text or ""}
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"object": "chunk", "choices": [choice]}).encode() + b"\n\n"


class App:
    def __init__(self, options: argparse.Namespace) -> None:
        self.o = options
        self.count = 0

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        path, o = environ["PATH_INFO"], self.o
        if o.key and environ.get("HTTP_AUTHORIZATION") != f"Bearer {o.key}":
            return self.plain(start, "401 Unauthorized", {"error": {"message": "bad key"}})
        if o.mode == "html":
            start("200 OK", [("Content-Type", "text/html")])
            return [b"<!doctype html><html>login</html>"]
        if path == "/v1/models":
            return self.plain(start, "200 OK", {"data": [{"id": "tiny", "max_model_len": 4096}]})
        if path == "/metrics" and o.mode != "no-metrics":
            start("200 OK", [("Content-Type", "text/plain")])
            values = {"num_requests_running": 1, "num_requests_waiting": 0, "kv_cache_usage_perc": 0.25}
            values["num_preemptions_total"] = self.count
            page = "".join(f'vllm:{name}{{model_name="tiny",engine="0"}} {v}\n' for name, v in values.items())
            return [page.encode()]
        if path == "/stamps":
            return self.plain(start, "200 OK", {"stamps": STAMPS, "seen": SEEN})
        if path not in ("/v1/completions", "/v1/chat/completions"):
            return self.plain(start, "404 Not Found", {"error": {"message": "no such route"}})
        body = json.loads(environ["wsgi.input"].read())
        ids = path == "/v1/completions"
        if body["model"] != "tiny":
            return self.plain(
                start, "404 Not Found", {"error": {"message": f"The model `{body['model']}` does not exist."}}
            )
        if ids and o.chat_only:
            return self.plain(start, "404 Not Found", {"error": {"message": "no such route"}})
        self.count += 1
        if o.die and self.count > o.die:
            os._exit(1)
        request = environ.get("HTTP_X_REQUEST_ID", "")
        SEEN.append(request)
        if self.count > 2 and o.mode == "429":
            return self.plain(start, "429 Too Many Requests", {"error": {"message": "slow down"}})
        start("200 OK", [("Content-Type", "text/event-stream")])
        return self.stream(body, request, ids, "" if self.count <= 2 else o.mode, environ)

    def drop(self, environ: dict[str, Any], hard: bool) -> None:
        """Close the connection in the midst of the stream: with FIN, or with RST."""
        sock = environ["test.socket"]
        if hard:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        else:
            sock.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError

    def plain(self, start: Any, status: str, value: Any) -> list[bytes]:
        start(status, [("Content-Type", "application/json")])
        return [json.dumps(value).encode()]

    def stream(self, body: dict[str, Any], request: str, ids: bool, mode: str, environ: dict[str, Any]) -> Any:
        o = self.o
        n = body["max_tokens"]
        if ids:
            prompt = len(body["prompt"])
        else:
            prompt = 7 + 2 * len(body["messages"][0]["content"].split())
            yield chunk(None, role=True, ids=False)
        if mode == "error":
            yield b'data: {"error": {"message": "The engine is currently busy", "code": 503}}\n\n'
            yield b"data: [DONE]\n\n"
            return
        freeze = max(0.0, o.freeze_until - time.monotonic()) if time.monotonic() >= o.freeze_from else 0.0
        first_ms = 20.0 if mode == "slow-first" and not request.endswith("-0") else o.first_ms
        gevent.sleep(first_ms / 1000 + freeze)
        STAMPS.append((request, time.monotonic()))
        for k in range(n):
            if k:
                gevent.sleep(o.token_ms / 1000)
            if mode == "cut" and k == 2:
                self.drop(environ, hard=False)
                return
            if mode == "reset" and k == 2:
                self.drop(environ, hard=True)
                return
            if mode == "stall" and k == 2:
                gevent.sleep(30)
            yield chunk("x", "length" if k == n - 1 and mode != "truncated" else None, ids=ids)
            if mode == "truncated" and k == 2:
                return
        if o.usage:
            yield (
                b"data: "
                + json.dumps({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": n}}).encode()
                + b"\n\n"
            )
        yield b"data: [DONE]\n\n"


class Handler(WSGIHandler):  # type: ignore[misc]
    """Lets the app get at its connection."""

    def get_environ(self) -> dict[str, Any]:
        # Without it a token waits 40 ms until the headers before it are acknowledged (Nagle).
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return {**super().get_environ(), "test.socket": self.socket}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--mode", default="")
    parser.add_argument("--key", default="")
    parser.add_argument("--chat-only", action="store_true")
    parser.add_argument("--no-usage", dest="usage", action="store_false")
    parser.add_argument("--first-ms", type=float, default=20.0)
    parser.add_argument("--token-ms", type=float, default=5.0)
    parser.add_argument("--tls", nargs=2, default=None, metavar=("CERTIFICATE", "KEY"))
    parser.add_argument("--die", type=int, default=0)
    parser.add_argument("--freeze", type=float, nargs=2, default=None)
    options = parser.parse_args()
    begun = time.monotonic()
    options.freeze_from, options.freeze_until = (begun + t for t in options.freeze) if options.freeze else (1e18, 0)
    tls = dict(zip(("certfile", "keyfile"), options.tls)) if options.tls else {}
    server = WSGIServer(("127.0.0.1", 0), App(options), log=None, error_log=None, handler_class=Handler, **tls)
    server.start()
    Path(options.address).write_text(f"http{'s' * bool(tls)}://127.0.0.1:{server.server_port}")
    server.serve_forever()


if __name__ == "__main__":
    main()
