"""All commands about alerts on a run, its text, and a real Prometheus that was filled with it: one past, one answer."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sim.cli import main
from tests.real_prometheus import Server, binary, running
from tests.test_alerts_score import SCENARIO

RULES = """
groups:
- name: g
  interval: 15s
  rules:
  - {record: 'gateway:bad', expr: 'sum(rate(gateway_requests_total{code!="200"}[2m]))'}
  - {record: 'gateway:share', expr: 'gateway:bad / sum(rate(gateway_requests_total[2m]))'}
  - alert: Errors
    expr: sum(rate(gateway_requests_total{code!="200"}[2m])) / sum(rate(gateway_requests_total[2m])) > 0.05
    for: 1m
    labels: {severity: page}
  - {alert: Share, expr: 'gateway:share > 0.05', for: 1m, labels: {severity: page}}
  - {alert: Typo, expr: nothing > 1}
"""
LATER = RULES.replace("[2m]", "[10m]")
SLI = 'sum(rate(gateway_requests_total{code!="200"}[1m])) / sum(rate(gateway_requests_total[1m]))'
Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type ``blowout`` in an empty folder with rules and incidents; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOWOUT_CACHE", str(tmp_path / "cache"))
    Path("rules.yml").write_text(RULES)
    Path("later.yml").write_text(LATER)
    Path("mine.csv").write_text("start,end,id\n10m,12m,blip\n30m,40m,crash\n")

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(words)
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return typed


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OpenMetrics text of a run in which both replicas crash for ten minutes."""
    folder = tmp_path_factory.mktemp("crash")
    (folder / "crash.yaml").write_text(SCENARIO)
    words = ("run", str(folder / "crash.yaml"), "--seeds", "1", "--out", str(folder / "run"), "--no-figures")
    for command in (words, ("export-metrics", str(folder / "run"), "--out", str(folder / "all.om"))):
        with pytest.raises(SystemExit) as end:
            main(command)
        assert not end.value.code
    return folder / "all.om"


@pytest.fixture
def live(typed: Typed, text: Path, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """What names that past on a real Prometheus, filled with the text; the text is ``all.om``."""
    Path("all.om").write_bytes(text.read_bytes())
    make = [binary("promtool"), "tsdb", "create-blocks-from", "openmetrics", "all.om", "server/data"]
    subprocess.run(make, check=True, capture_output=True)
    with running(tmp_path / "server") as server:
        yield window(server)


def window(server: Server) -> tuple[str, ...]:
    return ("--from", server.url, "--range", "1h", "--end", "3600")


def without_names(out: str) -> Any:
    """What was printed as JSON, whatever the past is called."""

    def bare(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: bare(value) for key, value in found.items() if key not in ("past", "pasts")}
        return [bare(one) for one in found] if isinstance(found, list) else found

    found = json.loads(out)
    named = found.get("pasts", []) if isinstance(found, dict) else []
    whole = [{k: v for k, v in one.items() if k != "past"} for one in named if isinstance(one, dict)]
    return bare(found), whole


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("score", "--incidents", "mine.csv", "--against", "later.yml"),
        ("score", "--sli", SLI, "--objective", "99.5%"),
        ("tune", "--incidents", "mine.csv"),
        ("lint",),
    ],
)
def test_a_real_prometheus_gives_what_its_text_gives(
    typed: Typed, live: tuple[str, ...], words: tuple[str, ...]
) -> None:
    command, *more = words
    code, of_file, err = typed("alerts", command, "all.om", *more, "--rules", "rules.yml", "--json")
    assert (code, err) == (0, "")
    code, of_server, err = typed("alerts", command, *live, *more, "--rules", "rules.yml", "--json")
    assert (code, err) == (0, "")
    assert without_names(of_server) == without_names(of_file)
    _, out, _ = typed("alerts", command, *live, *more, "--rules", "rules.yml")
    assert f"{live[1]}, 0:00:00 to 1:00:00 UTC" in " ".join(out.split())
    assert f"--from {live[1]} --range 1h --end 3600 --rules rules.yml" in " ".join(out.split())
    if command == "score":
        assert {one["rule"]: one["caught"] for one in json.loads(of_file)["rules"]} == {
            "Errors": 1,
            "Share": 1,
            "Typo": 0,
        }
    if command == "tune":
        assert [one["rule"] for one in json.loads(of_server)["rules"]] == ["Errors", "Share"]


