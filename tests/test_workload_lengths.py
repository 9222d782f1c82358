"""How long prompts and answers are: each distribution against its closed form, each fit against its trace."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sim.draws import NEAREST_ONE, Luck, who
from sim.workload import lengths
from sim.workload.fitted import FITS, fit

ALPHA = 1e-3
SHARES = Luck(11).one("lengths", who(np.arange(200_000)))

DISTRIBUTIONS = [
    lengths.Fixed(7),
    lengths.Lognormal(300.0, 0.7),
    lengths.Lognormal(300.0, 0.0),
    lengths.Lognormal(50.0, 3.0, 4, 9000),
    lengths.Gamma(300.0, 1.4),
    lengths.Gamma(20.0, 0.1, 15, 25),
    lengths.Geometric(40.0),
    lengths.Geometric(1.0),
    lengths.Empirical((5, 3, 90), (1.0, 0.0, 3.0)),
    FITS["azure-conv-prompt"].table(),
    FITS["mooncake-conv-output"].table(),
]


@pytest.mark.parametrize("lawful", DISTRIBUTIONS, ids=lambda d: type(d).__name__)
def test_every_distribution_gives_whole_tokens_in_its_bounds_and_never_falls(lawful: lengths.Lengths) -> None:
    share = np.sort(SHARES)
    tokens = lawful.at(share)
    assert tokens.dtype == np.int32
    assert tokens.min() >= 1
    assert (np.diff(tokens) >= 0).all()
    assert lawful.at(np.array([2.0**-33, NEAREST_ONE])).max() == lawful.largest
    assert tokens.max() <= lawful.largest <= lengths.MAX_TOKENS
    assert lawful.mean == pytest.approx(
        tokens.mean(), rel=5 * tokens.std() / tokens.mean() / math.sqrt(len(tokens)) + 1e-9
    )


def rounded(continuous: object, tokens: np.ndarray) -> np.ndarray:
    """The chance of at most so many tokens when a real number is rounded to the nearest."""
    return continuous.cdf(tokens + 0.5)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("drawn", "law"),
    [
        (lengths.Lognormal(300.0, 0.7), stats.lognorm(0.7, scale=300.0)),
        (lengths.Lognormal(4000.0, 1.5), stats.lognorm(1.5, scale=4000.0)),
        (lengths.Gamma(300.0, 1.4), stats.gamma(1.4**-2, scale=300.0 * 1.4**2)),
        (lengths.Gamma(300.0, 4.0), stats.gamma(4.0**-2, scale=300.0 * 4.0**2)),
        (lengths.Gamma(1000.0, 0.2), stats.gamma(25.0, scale=40.0)),
    ],
)
def test_drawn_tokens_follow_the_law(drawn: lengths.Lengths, law: object) -> None:
    tokens, counts = np.unique(drawn.at(SHARES), return_counts=True)
    inside = tokens < drawn.largest
    distance = np.abs(np.cumsum(counts) / len(SHARES) - rounded(law, tokens))[inside].max()
    assert distance < stats.kstwo.isf(ALPHA, len(SHARES))


@pytest.mark.parametrize(("mean", "cv"), [(300.0, 0.05), (300.0, 1.0), (5000.0, 2.5), (30.0, 5.0)])
def test_the_tabulated_gamma_is_the_exact_one_to_one_token_in_ten_thousand(mean: float, cv: float) -> None:
    share = SHARES[:5000]
    exact = stats.gamma(cv**-2, scale=mean * cv**2).ppf(share)
    close = lengths.Gamma(mean, cv).quantile(share)
    np.testing.assert_allclose(close[exact > 0.5], exact[exact > 0.5], rtol=1e-4)


def test_a_geometric_length_has_no_memory() -> None:
    tokens = lengths.Geometric(8.0).at(SHARES)
    assert (
        stats.chisquare(
            np.append(np.bincount(tokens, minlength=30)[1:30], (tokens >= 30).sum()),
            len(SHARES) * np.append(stats.geom(1 / 8).pmf(np.arange(1, 30)), stats.geom(1 / 8).sf(29)),
        ).pvalue
        > ALPHA
    )
    assert lengths.Geometric(8.0).mean == pytest.approx(8.0, rel=1e-4)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.001, 1)), min_size=1, max_size=30))
def test_an_empirical_length_is_one_of_its_values_as_often_as_it_weighs(values: list[tuple[int, float]]) -> None:
    total = sum(weight for _, weight in values)
    drawn = lengths.Empirical(tuple(v for v, _ in values), tuple(w for _, w in values)).at(SHARES)
    for value in {v for v, _ in values}:
        weight = sum(w for v, w in values if v == value) / total
        assert abs((drawn == value).mean() - weight) < 5 * math.sqrt(weight * (1 - weight) / len(SHARES)) + 1e-6


def test_draws_of_different_purposes_users_and_turns_are_independent_and_uniform() -> None:
    luck = Luck(5)
    people = np.arange(100_000)
    first, second = luck.two("lengths", who(people))
    columns = [
        first,
        second,
        luck.one("cohorts", who(people)),
        luck.one("lengths", who(people, np.ones(len(people), int))),
        luck.one("lengths", who(people + 1)),
        Luck(6).one("lengths", who(people)),
    ]
    for column in columns:
        assert stats.kstest(column, "uniform").pvalue > ALPHA
        assert 0.0 < column.min() <= column.max() < 1.0
    apart = np.abs(np.corrcoef(columns)[np.triu_indices(len(columns), 1)])
    assert apart.max() < 4.5 / math.sqrt(len(people))
    np.testing.assert_array_equal(first, luck.one("lengths", who(people)))


def traced(measured: Path, name: str) -> np.ndarray:
    if name.startswith("azure"):
        file = measured / "azure-llm-2023" / "AzureLLMInferenceTrace_conv.csv"
        column = 1 if name.endswith("prompt") else 2
        return np.loadtxt(file, np.int64, delimiter=",", skiprows=1, usecols=column)
    lines = (measured / "mooncake" / "conversation_trace.jsonl").read_text().splitlines()
    key = "input_length" if name.endswith("prompt") else "output_length"
    return np.array([json.loads(line)[key] for line in lines])


@pytest.mark.parametrize("name", list(FITS))
def test_a_fit_can_be_made_again_from_its_trace_and_lies_close_to_it(name: str, measured: Path) -> None:
    tokens = traced(measured, name)
    found = FITS[name]
    assert (found.share, found.tokens) == fit(tokens)
    assert found.requests == len(tokens)
    drawn = found.table().at((np.arange(500_000) + 0.5) / 500_000)
    assert stats.ks_2samp(tokens, drawn).statistic < 0.005
    assert drawn.mean() == pytest.approx(tokens.mean(), rel=0.005)
    assert drawn.std() == pytest.approx(tokens.std(), rel=0.02)
    for percent in (50, 90, 99):
        assert np.percentile(drawn, percent) == pytest.approx(np.percentile(tokens, percent), rel=0.01)
    score = (np.log(tokens) - np.log(tokens).mean()) / np.log(tokens).std()
    assert stats.kstest(score, "norm").statistic > 0.05  # a lognormal would lie ten times farther away


@pytest.mark.parametrize("trace", ["azure-conv", "mooncake-conv"])
def test_prompt_and_answer_hardly_know_each_other(trace: str, measured: Path) -> None:
    rank = stats.spearmanr(traced(measured, f"{trace}-prompt"), traced(measured, f"{trace}-output")).statistic
    assert 0.05 < rank < 0.10


def test_every_fit_says_where_it_comes_from() -> None:
    for found in FITS.values():
        assert "20" in found.source
        assert found.share[0] == 0.0
        assert found.share[-1] == 1.0
        assert list(found.tokens) == sorted(set(found.tokens))
