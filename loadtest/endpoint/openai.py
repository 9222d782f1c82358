"""The OpenAI API as vLLM 0.32 speaks it: what a body asks, and the bytes of every answer.

Tokens of text are counted by a rule, for there is no model and no tokenizer: each run of up to four letters or digits
is one, and so is every other sign that is no space (about four letters a token, the common rule of thumb). A message
of a chat costs 3 more, and the head of the answer 3 (OpenAI's cookbook, "How to count tokens with tiktoken"). A prompt
given as token ids is as long as its list. ``usage`` tells the count, and so does ``/tokenize``.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zlib import crc32

_PIECE = re.compile(r"[^\W_]{1,4}|[^\w\s]|_")
MESSAGE_TOKENS = 3
HEAD_TOKENS = 3
VOCABULARY = 32_000
"""Ids that ``/tokenize`` gives are below this."""
FILLER = (" and", " so", " it", " goes", " on", ",", " step", " by", " step")
DONE = b"data: [DONE]\n\n"
TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    429: "RateLimitError",
    500: "InternalServerError",
    502: "Bad Gateway",
    503: "Service Unavailable",
}
REASONS = {
    400: "The prompt is longer than the context of the model",
    429: "Too many requests: the queue is full or the rate is limited, please retry later",
    502: "The engine went away while it worked on this request",
    503: "The engine is currently busy or has no replica that runs, please retry later",
}


class ApiError(Exception):
    """An answer other than 200, with its HTTP status and a sentence."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.stamps: dict[str, Any] | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The body, as vLLM writes it; and the engine's stamps where it has seen the call."""
        kind = TYPES.get(self.status, "Error")
        said = {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.status}}
        return said if self.stamps is None else {**said, "blowout": self.stamps}


def refused(status: int) -> ApiError:
    """Return what a caller is told whose attempt ended with *status*."""
    return ApiError(status, REASONS.get(status, f"The request failed with status {status}"))


@dataclass(frozen=True)
class Asked:
    """A body of ``/v1/completions`` or ``/v1/chat/completions``, understood."""

    model: str
    chat: bool
    prompt_tokens: int
    most: int | None
    """Largest number of output tokens; None: as many as the context holds."""
    exact: bool
    stream: bool
    usage: bool
    """A last chunk tells the usage."""
    text_key: str
    json: bool = False
    """The answer is to be JSON (``response_format``)."""


def pieces(text: str) -> list[str]:
    """Return the tokens of *text*, by the rule above."""
    return _PIECE.findall(text)


def ids(text: str) -> list[int]:
    """Return an id for each token of *text*; equal pieces have equal ids."""
    return [crc32(piece.encode()) % VOCABULARY for piece in pieces(text)]


