"""A measured run played again by the engine: the same arrivals and lengths, on other step times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sim.calibrate.runs import Measured
from sim.calibrate.scale import draw_scales
from sim.calibrate.steplog import Floats
from sim.engine.fleet import Fleet
from sim.engine.latency import StepTimes
from sim.engine.profiles import Profile
from sim.records import Outcome
from sim.rng import stream

FOREVER_S = 1e7
PERCENTS = (50, 95, 99)
METRICS = tuple(f"{what} P{p}" for what in ("TTFT", "e2e") for p in PERCENTS)
DRAWS = 200
NORMAL_97 = 1.96


def play(one: Measured, steps: StepTimes, profile: Profile | None = None, seed: int = 1) -> tuple[Floats, Floats]:
    """Return TTFT and e2e of every request of *one*, in its order, when steps take what *steps* say; nan: not answered.

    With a *profile*, its noise and its ways to the engine and back are played too.
    """
    rows = replay(one, steps, profile, seed)
    good = rows["outcome"] == Outcome.OK
    first_s, end_s = (np.where(good, rows[name], np.nan) for name in ("first_token_s", "finished_s"))
    return first_s - one.sent_s, end_s - one.sent_s


def replay(one: Measured, steps: StepTimes, profile: Profile | None = None, seed: int = 1) -> np.ndarray:
    """Return the rows (`sim.records.ATTEMPT`) of what `play` plays, in the order of *one*."""
    extra = {"noise": 0.0, "slow_noise": 0.0, "ingress_s": 0.0, "egress_s": 0.0}
    if profile is not None:
        sigma, slow_sigma, period_s = profile.noise or (0.0, 0.0, 1.0)
        extra = {
            "noise": sigma, "slow_noise": slow_sigma, "slow_period_s": period_s, "ingress_s": profile.ingress_s,
            "egress_s": profile.egress_s,
        }  # fmt: skip
    config = replace(one.config, steps=steps, **extra)  # type: ignore[arg-type]
    fleet = Fleet([config], seed=seed, duration_s=float(one.sent_s[-1]) + 1.0, prefixes=one.tree)
    fleet.submit(one.asks)
    kept = []
    while fleet.advance(FOREVER_S) != "done":
        kept.append(fleet.take_rows())
    rows = np.concatenate([*kept, fleet.take_rows()])
    return rows[np.argsort(rows["request"])]


def most_at_once(begin_s: Floats, end_s: Floats) -> int:
    """Return how many were there at once, at most, of those that came and went at these times."""
    change = np.concatenate([np.ones(len(begin_s)), -np.ones(len(end_s))])
    return int(np.cumsum(change[np.argsort(np.concatenate([begin_s, end_s]), kind="stable")]).max(initial=0))


def scaled(steps: StepTimes, factor: float) -> StepTimes:
    """Return *steps* with one *factor* on everything."""
    return replace(
        steps, base_s=steps.base_s * factor, decode_s=steps.decode_s * factor, tokens_s=steps.tokens_s * factor,
        prefill_ctx_s=steps.prefill_ctx_s * factor,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Predicted:
    """One measured run beside what a profile says of it: arrays in the order of `METRICS`, seconds.

    *predicted* is the median over draws of luck and of the profile's scale, *low* and *high* hold 95% of them.
    *beyond*: what the run asks that the profile has not measured. *promised*: bounds of its scenario's `slo`, seconds,
    by metric (``ttft_p99``).
    """

    name: str
    measured: Floats
    predicted: Floats
    low: Floats
    high: Floats
    beyond: tuple[str, ...]
    promised: Mapping[str, float] = field(default_factory=dict)

    @property
    def errors(self) -> Floats:
        """How far the predictions are from what was measured, as fractions."""
        return self.predicted / self.measured - 1.0

    @property
    def inside(self) -> np.ndarray:
        """Which of the measured are inside their intervals; what was not measured is."""
        return ~((self.measured < self.low) | (self.measured > self.high))

    @property
    def too_wide(self) -> list[tuple[int, float]]:
        """What nobody can plan with: places in `METRICS` with the bound that is promised there.

        The prediction is nearer to the bound than half its interval is wide, so it cannot tell whether the promise is
        kept.
        """
        bounds = {k: self.promised.get(metric.lower().replace(" ", "_")) for k, metric in enumerate(METRICS)}
        half = (self.high - self.low) / 2
        return [(k, at) for k, at in bounds.items() if at is not None and half[k] > abs(at - self.predicted[k])]


def percentiles(ttft_s: Floats, e2e_s: Floats) -> Floats:
    """Return what `METRICS` names; nan of first tokens that were not seen."""
    parts = []
    for values in (ttft_s, e2e_s):
        known = values[np.isfinite(values)]
        parts.append(np.percentile(known, PERCENTS) if len(known) else np.full(len(PERCENTS), np.nan))
    return np.concatenate(parts)


def predict(one: Measured, profile: Profile, draws: int = DRAWS) -> Predicted:
    """Say what *profile* predicts of *one*, of which nothing but arrivals, lengths and settings are used."""
    steps = profile.steps(one.config.max_seqs, one.config.max_tokens)
    scales = draw_scales(profile.scale, draws, stream(1, "scale")) if profile.scale else np.ones(draws)
    ways, slopes = _ways(profile, draws), stream(1, "beyond").standard_normal(draws)
    found = []
    for seed, (factor, way, slope) in enumerate(zip(scales.tolist(), ways.tolist(), slopes.tolist()), start=1):
        luck = replace(profile, ingress_s=profile.ingress_s * way, egress_s=profile.egress_s * way)
        drawn = scaled(_continued(steps, profile, slope), factor)
        found.append(percentiles(*play(one, drawn, luck, seed)))
    low, middle, high = np.nanpercentile(found, (2.5, 50, 97.5), axis=0)
    return Predicted(
        one.name, percentiles(one.ttft_s, one.e2e_s), middle, low, high, tuple(_beyond(one, profile, steps)),
        one.promised,
    )  # fmt: skip


def _ways(profile: Profile, draws: int) -> Floats:
    """Return how much longer than usual the ways between client and engine are in each of *draws* other runs."""
    name = "egress_s" if profile.egress_s else "ingress_s"
    mean, ends = getattr(profile, name), (profile.intervals or {}).get(name)
    if not mean or not ends or not ends[0]:
        return np.ones(draws)
    return draw_scales((ends[0] / mean, ends[1] / mean), draws, stream(1, "ways"))


def _continued(steps: StepTimes, profile: Profile, luck: float) -> StepTimes:
    """Return *steps* with another slope beyond the largest batch that was measured; *luck* is standard normal.

    Nobody knows it: at the middle it goes on as the profile has it. At its 2.5% batches cost no more, as while reading
    weights hides them; at its 97.5% each sequence costs what every one so far has cost, as when arithmetic decides.
    """
    last = int((profile.range or {}).get("sequences", (0, len(steps.decode_s)))[1])
    if profile.grid is not None or last + 1 >= len(steps.decode_s):
        return steps
    more = np.arange(len(steps.decode_s))[last + 1 :, None] - last
    usual = steps.decode_s[last + 1] - steps.decode_s[last]
    most = np.maximum((steps.base_s + steps.decode_s[last]) / last, usual)
    share = min(abs(luck) / NORMAL_97, 1.0)
    slope = usual + share * ((most if luck > 0 else np.zeros_like(usual)) - usual)
    decode = steps.decode_s.copy()
    decode[last + 1 :] = decode[last] + more * slope
    return replace(steps, decode_s=decode)


def _beyond(one: Measured, profile: Profile, steps: StepTimes) -> Sequence[str]:
    asks = one.asks
    rows = replay(one, steps, profile)
    at_once = most_at_once(rows["admitted_s"], rows["finished_s"]) / one.config.replicas
    met = {
        "sequences": min(np.ceil(at_once), one.config.max_seqs),
        "prompt_tokens": float(min(asks["prompt_tokens"].max(), one.config.max_tokens)),
        "context": float((asks["prompt_tokens"] + asks["output_tokens"]).max()),
    }
    return profile.beyond(met)
