"""What a share comes to: records, days, minutes, and the hour by which a million people were told something wrong."""

import numpy as np

from sim.quality import volume
from sim.quality.chains import verified
from sim.quality.decision import repair_hours
from sim.seed.lab import Lab
from sim.seed.verdicts import Check, Found, exact
from sim.theory.chance import clopper_pearson
from sim.theory.counted import wilson

USERS = 10e6
ERROR = 0.01
SEGMENTS = 30
"""Stretches of speech in one visit, for the sake of the argument: a visit of 15 minutes in pieces of 30 s."""
CLINICIANS, VISITS_A_MONTH = 30_000, 160
"""The clinicians are the article's; 160 visits a month are eight on each of 20 working days."""
VISITS_A_YEAR = 7e6
"""What the vendor was reported to have transcribed in all (Associated Press, October 2024), as if in twelve months."""
H100_PER_S = 231.5 / 24
"""Chats a second that an H100 serves with Llama-3.1-8B: the scenario ten-million-users at its peak, on 24 of them."""


def whisper(lab: Lab) -> Found:
    """Claim 1: one percent of what?"""
    n = 100_000
    whole = lab.sample("a segment a record", lambda rng: rng.binomial(n, ERROR) / n)
    parts = lab.sample("segments", lambda rng: float((rng.binomial(SEGMENTS, ERROR, n) > 0).mean()))
    checks = [
        Check("records spoilt, if a record is one sample", whole, ERROR, ERROR, "share"),
        Check(f"records spoilt, if a record is {SEGMENTS} samples", parts, ERROR, ERROR, "share"),
    ]
    why = (
        f"1% was measured per audio sample. A visit is many of them: with {SEGMENTS} it is "
        f"1 - 0.99^{SEGMENTS} = {volume.record_error(ERROR, SEGMENTS):.0%} of the records."
    )
    return Found(checks, why)


def clinicians(lab: Lab) -> Found:
    """Claim 2: how many visits are there?"""
    full = lab.sample("visits", lambda rng: float(rng.poisson(CLINICIANS * VISITS_A_MONTH * ERROR)))
    told = lab.sample("visits told", lambda rng: float(rng.poisson(VISITS_A_YEAR / 12 * ERROR)))
    checks = [
        Check("a month, if every clinician uses it for all visits", full, 1e4, 1e5),
        Check("a month, with the visits that were reported", told, 1e4, 1e5),
    ]
    why = "Right at full use, from 34 visits a clinician and month on; the visits that the vendor reported give fewer."
    return Found(checks, why)


def growth(lab: Lab) -> Found:
    """Claim 3: scale and rate."""
    sizes = np.array([1e4, 1e5, 1e6, 1e7])

    def slope(rng: np.random.Generator) -> float:
        return float(np.polyfit(np.log(sizes), np.log(rng.poisson(sizes * ERROR)), 1)[0])

    check = Check("tenfold per tenfold users: the slope", lab.sample("growth", slope), 1.0, 1.0)
    return Found(
        [check], "Errors grow in proportion to users, and the share stays. Dashboards that show only it stay flat."
    )


def a_day(lab: Lab) -> Found:
    """Claim 4: a hundred thousand a day."""
    found = lab.sample("a day", lambda rng: float(rng.binomial(rng.poisson(USERS), ERROR)))
    sd = volume.volume(USERS, ERROR).sd
    why = (
        f"With one request per user and day, give or take {sd:.0f} by chance. Users who ask five times make it 500,000."
    )
    return Found([Check("wrong answers a day", found, 1e5, 1e5)], why)


def a_minute(lab: Lab) -> Found:
    """Claim 5: by the minute, over a day that has a night."""
    at = (np.arange(1440) + 0.5) * 60
    wave = 1 + np.cos(2 * np.pi * (at - volume.PEAK_AT_S) / volume.DAY_S)

    def draw(rng: np.random.Generator) -> list[float]:
        wrong = rng.poisson(USERS * ERROR / 1440 * wave)
        peak = np.convolve(wrong, np.ones(60) / 60, "valid").max()
        return [float(wrong.mean()), float(peak)]

    mean, peak = lab.samples("a minute", draw)
    why = f"{USERS * ERROR / 1440:.1f} on average. In the busiest hour it is {peak.estimate:.0f}: staff for that one."
    return Found([Check("wrong answers a minute", mean, 65, 75)], why, {"peak": peak, "mean": mean})


