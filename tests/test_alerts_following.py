"""Rules that are watched while samples come in say what the same rules say of the whole, however the samples come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.alerts.following import Follower, Transition
from sim.alerts.rulefile import reads
from sim.alerts.rules import Verdict, judge
from sim.series import NAME, STALE, SeriesSet

RULES = """
groups:
- name: fast
  interval: 15s
  rules:
  - {record: "i:bad:ratio", expr: 'rate(bad_total[2m]) / rate(all_total[2m])'}
  - {record: "high", expr: 'level > 0.5'}
  - {alert: Bad, expr: 'i:bad:ratio > 0.4', for: 45s, labels: {severity: page, who: "x {{ $labels.i }}"}}
  - {alert: BadKept, expr: 'i:bad:ratio > 0.4', for: 30s, keep_firing_for: 1m}
  - {alert: Level, expr: 'level > 1.2'}
  - {alert: LevelKept, expr: 'level > 1.5', keep_firing_for: 45s}
  - {alert: Mean, expr: 'avg_over_time(level[3m]) > 0.5 unless on(i) level < 0', for: 1m}
  - {alert: Before, expr: 'level offset 4m > 1', for: 30s}
  - {alert: Absent, expr: 'absent(level{i="0"})', for: 30s}
  - {alert: High, expr: 'count(high) > 1', for: 15s}
  - {alert: Fails, expr: 'level > on() level'}
- name: slow
  interval: 1m
  rules:
  - {alert: Bad2, expr: 'sum(rate(bad_total[5m])) / sum(rate(all_total[5m])) > 0.3', for: 2m}
  - {alert: Other, expr: 'max_over_time(i:bad:ratio[4m]) > 0.5', for: 1m}
"""
GROUPS = reads(RULES, "r.yml")
Said = list[tuple[int, str, tuple[tuple[str, str], ...], str]]


def random_series(seed: int, minutes: int = 60) -> SeriesSet:
    rng = np.random.default_rng(seed)
    t_ms = np.arange(0, minutes * 60_000, 15_000)
    made = SeriesSet()
    for i in range(3):
        share = np.repeat(rng.random(t_ms.size // 20 + 1), 20)[: t_ms.size]
        every = rng.poisson(5, t_ms.size)
        level = np.convolve(rng.normal(0, 2, t_ms.size + 9), np.ones(10) / 5, "valid")
        for name, values in (("all_total", every.cumsum()), ("bad_total", rng.binomial(every, share).cumsum()),
                             ("level", level)):  # fmt: skip
            kept = rng.random(t_ms.size) > 0.05
            samples = values[kept].astype(float)
            ended = rng.random(samples.size) < 0.02
            samples[ended] = STALE[0:1].repeat(int(ended.sum()))
            made.add({NAME: name, "i": str(i)}, t_ms[kept], samples)
    return made


def on_the_whole(held: SeriesSet) -> Said:
    said: Said = []
    for one in judge(GROUPS, held):
        assert one.verdict == Verdict.JUDGED
        for e in one.episodes:
            said.append((e.pending_ms, one.rule.name, e.labels, "pending"))
            if e.firing_ms is not None:
                said.append((e.firing_ms, one.rule.name, e.labels, "firing"))
            if e.ended_ms is not None:
                said.append((e.ended_ms, one.rule.name, e.labels, "inactive" if e.firing_ms is None else "resolved"))
    return sorted(said)


def shown(transitions: list[Transition]) -> Said:
    return sorted((one.t_ms, one.rule.name, one.labels, one.state) for one in transitions)


def piece(held: SeriesSet, after_ms: int, until_ms: int) -> SeriesSet:
    made = SeriesSet()
    for labels, t_ms, values in held:
        low, high = np.searchsorted(t_ms, (after_ms + 1, until_ms + 1))
        made.add(labels, t_ms[low:high], values[low:high])
    return made


@settings(max_examples=8)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 1_500), min_size=1, max_size=40))
def test_in_pieces_of_any_size_it_says_what_is_said_of_the_whole(seed: int, seconds: list[int]) -> None:
    held = random_series(seed, minutes=40)
    whole = on_the_whole(held)
    follower = Follower(GROUPS, held.span_ms[0])
    last, end, found = -1, held.span_ms[1], []
    for step in [*seconds, 10_000]:
        until = min(last + step * 1000, end)
        follower.add(piece(held, last, until))
        found += follower.advance(until)
        last = until
    assert shown(found) == whole
    assert {state for *_, state in whole} == {"pending", "firing", "resolved", "inactive"}


def test_only_what_is_still_read_is_kept() -> None:
    held = random_series(3, minutes=240)
    follower = Follower(GROUPS)
    follower.add(held)
    follower.advance(held.span_ms[1])
    longest = 5 * 60_000 + 5 * 60_000 + 4 * 60_000  # lookback, range, offset
    first = min(int(times[0][0]) for times, _ in follower._held.values())
    assert first >= held.span_ms[1] - longest - 60_000


def test_one_scrape_at_a_time_and_what_could_not_be_judged() -> None:
    text = """
groups:
- name: g
  interval: 15s
  rules:
  - {alert: Up, expr: x > 1, for: 30s}
  - {alert: Typo, expr: nothing > 1}
  - {alert: Odd, expr: 'sum(irate(x[5m])) > 1'}
  - {record: "y", expr: 'x * 2'}
"""
    follower = Follower(reads(text, "r.yml"))
    found = []
    for t_ms in range(0, 120_000, 15_000):
        follower.scraped(t_ms, [({NAME: "x"}, 2.0 if t_ms < 90_000 else 0.0), ({NAME: "y"}, 1.0), ({NAME: "z"}, 1.0)])
        found += follower.advance(t_ms)
        if t_ms == 30_000:
            assert [(rule.name, state) for rule, _, state in follower.active] == [("Up", "firing")]
    assert [(one.t_ms, one.state) for one in found] == [(0, "pending"), (30_000, "firing"), (90_000, "resolved")]
    assert follower.unjudged.keys() == {"Typo", "Odd"}
    assert follower.unjudged["Typo"] == "no series is called nothing"


@pytest.mark.parametrize("start_ms", [0, 7_000, 1_700_000_000_123])
def test_evaluations_are_at_multiples_of_the_interval(start_ms: int) -> None:
    text = "groups: [{name: g, interval: 15s, rules: [{alert: A, expr: vector(1)}]}]"
    (pending, firing) = Follower(reads(text, "r.yml"), start_ms).advance(start_ms + 20_000)
    assert pending.t_ms == firing.t_ms == start_ms // 15_000 * 15_000
