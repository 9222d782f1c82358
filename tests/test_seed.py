"""The article's claims: one rule for verdicts, arithmetic that must come out, and the command as a user types it."""

import json
import math
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sim.cli import blowout, main
from sim.quality import latent
from sim.seed import agents, alerting, arithmetic, examine, figures, page, pattern, played, seeing, told
from sim.seed.lab import Lab
from sim.seed.table import CLAIMS, PARTS
from sim.seed.verdicts import Check, Found, Twice, Verdict, decide, exact
from sim.theory.chance import Interval

FINITE = st.floats(-1e6, 1e6)
TRIPLES = st.tuples(FINITE, FINITE, FINITE).map(lambda x: Interval(sorted(x)[1], sorted(x)[0], sorted(x)[2]))
SEED = Path(__file__).resolve().parents[1] / "results" / "seed"


@given(TRIPLES, FINITE)
def test_a_number_holds_if_the_interval_contains_it(found: Interval, said: float) -> None:
    assert Check("", found, said, said).holds == (found.low <= said <= found.high)


@given(TRIPLES, FINITE, FINITE, st.floats(0, 1e6))
def test_a_range_holds_if_the_whole_interval_is_inside_and_a_wider_one_does_too(
    found: Interval, a: float, b: float, more: float
) -> None:
    low, high = min(a, b), max(a, b) + 1
    holds = Check("", found, low, high).holds
    assert (holds is True) == (low <= found.low and found.high <= high)
    assert (holds is False) == (found.high < low or high < found.low)
    assert not holds or Check("", found, low - more, high + more).holds


@given(st.lists(st.booleans(), max_size=6))
def test_the_verdict_counts_checks_and_nothing_else(held: list[bool]) -> None:
    checks = [Check("", exact(1.0), 1, 1) if holds else Check("", exact(2.0), 1, 1) for holds in held]
    verdict = decide(checks)
    assert verdict == decide(checks[::-1])
    if not held:
        assert verdict == Verdict.NOT_SIMULABLE
    elif all(held):
        assert verdict == Verdict.RIGHT
    else:
        assert verdict == (Verdict.LOOSE if any(held) else Verdict.WRONG)


WELL, BADLY = Check("", exact(1.0), 0, 2), Check("", exact(3.0), 0, 2)
OPEN = Check("late", Interval(4.0, 3.0, 9.0), 3.5, 100, "times")
"""Its interval holds 3.5, half a unit from the estimate, which is one from the lower end: four times the seeds."""


@given(st.lists(st.sampled_from([WELL, BADLY, OPEN]), min_size=1, max_size=6))
def test_a_verdict_that_hangs_on_an_open_check_is_not_decided(checks: list[Check]) -> None:
    """And one that does not is what it is, however the open ones would be decided."""
    kinds = {id(check) for check in checks}
    hangs = id(OPEN) in kinds and not {id(WELL), id(BADLY)} <= kinds
    found = Found(checks, "because")
    assert (found.verdict == Verdict.UNDECIDED) == hangs
    assert not hangs or found.headline is OPEN
    for other in (WELL, BADLY):
        settled = decide([other if check is OPEN else check for check in checks])
        assert hangs or settled == found.verdict


def test_what_is_not_decided_says_how_many_seeds_would_decide_it() -> None:
    found = Found([WELL, OPEN], "because")
    said = "the interval holds the limit, 3.50x; about 4.0 times as many seeds would decide it, if the estimate stays."
    assert told.undecided(found) == f"Not decided: {said}"
    nothing = Found([Check("late", Interval(4.0, math.nan, math.nan), 3.5, 100, "times")], "because")
    assert told.undecided(nothing) == "Not decided: there is no interval."
    assert told.counted({1: found, 2: Found([WELL], "")}) == "1 right, 0 loose, 0 wrong, 0 not simulable, 1 not decided"
    assert examine.changed({39: found}) == []
    assert examine.undecided({39: found}) == [39]
    assert told.undecided(Found([Check("", Interval(2.0, 1.0, 3.0), 2, 9)], "")).endswith("limit, 2.")
    text = page.readme({39: found}, [], fast=False)
    assert f"**not decided** | **4x [3x, 9x]** late. Not decided: {said} because |" in text
    assert told.as_json({39: found}, False)["claims"][0]["why"] == f"Not decided: {said} because"


