"""One call, from its body to its last byte: it waits in the room, and whatever comes of it is told as vLLM would."""

import errno
import math
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
import numpy as np

from loadtest.endpoint import openai
from loadtest.endpoint.callers import Call
from loadtest.endpoint.mischief import Mischief
from loadtest.endpoint.openai import ApiError, Asked, Writer
from loadtest.endpoint.room import Room, Stream
from sim.errors import InputError
from sim.records import Outcome

JSON, SSE, HTML = "application/json", "text/event-stream; charset=utf-8", "text/html; charset=utf-8"
Start = Callable[[int, str], None]
"""Begins the answer, with a status and a content type."""
GARBAGE = b"<!doctype html><html><body><h1>Welcome to the load balancer</h1></body></html>\n"
HALF_WAY = ("cut", "reset", "truncate", "stall")


class GoneError(BrokenPipeError):
    """The connection is to be closed as it is, in the middle of an answer."""

    def __init__(self) -> None:
        super().__init__(errno.EPIPE, "closed on purpose")


class Answers:
    """Answers calls of the completion routes."""

    def __init__(self, room: Room, errors_in_stream: bool) -> None:
        """Let callers wait in *room*; refusals come as HTTP errors, or inside a stream that began with 200."""
        self._room = room
        self._errors_in_stream = errors_in_stream

    def answer(
        self, asked: Asked, cohort: str, most: int | None, mischief: Mischief, sock: Any, start: Start
    ) -> Iterable[bytes]:
        """Return the bytes of the answer to *asked*; *most* is the exact number of output tokens, where one is given.

        Raises:
            ApiError: the call is refused, by its body or by the fleet.
        """
        stream, name = self._begin(asked, cohort, most, mischief, sock)
        try:
            while not stream.made and stream.row is None and not stream.left:
                stream.wait()
            if stream.left:
                raise GoneError
            if stream.row is not None and not stream.made and not _is_ok(stream.row):
                self._refuse(stream, asked, start)
                return [openai.error_event(openai.refused(int(stream.row["status"])))]
            writer = Writer(asked, stream.request, name, int(time.time()))
            if not asked.stream:
                return [_json(self._whole(stream, asked, writer), start)]
        except BaseException:
            self._room.leave(stream)
            raise
        start(200, SSE)
        return self._events(stream, writer, mischief, sock)

    def _begin(self, asked: Asked, cohort: str, most: int | None, mischief: Mischief, sock: Any) -> tuple[Stream, str]:
        callers = self._room.world.callers
        name = asked.model or next(iter(callers.longest))
        if name not in callers.longest:
            raise ApiError(404, f"The model `{name}` does not exist.", "model")
        longest, asks = callers.longest[name], most or asked.most
        room_left = longest - asked.prompt_tokens
        if room_left < (asks or 1):
            raise ApiError(
                400,
                f"This model's maximum context length is {longest} tokens. However, you requested {asks or 1} output "
                f"tokens and your prompt contains {asked.prompt_tokens} input tokens.",
                "input_tokens",
            )
        exact = asks is not None and (asked.exact or most is not None)
        wrong = mischief.how == "wrong"
        call = Call(name, asked.prompt_tokens, asks or room_left, exact, cohort, asked.text_key, wrong)
        try:
            return self._room.ask(call, sock), name
        except InputError as error:
            raise ApiError(400, str(error), "X-Blowout-Cohort") from None

    def _refuse(self, stream: Stream, asked: Asked, start: Start) -> None:
        """Refuse with an HTTP status, unless refusals are to come in the stream."""
        assert stream.row is not None
        status = int(stream.row["status"])
        if status in (200, 499):  # its stream broke before anything was said
            raise GoneError
        if not (asked.stream and self._errors_in_stream):
            error = openai.refused(status)
            error.stamps = self._stamps(stream)
            raise error
        start(200, SSE)

    def _whole(self, stream: Stream, asked: Asked, writer: Writer) -> dict[str, Any]:
        while stream.row is None and not stream.left:
            stream.wait()
        row = stream.row
        if row is None or not _is_ok(row):
            if row is not None and int(row["status"]) >= 500:
                raise openai.refused(int(row["status"]))
            raise GoneError
        tokens = int(row["prompt_tokens"]), int(row["output_tokens"])
        return writer.whole(*tokens, bool(row["wrong"]), _finish(stream), self._stamps(stream))

    def _events(self, stream: Stream, writer: Writer, mischief: Mischief, sock: Any) -> Iterator[bytes]:
        """Yield the events of a stream as its tokens appear."""
        wrong, sent, clock = bool(stream.asked["wrong"]), 0, self._room.clock
        half = max(1, int(stream.asked["output_tokens"]) // 2) if mischief.how in HALF_WAY else 0
        first_at_s = clock.now_s()
        try:
            while True:
                row, made = stream.row, stream.made
                if half and made >= half:
                    yield (writer.begin() if not sent else b"") + writer.tokens(sent, half, wrong)
                    sent, half = half, 0
                    if mischief.how == "truncate":
                        return
                    _spoil(mischief, sock, clock.speed)
                    continue
                done = row is not None and _is_ok(row)
                bites = writer.tokens(sent, made, wrong, _finish(stream) if done else "")
                if not sent:
                    bites = writer.begin() + bites
                sent = made
                if row is not None and done:
                    stamps = {**self._stamps(stream), "first_token_late_s": _late(first_at_s, row["first_token_s"])}
                    tokens = int(row["prompt_tokens"]), int(row["output_tokens"])
                    yield bites + writer.end(*tokens, stamps)
                    return
                yield bites
                if row is not None or stream.left:
                    raise GoneError
                if stream.made == sent and stream.row is None:
                    stream.wait()
        finally:
            self._room.leave(stream)

    def _stamps(self, stream: Stream) -> dict[str, Any]:
        """Return what the engine says of the attempt: model seconds since the start, as rows of a run have them."""
        row = stream.row
        assert row is not None
        times = {name: _number(row[name]) for name in ("admitted_s", "first_token_s", "finished_s")}
        return {
            "request": stream.request,
            "arrived_s": float(row["scheduled_s"]),
            **times,
            "preemptions": int(row["preemptions"]),
            "outcome": Outcome(int(row["outcome"])).name.lower(),
            "finished_late_s": _late(self._room.clock.now_s(), row["finished_s"]),
        }


def _json(body: dict[str, Any], start: Start) -> bytes:
    from json import dumps

    start(200, JSON)
    return dumps(body).encode()


def _late(now_s: float, at_s: Any) -> float:
    """Return by how much the server was behind the engine when it wrote this."""
    return round(max(0.0, now_s - float(at_s)), 6)


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _is_ok(row: np.ndarray) -> bool:
    return int(row["outcome"]) == Outcome.OK


def _finish(stream: Stream) -> str:
    return "length" if stream.capped else "stop"


def _spoil(mischief: Mischief, sock: Any, speed: float) -> None:
    """Do to the connection, half-way, what was ordered."""
    if mischief.how == "stall":
        gevent.sleep(mischief.lasting_s / speed)
        return
    if mischief.how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise GoneError
