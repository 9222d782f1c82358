"""Luck that belongs to somebody: the k-th user's draws are a function of the seed, the purpose and k.

Nothing is drawn "next". A draw is a hash of (seed, purpose, user, turn), so it does not matter in what
order, in chunks of what size, or with which other settings the users are made: a cohort with longer
answers does not change who arrives, and turning sessions on does not change anybody's first question.
The hash is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA
2014), whose outputs pass BigCrush even on consecutive inputs.
"""

import numpy as np

from sim.rng import stream

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_TURN = np.uint64(0xD1342543DE82EF95)  # another odd constant, so that turn 1 of user 0 is not turn 0 of user 1
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_HALF = np.uint64(0xFFFFFFFF)
_UNIT = 2.0**-32

NEAREST_ONE = 1.0 - 2.0**-33
"""The largest share that can be drawn: what bounds the longest answer of an unbounded distribution."""


def _mixed(state: np.ndarray) -> np.ndarray:
    """Scramble *state* (uint64, overwritten) so that neighbours have nothing in common."""
    state ^= state >> np.uint64(30)
    state *= _FIRST
    state ^= state >> np.uint64(27)
    state *= _SECOND
    state ^= state >> np.uint64(31)
    return state


def who(people: np.ndarray, turns: np.ndarray | None = None) -> np.ndarray:
    """Return a name (uint64) for each of *people* at each of *turns*: by default their first."""
    names = _mixed(people.astype(np.uint64) * _GOLDEN)
    if turns is not None:
        names += turns.astype(np.uint64) * _TURN
    return names


class Luck:
    """Every draw of one seed: shares in (0, 1), by purpose and by whom they belong to."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._keys: dict[str, np.uint64] = {}

    def _bits(self, purpose: str, names: np.ndarray) -> np.ndarray:
        if purpose not in self._keys:
            self._keys[purpose] = stream(self._seed, purpose).integers(0, 2**64, dtype=np.uint64)
        return _mixed(names + self._keys[purpose])

    def one(self, purpose: str, names: np.ndarray) -> np.ndarray:
        """Return a uniform share in (0, 1) for each of *names* (float64)."""
        return ((self._bits(purpose, names) >> np.uint64(32)).astype(np.float64) + 0.5) * _UNIT

    def two(self, purpose: str, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return two independent shares for each of *names*; the first is the one that `one` returns."""
        bits = self._bits(purpose, names)
        low = bits & _HALF
        bits >>= np.uint64(32)
        return (bits.astype(np.float64) + 0.5) * _UNIT, (low.astype(np.float64) + 0.5) * _UNIT


def exponential(share: np.ndarray, mean: float) -> np.ndarray:
    """Return exponential times of *mean* from uniform *share*."""
    return -mean * np.log1p(-share)
