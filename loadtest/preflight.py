"""Before anything is sent in earnest: is somebody there, is the key right, is the model, and how is a prompt written.

Plain blocking requests, so that it works where gevent is not. What is wrong becomes one sentence: `EndpointError`
(exit 4) where the endpoint is not what it should be, `InputError` (exit 2) where the command is.
"""

import http.client
import json
import os
import secrets
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from loadtest import events, prompts
from loadtest.faults import faults_digest
from loadtest.plan import Plan, Talk, base_of, is_loopback
from sim.errors import EndpointError, InputError
from sim.fetch import looks_like_html
from sim.scenario import Scenario

KEYS = ("BLOWOUT_API_KEY", "OPENAI_API_KEY")
HEADERS = "BLOWOUT_HEADERS"
"""Environment variable with further headers as JSON, from `blowout load run` to the processes that it starts."""
PROBE_S = 60.0
"""Patience with one answer of the preflight: a server may compile at its first request."""
FEW_WORDS, MANY_WORDS = 64, 192
MOST_PER_S = 1_000.0
"""Requests a second that one process is trusted with; 500/s were measured to hold on one core (Locust 2.47)."""
MOST_WORKERS = 64


@dataclass
class Found:
    """What the preflight found out."""

    plan: Plan
    version: str = ""
    metrics_url: str | None = None
    faults_zero_s: float | None = None
    """Where the endpoint plays the very faults of the scenario (`blowout serve`): when its second 0 was (Unix time)."""

    @property
    def faults_url(self) -> str:
        """Where such an endpoint tells which of them have begun."""
        return f"{self.plan.url}/faults"

    notes: list[str] = field(default_factory=list)


def headers_from_environment() -> dict[str, str]:
    """Return the headers of every request: the key as a bearer token, and those that were given on the command line."""
    key = next((os.environ[name] for name in KEYS if os.environ.get(name)), "")
    given: dict[str, str] = json.loads(os.environ.get(HEADERS) or "{}")
    return ({"Authorization": f"Bearer {key}"} if key else {}) | given


