"""Checks on real answers: what each finds, in which answers, and that a slow or broken one harms nobody."""

import importlib.util
import json
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import evaluator, prompts, samples
from loadtest.plan import Plan, Talk
from sim.answers import judge_of, judged
from sim.cli import main
from sim.engine.config import share_below
from sim.engine.steptime import hash3
from sim.results import Member, Run
from sim.scenario import AnswerCheck, dump, loads
from sim.workload.prompts import Prompts
from sim.world import simulate
from tests.load_target import typed
from tests.test_serve import serving

needs_locust = pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="needs the extra loadtest")
needs_jsonschema = pytest.mark.skipif(importlib.util.find_spec("jsonschema") is None, reason="needs jsonschema")
HEAD = """\
name: a
duration: 60s
fleet: {kv_blocks: 999, step_time: {linear: {base: 10ms}}}
"""
LENGTHS = "share: 0.5, prompt_tokens: 9, output_tokens: 9"
COHORTS = f"workload: {{rate_per_s: 5, cohorts: {{a: {{{LENGTHS}}}, b: {{{LENGTHS}}}}}}}\n"
OWN = """\
import time
def is_right(text, asked):
    print("said, and no verdict")
    if text == "slow":
        time.sleep(60)
    if text == "broken":
        raise KeyError("expected")
    return text == asked.get("expected", "yes") if text != "odd" else 1
def one(text):
    return True
number = 3
"""


@pytest.mark.parametrize(
    ("check", "text", "verdict"),
    [
        ({"matches": "^right"}, "right and so on", "right"),
        ({"matches": "^right"}, "not right", "wrong"),
        ({"refuses": True}, "I'm sorry, but I can't help with that.", "wrong"),
        ({"refuses": True}, "I cannot assist you in this.", "wrong"),
        ({"refuses": True}, "As an AI language model, I have no opinion.", "wrong"),
        ({"refuses": True}, "You cannot divide by zero; sorry is a word.", "right"),
        ({"refuses": True}, "I can help you with that.", "right"),
        ({"refuses": ["no can do"]}, "Well, NO CAN DO.", "wrong"),
        ({"refuses": ["no can do"]}, "I'm sorry, but I can't help with that.", "right"),
    ],
)
def test_what_a_check_finds(check: dict[str, Any], text: str, verdict: str) -> None:
    assert judged(judge_of(AnswerCheck(**check)), text, {}).verdict == verdict


@needs_jsonschema
@pytest.mark.parametrize(
    ("text", "verdict", "why"),
    [
        ('{"n": 3}', "right", ""),
        ('{"n": "3"}', "wrong", "$.n: '3' is not of type 'integer'"),
        ("{}", "wrong", "$: 'n' is a required property"),
        ('{"n": 3', "wrong", "is no JSON"),
        ('Sure! {"n": 3}', "wrong", "is no JSON"),
    ],
)
def test_an_answer_is_json_as_the_schema_says(text: str, verdict: str, why: str) -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    found = judged(judge_of(AnswerCheck(json_schema=schema)), text, {})
    assert found.verdict == verdict
    assert why in found.why


@needs_jsonschema
def test_nothing_is_fetched_for_a_schema() -> None:
    check = AnswerCheck(json_schema={"$ref": "http://127.0.0.1:9/elsewhere.json"})
    assert judged(judge_of(check), "{}", {}).verdict == "not_judged"


@given(seed=st.integers(0, 2**63 - 1), request=st.integers(0, 2**62))
def test_the_luck_of_an_answer_is_the_engines(seed: int, request: int) -> None:
    assert samples.luck_of(seed, request) == int(hash3(seed, request, 8))


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_the_sample_is_that_of_the_simulator(share: float, tmp_path: Path) -> None:
    scenario = loads(f"{HEAD}{COHORTS}telemetry: {{evaluate: {share}}}\nchecks: {{x: {{matches: a}}}}\n")
    simulate(scenario, 1, tmp_path)
    member = Member({}, 1, tmp_path)
    rows = member.attempts(["request", "cohort", "outcome"]).to_pylist()
    sample = samples.Sample(scenario, 1)
    looked = sum(sample.wants(row["request"], row["cohort"]) for row in rows if row["outcome"] == 0)
    (count,) = [values[-1] for _, _, values in member.metrics(["llm_eval_score_count"])]
    assert looked == count > 0
    assert samples._below(scenario.checks["x"], share) == share_below(share)


