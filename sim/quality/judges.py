"""How often answers are wrong, when a model judges them and people check a few.

A judge flags wrong answers with its *sensitivity* and right ones with 1 - *specificity*. Here the event is "wrong".
Sources: Rogan and Gladen, American Journal of Epidemiology 107 (1978) 71; Lang and Reiczigel, Preventive Veterinary
Medicine 113 (2014) 13, for its interval; Lee et al., "How to correctly report LLM-as-a-judge evaluations", arXiv
2511.21140; Angelopoulos et al., Science 382 (2023) 669 (PPI), and arXiv 2311.01453 (PPI++); Cochran, *Sampling
Techniques* (1977), chapter 12, for two-phase sampling.

Where wrong answers are rare, the normal intervals of these papers reach below 0 and cover too seldom. The intervals
here do not: Lang and Reiczigel's for the first, Wilson's for as many answers as the estimate is worth for PPI++, and
Wilson's by stratum for the third (tests/test_quality_judges.py counts how often each covers).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sim.quality.rates import chance, combined, effective, z_of
from sim.theory.chance import Interval
from sim.theory.counted import wilson


class Judged(NamedTuple):
    """A prediction-powered estimate: its interval, its variance, and how much the judge was trusted (0: not at all)."""

    interval: Interval
    variance: float
    trust: float


def apparent(error: float, sensitivity: float, specificity: float) -> float:
    """Return the share that a judge flags: 5.85% at 1% errors with sensitivity 90% and specificity 95%."""
    chance(error, "error")
    chance(sensitivity, "sensitivity")
    chance(specificity, "specificity")
    return error * sensitivity + (1 - error) * (1 - specificity)


def corrected(flagged: float, sensitivity: float, specificity: float) -> float:
    """Return the error rate behind a *flagged* share, Rogan and Gladen's; below 0 where its false alarms are overrated.

    Raises ValueError for a judge no better than a coin.
    """
    informed = sensitivity + specificity - 1
    if not informed > 0:
        raise ValueError("a judge must have sensitivity + specificity above 1, or it tells nothing")
    return (flagged + specificity - 1) / informed


def corrected_variance(
    error: float, sensitivity: float, specificity: float, judged: float, checked_right: float, checked_wrong: float
) -> float:
    """Return the variance of `corrected`, whose judge was checked on so many right and wrong answers (delta method).

    *judged* answers were flagged or not. The false alarms' share (1 - error)^2 Sp (1 - Sp) / m dominates at low rates.
    """
    seen = apparent(error, sensitivity, specificity)
    noise = seen * (1 - seen) / judged
    noise += (1 - error) ** 2 * specificity * (1 - specificity) / checked_right
    noise += error**2 * sensitivity * (1 - sensitivity) / checked_wrong
    return float(noise / (sensitivity + specificity - 1) ** 2)


def rogan_gladen(
    flagged: tuple[int, int], wrong_flagged: tuple[int, int], right_passed: tuple[int, int], confidence: float = 0.95
) -> Interval:
    """Return the error rate from a judge that was itself checked: each pair is (hits, trials).

    *flagged*: answers that it flagged of those it judged; *wrong_flagged* of answers known to be wrong (sensitivity),
    *right_passed* of those known to be right (specificity). Lang and Reiczigel's interval: counts are moved a little
    towards a half and the middle is shifted, so that it covers although the estimate is skewed; cut to [0, 1].

    Raises:
        ValueError: the judge flags wrong answers no more often than right ones.
    """
    (k, n), (k1, n1), (k0, n0) = flagged, wrong_flagged, right_passed
    estimate = corrected(k / n, k1 / n1, k0 / n0)
    z = z_of(confidence)
    seen, se, sp = (k + z * z / 2) / (n + z * z), (k1 + 1) / (n1 + 2), (k0 + 1) / (n0 + 2)
    middle = corrected(seen, se, sp)
    of_se, of_sp = se * (1 - se) / (n1 + 2), sp * (1 - sp) / (n0 + 2)
    variance = seen * (1 - seen) / (n + z * z) + middle**2 * of_se + (1 - middle) ** 2 * of_sp
    half = z * math.sqrt(variance) / (se + sp - 1)
    moved = middle + 2 * z * z * (middle * of_se - (1 - middle) * of_sp)
    low, high = (min(1.0, max(0.0, bound)) for bound in (moved - half, moved + half))
    return Interval(min(max(estimate, low), high), low, high)


def prediction_powered(
    labels: ArrayLike, judged: ArrayLike, unlabelled: ArrayLike, trust: float | None = None, confidence: float = 0.95
) -> Judged:
    """Return the error rate from *labels* of people (n,), the judge's verdicts on these (n,) and on others (N,).

    mean(labels) + trust (mean(unlabelled) - mean(judged)). *trust* 1 is PPI; None is PPI++, which chooses
    Cov(label, verdict) / ((1 + n / N) Var(verdict)), cut to [0, 1], and so is never worse than labels alone by much.
    PPI++ has Wilson's interval for as many plain labels as the estimate is worth; with a given trust, where the judge's
    noise outweighs the share's own, it is the papers' normal one, cut to [0, 1].
    """
    y, f, g = (np.asarray(values, float) for values in (labels, judged, unlabelled))
    if y.shape != f.shape or y.size < 2 or g.size < 1:
        raise ValueError("expected two labels or more, a verdict for each, and verdicts on other answers")
    n, others, tuned = y.size, g.size, trust is None
    spread = float(np.concatenate([f, g]).var(ddof=1))
    if trust is None:
        together = float(((y - y.mean()) * (f - f.mean())).sum()) / (n - 1)
        trust = min(1.0, max(0.0, together / ((1 + n / others) * spread))) if spread > 0 else 0.0
    estimate = float(y.mean() + trust * (g.mean() - f.mean()))
    variance = float((y - trust * f).var(ddof=1)) / n + trust**2 * spread / others
    if tuned:  # as if half a label more had disagreed with the judge: none in a few is not certainty
        return Judged(effective(estimate, variance + 0.5 / n**2, n, confidence), variance, trust)
    half = z_of(confidence) * math.sqrt(variance)
    return Judged(Interval(estimate, max(0.0, estimate - half), min(1.0, estimate + half)), variance, trust)


def two_phase(
    flagged: tuple[int, int], wrong_flagged: tuple[int, int], wrong_passed: tuple[int, int], confidence: float = 0.95
) -> Interval:
    """Return the error rate when the judge only says where to look: people check some it *flagged* and some it passed.

    Each pair is (hits, trials): flags of judged answers, errors of the flagged and of the passed answers that were
    checked. Right whatever the judge is like; a good one puts the checks where errors are.
    """
    if not (flagged[1] and wrong_flagged[1] and wrong_passed[1]):
        raise ValueError("expected judged answers, and checks among those flagged and those passed")
    share = wilson(*flagged, confidence)
    high, low = wilson(*wrong_flagged, confidence), wilson(*wrong_passed, confidence)
    w, gap = share.estimate, high.estimate - low.estimate
    middle, bottom, top = combined((w, 1 - w, gap), (high, low, share))
    middle -= gap * w  # the share of flags adds its uncertainty, not another amount
    return Interval(middle, max(0.0, bottom - gap * w), min(1.0, top - gap * w))


def two_phase_variance(
    error: float, sensitivity: float, specificity: float, judged: float, checks_flagged: float, checks_passed: float
) -> float:
    """Return the variance of `two_phase`: both strata's binomial noise, and that of the share flagged."""
    w = apparent(error, sensitivity, specificity)
    high = error * sensitivity / w if w else 0.0
    low = error * (1 - sensitivity) / (1 - w) if w < 1 else 0.0
    noise = 0.0
    for weight, p, checks in ((w, high, checks_flagged), (1 - w, low, checks_passed)):
        spread = weight**2 * p * (1 - p)
        noise += spread / checks if spread else 0.0  # where the judge never errs nobody needs to look
    return noise + w * (1 - w) * (high - low) ** 2 / judged


def best_split(error: float, sensitivity: float, specificity: float) -> float:
    """Return the share of human checks that belongs to flagged answers (Neyman): 41% at 1%, 90% and 95%.

    Raises ValueError for a judge that makes no strata, and for one that never errs: nobody has to check it.
    """
    w = apparent(error, sensitivity, specificity)
    if not 0 < w < 1:
        raise ValueError("a judge that flags all or nothing makes no strata")
    high, low = error * sensitivity / w, error * (1 - sensitivity) / (1 - w)
    a, b = w * math.sqrt(high * (1 - high)), (1 - w) * math.sqrt(low * (1 - low))
    if not a + b > 0:
        raise ValueError("a judge that never errs leaves nothing to check")
    return a / (a + b)
