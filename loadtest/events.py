"""Server-sent events of an OpenAI-compatible stream: what one line says.

As vLLM 0.32 sends them: a chunk a token, a last one with ``finish_reason``, one with ``usage`` and no choices, and
``[DONE]``. A first chat chunk that only names the role is no token. An error may come inside a stream whose status
was 200: vLLM does so when its queue is full.
"""

import json
from dataclasses import dataclass
from typing import Any

DONE = b"[DONE]"


@dataclass(slots=True)
class Event:
    """What one chunk says."""

    token: bool = False
    finish: str = ""
    error: str = ""
    done: bool = False
    prompt_tokens: int = -1
    output_tokens: int = -1
    text: str = ""
    """Of the answer; of a tool call, its arguments. What a model thinks is no answer."""


_DONE = Event(done=True)
_NOTHING = Event()


def read(line: bytes) -> Event:
    """Return what one *line* of a stream says; nothing for blank lines, comments and other fields."""
    if not line.startswith(b"data:"):
        return _NOTHING
    data = line[5:].strip()
    if data == DONE:
        return _DONE
    try:
        chunk = json.loads(data)
    except ValueError:
        return Event(error="bad_json")
    return of_chunk(chunk) if isinstance(chunk, dict) else Event(error="bad_json")


def of_chunk(chunk: dict[str, Any]) -> Event:
    """Return what a decoded chunk says."""
    event = Event()
    if chunk.get("error"):
        event.error = "error_event"
        return event
    for choice in chunk.get("choices") or ():
        event.finish = choice.get("finish_reason") or event.finish
        if "text" in choice:  # of /completions, where a token may be half a letter and its text empty
            event.token = event.token or bool(choice["text"]) or not choice.get("finish_reason")
            event.text += choice["text"] or ""
            continue
        delta = choice.get("delta") or choice.get("message") or {}
        calls = delta.get("tool_calls") or ()
        event.text += delta.get("content") or "".join(map(_arguments, calls))
        thought = delta.get("reasoning") or delta.get("reasoning_content")
        event.token = event.token or bool(delta.get("content") or thought or calls)
    usage = chunk.get("usage")
    if usage:
        event.prompt_tokens = int(usage.get("prompt_tokens") or 0)
        event.output_tokens = int(usage.get("completion_tokens") or 0)
    return event


def _arguments(call: dict[str, Any]) -> str:
    return str((call.get("function") or {}).get("arguments") or "")


def message_of(body: bytes) -> str:
    """Return what an error's *body* says in its own words, at most 200 letters."""
    text = body.decode("utf-8", errors="replace")
    try:
        found = json.loads(text)
        inner = found.get("error", found) if isinstance(found, dict) else found
        text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    except ValueError:
        pass
    return " ".join(text.split())[:200]
