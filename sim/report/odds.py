"""The back of the envelope, as small tables: each line a number, and the formula that it comes from.

`Question` is what was asked, in units that fit together; `sections` answers it. The arithmetic is in `sim.quality`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from sim.quality import chains, decision, judges, rates, volume
from sim.report import printing, words
from sim.theory.chance import Interval, clopper_pearson, compound
from sim.theory.counted import wilson
from sim.words import count

if TYPE_CHECKING:
    from rich.console import RenderableType

MILLION = 1e6
MONTH_DAYS = 30
PRECISION = 0.25
"""How well one wants to know an error rate: within a quarter of itself."""


@dataclass(frozen=True)
class Chain:
    """An agent's *steps*, each right with chance *step_ok*; a *verifier* (sensitivity, false alarm) may object."""

    steps: int
    step_ok: float
    verifier: tuple[float, float] | None = None
    retries: int | None = None


@dataclass(frozen=True)
class Question:
    """What is asked: how often *unit* s are wrong, how many there are, and what depends on it; None is not asked."""

    unit: str
    error: Interval
    per_day: float | None = None
    users: float | None = None
    peak: float | None = None
    segments: int | None = None
    segment_error: float | None = None
    chain: Chain | None = None
    tested: tuple[int, int] | None = None
    judge: tuple[float, float] | None = None
    stakes: decision.Stakes | None = None
    repair_s: float | None = None


class Line(NamedTuple):
    """One number: its key in JSON and its value there, what a person calls it and reads, and the formula."""

    key: str
    value: float | str | list[float]
    name: str
    text: str
    formula: str


class Section(NamedTuple):
    """A titled table, and what it takes for granted."""

    key: str
    title: str
    lines: list[Line]
    note: str = ""


def sections(asked: Question) -> list[Section]:
    """Return the answer: one table for each thing that was asked."""
    found = [
        _chain(asked.chain) if asked.chain else None,
        _test(asked) if asked.tested else None,
        _records(asked) if asked.segments and asked.segment_error is not None else None,
        _volume(asked, asked.per_day) if asked.per_day is not None else None,
        _noticing(asked.error.estimate) if 0 < asked.error.estimate < 0.5 else None,
        _judged(asked.error.estimate, *asked.judge) if asked.judge else None,
        _good_enough(asked, asked.stakes) if asked.stakes else None,
    ]
    return [section for section in found if section]


def _volume(asked: Question, per_day: float) -> Section:
    error, unit = asked.error.estimate, asked.unit
    flat, busy = volume.volume(per_day, error), volume.volume(per_day, error, asked.peak or 1.0)
    # Of a given number asked: binomial, so that there is no chance in all or none being wrong.
    sd = math.sqrt(per_day * error * (1 - error))
    luck = f"{words.number(flat.per_day)} ± {words.number(round(2 * sd))}"
    lines = [
        Line(
            "wrong_per_day",
            flat.per_day,
            "wrong a day",
            luck,
            f"{words.number(per_day)} × {words.percent(error)}, ± 2√(n p (1 − p))",
        ),
        Line("wrong_per_minute", flat.per_minute, "a minute, on average", f"{flat.per_minute:,.1f}", "÷ 1,440"),
    ]
    if asked.error.low < asked.error.high:
        ends = [per_day * asked.error.low, per_day * asked.error.high]
        span = f"{words.number(round(ends[0]))} to {words.number(round(ends[1]))}"
        lines.insert(1, Line("wrong_per_day_interval", ends, "by what the test can tell", span, "95%, exact"))
    if asked.peak is not None:
        most = f"{busy.peak_minute:,.1f}"
        lines.append(
            Line("wrong_per_minute_peak", busy.peak_minute, "in the busiest minute", most, f"× {asked.peak:g}")
        )
    if flat.per_day:
        lines += _million(flat.per_day, asked.peak)
    if asked.users:
        each = per_day / asked.users * MONTH_DAYS
        met = -math.expm1(each * math.log1p(-error)) if error < 1 else 1.0
        formula = f"1 − {1 - error:.4g}^{each:g}, if errors are random"
        lines.append(Line("users_met", met, f"users who meet one in {MONTH_DAYS} days", words.percent(met), formula))
    if asked.repair_s is not None:
        hours, people = decision.repair_hours(flat.per_day, asked.repair_s)
        team = f"at {words.tick(asked.repair_s)} each: {words.number(math.ceil(people))} people, 8 h a day"
        lines.append(Line("repair_hours", hours, "hours to repair those of a day", words.number(round(hours)), team))
    return Section("volume", f"{words.number(per_day)} {unit}s a day, {words.percent(error)} of them wrong", lines)


