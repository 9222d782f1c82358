"""Whose text a prompt continues: what a prefix cache may find again, and what it may not."""

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import workload
from sim.errors import TraceError
from sim.records import PREFIX, REQUEST
from sim.scenario import Scenario, loads
from sim.workload import prefixes
from sim.workload.prefixes import BLOCK_TOKENS

POOLS = {"big": {"model": "m", "hardware": "h"}, "small": {"model": "m", "hardware": "h"}}
CHAT = {"prompt_tokens": {"lognormal": {"median": 300, "sigma": 1}}, "output_tokens": {"exponential": {"mean": 200}}}


def scenario(duration: Any = "10m", pools: dict[str, Any] = POOLS, **users: Any) -> Scenario:
    users = {"cohorts": {"chat": CHAT}, **users}
    return loads(json.dumps({"name": "x", "duration": duration, "fleet": {"pools": pools}, "workload": users}))


def all_rows(users: workload.Workload, size: int = workload.CHUNK) -> np.ndarray:
    return np.concatenate([np.zeros(0, REQUEST), *users.chunks(size)])


# --- texts as they are: what the rows promise is checked against words ------------------------------------------------


def assert_fits(rows: np.ndarray, tree: np.ndarray) -> None:
    """Every row's prefix is a node of the tree, or -1, that leaves at least one token of its prompt."""
    assert tree.dtype == PREFIX
    assert (tree["parent"] < np.arange(len(tree))).all()
    above = tree["parent"] >= 0
    assert (tree["tokens"][above] > tree["tokens"][tree["parent"][above]]).all()
    assert (tree["tokens"] > 0).all()
    assert ((rows["prefix"] >= -1) & (rows["prefix"] < len(tree))).all()
    depth = np.array([*tree["tokens"].tolist(), 0])[rows["prefix"]]
    np.testing.assert_array_equal(rows["prefix_tokens"], depth)
    assert (rows["prefix_tokens"] < rows["prompt_tokens"]).all()


@pytest.mark.parametrize("users", [{"rate_per_s": 5.0}, {"arrivals": {"closed": {"users": 20, "think": "5s"}}}])
def test_a_request_alone_continues_nobodys_text(users: dict[str, Any]) -> None:
    made = workload.compile(scenario(**users), 1)
    rows = all_rows(made)
    np.testing.assert_array_equal(rows["content"], rows["request"])
    assert len(made.prefixes) == 0
    assert (rows["prefix"] == -1).all()
    more = made.more(np.array([3]))
    np.testing.assert_array_equal(more["content"], more["request"])


def test_turns_that_carry_nothing_continue_nothing() -> None:
    rows = all_rows(workload.compile(scenario(rate_per_s=1.0, sessions={"turns": 5, "think": 1, "carry": False}), 1))
    np.testing.assert_array_equal(rows["content"], rows["request"])


@settings(max_examples=40)
@given(
    st.integers(0, 2**63 - 1),
    st.sampled_from([None, 900, 2_000, 20_000]),
    st.sampled_from([None, {"groups": 3, "tokens": 250}, {"groups": 1, "tokens": 1_500}]),
    st.sampled_from([1, 50, 65_536]),
)
def test_a_carried_turn_continues_the_text_of_the_turns_before(
    seed: int, limit: int | None, prefix: dict[str, int] | None, size: int
) -> None:
    pools = {"big": {**POOLS["big"], **({"max_model_len": limit} if limit else {})}}
    cohorts = {"chat": {**CHAT, **({"prefix": prefix} if prefix else {})}}
    users = {"rate_per_s": 0.5, "sessions": {"turns": {"exponential": {"mean": 5}}, "think": 1}, "cohorts": cohorts}
    made = workload.compile(scenario("3m", pools, **users), seed)
    free = all_rows(workload.compile(scenario("3m", {"big": POOLS["big"]}, **users), seed))
    rows = all_rows(made, size)
    assert_fits(rows, made.prefixes)
    cut = rows["prompt_tokens"] < free["prompt_tokens"]
    owner: dict[int, int] = {}
    for before, row, is_cut in zip([None, *rows], rows, cut):
        assert owner.setdefault(int(row["content"]), int(row["session"])) == row["session"]
        if row["turn"] == 0 or is_cut:
            assert row["content"] == row["request"]  # a text of its own
        if row["turn"] == 0:
            first = row
        elif not is_cut:
            assert row["content"] == first["content"]
            assert row["prefix"] == first["prefix"]
            assert row["prefix_tokens"] == first["prefix_tokens"]
            if before["content"] == row["content"]:
                assert row["prompt_tokens"] > before["prompt_tokens"] + before["output_tokens"]
        elif first["prefix"] < 0:
            assert row["prefix"] < 0  # a beginning that the first turn had no room for was never said


