"""Why it was slow: who is blamed and who is not, where the time went, and what five requests have been through."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import scenario
from sim.cli import main
from sim.errors import InputError
from sim.records import ATTEMPT, PARTS, Outcome
from sim.report import causes, explain, happened, story, style, told
from sim.report.asked import KIND, Asked, asked, replica_names
from sim.report.view import view
from sim.results import FORMAT, Member, Recorder, Run, write_json
from sim.world import simulate

TWENTY = """\
name: twenty
duration: 20m
rows: {rows}
fleet:
  pools:
    chat: {{kv_blocks: 400, step_time: {{linear: {{base: 10ms}}}}, replicas: 20}}
    code: {{kv_blocks: 400, step_time: {{linear: {{base: 10ms}}}}, replicas: 2}}
workload:
  rate_per_s: 2
  cohorts:
    talk: {{share: 75%, pool: chat, prompt_tokens: 100, output_tokens: 50}}
    edit: {{share: 25%, pool: code, prompt_tokens: 100, output_tokens: 50}}
slo: {{errors: 1%}}
"""
NAMES = ["chat/0", "chat/1", "chat/2"]


def attempt(**given: Any) -> np.ndarray:
    """One row; its parts are those given, and decoding is what they leave."""
    row = np.zeros(1, ATTEMPT)
    row["last"], row["status"], row["prompt_tokens"], row["output_tokens"] = 1, 200, 100, 50
    row["finished_s"] = 1.0
    row["admitted_s"] = row["first_token_s"] = np.nan
    for name, value in given.items():
        row[name] = value
    if "sent_s" not in given:
        row["sent_s"] = row["scheduled_s"]
    booked = sum(float(row[part][0]) for part in PARTS)
    row["decode_alone_s"] += row["finished_s"] - row["scheduled_s"] - booked
    return row


def quick(request: int, **given: Any) -> np.ndarray:
    """A request that gets its first token after 50 ms, asked half a second after the one before."""
    at_s = 0.5 * request
    usual = {"scheduled_s": at_s, "admitted_s": at_s, "first_token_s": at_s + 0.05, "finished_s": at_s + 1.0}
    return attempt(**{"request": request, **usual, "prefill_s": 0.05, **given})


def slow(request: int, wait_s: float, **given: Any) -> np.ndarray:
    """The same after a wait for KV cache blocks."""
    token_s = 0.5 * request + wait_s + 0.05
    usual = {"admitted_s": token_s - 0.05, "first_token_s": token_s, "finished_s": token_s + 0.95, "kv_wait_s": wait_s}
    return quick(request, **{**usual, **given})


def a_run(folder: Path, rows: list[np.ndarray], events: list[dict[str, Any]] = [], keep: str = "all") -> Run:  # noqa: B006
    """The folder of a run of `TWENTY` with these rows and events."""
    loaded = scenario.loads(TWENTY.format(rows=keep))
    recorder = Recorder(folder)
    recorder.rows(np.concatenate(rows))
    for event in events:
        recorder.event(**{"what" if key == "event" else key: value for key, value in event.items()})
    recorder.close({}, {"metrics": {}, "notes": [], "uncalibrated": False, "kv_override": False})
    (folder / "scenario.yaml").write_text(scenario.dump(loaded))
    members = [{"point": {}, "seed": 1, "path": "."}]
    write_json(folder / "run.json", {"format": FORMAT, "state": "complete", "members": members})
    points = [{"point": {}, "seeds": [1], "metrics": {}}]
    write_json(folder / "summary.json", {"scenario": "twenty", "points": points, "assumptions": []})
    return Run.open(folder)


def explained(run: Run, by: str = "ttft") -> explain.Explanation:
    return explain.explain(run, view(run).points[0], None, by)


def said(found: explain.Explanation) -> str:
    text = io.StringIO()
    told.show(found, text)
    return text.getvalue()


def usual(n: int = 2000) -> list[np.ndarray]:
    """Requests spread over both pools, a thirtieth part a little slower than the rest."""
    rows = []
    for k in range(n):
        edits = k % 4 == 0
        where = {"cohort": int(edits), "pool": int(edits), "replica": 20 + k // 4 % 2 if edits else k % 20}
        rows.append(slow(k, 0.001 * (k % 30 == 0) * (1 + k / n), **where))
    return rows


# --- who is blamed --------------------------------------------------------------------------------------------------


def test_a_replica_that_holds_the_slow_ones_is_named_and_no_other(tmp_path: Path) -> None:
    rows = usual()
    rows += [slow(2000 + k, 5.0 + k / 10, replica=3) for k in range(20)]
    found = explained(a_run(tmp_path, rows))
    assert [one.share.label for one in found.groups["replica"]] == ["chat/3", "every other replica"]
    assert "of them met chat/3, which served" in explain.answer(found)
    assert "waiting for KV cache blocks" in explain.answer(found)
    bad, others = found.groups["replica"]
    assert (bad.share.of_trouble, others.share.of_trouble) == (1.0, 0.0)
    assert bad.share.of_traffic == pytest.approx(120 / 2020)
    assert others.p99_s < 0.1 < bad.p99_s
    assert "fleet.router" not in said(found)  # it looks at how busy replicas are already


def test_nobody_is_named_when_all_replicas_have_their_share(tmp_path: Path) -> None:
    rows = [slow(k, 0.5 if k % 97 == 0 else 0.0, replica=k % 20) for k in range(2000)]
    found = explained(a_run(tmp_path, rows))
    assert "replica" not in found.groups
    assert found.groups.keys() == {"cohort", "pool"}


def test_who_was_tried_again_elsewhere_is_blamed_on_the_replica_that_failed_it(tmp_path: Path) -> None:
    rows = usual()
    for k in range(2000, 2020):
        at_s = 0.5 * k
        first = {
            "request": k,
            "scheduled_s": at_s,
            "replica": 3,
            "last": 0,
            "outcome": Outcome.TIMED_OUT,
            "status": 499,
        }
        rows.append(attempt(**first, finished_s=at_s + 10, kv_wait_s=10.0, output_tokens=0))
        again = {"attempt": 1, "sent_s": at_s + 12, "client_wait_s": 10.0, "backoff_s": 2.0, "replica": k % 20}
        times = {"admitted_s": at_s + 12, "first_token_s": at_s + 12.05, "finished_s": at_s + 13, "prefill_s": 0.05}
        rows.append(attempt(request=k, scheduled_s=at_s, **again, **times))
    found = explained(a_run(tmp_path, rows))
    assert found.groups["replica"][0].share.label == "chat/3"
    assert found.groups["replica"][0].share.of_trouble == 1.0
    assert found.requests == 2020
    assert found.ends == {}
    assert "in earlier attempts: 83%" in explain.answer(found)
    group = found.whole.group
    assert group is not None
    lost = dict(zip(KIND.names, group.tail_s))
    assert found.lost_to_s["kv_wait_s"] == pytest.approx(10.0)
    assert "In earlier attempts they were, most first: waiting for KV cache blocks (10.0 s)." in explain.in_full(found)
    assert (lost["lost_s"], lost["backoff_s"], lost["client_wait_s"]) == pytest.approx((10.0, 2.0, 0.0), abs=1e-6)


def test_a_hedged_request_is_counted_once_and_by_the_copy_that_won(tmp_path: Path) -> None:
    loser = attempt(request=0, last=0, outcome=Outcome.CANCELLED, status=499, finished_s=4.2, replica=1)
    times = {"sent_s": 4.0, "first_token_s": 4.2, "finished_s": 5.0, "client_wait_s": 4.0, "prefill_s": 0.2}
    winner = attempt(request=0, attempt=1, hedge=1, replica=2, **times)
    found = asked(_member(tmp_path, [winner, loser]), scenario.loads(TWENTY.format(rows="all")))
    assert len(found) == 1
    assert found.took_s["ttft"].tolist() == [pytest.approx(4.2)]
    assert dict(zip(KIND.names, found.parts_s[0]))["lost_s"] == pytest.approx(4.0)
    assert [pair.tolist() for pair in found.met] == [[0, 0], [1, 2]]
    texts = [step.text for step in story.steps(found.attempts(0), NAMES)]
    assert (
        texts
        == [
            "attempt 1: sent to chat/1",
            "attempt 2: sent a second copy to chat/2",
            "attempt 1: the other copy won (499), 50 tokens; ",
        ][:2]
        + texts[2:]
    )
    assert any(text.startswith("attempt 1: the other copy won (499)") for text in texts)


def test_requests_that_were_still_being_tried_are_left_out(tmp_path: Path) -> None:
    begun = attempt(request=7, last=0, outcome=Outcome.TIMED_OUT)
    found = asked(_member(tmp_path, [begun, quick(1), quick(2)]), scenario.loads(TWENTY.format(rows="all")))
    assert found.last["request"].tolist() == [1, 2]
    with pytest.raises(InputError, match="there is no row in it"):
        asked(_member(tmp_path / "none", [begun]), scenario.loads(TWENTY.format(rows="all")))


def _member(folder: Path, rows: list[np.ndarray]) -> Any:
    return a_run(folder, rows).members[0]


def test_refused_failed_and_cancelled_requests_are_errors_and_no_latencies(tmp_path: Path) -> None:
    bad = (Outcome.REJECTED, Outcome.FAILED, Outcome.CANCELLED)
    rows = [quick(k, outcome=bad[k % 3], finished_s=0.5 * k + 900) for k in range(30)]
    rows += [slow(k, 0.2 * (k > 1990)) for k in range(30, 2000)]
    found = explained(a_run(tmp_path, rows))
    assert found.ends == {"rejected": 10, "failed": 10, "cancelled": 10}
    assert found.whole.p99_s < 1
    assert all(row["outcome"] == Outcome.OK for row, _ in found.slowest)
    text = said(found)
    assert "30 of 2,000 requests (1.5%): 10 rejected, 10 failed and 10 cancelled." in text
    assert "The SLO allows 1%: that is 1.5 times as many." in text


def test_warm_up_is_not_blamed(tmp_path: Path) -> None:
    rows = np.concatenate([slow(0, 50.0), *(quick(k) for k in range(1, 200))])
    found = Asked(rows, warmup_s=0.4)
    assert found.counted.sum() == 199
    assert found.slow("ttft", np.ones(200, bool))[1].tolist() != [0]


# --- luck -----------------------------------------------------------------------------------------------------------


def test_luck_alone_names_hardly_anybody() -> None:
    draws = np.random.Generator(np.random.PCG64(3))
    named = 0
    for _ in range(400):
        traffic = draws.multinomial(10_000, np.full(20, 1 / 20))
        hits = draws.multinomial(100, traffic / traffic.sum())
        named += causes.stands_out(hits, traffic, 100, 10_000).any()
    assert named <= 3  # one in a thousand, each time over all of them


@given(
    st.lists(st.tuples(st.integers(1, 500), st.integers(0, 50)), min_size=1, max_size=30),
    st.integers(0, 29),
)
def test_who_holds_more_is_named_if_who_holds_less_is(counts: list[tuple[int, int]], k: int) -> None:
    traffic, hits = np.array(counts).T
    hits = np.minimum(hits, traffic)
    trouble, everybody = max(1, int(hits.sum())), int(traffic.sum())
    before = causes.stands_out(hits, traffic, trouble, everybody)
    assert not before[hits <= traffic / everybody * trouble].any()
    if k < len(hits) and hits[k] < min(trouble, traffic[k]):
        more = hits.copy()
        more[k] += 1
        assert causes.stands_out(more, traffic, trouble, everybody)[k] >= before[k]


# --- the error budget -----------------------------------------------------------------------------------------------


def test_the_length_of_prompts_that_burns_the_budget_is_named(tmp_path: Path) -> None:
    rows = []
    for k in range(3000):
        long = k % 10 == 9
        fails = long and k % 40 == 9
        rows.append(quick(k, prompt_tokens=5000 + k if long else 100 + k % 10, outcome=Outcome.TIMED_OUT * fails))
    found = explained(a_run(tmp_path, rows))
    assert [share.label for share in found.burning][:1] == ["talk, prompts of 5,009 to 7,999 tokens"]
    worst = found.burning[0]
    assert (worst.of_traffic, worst.of_trouble, worst.rate) == pytest.approx((0.1, 1.0, 0.25))


def test_long_answers_that_nobody_waits_for_are_named_though_rows_do_not_hold_their_length(tmp_path: Path) -> None:
    text = """
