"""What happens next to a wrong answer: gates, people, breakers, shadows, flags. Or a complaint, a day later."""

import numpy as np

from sim.quality import decision, delays, latent, rates, sequential
from sim.seed.lab import Lab
from sim.seed.verdicts import Check, Found, exact
from sim.theory.chance import Interval

N = 50_000
KAPPA = 2.0
"""Small: most questions are clearly easy or clearly hard, so confidence could tell them apart."""
SURE = 3.0
"""Added to the logit of every confidence: everything sounds surer than it is."""
PER_S = 10e6 / 86400
WORSE = (0.01, 0.03)
"""A release after which 3% are wrong, and not 1%."""


def _fixed(drawn: latent.Drawn, threshold: float = 0.8) -> tuple[float, float, float]:
    """Return what a gate at *threshold* holds back, of the errors it catches, and the errors left."""
    held, wrong = drawn.confidence < threshold, ~drawn.correct
    return float(held.mean()), float((held & wrong).sum() / wrong.sum()), float((wrong & ~held).mean())


def _lowest(drawn: latent.Drawn, share: float = 0.05) -> float:
    """Return the share of errors among the least confident *share* of answers."""
    edge = np.quantile(drawn.confidence, share)
    wrong = ~drawn.correct
    return float((wrong & (drawn.confidence <= edge)).sum() / wrong.sum())


def calibrated(lab: Lab) -> Found:
    """Claim 18: of answers given with so much confidence."""

    def draw(rng: np.random.Generator) -> list[float]:
        gaps = []
        for shift in (0.0, SURE):
            one = latent.draw(rng, N, 0.9, KAPPA, shift=shift)
            near = (one.confidence > 0.88) & (one.confidence < 0.92)
            gaps.append(float((one.correct[near] - one.confidence[near]).mean()))
        return gaps

    true, sure = lab.samples("calibrated", draw)
    checks = [
        Check("right minus said, around 90%, calibrated", true, 0, 0, "share"),
        Check("right minus said, around 90%, overconfident", sure, -1, -0.05, "share"),
    ]
    return Found(
        checks, f"That is the definition; overconfident answers that say 90% are {0.9 + sure.estimate:.0%} right."
    )


def surely_wrong(lab: Lab) -> Found:
    """Claim 19: the same model, the same errors, told with more confidence."""

    def harm(rng: np.random.Generator) -> float:
        seed = rng.integers(2**32)
        left = [_fixed(latent.draw(np.random.default_rng(seed), N, 0.99, KAPPA, shift=s))[2] for s in (0.0, SURE)]
        return left[1] / left[0]

    found = lab.sample("surely wrong", harm)
    why = (
        f"The same errors, said with confidence: {found.estimate:.1f} times as many pass a gate at 80% and reach users."
    )
    return Found([Check("errors that reach users, overconfident over calibrated", found, 1.5, np.inf, "times")], why)


def _factors(rng: np.random.Generator, gate: str) -> list[float]:
    """Shares of the variance of log harm by accuracy, discrimination, calibration: two levels of each, all eight."""
    harm = np.zeros((2, 2, 2))
    for i, mean in enumerate((0.95, 0.99)):
        for j, kappa in enumerate((20.0, 2.0)):
            for k, sharpen in enumerate((3.0, 1.0)):
                one = latent.draw(rng, N, mean, kappa, sharpen=sharpen)
                left = _fixed(one)[2] if gate == "fixed" else (1 - mean) * (1 - _lowest(one))
                harm[i, j, k] = np.log(max(left, 0.1 / N))
    total = harm.var()
    return [float(np.diff(harm.mean(axis=tuple({0, 1, 2} - {axis})))[0] ** 2 / 4 / total) for axis in range(3)]


def ordering(lab: Lab) -> Found:
    """Claim 20: what explains how much harm is left."""
    fixed = lab.samples("factors fixed", lambda rng: _factors(rng, "fixed"))
    lowest = lab.samples("factors lowest", lambda rng: _factors(rng, "lowest"))

    def fall(rng: np.random.Generator) -> float:
        seed = rng.integers(2**32)
        caught = [_fixed(latent.draw(np.random.default_rng(seed), N, 0.99, KAPPA, shift=s))[1] for s in (0.0, SURE)]
        return caught[1] / caught[0]

    checks = [
        Check(
            "of its catch that a fixed threshold keeps when overconfident", lab.sample("fall", fall), 0, 0.5, "share"
        ),
        Check("of the differences in harm that calibration explains, fixed threshold", fixed[2], 0.5, 1, "share"),
        Check("the same, when the least sure 5% are held back", lowest[2], 0.5, 1, "share"),
    ]
    why = (
        "A fixed threshold does stand and fall with calibration. But over models 95% or 99% right, discriminating "
        "or not, "
        f"overconfident or not, accuracy explains {fixed[0].estimate:.0%} of the differences in harm, discrimination "
        f"{fixed[1].estimate:.0%}, calibration {fixed[2].estimate:.0%}."
    )
    data = {"fixed threshold": [f.estimate for f in fixed], "least sure 5%": [f.estimate for f in lowest]}
    return Found(checks, why, data)