def test_a_command_that_cannot_decide_says_so_and_is_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {n: Found([OPEN] if n == 39 else [WELL], "", {}) for n in CLAIMS}
    monkeypatch.setattr("sim.seed.examine.examine", lambda fast, done: found)
    monkeypatch.setattr("sim.seed.examine.changed", lambda found: [])
    monkeypatch.setattr("sim.seed.page.write", lambda found, out, fast: None)
    result = CliRunner().invoke(blowout, ["reproduce", "--out", str(tmp_path)], standalone_mode=False)
    assert result.return_value == 3
    assert "claim 39: Not decided: the interval holds the limit, 3.50x; about 4.0 times" in result.stderr
    assert "1 not decided" in result.stdout


def test_the_figure_of_a_bad_replica_says_one_number_everywhere() -> None:
    """Its labels are the medians of ratios, seed by seed, as the title and the claim say; not ratios of medians."""
    import matplotlib.pyplot as plt

    ratios = {"p50": 1.01, "p95": 1.03, "p99": 12814.0}
    data = {stat: (ratio, ratio, ratio) for stat, ratio in ratios.items()}
    data |= {f"{stat}_{when}": (t, t, t) for stat in ratios for when, t in (("before", 0.02), ("after", 258.0))}
    plate = figures.plates({35: Found([], "", data)})[0]
    drawn = plate.draw()
    texts = {text.get_text() for ax in drawn.axes for text in ax.texts}
    plt.close(drawn)
    assert "P99 is 12,814 times" in plate.title
    assert {"P99  x 12,814", "P95  x 1.03", "P50  x 1.01"} <= texts


def test_there_are_57_claims_each_measured_once() -> None:
    assert sorted(CLAIMS) == list(range(1, 58))
    assert sum(map(len, PARTS.values())) == 57
    from importlib import import_module

    measured = [number for kind in examine.KINDS for number in import_module(f"sim.seed.{kind}").MEASURES]
    assert sorted(measured) == sorted(CLAIMS)


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        (arithmetic.a_minute, 1e5 / 1440),  # 69.4
        (arithmetic.a_day, 1e5),
        (agents.five, 0.95**5),  # 0.77378
        (agents.ten, 1 - 0.99**10),  # 9.56%
        (arithmetic.tested, 0.99),
    ],
)
def test_the_sampled_interval_contains_what_arithmetic_says(measure: object, value: float) -> None:
    found = measure(Lab(fast=True)).checks[0].found  # type: ignore[operator]
    assert found.low < value < found.high
    assert found.high - found.low < 0.1 * value


def test_a_million_are_wrong_at_ten_and_with_quiet_nights_after_noon() -> None:
    flat, day = (check.found for check in arithmetic.before_noon(Lab(fast=True)).checks)
    assert flat.low <= 10 + 1 / 60
    assert flat.high >= 10
    assert abs(flat.estimate - 10) < 0.02
    assert 13.8 < day.low <= day.high < 13.9


def test_what_is_drawn_is_the_same_every_time() -> None:
    assert agents.five(Lab()).checks == agents.five(Lab()).checks


def test_a_rule_on_quality_needs_eleven_times_the_errors() -> None:
    (check,) = alerting.quality(Lab()).checks
    assert check.found.estimate == pytest.approx(10.9)
    assert alerting.quality(Lab()).verdict == Verdict.WRONG


@pytest.mark.parametrize("kind", [arithmetic, agents, pattern, seeing])
def test_verdicts_are_those_that_are_expected(kind: object) -> None:
    lab = Lab(fast=True)
    for number, measure in kind.MEASURES.items():  # type: ignore[attr-defined]
        assert measure(lab).verdict == CLAIMS[number].expected, number