def modest(lab: Lab) -> Found:
    """Claim 6: what such traffic takes."""
    rate = 10e6 / 3600
    gpus = rate / H100_PER_S
    why = (
        f"Modest is an opinion. It is {rate:,.0f} requests/s, for which chats with an 8B model need about "
        f"{gpus:.0f} H100s, "
        "on average and without a reserve."
    )
    return Found([], why, number=Check("H100s", exact(gpus), 0, 0))


def before_noon(lab: Lab) -> Found:
    """Claim 7: the hour of the millionth wrong answer."""
    hourly = 10e6 * ERROR

    def crossing(rng: np.random.Generator, peak: float) -> float:
        at = (np.arange(1440) + 0.5) * 60
        wave = 1 + (peak - 1) * np.cos(2 * np.pi * (at - volume.PEAK_AT_S) / volume.DAY_S)
        total = np.cumsum(rng.poisson(hourly / 60 * wave))
        return float(np.searchsorted(total, 1e6) + 1) / 60

    flat = lab.sample("flat day", lambda rng: crossing(rng, 1.0))
    day = lab.sample("diurnal day", lambda rng: crossing(rng, 2.0))
    hours = np.linspace(0, 24, 241)
    curve = hours + np.array([_wave(h) for h in hours])
    checks = [
        Check("hours after midnight, if users never sleep", flat, 0, 12, "h"),
        Check("hours after midnight, if nights are quiet", day, 0, 12, "h"),
    ]
    late = volume.reached_s(1e6, 24 * hourly, 2.0) / 3600
    why = f"At 10:00 if traffic is the same all night; with a quiet night and a peak at 15:00, at {_clock(late)}."
    return Found(checks, why, {"hours": hours, "flat": hours * hourly, "day": curve * hourly, "late": late})


def _wave(hour: float) -> float:
    """Hours of the mean rate that the day's wave has added by *hour*."""
    turn = 2 * np.pi / 24
    peak = volume.PEAK_AT_S / 3600
    return float((np.sin(turn * (hour - peak)) + np.sin(turn * peak)) / turn)


def _clock(hours: float) -> str:
    return f"{int(hours)}:{round(hours % 1 * 60):02d}"


def two_sizes(lab: Lab) -> Found:
    """Claim 14: the same share of two sizes."""
    small = lab.sample("small", lambda rng: float(rng.binomial(10_000, ERROR, 400).mean()))
    large = lab.sample("large", lambda rng: float(rng.binomial(int(USERS), ERROR, 400).mean()))
    checks = [Check("wrong, of 10,000", small, 100, 100), Check("wrong, of ten million", large, 1e5, 1e5)]
    return Found(checks, "The share is the same; what it does to the world is not.")


def incidents(lab: Lab) -> Found:
    """Claim 42: what is noticed first, and what mending the rest takes."""
    n = 100_000
    step = verified(1 - ERROR, 0.8, 0.05, retries=1)
    plain = lab.sample("actions", lambda rng: float(rng.binomial(int(USERS), ERROR)))
    checked = lab.sample("checked actions", lambda rng: float(rng.binomial(int(USERS), 1 - step.right)))
    hours, days = repair_hours(n, 600)
    checks = [
        Check("wrong actions, if nothing checks them", plain, 1e5, 1e5),
        Check("left by a verifier that sees 80% and one retry", checked, 1e5, 1e5),
    ]
    why = (
        f"If nothing stands between. A verifier that sees 80% and one retry leave {USERS * (1 - step.right):,.0f}. "
        f"Mending 100,000 by hand, ten minutes each, is {hours:,.0f} hours: {days:,.0f} people, every day."
    )
    return Found(checks, why)


def tested(lab: Lab) -> Found:
    """Claim 43: how sure twenty of two thousand are."""
    wrong = clopper_pearson(20, 2000)
    right = 1 - np.array(wrong)
    found = type(wrong)(float(right[0]), float(right[2]), float(right[1]))
    spread = wilson(20, 2000)
    why = (
        f"Right, and unsure: the error is anything from {wrong.low:.2%} to {wrong.high:.2%} (exact; Wilson "
        f"{spread.low:.2%} "
        f"to {spread.high:.2%}). At ten million a day that is {USERS * wrong.low:,.0f} to {USERS * wrong.high:,.0f}."
    )
    return Found([Check("share right", found, 0.99, 0.99, "share")], why)


MEASURES = {
    1: whisper, 2: clinicians, 3: growth, 4: a_day, 5: a_minute, 6: modest, 7: before_noon, 14: two_sizes,
    42: incidents, 43: tested,
}  # fmt: skip
