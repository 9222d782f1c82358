"""A server whose truth is known: it streams tokens at set times, stamps each, and misbehaves as its model is called.

A process of its own (``python -m loadtest.proof.known ADDRESS_FILE``), so that the tester under proof shares nothing
with it but the machine's monotonic clock. ``/stamps`` gives what it sent and when, by request, and forgets it.
"""

import sys

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import gevent
from gevent.pywsgi import WSGIHandler, WSGIServer

FIRST_S = 0.02
"""From a request to its first token."""
GAPS_S = {"short": 0.005, "long": 0.02}
"""Between tokens, by the model that is asked for; of the others as of ``short``."""
BROKEN = {
    "cut": "truncated",
    "reset": "reset",
    "stalled": "stalled",
    "truncated": "truncated",
    "error in 200": "error_event",
    "HTML": "not_a_stream",
    "429": "refused",
}
"""Models whose answers break, each by what the tester must call it. cut: closed in the midst of a chunk of HTTP;
truncated: a whole body without an end of its answer; error in 200: as vLLM says that its queue is full."""
GOOD_TOKENS = 2
STALL_S = 20.0

Environ = dict[str, Any]
Start = Callable[[str, list[tuple[str, str]]], Any]
_ERROR = b'data: {"error": {"message": "The engine is busy", "code": 503}}\n\ndata: [DONE]\n\n'


class App:
    """A WSGI application that remembers when it sent what."""

    def __init__(self) -> None:
        self.stamps: dict[str, list[float]] = {}

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Answer one HTTP request."""
        if environ["PATH_INFO"] == "/stamps":
            taken, self.stamps = self.stamps, {}
            start("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(taken).encode()]
        body = json.loads(environ["wsgi.input"].read())
        model, tokens = body["model"], int(body["max_tokens"])
        if model == "429":
            start("429 Too Many Requests", [("Content-Type", "application/json")])
            return [b'{"error": {"message": "slow down"}}']
        if model == "HTML":
            start("200 OK", [("Content-Type", "text/html")])
            return [b"<!doctype html><html><body>Welcome</body></html>"]
        start("200 OK", [("Content-Type", "text/event-stream")])
        sent = self.stamps.setdefault(environ.get("HTTP_X_REQUEST_ID", ""), [])
        return _stream(model, tokens, sent, environ["known.socket"])


def _stream(model: str, tokens: int, sent: list[float], sock: Any) -> Iterator[bytes]:
    if model == "error in 200":
        yield _ERROR
        return
    gap_s = GAPS_S.get(model, GAPS_S["short"])
    at_s = time.monotonic() + FIRST_S
    for k in range(tokens):
        gevent.sleep(max(0.0, at_s - time.monotonic()))
        at_s += gap_s
        if k == GOOD_TOKENS and model in BROKEN:
            _break(model, sock)
            return
        finish = b'"length"' if k == tokens - 1 else b"null"
        chunk = b'data: {"choices": [{"index": 0, "text": "x", "finish_reason": ' + finish + b"}]}\n\n"
        sent.append(time.monotonic())
        yield chunk
    yield b'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": %d}}\n\n' % tokens
    yield b"data: [DONE]\n\n"


def _break(model: str, sock: Any) -> None:
    """End a stream that has begun: with FIN, with RST, after a silence, or as if it were whole."""
    if model == "stalled":
        gevent.sleep(STALL_S)
    if model == "truncated":
        return
    if model == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    else:
        sock.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


class _Handler(WSGIHandler):  # type: ignore[misc]
    """Sends small chunks at once, and lets the application see its connection."""

    def get_environ(self) -> Environ:
        """Return the WSGI environment."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return {**super().get_environ(), "known.socket": self.socket}


def serve(address: Path) -> None:
    """Serve on a free port of the loopback, which is written to *address*, while the parent process is there."""
    server = WSGIServer(("127.0.0.1", 0), App(), log=None, error_log=None, handler_class=_Handler, backlog=2048)
    server.start()
    address.write_text(f"http://127.0.0.1:{server.server_port}")
    parent = os.getppid()
    while os.getppid() == parent:
        gevent.sleep(0.5)
    server.stop(timeout=0.1)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
