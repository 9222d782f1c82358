"""What a model's confidence is worth, in tables: measures, what gates would catch and cost, cohort by cohort."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sim.errors import RunError
from sim.quality import calibration, gates, judges, sampling
from sim.quality.answers import Answers
from sim.report import printing, words
from sim.theory.chance import Interval
from sim.theory.counted import wilson
from sim.words import count

if TYPE_CHECKING:
    from rich.console import RenderableType

THRESHOLD = 0.8
"""The fixed gate that cohorts are compared at, where no costs say which is right."""
SHARE = 0.05
"""The quantile gate that cohorts are compared at: one answer in twenty."""
MOST_COHORTS = 12
FEW_WRONG = 30
TOO_FEW = 10
"""Wrong answers, or right ones, below which nothing is said but that."""
ALARM = 0.05
"""How often any cohort at all may be called worse than the others where none is."""
MATTERS = 0.1
"""Share of errors (or of answers held back) from which on a difference is worth doing something about."""


@dataclass(frozen=True)
class Cohort:
    """The answers of one cohort, or of all: how often wrong, calibration, discrimination, and what both gates do."""

    name: str
    answers: int
    wrong: Interval
    ece: calibration.Ece
    auroc: Interval | None
    fixed: gates.Gated
    quantile: gates.Gated


@dataclass(frozen=True)
class Found:
    """Everything that is said about a file of answers."""

    name: str
    read_as: str
    data: Answers
    whole: Cohort
    cohorts: list[Cohort]
    bins: calibration.Bins
    brier: calibration.Brier
    aurc: float
    slope: float
    shift: float
    fixed: list[gates.Gated]
    quantile: list[gates.Gated]
    put_right: gates.Gated
    cheapest: gates.Gated | None
    costs: tuple[float, float] | None
    wrong_of_all: Interval | None
    """With the answers that nobody graded, where there are any: had chance chosen which were graded."""
    wrong_by_gate: Interval | None
    """The same had chance chosen on either side of the fixed gate, but perhaps more of those that it holds back."""
    chances: dict[str, float]
    """By cohort: how likely so many wrong answers were if it were like the others, all tests at once."""

    @property
    def worse(self) -> list[str]:
        """The cohorts that are wrong more often than the others, and not by chance; the surest first."""
        return sorted((name for name, p in self.chances.items() if p < ALARM), key=lambda name: self.chances[name])

    @property
    def best(self) -> float:
        """The share of errors that the best order of answers would let the quantile gate catch."""
        return gates.perfect(SHARE, self.whole.wrong.estimate)


def examine(name: str, data: Answers, costs: tuple[float, float] | None = None) -> Found:
    """Return what the confidence of *data* is worth; *costs* are of one look and of one error that gets through.

    Raises:
        RunError: all answers are right, or all are wrong.
    """
    c, y = data.confidence, data.correct
    if y.all() or not y.any():
        what = "right" if y.all() else "wrong"
        who = f"all {len(y):,} answers are {what}" if len(y) > 1 else f"its one answer is {what}"
        raise RunError(f"{name}: {who}; nothing to tell apart")
    review, error = costs or (0.0, 0.0)
    threshold = gates.threshold_of_least_cost(review, error) if costs else THRESHOLD
    both = (gates.Gate(threshold), gates.of_share(c, SHARE))
    groups = {} if data.cohort is None else {str(group): data.cohort == group for group in np.unique(data.cohort)}
    slope, shift = calibration.recalibration(c, y)
    thresholds = sorted({*gates.THRESHOLDS, threshold})
    return Found(
        name,
        data.read_as,
        data,
        _cohort("all", c, y, both, review, error),
        [_cohort(group, c[mask], y[mask], both, review, error) for group, mask in groups.items()],
        calibration.reliability(c, y),
        calibration.brier(c, y),
        calibration.aurc(c, y),
        slope,
        shift,
        gates.fixed(c, y, thresholds, review, error),
        gates.quantile(c, y, gates.SHARES, review, error),
        gates.judge(both[0], calibration.recalibrated(c, slope, shift), y, review, error),
        gates.cheapest(c, y, review, error) if costs else None,
        costs,
        judges.prediction_powered(~y, 1 - c, 1 - data.ungraded).interval if data.ungraded.size else None,
        _by_gate(data, both[0]),
        _chances(y, groups) if len(groups) > 1 else {},
    )


def _by_gate(data: Answers, gate: gates.Gate) -> Interval | None:
    """Return the error rate of all, graded or not, with the gate as the judge that says where people look."""
    held, held_ungraded = data.confidence < gate.threshold, data.ungraded < gate.threshold
    if not data.ungraded.size or held.all() or not held.any():
        return None
    flagged = int(held.sum() + held_ungraded.sum()), held.size + held_ungraded.size
    below, above = ((int((~data.correct[side]).sum()), int(side.sum())) for side in (held, ~held))
    return judges.two_phase(flagged, below, above)


def _chances(y: np.ndarray, groups: dict[str, np.ndarray]) -> dict[str, float]:
    wrong, answers = ([int((mask & which).sum()) for mask in groups.values()] for which in (~y, np.ones_like(y)))
    return dict(zip(groups, sampling.worse_than_the_others(wrong, answers).tolist()))


def _cohort(
    name: str, c: np.ndarray, y: np.ndarray, both: tuple[gates.Gate, gates.Gate], review: float, error: float
) -> Cohort:
    fixed, quantile = (gates.judge(gate, c, y, review, error) for gate in both)
    area = calibration.auroc(c, y) if y.any() and not y.all() else None
    ece = calibration.ece(calibration.reliability(c, y))
    return Cohort(name, len(y), wilson(int((~y).sum()), len(y)), ece, area, fixed, quantile)


def verdict(found: Found) -> list[str]:
    """Return what matters here, calibration or discrimination, and why, in sentences."""
    now, then, whole = found.whole.fixed, found.put_right, found.whole
    area = whole.auroc.estimate if whole.auroc else 0.5
    at, held = f"{now.gate.threshold:g}", words.percent(SHARE)
    gap = max(abs(then.caught.estimate - now.caught.estimate), abs(then.escalated - now.escalated))
    off = whole.ece.plain > whole.ece.floor
    short = found.best - whole.quantile.caught.estimate
    calibrate = off and gap >= MATTERS
    wrong = int((~found.data.correct).sum())
    fewest = min(wrong, whole.answers - wrong)
    if fewest < TOO_FEW:
        right = whole.answers - wrong
        first = f"Too few to tell: {count(wrong, 'wrong answer')} and {count(right, 'right one')}."
    elif area < 0.6 or (short >= MATTERS and short > gap):
        first = "What matters here is discrimination: confidence does not tell enough wrong answers from right ones."
        if calibrate:
            first += " Calibration is off too, for a fixed threshold."
    elif calibrate:
        first = f"What matters here is calibration, for a fixed threshold; holding back the lowest {held} does without."
    else:
        first = "Neither calibration nor discrimination is in the way of a gate here."
    about = (
        f"A gate at {at} holds back {words.percent(now.escalated)} and catches {words.percent(now.caught.estimate)} of "
    )
    about += f"the errors; were confidences put right, {words.percent(then.escalated)} and "
    about += f"{words.percent(then.caught.estimate)}."
    order = f"Holding back the lowest {held} catches {words.percent(whole.quantile.caught.estimate)}, of "
    order += f"{words.percent(found.best)} that the best order could; no recalibration changes that."
    said = [first, about, order]
    if wrong < FEW_WRONG:
        said.append(f"All of this rests on {count(wrong, 'wrong answer')}: see how wide the intervals are.")
    return said


def show(found: Found, commands: Sequence[tuple[str, str]], file: IO[str]) -> None:
    """Print what was found to *file*."""
    from rich.text import Text

    n, wrong = found.whole.answers, found.whole.wrong
    title = f"{found.name}: {count(n, 'answer')}, {words.percent(wrong.estimate)} wrong"
    title += f"; {found.data.ungraded.size:,} more not graded" if found.data.ungraded.size else ""
    title += ", too few to tell" if verdict(found)[0].startswith("Too few") else ""
    about: list[RenderableType] = [Text(found.read_as)] if found.read_as else []
    about += [Text(sentence) for sentence in verdict(found)]
    blocks: list[printing.Block] = [
        (title, about),
        ("What the confidence is worth", [_measures(found)]),
        ("A gate at a fixed threshold: below it, people look", [_gates(found, found.fixed, "below")]),
        ("A gate for the least confident share: no need of calibration", [_gates(found, found.quantile, "lowest")]),
    ]
    if found.cohorts:
        blocks.append(("By cohort", _cohorts(found)))
    printing.show(blocks, commands, file)


def _share(found: Interval) -> str:
    return f"{words.percent(found.estimate)} [{words.percent(found.low)}, {words.percent(found.high)}]"


def _number(found: Interval) -> str:
    return f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _measures(found: Found) -> "RenderableType":
    ece, brier = found.whole.ece, found.brier
    rows = [["wrong", _share(found.whole.wrong), "95%, Wilson"]]
    if found.wrong_of_all:
        rows.append(["the same of all, by their confidence", _share(found.wrong_of_all),
                     "95%, PPI++; if chance chose which were graded"])  # fmt: skip
    if found.wrong_by_gate:
        rows.append([f"the same of all, by the gate at {found.whole.fixed.gate.threshold:g}",
                     _share(found.wrong_by_gate), "95%; if chance chose on either side of it"])  # fmt: skip
    rows.append(["calibration error (ECE)", _share(ece.interval),
                 f"{words.percent(ece.plain)} binned; up to {words.percent(ece.floor)} is chance"])  # fmt: skip
    if found.whole.auroc:
        rows.append(["discrimination (AUROC)", _number(found.whole.auroc), "1 tells all, 0.5 tells nothing"])
    parts = f"{brier.reliability:.5f} − {brier.resolution:.5f} + {brier.uncertainty:.5f}"
    parts += f" {'+' if brier.within >= 0 else '−'} {abs(brier.within):.5f}"
    rows.append(["Brier score", f"{brier.score:.5f}", f"{parts}: reliability, resolution, uncertainty, within bins"])
    rows.append(
        ["risk over coverage (AURC)", f"{found.aurc:.5f}", "the mean error if more or less is answered; low is good"]
    )
    put_right = f"σ({found.slope:.2f} logit c {'+' if found.shift >= 0 else '−'} {abs(found.shift):.2f})"
    rows.append(["put right by", put_right, "Platt; a slope below 1, or a shift below 0, mends over-confidence"])
    return printing.table(("", "", ""), rows, texts=(1, 2))


def _gates(found: Found, rows: Sequence[gates.Gated], how: str) -> "RenderableType":
    columns = [how, "held back", "errors caught", "errors left", "best possible"]
    made = []
    for row, share in zip(rows, gates.SHARES if how == "lowest" else [0.0] * len(rows)):
        name = words.percent(share) if how == "lowest" else f"{row.gate.threshold:g}"
        best = words.percent(gates.perfect(row.escalated, found.whole.wrong.estimate))
        cells = [name, words.percent(row.escalated), _share(row.caught), words.percent(row.residual), best]
        made.append([*cells, *([words.number(1000 * row.cost)] if found.costs else [])])
    if found.cheapest and how == "below":
        row = found.cheapest
        made.append([f"{row.gate.threshold:.4g}, cheapest", words.percent(row.escalated), _share(row.caught),
                     words.percent(row.residual), "", words.number(1000 * row.cost)])  # fmt: skip
    return printing.table([*columns, *(["cost of 1,000"] if found.costs else [])], made)


def _cohorts(found: Found) -> "list[RenderableType]":
    from rich.text import Text

    at = f"{found.whole.fixed.gate.threshold:g}"
    held = words.percent(SHARE)
    head = ("", "answers", "wrong", "ECE", "AUROC", f"below {at}", "caught", f"lowest {held}", "caught")
    worst = sorted(found.cohorts, key=lambda cohort: -cohort.wrong.estimate)
    rows = [
        [
            one.name, f"{one.answers:,}", _share(one.wrong), words.percent(one.ece.interval.estimate),
            f"{one.auroc.estimate:.3f}" if one.auroc else "–",
            words.percent(one.fixed.escalated), words.percent(one.fixed.caught.estimate),
            words.percent(one.quantile.escalated), words.percent(one.quantile.caught.estimate),
        ]
        for one in [*worst[:MOST_COHORTS], found.whole]
    ]  # fmt: skip
    rest = len(worst) - MOST_COHORTS
    note = f"{held} of all answers, not of each cohort." + (
        f" {rest} cohorts with fewer errors are in --json." if rest > 0 else ""
    )
    return [printing.table(head, rows), Text(note, style="dim"), *map(Text, _worse(found))]


def _worse(found: Found) -> list[str]:
    """Return whether cohorts are worse than the others by more than chance; nothing where there is but one."""
    if not found.chances:
        return []
    how = f"(Fisher's exact test, Holm's correction for {count(len(found.chances), 'cohort')})"
    if not found.worse:
        return [f"None is wrong more often than the others by more than chance {how}."]
    some = found.worse[:MOST_COHORTS]
    more = f" and {len(found.worse) - len(some)} more" if len(found.worse) > len(some) else ""
    return [f"Wrong more often than the others, and not by chance: {', '.join(some)}{more} {how}."]


def as_json(found: Found) -> dict[str, Any]:
    """Return everything but the answers themselves."""
    return {
        "file": found.name,
        "read_as": found.read_as,
        "verdict": verdict(found),
        **_plain(found.whole),
        "brier": found.brier._asdict(),
        "aurc": found.aurc,
        "recalibration": {"slope": found.slope, "shift": found.shift},
        "bins": {"answers": found.bins.answers, "confidence": found.bins.confidence, "accuracy": found.bins.accuracy},
        "gates_fixed": [_gate(row) for row in found.fixed],
        "gates_quantile": [{"share": share, **_gate(row)} for share, row in zip(gates.SHARES, found.quantile)],
        "fixed_put_right": _gate(found.put_right),
        "cheapest": _gate(found.cheapest) if found.cheapest else None,
        "cohorts": [_plain(cohort) | {"chance": found.chances.get(cohort.name)} for cohort in found.cohorts],
        "worse_than_the_others": found.worse,
        "ungraded": int(found.data.ungraded.size),
        "wrong_of_all": found.wrong_of_all._asdict() if found.wrong_of_all else None,
        "wrong_by_gate": found.wrong_by_gate._asdict() if found.wrong_by_gate else None,
    }


def _plain(one: Cohort) -> dict[str, Any]:
    ece = {"binned": one.ece.plain, **one.ece.interval._asdict(), "floor": one.ece.floor}
    area = one.auroc._asdict() if one.auroc else None
    return {"name": one.name, "answers": one.answers, "wrong": one.wrong._asdict(), "ece": ece, "auroc": area,
            "fixed": _gate(one.fixed), "quantile": _gate(one.quantile)}  # fmt: skip


def _gate(row: gates.Gated) -> dict[str, Any]:
    return {"threshold": row.gate.threshold, "held_back": row.escalated, "caught": row.caught._asdict(),
            "errors_left": row.residual, "cost": row.cost}  # fmt: skip
