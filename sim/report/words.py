"""Numbers as a person says them, and the sentences that a run makes true.

Nothing here draws: figures, tables and the page all take their words from this file, so that they agree.
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sim import claims, summary
from sim.summary import BIN_LOW_S, BIN_RATIO

PART_NAMES = {
    "client_wait_s": "waiting in the client",
    "backoff_s": "backing off before a retry",
    "seat_wait_s": "waiting for a seat in the batch",
    "kv_wait_s": "waiting for KV cache blocks",
    "step_wait_s": "waiting for a step or token budget",
    "prefill_s": "computing the prompt (prefill)",
    "decode_alone_s": "decoding as if alone",
    "decode_slowed_s": "decoding slowed by the batch",
    "preempted_s": "preempted and recomputed",
    "fault_stall_s": "stalled by a fault",
}
"""What a person calls each of the ten parts of `sim.records.PARTS`, in the order of an attempt's life."""

MEASURED_NAMES = {"prefill_s": "before the first token", "decode_alone_s": "after the first token"}
"""The same of measured requests: their clients know when the first token came, and not what it waited for."""

TIMES = ("ttft", "e2e", "itl", "tpot", "queue")
TIME_NAMES = {
    "ttft": "time to first token",
    "e2e": "end-to-end latency",
    "itl": "inter-token latency",
    "tpot": "time per output token",
    "queue": "time in the queue",
}
SHORT_NAMES = {"ttft": "TTFT", "e2e": "e2e", "itl": "ITL", "tpot": "TPOT", "queue": "queue"}

AXES = {
    "workload.rate_per_s": ("requests per second", "{} requests/s"),
    "workload.cohorts": ("users", "{}"),
    "workload.arrivals": ("arrivals", "{}"),
}
"""Settings that have a better name than their own: what an axis says, and what a point is called."""

DURATIONS = (
    *("refresh", "timeout", "first_token_timeout", "deadline", "after", "base", "cold_start", "rollback", "dwell"),
    *("hold", "window", "delay", "handling", "patience", "interval", "from", "to", "mean", "median", "max_wait"),
)
"""Last words of settings that are times: a point's name gives them a unit."""
SHARES = (
    *("error", "share", "lowest", "load_aware", "alpha", "misses", "false_alarms", "sensitivity", "specificity"),
    *("probe", "open_above", "close_below", "sure", "if_wrong", "if_right"),
)
"""The same of settings that are shares."""
EVALUATED = "quality.evaluation.share."
"""Behind it stands the cohort of whose answers a share is looked at."""
AT_ONCE_S = BIN_LOW_S * BIN_RATIO
"""The upper edge of the lowest bin of a latency histogram."""
NOTICED = 0.05
"""Share of a request's time from which on a part that grew is worth a word."""

FRACTIONS = summary.SHARES | {"goodput_kept"}


def seconds(value: float, digits: int = 3) -> str:
    """Return a time as ``23 ms``, ``1.66 s``, ``12 min`` or ``3.1 h``, with *digits* significant digits."""
    if not math.isfinite(value):
        return "–"
    scale, unit = time_unit(value)
    return f"{significant(value / scale, digits)} {unit}"


def to_float(value: float | None) -> float:
    """Return *value* as JSON holds it, where what is not a number is null."""
    return math.nan if value is None else float(value)


def tick(value: float) -> str:
    """Return a time on an axis: ``100 ms``, ``2 s``, ``30 min``, without digits that say nothing."""
    scale, unit = time_unit(value)
    if scale > 1 and not (value / scale).is_integer():
        scale, unit = 1.0, "s"
    return f"{value / scale:,.6g} {unit}"


def lasting(value: float) -> str:
    """Return how long a run is, for a heading: as `tick`, but of a length that nobody chose, three digits."""
    return tick(value) if float(value).is_integer() or len(f"{value:g}") <= 4 else seconds(value)


def length(value: float) -> str:
    """Return a time that somebody wrote: ``1 min``, ``90 s``, ``1 h``, in the largest unit in which it is whole."""
    if value <= 0 or not float(value).is_integer():
        return tick(value) if value else "0 s"
    scale, unit = next((scale, unit) for scale, unit in ((3600, "h"), (60, "min"), (1, "s")) if value % scale == 0)
    return f"{value / scale:,.0f} {unit}"