def test_each_check_has_its_own_answers() -> None:
    checks = "checks: {x: {matches: a, cohorts: [a]}, y: {matches: b, share: 100%}, z: {matches: c, share: 0}}"
    sample = samples.Sample(loads(f"{HEAD}{COHORTS}{checks}"), 1)
    of_a = [sample.checks(request, 0) for request in range(2000)]
    assert {tuple(names) for names, _ in of_a} == {("y",), ("x", "y")}
    assert 60 < sum("x" in names for names, _ in of_a) < 140
    assert not any(whole for _, whole in of_a), "z looks at none"
    assert {tuple(sample.checks(request, 1)[0]) for request in range(100)} == {("y",)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('checks: {x: {matches: "("}}', "s.yaml:5: checks.x.matches: expected a regular expression"),
        ("checks: {x: {refuses: false}}", "s.yaml:5: checks.x.refuses: expected true or a list"),
        ("checks: {x: {matches: a, refuses: true}}", "s.yaml:5: checks.x: expected exactly one of"),
        ("checks: {x: {cohorts: [a]}}", "got none of them"),
        ("checks: {x: {matches: a, cohorts: [c]}}", "s.yaml:5: checks.x.cohorts[0]: no cohort 'c'"),
        ("checks: {x: {matches: a}}\ntelemetry: none", "s.yaml:5: checks.x.share: missing"),
        ("checks: {x: {json_schema: nowhere.json}}", "s.yaml:5: checks.x.json_schema: expected a file"),
        ("checks: {x: {json_schema: own.py}}", "s.yaml:5: checks.x.json_schema: own.py: expected a JSON Schema"),
        (
            "checks: {x: {json_schema: {type: nonsense}}}",
            "checks.x.json_schema: expected a JSON Schema; at /type",
        ),
        ("checks: {x: {python: 'own.py:is_rigth'}}", "s.yaml:5: checks.x.python: expected a function 'is_rigth'"),
        ("checks: {x: {python: 'own.py:one'}}", "s.yaml:5: checks.x.python: expected one to take the text"),
        ("checks: {x: {python: 'own.py:number'}}", "expected a function 'number'"),
        ("checks: {x: {python: 'nowhere.py:f'}}", "nowhere.py"),
        ("checks: {x: {python: 'broken.py:f'}}", "broken.py cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_check_that_cannot_be_is_told_at_once(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "json_schema" in words and "file" not in words and importlib.util.find_spec("jsonschema") is None:
        pytest.skip("needs jsonschema")
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    Path("broken.py").write_text("1 / 0\n")
    Path("s.yaml").write_text(f"{HEAD}{COHORTS}{text}\n")
    with pytest.raises(SystemExit) as ended:
        main(["check", "s.yaml"])
    err = capsys.readouterr().err
    assert ended.value.code == 2, err
    assert words in err
    assert len(err.strip().splitlines()) == 1


ASKS = '{"messages": [{"role": "user", "content": "hi"}], "expected": "yes", "max_tokens": 7}'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "p.jsonl: expected lines such as"),
        (f"{ASKS}\n\nnonsense", "p.jsonl:3: expected"),
        ("3", "p.jsonl:1: expected"),
        ("{}", "p.jsonl:1: expected"),
        ('{"prompt": "a", "messages": []}', "p.jsonl:1: expected"),
        ('{"messages": []}', "p.jsonl:1: messages: expected a list"),
        ('{"messages": [{"content": "hi"}]}', "p.jsonl:1: messages: expected a list"),
        ('{"prompt": " "}', "p.jsonl:1: prompt: expected a text"),
        ('{"prompt": "a", "max_tokens": 0}', "p.jsonl:1: max_tokens: expected a whole number"),
    ],
)
def test_a_prompt_that_is_none_is_told_with_its_line(
    line: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.jsonl").write_text(line)
    workload = "workload: {rate_per_s: 5, cohorts: {a: {prompt_tokens: 9, output_tokens: 9, prompts: p.jsonl}}}\n"
    Path("s.yaml").write_text(HEAD + workload)
    with pytest.raises(SystemExit) as ended:
        main(["check", "s.yaml"])
    err = capsys.readouterr().err
    assert ended.value.code == 2, err
    assert f"s.yaml:4: workload.cohorts.a.prompts: {words}" in err
    assert len(err.strip().splitlines()) == 1


def test_a_request_asks_the_same_whoever_looks(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps({"prompt": f"{n}?", "expected": n}) for n in range(5)))
    text = HEAD + COHORTS.replace("9}", "9, prompts: p.jsonl}", 1)
    scenario = loads(text, folder=tmp_path)
    lines = [Prompts(scenario, 7).of(0, request) for request in range(200)]
    assert lines == [Prompts(scenario, 7).of(0, request) for request in range(200)]
    assert {line["expected"] for line in lines if line} == set(range(5))
    assert Prompts(scenario, 7).of(1, 3) is None


