"""``blowout load selftest``: what it says of this machine is measured, and what a poor one would be told."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.proof import told
from loadtest.proof.known import BROKEN
from loadtest.proof.selftest import RATES, Check, Level, Proof, bench
from sim.interrupts import Interrupts
from tests.load_target import typed

GOOD = Level("10 requests/s", 10.0, 80, 80, (1.0, 1.0), (0.001, 0.005), (0.0003, 0.004), (0.0001, 0.003), 4, 80.0, 0,
             [Check("sent", "80", "all", True)])  # fmt: skip
BAD = replace(GOOD, name="200 requests/s", rate_per_s=200.0, checks=[Check("sent late, P50", "9", "3", False)])


def test_failures_are_told_apart() -> None:
    with Interrupts() as interrupts, bench(interrupts) as tried:
        checks = tried.failures()
    assert [check.what for check in checks] == list(BROKEN)
    assert all(check.holds for check in checks), checks


def test_what_is_measured_is_held_against_the_servers_own_stamps() -> None:
    with Interrupts() as interrupts, bench(interrupts) as tried:
        level = tried.rate(20, 3.0)
    assert level.planned == level.sent > 30
    assert level.failed == 0
    assert 0 < level.ttft_error_s[0] <= level.ttft_error_s[1] < 5
    assert 0 <= level.lag_s[0] <= level.lag_s[1]
    assert level.checks[0].holds
    assert 1 <= level.streams <= level.planned


def test_a_machine_is_trusted_as_far_as_it_was_held_and_no_further(capsys: pytest.CaptureFixture[str]) -> None:
    fine = [Check("cut", "truncated (9)", "truncated", True)]
    middle = replace(GOOD, rate_per_s=50.0)
    assert Proof([GOOD, middle], [GOOD], fine).wrong == ""
    poor = Proof([GOOD, BAD], [BAD], fine)
    assert poor.trusted_per_s == 10.0
    assert "up to 10 of 200 requests/s" in poor.wrong
    assert poor.read is None
    assert Proof([BAD, GOOD], [GOOD], fine).trusted_per_s == 0.0
    blind = Proof([GOOD], [GOOD], [Check("cut", "none (9)", "truncated", False)])
    assert "told apart (cut)" in blind.wrong
    told.show(poor)
    shown = capsys.readouterr().out
    assert "sent late, P50" in shown
    assert "blowout load run" in shown


@pytest.mark.slow
def test_the_whole_of_it(tmp_path: Path) -> None:
    done: subprocess.CompletedProcess[str] = typed(["load", "selftest", "--json", "--out", "s"], tmp_path)
    assert done.returncode in (0, 3), done.stderr
    shown = json.loads(done.stdout)
    assert (done.returncode == 0) == shown["valid"]
    assert shown["trusted_per_s"] in (0, *RATES)
    assert [level["rate_per_s"] for level in shown["levels"][: len(RATES)]] == list(RATES)
    assert all(check["holds"] for check in shown["failures"])
    assert (tmp_path / "s" / "send-lag.png").stat().st_size > 10_000
    if not shown["valid"]:
        assert "not to be trusted" in done.stderr.splitlines()[-1]
