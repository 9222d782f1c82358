"""Answers with a confidence whose calibration and discrimination are set apart, to try gates and estimators on.

The chance p that an answer is right is Beta(kappa mean, kappa (1 - mean)): a small *kappa* makes easy and hard
questions (discrimination), a large one makes all alike. The model reports c = sigma(sharpen logit(p) + shift + noise):
*sharpen* above 1 is over-confident (a temperature of 1 / sharpen), *shift* above 0 too; neither changes the order of
answers, *noise* does. After Guo et al., ICML 2017 (arXiv 1706.04599), for the temperature.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

LEAST = 1e-12
"""Chances are kept this far from 0 and 1: a small Beta underflows there, and a logit must be finite."""


class Drawn(NamedTuple):
    """Drawn answers, each array (n,): the true chance of being right, right or not, and the confidence reported."""

    p: np.ndarray
    correct: np.ndarray
    confidence: np.ndarray


def draw(
    rng: np.random.Generator,
    n: int,
    mean: float,
    kappa: float,
    sharpen: float = 1.0,
    shift: float = 0.0,
    noise: float = 0.0,
) -> Drawn:
    """Return *n* answers, right with chance *mean* on average; *noise* is a standard deviation on the logit."""
    if not (0 < mean < 1 and kappa > 0 and sharpen > 0 and noise >= 0):
        raise ValueError("expected a mean in (0, 1), kappa and sharpen above 0, noise of 0 or more")
    p = np.clip(rng.beta(kappa * mean, kappa * (1 - mean), n), LEAST, 1 - LEAST)
    correct = rng.random(n) < p
    logit = sharpen * special.logit(p) + shift
    if noise:
        logit += rng.normal(0.0, noise, n)
    return Drawn(p, correct, special.expit(logit))