def test_contents_never_collide_between_conversations_and_their_cut_turns() -> None:
    pools = {"big": {"model": "m", "hardware": "h", "max_model_len": 1500}}
    rows = all_rows(workload.compile(scenario("1h", pools, rate_per_s=1.0, sessions={"turns": 8, "think": 1}), 2))
    pairs = np.unique(np.stack([rows["content"], rows["session"]]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1]
    assert 0 < len(np.unique(rows["session"])) < len(np.unique(rows["content"])) < len(rows)


def test_each_group_is_a_root_and_each_cohort_has_its_own() -> None:
    cohorts = {
        "a": {**CHAT, "share": 0.5, "prefix": {"groups": 3, "tokens": 100}},
        "b": {**CHAT, "share": 0.2},
        "c": {**CHAT, "share": 0.3, "prefix": {"groups": 2, "tokens": 50}},
    }
    made = workload.compile(scenario(rate_per_s=5.0, cohorts=cohorts), 1)
    assert made.prefixes.tolist() == [(-1, 100)] * 3 + [(-1, 50)] * 2
    assert_fits(all_rows(made), made.prefixes)


def test_a_prefix_that_is_cut_falls_back_to_the_deepest_node_that_fits() -> None:
    tree = np.array([(-1, 10), (0, 20), (1, 30), (-1, 5)], PREFIX)
    rows = np.zeros(8, REQUEST)
    rows["prefix"] = [2, 2, 2, 2, 2, 3, 3, -1]
    rows["prompt_tokens"] = [31, 30, 20, 11, 10, 6, 5, 1]
    prefixes.fit(rows, tree)
    assert rows["prefix"].tolist() == [2, 1, 0, 0, -1, 3, -1, -1]
    assert rows["prefix_tokens"].tolist() == [30, 20, 10, 10, 0, 5, 0, 0]


# --- traces that name the blocks of their prompts -------------------------------------------------------------------


def common_tokens(one: tuple[list[int], int], other: tuple[list[int], int]) -> int:
    """Tokens that two prompts (hashes and length) have in common from the start, said as simply as can be."""
    same = 0
    for i, (left, right) in enumerate(zip(one[0], other[0])):
        fill = [min(BLOCK_TOKENS, tokens - BLOCK_TOKENS * i) for _, tokens in (one, other)]
        if left != right or fill[0] != fill[1] or fill[0] <= 0:
            break
        same += fill[0]
    return same


def built(prompts: list[tuple[list[int], int]]) -> tuple[np.ndarray, np.ndarray]:
    blocks = np.array([block for hashes, _ in prompts for block in hashes], np.int64)
    counts = np.array([len(hashes) for hashes, _ in prompts], np.int64)
    return prefixes.of_blocks(blocks, counts, np.array([tokens for _, tokens in prompts], np.int64))


def path(tree: np.ndarray, node: int) -> list[int]:
    found = []
    while node >= 0:
        found.append(node)
        node = int(tree["parent"][node])
    return found[::-1]


HASHES = st.lists(st.sampled_from([0, 1, 7, 2**62, -3]), max_size=5)
PROMPTS = st.lists(
    st.tuples(HASHES, st.sampled_from([1, 2, 511, 512, 513, 600, 1024, 1025, 1500, 1536, 9000])), max_size=9
)


@settings(max_examples=300)
@given(PROMPTS)
def test_the_tree_says_of_every_two_prompts_what_they_have_in_common(prompts: list[tuple[list[int], int]]) -> None:
    tree, node = built(prompts)
    rows = np.zeros(len(prompts), REQUEST)
    rows["prompt_tokens"], rows["prefix"] = [tokens for _, tokens in prompts], node
    before = rows["prefix"].copy()
    prefixes.fit(rows, tree)
    np.testing.assert_array_equal(rows["prefix"], before)  # nothing is left to cut
    assert_fits(rows, tree)
    for i, one in enumerate(prompts):
        shared = [0]
        for other, its in zip(prompts[:i] + prompts[i + 1 :], np.delete(node, i)):
            both = [a for a, b in zip(path(tree, node[i]), path(tree, its)) if a == b]
            shared.append(min(common_tokens(one, other), one[1] - 1, other[1] - 1))  # a last token is nobody else's
            assert (int(tree["tokens"][both[-1]]) if both else 0) == shared[-1]
        assert rows["prefix_tokens"][i] == max(shared)


@given(PROMPTS)
def test_the_tree_is_compact(prompts: list[tuple[list[int], int]]) -> None:
    tree, node = built(prompts)
    passing = np.zeros(len(tree), int)
    for one in node.tolist():
        passing[path(tree, one)] += 1
    assert (passing >= 2).all()
    for index in range(len(tree)):
        children = np.flatnonzero(tree["parent"] == index)
        assert (passing[children] < passing[index]).all()  # someone parts or ends here


MOONCAKE = [
    {"timestamp": 0, "input_length": 1500, "output_length": 5, "hash_ids": [0, 1, 2]},
    {"timestamp": 1000, "input_length": 1500, "output_length": 5, "hash_ids": [0, 1, 2]},
    {"timestamp": 2000, "input_length": 1501, "output_length": 5, "hash_ids": [0, 1, 3]},
    {"timestamp": 3000, "input_length": 700, "output_length": 5, "hash_ids": [0, 4]},
    {"timestamp": 4000, "input_length": 300, "output_length": 5, "hash_ids": None},
    {"timestamp": 5000, "input_length": 700, "output_length": 5, "hash_ids": [0, 4]},
]


def traced(folder: Path, records: list[dict[str, Any]], duration: Any = "1h", **users: Any) -> Scenario:
    file = folder / "trace.jsonl"
    file.write_text("\n".join(map(json.dumps, records)))
    trace = {"file": str(file), **users.pop("trace", {})}
    return scenario(duration, trace=trace, **{"cohorts": {"all": {}}, **users})


def test_a_traces_hashes_become_shared_prefixes_and_the_rest_is_each_requests_own(tmp_path: Path) -> None:
    users = workload.compile(traced(tmp_path, MOONCAKE), 1)
    rows = all_rows(users)
    assert_fits(rows, users.prefixes)
    assert rows["prefix_tokens"].tolist() == [1499, 1499, 1024, 699, 0, 699]
    assert users.prefixes.tolist() == [(-1, 512), (0, 699), (0, 1024), (2, 1499)]
    np.testing.assert_array_equal(rows["content"], np.arange(6))


@pytest.mark.parametrize(
    ("duration", "trace", "shared"),
    [
        (3.5, {}, [1499, 1499, 1024, 512]),  # who comes later shares nothing yet
        (1.5, {}, [1499, 1499]),
        (0.5, {}, [0]),
        (1.75, {"time_scale": 0.5}, [1499, 1499, 1024, 512]),
        (10.0, {"repeat": True}, [1499, 1499, 1024, 699, 0, 699, 1499, 1499, 1024, 699]),
    ],
)
def test_windows_time_scales_and_laps_keep_the_prefixes(
    tmp_path: Path, duration: float, trace: dict[str, Any], shared: list[int]
) -> None:
    users = workload.compile(traced(tmp_path, MOONCAKE, duration, trace=trace), 1)
    for size in (1, 4, 65_536):
        rows = all_rows(users, size)
        assert_fits(rows, users.prefixes)
        assert rows["prefix_tokens"].tolist() == shared
        np.testing.assert_array_equal(rows["content"], np.arange(len(rows)))


def test_a_trace_with_hashes_leaves_the_cohorts_prefix_aside(tmp_path: Path) -> None:
    cohorts = {"all": {"prefix": {"groups": 2, "tokens": 50}}}
    users = workload.compile(traced(tmp_path, MOONCAKE, 5.1, cohorts=cohorts), 1)
    assert users.notes[0] == "the cohort's prefix is left aside: the trace says which prompts begin alike"
    assert len(users.prefixes) == 4
    bare = [{name: value for name, value in record.items() if name != "hash_ids"} for record in MOONCAKE]
    without = workload.compile(traced(tmp_path, bare, 5.1, cohorts=cohorts), 1)
    assert without.prefixes.tolist() == [(-1, 50)] * 2
    assert_fits(all_rows(without), without.prefixes)


def test_a_hash_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"trace\.jsonl, column 'hash_ids': a hash is empty"):
        workload.compile(traced(tmp_path, [{**MOONCAKE[0], "hash_ids": [0, None, 2]}]), 1)


