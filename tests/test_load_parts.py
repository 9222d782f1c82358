"""The parts of a load test that need no endpoint: schedule, prompts, events, policies, rows, and the tester's judge."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import events, preflight, prompts, synthesis, tester
from loadtest.plan import Plan, Talk, base_of, is_loopback
from loadtest.policy import Policy
from loadtest.rows import ROW
from loadtest.schedule import Ask, Schedule
from sim import scenario as scenarios
from sim import workload
from sim.errors import InputError
from sim.records import PREFIX, Outcome
from sim.scenario import Clients, dump

FLEET = "fleet: {kv_blocks: 99, step_time: {linear: {base: 10ms}}}"
COHORTS = "cohorts: {a: {prompt_tokens: 40, output_tokens: 9, prefix: {groups: 3, tokens: 16}}}"


def plan_of(text: str, **settings: object) -> Plan:
    scenario = scenarios.loads(text)
    return Plan(dump(scenario), scenario.seed, "http://127.0.0.1:1", {"main": "tiny"}, **settings)  # type: ignore[arg-type]


def everything(asks: Iterator[Ask]) -> list[int]:
    return [int(row["request"]) for ask in asks for row in (ask.row, *ask.after)]


WORKLOADS = [
    "{rate_per_s: 20, COHORTS}",
    "{rate_per_s: 20, arrivals: {gamma: {cv: 3}}, COHORTS}",
    "{arrivals: {piecewise: [{at: 0s, rate_per_s: 5}, {at: 10s, rate_per_s: 40}]}, COHORTS}",
    "{rate_per_s: 20, arrivals: {bursts: {rate_per_s: 50, mean_on: 2s, mean_off: 5s}}, COHORTS}",
    "{rate_per_s: 5, sessions: {turns: {gamma: {mean: 3, cv: 1}}, think: 2s}, COHORTS}",
]


@pytest.mark.parametrize("users", WORKLOADS)
@pytest.mark.parametrize("of", [1, 2, 3])
def test_processes_send_every_request_of_the_simulator_exactly_once(users: str, of: int) -> None:
    text = f"name: a\nduration: 30s\n{FLEET}\nworkload: {users.replace('COHORTS', COHORTS)}"
    scenario = scenarios.loads(text)
    wanted = np.concatenate(list(workload.compile(scenario, scenario.seed).chunks()))
    shares = [everything(Schedule(plan_of(text)).asks(k, of)) for k in range(of)]
    assert sorted(sum(shares, [])) == sorted(wanted["request"].tolist())
    roots = [float(ask.row["scheduled_s"]) for ask in Schedule(plan_of(text)).asks()]
    assert roots == sorted(roots)


@given(tokens=st.integers(1, 600), more=st.integers(0, 300), content=st.integers(0, 2**40), salt=st.integers(0, 2**32))
def test_a_longer_prompt_of_the_same_content_begins_with_the_shorter(
    tokens: int, more: int, content: int, salt: int
) -> None:
    made = prompts.Prompts(Talk("ids"), salt, np.zeros(0, PREFIX))
    short, long = (made.bytes_of(-1, 0, content, n) for n in (tokens, tokens + more))
    assert len(short) == tokens
    assert long.startswith(short)


@given(overhead=st.integers(0, 40), per_word=st.sampled_from([0.5, 1, 2, 3]), tokens=st.integers(60, 5000))
def test_two_probes_are_enough_for_an_exact_prompt(overhead: int, per_word: float, tokens: int) -> None:
    def counted(words: int) -> int:
        return round(overhead + per_word * words)

    talk = prompts.calibrated(Talk(), (64, counted(64)), (192, counted(192)))
    assert abs(counted(prompts.words_for(talk, tokens)) - tokens) <= per_word / 2 + 0.5


def test_prompts_share_what_the_scenario_says_and_nothing_else() -> None:
    tree = np.array([(-1, 10), (0, 25), (-1, 10)], PREFIX)
    made = prompts.Prompts(Talk("ids"), 1, tree)
    a, b, c = made.bytes_of(1, 25, 7, 60), made.bytes_of(0, 10, 8, 60), made.bytes_of(2, 10, 7, 60)
    assert a[:10] == b[:10]
    assert a[10:14] != b[10:14]
    assert a[:4] != c[:4]
    assert prompts.Prompts(Talk("ids"), 2, tree).bytes_of(1, 25, 7, 60)[:4] != a[:4]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}', events.Event()),
        (b'data: {"choices":[{"delta":{"content":"a"}}]}', events.Event(token=True, text="a")),
        (b'data: {"choices":[{"text":"a","finish_reason":"stop"}]}', events.Event(token=True, finish="stop", text="a")),
        (
            b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{}"}}]}}]}',
            events.Event(token=True, text="{}"),
        ),
        (b'data: {"choices":[{"delta":{"reasoning":"a"}}]}', events.Event(token=True)),
        (b'data: {"choices":[{"delta":{"reasoning_content":"a"}}]}', events.Event(token=True)),
        (b'data: {"choices":[{"delta":{"tool_calls":[{}]}}]}', events.Event(token=True)),
        (b'data: {"choices":[{"text":"","finish_reason":null}]}', events.Event(token=True)),
        (b'data: {"choices":[{"text":"","finish_reason":"stop"}]}', events.Event(finish="stop")),
        (
            b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}',
            events.Event(prompt_tokens=3, output_tokens=2),
        ),
        (b'data: {"error":{"message":"busy","code":503}}', events.Event(error="error_event")),
        (b"data: {oops", events.Event(error="bad_json")),
        (b"data: [DONE]", events.Event(done=True)),
        (b": comment", events.Event()),
        (b"", events.Event()),
    ],
)
def test_what_a_line_of_a_stream_says(line: bytes, wanted: events.Event) -> None:
    assert events.read(line) == wanted


def test_clients_try_again_as_long_as_they_may() -> None:
    clients = Clients(
        retries=2, timeout=3.0, deadline=9.0, backoff={"base": 1.0, "factor": 3, "jitter": "none", "max": 2}
    )
    policy = Policy(clients, 1, 60.0)
    assert [policy.tries_again(Outcome.FAILED, 503, n, "server_error") for n in range(3)] == [True, True, False]
    assert not policy.tries_again(Outcome.REJECTED, 400, 0, "client_error")
    assert not policy.tries_again(Outcome.TIMED_OUT, 499, 0, "deadline")
    assert [policy.backoff_s(7, n, n + 1) for n in range(3)] == [1.0, 2.0, 2.0]
    assert policy.limits(10.0, 12.0, math.inf, 1.0).whole == (12.0, "deadline")
    assert policy.limits(10.0, 19.0, 11.0, 1.0).first == (11.0, "left")


def test_a_budget_for_retries_runs_out_and_is_earned_again() -> None:
    policy = Policy(Clients(retries=9, retry_budget={"share": 0.5, "burst": 1}), 1, None)
    assert [policy.tries_again(Outcome.FAILED, 503, 0, "x") for _ in range(2)] == [True, False]
    policy.begins()
    policy.begins()
    assert policy.tries_again(Outcome.FAILED, 503, 0, "x")


def frozen_rows() -> np.ndarray:
    """Requests every 25 ms that take 0.1 s, but for a freeze of 3 s in which all wait until its end."""
    rows = np.zeros(600, ROW)
    rows["scheduled_s"] = rows["sent_s"] = np.arange(600) * 0.025
    begins = np.where((rows["sent_s"] >= 5) & (rows["sent_s"] < 8), 8.0, rows["sent_s"])
    rows["first_token_s"], rows["finished_s"] = begins + 0.02, begins + 0.1
    return rows


def test_a_closed_loop_would_have_hidden_a_freeze() -> None:
    claims = tester.claims(frozen_rows(), 15.0)
    assert claims["e2e_p95"]["schedule"] > 2.0
    assert claims["e2e_p50"]["closed"] == pytest.approx(0.1)
    met = tester.closed_loop(frozen_rows()["sent_s"], np.where(frozen_rows()["sent_s"] < 5, 0.1, 0.1), 4, 0.1)
    assert 500 < len(met) <= 600
    one_each = tester.closed_loop(
        frozen_rows()["sent_s"], (frozen_rows()["finished_s"] - frozen_rows()["sent_s"]), 4, 0.1
    )
    assert len(one_each) < len(met), "a user who waits asks less"


def state(**changes: object) -> dict[str, object]:
    quiet = {"planned": 600, "sent": 600, "dropped": 0, "stopped": "", "hub_lag_ms": {"0": 99}, "cpu": 0.1, "said": {},
             "prompts": 600, "off_by": 0}  # fmt: skip
    return {**quiet, **changes}


def test_a_tester_that_did_its_part_is_valid_and_one_that_did_not_is_not() -> None:
    rows = frozen_rows()
    assert tester.examine(rows, [state()], 15.0)["valid"]
    assert "dropped" in tester.examine(rows, [state(sent=590, dropped=10)], 15.0)["wrong"][0]
    assert "590 of 600" in tester.examine(rows, [state(sent=590)], 15.0)["wrong"][0]
    rows["sent_s"] += 0.03
    assert "late" in tester.examine(rows, [state()], 15.0)["wrong"][0]


def test_addresses() -> None:
    assert (
        base_of("http://a:1/v1/chat/completions") == base_of("http://a:1/v1/") == base_of("http://a:1") == "http://a:1"
    )
    assert is_loopback("http://127.0.0.1:8000")
    assert not is_loopback("http://10.0.0.1")
    preflight.allowed("http://localhost:1", False)
    for url, owned in (
        ("http://example.org", False),
        ("ftp://127.0.0.1", True),
        ("127.0.0.1:80", True),
        ("http://", True),
    ):
        with pytest.raises(InputError):
            preflight.allowed(url, owned)


def test_an_absurd_rate_is_refused() -> None:
    preflight.bearable(1000, 1.0, 1)
    with pytest.raises(InputError, match="--workers 2"):
        preflight.bearable(1500, 1.0, 1)
    with pytest.raises(InputError, match="one machine"):
        preflight.bearable(1e9, 1.0, 1)


def test_which_model_is_asked_for() -> None:
    scenario = synthesis.scenario(1.0, "1m", 9, 9)
    assert preflight.chosen_models(scenario, ["tiny"], None, "x") == {"main": "tiny"}
    assert preflight.chosen_models(scenario, ["a", "main"], None, "x") == {"main": "main"}
    assert preflight.chosen_models(scenario, [], "b", "x") == {"main": "b"}
    for served, model in ((["a", "b"], None), ([], None), (["a"], "b")):
        with pytest.raises(InputError):
            preflight.chosen_models(scenario, served, model, "x")


def test_a_plan_survives_its_journey() -> None:
    plan = plan_of(f"name: a\nduration: 30s\n{FLEET}\nworkload: {{rate_per_s: 2, {COHORTS}}}", max_requests=7)
    assert Plan.from_json(plan.to_json()) == plan
