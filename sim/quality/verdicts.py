"""The words of right and wrong: what is known of an answer beyond its attempt."""

import numpy as np

KINDS = ("none", "hallucination", "refusal", "format", "tool_error")
"""How an answer is wrong; the first: it is right, or there is none."""

VERDICT = np.dtype(
    [
        ("wrong", "u1"),
        ("kind", "i1"),  # index into KINDS
        ("cause", "i2"),  # -1: none; 0: the cohort's own error; else 1 + index into the scenario's causes
        ("version", "i2"),  # index into the scenario's versions; 0: what was there before
        ("confidence", "f4"),  # nan: nobody asked
    ]
)
"""Of a request that was answered: was it right, and how sure did it sound? All zero but for ``cause`` if it was not."""
