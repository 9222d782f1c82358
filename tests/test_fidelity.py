"""The engine beside a real vLLM: the bounds that `benchmarks/fidelity.py` prints, and the method on made-up logs."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import fidelity_cpu, fidelity_gpu
from benchmarks.host import HostClock, smoothed
from benchmarks.replay import Host, Level, levels, replay
from benchmarks.rules import same_steps
from benchmarks.tables import Check
from sim.calibrate.fit import fit_steps
from sim.calibrate.steplog import StepLog, read_steps
from sim.calibrate.travel import GRID_S, Prompts, taken_order, turnbull

SEEDS = 10
JUDGED = ("B2_r2.25", "B3_r3", "E1_r6", "E2_r8")
CACHED = ("C2_r4", "C3_r6", "D2_r2.25", "D3_r3")  # with prefix caching; D3 at the edge of its memory


@pytest.fixture(scope="module")
def cpu(measured: Path) -> list[Level]:
    if not (measured / "vllm-cpu" / "manifest.json").is_file():
        pytest.skip("no measured runs of vLLM on a CPU beside the repository (../shared/data/vllm-cpu)")
    return levels(measured / "vllm-cpu")


def missed(checks: list[Check]) -> list[str]:
    return [f"{check.what}: {check.value:.3f} > {check.bound}" for check in checks if not check.passed]


# --- a real vLLM ------------------------------------------------------------------------------------------------------


def test_a_gpu_run_is_within_three_percent_with_one_factor(measured: Path) -> None:
    if not (measured / "vllm-gpu").is_dir():
        pytest.skip("no measured runs of vLLM on a GPU beside the repository (../shared/data/vllm-gpu)")
    report = fidelity_gpu.run(measured / "vllm-gpu")
    assert report.checks
    assert not missed(report.checks)


def test_the_factor_is_fitted_on_the_first_requests_only(measured: Path) -> None:
    folders = sorted((measured / "vllm-gpu").glob("*/requests.jsonl"))
    if not folders:
        pytest.skip("no measured runs of vLLM on a GPU beside the repository (../shared/data/vllm-gpu)")
    run = fidelity_gpu.read_run(folders[0].parent)
    grid = fidelity_gpu.grids()[fidelity_gpu.nearest(run)[0]]
    before = fidelity_gpu.fit_factor(run, grid)
    run.e2e_s[fidelity_gpu.FITTED :] *= 2.0
    run.ttft_s[:] *= 2.0
    assert fidelity_gpu.fit_factor(run, grid) == before


def test_replays_with_the_host_as_it_was_are_within_their_bounds(cpu: list[Level]) -> None:
    judged = [level for level in cpu if level.name in JUDGED]
    assert len(judged) == len(JUDGED)
    _, checks = fidelity_cpu.own_fit(judged, SEEDS)
    assert len(checks) == 2 * len(JUDGED) + 1
    assert not missed(checks)


def test_replays_with_a_prefix_cache_are_within_their_bounds(cpu: list[Level]) -> None:
    """Hit rate within 0.01, end to end and TTFT P50 within 10%, and at the edge TTFT's tail 15%, preemptions 10%."""
    judged = [level for level in cpu if level.name in CACHED]
    assert len(judged) == len(CACHED)
    _, checks = fidelity_cpu.own_fit(judged, SEEDS)
    assert len(checks) == 3 * len(CACHED) + 2 + 1
    assert not missed(checks)


def test_steps_fitted_on_one_load_predict_a_higher_one(cpu: list[Level]) -> None:
    _, checks = fidelity_cpu.predictions([level for level in cpu if level.config == "E"], 2 * SEEDS)
    assert checks
    assert not missed(checks)


def test_every_step_of_every_log_is_made_alike(cpu: list[Level]) -> None:
    for level in cpu:
        same, preemptions, found = same_steps(level)
        assert (same, preemptions) == (len(level.log), level.preemptions), level.name
        if level.hit is not None:
            assert found / level.prompts.tokens.sum() == pytest.approx(level.hit, abs=0.001)


