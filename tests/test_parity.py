"""The same rows, to the last bit, however the fleet is played: in one call or many, leaping or step by step."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.engine import state
from sim.engine.fleet import PoolConfig
from sim.engine.latency import linear
from sim.engine.play import play as play_kernel
from sim.records import PARTS
from tests.playing import requests
from tests.swarm import Case, Played, build, cases, play

CUTS = st.lists(st.floats(0, 1), max_size=40)


def differences(a: Played, b: Played) -> list[str]:
    """Where the rows of two plays differ, for a failure that can be read."""
    names = [name for name in a.rows.dtype.names or () if len(a.rows) != len(b.rows) or
             a.rows[name].tobytes() != b.rows[name].tobytes()]  # fmt: skip
    return [f"{name}: {a.rows[name].tolist()} and {b.rows[name].tolist()}" for name in names[:3]]


@given(case=cases(), cuts=CUTS, chunk=st.integers(1, 40))
def test_in_one_call_or_in_pieces(case: Case, cuts: list[float], chunk: int) -> None:
    """Neither when the fleet is advanced nor in what portions users come leaves a trace in the rows."""
    whole, pieces = play(case), play(case, cuts=cuts, chunk=chunk)
    assert whole.bytes() == pieces.bytes(), differences(whole, pieces)


@given(case=cases(), warmup=st.sampled_from([0.0, 0.1, 0.5]))
def test_leaping_or_step_by_step(case: Case, warmup: float) -> None:
    """A stretch of alike steps played at once is what its steps are one by one, whatever cuts it short."""
    leaping, walking = (play(case, leap=leap, warmup_s=warmup * case.busy_s) for leap in (True, False))
    assert leaping.bytes() == walking.bytes(), differences(leaping, walking)
    assert leaping.fleet.w[0].steps == walking.fleet.w[0].steps
    for a, b in zip(leaping.looks, walking.looks, strict=True):
        assert a.tobytes() == b.tobytes()
    itl = leaping.fleet.latency[:, state.ITL], walking.fleet.latency[:, state.ITL]
    assert (itl[0] == itl[1]).all(), np.argwhere(itl[0] != itl[1])


def test_a_warm_up_that_ends_within_a_stretch() -> None:
    """Of the steps of one answer those count that end after the warm-up, at whatever length of stretches."""
    one = PoolConfig(linear(8, 64, 0.01), replicas=1, blocks=1000, max_seqs=8, max_tokens=64)
    case = Case((one,), requests(np.zeros(1), np.array([1000])), 60.0, 60.0)
    leaping, walking = (play(case, leap=on, warmup_s=5.005).fleet.latency[:, state.ITL] for on in (True, False))
    assert (leaping == walking).all()
    assert leaping.sum() == 500


# --- with and without the compiler ------------------------------------------------------------------------------------

# Small cases that between them use every feature.
SMALL = [
    (2, ("commands", "replicas", "table", "timeout")),
    (6, ("blocks", "priorities", "sessions", "travel", "noise")),
    (0, ("blocks", "first_chunk_only", "budget", "priorities", "commands")),
    (28, ("circle", "noise", "watermark", "pools")),
    (26, ("seats", "whole_prompts", "long_answers", "commands")),
    (1, ("retries", "timeout", "hedging", "admission", "routers", "replicas", "seats")),
    (10, ("patience", "caching", "faults", "zombies", "sessions", "priorities", "blocks")),
]
PRINT = "from tests.test_parity import print_digests; print_digests()"


def small_cases() -> list[Case]:
    cases = [build(seed, set(on), 20) for seed, on in SMALL]
    return [replace(case, end_s=min(case.end_s, 5.0)) for case in cases]


def digest(case: Case) -> str:
    played = play(case, cuts=[0.2, 0.5, 0.9])
    return hashlib.sha256(played.bytes() + b"".join(look.tobytes() for look in played.looks)).hexdigest()


def print_digests() -> None:
    """Play the small cases and print what came of them (in a process without the compiler)."""
    assert not hasattr(play_kernel, "signatures")
    print("\n".join(digest(case) for case in small_cases()))


def test_the_small_cases_are_worth_it() -> None:
    """Between them they end in every way, preempt, and recompute."""
    rows = np.concatenate([play(case).rows for case in small_cases()])
    assert set(rows["outcome"].tolist()) == set(range(6))
    assert rows["preemptions"].sum() > 10
    for part in PARTS:
        assert rows[part].max() > 0, part
    assert rows["hedge"].any()
    assert rows["cached_tokens"].any()
    assert not rows["last"].all()


def test_without_the_compiler(root: Path) -> None:
    """The same Python, interpreted: slow, for debugging and for coverage, and the same to the last bit."""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PRINT], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [digest(case) for case in small_cases()]
