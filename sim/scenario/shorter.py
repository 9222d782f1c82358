"""A run that an option makes shorter than its file says: which claims it cannot judge, and what else is to be set."""

from collections.abc import Mapping, Sequence

from sim import claims
from sim.claims import Arithmetic, Metric, Node, Number
from sim.errors import ScenarioError
from sim.scenario.messages import Problem
from sim.scenario.options import Option
from sim.words import show

TOTALS = frozenset(
    {
        *("requests", "ok", "rejected", "timed_out", "failed", "cancelled", "unfinished", "wrong"),
        *("attempts", "retries", "hedges", "preemptions", "steps"),
        *("wrong_per_min_mean", "wrong_per_min_peak", "errors_budget_spent", "wrong_budget_spent", "flips", "graded"),
        *("tasks", "task_ok", "task_wrong", "task_failed", "task_unfinished", "irreversible_wrong", "count"),
        *("escalated", "withheld", "reviewed", "late", "caught", "delivered_wrong"),
        *("incidents", "pages", "false_pages"),
    }
)
"""Metrics, by their last word, that add up over a run or are of its whole day; a part of it says nothing of them."""


def unjudged(asked: Mapping[str, str], duration_s: float, options: Sequence[Option]) -> list[str]:
    """Return the names of the claims *asked* in the file that a shorter run, of *duration_s*, cannot judge.

    They hold a total against a number other than 0, or speak of a time after its end. What *options* say themselves is
    judged.
    """
    own = {option.keys[1:] for option in options if option.keys[0] == "claims"}
    return [name for name, text in asked.items() if not own & {(), (name,)} and _is_lost(text, duration_s)]


def _is_lost(text: str, duration_s: float) -> bool:
    try:
        claim = claims.parse(text)
    except ScenarioError:
        return False  # the checks will say what is wrong with it
    if any(claims.beyond(metric, duration_s) for metric, _ in claim.metrics):
        return True
    sides = (claim.left, claim.right)
    nothing = any(isinstance(side, Number) and side.value == 0 for side in sides)
    return not nothing and sum(map(_grows, sides)) == 1


def _grows(node: Node) -> bool:
    """Return whether *node* is a total: one over another is not, nor is what has none in it."""
    if isinstance(node, Arithmetic):
        left, right = _grows(node.left), _grows(node.right)
        return left != right if node.sign == "/" else left or right
    return isinstance(node, Metric) and "@" not in node.name and _adds_up(node.name)


def _adds_up(metric: str) -> bool:
    """Return whether *metric* is one of `TOTALS`; what an alert has ``caught`` is a share of incidents."""
    kind = metric.rpartition(".")[2]
    return kind in TOTALS and not (kind == "caught" and metric.startswith("alert."))


def hinted(problem: Problem, duration_s: float, options: Sequence[Option]) -> Problem:
    """Return *problem*; where only the duration was set and the warm-up is longer, with what to set too."""
    keys, said = problem
    asked = {option.keys for option in options}
    if keys != ("warmup",) or ("duration",) not in asked or keys in asked:
        return problem
    return keys, f"{said}; set it too, as in --set warmup={duration_s / 10:g}s"


def told(lost: Sequence[str], duration_s: float, own_s: float) -> str:
    """Return the sentence about claims *lost* to a run of *duration_s* where the file's *own_s* is longer."""
    return f"not judged: shorter than the scenario ({show(duration_s)} s of {show(own_s)} s): {', '.join(lost)}"