def _million(per_day: float, peak: float | None) -> list[Line]:
    """When a million wrong answers have been given, counting from midnight."""

    def line(key: str, name: str, factor: float, formula: str) -> Line:
        at_s = volume.reached_s(MILLION, per_day, factor)
        text = f"at {words.clock(at_s)}" if at_s < 3 * volume.DAY_S else f"in {at_s / volume.DAY_S:,.1f} days"
        return Line(key, at_s, name, text, formula)

    found = [line("million_s", "the millionth, from midnight", 1.0, "10⁶ ÷ wrong a day, flat load")]
    if peak is not None and peak > 1:
        day = f"a sinusoid with its peak, × {peak:g}, at {words.clock(volume.PEAK_AT_S)}"
        found.append(line("million_diurnal_s", "with quiet nights", peak, day))
    return found


def _records(asked: Question) -> Section:
    n, each = asked.segments or 1, asked.segment_error or 0.0
    whole = volume.record_error(each, n)
    return Section("records", f"Records of {n:,} segments", [
        Line("segment_error", each, "segments that are wrong", words.percent(each), ""),
        Line("record_error", whole, "records with an error in them", words.percent(whole), f"1 − (1 − {each:.4g})^{n}"),
    ], "Segments are taken to fail alone; where they fail together, fewer records have more errors each.")  # fmt: skip


def _chain(chain: Chain) -> Section:
    right = plain = compound(chain.step_ok, chain.steps)
    name = "all steps right" if chain.verifier is None else "all steps right, unchecked"
    lines = [Line("all_right", plain, name, _exact(plain), f"{chain.step_ok:g}^{chain.steps}")]
    note = "Steps are taken to fail alone. Where some tasks are harder than others, more tasks succeed than this says."
    if chain.verifier is not None:
        d, f = chain.verifier
        step = chains.verified(chain.step_ok, d, f, chain.retries)
        right = step.right**chain.steps
        again = "retried until one passes" if chain.retries is None else f"retried {chain.retries} times at most"
        formula = "p(1 − f) ÷ (p(1 − f) + (1 − p)(1 − d))" if chain.retries is None else "A(1 + q + … + qʳ⁻¹) + qʳp"
        lines += [
            Line("step_right", step.right, f"a step, checked and {again}", _exact(step.right), formula),
            Line(
                "all_right_verified",
                right,
                "all steps right, checked",
                _exact(right),
                f"{step.right:.5f}^{chain.steps}",
            ),
            Line("calls_per_step", step.calls, "calls of the model a step", f"{step.calls:.3f}", "1 + q + q² + …"),
        ]
        note += (
            f" p = {chain.step_ok:g}; the verifier flags d = {words.percent(d)} of wrong steps and "
            f"f = {words.percent(f)} of right ones; q = pf + (1 − p)d is flagged and tried anew, "
            "A = p(1 − f) passes and is right."
        )
    lines.append(Line("task_error", 1 - right, "tasks that fail", _exact(1 - right), "1 − all steps right"))
    return Section("steps", f"{count(chain.steps, 'step')} that must all be right", lines, note)


def _exact(share: float) -> str:
    return f"{100 * share:.2f}%"


def _test(asked: Question) -> Section:
    wrong, tested = asked.tested or (0, 1)
    exact, score = clopper_pearson(wrong, tested), wilson(wrong, tested)

    def span(found: Interval) -> str:
        return f"{_exact(found.low)} to {_exact(found.high)}"

    lines = [
        Line("error", exact.estimate, "wrong", _exact(exact.estimate), f"{wrong:,} of {tested:,}"),
        Line("error_interval", [exact.low, exact.high], "could as well be", span(exact),
             "95%, Clopper and Pearson (exact)"),
        Line("error_wilson", [score.low, score.high], "or, less cautious", span(score),
             "95%, Wilson"),
    ]  # fmt: skip
    return Section("test", f"A test of {tested:,} {asked.unit}s", lines,
                   "This is the error on the test's own mix of questions; users bring another one.")  # fmt: skip


def _noticing(p: float) -> Section:
    known, arms = rates.to_notice(p, 2 * p), rates.to_notice(p, 2 * p, arms=2)
    near = rates.to_estimate(p, PRECISION * p)
    rare = p / 10
    lines = [
        Line("graded_to_know", near, f"graded by people to know it ± {words.percent(PRECISION)}", f"{near:,}",
             "p(1 − p)(1.96 ÷ ¼p)²"),
        Line("graded_to_notice", known, "to notice it doubled", f"{known:,}", "8 times in 10; false alarms 1 in 20"),
        Line("graded_to_notice_arms", arms, "the same, a canary beside the old", f"{arms:,}", "each"),
        Line("graded_to_see", rates.to_see(rare), f"to meet once what is {words.percent(rare)} of all",
             f"{rates.to_see(rare):,}", "ln 0.05 ÷ ln(1 − q)"),
    ]  # fmt: skip
    return Section("noticing", f"What it takes to see {words.percent(p)}", lines)


