"""The run folder: what a run leaves behind however it ends, and what is read back from it however it was treated."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sim.cli import main
from sim.errors import InputError, RunError
from sim.interrupts import Interrupts
from sim.results import Run, new_folder
from sim.run import play
from sim.scenario import load, loads
from tests import planning

BLOWOUT = str(Path(sys.prefix) / "bin" / "blowout")
SMALL = """\
name: small
duration: 60s
fleet: {model: llama-3.1-8b, hardware: h100}
workload:
  rate_per_s: 8
  cohorts:
    chat: {prompt_tokens: 300, output_tokens: 20}
"""
FOREVER = "300d"
LONGEST_S = 60.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two points with two seeds each."""
    folder = tmp_path_factory.mktemp("finished")
    play(loads(SMALL, overrides=["vary.workload.rate_per_s=[4, 8]", "seeds=2"]), folder)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scenario file in the folder in which we are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path / "small.yaml"


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Type a command; return exit code, stdout and stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(words)
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def wait_for(what: Callable[[], object]) -> None:
    """Wait until *what* is true."""
    end_s = time.monotonic() + LONGEST_S
    while not what():
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.02)


# --- what a run leaves ----------------------------------------------------------------------------------------------


def test_a_run_leaves_what_the_design_says(finished: Path) -> None:
    run = Run.open(finished)
    assert run.info["state"] == "complete"
    assert run.info["wall_s"] > 0
    assert [(member.point, member.seed) for member in run.members] == [
        ({"workload.rate_per_s": rate}, seed) for rate in (4.0, 8.0) for seed in (1, 2)
    ]
    for member in run.members:
        assert member.path == finished / f"point-{member.point['workload.rate_per_s'] // 8:.0f}" / f"seed-{member.seed}"
        assert member.attempts().num_rows == member.info["metrics"]["requests"]
        assert member.series().num_rows >= 4
        assert member.events() == []
        assert member.histograms()["ttft"].sum() == member.info["metrics"]["ok"]
    assert run.verdicts is None
    assert [point["seeds"] for point in run.summary["points"]] == [[1, 2], [1, 2]]


def test_the_scenario_in_the_folder_plays_the_same_rows(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trace.csv").write_text("timestamp,prompt_tokens,output_tokens\n0,100,10\n1,200,20\n2,300,30\n")
    options = ["--set", "fleet.noise.sigma=0.1", "--set", "workload.trace=trace.csv", "--seed", "5", "--seeds", "2"]
    assert typed(capsys, "run", "small.yaml", *options, "--no-figures", "--out", "first")[0] == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)  # the trace is found from there too
    assert typed(capsys, "run", "../first/scenario.yaml", "--no-figures", "--out", "second")[0] == 0
    first, second = Run.open(tmp_path / "first"), Run.open(elsewhere / "second")
    assert [member.seed for member in first.members] == [5, 6]
    for one, other in zip(first.members, second.members, strict=True):
        assert one.attempts().num_rows == 3
        assert one.attempts() == other.attempts()
    assert first.summary == second.summary


def test_the_hash_is_that_of_the_scenario_and_not_of_how_it_was_written(tmp_path: Path) -> None:
    def digest(name: str, text: str, *overrides: str) -> str:
        (tmp_path / name).mkdir()
        return str(play(loads(text, overrides=overrides), tmp_path / name).info["scenario_sha256"])

    one = digest("a", SMALL)
    assert one == digest("b", SMALL.replace("60s", "1m"))
    assert one == digest("c", (tmp_path / "a" / "scenario.yaml").read_text())
    assert one != digest("d", SMALL, "workload.rate_per_s=7")


def test_runs_are_numbered_also_when_many_start_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/x/old").mkdir(parents=True)
    (tmp_path / "results/x/007").mkdir()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_folder(None, "x"), range(64)))
    assert sorted(made) == [Path(f"results/x/{number:03d}") for number in range(8, 72)]


def test_a_folder_is_new_or_empty(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert new_folder(tmp_path / "empty", "x") == tmp_path / "empty"
    assert new_folder(tmp_path / "deep" / "new", "x").is_dir()
    for full in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match="expected a new or an empty folder"):
            new_folder(full, "x")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\); choose another with --out"):
        new_folder(tmp_path / "file" / "below", "x")


# --- interrupted ----------------------------------------------------------------------------------------------------