def accurate_or_calibrated(lab: Lab) -> Found:
    """Claim 21: 99% right and overconfident, against less right and calibrated."""

    def draw(rng: np.random.Generator) -> list[float]:
        left = {
            mean: _fixed(latent.draw(rng, N, mean, KAPPA, shift=s))[2]
            for mean, s in ((0.99, SURE), (0.98, 0.0), (0.9, 0.0))
        }
        return [left[0.99] / left[0.98], left[0.99] / left[0.9]]

    near, far = lab.samples("accurate or calibrated", draw)
    checks = [
        Check("harm of 99% overconfident, over 98% calibrated", near, 1, np.inf, "times"),
        Check("harm of 99% overconfident, over 90% calibrated", far, 1, np.inf, "times"),
    ]
    return Found(
        checks, "True where accuracies are near each other, and a gate acts on a fixed threshold; not farther apart."
    )


LOW, HIGH = decision.Stakes(1, 0.5, 0.9, 0.9), decision.Stakes(500, 0.5, 0.0, 0.1)
"""A draft that its author reads anyhow; a payment that nobody sees again. A look costs 0.5."""


def good_enough(lab: Lab) -> Found:
    """Claim 39: the error rate from which looking pays."""
    checks = [
        Check("break-even error rate: low stakes, noticed, undone", exact(min(1.0, LOW.break_even)), 0.01, 1, "share"),
        Check("break-even error rate: high stakes, final", exact(HIGH.break_even), 0, 0.01, "share"),
    ]
    why = f"The same 1% is good enough for the first and ten times too much for the other ({HIGH.break_even:.2%})."
    return Found(checks, why)


def cheaper(lab: Lab) -> Found:
    """Claim 41: at the break-even, both ways cost the same."""
    stakes = decision.Stakes(50, 0.5, catch=0.9)

    def gap(rng: np.random.Generator) -> float:
        wrong = rng.binomial(N * 10, stakes.break_even) / N / 10
        stopped = wrong * stakes.catch
        return wrong * stakes.wrong - (stakes.review + (wrong - stopped) * stakes.wrong)

    p = stakes.break_even
    why = (
        f"Looking pays from an error rate of look / (harm x catch) on: 0.5 / (50 x 90%) = {p:.1%}. Below, it costs "
        "more."
    )
    return Found([Check("cost of shipping minus that of looking, there", lab.sample("cheaper", gap), 0, 0)], why)


def gate(lab: Lab) -> Found:
    """Claim 47: a threshold, and a share."""
    shifts = (0.0, 1.0, 2.0, 3.0, 4.0)

    def draw(rng: np.random.Generator) -> list[float]:
        out: list[float] = []
        seed = rng.integers(2**32)
        for shift in shifts:
            one = latent.draw(np.random.default_rng(seed), N, 0.99, KAPPA, shift=shift)
            held, caught, _ = _fixed(one)
            out += [held, caught, _lowest(one)]
        return out

    found = np.array(lab.samples("gate", draw)).reshape(len(shifts), 3, 3)
    held, caught, lowest = (Interval(*map(float, found[3, k])) for k in range(3))
    checks = [
        Check("of answers that a gate at 80% holds back, overconfident", held, 0, 0.001, "share"),
        Check("of errors that it catches then", caught, 0, 0.1, "share"),
        Check("of errors among the least sure 5%, just as overconfident", lowest, 0, 0.1, "share"),
    ]
    why = (
        f"Of errors, a threshold of 80% catches {found[0, 1, 0]:.0%} if calibrated and {caught.estimate:.0%} if "
        "overconfident. Holding "
        f"back the least sure 5% catches {lowest.estimate:.0%} either way: only the order counts. A calibrated "
        "constant catches 5%."
    )
    return Found(checks, why, {"shifts": shifts, "fixed": found[:, 1], "lowest": found[:, 2]})


def _flips(rng: np.random.Generator, close: float, hold: int) -> float:
    """Return how often a breaker on the last 500 grades changes sides in 48 h at a quality right at its limit.

    Opens above 5%; closes below *close*, after *hold* minutes at least. Shadow traffic is graded while it is open.
    """
    wrong = rng.binomial(50, 0.05, 2880)
    mean = np.convolve(wrong, np.ones(10), "valid") / 500
    is_open, since, flips = False, -hold, 0
    for t, error in enumerate(mean):
        if t - since >= hold and (error < close if is_open else error > 0.05):
            is_open, since, flips = not is_open, t, flips + 1
    return float(flips)


