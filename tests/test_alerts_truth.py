"""Incidents: found in counters with known answers, read from files, asked in PromQL; and how sure a count can be."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sim.alerts import incidents, sli, users
from sim.alerts.past import Past
from sim.alerts.promql.vectors import Dialect
from sim.alerts.truth import Incident, Spent, Truth, Worth, joined
from sim.errors import InputError
from sim.series import NAME, SeriesSet
from sim.theory.counted import at_most, poisson_rate, wilson

M = 60_000


def stretches(bad: dict[int, float], total: float, budget: float = 0.01, gap: float = 10.0) -> list[tuple[int, int]]:
    """Bad stretches of two hours with *total* requests a minute and *bad* ones in some of them."""
    counts = np.zeros(120)
    for minute, number in bad.items():
        counts[minute] = number
    return list(users.bad_stretches(counts, np.full(120, total), budget, gap))


def during(first: int, last: int, number: float) -> dict[int, float]:
    return dict.fromkeys(range(first, last), number)


def test_an_incident_begins_and_ends_with_its_own_bad_minutes() -> None:
    assert stretches(during(30, 50, 100), 1000) == [(30, 50)]
    assert stretches({37: 1000}, 1000) == [(37, 38)]
    background = during(0, 120, 3)  # 0.3% of 1%: no incident, and no part of one
    assert stretches(background, 1000) == []
    assert stretches(background | during(30, 50, 100), 1000) == [(30, 50)]
    assert stretches(during(110, 120, 100), 1000) == [(110, 120)]


def test_gaps_shorter_than_the_gap_are_bridged() -> None:
    twice = during(30, 35, 500) | during(45, 50, 500)
    assert stretches(twice, 1000) == [(30, 35), (45, 50)]
    assert stretches(twice, 1000, gap=11) == [(30, 50)]


def test_one_bad_request_in_a_quiet_minute_is_no_incident() -> None:
    assert stretches({40: 1}, 10) == []
    assert stretches({40: 1, 80: 1}, 10) == []
    assert stretches({40: 1} | during(46, 50, 10), 10) == [(46, 50)]  # nor does it begin one
    assert stretches({40: 8}, 10) == [(40, 41)]
    assert stretches(during(20, 100, 0.3), 10) == [(20, 100)]  # what is too little for a minute adds up


def test_minutes_of_the_warm_up_do_not_count() -> None:
    bad = np.zeros(60)
    bad[:10] = 500
    assert list(users.bad_stretches(bad, np.full(60, 1000.0), 0.01, 10, first=10)) == []
    assert list(users.bad_stretches(bad, np.full(60, 1000.0), 0.01, 10, first=4)) == [(4, 10)]


@given(st.integers(0, 2**32 - 1), st.sampled_from([3.0, 20.0, 500.0]))
def test_a_service_well_within_its_promise_has_next_to_no_incidents(seed: int, total: float) -> None:
    draws = np.random.default_rng(seed)
    counts = draws.poisson(total, 7 * 1440)
    found = list(users.bad_stretches(draws.binomial(counts, 0.002).astype(float), counts.astype(float), 0.01, 10.0))
    assert len(found) <= 3  # a week; what is left burns far less than a ticket is worth
    assert all(b - a < 30 for a, b in found)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 30), st.floats(0, 1)), max_size=6))
def test_joined_incidents_cover_the_same_time_and_never_overlap(found: list[tuple[int, int, float]]) -> None:
    each = [Incident("", a * M, (a + n) * M, "page", burn, f"o{k}") for k, (a, n, burn) in enumerate(found)]
    made = joined(each)
    assert [one.id for one in made] == [f"i{k}" for k in range(1, len(made) + 1)]
    for before, after in zip(made, made[1:]):
        assert before.end_ms <= after.start_ms
    for minute in range(130):
        inside = [one for one in each if one.start_ms <= minute * M < one.end_ms]
        assert bool(inside) == any(one.start_ms <= minute * M < one.end_ms for one in made)
    assert sum(len(one.objective.split(", ")) for one in made) == len(each)


def test_what_burned_most_is_named_first() -> None:
    (one,) = joined([Incident("", 0, 9 * M, "ticket", 0.01, "slow"), Incident("", 5 * M, 8 * M, "page", 0.3, "errors")])
    assert (one.start_ms, one.end_ms, one.severity, one.burned) == (0, 9 * M, "page", 0.3)
    assert one.objective == "errors, slow"


def test_the_budget_burned_before_a_page() -> None:
    spent = {"errors": Spent(np.arange(0, 11) * M, np.linspace(0, 0.1, 11))}
    truth = Truth((), "", 0, 10 * M, spent=spent)
    one = Incident("i1", 2 * M, 8 * M, "page", 0.06, "errors, slow")
    assert truth.burned_before(one, 5 * M) == pytest.approx(0.03)
    assert truth.burned_before(one, 1 * M) == 0
    assert truth.burned_before(one, 9 * M) == pytest.approx(0.06)
    assert truth.burned_before(Incident("i2", 0, M), 0) is None


def test_faults_are_causes_while_they_were_on() -> None:
    def fault(t_s: float, what: str, name: str) -> dict[str, object]:
        return {"t_s": t_s, "event": f"fault_{what}", "name": name, "target": "chat", "mechanism": "slow"}

    events = [
        fault(60, "begins", "a"),
        fault(90, "begins", "b"),
        fault(120, "ends", "a"),
        {"t_s": 1, "event": "scaled"},
    ]
    assert list(users.faults_on(events, 600)) == [(60, 120, "slow chat"), (90, 600, "slow chat")]


def test_incidents_from_a_file(tmp_path: Path) -> None:
    table = "start,end,severity,id\n1h30m,95m,critical,crash\n60,120.5,,\n"
    table += "2026-05-01T10:00:00Z,2026-05-01T12:30:00+02:00,ticket,\n"
    (tmp_path / "a.csv").write_text(table)
    first, second, third = incidents.read(tmp_path / "a.csv")
    assert first == Incident("i1", 60_000, 120_500)
    assert second == Incident("crash", 5_400_000, 5_700_000)
    assert (third.start_ms, third.end_ms, third.severity) == (1_777_629_600_000, 1_777_631_400_000, "ticket")
    (tmp_path / "a.yaml").write_text("- {start: 1m, end: 2m}\n- start: 1777629600\n  end: 2026-05-01 10:30:00\n")
    assert incidents.read(tmp_path / "a.yaml")[1].end_ms == 1_777_631_400_000
    (tmp_path / "a.json").write_text('[{"start": 60, "end": "2m", "severity": "warning", "id": "x"}]')
    assert incidents.read(tmp_path / "a.json") == [Incident("x", 60_000, 120_000, "ticket")]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.csv",
            "start,end\n1m,2m\n3m,later\n",
            "a.csv:3: end: expected seconds, a duration such as 1h30m, or RFC 3339",
        ),
        ("a.csv", "start,end\n5m,2m\n", "a.csv:2: end: expected a time after start (5m), got 2m"),
        ("a.csv", "start,stop\n5m,2m\n", "a.csv:1: no field 'stop', expected one of start, end, severity, id"),
        ("a.csv", "start\n5m\n", "a.csv:1: end: missing, expected the fields start and end"),
        ("a.csv", "start,end\n5m\n", "a.csv:2: end: expected seconds"),
        ("a.csv", "start,end\n5m,6m,page\n", "a.csv:2: expected 2 fields as in the header, got 3"),
        ("a.csv", "start,end,severity\n5m,6m,high\n", "a.csv:2: severity: expected page or ticket, got 'high'"),
        ("a.csv", "start,end,id\n5m,6m,x\n7m,8m,x\n", "a.csv: two incidents have the id 'x'"),
        ("a.csv", "start,end\n1:30,2h\n", "a.csv:2: start: expected a duration"),
        ("a.csv", "start,end\n", "a.csv: expected incidents, but it lists none"),
        ("a.csv", "", "a.csv:1: start: missing"),
        ("a.yaml", "start: 1m\n", "a.yaml: expected a list of incidents"),
        ("a.yaml", "- {start: 1m, end: 2m}\n- 5\n", "a.yaml:2: expected a mapping with start and end"),
        ("a.yaml", "- {start: 1m, end: [2m]}\n", "a.yaml:1: expected a text or a number"),
        ("a.yaml", "- {start: 1m\n", "not YAML"),
        ("a.json", '[{"start": 60}]', "a.json:1: end: missing"),
    ],
)
def test_a_wrong_file_of_incidents_is_one_sentence(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        incidents.read(tmp_path / name)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def past(tmp_path: Path) -> Past:
    """Four hours of a share of bad requests: 10% from minute 60 to 90 and from 95 to 100, else none."""
    t_ms = np.arange(0, 240 * M, 15_000)
    minute = t_ms / M
    made = SeriesSet()
    bad = ((minute >= 60) & (minute < 90)) | ((minute >= 95) & (minute < 100))
    made.add({NAME: "bad_share"}, t_ms, np.where(bad, 0.1, 0.0))
    made.add({NAME: "asked", "i": "a"}, t_ms, minute)
    made.add({NAME: "asked", "i": "b"}, t_ms, minute)
    made.write(tmp_path / "s.parquet")
    return Past("s.parquet", tmp_path / "s.parquet")


def test_incidents_by_an_expression(past: Past) -> None:
    found = sli.truth(past, sli.expression("bad_share"), 0.99, Worth(), Dialect.PROM_2_42)
    (one,) = found.incidents
    assert (one.start_ms, one.end_ms) == (60 * M, 100 * M)
    assert one.burned == pytest.approx(35 * 0.1 / (0.01 * 30 * 1440))
    assert one.severity == "ticket"
    assert found.burned_before(one, 70 * M) == pytest.approx(10 * 0.1 / (0.01 * 30 * 1440))
    apart = sli.truth(past, sli.expression("bad_share"), 0.99, Worth(ticket=0.001, gap_ms=M), Dialect.PROM_2_42)
    assert len(apart.incidents) == 2
    late = sli.truth(past, sli.expression("bad_share"), 0.99, Worth(ticket=0.0001), Dialect.PROM_2_42, 80 * M)
    assert late.incidents[0].start_ms == 80 * M
    assert not sli.truth(past, sli.expression("bad_share"), 0.5, Worth(), Dialect.PROM_2_42).incidents


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sum(", "--sli: not PromQL at column"),
        ("topk(1, asked)", "--sli: expected PromQL of the subset, got the aggregation topk"),
        ("1", "--sli: expected an expression that reads series"),
        ("asked", "--sli: expected one value at a time, got 2 on s.parquet"),
        ("sum(asked)", "--sli: expected a share of bad requests, from 0 to 1, got 478"),
        ("nothing", "--sli: no series of s.parquet matches nothing"),
    ],
)
def test_a_wrong_expression_is_one_sentence(past: Past, text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        sli.truth(past, sli.expression(text), 0.99, Worth(), Dialect.PROM_2_42)
    assert said in str(error.value)


@given(st.integers(0, 200), st.integers(0, 200))
def test_wilson_contains_the_share_and_narrows(hits: int, more: int) -> None:
    one = wilson(hits, hits + more)
    assert 0 <= one.low <= one.high <= 1
    if hits + more:
        assert one.low <= one.estimate <= one.high
        wide, narrow = wilson(hits, hits + more), wilson(10 * hits, 10 * (hits + more))
        assert narrow.high - narrow.low <= wide.high - wide.low


def test_intervals_agree_with_scipy() -> None:
    theirs = stats.binomtest(7, 20).proportion_ci(method="wilson")
    assert wilson(7, 20)[1:] == pytest.approx((theirs.low, theirs.high))
    assert math.isnan(wilson(0, 0).estimate)
    rate = poisson_rate(7, 2.0)
    assert rate == pytest.approx((3.5, stats.chi2.ppf(0.025, 14) / 4, stats.chi2.ppf(0.975, 16) / 4))
    assert poisson_rate(0, 1.0).low == 0
    assert at_most(0, 4.0) == pytest.approx(3 / 4, rel=0.01)
    with pytest.raises(ValueError, match="hits must be"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="over a time"):
        poisson_rate(1, 0.0)


def test_no_chance_is_the_tail_of_poisson() -> None:
    for bad, expected in ((3, 0.1), (2, 0.1), (20, 8.0), (12, 8.0)):
        assert users.no_chance(bad, expected) == (stats.poisson.sf(bad - 1, expected) < users.CHANCE)
    assert not users.no_chance(0, 0.0)