name: impatient
duration: 10m
fleet: {kv_blocks: 4000, step_time: {linear: {base: 20ms}}}
workload: {rate_per_s: 4, cohorts: {a: {prompt_tokens: 50, output_tokens: {lognormal: {median: 80, sigma: 1}}}}}
clients: {timeout: 5s}
"""
    from sim.run import play

    run = play(scenario.loads(text), tmp_path)
    found = explained(run)
    assert found.ends.keys() == {"timed_out"}
    assert found.burning
    assert found.burning[0].label.startswith("answers of ")
    assert sum(share.of_trouble for share in found.burning) > 0.9
    assert min(int(s.label.split()[2].replace(",", "")) for s in found.burning) > 100


def test_equal_lengths_are_no_kinds_of_request(tmp_path: Path) -> None:
    found = asked(_member(tmp_path, [quick(k) for k in range(50)]), scenario.loads(TWENTY.format(rows="all")))
    assert causes.query_types(found, ["talk"], None) == {}
    masks = causes.query_types(found, ["talk"], np.arange(50))
    assert sum(mask.sum() for mask in masks.values()) == 50
    assert len(masks) == 10


# --- what happened meanwhile ----------------------------------------------------------------------------------------

EVENTS = [
    {"t_s": 600.0, "event": "fault_begins", "name": "slow chat", "mechanism": "slow", "target": "chat/3"},
    {"t_s": 610.0, "event": "scaled", "target": "chat", "replicas": 21},
    {"t_s": 700.0, "event": "fault_ends", "name": "slow chat", "mechanism": "slow", "target": "chat/3"},
    {"t_s": 900.0, "event": "fault_begins", "name": "the big one", "mechanism": "stop", "target": "code"},
]


def test_events_become_spans_and_moments() -> None:
    found = happened.spans(EVENTS, 1200.0)
    assert [(span.label, span.start_s, span.end_s) for span in found] == [
        ("slow chat/3", 600.0, 700.0),
        ("the big one (stop code)", 900.0, 1200.0),
    ]
    assert happened.moments(EVENTS) == [("scaled chat", 610.0)]
    again = [{**EVENTS[0], "t_s": 650.0}]  # two of one name at once: each end ends the older
    assert [(s.start_s, s.end_s) for s in happened.spans([*EVENTS[:1], *again, EVENTS[2]], 800.0)] == [
        (600.0, 700.0),
        (650.0, 800.0),
    ]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=8))
def test_merged_times_cover_the_same_and_do_not_touch(pairs: list[tuple[int, int]]) -> None:
    intervals = [(float(start), float(start + length)) for start, length in pairs]
    found = happened.merged(intervals)
    for x in np.arange(0, 42, 0.5):
        assert any(a <= x <= b for a, b in found) == any(a <= x <= b for a, b in intervals)
    assert all(a[1] < b[0] for a, b in zip(found, found[1:]))


def test_what_happened_while_the_slow_ones_waited_is_told(tmp_path: Path) -> None:
    rows = [slow(k, 3.0 if 1200 < k < 1230 else 0.0) for k in range(2400)]
    found = explained(a_run(tmp_path, rows, EVENTS))
    assert [share.label for share in found.meanwhile][0] == "slow chat/3 (10:00 to 11:40)"
    assert found.meanwhile[0].of_trouble == 1.0
    assert 0.08 < found.meanwhile[0].of_traffic < 0.1
    assert "of them were in flight during" in explain.answer(found)
    assert "slow chat/3 (10:00 to 11:40): 100% of the slowest 1% were in flight then, 8.5% of all" in said(found)
    assert "the big one" not in said(found)


# --- step by step ---------------------------------------------------------------------------------------------------


def test_a_request_is_told_step_by_step() -> None:
    first = attempt(
        request=1, scheduled_s=100.0, replica=1, last=0, outcome=Outcome.TIMED_OUT, status=499, finished_s=110.0,
        kv_wait_s=6.0, seat_wait_s=4.0, output_tokens=0,
    )  # fmt: skip
    second = attempt(
        request=1, attempt=1, scheduled_s=100.0, sent_s=111.5, last=0, outcome=Outcome.REJECTED, status=429,
        finished_s=111.5, replica=-1, output_tokens=0,
    )  # fmt: skip
    third = attempt(
        request=1, attempt=2, scheduled_s=100.0, sent_s=114.5, replica=2, client_wait_s=10.0, backoff_s=4.5,
        step_wait_s=0.5, admitted_s=115.0, first_token_s=115.25, prefill_s=0.25, finished_s=125.0, preemptions=3,
        preempted_s=4.0, decode_slowed_s=1.0, fault_stall_s=2.0,
    )  # fmt: skip
    steps = story.steps(np.concatenate([first, second, third]), NAMES)
    assert [(step.at_s, step.text) for step in steps] == [
        (0.0, "attempt 1: sent to chat/1"),
        (
            10.0,
            "attempt 1: never admitted, after waiting 4.00 s for a seat in the batch and 6.00 s for KV cache blocks",
        ),
        (10.0, "attempt 1: the client's time was up (499), without a token"),
        (10.0, "backed off for 1.50 s"),
        (11.5, "attempt 2: sent again, and reached no replica"),
        (11.5, "attempt 2: refused (429), without a token"),
        (11.5, "backed off for 3.00 s"),
        (14.5, "attempt 3: sent again to chat/2"),
        (15.0, "attempt 3: admitted to the batch after waiting 500 ms for a step or token budget"),
        (15.25, "attempt 3: first token, 250 ms after admission"),
        (
            25.0,
            "attempt 3: answered, 50 tokens; preempted 3 times, which cost 4.00 s; the batch slowed it by 1.00 s; "
            "a fault stalled it for 2.00 s",
        ),
    ]


def test_an_attempt_that_its_client_never_sent_says_so() -> None:
    held = attempt(request=1, outcome=Outcome.REJECTED, status=0, replica=-1, finished_s=0.0, output_tokens=0)
    assert [step.text for step in story.steps(held, NAMES)] == ["held back by the client itself (throttled)"]
    left = attempt(request=1, outcome=Outcome.TIMED_OUT, status=0, replica=-1, finished_s=9.0, output_tokens=0)
    assert [(s.at_s, s.text) for s in story.steps(left, NAMES)] == [(9.0, "not sent: the client's time was up")]


def test_the_slowest_come_first_and_are_told_from_when_they_were_asked(tmp_path: Path) -> None:
    rows = [slow(k, k / 1000) for k in range(1000)]
    found = explained(a_run(tmp_path, rows))
    assert [row["request"] for row, _ in found.slowest] == [999, 998, 997, 996, 995]
    by_e2e = explained(a_run(tmp_path / "e2e", rows + [quick(1000, finished_s=600.0)]), "e2e")
    assert by_e2e.slowest[0][0]["request"] == 1000
    assert "end to end took" in said(by_e2e)
    assert "Request 999: TTFT 1.05 s; asked at 8:20 by talk, 100 prompt tokens" in said(found)


# --- real runs ------------------------------------------------------------------------------------------------------

BUSY = """\
name: busy
duration: 4m
warmup: 30s
fleet: {kv_blocks: 150, max_num_seqs: 8, replicas: 2, step_time: {linear: {base: 10ms, per_sequence: 1ms}}}
workload:
  rate_per_s: 7
  cohorts:
    short: {share: 50%, prompt_tokens: 20, output_tokens: {exponential: {mean: 20}}}
    long: {share: 50%, prompt_tokens: {lognormal: {median: 100, sigma: 1}}, output_tokens: 60}
