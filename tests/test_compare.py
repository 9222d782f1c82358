"""Two runs side by side: nothing differs from itself, swapping flips signs, noise is told from twice the load."""

import json
from pathlib import Path

import numpy as np
import pytest

from sim.cli import main
from sim.report import comparing, sides
from sim.report.comparing import Comparison
from sim.run import play
from sim.scenario import loads

TEXT = """
name: small
duration: 10m
warmup: 1m
fleet: {kv_blocks: 700, step_time: {linear: {base: 10ms, per_prefill_token: 50us, per_sequence: 200us}}}
workload:
  rate_per_s: 3
  cohorts:
    chat:
      prompt_tokens: {lognormal: {median: 200, sigma: 0.7}}
      output_tokens: {lognormal: {median: 100, sigma: 0.6}}
clients: {timeout: 30s}
"""
PAIRS = 20
RULES = """
groups:
- name: g
  interval: 15s
  rules:
  - {alert: Busy, expr: 'avg_over_time(vllm:num_requests_running[1m]) > 2', for: 1m}
  - {alert: Typo, expr: nothing > 1}
"""


def made(folder: Path, *changes: str, seeds: int = 1) -> Path:
    folder.mkdir()
    play(loads(TEXT, overrides=changes), folder, seeds=seeds, workers=1)
    return folder


def compared(a: Path, b: Path) -> Comparison:
    return comparing.compare(sides.opened(a), sides.opened(b), 0.05)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty seeds of one scenario, two of twice the load, and a sweep."""
    top = tmp_path_factory.mktemp("runs")
    for name, changes, seeds in (
        ("same", [], 2 * PAIRS),
        ("double", ["workload.rate_per_s=6", "seed=100"], 2),
        ("sweep", ["vary={workload.rate_per_s: [3, 6]}", "seed=200"], 1),
        ("no-rows", ["rows=none", "seed=300"], 1),
    ):
        made(top / name, *changes, seeds=seeds)
    return top


def seed(runs: Path, number: int) -> Path:
    return runs / "same" / "point-0" / f"seed-{number}"


def test_a_run_compared_with_itself_differs_in_nothing(runs: Path) -> None:
    for path in (seed(runs, 1), runs / "sweep", runs / "double", runs / "no-rows"):
        found = compared(path, path)
        assert not found.differs
        assert {each.gap for one in found.points for each in one.figures} == {0.0}
        assert {each.low for one in found.points for each in one.figures if each.noise} == {0.0}


def test_swapping_flips_signs_and_nothing_else(runs: Path) -> None:
    for a, b in ((seed(runs, 1), seed(runs, 2)), (seed(runs, 1), runs / "double"), (runs / "same", runs / "double")):
        there, back = compared(a, b), compared(b, a)
        for one, other in zip(there.points[0].figures, back.points[0].figures, strict=True):
            assert one.metric == other.metric
            assert one.gap == -other.gap
            assert (one.low, one.high) == pytest.approx((-other.high, -other.low), nan_ok=True)
            assert one.differs == other.differs


@pytest.mark.slow
def test_equals_are_within_noise_at_about_the_nominal_rate(runs: Path) -> None:
    wrong = [k for k in range(PAIRS) if compared(seed(runs, 2 * k + 1), seed(runs, 2 * k + 2)).differs]
    assert len(wrong) <= 3, wrong  # of 20 at 5%, more than 3 have a chance of 1.6%


def test_intervals_are_no_wider_than_they_must_be(runs: Path) -> None:
    """The standard error that one run gives of itself is about the spread over seeds: neither blind nor vain."""
    members = sides.opened(runs / "same").seen.points[0].members
    spread = {
        metric: np.std([member.info["metrics"][metric] for member in members], ddof=1) * 2**0.5
        for metric in ("ttft_p50", "ttft_p99", "e2e_p99", "requests_per_s")
    }
    found = {each.metric: each for each in compared(seed(runs, 1), seed(runs, 2)).points[0].figures}
    for metric, real in spread.items():
        error = (found[metric].high - found[metric].low) / 2 / 3.6  # about Student's quantile
        assert 0.3 < error / real < 3, metric


def test_twice_the_load_differs_however_it_was_played(runs: Path) -> None:
    double = runs / "double" / "point-0" / "seed-100"
    for a, b in ((seed(runs, 1), double), (runs / "same", runs / "double"), (runs / "no-rows", double)):
        found = compared(a, b)
        assert {"ttft_p50", "e2e_p50", "requests_per_s"} <= {each.metric for each in found.points[0].differing}
        assert "requests asked per s +" in found.answer or "requests asked per s ×" in found.answer


def test_points_are_matched_by_their_values(runs: Path) -> None:
    found = compared(runs / "sweep", runs / "double")
    assert [one.pair.label for one in found.points] == ["6 requests/s"]
    assert found.alone == ["only in A: 3 requests/s"]
    assert not found.differs
    assert len(compared(runs / "sweep", runs / "sweep").points) == 2
    alone = compared(seed(runs, 1), runs / "sweep" / "point-1" / "seed-200")
    assert alone.differs
    other = made(runs / "other", "workload.rate_per_s=5")
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(runs / "sweep"), str(other), "--no-figures"])
    assert ended.value.code == 2


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_as_it_is_typed(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yml").write_text(RULES)
    a, b = str(seed(runs, 1)), str(runs / "double")
    code, out, _ = typed(capsys, a, b, "--rules", "r.yml", "--figure", "c.png")
    assert code == 1
    assert (tmp_path / "c.png").stat().st_size > 10_000
    assert "B differs from A by more than the noise:" in out
    assert "A  small, simulated, 1 seed (1), 10 min each" in out
    assert "B  small, simulated, 2 seeds (100, 101), 10 min each" in out
    assert "no such series: no series is called nothing" in out
    assert "leaves out 0" in out
    assert f"blowout why {b}" in out
    code, out, _ = typed(capsys, a, str(seed(runs, 2)), "--no-figures", "--rules", "r.yml", "--json")
    said = json.loads(out)
    assert code == 0
    assert said["differs"] is False
    assert said["points"][0]["metrics"]["ttft_p99"]["noise"] == "windows"
    assert len(said["points"][0]["alerts"]["Busy"]["a"]["pages_s"]) == 1
    code, out, _ = typed(capsys, a, b, "--no-figures", "--tolerance", "100%")
    assert code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("A", "nowhere"), 2, "expected the folder of a run"),
        (("A", "A", "--tolerance", "7"), 2, "--tolerance: expected a fraction from 0 to 1"),
        (("A", "A", "--rules", "nothing"), 2, "--rules nothing: no such file or set of rules"),
        (("A",), 2, "missing argument 'B'"),
    ],
)
def test_mistakes(words: tuple[str, ...], code: int, said: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got, _, err = typed(capsys, *(str(seed(runs, 1)) if word == "A" else word for word in words), "--no-figures")
    assert got == code
    assert said in err
    assert "Traceback" not in err