@contextmanager
def playing(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Play a run that nobody lives to see the end of, as the leader of its own process group."""
    command = [BLOWOUT, "run", "small.yaml", "--no-figures", "--out", "run", "--set", "fleet.replicas=2", *options]
    run = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield run
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()


def grown(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 100_000


def test_an_interrupt_keeps_the_rows_of_a_single_run(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with playing(small.parent, "--set", f"duration={FOREVER}") as run:
        wait_for(lambda: grown(Path("run/attempts.parquet")))
        os.killpg(run.pid, signal.SIGINT)
        out, err = run.communicate(timeout=LONGEST_S)
    assert (run.returncode, out) == (130, "")
    assert err == "interrupted; nothing was finished; the rows so far are in run/attempts.parquet\n"
    kept = Run.open(Path("run"))
    assert kept.info["state"] == "interrupted"
    from sim.results import Member

    rows = Member({}, 1, Path("run"))
    assert rows.attempts().num_rows == rows.histograms()["minute_requests"].sum() > 1000
    assert rows.series().num_rows > 10
    code, out, err = typed(capsys, "report", "run")
    assert (code, out) == (3, "")
    assert err == "run: nothing was finished (interrupted); the rows so far are in run/attempts.parquet\n"


def test_an_interrupt_keeps_what_was_finished(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ("--set", f"vary.duration=[60s, {FOREVER}]", "--workers", "2")
    with playing(small.parent, *sweep) as run:
        wait_for(Path("run/point-0/seed-1/member.json").exists)
        wait_for(lambda: grown(Path("run/point-1/seed-1/attempts.parquet")))
        os.killpg(run.pid, signal.SIGINT)
        time.sleep(0.05)
        os.killpg(run.pid, signal.SIGINT)  # a key that is held down
        out, err = run.communicate(timeout=LONGEST_S)
    assert (run.returncode, out) == (130, "")
    assert err == "interrupted; 1 of 2 runs finished, kept in run: blowout report run\n"
    code, out, err = typed(capsys, "report", "run")
    assert (code, err) == (0, "")
    assert "interrupted: 1 of 2 runs are counted" in out
    assert Path("run/report.html").exists()


def test_when_a_run_is_killed_its_workers_end_and_what_was_finished_is_read(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Path("run/point-1/seed-1/attempts.parquet")
    with playing(small.parent, "--set", f"vary.duration=[60s, {FOREVER}]", "--workers", "2") as run:
        wait_for(Path("run/point-0/seed-1/member.json").exists)
        wait_for(lambda: grown(rows))
        run.kill()
        run.wait()
        sizes = [-2, -1]

        def still() -> bool:
            time.sleep(0.5)
            sizes.append(rows.stat().st_size)
            return sizes[-1] == sizes[-3]

        wait_for(still)
    code, out, err = typed(capsys, "report", "run", "--no-figures")
    assert (code, err) == (0, "")
    assert "not finished: 1 of 2 runs are counted" in out


def test_an_interrupt_before_anything_was_played_leaves_nothing(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def swallowed() -> None:
        """Do as a compiler does that an interrupt has reached in a callback."""
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("sim.engine.exercise.warm", swallowed)
    code, out, err = typed(capsys, "run", "small.yaml", "--no-figures")
    assert (code, out, err) == (130, "", "interrupted; nothing was played\n")
    assert list(Path("results/small").iterdir()) == []


def test_an_interrupt_while_figures_are_drawn_says_that_the_run_is_there(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(run: Run) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sim.report.write_figures", interrupted)
    code, _, err = typed(capsys, "run", "small.yaml", "--out", "run")
    assert (code, err) == (130, "interrupted; 1 of 1 run finished, kept in run: blowout report run\n")


def test_an_interrupt_waits_for_a_good_place_to_stop_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        monkeypatch.setattr("sim.interrupts.PATIENCE_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before


# --- failed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_point_that_is_overloaded_leaves_the_others(
    workers: str, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sim.engine.fleet.LIVE_MAX", 10_000)
    sweep = ("--set", "vary.workload.rate_per_s=[1000, 8]", "--set", "seeds=2")
    code, out, err = typed(capsys, "run", "small.yaml", *sweep, "--workers", workers, "--no-figures", "--out", "run")
    assert (code, out) == (3, "")
    assert err.startswith("workload.rate_per_s = 1000, seed = 1: OVERLOADED: ")
    assert err.endswith("(2 of 4 runs ended like this); 2 of 4 runs finished, kept in run: blowout report run\n")
    run = Run.open(Path("run"))
    assert [point["point"] for point in run.summary["points"]] == [{"workload.rate_per_s": 8.0}]
    assert run.verdicts is None
    code, out, _ = typed(capsys, "report", "run", "--no-figures")
    assert code == 0
    assert "failed (workload.rate_per_s = 1000, seed = 1: OVERLOADED" in " ".join(out.split())


def test_an_overloaded_run_keeps_its_rows(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sim.engine.fleet.LIVE_MAX", 10_000)
    overload = ("run", "small.yaml", "--set", "workload.rate_per_s=1000", "--no-figures", "--out", "run")
    code, _, err = typed(capsys, *overload)
    assert code == 3
    assert err.startswith("OVERLOADED: ")
    assert err.endswith("the rows so far are in run/attempts.parquet\n")
    code, _, err = typed(capsys, "report", "run")
    assert code == 3
    assert err.startswith("run: nothing was finished (OVERLOADED: ")


def spoil(monkeypatch: pytest.MonkeyPatch, seed: int, how: Callable[[], None]) -> None:
    """Let something happen to the run with *seed*, wherever it is played."""
    from sim import world

    simulate = world.simulate

    def spoilt(scenario: object, number: int, *args: object, **settings: object) -> object:
        if number == seed:
            how()
        return simulate(scenario, number, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("sim.world.simulate", spoilt)


def test_a_worker_that_is_killed_is_one_sentence(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed() -> None:
        wait_for(Path("run/point-0/seed-1/member.json").exists)
        os.kill(os.getpid(), signal.SIGKILL)

    spoil(monkeypatch, 2, killed)
    code, out, err = typed(
        capsys, "run", "small.yaml", "--seeds", "2", "--workers", "2", "--no-figures", "--out", "run"
    )
    assert (code, out) == (3, "")
    assert err.startswith("whoever played it was killed or is gone, most likely because memory ran out; expected to ")
    assert err.endswith("; 1 of 2 runs finished, kept in run: blowout report run\n")


def test_workers_that_were_killed_before_they_got_any_work_are_one_sentence(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sim.run.processes", planning.processes_that_are_gone)
    code, out, err = typed(
        capsys, "run", "small.yaml", "--seeds", "2", "--workers", "2", "--no-figures", "--out", "run"
    )
    assert (code, out) == (3, "")
    assert err == (
        "whoever played it was killed or is gone, most likely because memory ran out; expected to fit with --workers 1 "
        "or fewer rows (--set 'rows={sample: 1%}'); see run\n"
    )


@pytest.mark.parametrize(
    ("fault", "kind", "sentence"),
    [
        (OSError(28, "No space left on device"), InputError, r"cannot be written any more \(No space left on device\)"),
        (MemoryError(), RunError, "seed = 2: memory ran out"),
        (AssertionError("replica 0 lost KV blocks"), RunError, r"a law of the engine was broken \(replica 0 lost"),
        (ZeroDivisionError("oops"), ZeroDivisionError, "oops"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_whatever_goes_wrong_the_finished_are_kept(
    fault: Exception,
    kind: type[Exception],
    sentence: str,
    workers: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong() -> None:
        wait_for((tmp_path / "point-0" / "seed-1" / "member.json").exists)
        raise fault

    spoil(monkeypatch, 2, wrong)
    with pytest.raises(kind, match=sentence):
        play(loads(SMALL), tmp_path, seeds=2, workers=workers)
    run = Run.open(tmp_path)
    assert run.info["state"] == "failed"
    assert [member.seed for member in run.members] == [1]
    assert run.summary["points"][0]["seeds"] == [1]


# --- read back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["run.json", "summary.json", "scenario.yaml", "point-0/seed-1/member.json", "point-0/seed-1/histograms.npz"]
)
@pytest.mark.parametrize("text", ["{", "[]", "{}", ""])
def test_a_broken_file_is_one_sentence(name: str, text: str, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / name).write_text(text)
    if "member" in name:
        (copied / "summary.json").unlink()  # made again from its members
    code, out, err = typed(capsys, "report", str(copied))
    assert (code, out) == (2, "")
    assert all(line.startswith(f"{copied / name}:") for line in err.splitlines())


def test_a_member_that_is_cut_short_is_one_sentence(copied: Path) -> None:
    member = Run.open(copied).members[0]
    for name, read in (("attempts.parquet", member.attempts), ("series.parquet", member.series)):
        whole = (member.path / name).read_bytes()
        (member.path / name).write_bytes(whole[:-100])
        with pytest.raises(InputError, match=f"{name}: cannot be read, for its run was cut short"):
            read()
        (member.path / name).unlink()
        with pytest.raises(InputError, match=f"{name}: not written by this run"):
            read()


def test_another_format_is_refused(copied: Path) -> None:
    info = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(info | {"format": "blowout-run/999"}))
    with pytest.raises(InputError, match="expected a run in format blowout-run/2, got blowout-run/999"):
        Run.open(copied)


def test_the_folder_above_names_the_latest_run(copied: Path) -> None:
    with pytest.raises(InputError, match=f"holds no run.json; the latest in it is {copied}"):
        Run.open(copied.parent)


def test_a_report_does_without_the_trace(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("trace.csv").write_text("timestamp,prompt_tokens,output_tokens\n0,100,10\n1,200,20\n")
    replay = ("run", "small.yaml", "--set", "workload.trace=trace.csv", "--no-figures", "--out", "run")
    assert typed(capsys, *replay)[0] == 0
    Path("trace.csv").unlink()
    assert typed(capsys, "report", "run", "--no-figures")[0] == 0
    with pytest.raises(InputError, match="expected a file"):
        load("run/scenario.yaml")