def test_of_a_line_only_what_is_openais_is_sent() -> None:
    path, body = prompts.real(Talk("ids"), "tiny", json.loads(ASKS))
    assert path == "/v1/chat/completions"
    asked = json.loads(body)
    assert asked["max_tokens"] == 7
    assert asked["stream"]
    assert "expected" not in asked
    assert "ignore_eos" not in asked, "an answer that is to be right ends by itself"
    path, body = prompts.real(Talk(), "tiny", {"prompt": "hi"})
    assert (path, json.loads(body)["max_tokens"]) == ("/v1/completions", prompts.ENOUGH_TOKENS)
    assert prompts.most_tokens(Talk(context=500), {"prompt": "hi"}) == 250


def judged_by(folder: Path, checks: str, texts: list[str], excerpts: bool = False) -> tuple[list[Any], dict[str, str]]:
    """Judge *texts* as a load test does; return the evaluations in their order, and what could not be judged."""
    (folder / "own.py").write_text(OWN)
    (folder / "answers").mkdir()
    scenario = loads(f"{HEAD}{COHORTS}checks: {checks}", folder=folder)
    plan = Plan(dump(scenario), 1, "http://127.0.0.1:1", {"main": "tiny"}, answers=str(folder / "answers"))
    (folder / "plan.json").write_text(plan.to_json())
    made = evaluator.Evaluator(plan, folder / "plan.json", folder, excerpts)
    made.start(time.time())
    writer = samples.Writer(plan.answers, 0)
    for request, text in enumerate(texts):
        writer.add(samples.Kept(request, 0, 0, 1.0, text))
    writer.flush()
    found: list[Any] = made.take()
    until_s = time.monotonic() + 120
    while made.is_busy and time.monotonic() < until_s:
        time.sleep(0.02)
        found += made.take()
    made.close()
    return found, made.failed


def test_what_fails_itself_is_never_a_pass(tmp_path: Path) -> None:
    checks = "{own: {python: 'own.py:is_right', share: 100%}, y: {matches: y, share: 100%}}"
    found, failed = judged_by(tmp_path, checks, ["yes", "no", "broken", "odd", "y", "yes"])
    assert [one.found["own"].verdict for one in found] == [
        "right",
        "wrong",
        "not_judged",
        "not_judged",
        "wrong",
        "right",
    ]
    assert [one.score for one in found] == [1, 0, 0, 0, 0, 1], "one check that says wrong is enough"
    assert failed == {"own": "KeyError: 'expected'"}
    written = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert len(written) == 12
    assert not any("excerpt" in line for line in written), "answers may be private"
    assert {line["kind"] for line in written if line["check"] == "own"} == {"hallucination"}


def test_a_score_needs_every_check(tmp_path: Path) -> None:
    checks = "{own: {python: 'own.py:is_right', share: 100%}, y: {matches: 'e|o', share: 100%}}"
    found, _ = judged_by(tmp_path, checks, ["yes", "broken"], excerpts=True)
    assert [one.score for one in found] == [1, None]


def test_excerpts_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    judged_by(tmp_path, "{y: {matches: y, share: 100%}}", ["n" * 900, "y"], excerpts=True)
    bad, good = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert bad["excerpt"] == "n" * 200
    assert "excerpt" not in good


def test_a_function_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "VERDICT_S", 3.0)
    monkeypatch.setattr(evaluator, "STUCK", 1)
    checks = "{own: {python: 'own.py:is_right', share: 100%}, back: {matches: '^(a+)+$', share: 100%}}"
    found, failed = judged_by(tmp_path, checks, ["yes", "slow", "yes", "a" * 60 + "!"])
    assert [one.found["own"].verdict for one in found] == ["right", "not_judged", "not_judged", "not_judged"]
    assert found[3].found["back"].verdict == "not_judged", "an endless regular expression too"
    assert "no verdict within" in failed["own"]


