"""The process that serves: gevent's WSGI server, and the tick that lets the fleet chase the clock."""

import gc
import socket
import sys
from collections.abc import Callable
from typing import Any

from gevent.pywsgi import WSGIHandler, WSGIServer

from loadtest.endpoint.app import App
from loadtest.endpoint.room import Room
from sim.errors import InputError

TICK_S = 0.001
"""Shortest wall time between two looks at the fleet; the next is when the next step ends, or somebody comes."""
IDLE_S = 0.05
"""Longest, while nobody is there."""
HANG_UP_S = 0.02
"""Longest while somebody is, and so often we look who has closed the connection."""


class _Handler(WSGIHandler):  # type: ignore[misc]
    """Sends small chunks at once, and lets the application see its socket."""

    def handle(self) -> None:
        """Serve one connection."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle()

    def get_environ(self) -> dict[str, Any]:
        """Return the WSGI environment."""
        environ: dict[str, Any] = super().get_environ()
        environ["blowout.socket"] = self.socket
        return environ


class Server:
    """A room behind HTTP."""

    def __init__(self, room: Room, host: str, port: int, *, admin: bool, errors_in_stream: bool) -> None:
        """Listen on *host* and *port* (0: a free one), but serve nobody yet.

        Raises:
            InputError: nobody can listen there.
        """
        self.room = room
        app = App(room, admin, errors_in_stream)
        self._server = WSGIServer(
            (host, port), app, log=None, error_log=sys.stderr, handler_class=_Handler, backlog=2048
        )
        try:
            self._server.init_socket()
        except OSError as error:
            said = (error.strerror or str(error)).lower()
            raise InputError(f"--port {port}: expected a free port on {host} ({said})") from None
        self.port = int(self._server.server_port)

    def run(self, check: Callable[[], None]) -> None:
        """Serve until *check*, called at every tick, raises."""
        room = self.room
        self._server.start()
        gc.collect()
        gc.freeze()  # what the imports made is never garbage: collections need not look at it
        looked_s = 0.0
        try:
            while True:
                check()
                room.arrived.clear()
                room.tick()
                if room.clock.now_s() - looked_s > HANG_UP_S * room.clock.speed:
                    looked_s = room.clock.now_s()
                    room.hang_up()
                longest_s = HANG_UP_S if room.streams else IDLE_S
                room.arrived.wait(min(max(room.rest_s(), TICK_S), longest_s))
        finally:
            self._server.stop(timeout=0.2)
