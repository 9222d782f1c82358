"""Reading over HTTP: one GET, read only, with a timeout, and one sentence when the answer is not what was asked for."""

import base64
import http.client
import json
import re
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

from sim.errors import EndpointError, InputError

TIMEOUT_S = 10.0
MAX_BYTES = 64 * 2**20  # a /metrics page is 50 kB; a proxy that streams for ever must not fill memory
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


def get(url: str, token: str | None = None, timeout_s: float = TIMEOUT_S) -> str:
    """Return the text at *url*.

    Raises InputError when *url* is not http or https, EndpointError when nothing answers in time or the
    answer is not a 200 with text.
    """
    parts = split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{shown(url)}: expected a URL like http://HOST:PORT/metrics")
    request = urllib.request.Request(_bare(url), headers={"Accept": "text/plain;version=0.0.4, application/json"})
    if token is not None:
        credentials = f"Bearer {token}"
    elif parts.username is not None:
        credentials = "Basic " + base64.b64encode(parts.netloc.rpartition("@")[0].encode()).decode()
    else:
        credentials = ""
    if credentials:  # "unredirected": urllib would otherwise hand it to whatever host a redirect names
        request.add_unredirected_header("Authorization", credentials)
    try:
        with _opener(parts.hostname).open(request, timeout=timeout_s) as answer:
            body = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise EndpointError(_refusal(url, error)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        late = isinstance(reason, TimeoutError)
        why = f"no answer within {timeout_s:g} s" if late else f"could not be reached ({reason})"
        raise EndpointError(f"{shown(url)}: {why}; expected a server that answers there") from None
    if len(body) > MAX_BYTES:
        raise EndpointError(f"{shown(url)}: the answer is over {MAX_BYTES // 2**20} MiB; expected a metrics page")
    return body.decode("utf-8", errors="replace")


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _opener(host: str) -> urllib.request.OpenerDirector:
    # A proxy cannot reach this machine's own loopback address; everything else follows the environment.
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if host in _LOOPBACK else []))


def _refusal(url: str, error: urllib.error.HTTPError) -> str:
    if error.code in (401, 403):
        return f"{shown(url)}: answered {error.code}, not authorised; for Prometheus set BLOWOUT_PROMETHEUS_TOKEN"
    detail = ""
    if error.code in (400, 422, 503):  # Prometheus explains itself in JSON
        try:
            detail = f" ({json.loads(error.read(10_000))['error']})"
        except (ValueError, KeyError, TypeError, OSError):
            detail = ""
    return f"{shown(url)}: answered {error.code} {error.reason}{detail}; expected 200"


def looks_like_html(text: str) -> bool:
    """Tell whether *text* is a web page: a login form, a dashboard, a proxy's error."""
    return text.lstrip()[:200].lower().startswith(("<!doctype", "<html", "<?xml", "<head", "<!--"))


def query(base: str, promql: str, token: str | None, timeout_s: float = 3 * TIMEOUT_S) -> list[dict[str, Any]]:
    """Return the vector that a Prometheus HTTP API answers to *promql*: ``[{"metric": labels, "value": [t, "v"]}]``.

    Raises EndpointError when the answer is not that of the API (https://prometheus.io/docs/prometheus/latest/querying/api/).
    """
    parts = split(base)
    path = re.sub(r"(/api/v1(/query)?)?/*$", "", parts.path) + "/api/v1/query"
    url = urlunsplit(parts._replace(path=path, query=urlencode({"query": promql}), fragment=""))
    text = get(url, token, timeout_s)
    what = f"{shown(url)}: expected the Prometheus HTTP API"
    if looks_like_html(text):
        raise EndpointError(f"{what}, got a web page (HTML); is this Prometheus, or a login page before it?")
    try:
        answer = json.loads(text)
        if answer["status"] != "success":
            raise EndpointError(f"{what} to answer, got: {answer.get('error', answer['status'])}")
        data = answer["data"]
        if data["resultType"] != "vector" or not isinstance(data["result"], list):
            raise EndpointError(f"{what} to answer with a vector, got a {data['resultType']}")
        return list(data["result"])
    except (ValueError, KeyError, TypeError):
        raise EndpointError(f"{what} to answer with JSON, got: {text.strip()[:60]!r}") from None