def test_who_shares_text_in_a_pool_without_a_cache_is_told() -> None:
    shared = {**CHAT, "prefix": {"groups": 2, "tokens": 5}}
    said = "pool {}: prompts begin alike and are computed in full, since prefix_caching is off (vLLM's default is on)"
    carried = {"sessions": {"turns": 3, "think": 1}}
    on = {**POOLS, "big": {**POOLS["big"], "prefix_caching": True}}
    half = {"a": {**CHAT, "share": 0.5}, "b": {**shared, "share": 0.5, "pool": "small"}}
    for users, pools, named in (
        ({}, POOLS, []),
        ({"cohorts": {"chat": shared}}, POOLS, ["big"]),
        ({"cohorts": {"chat": shared}}, on, []),
        ({"cohorts": half}, POOLS, ["small"]),
        ({"cohorts": half, **carried}, POOLS, ["big", "small"]),
        ({"cohorts": half, **carried}, on, ["small"]),
        ({"sessions": {**carried["sessions"], "carry": False}}, POOLS, []),
    ):
        notes = workload.compile(scenario(pools=pools, rate_per_s=1.0, **users), 1).notes
        assert list(notes) == [said.format(name) for name in named]


# --- Mooncake's hour ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mooncake(measured: Path) -> Path:
    return measured / "mooncake" / "conversation_trace.jsonl"


