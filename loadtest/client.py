"""One attempt as its client sees it: when the first token came, how it ended, and why.

TTFT is the time of the first content, reasoning or tool call. A stream is a success only when it says so itself, with
``finish_reason`` or ``[DONE]``, and has brought a token.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import gevent

from loadtest import events
from loadtest.wire import ConnectError, HTTPParseError, Reply, Wire
from sim.records import Outcome

LEFT = 499
"""Status of an attempt whose client went away (nginx: client closed request), as in simulated runs."""
NO_ANSWER = 502
"""Status of an attempt without an answer: no connection, or one that was lost before the headers."""
NOT_SENT = 0
LAST_BYTES_S = 1.0
"""How long the end of the body may take after ``[DONE]`` before the connection is not worth keeping."""

ERRORS = (
    "none", "connect", "closed", "reset", "truncated", "stalled", "error_event", "bad_json", "empty", "not_a_stream",
    "refused", "client_error", "server_error", "timeout", "first_token_timeout", "deadline", "left", "dropped",
    "unfinished", "not_sent", "throttled", "lost",
)  # fmt: skip
"""How an attempt can go wrong. closed: before the headers; reset, truncated, stalled: within the stream; refused: 429;
left: the user's patience ended; dropped: by us, too many in flight; throttled: its client held it back; lost: the other
copy had the first token."""


class GaveUp(BaseException):
    """The client's time is over."""


@dataclass(slots=True)
class Answer:
    """What became of an attempt; times are those of its clock (the monotonic one), in seconds."""

    outcome: Outcome = Outcome.FAILED
    status: int = NO_ANSWER
    error: str = "none"
    said: str = ""
    first_s: float = float("nan")
    finished_s: float = 0.0
    prompt_tokens: int = -1
    output_tokens: int = 0
    gaps_s: list[float] = field(default_factory=list)
    text: list[str] | None = None
    """What it says, chunk by chunk, where that is kept."""


@dataclass(slots=True)
class Limits:
    """Until when a client waits (monotonic seconds): with why, until the first token and until the end."""

    first: tuple[float, str]
    whole: tuple[float, str]
    stall_s: float


_GAVE_UP = {
    "timeout": Outcome.TIMED_OUT,
    "first_token_timeout": Outcome.TIMED_OUT,
    "deadline": Outcome.TIMED_OUT,
    "left": Outcome.CANCELLED,
}


def attempt(
    wire: Wire, path: str, body: bytes, request_id: str, limits: Limits, keep: bool = False,
    clock: Callable[[], float] = time.monotonic, speed: float = 1.0, first: Callable[[], None] = lambda: None,
) -> Answer:  # fmt: skip
    """Send one attempt and read its stream to the end, or until the client gives up; *keep* what it says, or not.

    Times are those of *clock*, of which *speed* seconds pass in one wall second. *first* is called at its first token.
    """
    answer = Answer(text=[] if keep else None)
    until_s, why = min(limits.first, limits.whole)
    timer = _alarm(until_s, clock, speed)
    reply: Reply | None = None
    try:
        reply = wire.post(path, body, request_id)
        answer.status = reply.status
        if reply.status != 200:
            _refused(answer, reply)
        elif not reply.is_stream:
            answer.error, answer.said = "not_a_stream", events.message_of(reply.rest())
        else:

            def begun() -> None:
                nonlocal timer, why
                timer.close()
                until_s, why = limits.whole
                timer = _alarm(until_s, clock, speed)
                assert reply is not None
                reply.stall_after(limits.stall_s / speed)
                first()

            _stream(answer, reply, begun, clock)
    except GaveUp:
        if answer.finished_s:  # the answer was complete, and only its connection was still to be read to the end
            return answer
        answer.outcome, answer.status, answer.error = _GAVE_UP[why], LEFT, why
    except ConnectError as error:
        answer.error, answer.said = "connect", str(error)
    except TimeoutError:
        answer.error = "stalled"
    except (OSError, HTTPParseError, ValueError) as error:
        answer.error = _broken(reply, error)
        answer.said = str(error)[:200]
    finally:
        timer.close()
        answer.finished_s = answer.finished_s or clock()
        if reply is not None:
            reply.close()
    return answer


def _alarm(until_s: float, clock: Callable[[], float], speed: float) -> gevent.Timeout:
    """Return a started timer that raises `GaveUp` when *clock* shows *until_s*."""
    timer = gevent.Timeout(max(0.0, until_s - clock()) / speed if until_s < float("inf") else None, GaveUp)
    timer.start()
    return timer


def _broken(reply: Reply | None, error: Exception) -> str:
    if reply is None:
        return "closed"
    return "reset" if isinstance(error, ConnectionError) else "truncated"


def _refused(answer: Answer, reply: Reply) -> None:
    """Read an answer that is an error; 4xx is a refusal, as in simulated runs."""
    answer.said = events.message_of(reply.rest())
    if reply.status == 429:
        answer.error = "refused"
    else:
        answer.error = "client_error" if reply.status < 500 else "server_error"
    answer.outcome = Outcome.REJECTED if 400 <= reply.status < 500 else Outcome.FAILED


def _stream(answer: Answer, reply: Reply, begun: Callable[[], None], clock: Callable[[], float]) -> None:
    """Read the events of a stream."""
    finish, done, tokens, last_s = "", False, 0, 0.0
    while line := reply.line():
        event = events.read(line)
        if event.token:
            now_s = clock()
            if tokens:
                answer.gaps_s.append(now_s - last_s)
            else:
                answer.first_s = now_s
                begun()
            last_s = now_s
            tokens += 1
            answer.output_tokens = max(answer.output_tokens, tokens)
            if answer.text is not None:
                answer.text.append(event.text)
        if event.prompt_tokens >= 0:
            answer.prompt_tokens, answer.output_tokens = event.prompt_tokens, event.output_tokens
        finish = event.finish or finish
        done = done or event.done
        if event.error:
            answer.error = answer.error if answer.error != "none" else event.error
            answer.said = answer.said or line.decode("utf-8", errors="replace")[:200]
        if done:
            break
    if answer.error == "none":
        answer.error = "truncated" if not done and not finish else "none" if tokens else "empty"
    if answer.error == "none":
        answer.outcome = Outcome.OK
    answer.finished_s = clock()
    if done:
        with contextlib.suppress(OSError, HTTPParseError):
            reply.stall_after(LAST_BYTES_S)
            reply.rest()