def test_a_wrong_rule_shows(cpu: list[Level]) -> None:
    for edge in (level for level in cpu if fidelity_cpu.at_the_edge(level)):
        same, _, _ = same_steps(edge, blocks=edge.limits.blocks - 1)
        assert same < 0.99 * len(edge.log)
        if edge.hit is not None:
            same, _, _ = same_steps(edge, prefix_caching=False)
            assert same < 0.99 * len(edge.log)


def test_at_the_edge_of_memory_what_was_measured_lies_within_the_interval(cpu: list[Level]) -> None:
    for level in (one for one in cpu if fidelity_cpu.at_the_edge(one)):
        fit = fidelity_cpu.fitted(level)
        out = replay(level, fit.steps, level.transport(), fidelity_cpu.own_host(level.log, fit.steps), 2 * SEEDS)
        assert out.preemptions[0] <= level.preemptions <= out.preemptions[2]
        assert (out.low * 0.97 <= level.measured).all()
        assert (level.measured <= out.high * 1.03).all()


# --- the method on made-up logs ---------------------------------------------------------------------------------------


def made_log(took_s: np.ndarray, decoding: np.ndarray, prompt: np.ndarray) -> StepLog:
    """A busy engine's log."""
    n = len(took_s)
    return StepLog(
        end_s=np.cumsum(took_s),
        took_s=took_s,
        decoding=decoding,
        prompt=prompt,
        admits=(prompt > 0).astype(int),
        fresh=prompt,
        running=decoding + (prompt > 0),
        tokens=decoding + prompt,
        busy=np.arange(n) > 0,
        used=np.zeros(n),
    )


def test_a_fit_finds_the_steps_beneath_a_slow_host() -> None:
    rng = np.random.default_rng(1)
    n = 6000
    decoding = rng.integers(0, 13, n)
    prompt = np.where(rng.random(n) < 0.1, rng.integers(8, 400, n), 0)
    true_s = 0.008 + 0.0005 * decoding + 0.0004 * prompt
    host = np.where((np.cumsum(true_s) % 20.0) < 10.0, 0.8, 1.2)
    fit = fit_steps(made_log(true_s * host * rng.lognormal(-0.005, 0.1, n), decoding, prompt), 32, 512)
    assert fit.steps.base_s == pytest.approx(0.008, rel=0.04)
    assert fit.steps.base_s + fit.steps.decode_s[12, 0] == pytest.approx(0.014, rel=0.04)
    assert fit.steps.base_s + fit.steps.decode_s[32, 0] == pytest.approx(0.024, rel=0.08)
    assert fit.steps.tokens_s[100] == pytest.approx(0.04, rel=0.04)
    assert fit.fast == pytest.approx(0.1, abs=0.02)
    assert fit.slow == pytest.approx(0.2, abs=0.03)


def test_the_host_clock_counts_every_second_once() -> None:
    log = made_log(np.array([0.01, 0.02, 0.11, 0.01]), np.ones(4, int), np.zeros(4, int))
    clock = HostClock(log, np.full(4, 0.01))
    times = np.linspace(0.0, 2.0, 1001)
    assert np.allclose(clock.to_wall(clock.to_work(times)), times)
    # A stall of 0.1 s lengthens a long step that runs into it by 0.1 s, not by a factor.
    assert clock.to_wall(np.array([0.03 + 0.2]))[0] - clock.to_wall(np.array([0.02]))[0] == pytest.approx(0.21 + 0.1)


def test_a_coarser_host_takes_as_long_in_all() -> None:
    rng = np.random.default_rng(2)
    log = made_log(rng.uniform(0.005, 0.03, 2000), np.ones(2000, int), np.zeros(2000, int))
    work = smoothed(log, np.full(2000, 0.0175), 1.0)
    clock = HostClock(log, work)
    assert clock.to_wall(clock.to_work(log.end_s[-1:]))[0] == pytest.approx(log.end_s[-1])
    assert np.std(work / log.took_s) < 0.1


