"""What `--vary KEY=VALUES` means, and how a scenario takes it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import InputError, ScenarioError
from sim.planning.values import MOST_VALUES, values, varied
from sim.scenario import Scenario, loads, points

TINY = """name: tiny
duration: 1m
vary: {fleet.replicas: [1, 2]}
fleet: {model: llama-3.1-8b, hardware: h100, replicas: 1}
workload:
  rate_per_s: 2
  cohorts: {chat: {share: 1.0, prompt_tokens: 200, output_tokens: 50}}
"""


def tiny(**swept: list[object]) -> Scenario:
    return loads(TINY, "tiny.yaml", swept={key.replace("__", "."): listed for key, listed in swept.items()})


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1,2,4", [1, 2, 4]),
        ("1:8", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("-1:1", [-1, 0, 1]),
        ("1:8:2", [1, 3, 5, 7]),
        ("0.5:2:0.5", [0.5, 1.0, 1.5, 2.0]),
        ("0.1:0.3:0.1", [0.1, 0.2, 0.3]),  # exactly what a person would have typed
        ("1:3,8,16", [1, 2, 3, 8, 16]),
        ("10%:30%:10%", ["10%", "20%", "30%"]),
        ("30s,1m", ["30s", "1m"]),
        ("a100, h100", ["a100", "h100"]),
        ("none,5s", [None, "5s"]),
        ("true", [True]),
        ("{gamma: {cv: 2, b: [1, 2]}},poisson", [{"gamma": {"cv": 2, "b": [1, 2]}}, "poisson"]),
        ("'a,b',c", ["a,b", "c"]),
        ("my_module:my_function", ["my_module:my_function"]),
    ],
)
def test_what_is_listed(text: str, meant: list[object]) -> None:
    found = values(text)
    assert found == meant
    assert [type(one) for one in found] == [type(one) for one in meant]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a value between commas"),
        ("1,,2", "expected a value between commas"),
        ("8:1", "from the lower value to the higher"),
        ("1:2:0", "expected a step above 0"),
        ("0.5:2", "expected a step"),
        ("10s:20s", "expected a step"),
        ("1s:2m:1s", "in one unit"),
        ("1:x", "expected a range such as"),
        ("1:2:3:4", "expected a range such as"),
        ("0:1000000000", "at most 10,000 values"),
        ("{a", "not YAML"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        values(text)
    with pytest.raises(InputError, match=f"--vary fleet.replicas={text}: .*{said}" if text != "{a" else said):
        varied([f"fleet.replicas={text}"])


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1))
def test_whole_numbers_come_back_as_they_were(listed: list[int]) -> None:
    assert values(",".join(map(str, listed))) == listed


@given(st.integers(-500, 500), st.integers(0, 400), st.integers(1, 50))
def test_a_range_is_what_range_says(start: int, length: int, step: int) -> None:
    assert values(f"{start}:{start + length}:{step}") == list(range(start, start + length + 1, step))


@given(st.integers(0, 1000), st.integers(0, 300), st.integers(1, 99))
def test_a_range_with_a_step_ends_within_a_step_of_its_end(start: int, steps: int, hundredths: int) -> None:
    step = hundredths / 100
    end = round(start + steps * step, 2)
    found = values(f"{start}:{end}:{step}")
    assert len(found) == steps + 1 <= MOST_VALUES
    assert found[0] == start
    assert math.isclose(found[-1], end)
    assert found == sorted(set(found))


@pytest.mark.parametrize("option", ["fleet.replicas", "=1,2", ""])
def test_a_key_and_values_are_expected(option: str) -> None:
    with pytest.raises(InputError, match="expected KEY=VALUES"):
        varied([option])


def test_a_key_stands_once() -> None:
    assert varied(["a=1", "b=2:3"]) == {"a": [1], "b": [2, 3]}
    with pytest.raises(InputError, match="each key once, got a again"):
        varied(["a=1", "a=2"])


def test_it_takes_the_place_of_the_files_own_values_for_that_setting_and_stands_beside_others() -> None:
    assert tiny(fleet__replicas=[3, 4]).vary == {"fleet.replicas": [3, 4]}
    assert tiny(pools__main__replicas=[5]).vary == {"pools.main.replicas": [5]}  # the same setting, otherwise written
    both = tiny(clients__timeout=["10s", "1m"])
    assert both.vary == {"fleet.replicas": [1, 2], "clients.timeout": [10.0, 60.0]}
    assert [one.fleet.pools["main"].replicas for _, one in points(both)] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("swept", "said"),
    [
        ({"fleet__replica": [1]}, "--vary fleet.replica: no such setting; did you mean 'replicas'?"),
        ({"fleet__replicas": [1, "x"]}, "expected a whole number, got 'x'"),
        ({"fleet__replicas": [1, 1]}, "expected each value once, got 1 again"),
        ({"fleet__replicas": [1], "pools__main__replicas": [2]}, "expected each setting once"),
        ({"seed": [1, 2]}, "--vary seed: expected a setting that may change from point to point, got seed"),
    ],
)
def test_a_setting_that_cannot_vary_is_named_by_its_option(swept: dict[str, list[object]], said: str) -> None:
    with pytest.raises(ScenarioError, match="^--vary ") as refused:
        tiny(**swept)
    assert said in str(refused.value)
