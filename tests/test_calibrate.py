"""Calibration: what is put into made-up logs and runs comes out, predictions of a real vLLM keep within intervals."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import scenario as scenarios
from sim.calibrate import calibration, fit, play, runs
from sim.calibrate.scale import draw_scales, scale_interval
from sim.calibrate.steplog import COLUMNS, read_steps
from sim.cli import main
from sim.engine.profiles import Profile, parse_profile, read_profile
from sim.errors import InputError
from sim.report import words
from sim.results import Run
from sim.rng import stream
from sim.world import simulate

CPU = """
name: cpu
duration: 60s
fleet:
  kv_blocks: {blocks}
  block_size: 32
  max_num_seqs: 32
  max_num_batched_tokens: 512
  max_model_len: {longest}
  prefix_caching: {caching}
  step_time: {{linear: {{base: 10ms, per_sequence: 0.5ms, per_prefill_token: 0.5ms}}}}
workload: {{rate_per_s: 4, cohorts: {{{cohorts}}}}}
"""
GPU = "{name: gpu, duration: 60s, fleet: {model: llama-3.1-8b, hardware: h100}, workload: {rate_per_s: 6, cohorts: \
{all: {prompt_tokens: {lognormal: {median: 300, sigma: 0.7}}, output_tokens: {lognormal: {median: 80, sigma: 0.6}}}}}}"
WAY_S = 0.02


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def type_(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return type_


def table_of(rows: np.ndarray, path: Path, later_s: float = 0.0) -> Path:
    lines = ["sent_s,first_token_s,finished_s,prompt_tokens,output_tokens"]
    lines += [
        f"{row['sent_s']:.6f},{row['first_token_s'] + later_s:.6f},{row['finished_s'] + later_s:.6f},"
        f"{row['prompt_tokens']},{row['output_tokens']}"
        for row in np.sort(rows, order="sent_s")
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def made_log(path: Path, per_sequence_s: float, per_token_s: float, pace: float = 1.0, n: int = 3000) -> Path:
    """Write steps of 8 ms + so much a sequence + so much a prompt token, 1.5 ms between model and model."""
    rng, t_s = np.random.default_rng(3), 0.0
    lines = [",".join(COLUMNS)]
    for k in range(n):
        decoding, tokens = int(rng.integers(1, 17)), int(rng.integers(8, 400)) if rng.random() < 0.1 else 0
        model_s = pace * (0.008 + per_sequence_s * decoding + per_token_s * tokens) - 0.0015
        t_s += model_s + 0.0015
        row = (f"{t_s:.6f}", k, int(tokens > 0), tokens, decoding, decoding, f"{1e3 * model_s:.3f}", 5.0)
        lines.append(",".join(map(str, row)))
    path.write_text("\n".join(lines) + "\n")
    return path


def imported(typed: Callable[..., tuple[int, str, str]], table: Path, scenario: str, out: Path) -> Path:
    (out.parent / f"{out.name}.yaml").write_text(scenario)
    code, _, err = typed("import", table, "--scenario", out.parent / f"{out.name}.yaml", "--out", out)
    assert code == 0, err
    return out


@pytest.fixture
def gpu_run(tmp_path: Path, typed: Callable[..., tuple[int, str, str]]) -> Path:
    """A run whose engine is 1.7 times as slow as the grid, behind a way of 20 ms."""
    slow = GPU.replace("hardware: h100}", "hardware: h100, calibration: 1.7}")
    rows = simulate(scenarios.loads(slow, "slow"), 5).attempts
    return imported(typed, table_of(rows, tmp_path / "gpu.csv", WAY_S), GPU, tmp_path / "run")


# --- one factor -------------------------------------------------------------------------------------------------------


def test_the_factor_and_the_way_that_were_put_in_come_out(
    gpu_run: Path, tmp_path: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    out = tmp_path / "profile.json"
    code, said, err = typed("calibrate", gpu_run, "--out", out, "--no-figures")
    assert code == 0, err
    profile = json.loads(out.read_text())
    assert profile["factor"] == pytest.approx(1.7, rel=0.02)
    assert profile["egress_s"] == pytest.approx(WAY_S, rel=0.25)
    low, high = profile["intervals"]["factor"]
    assert low <= 1.7 <= high or abs(profile["factor"] - 1.7) < 0.02
    assert profile["grid"]["hardware"] == "h100"
    assert "one run says nothing of how hosts differ" in said.replace("\n  ", " ")
    assert f"profile: {out}" in said
    spec = scenarios.loads(GPU.replace("hardware: h100}", f"hardware: h100, step_time: {{profile: {out}}}}}"), "x")
    result = simulate(spec, 5)
    assert any("measured: one factor on the tabulated step times of llama-3.1-8b" in note for note in result.notes)
    assert not result.uncalibrated


def test_what_comes_next_can_work(gpu_run: Path, tmp_path: Path, typed: Callable[..., tuple[int, str, str]]) -> None:
    said = " ".join(typed("report", gpu_run)[1].split())
    assert f"blowout calibrate {gpu_run}" in said
    words_ = ("calibrate", gpu_run, "--no-figures", "--out", tmp_path / "p.json")
    assert "--judge RUN" in typed(*words_)[1]
    judged = typed(*words_, "--judge", gpu_run)[1]
    assert "--judge RUN" not in judged
    assert f"blowout plan {gpu_run / 'scenario.yaml'}" in judged


def test_an_interval_that_cannot_tell_whether_a_promise_is_kept_is_too_wide_to_plan_with(
    gpu_run: Path, tmp_path: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    def judged(name: str, slo: str) -> tuple[str, dict[str, Any]]:
        judge = imported(typed, tmp_path / "gpu.csv", GPU.strip()[:-1] + f", slo: {{{slo}}}}}", tmp_path / name)
        command = ("calibrate", gpu_run, "--judge", judge, "--no-figures")
        return " ".join(typed(*command)[1].split()), json.loads(typed(*command, "--json")[1])

    said, found = judged("far", "e2e_p99: 1h, errors: 1%")
    assert found["too_wide"] == []
    assert "Too wide" not in said
    ((_, one),) = [(run["run"], run["percentiles"]["e2e P99"]) for run in found["predicted"]]
    half, middle = (one["high_s"] - one["low_s"]) / 2, one["predicted_s"]
    near, far = middle + 0.9 * half, middle + 1.1 * half
    said, found = judged("near", f"e2e_p99: {near}, e2e_p95: 1h")
    assert f"Too wide to plan with: e2e P99 of near is predicted as {words.seconds(one['low_s'])} to " in said
    assert f"and {words.tick(near)} is promised. Calibrate on more runs, up to its load." in said
    assert len(found["too_wide"]) == 1
    assert judged("clear", f"e2e_p99: {far}")[1]["too_wide"] == []


def test_a_run_without_a_model_or_too_small_or_simulated_is_refused(
    tmp_path: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    rows = simulate(scenarios.loads(GPU, "x"), 1).attempts
    plain = CPU.format(blocks=4000, longest=2048, caching="false", cohorts="all: {prompt_tokens: 9, output_tokens: 9}")
    run = imported(typed, table_of(rows, tmp_path / "a.csv"), plain, tmp_path / "a")
    code, _, err = typed("calibrate", run, "--no-figures")
    assert (code, err.strip()) == (
        2,
        "a: its scenario names no model, so no tabulated step times can be scaled; expected fleet.model in it, or the "
        "engine's own log with --step-log",
    )
    few = imported(typed, table_of(rows[:20], tmp_path / "b.csv"), GPU, tmp_path / "b")
    code, _, err = typed("calibrate", few)
    assert (code, "20 answered requests of known length are too few; expected at least 30" in err) == (2, True)
    assert typed("calibrate", run, "--pool", "chat")[2].startswith("--pool chat: ")
    done = tmp_path / "simulated"
    (tmp_path / "s.yaml").write_text(GPU)
    assert typed("run", tmp_path / "s.yaml", "--set", "duration=5s", "--out", done, "--no-figures")[0] in (0, 2)
    if (done / "run.json").exists():
        assert "expected a measured run" in typed("calibrate", done)[2]


# --- step logs --------------------------------------------------------------------------------------------------------


@settings(max_examples=5)
@given(st.floats(1e-4, 1e-3), st.floats(1e-4, 8e-4))
def test_what_a_sequence_and_a_prompt_token_cost_comes_out(
    tmp_path_factory: pytest.TempPathFactory, per_sequence_s: float, per_token_s: float
) -> None:
    log = read_steps(made_log(tmp_path_factory.mktemp("log") / "steps.csv", per_sequence_s, per_token_s, n=1500))
    found = fit.fit_steps(log, 32, 512)
    steps = found.steps
    for n in (1, 4, 8, 16):
        assert steps.base_s + steps.decode_s[n, 0] == pytest.approx(0.008 + n * per_sequence_s, rel=0.01)
    assert steps.tokens_s[1] == pytest.approx(per_token_s, rel=0.01)
    assert log.between_s == pytest.approx(0.0015, abs=1e-5)
    intervals = fit.bootstrap_steps(log, found, stream(1, "x"))
    assert intervals["step_s.8"][0] <= 1.01 * (0.008 + 8 * per_sequence_s)


def test_a_log_that_cannot_tell_is_refused(tmp_path: Path) -> None:
    whole = made_log(tmp_path / "steps.csv", 5e-4, 5e-4).read_text().splitlines()
    one_batch = [whole[0], *(re.sub(r"^(([^,]*,){4})\d+,\d+", r"\g<1>4,4", line) for line in whole[1:])]
    back = [*whole[:600], *whole[300:]]
    for lines, says in (
        (whole[:100], "99 steps are too few to fit step times; expected at least 200"),
        (one_batch, "every step decoded 4 sequences, so what more of them cost cannot be told"),
    ):
        (tmp_path / "bad.csv").write_text("\n".join(lines))
        with pytest.raises(InputError, match=re.escape(says)):
            fit.require_variety(read_steps(tmp_path / "bad.csv"), "bad.csv")
    for text, says in (
        ("\n".join(back), "bad.csv, line 601: times go backwards"),
        ("\n".join([whole[0], whole[1].replace(",5.0", ",x")]), "line 2, column 'kv_usage_pct': expected a number"),
        ("\n".join(line.partition(",")[0] for line in whole), "column 'iteration' is missing; expected t_logged_s"),
        ("Decode batch. #running-req: 3, #token: 900", "holds no steps of vLLM; expected a log written with"),
        ("INFO 11-28 13:17:45 Iteration(1): 0 context requests, 0 context tokens, 1 generation requests, 1 generation "
         "tokens, iteration elapsed time: 5.00 ms, GPU KV cache usage: 1.0%", "line 1: expected the time to the milli"),
    ):  # fmt: skip
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(InputError, match=re.escape(says)):
            read_steps(tmp_path / "bad.csv", 0.0)


def test_a_log_with_dates_is_read_from_the_start_of_its_run(tmp_path: Path) -> None:
    step = (
        "2026-03-14T09:26:{s:09.6f}000Z (EngineCore) INFO 03-14 Iteration({k}): 0 context requests, 0 context tokens, "
        "3 generation requests, 3 generation tokens, iteration elapsed time: 9.00 ms, GPU KV cache usage: 1.0%\n"
    )
    (tmp_path / "log").write_text("".join(step.format(s=k / 100, k=k) for k in range(300)))
    log = read_steps(tmp_path / "log", 1773480360.0 + 1.0, 1.0)
    assert (len(log), log.end_s[0]) == (101, pytest.approx(0.0))
    assert log.took_s[1:] == pytest.approx(0.01, abs=1e-6)


# --- how sure, and how far --------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.lists(st.floats(0.7, 1.4), min_size=1, max_size=8), st.floats(0.0, 0.05))
def test_the_scale_holds_one_and_gets_narrower_with_runs_alike(paces: list[float], within: float) -> None:
    low, high = scale_interval(paces, within)
    assert 0.0 < low < 1.0 < high
    assert low * high == pytest.approx(1.0)
    more = scale_interval([*paces, *[math.exp(np.mean(np.log(paces)))] * 4], within)
    assert more[1] < high
    drawn = draw_scales((low, high), 4000, stream(1, "x"))
    assert 0.93 < ((drawn > low) & (drawn < high)).mean() < 0.97


def test_a_simulation_outside_the_profile_says_which_number_and_how_far(tmp_path: Path) -> None:
    profile = {
        "format": "blowout-step-profile/1", "source": "a quiet machine", "base_s": 0.01, "decode_s": {"1": 0.001},
        "prefill_s": {"1": 0.0001}, "measured": "2026-03-14", "range": {"prompt_tokens": [8, 100], "context": [9, 150]},
        "ingress_s": 0.003, "noise": {"sigma": 0.1, "slow_sigma": 0.1, "slow_period_s": 2},
    }  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps(profile))
    text = (
        "{name: x, duration: 20s, fleet: {kv_blocks: 4000, step_time: {profile: %s}}, workload: {rate_per_s: 2, "
        "cohorts: {all: {prompt_tokens: 150, output_tokens: 30}}}}"
    ) % (tmp_path / "p.json")
    notes = simulate(scenarios.loads(text, "x"), 1).notes
    outside = [note for note in notes if "outside" in note]
    assert outside == [
        "pool main: outside the profile: 150 prompt tokens in a step, and it was measured up to 100 (50% beyond): "
        "times there are extrapolated",
        "pool main: outside the profile: 180 tokens of prompt and answer together, and it was measured up to 150 "
        "(20% beyond): times there are extrapolated",
    ]
    assert any("profile p.json, measured on 2026-03-14" in note for note in notes)
    own = simulate(scenarios.loads(text.replace("kv_blocks: 4000", "kv_blocks: 4000, ingress: 0s"), "x"), 1)
    assert own.metrics["ttft_p50"] < simulate(scenarios.loads(text, "x"), 1).metrics["ttft_p50"] - 0.002


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scale": {"low": 1.1, "high": 0.9}}, "scale: expected the 95% interval of one factor on all step times"),
        ({"measured": "soon"}, "measured: expected the day of the measurement, such as '2026-03-14', got 'soon'"),
        ({"range": {"batch": [1, 2]}}, "range.batch: unknown; expected one of sequences, prompt_tokens, context"),
        ({"noise": {"sigma": 0.1}}, "noise: expected standard deviations of the logarithm of step times"),
        ({"grid": {}}, "base_s: a profile has tables of its own or a grid; take one away"),
    ],
)
def test_a_profile_that_is_wrong_is_refused(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    good = {"format": "blowout-step-profile/1", "base_s": 0.01, "decode_s": {"1": 0.1}, "prefill_s": {"1": 0.1}}
    (tmp_path / "p.json").write_text(json.dumps({**good, **changes}))
    with pytest.raises(InputError, match=re.escape(says)):
        read_profile(tmp_path / "p.json")


# --- a real vLLM ------------------------------------------------------------------------------------------------------

CACHED = ("C", "D")
SETTINGS = {
    "A": (10921, 2048, 0),
    "B": (63, 1024, 0),
    "C": (10921, 2048, 128),
    "D": (63, 1024, 64),
    "E": (10921, 2048, 0),
}
COLUMNS_OF = "scheduled=arrival_s,sent=send_s,ttft=ttft_s,e2e=e2e_s"


@pytest.fixture(scope="module")
def levels(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    if not (measured / "vllm-cpu" / "manifest.json").is_file():
        pytest.skip("no measured runs of vLLM on a CPU beside the repository (../shared/data/vllm-cpu)")
    folder = tmp_path_factory.mktemp("levels")

    def run(name: str) -> Path:
        blocks, longest, shared = SETTINGS[name[0]]
        lengths = f"share: 0.25, prompt_tokens: 96, output_tokens: 64, prefix: {{groups: 1, tokens: {shared}}}"
        cohorts = ", ".join(f"'{k}': {{{lengths}}}" for k in range(4))
        if not shared:
            cohorts = "all: {prompt_tokens: 96, output_tokens: 64}"
        text = CPU.format(blocks=blocks, longest=longest, caching=str(shared > 0).lower(), cohorts=cohorts)
        (folder / f"{name[0]}.yaml").write_text(text)
        columns = COLUMNS_OF + (",cohort=group" if shared else "")
        table = measured / "vllm-cpu" / f"{name}.requests.csv"
        if not (folder / name).exists():
            words = ["import", table, "--columns", columns, "--scenario", folder / f"{name[0]}.yaml"]
            with pytest.raises(SystemExit) as end:
                main([str(word) for word in [*words, "--out", folder / name]])
            assert not end.value.code
        return folder / name

    return run


@pytest.mark.parametrize(
    ("made", "judge"),
    [
        (("A1_r1.5",), "A1_r1.5"),
        (("B2_r2.25", "B3_r3"), "B4_r4"),
        (("C2_r4",), "C3_r6"),
        (("D2_r2.25",), "D3_r3"),
        (("E1_r6",), "E2_r8"),
    ],
)
def test_other_levels_of_a_real_vllm_are_inside_the_intervals(
    made: tuple[str, ...], judge: str, levels: Callable[[str], Path], measured: Path
) -> None:
    logs = [measured / "vllm-cpu" / f"{name}.iterations.csv" for name in made]
    found = calibration.calibrate(runs.open_runs([levels(name) for name in made], None, logs))
    profile: Profile = parse_profile(Path("p.json"), json.loads(json.dumps(found.profile)))
    predicted = play.predict(runs.open_runs([levels(judge)], None)[0], profile, draws=120)
    outside = [metric for metric, inside in zip(play.METRICS, predicted.inside) if not inside]
    assert not outside, predicted
    assert (predicted.low < predicted.high).all()
    assert Run.open(levels(judge)).info["kind"] == "measured"
