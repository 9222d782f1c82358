"""From the buckets of a histogram to a lognormal length, by maximum likelihood, with the error of the fit."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr

from sim.init.exposition import Histogram

FEW = 30  # below this many requests a fit is called a guess


@dataclass(frozen=True)
class LengthFit:
    """Lengths in tokens: lognormal(``median``, ``sigma``), or always ``median`` when ``sigma`` is 0.

    ``max`` is the edge of the bucket that holds the longest request (None when that is the open one).
    ``cdf_error`` is the largest distance between fitted and counted share at any bucket edge;
    ``mean_error`` is fitted mean over exact mean, minus 1.
    """

    median: float
    sigma: float
    max: int | None
    count: float
    mean: float
    cdf_error: float
    mean_error: float


def fit_lengths(histogram: Histogram) -> LengthFit | None:
    """Fit a lognormal to token counts in buckets; None when the histogram is empty.

    The likelihood is multinomial over the buckets (lengths are whole tokens, so a bucket up to `le` ends at
    le + 1/2). One used bucket tells no shape: the length is then the exact mean. Two tell one number: the
    exact mean gives the other.
    """
    if histogram.count <= 0 or not math.isfinite(histogram.mean) or histogram.mean <= 0:
        return None
    edges = np.log(np.asarray(histogram.edges, float) + 0.5)
    counted = np.asarray(histogram.counts, float) / histogram.count
    shares = np.clip(np.diff(counted, prepend=0.0, append=1.0), 0.0, None)
    used = int(np.count_nonzero(shares))
    full = np.flatnonzero(np.asarray(histogram.counts) >= histogram.count * (1 - 1e-9))
    longest = int(histogram.edges[full[0]]) if full.size else None
    if used <= 1:
        return LengthFit(float(round(histogram.mean)), 0.0, longest, histogram.count, histogram.mean, 0.0, 0.0)
    mu, sigma = _most_likely(edges, shares, math.log(histogram.mean), mean_counts=used == 2)
    error = float(np.max(np.abs(ndtr((edges - mu) / sigma) - counted)))
    mean = math.exp(mu + sigma**2 / 2)
    return LengthFit(math.exp(mu), sigma, longest, histogram.count, histogram.mean, error, mean / histogram.mean - 1)


def _most_likely(edges: np.ndarray, shares: np.ndarray, log_mean: float, mean_counts: bool) -> tuple[float, float]:
    def loss(x: np.ndarray) -> float:
        mu, sigma = float(x[0]), math.exp(float(x[1]))
        inside = np.diff(ndtr((edges - mu) / sigma), prepend=0.0, append=1.0)
        unlikely = -float(np.sum(shares * np.log(np.maximum(inside, 1e-300))))
        return unlikely + (10.0 * (mu + sigma**2 / 2 - log_mean) ** 2 if mean_counts else 0.0)

    # Start where the shares put mean and spread of the log, each bucket taken at its middle.
    middles = np.concatenate([[edges[0] - 0.5], (edges[1:] + edges[:-1]) / 2, [edges[-1] + 0.5]])
    mu = float(np.sum(shares * middles))
    sigma = max(0.1, math.sqrt(float(np.sum(shares * (middles - mu) ** 2))))
    best = minimize(loss, [mu, math.log(sigma)], method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-10})
    return float(best.x[0]), float(math.exp(min(max(best.x[1], -7.0), 3.0)))
