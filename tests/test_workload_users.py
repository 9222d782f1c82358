"""The same users whatever the settings: what one choice decides, no other choice moves."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sim import workload
from sim.errors import ScenarioError
from sim.records import REQUEST
from sim.scenario import Scenario, loads
from sim.workload.sessions import ASK_FOR_MORE, TURNS_MAX

ALPHA = 1e-3
CHAT = {"prompt_tokens": {"lognormal": {"median": 300, "sigma": 0.7}}, "output_tokens": {"exponential": {"mean": 200}}}
CODE = {"prompt_tokens": {"gamma": {"mean": 2000, "cv": 0.9}}, "output_tokens": {"empirical": {"values": [8, 16, 32]}}}


def scenario(duration: Any = "10m", pools: dict[str, Any] | None = None, **users: Any) -> Scenario:
    pools = pools or {"big": {"model": "m", "hardware": "h"}, "small": {"model": "m", "hardware": "h"}}
    users = {"cohorts": {"chat": CHAT}, **users}
    return loads(json.dumps({"name": "x", "duration": duration, "fleet": {"pools": pools}, "workload": users}))


def joined(users: workload.Workload, size: int = workload.CHUNK) -> np.ndarray:
    """All rows; ``follow_up`` becomes the distance to the next turn, which does not depend on the chunk."""
    chunks = [np.zeros(0, REQUEST)]
    for chunk in users.chunks(size):
        chunk = chunk.copy()
        chunk["follow_up"] -= np.where(chunk["follow_up"] >= 0, np.arange(len(chunk)), 0)
        chunks.append(chunk)
    return np.concatenate(chunks)


def rows(duration: Any = "10m", seed: int = 1, **users: Any) -> np.ndarray:
    return joined(workload.compile(scenario(duration, **users), seed))


def same(left: np.ndarray, right: np.ndarray, *fields: str) -> None:
    for field in fields:
        np.testing.assert_array_equal(left[field], right[field], err_msg=field)


BASE: dict[str, Any] = {
    "rate_per_s": 8.0,
    "cohorts": {
        "chat": {**CHAT, "share": 0.6, "error": 0.05, "prefix": {"groups": 4, "tokens": 200}},
        "code": {**CODE, "share": 0.4, "error": 0.01, "priority": 2, "pool": "small"},
    },
}


def with_cohort(name: str, **change: Any) -> dict[str, Any]:
    return {**BASE, "cohorts": {**BASE["cohorts"], name: {**BASE["cohorts"][name], **change}}}


def test_a_rate_sweep_plays_the_same_users_sooner() -> None:
    slow, fast = rows(**BASE), rows(**{**BASE, "rate_per_s": 9.6})
    n = len(slow)
    assert len(fast) > n
    np.testing.assert_allclose(slow["scheduled_s"] * 8.0, fast["scheduled_s"][:n] * 9.6)
    same(slow, fast[:n], *(name for name in REQUEST.names if name != "scheduled_s"))


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (with_cohort("chat", output_tokens=7), {"output_tokens"}),
        (with_cohort("chat", prompt_tokens=900), {"prompt_tokens", "prefix", "prefix_tokens"}),
        (with_cohort("code", error=0.5), {"wrong"}),
        (with_cohort("code", priority=0), {"level"}),
        (with_cohort("code", pool="big"), {"pool"}),
        (with_cohort("code", prefix={"groups": 2, "tokens": 9}), {"prefix", "prefix_tokens"}),
        ({**BASE, "arrivals": {"gamma": {"cv": 2.0}}}, {"scheduled_s"}),
        ({**BASE, "arrivals": {"diurnal": {"peak_to_mean": 2.0}}}, {"scheduled_s"}),
        ({**BASE, "arrivals": {"bursts": {"rate_per_s": 16, "mean_on": 5, "mean_off": 20}}}, {"scheduled_s"}),
    ],
)
def test_changing_one_setting_moves_only_what_it_decides(change: dict[str, Any], moved: set[str]) -> None:
    before, after = rows("2m", **BASE), rows("2m", **change)
    n = min(len(before), len(after))
    assert {name for name in REQUEST.names if (before[name][:n] != after[name][:n]).any()} == moved
    if "scheduled_s" not in moved:
        assert len(before) == len(after)


def test_more_errors_keep_the_wrong_answers_that_were_there() -> None:
    few, many = rows(**with_cohort("chat", error=0.02)), rows(**with_cohort("chat", error=0.04))
    assert (many["wrong"] >= few["wrong"]).all()
    assert many["wrong"].sum() > few["wrong"].sum()


def test_the_fleet_does_not_change_the_users() -> None:
    one = {"big": {"model": "m", "hardware": "h"}, "small": {"model": "m", "hardware": "h"}}
    other = {name: {**pool, "replicas": 50, "kv_blocks": 9} for name, pool in one.items()}
    np.testing.assert_array_equal(rows(pools=one, **BASE), rows(pools=other, **BASE))


def test_seeds_differ_and_one_seed_repeats() -> None:
    np.testing.assert_array_equal(rows(seed=3, **BASE), rows(seed=3, **BASE))
    assert (rows(seed=3, **BASE)["prompt_tokens"][:50] != rows(seed=4, **BASE)["prompt_tokens"][:50]).any()


def test_sessions_do_not_change_who_comes_first() -> None:
    single = rows(**BASE)
    session = rows(**BASE, sessions={"turns": {"exponential": {"mean": 3}}, "think": 20})
    first = session[session["turn"] == 0]
    same(single, first, "scheduled_s", "cohort", "pool", "level", "prompt_tokens", "output_tokens", "wrong", "prefix")
    longer = rows(**BASE, sessions={"turns": {"exponential": {"mean": 6}}, "think": 20, "carry": False})
    short = rows(**BASE, sessions={"turns": {"exponential": {"mean": 3}}, "think": 10, "carry": False})
    index = {(s, t): i for i, (s, t) in enumerate(zip(longer["session"].tolist(), longer["turn"].tolist()))}
    shared = longer[[index[key] for key in zip(short["session"].tolist(), short["turn"].tolist())]]
    same(shared, short, "prompt_tokens", "output_tokens", "wrong", "cohort")
    later = short["turn"] > 0
    np.testing.assert_allclose(shared["scheduled_s"][later], 2 * short["scheduled_s"][later])


WORKLOADS = {
    "single": BASE,
    "diurnal": {**BASE, "arrivals": {"diurnal": {"peak_to_mean": 1.7, "peak_at": 0}}},
    "conversations": {**BASE, "sessions": {"turns": {"exponential": {"mean": 4}}, "think": "10s"}},
    "closed": {"cohorts": BASE["cohorts"], "arrivals": {"closed": {"users": 37, "think": "5s"}}},
}


@settings(max_examples=25)
@given(st.sampled_from(list(WORKLOADS)), st.integers(1, 9000), st.integers(0, 2**63 - 1))
def test_the_chunk_size_changes_nothing(kind: str, size: int, seed: int) -> None:
    users = workload.compile(scenario("5m", **WORKLOADS[kind]), seed)
    np.testing.assert_array_equal(joined(users, size), joined(users))


@pytest.mark.parametrize("kind", list(WORKLOADS))
@pytest.mark.parametrize("size", [1, 50, 65_536])
def test_every_chunk_can_be_played(kind: str, size: int) -> None:
    users = workload.compile(scenario("2m", **WORKLOADS[kind]), 2)
    last_s, seen = -1.0, []
    for chunk in users.chunks(size):
        assert chunk.dtype == REQUEST
        follow_up = chunk["follow_up"]
        named = follow_up[follow_up >= 0]
        assert len(set(named.tolist())) == len(named)
        assert (named < len(chunk)).all()
        later = np.zeros(len(chunk), bool)
        later[named] = True
        assert ((chunk["turn"] > 0) == later).all()
        has_next = follow_up >= 0
        assert (chunk["session"][has_next] == chunk["session"][follow_up[has_next]]).all()
        assert (chunk["turn"][has_next] + 1 == chunk["turn"][follow_up[has_next]]).all()
        roots = chunk["scheduled_s"][~later]
        assert roots[0] >= last_s
        assert (np.diff(roots) >= 0).all()
        assert (chunk["scheduled_s"] >= 0).all()
        last_s = roots[-1]
        assert roots[-1] < 120
        assert (chunk["prompt_tokens"] >= 1).all()
        assert (chunk["output_tokens"] >= 1).all()
        assert (chunk["prompt_tokens"] <= users.max_prompt_tokens).all()
        assert (chunk["output_tokens"] <= users.max_output_tokens).all()
        assert (chunk["prefix_tokens"] < chunk["prompt_tokens"]).all()
        assert (chunk["cohort"][chunk["prefix"] >= 0] == 0).all()
        seen += chunk["request"].tolist()
    assert len(set(seen)) == len(seen)
    if kind in ("single", "diurnal"):
        assert seen == list(range(len(seen)))


def test_cohorts_come_as_often_as_their_share_and_carry_what_they_say() -> None:
    shares = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
    cohorts = {
        name: {"share": share, "prompt_tokens": i + 1, "output_tokens": 10 * (i + 1), "error": i * 0.1, "priority": i}
        for i, (name, share) in enumerate(shares.items())
    }
    found = rows("1h", rate_per_s=10.0, cohorts=cohorts)
    counts = np.bincount(found["cohort"], minlength=4)
    assert stats.chisquare(counts, np.array(list(shares.values())) * len(found)).pvalue > ALPHA
    np.testing.assert_array_equal(found["prompt_tokens"], found["cohort"] + 1)
    np.testing.assert_array_equal(found["output_tokens"], 10 * (found["cohort"] + 1))
    np.testing.assert_array_equal(found["level"], found["cohort"])
    for i in range(4):
        wrong = found["wrong"][found["cohort"] == i]
        assert stats.binomtest(int(wrong.sum()), len(wrong), i * 0.1).pvalue > ALPHA


def test_prefix_groups_are_numbered_through_the_cohorts_and_used_alike() -> None:
    cohorts = {
        "a": {**CHAT, "share": 0.5, "prefix": {"groups": 3, "tokens": 100}},
        "b": {**CHAT, "share": 0.2},
        "c": {**CHAT, "share": 0.3, "prefix": {"groups": 2, "tokens": 50}},
    }
    found = rows("1h", rate_per_s=5.0, cohorts=cohorts)
    for cohort, groups in ((0, {0, 1, 2}), (1, {-1}), (2, {3, 4})):
        mine = found[found["cohort"] == cohort]
        assert set(mine["prefix"].tolist()) == groups | {-1}
        drawn = mine["prefix"][mine["prefix"] >= 0]
        assert not len(drawn) or stats.chisquare(np.unique(drawn, return_counts=True)[1]).pvalue > ALPHA
    a = found[found["cohort"] == 0]
    np.testing.assert_array_equal(a["prefix_tokens"], np.where(a["prompt_tokens"] > 100, 100, 0))


def test_a_conversation_carries_what_was_said() -> None:
    turns = {"turns": {"exponential": {"mean": 5}}, "think": "30s"}
    alone = rows("1h", rate_per_s=0.5, sessions={**turns, "carry": False})
    carried = rows("1h", rate_per_s=0.5, sessions=turns)
    same(alone, carried, "request", "session", "turn", "scheduled_s", "output_tokens", "follow_up", "wrong")
    said = 0
    for new, row in zip(alone, carried):
        said = said if row["turn"] else 0
        assert row["prompt_tokens"] == said + new["prompt_tokens"]
        said = row["prompt_tokens"] + row["output_tokens"]
    thought = carried["scheduled_s"][carried["turn"] > 0]
    assert stats.kstest(thought, stats.expon(scale=30.0).cdf).pvalue > ALPHA
    turns_of = np.bincount(carried["session"])
    assert turns_of.mean() == pytest.approx(5.0, abs=4 * turns_of.std() / math.sqrt(len(turns_of)))
    np.testing.assert_allclose(np.bincount(turns_of)[1:4] / len(turns_of), [0.2, 0.16, 0.128], atol=0.04)


@pytest.mark.parametrize(("limit", "known"), [(2000, None), (None, {"big": 2000})])
def test_a_conversation_that_outgrows_the_context_drops_its_oldest(limit: int | None, known: Any) -> None:
    pools = {"big": {"model": "m", "hardware": "h", **({"max_model_len": limit} if limit else {})}}
    chat = {"prompt_tokens": {"gamma": {"mean": 200, "cv": 1, "max": 900}}, "output_tokens": 150}
    users = {"rate_per_s": 0.2, "sessions": {"turns": 20, "think": 1}, "cohorts": {"chat": chat}}
    found = joined(workload.compile(scenario("10m", pools, **users), 1, known))
    free = rows("10m", **users)
    np.testing.assert_array_equal(found["prompt_tokens"], np.minimum(free["prompt_tokens"], 2000 - 150))
    assert (found["prompt_tokens"] + found["output_tokens"]).max() == 2000


def test_no_conversation_is_endless() -> None:
    found = rows(10, rate_per_s=1.0, sessions={"turns": 10**8, "think": 1, "carry": False})
    assert found["turn"].max() == TURNS_MAX - 1


def test_expected_requests_counts_the_turns() -> None:
    users = workload.compile(
        scenario("2h", rate_per_s=1.0, sessions={"turns": {"exponential": {"mean": 4}}, "think": 1}), 1
    )
    assert users.expected_requests == pytest.approx(4 * 7200, rel=1e-3)
    assert len(joined(users)) == pytest.approx(4 * 7200, rel=0.1)


def test_a_closed_circle_asks_on_for_ever_and_the_order_of_asking_does_not_matter() -> None:
    closed = {"arrivals": {"closed": {"users": 200, "think": "20s"}}}
    users, others = (workload.compile(scenario("10m", **closed), 3) for _ in range(2))
    first, again = (next(u.chunks()) for u in (users, others))
    np.testing.assert_array_equal(first, again)
    assert set(first["session"].tolist()) == set(range(200))
    begin = first[first["turn"] == 0]
    assert stats.kstest(begin["scheduled_s"], stats.expon(scale=20.0).cdf).pvalue > ALPHA

    later = {s: users.more(np.array([s])) for s in (5, 9, 7)}
    together = others.more(np.array([7, 5]))
    length = len(later[5])
    np.testing.assert_array_equal(together[:length]["scheduled_s"], later[7]["scheduled_s"])
    same(together[length:], later[5], "request", "session", "turn", "scheduled_s", "prompt_tokens", "output_tokens")
    for script in (*later.values(), first[first["session"] == 5]):
        assert script["follow_up"][-1] == ASK_FOR_MORE
        assert (script["follow_up"][:-1] > 0).all()
        np.testing.assert_array_equal(script["turn"], script["turn"][0] + np.arange(len(script)))
    assert later[5]["turn"][0] == first["turn"][first["session"] == 5].max() + 1
    np.testing.assert_array_equal(users.more(np.array([5]))["turn"], length + later[5]["turn"])
    thought = np.concatenate([first["scheduled_s"], later[5]["scheduled_s"]])
    assert stats.kstest(thought, stats.expon(scale=20.0).cdf).pvalue > ALPHA


def test_closed_users_who_never_begin_are_left_out() -> None:
    found = rows(10, arrivals={"closed": {"users": 1000, "think": "100s"}})
    began = len(set(found["session"].tolist()))
    assert stats.binomtest(began, 1000, 1 - math.exp(-0.1)).pvalue > ALPHA
    assert len(workload.compile(scenario(rate_per_s=1.0), 1).more(np.array([3]))) == 0


@pytest.mark.parametrize(
    ("name", "said"), [("azure-conv-promt", "did you mean 'azure-conv-prompt'?"), ("x", "mooncake-conv-output")]
)
def test_an_unknown_distribution_is_refused_with_those_that_ship(name: str, said: str) -> None:
    cohorts = {"chat": {"prompt_tokens": {"named": name}, "output_tokens": 5}}
    with pytest.raises(ScenarioError, match=r"^workload\.cohorts\.chat\.prompt_tokens: ") as refusal:
        workload.compile(scenario(rate_per_s=1.0, cohorts=cohorts), 1)
    assert said in str(refusal.value)


def test_named_fits_can_be_drawn() -> None:
    cohorts = {
        "chat": {"prompt_tokens": {"named": "azure-conv-prompt"}, "output_tokens": {"named": "azure-conv-output"}}
    }
    found = rows("1h", rate_per_s=10.0, cohorts=cohorts)
    assert np.median(found["prompt_tokens"]) == pytest.approx(1020, rel=0.05)
    assert np.median(found["output_tokens"]) == pytest.approx(129, rel=0.05)