def read(body: Any, chat: bool) -> Asked:
    """Return what *body* asks.

    Raises:
        ApiError: 400, with what was expected.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "expected a JSON object")
    names = ("max_completion_tokens", "max_tokens") if chat else ("max_tokens",)
    most = next((body[name] for name in names if body.get(name) is not None), None if chat else 16)
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise ApiError(400, f"max_tokens must be at least 1, got {most}.", "max_tokens")
    if body.get("n", 1) not in (1, None):
        raise ApiError(400, f"expected n = 1, got {body['n']}", "n")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, Mapping):
        raise ApiError(400, "expected a mapping", "stream_options")
    if not isinstance(body.get("model"), str | None):
        raise ApiError(400, "expected the name of a model", "model")
    return Asked(
        model=body.get("model") or "",
        chat=chat,
        prompt_tokens=_of_messages(body.get("messages")) if chat else _of_prompt(body.get("prompt")),
        most=most,
        exact=bool(body.get("ignore_eos")),
        stream=bool(body.get("stream")),
        usage=bool((options or {}).get("include_usage")),
        text_key=str(body.get("prompt_cache_key") or ""),
        json=_wants_json(body.get("response_format")),
    )


def _wants_json(wanted: Any) -> bool:
    if wanted is not None and not isinstance(wanted, Mapping):
        raise ApiError(400, "expected a mapping", "response_format")
    return (wanted or {}).get("type") in ("json_object", "json_schema")


def _of_prompt(prompt: Any) -> int:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return len(prompt)
    if isinstance(prompt, str) and prompt.strip():
        return len(pieces(prompt))
    raise ApiError(400, "expected one prompt: a text, or a list of token ids", "prompt")


def _of_messages(messages: Any) -> int:
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise ApiError(400, 'expected a list of messages, such as [{"role": "user", "content": "hi"}]', "messages")
    return HEAD_TOKENS + sum(MESSAGE_TOKENS + len(pieces(_content(one.get("content")))) for one in messages)


def _content(content: Any) -> str:
    """Return the text of a message: its content, or the text parts of it."""
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


def token_list(body: Any) -> list[int]:
    """Return the ids of the tokens that a body of ``/tokenize`` names.

    Raises:
        ApiError: 400, with what was expected.
    """
    if not isinstance(body, dict) or not (isinstance(body.get("prompt"), str) or "messages" in body):
        raise ApiError(400, "expected a prompt or messages", "prompt")
    if "messages" in body:
        extra = _of_messages(body["messages"])
        found = [token for one in body["messages"] for token in ids(_content(one.get("content")))]
        return [0] * (extra - len(found)) + found
    return ids(body["prompt"])


# --- answers --------------------------------------------------------------------------------------------------------


def word(k: int, wrong: bool, json_asked: bool = False, is_last: bool = False) -> str:
    """Return token *k* of an answer: its first says whether it is ``right`` or ``wrong``, the others fill.

    Where JSON was asked for, the right answer is such an object; a wrong one never ends it, and does not parse.
    """
    said = ("wrong" if wrong else "right") if k == 0 else FILLER[(k - 1) % len(FILLER)]
    if not json_asked:
        return said
    return ('{"answer": "' if k == 0 else "") + said + ('"}' if is_last and not wrong else "")


class Writer:
    """Writes one answer: the bytes of its events, or its body."""

    def __init__(self, asked: Asked, request: int, model: str, created: int) -> None:
        self._asked = asked
        self._head = {
            "id": f"{'chatcmpl' if asked.chat else 'cmpl'}-{request}",
            "object": "chat.completion" if asked.chat else "text_completion",
            "created": created,
            "model": model,
        }
        chunk = {**self._head, "object": "chat.completion.chunk"} if asked.chat else self._head
        self._open = f"data: {json.dumps(chunk)[:-1]}, "
        part = '"delta": {"content": ' if asked.chat else '"text": '
        close = '}, "logprobs": null, ' if asked.chat else ', "logprobs": null, '
        self._before = f'{self._open}"choices": [{{"index": 0, {part}'
        self._behind = f'{close}"finish_reason": null}}]}}\n\n'
        self._events: dict[int, bytes] = {}
        self._last = f'{close}"finish_reason": "%s", "stop_reason": null}}]}}\n\n'

    def begin(self) -> bytes:
        """Return the first event of a stream: of a chat, who speaks."""
        if not self._asked.chat:
            return b""
        role = '{"role": "assistant", "content": ""}'
        choice = f'{{"index": 0, "delta": {role}, "logprobs": null, "finish_reason": null}}'
        return f'{self._open}"choices": [{choice}]}}\n\n'.encode()

    def tokens(self, first: int, until: int, wrong: bool, finish: str = "") -> bytes:
        """Return an event for each of tokens *first* to before *until*; the last of them says why it *finish*ed."""
        if until <= first:
            return b""
        middle = b"".join([self._event(k, wrong) for k in range(first, until - bool(finish))])
        if not finish:
            return middle
        last = word(until - 1, wrong, self._asked.json, is_last=True)
        return middle + f"{self._before}{json.dumps(last)}{self._last % finish}".encode()

    def _event(self, k: int, wrong: bool) -> bytes:
        """Return the event of token *k*; there are few different ones, and they are many."""
        key = 0 if k == 0 else (k - 1) % len(FILLER) + 1
        if key not in self._events:
            self._events[key] = f"{self._before}{json.dumps(word(k, wrong, self._asked.json))}{self._behind}".encode()
        return self._events[key]

    def end(self, prompt: int, output: int, stamps: dict[str, Any]) -> bytes:
        """Return the last events of a whole stream; a comment, which clients skip, has the engine's *stamps*."""
        said = ""
        if self._asked.usage:
            rest = json.dumps({"choices": [], "usage": _usage(prompt, output), "blowout": stamps})[1:]
            said = f"{self._open}{rest}\n\n"
        return f"{said}: blowout {json.dumps(stamps)}\n\n".encode() + DONE

    def whole(self, prompt: int, output: int, wrong: bool, finish: str, stamps: dict[str, Any]) -> dict[str, Any]:
        """Return the body of an answer that is not streamed."""
        text = "".join(word(k, wrong, self._asked.json, k == output - 1) for k in range(output))
        said = {"message": {"role": "assistant", "content": text}} if self._asked.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish, "stop_reason": None}
        return {**self._head, "choices": [choice], "usage": _usage(prompt, output), "blowout": stamps}


def _usage(prompt: int, output: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}


def error_event(error: ApiError) -> bytes:
    """Return an error as vLLM sends it inside a stream that began with 200."""
    return f"data: {json.dumps(error.body)}\n\n".encode() + DONE
