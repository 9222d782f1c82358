"""The knee: the search finds it whatever it is, a stage is judged honestly, and measured and simulated ones agree."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.knee import judging
from loadtest.knee.judging import Objective, Share, Verdict, objectives
from loadtest.knee.search import CLOSE, Stage, bracket_of, knee, search
from loadtest.knee.stages import MOST_PLAYS, scenario_of
from sim import run as simulator
from sim import scenario as scenarios
from sim.cli import main
from sim.errors import InputError
from sim.records import ATTEMPT, Outcome
from sim.results import Run
from tests.load_target import typed
from tests.test_serve import serving

TINY = """\
name: tiny
duration: 1m
drain: 30s
scrape_interval: 1s
fleet: {kv_blocks: 4000, max_num_seqs: 8, max_model_len: 1000, step_time: {linear: {base: 20ms}}}
workload: {rate_per_s: 10, cohorts: {chat: {prompt_tokens: 100, output_tokens: 20}}}
"""
"""Eight seats of 0.4 s each: no more than 20 requests/s, whatever comes."""
TTFT = Objective("ttft_p99 < 2s", "ttft", 2.0, 0.01)


def rows_of(ttft_s: np.ndarray, rate: float = 10.0) -> np.ndarray:
    rows = np.zeros(len(ttft_s), ATTEMPT)
    rows["scheduled_s"] = np.arange(len(ttft_s)) / rate
    rows["first_token_s"] = rows["scheduled_s"] + ttft_s
    rows["finished_s"] = rows["first_token_s"] + 0.1
    rows["output_tokens"] = 2
    return rows


@given(truth=st.floats(0.01, 5000), low=st.floats(0.05, 50), span=st.floats(1.0, 1000))
def test_the_search_brackets_the_truth(truth: float, low: float, span: float) -> None:
    high = low * span
    judged: dict[float, bool] = {}
    for rate in search(low, high, judged):
        assert rate not in judged
        judged[rate] = rate <= truth
    assert len(judged) < 30
    below, above = bracket_of(judged)
    assert below <= truth < above or (below == 0 and truth < low * 1.001) or math.isinf(above)
    if below and math.isfinite(above):
        assert above / below <= CLOSE
    elif not below:
        assert truth < low * 1.001
    else:
        assert truth >= high * 0.999


@given(n=st.integers(1, 4000), share=st.floats(0, 1))
def test_an_interval_holds_what_was_seen(n: int, share: float) -> None:
    k = round(n * share)
    low, high = judging.interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    wider = judging.interval(k, n, times=3.0)
    assert wider[0] <= low + 1e-12
    assert high - 1e-12 <= wider[1]


def test_too_few_requests_show_nothing() -> None:
    few, enough = (judging.share(TTFT, [rows_of(np.full(n, 0.1))]) for n in (TTFT.fewest - 1, TTFT.fewest))
    assert (few.verdict, enough.verdict) == (Verdict.UNDECIDED, Verdict.STABLE)
    assert few.kept
    late = rows_of(np.where(np.arange(400) % 20, 0.1, 3.0))
    assert judging.share(TTFT, [late]).verdict == Verdict.BREAKS


def test_a_wrong_verdict_is_as_rare_as_it_says() -> None:
    """At the bound itself, one play in twenty may err in either direction."""
    draws = np.random.Generator(np.random.PCG64(1))
    verdicts = [
        judging.share(TTFT, [rows_of(np.where(draws.random(900) < 0.01, 3.0, 0.1))]).verdict for _ in range(400)
    ]
    assert verdicts.count(Verdict.STABLE) <= 0.075 * 400
    assert verdicts.count(Verdict.BREAKS) <= 0.075 * 400


def test_misses_that_come_together_are_fewer_than_they_are() -> None:
    at_once = np.full(1000, 0.1)
    at_once[500:530] = 3.0
    spread = np.where(np.arange(1000) % 33, 0.1, 3.0)
    together, apart = (judging.share(TTFT, [rows_of(ttft_s)]) for ttft_s in (at_once, spread))
    assert abs(together.missed - apart.missed) <= 1
    assert together.low < apart.low
    assert apart.verdict == Verdict.BREAKS
    assert together.verdict == Verdict.UNDECIDED


def test_whoever_is_not_answered_misses_every_objective() -> None:
    rows = rows_of(np.full(10, 0.1))
    rows["outcome"][:3] = Outcome.REJECTED
    scenario = scenarios.loads(TINY)
    for one in objectives(["ttft_p95 < 1s", "e2e_p99 <= 1s", "tpot_p50 < 1s", "errors < 1%"], scenario):
        assert one.missed(rows).sum() == 3, one
    (own,) = objectives(["cohort.chat.ttft_p99 < 50ms"], scenario)
    assert own.missed(rows).all()


def test_a_backlog_that_grows_is_seen() -> None:
    calm = rows_of(np.full(300, 0.5))
    flood = rows_of(0.5 + 0.5 * np.arange(300) / 10.0)
    assert not judging.grows(calm)
    assert judging.grows(flood)
    stage = Stage(10.0, [Share(TTFT, 1000, 0, 0.0, 0.003)], grows=True)
    assert stage.verdict == Verdict.UNDECIDED
    assert not stage.may_change


def test_the_knee_lies_between_what_was_shown() -> None:
    def stage(rate: float, low: float, high: float, missed: int) -> Stage:
        return Stage(rate, [Share(TTFT, 1000, missed, low, high)])

    stages = [stage(10, 0, 0.003, 0), stage(20, 0.1, 0.2, 150), stage(14, 0.004, 0.02, 8), stage(15, 0.008, 0.03, 15)]
    assert [one.kept for one in stages] == [True, False, True, False]
    found = knee(stages, [bracket_of({one.rate_per_s: one.kept for one in stages})])
    assert (found.rate_per_s, found.low, found.high) == (14, 10, 20)
    repeated = knee(stages, [(14, 15), (15, 16), (14.5, 15)])
    assert repeated.rate_per_s == pytest.approx(14.5)
    assert repeated.low < 14.5 < repeated.high


@pytest.mark.parametrize(
    "text",
    [
        "ttft_p99 > 2s", "itl_p99 < 1s", "ttft_mean < 1s", "errors < 2", "ttft_p99", "ttft_p99 < 2", "",
        "cohort.nobody.ttft_p99 < 1s", "ttft_p99[3] < 2s",
    ],
)  # fmt: skip
def test_what_is_no_promise_about_requests_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--slo"):
        objectives([text], scenarios.loads(TINY))


def test_what_is_played_is_open_loop_without_faults() -> None:
    text = TINY + "faults: [{slow: main, factor: 2, from: 1s, to: 50s}]\nclaims: {a: errors <= 1}\n"
    users = scenario_of(scenarios.loads(text), 20.0)
    assert (users.duration, users.warmup, users.faults, users.claims) == (25.0, 5.0, [], {})
    closed = TINY.replace("rate_per_s: 10", "arrivals: {closed: {users: 3, think: 1s}}")
    with pytest.raises(InputError, match="open loop"):
        scenario_of(scenarios.loads(closed), 20.0)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--slo", "ttft_p99 < 2"], 2, "2ms or 2s"),
        (["--slo", "ttft_p99 < 2s", "--from", "9", "--to", "3"], 2, "--to 3"),
        (["--slo", "ttft_p99 < 2s", "--stage", "soon"], 2, "--stage"),
        ([], 2, "--slo"),
        (["--slo", "ttft_p99 < 2s"], 4, "could not be reached"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    options: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["load", "knee", "--url", "http://127.0.0.1:9", *options])
    err = capsys.readouterr().err
    assert stopped.value.code == code, err
    assert words in err
    assert len(err.strip().splitlines()) == 1


def simulated_knee(objective: str, rates: list[float], folder: Path) -> float:
    """Return the highest of *rates* that the simulator says keeps *objective*, by the rows of 5 minutes."""
    text = TINY.replace("duration: 1m", "duration: 5m") + f"vary: {{workload.rate_per_s: {rates}}}\n"
    scenario = scenarios.loads(text)
    folder.mkdir()
    run = simulator.play(scenario, folder, workers=1)
    (one,) = objectives([objective], scenario)
    kept = [
        member.point["workload.rate_per_s"]
        for member in run.members
        if member.info["metrics"]["ttft_p95"] < one.bound_s
    ]
    return max(kept)


@pytest.mark.slow
def test_a_served_fleet_has_the_knee_of_the_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("tests.test_serve.LONGEST_S", "tests.load_target.PATIENCE_S"):
        monkeypatch.setattr(limit, 900)  # two minutes where nobody else is
    objective = "ttft_p95 < 500ms"
    (tmp_path / "s.yaml").write_text(TINY)
    with serving(tmp_path, TINY) as server:
        command = ["load", "knee", "s.yaml", "--url", f"http://127.0.0.1:{server.port}", "--slo", objective]
        command += ["--from", "12", "--to", "48", "--stage", "6s", "--out", "k", "--json", "--no-figures"]
        done = typed(command, tmp_path)
    if done.returncode == 3:
        pytest.skip(f"this machine is too busy to measure on: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    wanted = simulated_knee(objective, [10, 12, 14, 15, 16, 17, 18, 19, 20, 22], tmp_path / "simulated")
    assert wanted / 1.35 <= shown["knee"]["rate_per_s"] <= 1.35 * wanted, (shown["knee"], wanted)
    assert all(1 <= stage["plays"] <= MOST_PLAYS for stage in shown["stages"])
    broken = [stage for stage in shown["stages"] if stage["verdict"] == "BREAKS"]
    assert broken
    assert broken[0]["claimed_s"]["p99"] is not None
    run = Run.open(tmp_path / "k")
    assert (run.info["kind"], run.info["state"]) == ("measured", "complete")
    rates = [point["point"]["workload.rate_per_s"] for point in run.summary["points"]]
    assert rates == sorted({stage["rate_per_s"] for stage in shown["stages"]})
    again = typed(["report", "k", "--json"], tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "k" / "figures" / "blowout.png").exists()
