"""A sweep as a user types it: its table, what an interrupt leaves, what is refused, and Dask, with the same rows."""

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cli import main
from sim.errors import RunError
from sim.planning import cluster, sweep_figure, sweep_table, trials
from sim.planning.sweep import Sweep
from sim.scenario import loads, points
from tests import planning

BLOWOUT = str(Path(sys.prefix) / "bin" / "blowout")
TINY = """\
name: tiny
duration: 30s
fleet: {kv_blocks: 400, step_time: {linear: {base: 10ms}}}
workload:
  rate_per_s: 5
  cohorts: {chat: {prompt_tokens: 100, output_tokens: 20}}
claims: {quick: ttft_p99 <= 2s}
"""
SWEPT = ["tiny.yaml", "--vary", "fleet.replicas=1:2", "--vary", "clients.timeout=none,20s", "--seeds", "3"]
Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type `blowout sweep` in a folder that holds ``tiny.yaml``; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["sweep", *words])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return typed


def started(*words: str) -> "subprocess.Popen[str]":
    """Begin to play a sweep in a process of its own."""
    return subprocess.Popen([BLOWOUT, "sweep", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_trials(folder: Path, number: int) -> None:
    for _ in range(1200):
        if (folder / "trials.jsonl").exists() and (folder / "trials.jsonl").read_bytes().count(b"\n") >= number:
            return
        time.sleep(0.05)
    raise AssertionError(f"not {number} trials within a minute")


def rows(folder: str | Path) -> list[dict[str, Any]]:
    return list(pq.read_table(Path(folder) / "table.parquet").to_pylist())


# --- what comes out -------------------------------------------------------------------------------------------------


def test_there_is_a_row_a_point_and_seed_with_what_playing_it_alone_gives(typed: Typed) -> None:
    code, out, err = typed(*SWEPT, "--out", "a")
    assert (code, err) == (0, "")
    assert "4 points, 3 seeds of 30 s" in out
    assert "blowout run a/scenario.yaml --set fleet.replicas=2 --set clients.timeout=20.0" in out
    assert Path("a/figures/sweep.png").read_bytes().startswith(b"\x89PNG")
    found = rows("a")
    assert list(found[0])[:4] == ["fleet.replicas", "clients.timeout", "seed", "label"]
    asked = [(n, t, seed) for n in (1, 2) for t in (None, 20.0) for seed in (1, 2, 3)]
    assert [(row["fleet.replicas"], row["clients.timeout"], row["seed"]) for row in found] == asked
    alone = trials.play(loads(TINY, "tiny.yaml", ["fleet.replicas=2", "clients.timeout=20s"]), 2).metrics
    assert {name: found[10][name] for name in alone} == {
        name: None if math.isnan(value) else value for name, value in alone.items()
    }
    assert json.loads(Path("a/sweep.json").read_text())["state"] == "complete"


def test_every_point_meets_the_same_users(typed: Typed) -> None:
    typed(*SWEPT, "--out", "a", "--no-figures")
    by_seed: dict[int, set[float]] = {}
    for row in rows("a"):
        by_seed.setdefault(row["seed"], set()).add(row["requests"])
    assert [len(requests) for requests in by_seed.values()] == [1, 1, 1]
    assert len(set.union(*by_seed.values())) > 1  # and other seeds other ones
    assert not Path("a/figures").exists()


def test_the_metrics_asked_for_are_shown_and_programs_get_all_points(typed: Typed) -> None:
    code, out, _ = typed(*SWEPT, "--out", "a", "--no-figures", "--metric", "itl_p99", "--json")
    said = json.loads(out)
    assert code == 0
    assert (said["trials"], said["seeds"]) == (12, [1, 2, 3])
    assert [one["point"] for one in said["points"]][3] == {"fleet.replicas": 2, "clients.timeout": 20.0}
    shown = said["points"][0]["metrics"]
    assert list(shown) == ["itl_p99"]
    assert shown["itl_p99"]["low"] <= shown["itl_p99"]["estimate"] <= shown["itl_p99"]["high"]
    assert shown["itl_p99"]["values"] == [row["itl_p99"] for row in rows("a")[:3]]


def test_a_fleet_that_cannot_keep_up_is_a_row_with_a_label_and_no_numbers(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.engine.fleet.LIVE_MAX", 4096)  # two million requests take long
    setting = ["--set", "workload.cohorts.chat.output_tokens=200", "--vary", "workload.rate_per_s=2,2000"]
    code, out, err = typed("tiny.yaml", *setting, "--out", "a")
    assert (code, err) == (0, "")
    fine, over = rows("a")
    assert (fine["label"], over["label"]) == ("STABLE", "OVERLOADED")
    assert fine["requests"] > 0
    assert {over[name] for name in over if name not in ("workload.rate_per_s", "seed", "label")} == {None}
    assert [line for line in out.splitlines() if "2000" in line and "OVERLOADED" in line and "–" in line]


def test_what_else_goes_wrong_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RunError("my_module:my_process: failed at t = 3 s")

    monkeypatch.setattr("sim.world.simulate", fails)
    with pytest.raises(RunError, match="my_process"):
        trials.play(loads(TINY), 1)


def test_workers_that_were_killed_before_they_got_any_work_are_one_sentence(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.planning.trials.processes", planning.processes_that_are_gone)
    code, out, err = typed(*SWEPT, "--out", "a")
    assert (code, out) == (3, "")
    assert err.startswith("fleet.replicas = ")
    assert err.endswith(
        ": whoever played it was killed or is gone, most likely because memory ran out; expected to fit with fewer "
        "workers; no trial was finished\n"
    )
    assert not Path("a").exists()


def pretended(size: int) -> Sweep:
    """A sweep of so many points, as if it had been played."""
    scenario = loads(TINY, overrides=["claims={}"], swept={"workload.rate_per_s": list(range(1, size + 1))})
    kept = {
        (k, seed): {
            "point": k, "seed": seed, "label": "STABLE", "notes": [], "uncalibrated": False, "kv_override": False,
            "wall_s": 0.1, "metrics": {"ttft_p99": k + seed / 10},
        }
        for k in range(size)
        for seed in (0, 1, 2)
    }  # fmt: skip
    return Sweep(Path("a"), scenario, [0, 1, 2], ["blowout", "sweep", "tiny.yaml"], kept)


def test_on_a_narrow_terminal_nothing_is_cut(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    typed(*SWEPT, "--out", "a", "--no-figures")
    monkeypatch.setattr("sys.stdout", terminal := planning.Terminal())
    with pytest.raises(SystemExit):
        main(["sweep", *SWEPT, "--out", "a", "--no-figures"])
    said = terminal.getvalue()
    assert "replicas 2, timeout none" in said
    assert "answers per" in said
    assert "good" not in said.partition("Next")[0]
    assert planning.nothing_is_cut(said, 80)


def test_a_long_table_shows_its_ends_and_says_where_the_rest_is(capsys: pytest.CaptureFixture[str]) -> None:
    sweep_table.show(pretended(200), ["ttft_p99"])
    out = capsys.readouterr().out
    shown = [int(line.split()[0]) for line in out.splitlines() if "STABLE" in line]
    assert shown == [*range(1, 16), *range(186, 201)]
    assert "..." in out
    assert "30 of 200 points; all are in a/table.parquet" in out


def test_a_point_of_which_a_seed_was_overloaded_has_no_estimate() -> None:
    sweep = pretended(2)
    assert sweep_table.estimate(sweep, 1, "ttft_p99")["estimate"] == pytest.approx(1.1)
    sweep.kept[1, 2] |= {"label": "OVERLOADED", "metrics": {}}
    assert sweep_table.labels(sweep, 1) == "1 OVERLOADED, 2 STABLE"
    assert math.isnan(sweep_table.estimate(sweep, 1, "ttft_p99")["estimate"])


def test_overloaded_points_are_open_marks_and_uncalibrated_step_times_are_never_left_out() -> None:
    from matplotlib.figure import Figure

    sweep = pretended(3)
    for seed in sweep.seeds:
        sweep.kept[2, seed] |= {"label": "OVERLOADED", "uncalibrated": True, "notes": ["one", "two", "three", "four"]}
    caption = sweep_figure._small_print(sweep, ["workload.rate_per_s"])
    assert "Open marks: overloaded." in caption
    assert "Uncalibrated: step times" in caption
    assert "Four." not in caption
    ax = Figure().add_subplot()
    sweep_figure._line(ax, sweep, "ttft_p99", "workload.rate_per_s", {}, "#000000")
    (opened,) = [line for line in ax.get_lines() if line.get_markerfacecolor() == "white"]
    assert list(opened.get_xdata()) == [3.0]


def test_interrupted_before_any_trial_ended_it_says_so(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sim.planning.sweep.play_all", interrupted)
    code, out, err = typed(*SWEPT, "--out", "a")
    assert (code, out, err) == (130, "", "interrupted; no trial was finished\n")


def test_the_longest_numbers_go_along_the_axis() -> None:
    swept: dict[str, list[Any]] = {
        "fleet.router": ["random", "round_robin", "least_outstanding", "sticky"][:3],
        "fleet.replicas": [1, 2],
        "workload.rate_per_s": [1, 2, 3],
    }
    sweep = Sweep(Path("a"), loads(TINY, overrides=["claims={}"], swept=swept), [0], [], {})
    assert sweep_figure.facets(sweep) == ["workload.rate_per_s", "fleet.router", "fleet.replicas"]
    assert sweep_table.heading("pools.a.replicas", ["pools.a.replicas", "pools.b.replicas"]) == "a.replicas"
    assert sweep_table.heading("pools.a.replicas", ["pools.a.replicas", "pools.b.hardware"]) == "replicas"


@given(st.lists(st.integers(), unique=True, min_size=1), st.integers(2, 10))
def test_what_is_drawn_of_many_values_keeps_their_order_and_ends(values: list[int], most: int) -> None:
    drawn = sweep_figure.spread(values, most)
    assert len(drawn) == min(most, len(values))
    assert (drawn[0], drawn[-1]) == (values[0], values[-1])
    assert drawn == [value for value in values if value in drawn]


# --- interrupted, and going on --------------------------------------------------------------------------------------


def test_killed_in_the_middle_of_a_line_it_goes_on_and_ends_with_the_same_table(typed: Typed) -> None:
    typed(*SWEPT, "--out", "whole", "--no-figures")
    killed = started(*SWEPT, "--set", "duration=10m", "--out", "a", "--no-figures", "--workers", "1")
    wait_for_trials(Path("a"), 2)
    killed.kill()
    killed.communicate()
    kept = Path("a/trials.jsonl").read_bytes()
    kept = kept[: kept.rindex(b"\n") + 1]
    Path("a/trials.jsonl").write_bytes(kept + kept[:100])  # as a kill in the middle of a write leaves it
    words = [*SWEPT, "--set", "duration=10m", "--no-figures"]
    code, _, err = typed(*words, "--out", "a")
    assert code == 0
    assert err == f"a: of 12 trials it holds {len(kept.splitlines())}; going on\n"
    assert Path("a/trials.jsonl").read_bytes().startswith(kept)  # nothing was played twice
    assert Path("a/trials.jsonl").read_bytes().count(b"\n") == 12
    typed(*words, "--out", "b")
    assert Path("a/table.parquet").read_bytes() == Path("b/table.parquet").read_bytes()
    assert typed(*words, "--out", "a")[2] == "a: of 12 trials it holds all of them\n"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_keeps_what_was_played_and_says_how_to_go_on(typed: Typed) -> None:
    words = [*SWEPT, "--set", "duration=3h", "--out", "a b", "--no-figures"]
    running = started(*words)
    wait_for_trials(Path("a b"), 1)
    assert "another process is playing this sweep" in typed(*words)[2]
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "of 12 trials kept in a b; to go on: " in err
    assert err.rstrip().endswith(f"sweep {' '.join(words[:-3])} --out 'a b' --no-figures")
    assert json.loads(Path("a b/sweep.json").read_text())["state"] == "interrupted"
    assert len(rows("a b")) == Path("a b/trials.jsonl").read_bytes().count(b"\n") < 12


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seeds", "4"], "seeds is 3, here 4"),
        (["--set", "workload.rate_per_s=6"], "workload.rate_per_s is 5.0, here 6.0"),
        (["--vary", "fleet.max_num_seqs=8,16"], "--vary fleet.max_num_seqs is not there, here 8,16"),
    ],
)
def test_a_folder_of_another_sweep_is_refused_with_what_differs(typed: Typed, words: list[str], said: str) -> None:
    typed(*SWEPT, "--out", "a", "--no-figures")
    before = Path("a/sweep.json").read_bytes()
    code, out, err = typed(*SWEPT, *words, "--out", "a")
    assert (code, out) == (2, "")
    assert err == f"a: holds another sweep: {said}; choose another folder with --out\n"
    assert Path("a/sweep.json").read_bytes() == before


def test_a_file_that_changed_under_its_name_makes_another_sweep(typed: Typed) -> None:
    lines = ["arrived_at,num_prefill_tokens,num_decode_tokens", *(f"{t / 5},100,20" for t in range(300))]
    Path("users.csv").write_text("\n".join(lines))
    Path("tiny.yaml").write_text(
        TINY.replace("rate_per_s: 5", "trace: users.csv").replace("{prompt_tokens: 100, output_tokens: 20}", "{}")
    )
    words = ["tiny.yaml", "--vary", "fleet.max_num_seqs=4,8", "--seeds", "2", "--no-figures", "--out", "a"]
    assert typed(*words)[0] == 0
    assert typed(*words)[2] == "a: of 4 trials it holds all of them\n"
    Path("users.csv").write_text("\n".join(lines[:-1]))
    code, _, err = typed(*words)
    assert (code, err) == (
        2, "a: holds another sweep: since then, users.csv changed; choose another folder with --out\n"
    )  # fmt: skip


def test_a_folder_of_something_else_or_a_broken_one_is_refused(typed: Typed) -> None:
    Path("b").mkdir()
    Path("b/mine.txt").touch()
    assert "b: expected a new or an empty folder" in typed(*SWEPT, "--out", "b")[2]
    typed(*SWEPT, "--out", "a", "--no-figures")
    lines = Path("a/trials.jsonl").read_text().splitlines(keepends=True)
    Path("a/trials.jsonl").write_text("".join([lines[0], '{"point": 1}\n', *lines[2:]]))
    code, _, err = typed(*SWEPT, "--out", "a")
    assert (code, err) == (2, "a/trials.jsonl:2: expected a trial as `blowout sweep` wrote it, but it is broken\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "tiny.yaml: nothing varies; expected --vary KEY=VALUES, such as --vary fleet.replicas=1:8"),
        (["--vary", "fleet.replicas=3:1"], "expected a range from the lower value to the higher"),
        (["--vary", "fleet.replica=1:3"], "no such setting; did you mean 'replicas'?"),
        (["--vary", "fleet.replicas=1:3", "--metric", "ttft_p98"], "unknown metric 'ttft_p98', expected one like"),
        (["--vary", "fleet.replicas=1:3", "--metric", "recovery_s"], "unknown metric 'recovery_s'"),
        (["--vary", "fleet.replicas=1:3", "--scheduler", "tcp://a:1"], "--scheduler: expected --executor dask"),
        (
            ["--vary", "fleet.replicas=1:3", "--executor", "dask", "--scheduler", "tcp://a:1", "--workers", "2"],
            "--workers: expected none with --scheduler",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_leaves_nothing(typed: Typed, words: list[str], said: str) -> None:
    code, out, err = typed("tiny.yaml", *words, "--out", "a")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not Path("a").exists()


# --- Dask -----------------------------------------------------------------------------------------------------------

needs_dask = pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="no Dask here")


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a cluster of two workers, on free ports."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as local:  # fmt: skip
        yield str(local.scheduler_address)


@needs_dask
def test_two_dask_workers_give_the_rows_of_the_process_pool(typed: Typed, scheduler: str) -> None:
    typed(*SWEPT, "--out", "here", "--no-figures")
    code, out, err = typed(*SWEPT, "--out", "there", "--no-figures", "--executor", "dask", "--scheduler", scheduler)
    assert (code, err) == (0, "")
    assert "4 points, 3 seeds" in out
    assert Path("here/table.parquet").read_bytes() == Path("there/table.parquet").read_bytes()


@needs_dask
@pytest.mark.slow
def test_without_a_scheduler_a_cluster_of_this_machine_is_started(typed: Typed) -> None:
    typed(*SWEPT, "--out", "here", "--no-figures")
    local = started(*SWEPT, "--out", "there", "--no-figures", "--executor", "dask", "--workers", "2")
    _, err = local.communicate(timeout=240)
    assert (local.returncode, err) == (0, "")
    assert Path("here/table.parquet").read_bytes() == Path("there/table.parquet").read_bytes()


@needs_dask
def test_a_scheduler_that_does_not_answer_is_one_sentence(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.5)
    where = ["--executor", "dask", "--scheduler"]
    code, out, err = typed(*SWEPT, "--out", "a", *where, "tcp://127.0.0.1:9")
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert err.startswith("--scheduler tcp://127.0.0.1:9: no Dask scheduler answered within 0.5 s")
    assert not Path("a").exists()
    code, _, err = typed(*SWEPT, "--out", "a", *where, "127.0.0.1")
    assert code == 2
    assert err.startswith("--scheduler 127.0.0.1: expected an address such as tcp://host:8786")


@needs_dask
def test_a_worker_with_another_blowout_is_refused(
    typed: Typed, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "__version__", "9.9")
    code, _, err = typed(*SWEPT, "--out", "a", "--executor", "dask", "--scheduler", scheduler)
    assert code == 4
    assert "this worker has blowout 0.1.0; expected 9.9, as here, with every worker" in err


@needs_dask
def test_a_scheduler_without_workers_is_one_sentence(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(cluster, "PATIENCE_S", 2.0)
    with LocalCluster(n_workers=0, protocol="tcp://", dashboard_address="127.0.0.1:0", silence_logs=50) as empty:
        code, _, err = typed(*SWEPT, "--out", "a", "--executor", "dask", "--scheduler", str(empty.scheduler_address))
    assert code == 4, err
    assert "has no workers" in err


def test_without_dask_the_sentence_says_how_to_get_it(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, err = typed(*SWEPT, "--out", "a", "--executor", "dask")
    assert code == 2
    assert err.startswith("--executor dask: Dask is not installed; pip install 'blowout[dask]' installs it")


def test_points_of_a_sweep_are_those_of_the_scenario_it_leaves(typed: Typed) -> None:
    typed(*SWEPT, "--out", "a", "--no-figures")
    left = loads(Path("a/scenario.yaml").read_text())
    assert [settings for settings, _ in points(left)] == json.loads(Path("a/sweep.json").read_text())["points"]