def test_time_between_steps_is_counted_once(tmp_path: Path) -> None:
    # A stamp that is late cannot be later than the beginning of the next step; idle time is nobody's.
    header = "t_logged_s,iteration,ctx_requests,ctx_tokens,gen_requests,gen_tokens,elapsed_ms,kv_usage_pct\n"
    rows = ["1.010,0,1,20,0,0,10,1", "1.026,1,0,0,1,1,10,1", "1.034,2,0,0,1,1,10,1", "5.010,3,1,9,0,0,10,1"]
    (tmp_path / "log.csv").write_text(header + "\n".join(rows) + "\n", encoding="utf-8")
    log = read_steps(tmp_path / "log.csv")
    assert log.end_s == pytest.approx([1.010, 1.024, 1.034, 5.010])
    assert log.took_s[1:3] == pytest.approx([0.014, 0.010])
    assert log.took_s[3] == pytest.approx(0.012)  # the model's time and the usual time between steps


def test_recomputed_tokens_are_work_of_a_prompt(tmp_path: Path) -> None:
    header = "t_logged_s,iteration,ctx_requests,ctx_tokens,gen_requests,gen_tokens,elapsed_ms,kv_usage_pct\n"
    rows = ["1.0,0,1,20,0,0,10,1", "1.1,1,0,0,3,102,10,1", "1.2,2,0,0,3,3,10,1"]
    (tmp_path / "log.csv").write_text(header + "\n".join(rows) + "\n", encoding="utf-8")
    log = read_steps(tmp_path / "log.csv")
    assert list(log.decoding) == [0, 2, 3]
    assert list(log.prompt) == [20, 100, 0]


def test_travel_times_are_found_from_intervals() -> None:
    rng = np.random.default_rng(3)
    true_s = np.where(rng.random(4000) < 0.8, 0.004, 0.02)
    step = rng.uniform(0.0, 0.01, 4000)
    low = true_s - step - 1e-6
    chance = turnbull(low, low + 0.01)
    assert float(chance @ GRID_S) == pytest.approx(true_s.mean(), rel=0.05)


def test_who_overtakes_on_the_way_is_seen_by_its_tokens() -> None:
    prompts = Prompts(np.array([10, 70, 30, 40]), np.full(4, -1), 0, 16)
    log = made_log(np.full(3, 0.01), np.ones(3, int), np.array([70, 10, 70]))
    log.admits[:] = [1, 1, 2]
    order, found = taken_order(log, prompts, 512)
    assert order == [1, 0, 2, 3]
    assert not found.any()


def test_what_was_found_in_the_cache_is_seen_by_the_tokens_computed() -> None:
    # Two of a group in one step: the first computes all, the second finds 64; one finds nothing, since it was evicted;
    # one overtakes another and finds 64; the last belongs to no group.
    prompts = Prompts(np.array([100, 90, 95, 80, 120, 70]), np.array([0, 0, 0, 0, 0, -1]), 64, 32)
    log = made_log(np.full(5, 0.01), np.ones(5, int), np.array([126, 95, 56, 16, 70]))
    log.admits[:] = [2, 1, 1, 1, 1]
    order, found = taken_order(log, prompts, 512)
    assert order == [0, 1, 2, 4, 3, 5]
    assert found.tolist() == [0, 64, 0, 64, 64, 0]


def test_replays_are_the_same_every_time(cpu: list[Level]) -> None:
    level = cpu[0]
    steps, transport = fidelity_cpu.fitted(level).steps, level.transport()
    once, again = (replay(level, steps, transport, Host(None, 0.1, 0.1), 2) for _ in range(2))
    assert np.array_equal(once.middle, again.middle)
