"""How long prompts and answers are: each distribution as its inverse, from a share in (0, 1) to tokens.

A user keeps their share whatever the distribution is: who asks the longest question of a hundred still
does when questions become twice as long, so that two settings are compared on the same users. Tokens
are whole numbers of at least 1, rounded to the nearest and cut to [least, most].
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy.special import gammaincinv, ndtr, ndtri

from sim.draws import NEAREST_ONE

MAX_TOKENS = 10_000_000
"""No request is longer: the longest context window that any published model claims."""

_MEAN_POINTS = 1 << 18


class Lengths(Protocol):
    """A distribution of tokens."""

    def at(self, share: np.ndarray) -> np.ndarray:
        """Return the tokens (int32) below which *share* of all requests lie."""
        ...

    @property
    def largest(self) -> int:
        """The most tokens that a draw can give."""
        ...

    @property
    def mean(self) -> float:
        """The mean in tokens, after rounding and cutting (numerical, good to about 1e-4)."""
        ...


class _Inverse:
    """What all distributions share: rounding, cutting, the mean and the largest draw."""

    least: int
    most: int

    def quantile(self, share: np.ndarray) -> np.ndarray:
        """Return the real number below which *share* of the distribution lies."""
        raise NotImplementedError

    def at(self, share: np.ndarray) -> np.ndarray:
        """Return the tokens (int32) below which *share* of all requests lie."""
        tokens = self.quantile(share)
        np.rint(tokens, out=tokens)
        np.clip(tokens, self.least, self.most, out=tokens)
        return tokens.astype(np.int32)

    @cached_property
    def largest(self) -> int:
        """The most tokens that a draw can give."""
        return int(self.at(np.array([NEAREST_ONE]))[0])

    @cached_property
    def mean(self) -> float:
        """The mean in tokens, after rounding and cutting (numerical, good to about 1e-4)."""
        return float(self.at((np.arange(_MEAN_POINTS) + 0.5) / _MEAN_POINTS).mean())


@dataclass(frozen=True)
class Fixed(_Inverse):
    """Always the same number of tokens."""

    tokens: int
    least: int = 1
    most: int = MAX_TOKENS

    def quantile(self, share: np.ndarray) -> np.ndarray:
        """Return the one value, as often as there are shares."""
        return np.full(share.shape, float(self.tokens))


@dataclass(frozen=True)
class Lognormal(_Inverse):
    """The logarithm is normal around log *median* with standard deviation *sigma*."""

    median: float
    sigma: float
    least: int = 1
    most: int = MAX_TOKENS

    def quantile(self, share: np.ndarray) -> np.ndarray:
        """Return the lognormal quantile of each share."""
        normal = ndtri(share)
        normal *= self.sigma
        normal += math.log(self.median)
        np.minimum(normal, math.log(MAX_TOKENS), out=normal)  # before exp, which would overflow for a silly sigma
        return np.exp(normal, out=normal)


@dataclass(frozen=True)
class Gamma(_Inverse):
    """A gamma distribution of *mean_tokens* and coefficient of variation *cv*.

    The inverse is tabulated over the normal score of the share, in which it is smooth: the relative error
    is below 1e-5 wherever the result reaches one token, far less than rounding.
    """

    mean_tokens: float
    cv: float
    least: int = 1
    most: int = MAX_TOKENS

    _SCORES = 16_384
    _SCORE_MAX = 6.5  # beyond the normal score of the largest share that can be drawn

    @cached_property
    def _table(self) -> np.ndarray:
        scores = np.linspace(-self._SCORE_MAX, self._SCORE_MAX, self._SCORES + 1)
        shape = 1.0 / (self.cv * self.cv)
        table = gammaincinv(shape, ndtr(scores)) * (self.mean_tokens / shape)
        return np.append(table, table[-1])

    def quantile(self, share: np.ndarray) -> np.ndarray:
        """Return the gamma quantile of each share."""
        if self.cv == 0.0:
            return np.full(share.shape, self.mean_tokens)
        place = ndtri(share)
        place += self._SCORE_MAX
        place *= self._SCORES / (2.0 * self._SCORE_MAX)
        cell = place.astype(np.int64)
        place -= cell
        low = self._table[cell]
        return low + (self._table[cell + 1] - low) * place


@dataclass(frozen=True)
class Geometric(_Inverse):
    """The exponential's whole-numbered sister on 1, 2, 3, ...: every further token is equally likely."""

    mean_tokens: float
    least: int = 1
    most: int = MAX_TOKENS

    def quantile(self, share: np.ndarray) -> np.ndarray:
        """Return the smallest whole number that at least *share* of the requests do not exceed."""
        if self.mean_tokens <= 1.0:
            return np.ones(share.shape)
        return 1.0 + np.floor(np.log1p(-share) / math.log1p(-1.0 / self.mean_tokens))


@dataclass(frozen=True)
class Empirical(_Inverse):
    """The given *values*, each with its weight (by default equal)."""

    values: tuple[int, ...]
    weights: tuple[float, ...] | None = None
    least: int = 1
    most: int = MAX_TOKENS
    _sorted: np.ndarray = field(init=False, repr=False, compare=False)
    _until: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = np.array(self.values, np.float64)
        weights = np.ones(len(values)) if self.weights is None else np.array(self.weights, np.float64)
        order = np.argsort(values, kind="stable")
        object.__setattr__(self, "_sorted", values[order])
        object.__setattr__(self, "_until", np.cumsum(weights[order])[:-1] / weights.sum())

    def quantile(self, share: np.ndarray) -> np.ndarray:
        """Return the value that *share* of the weight lies below."""
        return self._sorted[np.searchsorted(self._until, share, "right")]


@dataclass(frozen=True, eq=False)
class Table(_Inverse):
    """A measured distribution: *share* of the requests have at most *tokens*; straight between these points."""

    share: tuple[float, ...]
    tokens: tuple[int, ...]
    least: int = 1
    most: int = MAX_TOKENS

    def quantile(self, share: np.ndarray) -> np.ndarray:
        """Return the whole number of tokens that at least *share* of the requests do not exceed."""
        return np.ceil(np.interp(share, self.share, self.tokens))
