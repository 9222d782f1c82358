"""Step times of any batch follow the tables they are made from, only ever grow, and never beat physics."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.engine import latency
from sim.engine.latency import FAR, Grid, GridKey, StepTimes, from_grid, grids
from sim.engine.models import DATA, catalogue, rows_of
from sim.engine.physics import attention_floor_s, context_floor_s, devices, refuse_impossible, roofline
from sim.engine.profiles import PROFILE_FORMAT, read_profile
from sim.errors import HardwareError

# Largest errors against the shipped tables, per cent: decode steps (estimates are noisy where they should be flat,
# and are made monotone), mixed steps (which the tables are not built from), and a prompt of 16,384 tokens computed
# in chunks of 2,048, 4,096 and 8,192 against the same prompt in one step (each chunk reads the weights again).
STATED = {
    ("llama-3.1-8b", "a100", 1, "vllm"): (0.4, 5.7, 3.3),
    ("llama-3.1-8b", "a100", 1, "sglang"): (0.1, 10.2, 2.0),
    ("llama-3.1-8b", "a100", 1, "trtllm"): (0.4, 5.1, 2.9),
    ("llama-3.1-8b", "h100", 1, "vllm"): (0.8, 6.6, 3.5),
    ("llama-3.1-8b", "h100", 1, "sglang"): (1.1, 6.0, 1.8),
    ("llama-3.1-8b", "h100", 1, "trtllm"): (1.0, 5.2, 1.3),
    ("llama-3.1-8b", "h200", 1, "vllm"): (0.6, 5.1, 2.6),
    ("llama-3.1-8b", "b200", 1, "vllm"): (1.3, 6.0, 3.1),
    ("llama-3.1-70b", "a100", 2, "vllm"): (5.8, 1.0, 5.3),
    ("llama-3.1-70b", "a100", 4, "vllm"): (0.1, 2.5, 6.6),
    ("llama-3.1-70b", "a100", 8, "vllm"): (1.4, 3.8, 13.1),
    ("llama-3.1-70b", "h100", 2, "vllm"): (3.4, 4.2, 2.9),
    ("llama-3.1-70b", "h100", 4, "vllm"): (1.1, 3.8, 6.7),
    ("llama-3.1-70b", "h100", 8, "vllm"): (3.5, 4.0, 5.3),
    ("llama-3.1-70b", "h200", 1, "vllm"): (3.4, 2.6, 2.1),
    ("llama-3.1-70b", "h200", 2, "vllm"): (2.5, 3.4, 2.3),
    ("llama-3.1-70b", "h200", 4, "vllm"): (1.2, 3.0, 2.2),
    ("llama-3.1-70b", "b200", 2, "vllm"): (0.1, 9.0, 3.4),
    ("qwen3-8b", "a100", 1, "vllm"): (0.9, 5.6, 4.3),
    ("qwen3-8b", "h100", 1, "vllm"): (0.3, 7.2, 3.6),
    ("qwen3-32b", "h100", 2, "vllm"): (0.9, 5.5, 2.0),
}  # fmt: skip
KEYS = [GridKey(*key) for key in STATED]
MIXED_CONTEXT = 1536  # prompts of 1,024 tokens and half of 1,024 answered: what fits all 21 grids best


@pytest.fixture(params=KEYS, ids=str)
def grid(request: pytest.FixtureRequest) -> Grid:
    return grids()[request.param]


def steps_of(grid: Grid, max_num_seqs: int = 512, tokens: int = 16384, **kwargs: Any) -> StepTimes:
    model, device, tp = catalogue()[grid.key.model], devices()[grid.key.hardware], grid.key.tensor_parallel
    floors = attention_floor_s(model, device, tp), context_floor_s(model, device, tp)
    return from_grid(grid, max_num_seqs, tokens, **kwargs, attention_floor_s=floors[0], context_floor_s=floors[1])


# --- step times -------------------------------------------------------------------------------------------------------


def test_the_grids_that_exist_are_the_stated_ones():
    assert sorted(grids()) == sorted(KEYS)


@pytest.mark.parametrize("name", ["decode_ms.csv", "prefill_ms.csv", "mixed_ms.csv"])
def test_every_table_says_where_it_is_from(name: str):
    head = "".join(line for line in (DATA / name).read_text().splitlines() if line.startswith("#"))
    for word in ("aiconfigurator-core 0.12.0", "Apache-2.0", "no host overhead", "uncalibrated", "milliseconds"):
        assert word in head


def test_tables_hold_what_was_queried(measured: Path):
    names = {"Meta-Llama-3.1-8B": "llama-3.1-8b", "Meta-Llama-3.1-70B": "llama-3.1-70b"}
    seen = 0
    for row in csv.DictReader((measured / "step-times" / "aic_step_times.csv").open()):
        model = row["model"].split("/")[1]
        key = GridKey(
            names.get(model, model.lower()), row["system"].removesuffix("_sxm"), int(row["tp"]), row["backend"]
        )
        at, time_s = float(row["context_or_tokens"]), float(row["ms"]) * 1e-3
        if row["kind"] == "decode":
            i = list(grids()[key].sequences).index(float(row["batch"]))
            assert grids()[key].decode_s[i, list(grids()[key].contexts).index(at)] == pytest.approx(time_s)
        elif row["kind"] == "prefill":
            assert grids()[key].prefill_s[list(grids()[key].prompts).index(at)] == pytest.approx(time_s)
        else:
            assert mixed_points(key)[int(at), int(row["batch"])] == pytest.approx(time_s)
        seen += 1
    assert seen == 21 * 68


def mixed_points(key: GridKey) -> dict[tuple[int, int], float]:
    rows = rows_of(DATA / "mixed_ms.csv")
    row = next(row for row in rows if tuple(list(row.values())[:4]) == tuple(map(str, key)))
    points = (tuple(map(int, name.split("+"))) for name in list(row)[4:])
    return {(p, n): float(ms) * 1e-3 for (p, n), ms in zip(points, list(row.values())[4:], strict=True)}


def test_decode_steps_are_as_tabulated(grid: Grid):
    steps = steps_of(grid)
    for i, n in enumerate(grid.sequences):
        for j, context in enumerate(grid.contexts):
            if not np.isnan(grid.decode_s[i, j]):
                error = steps.step_s(int(n), context) / grid.decode_s[i, j] - 1
                assert abs(error) * 100 <= STATED[grid.key][0], (n, context)


def test_whole_prompts_are_as_tabulated(grid: Grid):
    steps = steps_of(grid)
    for prompt, time_s in zip(grid.prompts, grid.prefill_s, strict=True):
        assert steps.step_s(chunks=[(int(prompt), 0)]) == pytest.approx(time_s, rel=1e-9)
        assert steps.base_s + steps.prefill_s[int(prompt)] == pytest.approx(time_s, rel=1e-9)


def test_mixed_steps_follow_from_prompts_and_decoding(grid: Grid):
    steps = steps_of(grid)
    for (prompt, n), time_s in mixed_points(grid.key).items():
        chunks = [(min(prompt, 1024), 0)] * max(1, prompt // 1024)
        error = steps.step_s(n, MIXED_CONTEXT, chunks) / time_s - 1
        assert abs(error) * 100 <= STATED[grid.key][1], (prompt, n)


@pytest.mark.parametrize("chunk", [2048, 4096, 8192])
def test_chunks_of_a_long_prompt_sum_to_the_whole(grid: Grid, chunk: int):
    steps = steps_of(grid)
    total = sum(steps.step_s(chunks=[(chunk, offset)]) for offset in range(0, 16384, chunk))
    assert abs(total / grid.prefill_s[-1] - 1) * 100 <= STATED[grid.key][2]


def test_more_work_never_takes_less_time(grid: Grid):
    steps = steps_of(grid, 1024)
    assert (np.diff(steps.decode_s, axis=0) >= 0).all()
    assert (np.diff(steps.decode_s, axis=1) >= 0).all()
    assert (np.diff(steps.tokens_s) >= 0).all()
    for context in (0, 300, 1024, 5000, 40000):
        for prompt in (0, 1, 16, 100, 128, 200, 512, 3000):
            times = [steps.step_s(n, context, [(prompt, 0)]) for n in range(0, 1025, 7)]
            assert (np.diff(times) >= -1e-15).all(), (context, prompt)


@given(n=st.integers(0, 600), context=st.floats(0, 2e5), prompt=st.integers(0, 8000), offset=st.integers(0, 100_000))
def test_one_more_of_anything_never_takes_less_time(n: int, context: float, prompt: int, offset: int):
    steps = steps_of(grids()[GridKey("llama-3.1-8b", "h100", 1, "vllm")], 601, 8192)
    here = steps.step_s(n, context, [(prompt, offset)]) - 1e-12
    assert steps.step_s(n, context + 1, [(prompt, offset)]) >= here
    assert steps.step_s(n, context, [(prompt + 1, offset)]) >= here
    assert steps.step_s(n, context, [(prompt, offset + 1)]) >= here


def test_two_short_prompts_attend_less_than_one_long_one(grid: Grid):
    steps = steps_of(grid)
    two, one = steps.step_s(chunks=[(4096, 0), (4096, 0)]), steps.step_s(chunks=[(8192, 0)])
    assert one - two == pytest.approx(steps.prefill_ctx_s * 4096**2)


def test_no_tabulated_step_is_faster_than_physics(grid: Grid):
    model, device, tp = catalogue()[grid.key.model], devices()[grid.key.hardware], grid.key.tensor_parallel
    for i, n in enumerate(grid.sequences):
        for j, context in enumerate(grid.contexts):
            least = roofline(model, device, tp, sequences=int(n), context=context).least_s
            assert not grid.decode_s[i, j] < least  # nan where nothing is tabulated
    for prompt, time_s in zip(grid.prompts, grid.prefill_s, strict=True):
        assert time_s >= roofline(model, device, tp, prompt=int(prompt)).least_s


def test_nor_is_any_step_between_and_beyond(grid: Grid):
    model, device, tp = catalogue()[grid.key.model], devices()[grid.key.hardware], grid.key.tensor_parallel
    refuse_impossible(steps_of(grid, 1024, 65536), model, device, tp, kv_tokens=10**8, max_model_len=131072)


def test_beyond_512_sequences_goes_on_in_a_straight_line_and_says_so(grid: Grid):
    steps = steps_of(grid, 1024)
    assert steps.decode_s[1024] - steps.decode_s[512] == pytest.approx(2 * (steps.decode_s[512] - steps.decode_s[256]))
    assert steps.notes == ("step times beyond 512 sequences are extrapolated in a straight line",)
    assert steps_of(grid, 512).notes == ()


def test_missing_corners_continue_the_last_cell():
    grid = grids()[GridKey("llama-3.1-8b", "h100", 1, "vllm")]
    steps = steps_of(grid)
    last = steps.step_s(512, 2048) - steps.step_s(512, 1024)
    assert steps.step_s(512, 4096) == pytest.approx(steps.step_s(512, 2048) + 2 * last, rel=0.01)


def test_calibration_scales_the_table_and_not_the_host():
    grid = grids()[GridKey("llama-3.1-8b", "a100", 1, "vllm")]
    plain, scaled = steps_of(grid), steps_of(grid, factor=1.5, overhead_s=0.002)
    for n, context, chunks in ((1, 100, []), (64, 3000, [(512, 0)]), (0, 0, [(2048, 4096)])):
        assert scaled.step_s(n, context, chunks) == pytest.approx(1.5 * plain.step_s(n, context, chunks) + 0.002)


def test_a_linear_fit_is_what_it_says():
    steps = latency.linear(64, 2048, 0.01, 2e-5, 3e-4, 1e-8, factor=2.0, overhead_s=0.001)
    expected = 2 * (0.01 + 100 * 2e-5 + 8 * (3e-4 + 700 * 1e-8)) + 0.001
    assert steps.step_s(8, 700, [(60, 0), (40, 500)]) == pytest.approx(expected)
    assert steps.step_s(8, 2 * FAR) == pytest.approx(2 * (0.01 + 8 * (3e-4 + 2 * FAR * 1e-8)) + 0.001)
    assert steps.decode_s.shape == (65, 2)
    assert steps.tokens_s.shape == (2049,)


# --- measured profiles ------------------------------------------------------------------------------------------------

PROFILE = {
    "format": PROFILE_FORMAT,
    "source": "a quiet machine",
    "base_s": 0.0065,
    "decode_s": {"1": 0.0025, "8": 0.006, "16": 0.0058, "32": 0.018},
    "prefill_s": {"1": 0.0005},
    "context_s": 1e-7,
    "overhead_s": 0.002,
}


def profile(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({key: value for key, value in {**PROFILE, **changes}.items() if value is not None}))
    return path


def test_a_measured_profile_becomes_step_times(tmp_path: Path):
    steps = read_profile(profile(tmp_path)).steps(40, 512, factor=1.1, overhead_s=0.001)
    assert steps.base_s == pytest.approx(1.1 * 0.0065 + 0.003)
    assert steps.step_s(1, 200, [(100, 0)]) == pytest.approx(1.1 * (0.0065 + 0.0025 + 200e-7 + 0.05) + 0.003)
    assert steps.decode_s[8, 0] == pytest.approx(1.1 * 0.0059)  # 8 and 16 in the wrong order: both their mean
    assert steps.decode_s[40, 0] - steps.decode_s[32, 0] == pytest.approx(1.1 * 8 * (0.018 - 0.0059) / 16)
    assert (np.diff(steps.decode_s, axis=0) >= 0).all()
    assert steps.notes == ("measured step times end at 32 sequences and are extrapolated beyond",)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "other"}, "expected a JSON object with format: blowout-step-profile/1"),
        ({"base": 1}, "base: unknown; expected one of format, source, base_s"),
        ({"base_s": -1}, "base_s: expected seconds of a step that does nothing else, not below 0, got -1"),
        ({"base_s": None}, "base_s: expected seconds of a step that does nothing else, not below 0, got nothing"),
        ({"decode_s": None}, "decode_s: expected seconds that so many decoding sequences add"),
        ({"decode_s": {"many": 1}}, "decode_s: expected seconds that so many decoding sequences add"),
        ({"prefill_s": {"0": 1}}, "prefill_s: expected seconds that so many prompt tokens add"),
        ({"prefill_s": {"64": "fast"}}, "got '64': 'fast'"),
    ],
)
def test_a_profile_that_is_wrong_is_refused(tmp_path: Path, changes: dict[str, Any], says: str):
    path = profile(tmp_path, **changes)
    with pytest.raises(HardwareError, match=re.escape(says)) as error:
        read_profile(path)
    assert str(error.value).startswith(f"{path}: ")