def allowed(url: str, owned: bool) -> None:
    """Refuse what is no URL, and an endpoint that is not this machine unless it is *owned*.

    Raises:
        InputError: either.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise InputError(f"--url {url}: expected the address of an endpoint like http://127.0.0.1:8000")
    if not is_loopback(url) and not owned:
        raise InputError(
            f"{parts.hostname}: not this machine; a load test can take a service down and cost money: "
            "say --i-own-this-endpoint if it is yours"
        )


def bearable(expected_requests: float, duration_s: float, workers: int) -> None:
    """Refuse a rate that the tester itself could not keep.

    Raises:
        InputError: more requests a second than *workers* processes are trusted with.
    """
    rate = expected_requests / duration_s
    if rate <= MOST_PER_S * workers:
        return
    needed = -(-rate // MOST_PER_S)
    if needed > MOST_WORKERS:
        raise InputError(
            f"expected at most {MOST_PER_S * MOST_WORKERS:,.0f} requests/s, got {rate:,.0f}; too many for one machine"
        )
    raise InputError(
        f"expected at most {MOST_PER_S:,.0f} requests/s for each worker, got {rate:,.0f}; try --workers {needed:.0f}"
    )


def planned(
    scenario: Scenario, text: str, seed: int, url: str, model: str | None, ca: str | None = None, **settings: Any
) -> Found:
    """Return how to play *scenario* (as YAML: *text*) with *seed* against the endpoint at *url*.

    *settings* are those of `Plan`.

    Raises:
        EndpointError: nobody answers, the key is refused, or it is no OpenAI-compatible endpoint.
        InputError: the model is not there, or the endpoint is not played as fast as the load.
    """
    base = base_of(url)
    line = _Line(base, headers_from_environment(), ca)
    served, context = _models(line)
    models = chosen_models(scenario, served, model, base)
    salt = secrets.randbits(32)
    found = Found(Plan(text, seed, base, models, salt=salt, ca=ca, **settings))
    talk = _talk(line, next(iter(models.values())), salt, found.notes)
    found.plan = replace(found.plan, talk=replace(talk, context=context))
    said = line.version()
    found.version = str(said.get("version", ""))
    _note_served(found, said, scenario)
    status, _, page = line.ask("GET", "/metrics", needed=False)
    if status == 200 and not looks_like_html(page.decode(errors="replace")):
        found.metrics_url = f"{base}/metrics"
    else:
        found.notes.append("no /metrics at the endpoint: nothing is known of queues and KV cache; try --metrics-url")
    return found


def _note_served(found: Found, said: Mapping[str, Any], scenario: Scenario) -> None:
    """Note what only `blowout serve` says of itself: which faults it plays, how fast, and what time it is there.

    Raises:
        InputError: it is not played as fast as this load.
    """
    speed, now_s, faults = 1.0, 0.0, ""
    with suppress(KeyError, TypeError, ValueError):
        speed, now_s, faults = float(said["speed"]), float(said["now_s"]), str(said["faults"])
    if speed != found.plan.speed:
        raise InputError(
            f"--speed {found.plan.speed:g}: expected {speed:g}, for the endpoint at {found.plan.url} "
            + (f"is played {speed:g} times as fast as the clock" if faults else "is not `blowout serve --speed`")
        )
    if scenario.faults and faults == faults_digest(scenario):
        found.faults_zero_s = time.time() - now_s / speed


def chosen_models(scenario: Scenario, served: list[str], model: str | None, where: str) -> dict[str, str]:
    """Return the model to ask for by pool: the one named, else what the pool is called or holds, else the only one.

    Raises:
        InputError: it is not served, or there are several to choose from.
    """
    if model and served and model not in served:
        raise InputError(f"--model {model}: not served at {where}; there are: {', '.join(served)}")
    chosen = {}
    for name, pool in scenario.fleet.pools.items():
        own = next((one for one in (name, pool.model) if one in served), None)
        only = served[0] if len(served) == 1 else None
        one = model or own or only
        if one is None:
            there = f"; there are: {', '.join(served)}" if served else ", which does not list its models"
            raise InputError(f"{where}: expected --model to say which model to ask for{there}")
        chosen[name] = one
    return chosen


class _Line:
    """Plain requests to one endpoint, with sentences for what goes wrong."""

    def __init__(self, base: str, headers: Mapping[str, str], ca: str | None) -> None:
        self.base, self._headers = base, dict(headers)
        self._parts = urlsplit(base)
        try:
            self._tls = ssl.create_default_context(cafile=ca) if self._parts.scheme == "https" else None
        except OSError as error:
            raise InputError(f"--ca {ca}: expected certificates in PEM ({error.strerror or error})") from None

    def ask(self, method: str, path: str, body: str = "", needed: bool = True) -> tuple[int, str, bytes]:
        """Return status, type and body of an answer; 0 where there is none and none is *needed*."""
        try:
            return self._ask(method, path, body)
        except (http.client.RemoteDisconnected, ConnectionResetError, http.client.IncompleteRead):
            said = "closes the connection without a whole answer; expected an OpenAI-compatible endpoint"
        except TimeoutError:
            said = f"no answer within {PROBE_S:g} s; expected an endpoint that answers one request"
        except ssl.SSLCertVerificationError as error:
            said = f"its certificate is not trusted ({error.verify_message}); name its authority with --ca FILE"
        except socket.gaierror:
            said = "there is no such host; expected the address of an endpoint"
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            said = f"could not be reached ({why}); expected an endpoint that answers there"
        if needed:
            raise EndpointError(f"{self.base}: {said}")
        return 0, "", b""

    def version(self) -> dict[str, Any]:
        """Return what the server says of its version, if it does (vLLM: GET /version)."""
        status, _, body = self.ask("GET", "/version", needed=False)
        try:
            said = json.loads(body) if status == 200 else {}
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}

    def _ask(self, method: str, path: str, body: str) -> tuple[int, str, bytes]:
        host, port = self._parts.hostname or "", self._parts.port
        if self._tls is not None:
            line: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=PROBE_S, context=self._tls
            )
        else:
            line = http.client.HTTPConnection(host, port, timeout=PROBE_S)
        try:
            json_too = {"Content-Type": "application/json"} if body else {}
            line.request(method, self._parts.path.rstrip("/") + path, body or None, {**self._headers, **json_too})
            answer = line.getresponse()
            kind = answer.headers.get("Content-Type", "")
            return answer.status, kind, answer.read(16 * 2**20)
        finally:
            line.close()


def _models(line: _Line) -> tuple[list[str], int]:
    """Return the models served, and the longest context of the first if that is said (vLLM does)."""
    status, kind, body = line.ask("GET", "/v1/models")
    _refuse(line, status, kind, body)
    try:
        listed = json.loads(body)["data"]
        return [str(one["id"]) for one in listed], int(listed[0].get("max_model_len") or 0) if listed else 0
    except (ValueError, KeyError, TypeError, IndexError):
        if status in (404, 405):
            return [], 0
        raise EndpointError(
            f"{line.base}/v1/models: expected a list of models in JSON, got status {status}: "
            f"{events.message_of(body)[:60]!r}"
        ) from None


def _refuse(line: _Line, status: int, kind: str, body: bytes) -> None:
    if status in (401, 403):
        had = "the key was refused" if "Authorization" in headers_from_environment() else "it wants a key"
        raise EndpointError(f"{line.base}: answered {status}: {had}; put one into {KEYS[0]} or {KEYS[1]}")
    if "html" in kind or looks_like_html(body.decode(errors="replace")):
        raise EndpointError(
            f"{line.base}: expected an OpenAI-compatible endpoint, got a web page (HTML); is there a login before it?"
        )


def _talk(line: _Line, model: str, salt: int, notes: list[str]) -> Talk:
    """Return how to talk to *model*: the first way of talking that works, calibrated."""
    said = ""
    for talk in (Talk("ids"), Talk("ids", exact=False), Talk("chat"), Talk("chat", exact=False)):
        status, counted, said = _probe(line, talk, model, salt, FEW_WORDS)
        if status == 404 and "model" in said.lower():
            raise InputError(f"--model {model}: not served at {line.base} ({said})")
        if status != 200 or (talk.api == "ids" and counted != FEW_WORDS):
            continue
        if not talk.exact:
            notes.append("the endpoint does not take ignore_eos and min_tokens: answers may be shorter than asked")
        if talk.api == "ids":
            return talk
        if counted < 0:
            notes.append("no usage in the stream: tokens are counted as events, prompts are as many words as tokens")
            return replace(talk, usage=False)
        _, more, _ = _probe(line, talk, model, salt + 1, MANY_WORDS)
        return prompts.calibrated(talk, (FEW_WORDS, counted), (MANY_WORDS, more))
    raise EndpointError(f"{line.base}: answered a first request with {status}: {said or 'nothing'}; expected a stream")


def _probe(line: _Line, talk: Talk, model: str, salt: int, words: int) -> tuple[int, int, str]:
    """Send one small request; return its status, the prompt tokens it was counted as (-1: not said), and its error."""
    letters = prompts.Prompts(talk, salt, _NO_TREE).bytes_of(-1, 0, 0, words)
    asked = prompts.body(talk, model, prompts.to_json(talk.api, letters), 2)
    status, kind, body = line.ask("POST", prompts.path(talk), asked)
    _refuse(line, status, kind, body)
    if status != 200:
        return status, -1, events.message_of(body)
    seen = [events.read(one) for one in body.splitlines()]
    if not any(event.token for event in seen):
        wrong = next((event.error for event in seen if event.error), "no token in it")
        return 502, -1, f"a stream without an answer ({wrong})"
    return 200, max((event.prompt_tokens for event in seen), default=-1), ""


def _no_tree() -> Any:
    import numpy as np

    from sim.records import PREFIX

    return np.zeros(0, PREFIX)


_NO_TREE = _no_tree()
