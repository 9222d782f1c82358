"""Why answers were wrong, who found them and when: sentences under the table of a run with `quality`."""

import math

from sim.report import happened, subject, words
from sim.report.view import Point, View, highest

TOLD = 0.005
"""Share of the wrong answers from which on what nobody is named for is worth a word."""
LATE = 0.01
"""Share of what was held back from which on it is worth a word that nobody had time for it."""


def sentences(seen: View) -> list[str]:
    """Return what made answers wrong at the point with most of them, and what gates, breakers and tests made of it."""
    if not seen.lead or not seen.points:
        return []
    point = highest(seen.points, "delivered_wrong" if "delivered_wrong" in seen.lead else "wrong")
    if not point.metric("wrong").value > 0:
        return []
    told = [_causes(point), _reviewed(point), _open(point, seen.duration_s), *_releases(seen, point)]
    return [*[text for text in [" ".join(filter(None, told))] if text], *filter(None, [_noticed(point)])]


def _causes(point: Point) -> str:
    wrong, answers = point.metric("wrong").value, point.metric("ok").value
    by = {name: point.metric(f"cause.{name}.wrong").value for name in subject.names(point.metrics, "cause")}
    by = dict(sorted(((k, v) for k, v in by.items() if v > 0), key=lambda both: -both[1]))
    own = wrong - sum(by.values())
    causes = [f"{words.number(round(n))} by {name}" for name, n in by.items()]
    if by and own > TOLD * wrong:
        causes.append(f"{words.number(round(own))} by the usual error of cohorts")
    text = f"{words.number(round(wrong))} of {words.number(round(answers))} answers were wrong"
    text += f" ({words.percent(wrong / answers)})" if answers else ""
    return words.at(point.label, text + (f": {words.listing(causes)}." if causes else "."))


def _reviewed(point: Point) -> str:
    if "delivered_wrong" not in point.metrics:
        return ""
    held, caught, got, withheld = (
        point.metric(name).value for name in ("escalated", "caught", "delivered_wrong", "withheld")
    )
    text = f"Gates held {words.number(round(held))} answers back; reviewers put {words.number(round(caught))} right"
    text += f", {words.number(round(withheld))} were never delivered" if withheld > 0 else ""
    text += f", and {words.number(round(got))} wrong ones reached users."
    for team in subject.names(point.metrics, "team"):
        late = point.metric(f"team.{team}.late_share").value
        if late > LATE:
            text += f" Team {team} had no time for {words.percent(late)} of what was held back for it."
    return text


def _open(point: Point, duration_s: float) -> str:
    """Return when breakers on quality were open in the first seed, and how much of the time."""
    told: list[str] = []
    for pool in subject.names(point.metrics, "breaker"):
        spans = _spans(point, pool, duration_s)
        whose = "that" if told else "the breaker"
        if not spans:
            told.append(f"{whose} of {pool} stayed closed")
            continue
        until = "the end" if spans[0].end_s >= duration_s else words.stamp(spans[0].end_s)
        often = f"{len(spans)} times, first from" if len(spans) > 1 else "from"
        share = sum(span.end_s - span.start_s for span in spans) / duration_s
        told.append(
            f"{whose} of {pool} was open {often} {words.stamp(spans[0].start_s)} to {until}, "
            f"{words.percent(share)} of the time"
        )
    if not told:
        return ""
    text = "; ".join(told)
    several = len(point.members) > 1
    return f"In the first of {len(point.members)} seeds {text}." if several else f"{text[0].upper()}{text[1:]}."


def _spans(point: Point, pool: str, duration_s: float) -> list[happened.Span]:
    if not point.members:
        return []
    mine = [event for event in point.members[0].events() if event.get("target") == pool]
    return [span for span in happened.spans(mine, duration_s) if span.kind == "quality_breaker"]


def _releases(seen: View, point: Point) -> list[str]:
    told = []
    begins = {one.release: one.from_ for one in seen.scenario.control if hasattr(one, "release")}
    for version in subject.names(point.metrics, "release"):
        noticed, gone = (point.metric(f"release.{version}.{what}") for what in ("noticed_s", "rolled_back_s"))
        began_s = begins.get(version, 0.0)
        text = f"The release of {version} began at {words.stamp(began_s)}"
        if not any(math.isfinite(value) for value in noticed.values):
            told.append(f"{text}; nothing wrong was noticed about it.")
            continue
        partly = subject.moment(noticed)
        if partly or not math.isfinite(noticed.value):
            told.append(f"{text}; the alarm came at {partly}.")
            continue
        text += f"; the alarm came {words.length(round(noticed.value - began_s))} later"
        text += f", and from {words.stamp(gone.value)} on nobody had it" if math.isfinite(gone.value) else ""
        told.append(f"{text}.")
    return told


def _noticed(point: Point) -> str:
    """Return whether the evaluation heard that the rate of wrong answers had doubled, of all or of a cohort."""
    if "alarm_s" not in point.metrics or not subject.names(point.metrics, "cause"):
        return ""
    cohorts = subject.names(point.metrics, "cohort", ".alarm_s")
    by_cohort = {name: point.metric(f"cohort.{name}.alarm_s") for name in cohorts}
    heard = {name: one for name, one in by_cohort.items() if any(math.isfinite(value) for value in one.values)}
    text = f"The evaluation, looked at all together, {_when(point)}"
    if len(by_cohort) > 1 and heard:
        text += "; looked at by cohort it noticed " + words.listing([f"{k} at {_at(one)}" for k, one in heard.items()])
    return words.at(point.label, f"{text[0].lower()}{text[1:]}.")


def _when(point: Point) -> str:
    found = _at(point.metric("alarm_s"))
    return "noticed nothing" if found == "never" else f"noticed a doubled rate at {found}"


def _at(estimate: subject.Values) -> str:
    partly = subject.moment(estimate)
    return words.seconds(estimate.value) if partly is None else partly


def next_settings(seen: View) -> list[tuple[str, str]]:
    """Return settings (``PATH=VALUE``) worth another run where answers were wrong, each with what it would show."""
    if not seen.lead or not seen.points:
        return []
    point = highest(seen.points, "delivered_wrong" if "delivered_wrong" in seen.lead else "wrong")
    varied, found = point.values, []
    for k, one in enumerate(seen.scenario.control):
        team, path = getattr(one, "team", ""), f"control.{k}.reviewers"
        if point.metric(f"team.{team}.late_share").value > LATE and isinstance(one.reviewers, int):
            found += [(f"{path}={2 * one.reviewers}", f"what twice the reviewers of {team} catch")] * (
                path not in varied
            )
    path = "quality.evaluation.share"
    looks = "alarm_s" in point.metrics and seen.scenario.quality.evaluation.share not in (None, 1.0)
    if looks and subject.names(point.metrics, "cause") and not any(one.startswith(path) for one in varied):
        found.append((f"{path}=100%", "how soon it is noticed when every answer is looked at"))
    return found
