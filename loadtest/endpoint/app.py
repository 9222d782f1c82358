"""The routes: OpenAI's and vLLM's, a metrics page, and the controls where they are open."""

import json
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from loadtest.endpoint import openai
from loadtest.endpoint.answers import GARBAGE, HTML, JSON, SSE, Answers, Start
from loadtest.endpoint.hands import Hands
from loadtest.endpoint.mischief import Next
from loadtest.endpoint.openai import ApiError
from loadtest.endpoint.page import CONTENT_TYPE, Pages
from loadtest.endpoint.room import Room
from loadtest.faults import faults_digest
from sim import __version__
from sim.errors import InputError
from sim.records import Outcome

LARGEST_BODY = 64 << 20
"""Bytes of the largest body that is read."""
Environ = dict[str, Any]
Handler = Callable[[Environ, Start], Iterable[bytes]]
_TARGET = re.compile(r"/metrics/([\w-]+)(?:/(\d+))?")


class App:
    """A WSGI application over a room."""

    def __init__(self, room: Room, admin: bool, errors_in_stream: bool) -> None:
        self._room = room
        self._answers = Answers(room, errors_in_stream)
        self._pages = Pages(room.world.scraper.labels, room.values)
        self._next = Next()
        self._hands = Hands(room.world)
        self.routes: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/chat/completions"): lambda environ, start: self._complete(environ, start, chat=True),
            ("POST", "/v1/completions"): lambda environ, start: self._complete(environ, start, chat=False),
            ("GET", "/v1/models"): lambda environ, start: said(start, self._models()),
            ("GET", "/health"): lambda environ, start: text(start, ""),
            ("GET", "/version"): lambda environ, start: said(start, self._version()),
            ("GET", "/faults"): lambda environ, start: said(start, self._faults()),
            ("GET", "/metrics"): lambda environ, start: text(start, self._pages.fleet(), CONTENT_TYPE),
            ("POST", "/tokenize"): self._tokenize,
        }
        if admin:
            self.routes |= {
                ("POST", "/admin/fault"): self._fault,
                ("POST", "/admin/heal"): self._heal,
                ("POST", "/admin/next"): self._order,
                ("GET", "/admin/events"): lambda environ, start: said(
                    start, {"now_s": room.clock.now_s(), "events": room.world.events}
                ),
                ("GET", "/admin/arrivals"): lambda environ, start: text(
                    start, "".join(line + "\n" for line in room.recording.lines)
                ),
            }

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one HTTP request."""

        def start(status: int, kind: str) -> None:
            reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
            start_response(f"{status} {reason}", [("Content-Type", kind)])

        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        handler = self.routes.get((method, path))
        try:
            if handler is not None:
                return handler(environ, start)
            if method == "GET" and (target := _TARGET.fullmatch(path)):
                return self._target(target[1], target[2], start)
            if any(path == known for _, known in self.routes):
                return said(start, {"detail": "Method Not Allowed"}, 405)
            return said(start, {"detail": "Not Found"}, 404)
        except ApiError as error:
            return said(start, error.body, error.status)
        except InputError as error:
            return said(start, ApiError(400, str(error)).body, 400)

    # --- the model --------------------------------------------------------------------------------------------------

    def _complete(self, environ: Environ, start: Start, chat: bool) -> Iterable[bytes]:
        asked = openai.read(body_of(environ), chat)
        most = environ.get("HTTP_X_BLOWOUT_OUTPUT_TOKENS", "")
        if most and not (most.isdecimal() and int(most) > 0):
            raise ApiError(400, f"expected a whole number of tokens, got {most!r}", "X-Blowout-Output-Tokens")
        mischief = self._next.take()
        if mischief.status:
            self._count(mischief.status, asked.model)
            raise ApiError(mischief.status, f"{openai.refused(mischief.status).message} (ordered by hand)")
        if mischief.how == "garbage":
            start(200, HTML)
            return [GARBAGE]
        if mischief.how == "error_in_stream":
            start(200, SSE)
            return [openai.error_event(openai.refused(503))]
        cohort = environ.get("HTTP_X_BLOWOUT_COHORT", "")
        return self._answers.answer(asked, cohort, int(most or 0) or None, mischief, environ["blowout.socket"], start)

    def _count(self, status: int, model: str) -> None:
        """Let the gateway count an answer that it gave in place of the fleet."""
        models = list(self._room.world.callers.models.values())
        gate = self._room.world.fleet.gates[models.index(model) if model in models else 0]
        gate["codes"][status] += 1
        gate["tasks"][Outcome.REJECTED if status < 500 else Outcome.FAILED] += 1

    def _version(self) -> dict[str, Any]:
        """Return what it is; a load test tells by it that the faults of its scenario happen here, and when."""
        clock, faults = self._room.clock, faults_digest(self._room.world.scenario)
        return {"version": f"blowout-{__version__}", "speed": clock.speed, "now_s": clock.now_s(), "faults": faults}

    def _faults(self) -> dict[str, Any]:
        """Return which faults have begun and ended so far: a load test cannot know when those at random did."""
        told = [one for one in self._room.world.events if one["event"] in ("fault_begins", "fault_ends")]
        return {"now_s": self._room.clock.now_s(), "events": told}

    def _models(self) -> dict[str, Any]:
        models = self._room.world.callers.longest
        card = {"object": "model", "created": 0, "owned_by": "blowout"}
        return {"object": "list", "data": [{"id": name, **card, "max_model_len": n} for name, n in models.items()]}

    def _tokenize(self, environ: Environ, start: Start) -> Iterable[bytes]:
        tokens = openai.token_list(body_of(environ))
        longest = max(self._room.world.callers.longest.values())
        return said(start, {"count": len(tokens), "max_model_len": longest, "tokens": tokens, "token_strs": None})

    def _target(self, name: str, replica: str | None, start: Start) -> Iterable[bytes]:
        world = self._room.world
        pools = dict(zip(world.specs, world.fleet.pools))
        if name == "gateway" and replica is None:
            page = self._pages.target(-1)
        elif name in pools and int(replica or 0) < pools[name].count:
            page = self._pages.target(int(pools[name].first) + int(replica or 0))
        else:
            return said(start, {"detail": "Not Found"}, 404)
        return text(start, "down\n", status=503) if page is None else text(start, page, CONTENT_TYPE)

    # --- the controls -----------------------------------------------------------------------------------------------

    def _fault(self, environ: Environ, start: Start) -> Iterable[bytes]:
        wanted, name = body_of(environ), []
        at_s = self._room.act(lambda: name.append(self._hands.begin(wanted)))
        self._room.recording.add({"at_s": at_s, "fault": wanted})
        return said(start, {"fault": name[0], "at_s": at_s})

    def _heal(self, environ: Environ, start: Start) -> Iterable[bytes]:
        self._next.clear()
        at_s = self._room.act(self._hands.heal)
        self._room.recording.add({"at_s": at_s, "heal": True})
        return said(start, {"healed": True, "at_s": at_s})

    def _order(self, environ: Environ, start: Start) -> Iterable[bytes]:
        wanted = body_of(environ)
        waiting = self._next.add(wanted)
        self._room.act(lambda: self._room.world.note_event("next_calls", **wanted))
        return said(start, {"waiting": waiting})


def body_of(environ: Environ) -> Any:
    """Return the JSON that came with a request.

    Raises:
        ApiError: 413 or 400, with what was expected.
    """
    size = environ.get("CONTENT_LENGTH", "")
    if size.isdecimal() and int(size) > LARGEST_BODY:
        raise ApiError(413, f"expected at most {LARGEST_BODY >> 20} MiB")
    try:
        return json.loads(environ["wsgi.input"].read(LARGEST_BODY) or b"{}")
    except ValueError as error:
        raise ApiError(400, f"expected JSON: {error}") from None


def said(start: Start, body: Any, status: int = 200) -> list[bytes]:
    """Answer with JSON."""
    start(status, JSON)
    return [json.dumps(body).encode()]


def text(start: Start, body: str, kind: str = "text/plain; charset=utf-8", status: int = 200) -> list[bytes]:
    """Answer with text."""
    start(status, kind)
    return [body.encode()]
