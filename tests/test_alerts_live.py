"""A live Prometheus as the past: judged as its file would be, asked no more than needed, and every way it can fail."""

import http.server
import json
import shutil
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest

from sim.alerts import rulefile
from sim.alerts.live import LivePast
from sim.alerts.sources import remote_read
from sim.alerts.sources.server import Server as Asked
from sim.cli import main
from sim.commands.alerts.pasts import Chosen, takes_pasts
from sim.series import NAME, STALE, SeriesSet
from sim.telemetry.openmetrics import _lines
from tests.real_prometheus import Server, binary, running

END_MS = 1_700_006_400_000
START_MS = END_MS - 2 * 3_600_000
RULES = """
groups:
- name: g
  interval: 15s
  rules:
  - {record: 'job:kv:max', expr: max by (job) (kv)}
  - {alert: High, expr: kv > 0.9, for: 5m}
  - {alert: Recorded, expr: 'job:kv:max > 0.9', for: 2m}
  - {alert: Busy, expr: 'sum by (job) (rate(req_total[10m])) > 3.3', for: 1m}
  - {alert: Slow, expr: 'histogram_quantile(0.9, sum by (le) (rate(ttft_bucket[5m]))) > 1.4'}
  - {alert: Gone, expr: 'absent(kv{i="0"})'}
  - {alert: Typo, expr: kw > 0.9}
  - {alert: Label, expr: 'kv{i="17"} > 0.9'}
"""
ELSEWHERE = """
groups:
- name: g
  interval: 15s
  rules:
  - {alert: Plain, expr: kv > 0.9, for: 5m}
  - {alert: Top, expr: 'topk(9, kv) > 0.9', for: 5m}
  - {record: top, expr: 'topk(9, kv)'}
  - {alert: OfTop, expr: top > 0.9, for: 5m}
  - {alert: Nothing, expr: 'topk(1, kw) > 0'}
  - {alert: Unmatched, expr: 'topk(1, kv{i="17"}) > 0'}
  - {alert: Refused, expr: 'max_over_time(kv[5m:1m]) + topk(9, label_join(kv, "bad-name", "", "i"))'}
  - {alert: End, expr: kv @ end() > 0.9}
  - {alert: Template, expr: 'topk(1, kv)', labels: {a: '{{ $value }}'}}
"""
Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type ``blowout alerts`` in an empty folder with rules; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOWOUT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BLOWOUT_PROMETHEUS_TOKEN", raising=False)
    Path("rules.yml").write_text(RULES)
    Path("elsewhere.yml").write_text(ELSEWHERE)

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(("alerts", *words))
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return typed


def history(stale: bool) -> SeriesSet:
    """Two hours of two engines; with *stale* one of them is gone for a while, and its counters reset."""
    rng = np.random.default_rng(3)
    made = SeriesSet()
    for i in range(3):
        t_ms = np.arange(START_MS, END_MS + 1, 15_000) + 1000 * i
        t_ms = t_ms[t_ms <= END_MS]
        who = {"job": "ab"[i % 2], "i": str(i)}
        minute = (t_ms - START_MS) / 60_000
        columns = {"kv": np.where((minute > 30) & (minute < 70), 0.95, 0.5), "req_total": rng.poisson(35, t_ms.size)}
        columns["req_total"] = columns["req_total"].cumsum().astype(float)
        for name, values in columns.items():
            kept = np.ones(t_ms.size, bool)
            if stale and i == 0:
                kept = (minute < 50) | (minute > 58)
                values = values.copy()
                values[200] = STALE[0]
                values[200:201] = STALE
            made.add({NAME: name, **who}, t_ms[kept], values[kept])
        counts = rng.poisson(3, (4, t_ms.size)).cumsum(axis=1).cumsum(axis=0).astype(float)
        for bound, values in zip(("0.5", "1", "2", "+Inf"), counts):
            made.add({NAME: "ttft_bucket", **who, "le": bound}, t_ms, values)
    return made