clients: {timeout: 5s}
"""


def test_parts_of_every_request_sum_to_what_it_took(tmp_path: Path) -> None:
    loaded = scenario.loads(BUSY)
    simulate(loaded, 3, tmp_path)
    member = Member({}, 3, tmp_path)
    found = asked(member, loaded)
    assert (found.parts_s >= 0).all()
    assert found.parts_s.sum(axis=1) == pytest.approx(found.took_s["e2e"], rel=1e-5, abs=1e-5)
    metrics = member.info["metrics"]
    ttft = found.took_s["ttft"][found.counted]
    assert np.quantile(ttft, 0.99) == pytest.approx(metrics["ttft_p99"], rel=0.03)
    assert len(found) == metrics["requests"]


def test_replicas_are_called_as_events_call_them() -> None:
    loaded = scenario.loads(TWENTY.format(rows="all"), overrides=["fleet.pools.chat.max_replicas=21"])
    names = replica_names(loaded)
    assert (names[0], names[20], names[21], len(names)) == ("chat/0", "chat/20", "code/0", 23)


# --- typed ----------------------------------------------------------------------------------------------------------

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two points with two seeds each."""
    folder = tmp_path_factory.mktemp("why") / "run"
    (folder.parent / "busy.yaml").write_text(BUSY)
    sweep = ["--set", "vary={workload.rate_per_s: [4, 7]}", "--seeds", "2", "--no-figures"]
    with pytest.raises(SystemExit):
        main(["run", str(folder.parent / "busy.yaml"), *sweep, "--out", str(folder)])
    return folder


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    monkeypatch.chdir(tmp_path)

    def typed(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(words)
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return typed


def test_why_answers_first_draws_a_figure_and_prints_the_same_again(played: Path, typed: Typed) -> None:
    code, out, err = typed("why", str(played))
    assert (code, err) == (0, "")
    heading, rests, answer = [line.strip() for line in out.splitlines() if line.strip()][:3]
    assert heading == "busy"
    assert rests.startswith("7 requests/s; seed ")
    assert answer.startswith("At 7 requests/s, the slowest 1% spent ")
    for title in ("Where the time went", "By cohort", "Not answered", "The five slowest, step by step", "Next"):
        assert f"\n{title}\n" in out
    assert (played / "figures" / "why.png").read_bytes().startswith(b"\x89PNG")
    assert typed("why", str(played))[1] == out
    assert typed("report", str(played))[0] == 0
    assert (played / "figures" / "why.png").exists()


def test_point_and_seed_choose_and_mistakes_say_what_there_is(played: Path, typed: Typed) -> None:
    code, out, _ = typed("why", str(played), "--point", "4", "--seed", "2", "--no-figures", "--json")
    found = json.loads(out, parse_constant=pytest.fail)
    assert (code, found["point"], found["seed"]) == (0, {"workload.rate_per_s": 4.0}, 2)
    assert found["parts"].keys() == KIND.names.keys()
    assert len(found["slowest"]) == 5
    assert typed("why", str(played), "--seed", "9") == (2, "", "--seed 9: not played, expected one of 1, 2\n")
    assert typed("why", str(played), "--point", "5") == (2, "", "--point 5: expected one of 4; 7\n")
    assert typed("why", "nothing")[0] == 2


def test_without_rows_it_says_how_to_get_them_and_with_a_sample_that_it_is_one(typed: Typed) -> None:
    Path("busy.yaml").write_text(BUSY)
    assert typed("run", "busy.yaml", "--no-figures", "--set", "rows=none", "--out", "none")[0] == 0
    code, out, err = typed("why", "none")
    assert (code, out) == (2, "")
    assert err == "none: its run kept no rows (`rows: none`); play it again with --set rows=all\n"
    assert typed("run", "busy.yaml", "--no-figures", "--set", "rows={sample: 40%}", "--out", "some")[0] == 0
    code, out, _ = typed("why", "some")
    assert code == 0
    assert "rows of a sample of 40% of the requests: " in out


def test_a_run_suggests_why_and_why_what_to_type_next(played: Path, typed: Typed) -> None:
    assert f"blowout why {played}   # " in typed("report", str(played), "--no-figures")[1]
    assert f"blowout why {played} --by e2e   # " in typed("why", str(played), "--no-figures")[1]


def test_nothing_written_runs_out_of_the_figure(tmp_path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    rows = usual()
    rows += [slow(2000 + k, 500.0 + k / 10, replica=3, seat_wait_s=3.0) for k in range(20)]
    plate = explain.plate(explained(a_run(tmp_path, rows, EVENTS)))
    assert plate is not None
    with mpl.rc_context(style.SETTINGS):
        figure = plate.draw()
        FigureCanvasAgg(figure).draw()
        texts = [*figure.texts, *(text for ax in figure.axes for text in ax.texts)]
        for text in texts:
            box, page = text.get_window_extent(), figure.bbox
            assert box.x0 >= -1, text
            assert box.x1 <= page.x1 + 1, text
        labels = [text.get_text() for text in texts]
    assert {"all requests", "talk", "edit", "chat", "code", "chat/3", "every other replica"} <= set(labels)


def test_by_ttft_no_group_waited_most_for_what_came_after_its_first_token(tmp_path: Path) -> None:
    rows = usual() + [slow(2000 + k, 2.0, finished_s=1000.0 + 0.5 * k + 60.0) for k in range(30)]
    found = explained(a_run(tmp_path, rows))
    mosts = {told._most(one, found) for groups in found.groups.values() for one in groups if one.group is not None}
    assert mosts
    assert not any(most.startswith("decoding") for most in mosts)
    (parts,) = told._parts(found)
    assert parts is not None
    after = explained(a_run(tmp_path / "e2e", rows), "e2e")
    mosts = {told._most(one, after) for groups in after.groups.values() for one in groups if one.group is not None}
    assert any(most.startswith("decoding") for most in mosts)
