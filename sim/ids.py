"""How requests are numbered, so that everybody can tell from an id whose it is and what it tries."""

from typing import TypeVar

import numpy as np

_Some = TypeVar("_Some", int, np.ndarray)
"""One, or an array of them."""

IDS = 1 << 40
"""Ids of one crowd, of its users and of their requests: the k-th begins at k times this; the usual users are the 0-th.

More than any run can play, and a million surges fit into 63 bits.
"""

_CHECK, _TRY, _STEP, _AGENT = 38, 39, 49, 56
"""Where in the id of an agent's request stand: whether it is a verifier's, which try, which step, and that it is one.

Below, the task: 32 bits, and 6 for its crowd. An id has 57 bits at most, for attempts are numbered behind it in six.
"""
_OF_TRY = np.int64(((1 << (_STEP - _TRY)) - 1) << _TRY)


def request_id(session: _Some, step: _Some, tried: _Some, check: bool = False) -> _Some:
    """Return the id of the request that a task makes for a *step* it has *tried* so often, or to *check* its answer.

    Of arrays (int64), as many ids.
    """
    task = session % IDS | session // IDS << 32
    return 1 << _AGENT | step << _STEP | tried << _TRY | check << _CHECK | task


def first_try(requests: np.ndarray) -> np.ndarray:
    """Return the ids (int64) of the first tries of the steps that *requests* try; of others, their own."""
    return np.where(is_step(requests), requests & ~_OF_TRY, requests)


def is_step(requests: np.ndarray) -> np.ndarray:
    """Return which of *requests* (ids) an agent made."""
    return np.asarray(requests >> _AGENT == 1)