@pytest.fixture(scope="module")
def prompts(mooncake: Path) -> list[tuple[list[int], int]]:
    records = map(json.loads, mooncake.read_text().splitlines())
    return [(record["hash_ids"], record["input_length"]) for record in records]


def test_a_hash_of_mooncakes_stands_for_all_text_before_it(prompts: list[tuple[list[int], int]]) -> None:
    before: dict[int, tuple[int, int]] = {}
    fills: dict[int, int] = {}
    for hashes, tokens in prompts:
        assert len(hashes) == -(-tokens // BLOCK_TOKENS)
        for i, (previous, block) in enumerate(pairwise([-1, *hashes])):
            assert before.setdefault(block, (i, previous)) == (i, previous)
            fill = min(BLOCK_TOKENS, tokens - BLOCK_TOKENS * i)
            assert fills.setdefault(block, fill) == fill


def test_a_cache_without_end_finds_in_mooncakes_hour_what_its_hashes_say(
    mooncake: Path, prompts: list[tuple[list[int], int]]
) -> None:
    users = workload.compile(scenario(trace=str(mooncake), cohorts={"all": {}}, duration="2h"), 1)
    rows, tree = all_rows(users), users.prefixes
    assert_fits(rows, tree)
    assert len(rows) == len(prompts) == 12_031

    known: set[int] = set()
    by_hashes = []
    for hashes, tokens in prompts:
        new = next((i for i, block in enumerate(hashes) if block not in known), len(hashes))
        by_hashes.append(min(new * BLOCK_TOKENS, tokens - 1))
        known.update(hashes)

    seen = np.zeros(len(tree), bool)
    by_tree = []
    for node in rows["prefix"].tolist():
        nodes = path(tree, node)
        found = [one for one in nodes if seen[one]]
        by_tree.append(int(tree["tokens"][found[-1]]) if found else 0)
        seen[nodes] = True
    # Where one prompt ends at the end of a block and a later one goes on, the tree keeps its last token for itself.
    assert all(0 <= left - right <= 1 for left, right in zip(by_hashes, by_tree))
    assert sum(left != right for left, right in zip(by_hashes, by_tree)) <= 22
    total = sum(tokens for _, tokens in prompts)
    assert total == 144_793_823
    assert sum(by_tree) / total == pytest.approx(0.37362, abs=5e-6)
    assert len(tree) == 3_972


def test_mooncakes_hour_compiles_in_half_a_second(mooncake: Path) -> None:
    took_s = []
    for _ in range(3):
        started = time.process_time()
        workload.compile(scenario(trace=str(mooncake), cohorts={"all": {}}, duration="2h"), 1)
        took_s.append(time.process_time() - started)
    assert min(took_s) < 0.5