def _judged(p: float, se: float, sp: float) -> Section:
    """What a judging model would show, and how many human labels it saves, or wastes, at the same precision."""
    shown = judges.apparent(p, se, sp)
    slip = 0.01 / (se + sp - 1)
    lines = [
        Line("judge_shows", shown, "a judge would show", words.percent(shown), "p·Se + (1 − p)(1 − Sp)"),
        Line(
            "judge_slip", slip, "if its Sp is 1 point off, off by", f"{100 * slip:.2f} points", "0.01 ÷ (Se + Sp − 1)"
        ),
    ]
    note = f"The judge flags {words.percent(se)} of wrong answers and passes {words.percent(sp)} of right ones."
    if se == sp == 1 and 0 < p < 1:
        note += " It never errs, as a schema check does not: nobody has to look."
    elif 0 < p < 1 and 0 < shown < 1:
        split = judges.best_split(p, se, sp)
        many = 1e12  # the judge's own verdicts cost next to nothing beside a person's
        gain = p * (1 - p) / judges.two_phase_variance(p, se, sp, many, split, 1 - split)
        lines.append(Line("labels_saved", gain, "labels by people go further", f"{gain:.1f}-fold",
                          f"{words.percent(split)} of them on what the judge flags"))  # fmt: skip
        note += " Best use of it: let it say where people look. That stays right however good or bad the judge is."
    return Section("judge", "What a judging model is good for", lines, note)


CHOICES = {
    "ship": ("ship it as it is", "wrong less often than break-even"),
    "review": ("have people look first", "wrong more often than break-even"),
    "unsure": ("test more", "its interval holds the break-even"),
}


def _good_enough(asked: Question, stakes: decision.Stakes) -> Section:
    made = decision.decide(asked.error, stakes)
    limit = "never" if made.break_even > 1 else f"from {_exact(made.break_even)} wrong on"
    lines = [
        Line("choice", made.choice, "cheaper", *CHOICES[made.choice]),
        Line("harm", stakes.harm, "a wrong one costs", f"{stakes.harm:,.4g}",
             "stakes × (1 − m) + review × m"),
        Line("cost_ship", made.ship_cost, f"each {asked.unit}, shipped", f"{made.ship_cost:,.4g}", "error × that"),
        Line("cost_review", made.review_cost, f"each {asked.unit}, looked at", f"{made.review_cost:,.4g}",
             f"review + error × {words.percent(1 - stakes.catch)} missed × that"),
        Line("break_even", made.break_even, "looking pays", limit, "review ÷ (that × catch)"),
    ]  # fmt: skip
    mended = stakes.reversible * stakes.detectable
    note = f"m = {words.percent(mended)} are mended: noticed, and reversible. Expected costs, not worst cases."
    if asked.per_day:
        saved = abs(made.ship_cost - made.review_cost) * asked.per_day
        lines.append(
            Line("difference_per_day", saved, "the two ways differ, a day, by", words.number(round(saved)), "")
        )
    return Section("decision", "Good enough?", lines, note)


def as_json(asked: Question) -> dict[str, Any]:
    """Return every number by section and key, with its formula."""
    return {
        "unit": asked.unit,
        **{s.key: {line.key: line.value for line in s.lines} for s in sections(asked)},
        "formulas": {line.key: line.formula for s in sections(asked) for line in s.lines if line.formula},
        "notes": [s.note for s in sections(asked) if s.note],
    }


def show(asked: Question, commands: Sequence[tuple[str, str]], file: IO[str]) -> None:
    """Print the tables to *file*."""
    printing.show([(section.title, _block(section)) for section in sections(asked)], commands, file)


WIDE = 40
"""Columns for what a line is called, so that sections stand under each other."""


def _block(section: Section) -> list["RenderableType"]:
    from rich.text import Text

    rows: list[list[printing.Cell]] = [
        [f"{line.name:{WIDE}}", Text(line.text, style="bold"), Text(line.formula, style="dim")]
        for line in section.lines
    ]
    table = printing.table(("", "", ""), rows, texts=(2,))
    return [table, Text(section.note, style="dim")] if section.note else [table]