@pytest.mark.slow
def test_what_is_shipped_and_verified_is_the_same(typed: Typed, live: tuple[str, ...]) -> None:
    assert typed("alerts", "export", "all.om", "--rules", "rules.yml", "--out", "a")[0] == 0
    code, out, err = typed("alerts", "export", *live, "--rules", "rules.yml", "--out", "b")
    assert (code, err) == (0, "")
    assert f"b, from {live[1]}" in " ".join(out.split())
    tests = sorted(path.name for path in Path("a/tests").iterdir())
    assert tests == ["healthy.yml", "incident.yml"]
    for name in tests:
        assert Path("b/tests", name).read_text() == Path("a/tests", name).read_text()
    made = subprocess.run([binary("promtool"), "test", "rules", *(f"b/tests/{name}" for name in tests)], check=False)
    assert made.returncode == 0
    of_file = typed("alerts", "verify", "all.om", "--rules", "rules.yml")
    of_server = typed("alerts", "verify", *live, "--rules", "rules.yml")
    assert of_file[0] == of_server[0] == 0
    assert of_server[1].splitlines()[1:] == of_file[1].splitlines()[1:]


@pytest.mark.slow
def test_what_only_the_server_can_evaluate_is_scored_too(typed: Typed, live: tuple[str, ...]) -> None:
    text = RULES.replace("    expr: sum(rate(", "    expr: topk(1, sum(rate(").replace(
        "[2m])) > 0.05", "[2m]))) > 0.05"
    )
    Path("top.yml").write_text(text)
    code, out, _ = typed("alerts", "score", *live, "--incidents", "mine.csv", "--rules", "top.yml", "--json")
    found = {one["rule"]: one for one in json.loads(out)["rules"]}
    assert (code, found["Errors"]["silent"]) == (0, [])
    assert found["Errors"]["list"] == [{**one, "rule": "Errors"} for one in found["Share"]["list"]]
    code, out, _ = typed("alerts", "tune", *live, "--incidents", "mine.csv", "--rules", "top.yml", "--json")
    said = {one["rule"]: one["reason"] for one in json.loads(out)["not_tuned"]}
    assert (code, said["Errors"]) == (0, "the aggregation topk (column 1)")


@pytest.mark.parametrize("command", ["score", "tune"])
def test_without_a_truth_nothing_is_asked(typed: Typed, command: str) -> None:
    words = ("alerts", command, "--from", "http://127.0.0.1:1", "--rules", "rules.yml")
    said = "--from: a Prometheus does not say when users suffered; give --incidents FILE, or --sli with --objective\n"
    assert typed(*words) == (2, "", said)
    code, _, err = typed(*words, "--sli", "topk(1, x)", "--objective", "99%")
    assert (code, err) == (2, "--sli: expected PromQL of the subset, got the aggregation topk\n")
    assert typed(*words, "--incidents", "mine.csv")[0] == 4


@pytest.mark.parametrize("command", ["score", "tune", "export", "verify", "lint"])
def test_a_past_is_named_once(typed: Typed, command: str) -> None:
    more = ("--out", "o") if command == "export" else ()
    words = ("alerts", command, "--rules", "rules.yml", *more)
    code, _, err = typed(*words, "a.om", "--from", "http://x")
    assert (code, err) == (2, "a.om: expected either a run or a file, or --from URL, not both\n")
    code, _, err = typed(*words)
    expected = "expected what to judge: RUN_OR_FILE, or --from URL of a Prometheus\n"
    assert (code, err) == ((1, "") if command == "lint" else (2, expected)) or (command, code, err) == ("lint", 0, "")