def ask(port: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


RULES = """\
groups:
  - name: short
    interval: 1s
    rules:
      - alert: QualityDrop
        expr: sum(increase(llm_eval_score_sum[6s])) / sum(increase(llm_eval_score_count[6s])) < 0.9 * 0.92
        for: 1s
        labels: {severity: page}
      - alert: OrdersBroken
        expr: sum by (check) (increase(llm_check_score_sum{kind="format"}[6s])) < 0.5 * sum by (check) (increase(llm_check_score_count{kind="format"}[6s]))
        labels: {severity: page}
      - alert: Errors
        expr: sum(rate(gateway_requests_total{code!="200"}[6s])) / sum(rate(gateway_requests_total[6s])) > 0.01
        labels: {severity: page}
      - {alert: Down, expr: 'up{job="vllm"} == 0', for: 2s, labels: {severity: page}}
"""  # noqa: E501
SCENARIO = """\
name: checked
duration: 24s
scrape_interval: 1s
seed: 3
rows: {sample: 50%}
fleet: {kv_blocks: 999, max_model_len: 1000, step_time: {linear: {base: 10ms}}}
telemetry: {evaluate: 80%}
workload:
  rate_per_s: 10
  cohorts:
    chat: {share: 0.5, prompt_tokens: 24, output_tokens: 8}
    orders: {share: 0.5, prompt_tokens: 24, output_tokens: 8, prompts: orders.jsonl}
checks:
  says_right: {matches: ^right, cohorts: [chat], kind: hallucination}
  is_order: {json_schema: {type: object, required: [answer]}, cohorts: [orders]}
  polite: {refuses: true}
  expected: {python: "own.py:expected", cohorts: [orders], share: 40%}
slo: {errors: 1%}
alerts: rules.yml
expect:
  QualityDrop: {fires: 9s-23s}
  OrdersBroken: {fires: 9s-23s}
  Errors: silent
  Down: silent
"""
EXPECTED = """\
import json
def expected(text, asked):
    assert asked["cohort"] == "orders"
    return json.loads(text)["answer"].startswith(asked["expected"])
"""


@needs_locust
@needs_jsonschema
@pytest.mark.slow
def test_wrong_answers_are_found_and_the_quality_rule_fires(tmp_path: Path) -> None:
    line = {"response_format": {"type": "json_object"}, "max_tokens": 8, "expected": "right"}
    asked = [{"messages": [{"role": "user", "content": "an order"}], **line}, {"prompt": "another", **line}]
    (tmp_path / "orders.jsonl").write_text("\n".join(map(json.dumps, asked)))
    for name, text in (("own.py", EXPECTED), ("rules.yml", RULES), ("s.yaml", SCENARIO)):
        (tmp_path / name).write_text(text)
    done = []
    with serving(tmp_path, SCENARIO, "--admin") as server:
        command = ["load", "run", "s.yaml", "--url", f"http://127.0.0.1:{server.port}", "--workers", "2", "--out", "r"]
        command += ["--rules", "rules.yml", "--json", "--no-figures"]
        load = threading.Thread(target=lambda: done.append(typed(command, tmp_path)))
        load.start()
        rows = list(tmp_path.glob("r/.drive/rows-*.bin"))
        until_s = time.monotonic() + 100
        while not any(path.stat().st_size for path in rows) and load.is_alive() and time.monotonic() < until_s:
            time.sleep(0.1)
            rows = list(tmp_path.glob("r/.drive/rows-*.bin"))
        time.sleep(9)
        assert ask(server.port, "/admin/next", {"count": 70, "how": "wrong"}) == {"waiting": 70}
        load.join(120)
    shown = json.loads(done[0].stdout)
    assert done[0].returncode in (0, 3), done[0].stderr  # 3: this machine is too busy for a tester
    rules = {one["rule"]: one for one in shown["alerts"]["runs"][0]["rules"]}
    assert {one["verdict"] for one in rules.values()} == {"as expected"}, rules
    assert {name for name, one in rules.items() if one["pages_s"]} == {"QualityDrop", "OrdersBroken"}
    member = Run.open(tmp_path / "r").members[0]
    watched = [(one["name"], one["state"]) for one in member.events() if one["event"] == "alert"]
    assert [state for name, state in watched if name == "QualityDrop"][:2] == ["pending", "firing"]
    found = {one["check"]: one for one in shown["checks"] if one["cohort"] is None}
    assert found["polite"]["failed"] == 0
    assert found["polite"]["judged"] > 200
    wrong = found["says_right"]["failed"] + found["is_order"]["failed"]
    assert 30 < wrong <= 70, "four in five of seventy"
    low, high = (found["says_right"]["failed_share"][key] for key in ("low", "high"))
    assert 0 < low < found["says_right"]["failed_share"]["estimate"] < high < 1
    assert found["is_order"]["failed"] >= found["expected"]["not_judged"] > 0, "what does not parse is no pass"
    series = member.metrics(["llm_eval_score_sum", "llm_eval_score_count"])
    right, looked = (
        sum(values[-1] for one, _, values in series if one["__name__"] == f"llm_eval_score_{part}")
        for part in ("sum", "count")
    )
    assert looked - right <= wrong
    assert 0.5 < right / looked < 0.97
    assert member.info["metrics"]["wrong"] == wrong
    rows_wrong = sum(member.attempts(["wrong"])["wrong"].to_pylist())
    assert 0 < rows_wrong < wrong, "rows are of half the requests"
    assert not any("excerpt" in one for one in member.evaluations())


@needs_locust
def test_serve_answers_with_json_where_that_is_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path, HEAD + COHORTS, "--admin") as server:
        body = {"messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_object"}}
        right = ask(server.port, "/v1/chat/completions", body)["choices"][0]["message"]["content"]
        assert json.loads(right)["answer"].startswith("right")
        ask(server.port, "/admin/next", {"how": "wrong"})
        wrong = ask(server.port, "/v1/chat/completions", body)["choices"][0]["message"]["content"]
        with pytest.raises(ValueError):
            json.loads(wrong)
