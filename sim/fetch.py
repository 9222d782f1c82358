"""Reading over HTTP: one request, with a timeout, and one sentence when the answer is not what was asked for."""

import base64
import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

from sim.errors import EndpointError, InputError

TIMEOUT_S = 10.0
MAX_BYTES = 64 * 2**20  # a /metrics page is 50 kB; a proxy that streams for ever must not fill memory
TOO_MUCH = 413
"""The status of a server that will not answer so much at once; ours, too, when an answer is over `MAX_BYTES`."""

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def is_url(source: str) -> bool:
    """Tell whether *source* is a URL (and not the path of a file)."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", source) is not None


def split(url: str) -> SplitResult:
    """Return the parts of *url*; InputError when it has none."""
    try:
        return urlsplit(url)
    except ValueError as error:
        raise InputError(f"{url[:60]}: {str(error).lower()}; expected a URL like http://HOST:PORT") from None


def shown(url: str) -> str:
    """Return *url* without user, password and query, for messages and comments."""
    parts = split(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class RefusedError(EndpointError):
    """A server answered, but not with what was asked for: its *status*, and what it said of it."""

    def __init__(self, said: str, status: int, detail: str = "") -> None:
        super().__init__(said)
        self.status, self.detail = status, detail


class UntrustedError(EndpointError):
    """A server has a certificate that nobody vouches for."""


@dataclass(frozen=True)
class Credentials:
    """What is sent along, and only to the host that was named: a bearer token, headers, whom to trust (TLS)."""

    token: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    trusted: ssl.SSLContext | None = None


def get(url: str, token: str | None = None, timeout_s: float = TIMEOUT_S) -> str:
    """Return the text at *url*.

    Raises InputError when *url* is not http or https, EndpointError when nothing answers in time or the
    answer is not a 200 with text.
    """
    accept = {"Accept": "text/plain;version=0.0.4, application/json"}
    body, _ = ask(url, None, accept, Credentials(token), timeout_s)
    return body.decode("utf-8", errors="replace")


def ask(
    url: str, body: bytes | None, headers: Mapping[str, str], credentials: Credentials, timeout_s: float
) -> tuple[bytes, Message]:
    """Return what *url* answers to a GET or, with a *body*, to a POST, and the headers of the answer.

    Raises:
        InputError: *url* is not http or https.
        RefusedError: the answer is no 200.
        EndpointError: nothing answers in time, or more than `MAX_BYTES`.
    """
    parts = split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{shown(url)}: expected a URL like http://HOST:PORT/metrics")
    request = urllib.request.Request(_bare(url), body, dict(headers))
    if credentials.token is not None:
        authorization = f"Bearer {credentials.token}"
    elif parts.username is not None:
        authorization = "Basic " + base64.b64encode(parts.netloc.rpartition("@")[0].encode()).decode()
    else:
        authorization = ""
    if authorization:  # "unredirected": urllib would otherwise hand it to whatever host a redirect names
        request.add_unredirected_header("Authorization", authorization)
    for name, value in credentials.headers.items():
        request.add_unredirected_header(name, value)
    try:
        with _opener(parts.hostname, credentials.trusted).open(request, timeout=timeout_s) as answer:
            found, said = answer.read(MAX_BYTES + 1), answer.headers
    except urllib.error.HTTPError as error:
        raise _refusal(url, error) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        late = isinstance(reason, TimeoutError)
        why = f"no answer within {timeout_s:g} s" if late else f"could not be reached ({reason})"
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UntrustedError(f"{shown(url)}: {why}; expected a certificate that is trusted here") from None
        raise EndpointError(f"{shown(url)}: {why}; expected a server that answers there") from None
    if len(found) > MAX_BYTES:
        raise RefusedError(f"{shown(url)}: the answer is over {MAX_BYTES // 2**20} MiB; expected less", TOO_MUCH)
    return found, said


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _opener(host: str, trusted: ssl.SSLContext | None) -> urllib.request.OpenerDirector:
    # A proxy cannot reach this machine's own loopback address; everything else follows the environment.
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})] if host in _LOOPBACK else []
    if trusted is not None:
        handlers.append(urllib.request.HTTPSHandler(context=trusted))
    return urllib.request.build_opener(*handlers)


def _refusal(url: str, error: urllib.error.HTTPError) -> RefusedError:
    if error.code in (401, 403):
        said = f"answered {error.code}, not authorised; for Prometheus set BLOWOUT_PROMETHEUS_TOKEN"
        return RefusedError(f"{shown(url)}: {said}", error.code)
    detail = ""
    try:  # Prometheus explains itself in JSON, and its remote read in plain words
        text = error.read(10_000).decode(errors="replace")
        detail = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        detail = "" if looks_like_html(text) else " ".join(text.split())[:200]
    except (OSError, http.client.HTTPException):
        detail = ""
    told = f" ({detail})" if detail and error.code in (400, 422, 503) else ""
    said = f"{shown(url)}: answered {error.code} {error.reason}{told}; expected 200"
    return RefusedError(said, error.code, detail)


def looks_like_html(text: str) -> bool:
    """Tell whether *text* is a web page: a login form, a dashboard, a proxy's error."""
    return text.lstrip()[:200].lower().startswith(("<!doctype", "<html", "<?xml", "<head", "<!--"))


def query(base: str, promql: str, token: str | None, timeout_s: float = 3 * TIMEOUT_S) -> list[dict[str, Any]]:
    """Return the vector that a Prometheus HTTP API answers to *promql*: ``[{"metric": labels, "value": [t, "v"]}]``.

    Raises EndpointError when the answer is not that of the API (https://prometheus.io/docs/prometheus/latest/querying/api/).
    """
    url = api(base, "query", query=promql)
    data = answered(url, get(url, token, timeout_s))
    return results(url, data, "vector")


def api(base: str, call: str, **parameters: str) -> str:
    """Return the URL of a *call* to the Prometheus API of the server at *base*, however much of its path that has."""
    parts = split(base)
    path = re.sub(r"(/api/v1(/\w+)?)?/*$", "", parts.path) + f"/api/v1/{call}"
    return urlunsplit(parts._replace(path=path, query=urlencode(parameters), fragment=""))


def answered(url: str, text: str, warn: Callable[[str], None] = lambda said: None) -> Any:
    """Return the data in an answer of the Prometheus API; *warn* is told what it says of an answer that may lack some.

    Raises:
        EndpointError: it is none, or says that it failed.
    """
    what = f"{shown(url)}: expected the Prometheus HTTP API"
    if looks_like_html(text):
        raise EndpointError(f"{what}, got a web page (HTML); is this Prometheus, or a login page before it?")
    try:
        answer = json.loads(text)
        if answer["status"] != "success":
            raise EndpointError(f"{what} to answer, got: {answer.get('error', answer['status'])}")
        if answer.get("warnings"):
            warn(str(answer["warnings"][0]))
        return answer["data"]
    except (ValueError, KeyError, TypeError):
        raise EndpointError(f"{what} to answer with JSON, got: {text.strip()[:60]!r}") from None


def results(url: str, data: Any, kind: str) -> list[dict[str, Any]]:
    """Return the results in *data*, which is to be a ``vector`` or a ``matrix``.

    Raises:
        EndpointError: it is not.
    """
    what = f"{shown(url)}: expected the Prometheus HTTP API to answer in JSON with a {kind}"
    try:
        if data["resultType"] != kind or not isinstance(data["result"], list):
            raise EndpointError(f"{what}, got a {data['resultType']}")
        return list(data["result"])
    except (KeyError, TypeError):
        raise EndpointError(f"{what}, got: {str(data)[:60]!r}") from None
