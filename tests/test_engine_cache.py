"""The compiled engine is kept on disk, and never taken for that of other sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sim import engine
from sim.engine import exercise as exercises


@pytest.fixture
def copy(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources of the engine that a test may change; returns the folder of `sim`."""
    shutil.copytree(root / "sim" / "engine", tmp_path / "sim" / "engine", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("records.py", "buckets.py"):
        shutil.copy(root / "sim" / name, tmp_path / "sim")
    monkeypatch.setattr(engine, "__file__", str(tmp_path / "sim" / "engine" / "__init__.py"))
    return tmp_path / "sim"


@pytest.mark.parametrize("name", ["engine/queues.py", "engine/state.py", "records.py", "buckets.py"])
def test_other_sources_have_another_cache(copy: Path, name: str) -> None:
    before = engine.cache_folder()
    assert engine.cache_folder() == before
    with (copy / name).open("a") as source:
        source.write("# an edit\n")
    assert engine.cache_folder() != before


def test_the_same_sources_elsewhere_have_the_same_cache(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = engine.cache_folder()
    monkeypatch.undo()
    assert engine.cache_folder() == there


def test_the_cache_is_where_one_says(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOWOUT_CACHE", str(tmp_path / "here"))
    assert engine.cache_folder().parent == tmp_path / "here"
    monkeypatch.delenv("BLOWOUT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    assert engine.cache_folder().parent == tmp_path / "there" / "blowout"


def test_compiling_is_announced_and_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []
    monkeypatch.setattr(exercises, "exercise", lambda: calls.append(1))
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    monkeypatch.setenv("BLOWOUT_CACHE", str(tmp_path))
    assert not engine.is_compiled()
    exercises.warm()
    assert capsys.readouterr() == ("", f"compiling the engine, once, about {exercises.COMPILE_S} s ...\n")
    assert engine.is_compiled()
    exercises.warm()
    assert (calls, capsys.readouterr()) == ([1], ("", ""))


def test_without_the_compiler_there_is_nothing_to_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BLOWOUT_CACHE", str(tmp_path))
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    exercises.warm()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("first", ["import sim.engine.play", "import numba, sim.engine.play"])
def test_numba_keeps_it_there_whoever_imports_it_first(root: Path, tmp_path: Path, first: str) -> None:
    """Beside the sources it would be taken for compiled after an edit in another file."""
    code = f"{first}; import numba; print(numba.config.CACHE_DIR)"
    environment = {**os.environ, "BLOWOUT_CACHE": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / engine.cache_folder().name


def test_a_fresh_checkout_compiles_nothing(root: Path, tmp_path: Path) -> None:
    if not engine.is_compiled():
        pytest.skip("the engine is not compiled")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "sim", tmp_path / "sim", ignore=ignored, copy_function=shutil.copy)  # with times of now
    before = sorted((path.name, path.stat().st_mtime) for path in engine.cache_folder().iterdir())
    program = (
        "from sim.scenario import loads; from sim.world import simulate; import sim; "
        "text = 'name: a\\nduration: 60s\\nfleet: {kv_blocks: 99, step_time: {linear: {base: 10ms}}}\\n"
        "workload: {rate_per_s: 1, cohorts: {a: {prompt_tokens: 9, output_tokens: 9}}}'; "
        "print(simulate(loads(text), 1).metrics['requests'], sim.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout
    assert sorted((path.name, path.stat().st_mtime) for path in engine.cache_folder().iterdir()) == before