@given(TRIPLES, FINITE)
def test_a_formula_outside_of_what_was_played_needs_a_reason(played: Interval, formula: float) -> None:
    bare, known = Twice("", formula, played, "x"), Twice("", formula, played, "x", differs="queues")
    inside = played.low <= formula <= played.high
    assert bare.agrees == known.agrees == inside
    assert bare.as_said == (inside or played.low == played.high)  # one seed cannot tell
    assert known.as_said
    apart = examine.disagree({39: Found([], "because", twice=[bare, known])})
    assert apart == ([] if bare.as_said else [(39, bare)])


def test_the_committed_page_has_both_numbers_of_every_scenario_that_was_played() -> None:
    claims = json.loads((SEED / "claims.json").read_text())["claims"]
    both = [one for claim in claims for one in claim["twice"]]
    assert {one["scenario"] for one in both} >= {
        "agent-compounding", "silent-cohort", "canary-gate", "misrouting", "quality-breaker", "load-coupled-quality",
        "confidence-gate", "review-team",
    }  # fmt: skip
    for one in both:
        assert one["low"] <= one["formula"] <= one["high"] or one["differs"], one


def test_formulas_of_gates_are_those_of_samples() -> None:
    drawn = latent.draw(np.random.default_rng(1), 1_000_000, 0.99, 2.0)
    wrong = ~drawn.correct
    for limit in (0.03, 0.8):
        assert played._caught(0.99, 2.0, limit) == pytest.approx((drawn.p[wrong] < limit).mean(), abs=0.02)


def test_what_a_seed_says_is_found_by_point() -> None:
    tiny = "agent-compounding"
    found = Lab(fast=True).values(tiny, ["requests[1]", "requests[2]"], ["duration=10s"])
    assert found["requests[1]"].shape == (1,)
    assert found["requests[2]"][0] > 0
    assert Lab().interval(np.array([2.0])) == Interval(2.0, 2.0, 2.0)
    assert Lab().interval(np.array([1.0, 2.0, 3.0])).low < 1


def test_a_verdict_that_changed_is_named() -> None:
    found = {39: Found([Check("", exact(2.0), 1, 1)], "because")}
    assert examine.changed(found) == [39]


def test_numbers_are_said_with_their_units() -> None:
    assert told.estimate(Check("", Interval(0.5, 0.25, 0.75), 0, 1, "share")) == "50% [25%, 75%]"
    assert told.estimate(Check("", exact(2.0), 2, 2, "times")) == "2x"
    assert told.wanted(Check("", exact(2.0), 2, math.inf, "times")) == "at least 2x"


def test_the_committed_page_has_every_claim_and_the_expected_verdicts() -> None:
    claims = json.loads((SEED / "claims.json").read_text())["claims"]
    assert [(c["number"], c["verdict"]) for c in claims] == [(n, c.expected.value) for n, c in sorted(CLAIMS.items())]
    text = (SEED / "README.md").read_text()
    for claim in CLAIMS.values():
        assert f"| {claim.number} | {claim.says} |" in text
    for name in page.INSTEAD:
        assert f"figures/{name}.png" in text
        assert (SEED / "figures" / f"{name}.png").stat().st_size > 5000


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(blowout, ["reproduce", "--out", str(tmp_path / "file" / "below")])
    assert "cannot be written" in str(result.exception)


@pytest.mark.slow
def killed(name: str, fast: bool) -> dict[int, Found]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, processes that are not forked know nothing of this")
def test_a_process_that_was_killed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(examine, "PLAYS", {})
    monkeypatch.setattr(examine, "_kind", killed)
    with pytest.raises(SystemExit) as end:
        main(["reproduce", "--fast", "--out", str(tmp_path / "seed")])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (3, "")
    assert err.splitlines()[-1].startswith("some claims were not measured: whoever played it was killed or is gone")


def test_all_of_it_as_a_user_types_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        blowout, ["reproduce", "--fast", "--out", str(tmp_path), "--json"], standalone_mode=False
    )
    assert result.exception is None
    assert result.return_value == 0
    assert len(json.loads(result.stdout)["claims"]) == 57
    assert len(list((tmp_path / "figures").glob("*.png"))) == len(page.INSTEAD)
