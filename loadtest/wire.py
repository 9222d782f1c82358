"""Connections to an endpoint under gevent: sent once, kept alive, read line by line.

Locust's own streaming helper waits for a kilobyte before it gives a line, which made TTFT 80 ms too long (Locust
2.47, events of 230 bytes every 20 ms), and geventhttpclient's client sends again when a server closes. So connections
are ours, and only the parser of HTTP (llhttp) is geventhttpclient's.
"""

import contextlib
import select
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import gevent.socket
import gevent.ssl
from geventhttpclient.response import HTTPParseError, HTTPSocketResponse

CONNECT_S = 10.0
"""For a connection, TLS included."""


class ConnectError(Exception):
    """No connection could be made."""


class Wire:
    """Connections to one endpoint, as many as there are requests in flight."""

    def __init__(self, url: str, headers: Mapping[str, str], ca: str | None = None) -> None:
        """*headers* are sent with every request; *ca* is a file of certificates to trust."""
        parts = urlsplit(url)
        self.host, self._base = parts.hostname or "", parts.path.rstrip("/")
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls: Any = gevent.ssl.create_default_context(cafile=ca) if parts.scheme == "https" else None
        self._address: Any = None
        self._idle: list[Any] = []
        fixed = {"Host": parts.netloc.rpartition("@")[2], "Content-Type": "application/json",
                 "Accept": "text/event-stream", **headers}  # fmt: skip
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in fixed.items())

    def post(self, path: str, body: bytes, request_id: str) -> "Reply":
        """Send one request, once, and return its reply when its headers are there.

        Raises:
            ConnectError: no connection.
            OSError, HTTPParseError: the connection broke before the headers.
        """
        sock = self._connection()
        try:
            head = f"POST {self._base}{path} HTTP/1.1\r\n{self._fixed}X-Request-Id: {request_id}\r\n"
            sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            return Reply(self, sock, HTTPSocketResponse(sock, block_size=65_536))
        except BaseException:
            sock.close()
            raise

    def resolve(self) -> None:
        """Look the host up, so that no request waits for that.

        Raises:
            ConnectError: there is no such host.
        """
        try:
            self._address = gevent.socket.getaddrinfo(self.host, self.port, 0, gevent.socket.SOCK_STREAM)
        except OSError as error:
            raise ConnectError(str(error)) from None

    def keep(self, sock: Any) -> None:
        """Take back a connection whose reply was read to its end."""
        sock.settimeout(None)
        self._idle.append(sock)

    def _connection(self) -> Any:
        while self._idle:
            sock = self._idle.pop()
            if not _has_news(sock):
                return sock
            sock.close()  # the server has closed it, or says something that nobody asked
        if self._address is None:
            self.resolve()
        said: Exception | None = None
        for family, kind, protocol, _, address in self._address:
            sock = gevent.socket.socket(family, kind, protocol)
            try:
                sock.settimeout(CONNECT_S)
                sock.connect(address)
                sock.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_hostname=self.host)
                sock.settimeout(None)
                return sock
            except OSError as error:
                sock.close()
                said = error
            except BaseException:
                sock.close()
                raise
        raise ConnectError(str(said))


def _has_news(sock: Any) -> bool:
    poller = _poll()
    poller.register(sock.fileno(), select.POLLIN)
    return bool(poller.poll(0))


def _poll() -> Any:
    """Return the system's own poll: gevent's would let others run, and we only look."""
    from gevent.monkey import get_original

    with contextlib.suppress(AttributeError):
        return get_original("select", "poll")()
    return select.poll()


class Reply:
    """A reply whose headers have come."""

    def __init__(self, wire: Wire, sock: Any, response: HTTPSocketResponse) -> None:
        self._wire, self._sock, self._response = wire, sock, response
        self.status = response.status_code

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream of events."""
        return "event-stream" in str(self._response.get("content-type") or "")

    def stall_after(self, seconds: float) -> None:
        """Let reading raise TimeoutError when nothing has come for so long."""
        self._sock.settimeout(seconds)

    def line(self) -> bytes:
        """Return the next line, or nothing at the end.

        Raises:
            TimeoutError, OSError, HTTPParseError: it stalled, was reset, or ended too early.
        """
        return self._response.readline(b"\n")

    def rest(self) -> bytes:
        """Return what is left of the body."""
        return self._response.read()

    def close(self) -> None:
        """Give the connection back, or close it if there is more to come."""
        response, sock = self._response, self._sock
        if response.message_complete and not response.should_close():
            self._wire.keep(sock)
        else:
            sock.close()


__all__ = ["CONNECT_S", "ConnectError", "HTTPParseError", "Reply", "Wire"]