def breaker(lab: Lab) -> Found:
    """Claim 48: a bad model, and a borderline one."""
    rules = 0.08

    def left(rng: np.random.Generator) -> float:
        wrong = rng.binomial(50, 0.3, 1440)
        mean = np.convolve(wrong, np.ones(10), "full")[:1440] / 500
        opened = int((mean > 0.15).argmax())
        return (0.3 * opened + rules * (1440 - opened)) / (0.3 * 1440)

    found = lab.sample("breaker", left)
    plain = lab.sample("plain flips", lambda rng: _flips(rng, 0.05, 0))
    calm = lab.sample("calm flips", lambda rng: _flips(rng, 0.03, 30))
    checks = [
        Check("of the wrong answers of a bad day that are left", found, 0, 0.5, "share"),
        Check("changes of side in 48 h at the limit, with hysteresis and a hold", calm, 0, 60),
    ]
    why = (
        "It does, from 30% wrong to the rules' 8%. It needs two limits: with one it changes sides "
        f"{plain.estimate:.0f} times in "
        f"48 h when quality is right there, with a lower one to close and half an hour's hold {calm.estimate:.0f} "
        "times."
    )
    return Found(checks, why)


def shadow(lab: Lab) -> Found:
    """Claim 49: how many graded answers it takes, and looking every time."""
    look = np.arange(1, 101)

    def draw(rng: np.random.Generator) -> list[float]:
        null, _ = sequential.looks(rng, 0.01, 100, 100, 400)
        double, graded = sequential.looks(rng, 0.02, 100, 100, 400)
        limit = np.log(20)
        return [
            float((sequential.log_evidence(double, graded, 0.01) >= limit).any(axis=1).mean()),
            float((sequential.log_evidence(null, graded, 0.01) >= limit).any(axis=1).mean()),
            float(sequential.peeking(null, 100 * look, 0.01).any(axis=1).mean()),
        ]

    seen, false, peeked = lab.samples("shadow", draw)
    checks = [
        Check("doubled error rates that 10,000 shadow answers find", seen, 0.8, 1, "share"),
        Check("healthy releases stopped, over a hundred looks", false, 0, 0.05, "share"),
    ]
    why = (
        f"With enough graded answers: about {rates.to_notice(0.01, 0.02):,} to see 1% become 2%, and "
        f"{rates.to_notice(0.01, 0.012):,} to see 1.2%. Who tests at 5% on each of a hundred looks stops "
        f"{peeked.estimate:.0%} of "
        f"healthy releases; evidence that may be looked at always, {false.estimate:.1%}."
    )
    return Found(checks, why)


def prompts(lab: Lab) -> Found:
    """Claim 50: the cause is not ours to count; what a gate would save is."""
    share, per_look = 0.01, 20
    baseline, after = 0.005, 0.08

    def served(rng: np.random.Generator) -> float:
        wrong, graded = sequential.looks(rng, after, per_look, 200, 50)
        stop = sequential.first(sequential.log_evidence(wrong, graded, baseline) >= np.log(20)) + 1
        return float(stop.mean() * 60 * PER_S * share * (after - baseline))

    canary = lab.sample("prompts", served)
    all_day = delays.excess(86400, PER_S, after - baseline)
    why = (
        "We know no statistics of causes. If an edit raises format errors from 0.5% to 8%, a day without a gate is "
        f"{all_day:,.0f} "
        f"more wrong answers; a canary of 1% with 20 checks a minute stops after {canary.estimate:.0f}."
    )
    return Found([], why, number=Check("wrong answers before a canary stops it", canary, 0, 0))


def flags(lab: Lab) -> Found:
    """Claim 51: a minute, or an hour."""

    def ratio(rng: np.random.Generator) -> float:
        extra = WORSE[1] - WORSE[0]
        return float(rng.poisson(delays.excess(3600, PER_S, extra)) / rng.poisson(delays.excess(60, PER_S, extra)))

    found = lab.sample("flags", ratio)
    minute, hour = (delays.excess(s, PER_S, WORSE[1] - WORSE[0]) for s in (60, 3600))
    why = (
        f"From 1% to 3% wrong: {minute:,.0f} more wrong answers in the minute a flag takes, {hour:,.0f} in a "
        "pipeline's hour."
    )
    return Found([Check("wrong answers of a rollback in an hour, over a minute's", found, 10, np.inf, "times")], why)


def waiting(lab: Lab) -> Found:
    """Claim 52: the first complaints."""
    day = lab.sample("waiting", lambda rng: float(rng.poisson(delays.excess(86400, PER_S, WORSE[1] - WORSE[0]))))
    quick = delays.excess(300, PER_S, WORSE[1] - WORSE[0])
    why = f"Two points worse: noticed in a day, {day.estimate:,.0f} more wrong answers; in five minutes, {quick:,.0f}."
    return Found([Check("more wrong answers until noticed, in a day", day, 100_000, np.inf)], why)


MEASURES = {
    18: calibrated, 19: surely_wrong, 20: ordering, 21: accurate_or_calibrated, 39: good_enough, 41: cheaper, 47: gate,
    48: breaker, 49: shadow, 50: prompts, 51: flags, 52: waiting,
}  # fmt: skip