def time_unit(value: float) -> tuple[float, str]:
    """Return the seconds in the unit that suits a time of *value* seconds, and the unit's name."""
    for scale, unit, least in (
        (3600.0, "h", 7200.0),
        (60.0, "min", 600.0),
        (1.0, "s", 0.9995),
        (1e-3, "ms", 0.9995e-3),
    ):
        if abs(value) >= least:
            return scale, unit
    return (1e-3, "ms") if value == 0 else (1e-6, "µs")


def significant(value: float, digits: int = 3) -> str:
    """Return *value* with *digits* significant digits, commas between thousands, and no exponent."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)  # rounding may carry: 9.996 has three digits before it and needs two places after it
    return f"{rounded:,.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}"


def number(value: float) -> str:
    """Return a count or a rate: ``9,984``, ``12.3``, ``0.04``."""
    if not math.isfinite(value):
        return "–"
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return significant(value)


def percent(fraction: float) -> str:
    """Return a fraction as ``97%``, ``0.12%`` or ``99.9%``: never rounded up to all."""
    if not math.isfinite(fraction):
        return "–"
    if fraction < 0:
        return f"-{percent(-fraction)}"
    value = 100 * fraction
    if value in (0, 100):
        return f"{value:.0f}%"
    if 99 < value < 100:
        return f"{min(value, 99.9):.1f}%"
    return f"{value:.0f}%" if value >= 10 else f"{float(significant(value, 2)):g}%"


def quantity(metric: str, value: float) -> str:
    """Return *value* in the unit of *metric*: a time, a percentage or a count."""
    kind = _kind(metric)
    if is_fraction(kind):
        return percent(value)
    if is_time(kind) and 0 < value <= AT_ONCE_S:
        return seconds(0.0)  # the lowest bin also holds what took no time at all, as rules that answer at once
    return seconds(value) if is_time(kind) else number(value)


def unit(metric: str) -> str:
    """Return what *metric* is counted in: ``s``, ``%``, or nothing where it is a count or a rate."""
    kind = _kind(metric)
    return "%" if is_fraction(kind) else "s" if is_time(kind) else ""


def interval(metric: str, estimate: float, low: float, high: float, is_range: bool = False) -> str:
    """Return ``1.66 s [1.40, 2.01]``, the ends in the unit of the estimate; one seed, or no width, has no interval.

    What *is_range*, lowest to highest of a few values, is no interval and looks otherwise: ``1.66 s (1.40..2.01)``.
    """
    text = quantity(metric, estimate)
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        return text
    kind = _kind(metric)
    if is_fraction(kind):
        ends = [percent(end).removesuffix("%") for end in (low, high)]
    else:
        scale = time_unit(estimate)[0] if is_time(kind) else 1.0
        ends = [(significant if is_time(kind) else number)(end / scale) for end in (low, high)]
    return f"{text} ({'..'.join(ends)})" if is_range else f"{text} [{', '.join(ends)}]"


def is_time(metric: str) -> bool:
    """Say whether *metric* (``ttft_p99``) is a time in seconds."""
    if metric.endswith("_s") and not metric.endswith("_per_s"):
        return True
    return metric.removeprefix("task_").partition("_")[0] in (*TIMES, "wait")


def is_fraction(kind: str) -> bool:
    """Return whether the metric *kind*, without cohort and window, is a fraction, and said in per cent."""
    return kind in FRACTIONS or kind.endswith(("_share", "_spent"))


def _kind(metric: str) -> str:
    """Return *metric* without its cohort and its window."""
    kind = metric.partition("@")[0].rpartition(".")[2]
    # The queue of a team is of answers and counted; that of an engine is waited in.
    return "waiting_mean" if metric.startswith("team.") and kind == "queue_mean" else kind


def metric_name(metric: str) -> str:
    """Return ``TTFT P99`` for ``ttft_p99``: how a percentile stands in a table."""
    time, _, statistic = metric.partition("_")
    if time not in TIMES:
        # It counts them however late they came: only what is within an SLO is called good.
        return "right answers per s" if metric == "goodput_per_s" else metric.replace("_", " ")
    shown = {"mean": "mean", "p999": "P99.9"}.get(statistic, statistic.upper())
    return f"{SHORT_NAMES[time]} {shown}"


def times(ratio: float) -> str:
    """Return how often something fits into something else: ``28-fold``, ``1.3-fold``."""
    return f"{significant(ratio, 2)}-fold"


def change(ratio: float) -> str:
    """Return ``+4%`` or ``−12%`` for a ratio near 1, ``×28`` for one far from it."""
    if ratio >= 2:
        return f"×{significant(ratio, 2)}"
    whole = round(100 * (ratio - 1))
    return "±0%" if whole == 0 else f"{'+' if whole > 0 else '−'}{abs(whole)}%"


def axis_name(path: str) -> str:
    """Return what an axis over the setting *path* says."""
    if path.startswith(EVALUATED):
        return f"share of {path.removeprefix(EVALUATED)} evaluated"
    return AXES.get(path, (path.rpartition(".")[2], ""))[0]


def point_name(point: Mapping[str, Any]) -> str:
    """Return what a point of `vary` is called: ``7.2 requests/s``, ``router random, replicas 4``."""
    return ", ".join(_setting(path, value) for path, value in point.items())


def at(label: str, sentence: str) -> str:
    """Return *sentence* with its place before it: ``At 7.2 requests/s, half ...``, ``With router random, half ...``."""
    if not label:
        return sentence[0].upper() + sentence[1:]
    found = place(label)
    return f"{found[0].upper()}{found[1:]}, {sentence}"


def place(label: str) -> str:
    """Return where a point is: ``at 7.2 requests/s``, ``with router random``."""
    return f"{'at' if label[0].isdigit() else 'with'} {label}"


def _setting(path: str, value: Any) -> str:
    if path.startswith(EVALUATED) and isinstance(value, float):
        return f"{100 * value:.6g}% of {path.removeprefix(EVALUATED)} evaluated"
    text = AXES.get(path, ("", path.rpartition(".")[2] + " {}"))[1].format(_value(path, value))
    return "1 request/s" if text == "1 requests/s" else text


def _value(path: str, value: Any) -> str:
    """Return a value of `vary` with the unit that its setting has."""
    if isinstance(value, Mapping | list):
        value = claims.value_name(value)
    if isinstance(value, bool):
        return str(value).lower()  # as YAML says it
    if not isinstance(value, float):
        return "none" if value is None else str(value)
    last = path.rpartition(".")[2]
    if last in DURATIONS:
        return length(value)
    return f"{100 * value:.6g}%" if last in SHARES else f"{value:g}"


def between(first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """Return ``between 6 and 7.2 requests/s`` for two points of one setting."""
    (path, low), (_, high) = *first.items(), *last.items()
    if path in AXES:
        return f"between {low:g} and {point_name(last)}"
    return f"between {point_name(first)} and {_value(path, high)}"


def listing(things: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return " and ".join([", ".join(things[:-1]), things[-1]] if len(things) > 1 else list(things))


def clock(time_s: float) -> str:
    """Return a time since the start as ``14:05`` (hours and minutes), with ``day 3,`` before it after the first day."""
    minutes = int(time_s // 60)
    day, minutes = divmod(minutes, 24 * 60)
    text = f"{minutes // 60:02d}:{minutes % 60:02d}"
    return f"day {day + 1}, {text}" if day else text


def moment(time_s: float, duration_s: float) -> str:
    """Return when something happened, in the words that suit a run of *duration_s*: ``14:05``, ``minute 12``."""
    if duration_s > 3 * 3600:
        return clock(time_s)
    return f"minute {time_s / 60:.0f}" if duration_s > 300 else f"second {time_s:.0f}"


def stamp(time_s: float) -> str:
    """Return a time since the start to the second: ``14:05`` (minutes and seconds), ``3:14:05`` from an hour on."""
    minutes, seconds_ = divmod(round(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds_:02d}" if hours else f"{minutes}:{seconds_:02d}"


def _beside(value: float, other: float) -> str:
    """Return a time, or that there is (next to) none of it beside *other*."""
    if value <= 0:
        return "none"
    return seconds(value) if value > 0.002 * other else "next to none"


Beside = tuple[Sequence[float], Sequence[float]]
"""Seconds by part of the slowest 1%, and of those around the median."""


def slowest(label: str, whole: Beside, before: Beside, names: Mapping[str, str] = PART_NAMES) -> str:
    """Return the sentences that say what the slowest 1% waited for, before the first token and after it.

    *whole* and *before* are the parts that *names* calls by name, mean seconds, of the whole request and as far as they
    fell before the first token: of the slowest 1% by time to first token, and beside them of the requests around its
    median. *label* names the point, or is empty.
    """
    (tail_s, median_s), (tail_first_s, median_first_s) = whole, before
    tail, median = sum(tail_s), sum(median_s)
    first, usual = sum(tail_first_s), sum(median_first_s)
    if not (math.isfinite(tail) and math.isfinite(median) and tail > 0):
        return ""
    parts = list(zip(names.values(), tail_s, median_s))
    sooner = _news(_longer(list(zip(names.values(), tail_first_s, median_first_s)), NOTICED * first))
    rest = [(name, a - x, b - y) for (name, a, b), x, y in zip(parts, tail_first_s, median_first_s)]
    after = _news(_longer(rest, NOTICED * tail))
    text = at(
        label,
        f"the slowest 1% by time to first token spent {seconds(first)} before it, requests around the median "
        f"{_beside(usual, first)}.",
    )
    if sooner:
        text += f" What took longer, most first: {listing(sooner)}."
    text += f" To the last token they took {seconds(tail)}, against {seconds(median)}"
    text += f"; what took longer after the first: {listing(after)}." if after else "."
    shorter = max(((b - a, name) for name, a, b in parts), default=(0.0, ""))
    if shorter[0] > 0.1 * tail:
        text += f" They had it easier in one thing: {seconds(shorter[0])} {_less(shorter[1])}."
    return text


def _less(name: str) -> str:
    """Return that there was less of a part; of one that is only a time, as measured ones are, when that was."""
    return f"less {name}" if name in MEASURED_NAMES.values() else f"less of {name}"


def slowest_e2e(tail_s: Sequence[float], median_s: Sequence[float], names: Mapping[str, str] = PART_NAMES) -> str:
    """Return the same as `slowest` of the slowest 1% by end-to-end latency, where the first token is no milestone."""
    tail, median = sum(tail_s), sum(median_s)
    longer = _longer(list(zip(names.values(), tail_s, median_s)), NOTICED * tail)
    text = f"The slowest 1% end to end took {seconds(tail)}, requests around the median {_beside(median, tail)}."
    return text + (f" What took longer, most first: {listing(longer)}." if longer else "")


def _news(longer: list[str]) -> list[str]:
    """Return what took *longer*; nothing where it is one thing that says no more than that it was before the token."""
    said_already = len(longer) == 1 and longer[0].startswith(tuple(MEASURED_NAMES.values()))
    return [] if said_already else longer


def _longer(parts: Sequence[tuple[str, float, float]], least_s: float) -> list[str]:
    """Return the three *parts* (name, tail, median) that grew most, by more than *least_s*, with both times."""
    grown = sorted(((a - b, name, a, b) for name, a, b in parts if a - b > least_s), reverse=True)
    return [f"{name} ({seconds(a)}, against {_beside(b, a)})" for _, name, a, b in grown[:3]]


def aged(sentence: str, today: date) -> str:
    """Return *sentence* with how long ago it was behind each day on which something in it was measured."""

    def with_age(found: "re.Match[str]") -> str:
        days = (today - date.fromisoformat(found[1])).days
        return f"{found[0]} ({days:,} day{'s' * (days != 1)} ago)" if days > 0 else found[0]

    return re.sub(r"measured on (\d{4}-\d\d-\d\d)", with_age, sentence)
