"""What can be wrong with a rule: every kind of finding, how grave it is, and why it matters.

The numbers are of Blowout's own measurements (docs/reference/lint.md says of which) unless a source is named.
"""

from dataclasses import dataclass
from enum import StrEnum

from sim.alerts.rulefile import Rule


class Level(StrEnum):
    """An error: the rule does not do what it says. A warning: at times it will not. A remark: worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


ERROR, WARNING, INFO = Level.ERROR, Level.WARNING, Level.INFO

KINDS: dict[str, tuple[Level, str]] = {
    "unknown-metric": (ERROR, "a name that no process exposes matches nothing, and the rule stays silent for ever"),
    "renamed-metric": (ERROR, "current vLLM no longer exposes it, so the rule stays silent"),
    "missing-suffix": (ERROR, "the client library adds _total to counters and _bucket, _sum, _count to histograms"),
    "unknown-label": (ERROR, "a label that is not there makes = match nothing, and != match everything"),
    "unknown-value": (ERROR, "a value that never occurs makes = match nothing, and != match everything"),
    "never-counted": (
        ERROR,
        "vLLM leaves this series at 0 when requests fail or clients go away; failures are seen at the gateway",
    ),
    "missing-rate": (
        ERROR,
        "a counter only grows until its process restarts: it says what has happened since the start, not what happens",
    ),
    "rate-of-gauge": (ERROR, "rate takes every fall of a gauge for a restarted counter and invents growth"),
    "missing-le": (ERROR, "histogram_quantile needs the label le; without it there is no value"),
    "percent-for-fraction": (ERROR, "it lies between 0 and 1, also where the name says perc; 1 means 100 percent"),
    "unreachable-burn": (
        ERROR,
        "the error budget cannot burn faster than 1/(1-SLO): 14.4x needs an SLO above 93.06%, 6x above 83.3%",
    ),
    "never-true": (ERROR, "no value that can come makes the condition true"),
    "always-true": (ERROR, "every value that can come makes the condition true"),
    "tail-ratio": (
        ERROR,
        "it measures how different the users' lengths are: healthy chat has 4.5 (whole answers) and 3.2 to 3.7 (first "
        "tokens), above 3 in 64% to 82% of five-minute windows; and it falls when everything gets slow",
    ),
    "templated-label": (ERROR, "a label that changes makes another alert, and for starts again each time"),
    "threshold-in-bucket": (
        WARNING,
        "inside a bucket Prometheus invents values: with every request at 2.6 s it reports a P95 of 4.88 s",
    ),
    "whole-answer-latency": (
        WARNING,
        "whole answers last as long as users make them: the P95 of healthy chat is 9.9 to 24.6 s, by token speed",
    ),
    "no-minimum-traffic": (
        WARNING,
        "at 0.5% true errors and 300 requests a window, a share above 1% for 5m pages 31 times a week for nothing; at "
        "100 requests and 0.3%, 37 times",
    ),
    "gauge-with-for": (INFO, "one good sample in twenty starts for again: 95% of the time bad, and it never fires"),
    "no-absence-rule": (
        INFO,
        "without traffic a share is 0/0, which is above nothing: a total outage resolves the alert that it caused",
    ),
    "for-below-interval": (INFO, "for is looked at once an interval, so that a shorter one means one interval"),
    "unchecked": (INFO, "nothing is known of the name, so neither its unit nor its labels were checked"),
    "not-judged": (INFO, "alerts eval refuses the rule, so how it behaves cannot be tried before an incident"),
    "true-when-healthy": (ERROR, "it is true nearly always, so that it says nothing"),
    "fires-when-healthy": (WARNING, "whoever gets it for nothing stops looking"),
    "no-value": (ERROR, "without a value it can never be true: it is silent, not quiet"),
    "always-zero": (INFO, "it may be that nobody counts it; an incident run tells"),
}
"""Level, and why it matters, of each kind. The last four come from series, the others from the text alone."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one rule (or, without a *rule*, with a whole file), and what to write instead."""

    kind: str
    what: str
    instead: str
    file: str
    line: int
    rule: str = ""

    @classmethod
    def of(cls, rule: Rule, kind: str, what: str, instead: str) -> "Finding":
        """Return a finding about *rule*."""
        return cls(kind, what, instead, rule.file, rule.line, rule.name)

    @property
    def level(self) -> Level:
        """How grave it is."""
        return KINDS[self.kind][0]

    @property
    def why(self) -> str:
        """Why it matters."""
        return KINDS[self.kind][1]