def window(server: Server) -> tuple[str, ...]:
    return ("--from", server.url, "--range", "2h", "--end", str(END_MS // 1000))


@pytest.mark.slow
@pytest.mark.parametrize("config", ["global: {}", "global: {external_labels: {job: prod, cluster: x}}"])
def test_a_real_prometheus_is_judged_as_the_same_series_in_a_file(typed: Typed, tmp_path: Path, config: str) -> None:
    series = history(stale=True)
    series.write(Path("all.parquet"))
    (tmp_path / "server").mkdir()
    code, of_file, _ = typed("eval", "all.parquet", "--rules", "rules.yml", "--json")
    with running(tmp_path / "server", config) as server:
        server.write(series)
        live = typed("eval", *window(server), "--rules", "rules.yml", "--json")
    assert live == (code, of_file, "") == (0, of_file, "")
    episodes = {one["rule"]: len(one["episodes"]) for one in json.loads(of_file)}
    assert min(episodes[name] for name in ("High", "Recorded", "Busy", "Slow", "Gone")) > 0
    assert [one["verdict"] for one in json.loads(live[1])][-2:] == ["no such series", "matched nothing"]


@pytest.mark.slow
def test_what_was_backfilled_is_judged_as_its_text_and_queries_give_it_too(typed: Typed, tmp_path: Path) -> None:
    from sim.alerts.sources import server as servers

    text = "".join(line for one in history(stale=False) for line in _lines(*one)) + "# EOF\n"
    Path("all.om").write_text(text)
    make = [binary("promtool"), "tsdb", "create-blocks-from", "openmetrics", "all.om", "server/data"]
    subprocess.run(make, check=True, capture_output=True)
    code, of_file, _ = typed("eval", "all.om", "--rules", "rules.yml", "--json")
    with running(tmp_path / "server") as server:
        live = typed("eval", *window(server), "--rules", "rules.yml", "--json")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(servers.Server, "has_remote_read", lambda *_: False)
            queried = typed("eval", *window(server), "--rules", "rules.yml", "--json")
            said = typed("eval", *window(server), "--rules", "rules.yml")[1]
    assert live == queried == (0, of_file, "")
    assert "no remote read, so it is not known when series end" in " ".join(said.split())


def test_what_a_server_has_recorded_is_recorded_anew(typed: Typed) -> None:
    rules = "groups: [{name: g, rules: [{record: a, expr: kv}, {alert: A, expr: a > 0.9}]}]"
    Path("rules.yml").write_text(rules)
    Path("a.om").write_text("kv 0.5 0\nkv 0.95 60\nkv 0.95 120\na 0 0\na 0 60\na 0 120\n# EOF\n")
    code, out, _ = typed("eval", "a.om", "--rules", "rules.yml", "--json")
    recorded, alert = json.loads(out)
    assert (code, recorded["verdict"]) == (0, "judged")
    assert [one["firing_ms"] for one in alert["episodes"]] == [60_000]


@pytest.mark.slow
def test_what_the_subset_has_not_is_evaluated_by_the_server(typed: Typed, tmp_path: Path) -> None:
    series = history(stale=True)
    (tmp_path / "server").mkdir()
    with running(tmp_path / "server") as server:
        server.write(series)
        code, out, _ = typed("eval", *window(server), "--rules", "elsewhere.yml", "--json")
        _, said, _ = typed("eval", *window(server), "--rules", "elsewhere.yml")
    found = {one["rule"]: one for one in json.loads(out)}

    def times(name: str) -> list[tuple[int, int, int]]:
        return [(e["pending_ms"], e["firing_ms"], e["ended_ms"]) for e in found[name]["episodes"]]

    assert code == 0
    assert len(times("Plain")) >= 3
    assert times("Top") == times("OfTop") == times("Plain")
    assert found["Top"]["verdict"] == "judged"
    assert found["Top"]["reason"] == "evaluated by the server, for it uses the aggregation topk (column 1)"
    assert [found[name]["verdict"] for name in ("Nothing", "Unmatched")] == ["no such series", "matched nothing"]
    assert {found[name]["verdict"] for name in ("Refused", "End", "Template")} == {"unsupported"}
    assert "; the server: " in found["Refused"]["reason"]
    assert "evaluated by the server" in said


# What a server can say, played.


class Played:
    """A server whose answers are ours; it notes what it was asked."""

    def __init__(self, answer: Callable[[str, dict[str, str]], tuple[int, str, bytes]]) -> None:
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urllib.parse.urlsplit(self.path)
                chosen = dict(urllib.parse.parse_qsl(parts.query))
                length = int(self.headers.get("Content-Length", 0))
                chosen["body"] = str(len(self.rfile.read(length)))
                call = parts.path.rpartition("/")[2]
                outer.asked.append((call, chosen, dict(self.headers)))
                status, kind, body = answer(call, chosen)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that hangs up
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def calls(self, name: str) -> list[dict[str, str]]:
        return [chosen for call, chosen, _ in self.asked if call == name]


@pytest.fixture
def played() -> Iterator[Callable[..., Played]]:
    made: list[Played] = []

    def play(answer: Callable[[str, dict[str, str]], tuple[int, str, bytes]]) -> Played:
        made.append(Played(answer))
        return made[-1]

    yield play
    for one in made:
        one.http.shutdown()
        one.http.server_close()


def said(data: object, status: str = "success") -> tuple[int, str, bytes]:
    return 200, "application/json", json.dumps({"status": status, "data": data}).encode()


def old_prometheus(call: str, chosen: dict[str, str]) -> tuple[int, str, bytes]:
    """One without remote read, which has kv every minute, and gives six hours at most."""
    if call == "series":
        return said([{NAME: "kv", "i": "a"}] if '"kv"' in chosen["match[]"] else [])
    if call == "query":
        length_s = int(chosen["query"].rpartition("[")[2][:-3]) / 1000
        if length_s > 21_600:
            error = {
                "status": "error",
                "errorType": "execution",
                "error": "query processing would load too many samples",
            }
            return 422, "application/json", json.dumps(error).encode()
        end_s = float(chosen["time"])
        t_s = np.arange((end_s - length_s) // 60 * 60, end_s + 1, 60)
        values = [[t, "0.95" if t % 7200 < 3600 else "NaN"] for t in t_s.tolist() if end_s - length_s <= t <= end_s]
        return said({"resultType": "matrix", "result": [{"metric": {NAME: "kv", "i": "a"}, "values": values}]})
    return 404, "text/plain", b"404 page not found"


def test_too_much_is_asked_for_in_halves_and_chunks_that_are_over_never_again(
    typed: Typed, played: Callable[..., Played]
) -> None:
    server = played(old_prometheus)
    words = ("eval", "--from", server.url, "--range", "2d", "--end", "1700000000", "--rules", "rules.yml", "--json")
    code, out, err = typed(*words)
    assert (code, err) == (0, "")
    high = json.loads(out)[1]
    assert high["evaluations"] == 2 * 5760 + 1
    assert len(high["episodes"]) == 25
    assert len(server.calls("query")) == 3 * 7  # three days, each whole, in halves, in quarters
    assert len(server.calls("read")) == 1
    assert typed(*words) == (code, out, err)
    assert len(server.calls("query")) == 3 * 7


def test_an_answer_that_may_lack_some_is_told_and_not_kept(typed: Typed, played: Callable[..., Played]) -> None:
    def partial(call: str, chosen: dict[str, str]) -> tuple[int, str, bytes]:
        status, kind, body = old_prometheus(call, chosen)
        told = {**json.loads(body), "warnings": ["store gone"]} if call == "query" else body
        return status, kind, json.dumps(told).encode() if isinstance(told, dict) else told

    server = played(partial)
    words = ("eval", "--from", server.url, "--range", "1h", "--end", "1700000000", "--rules", "rules.yml")
    code, out, _ = typed(*words)
    assert code == 0
    assert "the server warns: store gone" in " ".join(out.split())
    before = len(server.calls("query"))
    typed(*words)
    assert len(server.calls("query")) == 2 * before


def test_a_longer_window_reaches_further_back(played: Callable[..., Played], tmp_path: Path) -> None:
    past = LivePast("x", tmp_path, server=Asked(played(old_prometheus).url), cache=tmp_path, start_ms=START_MS,
                    end_ms=END_MS)  # fmt: skip
    first = []
    for window in ("5m", "3h", "1h"):
        (tmp_path / "r.yml").write_text(
            RULES[: RULES.index("  - {record")] + f"  - {{alert: A, expr: 'max_over_time(kv[{window}]) > 1'}}\n"
        )
        ((_, t_ms, _),) = past.read(rulefile.read([tmp_path / "r.yml"]))
        first.append((START_MS - int(t_ms[0])) / 60_000)
    assert first == [pytest.approx(10), pytest.approx(185), pytest.approx(185)]


def test_what_may_still_change_is_not_kept(typed: Typed, played: Callable[..., Played]) -> None:
    server = played(old_prometheus)
    words = ("eval", "--from", server.url, "--range", "1h", "--rules", "rules.yml")
    before_s = time.time()
    typed(*words)
    asked = server.calls("query")
    assert max(float(one["time"]) for one in asked) <= before_s + 60
    typed(*words)
    assert len(server.calls("query")) > len(asked)


def test_token_and_headers_are_sent_and_a_tenant_has_its_own_cache(
    typed: Typed, played: Callable[..., Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = played(old_prometheus)
    words = (
        "eval",
        "--from",
        server.url + "/api/v1",
        "--range",
        "1h",
        "--end",
        "2023-11-14T22:13:20",
        "--rules",
        "rules.yml",
    )
    Path("token").write_text("s3cret\n")
    Path("tenant").write_text("blue\n")
    monkeypatch.setenv("TENANT", "green")
    _, out, err = typed(*words, "--token-file", "token", "--header", "X-Scope-OrgID: @tenant", "--json")
    assert {headers["Authorization"] for _, _, headers in server.asked} == {"Bearer s3cret"}
    assert {headers["X-Scope-Orgid"] for _, _, headers in server.asked} == {"blue"}
    before = len(server.calls("query"))
    typed(*words, "--header", "X-Scope-OrgID: env:TENANT")
    assert len(server.calls("query")) == 2 * before
    assert "s3cret" not in out + err


BAD = [
    ((401, "text/plain", b"no"), "answered 401: it wants a token; give one with --token-file FILE or BLOWOUT_PROM"),
    ((403, "text/html", b"<html>no</html>"), "answered 403: it wants a token"),
    ((500, "text/plain", b"oh"), "answered 500"),
    ((503, "application/json", b'{"error": "starting up"}'), "answered 503 Service Unavailable (starting up)"),
    ((400, "application/json", b'{"error": "parse error"}'), "answered 400 Bad Request (parse error)"),
    ((422, "application/json", b'{"error": "too many samples"}'), "answered 422"),
    ((200, "text/html", b"<!doctype html><p>sign in"), "got a web page (HTML)"),
    ((200, "text/plain", b"\x00\xff"), "to answer with JSON"),
    ((200, "application/json", b'{"status": "error", "error": "no such tenant"}'), "got: no such tenant"),
    ((200, "application/json", b'{"status": "success", "data": 3}'), "expected a list of series"),
]


@pytest.mark.parametrize(("answer", "words"), BAD)
def test_a_server_that_does_not_do_its_part_is_one_sentence(
    typed: Typed, played: Callable[..., Played], answer: tuple[int, str, bytes], words: str
) -> None:
    server = played(lambda *_: answer)
    code, out, err = typed("eval", "--from", server.url, "--rules", "rules.yml")
    assert (code, out) == (4, "")
    assert words in err
    assert server.url in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (said({"resultType": "vector", "result": []}), "answer in JSON with a matrix, got a vector"),
        (said({"resultType": "matrix", "result": [{"metric": {}, "values": [[1]]}]}), "expected times and values"),
        ((422, "application/json", b'{"error": "too many samples"}'), "too many samples"),
    ],
)
def test_samples_that_are_none(
    typed: Typed, played: Callable[..., Played], answer: tuple[int, str, bytes], words: str
) -> None:
    server = played(lambda call, chosen: answer if call == "query" else old_prometheus(call, chosen))
    code, _, err = typed("eval", "--from", server.url, "--range", "1h", "--rules", "rules.yml")
    assert code == 4
    assert words in err
    assert err.count("\n") == 1
    assert len(server.calls("query")) < 30


def test_nobody_there_too_late_and_no_tls(
    typed: Typed, played: Callable[..., Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sim.alerts.sources import server as servers

    code, _, err = typed("eval", "--from", "http://127.0.0.1:1", "--rules", "rules.yml")
    assert code == 4
    assert "could not be reached" in err
    monkeypatch.setattr(servers, "TIMEOUT_S", 0.2)

    def late(call: str, chosen: dict[str, str]) -> tuple[int, str, bytes]:
        time.sleep(1)
        return said([])

    server = played(late)
    code, _, err = typed("eval", "--from", server.url, "--rules", "rules.yml")
    assert code == 4
    assert "no answer within 0.2 s" in err
    code, _, err = typed("eval", "--from", server.url.replace("http", "https"), "--rules", "rules.yml")
    assert code == 4
    assert "could not be reached" in err


def test_only_who_is_trusted_is_believed(typed: Typed, played: Callable[..., Played]) -> None:
    tool = shutil.which("openssl")
    if not tool:
        pytest.skip("no openssl to make a certificate with")
    make = [tool, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "ca.pem", "-days", "2"]
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("ca.pem", "key.pem")
    server = played(old_prometheus)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    words = ("eval", "--from", server.url.replace("http", "https"), "--range", "1h", "--rules", "rules.yml")
    code, _, err = typed(*words)
    assert code == 4
    assert "certificate verify failed" in err
    assert "; name its authority with --ca FILE" in err
    assert err.count("\n") == 1
    assert typed(*words, "--ca", "ca.pem")[0] == 0


def test_nothing_in_that_time_is_nothing_judged(typed: Typed, played: Callable[..., Played]) -> None:
    server = played(lambda *_: said([]))
    code, out, err = typed("eval", "--from", server.url, "--range", "1h", "--rules", "elsewhere.yml")
    assert (code, err) == (3, "")
    assert "(no samples were found)" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("eval",), "expected what to judge: RUN_OR_FILE, or --from URL of a Prometheus"),
        (("eval", "a.parquet", "--from", "http://x"), "either a run or a file, or --from URL, not both"),
        (("eval", "a.parquet", "--range", "1d"), "--range: only with --from URL"),
        (("eval", "--from", "x:9090"), "expected a URL like http://HOST:PORT"),
        (("eval", "--from", "http://x", "--range", "soon"), "--range: expected a duration"),
        (("eval", "--from", "http://x", "--range", "0s"), "expected a duration above 0"),
        (("eval", "--from", "http://x", "--end", "later"), "--end later: expected a time such as"),
        (("eval", "--from", "http://x", "--token-file", "no"), "--token-file no: cannot be read"),
        (("eval", "--from", "http://x", "--token-file", "two"), "--token-file two: expected one line"),
        (("eval", "--from", "http://x", "--ca", "two"), "--ca two: expected certificates in PEM"),
        (("eval", "--from", "http://x", "--header", "s3cret"), "--header: expected 'NAME: VALUE'"),
        (("eval", "--from", "http://x", "--header", "A: env:NOT_SET"), "--header A: expected one line"),
    ],
)
def test_a_mistake_is_one_sentence_and_no_secret(typed: Typed, words: tuple[str, ...], expected: str) -> None:
    Path("two").write_text("s3cret\ns3cret\n")
    code, out, err = typed(*words, "--rules", "rules.yml")
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1
    assert "s3cret" not in err


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x05hello", b"<html>", b"\x80" * 20, b"\x03\x08\x0a\x05a"])
def test_an_answer_of_remote_read_that_is_none(body: bytes) -> None:
    if body:
        with pytest.raises(remote_read.FormatError):
            list(remote_read.answer(body))


def test_samples_of_every_size_are_read() -> None:
    import pyarrow as pa

    times = [-5, 0, 7, 1 << 34, 1_700_000_000_000, 1_700_000_000_001, 1_700_000_000_002, 1 << 43]
    values = np.array([1.0, 0.0, 2.0, 3.0, 0.0, np.inf, 0.0, 5.0])
    values[6:7] = STALE
    labels = b"".join(
        remote_read._field(1, remote_read._field(1, k.encode()) + remote_read._field(2, v.encode()))
        for k, v in ((NAME, "up"), ("x", "é"))
    )
    samples = b""
    for t, v in zip(times, values):
        bits = np.array([v]).tobytes()
        inside = (b"\x09" + bits if bits.strip(b"\0") else b"") + (remote_read._number(2, t) if t else b"")
        samples += remote_read._field(2, inside)
    message = remote_read._field(1, remote_read._field(1, labels + samples))
    ((found, t_ms, read),) = remote_read.answer(pa.compress(message, codec="snappy", asbytes=True))
    assert found == {NAME: "up", "x": "é"}
    assert t_ms.tolist() == times
    assert read.view(np.int64).tolist() == values.view(np.int64).tolist()


def test_a_command_may_take_several_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.om", "b.om"):
        Path(name).write_text("kv 1 0\n# EOF\n")
    seen: list[Chosen | None] = []

    def note(chosen: Chosen | None) -> None:
        seen.append(chosen)

    several = click.command()(takes_pasts(many=True)(note))
    several(["a.om", "b.om", "a.om"], standalone_mode=False)
    perhaps = click.command()(takes_pasts(optional=True)(note))
    perhaps([], standalone_mode=False)
    several(["--from", "http://u:s3cret@x:1/p", "--end", "1700000000"], standalone_mode=False)
    both, none, live = seen
    assert none is None
    assert both is not None
    assert live is not None
    assert [name for name, _ in both.named] == ["a.om", "b.om"]
    assert (both.again, both.folder, both.is_live) == ("a.om b.om a.om", None, False)
    assert (live.again, live.is_live) == ("--from http://x:1/p --range 1d --end 1700000000", True)
    assert live.pasts[0].name == "http://x:1/p, 2023-11-13 22:13:20 to 2023-11-14 22:13:20 UTC"
